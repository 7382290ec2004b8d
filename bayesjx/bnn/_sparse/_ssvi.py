"""Sparse subspace variational inference: normal weights on an active set that moves."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int

from ..._core import (
    Algorithm,
    from_real,
    gradient_algorithm,
    GradientState,
    known,
    Step,
    to_real,
    unconstrained,
    whole_number,
)
from .._arguments import check_optimizer, positive
from ._arguments import one_of, real
from ._criteria import CRITERIA
from ._evaluate import weights_of
from ._mean_field import SparseMeanField
from ._moves import move
from ._weight import SparseWeight, unit_norms

GROWTHS = ("sampled", "mean")


class Subspace(NamedTuple):
    """What `ssvi` moves beside its parameters, the field `natural` of its `GradientState`.

    Attributes:
        indices: of the active weights of each layer, see `SparseWeight`.
        step: the number of steps so far.
        growth: sums of gradients of all weights of a layer, shape `(K, N)`; None for layers that
            are dense, and for all where moves look at one minibatch.
    """

    indices: tuple[Int[Array, ...], ...]
    step: Int[Array, ""]
    growth: tuple[Float[Array, ...] | None, ...]


class SSVIInfo(NamedTuple):
    """Info of a step of `ssvi`.

    Attributes:
        objective: the evidence lower bound, tempered as it is trained, of the minibatch.
        gradient_norm: of the parameters' gradient; 0 in steps that look for new units.
        num_changed: units that a move has replaced.
    """

    objective: Float[Array, ""]
    gradient_norm: Float[Array, ""]
    num_changed: Int[Array, ""]


class Moves(NamedTuple):
    """When and how the subspace moves; see `ssvi`.

    Attributes:
        every: steps from move to move, 0 for none.
        until: step from which on there is none.
        swap: share of the active units that the first one removes, or a function of the step.
        criterion: of removal.
        rate: of exponential criteria.
        growth: `"sampled"` or `"mean"`.
        num_batches: minibatches of one move.
        new_scale: standard deviation of new weights, or None.
    """

    every: int
    until: int
    swap: float | Callable[[Any], Any]
    criterion: str
    rate: float
    growth: str
    num_batches: int
    new_scale: float | None

    def looks(self, step: Any) -> Any:
        """Whether a step takes the gradients of all weights."""
        return (step % self.every >= self.every - self.num_batches) & (step < self.until)

    def fraction(self, step: Any) -> Float[Array, ""]:
        """Share of the active units that the move at a step removes."""
        if callable(self.swap):
            return jnp.clip(jnp.asarray(self.swap(step), float), 0, 1)
        return 0.5 * self.swap * (1 + jnp.cos(jnp.pi * step.astype(float) / self.until))


def ssvi(
    distribution: Any,
    optimizer: Any,
    *,
    num_data: int,
    num_steps: int,
    kl_weight: Any = 1.0,
    move_every: int | None = 100,
    swap: Any = 0.3,
    stop: float = 0.75,
    criterion: str = "snr_mean_abs",
    rate: float = 1.0,
    growth: str = "sampled",
    growth_batches: int = 1,
    new_scale: float | None = None,
) -> Algorithm:
    """Sparse subspace variational inference (SSVI), for `bayesjx.fit`.

    Stochastic gradient ascent of the evidence lower bound over the active weights. Every
    `move_every` steps the least important units of each layer are removed, and as many with the
    largest gradients come in their place, within the compiled program. Memory and time are those of
    the active weights, but for the steps at which the subspace moves: they take the gradient of all
    weights, and train nothing.

    ```python
    network = bnn.sparsify(key, eqx.nn.MLP(784, 10, 1024, 2, key=key), density=0.1)
    q = bnn.sparse_mean_field(network, lambda f: dist.Categorical(logits=f))
    algorithm = bnn.ssvi(q, optax.adam(3e-3), num_data=len(x), num_steps=2000)
    result = bayesjx.fit(key, algorithm, algorithm.init(), 2000, data=(x, y), batch_size=128)
    posterior = q.trained(result.state).posterior(key)
    ```

    The gradient is that of the bound divided by `num_data`.

    Args:
        distribution: where to start, of `sparse_mean_field`.
        optimizer: Optax gradient transformation. Its moments of units that come are zeroed.
            Standard deviations move on a logarithmic scale.
        num_data: number of all data, of which minibatches are drawn.
        num_steps: how many steps `fit` will make, for the schedules.
        kl_weight: of the divergence from the prior, see `SparseMeanField.elbo`; or a schedule of
            Optax, such as `optax.linear_schedule(0.0, 0.1, 1000)`.
        move_every: steps from one move to the next; None for a static subspace.
        swap: share of the active units of each layer that the first move removes; it falls as a
            cosine. Or a function of the step.
        stop: share of the steps after which the subspace stays.
        criterion: by which units are removed, see `removal_score`.
        rate: of the exponential criteria.
        growth: whether the gradients by which units are added are taken with noise, `"sampled"`,
            or at the means, which lowers their variance, `"mean"`.
        growth_batches: minibatches over which they are averaged: as many steps train nothing, and
            a dense gradient is kept if they are more than one.
        new_scale: standard deviation of new weights, whose mean is 0; None for the geometric mean
            of those of the layer.

    Returns:
        `init() -> GradientState`, whose field `natural` is a `Subspace`, and
        `step(key, state, x, y) -> (GradientState, SSVIInfo)`. `distribution.trained(state)` is the
        result.

    Raises:
        ValueError: options out of range; when traced, what `SparseMeanField.elbo` raises.

    References:
        Li, Miao, Qiu and Zhang (2024), "Training Bayesian neural networks with sparse subspace
        variational inference", ICLR, algorithm 1.
    """
    if not isinstance(distribution, SparseMeanField):
        raise ValueError(
            "ssvi: distribution must be what sparse_mean_field(network, likelihood) returns, got "
            f"{type(distribution).__name__}"
        )
    check_optimizer("ssvi", optimizer)
    num_data = whole_number("ssvi: num_data", num_data)
    moves = Moves(
        0 if move_every is None else whole_number("ssvi: move_every", move_every),
        _until(num_steps, stop),
        swap if callable(swap) else real("swap", swap, 0, 1, "a number in (0, 1] or a function"),
        one_of("criterion", criterion, tuple(CRITERIA)),
        real("rate", rate, 0, 1e30, "a positive number"),
        one_of("growth", growth, GROWTHS),
        whole_number("ssvi: growth_batches", growth_batches),
        None if new_scale is None else real("new_scale", new_scale, 0, 1e30, "a positive number"),
    )
    if moves.every and moves.num_batches >= moves.every:
        raise ValueError(
            f"ssvi: growth_batches must be below move_every, {moves.every}, or nothing is trained; "
            f"got {growth_batches}"
        )
    weight: Any = kl_weight
    if not callable(weight):
        dtype = distribution.prior_scale.dtype
        weight = positive("ssvi", "kl_weight", weight, dtype, zero=True)
    blank, subspace = distribution.at(None), _subspace(distribution, moves)
    loss = Partial(_loss, num_data, weight)
    inner = gradient_algorithm(loss, blank, optimizer, natural=subspace)
    fixed, descend = known(blank, unconstrained(blank)), _parts(inner.step)
    step = Step(_step, *descend, num_data, weight, fixed, optimizer, moves)
    return Algorithm(inner.init, step)


def _loss(
    num_data: int,
    kl_weight: Any,
    key: Any,
    blank: SparseMeanField,
    subspace: Subspace,
    x: Any,
    y: Any,
) -> tuple[jax.Array, jax.Array, Subspace]:
    """The negative bound of one observation, the bound, and the subspace with its step counted."""
    q = blank.at(subspace.indices)
    weight = kl_weight(subspace.step) if callable(kl_weight) else kl_weight
    bound = q.elbo(x, y, num_data, key=key, kl_weight=weight)
    return -bound / num_data, bound, subspace._replace(step=subspace.step + 1)


def _step(
    gradient_step: Callable[..., Any],
    parts: tuple[Any, ...],
    num_data: int,
    kl_weight: Any,
    fixed: Any,
    optimizer: Any,
    moves: Moves,
    key: jax.Array,
    state: GradientState,
    x: Any,
    y: Any,
) -> tuple[GradientState, SSVIInfo]:
    def descend(state: GradientState) -> tuple[GradientState, SSVIInfo]:
        new, info = gradient_step(*parts, key, state, x, y)
        return new, SSVIInfo(info.objective, info.gradient_norm, jnp.zeros((), jnp.int32))

    def look(state: GradientState) -> tuple[GradientState, SSVIInfo]:
        q = eqx.combine(from_real(state.params), fixed).at(state.natural.indices)
        weight = kl_weight(state.natural.step) if callable(kl_weight) else kl_weight
        noise_key = key if moves.growth == "sampled" else None
        data, gradients = dense_gradients(q, noise_key, x, y, num_data)
        bound = data - jnp.asarray(weight, data.dtype) * q.kl().astype(data.dtype)
        new, count = _grown(optimizer, moves, q, state, gradients)
        return new, SSVIInfo(bound, jnp.zeros_like(bound), count)

    if not moves.every:
        return descend(state)
    return lax.cond(moves.looks(state.natural.step), look, descend, state)


def dense_gradients(
    q: SparseMeanField, key: jax.Array | None, x: Any, y: Any, num_data: int | None
) -> tuple[jax.Array, list[Any]]:
    """The data term, and its gradient in all weights of each random layer that is not dense."""
    random = iter(q.weights)
    zeros: list[Any] = []
    for blank in weights_of(q.rest):
        weight = next(random) if blank.mean is None else None
        zeros.append(None if weight is None else _zeros(weight))
    data, gradients = jax.value_and_grad(lambda p: q.data_term(key, x, y, num_data, p))(zeros)
    pairs = zip(weights_of(q.rest), gradients, strict=True)
    return data, [gradient for blank, gradient in pairs if blank.mean is None]


def _grown(
    optimizer: Any, moves: Moves, q: SparseMeanField, state: GradientState, gradients: list[Any]
) -> tuple[GradientState, Int[Array, ""]]:
    """The state with gradients added, and with units moved if they are the last of a move."""
    subspace = state.natural
    add = lambda total, g: g if total is None else total + g  # noqa: E731
    totals = [add(t, g) for t, g in zip(subspace.growth, gradients, strict=True)]
    state = state._replace(natural=subspace._replace(step=subspace.step + 1))
    moved = functools.partial(_moved, optimizer, moves, q)
    if moves.num_batches == 1:
        return moved(totals, state)
    empty = jax.tree.map(jnp.zeros_like, subspace.growth)

    def last(totals: Any) -> tuple[GradientState, Int[Array, ""]]:
        new, count = moved(totals, state)
        return new._replace(natural=new.natural._replace(growth=empty)), count

    def kept(totals: Any) -> tuple[GradientState, Int[Array, ""]]:
        natural = state.natural._replace(growth=tuple(totals))
        return state._replace(natural=natural), jnp.zeros((), jnp.int32)

    return lax.cond(subspace.step % moves.every == moves.every - 1, last, kept, totals)


def _moved(
    optimizer: Any, moves: Moves, q: SparseMeanField, totals: list[Any], state: GradientState
) -> tuple[GradientState, Int[Array, ""]]:
    """The state after a move of each layer that is not dense, and the number of new units."""
    fraction = moves.fraction(state.natural.step - 1)
    options = moves.criterion, moves.rate, moves.new_scale
    weights, masks = [], []
    for weight, total in zip(q.weights, totals, strict=True):
        changed = jnp.zeros(weight.index.shape, bool)
        if total is not None:
            norms = unit_norms(total, weight.block)
            weight, changed = move(weight, norms, fraction, *options)
        weights.append(weight)
        masks.append(changed[:, :, None])
    means, scales = (tuple(getattr(w, name) for w in weights) for name in ("mean", "scale"))
    real_line = to_real(_with_values(q, means, scales))
    old, new = state.params, _with_values(state.params, real_line.means, real_line.scales)
    everywhere = jax.tree.map(lambda leaf: jnp.zeros((1,) * leaf.ndim, bool), old)
    changed = _with_values(everywhere, tuple(masks), tuple(masks))
    params = jax.tree.map(lambda c, a, b: jnp.where(c, b, a), changed, old, new)
    forget = lambda moment, c: jnp.where(c, jnp.zeros_like(moment), moment)  # noqa: E731
    opt_state = optax.tree_utils.tree_map_params(optimizer, forget, state.opt_state, changed)
    natural = state.natural._replace(indices=tuple(weight.index for weight in weights))
    count = sum((jnp.sum(mask, dtype=jnp.int32) for mask in masks), jnp.zeros((), jnp.int32))
    return state._replace(params=params, opt_state=opt_state, natural=natural), count


def _with_values(q: Any, means: Any, scales: Any) -> Any:
    return eqx.tree_at(lambda q: (q.means, q.scales), q, (means, scales))


def _zeros(weight: SparseWeight) -> Float[Array, "K N"] | None:
    """A dense matrix of zeros for weights whose subspace can move, else None."""
    can_move = weight.index.shape[1] < weight.candidates
    return jnp.zeros(weight.size, weight.dtype) if can_move else None


def _subspace(q: SparseMeanField, moves: Moves) -> Subspace:
    kept = moves.every and moves.num_batches > 1
    growth = tuple(_zeros(weight) if kept else None for weight in q.weights)
    return Subspace(tuple(w.index for w in q.weights), jnp.zeros((), jnp.int32), growth)


def _until(num_steps: Any, stop: Any) -> int:
    share = real("stop", stop, 0, 1, "a number above 0 and at most 1")
    return max(1, round(share * whole_number("ssvi: num_steps", num_steps)))


def _parts(step: Any) -> tuple[Any, Any]:
    """Function and parts of a step."""
    return step.function, step.parts
