"""Recursive copula predictives of data in several orders: fits, bandwidths and predictions."""

from __future__ import annotations

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
from ._chains import batch_of, horizon_of, run_chains, run_segments
from ._copula import log_kernels, log_odds, Points, pooled, standard_normal, Uniforms, update
from ._martingale_posterior import diagnosed, MartingalePosterior
from ._predictive_rule import not_finite

CHECKPOINT = 2**20  # numbers of one order beyond which steps are computed again for derivatives
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
        seen: what observations were under the predictive before them, arrays `(k, n, d)`.
        inputs: in these orders, shape `(k, n, p)`; None where there are none.
        log_prob: of each observation given those before it, of the first coordinates together,
            shape `(k, n, d)`.
    """

    bandwidths: CopulaBandwidths
    seen: Uniforms
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
        return Orders(bandwidths, Uniforms(none, none), None if x is None else x[orders], none)
    kernels = None if x is None else log_kernels(x, x, bandwidths.inputs)

    def one(order: Any) -> tuple[Uniforms, jax.Array]:
        between = None if kernels is None else kernels[order][:, order]
        step = _step(bandwidths.outputs)

        def observed(points: Points, at: Any) -> tuple[Points, Any]:
            i, kernel = at
            now = jax.tree.map(lambda v: v[i], points)
            seen = Uniforms(now.lower, now.upper)
            return step(points, (i, seen, kernel)), (seen, now.log_pdf)

        body = jax.checkpoint(observed) if n * n * d > CHECKPOINT else observed
        columns = None if between is None else between.T
        return jax.lax.scan(body, standard_normal(z[order]), (jnp.arange(n), columns))[1]

    seen, log_prob = over_orders(one, orders, n * n * d)
    return Orders(bandwidths, seen, None if x is None else x[orders], log_prob)


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
    step = _step(orders.bandwidths.outputs)

    def one(order: Any) -> Points:
        seen, inputs = order
        columns = None if x is None else log_kernels(x, inputs, orders.bandwidths.inputs).T
        n = seen.lower.shape[0]
        body = lambda points, at: (step(points, at), None)  # noqa: E731
        return jax.lax.scan(body, standard_normal(z), (jnp.arange(n), seen, columns))[0]

    return pooled(jax.lax.map(one, (orders.seen, orders.inputs)))


def _step(rho: Any) -> Callable[[Points, Any], Points]:
    def step(points: Points, at: Any) -> Points:
        i, seen, kernel = at
        odds = log_odds(i + 1, points.log_pdf.dtype)
        return update(points, seen, odds, rho, 0.0 if kernel is None else kernel)

    return step


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


def checked_orders(owner: str, key: Any, num_permutations: Any, n: int) -> Int[Array, "k n"]:
    """Random orders of `n` rows."""
    check_key(key)
    number = whole_number(f"{owner}: num_permutations", num_permutations)
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
        loc = jnp.mean(rows, axis=0)
        scale = jnp.std(rows, axis=0)
        tiny = scale <= 10 * jnp.finfo(rows.dtype).eps * jnp.abs(loc)
        return Scaling(loc, jnp.where(tiny, 1, scale))

    def __call__(self, rows: Float[Array, "m d"]) -> Float[Array, "m d"]:
        """Rows in these units."""
        return (rows - self.loc) / self.scale


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


def resampled(
    owner: str,
    key: jax.Array,
    source: str,
    num_data: int,
    start: Any,
    step: Callable[[jax.Array, Any, Any], Any],
    observe: Callable[[Any], dict[str, jax.Array]],
    options: dict[str, Any],
) -> MartingalePosterior:
    """Draws of what is observed of a carry after steps forward, with diagnostics.

    Args:
        owner: for errors.
        key: PRNG key.
        source: name of the predictive.
        num_data: rows of data.
        start: the carry, pytree of arrays.
        step: `step(key, i, carry)`, `i` the number of the observation from 1 on.
        observe: from a carry to arrays by name, the densities under `"density"`.
        options: `num_forward`, `num_samples`, `num_records`, `batch_size`.
    """
    check_key(key)
    horizon = horizon_of(owner, num_data, options["num_forward"], options["num_records"])
    num_samples = whole_number(f"{owner}: num_samples", options["num_samples"])
    room = 16 * sum(x.size for x in jax.tree.leaves(start))
    batch_size = batch_of(owner, options["batch_size"], num_samples, room)

    def one(key: jax.Array, start: Any) -> Any:
        return run_segments(
            horizon,
            start,
            lambda t, carry: step(jax.random.fold_in(key, t), num_data + t + 1, carry),
            observe,
        )[1]

    paths = run_chains(one, jax.random.split(key, num_samples), start, batch_size)
    initial = observe(start)
    name = "density" if "density" in paths else "probability"
    flat = paths[name].reshape(*paths[name].shape[:2], -1)
    found = diagnosed(paths, initial, horizon.num_rows, None, flat, jnp.ravel(initial[name]))
    samples = jax.tree.map(lambda path: path[:, -1], paths)
    return MartingalePosterior(samples, found, initial, source, num_data, horizon.num_forward)
