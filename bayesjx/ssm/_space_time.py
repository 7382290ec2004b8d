"""Gaussian processes of space and time, linear in time."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from numpyro import distributions as dist
from numpyro.distributions import constraints, Distribution

from .._core import checked_finite, eigh, safe_cholesky, solve_triangular
from ..kernels import AbstractKernel
from ..kernels._kernel import points as as_points
from . import _complete_grid as complete_grid, _process as process, _unrolled as unrolled
from ._inputs import draws as draws_of, kernel as check_kernel, numbers
from ._markov_gp import MarkovGP, mixed
from ._posterior import MarkovPosterior
from ._spaces import ScaledSpace
from ._state_space import HARMONICS


class SpaceTimeGP(Distribution):
    r"""Noisy observations at places and times of $f \sim GP(m, k_s k_t)$, linear in time.

    With all cells of the grid observed, one scalar noise and no inducing points, the density is
    exact at $O(s^3 + s n d^3)$: series of eigenvectors of $K_s$ are filtered side by side. With
    missing cells or other noise it is exact too, with one state for all places, $O(n s^3 d^2)$.
    With $M$ inducing places it is a lower bound of the log evidence, $O(n s M^2 d^2)$, tight where
    the places determine the function.

    Args:
        space_kernel: of places.
        time_kernel: of times, with a state space, see `state_space`.
        places: shape `(s, p)` or `(s,)`.
        times: shape `(n,)`, see `MarkovGP`.
        noise: variance of observations, scalar, `(s,)` or `(n, s)`.
        mean: of the process, such a shape.
        mask: booleans `(n, s)`, which cells are observed; by default all.
        inducing: places `(M, p)`, fewer than `s`; by default none.
        harmonics: of `Periodic` kernels, see `state_space`.

    Raises:
        ValueError: wrong shapes, NaN in places, and what `MarkovGP` refuses.

    References:
        Hamelijnck, Wilkinson, Loppi, Solin and Damoulas (2021), "Spatio-temporal variational
        Gaussian processes", NeurIPS, section 3; Solin (2016), "Stochastic differential equation
        methods for spatio-temporal Gaussian process regression", chapter 4.
    """

    pytree_data_fields = (
        "space_kernel",
        "places",
        "inducing",
        "cov",
        "root",
        "process",
        "residual",
    )
    pytree_aux_fields = ("complete",)

    def __init__(
        self,
        space_kernel: AbstractKernel,
        time_kernel: Any,
        places: Any,
        times: Any,
        noise: Any = 0.0,
        mean: Any = 0.0,
        mask: Any = None,
        *,
        inducing: Any = None,
        harmonics: int = HARMONICS,
    ):
        check_kernel("space_kernel", space_kernel)
        self.space_kernel = space_kernel
        self.places = checked_finite("places", as_points("places", numbers("places", places)))
        anchors = self.places if inducing is None else as_points("inducing", inducing)
        self.inducing = checked_finite("inducing", anchors)
        _same_dimension("inducing", self.inducing, self.places)
        self.complete = mask is None and inducing is None and np.ndim(noise) == 0
        self.cov = space_kernel.gram(self.inducing)
        self.root: Any = None if self.complete else _root(self.cov)
        # Of a complete grid only one of the processes of time is ever needed.
        mixing = jnp.ones((len(self.places), 1)) if self.complete else self.mixing(self.places)
        self.residual = None if inducing is None else self.left(self.places, mixing)
        kernels = [time_kernel] * mixing.shape[1]
        self.process = MarkovGP(
            kernels, times, noise, mean, mask, mixing=mixing, harmonics=harmonics
        )
        super().__init__((), self.process.event_shape, validate_args=False)

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> Any:
        """All matrices."""
        return constraints.independent(constraints.real, 2)

    def mixing(self, places: Any) -> jax.Array:
        """How the function at places mixes independent processes of time, `(q, M)`."""
        cross = self.space_kernel.gram(self.inducing, as_points("places", places))
        return solve_triangular(self.root, cross, lower=True).T

    def left(self, places: Any, mixing: jax.Array) -> jax.Array:
        """The variance of the factor of space that a mixture does not have, `(q,)`."""
        variances = self.space_kernel.diag(as_points("places", places))
        return jnp.maximum(variances - jnp.sum(mixing**2, axis=1), 0)

    def log_prob(self, value: Any, intermediates: Any = None) -> jax.Array:
        if not self.complete:
            return self.process.log_prob(value) - self._lost()
        shape = np.shape(value)
        if shape[-2:] != self.event_shape:
            raise ValueError(f"SpaceTimeGP: value must have shape (..., {self.event_shape})")
        law = self.process
        law.refuse_gaps(value)
        precise = law.steps.dtype != jnp.float64

        def one(y: jax.Array) -> jax.Array:
            noise = law.noise[0, 0]
            args = (self.cov, law.space, noise, law.series(y))
            return complete_grid.log_density(precise, *args)

        return jnp.reshape(jax.vmap(one)(jnp.reshape(value, (-1, *shape[-2:]))), shape[:-2])

    def _lost(self) -> Any:
        """What the bound lacks for the variance that inducing places leave."""
        if self.residual is None:
            return 0.0
        law = self.process
        noise = jnp.where(law.seen > 0, law.noise, 1.0)
        return 0.5 * jnp.sum(law.seen * self.time_variance()[:, None] * self.residual / noise)

    def time_variance(self, times: Any = None) -> jax.Array:
        """The prior variance of the factor of time, in the order of time, shape `(n,)`."""
        law = self.process
        at = law.before + law.steps if times is None else jnp.asarray(times) - law.origin
        space, dtype = law.space.spaces[0], law.steps.dtype
        marginal = unrolled.stacked(space.marginal(at.astype(dtype)), at.shape, dtype)
        h = jnp.asarray(space.readout, dtype)
        return jnp.einsum("i,...ij,j->...", h, marginal, h)

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        """Draws of the observations; with inducing places not to be had."""
        draws_of(key, "sample_shape", sample_shape)
        if self.residual is not None:
            raise NotImplementedError("draws need all of the covariance: leave inducing places out")
        law = self.process
        if not self.complete:
            return law.sample(key, sample_shape)
        in_path, in_noise = jax.random.split(key)
        shape = (*sample_shape, len(self.places))
        paths = process.prior_paths(in_path, law.space, law.before, law.steps, shape)[..., 0]
        values, vectors = eigh(self.cov)
        root = vectors * jnp.sqrt(jnp.maximum(values, 0))
        path = jnp.einsum("...sn,qs->...nq", paths, root)
        draws = jax.random.normal(in_noise, path.shape, path.dtype)
        return law.loc + law.as_given(path + jnp.sqrt(law.noise) * draws)

    def condition(self, value: Any) -> SpaceTimePosterior:
        """The law of the function given observations, `(n, s)`.

        Raises:
            ValueError: a wrong shape, or NaN that no mask hides.
        """
        return self.given(self.process.condition(value))

    def given(self, posterior: MarkovPosterior) -> SpaceTimePosterior:
        """The law of the function where that of its processes of time is known.

        Args:
            posterior: of `self.process`, by its `condition` or by `approximate`.
        """
        return SpaceTimePosterior(self, posterior)


class SpaceTimePosterior(eqx.Module):
    """The law of a process of space and time given observations.

    Attributes:
        law: of the observations before they were made.
        posterior: of its processes of time.
    """

    law: SpaceTimeGP
    posterior: MarkovPosterior

    def moments(self, times: Any = None, places: Any = None) -> tuple[jax.Array, jax.Array]:
        """Mean and variance of the function, without the prior mean.

        Args:
            times: shape `(m,)`; by default those of the observations.
            places: shape `(q, p)` or `(q,)`; by default those of the observations.

        Returns:
            Shape `(m, q)` both.
        """
        law = self.law
        places = law.places if places is None else as_points("places", places)
        _same_dimension("places", places, law.places)
        rows, moments = self._by_series(places) if law.complete else self._jointly(places)
        mean, variance = moments(times)
        at = self.posterior.observed_times() if times is None else times
        prior = law.time_variance(at)[:, None]
        return mean, variance + prior * law.left(places, rows)

    def marginal(self, times: Any = None, places: Any = None) -> dist.Normal:
        """The law of the function at each time and place, a normal of shape `(m, q)`."""
        mean, variance = self.moments(times, places)
        return dist.Normal(mean, jnp.sqrt(variance))

    def _jointly(self, places: Any) -> Any:
        rows = self.law.mixing(places)
        states = mixed(self.law.process.space, rows)
        return rows, lambda times: self.posterior.combinations(states, times)

    def _by_series(self, places: Any) -> Any:
        """Series of eigenvectors one by one, as in the density."""
        law = self.law
        values, vectors = eigh(law.cov)
        known = values > len(values) * jnp.finfo(values.dtype).eps * values[-1]
        cross = law.space_kernel.gram(as_points("places", places), law.places) @ vectors
        weights = jnp.where(known, cross / jnp.where(known, values, 1.0), 0.0)
        one = eqx.tree_at(
            lambda post: post.readout, self.posterior, None, is_leaf=lambda x: x is None
        )
        columns = self.posterior.series.y @ vectors
        noise = self.posterior.series.noise_var[:, 0]

        def moments(times: Any) -> tuple[jax.Array, jax.Array]:
            def column(value: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
                series = one.series._replace(y=y, noise_var=noise, observed=jnp.ones_like(y))
                space = ScaledSpace(law.process.space, value)
                parts = lambda post: (post.series, post.space)  # noqa: E731
                return eqx.tree_at(parts, one, (series, space)).moments(times)

            mean, variance = jax.vmap(column, (0, 1), 1)(jnp.maximum(values, 0), columns)
            return mean @ weights.T, variance @ (weights**2).T

        return weights * jnp.sqrt(jnp.maximum(values, 0)), moments


@jax.jit
def _root(cov: jax.Array) -> jax.Array:
    return safe_cholesky(cov).tril


def _same_dimension(name: str, points: jax.Array, others: jax.Array) -> None:
    if points.shape[1] != others.shape[1]:
        raise ValueError(
            f"{name} must hold points of the same dimension as the places of the observations, "
            f"{others.shape[1]}; got shape {points.shape}"
        )
