"""Recursive copula predictives of data in several orders: fits, bandwidths and predictions."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from numpyro.distributions import constraints

from .._core import (
    check_key,
    checked_finite,
    compiled,
    constrained_field,
    number_array,
    refuse_where,
    whole_number,
)
from ..gp import minimise, Minimum
from ._copula import log_kernels, log_odds, Points, pooled, scores, standard_normal, update
from ._predictive_rule import not_finite

CHECKPOINT = 2**20  # numbers of one order beyond which steps are computed again for derivatives
NEAR_ONE = 1e-4  # of bandwidths of densities with spikes at observations
SIDE_BY_SIDE = 2**24  # numbers of all orders up to which these run side by side


class CopulaBandwidths(eqx.Module):
    r"""Correlations of the copulas: near 1 an observation counts only for what is close to it.

    Attributes:
        outputs: of each coordinate of the observations, in (0, 1), shape `(d,)`.
        inputs: of each column of the inputs, in (0, 1), shape `(p,)`: near 0 the column does not
            matter; None where there are no inputs.
    """

    outputs: Float[Array, " d"] = constrained_field(constraints.unit_interval)
    inputs: Float[Array, " p"] | None = constrained_field(constraints.unit_interval)


class Orders(eqx.Module):
    """Data in `k` orders.

    Attributes:
        bandwidths: of the copulas.
        seen: normal scores of observations under the predictive before them, shape `(k, n, d)`.
        inputs: in these orders, shape `(k, n, p)`; None where there are none.
        log_prob: of each observation given those before it, of the first coordinates together,
            shape `(k, n, d)`.
    """

    bandwidths: CopulaBandwidths
    seen: Float[Array, "k n d"]
    inputs: Float[Array, "k n p"] | None
    log_prob: Float[Array, "k n d"]


def in_orders(
    bandwidths: CopulaBandwidths, z: Float[Array, "n d"], x: Any, orders: Int[Array, "k n"]
) -> Orders:
    """The recursion through standardised data, for each order.

    Args:
        bandwidths: of the copulas.
        z: observations.
        x: inputs, shape `(n, p)`, or None.
        orders: permutations of the rows.
    """
    n, d = z.shape
    if not n:
        none = jnp.zeros((orders.shape[0], 0, d), z.dtype)
        return Orders(bandwidths, none, None if x is None else x[orders], none)
    kernels = None if x is None else log_kernels(x, x, bandwidths.inputs)

    def one(order: Any) -> tuple[jax.Array, jax.Array]:
        between = None if kernels is None else kernels[order][:, order]

        def observed(points: Points, at: Any) -> tuple[Points, Any]:
            i, kernel = at
            a = scores(points)
            after = _moved(points, a, i, a[i], kernel, bandwidths.outputs)
            return after, (a[i], points.log_pdf[i])

        body = jax.checkpoint(observed) if n * n * d > CHECKPOINT else observed
        columns = None if between is None else between.T
        return jax.lax.scan(body, standard_normal(z[order]), (jnp.arange(n), columns))[1]

    seen, log_prob = over_orders(one, orders, n * n * d)
    return Orders(bandwidths, seen, None if x is None else x[orders], log_prob)


orders_of = compiled(in_orders)


def over_orders(one: Callable[[Any], Any], orders: Any, size: int) -> Any:
    """A function of an order for each of them, side by side where the memory for that is small.

    Args:
        one: the function.
        orders: permutations, shape `(k, n)`.
        size: numbers that derivatives keep of one order, about.
    """
    if orders.shape[0] * size <= SIDE_BY_SIDE:
        return jax.vmap(one)(orders)
    return jax.lax.map(jax.checkpoint(one), orders)


@compiled
def points_of(orders: Orders, z: Float[Array, "m d"], x: Any) -> Points:
    """The predictive after all data at standardised points, the mixture over orders.

    Args:
        orders: the data.
        z: observations.
        x: inputs, shape `(m, p)`, or None.
    """
    if not orders.log_prob.shape[1]:
        return standard_normal(z)

    def one(order: Any) -> Points:
        seen, inputs = order
        columns = None if x is None else log_kernels(x, inputs, orders.bandwidths.inputs).T

        def body(points: Points, at: Any) -> tuple[Points, None]:
            return _moved(points, scores(points), *at, orders.bandwidths.outputs), None

        at = jnp.arange(seen.shape[0]), seen, columns
        return jax.lax.scan(body, standard_normal(z), at)[0]

    return pooled(jax.lax.map(one, (orders.seen, orders.inputs)))


def _moved(points: Points, a: Any, i: Any, seen: Any, kernel: Any, rho: Any) -> Points:
    odds = log_odds(i + 1, points.log_pdf.dtype)
    return update(points, a, seen, odds, rho, 0.0 if kernel is None else kernel)


def fitted_bandwidths(
    owner: str,
    objective: Callable[..., jax.Array],
    start: CopulaBandwidths,
    given: Any,
    data: Any,
    max_steps: int,
    rtol: float,
) -> tuple[CopulaBandwidths, Minimum | None]:
    """Bandwidths that were given, or those that maximise the prequential log likelihood.

    Args:
        owner: for errors.
        objective: `objective(bandwidths, *data)`, to be minimised.
        start: where to start.
        given: a `CopulaBandwidths`, or None.
        data: further arguments of the objective.
        max_steps: of L-BFGS.
        rtol: of L-BFGS.
    """
    if given is None:
        found = minimise(objective, start, *data, max_steps=max_steps, rtol=rtol)
        return found.params, found
    if not isinstance(given, CopulaBandwidths):
        raise ValueError(
            f"{owner}: bandwidths must be amortized.CopulaBandwidths or None, got "
            f"{type(given).__name__}"
        )
    fields = []
    for name, value, like in (
        ("outputs", given.outputs, start.outputs), ("inputs", given.inputs, start.inputs)
    ):  # fmt: skip
        shapes = [None if array is None else jnp.shape(array) for array in (value, like)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"{owner}: bandwidths.{name} must have shape {shapes[1]}, got {shapes[0]}"
            )
        if value is not None:
            value = refuse_where(
                value, lambda r: ~((r > 0) & (r < 1)), f"{owner}: bandwidths must be in (0, 1)"
            )
            value = jnp.asarray(value, start.outputs.dtype)
        fields.append(value)
    return CopulaBandwidths(*fields), None


def warn_of_ties(owner: str, bandwidths: CopulaBandwidths, minimum: Minimum | None) -> None:
    """Warns where densities that were fitted grow without bound at observations."""
    if minimum is None or isinstance(bandwidths.outputs, jax.core.Tracer):
        return
    rest = 1 - float(jnp.max(bandwidths.outputs))
    if rest < NEAR_ONE:
        warnings.warn(
            f"{owner}: a bandwidth went to 1 ({rest:.1g} below it), as the "
            "likelihood has no maximum where observations are equal, or nearly so: the density is "
            "one of spikes. Give bandwidths=, or add noise of the size of the rounding",
            stacklevel=3,
        )


def checked_orders(owner: str, key: Any, num_permutations: Any, n: int) -> Int[Array, "k n"]:
    """Random orders of `n` rows."""
    check_key(key)
    return _permutations(key, whole_number(f"{owner}: num_permutations", num_permutations), n)


@compiled
def _permutations(key: Any, number: int, n: int) -> Int[Array, "k n"]:
    return jax.vmap(lambda k: jax.random.permutation(k, n))(jax.random.split(key, number))


def checked_matrix(owner: str, name: str, value: Any, width: int | None = None) -> jax.Array:
    """Rows of finite floating-point numbers, shape `(n, d)`; `(n,)` is one column.

    Raises:
        ValueError: another shape, or not finite.
    """
    array = number_array(f"{owner}: {name}", value)
    if np.ndim(array) == 1:
        array = array[:, None]
    if np.ndim(array) != 2 or 0 in np.shape(array)[1:] or width not in (None, np.shape(array)[1]):
        wanted = "d" if width is None else width
        raise ValueError(f"{owner}: {name} must have shape (n, {wanted}), got {np.shape(value)}")
    array = refuse_where(array, not_finite, f"{owner}: {name} holds NaN or infinite values")
    array = jnp.asarray(array)
    floats = jnp.issubdtype(array.dtype, jnp.floating)
    return array if floats else array.astype(jnp.result_type(float))


class Scaling(eqx.Module):
    """Mean and standard deviation of each column of the data.

    Attributes:
        loc: shape `(d,)`.
        scale: shape `(d,)`; 1 of constant columns.
    """

    loc: Float[Array, " d"]
    scale: Float[Array, " d"]

    @staticmethod
    def of(rows: Float[Array, "n d"]) -> Scaling:
        """That of data; the standard normal's where there are none."""
        if not rows.shape[0]:
            return Scaling(jnp.zeros_like(rows, shape=rows.shape[1:]),
                           jnp.ones_like(rows, shape=rows.shape[1:]))  # fmt: skip
        return _scaling(rows)

    def __call__(self, rows: Float[Array, "m d"]) -> Float[Array, "m d"]:
        """Rows in these units."""
        return (rows - self.loc) / self.scale


