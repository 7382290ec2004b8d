"""Updates of Kronecker-structured prior variances, given moments of the coefficients."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..ops import contract_grid, outer_grid
from ._kron_scaling import normalised

POWER_STEPS = 20  # of the power iteration, which starts at the factor of the step before
DESCENT_STEPS = 60  # of the accelerated projected gradient

Variances = tuple[Float[Array, " _n"], ...]
Coupling = tuple[float | None, ...]


def am_update(
    second_moment: Float[Array, " ..."],
    variances: Variances,
    coupling: Coupling,
    *,
    max_sweeps: int,
    rtol: float,
) -> Variances:
    r"""Alternating minimisation of $\sum_n \log \gamma_n + T_n / \gamma_n$, $\gamma = \otimes g_i$.

    It is convex in the $\log g_i$, so at convergence this is the maximisation step of EM.

    Args:
        second_moment: $T$, shape `(n_1, ..., n_I)`.
        variances: where to start; what is 0 stays so.
        coupling: of neighbours along each axis.
        max_sweeps: over the axes.
        rtol: ends where a sweep changes no factor by more, relatively.
    """
    counts = [jnp.count_nonzero(g).astype(g.dtype) for g in variances]

    def one(axis: int, current: list[jax.Array]) -> jax.Array:
        others = math.prod(counts[:axis] + counts[axis + 1 :])
        ratios = contract_grid(second_moment, [_inverse(g) for g in current], axis)
        return ratios / jnp.maximum(others, 1)

    return _alternate(one, variances, coupling, max_sweeps, rtol)


def convex_update(
    mean_sq: Float[Array, " ..."],
    leverage: Float[Array, " ..."],
    variances: Variances,
    coupling: Coupling,
    *,
    max_sweeps: int,
    rtol: float,
) -> Variances:
    r"""Alternating minimisation of $\sum_n z_n \gamma_n + |\mu_n|^2 / \gamma_n$.

    It bounds the negative log evidence, as $\log \det C$ is concave in the variances with the
    slopes $z = \mathrm{diag}(H^H C^{-1} H)$, and is convex in the $\log g_i$ as well.

    Args:
        mean_sq: mean over snapshots of squared posterior means, shape `(n_1, ..., n_I)`.
        leverage: $z$, of the same shape.
        variances: where to start; what is 0 stays so.
        coupling: of neighbours along each axis.
        max_sweeps: over the axes.
        rtol: ends where a sweep changes no factor by more, relatively.

    References:
        Wipf and Nagarajan (2008), "A new view of automatic relevance determination": the bound.
    """

    def one(axis: int, current: list[jax.Array]) -> jax.Array:
        above = contract_grid(mean_sq, [_inverse(g) for g in current], axis)
        below = contract_grid(leverage, current, axis)
        return jnp.where(below > 0, jnp.sqrt(above / jnp.where(below > 0, below, 1)), 0)

    return _alternate(one, variances, coupling, max_sweeps, rtol)


def svd_update(
    second_moment: Float[Array, " ..."], variances: Variances, coupling: Coupling
) -> Variances:
    """Rank-one approximation of the second moments by leading singular vectors, axis after axis.

    Args:
        second_moment: shape `(n_1, ..., n_I)`, not negative, so that neither are the vectors.
        variances: where power iterations start.
        coupling: of neighbours along each axis.
    """
    rest, found = second_moment, []
    for axis, variance in enumerate(variances[:-1]):
        matrix = rest.reshape(len(variance), -1)
        left = _leading(matrix, variance)
        rest = left @ matrix
        found.append(_coupled(left, variance > 0, coupling[axis]))
    found.append(_coupled(rest.reshape(-1), variances[-1] > 0, coupling[-1]))
    return normalised(tuple(found))


def pruned(variances: Variances, threshold: float) -> Variances:
    """With 0 in place of what is below a fraction of the largest variance along its axis."""
    return tuple(jnp.where(g >= threshold * jnp.max(g), g, 0) for g in variances)


def change(new: Variances, old: Variances) -> Float[Array, ""]:
    """How much factors, normalised, differ: the sum of their relative changes."""
    total = jnp.zeros((), new[0].dtype)
    for a, b in zip(new, old, strict=True):
        norm = jnp.linalg.norm(b)
        total += jnp.linalg.norm(a - b) / jnp.where(norm > 0, norm, 1)
    return total


def _alternate(
    one: Any, variances: Variances, coupling: Coupling, max_sweeps: int, rtol: float
) -> Variances:
    """Sweeps over the axes, each of whose factors `one` gives from all others."""
    masks = [g > 0 for g in variances]

    def sweep(current: Variances) -> Variances:
        new = list(current)
        for axis, mask in enumerate(masks):
            new[axis] = _coupled(one(axis, new), mask, coupling[axis])
        return normalised(tuple(new))

    def go_on(carry: tuple[Any, Any, Any]) -> jax.Array:
        return (carry[1] > rtol) & (carry[2] < max_sweeps)

    def again(carry: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
        new = sweep(carry[0])
        return new, change(new, carry[0]), carry[2] + 1

    first = sweep(variances)
    if max_sweeps == 1:
        return first
    begun = (first, jnp.asarray(jnp.inf, first[0].dtype), jnp.asarray(1))
    return jax.lax.while_loop(go_on, again, begun)[0]


def _inverse(variance: jax.Array) -> jax.Array:
    return jnp.where(variance > 0, 1 / jnp.where(variance > 0, variance, 1), 0)


def _leading(matrix: jax.Array, start: jax.Array) -> jax.Array:
    """The leading left singular vector of a matrix without negative elements."""
    scale = jnp.max(matrix)
    scaled = matrix / jnp.where(scale > 0, scale, 1)
    gram = scaled @ scaled.T

    def multiply(_: Any, vector: jax.Array) -> jax.Array:
        product = gram @ vector
        norm = jnp.linalg.norm(product)
        return product / jnp.where(norm > 0, norm, 1)

    return jax.lax.fori_loop(0, POWER_STEPS, multiply, start)


def _coupled(target: jax.Array, mask: jax.Array, strength: float | None) -> jax.Array:
    """The target where the mask holds; with coupling, the nearest that neighbours share in."""
    target = jnp.where(mask, target, 0)
    if strength is None:
        return target
    return jnp.where(mask, neighbours(nearest_shares(target, mask, strength), strength), 0)


def neighbours(shares: Float[Array, " n"], strength: float) -> Float[Array, " n"]:
    """Each element with a fraction of those on both sides."""
    wide = jnp.pad(shares, 1)
    return shares + strength * (wide[:-2] + wide[2:])


def nearest_shares(
    target: Float[Array, " n"], mask: Bool[Array, " n"], strength: float
) -> Float[Array, " n"]:
    r"""Non-negative least squares, $\min_{h \ge 0} \|C h - t\|$ with the coupling $C$.

    By projected gradients, accelerated, begun anew where momentum leads uphill.

    Args:
        target: $t$.
        mask: which elements there are; the others are 0.
        strength: of a neighbour.

    References:
        O'Donoghue and Candès (2015), "Adaptive restart for accelerated gradient schemes".
    """
    step = 1 / (1 + 2 * strength) ** 2

    def descend(_: Any, carry: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
        shares, ahead, momentum = carry
        residual = jnp.where(mask, neighbours(ahead, strength) - target, 0)
        slope = neighbours(residual, strength)
        new = jnp.where(mask, jnp.maximum(ahead - step * slope, 0), 0)
        uphill = jnp.sum((ahead - new) * (new - shares)) > 0
        momentum = jnp.where(uphill, 1.0, momentum).astype(target.dtype)
        grown = (1 + jnp.sqrt(1 + 4 * momentum**2)) / 2
        ahead = new + (momentum - 1) / grown * (new - shares)
        return new, ahead, grown

    start = jnp.maximum(target, 0) / (1 + 2 * strength)
    one = jnp.ones((), target.dtype)
    return jax.lax.fori_loop(0, DESCENT_STEPS, descend, (start, start, one))[0]


def prior_grid(variances: Variances) -> Float[Array, " ..."]:
    """Prior variances of all coefficients, shape `(n_1, ..., n_I)`."""
    return outer_grid(list(variances))
