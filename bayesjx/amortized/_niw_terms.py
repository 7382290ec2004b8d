"""Divergences of the normal-inverse-Wishart distribution with a diagonal scale matrix."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax.scipy.special import digamma, gammaln
from jaxtyping import Array, Float


class NIW(NamedTuple):
    r"""Normal-inverse-Wishart distribution $N(\mu; m, \Sigma / l) \, IW(\Sigma; V, n)$.

    Attributes:
        loc: $m$, shape `(d,)`.
        strength: $l$, positive, scalar; may be infinite.
        scale: diagonal of $V$, positive, shape `(d,)`.
        excess: $n - d - 1$, how far the degrees of freedom are from those without a mean of
            $\Sigma$, scalar. The degrees themselves would lose it to rounding where `d` is large.
    """

    loc: Float[Array, " d"]
    strength: Float[Array, ""]
    scale: Float[Array, " d"]
    excess: Float[Array, ""]

    @property
    def degrees(self) -> Float[Array, ""]:
        """Degrees of freedom $n$."""
        return self.excess + (self.loc.size + 1)

    @property
    def precision(self) -> Float[Array, " d"]:
        r"""$E[\Sigma^{-1}] = n V^{-1}$, its diagonal, shape `(d,)`."""
        return self.degrees / self.scale

    def halves(self) -> Float[Array, " d"]:
        """$(n - j) / 2$ for $j = 0, ..., d - 1$, which the multivariate gamma function is of."""
        j = jnp.arange(self.loc.size, dtype=self.loc.dtype)
        return 0.5 * (self.excess + (self.loc.size + 1 - j))


def expected_kl(
    q: NIW,
    mean: Float[Array, " d"],
    variance: Float[Array, " d"],
    logdet: Float[Array, ""],
) -> Float[Array, ""]:
    r"""$E_q[\mathrm{KL}(N(\mu_i, C_i) \,\|\, N(\mu, \Sigma))]$ of a task, in nats.

    Args:
        q: of $(\mu, \Sigma)$.
        mean: $\mu_i$.
        variance: diagonal of $C_i$, all of it that a diagonal `q.scale` sees.
        logdet: $\log \det C_i$.

    References:
        Kim and Hospedales (2024), "A hierarchical Bayesian model for few-shot meta learning", ICLR.
    """
    halves = q.halves()
    expected_logdet = jnp.sum(jnp.log(q.scale)) - jnp.sum(digamma(halves) + jnp.log(2.0))
    square = q.precision * (variance + (mean - q.loc) ** 2) - 1 + 1 / q.strength
    return 0.5 * (jnp.sum(square) + expected_logdet - logdet)


def kl(q: NIW, p: NIW) -> Float[Array, ""]:
    """Kullback-Leibler divergence from `q` to `p`, in nats; infinite if `q.strength` is."""
    half, other = q.halves(), p.halves()
    ratio = p.strength / q.strength
    normal = ratio - 1 - jnp.log(ratio) + p.strength * q.precision * (q.loc - p.loc) ** 2
    gammas = gammaln(other) - gammaln(half)
    wishart = p.degrees * (jnp.log(q.scale) - jnp.log(p.scale))
    wishart += (q.excess - p.excess) * digamma(half) + q.degrees * (p.scale / q.scale - 1)
    return jnp.sum(0.5 * normal + gammas + 0.5 * wishart)
