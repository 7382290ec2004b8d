"""Few-shot tasks, and what NIW-Meta is compared with: MAML, first-order MAML and Reptile."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

WAYS = 3  # classes of a task of digits
TRAINED, HELD_OUT = (0, 1, 2, 3, 4, 5, 6), (7, 8, 9)


def sinusoid(key: jax.Array, rows: int) -> tuple[jax.Array, jax.Array]:
    """Finn, Abbeel and Levine (2017): amplitude U[0.1, 5], phase U[0, pi], inputs U[-5, 5]."""
    keys = jax.random.split(key, 3)
    amplitude = jax.random.uniform(keys[0], (), minval=0.1, maxval=5.0)
    phase = jax.random.uniform(keys[1], (), maxval=jnp.pi)
    x = jax.random.uniform(keys[2], (rows, 1), minval=-5.0, maxval=5.0)
    return x, amplitude * jnp.sin(x[:, 0] - phase)


def digits(kind: str) -> Callable[[jax.Array, int], tuple[jax.Array, jax.Array]]:
    """Tasks of three classes of scikit-learn's digits, with as many images of each.

    The images of the first `WAYS * shots` rows are in the order of the classes 0, 1, 2, 0, ...

    Args:
        kind: `"train"`, of the first seven digits, or `"test"`, of those held out: 7, 8 and 9, in
            any order.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    chosen = TRAINED if kind == "train" else HELD_OUT
    size = min(int(np.sum(data.target == c)) for c in chosen)
    images = np.stack([data.data[data.target == c][:size] / 16.0 for c in chosen])
    images = jnp.asarray(images, jnp.float32)

    def task(key: jax.Array, rows: int) -> tuple[jax.Array, jax.Array]:
        of_classes, of_images = jax.random.split(key)
        classes = jax.random.permutation(of_classes, len(chosen))[:WAYS]
        each = jax.vmap(lambda key: jax.random.permutation(key, size)[: rows // WAYS])(
            jax.random.split(of_images, WAYS)
        )
        x = images[classes[:, None], each]
        y = jnp.broadcast_to(jnp.arange(WAYS)[:, None], each.shape)
        return jnp.moveaxis(x, 0, 1).reshape(-1, x.shape[-1]), y.T.reshape(-1)

    return task


def square(f: jax.Array, y: jax.Array) -> jax.Array:
    """Mean squared error."""
    return jnp.mean((f - y) ** 2)


def cross_entropy(f: jax.Array, y: jax.Array) -> jax.Array:
    """Mean over rows."""
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(f, y))


def adapted(network: Any, log_lr: Any, loss: Any, x: Any, y: Any, steps: int) -> Any:
    """Arrays of a network after gradient steps on the support set."""
    arrays, rest = eqx.partition(network, eqx.is_inexact_array)

    def step(arrays: Any, _: None) -> tuple[Any, None]:
        gradient = jax.grad(lambda a: loss(jax.vmap(eqx.combine(a, rest))(x), y))(arrays)
        return jax.tree.map(lambda a, g: a - jnp.exp(log_lr) * g, arrays, gradient), None

    return eqx.combine(jax.lax.scan(step, arrays, None, length=steps)[0], rest)


def maml_loss(kind: str, loss: Any, shots: int, steps: int) -> Callable[..., jax.Array]:
    """Query loss of a task after `steps` gradient steps on its first rows; MAML, or first order."""

    def of_task(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        network, log_lr = params
        inner = adapted(network, log_lr, loss, x[:shots], y[:shots], steps)
        if kind == "first order":
            start, rest = eqx.partition(network, eqx.is_inexact_array)
            moved = jax.tree.map(
                lambda s, e: s + jax.lax.stop_gradient(e - s), start,
                eqx.filter(inner, eqx.is_inexact_array),
            )  # fmt: skip
            inner = eqx.combine(moved, rest)
        return loss(jax.vmap(inner)(x[shots:]), y[shots:])

    return of_task


def maml(
    key: jax.Array, network: Any, kind: str, loss: Any, task: Any, shots: int, rows: int,
    num_steps: int, inner_steps: int = 5, batch_size: int = 16,
) -> Any:  # fmt: skip
    """Trains by MAML with a learnt inner rate, first-order MAML, or Reptile.

    Returns:
        the network and the logarithm of its inner rate.
    """
    params = (network, jnp.asarray(np.log(0.02), jnp.float32))
    arrays, rest = eqx.partition(params, eqx.is_inexact_array)
    optimizer = optax.adam(optax.cosine_decay_schedule(2e-3, num_steps))
    of_task = maml_loss(kind, loss, shots, inner_steps)

    def gradient(arrays: Any, xs: jax.Array, ys: jax.Array) -> Any:
        if kind == "Reptile":
            start, log_lr = eqx.combine(arrays, rest)

            def toward(x: jax.Array, y: jax.Array) -> Any:
                end = adapted(start, log_lr, loss, x, y, 2 * inner_steps)
                return eqx.filter(end, eqx.is_inexact_array)

            ends = jax.vmap(toward)(xs, ys)
            own = jax.tree.map(lambda s, e: s - jnp.mean(e, axis=0), arrays[0], ends)
            return own, jnp.zeros_like(log_lr)
        total = lambda a: jnp.mean(  # noqa: E731
            jax.vmap(lambda x, y: of_task(eqx.combine(a, rest), x, y))(xs, ys)
        )
        return jax.grad(total)(arrays)

    def step(carry: Any, key: jax.Array) -> tuple[Any, None]:
        arrays, state = carry
        xs, ys = jax.vmap(lambda k: task(k, rows))(jax.random.split(key, batch_size))
        updates, state = optimizer.update(gradient(arrays, xs, ys), state)
        return (optax.apply_updates(arrays, updates), state), None

    @jax.jit
    def train(arrays: Any, key: jax.Array) -> Any:
        carry = arrays, optimizer.init(arrays)
        return jax.lax.scan(step, carry, jax.random.split(key, num_steps))[0][0]

    return eqx.combine(train(arrays, key), rest)


def maml_predictions(params: Any, loss: Any, tasks: Any, shots: int, steps: int) -> jax.Array:
    """Values of the adapted network at the rows after the support set, of all tasks."""
    network, log_lr = params

    @eqx.filter_jit
    def predict(network: Any, log_lr: Any, xs: jax.Array, ys: jax.Array) -> jax.Array:
        def one(task: Any) -> jax.Array:
            x, y = task
            made = adapted(network, log_lr, loss, x[:shots], y[:shots], steps)
            return jax.vmap(made)(x[shots:])

        return jax.lax.map(one, (xs, ys), batch_size=50)

    return predict(network, log_lr, *tasks)


def draw(task: Any, key: int, number: int, rows: int) -> tuple[jax.Array, jax.Array]:
    """Tasks with a leading axis."""
    keys = jax.random.split(jax.random.key(key), number)
    return jax.jit(jax.vmap(functools.partial(task, rows=rows)))(keys)
