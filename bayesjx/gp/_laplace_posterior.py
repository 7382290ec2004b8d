"""The posterior by Laplace's approximation, and its evidence."""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import random
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int
from numpyro import distributions as dist

from .. import ops
from .._core import cho_solve, cholesky_each, eigenvalues, is_successful, RESULTS
from ..likelihoods import Likelihood, predictive
from ..ops import cg_solve, converged_value, Inverse, map_rows, outer_grid, scatter_rows, Submatrix
from ._arguments import check_draws
from ._grid_posterior import checked_points, grid_cross, joint_roots, prior_variance
from ._inputs import all_points, Grid
from ._posterior import AbstractGPPosterior, clipped, dense_draws
from ._process import GP


class Curvature(ops.AbstractOperator):
    r"""$B = I + W^{1/2} K W^{1/2}$ on the observed cells, whose eigenvalues are at least 1.

    Attributes:
        covariance: $K$, an `ops.Dense` of the observed cells or an `ops.Kron` of the grid.
        observed: indices of those cells, or None.
        half: $W^{1/2}$, shape `(n_o,)`.
        rtol: of conjugate gradients.
        max_steps: of conjugate gradients.
    """

    covariance: ops.AbstractOperator
    observed: Any
    half: Float[Array, " n_o"]
    rtol: float = eqx.field(static=True)
    max_steps: int = eqx.field(static=True)
    tags: frozenset[object] = eqx.field(static=True)

    def __init__(self, covariance: Any, observed: Any, half: Any, rtol: float, max_steps: int):
        self.covariance, self.observed, self.half = covariance, observed, half
        self.rtol, self.max_steps = rtol, max_steps
        self.tags = frozenset([ops.psd])

    @property
    def shape(self) -> tuple[int, int]:
        return (self.half.size, self.half.size)

    @property
    def dtype(self) -> Any:
        return self.half.dtype

    def transpose(self) -> Curvature:
        return self

    def at(self, weight: Float[Array, " n_o"]) -> Curvature:
        """The same for other $W$, shape `(n_o,)`, not negative."""
        zero = weight <= 0
        half = jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, weight)))
        return Curvature(self.covariance, self.observed, half, self.rtol, self.max_steps)

    def times(self, x: Float[Array, " n_o"]) -> Float[Array, " n_o"]:
        r"""$K_{oo} x$ for vectors, shape `(n_o,)`."""
        return self._restricted()._mm(x[:, None])[:, 0]

    def solve_quietly(
        self, b: Float[Array, " n_o"]
    ) -> tuple[Float[Array, " n_o"], Bool[Array, ""]]:
        """The solution for a vector, and whether it is one; never raises."""
        if isinstance(self.covariance, ops.Dense):
            solved = cho_solve((cholesky_each(self._dense().matrix), True), b)
            return solved, jnp.all(jnp.isfinite(solved))
        solve = self._cg(b[:, None])
        return solve.value[:, 0], jnp.all(solve.converged)

    def _mm(self, x: jax.Array) -> jax.Array:
        return x + self.half[:, None] * self._restricted()._mm(self.half[:, None] * x)

    def _diag(self) -> jax.Array:
        return 1 + self.half**2 * self._restricted().diag()

    def _root(self) -> ops.AbstractOperator:
        raise ValueError("Curvature has no root")

    def _solve(self, b: jax.Array) -> jax.Array:
        if isinstance(self.covariance, ops.Dense):
            return self._dense()._solve(b)
        return converged_value(self._cg(b), "laplace")

    def _logdet(self) -> jax.Array:
        return self._dense()._logdet()

    def _cg(self, b: jax.Array) -> ops.CGSolve:
        # With the mean of W for all of it the inverse on the full grid is known.
        typical = jnp.maximum(jnp.mean(self.half**2), jnp.finfo(self.dtype).tiny)
        nearly = self.covariance + ops.ScaledIdentity(1 / typical, self.covariance.shape[0])
        nearly = Inverse(jax.lax.stop_gradient(nearly))
        if self.observed is not None:
            nearly = Submatrix(nearly, self.observed)
        return cg_solve(self, b, nearly, self.rtol, self.max_steps)

    def _restricted(self) -> Any:
        if self.observed is None:
            return self.covariance
        return Submatrix(self.covariance, self.observed)

    def _dense(self) -> ops.Dense:
        matrix = self.half[:, None] * self.covariance.as_matrix() * self.half
        return ops.Dense(jnp.eye(len(matrix), dtype=self.dtype) + matrix, ops.psd)


