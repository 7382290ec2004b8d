"""Training of prior-data fitted networks on draws of their prior."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial

from .._core import Algorithm, automatic, gradient_algorithm, whole_number
from ._network import AbstractPFN
from ._pfn_posterior import moments
from ._tasks import check_prior, sample_tasks, Task


def pfn_training(
    network: AbstractPFN,
    prior: Callable[[jax.Array], Task],
    optimizer: optax.GradientTransformation,
    *,
    batch_size: int = 32,
    num_queries: int = 16,
    min_context: int = 0,
    style_dropout: Any = 0.1,
    average: float | None = None,
    sharding: Any = None,
) -> Algorithm:
    r"""Trains a network on data sets that are drawn from a prior at each step, for `bayesjx.fit`.

    The loss is the mean of $-\log q(y \mid x, D)$ over queries. Its expectation is the mean
    Kullback-Leibler divergence from the prior's predictive distribution to that of the network, but
    for a constant; as all data sets are new, it cannot be over-fitted. The number of rows of
    context is drawn uniformly at each step.

    Args:
        network: to train; `bayesjx.trained(network, state)` is the trained one.
        prior: from a key to a `Task` of more than `num_queries` rows.
        optimizer: Optax gradient transformation, best with a schedule that ends at 0.
        batch_size: data sets of a step.
        num_queries: rows of each that are predicted; the others are context.
        min_context: fewest rows of context.
        style_dropout: how often the network is not told the style.
        average: see `gradient_algorithm`.
        sharding: `jax.sharding.Sharding` of the data sets of a step, to train on many devices.

    Returns:
        `init() -> GradientState`, `step(key, state) -> (GradientState, GradientInfo)`; the
        objective is the mean log density of queries, in nats.

    Raises:
        ValueError: sizes out of range, or a prior whose data sets the network does not take.

    References:
        Müller, Hollmann, Pineda Arango, Grabocka and Hutter (2022), "Transformers can do Bayesian
        inference", ICLR: equation 2.
    """
    rows = _check("pfn_training", network, prior, num_queries)
    whole_number("pfn_training: batch_size", batch_size)
    whole_number("pfn_training: min_context", min_context, 0, rows)
    if not 0 <= style_dropout <= 1:
        raise ValueError(f"pfn_training: style_dropout must be in [0, 1], got {style_dropout!r}")
    loss = Partial(_log_score, prior, batch_size, num_queries, min_context, style_dropout, sharding)
    return gradient_algorithm(loss, network, optimizer, average=average, maximise=True)


def log_scores(
    network: AbstractPFN,
    tasks: Task,
    size: Any,
    num_queries: int,
    told: Any = None,
) -> jax.Array:
    """Log densities of the last rows of data sets given their first `size` rows.

    Args:
        network: a network.
        tasks: data sets with a leading axis, shape `(b, n, ...)`.
        size: rows of context, at most `n - num_queries`, scalar or shape `(b, 1)`.
        num_queries: `m`, the number of last rows.
        told: whether the network is told the style, shape `(b,)`.

    Returns:
        Shape `(b, m)`.
    """
    context = tasks.y.shape[1] - num_queries
    x, y = tasks.x[:, :context], tasks.y[:, :context]
    mask = jnp.broadcast_to(jnp.arange(context) < size, y.shape)
    loc, scale = 0.0, 1.0
    if network.standardise:
        loc, scale = moments(y, mask)
        y, loc, scale = (y - loc[:, None]) / scale[:, None], loc[:, None], scale[:, None]
    outputs = network.outputs(x, y, tasks.x[:, context:], mask, tasks.style, told)
    parameters = network.head.parameters(outputs)
    predictive = network.head.distribution(parameters, loc, scale)
    return jnp.asarray(predictive.log_prob(tasks.y[:, context:]))


def _log_score(
    prior: Any,
    batch_size: int,
    num_queries: int,
    min_context: int,
    style_dropout: Any,
    sharding: Any,
    key: jax.Array,
    network: AbstractPFN,
) -> jax.Array:
    key_tasks, key_size, key_told = jax.random.split(key, 3)
    tasks = sample_tasks(key_tasks, prior, batch_size)
    if sharding is not None:
        tasks = jax.lax.with_sharding_constraint(tasks, automatic(sharding))
    context = tasks.y.shape[1] - num_queries
    size = jax.random.randint(key_size, (), min_context, context + 1)
    told = None
    if tasks.style is not None:
        told = jax.random.bernoulli(key_told, 1.0 - style_dropout, (batch_size,))
    return jnp.mean(log_scores(network, tasks, size, num_queries, told))


def _check(owner: str, network: Any, prior: Any, num_queries: int) -> int:
    """The most rows of context."""
    if not isinstance(network, AbstractPFN):
        raise ValueError(f"{owner}: network must be an amortized.PFN, got {type(network).__name__}")
    shapes = check_prior(owner, prior)
    rows, d = shapes.x.shape
    if d != network.num_inputs and not (network.missing and d <= network.most_inputs):
        raise ValueError(
            f"{owner}: data sets of the prior have {d} inputs, the network {network.num_inputs}"
        )
    integer = not jnp.issubdtype(shapes.y.dtype, jnp.floating)
    if integer != (network.head.num_classes is not None):
        raise ValueError(
            f"{owner}: targets of the prior are {shapes.y.dtype}, which is not what "
            f"{type(network.head).__name__} is for"
        )
    if whole_number(f"{owner}: num_queries", num_queries) >= rows:
        raise ValueError(
            f"{owner}: data sets of the prior have {rows} rows, which must be more than "
            f"num_queries = {num_queries}"
        )
    return rows - num_queries
