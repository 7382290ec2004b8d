"""Kronecker products plus noise with missing cells, or with different noise in each cell."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Inexact, Int

from .._core import check_key, cho_solve, compiled, eigenvalues, solve_triangular
from . import _general as general
from ._dense import Dense
from ._diagonal import ScaledIdentity
from ._factors import kept, symmetric_solve
from ._iterative import (
    cg_solve,
    CGSolve,
    check_cg,
    converged_value,
    Inverse,
    scatter_rows,
    Submatrix,
)
from ._khatri_rao import check_cross, explained_variance, KhatriRao
from ._kron import Kron, outer_grid
from ._kron_noise import KronPlusNoise
from ._lanczos import stochastic_logdet
from ._operator import AbstractOperator
from ._tags import psd

SCHUR_LIMIT = 2000  # missing cells up to which the exact path is chosen
CHUNK = 64  # columns that are solved for together


class Masked(AbstractOperator):
    r"""The observed rows and columns of a Kronecker product plus noise on a grid.

    That is $A_{oo}$ of $A = K_1 \otimes \dots \otimes K_D +$ noise. With $P = A^{-1}$ on the full
    grid, which is applied but never formed, two solvers give $A_{oo}^{-1}$ for $n_o$ observed and
    $n_m$ missing cells:

    - `"schur"`, exact: $P_{oo} - P_{om} P_{mm}^{-1} P_{mo}$ and
      $\log|A_{oo}| = \log|A| + \log|P_{mm}|$. Takes $n_m$ solves with $A$ once and memory
      $n_m^2$.
    - `"cg"`: conjugate gradients, preconditioned by $P_{oo}$, from which $A_{oo}^{-1}$ differs
      in at most $\min(n_m, n_o)$ directions; few steps if little is missing. Its `logdet` is an
      estimate, chosen by the option `logdet`.

    Args:
        full: the sum on the full grid.
        mask: which cells are observed, booleans of the grid's shape or flat; known when traced.
        solver: `"schur"`, `"cg"`, or `"auto"`: the former up to 2000 missing cells.
        logdet: with `"cg"`, how the log-determinant is estimated. `"refuse"`: not at all.
            `"lanczos"`: stochastic Lanczos quadrature, with `key`; unbiased but for the
            quadrature. `"scaled"`: the eigenvalues of the full grid, scaled by $n_o / N$; biased.
        key: fixed randomness of the Lanczos probes.
        rtol: of conjugate gradients.
        max_steps: of conjugate gradients.

    Raises:
        ValueError: a mask of another shape or type, traced, or all false; an unknown option;
            `"lanczos"` without a key.
        RuntimeError: conjugate gradients did not converge.

    References:
        Wilson, Gilboa, Nehorai and Cunningham (2014), "Fast kernel learning for multidimensional
        pattern extrapolation", for the scaled eigenvalues; Gardner, Pleiss, Bindel, Weinberger and
        Wilson (2018), "GPyTorch", for stochastic Lanczos quadrature.
    """

    full: KronPlusNoise
    observed: Int[Array, " n_o"]
    missing: Int[Array, " n_m"]
    key: jax.Array | None
    missing_precision: Inexact[Array, "n_m n_m"] | None  # P_mm, for the exact path
    solver: str = eqx.field(static=True)
    logdet_method: str = eqx.field(static=True)
    rtol: float = eqx.field(static=True)
    max_steps: int = eqx.field(static=True)
    tags: frozenset[object] = eqx.field(static=True)

    def __init__(
        self,
        full: AbstractOperator,
        mask: Any,
        *,
        solver: str = "auto",
        logdet: str = "refuse",
        key: jax.Array | None = None,
        rtol: float = 1e-8,
        max_steps: int = 1000,
    ):
        if not isinstance(full, KronPlusNoise):
            raise ValueError(
                f"Masked: full must be a Kron plus noise, got {type(full).__name__}; add "
                "ops.ScaledIdentity(noise) to the Kron"
            )
        full.require_psd("Masked: full")
        seen = _checked_mask(mask, full.grid)
        if solver not in ("auto", "schur", "cg"):
            raise ValueError(f'Masked: solver must be "auto", "schur" or "cg", got {solver!r}')
        if logdet not in ("refuse", "lanczos", "scaled"):
            raise ValueError(
                f'Masked: logdet must be "refuse", "lanczos" or "scaled", got {logdet!r}'
            )
        if logdet == "lanczos" and key is None:
            raise ValueError('Masked: logdet="lanczos" needs a key for its probes')
        check_cg("Masked", rtol, max_steps)
        if key is not None:
            check_key(key)
        self.full = full
        self.observed = jnp.asarray(np.flatnonzero(seen), jnp.int32)
        self.missing = jnp.asarray(np.flatnonzero(~seen), jnp.int32)
        few = self.missing.size <= SCHUR_LIMIT
        self.solver = solver if solver != "auto" else "schur" if few else "cg"
        self.logdet_method = logdet
        self.key = key
        self.rtol = rtol
        self.max_steps = max_steps
        self.tags = frozenset([psd])
        self.missing_precision = None
        if self.solver == "schur" and self.missing.size:
            self.missing_precision = _precision(jax.lax.stop_gradient(full), self.missing)

    @property
    def shape(self) -> tuple[int, int]:
        return (self.observed.size, self.observed.size)

    @property
    def dtype(self) -> Any:
        return self.full.dtype

    def transpose(self) -> Masked:
        return self

    def solve_cg(self, b: Inexact[Array, "n k"]) -> CGSolve:
        """The solution by conjugate gradients with the steps that it took; never raises.

        Args:
            b: shape `(n, k)`.
        """
        product = Submatrix(self.full, self.observed)
        nearly = Submatrix(Inverse(self.full), self.observed)
        return cg_solve(product, b, nearly, self.rtol, self.max_steps)

    def marginal_variance(
        self, cross: Kron | KhatriRao, prior: Inexact[Array, " m"]
    ) -> Inexact[Array, " m"]:
        r"""Diagonal of $K_{tt} - K_{to} A_{oo}^{-1} K_{to}^\top$ at test points $t$.

        On the exact path it takes one solve for every missing cell however many test points there
        are, else one solve for every test point.

        Args:
            cross: $K_t$ of all cells of the grid, missing ones too, shape `(m, n)`.
            prior: diagonal of $K_{tt}$, shape `(m,)`.

        Raises:
            ValueError: `cross` is neither, or shapes or types do not fit.
        """
        check_cross(self, self.full.grid, cross, prior)
        if self.solver == "cg":
            return prior - explained_variance(self, cross, self.observed)
        return self.full.marginal_variance(cross, prior) + self._unexplained(cross)

    def _mm(self, x: jax.Array) -> jax.Array:
        return Submatrix(self.full, self.observed)._mm(x)

    def _solve(self, b: jax.Array) -> jax.Array:
        if self.solver == "cg":
            return converged_value(self.solve_cg(b), "Masked")
        full, precision = jax.lax.stop_gradient((self.full, self.missing_precision))
        if precision is None:
            return self.full._solve(b)
        tril = Dense(precision, psd).cholesky("Masked, missing cells")

        def solve(b: jax.Array) -> jax.Array:
            first = full._solve(scatter_rows(b, self.observed, full.shape[0]))
            inner = cho_solve((tril, True), first[self.missing])
            back = full._solve(scatter_rows(inner, self.missing, full.shape[0]))
            return (first - back)[self.observed]

        return symmetric_solve(self._mm, solve, b)

    def _logdet(self) -> jax.Array:
        if self.solver == "schur":
            if self.missing_precision is None:
                return self.full._logdet()
            return self.full._logdet() + Dense(self._kept_precision(), psd)._logdet()
        if self.logdet_method == "scaled":
            return self._scaled_logdet()
        if self.logdet_method == "lanczos":
            return stochastic_logdet(self.key, self).value  # ty: ignore
        raise ValueError(
            f"Masked: with {self.missing.size} missing cells the log-determinant is not known "
            'exactly; ask for an estimate, logdet="lanczos" or "scaled", or solver="schur"'
        )

    def _diag(self) -> jax.Array:
        return self.full._diag()[self.observed]

    def _root(self) -> AbstractOperator:
        raise self._unknown("root")

    def replaced(self, full: AbstractOperator) -> Masked:
        """The same cells of another sum."""
        precision = self.missing_precision
        if precision is not None:
            precision = _precision(jax.lax.stop_gradient(full), self.missing)
        parts = lambda masked: (masked.full, masked.missing_precision)  # noqa: E731
        none = lambda x: x is None  # noqa: E731
        return eqx.tree_at(parts, self, (full, precision), is_leaf=none)

    def _kept_precision(self) -> jax.Array:
        """$P_{mm}$ with its derivatives."""
        again = jax.tree_util.Partial(_precision, missing=self.missing)  # its arrays are seen
        return kept((self.full,), self.missing_precision, factorise=again)

    def _unexplained(self, cross: Kron | KhatriRao | None) -> jax.Array:
        r"""Diagonal of $C P_{:m} P_{mm}^{-1} P_{m:} C^\top$, what missing cells do not explain.

        Args:
            cross: $C$, shape `(m, n)`, or None for the identity.
        """
        if not self.missing.size:
            return jnp.zeros((), self.dtype)
        tril = Dense(self._kept_precision(), psd).cholesky("Masked, missing cells")
        return _unexplained(self.full, self.missing, tril, cross)

    def _scaled_logdet(self) -> jax.Array:
        if not isinstance(self.full.noise, ScaledIdentity) or not isinstance(
            self.full.signal, Kron
        ):
            raise ValueError('Masked: logdet="scaled" is for a Kron with ScaledIdentity noise')
        spectrum = outer_grid([eigenvalues(factor) for factor in self.full.signal.factors])
        largest = jax.lax.top_k(jnp.maximum(spectrum.reshape(-1), 0), self.observed.size)[0]
        share = self.observed.size / self.full.shape[0]
        return jnp.sum(jnp.log(share * largest + self.full.noise.scale))


@general.inverse_diag.register
def _(operator: Masked) -> jax.Array:
    if operator.solver == "cg":
        return general.inverse_diag_by_solves(operator)
    return (operator.full.inverse_diag() - operator._unexplained(None))[operator.observed]


@general.sample.register
def _(operator: Masked, key: jax.Array, num: int) -> jax.Array:
    return general.sample(operator.full, key, num)[operator.observed]


@compiled
def _unexplained(
    full: AbstractOperator, missing: jax.Array, tril: jax.Array, cross: Any
) -> jax.Array:
    size, count = full.shape[0], missing.size
    chunk = min(CHUNK, count)

    @jax.checkpoint
    def some(total: jax.Array, start: jax.Array) -> tuple[jax.Array, None]:
        index = start + jnp.arange(chunk)
        unit = jnp.zeros((count, chunk), full.dtype)
        unit = unit.at[index, jnp.arange(chunk)].set(1.0, mode="drop")
        columns = solve_triangular(tril, unit, lower=True, trans=1)
        solved = full._solve(scatter_rows(columns, missing, size))
        solved = solved if cross is None else cross._mm(solved)
        return total + jnp.sum(solved**2, axis=1), None

    start = jnp.zeros(size if cross is None else cross.shape[0], full.dtype)
    return jax.lax.scan(some, start, jnp.arange(0, count, chunk))[0]


@compiled
def _precision(full: AbstractOperator, missing: jax.Array) -> jax.Array:
    """$P_{mm}$, some columns at a time; the backward pass solves again instead of storing."""
    padded = jnp.pad(missing, (0, -missing.size % CHUNK), mode="edge").reshape(-1, CHUNK)

    @jax.checkpoint
    def some(index: jax.Array) -> jax.Array:
        unit = jnp.zeros((full.shape[0], CHUNK), full.dtype)
        unit = unit.at[index, jnp.arange(CHUNK)].set(1.0)
        return full._solve(unit)[missing]

    columns = jax.lax.map(some, padded)  # chunks, rows, columns of a chunk
    dense = jnp.moveaxis(columns, 0, 1).reshape(missing.size, -1)[:, : missing.size]
    return 0.5 * (dense + dense.T)


def _checked_mask(mask: Any, grid: tuple[int, ...]) -> np.ndarray:
    try:
        seen = np.asarray(mask)
    except jax.errors.TracerArrayConversionError:
        raise ValueError(
            "Masked: which cells are observed decides shapes, so mask must be known when traced; "
            "pass a NumPy array, not an argument of the jitted function"
        ) from None
    size = int(np.prod(grid))
    if seen.dtype != bool or seen.shape not in (grid, (size,)):
        raise ValueError(
            f"Masked: mask must hold booleans of shape {grid} or ({size},), got {seen.dtype} of "
            f"shape {seen.shape}"
        )
    if not seen.any():
        raise ValueError("Masked: mask is all false, so nothing is observed")
    return seen.reshape(-1)
