"""Gaussian processes of time as NumPyro distributions, in linear time."""

from __future__ import annotations

from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import constraints, Distribution

from .._core import refuse_where
from ..kernels import AbstractKernel
from . import _paths as paths
from ._backend import plan
from ._engine import log_density
from ._posterior import MarkovPosterior
from ._spaces import AbstractStateSpace
from ._state_space import HARMONICS, state_space
from ._steps import Series
from ._times import sorted_times


class MarkovGP(Distribution):
    r"""Noisy observations of $f \sim GP(m, k)$ at some times, in linear time.

    In a model, `numpyro.sample("y", MarkovGP(kernel, times, noise), obs=y)` is the marginal
    likelihood, equal to that of the dense normal law; value and gradient come from a Kalman filter
    and its adjoint smoother. Times may be irregular and may coincide. The density is NaN where
    parameters that are known only at run time are negative.

    Args:
        kernel: of one coordinate, with a state space of finite size, see `state_space`; or a state
            space.
        times: shape `(n,)`. If they are not in order they are sorted inside, with a warning;
            under `jit` as arguments they must be in order.
        noise: variance of the observations about the function, not negative, scalar or `(n,)`.
        mean: of the process, scalar or `(n,)`.
        mask: booleans `(n,)`, which values are observed; others may be anything, NaN too. By
            default all.
        backend: "sequential", one step after another; "chunked", parts side by side; "auto"
            chooses by the size, the machine and `configure_cpu`.
        harmonics: of `Periodic` kernels, see `state_space`.

    Raises:
        ValueError: wrong shapes, no times, NaN in times or noise, negative noise, an unknown
            backend, single-precision times that cannot resolve their steps.

    References:
        Hartikainen and Särkkä (2010), "Kalman filtering and smoothing solutions to temporal
        Gaussian process regression models", MLSP; Särkkä and Solin (2019), "Applied stochastic
        differential equations", chapter 12.
    """

    support = constraints.real_vector
    has_rsample = True
    pytree_data_fields = ("space", "before", "steps", "noise", "loc", "seen", "order")
    pytree_aux_fields = ("origin", "backend")

    def __init__(
        self,
        kernel: AbstractKernel | AbstractStateSpace,
        times: Any,
        noise: Any = 0.0,
        mean: Any = 0.0,
        mask: Any = None,
        *,
        backend: str = "auto",
        harmonics: int = HARMONICS,
    ):
        space = state_space(kernel, harmonics) if isinstance(kernel, AbstractKernel) else kernel
        self.origin, self.before, self.steps, self.order = sorted_times(times)
        n, dtype = len(self.steps), self.steps.dtype
        plan(backend, n, space.size, dtype)
        space = space.since(self.origin)
        self.space = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), space)
        if not isinstance(noise, jax.core.Tracer):
            refuse_where(noise, lambda v: ~(v >= 0), f"noise must not be negative or NaN: {noise}")
        self.noise = self._sorted(_each("noise", noise, n, dtype))
        self.loc = _each("mean", mean, n, dtype)
        self.seen = self._sorted(_seen(mask, n, dtype))
        self.backend = backend
        super().__init__((), (n,), validate_args=False)

    def log_prob(self, value: Any, intermediates: Any = None) -> jax.Array:
        n, shape = self.event_shape[0], jnp.shape(value)
        if shape[-1:] != (n,):
            raise ValueError(f"MarkovGP: value must have shape (..., {n}), got {shape}")
        one = lambda y: log_density(self.plan, self.space, self.series(y))  # noqa: E731
        flat = jnp.asarray(value).reshape(-1, n)
        found = one(flat[0]) if len(flat) == 1 else jax.vmap(one)(flat)
        return jnp.reshape(found, shape[:-1])

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        in_path, in_noise = jax.random.split(key)
        n, dtype = self.event_shape[0], self.steps.dtype
        path = paths.prior_paths(in_path, self.space, self.before, self.steps, sample_shape)
        draws = jax.random.normal(in_noise, (*sample_shape, n), dtype)
        return self.loc + self._unsorted(path + jnp.sqrt(self.noise) * draws)

    @property
    def plan(self) -> Any:
        """How a series of this length is filtered."""
        return plan(self.backend, self.event_shape[0], self.space.size, self.steps.dtype)

    @property
    def mean(self) -> jax.Array:
        return self.loc

    @property
    def variance(self) -> jax.Array:
        marginal = self.space.marginal(self.before + self.steps)
        h = self.space.readout
        prior = paths.alg.dot(h, paths.alg.matvec(marginal, h))
        return self._unsorted(jnp.broadcast_to(prior, self.steps.shape) + self.noise)

    def condition(self, value: Any) -> MarkovPosterior:
        """The law of the function given observations.

        Args:
            value: what was observed, shape `(n,)`.

        Raises:
            ValueError: a wrong shape, or NaN that no mask hides.
            RuntimeError: under `jit`, NaN that no mask hides.
        """
        n = self.event_shape[0]
        if jnp.shape(value) != (n,):
            raise ValueError(f"condition: value must have shape ({n},), got {jnp.shape(value)}")
        seen = self._unsorted(self.seen)
        hidden = jnp.where(seen > 0, jnp.asarray(value, self.steps.dtype), 0.0)
        refuse_where(
            hidden,
            lambda v: ~np.isfinite(v) if isinstance(v, np.ndarray) else ~jnp.isfinite(v),
            "value holds NaN or infinite values where the mask says that it was observed; "
            "pass mask= for missing ones",
        )
        series = self.series(hidden)
        return MarkovPosterior(self.space, series, self.loc, self.order, self.origin, self.backend)

    def series(self, value: Any) -> Series:
        """Observations less their mean, in the order of time."""
        centred = self._sorted(jnp.asarray(value, self.steps.dtype) - self.loc)
        # Missing ones may be NaN, which must not get into any product.
        centred = jnp.where(self.seen > 0, centred, 0.0)
        return Series(self.before, self.steps, centred, self.noise, self.seen)

    def _sorted(self, array: jax.Array) -> jax.Array:
        return array if self.order is None else array[..., self.order[0]]

    def _unsorted(self, array: jax.Array) -> jax.Array:
        return array if self.order is None else array[..., self.order[1]]


def _each(name: str, value: Any, n: int, dtype: Any) -> jax.Array:
    if jnp.shape(value) not in ((), (n,)):
        raise ValueError(f"{name} must be a scalar or have shape ({n},), got {jnp.shape(value)}")
    return jnp.broadcast_to(jnp.asarray(value, dtype), (n,))


def _seen(mask: Any, n: int, dtype: Any) -> jax.Array:
    if mask is None:
        return jnp.ones(n, dtype)
    if jnp.shape(mask) != (n,) or jnp.result_type(mask) != jnp.bool_:
        raise ValueError(
            f"mask must hold booleans of shape ({n},), got {jnp.result_type(mask)} of shape "
            f"{jnp.shape(mask)}"
        )
    return jnp.asarray(mask).astype(dtype)
