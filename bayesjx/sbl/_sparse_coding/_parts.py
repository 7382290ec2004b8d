"""Parts that the models share: candidates and their pairs, codes of states, M-steps."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..._core import safe_cholesky, solve_triangular
from ._states import pairs

IN_TURN = 16  # rows that are found one after another
PRIOR_FLOOR = 1e-6  # least and, to 1, largest probability of a cause


def times(a: Any, b: jax.Array) -> jax.Array:
    """A product of matrices at full precision, also on accelerators."""
    return jnp.matmul(jnp.asarray(a, b.dtype), b, precision=jax.lax.Precision.HIGHEST)


def largest(scores: Float[Array, "h n"], number: int) -> Int[Array, "c n"]:
    """The rows with the largest scores for each datum, best first.

    One after another: `jax.lax.top_k` would collect data that are sharded over devices.
    """
    if number > IN_TURN:
        return jax.lax.top_k(scores.T, number)[1].T
    rows, found = jnp.arange(len(scores), dtype=jnp.int32), []
    for _ in range(number):
        is_top = scores == jnp.max(scores, axis=0)
        top = jnp.min(jnp.where(is_top, rows[:, None], len(scores) - 1), axis=0)
        scores = jnp.where(top == rows[:, None], -jnp.inf, scores)
        found.append(top)
    return jnp.stack(found)


def chosen(scores: Float[Array, "h n"], num_candidates: int) -> Int[Array, "c n"]:
    """Candidates of each datum: the causes with the largest scores, or all of them."""
    if num_candidates < len(scores):
        return largest(scores, num_candidates)
    everyone = jnp.arange(num_candidates, dtype=jnp.int32)[:, None]
    return jnp.broadcast_to(everyone, scores.shape)


def of_candidates(values: Float[Array, "h n"], candidates: Int[Array, "c n"]) -> Any:
    """The values of the candidates of each datum, shape `(c, n)`."""
    return jnp.take_along_axis(values, candidates, axis=0)


def pairs_of_candidates(
    matrix: Float[Array, "h h"], candidates: Int[Array, "c n"]
) -> Float[Array, "p n"]:
    """The elements of a matrix that belong to pairs of candidates, in the order of `pairs`."""
    first, second = pairs(len(candidates))
    return matrix.reshape(-1)[candidates[first] * len(matrix) + candidates[second]]


def over_causes(
    values: Float[Array, "c n"], candidates: Int[Array, "c n"], num_causes: int
) -> Float[Array, "h n"]:
    """Values of candidates put to where their causes are, 0 elsewhere."""
    causes = jnp.arange(num_causes, dtype=candidates.dtype)[:, None]
    total = jnp.zeros((num_causes, values.shape[1]), values.dtype)
    for value, cause in zip(values, candidates, strict=True):
        total = total + jnp.where(cause == causes, value, 0)
    return total


def sum_of_pairs(
    values: Float[Array, "p n"], candidates: Int[Array, "c n"], num_causes: int
) -> Float[Array, "h h"]:
    """Sum over data of symmetric matrices, given by their elements for pairs of candidates."""
    first, second = pairs(len(candidates))
    index = candidates[first] * num_causes + candidates[second]
    total = jnp.zeros(num_causes**2, values.dtype).at[index].add(values)
    total = total.reshape(num_causes, num_causes)
    return total + total.T - jnp.diag(jnp.diag(total))


def pair_features(states: np.ndarray) -> np.ndarray:
    """Products of the values of two candidates in each state, shape `(k, p)`."""
    first, second = pairs(states.shape[1])
    return states[:, first] * states[:, second]


def split_states(array: Float[Array, "k n"], num_causes: int, num_values: int) -> Any:
    """What belongs to causes alone, `(v, h, n)`, and to several active candidates, `(k, n)`."""
    alone = array[1 : 1 + num_values * num_causes]
    return alone.reshape(num_values, num_causes, -1), array[1 + num_values * num_causes :]


def decoded(
    index: Int[Array, "t n"],
    states: np.ndarray,
    values: tuple[float, ...],
    candidates: Int[Array, "c n"],
    num_causes: int,
    dtype: Any,
) -> Float[Array, "t n h"]:
    """Codes of states that are given by their numbers."""
    causes = jnp.arange(num_causes, dtype=jnp.int32)
    alone = index - 1
    value = jnp.asarray(values, dtype)[jnp.clip(alone // num_causes, 0, len(values) - 1)]
    is_alone = (alone >= 0) & (alone < num_causes * len(values))
    codes = jnp.where(
        is_alone[..., None] & (causes == (alone % num_causes)[..., None]), value[..., None], 0
    )
    if len(states):
        several = jnp.clip(alone - num_causes * len(values), 0, len(states) - 1)
        rows = jnp.asarray(states, dtype)[several]  # (t, n, c)
        rows = jnp.where((index >= 1 + num_causes * len(values))[..., None], rows, 0)
        for i, cause in enumerate(candidates):
            codes = codes + jnp.where(cause[:, None] == causes, rows[..., i, None], 0)
    return codes


def activity(
    prob: jax.Array, mean_active: jax.Array, num_causes: int, max_active: int
) -> jax.Array:
    """The probability that a cause is active, after an M-step.

    Data with more than `max_active` active causes are thought to have been cut; the mean number of
    active causes of the others is corrected for that.

    Args:
        prob: before the step.
        mean_active: posterior mean of the number of active causes of a datum.
        num_causes: of the model.
        max_active: of a state.

    References:
        Lücke and Eggert (2010), equations 17 to 19.
    """
    if max_active == num_causes:
        new = mean_active / num_causes
    else:
        kept, mean = kept_states(prob, num_causes, max_active)
        new = prob * mean_active * kept / mean
    return jnp.clip(new, PRIOR_FLOOR, 1 - PRIOR_FLOOR)


def kept_states(prob: jax.Array, num_causes: int, max_active: int) -> tuple[jax.Array, jax.Array]:
    """The probability of at most `max_active` active causes, and the mean of their number in it."""
    sizes = np.arange(max_active + 1)
    log_number = [_log_binomial(num_causes, size) for size in range(max_active + 1)]
    prob = jnp.clip(prob, PRIOR_FLOOR, 1 - PRIOR_FLOOR)
    log_prob = sizes * jnp.log(prob) + (num_causes - sizes) * jnp.log1p(-prob)
    terms = jnp.exp(jnp.asarray(log_number, prob.dtype) + log_prob)
    return jnp.sum(terms), jnp.sum(sizes * terms)


def dictionary(
    outer: Float[Array, "h h"], code: Float[Array, "h d"], weights: Float[Array, "h d"]
) -> Float[Array, "h d"]:
    r"""Least squares, $W = (\sum \langle s s^\top \rangle)^{-1} \sum \langle s \rangle y^\top$.

    A multiple of the unit matrix, of a few roundings, pulls them to the old ones, so that a cause
    that no datum has keeps its weights.
    """
    mean = jnp.trace(outer) / len(outer)
    pull = 4 * len(outer) * jnp.finfo(outer.dtype).eps * mean + jnp.finfo(outer.dtype).tiny
    tril = safe_cholesky(outer + pull * jnp.eye(len(outer), dtype=outer.dtype)).tril
    half = solve_triangular(tril, code + pull * weights, lower=True)
    return solve_triangular(tril, half, trans=1, lower=True)


def residual(
    square: jax.Array,
    outer: Float[Array, "h h"],
    code: Float[Array, "h d"],
    weights: Float[Array, "h d"],
) -> jax.Array:
    r"""$\sum \langle \| y - s W \|^2 \rangle$ from sufficient statistics."""
    gram = times(weights, weights.T)
    return square - 2 * jnp.sum(weights * code) + jnp.sum(gram * outer)


def floored_noise(noise_var: jax.Array, mean_square: jax.Array) -> jax.Array:
    """A variance of at least so much of the data that rounding does not matter."""
    least = jnp.sqrt(jnp.finfo(noise_var.dtype).eps) * mean_square
    return jnp.maximum(noise_var, least + jnp.finfo(noise_var.dtype).tiny)


def _log_binomial(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
