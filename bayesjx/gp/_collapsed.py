"""Sparse regression with the inducing variables integrated out: bounds and their neighbours."""

from __future__ import annotations

from typing import Any

import jax
import jax.core
import jax.numpy as jnp

from .. import ops
from .._core import failures_are_nan, refuse_where
from ..distributions import CollapsedNormal
from ..kernels import AbstractKernel
from ._arguments import integer
from ._process import GP
from ._sparse import diagonal_noise, features_at
from ._structure import all_points


def sgpr(
    prior: GP,
    points: Any,
    x: Any,
    *,
    tight: bool = True,
    blocks: int | None = None,
    jitter: float | None = None,
) -> CollapsedNormal:
    r"""A lower bound of the marginal likelihood by `m` inducing points, in $O(n m^2)$.

    In a model, `numpyro.sample("y", sgpr(prior, points, x), obs=y)`; to fit, minimise
    `-sgpr(prior, points, x).log_prob(y)`. It is $\log N(y; m, \Phi^\top \Phi + S)$ with the
    whitened features $\Phi$ and the noise $S$, less a penalty of the variance $d_n$ that the
    inducing points leave at each input:

    - tightened, the default: $\frac12 \sum_n \log(1 + d_n / \sigma_n^2)$;
    - `tight=False`, Titsias (2009): $\frac12 \sum_n d_n / \sigma_n^2$, which is never less and
      makes fits prefer too much noise. It is there for comparisons;
    - `blocks`: $\frac12 \sum_b \log\det(I + S_b^{-1} D_b)$ with the covariances $D_b$ that are left
      within blocks of consecutive data, so that neighbours should be close in `x`. Tighter still
      for $O(n^3 / b^2)$ more.

    All are below the exact `prior(x).log_prob(y)`, and equal it where the inducing points are the
    inputs, but for the jitter. The best law of the inducing variables is the same for all; see
    `sparse_posterior`.

    Args:
        prior: the process with its noise, a scalar or `(n,)`, positive.
        points: inducing points, shape `(m, d)` or `(m,)`, no more than data.
        x: inputs, shape `(n, d)` or `(n,)`.
        tight: whether to tighten the bound.
        blocks: number of blocks of data; sizes differ by at most one.
        jitter: see `inducing_features`.

    Returns:
        A law of `y`, shape `(n,)`. Its density is NaN where parameters known only at run time have
        none: negative lengthscales, variances or noise.

    Raises:
        ValueError: wrong shapes, NaN in the inputs or the points, more points than data, noise
            that is known and not positive, `blocks` below 1 or above `n` or without `tight`.
        RuntimeError: inputs or points known only when a compiled program runs hold NaN.

    References:
        Titsias (2009), "Variational learning of inducing variables in sparse Gaussian processes",
        AISTATS, equation 9. Titsias (2025), "New bounds for sparse variational Gaussian processes";
        Bui, Ashman and Turner (2025), "Tighter sparse variational Gaussian processes": the
        tightened bound. Bui and Titsias, "Sparse Gaussian processes: structured approximations and
        power-EP revisited": blocks.
    """
    if blocks is not None and not tight:
        raise ValueError("sgpr: blocks are for the tightened bound; leave tight=True")
    x = all_points(x)
    if blocks is not None:
        integer("sgpr: blocks", blocks, 1, len(x))
    if not tight:
        return power_ep(prior, points, x, 0.0, jitter=jitter)
    noise = diagonal_noise(prior, x)
    features, phi = features_at(prior, points, x, jitter)
    if blocks is None:
        penalty = jnp.sum(jnp.log1p(features.residual(x, phi) / noise))
    else:
        penalty = _block_logdet(prior.kernel, x, phi, noise, blocks)
    return _law(prior, x, phi, noise, -0.5 * penalty)


