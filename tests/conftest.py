"""Set up before anything of ours is imported: x64, compilation cache, run-time shape checks."""

import gc
import os
import sys
from importlib.metadata import version
from pathlib import Path

# Compiling is most of what the tests cost, so the results are kept between runs and, through the
# environment, shared with the subprocesses that some tests start.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(__file__).resolve().parents[1] / ".cache" / "jax")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

# Loops written by XLA's older emitters compile in half the time, and a program that is not split
# for several threads in less still; newer releases have the former no more, and end the process at
# an option that they do not know. Subprocesses inherit them.
if version("jaxlib").startswith("0.10."):
    os.environ["XLA_FLAGS"] = (
        f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false"
        " --xla_cpu_parallel_codegen_split_count=1"
    )

import costs
import jax
import jax.numpy as jnp
import pytest
import type_checks

if os.environ.get("BAYESJX_TYPECHECK", "1") != "0":
    type_checks.install("bayesjx")  # `own_errors` has them off
    # Where SlipCover measures, it has to see what that hook makes of a module.
    sys.meta_path.sort(key=lambda finder: not type(finder).__module__.startswith("slipcover"))

jax.config.update("jax_enable_x64", True)


def pytest_addoption(parser):
    parser.addoption("--costs", metavar="FILE", help="keep what each test costs in FILE (JSON)")


def pytest_configure(config):
    config.pluginmanager.register(costs.Ledger(config))
    config.pluginmanager.register(costs.Meter())


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """What is imported stays, and Python looks for no garbage in it, then or later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(20_000, 20, 20)
        gc.enable()


def pytest_collection_modifyitems(config, items):
    """Nightly tests run only where `-m` names them, or where they are named one by one."""
    if "nightly" in config.option.markexpr or any("::" in arg for arg in config.args):
        return
    nightly = [item for item in items if item.get_closest_marker("nightly")]
    if nightly:
        config.hook.pytest_deselected(items=nightly)
        items[:] = [item for item in items if not item.get_closest_marker("nightly")]


@pytest.fixture(params=[jnp.float32, jnp.float64], ids=["f32", "f64"])
def dtype(request):
    """The test runs in both precisions; outputs are expected in that of the inputs."""
    return request.param


@pytest.fixture
def tol(dtype):
    """Keyword arguments of `np.testing.assert_allclose` for an exact identity in `dtype`."""
    return {"rtol": 1e-4, "atol": 1e-5} if dtype == jnp.float32 else {"rtol": 1e-9, "atol": 1e-10}


@pytest.fixture
def getkey():
    """A function that returns a new key at each call; the same sequence in every test."""
    key = jax.random.key(20)

    def next_key():
        nonlocal key
        key, subkey = jax.random.split(key)
        return subkey

    return next_key


@pytest.fixture(autouse=True)
def own_errors(request):
    """The run-time shape checks come before our own errors: tests of their texts have none."""
    if not request.node.get_closest_marker("errors"):
        yield
        return
    type_checks.switch(False)
    yield
    type_checks.switch(True)


@pytest.fixture(autouse=True)
def quick_compilation(request):
    """Nearly all programs run once or a few times, so what they cost is their compilation.

    This leaves out the optimisations by LLVM, half of that time. XLA's own, which decide on memory
    and on communication between devices, stay. Tests of long programs are marked `optimised`; they
    share none with others, whose last bits would differ.
    """
    if request.node.get_closest_marker("optimised"):
        yield
        return
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module", autouse=True)
def forget_programs():
    """Frees what a file compiled: programs of all files exhaust the memory maps of a process."""
    yield
    jax.clear_caches()
    if "bayesjx._core" in sys.modules:
        sys.modules["bayesjx._core"].forget_programs()