class LaplacePosterior(AbstractGPPosterior):
    r"""The function where its values are $N(\hat f, (K^{-1} + W)^{-1})$, made by `laplace`.

    With `solver="cg"`, variances take a solve by conjugate gradients for each test point; draws
    on a grid take one for each draw, so that for many cells
    `sample(key, grid, (100,)).var(axis=0)` is the faster estimate.

    Attributes:
        prior: the process before data.
        x: the inputs: all cells of a `Grid`, or points `(n, d)`.
        likelihood: of the observations.
        observed: flat indices of the observed cells of a grid, or None: all.
        weights: $\alpha$ with $\hat f = m + K \alpha$, 0 at missing cells, shape `(n,)`.
        mode: $\hat f$ at the observed cells, shape `(n_o,)`.
        objective: $\log p(y \mid \hat f) - \frac12 \alpha^\top (\hat f - m)$, scalar.
        curvature: $I + W^{1/2} K W^{1/2}$, with $W^{1/2}$ as its `half`.
        num_steps: that Newton's method took.
        result: whether the mode was found.
    """

    prior: GP
    x: Any
    likelihood: Likelihood
    observed: Any
    weights: Float[Array, " n"]
    mode: Float[Array, " n_o"]
    objective: Float[Array, ""]
    curvature: Curvature
    num_steps: Int[Array, ""]
    result: RESULTS

    @property
    def converged(self) -> Bool[Array, ""]:
        """Whether `result` is successful."""
        return is_successful(self.result)

    @property
    def jitter(self) -> Float[Array, ""]:
        """What was added to the diagonal: 0, as the matrix is well-conditioned by itself."""
        return jnp.zeros((), self.mode.dtype)

    def moments(self, x: Any) -> tuple[Float[Array, " m"], Float[Array, " m"]]:
        x = checked_points(x, self.mode.dtype)
        cross = self._cross(x)
        mean = self.prior.mean_at(x) + cross @ self.weights
        explained = map_rows(cross, Partial(_explained, self.curvature, self.observed))
        return mean, clipped(prior_variance(self.prior, x), explained)

    def mean(self, x: Any) -> Float[Array, " m"]:
        x = checked_points(x, self.mode.dtype)
        return self.prior.mean_at(x) + self._cross(x) @ self.weights

    def covariance(self, x: Any) -> Float[Array, "m m"]:
        points = all_points(x, dtype=self.mode.dtype)
        cross = self._cross(points)
        cross = cross.dense() if isinstance(cross, ops.KhatriRao) else cross
        rows = cross.T if self.observed is None else cross.T[self.observed]
        rows = self.curvature.half[:, None] * rows
        explained = rows.T @ self.curvature._solve(rows)
        return self.prior.kernel.gram(points) - 0.5 * (explained + explained.T)

    def sample(
        self, key: jax.Array, x: Any, sample_shape: tuple[int, ...] = ()
    ) -> Float[Array, "*sample m"]:
        r"""Exact joint draws of this normal approximation, shape `(*sample_shape, m)`.

        Between grids by Matheron's rule, with $W^{-1}$ for the noise; see `GridPosterior.sample`.
        """
        if not isinstance(x, Grid) or not isinstance(self.x, Grid):
            return dense_draws(self, key, x, sample_shape)
        check_draws(key, sample_shape)
        x = checked_points(x, self.mode.dtype)
        seen, new = joint_roots(self.prior, self.x, x)
        function, error = random.split(key)
        num, half = math.prod(sample_shape), self.curvature.half[:, None]
        noise = random.normal(function, (seen.shape[1], num), self.mode.dtype)
        before = seen.mm(noise)
        before = before if self.observed is None else before[self.observed]
        error = random.normal(error, before.shape, before.dtype)
        moved = half * self.curvature._solve(half * before + error)
        if self.observed is not None:
            moved = scatter_rows(moved, self.observed, self.x.size)
        draws = new.mm(noise) - self._cross(x).mm(moved)
        return (self.mean(x)[:, None] + draws).T.reshape(*sample_shape, x.size)

    def log_evidence(
        self, key: jax.Array | None = None, *, num_probes: int = 10, num_steps: int = 30
    ) -> Float[Array, ""]:
        r"""Laplace's approximation of the log marginal likelihood, scalar.

        $\log p(y \mid \hat f) - \frac12 \alpha^\top (\hat f - m) - \frac12 \log \det B$, NaN if
        the mode was not found. Exact for normal noise.

        Args:
            key: with `solver="cg"`, for the probes of `ops.stochastic_logdet`, which estimates the
                determinant; fix it while optimising or sampling. Else it is not used.
            num_probes: of the estimate.
            num_steps: of its Lanczos iteration.

        Raises:
            ValueError: `solver="cg"` without a key.
        """
        if isinstance(self.curvature.covariance, ops.Dense):
            logdet = self.curvature.logdet()
        elif key is None:
            raise ValueError(
                'log_evidence: with solver="cg" the log-determinant is estimated, which needs a '
                "key; or ask for evidence_bounds()"
            )
        else:
            estimate = ops.stochastic_logdet(key, self.curvature, num_probes, num_steps)
            logdet = estimate.value
        return jnp.where(self.converged, self.objective - 0.5 * logdet, jnp.nan)

    def evidence_bounds(self) -> tuple[Float[Array, ""], Float[Array, ""]]:
        r"""Bounds from below and above of `log_evidence` on a grid, from eigenvalues of its axes.

        With the eigenvalues $e$ of $K$ and the elements $w$ of $W$ (0 at missing cells),
        $\sum_i \log(1 + e_i w_i)$ is at least $\log \det B$ where both are sorted alike, and at
        most where they are sorted oppositely. The gap may be wide: use them for gradients, never
        to compare models.

        Raises:
            ValueError: not a grid.

        References:
            Fiedler (1971), "Bounds for the determinant of the sum of Hermitian matrices"; Flaxman,
            Wilson, Neill, Nickisch and Smola (2015), "Fast Kronecker inference in Gaussian
            processes with non-Gaussian likelihoods", section 4.
        """
        if not isinstance(self.x, Grid):
            raise ValueError("evidence_bounds: known for a Grid only; log_evidence() is exact here")
        values = []
        for factor in self.prior.covariance(self.x).factors:  # ty: ignore
            values.append(jnp.maximum(eigenvalues(factor), 0))
        spectrum = jnp.sort(outer_grid(values).reshape(-1))
        weight = self.curvature.half**2
        weight = jnp.sort(jnp.pad(weight, (self.x.size - weight.size, 0)))
        most = jnp.sum(jnp.log1p(spectrum * weight))
        least = jnp.sum(jnp.log1p(spectrum * weight[::-1]))
        return self.objective - 0.5 * most, self.objective - 0.5 * least

    def predict(self, x: Any) -> dist.Distribution:
        return predictive(self.likelihood, *self.moments(x))

    def _cross(self, x: Any) -> Any:
        if isinstance(self.x, Grid):
            return grid_cross(self.prior, x, self.x)
        return self.prior.kernel.gram(all_points(x), self.x)


def _explained(curvature: Curvature, observed: Any, rows: jax.Array) -> jax.Array:
    """What the data explain of the variances of some points, whose covariances are columns."""
    rows = curvature.half[:, None] * (rows if observed is None else rows[observed])
    return jnp.sum(rows * curvature._solve(rows), axis=0)
