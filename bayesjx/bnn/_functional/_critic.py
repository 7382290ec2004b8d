"""The Wasserstein-1 distance of two samples by a critic that is trained to tell them apart."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ..._core import safe_sqrt


class Critic(NamedTuple):
    """A function of vectors: a perceptron of two hidden layers with the softplus activation.

    Attributes:
        weights: of its three layers.
        biases: of its three layers.
    """

    weights: tuple[jax.Array, ...]
    biases: tuple[jax.Array, ...]

    def __call__(self, f: Float[Array, "s m"]) -> Float[Array, " s"]:
        """Its value at each row."""
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            f = jax.nn.softplus(f @ weight + bias)
        return (f @ self.weights[-1] + self.biases[-1])[:, 0]


def new_critic(key: jax.Array, size: int, width: int, dtype: Any) -> Critic:
    """One with random weights, as Glorot and Bengio (2010) start them."""
    sizes = (size, width, width, 1)
    start = jax.nn.initializers.glorot_normal()
    shapes = list(zip(sizes[:-1], sizes[1:], strict=True))
    keys = jax.random.split(key, len(shapes))
    weights = tuple(start(k, shape, dtype) for k, shape in zip(keys, shapes, strict=True))
    return Critic(weights, tuple(jnp.zeros(n, dtype) for n in sizes[1:]))


def gradient_penalty(
    key: jax.Array,
    critic: Any,
    f: Float[Array, "s m"],
    g: Float[Array, "s m"],
    one_sided: bool = False,
) -> Float[Array, ""]:
    r"""Mean of $(\lVert \nabla \phi \rVert - 1)^2$ at random points between pairs of two samples.

    Args:
        key: PRNG key.
        critic: $\phi$, from rows to a number each.
        f: the one sample.
        g: the other.
        one_sided: whether slopes below 1 are allowed.

    References:
        Gulrajani, Ahmed, Arjovsky, Dumoulin and Courville (2017), "Improved training of Wasserstein
        GANs", NeurIPS, equation 3; one-sided: Petzka, Fischer and Lukovnicov (2018), "On the
        regularization of Wasserstein GANs", ICLR, equation 8.
    """
    part = jax.random.uniform(key, (len(f), 1), f.dtype)
    slopes = jax.grad(lambda rows: jnp.sum(critic(rows)))(part * f + (1 - part) * g)
    excess = safe_sqrt(jnp.sum(slopes**2, -1)) - 1
    return jnp.mean((jnp.maximum(excess, 0) if one_sided else excess) ** 2)


class CriticTraining(eqx.Module):
    """How a critic is trained: Adagrad on its objective with the gradient penalty.

    Attributes:
        width: of its hidden layers.
        max_steps: of Adagrad.
        learning_rate: of Adagrad.
        penalty: weight of the gradient penalty.
        one_sided: see `gradient_penalty`.
        tol: norm of the gradient below which the training ends.
    """

    width: int = eqx.field(static=True)
    max_steps: int = eqx.field(static=True)
    learning_rate: float = eqx.field(static=True)
    penalty: float = eqx.field(static=True)
    one_sided: bool = eqx.field(static=True)
    tol: float = eqx.field(static=True)

    def __call__(
        self, key: jax.Array, f: Float[Array, "s m"], g: Float[Array, "s m"]
    ) -> tuple[Critic, Any]:
        """A new critic that is large at `f` and small at `g`, and the number of steps."""
        for_start, for_steps = jax.random.split(key)
        critic = new_critic(for_start, f.shape[1], self.width, f.dtype)
        optimizer = optax.adagrad(self.learning_rate)

        def loss(critic: Critic, key: jax.Array) -> jax.Array:
            penalty = gradient_penalty(key, critic, f, g, self.one_sided)
            return self.penalty * penalty - (jnp.mean(critic(f)) - jnp.mean(critic(g)))

        def go_on(carry: Any) -> jax.Array:
            count, _, _, norm = carry
            return (count < self.max_steps) & (norm > self.tol)

        def step(carry: Any) -> Any:
            count, critic, state, _ = carry
            gradient = jax.grad(loss)(critic, jax.random.fold_in(for_steps, count))
            updates, state = optimizer.update(gradient, state)
            moved = optax.apply_updates(critic, updates)
            return count + 1, moved, state, optax.tree.norm(gradient)

        start = (
            jnp.zeros((), jnp.int32),
            critic,
            optimizer.init(critic),
            jnp.full((), jnp.inf, f.dtype),
        )
        count, critic, _, _ = jax.lax.while_loop(go_on, step, start)
        return critic, count
