"""Gaussian-process regressions of a table, whose predictions a network of tables goes on from."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

NOISES = (0.003, 0.02, 0.1, 0.35, 0.8)  # shares of the noise in the variance
NEAR, FAR = 0.5, 1.2  # length scales of all columns together, in standard deviations
ALONE = 0.7  # length scale of a column by itself
NUM_KERNELS = 6
PRIOR_ROWS = 2  # that the variance is known from beforehand


class TableBaselines(eqx.Module):
    r"""Gaussian-process regressions of the rows of a context, one for each of some kernels.

    The kernels are linear, squared exponential with two length scales, additive over the ranks in
    the columns, and two sums. The share of the noise is averaged by the evidence, and the variance
    is the one that maximises the evidence, with two rows of prior knowledge.

    Attributes:
        z: standardised values of the context, 0 where there are none, shape `(..., n, d)`.
        rank: their ranks.
        used: columns that count, shape `(..., d)`.
        weights: what kernels are multiplied by, for each kernel and target, shape `(..., f, n, t)`.
        inverse: what variances are reduced by, shape `(..., f, n, n)`.
        signal: variance of the function, shape `(..., f)`.
        noise: variance of the noise.
        log_evidence: normalised over the kernels.
        score: mean log density of the rows of the context, each given the others, by kernel.
        loo_mean: means of the rows of the context given the others, shape `(..., n, f, t)`.
        loo_scale: their standard deviations, shape `(..., n, f)`.

    References:
        Rasmussen and Williams (2006), "Gaussian processes for machine learning", MIT Press:
        equations 2.30, 5.10 to 5.12. Wolpert (1992), "Stacked generalization", Neural Networks 5.
    """

    z: Float[Array, "*batch n d"]
    rank: Float[Array, "*batch n d"]
    used: Bool[Array, "*batch d"]
    weights: Float[Array, "*batch f n t"]
    inverse: Float[Array, "*batch f n n"]
    signal: Float[Array, "*batch f"]
    noise: Float[Array, "*batch f"]
    log_evidence: Float[Array, "*batch f"]
    score: Float[Array, "*batch f"]
    loo_mean: Float[Array, "*batch n f t"]
    loo_scale: Float[Array, "*batch n f"]

    def predict(
        self, z: Float[Array, "*batch m d"], rank: Float[Array, "*batch m d"]
    ) -> tuple[Float[Array, "*batch m f t"], Float[Array, "*batch m f"]]:
        """Means and standard deviations of new targets, by kernel."""
        cross = kernels(z, rank, self.z, self.rank, self.used)
        mean = cross @ self.weights
        explained = jnp.sum(cross @ self.inverse * cross, axis=-1)
        prior = self.signal[..., None] * variances(z, self.used)
        variance = jnp.maximum(prior - explained, 0) + self.noise[..., None]
        return jnp.moveaxis(mean, -3, -2), jnp.sqrt(jnp.swapaxes(variance, -1, -2))

    def features(
        self, mean: Float[Array, "*batch m f t"], scale: Float[Array, "*batch m f"]
    ) -> Float[Array, "*batch m k"]:
        """What a network sees of predictions: them, and how good each kernel is."""
        table = jnp.stack([jnp.maximum(self.log_evidence, -20) / 5, self.score], axis=-2)
        table = table.reshape(*table.shape[:-2], 1, -1)
        table = jnp.broadcast_to(table, (*mean.shape[:-2], table.shape[-1]))
        flat = mean.reshape(*mean.shape[:-2], -1)
        return jnp.concatenate([flat, jnp.log(scale), table], axis=-1)


def num_features(num_targets: int) -> int:
    """How many features `TableBaselines.features` returns."""
    return NUM_KERNELS * (num_targets + 3)


def table_baselines(
    z: Float[Array, "*batch n d"],
    rank: Float[Array, "*batch n d"],
    used: Bool[Array, "*batch d"],
    y: Float[Array, "*batch n t"],
    mask: Bool[Array, "*batch n"],
    degrees: Any = 1,
) -> TableBaselines:
    """Regressions of a context.

    Args:
        z: standardised values, 0 where there are none.
        rank: their ranks, likewise.
        used: columns that count.
        y: targets, of mean 0 over the rows that count.
        mask: rows that count.
        degrees: of freedom of the targets of a row, such as one less than classes; shape `(...)`.
    """
    y = jnp.where(mask[..., None], y, 0)
    count = jnp.sum(mask, axis=-1).astype(y.dtype)
    degrees = jnp.asarray(degrees, y.dtype)
    pairs = (mask[..., None] & mask[..., None, :])[..., None, :, :]
    gram = jnp.where(pairs, kernels(z, rank, z, rank, used), 0)[..., None, :, :]
    share = jnp.asarray(NOISES, y.dtype)[:, None, None]
    eye = jnp.eye(y.shape[-2], dtype=y.dtype)
    factor = jnp.linalg.cholesky((1 - share) * gram + share * eye)
    lower = jax.lax.linalg.triangular_solve(
        factor, jnp.broadcast_to(eye, factor.shape), left_side=True, lower=True
    )
    half = lower @ y[..., None, None, :, :]
    solved = jnp.swapaxes(lower, -1, -2) @ half
    diagonal = jnp.sum(lower**2, axis=-2)

    share = share[:, 0, 0]
    rows = count[..., None, None]
    log_det = 2 * jnp.sum(jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)), axis=-1)
    log_det = log_det - (y.shape[-2] - rows) * jnp.log(share)
    freedom = jnp.maximum(degrees, 1)[..., None, None]
    size = jnp.sum(y**2, axis=(-2, -1))[..., None, None] / (freedom * jnp.maximum(rows, 1))
    size = jnp.where(size > 1e-6, size, 1)
    squares = jnp.sum(half**2, axis=(-2, -1))
    variance = (squares / freedom + PRIOR_ROWS * size) / (rows + PRIOR_ROWS)
    evidence = -0.5 * freedom * ((rows + PRIOR_ROWS) * jnp.log(variance) + log_det)
    variance = variance * (1 + 2 / (rows + PRIOR_ROWS))  # that of a t distribution, about

    given = jax.nn.softmax(evidence, axis=-1)
    log_evidence = jax.nn.log_softmax(jax.nn.logsumexp(evidence, axis=-1), axis=-1)
    loo_mean = y[..., None, None, :, :] - solved / diagonal[..., None]
    loo_mean = jnp.sum(given[..., None, None] * loo_mean, axis=-3)
    loo_scale = jnp.sqrt(jnp.sum((given * variance)[..., None] / diagonal, axis=-2))
    rest = jnp.sum((y[..., None, :, :] - loo_mean) ** 2, axis=-1) / loo_scale**2
    score = -0.5 * rest / freedom - jnp.log(loo_scale)
    score = jnp.sum(jnp.where(mask[..., None, :], score, 0), axis=-1) / jnp.maximum(rows[..., 0], 1)
    reduced = jnp.sqrt(given * variance) * (1 - share)
    lower = jnp.where(mask[..., None, None, None, :], reduced[..., None, None] * lower, 0)
    return TableBaselines(
        z,
        rank,
        used,
        jnp.sum((given * (1 - share))[..., None, None] * solved, axis=-3),
        jnp.einsum("...rki,...rkj->...ij", lower, lower),
        jnp.sum(given * variance * (1 - share), axis=-1),
        jnp.sum(given * variance * share, axis=-1),
        log_evidence,
        score,
        jnp.moveaxis(loo_mean, -3, -2),
        jnp.swapaxes(loo_scale, -1, -2),
    )


def kernels(
    z: Float[Array, "*batch m d"],
    rank: Float[Array, "*batch m d"],
    z_to: Float[Array, "*batch n d"],
    rank_to: Float[Array, "*batch n d"],
    used: Bool[Array, "*batch d"],
) -> Float[Array, "*batch f m n"]:
    """Kernels between rows."""
    num_used = jnp.maximum(jnp.sum(used, axis=-1), 1).astype(z.dtype)[..., None, None]
    inner = z @ jnp.swapaxes(z_to, -1, -2)
    squares = jnp.sum(z**2, axis=-1)[..., None] + jnp.sum(z_to**2, axis=-1)[..., None, :]
    distance = jnp.maximum(squares - 2 * inner, 0) / num_used
    linear = (1 + inner / num_used) / 2
    near, far = (jnp.exp(-0.5 * distance / length**2) for length in (NEAR, FAR))

    def add(total: Any, column: Any) -> tuple[Any, None]:
        a, b, counts = column
        apart = (a[..., None] - b[..., None, :]) / ALONE
        return total + jnp.where(counts[..., None, None], jnp.exp(-0.5 * apart**2), 0), None

    columns = (jnp.moveaxis(rank, -1, 0), jnp.moveaxis(rank_to, -1, 0), jnp.moveaxis(used, -1, 0))
    additive, _ = jax.lax.scan(add, jnp.zeros_like(inner), columns)
    additive = jnp.where(jnp.any(used, axis=-1)[..., None, None], additive / num_used, 1)
    made = (linear, near, far, additive, (linear + far) / 2, (linear + additive) / 2)
    return jnp.stack(made, axis=-3)


def variances(
    z: Float[Array, "*batch m d"], used: Bool[Array, "*batch d"]
) -> Float[Array, "*batch f m"]:
    """Kernels of rows with themselves."""
    num_used = jnp.maximum(jnp.sum(used, axis=-1), 1).astype(z.dtype)[..., None]
    one = jnp.ones(z.shape[:-1], z.dtype)
    linear = (1 + jnp.sum(z**2, axis=-1) / num_used) / 2
    made = (linear, one, one, one, (linear + one) / 2, (linear + one) / 2)
    return jnp.stack(made, axis=-2)


def log_masses(
    borders: Float[Array, " k1"],
    mean: Float[Array, "*batch m f"],
    scale: Float[Array, "*batch m f"],
    log_weights: Float[Array, "*batch f"],
    least: float = 1e-6,
) -> Float[Array, "*batch m k"]:
    """Log probabilities of bars under a mixture of normals; the outermost bars hold the tails."""
    ends = jnp.full(1, jnp.inf, mean.dtype)
    inner = borders[1:-1].astype(mean.dtype)
    lower, upper = jnp.concatenate([-ends, inner]), jnp.concatenate([inner, ends])
    mean, scale = mean[..., None], scale[..., None]
    ndtr = jax.scipy.special.ndtr
    masses = ndtr((upper - mean) / scale) - ndtr((lower - mean) / scale)
    masses = jnp.sum(jnp.exp(log_weights)[..., None, :, None] * masses, axis=-2)
    return jnp.log(jnp.maximum(masses, 0) + least)
