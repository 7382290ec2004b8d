"""Competitors of Kronecker-structured learners that form the dictionary, and the naive learner."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

CLASSIC_STEPS = 150
CLASSIC_RTOL = 1e-4


def dictionary(factors: Any) -> jax.Array:
    """The Kronecker product of the factors."""
    return functools.reduce(jnp.kron, factors)


def expectation(design: Any, y: Any, prior: Any, noise_var: Any) -> Any:
    """Mean, variance, leverages, residual energy and trace of the inverse: `O(m² n + m³)`."""
    cov = (design * prior) @ design.conj().T + noise_var * jnp.eye(len(design), dtype=y.dtype)
    tril = jnp.linalg.cholesky(cov)
    half = solve_triangular(tril, design, lower=True)
    rotated = solve_triangular(tril, y, lower=True)
    mean = prior * (half.conj().T @ rotated)
    leverage = jnp.sum(jnp.abs(half) ** 2, axis=0)
    variance = prior * jnp.maximum(1 - prior * leverage, 0)
    rest = jnp.sum(jnp.abs(y - design @ mean) ** 2)
    return mean, variance, leverage, rest


def classic_step(design: Any, y: Any, prior: Any, noise_var: Any) -> Any:
    """A step of classic sparse Bayesian learning: convex bound, noise by EM."""
    mean, _, leverage, rest = expectation(design, y, prior, noise_var)
    new = jnp.abs(mean) / jnp.sqrt(leverage)
    noise = (rest + noise_var * jnp.sum(prior * leverage)) / y.size
    return mean, new, jnp.maximum(noise, 1e-8 * jnp.mean(jnp.abs(y) ** 2))


@jax.jit
def classic(factors: Any, y: Any) -> jax.Array:
    """Coefficients by classic sparse Bayesian learning on the dictionary, in units as ours."""
    norms = [jnp.linalg.norm(f, axis=0) for f in factors]
    design = dictionary([f / n for f, n in zip(factors, norms, strict=True)])
    unit = jnp.sqrt(jnp.mean(jnp.abs(y) ** 2))
    flat = y.reshape(-1) / unit

    def go_on(carry: Any) -> Any:
        return (carry[2] > CLASSIC_RTOL) & (carry[3] < CLASSIC_STEPS)

    def step(carry: Any) -> Any:
        prior, noise_var, _, num = carry
        _, new, noise = classic_step(design, flat, prior, noise_var)
        new = jnp.where(new < 1e-3 * jnp.max(new), 0, new)
        moved = jnp.linalg.norm(new - prior) / jnp.linalg.norm(prior)
        return new, noise, moved, num + 1

    ones = jnp.ones(design.shape[1], jnp.finfo(y.dtype).dtype)
    begun = (ones, jnp.asarray(0.1, ones.dtype), jnp.asarray(jnp.inf, ones.dtype), 0)
    prior, noise_var, _, _ = jax.lax.while_loop(go_on, step, begun)
    mean = expectation(design, flat, prior, noise_var)[0]
    grid = [f.shape[1] for f in factors]
    return (unit * mean / functools.reduce(jnp.kron, norms)).reshape(grid)


@functools.partial(jax.jit, static_argnames="most")
def pursuit(factors: Any, y: Any, noise_var: Any, most: int) -> jax.Array:
    """Coefficients by orthogonal matching pursuit on the dictionary, with the noise rule."""
    design, flat = dictionary(factors), y.reshape(-1)
    norms = jnp.linalg.norm(design, axis=0)
    n = design.shape[1]

    def go_on(carry: Any) -> Any:
        residual, _, _, num = carry
        return (jnp.sum(jnp.abs(residual) ** 2) > noise_var * flat.size) & (num < most)

    def step(carry: Any) -> Any:
        residual, basis, chosen, num = carry
        best = jnp.argmax(jnp.abs(design.conj().T @ residual) / norms)
        column = design[:, best]
        for _ in range(2):  # Gram-Schmidt, twice
            column = column - basis @ (basis.conj().T @ column)
        column = column / jnp.linalg.norm(column)
        residual = residual - column * (column.conj() @ residual)
        return residual, basis.at[:, num].set(column), chosen.at[num].set(best), num + 1

    begun = (flat, jnp.zeros((flat.size, most), y.dtype), jnp.full(most, n), 0)
    _, basis, chosen, num = jax.lax.while_loop(go_on, step, begun)
    columns = jnp.where(jnp.arange(most) < num, design[:, jnp.minimum(chosen, n - 1)], 0)
    upper = basis.conj().T @ columns + jnp.diag((jnp.arange(most) >= num).astype(y.dtype))
    values = solve_triangular(upper, basis.conj().T @ flat)
    grid = [f.shape[1] for f in factors]
    return jnp.zeros(n, y.dtype).at[chosen].add(values, mode="drop").reshape(grid)


def _kron(matrices: Any) -> Any:
    product = np.ones((1,) * np.ndim(matrices[0]))
    for matrix in matrices:
        product = np.kron(product, matrix)
    return product


def naive_em(factors: Any, y: Any, steps: int) -> tuple[Any, float]:
    """Prior variances `(n,)` and noise by EM of the Kronecker model, everything dense, in NumPy.

    In units of columns of norm 1 and measurements of mean square 1.
    """
    factors = [np.asarray(f) for f in factors]
    factors = [f / np.linalg.norm(f, axis=0) for f in factors]
    flat = np.asarray(y).ravel() / np.sqrt(np.mean(np.abs(y) ** 2))
    design = _kron(factors)
    variances, noise_var = [np.ones(f.shape[1]) for f in factors], 0.1
    grid = tuple(f.shape[1] for f in factors)
    for _ in range(steps):
        prior = _kron(variances)
        cov = (design * prior) @ design.conj().T + noise_var * np.eye(len(design))
        gain = prior[:, None] * design.conj().T @ np.linalg.inv(cov)
        mean = gain @ flat
        sigma = np.diag(prior) - gain @ design * prior
        second = (np.abs(mean) ** 2 + np.diag(sigma).real).reshape(grid)
        for _ in range(200):  # alternating minimisation
            for axis, variance in enumerate(variances):
                shape = [-1 if d == axis else 1 for d in range(len(grid))]
                prior = _kron(variances).reshape(grid)
                ratio = second / prior * variance.reshape(shape)
                rest = tuple(d for d in range(len(grid)) if d != axis)
                variances[axis] = np.mean(ratio, axis=rest)
        dof = np.trace(gain @ design).real
        noise_var = (np.sum(np.abs(flat - design @ mean) ** 2) + noise_var * dof) / flat.size
    return _kron(variances), float(noise_var)
