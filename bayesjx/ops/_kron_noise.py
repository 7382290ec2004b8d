"""Kronecker products and sums plus noise, by one eigendecomposition for each axis."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jax.tree_util import Partial
from jaxtyping import Array, Inexact

from .._core import eigh, on_failure, solve_triangular
from . import _general as general
from ._arithmetic import sized
from ._dense import Dense
from ._diagonal import ScaledIdentity
from ._factors import symmetric_solve
from ._khatri_rao import check_cross, KhatriRao, map_rows
from ._kron import AbstractKron, contract_grid, grid_gram, Kron, kron_mm, outer_grid
from ._operator import AbstractOperator
from ._stacks import HStack
from ._tags import psd, symmetric


class Spectrum(NamedTuple):
    """Decomposition of the (whitened) factors.

    Attributes:
        inverse: inverses $P_d$ of $T_d$; transposed eigenvectors if there is no whitening.
        values: eigenvalues of each factor.
    """

    inverse: tuple[Inexact[Array, "_n _n"], ...]
    values: tuple[Inexact[Array, " _n"], ...]


class KronPlusNoise(AbstractOperator):
    r"""Kronecker product plus noise, $K_1 \otimes \dots \otimes K_D + \sigma^2 I$.

    The noise may be a Kronecker product too, and the signal a Kronecker sum.

    Made by adding: `Kron + ScaledIdentity`, `Kron + Kron`, `KronSum + ScaledIdentity`. The factors
    are decomposed once, when it is made: $A = T \mathrm{diag}(w) T^\top$ with
    $T = \otimes_d T_d$, in $\sum_d n_d^3$; then `solve` takes $2 N \sum_d n_d$ and `logdet` $N$.
    Kronecker noise $\otimes_d S_d$ is first whitened by the Cholesky factors of $S_d$.

    Derivatives go to the factors and the noise by formulas that hold for equal eigenvalues too,
    where those of an eigendecomposition are infinite; the decomposition itself is kept without.

    Args:
        signal: `Kron` tagged `ops.psd` or `ops.symmetric`, or `KronSum`.
        noise: `ScaledIdentity`, or a `Kron` tagged `ops.psd` of the same grid.

    The sum is positive semi-definite if both terms are tagged so. If not, as for
    `Kron + ScaledIdentity(-0.1, tags=())`, it has products, `solve` and `logdet`.

    Raises:
        ValueError: `signal` is a `Kron` not tagged as symmetric, the noise a `Kron` not tagged
            as positive semi-definite, or the sizes or types differ.
        RuntimeError: a factor has a negative eigenvalue beyond rounding.

    References:
        Saatçi (2011), "Scalable inference for structured Gaussian process models"; Stegle,
        Lippert, Mooij, Lawrence and Borgwardt (2011), "Efficient inference in matrix-variate
        Gaussian models with iid observation noise", for the whitening.
    """

    signal: AbstractKron
    noise: ScaledIdentity | Kron
    tags: frozenset[object] = eqx.field(static=True)
    spectrum: Spectrum

    def __init__(self, signal: AbstractKron, noise: ScaledIdentity | Kron):
        product = isinstance(signal, Kron)
        if not isinstance(signal, AbstractKron) or not isinstance(noise, (Kron, ScaledIdentity)):
            raise ValueError(
                "KronPlusNoise: signal must be a Kron or KronSum and noise a ScaledIdentity or "
                f"Kron, got {type(signal).__name__} and {type(noise).__name__}"
            )
        if product and not lx.is_symmetric(signal):
            raise ValueError(
                "Kron + noise needs positive semi-definite factors: tags=ops.psd, or symmetric "
                "ones: tags=ops.symmetric"
            )
        noise = sized(noise, signal.shape[0], signal.dtype)
        if isinstance(noise, Kron):
            _check_noise(signal, noise)
        if noise.dtype != signal.dtype:
            raise ValueError(
                f"Kron + noise: the factors hold {signal.dtype} and the noise {noise.dtype}"
            )
        if noise.shape != signal.shape:
            raise ValueError(f"Kron {signal.shape} + noise {noise.shape}: the sizes differ")
        self.signal = signal
        self.noise = noise
        self.tags = frozenset([psd if psd in signal.tags & noise.tags else symmetric])
        self.spectrum = _decompose(*jax.lax.stop_gradient((signal, noise)), check=True)

    @property
    def shape(self) -> tuple[int, int]:
        return self.signal.shape

    @property
    def dtype(self) -> Any:
        return self.signal.dtype

    @property
    def grid(self) -> tuple[int, ...]:
        """Rows of each factor: the shape of the grid."""
        return self.signal.grid

    def transpose(self) -> KronPlusNoise:
        return self

    def eigenvalues(self) -> Inexact[Array, " ..."]:
        """The weights $w$ as a grid: eigenvalues of the (whitened) sum, without derivatives."""
        return jax.lax.stop_gradient(_weights(self.signal, self.noise, self.spectrum))

    def marginal_variance(
        self, cross: Kron | KhatriRao, prior: Inexact[Array, " m"]
    ) -> Inexact[Array, " m"]:
        r"""Diagonal of $K_{**} - K_* A^{-1} K_*^\top$, in one Kronecker product.

        Derivatives with respect to `cross` cost as little; those with respect to the operator take
        `m` solves, some at a time.

        Args:
            cross: $K_* = \otimes_d K_d(x_*, x)$ of a test grid, or a `KhatriRao` of scattered
                points, shape `(m, n)`.
            prior: diagonal of $K_{**}$, shape `(m,)`.

        Raises:
            ValueError: `cross` is neither, or shapes or types do not fit.
        """
        check_cross(self, self.grid, cross, prior)
        return prior - _explained(self, cross)

    def _mm(self, x: jax.Array) -> jax.Array:
        return self.signal._mm(x) + self.noise._mm(x)

    def _solve(self, b: jax.Array) -> jax.Array:
        inverse = self.spectrum.inverse
        back = tuple(_transposed(p) for p in inverse)
        columns = () if b.shape[1] == 1 else b.shape[1:]
        weights = self.eigenvalues().reshape(*self.grid, *(1 for _ in columns))

        def solve(b: jax.Array) -> jax.Array:
            # Divided as a grid: broadcast into a flat vector, every element would cost divisions
            # of its index.
            rotated = kron_mm(inverse, b).reshape(*self.grid, *columns)
            return kron_mm(back, (rotated / weights).reshape(b.shape))

        return symmetric_solve(self._mm, solve, b)

    def _logdet(self) -> jax.Array:
        return _logdet(self)

    def _indefinite(self) -> jax.Array:
        """NaN if an eigenvalue is negative, else 0."""
        return jnp.where(jnp.any(self.eigenvalues() < 0), jnp.nan, 0).astype(self.dtype)

    def _diag(self) -> jax.Array:
        return self.signal._diag() + self.noise._diag()

    def _root(self) -> HStack:
        return HStack(self.signal._root(), self.noise._root())


@general.inv_quad_logdet.register
def _(operator: KronPlusNoise, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    if y.ndim == 1:
        quad, logdet = _evidence(operator, y)
    else:
        quad, logdet = jax.vmap(_evidence, (None, 1), (0, None))(operator, y)
    return quad, logdet + operator._indefinite()


@general.psd_logdet.register
def _(operator: KronPlusNoise) -> jax.Array:
    return _logdet(operator) + operator._indefinite()


@general.inverse_diag.register
def _(operator: KronPlusNoise) -> jax.Array:
    return _explained(operator, Kron(*(jnp.eye(n, dtype=operator.dtype) for n in operator.grid)))


# The rules below decompose the factors once more, now with derivatives, so that second derivatives
# are right where eigenvalues are distinct; compiled, both decompositions are one.


@eqx.filter_custom_jvp
def _logdet(operator: KronPlusNoise) -> jax.Array:
    return _log_weights(operator.signal, operator.noise, operator.spectrum)


@_logdet.def_jvp
def _logdet_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (operator,), (change,) = primals, tangents
    spectrum = _decompose(operator.signal, operator.noise)
    inverse_weights = 1 / _weights(operator.signal, operator.noise, spectrum)
    total = _scale_change(change, operator) * jnp.sum(inverse_weights)
    for axis, others, rotated in _rotated_changes(change, operator, spectrum):
        total += jnp.sum(contract_grid(inverse_weights, others, axis) * jnp.diag(rotated))
    return _log_weights(operator.signal, operator.noise, spectrum), total


@eqx.filter_custom_jvp
def _evidence(operator: KronPlusNoise, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Quadratic form and log-determinant; together, their gradients share all products."""
    rotated = kron_mm(operator.spectrum.inverse, y[:, None]).reshape(operator.grid)
    weights = _weights(operator.signal, operator.noise, operator.spectrum)
    return jnp.sum(rotated**2 / weights), _logdet(operator)


