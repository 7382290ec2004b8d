"""One episode of NIW-Meta: a quadratic of a task's loss, and the closed-form posterior of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import ops
from .._core import failures_are_nan
from ..distributions import StructuredNormal
from ..likelihoods import log_likelihood, observed_information

SHORTER = (1.0, 0.5, 0.25, 0.1)  # lengths of a Gauss-Newton step that are tried


class Quadratic(NamedTuple):
    r"""The loss of a task as $\frac12 \theta^\top A \theta - h^\top \theta$, but for a constant.

    Attributes:
        root: $U$ of $A = U U^\top$, shape `(d, r)`, or the diagonal of $A$, shape `(d,)`.
        linear: $h$, shape `(d,)`; $A$ times the minimum, where there is one.
    """

    root: Float[Array, ...]
    linear: Float[Array, " d"]


class Episode(NamedTuple):
    """A task: its data, and how the network and its likelihood see them.

    Attributes:
        values: from weights `(d,)` and one input to the network's value, `()` or `(p,)`.
        likelihood: from values to a NumPyro distribution.
        x: inputs, shape `(n, ...)`.
        y: targets, shape `(n, ...)`.
        mask: rows that count, shape `(n,)`.
    """

    values: Callable[[jax.Array, jax.Array], jax.Array]
    likelihood: Any
    x: jax.Array
    y: jax.Array
    mask: jax.Array

    def loss(self, weights: Float[Array, " d"]) -> Float[Array, ""]:
        """Minus the log likelihood of the task, in nats."""
        f = jax.vmap(lambda x: self.values(weights, x))(self.x)
        terms = log_likelihood(self.likelihood, f, self.y).reshape(len(f), -1)
        return -jnp.sum(jnp.where(self.mask[:, None], terms, 0))

    def gauss_newton(self, weights: Float[Array, " d"]) -> ops.GaussNewton:
        """Generalised Gauss-Newton matrix of the loss."""
        f = jax.vmap(lambda x: self.values(weights, x))(self.x)
        weight = observed_information(self.likelihood, f, self.y)

        def of_row(weights: jax.Array, row: tuple[jax.Array, jax.Array]) -> jax.Array:
            x, counts = row
            return jnp.where(counts, self.values(weights, x), 0)

        return ops.gauss_newton(of_row, weights, weight, (self.x, self.mask))


class Inner(NamedTuple):
    """How the quadratic of a task is found; options of `NIWMeta` of these names.

    Attributes:
        curvature: `"low_rank"`, `"diagonal"` or `"iterates"`.
        num_steps: steps from the mean of all tasks.
        lr: learning rate of steps that are no Gauss-Newton steps, for the mean loss of a row.
        num_probes: random vectors for a diagonal, or None for the exact one.
        most: largest curvature that the spread of iterates may stand for.
    """

    curvature: str
    num_steps: int
    lr: float
    num_probes: int | None
    most: float


def quadratic(
    key: jax.Array,
    episode: Episode,
    inner: Inner,
    loc: Float[Array, " d"],
    precision: Float[Array, " d"],
) -> Quadratic:
    """The quadratic of a task's loss where inner steps from `loc` lead; no derivatives.

    Args:
        key: for noise and probes.
        episode: the task.
        inner: how.
        loc: mean of the weights over tasks.
        precision: of the weights of a task around it.
    """
    loc, precision = jax.lax.stop_gradient((loc, precision))
    with failures_are_nan():
        if inner.curvature == "low_rank":
            found = _by_gauss_newton(episode, inner.num_steps, loc, precision)
        elif inner.curvature == "diagonal":
            found = _by_descent(key, episode, inner, loc)
        else:
            found = _by_iterates(key, episode, inner, loc)
    return jax.lax.stop_gradient(found)


def posterior(
    of_task: Quadratic, loc: Float[Array, " d"], precision: Float[Array, " d"]
) -> StructuredNormal:
    r"""The Gaussian that minimises $E_q[\text{loss}] + E[\mathrm{KL}(q \| N(\mu, \Sigma))]$.

    Its precision is $A + n V^{-1}$, and its mean solves $(A + n V^{-1}) m_i = h + n V^{-1} m$.

    Args:
        of_task: the quadratic loss.
        loc: $m$, shape `(d,)`.
        precision: $n V^{-1}$, shape `(d,)`.
    """
    with failures_are_nan():
        both = ops.Diag(of_task.root + precision, ops.psd) if of_task.root.ndim == 1 else None
        both = both or ops.LowRankPlusDiag(of_task.root, precision)
        return StructuredNormal(both.solve(of_task.linear + precision * loc), precision=both)


def _by_gauss_newton(episode: Episode, num_steps: int, loc: Any, precision: Any) -> Quadratic:
    """A linearisation at each step, with the mean of its posterior as the next place."""

    def objective(weights: jax.Array) -> jax.Array:
        return episode.loss(weights) + 0.5 * jnp.sum(precision * (weights - loc) ** 2)

    def step(carry: tuple[jax.Array, Quadratic], _: None) -> tuple[Any, None]:
        here = carry[0]
        matrix = episode.gauss_newton(here)
        root = matrix.jacobian.dense().T
        linear = root @ (root.T @ here) - jax.grad(episode.loss)(here)
        found = Quadratic(root, linear)
        change = posterior(found, loc, precision).loc - here
        tried = here + jnp.asarray(SHORTER, here.dtype)[:, None] * change
        values = jax.vmap(objective)(tried)
        best = jnp.argmin(jnp.where(jnp.isnan(values), jnp.inf, values))
        return (tried[best], found), None

    shapes = jax.eval_shape(lambda: step((loc, Quadratic(loc, loc)), None)[0][1])
    start = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    return jax.lax.scan(step, (loc, start), None, length=num_steps)[0][1]


def _by_descent(key: jax.Array, episode: Episode, inner: Inner, loc: Any) -> Quadratic:
    """The diagonal of the Gauss-Newton matrix where gradient descent leads."""
    rate = inner.lr / jnp.maximum(jnp.sum(episode.mask), 1).astype(loc.dtype)

    def step(here: jax.Array, _: None) -> tuple[jax.Array, None]:
        return here - rate * jax.grad(episode.loss)(here), None

    here, _ = jax.lax.scan(step, loc, None, length=inner.num_steps)
    matrix = episode.gauss_newton(here)
    if inner.num_probes is None:
        diagonal = matrix.diag()
    else:
        diagonal = matrix.diag_estimate(key, inner.num_probes).value
    return Quadratic(diagonal, diagonal * here)


def _by_iterates(key: jax.Array, episode: Episode, inner: Inner, loc: Any) -> Quadratic:
    """Mean and reciprocal variance of the iterates of stochastic gradient Langevin dynamics."""
    rate = inner.lr / jnp.maximum(jnp.sum(episode.mask), 1).astype(loc.dtype)

    def step(carry: Any, at: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
        (here, mean, square), (key, i) = carry, at
        noise = jnp.sqrt(2 * rate) * jax.random.normal(key, here.shape, here.dtype)
        here = here - rate * jax.grad(episode.loss)(here) + noise
        off = here - mean
        mean = mean + off / i
        return (here, mean, square + off * (here - mean)), None

    count = jnp.arange(1, inner.num_steps + 1).astype(loc.dtype)
    keys = jax.random.split(key, inner.num_steps)
    start = loc, jnp.zeros_like(loc), jnp.zeros_like(loc)
    (_, mean, square), _ = jax.lax.scan(step, start, (keys, count))
    spread = square / max(inner.num_steps - 1, 1)
    diagonal = jnp.minimum(1 / jnp.maximum(spread, jnp.finfo(loc.dtype).tiny), inner.most)
    return Quadratic(diagonal, diagonal * mean)
