"""Running and scoring programs with some of the gradients cut."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
from numpyro.primitives import Messenger

from .._estimator import (
    activate,
    Context,
    current,
)
from ._programs import (
    simulate,
)
from ._trace import (
    Trace,
)

T = TypeVar("T")


def draw(program: Callable[..., Any], *args: Any, **kwargs: Any) -> Trace:
    """The latent values of one forward run through which no gradient flows.

    What wake-phase and thermodynamic objectives sample from: sites need no gradient strategy
    there, since the draws count as data.

    Args:
        program: NumPyro program.
        *args: passed to the program, as are **kwargs**.

    Raises:
        RuntimeError: called outside an objective.
    """
    return detached("draw", lambda: simulate(program, *args, **kwargs)[0])


def detached(caller: str, fn: Callable[[], T]) -> T:
    """The output of `fn`, as data: no gradient flows out, and its sites are not the objective's."""
    parent = current(caller)
    prefix, key = parent.enter_call()
    context = Context(key, plate_key=parent.plate_key, prefix=prefix)
    context.scored = parent.scored
    with activate(context):
        output = fn()
    parent.mutables.update(context.mutables)
    return jax.lax.stop_gradient(output)


def frozen(program: Callable[..., Any]) -> Callable[..., Any]:
    """`program` with the gradient of its parameters stopped: its arguments (Equinox modules
    included) and its `numpyro.param` sites. Arrays that it closes over are not reached."""

    def run(*args: Any, **kwargs: Any) -> Any:
        with _StopParams():
            return program(*stop_gradient(args), **stop_gradient(kwargs))

    return run


def stop_gradient(tree: Any) -> Any:
    """`jax.lax.stop_gradient` on the arrays of a pytree that may hold other leaves."""
    arrays, rest = eqx.partition(tree, eqx.is_inexact_array)
    return eqx.combine(jax.lax.stop_gradient(arrays), rest)


class _StopParams(Messenger):
    def postprocess_message(self, msg: Any) -> None:
        if msg["type"] == "param":
            msg["value"] = jax.lax.stop_gradient(msg["value"])