@_evidence.def_jvp
def _evidence_jvp(primals: Any, tangents: Any) -> tuple[Any, Any]:
    operator, y = primals
    change, d_y = tangents
    spectrum = _decompose(operator.signal, operator.noise)
    weights = _weights(operator.signal, operator.noise, spectrum)
    rotated = kron_mm(spectrum.inverse, y[:, None]).reshape(operator.grid)
    scaled = rotated / weights  # the solution, in the basis where everything is diagonal
    d_scale = _scale_change(change, operator)
    d_quad, d_logdet = -d_scale * jnp.sum(scaled**2), d_scale * jnp.sum(1 / weights)
    for axis, others, moved in _rotated_changes(change, operator, spectrum):
        along = [jnp.ones_like(v) if d == axis else v for d, v in enumerate(others)]
        d_quad -= jnp.sum(grid_gram(scaled, scaled * outer_grid(along), axis) * moved)
        d_logdet += jnp.sum(contract_grid(1 / weights, others, axis) * jnp.diag(moved))
    if d_y is not None:
        d_quad += 2 * jnp.sum(operator.solve(y) * d_y)
    logdet = _log_weights(operator.signal, operator.noise, spectrum)
    return (jnp.sum(rotated * scaled), logdet), (d_quad, d_logdet)


