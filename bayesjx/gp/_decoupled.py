"""Inducing points in two sets, the second for what the first one leaves of the process."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import block_diag

from ..distributions._likelihood import Likelihood
from ._arguments import checked_jitter
from ._inducing_features import inducing_features
from ._inverse_factor import inverse_factor, product, written_out
from ._predictive import held
from ._process import GP
from ._sparse_posterior import SparsePosterior
from ._structure import all_points
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
    second set of points are inducing variables too, with a law of their own. It is an `SVGP` with
    both sets whose covariance has no block between them: its best bound lies between that of the
    first set and that of both, while the factorisations cost a quarter of those of both for sets of
    equal size.

    Args:
        prior: the process. Without a likelihood, its `noise` is that of the observations.
        points: inducing points, shape `(m, d)` or `(m,)`.
        orthogonal: those of $f_{\perp}$, shape `(m2, d)` or `(m2,)`.
        likelihood: from the function to a NumPyro distribution, see `expected_log_prob`.
        num_latents: see `SVGP`.
        q: law of the whitened inducing variables; by default that of the prior.
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
    points: jax.Array
    orthogonal: jax.Array
    likelihood: Likelihood | None
    blocks: tuple[WhitenedNormal, ...]
    tight: bool = eqx.field(static=True)
    jitter: float | None = eqx.field(static=True)

    def __init__(
        self,
        prior: GP,
        points: Any,
        orthogonal: Any,
        likelihood: Likelihood | None = None,
        *,
        num_latents: int = 1,
        q: WhitenedNormal | None = None,
        q_orthogonal: WhitenedNormal | None = None,
        tight: bool = False,
        jitter: float | None = None,
    ):
        check_observed(prior, likelihood, tight)
        self.prior, self.likelihood = prior, likelihood
        self.points = all_points(points, "points")
        self.orthogonal = all_points(orthogonal, "orthogonal").astype(self.points.dtype)
        if self.points.shape[1] != self.orthogonal.shape[1]:
            raise ValueError(
                f"points have {self.points.shape[1]} coordinates and orthogonal ones "
                f"{self.orthogonal.shape[1]}"
            )
        given = {"q": (q, self.points), "q_orthogonal": (q_orthogonal, self.orthogonal)}
        self.blocks = tuple(
            start(law, name, len(points), num_latents, points.dtype)
            for name, (law, points) in given.items()
        )
        self.tight = tight
        self.jitter = None if jitter is None else checked_jitter(jitter, self.points.dtype)

    @property
    def q(self) -> WhitenedNormal:
        """The law of the whitened inducing variables."""
        return self.blocks[0]

    @property
    def q_orthogonal(self) -> WhitenedNormal:
        """The law of those of the second set."""
        return self.blocks[1]

    def project(self, x: jax.Array) -> Projection:
        """The prior's part at points `(n, d)`."""
        kernel, m = self.prior.kernel, len(self.points)
        both = jnp.concatenate([self.points, self.orthogonal])
        added = first_jitter(kernel, both, self.jitter)
        cross = kernel.gram(both, x)
        whiten = inverse_factor(kernel.gram(self.points) + added[:m, :m])[0]
        # Two products: joined to one, data that are spread over devices would be gathered.
        there = product(whiten, kernel.gram(self.points, self.orthogonal))
        phi = product(whiten, cross[:m])
        back = written_out(there.T)
        rest = kernel.gram(self.orthogonal) + added[m:, m:] - product(back, there)
        left = inverse_factor(rest)[0]
        psi = product(left, cross[m:] - product(back, phi))
        known = jnp.sum(phi**2, axis=0) + jnp.sum(psi**2, axis=0)
        residual = jnp.maximum(kernel.diag(x) - known, 0)
        return Projection(mean_at(self.prior, x), (phi, psi), residual)

    def posterior(self, latent: int | None = None) -> SparsePosterior:
        # The features of both sets together, whitened in this order, are those of each.
        both = jnp.concatenate([self.points, self.orthogonal])
        features = inducing_features(self.prior.kernel, both, self.jitter)
        laws = [of_latent(block, latent) for block in self.blocks]
        mean = jnp.concatenate([law.mean for law in laws])
        tril = block_diag(*[jnp.tril(law.scale_tril) for law in laws])
        return SparsePosterior(
            self.prior, features, mean, tril, held(self.likelihood), num_latents(self.q)
        )
