"""How the programs of these tests are compiled."""

import jax
import pytest


@pytest.fixture(autouse=True)
def quick_compilation(request):
    """As for Gaussian processes: no optimisations by LLVM, but where a test says it needs them."""
    if request.node.get_closest_marker("optimised"):
        yield
        return
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
