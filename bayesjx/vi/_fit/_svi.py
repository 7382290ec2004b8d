"""The objectives of `bayesjx.vi` as losses of `numpyro.infer.SVI`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import random
from jaxtyping import Array, Float
from numpyro.handlers import substitute

from ..._core import whole_number
from .._estimator import (
    activate,
    Context,
    mean_state,
    Objective,
)
from .._objectives import (
    elbo,
)


class SVILoss:
    """A loss for `numpyro.infer.SVI` whose gradient respects each site's strategy.

    Drop-in for `Trace_ELBO` and `TraceGraph_ELBO`: models and guides may use `numpyro.param`,
    `numpyro.module`, `numpyro.mutable`, AutoGuides and any gradient strategy. `vi.EMA` baselines
    need the loop of `vi.fit`; they are zero here, with a warning.

    Args:
        objective: takes model and guide and returns an `Objective` of their arguments, e.g.
            `vi.elbo` or `lambda model, guide: vi.iwelbo(model, guide, 8)`.
        num_particles: independent draws that are averaged, by `jax.vmap`.

    Raises:
        TypeError: `objective` is no function, or does not return an `Objective`.
        ValueError: `num_particles` is not a positive integer.
    """

    can_infer_discrete = True

    def __init__(
        self,
        objective: Callable[[Callable[..., Any], Callable[..., Any]], Objective] = elbo,
        num_particles: int = 1,
    ):
        if not callable(objective):
            raise TypeError(
                "objective must be a function of model and guide, such as vi.elbo itself or "
                f"lambda model, guide: vi.iwelbo(model, guide, 8); got {type(objective).__name__}"
            )
        self.objective = objective
        self.num_particles = whole_number("num_particles", num_particles)

    def loss(
        self,
        rng_key: jax.Array,
        param_map: dict[str, Any],
        model: Callable[..., Any],
        guide: Callable[..., Any],
        *args: Any,
        **kwargs: Any,
    ) -> Float[Array, ""]:
        """The loss that `SVI` differentiates: minus the surrogate of a bound, a scalar.

        Args:
            rng_key: randomness.
            param_map: constrained parameters by site name.
            model: NumPyro model.
            guide: NumPyro guide.
            *args: passed to both, as are **kwargs**.
        """
        bound = self._bind(param_map, model, guide)

        def one(key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
            value, (_, records) = bound.surrogate_with_records(key, None, *args, **kwargs)
            return value, records

        values, records = self._over_particles(one, rng_key)
        if records:
            warnings.warn(
                f"numpyro.infer.SVI does not keep the averages of vi.EMA baselines from step to "
                f"step, so those of the sites {sorted(a.rpartition('/')[2] for a in records)} are "
                "zero; use vi.fit (with vi.functional), or vi.LearnedBaseline",
                stacklevel=2,
            )
        return (-1.0 if bound.maximise else 1.0) * jnp.mean(values)

    def loss_with_mutable_state(
        self,
        rng_key: jax.Array,
        param_map: dict[str, Any],
        model: Callable[..., Any],
        guide: Callable[..., Any],
        *args: Any,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Like `loss`, with the values of `numpyro.mutable` sites after a run of both programs.

        With several particles, each is run from the present values, and what they leave is
        averaged; of integers and booleans, such as counters, those of the first one are taken.

        Returns:
            `{"loss": scalar, "mutable_state": values by site name, or None if there are none}`.
        """
        value = self.loss(rng_key, param_map, model, guide, *args, **kwargs)
        bound = self._bind(param_map, model, guide)

        def one(key: jax.Array) -> dict[str, Any]:
            context = Context(key)
            with activate(context):
                bound.fn(*args, **kwargs)
            return jax.lax.stop_gradient(context.mutables)

        state = self._over_particles(one, rng_key)
        state = state if self.num_particles == 1 else mean_state(state)
        return {"loss": value, "mutable_state": state or None}

    def _over_particles(self, fn: Callable[[jax.Array], Any], key: jax.Array) -> Any:
        if self.num_particles == 1:
            return fn(key)
        return jax.vmap(fn)(random.split(key, self.num_particles))

    def _bind(self, param_map: dict[str, Any], model: Any, guide: Any) -> Objective:
        params: Any = param_map
        bound = self.objective(substitute(model, data=params), substitute(guide, data=params))
        if not isinstance(bound, Objective):
            raise TypeError(
                "objective must return an Objective, as vi.elbo does of a model and a guide; it "
                f"returned {type(bound).__name__}"
            )
        return bound
