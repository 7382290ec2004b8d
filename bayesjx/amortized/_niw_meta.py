"""Few-shot learning by a hierarchical Bayesian model: NIW-Meta."""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from .._core import (
    check_flag,
    check_key,
    compiled,
    constrained_field,
    known_field,
    learnable,
    path_name,
    refuse_where,
    whole_number,
)
from ..likelihoods import held, Likelihood
from ._niw_checks import checked_network, checked_task
from ._niw_episode import Episode, Inner, quadratic, TaskPosterior
from ._niw_posterior import AdaptedNetwork
from ._niw_terms import expected_kl, NIW

CURVATURES = ("low_rank", "diagonal", "iterates")


class NIWMeta(eqx.Module):
    r"""A network whose weights vary from task to task: what all tasks have in common.

    The random weights of task $i$ are $\theta_i \sim N(\mu, \Sigma)$, and $(\mu, \Sigma)$ has a
    normal-inverse-Wishart distribution with a diagonal scale matrix, which `niw_meta` fits to many
    tasks. `adapt` gives the posterior of a new task's weights from a few rows, in closed form:
    $V_i = (A_i + n V^{-1})^{-1}$ and $m_i = V_i (h_i + n V^{-1} m)$, where
    $\frac12 \theta^\top A_i \theta - h_i^\top \theta$ is the task's loss around where `inner_steps`
    steps from $m$ lead. Of these no derivatives are taken and nothing is kept, so that memory does
    not grow with their number.

    With `curvature="low_rank"` $A_i$ is the generalised Gauss-Newton matrix, which for a few rows
    has a low rank, with all correlations of weights; steps are Gauss-Newton steps, shortened where
    needed, without a learning rate. It takes memory for `n p d` numbers, of `n` rows, `p` outputs
    and `d` random weights: for large networks make the last layers random by `where`, or use
    `"diagonal"`, its diagonal where gradient descent leads. `"iterates"` is the published rule:
    mean and reciprocal variance of the iterates of Langevin dynamics, noisy if these are few.

    Args:
        network: a callable Equinox module of one input, with values of shape `()` or `(p,)`. Where
            it is now training starts. Dropout is off.
        likelihood: from values `(n,)` or `(n, p)` to a NumPyro distribution of the targets, such as
            `likelihoods.Gaussian(0.1)`, whose noise is learnt, or
            `lambda f: dist.Categorical(logits=f)`.
        where: which leaves are random, from the network to a leaf, a node or a list of them; by
            default all floating-point arrays. The others are frozen.
        task_scale: standard deviation of weights between tasks to start with.
        curvature: `"low_rank"`, `"diagonal"` or `"iterates"`.
        inner_steps: steps before the closed form.
        inner_lr: learning rate of steps on the mean loss of a row; not for `"low_rank"`.
        num_probes: random vectors that estimate the diagonal (Hutchinson); None for the exact one.
        max_curvature: what the reciprocal variance of iterates is clipped to.

    Raises:
        ValueError: no such network, no random leaf, or options out of range.

    References:
        Kim and Hospedales (2024), "A hierarchical Bayesian model for few-shot meta learning", ICLR.
        The quadratic keeps the gradient where the inner steps end, and Gauss-Newton steps are ours.
    """

    loc: Float[Array, " d"]
    likelihood: Any
    flags: tuple[bool, ...] = eqx.field(static=True)
    shapes: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    structure: Any = eqx.field(static=True)
    rest: Any = eqx.field(static=True)
    inner: Inner = eqx.field(static=True)
    scale: Float[Array, " d"] = constrained_field(constraints.positive)
    excess: Float[Array, ""] = constrained_field(constraints.softplus_positive)
    frozen: tuple[Array, ...] = known_field()

    def __init__(
        self,
        network: Any,
        likelihood: Likelihood,
        *,
        where: Any = None,
        task_scale: Any = 0.1,
        curvature: str = "low_rank",
        inner_steps: int = 3,
        inner_lr: float = 0.01,
        num_probes: int | None = None,
        max_curvature: float = 1e3,
    ):
        checked_network("NIWMeta", network, likelihood)
        arrays, self.rest = eqx.partition(eqx.nn.inference_mode(network), eqx.is_array)
        chosen = learnable(arrays, where, argument="NIWMeta: where", root="the network")
        leaves, self.structure = jax.tree_util.tree_flatten_with_path(arrays)
        self.flags = tuple(bool(flag) for flag in jax.tree.leaves(chosen))
        paired = list(zip(self.flags, leaves, strict=True))
        random = [leaf for flag, (_, leaf) in paired if flag]
        _check_types([(path_name(path, "network"), leaf) for flag, (path, leaf) in paired if flag])
        self.frozen = tuple(leaf for flag, (_, leaf) in paired if not flag)
        self.shapes = tuple(leaf.shape for leaf in random)
        self.loc = jnp.concatenate([jnp.ravel(leaf) for leaf in random])
        self.excess = jnp.ones((), self.loc.dtype)
        wide = _positive("task_scale", task_scale)
        degrees = self.excess + (self.loc.size + 1)
        self.scale = jnp.full(self.loc.shape, degrees * wide**2, self.loc.dtype)
        self.likelihood = held(likelihood)
        self.inner = _inner(curvature, inner_steps, inner_lr, num_probes, max_curvature)

    @property
    def precision(self) -> Float[Array, " d"]:
        r"""$E[\Sigma^{-1}] = n V^{-1}$ of weights between tasks, its diagonal, shape `(d,)`."""
        return self.niw(jnp.inf).precision

    def niw(self, strength: Any) -> NIW:
        """The distribution of mean and covariance of the weights of tasks."""
        count = jnp.asarray(strength, self.loc.dtype)
        return NIW(self.loc, count, self.scale, self.excess)

    def network(self, weights: Float[Array, " d"]) -> Any:
        """The network with these random weights.

        Args:
            weights: random leaves, flattened and joined in their order, shape `(d,)`.

        Raises:
            ValueError: another shape.
        """
        if jnp.shape(weights) != self.loc.shape:
            raise ValueError(
                f"network: weights must have shape {self.loc.shape}, got {jnp.shape(weights)}"
            )
        ends = np.cumsum([math.prod(shape) for shape in self.shapes])[:-1]
        parts = zip(jnp.split(weights, ends), self.shapes, strict=True)
        random, frozen = iter([part.reshape(shape) for part, shape in parts]), iter(self.frozen)
        leaves = [next(random) if flag else next(frozen) for flag in self.flags]
        return eqx.combine(jax.tree.unflatten(self.structure, leaves), self.rest)

    def adapt(
        self,
        key: jax.Array,
        x: Any,
        y: Any,
        *,
        mask: Any = None,
        num_samples: int = 32,
        all_classes: bool = True,
    ) -> AdaptedNetwork:
        """The posterior of the network of a task given its rows.

        Under `jax.vmap` it is that of many tasks.

        Args:
            key: for weights that predictions are averaged over.
            x: inputs of the support set, shape `(n, ...)`.
            y: its targets, shape `(n,)`, or `(n, ...)` as the likelihood says.
            mask: rows that count, booleans of shape `(n,)`; by default all. What the others hold,
                such as NaN or labels of -1, does not matter.
            num_samples: how many networks predictions are averaged over.
            all_classes: whether it is an error that `y`, where it is known, has no example of a
                class.

        Raises:
            ValueError: no rows, shapes that disagree, NaN, targets outside of the likelihood's
                support, such as labels that are no class, or a class without an example.
            RuntimeError: under `jit`, such values.
        """
        check_key(key)
        number = whole_number("adapt: num_samples", num_samples)
        check_flag("adapt: all_classes", all_classes)
        x, y, mask = checked_task("adapt", self, x, y, mask, all_classes)
        return _adapted(self, key, x, y, mask, number)

    def episode(self, x: jax.Array, y: jax.Array, mask: jax.Array) -> Episode:
        """A task of this network, unchecked."""
        return Episode(self._value, self.likelihood, x, y, mask)

    def _value(self, weights: jax.Array, x: jax.Array) -> jax.Array:
        return self.network(weights)(x)