@eqx.filter_custom_jvp
def _explained(operator: KronPlusNoise, cross: Any) -> jax.Array:
    r"""Diagonal of $C A^{-1} C^\top$: squared rows of $C$ in the eigenbasis over the weights."""
    return _explained_with(operator, cross, operator.spectrum)


@_explained.def_jvp
def _explained_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    operator, cross = primals
    change, d_cross = tangents
    spectrum = _decompose(operator.signal, operator.noise)
    value = _explained_with(operator, cross, spectrum)
    total = jnp.zeros_like(value)
    for axis, d_factor in enumerate(() if d_cross is None else d_cross.factors):
        if d_factor is not None:
            total += 2 * _explained_with(operator, cross, spectrum, axis, d_factor)
    if change is not None and jax.tree.leaves((change.signal, change.noise)):
        total -= map_rows(cross, Partial(_moved, operator, change))
    return value, total


def _moved(operator: KronPlusNoise, change: Any, columns: jax.Array) -> jax.Array:
    solved = operator._solve(columns)
    times = lambda op: op._mm(solved)  # noqa: E731
    return jnp.sum(solved * eqx.filter_jvp(times, (operator,), (change,))[1], axis=0)


def _explained_with(
    operator: KronPlusNoise, cross: Any, spectrum: Spectrum, axis: int = -1, other: Any = None
) -> jax.Array:
    """The same; along one axis, rows of another factor stand for one of the two."""
    turned = [f @ p.T for f, p in zip(cross.factors, spectrum.inverse, strict=True)]
    rows = [f**2 for f in turned]
    if other is not None:
        rows[axis] = turned[axis] * (other @ spectrum.inverse[axis].T)
    weights = _weights(operator.signal, operator.noise, spectrum)
    return type(cross)(*rows)._mm(1 / weights.reshape(-1, 1))[:, 0]


