"""One episode of NIW-Meta: a quadratic of a task's loss, and the closed-form posterior of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import ops
from .._core import cholesky_each, failures_are_nan, inverse_tril
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
        most: largest curvature that the variance of iterates may stand for.
    """

    curvature: str
    num_steps: int
    lr: float
    num_probes: int | None
    most: float


class TaskPosterior(eqx.Module):
    r"""Gaussian with the precision $A + \mathrm{diag}(t)$, by the Woodbury identity.

    An `ops.LowRankPlusDiag` is the same and more exact in float32, by a QR decomposition that many
    small tasks, factorised at each step of a training, have no time for.

    Attributes:
        loc: mean, shape `(d,)`.
        root: see `Quadratic`.
        precision: $t$, shape `(d,)`.
        whiten: $L^{-1}$ of $L L^\top = I + U^\top \mathrm{diag}(t)^{-1} U$, shape `(r, r)`, or
            None. What it is multiplied with has many columns, for which substitution is slow.
    """

    loc: Float[Array, " d"]
    root: Float[Array, ...]
    precision: Float[Array, " d"]
    whiten: Float[Array, "r r"] | None

    def __init__(self, of_task: Quadratic, loc: Float[Array, " d"], precision: Float[Array, " d"]):
        self.root, self.precision, self.whiten = of_task.root, precision, None
        right = of_task.linear + precision * loc
        if self.root.ndim == 1:
            self.loc = right / (self.root + precision)
            return
        scaled = self.scaled()
        eye = jnp.eye(scaled.shape[1], dtype=scaled.dtype)
        self.whiten = inverse_tril(cholesky_each(eye + scaled.T @ scaled))
        unit = right / jnp.sqrt(precision)
        inside = self.whiten.T @ (self.whiten @ (scaled.T @ unit))
        self.loc = (unit - scaled @ inside) / jnp.sqrt(precision)

    def scaled(self) -> Float[Array, "d r"]:
        r"""$\mathrm{diag}(t)^{-1/2} U$."""
        return self.root / jnp.sqrt(self.precision)[:, None]

    def variance(self) -> Float[Array, " d"]:
        """Diagonal of the covariance."""
        if self.whiten is None:
            return 1 / (self.root + self.precision)
        half = self.whiten @ self.scaled().T
        return (1 - jnp.sum(half**2, axis=0)) / self.precision

    def logdet(self) -> Float[Array, ""]:
        """Log-determinant of the covariance."""
        if self.whiten is None:
            return -jnp.sum(jnp.log(self.root + self.precision))
        inner = 2 * jnp.sum(jnp.log(jnp.diag(self.whiten)))
        return inner - jnp.sum(jnp.log(self.precision))

    def sample(self, key: jax.Array, num: int) -> Float[Array, "s d"]:
        """Draws, differentiable in the mean and precision, shape `(num, d)`."""
        size = self.loc.size
        if self.whiten is None:
            noise = jax.random.normal(key, (num, size), self.loc.dtype)
            return self.loc + noise / jnp.sqrt(self.root + self.precision)
        # With M = S C^-1, e - M (S^T e + e') has the covariance (I + S S^T)^-1.
        scaled = self.scaled()
        noise = jax.random.normal(key, (num, size + len(self.whiten)), self.loc.dtype)
        outer, inner = noise[:, :size], noise[:, size:]
        inside = (outer @ scaled + inner) @ self.whiten.T @ self.whiten
        return self.loc + (outer - inside @ scaled.T) / jnp.sqrt(self.precision)

    def distribution(self) -> StructuredNormal:
        """As a NumPyro distribution."""
        if self.whiten is None:
            return StructuredNormal(
                self.loc, precision=ops.Diag(self.root + self.precision, ops.psd)
            )
        return StructuredNormal(self.loc, precision=ops.LowRankPlusDiag(self.root, self.precision))


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
        change = TaskPosterior(found, loc, precision).loc - here
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
    variance = square / max(inner.num_steps - 1, 1)
    diagonal = jnp.minimum(1 / jnp.maximum(variance, jnp.finfo(loc.dtype).tiny), inner.most)
    return Quadratic(diagonal, diagonal * mean)
