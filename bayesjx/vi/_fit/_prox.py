"""The proximal step of the Gaussian entropy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int


class ProxScaleState(NamedTuple):
    """State of `prox_scale`: the number of steps so far."""

    count: Int[Array, ""]


def prox_scale(
    learning_rate: float | jax.Array | Callable[[jax.Array], Any],
    is_scale: Callable[[str], bool] | None = None,
) -> optax.GradientTransformation:
    r"""Proximal step $s \leftarrow \frac12(\tilde s + \sqrt{\tilde s^2 + 4\gamma})$ for scales.

    The minimiser of $-\log s + (s - \tilde s)^2 / 2\gamma$, where $\tilde s$ is the scale after
    the gradient step: it handles the entropy of a Gaussian exactly, keeps scales positive, and
    gives stochastic gradients the convergence rate that nonlinear conditioners lose. Put it last:

    ```python
    guide = vi.GaussianGuide(model, conditioner="linear")
    loss = vi.SVILoss(lambda model, guide: vi.elbo(model, guide, entropy="proximal"))
    optimizer = optax.chain(optax.sgd(rate), vi.prox_scale(rate))
    ```

    Args:
        learning_rate: $\gamma > 0$, or a schedule; that of the gradient step, which has to be
            plain gradient descent (momentum is fine, Adam's scaling is not).
        is_scale: which leaves are scales, from their path, e.g. `"auto_scale"`; by default those
            whose last name is or ends in `scale`.

    Raises:
        ValueError: `learning_rate` is not positive, or no leaf is a scale.

    References:
        Domke (2020), "Provable smoothness guarantees for black-box variational inference"; Kim,
        Oh, Wu, Ma and Gardner (2023), "On the convergence of black-box variational inference".
    """
    number = isinstance(learning_rate, (int, float))
    if isinstance(learning_rate, str) or (number and not 0 < learning_rate < math.inf):
        raise ValueError(f"learning_rate must be positive, or a schedule, got {learning_rate!r}")
    if is_scale is not None and not callable(is_scale):
        raise TypeError(f"is_scale must be a function of a leaf's path, got {is_scale!r}")
    chosen = is_scale or (lambda name: name.endswith("scale"))

    def init(params: Any) -> ProxScaleState:
        names = [_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
        if not any(chosen(name) for name in names):
            raise ValueError(f"prox_scale: none of the parameters {names} is a scale")
        return ProxScaleState(jnp.zeros((), jnp.int32))

    def update(
        updates: Any, state: Any, params: Any = None, **extra: Any
    ) -> tuple[Any, ProxScaleState]:
        del extra
        if params is None:
            raise ValueError("prox_scale needs the parameters: optimizer.update(g, state, params)")
        rate = learning_rate(state.count) if callable(learning_rate) else learning_rate

        def one(path: Any, step: jax.Array, value: jax.Array) -> jax.Array:
            if not chosen(_name(path)):
                return step
            return (_prox(value + step, jnp.asarray(rate, value.dtype)) - value).astype(value.dtype)

        moved = jax.tree_util.tree_map_with_path(one, updates, params)
        return moved, ProxScaleState(state.count + 1)

    return optax.GradientTransformation(init, update)


def _prox(scale: jax.Array, rate: jax.Array) -> jax.Array:
    root = jnp.hypot(scale, 2 * jnp.sqrt(rate))
    # For a negative scale the sum cancels; the product of the two roots is -rate.
    return jnp.where(scale < 0, 2 * rate / (root - scale), 0.5 * (scale + root))


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
