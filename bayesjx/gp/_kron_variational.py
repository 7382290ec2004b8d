"""Variational inference on grids with a Kronecker covariance, for any likelihood."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import optax
from jax import random
from jax.tree_util import Partial
from jaxtyping import Array, Float, Num
from numpyro import distributions as dist

from .. import ops
from .._core import (
    Algorithm,
    gradient_algorithm,
    GradientState,
    refuse_where,
    safe_cholesky,
    solve_triangular,
    trained,
)
from ..likelihoods import expected_log_prob, held, Likelihood, predictive
from ..ops import kron_mm, outer_grid
from ._arguments import check_draws, check_optimizer, checked_jitter, real_array
from ._grid_posterior import (
    cell_values,
    checked_mask,
    checked_points,
    grid_cross,
    joint_roots,
    prior_variance,
)
from ._inputs import all_points, axis_factors, Grid
from ._posterior import AbstractGPPosterior, dense_draws
from ._process import GP
from ._svgp import check_observed


class KronVariational(eqx.Module):
    r"""$q(f) = N(m + L \nu, \otimes_d S_d)$ at the cells of a grid, for any likelihood.

    Whitened: $f = m + L v$ with $L = \otimes_d L_d$ of the prior, $L_d L_d^\top = K_d$, and
    $q(v) = N(\nu, \otimes_d R_d R_d^\top)$, so that $S_d = L_d R_d R_d^\top L_d^\top$. The
    divergence from the prior has a closed form and marginal variances are products of one number
    for each axis; a bound takes $O(\sum_d n_d^3 + N \sum_d n_d)$. Only observed cells have a
    likelihood. Beside `laplace` it needs no log-determinant to be estimated, and its evidence is a
    bound; its covariance has $\sum_d n_d^2$ numbers only and is worse where the information in the
    data varies much between cells, as with patches of missing ones.

    Train it by `minimise(lambda q: -q.elbo(cells, y), q, trainable=...)`, with
    `lambda q: [q.whitened_mean, *q.factors]` alone, or by `kron_vi` for minibatches.

    Args:
        prior: the process, with a kernel that is a product over the axes and without noise.
        likelihood: from the function to a NumPyro distribution, see
            `likelihoods.expected_log_prob`.
        grid: the cells, a `Grid`.
        jitter: added to the diagonal of each $K_d$, relative to its mean; by default 1e-6 in
            float64 and 1e-4 in float32.

    Attributes:
        whitened_mean: $\nu$, shape `(N,)`; 0 at first.
        factors: $R_d$, shape `(n_d, n_d)`, of which only lower triangles are read; I at first.

    Raises:
        ValueError: no `Grid`, a kernel without Kronecker structure, a prior with noise.

    References:
        Nickson, Gunter, Lloyd, Osborne and Roberts (2015), "Blitzkriging: Kronecker-structured
        stochastic Gaussian processes", for distributions of this form.
    """

    prior: GP
    likelihood: Likelihood
    grid: Grid
    whitened_mean: Float[Array, " N"]
    factors: tuple[Float[Array, "_ _"], ...]
    jitter: float | None = eqx.field(static=True)

    def __init__(
        self, prior: GP, likelihood: Likelihood, grid: Any, *, jitter: float | None = None
    ):
        if not isinstance(grid, Grid):
            raise ValueError(f"KronVariational: a Grid is needed, got {type(grid).__name__}")
        check_observed(prior, likelihood, False)
        axis_factors(prior.kernel, grid, grid)
        self.prior, self.grid, self.likelihood, self.jitter = prior, grid, likelihood, jitter
        self.whitened_mean = jnp.zeros(grid.size, grid.dtype)
        self.factors = tuple(jnp.eye(n, dtype=grid.dtype) for n in grid.shape)

    def divergence(self) -> Float[Array, ""]:
        r"""$\mathrm{KL}(q(f) \,\|\, p(f))$, scalar.

        $\frac12 [\prod_d \|R_d\|^2 + \|\nu\|^2 - N - 2 \sum_d \frac{N}{n_d} \log \det R_d]$.
        """
        size, trace, logdet = self.grid.size, 1.0, 0.0
        for factor in self.scale_trils():
            trace = trace * jnp.sum(factor**2)
            logdet += 2 * size / len(factor) * jnp.sum(jnp.log(jnp.abs(jnp.diag(factor))))
        return 0.5 * (trace + jnp.sum(self.whitened_mean**2) - size - logdet)

    def cell_moments(self) -> tuple[Float[Array, " N"], Float[Array, " N"]]:
        """Mean and variance of the function at all cells, shape `(N,)` both."""
        trils, _ = self._trils()
        mean, rows = self._mean_and_rows(trils)
        return mean, outer_grid(rows).reshape(-1)

    def elbo(
        self, cells: Any, y: Any, num_data: int | None = None, *, key: jax.Array | None = None
    ) -> Float[Array, ""]:
        r"""The evidence lower bound, or its unbiased estimate from a minibatch of cells.

        Args:
            cells: flat indices of observed cells, integers of shape `(b,)`; see `observed_cells`.
            y: their observations, shape `(b,)`.
            num_data: how many observed cells there are, of which these are drawn; by default these
                are all.
            key: not used; for the same signature as `SVGP.elbo`.

        Raises:
            ValueError: shapes that disagree, cells out of range, `y` outside of the support, fewer
                data than the batch has.
            RuntimeError: under `jit`, the same of values.
        """
        del key
        cells, y = self._checked_cells(cells), real_array("y", y)
        num_data = cells.size if num_data is None else num_data
        if not num_data >= cells.size:
            raise ValueError(f"num_data is {num_data}, less than the {cells.size} of the batch")
        mean, rows = self._mean_and_rows(self._trils()[0])
        where = jnp.unravel_index(cells, self.grid.shape)
        variance = functools.reduce(
            jnp.multiply, [row[index] for row, index in zip(rows, where, strict=True)]
        )
        term = expected_log_prob(self.likelihood, y, mean[cells], variance)
        return num_data / cells.size * jnp.sum(term) - self.divergence()

    def posterior(self) -> KronVariationalPosterior:
        """The approximate posterior of the function, anywhere."""
        trils, jitter = self._trils()
        return KronVariationalPosterior(
            self.prior,
            self.grid,
            trils,
            self.whitened_mean,
            self.scale_trils(),
            jitter,
            held(self.likelihood),
        )

    def trained(self, state: GradientState) -> KronVariational:
        """The same with the arrays of a state of `kron_vi`, made from it."""
        return trained(self, state)

    def scale_trils(self) -> tuple[Float[Array, "_ _"], ...]:
        """$R_d$, lower triangular."""
        return tuple(jnp.tril(factor) for factor in self.factors)

    def _trils(self) -> tuple[tuple[jax.Array, ...], jax.Array]:
        """$L_d$, and the largest jitter that was added relative to the mean of a diagonal."""
        grid = jax.lax.stop_gradient(self.grid)
        jitter = checked_jitter(self.jitter, grid.dtype)
        trils, added = [], []
        for matrix in axis_factors(self.prior.kernel, grid, grid):
            mean = jax.lax.stop_gradient(jnp.mean(jnp.diag(matrix)))
            start = jitter * mean * jnp.eye(len(matrix), dtype=matrix.dtype)
            factor = safe_cholesky(matrix + start)
            trils.append(factor.tril)
            added.append(jitter + factor.jitter / mean)
        return tuple(trils), jnp.max(jnp.stack(added))

    def _mean_and_rows(self, trils: tuple[jax.Array, ...]) -> tuple[jax.Array, list[jax.Array]]:
        """Means of all cells, and what each axis multiplies variances with."""
        mean = self.prior.mean_at(self.grid) + kron_mm(trils, self.whitened_mean[:, None])[:, 0]
        pairs = zip(trils, self.scale_trils(), strict=True)
        return mean, [jnp.sum((tril @ own) ** 2, axis=1) for tril, own in pairs]

    def _checked_cells(self, cells: Any) -> jax.Array:
        cells = cells if hasattr(cells, "dtype") else np.asarray(cells)
        if jnp.ndim(cells) != 1 or not jnp.issubdtype(jnp.result_type(cells), jnp.integer):
            raise ValueError(
                "cells must be flat indices, integers of shape (b,), got "
                f"{jnp.result_type(cells)} of shape {jnp.shape(cells)}; see observed_cells"
            )
        out = f"cells must be in 0, ..., {self.grid.size - 1}"
        return jnp.asarray(refuse_where(cells, lambda c: (c < 0) | (c >= self.grid.size), out))


class KronVariationalPosterior(AbstractGPPosterior):
    r"""The variational posterior on a grid, made by `KronVariational.posterior`.

    Attributes:
        prior: the process before data.
        grid: all cells.
        trils: $L_d$ of the prior, shape `(n_d, n_d)`.
        whitened_mean: $\nu$, shape `(N,)`.
        scale_trils: $R_d$, shape `(n_d, n_d)`.
        jitter: the largest that was added to an axis, relative to the mean of its diagonal.
        likelihood: of the observations.
    """

    prior: GP
    grid: Grid
    trils: tuple[Float[Array, "_ _"], ...]
    whitened_mean: Float[Array, " N"]
    scale_trils: tuple[Float[Array, "_ _"], ...]
    jitter: Float[Array, ""]
    likelihood: Likelihood

    def moments(self, x: Any) -> tuple[Float[Array, " m"], Float[Array, " m"]]:
        x = checked_points(x, self.grid.dtype)
        rows = self._rows(x)
        mean = self.prior.mean_at(x) + rows.mv(self.whitened_mean)
        variance = prior_variance(self.prior, x)
        known = [jnp.sum(f**2, axis=1) for f in rows.factors]
        pairs = zip(rows.factors, self.scale_trils, strict=True)
        own = [jnp.sum((f @ r) ** 2, axis=1) for f, r in pairs]
        if isinstance(x, Grid):
            change = (outer_grid(own) - outer_grid(known)).reshape(-1)
        else:
            change = jnp.prod(jnp.stack(own), axis=0) - jnp.prod(jnp.stack(known), axis=0)
        return mean, jnp.maximum(variance + change, jnp.finfo(variance.dtype).eps * variance)

    def covariance(self, x: Any) -> Float[Array, "m m"]:
        points = all_points(x, dtype=self.grid.dtype)
        rows = self._rows(points)
        pairs = zip(rows.factors, self.scale_trils, strict=True)
        own = ops.KhatriRao(*(f @ r for f, r in pairs)).dense()
        known = rows.dense()
        return self.prior.kernel.gram(points) - known @ known.T + own @ own.T

    def mean(self, x: Any) -> Float[Array, " m"]:
        x = checked_points(x, self.grid.dtype)
        return self.prior.mean_at(x) + self._rows(x).mv(self.whitened_mean)

    def predict(self, x: Any) -> dist.Distribution:
        return predictive(self.likelihood, *self.moments(x))

    def log_evidence(self) -> Float[Array, ""]:
        """Not known, as this posterior holds no data.

        Raises:
            ValueError: always; `KronVariational.elbo` is the bound.
        """
        raise ValueError(
            "log_evidence: this posterior holds no data; elbo(cells, y) of the KronVariational "
            "that made it is the bound"
        )

    def sample(
        self, key: jax.Array, x: Any, sample_shape: tuple[int, ...] = ()
    ) -> Float[Array, "*sample m"]:
        """Joint draws of the function, `(*sample_shape, m)`; on a `Grid` by Matheron's rule."""
        if not isinstance(x, Grid):
            return dense_draws(self, key, x, sample_shape)
        check_draws(key, sample_shape)
        x = checked_points(x, self.grid.dtype)
        num, size = math.prod(sample_shape), self.grid.size
        of_cells, function = random.split(key)
        white = random.normal(of_cells, (size, num), self.whitened_mean.dtype)
        white = self.whitened_mean[:, None] + kron_mm(self.scale_trils, white)
        seen, new = joint_roots(self.prior, self.grid, x)
        noise = random.normal(function, (seen.shape[1], num), white.dtype)
        before = ops.Kron(*(_inverse(tril) for tril in self.trils)).mm(seen.mm(noise))
        draws = new.mm(noise) + self._rows(x).mm(white - before)
        return (self.prior.mean_at(x)[:, None] + draws).T.reshape(*sample_shape, x.size)

    def _rows(self, x: Any) -> Any:
        r"""$\otimes_d K_d(x, \cdot) L_d^{-\top}$: what multiplies the whitened values."""
        cross = grid_cross(self.prior, x, self.grid)
        pairs = zip(cross.factors, self.trils, strict=True)
        return type(cross)(*(solve_triangular(tril, f.T, lower=True).T for f, tril in pairs))