def _scale_change(change: Any, operator: KronPlusNoise) -> jax.Array:
    """The change of the scale of `ScaledIdentity` noise, 0 if there is none."""
    if change is None or isinstance(operator.noise, Kron) or change.noise.scale is None:
        return jnp.zeros((), operator.dtype)
    return change.noise.scale


def _rotated_changes(
    change: Any, operator: KronPlusNoise, spectrum: Spectrum
) -> Iterator[tuple[int, list[jax.Array], jax.Array]]:
    r"""For every factor that changes its axis, what the others contribute, and $P\,dK\,P^\top$."""
    ones = [jnp.ones_like(v) for v in spectrum.values]
    values = list(spectrum.values) if isinstance(operator.signal, Kron) else ones
    changes = [] if change is None else [(change.signal, values)]
    if change is not None and isinstance(operator.noise, Kron):
        changes.append((change.noise, ones))
    for part, others in changes:
        for axis, factor in enumerate(() if part is None else part.factors):
            if factor is not None:
                p = spectrum.inverse[axis]
                yield axis, others, p @ factor @ p.T


def _weights(signal: Any, noise: Any, spectrum: Spectrum) -> jax.Array:
    scale = jnp.ones((), signal.dtype) if isinstance(noise, Kron) else noise.scale
    return outer_grid(list(spectrum.values), signal.combine) + scale


def _log_weights(signal: Any, noise: Any, spectrum: Spectrum) -> jax.Array:
    """The sum of the logarithms of the weights, and the determinants of the whitening."""
    total = jnp.sum(jnp.log(jnp.abs(_weights(signal, noise, spectrum))))
    if isinstance(noise, Kron):
        n = signal.shape[0]
        for p in spectrum.inverse:
            total -= 2 * (n // len(p)) * jnp.linalg.slogdet(p)[1]
    return total


def _decompose(signal: Any, noise: Any, check: bool = False) -> Spectrum:
    inverses, eigenvalues = [], []
    for d, factor in enumerate(signal.factors):
        tril = None
        if isinstance(noise, Kron):
            where = f"Kron + Kron noise, factor {d} of the noise"
            tril = Dense(noise.factors[d], psd).cholesky(where)
            half = solve_triangular(tril, factor, lower=True)
            factor = solve_triangular(tril, half.T, lower=True)
        values, vectors = eigh(factor)
        if tril is None:
            inverses.append(_transposed(vectors))
        else:  # T = C Q, so its inverse is Q' C⁻¹
            inverses.append(solve_triangular(tril, vectors, lower=True, trans=1).T)
        if psd in signal.tags:
            values = jnp.maximum(_not_negative(values, d) if check else values, 0)
        eigenvalues.append(values)
    return Spectrum(tuple(inverses), tuple(eigenvalues))


def _transposed(matrix: jax.Array) -> jax.Array:
    """The transpose, written out: multiplying by one that XLA folds in takes half as long again."""
    return jax.lax.optimization_barrier(matrix.T)


def _not_negative(values: jax.Array, axis: int) -> jax.Array:
    largest = jnp.max(jnp.abs(values))
    rounding = 100 * values.size * jnp.finfo(values.dtype).eps * largest
    values = eqx.error_if(
        values,
        jnp.min(values) < -rounding,
        f"Kron + noise: factor {axis} has a negative eigenvalue, so it is not positive "
        "semi-definite",
        on_error=on_failure(),
    )
    return values


def _check_noise(signal: Any, noise: Kron) -> None:
    if not isinstance(signal, Kron):
        raise ValueError("a KronSum takes ScaledIdentity noise only")
    if psd not in noise.tags:
        raise ValueError("Kron + Kron noise needs positive definite noise: tags=ops.psd")
    if noise.grid != signal.grid:
        raise ValueError(
            f"Kron + Kron noise: the factors have {signal.grid} and {noise.grid} rows; they must "
            "be the same"
        )
