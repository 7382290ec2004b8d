"""Stochastic Lanczos quadrature: log-determinants from products alone."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from jaxtyping import Array, Inexact

from .._core import check_key, compiled, on_failure
from . import _general as general
from ._factors import symmetric_solve
from ._operator import AbstractOperator


class StochasticLogdet(NamedTuple):
    """Estimate of a log-determinant by stochastic Lanczos quadrature.

    Attributes:
        value: the estimate, scalar.
        standard_error: of the value, from the standard deviation between probes, scalar. The error
            of the quadrature, which is common to all probes, is not in it.
    """

    value: Inexact[Array, ""]
    standard_error: Inexact[Array, ""]


def stochastic_logdet(
    key: jax.Array,
    operator: AbstractOperator,
    num_probes: int = 10,
    num_steps: int = 30,
    preconditioner: AbstractOperator | None = None,
) -> StochasticLogdet:
    r"""Stochastic Lanczos quadrature of $\log\det A$, from products with $A$ only.

    $\log\det A = \mathrm{tr} \log A$ is estimated by random probes $z$, and each
    $z^\top \log(A) z$ by Gauss quadrature at the eigenvalues of the tridiagonal matrix of
    `num_steps` steps of the Lanczos iteration, fully re-orthogonalised. The error of the probes
    falls with their number and is reported; that of the quadrature falls geometrically with
    `num_steps` at a rate set by $1 / \sqrt{\kappa(A)}$, and is zero from `n` steps on. A
    preconditioner $P \approx A$ makes both smaller: only $\log\det P^{-1} A$ is estimated.

    Gradients go to the operator and are the unbiased estimate $z^\top A^{-1} dA\, z$ of
    $\mathrm{tr}(A^{-1} dA)$ with the same probes, where $A^{-1} z$ comes from the same iteration,
    so they are as unbiased as `num_steps` is large. They are not the gradient of the
    approximation. Second derivatives are right likewise.

    Takes `num_probes * num_steps` products and `2 num_probes num_steps n` numbers of memory.

    Args:
        key: for the probes.
        operator: tagged `ops.psd`, shape `(n, n)`.
        num_probes: at least 2.
        num_steps: of the Lanczos iteration; no more than `n` are made.
        preconditioner: an operator tagged `ops.psd` with `solve`, `logdet` and `sample`.

    Raises:
        ValueError: an operator not tagged as positive semi-definite, sizes that differ, or fewer
            than 2 probes or 1 step.
        RuntimeError: the operator is not positive definite, as far as the probes have seen.

    References:
        Ubaru, Chen and Saad (2017), "Fast estimation of tr(f(A)) via stochastic Lanczos
        quadrature"; Gardner, Pleiss, Bindel, Weinberger and Wilson (2018), "GPyTorch", for the
        preconditioned probes.
    """
    if not isinstance(operator, AbstractOperator):
        raise ValueError(
            "stochastic_logdet: operator must be one of bayesjx.ops, got "
            f"{type(operator).__name__}; a matrix is ops.Dense(matrix, ops.psd)"
        )
    operator.require_psd("stochastic_logdet")
    check_key(key)
    size = operator.shape[0]
    integers = all(isinstance(number, (int, np.integer)) for number in (num_probes, num_steps))
    if not integers or num_probes < 2 or num_steps < 1:
        raise ValueError(
            "stochastic_logdet: of the integers, num_probes must be at least 2 and num_steps at "
            f"least 1, got {num_probes} and {num_steps}"
        )
    base = jnp.zeros((), operator.dtype)
    if preconditioner is None:
        probes = random.rademacher(key, (size, num_probes), operator.dtype)
    else:
        preconditioner.require_psd("stochastic_logdet: preconditioner")
        if preconditioner.shape != operator.shape:
            raise ValueError(
                f"stochastic_logdet: preconditioner must have shape {operator.shape}, got "
                f"{preconditioner.shape}"
            )
        preconditioner = jax.lax.stop_gradient(preconditioner)
        probes = general.sample(preconditioner, key, num_probes)
        base = preconditioner._logdet()
    problem = _Problem(operator, preconditioner, min(num_steps, size))
    values, _ = _quadrature(problem, jax.lax.stop_gradient(probes))
    error = jnp.std(values, ddof=1) / num_probes**0.5
    return StochasticLogdet(base + jnp.mean(values), error)


class _Problem(eqx.Module):
    operator: AbstractOperator
    preconditioner: AbstractOperator | None
    num_steps: int = eqx.field(static=True)

    def undo(self, x: jax.Array) -> jax.Array:
        """$P^{-1} x$."""
        return x if self.preconditioner is None else self.preconditioner._solve(x)


class _Lanczos(NamedTuple):
    """A basis $q$ that is orthonormal in $P$, the tridiagonal matrix on it, and the start's norm.

    Attributes:
        basis: shape `(m, n, p)` for `p` probes.
        diagonal: shape `(p, m)`.
        beside: shape `(p, m - 1)`.
        norm: shape `(p,)`.
    """

    basis: jax.Array
    diagonal: jax.Array
    beside: jax.Array
    norm: jax.Array


@eqx.filter_custom_jvp
def _quadrature(problem: _Problem, probes: jax.Array) -> tuple[jax.Array, jax.Array]:
    r"""$z^\top \log(P^{-1} A) z$ scaled to probes of length $\sqrt n$, and $A^{-1}$ times them."""
    lanczos = _lanczos(problem, probes)
    values, vectors = jnp.linalg.eigh(_tridiagonal(lanczos))
    values = eqx.error_if(
        values,
        jnp.any(values <= 0),
        "stochastic_logdet: the operator is not positive definite, or too ill-conditioned for its "
        "precision; add a multiple of the identity",
        on_error=on_failure(),
    )
    quadratic = jnp.sum(vectors[:, 0] ** 2 * jnp.log(values), axis=1)
    inside = jnp.einsum("pij,pj->pi", vectors, vectors[:, 0] / values) * lanczos.norm[:, None]
    # Directions of Gaussian vectors do not depend on their lengths: a fixed length varies less.
    return probes.shape[0] * quadratic, jnp.einsum("mnp,pm->np", lanczos.basis, inside)


@_quadrature.def_jvp
def _quadrature_jvp(primals: Any, tangents: Any) -> tuple[Any, Any]:
    problem, probes = primals
    operator = problem.operator
    values, solved = _quadrature(problem, probes)

    def times(operator: AbstractOperator) -> tuple[jax.Array, jax.Array]:
        return operator._mm(unit), operator._mm(solved)

    unit = problem.undo(probes)
    _, (d_unit, d_solved) = eqx.filter_jvp(times, (operator,), (tangents[0].operator,))
    scale = probes.shape[0] / jnp.sum(unit * probes, axis=0)
    d_values = scale * jnp.sum(solved * d_unit, axis=0)
    fixed = jax.lax.stop_gradient(problem)
    solve = lambda b: _quadrature(fixed, b)[1]  # noqa: E731
    return (values, solved), (d_values, -symmetric_solve(operator._mm, solve, d_solved))


@compiled
def _lanczos(problem: _Problem, probes: jax.Array) -> _Lanczos:
    num_steps, (size, num) = problem.num_steps, probes.shape
    tiny = 100 * jnp.finfo(probes.dtype).eps
    unit = problem.undo(probes)
    norm = jnp.sqrt(jnp.sum(unit * probes, axis=0))
    zero = norm == 0
    over = jnp.where(zero, 0, 1 / jnp.where(zero, 1, norm))
    start = jnp.zeros((num_steps, size, num), probes.dtype)

    # The dual of a vector is P times it; the basis and its duals are biorthogonal.
    def step(carry: Any, k: jax.Array) -> tuple[Any, tuple[jax.Array, jax.Array]]:
        basis, duals, vector, dual, largest = carry
        basis, duals = basis.at[k].set(vector), duals.at[k].set(dual)
        product = problem.operator._mm(vector)
        diagonal = jnp.sum(vector * product, axis=0)
        for _ in range(2):
            inside = jnp.einsum("mnp,np->mp", basis, product)
            product = product - jnp.einsum("mnp,mp->np", duals, inside)
        vector = problem.undo(product)
        beside = jnp.sqrt(jnp.maximum(jnp.sum(vector * product, axis=0), 0))
        largest = jnp.maximum(largest, diagonal)
        # An invariant subspace is complete: nothing but rounding is left of the product.
        done = beside <= tiny * largest
        over = jnp.where(done, 0, 1 / jnp.where(done, 1, beside))
        beside = jnp.where(done, 0, beside)
        # Rows beyond have no weight; a one keeps their logarithm finite.
        diagonal = jnp.where(jnp.any(carry[2] != 0, axis=0), diagonal, 1)
        return (basis, duals, vector * over, product * over, largest), (diagonal, beside)

    first = (start, start, unit * over, probes * over, jnp.zeros_like(norm))
    (basis, *_), (diagonal, beside) = jax.lax.scan(step, first, jnp.arange(num_steps))
    return _Lanczos(basis, diagonal.T, beside[:-1].T, norm)


def _tridiagonal(lanczos: _Lanczos) -> jax.Array:
    matrices = jax.vmap(jnp.diag)(lanczos.diagonal)
    index = jnp.arange(lanczos.beside.shape[1])
    matrices = matrices.at[:, index, index + 1].set(lanczos.beside)
    return matrices.at[:, index + 1, index].set(lanczos.beside)