def kron_vi(
    q: KronVariational,
    optimizer: optax.GradientTransformation,
    *,
    num_data: int | None = None,
    trainable: Callable[[Any], Any] | None = None,
) -> Algorithm:
    """Stochastic gradient ascent of the bound on batches of cells, for `bayesjx.fit`.

    A step takes products with the whole grid however small the batch is: large batches are best.

    Args:
        q: where to start.
        optimizer: Optax gradient transformation, such as `optax.adam(1e-2)`.
        num_data: how many observed cells there are; by default those of a batch are all.
        trainable: chooses what changes, `trainable(q)` a leaf or a list of leaves; by default
            everything that the bound depends on but the grid.

    Returns:
        `init() -> GradientState`, `step(key, state, cells, y) -> (GradientState, GradientInfo)`;
        `q.trained(state)` is the result.

    Raises:
        ValueError: when traced, what `elbo` raises.
    """
    check_optimizer(optimizer)
    return gradient_algorithm(
        Partial(_bound, num_data), q, optimizer, trainable=trainable, maximise=True
    )


def _bound(
    num_data: int | None, key: jax.Array, q: KronVariational, cells: Any, y: Any
) -> jax.Array:
    return q.elbo(cells, y, num_data, key=key)


def observed_cells(grid: Grid, y: Any, mask: Any = None) -> tuple[np.ndarray, Num[Array, " n_o"]]:
    """Flat indices of the observed cells and their observations, shape `(n_o,)` both.

    Args:
        grid: all cells.
        y: observations, of the grid's shape or flat, where masked cells may hold anything; or of
            the observed cells only. Integers stay integers.
        mask: which cells are observed, booleans of the grid's shape or flat; by default all.

    Raises:
        ValueError: sizes that do not fit, NaN in an observed cell, a mask that is traced or all
            false.
    """
    seen = None if mask is None else checked_mask(mask, grid)
    values = cell_values(grid, y, seen)
    if not jnp.issubdtype(jnp.result_type(y), jnp.floating):
        values = values.astype(jnp.result_type(y))
    return np.arange(grid.size) if seen is None else np.flatnonzero(seen), values


def _inverse(tril: jax.Array) -> jax.Array:
    return solve_triangular(tril, jnp.eye(len(tril), dtype=tril.dtype), lower=True)
