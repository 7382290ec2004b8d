"""Training of neural processes on draws of a prior, and the protocol by which they are judged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Float

from .._core import (
    Algorithm,
    automatic,
    check_flag,
    checked_finite,
    compiled,
    gradient_algorithm,
    refuse_where,
    whole_number,
)
from ._neural_process import AbstractNeuralProcess, check_draws, check_network, num_counted
from ._process_posterior import check_span
from ._tasks import check_prior, sample_tasks, Task

TRIED = 64  # data sets of a prior whose inputs are looked at before training


class LogLikelihoods(NamedTuple):
    """Log likelihoods of data sets, in nats a row, as `log_likelihoods` gives them.

    Attributes:
        context: joint log density of the context given itself, divided by its size, shape `(b,)`;
            0 where there is none.
        target: joint log density of the other rows, divided by their number, shape `(b,)`.
    """

    context: Float[Array, " b"]
    target: Float[Array, " b"]

    @property
    def mean(self) -> LogLikelihoods:
        """Means over data sets."""
        return LogLikelihoods(jnp.mean(self.context), jnp.mean(self.target))

    @property
    def standard_error(self) -> LogLikelihoods:
        """Standard errors of these means."""
        return LogLikelihoods(_standard_error(self.context), _standard_error(self.target))


def neural_process_training(
    network: AbstractNeuralProcess,
    prior: Callable[[jax.Array], Task],
    optimizer: optax.GradientTransformation,
    *,
    batch_size: int = 32,
    min_context: int = 3,
    min_targets: int = 3,
    include_context: bool = True,
    num_samples: int = 5,
    ramp_steps: int = 800,
    average: float | None = None,
    sharding: Any = None,
) -> Algorithm:
    """Trains a neural process on data sets that are drawn from a prior at each step.

    For `bayesjx.fit`. All data sets are new, so that nothing is over-fitted. How many rows are
    context is drawn uniformly at each step; the others are targets. What is maximised is that of
    the network: the log likelihood of targets, a lower bound of it for an `NP` or `ANP`, and sums
    with terms of their own for networks that bootstrap or complete their context.

    Args:
        network: to train; `bayesjx.trained(network, state)` is the trained one.
        prior: from a key to a `Task` of at least `min_context + min_targets` rows.
        optimizer: Optax gradient transformation, best with a schedule that ends at 0.
        batch_size: data sets of a step.
        min_context: fewest rows of context.
        min_targets: fewest rows that are not.
        include_context: whether the rows of the context are predicted too, as those who bootstrap
            and those with pseudo-contexts have it.
        num_samples: draws of a network that makes any.
        ramp_steps: steps in which the weight of the pseudo log likelihood of an `MPNP` or `MPANP`
            rises from 0 to 1; a fifth of all is right.
        average: see `gradient_algorithm`.
        sharding: `jax.sharding.Sharding` of the data sets of a step, to train on many devices.

    Returns:
        `init() -> GradientState`, `step(key, state) -> (GradientState, GradientInfo)`; the
        objective is in nats a target.

    Raises:
        ValueError: sizes out of range, or a prior whose data sets the network does not take.

    References:
        Garnelo et al. (2018), "Conditional neural processes", ICML: equation 4. Lee et al. (2020),
        "Bootstrapping neural processes", NeurIPS. Lee et al. (2023), "Martingale posterior neural
        processes", ICLR: equation 16.
    """
    owner = "neural_process_training"
    rows = _check(owner, network, prior)
    whole_number(f"{owner}: batch_size", batch_size)
    whole_number(f"{owner}: min_targets", min_targets)
    whole_number(f"{owner}: min_context", min_context, 0)
    whole_number(f"{owner}: num_samples", num_samples)
    whole_number(f"{owner}: ramp_steps", ramp_steps, 0)
    check_flag(f"{owner}: include_context", include_context)
    if min_context + min_targets > rows:
        raise ValueError(
            f"{owner}: min_context + min_targets must be at most the {rows} rows of the prior's "
            f"data sets, got {min_context} and {min_targets}"
        )
    sizes = Sizes(batch_size, min_context, rows - min_targets, num_samples, ramp_steps)
    loss = Partial(_loss, prior, sizes, include_context, sharding)
    count = jnp.zeros((), jnp.int32)
    return gradient_algorithm(loss, network, optimizer, natural=count, average=average)


def log_likelihoods(
    key: jax.Array,
    network: AbstractNeuralProcess,
    tasks: Task,
    *,
    num_context: Any,
    num_samples: int = 50,
    batch_size: int = 16,
) -> LogLikelihoods:
    """Log likelihoods of data sets whose first rows are the context: one protocol for all networks.

    Targets are taken jointly: for networks that draw, the log of the mean over draws is outside of
    the sum over rows. In expectation over data sets of a prior no `target` exceeds that of the
    prior's own predictive distribution; a `context` that holds its own targets may.

    Args:
        key: PRNG key of the draws.
        network: a neural process.
        tasks: data sets with a leading axis: `x` of shape `(b, n, d)` and `y` `(b, n)`.
        num_context: rows of context, less than `n`, an integer or shape `(b,)`.
        num_samples: draws of a network that makes any.
        batch_size: data sets at a time.

    Returns:
        Both for each data set, with `mean` and `standard_error`.

    Raises:
        ValueError: wrong shapes, NaN, sizes out of range.

    References:
        Lee, Yun, Nam, Fong and Lee (2023), "Martingale posterior neural processes", ICLR: table 1.
    """
    owner = "log_likelihoods"
    check_network(owner, network)
    check_draws(owner, network, key)
    x, y = _checked_tasks(owner, network, tasks)
    num_samples = whole_number(f"{owner}: num_samples", num_samples)
    batch_size = whole_number(f"{owner}: batch_size", batch_size)
    counts = jnp.asarray(num_context)
    if counts.shape not in ((), (len(y),)) or not jnp.issubdtype(counts.dtype, jnp.integer):
        raise ValueError(
            f"{owner}: num_context must be an integer or integers of shape ({len(y)},), got "
            f"{counts.dtype} of shape {counts.shape}"
        )
    n = y.shape[1]
    counts = refuse_where(
        counts, lambda c: (c < 0) | (c >= n), f"{owner}: num_context must be in 0, ..., {n - 1}"
    )
    keys = jax.random.split(key, len(y)) if network.stochastic else None
    counts = jnp.broadcast_to(jnp.asarray(counts), y.shape[:1])
    return _log_likelihoods(network, keys, x, y, counts, num_samples, batch_size)


@compiled
def _log_likelihoods(
    network: Any, keys: Any, x: Any, y: Any, counts: Any, num_samples: int, batch_size: int
) -> LogLikelihoods:
    def one(task: Any) -> LogLikelihoods:
        key, x, y, count = task
        context = jnp.arange(len(y)) < count
        cache = network.encode(key, x, y, context, num_samples)
        scores = [network.log_prob(x, y, m, cache) for m in (context, ~context)]
        sizes = [num_counted(m, y.dtype) for m in (context, ~context)]
        return LogLikelihoods(*(s / n for s, n in zip(scores, sizes, strict=True)))

    return jax.lax.map(one, (keys, x, y, counts), batch_size=batch_size)


class Sizes(NamedTuple):
    """Sizes of a step of training; hashable, hence part of the compiled program."""

    batch_size: int
    min_context: int
    max_context: int
    num_samples: int
    ramp_steps: int


def _loss(
    prior: Any,
    sizes: Sizes,
    include_context: bool,
    sharding: Any,
    key: jax.Array,
    network: AbstractNeuralProcess,
    count: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Loss, objective, and the number of steps."""
    key_tasks, key_size, key_draws = jax.random.split(key, 3)
    tasks = sample_tasks(key_tasks, prior, sizes.batch_size)
    if sharding is not None:
        tasks = jax.lax.with_sharding_constraint(tasks, automatic(sharding))
    x, y = tasks.x.astype(network.dtype), tasks.y.astype(network.dtype)
    size = jax.random.randint(key_size, (), sizes.min_context, sizes.max_context + 1)
    context = jnp.broadcast_to(jnp.arange(y.shape[1]) < size, y.shape)
    targets = jnp.ones_like(context) if include_context else ~context
    ramp = jnp.ones((), x.dtype)
    if sizes.ramp_steps:
        ramp = jnp.minimum(count.astype(x.dtype) / sizes.ramp_steps, 1)
    each = network.objective(key_draws, x, y, context, targets, sizes.num_samples, ramp)
    objective = jnp.mean(each)
    return -objective, objective, count + 1