@compiled
def _scaling(rows: Float[Array, "n d"]) -> Scaling:
    loc, scale = jnp.mean(rows, axis=0), jnp.std(rows, axis=0)
    tiny = scale <= 10 * jnp.finfo(rows.dtype).eps * jnp.abs(loc)
    return Scaling(loc, jnp.where(tiny, 1, scale))


@compiled
def prequential(log_prob: Float[Array, "k n"], scale: Float[Array, " d"] | None) -> jax.Array:
    """Sum of log predictions of standardised observations, averaged over orders.

    Args:
        log_prob: of each, in each order.
        scale: units of the observations, None of classes.
    """
    units = 0 if scale is None else jnp.sum(jnp.log(scale))
    return jnp.mean(jnp.sum(log_prob, axis=1)) - log_prob.shape[1] * units


def varied(owner: str, name: str, rows: jax.Array) -> jax.Array:
    """Observations that are not all the same.

    Raises:
        ValueError: a column is constant.
    """
    if rows.shape[0] < 2 or isinstance(rows, jax.core.Tracer):
        return rows
    if bool(jnp.any(jnp.max(rows, axis=0) == jnp.min(rows, axis=0))):
        raise ValueError(
            f"{owner}: {name} has a constant column, of which there is no density; leave it out"
        )
    return checked_finite(f"{owner}: {name}", rows)
