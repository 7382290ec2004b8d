"""The dictionary of a Kronecker-structured problem, and naive learners that form it."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular


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
