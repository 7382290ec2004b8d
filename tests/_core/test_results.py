"""The enumeration of results: through `vmap`, in order, and as errors."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesjx import RESULTS
from bayesjx._core import first_of, is_successful, thrown


def test_the_first_case_that_holds_is_the_result():
    def result(a, b):
        cases = (a, RESULTS.successful), (b, RESULTS.nonfinite)
        return first_of(*cases, otherwise=RESULTS.max_steps_reached)

    a, b = jnp.array([True, True, False, False]), jnp.array([True, False, True, False])
    results = jax.vmap(result)(a, b)
    np.testing.assert_array_equal(is_successful(results), a)
    np.testing.assert_array_equal(results == RESULTS.nonfinite, ~a & b)
    np.testing.assert_array_equal(results == RESULTS.max_steps_reached, ~a & ~b)


def test_failures_are_errors_of_their_text():
    answer = {"x": jnp.ones(3)}
    assert thrown("solve", RESULTS.successful, answer) is answer
    with pytest.raises(RuntimeError, match="^solve: .*raise max_steps$"):
        thrown("solve", RESULTS.max_steps_reached, answer)

    @eqx.filter_jit
    def run(failed):
        result = first_of((failed, RESULTS.breakdown), otherwise=RESULTS.successful)
        return thrown("solve", result, answer)

    np.testing.assert_array_equal(run(jnp.asarray(False))["x"], 1)
    with pytest.raises(RuntimeError, match="solve: an update could not be computed"):
        run(jnp.asarray(True))
