"""The score-function strategy and its baselines."""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import Distribution

from .._estimator import (
    AbstractScore,
    check_number,
    Frames,
)


class EMA(eqx.Module):
    """Baseline: exponential moving average of the site's local cost over the steps.

    The average is kept by the optimisation loop (`vi.optimise`, `vi.fit`) and handed back to the
    objective, which stays pure; without a loop it is zero.

    Args:
        decay: weight of the past, in [0, 1).
    """

    decay: float | int = eqx.field(static=True, default=0.9)

    def __check_init__(self):
        check_number("decay", self.decay)
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay must lie in [0, 1), got {self.decay}")


class LearnedBaseline(eqx.Module):
    """Baseline: a prediction of the local cost, trained by least squares beside the objective.

    Args:
        prediction: output of a network that does not see the site's own value; a scalar, or an
            array over the site's plates. Its parameters must be among those being optimised.

    References:
        Mnih and Gregor (2014), "Neural variational inference and learning in belief networks".
    """

    prediction: Any

    def __check_init__(self):
        if not _is_number(self.prediction):
            raise TypeError(
                f"prediction must be a number or array, the output of a network, "
                f"got {type(self.prediction).__name__}"
            )


class Reinforce(AbstractScore):
    """The strategy of `reinforce`."""

    label: ClassVar[str] = "reinforce"

    baseline: Any = None

    def __check_init__(self):
        known = self.baseline is None or isinstance(self.baseline, EMA | LearnedBaseline)
        if not known and not _is_number(self.baseline):
            raise TypeError(
                "baseline must be None, a number or array, vi.EMA() or "
                f"vi.LearnedBaseline(prediction), got {self.baseline!r}"
            )

    def why_not(self, distribution: Distribution) -> str | None:
        return None

    def signal(
        self,
        local: dict[Frames, jax.Array],
        frames: Frames,
        state: jax.Array | None,
    ) -> tuple[dict[Frames, jax.Array], jax.Array | None, jax.Array | None]:
        if self.baseline is None:
            return local, None, None
        full = jnp.asarray(sum(local.values()))
        record = loss = None
        if isinstance(self.baseline, EMA):
            baseline = jnp.zeros_like(full) if state is None else state
            mean = jnp.mean(full)
            record = (
                mean
                if state is None
                else self.baseline.decay * state + (1 - self.baseline.decay) * mean
            )
        elif isinstance(self.baseline, LearnedBaseline):
            prediction = _over_plates("prediction", self.baseline.prediction, frames)
            loss = 0.5 * jnp.sum((prediction - full) ** 2)
            baseline = prediction
        else:
            baseline = _over_plates("baseline", self.baseline, frames)
        baseline = jax.lax.stop_gradient(baseline)
        own = local.get(frames, jnp.zeros((), full.dtype))
        return {**local, frames: own - baseline}, record, loss


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | jax.Array | np.ndarray | np.generic)


def _over_plates(name: str, value: Any, frames: Frames) -> jax.Array:
    """The baseline as an array, which has no axes but those of the plates."""
    value = jnp.asarray(value)
    sizes = {frame.dim: frame.size for frame in frames}
    shape = tuple(sizes.get(dim, 1) for dim in range(min(sizes, default=0), 0))
    try:
        fits = jnp.broadcast_shapes(value.shape, shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"{name} must be a scalar or an array over the plates of its site, which have shape "
            f"{shape}; got shape {value.shape}"
        )
    return value


__all__ = ["EMA", "LearnedBaseline", "Reinforce"]
