"""Functionals of weighted data: means, quantiles, least squares and minimisers of losses."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.scipy.linalg import cho_solve
from jaxtyping import Array, Float

from .._core import checked_finite, number_array, whole_number


def weighted_mean(data: Any, weights: Any = None) -> Any:
    """Mean over rows, of each array of a pytree.

    Args:
        data: arrays `(n, ...)`.
        weights: shape `(n,)`, with the sum 1; equal by default.
    """
    data = jax.tree.map(jnp.asarray, data)
    if weights is None:
        return jax.tree.map(lambda v: jnp.mean(v, axis=0, dtype=_dtype(v)), data)
    weights = jnp.asarray(weights)
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
        total = jnp.cumsum(jnp.asarray(weights)[order])
        # Of the last sum, so that rounding does not leave quantiles near 1 without a row; and less
        # by rounding, so that of equal weights a row has the share that it has.
        share = self.probs.astype(total.dtype) * (1 - 10 * jnp.finfo(total.dtype).eps)
        place = jnp.searchsorted(total, share * total[-1])
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

    Collinear columns share their slope, and constant ones have the slope 0.

    Args:
        data: the pair `(x, y)` of shapes `(n, d)` or `(n,)`, and `(n,)`.
        weights: shape `(n,)`, with the sum 1; equal by default.

    Raises:
        ValueError: other shapes.
    """
    x, y = (jnp.asarray(v) for v in data)
    if y.ndim != 1 or x.ndim not in (1, 2) or len(x) != len(y):
        raise ValueError(
            "least_squares: data must be x of shape (n, d) or (n,) and y of shape (n,), got "
            f"{x.shape} and {y.shape}"
        )
    y = y.astype(_dtype(y))
    rows = x.reshape(y.shape[0], -1).astype(y.dtype)
    design = jnp.concatenate([jnp.ones((y.shape[0], 1), y.dtype), rows], axis=1)
    if weights is None:
        weights = jnp.full(y.shape, 1 / y.shape[0], y.dtype)
    weights = jnp.asarray(weights).astype(y.dtype)
    centre, level = (weights @ design).at[0].set(0), weights @ y
    size = 10 * jnp.finfo(y.dtype).eps * jnp.abs(centre)
    design = design - centre
    scale = jnp.sqrt(weights @ design**2)  # with columns of one scale, correlations are solved for
    varies = scale > size  # more than by rounding
    design = jnp.where(varies, design / jnp.where(varies, scale, 1), 0)
    scale = jnp.where(varies, scale, 1)
    # Collinear columns, as few rows with weight may have, share their slope.
    ridge = 10 * jnp.finfo(y.dtype).eps * jnp.eye(design.shape[1], dtype=y.dtype)
    gram = design.T @ (weights[:, None] * design) + ridge
    slopes = jnp.linalg.solve(gram, design.T @ (weights * (y - level))) / scale
    return slopes.at[0].add(level - centre @ slopes)


