"""Linear regression with spike-and-slab weights: its arguments, and what a set of columns gives."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import betaln, gammaln
from jaxtyping import Array, Bool, Float, Int
from numpyro import distributions as dist

from .._core import cholesky_each, inverse_tril, refuse_where
from ._arguments import checked_problem, checked_variance
from ._design import dense


class SpikeSlabProblem(eqx.Module):
    r"""The regression in units in which noise and slab have variance 1.

    A weight is `weight_scale` times $u_j$ with $u_j \mid \sigma \sim N(0, \sigma^2)$ where it is
    not zero; $\sigma = 1$ if the variance of the noise is known, else it has an inverse gamma
    distribution.

    Attributes:
        design: shape `(n, m)`, scaled.
        y: shape `(n,)`, scaled by `y_scale`.
        weight_scale: shape `(m,)`.
        y_scale: scalar.
        noise: shape and rate of the inverse gamma distribution of the scaled noise variance; None
            if it is known.
        log_odds: of the prior probabilities, shape `(m,)`; or the two parameters of the beta
            distribution of one probability, shape `(2,)`.
        gram: $\Phi^\top \Phi$, where it is no larger than `design`.
        is_beta: what `log_odds` is.
    """

    design: Float[Array, "n m"]
    y: Float[Array, " n"]
    weight_scale: Float[Array, " m"]
    y_scale: Float[Array, ""]
    noise: Float[Array, " 2"] | None
    log_odds: Float[Array, " k"]
    gram: Float[Array, "m m"] | None
    is_beta: bool = eqx.field(static=True)

    def columns_times(self, index: Any) -> Float[Array, "k m"]:
        """Products of some columns, zero where `index` is out of range, with all."""
        if self.gram is not None:
            return self.gram.at[index].get(mode="fill", fill_value=0)
        return self.columns(index).T @ self.design

    def columns(self, index: Any) -> Float[Array, "n k"]:
        """Some columns, zero where `index` is out of range."""
        return self.design.at[:, index].get(mode="fill", fill_value=0)

    def log_prior(self, active: Bool[Array, " m"]) -> Float[Array, ""]:
        """Log prior probability of which weights are not zero."""
        if self.is_beta:
            a, b = self.log_odds
            count = jnp.sum(active).astype(a.dtype)
            return betaln(a + count, b + active.size - count) - betaln(a, b)
        return jnp.sum(jax.nn.log_sigmoid(jnp.where(active, self.log_odds, -self.log_odds)))

    def prior_log_odds(self, active: Bool[Array, " m"]) -> Float[Array, " m"]:
        """Prior log odds of each weight given which of the others are not zero."""
        if not self.is_beta:
            return self.log_odds
        a, b = self.log_odds
        others = (jnp.sum(active) - active).astype(a.dtype)
        return jnp.log(a + others) - jnp.log(b + active.size - 1 - others)

    def log_bayes_factor(self, pivot: Any, coefficient: Any, rss: Any) -> Float[Array, ...]:
        r"""Log evidence with a column less that without it.

        Args:
            pivot: $1 + \phi_j^\top C^{-1} \phi_j$ where $C$ has the other columns.
            coefficient: $\phi_j^\top C^{-1} y$.
            rss: $y^\top C^{-1} y$.

        References:
            Tipping and Faul (2003), "Fast marginal likelihood maximisation for sparse Bayesian
            models", with the variance of the slab in place of one that is optimised.
        """
        gain = coefficient**2 / pivot
        if self.noise is None:
            return 0.5 * (gain - jnp.log(pivot))
        shape, rate = self.noise
        share = jnp.minimum(gain / (2 * rate + rss), 1 - jnp.finfo(pivot.dtype).eps)
        return -0.5 * jnp.log(pivot) - (shape + 0.5 * len(self.y)) * jnp.log1p(-share)

    def log_evidence(self, rss: Any, logdet: Any) -> Float[Array, ...]:
        """Log marginal likelihood of `y` given the columns."""
        n = len(self.y)
        units = n * (0.5 * jnp.log(2 * jnp.pi) + jnp.log(self.y_scale)) + 0.5 * logdet
        if self.noise is None:
            return -units - 0.5 * rss
        shape, rate = self.noise
        norm = gammaln(shape + 0.5 * n) - gammaln(shape) + shape * jnp.log(rate)
        return norm - units - (shape + 0.5 * n) * jnp.log(rate + 0.5 * rss)

    @property
    def slab_var(self) -> Float[Array, " m"]:
        """Prior variance of weights that are not zero, as it was given."""
        scale = self.weight_scale if self.noise is None else self.weight_scale / self.y_scale
        return scale**2

    @property
    def degrees_of_freedom(self) -> Float[Array, ""]:
        """Of responses where the variance of the noise is unknown."""
        assert self.noise is not None
        return 2 * self.noise[0] + len(self.y)

    def noise_rate_given(self, rss: Any) -> Float[Array, ...]:
        """Rate of the inverse gamma posterior of an unknown noise variance given the columns."""
        assert self.noise is not None
        return self.noise[1] + 0.5 * rss

    def noise_var_given(self, rss: Any) -> Float[Array, ...]:
        """Posterior mean of the scaled noise variance given the columns."""
        if self.noise is None:
            return jnp.ones_like(rss)
        return self.noise_rate_given(rss) / (0.5 * self.degrees_of_freedom - 1)


class Chosen(NamedTuple):
    """The posterior given which weights are not zero, for `k` slots, some of them free.

    Attributes:
        index: columns, shape `(k,)`; `m` for a free slot.
        inverse_tril: $L^{-1}$ of the posterior precision $L L^T$ of the scaled weights, `(k, k)`.
        mean: of the scaled weights, shape `(k,)`.
        residual: of the scaled observations, shape `(n,)`.
        rss: its square plus that of the mean, scalar.
        logdet: of the posterior precision, scalar.
    """

    index: Int[Array, " k"]
    inverse_tril: Float[Array, "k k"]
    mean: Float[Array, " k"]
    residual: Float[Array, " n"]
    rss: Float[Array, ""]
    logdet: Float[Array, ""]

    def moments(self, problem: SpikeSlabProblem) -> tuple[Float[Array, " m"], Float[Array, " m"]]:
        """Mean and variance of all weights, in the units of the data."""
        variance = jnp.sum(self.inverse_tril**2, axis=0) * problem.noise_var_given(self.rss)
        none, scale = jnp.zeros_like(problem.weight_scale), problem.weight_scale
        mean, variance = (none.at[self.index].set(x, mode="drop") for x in (self.mean, variance))
        return mean * scale, variance * scale**2


def chosen(problem: SpikeSlabProblem, active: Bool[Array, " m"], slots: int) -> Chosen:
    """The posterior given the active columns, of which there are at most `slots`."""
    size = active.size
    (index,) = jnp.nonzero(active, size=slots, fill_value=size)
    columns = problem.columns(index)
    precision = columns.T @ columns + jnp.eye(slots, dtype=columns.dtype)
    tril = cholesky_each(precision)
    inverse = inverse_tril(tril)
    mean = inverse.T @ (inverse @ (columns.T @ problem.y))
    residual = problem.y - columns @ mean
    rss = residual @ residual + mean @ mean  # no difference of large numbers
    return Chosen(index, inverse, mean, residual, rss, 2 * jnp.sum(jnp.log(jnp.diag(tril))))


def spike_slab_problem(
    owner: str, design: Any, y: Any, noise_var: Any, slab_var: Any, prior_prob: Any
) -> SpikeSlabProblem:
    """The problem of checked arguments."""
    design, y = checked_problem(owner, design, y)
    if y.ndim != 1 or jnp.iscomplexobj(y) or jnp.iscomplexobj(design):
        raise ValueError(
            f"{owner}: y must be real, of shape (n,), and design real, got {y.dtype} of shape "
            f"{y.shape} and {design.dtype}; several responses are a jax.vmap over y"
        )
    design, size, dtype = dense(design), design.shape[1], y.dtype
    root = jnp.sqrt(checked_variance(owner, "slab_var", slab_var, dtype, size))
    if isinstance(noise_var, dist.InverseGamma):
        shape, rate = _parameters(owner, "noise_var", noise_var, ("concentration", "rate"), dtype)
        text = f"{owner}: squares of y are out of range of {np.dtype(dtype)}; rescale it"
        power = refuse_where(jnp.mean(y**2), lambda power: ~(power < np.inf), text)
        scale = jnp.sqrt(power)
        y_scale = jnp.where(scale > 0, scale, 1)
        noise = jnp.stack([shape, rate / y_scale**2])
        scaled, weight_scale = design * root, root * y_scale
    elif isinstance(noise_var, dist.Distribution):
        raise ValueError(
            f"{owner}: noise_var must be a number or numpyro.distributions.InverseGamma, got "
            f"{type(noise_var).__name__}"
        )
    else:
        y_scale = jnp.sqrt(checked_variance(owner, "noise_var", noise_var, dtype))
        noise, scaled, weight_scale = None, design * (root / y_scale), root
    is_beta = isinstance(prior_prob, dist.Beta)
    if is_beta:
        names = ("concentration1", "concentration0")
        log_odds = jnp.stack(_parameters(owner, "prior_prob", prior_prob, names, dtype))
    elif isinstance(prior_prob, dist.Distribution):
        raise ValueError(
            f"{owner}: prior_prob must be numbers in [0, 1] or numpyro.distributions.Beta, got "
            f"{type(prior_prob).__name__}"
        )
    else:
        prob = checked_variance(owner, "prior_prob", prior_prob, dtype, size, zero=True)
        prob = refuse_where(prob, lambda p: p > 1, f"{owner}: prior_prob must be in [0, 1]")
        log_odds = jnp.log(prob) - jnp.log1p(-prob)
    gram = scaled.T @ scaled if size <= len(y) else None
    return SpikeSlabProblem(
        scaled, y / y_scale, weight_scale, y_scale, noise, log_odds, gram, is_beta
    )


def _parameters(
    owner: str, name: str, prior: dist.Distribution, fields: tuple[str, ...], dtype: Any
) -> list[jax.Array]:
    """Positive parameters of a distribution of one number."""
    return [
        checked_variance(owner, f"{name}.{field}", getattr(prior, field), dtype) for field in fields
    ]
