"""Inducing points in two sets, the second for what the first one leaves of the process."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax.scipy.linalg import block_diag
from jaxtyping import Array, Float

from ..likelihoods import held, Likelihood
from ._arguments import checked_jitter
from ._collapsed import SparsePosterior
from ._inducing import inducing_features
from ._inputs import all_points
from ._inverse_factor import inverse_factor, product, written_out
from ._process import GP
from ._svgp import (
    AbstractSVGP,
    check_observed,
    first_jitter,
    mean_at,
    num_latents,
    of_latent,
    Projection,
    start,
    WhitenedNormal,
)


class DecoupledSVGP(AbstractSVGP):
    r"""An orthogonally decoupled sparse variational process, SOLVE-GP.

    $f = f_u + f_{\perp}$, where $f_u$ is what inducing points know and $f_{\perp}$ is independent
    of them, with covariance $k(x, x') - \phi(x)^\top \phi(x')$. The values of $f_{\perp}$ at a
    second set of points are inducing variables too, with a distribution of their own. It is an
    `SVGP` with both sets whose covariance has no block between them: its best bound lies between
    that of the first set and that of both, while the factorisations cost a quarter of those of both
    for sets of equal size.

    Args:
        prior: the process. Without a likelihood, its `noise_var` is that of the observations.
        likelihood: from the function to a NumPyro distribution, see
            `likelihoods.expected_log_prob`.
        inducing_points: shape `(m, d)` or `(m,)`.
        orthogonal_points: those of $f_{\perp}$, shape `(m2, d)` or `(m2,)`.
        num_latents: see `SVGP`.
        q: distribution of the whitened inducing variables; by default that of the prior.
        q_orthogonal: the same of the second set. With its covariance kept at the identity this is
            the method of Salimbeni et al. (2018).
        tight: see `SVGP`.
        jitter: see `inducing_features`.

    Raises:
        ValueError: as `SVGP`, or sets of points of different dimensions.

    References:
        Shi, Titsias and Mnih (2020), "Sparse orthogonal variational inference for Gaussian
        processes", AISTATS, section 3; Salimbeni, Cheng, Boots and Deisenroth (2018),
        "Orthogonally decoupled variational Gaussian processes", NeurIPS.
    """

    prior: GP
    likelihood: Likelihood | None
    inducing_points: Float[Array, "m d"]
    orthogonal_points: Float[Array, "m2 d"]
    blocks: tuple[WhitenedNormal, ...]
    tight: bool = eqx.field(static=True)
    jitter: float | None = eqx.field(static=True)

    def __init__(
        self,
        prior: GP,
        likelihood: Likelihood | None = None,
        *,
        inducing_points: Any,
        orthogonal_points: Any,
        num_latents: int = 1,
        q: WhitenedNormal | None = None,
        q_orthogonal: WhitenedNormal | None = None,
        tight: bool = False,
        jitter: float | None = None,
    ):
        check_observed(prior, likelihood, tight)
        self.prior, self.likelihood = prior, likelihood
        self.inducing_points = all_points(inducing_points, "inducing_points")
        orthogonal_points = all_points(orthogonal_points, "orthogonal_points")
        self.orthogonal_points = orthogonal_points.astype(self.inducing_points.dtype)
        if self.inducing_points.shape[1] != self.orthogonal_points.shape[1]:
            raise ValueError(
                f"inducing_points have {self.inducing_points.shape[1]} coordinates and "
                f"orthogonal_points {self.orthogonal_points.shape[1]}"
            )
        given = {
            "q": (q, self.inducing_points),
            "q_orthogonal": (q_orthogonal, self.orthogonal_points),
        }
        self.blocks = tuple(
            start(q, name, len(points), num_latents, points.dtype)
            for name, (q, points) in given.items()
        )
        self.tight = tight
        self.jitter = None if jitter is None else checked_jitter(jitter, self.inducing_points.dtype)

    @property
    def q(self) -> WhitenedNormal:
        """The distribution of the whitened inducing variables."""
        return self.blocks[0]

    @property
    def q_orthogonal(self) -> WhitenedNormal:
        """The distribution of those of the second set."""
        return self.blocks[1]

    def project(self, x: Float[Array, "n d"]) -> Projection:
        """The prior's part at points `(n, d)`."""
        kernel, m = self.prior.kernel, len(self.inducing_points)
        both = jnp.concatenate([self.inducing_points, self.orthogonal_points])
        added = first_jitter(kernel, both, self.jitter)
        cross = kernel.gram(both, x)
        whiten = inverse_factor(kernel.gram(self.inducing_points) + added[:m, :m])[0]
        # Two products: joined to one, data that are sharded over devices would be gathered.
        seen = product(whiten, kernel.gram(self.inducing_points, self.orthogonal_points))
        phi = product(whiten, cross[:m])
        back = written_out(seen.T)
        rest = kernel.gram(self.orthogonal_points) + added[m:, m:] - product(back, seen)
        left = inverse_factor(rest)[0]
        psi = product(left, cross[m:] - product(back, phi))
        known = jnp.sum(phi**2, axis=0) + jnp.sum(psi**2, axis=0)
        residual = jnp.maximum(kernel.diag(x) - known, 0)
        return Projection(mean_at(self.prior, x), (phi, psi), residual)

    def posterior(self, latent: int | None = None) -> SparsePosterior:
        # The features of both sets together, whitened in this order, are those of each.
        both = jnp.concatenate([self.inducing_points, self.orthogonal_points])
        features = inducing_features(self.prior.kernel, both, self.jitter)
        parts = [of_latent(block, latent) for block in self.blocks]
        mean = jnp.concatenate([q.mean for q in parts])
        tril = block_diag(*[jnp.tril(q.scale_tril) for q in parts])
        return SparsePosterior(
            self.prior, features, mean, tril, held(self.likelihood), num_latents(self.q)
        )
