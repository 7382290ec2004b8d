"""Which back end is chosen, and the option of XLA that decides it on CPUs."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from bayesjx import kernels, ssm
from bayesjx.ssm import _backend

FUSED = "--xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold=100000"


def test_parts_run_side_by_side_where_loops_are_not_fused(monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    assert _backend.plan("auto", 10_000, 2, np.float64).lanes == 128
    assert _backend.plan("auto", 50, 2, np.float64).lanes == 1
    assert _backend.plan("auto", 10**8, 3, np.float64).lanes == 1024
    monkeypatch.setenv("XLA_FLAGS", FUSED)
    assert _backend.plan("auto", 10_000, 2, np.float64).lanes == 1
    assert _backend.plan("auto", 100_000, 2, np.float64).lanes == 1
    assert _backend.plan("auto", 100_000, 3, np.float64).lanes == 1
    assert _backend.plan("auto", 10_000, 9, np.float64).lanes == 16
    assert _backend.plan("auto", 10_000, 20, np.float64).lanes == 1
    assert _backend.plan("chunked", 10_000, 2, np.float64).lanes == 128
    assert _backend.plan("auto", 10_000, 2, np.float32).precise


def test_brief_processes_are_filtered_one_step_after_another_for_values(monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    times = np.sort(np.random.default_rng(0).uniform(0, 9, 90))
    y = np.sin(times)
    brief = [
        kernels.Matern32(1.0),
        kernels.IntegratedWiener(0.5, -1.0),
        kernels.Matern12(1.0) + 2.0 * kernels.Matern12(3.0),
    ]
    long = [kernels.SHO(2.0, 3.0), kernels.Matern52(1.0), kernels.Linear() + kernels.Constant()]
    assert all(ssm.MarkovGP(kernel, times, noise_var=0.1).plan.brief for kernel in brief)
    assert not any(ssm.MarkovGP(kernel, times, noise_var=0.1).plan.brief for kernel in long)
    assert not ssm.MarkovGP(
        kernels.Matern32(1.0), times, noise_var=0.1, backend="chunked"
    ).plan.brief
    assert not ssm.MarkovGP(kernels.Matern32(1.0), np.float32(times), noise_var=0.1).plan.brief

    def density(lengthscale, noise, y, backend="auto"):
        kernel = kernels.Matern32(lengthscale)
        return ssm.MarkovGP(kernel, times, noise_var=noise, backend=backend).log_prob(y)

    lengthscales = np.array([0.5, 1.0, 3.0])
    want = [jax.jit(density, static_argnums=3)(a, 0.1, y, "chunked") for a in lengthscales]
    for answer in (
        [jax.jit(density)(a, 0.1, y) for a in lengthscales],
        jax.jit(jax.vmap(density, (0, None, None)))(lengthscales, 0.1, y),
        jax.jit(jax.vmap(density))(lengthscales, np.full(3, 0.1), np.stack([y] * 3)),
    ):
        np.testing.assert_allclose(answer, want, rtol=1e-12)


def test_slow_loops_warn(monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    kernel, times = kernels.Matern32(1.0), np.arange(100.0)
    with pytest.warns(UserWarning, match="configure_cpu.. before the first computation"):
        ssm.MarkovGP(kernel, times, noise_var=0.1, backend="sequential")
    monkeypatch.setenv("XLA_FLAGS", FUSED)
    ssm.MarkovGP(kernel, times, noise_var=0.1, backend="sequential")


SCRIPT = """
import os
import jax, jax.numpy as jnp, numpy as np
import bayesjx
before = os.environ.get("XLA_FLAGS", "")
bayesjx.ssm, bayesjx.kernels
assert os.environ.get("XLA_FLAGS", "") == before, "set on import"
devices = jax.config.jax_num_cpu_devices
bayesjx.configure_cpu()
once = os.environ["XLA_FLAGS"]
bayesjx.configure_cpu()
assert os.environ["XLA_FLAGS"] == once
assert jax.config.jax_num_cpu_devices == devices
times = np.arange(200.0)
prior = bayesjx.ssm.MarkovGP(bayesjx.kernels.Matern52(3.0), times, noise_var=0.1)
assert prior.plan.lanes == 1
print(once, float(prior.log_prob(np.sin(times))))
try:
    bayesjx.configure_cpu()
except RuntimeError as error:
    print(error)
"""


@pytest.mark.parametrize("flags", ["", "--xla_backend_extra_options=xla_cpu_a=1 --xla_b=2"])
def test_the_option_is_added_before_jax_starts_and_refused_later(flags):
    """The other options are invented ones; XLA would refuse them, so nothing is computed there."""
    script = SCRIPT if not flags else SCRIPT.split("times =")[0] + "print(once)"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    if flags:
        assert done.stdout.split() == [
            "--xla_b=2",
            "--xla_backend_extra_options=xla_cpu_a=1,xla_cpu_small_while_loop_byte_threshold=100000",
        ]
        return
    printed, refused = done.stdout.splitlines()
    assert printed.split()[0] == FUSED
    assert "must be called before the first computation" in refused
    times = np.arange(200.0)
    prior = ssm.MarkovGP(kernels.Matern52(3.0), times, noise_var=0.1, backend="chunked")
    assert float(printed.split()[1]) == pytest.approx(
        float(prior.log_prob(np.sin(times))), rel=1e-5
    )
