"""What `fit` tells a callback, and the stop rule that ships with it."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class CallbackInfo(NamedTuple):
    """Argument of the callback of `bayesjx.fit`, after each chunk.

    Attributes:
        step: number of steps done.
        num_steps: number of steps asked for.
        state: after `step` steps. Nothing is donated, so it may be kept.
        info: the `Info` of this chunk, NumPy arrays with a leading axis over its steps.
        history: the `Info` of all steps so far, those before a resume included. A view: copy
            what is to be changed.
        seconds: spent on steps so far in this call.
    """

    step: int
    num_steps: int
    state: Any
    info: Any
    history: Any
    seconds: float


def window_mean(values: Any, window: int) -> tuple[float, float]:
    """Mean of the last values of a series, and its standard error by batch means.

    About `sqrt(window)` batches of equal length allow for correlation between steps. The
    error is 0 for a window of one.

    Args:
        values: shape `(t,)`, with `t >= 1`.
        window: how many of the last values to use, at most all of them.
    """
    tail = np.asarray(values, dtype=np.float64)[-window:]
    num_batches = max(1, math.isqrt(len(tail)))
    if num_batches == 1:
        error = np.std(tail, ddof=1) / math.sqrt(len(tail)) if len(tail) > 1 else 0.0
        return float(tail.mean()), float(error)
    length = len(tail) // num_batches
    means = tail[len(tail) - num_batches * length :].reshape(num_batches, length).mean(axis=1)
    return float(tail.mean()), float(np.std(means, ddof=1) / math.sqrt(num_batches))


def stop_when_flat(window: int = 200, rtol: float = 1e-4) -> Callable[[CallbackInfo], str | None]:
    r"""Callback that ends a fit once its objective no longer moves.

    Compares the mean $m_1$ of the objective over the last `window` steps with the mean $m_0$
    over the `window` steps before, and stops when
    $|m_1 - m_0| \le \max(\text{rtol}\,|m_1|,\ \sqrt{s_0^2 + s_1^2})$, where $s$ are the
    Monte-Carlo standard errors of the two means by batch means. A steady drift passes into the
    means faster than into their errors, so it does not stop a fit; noise alone does.

    Args:
        window: number of steps in each of the two means. Nothing is stopped before
            `2 * window` steps.
        rtol: relative change below which the objective counts as flat.
    Returns:
        A callback without memory of its own, so that a resumed fit stops where an
        uninterrupted one does. It is called once per chunk.
    Raises:
        ValueError: `window` is below 2 or `rtol` negative; in use, when the `Info` has no
            field `objective`.
    """
    whole = isinstance(window, int | np.integer) and not isinstance(window, bool)
    if not (whole and window >= 2 and rtol >= 0):
        raise ValueError(
            f"expected an int window >= 2 and rtol >= 0; got window {window} and rtol {rtol}."
        )

    def callback(info: CallbackInfo) -> str | None:
        objective = getattr(info.history, "objective", None)
        if objective is None:
            raise ValueError("stop_when_flat needs an Info with a field `objective`.")
        if len(objective) < 2 * window:
            return None
        before, before_error = window_mean(objective[:-window], window)
        mean, error = window_mean(objective, window)
        change, noise = abs(mean - before), math.hypot(before_error, error)
        if change > max(rtol * abs(mean), noise):
            return None
        return (
            f"the objective is flat: its mean over {window} steps moved by {change:.2g} "
            f"(standard error {noise:.2g}) to {mean:.6g}"
        )

    return callback
