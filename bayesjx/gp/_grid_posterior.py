"""Exact regression on grids, full or with missing cells, without a matrix of all cells."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax import random
from jaxtyping import Array, Float, Int
from numpyro import distributions as dist

from .. import ops
from .._core import checked_finite, eigh, refuse_where
from ..ops import explained_variance, scatter_rows, symmetric_solve
from ._arguments import check_draws
from ._inputs import all_points, axis_factors, Grid
from ._posterior import AbstractGPPosterior, dense_draws, with_noise
from ._process import GP, known_mask

MISFIT = 0.01  # of noise-free data, relative to the largest, beyond which they are not explained


class GridPosterior(AbstractGPPosterior):
    r"""The exact posterior given noisy values at the cells of a grid.

    With $N$ cells along axes of $n_d$ points, means on a test grid take $O(N_* \sum_d n_d)$, and
    so do variances if no cell is missing. With missing cells variances take one more solve for
    every missing cell (`solver="schur"`) or for every test point (`"cg"`); where those are too
    many, `sample(key, grid, (100,)).var(axis=0)` estimates them by draws.

    Attributes:
        prior: the process before data.
        grid: all cells, observed or not.
        operator: the covariance of the observations, `ops.KronPlusNoise`, `ops.Masked`, or
            `ops.KronPlusDiag` if every cell has a noise of its own.
        residual: `y` less the prior mean at the $n_o$ observed cells, shape `(n_o,)`.
        weights: the operator's inverse times `residual`, 0 at missing cells, shape `(N,)`.
        jitter: what was added to a scalar noise too small for the rounding of eigenvalues, up to
            4e-11 of the prior's variance (2e-5 in float32); 0 if nothing was.

    References:
        Saatçi (2011), "Scalable inference for structured Gaussian process models", chapter 5;
        Wilson, Borovitskiy, Terenin, Mostowsky and Deisenroth (2020), "Efficiently sampling
        functions from Gaussian process posteriors", equation 12 (Matheron's rule).
    """

    prior: GP
    grid: Grid
    operator: ops.AbstractOperator
    residual: Float[Array, " n_o"]
    weights: Float[Array, " N"]
    jitter: Float[Array, ""]

    @property
    def observed(self) -> Int[Array, " n_o"] | slice:
        """Flat indices of the observed cells."""
        return self.operator.observed if isinstance(self.operator, ops.Masked) else slice(None)

    def moments(self, x: Any) -> tuple[Float[Array, " m"], Float[Array, " m"]]:
        x = checked_points(x, self.grid.dtype)
        cross, variance = grid_cross(self.prior, x, self.grid), prior_variance(self.prior, x)
        mean = self.prior.mean_at(x) + cross.mv(self.weights)
        if isinstance(self.operator, (ops.KronPlusNoise, ops.Masked)):
            left = self.operator.marginal_variance(cross, variance)
        else:
            left = variance - explained_variance(self.operator, cross)
        return mean, jnp.maximum(left, jnp.finfo(left.dtype).eps * variance)

    def mean(self, x: Any) -> Float[Array, " m"]:
        x = checked_points(x, self.grid.dtype)
        return self.prior.mean_at(x) + grid_cross(self.prior, x, self.grid).mv(self.weights)

    def covariance(self, x: Any) -> Float[Array, "m m"]:
        points = all_points(x, dtype=self.grid.dtype)
        cross = grid_cross(self.prior, points, self.grid).dense()[:, self.observed]
        explained = cross @ self.operator.solve(cross.T)
        return self.prior.kernel.gram(points) - 0.5 * (explained + explained.T)

    def predict(self, x: Any) -> dist.Normal:
        return with_noise(self.prior, *self.moments(x))

    def sample(
        self, key: jax.Array, x: Any, sample_shape: tuple[int, ...] = ()
    ) -> Float[Array, "*sample m"]:
        r"""Exact joint draws of the function, shape `(*sample_shape, m)`.

        On a `Grid`, by Matheron's rule: a draw of the prior on the axes of both grids, moved by
        the weights of its own residual. It takes $O(\sum_d (n_d + m_d)^3)$ once and as much as the
        posterior mean for each draw; nothing but axes is factorised, so a million cells are fine.
        Fastest if `x` is `self.grid`. At scattered points it takes $O(m^3)$.
        """
        if not isinstance(x, Grid):
            return dense_draws(self, key, x, sample_shape)
        check_draws(key, sample_shape)
        x = checked_points(x, self.grid.dtype)
        seen, new = joint_roots(self.prior, self.grid, x)
        function, error = random.split(key)
        num = math.prod(sample_shape)
        noise = random.normal(function, (seen.shape[1], num), self.residual.dtype)
        noisy = seen.mm(noise)[self.observed] + self._noise(error, num)
        solved = self.operator.solve(self.residual[:, None] - noisy)
        weights = _on_grid(solved, self.operator, self.grid.size)
        draws = new.mm(noise) + grid_cross(self.prior, x, self.grid).mm(weights)
        return (self.prior.mean_at(x)[:, None] + draws).T.reshape(*sample_shape, x.size)

    def log_evidence(self) -> Float[Array, ""]:
        """Log marginal likelihood of the observed cells, scalar.

        To optimise it use `prior(grid, mask).log_prob(y)`, which needs no posterior.
        """
        quad = self.residual @ self.weights[self.observed]
        constant = self.residual.size * jnp.log(2 * jnp.pi).astype(quad.dtype)
        return -0.5 * (quad + self.operator.logdet() + constant)

    def leave_one_out(self) -> dist.Normal:
        """The leave-one-out predictive distribution of each observation, shape `(n_o,)`.

        On a full grid it takes one product with squared factors, with few missing cells a solve
        for each of them; with `solver="cg"` a solve for each observed cell.

        References:
            Rasmussen and Williams (2006), "Gaussian processes for machine learning", equations
            5.12 (after Sundararajan and Keerthi, 2001).
        """
        precision = self.operator.inverse_diag()
        y = self.prior.mean_at(self.grid)[self.observed] + self.residual
        return dist.Normal(y - self.weights[self.observed] / precision, 1 / jnp.sqrt(precision))

    def _noise(self, key: jax.Array, num: int) -> jax.Array:
        """Draws of the observations' errors, shape `(n_o, num)`."""
        operator = self.prior.noise_operator(self.grid)
        if isinstance(operator, ops.Diag):
            operator = ops.Diag(operator.entries, ops.psd)
        elif isinstance(operator, ops.ScaledIdentity):
            operator = ops.ScaledIdentity(operator.scale + self.jitter, operator.size)
        return operator.sample(key, (num,)).T[self.observed]


