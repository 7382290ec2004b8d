"""Checks of predictive rules: whether they are martingales, and depend on the order of data."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._core import check_key, compiled, whole_number
from ._predictive_rule import (
    AbstractPredictiveRule,
    checked_pairs,
    checked_rows,
    checked_rule,
    num_rows,
)


class CIDDefect(eqx.Module):
    r"""By how much a rule fails to be a martingale after one more observation, at `m` points.

    Attributes:
        defect: mean over draws of the next prediction less the present one, shape `(m,)`: of
            distribution functions where the rule has them, else of densities.
        standard_error: of the defect, shape `(m,)`.
        relative: the defect in standard deviations of the next prediction, shape `(m,)`.
    """

    defect: Float[Array, " m"]
    standard_error: Float[Array, " m"]
    relative: Float[Array, " m"]

    @property
    def z(self) -> Float[Array, " m"]:
        """The defect in standard errors; 0 where it is exactly 0."""
        return in_errors(self.defect, self.standard_error)


def cid_defect(
    key: jax.Array, rule: AbstractPredictiveRule, data: Any, points: Any, *, num_draws: int = 256
) -> CIDDefect:
    r"""Whether the next observation leaves the predictive as it is, on average.

    $E[P_{n+1}(A)] - P_n(A)$ for the events $A = (-\infty, y]$, or of the densities at `y` where the
    rule has no distribution function, by drawing $y_{n+1} \sim P_n$. It is 0 for conditionally
    identically distributed sequences, of which Bayesian models are some.

    Args:
        key: PRNG key.
        rule: a predictive rule.
        data: observations, one a row; pairs `(x, y)` of rules with inputs.
        points: where predictions are compared, rows like those of `data`, `m` of them.
        num_draws: of the next observation; its inputs are those of a random row of the data.

    Raises:
        ValueError: arguments of wrong kinds or shapes; no rows to draw inputs from.

    References:
        Berti, Pratelli and Rigo (2004), "Limit theorems for a class of identically distributed
        random variables", Annals of Probability 32. Fong, Holmes and Walker (2023), "Martingale
        posterior distributions", JRSS-B 85: section 3.
    """
    check_key(key)
    rule = checked_rule("cid_defect", rule)
    num_draws = whole_number("cid_defect: num_draws", num_draws, 2)
    data, points = checked_data_and_points("cid_defect", rule, data, points)
    if rule.has_inputs and not num_rows(data):
        raise ValueError("cid_defect: data is empty, so that there are no inputs to draw from")
    return _defect(key, rule, rule.init(data, 1), data, points, num_draws)


def order_sensitivity(
    key: jax.Array,
    rule: AbstractPredictiveRule,
    data: Any,
    points: Any,
    *,
    num_permutations: int = 10,
) -> Float[Array, " m"]:
    """Standard deviation of log predictions over random orders of the data, shape `(m,)`.

    0 for rules that see data as a set. Of logarithms of densities where the rule has them, else of
    distribution functions. What it finds should be small beside the differences that matter;
    averages over `k` orders have it divided by the square root of `k`.

    Args:
        key: PRNG key.
        rule: a predictive rule.
        data: observations, one a row; pairs `(x, y)` of rules with inputs.
        points: where to predict, rows like those of `data`, `m` of them.
        num_permutations: orders that are tried.

    Raises:
        ValueError: arguments of wrong kinds or shapes.
    """
    check_key(key)
    rule = checked_rule("order_sensitivity", rule)
    number = whole_number("order_sensitivity: num_permutations", num_permutations, 2)
    data, points = checked_data_and_points("order_sensitivity", rule, data, points)
    values = []
    for one in jax.random.split(key, number):
        order = jax.random.permutation(one, num_rows(data))
        values.append(log_predictions(rule, rule.init(taken(data, order)), points))
    each = jnp.stack(values)
    # Relative to the first, as logarithms of 0 are the same in all orders.
    return jnp.std(jnp.where(each == each[0], 0, each - each[0]), axis=0, ddof=1)


def prequential_log_prob(rule: AbstractPredictiveRule, data: Any) -> Float[Array, " n"]:
    r"""Log density of each observation given those before it, shape `(n,)`.

    Their sum is the log evidence of a Bayesian model, and a fair score of any rule.

    Args:
        rule: a predictive rule that can start without data.
        data: observations in order, one a row; pairs `(x, y)` of rules with inputs.

    Raises:
        ValueError: arguments of wrong kinds or shapes, a rule without density.

    References:
        Dawid (1984), "Statistical theory: the prequential approach", JRSS A 147.
    """
    rule = checked_rule("prequential_log_prob", rule)
    data = rows_of("prequential_log_prob", rule, data)
    none = jax.tree.map(lambda v: v[:0], data)
    return _prequential(rule, rule.init(none, num_rows(data)), data)


def checked_data_and_points(
    owner: str, rule: AbstractPredictiveRule, data: Any, points: Any
) -> tuple[Any, Any]:
    """Data and points as rows of the same kind.

    Raises:
        ValueError: they are not.
    """
    if not rule.has_density and not rule.has_cdf:
        raise ValueError(
            f"{owner}: points must be None, as this {type(rule).__name__} has neither a density "
            "nor a distribution function to compare there"
        )
    data = rows_of(owner, rule, data)
    points = checked_rows(f"{owner}: points", tuple(points) if rule.has_inputs else points)
    kinds = [jax.tree.map(lambda v: v.shape[1:], tree) for tree in (data, points)]
    same = jax.tree.structure(data) == jax.tree.structure(points) and kinds[0] == kinds[1]
    if not same or not num_rows(points):
        shapes = [jax.tree.map(jnp.shape, tree) for tree in (points, data)]
        raise ValueError(
            f"{owner}: points must be at least one row like those of data, got shapes {shapes[0]} "
            f"for data of {shapes[1]}"
        )
    return data, points


def rows_of(owner: str, rule: AbstractPredictiveRule, data: Any) -> Any:
    """Data of a rule as arrays."""
    return checked_pairs(owner, data) if rule.has_inputs else checked_rows(owner, data)


def taken(data: Any, order: Any) -> Any:
    """Rows of a pytree of arrays."""
    return jax.tree.map(lambda v: v[order], data)


def split_row(rule: AbstractPredictiveRule, row: Any) -> tuple[Any, Any]:
    """Observation and inputs of one row."""
    return (row[1], row[0]) if rule.has_inputs else (row, None)


def predictions(rule: AbstractPredictiveRule, state: Any, points: Any) -> Float[Array, " m"]:
    """Densities of a rule at points, or its distribution function where it has none."""
    values = log_predictions(rule, state, points)
    return jnp.exp(values) if rule.has_density else values


def rounding(size: jax.Array) -> jax.Array:
    """Changes of numbers of a size that are no more than rounding."""
    return 10 * jnp.finfo(size.dtype).eps * jnp.abs(size)


def above(low: jax.Array, change: jax.Array) -> jax.Array:
    """A change, or 0 where it is rounding."""
    return jnp.where(jnp.abs(change) <= low, 0, change)


@compiled
def in_errors(value: Any, error: Any) -> jax.Array:
    """A deviation from 0 in its standard errors; 0 where it is exactly 0."""
    return jnp.where(value == 0, 0.0, value / jnp.where(error > 0, error, jnp.nan))


@compiled
def log_predictions(rule: AbstractPredictiveRule, state: Any, points: Any) -> Float[Array, " m"]:
    """Log densities at points, or distribution functions where the rule has no densities."""

    def one(row: Any) -> jax.Array:
        y, x = split_row(rule, row)
        return rule.log_prob(state, y, x) if rule.has_density else rule.cdf(state, y, x)

    return jax.lax.map(one, points)


@compiled
def _defect(
    key: jax.Array, rule: Any, state: Any, data: Any, points: Any, num_draws: int
) -> CIDDefect:
    def values(state: Any) -> jax.Array:
        def one(row: Any) -> jax.Array:
            y, x = split_row(rule, row)
            if rule.has_cdf and isinstance(y, jax.Array) and not y.ndim:
                return rule.cdf(state, y, x)
            return jnp.exp(rule.log_prob(state, y, x))

        return jax.lax.map(one, points)

    def after(key: jax.Array) -> jax.Array:
        key_x, key_y = jax.random.split(key)
        x = None
        if rule.has_inputs:
            x = data[0][jax.random.randint(key_x, (), 0, num_rows(data))]
        return values(rule.step(key_y, state, x)[1])

    # Relative to the present: what is left of the difference is not rounding of large numbers.
    now = values(state)
    off = jax.lax.map(after, jax.random.split(key, num_draws), batch_size=64) - now
    low = rounding(now)
    defect, scale = above(low, jnp.mean(off, axis=0)), above(low, jnp.std(off, axis=0, ddof=1))
    relative = defect / jnp.where(scale > 0, scale, 1)
    return CIDDefect(defect, scale / np.sqrt(num_draws), relative)


@compiled
def _prequential(rule: Any, state: Any, data: Any) -> Float[Array, " n"]:
    def step(state: Any, row: Any) -> tuple[Any, jax.Array]:
        y, x = split_row(rule, row)
        return rule.absorb(state, y, x), rule.log_prob(state, y, x)

    return jax.lax.scan(step, state, data)[1]
