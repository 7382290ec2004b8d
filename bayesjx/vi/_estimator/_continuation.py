"""The rest of a program as a function of one site's value: the tool of all replay strategies."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ._cost import (
    Cost,
    Frame,
    Frames,
    reduce_to,
    Term,
)
from ._provenance import (
    Staged,
)
from ._site import (
    Site,
)

_REMEDY = (
    "Use lanes=True (one element at a time), vi.disarm or vi.rloo (joint), vi.reinforce, "
    "or move the site or the cost into a shared plate"
)


class Continuation:
    """The rest of the objective after a site, run under as many values of the site as you like.

    All runs share their random numbers, and one trace serves all values by `jax.vmap`.

    Args:
        site: the site being replayed.
        surrogate: value to cost whose gradient accounts for all later sites.
        pure: value to cost of a plain forward run.
        distribution: like `pure`, with the elementwise log probability of the value in that run.
    """

    def __init__(
        self,
        site: Site,
        surrogate: Callable[[jax.Array], Cost],
        pure: Callable[[jax.Array], Cost],
        distribution: Callable[[jax.Array], tuple[Cost, jax.Array]],
    ):
        self._site = site
        self._surrogate = surrogate
        self._pure = pure
        self._distribution = distribution

    def surrogate(self, values: jax.Array) -> Branches:
        """Costs at `values` (shape `(k,) + site.value.shape`), gradients included."""
        return self._branches(Staged(self._surrogate, values[0]), values)

    def pure(self, values: jax.Array) -> Branches:
        """Costs at `values`, values only: no gradient flows through them."""
        values = jax.lax.stop_gradient(values)
        return self._branches(Staged(self._pure, values[0]).without_gradient(), values)

    def _branches(self, staged: Staged, values: jax.Array) -> Branches:
        return Branches(self._site, len(values), _map(staged, values), _dependent(staged))

    def phantoms(self, values: jax.Array, lanes: bool = False) -> tuple[jax.Array, Frames]:
        """Costs of each element when it alone takes other values than the draw.

        Without `lanes` all elements are set at once, which is right if the plates of the site
        separate them; with it, elements that no plate separates are set one at a time, all
        others staying at the draw.

        Args:
            values: shape `(k,) + site.value.shape`.
            lanes: set coupled elements one at a time: `k` times their number of runs.

        Returns:
            costs of shape `(k,)` + a shape that broadcasts with `site.shape`, gradients stopped,
            and the plates in which they are local.

        Raises:
            ValueError: elements are coupled and `lanes` is False.
        """
        site = self._site
        if lanes:
            return self._lane_phantoms(values)
        return self.pure(values).local_elements(), site.frames

    def _lane_phantoms(self, values: jax.Array) -> tuple[jax.Array, Frames]:
        """Sets coupled elements one at a time.

        In a scan, later steps keep their values too, so the run is weighed by how much likelier
        the changed step makes them; this keeps the estimate unbiased and plain runs suffice.
        """
        site = self._site
        in_scan = site.loop is not None
        run = self._distribution if in_scan else lambda value: (self._pure(value), ())
        staged = Staged(run, values[0]).without_gradient()
        dependent = _dependent(staged, lambda output: output[0])
        frames = _shared_frames(site, staged.shape[0], dependent)
        axes = site.coupled_axes(frames)
        here = site.log_prob(site.value)

        def at(value: jax.Array, mask: jax.Array) -> jax.Array:
            cost, log_prob = staged(jnp.where(mask, value, site.value))
            local = _sum_to(cost, dependent, frames)
            if not in_scan:
                return local
            change = jnp.where(_later(site, mask), log_prob - here, 0.0)
            return local * jnp.exp(site.to_frames(change, frames))

        costs = jax.vmap(jax.vmap(at, (None, 0)), (0, None))(values, _lane_masks(site, axes))
        costs = site.from_plates(costs, lead=2)
        costs = _unfold_lanes(costs, [site.shape[i] for i in axes], axes)
        return jax.lax.stop_gradient(costs), frames


class Branches:
    """The cost of the rest of a program under `k` values of a site.

    Attributes:
        num_branches: the number of values, `k`.
        cost: the terms, each with a leading axis of size `k`.
        dependent: per term, whether it depends on the site's value.
    """

    def __init__(self, site: Site, num_branches: int, cost: Cost, dependent: tuple[bool, ...]):
        self.site = site
        self.num_branches = num_branches
        self.cost = cost
        self.dependent = dependent

    def weighted(self, weights: jax.Array | float) -> Cost:
        """The sum over branches with the given weights; terms that do not depend on the site
        enter once.

        Args:
            weights: a number for all branches, or an array of shape `(k,) + site.shape` (then
                every dependent term must lie in all plates of the site).
        """
        terms = []
        for term, depends in zip(self.cost.terms, self.dependent, strict=True):
            signals: dict[Frame, jax.Array] = {}
            if not depends:
                value = term.value[0]
                signals = {frame: signal[0] for frame, signal in term.signals.items()}
            elif isinstance(weights, jax.Array):
                # The signals' baselines might depend on the site through the weights: dropped.
                value = _weigh(self._local_weights(weights, term), term.value)
            else:
                value = weights * jnp.sum(term.value, axis=0)
                signals = {f: weights * jnp.sum(s, axis=0) for f, s in term.signals.items()}
            terms.append(dataclasses.replace(term, value=value, signals=signals))
        records = {name: jnp.mean(value, axis=0) for name, value in self.cost.records.items()}
        return Cost(tuple(terms), records)

    def local(self) -> dict[Frames, jax.Array]:
        """Dependent costs per set of plates shared with the site; leading axis `k`, no gradient."""
        groups: dict[Frames, jax.Array] = {}
        for term, depends in zip(self.cost.terms, self.dependent, strict=True):
            if depends:
                shared = frozenset(term.frames & self.site.frames)
                value = jax.vmap(partial(reduce_to, keep=shared))(term.value)
                value = jax.lax.stop_gradient(value)
                groups[shared] = groups[shared] + value if shared in groups else value
        return groups

    def local_elements(self, frames: Frames | None = None) -> jax.Array:
        """Dependent costs per element, shape `(k,)` + a shape that broadcasts with `site.shape`.

        Args:
            frames: the plates to keep; None asks for all plates of the site and refuses costs
                or elements that they do not separate.
        """
        if frames is None:
            frames = self.site.frames
            self._require_separated()
        total = jax.vmap(partial(_sum_to, dependent=self.dependent, frames=frames))(self.cost)
        total = jnp.broadcast_to(total, (self.num_branches,) + total.shape[1:])
        return jax.lax.stop_gradient(self.site.from_plates(total, lead=1))

    def _require_separated(self) -> None:
        _require_no_coupling(self.site)
        for term, depends in zip(self.cost.terms, self.dependent, strict=True):
            if depends:
                _require_local(self.site, term)

    def _local_weights(self, weights: jax.Array, term: Term) -> jax.Array:
        _require_no_coupling(self.site)
        _require_local(self.site, term)
        # The term may lack plates of one element: their axes must go, or they would broadcast.
        shared = frozenset(self.site.frames & term.frames)
        return jax.vmap(partial(self.site.to_frames, frames=shared))(weights)


def _later(site: Site, mask: jax.Array) -> jax.Array:
    """Which elements of a scan's site come after the one in `mask`; broadcasts with `shape`."""
    steps = jnp.any(mask.reshape(mask.shape[0], -1), axis=1)
    up_to = jnp.cumsum(steps[::-1])[::-1] if site.loop == "reverse scan" else jnp.cumsum(steps)
    return (up_to - steps > 0).reshape((-1,) + (1,) * (len(site.shape) - 1))


