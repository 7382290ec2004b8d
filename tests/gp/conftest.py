"""How the programs of these tests are compiled."""

import jax
import pytest


@pytest.fixture(autouse=True)
def quick_compilation():
    """Nearly all programs run once or a few times, so what they cost is their compilation.

    This leaves out the optimisations by LLVM, half of that time. XLA's own, which decide on memory
    and on communication between devices, stay.
    """
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
