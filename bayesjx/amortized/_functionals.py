"""Functionals of weighted data: means, quantiles, least squares and minimisers of losses."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from .._core import checked_finite, number_array, whole_number


def weighted_mean(data: Any, weights: Any = None) -> Any:
    """Mean over rows, of each array of a pytree.

    Args:
        data: arrays `(n, ...)`.
        weights: shape `(n,)`, with the sum 1; equal by default.
    """
    if weights is None:
        return jax.tree.map(lambda v: jnp.mean(v, axis=0), data)
    return jax.tree.map(lambda v: jnp.tensordot(weights.astype(_dtype(v)), v, axes=1), data)


class WeightedQuantile(eqx.Module):
    """Quantiles of weighted numbers; see `weighted_quantile`.

    Attributes:
        probs: scalar or shape `(k,)`.
    """

    probs: Float[Array, ...]

    def __call__(self, data: Any, weights: Any = None) -> Float[Array, ...]:
        """The quantiles, of the shape of `probs`.

        Args:
            data: numbers, shape `(n,)`.
            weights: shape `(n,)`, with the sum 1; equal by default.
        """
        y = jnp.asarray(data)
        if y.ndim != 1:
            raise ValueError(f"weighted_quantile: data must have shape (n,), got {y.shape}")
        if weights is None:
            weights = jnp.full(y.shape, 1 / y.shape[0], _dtype(y))
        order = jnp.argsort(y)
        total = jnp.cumsum(weights[order])
        # Of the last sum, so that rounding does not leave quantiles near 1 without a row.
        place = jnp.searchsorted(total, self.probs.astype(total.dtype) * total[-1])
        return y[order][jnp.minimum(place, y.shape[0] - 1)]


def weighted_quantile(probs: Any) -> WeightedQuantile:
    """The functional of quantiles: the smallest row with at least that much weight up to it.

    Args:
        probs: in (0, 1), scalar or shape `(k,)`.

    Returns:
        `functional(data, weights=None)`, for data of shape `(n,)`.

    Raises:
        ValueError: probabilities out of range.
    """
    array = number_array("weighted_quantile: probs", probs)
    if array.ndim > 1 or not bool(((array > 0) & (array < 1)).all()):
        raise ValueError(
            f"weighted_quantile: probs must be in (0, 1), scalar or shape (k,), got {probs!r:.60}"
        )
    return WeightedQuantile(jnp.asarray(array))


def least_squares(data: Any, weights: Any = None) -> Float[Array, " d1"]:
    """Coefficients of the linear regression of `y` on `x`, the intercept first, shape `(d + 1,)`.

    Args:
        data: the pair `(x, y)` of shapes `(n, d)` or `(n,)`, and `(n,)`.
        weights: shape `(n,)`; equal by default.
    """
    x, y = data
    y = y.astype(_dtype(y))
    rows = x.reshape(y.shape[0], -1).astype(y.dtype)
    design = jnp.concatenate([jnp.ones((y.shape[0], 1), y.dtype), rows], axis=1)
    if weights is None:
        weights = jnp.full(y.shape, 1 / y.shape[0], y.dtype)
    centre = (weights @ design).at[0].set(0)
    design = design - centre
    scale = jnp.sqrt(weights @ design**2)  # with columns of one scale, correlations are solved for
    scale = jnp.where(scale > 0, scale, 1)
    design = design / scale
    # Collinear columns, as few rows with weight may have, share their slope.
    ridge = 10 * jnp.finfo(y.dtype).eps * jnp.eye(design.shape[1], dtype=y.dtype)
    gram = design.T @ (weights[:, None] * design) + ridge
    slopes = jnp.linalg.solve(gram, design.T @ (weights * y)) / scale
    return slopes.at[0].add(-centre @ slopes)


class MEstimator(eqx.Module):
    """The minimiser of a weighted loss; see `m_estimator`.

    Attributes:
        loss: `loss(params, row)`.
        start: where Newton's method begins.
        max_steps: of Newton's method.
        rtol: of the gradient.
    """

    loss: Callable[..., Any] = eqx.field(static=True)
    start: Any
    max_steps: int = eqx.field(static=True)
    rtol: float = eqx.field(static=True)

    def __call__(self, data: Any, weights: Any = None) -> Any:
        """The minimiser, of the structure of `start`; NaN where it was not found.

        Args:
            data: rows, a pytree of arrays.
            weights: shape `(n,)`, with the sum 1; equal by default.
        """
        first = jax.tree.leaves(data)[0]
        flat, unravel = ravel_pytree(self.start)
        if weights is None:
            weights = jnp.full(first.shape[0], 1 / first.shape[0], flat.dtype)
        dtype = jnp.result_type(weights)
        flat = flat.astype(dtype)

        def value(params: jax.Array, data: Any, weights: Any) -> jax.Array:
            losses = jax.vmap(lambda row: self.loss(unravel(params), row))(data)
            # A row of weight 0 has no share, whatever its loss.
            return jnp.sum(jnp.where(weights > 0, weights * losses, 0)).astype(dtype)

        fixed = jax.lax.stop_gradient((data, weights))
        found = _newton(lambda p: value(p, *fixed), flat, self.max_steps, self.rtol)
        # One more step, through which derivatives in data and weights go (implicit function).
        params = jax.lax.stop_gradient(found.params)
        hessian = jax.hessian(lambda p: value(p, *fixed))(params)
        gradient = jax.grad(value)(params, data, weights)
        move = jnp.linalg.solve(hessian, gradient)
        # Where there is no minimum the gradient falls to 0 at infinity, but steps stay long.
        size = jnp.max(jnp.abs(params))
        ended = found.converged & (jnp.max(jnp.abs(move)) <= 1e-3 * (1 + size))
        return unravel(jnp.where(ended, params - move, jnp.nan).astype(flat.dtype))


def m_estimator(
    loss: Callable[..., Any], start: Any, *, max_steps: int = 100, rtol: float | None = None
) -> MEstimator:
    r"""The functional $\arg\min_\theta \sum_i w_i\, l(\theta, y_i)$ of weighted data.

    By Newton's method with damping (Levenberg), which needs few parameters and a loss that is twice
    differentiable, with a strict minimum. Derivatives in the data and weights are those of the
    implicit function.

    Args:
        loss: `loss(params, row)`, scalar, of one row of the data: for logistic regression
            `lambda w, row: jnp.logaddexp(0, row[0] @ w) - row[1] * (row[0] @ w)`.
        start: parameters to start from, pytree of floating-point arrays.
        max_steps: of Newton's method.
        rtol: it has converged where the largest element of the gradient is below this times
            1 + the absolute loss; by default the square root of the machine epsilon.

    Returns:
        `functional(data, weights=None)`; NaN where it has not converged, as for separable classes.

    Raises:
        ValueError: `loss` is no function, `start` holds no numbers, options out of range.

    References:
        Lyddon, Holmes and Walker (2019), "General Bayesian updating and the loss-likelihood
        bootstrap", Biometrika 106.
    """
    if not callable(loss) or len(_parameters(loss)) < 2:
        raise ValueError(
            f"m_estimator: loss must be a function of parameters and a row, got {loss!r:.80}"
        )
    leaves = jax.tree.leaves(start)
    if not leaves:
        raise ValueError("m_estimator: start must hold an array of parameters, got none")
    for leaf in leaves:
        array = number_array("m_estimator: start", leaf)
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise ValueError(f"m_estimator: start must be floating-point, got {array.dtype}")
        checked_finite("m_estimator: start", array)
    max_steps = whole_number("m_estimator: max_steps", max_steps)
    dtype = jnp.result_type(*(jnp.asarray(leaf) for leaf in leaves))
    rtol = float(jnp.finfo(dtype).eps) ** 0.5 if rtol is None else rtol
    if not isinstance(rtol, float | int) or not 0 < rtol < 1:
        raise ValueError(f"m_estimator: rtol must be in (0, 1), got {rtol!r}")
    return MEstimator(loss, jax.tree.map(jnp.asarray, start), max_steps, float(rtol))


class _Newton(NamedTuple):
    params: jax.Array
    value: jax.Array
    gradient: jax.Array
    damping: jax.Array
    num_steps: jax.Array
    converged: jax.Array


def _newton(value: Callable[..., Any], start: jax.Array, max_steps: int, rtol: float) -> _Newton:
    """Newton's method; steps that raise the value are refused and damped more."""
    identity = jnp.eye(start.size, dtype=start.dtype)
    of = jax.value_and_grad(value)

    def small(value: jax.Array, gradient: jax.Array) -> jax.Array:
        return jnp.max(jnp.abs(gradient)) <= rtol * (1 + jnp.abs(value))

    def step(state: _Newton) -> _Newton:
        hessian = jax.hessian(value)(state.params)
        size = jnp.maximum(jnp.max(jnp.abs(jnp.diag(hessian))), jnp.finfo(start.dtype).tiny)
        damped = hessian + state.damping * size * identity
        move = -jnp.linalg.solve(damped, state.gradient)
        new = state.params + move
        value_new, gradient = of(new)
        room = 10 * jnp.finfo(start.dtype).eps * (1 + jnp.abs(state.value))  # of rounding
        good = (value_new <= state.value + room) & (move @ state.gradient <= 0)
        good = good & jnp.all(jnp.isfinite(new)) & jnp.all(jnp.isfinite(gradient))
        kept = lambda a, b: jnp.where(good, a, b)  # noqa: E731
        less = jnp.where(state.damping > 1e-6, state.damping / 10, 0)
        damping = kept(less, jnp.maximum(10 * state.damping, 1e-4))
        value_new, gradient = kept(value_new, state.value), kept(gradient, state.gradient)
        # One step more from where the gradient is small, after which those of a minimum are tiny.
        converged = small(state.value, state.gradient) & small(value_new, gradient)
        number = state.num_steps + 1
        return _Newton(kept(new, state.params), value_new, gradient, damping, number, converged)

    first, gradient = of(start)
    zero = jnp.zeros((), start.dtype)
    begin = _Newton(start, first, gradient, zero, jnp.asarray(0), jnp.asarray(False))
    go_on = lambda s: ~s.converged & (s.num_steps < max_steps)  # noqa: E731
    return jax.lax.while_loop(go_on, step, begin)


def _parameters(function: Any) -> Any:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return (0, 0)


def _dtype(array: Any) -> Any:
    floats = jnp.issubdtype(array.dtype, jnp.floating)
    return array.dtype if floats else jnp.result_type(float)