def grid_posterior(prior: GP, grid: Any, y: Any, mask: Any = None, **solver: Any) -> GridPosterior:
    """The exact posterior of a process given observations on a grid; see `condition`.

    Args:
        prior: with a kernel that is a product over the axes; its noise a scalar, an `ops.Kron` of
            the grid, or, without missing cells, one for each cell.
        grid: all cells, a `Grid`.
        y: observations, of the grid's shape or flat, where masked cells may hold anything, such as
            NaN; or of the observed cells only, shape `(n_o,)`.
        mask: which cells are observed, booleans of the grid's shape or flat, known when traced; by
            default all.
        solver: with a mask, options of `ops.Masked` such as `solver="cg"`.

    Raises:
        ValueError: no `Grid`; a kernel without Kronecker structure; `y` of a size that does not
            fit, or NaN in an observed cell; a mask of another shape, traced or all false.
        RuntimeError: as above under `jit`; conjugate gradients did not converge; without noise,
            a covariance that is singular.
    """
    if not isinstance(grid, Grid):
        raise ValueError(f"grid_posterior: x must be a Grid, got {type(grid).__name__}")
    mask = None if mask is None else checked_mask(mask, grid)
    y = cell_values(grid, y, mask)
    signal, noise = prior.covariance(grid), prior.noise_operator(grid)
    jitter = jnp.zeros((), grid.dtype)
    if isinstance(noise, ops.ScaledIdentity):
        jitter = _raised(noise.scale, signal)
        noise = ops.ScaledIdentity(noise.scale + jitter, noise.size)
    operator = signal + noise
    if mask is not None:
        operator = ops.Masked(operator, mask, **solver)
    elif solver:
        raise ValueError(f"grid_posterior: {', '.join(solver)} are for grids with a mask")
    residual = y - prior.mean_at(grid)[slice(None) if mask is None else np.flatnonzero(mask)]
    solved = operator.solve(residual)
    # Where a singular covariance cannot explain the data, the jitter has to.
    unexplained = jnp.abs(jitter * solved) > MISFIT * jnp.max(jnp.abs(residual))
    solved = refuse_where(
        jnp.where(unexplained, jnp.nan, solved),
        lambda v: ~(jnp if isinstance(v, jax.core.Tracer) else np).isfinite(v),
        "grid_posterior: the covariance of the observations is singular or holds NaN; are "
        "lengthscales, variances and noise positive?",
    )
    weights = _on_grid(solved[:, None], operator, grid.size)[:, 0]
    return GridPosterior(prior, grid, operator, residual, weights, jitter)


def _raised(noise: jax.Array, signal: Any) -> jax.Array:
    r"""What a noise is too small by for eigenvalues with their rounding.

    With a rounding $u$, what the data explain of variances is off by $u / \sqrt{e}$ where the least
    eigenvalue is $e$: at $u^{2/3}$ the noise hides that.
    """
    rounding = float(jnp.finfo(signal.dtype).eps)
    least = rounding ** (2 / 3) * jnp.mean(jax.lax.stop_gradient(signal.diag()))
    return jnp.maximum(least - jax.lax.stop_gradient(noise), 0)


def checked_mask(mask: Any, grid: Grid) -> np.ndarray:
    """A mask of the grid's cells, flat.

    Raises:
        ValueError: not booleans of the grid's shape, traced, or all false.
    """
    seen = known_mask(mask)
    if seen.shape not in (grid.shape, (grid.size,)):
        raise ValueError(
            f"mask must have the grid's shape {grid.shape} or ({grid.size},), got {seen.shape}"
        )
    if not seen.any():
        raise ValueError("mask is all false, so nothing is observed")
    return seen.reshape(-1)


