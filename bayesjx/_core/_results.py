"""How an iteration ended, as a value that passes through `jit` and `vmap`."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp


class RESULTS(eqx.Enumeration):
    """Enumeration of how an iteration ended: the field `result` of all that may fail.

    Compare with `result == RESULTS.successful`; `RESULTS[result]` is the text of one that is known.
    What takes `throw=True` raises a `RuntimeError` of that text in place of a result without an
    answer, also under `jit`.

    - `successful`: it has converged.
    - `max_steps_reached`: it may still have been on its way.
    - `nonfinite`: a value or its gradient is infinite or NaN.
    - `stagnation`: no step leads any further, and it is not known to have converged.
    - `breakdown`: an update could not be computed, as its linear solve failed or a factor of it is
      no normal distribution.
    """

    successful = "successful"
    max_steps_reached = "not converged in as many steps as allowed; raise max_steps"
    nonfinite = "a value or its gradient is infinite or NaN; start elsewhere, or compute in float64"
    stagnation = "no step leads any further before convergence; start elsewhere, or loosen rtol"
    breakdown = "an update could not be computed; add noise, make shorter steps, or use float64"


def is_successful(result: Any) -> jax.Array:
    """Whether results are `RESULTS.successful`, booleans of their shape."""
    return result == RESULTS.successful


def first_of(*cases: tuple[Any, Any], otherwise: Any) -> Any:
    """The result of the first condition, a boolean scalar, that holds.

    Args:
        *cases: pairs of a condition and a result.
        otherwise: the result where none holds.
    """
    result = otherwise
    for holds, case in reversed(cases):
        result = RESULTS.where(holds, case, result)
    return result


def thrown(owner: str, result: Any, answer: Any) -> Any:
    """The answer, or an error where the result is not successful.

    Args:
        owner: function whose name the error carries.
        result: how it ended, a scalar.
        answer: pytree with an array at least.

    Raises:
        RuntimeError: not successful; under `jit`, when it runs.
    """
    texts = [f"{owner}: {text}" for text in RESULTS._index_to_message]
    failed = ~is_successful(result)
    if isinstance(failed, jax.core.Tracer):
        return eqx.branched_error_if(answer, failed, result._value, texts)
    if jnp.any(failed):
        raise RuntimeError(f"{owner}: {RESULTS[result]}")
    return answer
