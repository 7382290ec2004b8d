"""Without an accelerator: every kernel is in the module for its platform, under every transform."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesjx.ops import kron_pair
from benchmarks.ops._lowered import CALLS, cases, exported, lowered_calls, transformed

CASES = cases()
COMBINATIONS = [(name, how) for name, case in CASES.items() for how in transformed(case)]


@pytest.mark.parametrize("platform", CALLS)
@pytest.mark.parametrize("name, how", COMBINATIONS)
def test_kernels_are_called(name, how, platform):
    function, args, least = transformed(CASES[name])[how]
    assert lowered_calls(function, args, platform) >= least


@pytest.mark.parametrize("name", CASES)
def test_one_export_serves_all_platforms(name):
    function, args, _ = CASES[name]
    module = exported(function, args)
    assert all(call in module.mlir_module() for call in CALLS.values())
    jax.tree.map(
        lambda got, want: np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5),
        module.call(*args),
        function(*args),
    )


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_exported_too(name):
    function, args, _ = transformed(CASES[name])["grad"]
    text = exported(function, args).mlir_module()
    assert all(call in text for call in CALLS.values())


def test_the_cpu_gets_no_kernel():
    function, args, _ = CASES["kron_pair"]
    text = jax.jit(function).lower(*args).as_text()
    assert not any(call in text for call in CALLS.values())


@pytest.mark.parametrize("platform", CALLS)
def test_kernels_can_be_switched_off(platform, monkeypatch):
    args = CASES["kron_pair"].args
    assert lowered_calls(lambda *a: kron_pair(*a, kernels="xla"), args, platform) == 0
    monkeypatch.setenv("BAYESJX_KERNELS", "xla")
    assert lowered_calls(lambda *a: kron_pair(*a), args, platform) == 0


@pytest.mark.parametrize("platform", CALLS)
def test_a_pair_too_large_for_the_chip_is_two_products(platform):
    args = [jax.ShapeDtypeStruct(s, "float32") for s in ((4096, 8), (8, 8192), (8, 8192))]
    assert lowered_calls(kron_pair, tuple(args), platform) == 0


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    "dtype, platform, some",
    [
        (jnp.bfloat16, "tpu", True),
        (jnp.bfloat16, "cuda", True),
        (jnp.float64, "cuda", True),
        (jnp.float64, "tpu", False),  # TPUs have no float64: all of it is XLA's
    ],
)
def test_other_precisions(name, dtype, platform, some):
    case = CASES[name]
    case = case._replace(args=tuple(a.astype(dtype) for a in case.args))
    function, args, least = transformed(case)["grad"]
    calls = lowered_calls(function, args, platform)
    assert calls >= least if some else calls == 0