def _check(owner: str, network: Any, prior: Any) -> int:
    """The rows of the prior's data sets."""
    check_network(owner, network)
    shapes = check_prior(owner, prior)
    rows, d = shapes.x.shape
    if d != network.num_inputs:
        raise ValueError(
            f"{owner}: data sets of the prior have {d} inputs, the network {network.num_inputs}"
        )
    if not jnp.issubdtype(shapes.y.dtype, jnp.floating):
        raise ValueError(
            f"{owner}: targets of the prior are {shapes.y.dtype}, which may be labels; a neural "
            "process predicts floating-point targets"
        )
    if network.span is not None:
        x = _tried(prior)
        check_span(owner, network, x, x, jnp.ones(x.shape[:2], bool))
    return rows


@compiled
def _tried(prior: Any) -> Float[Array, "b n d"]:
    return sample_tasks(jax.random.key(0), prior, TRIED).x


def _checked_tasks(owner: str, network: Any, tasks: Any) -> tuple[Any, Any]:
    if not isinstance(tasks, Task):
        raise ValueError(f"{owner}: tasks must be an amortized.Task, got {type(tasks).__name__}")
    x, y = jnp.asarray(tasks.x), jnp.asarray(tasks.y)
    d = network.num_inputs
    if x.ndim != 3 or x.shape[2] != d or y.shape != x.shape[:2]:
        raise ValueError(
            f"{owner}: tasks must have x of shape (b, n, {d}) and y of shape (b, n), got "
            f"{x.shape} and {y.shape}"
        )
    if not jnp.issubdtype(y.dtype, jnp.floating):
        raise ValueError(
            f"{owner}: tasks must have floating-point targets, got {y.dtype}, which may be labels"
        )
    x = checked_finite(f"{owner}: x of tasks", x.astype(network.dtype))
    y = checked_finite(f"{owner}: y of tasks", y.astype(network.dtype))
    return check_span(owner, network, x, x, jnp.ones(y.shape, bool)), y


def _standard_error(values: Float[Array, " b"]) -> Float[Array, ""]:
    return jnp.std(values, ddof=1) / len(values) ** 0.5
