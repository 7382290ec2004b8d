"""The posterior of a process of time given observations with normal noise."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro import distributions as dist

from .._core import refuse_where
from ..likelihoods import AbstractPosterior
from . import _process as process, _unrolled as unrolled
from ._backend import is_brief, Plan, plan
from ._inputs import draws as draws_of, numbers
from ._prior_covariance import prior_covariance
from ._prior_mean import mean_slopes_at, means_at
from ._process import Series
from ._spaces import AbstractStateSpace, SumSpace


class MarkovPosterior(AbstractPosterior):
    """The posterior of a process of time given observations; made by `MarkovGP.condition`.

    `x` stands for times `(m,)`, before, between and after the data, in any order; None for those of
    the observations. They are merged with those of the data and filtered and smoothed in one go, in
    $O(n + m)$. Of several outputs, `(m,)` below becomes `(m, p)`.

    Attributes:
        space: the state space.
        series: the observations, less their mean, in the order of time.
        loc: prior mean of the observations, in the order in which they were given.
        mean_function: prior mean at other times, a number or a function; None if it is not known.
        new_noise_var: variance of the noise of new observations; None if it is not known.
        order: the permutations between the two orders, or None.
        readout: of several outputs, `(p, d)`; of slopes among values, `(n, 1, d)`; else None.
        origin: what the times of space and series are counted from.
        backend: see `MarkovGP`.
    """

    space: AbstractStateSpace
    series: Series
    loc: Float[Array, "n ..."]
    mean_function: Any
    new_noise_var: Any
    order: Any
    readout: Any
    origin: float = eqx.field(static=True)
    backend: str = eqx.field(static=True)

    def log_evidence(self) -> Float[Array, ""]:
        """The log density of the observations, scalar."""
        way = self._plan(len(self.loc), self.backend)
        return process.log_density(way, self.space, self.series, self.readout)

    def moments(
        self, x: Any = None, term: int | None = None, slope: bool = False
    ) -> tuple[Float[Array, " m *p"], Float[Array, " m *p"]]:
        """Mean and variance of the function at each time, shape `(m,)` both.

        Args:
            x: times, shape `(m,)`; by default those of the observations.
            term: of a sum of kernels, or of the kernels that are mixed, which one, from 0, without
                the prior mean; by default the sum of all, or all outputs.
            slope: of its derivative, and not of the function itself.

        Raises:
            ValueError: wrong times, a term that the kernel does not have, no derivative, a prior
                mean that is not known at other times.
        """
        mean, variance = self.combinations(self._rows(term, slope), x)
        if term is not None or process.outputs(self.readout) is None:
            mean, variance = mean[:, 0], variance[:, 0]
        return (mean if term is not None else self._prior_mean(x, slope) + mean), variance

    def mean(self, x: Any = None) -> Float[Array, " m *p"]:
        """Means of the function, shape `(m,)`."""
        return self.moments(x)[0]

    def covariance(self, x: Any = None) -> Float[Array, "mp mp"]:
        """Covariances of the function between the times, shape `(m, m)`, in $O(n m)$.

        Of `p` outputs, shape `(m p, m p)`, output after output at each time.
        """
        rows = jnp.asarray(self._rows(None), self.series.step.dtype)
        total = self.covariance_of(rows, x)
        size = total.shape[0] * total.shape[1]
        return total.reshape(size, size)

    def covariance_of(self, rows: Float[Array, "q d"], x: Any = None) -> Float[Array, "m q m q"]:
        """Covariances of combinations `(q, d)` of the states, shape `(m, q, m, q)`.

        Each column is minus what the posterior mean would be, had the prior covariance with that
        column been observed, plus the prior covariance.
        """
        series, space = self.series, self.space
        data = series.time + series.step
        new = data if self.order is None else data[self.order[1]]
        new = new if x is None else self._since_origin(x)
        readout = (
            jnp.asarray(self._rows(None), rows.dtype) if self.readout is None else self.readout
        )
        readout = readout if readout.ndim == 3 else readout[None]
        prior = prior_covariance(space, new, new, rows[None], rows[None])
        cross = prior_covariance(space, data, new, readout, rows[None])
        cross = jnp.moveaxis(cross.reshape(*cross.shape[:2], -1), -1, 0)
        cross = cross.reshape(-1, *series.y.shape)
        explained = self._answers(cross, rows, x).reshape(len(new), len(rows), *prior.shape[:2])
        explained = 0.5 * (explained + explained.transpose(2, 3, 0, 1))
        defined = space.defined(new)
        both = (defined[:, None] & defined)[:, None, :, None]
        return jnp.where(both, prior - explained, jnp.nan)

    def combinations(
        self, rows: Any, x: Any = None
    ) -> tuple[Float[Array, "m q"], Float[Array, "m q"]]:
        """Means and variances of combinations `(q, d)` of the states, shape `(m, q)` both."""
        size = self.space.size
        if np.ndim(rows) != 2 or np.shape(rows)[1] != size:
            raise ValueError(f"rows must have shape (q, {size}), got {np.shape(rows)}")
        series, readout, positions = self._at(x)
        mean, variance, _ = self._smoothed(series, rows, readout)
        defined = self.space.defined(series.time + series.step)[:, None]
        mean = jnp.where(defined, mean, jnp.nan)
        # Where data leave nothing a normal distribution must still be one.
        least = jnp.finfo(variance.dtype).tiny
        variance = jnp.where(defined, jnp.maximum(variance, least), jnp.nan)
        return (mean, variance) if positions is None else (mean[positions], variance[positions])

    def predict(self, x: Any = None, *, noise_var: Any = None) -> dist.Normal:
        """The predictive distribution of a new observation, a normal of shape `(m,)`.

        Args:
            x: times, shape `(m,)`; by default those of the observations.
            noise_var: variance of its noise, a scalar or of that shape; by default that of the
                observations, where it is the same for all.

        Raises:
            ValueError: wrong times or shapes, negative noise, noise that differs between
                observations and is not given, a posterior of sites, whose likelihood says what is
                observed.
        """
        self._refuse_sites("predict", "predict of the approximation")
        mean, variance = self.moments(x)
        if noise_var is None:
            noise_var = self.new_noise_var
        if noise_var is None:
            raise ValueError(
                "predict: noise_var differs between observations, so that of new ones must be given"
            )
        if np.shape(numbers("noise_var", noise_var)) not in ((), mean.shape[1:], mean.shape):
            got = np.shape(noise_var)
            raise ValueError(f"noise_var must be a scalar or have shape {mean.shape}, got {got}")
        if not isinstance(noise_var, jax.core.Tracer):
            text = f"noise_var must not be negative or NaN: {noise_var}"
            refuse_where(noise_var, lambda v: ~(v >= 0), text)
        return dist.Normal(mean, jnp.sqrt(variance + noise_var))

    def leave_one_out(self) -> dist.Normal:
        r"""Each observation given all others, a normal of the shape of the data.

        From the smoother, without refitting: with $u = (K + R)^{-1} (y - m)$ and $D$ the diagonal
        of $(K + R)^{-1}$, mean $y - u / D$ and variance $1 / D$. Where nothing was observed it is
        what `predict` would say.

        Raises:
            ValueError: a posterior of sites, whose observations are not normal.
        """
        self._refuse_sites("leave_one_out", "a likelihood that is normal, in MarkovGP")
        mean, variance, smoothed = self._smoothed(self.series, self._rows(None), self.readout)
        shape = self.series.y.shape
        mean, variance = mean.reshape(shape), variance.reshape(shape)
        observed = self.series.observed > 0
        around = 1 / jnp.where(observed, smoothed.precision, 1.0)
        mean = jnp.where(observed, self.series.y - smoothed.error * around, mean)
        variance = jnp.where(observed, around, variance + self.series.noise_var)
        if self.order is not None:
            mean, variance = mean[self.order[1]], variance[self.order[1]]
        return dist.Normal(self.loc + mean, jnp.sqrt(variance))

    def observed_times(self) -> Float[Array, " n"]:
        """The times of the observations, in the order in which they were given, shape `(n,)`."""
        times = self.origin + self.series.time + self.series.step
        return times if self.order is None else times[self.order[1]]

    def sample(
        self, key: jax.Array, x: Any = None, sample_shape: tuple[int, ...] = ()
    ) -> Float[Array, ...]:
        """Joint draws of the function, shape `(*sample_shape, m)`.

        Matheron's rule: a draw of the prior, moved by what its own noisy observations say about it;
        the covariances of the smoother serve all draws.

        Args:
            key: random key.
            x: times, shape `(m,)`; by default those of the observations.
            sample_shape: of the draws.
        """
        draws_of(key, "sample_shape", sample_shape)
        prior_mean = self._prior_mean(x)
        series, readout, positions = self._at(x)
        if series.site_precision is not None:
            series = _as_observations(series)
        in_path, in_noise = jax.random.split(key)
        rows = self._rows(None)
        path, drawn = self._drawn(in_path, series, readout, sample_shape)
        draws = jax.random.normal(in_noise, drawn.shape, drawn.dtype)
        drawn = drawn + jnp.sqrt(series.noise_var) * draws
        difference = jnp.where(series.observed > 0, series.y - drawn, 0.0)
        difference = difference.reshape(-1, *series.y.shape)
        moved = jax.vmap(lambda y: self._smoothed(series._replace(y=y), rows, readout)[0])
        paths = path + moved(difference).reshape(path.shape)
        defined = self.space.defined(series.time + series.step)
        defined = defined if process.outputs(self.readout) is None else defined[:, None]
        paths = jnp.where(defined, paths, jnp.nan)
        if positions is not None:
            paths = jnp.take(paths, positions, axis=len(sample_shape))
        return prior_mean + paths

    def _prior_mean(self, x: Any, slope: bool = False) -> jax.Array:
        """At times, or at those of the observations."""
        dtype, outputs = self.series.step.dtype, self.loc.shape[1:]
        if x is None and not slope and (self.readout is None or self.readout.ndim == 2):
            return self.loc
        if self.mean_function is None:
            raise ValueError(
                "the prior mean is known at the observations only: give mean as a number or as a "
                "function of time"
            )
        times = jnp.asarray(self.observed_times() if x is None else x, dtype)
        if slope:
            return mean_slopes_at(self.mean_function, times, dtype)
        return means_at(self.mean_function, times, outputs, dtype)

    def _answers(self, values: jax.Array, rows: Any, x: Any) -> jax.Array:
        """Posterior means `(m, q, k)`, had the observations less their mean been `(k, n, ...)`.

        In the order of time.
        """
        values = jnp.where(self.series.observed > 0, values, 0.0)
        if self.series.site_precision is not None:
            values = values * self.series.site_precision

        def one(y: jax.Array) -> jax.Array:
            series = self.series._replace(y=y)
            other = eqx.tree_at(lambda post: post.series, self, series)
            return other.combinations(rows, x)[0]

        return jnp.moveaxis(jax.vmap(one)(values), 0, -1)

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
        # The steady-state gain is for the evidence; states are smoothed exactly.
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

    def _at(self, x: Any) -> tuple[Series, Any, Any]:
        """Series and readout with nothing observed at other times, and the positions of these."""
        if x is None:
            return self.series, self.readout, None if self.order is None else self.order[1]
        series, order, positions = self._merged(x)
        readout = self.readout
        if readout is not None and readout.ndim == 3:
            new = jnp.zeros((len(order) - len(readout), *readout.shape[1:]), readout.dtype)
            readout = jnp.concatenate([readout, new])[order]
        return series, readout, positions

    def _merged(self, x: Any) -> tuple[Series, jax.Array, jax.Array]:
        """The series with other times, its order, and the positions of those."""
        old = self.series.time + self.series.step
        new = self._since_origin(x)
        every = jnp.concatenate([old, new])
        order = jnp.argsort(every, stable=True)
        rank = jnp.zeros(len(every), order.dtype).at[order].set(jnp.arange(len(every)))
        at = every[order]
        before = jnp.concatenate([at[:1], at[:-1]])
        none = jnp.zeros((len(new), *self.series.y.shape[1:]), old.dtype)
        merged = [a if a is None else jnp.concatenate([a, none])[order] for a in self.series[2:]]
        return Series(before, at - before, *merged), order, rank[len(old) :]

    def _since_origin(self, x: Any) -> jax.Array:
        """Times less the origin; those that are known are subtracted in double precision."""
        if np.ndim(x) != 1 or np.size(x) == 0:
            raise ValueError(f"x must be times of shape (m,), not empty; got {np.shape(x)}")
        if not isinstance(numbers("x", x), jax.core.Tracer):
            x = np.asarray(x, np.float64)
            refuse_where(x, lambda t: ~np.isfinite(t), "x holds NaN or infinite values")
        return jnp.asarray(x - self.origin, self.series.step.dtype)


def _as_observations(series: Series) -> Series:
    """Factors as observations with noise, which is NaN where a factor is convex."""
    precision = series.site_precision
    observed = series.observed * (precision != 0)
    safe = jnp.where(precision > 0, precision, jnp.where(observed > 0, jnp.nan, 1.0))
    return Series(series.time, series.step, observed * series.y / safe, 1 / safe, observed)
