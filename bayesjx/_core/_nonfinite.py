"""Watch for what is infinite or not a number; find the step that made it, and say what it was."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bayesjx._core._tree import is_inexact, path_name


class Watch(NamedTuple):
    """Leaves of the state that have to stay finite, and perhaps the objective."""

    leaves: tuple[bool, ...]
    objective: bool

    def all_finite(self, state: Any, rows: Any) -> jax.Array:
        """Whether the watched leaves of `state` and the objectives of `rows` are finite."""
        leaves = zip(jax.tree.leaves(state), self.leaves, strict=True)
        watched = [x for x, watch in leaves if watch]
        if self.objective and getattr(rows, "objective", None) is not None:
            watched.append(rows.objective)
        return jnp.all(jnp.array([jnp.all(jnp.isfinite(x)) for x in watched], dtype=bool))


def make_watch(state: Any, check_finite: str) -> Watch:
    """Watch what `fit` was asked to; leaves that are not finite at the start are left out."""
    leaves = jax.tree.leaves(state)
    if check_finite != "state":
        return Watch((False,) * len(leaves), check_finite == "objective")
    finite = iter(_finite_leaves([x for x in leaves if is_inexact(x)]))
    return Watch(tuple(is_inexact(x) and bool(next(finite)) for x in leaves), True)


@jax.jit  # one compilation for a whole state, not one per shape
def _finite_leaves(leaves: list) -> list:
    return [jnp.all(jnp.isfinite(x)) for x in leaves]


class BadStep(NamedTuple):
    """The first step that made something infinite or NaN, with the states before and after it."""

    step: int
    state: Any  # before the step: the last good one
    new_state: Any
    info: Any  # of the step


def find_bad_step(
    run: Callable[[int, int, Any], tuple], first: int, count: int, state: Any
) -> BadStep:
    """Bisect steps `first` to `first + count - 1`, of which some are not finite.

    Repeats at most `count` steps in all, in the very program that ran them, so the numbers
    are the same.

    Args:
        run: `run(begin, end, state) -> (state, rows, ok)`, with steps counted from `first`.
        first: global number of the first step.
        count: number of steps.
        state: before the first step, good.
    """
    low, high = 0, count
    while high - low > 1:
        middle = (low + high) // 2
        new_state, _, ok = run(low, middle, state)
        if ok:
            low, state = middle, new_state
        else:
            high = middle
    new_state, rows, _ = run(low, high, state)
    return BadStep(first + low, state, new_state, jax.tree.map(lambda x: np.asarray(x[low]), rows))


def describe_bad_step(bad: BadStep, watch: Watch, diagnosis: str | None) -> str:
    """Message of several lines: the step, what is not finite after it, and what to try."""
    objective = getattr(bad.info, "objective", None)
    names = _bad_leaves(bad.new_state, watch)
    what = []
    if objective is not None and not np.isfinite(objective):
        what.append(f"the objective is {objective}")
    if names:
        more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
        what.append(f"the step makes {names[0]}{more}")
    lines = [f"not finite at step {bad.step} (counted from 0): " + "; ".join(what)]
    if objective is not None and np.isfinite(objective):
        lines.append(
            f"The objective of the step is still finite, {objective:.6g}: "
            "its gradient or the update is not."
        )
    lines.append(f"The state kept is the last good one, after {bad.step} steps.")
    if diagnosis:
        lines.append(diagnosis)
    if bad.step == 0:
        lines.append("Nothing good came before: look at the initial values and at the data.")
    else:
        lines.append("A smaller learning rate, clipped gradients or float64 may help.")
    return "\n".join(lines)


def _bad_leaves(state: Any, watch: Watch) -> list[str]:
    """Name and content of each watched leaf that is not finite, in the order of the state."""
    descriptions = []
    leaves = jax.tree_util.tree_leaves_with_path(state)
    for (path, x), watched in zip(leaves, watch.leaves, strict=True):
        if not watched or jnp.all(jnp.isfinite(x)):
            continue
        x = np.asarray(x)
        bad = x[~np.isfinite(x)]
        count = f" in {bad.size} of {x.size} entries" if x.size > 1 else ""
        descriptions.append(f"{path_name(path)} {bad.flat[0]}{count}")
    return descriptions
