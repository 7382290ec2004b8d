"""The law of a process of time given observations."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from numpyro import distributions as dist

from . import _engine as engine, _passes as passes, _paths as paths
from ._backend import plan
from ._spaces import AbstractStateSpace, SumSpace
from ._steps import Series


class MarkovPosterior(eqx.Module):
    """A process of time given observations; made by `MarkovGP.condition`.

    Times asked for are merged with those of the data and filtered and smoothed in one go, in
    $O(n + m)$; they may lie before, between and after the data, in any order.

    Attributes:
        space: law of the state.
        series: the observations, less their mean, in the order of time.
        loc: prior mean of the observations, in the order in which they were given.
        order: the permutations between the two, or None.
        origin: what the times of space and series are counted from.
        backend: see `MarkovGP`.
    """

    space: AbstractStateSpace
    series: Series
    loc: jax.Array
    order: Any
    origin: float = eqx.field(static=True)
    backend: str = eqx.field(static=True)

    def log_evidence(self) -> jax.Array:
        """The log density of the observations, scalar."""
        return engine.log_density(self._plan(len(self.loc)), self.space, self.series)

    def moments(self, times: Any = None, term: int | None = None) -> tuple[jax.Array, jax.Array]:
        """Mean and variance of the function, without the prior mean.

        Args:
            times: shape `(m,)`; by default those of the observations.
            term: of a sum of kernels, which one, from 0; by default the sum of all.

        Returns:
            Shape `(m,)` both.

        Raises:
            ValueError: wrong times, or a term that the kernel does not have.
        """
        series, places = self.series, self._places()
        if times is not None:
            series, places = self._merged(times)
        mean, variance, _ = self._smoothed(series, self._readout(term))
        return mean[places], jnp.maximum(variance[places], 0)

    def marginal(self, times: Any = None, term: int | None = None) -> dist.Normal:
        """The law of the function at each time, see `moments`: a normal of shape `(m,)`."""
        mean, variance = self.moments(times, term)
        return dist.Normal(mean, jnp.sqrt(variance))

    def predict(self, times: Any, noise: Any, mean: Any = 0.0) -> dist.Normal:
        """The law of a new observation at each time, a normal of shape `(m,)`.

        Args:
            times: shape `(m,)`.
            noise: its variance about the function, scalar or `(m,)`.
            mean: prior mean of the process there, scalar or `(m,)`.
        """
        centre, variance = self.moments(times)
        return dist.Normal(mean + centre, jnp.sqrt(variance + noise))

    def leave_one_out(self) -> dist.Normal:
        r"""The law of each observation given all others, a normal of shape `(n,)`.

        From the smoother, without refitting: with $u$ and $D$ the weight and the precision of an
        observation, mean $y - u / D$ and variance $1 / D$. Where nothing was observed it is what
        `predict` would say.
        """
        mean, variance, (weight, precision) = self._smoothed(self.series, self.space.readout)
        seen = self.series.seen > 0
        spread = 1 / jnp.where(seen, precision, 1.0)
        mean = jnp.where(seen, self.series.y - weight * spread, mean)
        variance = jnp.where(seen, spread, variance + self.series.noise)
        places = self._places()
        return dist.Normal(self.loc + mean[places], jnp.sqrt(variance[places]))

    def sample(self, key: jax.Array, times: Any = None, shape: tuple[int, ...] = ()) -> jax.Array:
        """Joint draws of the function, without the prior mean, shape `(*shape, m)`.

        A draw of the prior, moved by what its own noisy observations say about it (Matheron): the
        covariances of the smoother serve all draws.

        Args:
            key: random key.
            times: shape `(m,)`; by default those of the observations.
            shape: of the sample.
        """
        series, places = self.series, self._places()
        if times is not None:
            series, places = self._merged(times)
        in_path, in_noise = jax.random.split(key)
        n = len(series.step)
        path = paths.prior_paths(in_path, self.space, series.time, series.step, shape)
        draws = jax.random.normal(in_noise, (*shape, n), path.dtype)
        drawn = path + jnp.sqrt(series.noise) * draws
        difference = jnp.where(series.seen > 0, series.y - drawn, 0.0).reshape(-1, n)
        moved = jax.vmap(lambda y: self._smoothed(series._replace(y=y), self.space.readout)[0])(
            difference
        )
        return (path + moved.reshape(path.shape))[..., places]

    def _smoothed(self, series: Series, readout: Any) -> Any:
        n = len(series.step)
        way = self._plan(n)
        _, found = engine.filtered(way, self.space, series)
        arrays = passes.smooth(
            self.space, found.series, found.kept, found.last, readout, way.precise
        )
        return jax.tree.map(lambda array: engine.one_after_another(array, n), arrays)

    def _plan(self, n: int) -> engine.Plan:
        return plan(self.backend, n, self.space.size, self.series.step.dtype)

    def _places(self) -> Any:
        return slice(None) if self.order is None else self.order[1]

    def _readout(self, term: int | None) -> tuple[int, ...]:
        if term is None:
            return self.space.readout
        spaces = self.space.spaces if isinstance(self.space, SumSpace) else (self.space,)
        if not 0 <= term < len(spaces):
            raise ValueError(f"term must be one of the {len(spaces)} of the kernel, got {term}")
        return tuple(h if i == term else 0 for i, space in enumerate(spaces) for h in space.readout)

    def _merged(self, times: Any) -> tuple[Series, Any]:
        """The series with empty places at other times, and where those are."""
        old = self.series.time + self.series.step
        if jnp.ndim(times) != 1 or jnp.size(times) == 0:
            raise ValueError(f"times must have shape (m,), not empty; got {jnp.shape(times)}")
        if not isinstance(times, jax.core.Tracer):
            times = np.asarray(times, np.float64)
        new = jnp.asarray(times - self.origin, old.dtype)
        every = jnp.concatenate([old, new])
        order = jnp.argsort(every, stable=True)
        rank = jnp.zeros(len(every), order.dtype).at[order].set(jnp.arange(len(every)))
        at = every[order]
        before = jnp.concatenate([at[:1], at[:-1]])
        none = jnp.zeros_like(new)

        def spread(array: jax.Array, fill: jax.Array) -> jax.Array:
            return jnp.concatenate([array, fill])[order]

        series = Series(
            before,
            at - before,
            spread(self.series.y, none),
            spread(self.series.noise, none),
            spread(self.series.seen, none),
        )
        return series, rank[len(old) :]