def _dependent(
    staged: Staged, cost_of: Callable[[Any], Cost] = lambda output: output
) -> tuple[bool, ...]:
    return tuple(
        any("argument" in sources for sources in jax.tree.leaves(term, is_leaf=_is_set))
        for term in cost_of(staged.depends()).terms
    )


def _map(staged: Staged, values: jax.Array) -> Any:
    """`jax.vmap`, but a single value runs without it: XLA then shares work with other runs."""
    if len(values) > 1:
        return jax.vmap(staged)(values)
    return jax.tree.map(lambda leaf: leaf[None], staged(values[0]))


def _is_set(leaf: object) -> bool:
    return isinstance(leaf, frozenset)


def _large(frames: Frames) -> Frames:
    return frozenset(frame for frame in frames if frame.size > 1)


def _require_no_coupling(site: Site) -> None:
    if site.coupled_axes(site.frames):
        raise site.explain(
            f"its {site.shape} elements are set together, but not all axes are plates", _REMEDY
        )


def _require_local(site: Site, term: Term) -> None:
    if missing := _large(site.frames) - term.frames:
        names = ", ".join(sorted(repr(frame.name) for frame in missing))
        raise site.explain(
            f"the cost term {term.label!r} depends on it but is outside the plate {names}, so the "
            "elements of the plate cannot be set all at once",
            _REMEDY,
        )


