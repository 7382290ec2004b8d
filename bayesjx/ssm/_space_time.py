"""Gaussian processes of space and time, linear in time, as NumPyro distributions."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro.distributions import constraints, Distribution

from .._core import checked_finite, eigh, safe_cholesky, solve_triangular
from ..kernels import AbstractKernel, real_points
from ..likelihoods import Gaussian, Likelihood
from . import _complete_grid as complete_grid, _process as process, _unrolled as unrolled
from ._approximate import approximate, check_prior
from ._inputs import draws as draws_of, kernel as check_kernel, numbers
from ._markov_gp import MarkovGP, mixed, replaced
from ._space_time_posterior import same_dimension, SpaceTimePosterior
from ._spaces import SumSpace
from ._state_space import HARMONICS


class SpaceTimeGP(Distribution):
    r"""Noisy observations at locations and times of $f \sim GP(m, k_s k_t)$, linear in time.

    With all cells of the grid observed, one scalar noise and no inducing points, the density is
    exact at $O(s^3 + s n d^3)$: series of eigenvectors of $K_s$ are filtered side by side. With
    missing cells or other noise it is exact too, with one state for all locations,
    $O(n s^3 d^2)$. With $M$ inducing points it is a lower bound of the log evidence,
    $O(n s M^2 d^2)$, tight where they determine the function.

    Args:
        space_kernel: of locations.
        time_kernel: of times, with a state space, see `state_space`.
        locations: shape `(s, p)` or `(s,)`.
        times: shape `(n,)`, see `MarkovGP`.
        mean: of the process: a number, or an array `(s,)` or `(n, s)`, whose posterior then has no
            mean elsewhere.
        noise_var: variance of the observations, scalar, `(s,)` or `(n, s)`.
        mask: booleans `(n, s)`, which cells are observed; by default all.
        inducing_points: locations `(M, p)`, fewer than `s`; by default none.
        harmonics: of `Periodic` kernels, see `state_space`.

    Raises:
        ValueError: wrong shapes, NaN in locations, and what `MarkovGP` refuses.

    References:
        Hamelijnck, Wilkinson, Loppi, Solin and Damoulas (2021), "Spatio-temporal variational
        Gaussian processes", NeurIPS, section 3; Solin (2016), "Stochastic differential equation
        methods for spatio-temporal Gaussian process regression", chapter 4.
    """

    pytree_data_fields = (
        "space_kernel",
        "locations",
        "inducing_points",
        "cov",
        "root",
        "process",
        "residual",
        "mean_value",
    )
    pytree_aux_fields = ("complete",)

    def __init__(
        self,
        space_kernel: AbstractKernel,
        time_kernel: Any,
        locations: Any,
        times: Any,
        mean: Any = 0.0,
        *,
        noise_var: Any = 0.0,
        mask: Any = None,
        inducing_points: Any = None,
        harmonics: int = HARMONICS,
    ):
        check_kernel("space_kernel", space_kernel)
        self.space_kernel = space_kernel
        locations = real_points("locations", numbers("locations", locations))
        self.locations = checked_finite("locations", locations)
        anchors = self.locations
        if inducing_points is not None:
            anchors = real_points("inducing_points", inducing_points)
        self.inducing_points = checked_finite("inducing_points", anchors)
        same_dimension("inducing_points", self.inducing_points, self.locations)
        self.complete = mask is None and inducing_points is None and np.ndim(noise_var) == 0
        self.cov = space_kernel.gram(self.inducing_points)
        self.root: Any = None if self.complete else _root(self.cov)
        # Of a complete grid only one of the processes of time is ever needed.
        count = len(self.locations)
        mixing = jnp.ones((count, 1)) if self.complete else self.mixing(self.locations)
        sparse = inducing_points is not None
        self.residual = self.residual_var(self.locations, mixing) if sparse else None
        if callable(mean):
            raise ValueError("mean must be a number or an array, not a function")
        self.process = MarkovGP(
            [time_kernel] * mixing.shape[1],
            times,
            mean,
            noise_var=noise_var,
            mask=mask,
            mixing=mixing,
            harmonics=harmonics,
        )
        self.mean_value = (
            jnp.asarray(mean, self.process.steps.dtype) if np.ndim(mean) == 0 else None
        )
        super().__init__((), self.process.event_shape, validate_args=False)

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> Any:
        """All matrices."""
        return constraints.independent(constraints.real, 2)

    def mixing(self, locations: Any) -> Float[Array, "q M"]:
        """How the function at locations mixes independent processes of time, `(q, M)`."""
        cross = self.space_kernel.gram(self.inducing_points, real_points("locations", locations))
        return solve_triangular(self.root, cross, lower=True).T

    def residual_var(self, locations: Any, mixing: Float[Array, "q M"]) -> Float[Array, " q"]:
        """The variance of the factor of space that a mixture does not have, `(q,)`."""
        variances = self.space_kernel.diag(real_points("locations", locations))
        return jnp.maximum(variances - jnp.sum(mixing**2, axis=1), 0)

    def log_prob(self, value: Any, intermediates: Any = None) -> Float[Array, ...]:
        if not self.complete:
            return self.process.log_prob(value) - self.lost()
        shape = np.shape(value)
        if shape[-2:] != self.event_shape:
            raise ValueError(f"SpaceTimeGP: value must have shape (..., {self.event_shape})")
        self.process.refuse_gaps(value)
        one = lambda y: self.complete_log_density(self.process.series(y))  # noqa: E731
        return jnp.reshape(jax.vmap(one)(jnp.reshape(value, (-1, *shape[-2:]))), shape[:-2])

    def complete_log_density(self, series: Any) -> Float[Array, ""]:
        """The log density of a complete grid, scalar."""
        inside = self.process
        precise = inside.steps.dtype != jnp.float64
        args = (self.cov, inside.space, inside.noise_var[0, 0], series)
        return complete_grid.log_density(precise, *args)

    def lost(self) -> Any:
        """What the bound lacks for the variance that inducing points leave (Titsias 2009)."""
        if self.residual is None:
            return 0.0
        inside = self.process
        noise_var = jnp.where(inside.observed > 0, inside.noise_var, 1.0)
        left = self.time_variance()[:, None] * self.residual
        return 0.5 * jnp.sum(inside.observed * left / noise_var)

    def time_variance(self, times: Any = None) -> Float[Array, " m"]:
        """The prior variance of the factor of time, shape `(m,)`.

        By default at the times of the observations, in the order of time.
        """
        inside = self.process
        at = inside.before + inside.steps if times is None else jnp.asarray(times) - inside.origin
        space, dtype = inside.space.spaces[0], inside.steps.dtype
        marginal = unrolled.stacked(space.marginal(at.astype(dtype)), at.shape, dtype)
        h = jnp.asarray(space.readout, dtype)
        return jnp.einsum("i,...ij,j->...", h, marginal, h)

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Float[Array, "*sample n s"]:
        """Draws of the observations; with inducing points not to be had."""
        draws_of(key, "sample_shape", sample_shape)
        if self.residual is not None:
            raise NotImplementedError("draws need all of the covariance: leave inducing_points out")
        inside = self.process
        if not self.complete:
            return inside.sample(key, sample_shape)
        in_path, in_noise = jax.random.split(key)
        shape = (*sample_shape, len(self.locations))
        args = (inside.space, inside.before, inside.steps, shape)
        paths = process.prior_paths(in_path, *args)[..., 0]
        values, vectors = eigh(self.cov)
        root = vectors * jnp.sqrt(jnp.maximum(values, 0))
        path = jnp.einsum("...sn,qs->...nq", paths, root)
        draws = jax.random.normal(in_noise, path.shape, path.dtype)
        return inside.loc + inside.as_given(path + jnp.sqrt(inside.noise_var) * draws)

    def condition(
        self, y: Any, likelihood: Likelihood | None = None, *, mask: Any = None, **options: Any
    ) -> SpaceTimePosterior:
        """The posterior of the function given observations, `(n, s)`.

        Args:
            y: what was observed.
            likelihood: from values of the function to a NumPyro distribution, of a prior without
                noise; by default, and with `likelihoods.Gaussian`, the posterior is exact but for
                what inducing points leave.
            mask: which of them are observed, besides the mask that the distribution has.
            options: with a likelihood that is not normal, those of `approximate`.

        Raises:
            ValueError: a wrong shape, NaN that no mask hides, a likelihood beside noise, options
                without a likelihood that needs them.
        """
        normal = likelihood is None or isinstance(likelihood, Gaussian)
        prior = self if normal and mask is None else self._with_gaps(mask)
        if not normal:
            residual_var = 0.0
            if prior.residual is not None:
                left = prior.time_variance()[:, None] * prior.residual
                residual_var = prior.process.as_given(left)
            inside = approximate(prior.process, y, likelihood, residual_var=residual_var, **options)
            return SpaceTimePosterior(prior, inside)
        if options:
            raise ValueError(f"condition: {', '.join(options)} is for a likelihood, approximated")
        if likelihood is not None:
            check_prior(self.process)
            noisy = prior.process.replaced_noise(likelihood.noise_var)
            prior = replaced(prior, process=noisy)
        return SpaceTimePosterior(prior, prior.process.condition(y))

    def _with_gaps(self, mask: Any) -> SpaceTimeGP:
        """The same with one state for all locations, and fewer observations."""
        inside, prior = self.process, self
        if self.complete:
            prior = replaced(self, root=_root(self.cov), complete=False)
            mixing = prior.mixing(self.locations)
            space = SumSpace(inside.space.spaces * mixing.shape[1])
            inside = replaced(inside, space=space, readout=mixed(space, mixing))
        if mask is not None:
            inside = inside.masked(mask)
        return replaced(prior, process=inside)


@jax.jit
def _root(cov: jax.Array) -> jax.Array:
    return safe_cholesky(cov).tril
