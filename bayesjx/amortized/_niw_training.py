"""Training of NIW-Meta on tasks: one-time episodic updates of what all tasks have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

from .._core import Algorithm, gradient_algorithm, whole_number
from ..likelihoods import in_support
from ._niw_checks import checked_mask, checked_task, counted, outputs
from ._niw_meta import NIWMeta, task_bound
from ._niw_terms import kl, NIW
from ._tasks import sample_tasks


def niw_meta(
    meta: NIWMeta,
    optimizer: optax.GradientTransformation,
    tasks: Callable[[jax.Array], Any] | None = None,
    *,
    batch_size: int = 4,
    num_tasks: int | None = None,
    num_samples: int = 1,
    prior_scale: float = 1.0,
    trainable: Any = None,
    average: float | None = None,
) -> Algorithm:
    r"""NIW-Meta: fits the distribution of the weights of tasks to many tasks, for `bayesjx.fit`.

    A step draws tasks, finds the posterior of each one's weights in closed form, as `adapt` does,
    and climbs the evidence lower bound with these posteriors as functions of the global parameters
    $(m, V, n)$. What the inner steps found has no derivatives, and nothing is kept of a task.

    Tasks come from a function, endless, or as data: `fit(..., data=(x, y), batch_size=4)` with
    arrays of all tasks, `(N, n, ...)`, and a third one of booleans `(N, n)` where some have fewer
    rows, whatever the rest is filled with.

    Args:
        meta: where to start; `bayesjx.trained(meta, state)` is the trained one.
        optimizer: Optax gradient transformation, best with a schedule that ends at 0.
        tasks: from a key to a `Task`, or any pair of inputs `(n, ...)` and targets `(n, ...)`, of
            fixed shapes; None if they come as data. All rows of a task count: with 5 rows to adapt
            to and 10 to predict, 15.
        batch_size: tasks of a step, if they come from a function.
        num_tasks: $N$, how many there are; None for endless, as draws are. With a number the prior
            $NIW(0, 1, s^2 I, d + 2)$ of mean and covariance has its weight beside theirs.
        num_samples: draws of the weights of a task that its likelihood is averaged over.
        prior_scale: $s$, standard deviation of weights between tasks under that prior.
        trainable: what Optax moves, see `gradient_algorithm`; by default the global parameters and
            the likelihood's, such as the noise of `likelihoods.Gaussian`.
        average: see `gradient_algorithm`.

    Returns:
        `init() -> GradientState`, `step(key, state, *data) -> (GradientState, GradientInfo)`; the
        objective is the evidence lower bound of a task, in nats.

    Raises:
        ValueError: sizes out of range, tasks that the network does not take, or labels that are no
            class.

    References:
        Kim and Hospedales (2024), "A hierarchical Bayesian model for few-shot meta learning", ICLR:
        one-time optimisation.
    """
    if not isinstance(meta, NIWMeta):
        raise ValueError(f"niw_meta: meta must be an amortized.NIWMeta, got {type(meta).__name__}")
    whole_number("niw_meta: batch_size", batch_size)
    whole_number("niw_meta: num_samples", num_samples)
    if num_tasks is not None:
        whole_number("niw_meta: num_tasks", num_tasks)
    number = isinstance(prior_scale, int | float | np.number) and not isinstance(prior_scale, bool)
    if not number or not 0 < prior_scale < np.inf:
        raise ValueError(f"niw_meta: prior_scale must be positive, got {prior_scale!r:.60}")
    if tasks is not None:
        _check_tasks(meta, tasks)
    bound = Partial(_bound, tasks, batch_size, num_tasks, num_samples, float(prior_scale))
    return gradient_algorithm(
        bound, meta, optimizer, trainable=trainable, average=average, maximise=True
    )


def _bound(
    tasks: Any,
    batch_size: int,
    num_tasks: int | None,
    num_samples: int,
    prior_scale: float,
    key: jax.Array,
    meta: NIWMeta,
    *data: Any,
) -> jax.Array:
    """Evidence lower bound of all tasks, a task."""
    key_tasks, key_bounds = jax.random.split(key)
    if tasks is not None:
        data = sample_tasks(key_tasks, tasks, batch_size)[:2]
    x, y, mask = _checked_data(meta, data)
    strength = jnp.inf if num_tasks is None else 1 + num_tasks
    keys = jax.random.split(key_bounds, len(x))

    def of_task(key: jax.Array, x: jax.Array, y: jax.Array, mask: jax.Array) -> jax.Array:
        x, y = counted(x, mask), counted(y, mask)
        y, guard = _labels(meta, x, y)
        return guard * task_bound(meta, key, x, y, mask, strength, num_samples)[0]

    bound = jnp.mean(jax.vmap(of_task)(keys, x, y, mask))
    if num_tasks is None:
        return bound
    q = meta.niw(strength)
    one = jnp.ones((), q.loc.dtype)
    prior = NIW(jnp.zeros_like(q.loc), one, jnp.full_like(q.loc, prior_scale**2), one)
    return bound - kl(q, prior) / num_tasks


def _labels(meta: NIWMeta, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Targets, labels of a floating-point type as integers, and a guard of their check."""
    value = outputs("niw_meta", meta, x)
    at, one = jnp.zeros((len(x), *value.shape), value.dtype), jnp.ones((), value.dtype)
    if not jnp.issubdtype(y.dtype, jnp.floating) or not meta.likelihood(at).support.is_discrete:
        return y, one
    return in_support(meta.likelihood, y, at, one, each_output=True)


def _checked_data(meta: NIWMeta, data: tuple[Any, ...]) -> tuple[Any, Any, Any]:
    """Arrays of tasks with their shapes checked, and which rows count."""
    if len(data) not in (2, 3):
        raise ValueError(
            "niw_meta: data must be inputs (N, n, ...) and targets (N, n, ...) of all tasks, and a "
            f"mask where some have fewer rows, unless tasks is given; got {len(data)} arrays"
        )
    x, y = data[:2]
    if jnp.ndim(x) < 2 or jnp.ndim(y) < 2 or x.shape[:2] != y.shape[:2] or 0 in x.shape[:2]:
        raise ValueError(
            "niw_meta: data must be inputs x (N, n, ...) and targets y (N, n, ...) of all tasks; "
            f"got {jnp.shape(x)} and {jnp.shape(y)}"
        )
    if jnp.issubdtype(x.dtype, jnp.floating):
        x = x.astype(meta.loc.dtype)
    outputs("niw_meta", meta, x[0])
    return x, y, checked_mask("niw_meta", data[2] if len(data) == 3 else None, x.shape[:2])


def _check_tasks(meta: NIWMeta, tasks: Any) -> None:
    """Traces the function, and looks at one task as `adapt` does."""
    if not callable(tasks):
        raise ValueError(
            f"niw_meta: tasks must be a function from a key, got {type(tasks).__name__}"
        )
    try:
        jax.eval_shape(tasks, jax.random.key(0))
    except (jax.errors.ConcretizationTypeError, jax.errors.NonConcreteBooleanIndexError) as error:
        raise ValueError(
            "niw_meta: the shapes of tasks must not depend on random values. JAX says: "
            f"{str(error).splitlines()[0]}"
        ) from error
    task = tasks(jax.random.key(0))
    if not isinstance(task, tuple | list) or len(task) < 2:
        raise ValueError(
            f"niw_meta: tasks must return an amortized.Task, or a pair of inputs and targets; got "
            f"{type(task).__name__}"
        )
    checked_task("niw_meta: a draw of tasks", meta, task[0], task[1], None, False)