def task_bound(
    meta: NIWMeta,
    key: jax.Array,
    x: jax.Array,
    y: jax.Array,
    mask: jax.Array,
    strength: Any,
    num_samples: int,
) -> tuple[Float[Array, ""], TaskPosterior, Float[Array, "s d"]]:
    """Evidence lower bound of a task given the global distribution, in nats.

    Returns:
        the bound, the posterior of the weights, and draws of it that the bound is the mean over.
    """
    key_inner, key_draws = jax.random.split(key)
    episode, q = meta.episode(x, y, mask), meta.niw(strength)
    of_task = quadratic(key_inner, episode, meta.inner, q.loc, q.precision)
    found = TaskPosterior(of_task, q.loc, q.precision)
    draws = found.sample(key_draws, num_samples)
    divergence = expected_kl(q, found.loc, found.variance(), found.logdet())
    return -jnp.mean(jax.vmap(episode.loss)(draws)) - divergence, found, draws


@compiled
def _adapted(
    meta: NIWMeta, key: jax.Array, x: jax.Array, y: jax.Array, mask: jax.Array, number: int
) -> AdaptedNetwork:
    bound, found, draws = task_bound(meta, key, x, y, mask, jnp.inf, number)
    return AdaptedNetwork(meta, found, draws, bound)


def _inner(
    curvature: Any, inner_steps: Any, inner_lr: Any, num_probes: Any, max_curvature: Any
) -> Inner:
    if curvature not in CURVATURES:
        names = ", ".join(f'"{name}"' for name in CURVATURES)
        raise ValueError(f"NIWMeta: curvature must be one of {names}; got {curvature!r}")
    least = 2 if curvature == "iterates" else 1
    steps = whole_number("NIWMeta: inner_steps", inner_steps, least)
    if num_probes is not None:
        if curvature != "diagonal":
            raise ValueError(
                f'NIWMeta: num_probes is for curvature="diagonal", which is {curvature!r}'
            )
        num_probes = whole_number("NIWMeta: num_probes", num_probes, 2)
    rate, most = _positive("inner_lr", inner_lr), _positive("max_curvature", max_curvature)
    return Inner(curvature, steps, rate, num_probes, most)


def _positive(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise ValueError(f"NIWMeta: {name} must be a number, got {value!r:.60}")
    bad = lambda v: ~((v > 0) & (v < np.inf))  # noqa: E731
    return float(refuse_where(value, bad, f"NIWMeta: {name} must be positive, got {value}"))


def _check_types(random: list[tuple[str, Any]]) -> None:
    if not random:
        raise ValueError("NIWMeta: where chose no floating-point array of the network")
    types = sorted({str(leaf.dtype) for _, leaf in random})
    if len(types) > 1 or not jnp.issubdtype(random[0][1].dtype, jnp.floating):
        raise ValueError(
            "NIWMeta: the random leaves of network must be real and of one type; got "
            + ", ".join(f"{name}: {leaf.dtype}" for name, leaf in random[:8])
        )