def cell_values(grid: Grid, y: Any, mask: np.ndarray | None) -> Float[Array, " n_o"]:
    """The values of the observed cells, shape `(n_o,)`, floating-point of the grid's type.

    Raises:
        ValueError: a size that fits neither the grid nor the mask, or NaN in an observed cell.
    """
    count = grid.size if mask is None else int(mask.sum())
    shape = jnp.shape(y)
    if shape not in (grid.shape, (grid.size,), (count,)):
        seen = "" if mask is None else f", or ({count},) for the observed cells"
        raise ValueError(
            f"y must have the grid's shape {grid.shape} or ({grid.size},){seen}; got {shape}"
        )
    y = jnp.asarray(y).reshape(-1)
    if mask is not None and y.size == grid.size:
        y = y[np.flatnonzero(mask)]
    hint = " in observed cells; mark missing ones as False in mask"
    return checked_finite("y", y, hint).astype(grid.dtype)


def checked_points(x: Any, dtype: Any = None) -> Any:
    """A `Grid`, or points `(m, d)`, in the type of a posterior, by default in their own."""
    if not isinstance(x, Grid):
        return all_points(x, dtype=dtype)
    return x if dtype in (None, x.dtype) else Grid(*(axis.astype(dtype) for axis in x.axes))


def prior_variance(prior: GP, x: Any) -> Float[Array, " m"]:
    """Prior variances at points or on a grid, shape `(m,)`."""
    if isinstance(x, Grid):
        return prior.covariance(x).diag()
    return prior.kernel.diag(all_points(x))


def grid_cross(prior: GP, x: Any, grid: Grid) -> Any:
    """Covariances of a grid (`ops.Kron`) or of points (`ops.KhatriRao`) with those of a grid."""
    if isinstance(x, Grid):
        return ops.Kron(*axis_factors(prior.kernel, x, grid))
    x = all_points(x)
    size = sum(len(dims) for dims in grid.dims)
    if x.shape[1] != size:
        raise ValueError(f"x must have {size} coordinates, as the grid has; got shape {x.shape}")
    along = Grid(*(x[:, jnp.asarray(dims)] for dims in grid.dims))
    return ops.KhatriRao(*axis_factors(prior.kernel, along, grid))


def _on_grid(columns: jax.Array, operator: Any, size: int) -> jax.Array:
    """Columns of the observed cells, `(n_o, k)`, with zeros for the others, `(N, k)`."""
    if isinstance(operator, ops.Masked):
        return scatter_rows(columns, operator.observed, size)
    return columns


def joint_roots(prior: GP, grid: Grid, x: Grid) -> tuple[ops.Kron, ops.Kron]:
    """Roots of the prior on both grids, times the same noise: one for each grid."""
    seen, new, axes = [], [], []
    for d, (own, other) in enumerate(zip(grid.axes, x.axes, strict=True)):
        if own.shape[1] != other.shape[1]:
            raise ValueError(f"axis {d} has points of {own.shape[1]} and {other.shape[1]} numbers")
        axes.append(own if _same(own, other) else jnp.concatenate([own, other]))
    both = Grid(*axes)
    factors = axis_factors(prior.kernel, both, both)
    for own, other, factor in zip(grid.axes, x.axes, factors, strict=True):
        root = symmetric_root(factor)
        seen.append(root[: len(own)])
        new.append(root[len(root) - len(other) :])
    return ops.Kron(*seen), ops.Kron(*new)


def _same(a: jax.Array, b: jax.Array) -> bool:
    if a is b or isinstance(a, jax.core.Tracer) or isinstance(b, jax.core.Tracer):
        return a is b
    return np.array_equal(a, b)


@jax.custom_jvp
def symmetric_root(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """The square root that is symmetric, of a positive semi-definite matrix, singular ones too.

    Needs no jitter, and its derivative has sums of roots for denominators where that of an
    eigendecomposition has differences.
    """
    values, vectors = eigh(matrix)
    return (vectors * jnp.sqrt(jnp.maximum(values, 0))) @ vectors.T


@symmetric_root.defjvp
def _(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (matrix,), (change,) = primals, tangents
    root = symmetric_root(matrix)
    return root, _sylvester(root, change)


def _sylvester(root: jax.Array, c: jax.Array) -> jax.Array:
    r"""The solution $X$ of $R X + X R = C$ for a positive semi-definite $R$.

    Eigenvectors are not differentiated: those of equal eigenvalues have no derivative, while $X$
    has all of them. Where both eigenvalues of a pair are 0 it is 0.
    """
    values, vectors = eigh(jax.lax.stop_gradient(root))
    sums = jnp.maximum(values, 0)[:, None] + jnp.maximum(values, 0)
    zero = sums == 0

    def solve(c: jax.Array) -> jax.Array:
        inside = jnp.where(zero, 0, (vectors.T @ c @ vectors) / jnp.where(zero, 1, sums))
        return vectors @ inside @ vectors.T

    return symmetric_solve(lambda x: root @ x + x @ root, solve, c)
