"""Prior of supports: binary Markov chains, whose marginals come by message passing."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._core import compiled, known_field, number_array, refuse_where

LARGEST = 30.0  # logit of evidence that one element may bring


class MarkovSupport(eqx.Module):
    r"""Markov chain of indicators $s_i \in \{0, 1\}$, which say where weights are not zero.

    $p(s) = p(s_1) \prod_i p(s_{i+1} \mid s_i)$ from the stationary distribution on, in which the
    share of non-zeros is $p_{01} / (p_{01} + p_{10})$ and a run of them has $1 / p_{10}$ members
    on average. `MarkovSupport.independent(prob)` has no memory.

    Args:
        p01: probability that a non-zero follows a zero, in (0, 1), scalar.
        p10: probability that a zero follows a non-zero, in (0, 1), scalar.

    Raises:
        ValueError: one is known not to be a probability inside of (0, 1); under `jit` a
            `RuntimeError`.

    References:
        Xia, Tsang and Lau (2023), "Structured Bayesian compression for deep neural networks based
        on the turbo-VBI approach", IEEE Transactions on Signal Processing 71, section III.
    """

    p01: Float[Array, ""] = known_field()
    p10: Float[Array, ""] = known_field()

    def __init__(self, p01: Any, p10: Any):
        self.p01 = _probability("p01", p01)
        self.p10 = _probability("p10", p10)

    @classmethod
    def independent(cls, prob: Any) -> MarkovSupport:
        """Indicators without memory, each 1 with that probability."""
        prob = _probability("prob", prob)
        return cls(prob, 1 - prob)

    @property
    def density(self) -> Float[Array, ""]:
        """Share of non-zeros, scalar."""
        return self.p01 / (self.p01 + self.p10)

    def messages(self, evidence: Any) -> tuple[Float[Array, "... n"], Float[Array, ...]]:
        r"""What the others say of each indicator: the forward-backward algorithm.

        In the log domain by an associative scan, so in $O(\log n)$ steps on parallel hardware.

        Args:
            evidence: $\log p(\text{data}_i \mid s_i = 1) - \log p(\text{data}_i \mid s_i = 0)$
                along each chain, shape `(..., n)`.

        Returns:
            the extrinsic log odds of each indicator, which leave out its own evidence, shape
            `(..., n)`; and the log of $\sum_s p(s) \prod_i e^{s_i l_i}$, shape `(...)`.

        Raises:
            ValueError: there is no chain.
        """
        evidence = jnp.asarray(number_array("MarkovSupport: evidence", evidence))
        if evidence.ndim == 0 or evidence.shape[-1] == 0:
            raise ValueError(
                f"MarkovSupport: evidence must have shape (..., n), got {evidence.shape}"
            )
        evidence = jnp.asarray(evidence, jnp.result_type(evidence, jnp.float32))
        return _messages(self.p01, self.p10, evidence)

    def marginals(self, evidence: Any) -> Float[Array, "... n"]:
        """Probability that each indicator is 1 given all evidence, shape `(..., n)`."""
        extrinsic, _ = self.messages(evidence)
        return jax.nn.sigmoid(extrinsic + jnp.asarray(evidence, extrinsic.dtype))


@compiled
def _messages(p01: jax.Array, p10: jax.Array, evidence: jax.Array) -> tuple[jax.Array, jax.Array]:
    local = jnp.stack([jnp.zeros_like(evidence), evidence], axis=-1)
    p01, p10 = p01.astype(local.dtype), p10.astype(local.dtype)
    chain = jnp.log(jnp.array([[1 - p01, p01], [p10, 1 - p10]]))
    first = jnp.log(jnp.stack([p10, p01]) / (p01 + p10))
    alpha = _forward(first + local[..., 0, :], chain, local[..., 1:, :])
    beta = _backward(chain, local[..., 1:, :])
    both = alpha - local + beta
    return both[..., 1] - both[..., 0], jax.nn.logsumexp(alpha[..., -1, :], axis=-1)


def _forward(first: jax.Array, chain: jax.Array, local: jax.Array) -> jax.Array:
    """Log of the joint weight of what came so far and of each value, shape `(..., n, 2)`."""
    start = jnp.broadcast_to(first[..., None, None, :], (*first.shape[:-1], 1, 2, 2))
    steps = jnp.concatenate([start, chain + local[..., None, :]], axis=-3)
    along = jax.lax.associative_scan(_chained, steps, axis=steps.ndim - 3)
    return along[..., 0, :]


def _backward(chain: jax.Array, local: jax.Array) -> jax.Array:
    """Log weight of what comes after each value, shape `(..., n, 2)`."""
    steps = chain + local[..., None, :]
    last = jnp.zeros((*local.shape[:-2], 1, 2), local.dtype)
    if steps.shape[-3] == 0:
        return last
    swapped = lambda b, a: _chained(a, b)  # noqa: E731
    along = jax.lax.associative_scan(swapped, steps, axis=steps.ndim - 3, reverse=True)
    return jnp.concatenate([jax.nn.logsumexp(along, axis=-1), last], axis=-2)


def _chained(a: jax.Array, b: jax.Array) -> jax.Array:
    """Products of matrices in the log semiring."""
    return jax.nn.logsumexp(a[..., :, :, None] + b[..., None, :, :], axis=-2)


def _probability(name: str, value: Any) -> jax.Array:
    array = number_array(f"MarkovSupport: {name}", value)
    if jnp.ndim(array) != 0 or jnp.issubdtype(jnp.result_type(array), np.complexfloating):
        raise ValueError(f"MarkovSupport: {name} must be a number, got {value!r:.80}")
    array = refuse_where(
        array, lambda v: ~((v > 0) & (v < 1)), f"MarkovSupport: {name} must be inside of (0, 1)"
    )
    exact = jnp.issubdtype(jnp.result_type(array), jnp.floating)
    return jnp.asarray(array) if exact else jnp.asarray(array, float)
