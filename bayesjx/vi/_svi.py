"""The objectives of `bayesjx.vi` as losses of `numpyro.infer.SVI`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from numpyro.handlers import substitute

from ._context import activate, Context
from ._cost import as_cost
from ._expectation import Expectation
from ._objectives import elbo


class SVILoss:
    """A loss for `numpyro.infer.SVI` whose gradient respects each site's strategy.

    Drop-in for `Trace_ELBO` and `TraceGraph_ELBO`: models and guides may use `numpyro.param`,
    `numpyro.module`, `numpyro.mutable`, AutoGuides and any gradient strategy.

    Args:
        objective: takes model and guide and returns an `Expectation` of their arguments, e.g.
            `vi.elbo` or `lambda model, guide: vi.iwelbo(model, guide, 8)`.
        num_particles: independent draws that are averaged, by `jax.vmap`.

    Raises:
        ValueError: `num_particles` is not a positive integer.
    """

    can_infer_discrete = True

    def __init__(
        self,
        objective: Callable[[Callable[..., Any], Callable[..., Any]], Expectation] = elbo,
        num_particles: int = 1,
    ):
        if not isinstance(num_particles, int | np.integer) or num_particles < 1:
            raise ValueError(f"num_particles must be a positive integer, got {num_particles!r}")
        self.objective = objective
        self.num_particles = int(num_particles)

    def loss(
        self,
        rng_key: jax.Array,
        param_map: dict[str, Any],
        model: Callable[..., Any],
        guide: Callable[..., Any],
        *args: Any,
        **kwargs: Any,
    ) -> jax.Array:
        """The loss that `SVI` differentiates: minus the surrogate of a bound, a scalar.

        Args:
            rng_key: randomness.
            param_map: constrained parameters by site name.
            model: NumPyro model.
            guide: NumPyro guide.
            *args: passed to both, as are **kwargs**.
        """
        bound = self._bind(param_map, model, guide)
        sign = -1.0 if bound.maximise else 1.0
        if self.num_particles == 1:
            return sign * bound.surrogate(rng_key, *args, **kwargs)
        keys = random.split(rng_key, self.num_particles)
        return sign * jnp.mean(jax.vmap(lambda key: bound.surrogate(key, *args, **kwargs))(keys))

    def loss_with_mutable_state(
        self,
        rng_key: jax.Array,
        param_map: dict[str, Any],
        model: Callable[..., Any],
        guide: Callable[..., Any],
        *args: Any,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Like `loss`, with the values of `numpyro.mutable` sites after one run of both programs.

        Returns:
            `{"loss": scalar, "mutable_state": values by site name, or None if there are none}`.
        """
        value = self.loss(rng_key, param_map, model, guide, *args, **kwargs)
        context = Context(rng_key)
        with activate(context):
            as_cost(self._bind(param_map, model, guide).fn(*args, **kwargs))
        state = jax.lax.stop_gradient(context.mutables)
        return {"loss": value, "mutable_state": state or None}

    def _bind(self, param_map: dict[str, Any], model: Any, guide: Any) -> Expectation:
        return self.objective(substitute(model, data=param_map), substitute(guide, data=param_map))
