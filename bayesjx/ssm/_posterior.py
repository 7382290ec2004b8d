"""The law of a process of time given observations."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from numpyro import distributions as dist

from .._core import refuse_where
from . import _process as process, _unrolled as unrolled
from ._backend import is_brief, Plan, plan
from ._inputs import draws as draws_of, numbers
from ._process import Series
from ._spaces import AbstractStateSpace, SumSpace


class MarkovPosterior(eqx.Module):
    """A process of time given observations; made by `MarkovGP.condition`.

    Times asked for are merged with those of the data and filtered and smoothed in one go, in
    $O(n + m)$; they may lie before, between and after the data, in any order.

    Attributes:
        space: law of the state.
        series: the observations, less their mean, in the order of time.
        loc: prior mean of the observations, in the order in which they were given.
        order: the permutations between the two, or None.
        readout: of several outputs, `(p, d)`; of slopes among values, `(n, 1, d)`; else None.
        origin: what the times of space and series are counted from.
        backend: see `MarkovGP`.
    """

    space: AbstractStateSpace
    series: Series
    loc: jax.Array
    order: Any
    readout: Any
    origin: float = eqx.field(static=True)
    backend: str = eqx.field(static=True)

    def log_evidence(self) -> jax.Array:
        """The log density of the observations, scalar."""
        way = self._plan(len(self.loc), self.backend)
        return process.log_density(way, self.space, self.series, self.readout)

    def moments(
        self, times: Any = None, term: int | None = None, slope: bool = False
    ) -> tuple[jax.Array, jax.Array]:
        """Mean and variance of the function, without the prior mean.

        Args:
            times: shape `(m,)`; by default those of the observations.
            term: of a sum of kernels, or of the kernels that are mixed, which one, from 0; by
                default the sum of all, or all outputs.
            slope: of its derivative, and not of the function itself.

        Returns:
            Shape `(m,)` both; of several outputs `(m, p)`.

        Raises:
            ValueError: wrong times, a term that the kernel does not have, no derivative.
        """
        mean, variance = self.combinations(self._rows(term, slope), times)
        several = process.outputs(self.readout) is not None and term is None
        return (mean, variance) if several else (mean[:, 0], variance[:, 0])

    def combinations(self, rows: Any, times: Any = None) -> tuple[jax.Array, jax.Array]:
        """Means and variances of combinations `(q, d)` of the states, shape `(m, q)` both."""
        size = self.space.size
        if np.ndim(rows) != 2 or np.shape(rows)[1] != size:
            raise ValueError(f"rows must have shape (q, {size}), got {np.shape(rows)}")
        series, readout, places = self._at(times)
        mean, variance, _ = self._smoothed(series, rows, readout)
        there = self.space.defined(series.time + series.step)[:, None]
        mean = jnp.where(there, mean, jnp.nan)
        variance = jnp.where(there, jnp.maximum(variance, 0), jnp.nan)
        return (mean, variance) if places is None else (mean[places], variance[places])

    def marginal(self, times: Any = None, term: int | None = None) -> dist.Normal:
        """The law of the function at each time, a normal of the shape of `moments`."""
        mean, variance = self.moments(times, term)
        return dist.Normal(mean, jnp.sqrt(variance))

    def predict(self, times: Any, noise: Any, mean: Any = 0.0) -> dist.Normal:
        """The law of a new observation with normal noise, a normal of shape `(m,)` or `(m, p)`.

        Args:
            times: shape `(m,)`.
            noise: its variance about the function, not its standard deviation, a scalar or of that
                shape.
            mean: prior mean of the process there, a scalar or of that shape.

        Raises:
            ValueError: wrong times or shapes, negative noise, a posterior by `approximate`, whose
                likelihood says what is observed.
        """
        self._refuse_sites("predict", "log_predictive_prob of the approximation")
        centre, variance = self.moments(times)
        for name, value in (("noise", noise), ("mean", mean)):
            if np.shape(numbers(name, value)) not in ((), centre.shape):
                raise ValueError(
                    f"{name} must be a scalar or have shape {centre.shape}, got {np.shape(value)}"
                )
        if not isinstance(noise, jax.core.Tracer):
            refuse_where(noise, lambda v: ~(v >= 0), f"noise must not be negative or NaN: {noise}")
        return dist.Normal(mean + centre, jnp.sqrt(variance + noise))

    def leave_one_out(self) -> dist.Normal:
        r"""The law of each observation given all others, a normal of the shape of the data.

        From the smoother, without refitting: with $u$ and $D$ the weight and the precision of an
        observation, mean $y - u / D$ and variance $1 / D$. Where nothing was observed it is what
        `predict` would say.

        Raises:
            ValueError: a posterior by `approximate`, whose observations are not normal.
        """
        self._refuse_sites("leave_one_out", "a likelihood that is normal, in MarkovGP")
        mean, variance, (weight, precision) = self._smoothed(
            self.series, self._rows(None), self.readout
        )
        shape = self.series.y.shape
        mean, variance = mean.reshape(shape), variance.reshape(shape)
        seen = self.series.observed > 0
        spread = 1 / jnp.where(seen, precision, 1.0)
        mean = jnp.where(seen, self.series.y - weight * spread, mean)
        variance = jnp.where(seen, spread, variance + self.series.noise_var)
        if self.order is not None:
            mean, variance = mean[self.order[1]], variance[self.order[1]]
        return dist.Normal(self.loc + mean, jnp.sqrt(variance))

    def observed_times(self) -> jax.Array:
        """The times of the observations, in the order in which they were given, shape `(n,)`."""
        times = self.origin + self.series.time + self.series.step
        return times if self.order is None else times[self.order[1]]

    def means_given(self, values: jax.Array, times: Any) -> jax.Array:
        """The posterior mean, had the observations less their mean been others.

        Args:
            values: shape `(k, n)`, or `(k, n, p)`.
            times: shape `(m,)`.

        Returns:
            Shape `(k, m)`, or `(k, m, p)`.
        """

        self._refuse_sites("means_given", "a likelihood that is normal, in MarkovGP")

        wanted = self.series.y.shape
        if np.shape(values)[1:] != wanted:
            inside = ", ".join(map(str, wanted))
            raise ValueError(f"values must have shape (k, {inside}), got {np.shape(values)}")

        def one(y: jax.Array) -> jax.Array:
            y = y if self.order is None else y[self.order[0]]
            series = self.series._replace(y=self.series.observed * y)
            other = eqx.tree_at(lambda post: post.series, self, series)
            return other.moments(times)[0]

        return jax.vmap(one)(values)

    def sample(self, key: jax.Array, times: Any = None, shape: tuple[int, ...] = ()) -> jax.Array:
        """Joint draws of the function, without the prior mean, shape `(*shape, m)`.

        A draw of the prior, moved by what its own noisy observations say about it (Matheron): the
        covariances of the smoother serve all draws.

        Args:
            key: random key.
            times: shape `(m,)`; by default those of the observations.
            shape: of the sample.
        """
        draws_of(key, "shape", shape)
        series, readout, places = self._at(times)
        if series.site_precision is not None:
            series = _as_observations(series)
        in_path, in_noise = jax.random.split(key)
        rows = self._rows(None)
        path, drawn = self._drawn(in_path, series, readout, shape)
        draws = jax.random.normal(in_noise, drawn.shape, drawn.dtype)
        drawn = drawn + jnp.sqrt(series.noise_var) * draws
        difference = jnp.where(series.observed > 0, series.y - drawn, 0.0)
        difference = difference.reshape(-1, *series.y.shape)
        moved = jax.vmap(lambda y: self._smoothed(series._replace(y=y), rows, readout)[0])
        found = path + moved(difference).reshape(path.shape)
        there = self.space.defined(series.time + series.step)
        there = there if process.outputs(self.readout) is None else there[:, None]
        found = jnp.where(there, found, jnp.nan)
        return jnp.take(found, places, axis=len(shape)) if places is not None else found

    def _refuse_sites(self, name: str, instead: str) -> None:
        if self.series.site_precision is not None:
            raise ValueError(
                f"{name} is for observations with normal noise, and this posterior is of an "
                f"approximation, which has factors in place of a likelihood; take {instead}"
            )

    def _drawn(
        self, key: jax.Array, series: Series, readout: Any, shape: tuple[int, ...]
    ) -> tuple[jax.Array, jax.Array]:
        """Prior draws of the function, and of what is observed of it without noise."""
        if readout is None or readout.ndim == 2:
            path = process.prior_paths(key, self.space, series.time, series.step, shape, readout)
            path = path.reshape(*shape, *series.y.shape)
            return path, path
        value = jnp.broadcast_to(jnp.asarray(self.space.readout, readout.dtype), readout.shape)
        both = jnp.concatenate([value, readout], axis=1)
        paths = process.prior_paths(key, self.space, series.time, series.step, shape, both)
        return paths[..., 0], paths[..., 1]

    def _smoothed(self, series: Series, wanted: Any, readout: Any) -> Any:
        # What has settled is only the evidence; states are smoothed exactly.
        backend = "auto" if self.backend == "steady" else self.backend
        way = self._plan(len(series.step), backend)
        return process.smooth(way, self.space, series, wanted, readout)

    def _plan(self, n: int, backend: str) -> Plan:
        arrays = self.readout is not None
        dtype = self.series.step.dtype
        return plan(backend, n, self.space.size, dtype, arrays, is_brief(self.space))

    def _rows(self, term: int | None, slope: bool = False) -> Any:
        """The combinations of the state that are wanted, `(q, d)`."""
        if slope:
            if process.outputs(self.readout) is not None or term is not None:
                raise ValueError("slope is for the sum of all terms of one output")
            return unrolled.stacked(self.space.slope, (), self.series.step.dtype)[None]
        if term is not None and not isinstance(term, int):
            raise ValueError(f"term must be an integer, got {term!r}")
        if term is None:
            several = process.outputs(self.readout) is not None
            return self.readout if several else [self.space.readout]
        spaces = self.space.spaces if isinstance(self.space, SumSpace) else (self.space,)
        if not 0 <= term < len(spaces):
            raise ValueError(f"term must be one of the {len(spaces)} of the kernel, got {term}")
        return [[h if i == term else 0 for i, one in enumerate(spaces) for h in one.readout]]

    def _at(self, times: Any) -> tuple[Series, Any, Any]:
        """Series and readout with empty places at other times, and where what is asked for is."""
        if times is None:
            return self.series, self.readout, None if self.order is None else self.order[1]
        series, order, places = self._merged(times)
        readout = self.readout
        if readout is not None and readout.ndim == 3:
            new = jnp.zeros((len(order) - len(readout), *readout.shape[1:]), readout.dtype)
            readout = jnp.concatenate([readout, new])[order]
        return series, readout, places

    def _merged(self, times: Any) -> tuple[Series, jax.Array, jax.Array]:
        """The series with empty places at other times, its order, and where those are."""
        old = self.series.time + self.series.step
        if np.ndim(times) != 1 or np.size(times) == 0:
            raise ValueError(f"times must have shape (m,), not empty; got {np.shape(times)}")
        if not isinstance(numbers("times", times), jax.core.Tracer):
            times = np.asarray(times, np.float64)
            refuse_where(times, lambda t: ~np.isfinite(t), "times hold NaN or infinite values")
        new = jnp.asarray(times - self.origin, old.dtype)
        every = jnp.concatenate([old, new])
        order = jnp.argsort(every, stable=True)
        rank = jnp.zeros(len(every), order.dtype).at[order].set(jnp.arange(len(every)))
        at = every[order]
        before = jnp.concatenate([at[:1], at[:-1]])
        none = jnp.zeros((len(new), *self.series.y.shape[1:]), old.dtype)
        merged = [a if a is None else jnp.concatenate([a, none])[order] for a in self.series[2:]]
        return Series(before, at - before, *merged), order, rank[len(old) :]


def _as_observations(series: Series) -> Series:
    """Factors as observations with noise, which is NaN where a factor curves upward."""
    scale, seen = series.site_precision, series.observed * (series.site_precision != 0)
    safe = jnp.where(scale > 0, scale, jnp.where(seen > 0, jnp.nan, 1.0))
    return Series(series.time, series.step, seen * series.y / safe, 1 / safe, seen)