def _shared_frames(site: Site, cost: Cost, dependent: tuple[bool, ...]) -> Frames:
    """The plates of the site that all dependent terms share."""
    frames = site.frames
    for term, depends in zip(cost.terms, dependent, strict=True):
        if depends:
            frames = frames & term.frames
    return frozenset(frames)


def _sum_to(cost: Cost, dependent: tuple[bool, ...], frames: Frames) -> jax.Array:
    """The dependent terms summed to the given plates, one scalar or array over these plates."""
    kept = [term for term, depends in zip(cost.terms, dependent, strict=True) if depends]
    if not kept:
        return jnp.zeros((1,) * _rank(frames))
    return sum((reduce_to(t.value, frames) for t in kept[1:]), reduce_to(kept[0].value, frames))


def _rank(frames: Frames) -> int:
    return max((-frame.dim for frame in frames), default=0)


def _weigh(weights: jax.Array, values: jax.Array) -> jax.Array:
    """Sum over the leading axis of weights (over plates) times values; 0 times inf is 0."""
    shape = weights.shape[:1] + (1,) * (values.ndim - weights.ndim) + weights.shape[1:]
    weights = weights.reshape(shape)
    impossible = weights == 0
    values = jnp.where(impossible, 0.0, values)
    return jnp.sum(weights * values, axis=0)


def _lane_masks(site: Site, axes: list[int]) -> jax.Array:
    """One boolean mask of the value's shape per coupled element: the element alone."""
    sizes = [site.shape[i] for i in axes]
    masks = jnp.ones((1,) + (1,) * len(site.shape), bool)
    for axis, size in zip(axes, sizes, strict=True):
        shape = [1] * (len(site.shape) + 1)
        shape[0], shape[axis + 1] = size, size
        one = jnp.eye(size, dtype=bool).reshape(shape)
        joint = masks[:, None] & one[None]
        masks = joint.reshape((-1,) + joint.shape[2:])
    extra = site.value.ndim - len(site.shape)  # the family's own event axes
    return masks.reshape(masks.shape + (1,) * extra)


def _unfold_lanes(costs: jax.Array, sizes: list[int], axes: list[int]) -> jax.Array:
    """Moves the lane axis of `(k, lanes, ...)` to the axes that the lanes stand for."""
    costs = costs.reshape(costs.shape[:1] + tuple(sizes) + costs.shape[2:])
    for i in reversed(range(len(axes))):
        costs = jnp.squeeze(jnp.swapaxes(costs, 1 + i, 2 + i + axes[i]), axis=1 + i)
    return costs


__all__ = ["Branches", "Continuation"]