def fitc(prior: GP, points: Any, x: Any, *, jitter: float | None = None) -> CollapsedNormal:
    r"""The approximation with exact variances, the fully independent training conditional.

    With the notation of `sgpr`, the covariance is $\Phi^\top \Phi + \mathrm{diag}(d) + S$. A model
    of its own and no bound: fits tend to too little noise, and more inducing points may make it
    worse. Prefer `sgpr`, unless the noise is known or varies with the input.

    Args:
        prior: the process with its noise, a scalar or `(n,)`, positive.
        points: inducing points, shape `(m, d)` or `(m,)`, no more than data.
        x: inputs, shape `(n, d)` or `(n,)`.
        jitter: see `inducing_features`.

    Returns:
        A law of `y`, shape `(n,)`.

    Raises:
        ValueError: as for `sgpr`.
        RuntimeError: as for `sgpr`.

    References:
        Snelson and Ghahramani (2006), "Sparse Gaussian processes using pseudo-inputs", NeurIPS 18;
        the name is of Quiñonero-Candela and Rasmussen (2005), JMLR 6.
    """
    return power_ep(prior, points, x, 1.0, jitter=jitter)


def power_ep(
    prior: GP, points: Any, x: Any, alpha: Any, *, jitter: float | None = None
) -> CollapsedNormal:
    r"""The marginal likelihood of power expectation propagation, between the bound and FITC.

    With the notation of `sgpr`, the covariance is $\Phi^\top \Phi + \alpha\,\mathrm{diag}(d) + S$
    and the penalty $\frac{1 - \alpha}{2 \alpha} \sum_n \log(1 + \alpha d_n / \sigma_n^2)$. At
    $\alpha = 0$ it is the bound of Titsias (2009), at 1 it is `fitc`; in between it is no bound.

    Args:
        prior: the process with its noise, a scalar or `(n,)`, positive.
        points: inducing points, shape `(m, d)` or `(m,)`, no more than data.
        x: inputs, shape `(n, d)` or `(n,)`.
        alpha: the power, in 0 to 1, scalar; no derivative at exactly 0.
        jitter: see `inducing_features`.

    Returns:
        A law of `y`, shape `(n,)`.

    Raises:
        ValueError: as for `sgpr`, or `alpha` outside of 0 to 1.
        RuntimeError: as for `sgpr`, also for `alpha`.

    References:
        Bui, Yan and Turner (2017), "A unifying framework for Gaussian process pseudo-point
        approximations using power expectation propagation", JMLR 18.
    """
    if jnp.ndim(alpha) != 0:
        raise ValueError(f"power_ep: alpha must be a scalar, got shape {jnp.shape(alpha)}")
    alpha = refuse_where(
        alpha, lambda v: ~((v >= 0) & (v <= 1)), "power_ep: alpha must lie in 0 to 1"
    )
    x = all_points(x)
    noise = diagonal_noise(prior, x)
    features, phi = features_at(prior, points, x, jitter)
    left = features.residual(x, phi)
    alpha = jnp.asarray(alpha, x.dtype)
    ratio, power = left / noise, jnp.where(alpha > 0, alpha, 1)
    penalty = jnp.sum(jnp.where(alpha > 0, jnp.log1p(power * ratio) / power, ratio))
    return _law(prior, x, phi, noise + alpha * left, -0.5 * (1 - alpha) * penalty)


def _law(
    prior: GP, x: jax.Array, phi: jax.Array, spread: jax.Array, correction: jax.Array
) -> CollapsedNormal:
    with failures_are_nan():  # the operator is part of a density, which a sampler moves
        covariance = ops.LowRankPlusDiag(phi.T, spread)
    return CollapsedNormal(prior.mean_at(x), covariance, correction)


def _block_logdet(
    kernel: AbstractKernel, x: jax.Array, phi: jax.Array, noise: jax.Array, blocks: int
) -> jax.Array:
    r"""$\sum_b \log\det(I + S_b^{-1/2} D_b S_b^{-1/2})$; the first blocks are one longer."""
    size, longer = divmod(len(x), blocks)
    cut = longer * (size + 1)
    scale = jnp.sqrt(noise)
    total = jnp.zeros((), x.dtype)
    for length, part in ((size + 1, slice(0, cut)), (size, slice(cut, None))):
        if not len(x[part]):
            continue
        inputs = x[part].reshape(-1, length, x.shape[1])
        unit = (phi[:, part] / scale[part]).T.reshape(-1, length, len(phi))
        own = scale[part].reshape(-1, length)
        left = jax.vmap(kernel.gram)(inputs) / (own[:, :, None] * own[:, None, :])
        left = left - jnp.einsum("bim,bjm->bij", unit, unit) + jnp.eye(length, dtype=x.dtype)
        with failures_are_nan():
            total = total + ops.BlockDiag(left, ops.psd).logdet()
    return total