class MEstimator(eqx.Module):
    """The minimiser of a weighted loss; see `m_estimator`.

    Attributes:
        loss: `loss(params, row)`.
        start: where Newton's method begins.
        max_steps: of Newton's method.
        rtol: of steps.
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

        def of_row(params: jax.Array, row: Any) -> jax.Array:
            return jnp.asarray(self.loss(unravel(params), row)).astype(dtype)

        _check_loss(of_row, flat, data)

        def value(params: jax.Array, data: Any, weights: Any) -> jax.Array:
            losses = jax.vmap(of_row, (None, 0))(params, data)
            # A row of weight 0 has no share, whatever its loss.
            return jnp.sum(jnp.where(weights > 0, weights * losses, 0))

        def at(params: jax.Array) -> _Loss:
            losses, slopes = jax.vmap(jax.value_and_grad(of_row), (None, 0))(params, fixed[0])
            counts = fixed[1] > 0
            slopes = jnp.where(counts[:, None], slopes, 0)
            weighted = fixed[1][:, None] * slopes
            total = jnp.sum(jnp.where(counts, fixed[1] * losses, 0))
            return _Loss(total, jnp.sum(weighted, axis=0), slopes.T @ weighted)

        fixed = jax.lax.stop_gradient((data, weights))
        found = _newton(lambda p: value(p, *fixed), at, flat, self.max_steps, self.rtol)
        # One more step, through which derivatives in data and weights go (implicit function).
        params = jax.lax.stop_gradient(found.params)
        hessian = jax.hessian(lambda p: value(p, *fixed))(params)
        gradient = jax.grad(value)(params, data, weights)
        move = jnp.linalg.solve(hessian, gradient)
        return unravel(jnp.where(found.converged, params - move, jnp.nan).astype(flat.dtype))


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
        rtol: it has converged where a Newton step changes no parameter by more than this times its
            size and its standard error for a single row, so that units do not matter; by default
            the square root of the machine epsilon.

    Returns:
        `functional(data, weights=None)`; NaN where it has not converged, as for separable classes,
        and where minima are not strict, as with collinear inputs.

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
        checked_finite("m_estimator: start", jnp.asarray(array))
    max_steps = whole_number("m_estimator: max_steps", max_steps)
    dtype = jnp.result_type(*(jnp.asarray(leaf) for leaf in leaves))
    rtol = float(jnp.finfo(dtype).eps) ** 0.5 if rtol is None else rtol
    if not isinstance(rtol, float | int) or not 0 < rtol < 1:
        raise ValueError(f"m_estimator: rtol must be in (0, 1), got {rtol!r}")
    return MEstimator(loss, jax.tree.map(jnp.asarray, start), max_steps, float(rtol))


class _Loss(NamedTuple):
    """A weighted loss at parameters.

    Attributes:
        value: scalar.
        gradient: shape `(d,)`.
        moments: second moments of the gradients of rows, shape `(d, d)`.
    """

    value: jax.Array
    gradient: jax.Array
    moments: jax.Array


class _Newton(NamedTuple):
    params: jax.Array
    at: _Loss
    damping: jax.Array
    num_steps: jax.Array
    converged: jax.Array


def _newton(
    value: Callable[..., Any],
    of: Callable[[jax.Array], _Loss],
    start: jax.Array,
    max_steps: int,
    rtol: float,
) -> _Newton:
    """Newton's method; steps that raise the value are refused and damped more.

    Nothing here depends on the units of the loss or of parameters.
    """
    hessian_at = jax.hessian(value)

    def step(state: _Newton) -> _Newton:
        hessian, at = hessian_at(state.params), state.at
        curvature = jnp.abs(jnp.diag(hessian))
        unit = 1 / jnp.sqrt(jnp.where(curvature > 0, curvature, 1))
        scaled = hessian * unit * unit[:, None]  # with a diagonal of 1, or -1 or 0
        converged = _is_minimum(scaled, unit, state.params, at, rtol)
        damped = scaled + state.damping * jnp.eye(unit.size, dtype=unit.dtype)
        move = -unit * jnp.linalg.solve(damped, unit * at.gradient)
        new = state.params + move
        found = of(new)
        room = 10 * jnp.finfo(unit.dtype).eps * jnp.abs(at.value)  # of rounding
        good = (found.value <= at.value + room) & (move @ at.gradient <= 0)
        good = good & jnp.all(jnp.isfinite(new)) & jnp.all(jnp.isfinite(found.gradient))
        kept = lambda a, b: jnp.where(good & ~converged, a, b)  # noqa: E731
        less = jnp.where(state.damping > 1e-6, state.damping / 10, 0)
        damping = kept(less, jnp.maximum(10 * state.damping, 1e-4))
        params, at = kept(new, state.params), jax.tree.map(kept, found, at)
        return _Newton(params, at, damping, state.num_steps + 1, converged)

    zero = jnp.zeros((), start.dtype)
    begin = _Newton(start, of(start), zero, jnp.asarray(0), jnp.asarray(False))
    go_on = lambda s: ~s.converged & (s.num_steps < max_steps)  # noqa: E731
    return jax.lax.while_loop(go_on, step, begin)


def _is_minimum(
    scaled: jax.Array, unit: jax.Array, params: jax.Array, at: _Loss, rtol: float
) -> jax.Array:
    """Whether the Hessian is positive definite and a Newton step next to nothing.

    Of parameters and of how they vary with the rows, `sqrt(diag(H^-1 J H^-1))` with `J` the second
    moments of gradients; or of rounding, where rows are fitted exactly and parameters are 0.
    """
    eps = jnp.finfo(unit.dtype).eps
    tril = jnp.linalg.cholesky(scaled)  # NaN where it is not positive definite
    definite = jnp.all(jnp.diag(tril) ** 2 > 10 * unit.size * eps)
    inverse = cho_solve((tril, True), jnp.diag(unit)) * unit[:, None]
    deviation = jnp.sqrt(jnp.maximum(jnp.diag(inverse @ at.moments @ inverse.T), 0))
    rounding = 1e3 * eps * unit * jnp.max(jnp.abs(params) / unit)
    small = jnp.abs(inverse @ at.gradient) <= rtol * (jnp.abs(params) + deviation) + rounding
    return definite & jnp.all(small)


def _check_loss(of_row: Callable[..., Any], params: jax.Array, data: Any) -> None:
    row = jax.tree.map(lambda v: jax.ShapeDtypeStruct(v.shape[1:], v.dtype), data)
    shape = jax.eval_shape(of_row, params, row).shape
    if shape:
        raise ValueError(f"m_estimator: loss must return one number for a row, got shape {shape}")


def _parameters(function: Any) -> Any:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return (0, 0)


def _dtype(array: Any) -> Any:
    floats = jnp.issubdtype(array.dtype, jnp.floating)
    return array.dtype if floats else jnp.result_type(float)
