"""The posterior of a process of space and time."""

from __future__ import annotations

from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro import distributions as dist

from .._core import eigh, refuse_where, safe_cholesky
from ..kernels import real_points
from ..likelihoods import AbstractPosterior, Likelihood, predictive
from ._approximate import MarkovApproximation
from ._inputs import draws as draws_of, numbers
from ._markov_gp import mixed
from ._posterior import MarkovPosterior
from ._prior_covariance import prior_covariance
from ._spaces import ScaledSpace


class SpaceTimePosterior(AbstractPosterior):
    """The posterior of a process of space and time; made by `SpaceTimeGP.condition`.

    `x` stands for a pair of times `(m,)` and locations `(q, p)` or `(q,)`, whose grid is meant;
    None in place of one of them, or of both, for those of the observations.

    Attributes:
        prior: the `SpaceTimeGP`.
        inside: the posterior of its processes of time.
    """

    prior: Any
    inside: MarkovPosterior | MarkovApproximation

    def moments(self, x: Any = None) -> tuple[Float[Array, "m q"], Float[Array, "m q"]]:
        """Mean and variance of the function, shape `(m, q)` both.

        Raises:
            ValueError: wrong times or locations, a prior mean that is not known for these.
        """
        prior, (times, locations) = self.prior, self._points(x)
        rows = self._rows(locations)
        if prior.complete:
            mean, variance = (a.T for a in self._each_series(lambda one: one.moments(times)))
            weights = self._weights(locations)
            mean, variance = mean @ weights.T, variance @ (weights**2).T
        else:
            states = mixed(prior.process.space, rows)
            mean, variance = self._markov.combinations(states, times)
        left = prior.time_variance(self._times(times))[:, None]
        variance = variance + left * prior.residual_var(locations, rows)
        # Where data leave nothing a normal distribution must still be one.
        variance = jnp.maximum(variance, jnp.finfo(variance.dtype).tiny)
        return self._prior_mean(x) + mean, variance

    def mean(self, x: Any = None) -> Float[Array, "m q"]:
        """Means of the function, shape `(m, q)`."""
        return self.moments(x)[0]

    def covariance(self, x: Any = None) -> Float[Array, "mq mq"]:
        """Covariances of the function, shape `(m q, m q)`, location after location at each time."""
        prior, (times, locations) = self.prior, self._points(x)
        rows = self._rows(locations)
        if prior.complete:
            weights = self._weights(locations)
            each = self._each_series(lambda one: one.covariance(times))
            total = jnp.einsum("qj,rj,jst->sqtr", weights, weights, each)
        else:
            total = self._markov.covariance_of(mixed(prior.process.space, rows), times)
        residual = prior.space_kernel.gram(locations) - rows @ rows.T
        at = jnp.asarray(self._times(times) - prior.process.origin, total.dtype)
        space = prior.process.space.spaces[0]
        row = jnp.asarray([[space.readout]], total.dtype)
        in_time = prior_covariance(space, at, at, row, row)[:, 0, :, 0]
        total = total + jnp.einsum("st,qr->sqtr", in_time, residual)
        size = total.shape[0] * total.shape[1]
        return total.reshape(size, size)

    def predict(
        self, x: Any = None, *, noise_var: Any = None, likelihood: Likelihood | None = None
    ) -> dist.Distribution:
        """The predictive distribution of a new observation in each cell, batch shape `(m, q)`.

        Args:
            x: times and locations.
            noise_var: variance of normal noise, a scalar or of that shape; by default that of the
                observations, where it is the same for all.
            likelihood: of an approximation, if it is another one than that of the data.

        Raises:
            ValueError: noise that differs between observations and is not given; a likelihood that
                holds data of each observation.
        """
        mean, variance = self.moments(x)
        if isinstance(self.inside, MarkovApproximation):
            likelihood = self.inside.likelihood if likelihood is None else likelihood
            return predictive(likelihood, mean, variance)
        if noise_var is None:
            noise_var = self.inside.new_noise_var
        if noise_var is None or np.shape(numbers("noise_var", noise_var)) not in ((), mean.shape):
            raise ValueError(
                f"predict: noise_var must be given, a scalar or of shape {mean.shape}, as the "
                f"noise differs between observations; got {np.shape(noise_var)}"
            )
        if not isinstance(noise_var, jax.core.Tracer):
            text = f"noise_var must not be negative or NaN: {noise_var}"
            refuse_where(noise_var, lambda v: ~(v >= 0), text)
        return dist.Normal(mean, jnp.sqrt(variance + jnp.asarray(noise_var, variance.dtype)))

    def sample(
        self, key: jax.Array, x: Any = None, sample_shape: tuple[int, ...] = ()
    ) -> Float[Array, "*sample m q"]:
        """Joint draws of the function, shape `(*sample_shape, m, q)`.

        By a Cholesky factor of their covariance, with the jitter that it needs; $O((m q)^3)$.
        """
        draws_of(key, "sample_shape", sample_shape)
        mean, tril = self.mean(x), safe_cholesky(self.covariance(x)).tril
        draws = jax.random.normal(key, (*sample_shape, mean.size), mean.dtype)
        return mean + (draws @ tril.T).reshape(*sample_shape, *mean.shape)

    def log_evidence(self) -> Float[Array, ""]:
        """The log density of the observations, or its lower bound or estimate, scalar."""
        if self.prior.complete:
            return self.prior.complete_log_density(self._markov.series)
        total = self.inside.log_evidence()
        approximated = isinstance(self.inside, MarkovApproximation)
        return total if approximated else total - self.prior.lost()

    @property
    def _markov(self) -> MarkovPosterior:
        inside = self.inside
        return inside.posterior if isinstance(inside, MarkovApproximation) else inside

    def _points(self, x: Any) -> tuple[Any, jax.Array]:
        x = (None, None) if x is None else x
        if not isinstance(x, tuple | list) or len(x) != 2:
            got = f"{type(x).__name__} of shape {np.shape(x)}" if hasattr(x, "shape") else repr(x)
            raise ValueError(f"x must be a pair of times and locations, got {got:.80}")
        times, locations = x
        if locations is None:
            return times, self.prior.locations
        locations = real_points("locations", locations)
        same_dimension("locations", locations, self.prior.locations)
        return times, locations.astype(self.prior.locations.dtype)

    def _times(self, times: Any) -> Any:
        return self._markov.observed_times() if times is None else jnp.asarray(times)

    def _prior_mean(self, x: Any) -> Any:
        prior = self.prior
        if prior.mean_value is not None:
            return prior.mean_value
        if x is None or tuple(x) == (None, None):
            return prior.process.loc
        raise ValueError("the prior mean is known at the observations only: give mean as a number")

    def _rows(self, locations: jax.Array) -> jax.Array:
        """How the function at locations mixes independent processes of time, `(q, M)`."""
        prior = self.prior
        if not prior.complete:
            return prior.mixing(locations)
        values, _ = eigh(prior.cov)
        return self._weights(locations) * jnp.sqrt(jnp.maximum(values, 0))

    def _weights(self, locations: jax.Array) -> jax.Array:
        """How it mixes the series of eigenvectors, whose variances are the eigenvalues."""
        values, vectors = eigh(self.prior.cov)
        known = values > len(values) * jnp.finfo(values.dtype).eps * values[-1]
        cross = self.prior.space_kernel.gram(locations, self.prior.locations) @ vectors
        return jnp.where(known, cross / jnp.where(known, values, 1.0), 0.0)

    def _each_series(self, query: Any) -> Any:
        """The results for the series of each eigenvector, as in the density, leading axis."""
        values, vectors = eigh(self.prior.cov)
        markov, space = self._markov, self.prior.process.space.spaces[0]
        columns, noise_var = markov.series.y @ vectors, markov.series.noise_var[:, 0]

        def one(value: jax.Array, y: jax.Array) -> Any:
            series = markov.series._replace(y=y, noise_var=noise_var, observed=jnp.ones_like(y))
            return query(
                MarkovPosterior(
                    ScaledSpace(space, value),
                    series,
                    jnp.zeros_like(y),
                    jnp.zeros_like(value),
                    None,
                    markov.order,
                    None,
                    markov.origin,
                    markov.backend,
                )
            )

        return jax.vmap(one, (0, 1))(jnp.maximum(values, 0), columns)


def same_dimension(name: str, points: Float[Array, "_ _"], others: Float[Array, "_ _"]) -> None:
    """Refuse locations of another dimension than those of the observations.

    Raises:
        ValueError: they differ.
    """
    if points.shape[1] != others.shape[1]:
        raise ValueError(
            f"{name} must hold points of the same dimension as the locations of the observations, "
            f"{others.shape[1]}; got shape {points.shape}"
        )
