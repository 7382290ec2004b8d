"""One random choice of a program: its distribution, its plates, its value."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
from jax import random
from numpyro.distributions import Distribution

from ._cost import (
    Frame,
    Frames,
    reduce_to,
    Term,
)
from ._distributions import (
    draw,
    elementwise,
    elementwise_family,
    match_dtype,
)
from ._strategy import (
    AbstractStrategy,
)


class Site:
    """A latent sample site as the strategies see it.

    A site inside `particles` appears as one site with the particles as leading axes, each of
    them a plate; then `distribution` holds those of the particles stacked, to be used through
    `apply`.

    Attributes:
        address: `"call/name"`, unique within an objective.
        distribution: the distribution that the value is drawn from, without masks and strategy.
        frames: the plates around the site, those of particles included.
        strategy: the gradient strategy.
        key: of the draw; that of the first particle inside `particles`.
        particles: the particle plates, outermost first; their dims are adjacent.
        in_loop: whether the site is inside scan or cond.
        loop: `"scan"` or `"reverse scan"` for a site whose leading axis is the time of a scan.
    """

    def __init__(
        self,
        address: str,
        distribution: Distribution,
        frames: Frames,
        strategy: AbstractStrategy,
        key: jax.Array,
        value: jax.Array,
        in_loop: bool = False,
        loop: str | None = None,
        particles: tuple[Frame, ...] = (),
    ):
        self.address = address
        self.distribution = distribution
        self.frames = frames
        self.strategy = strategy
        self.key = key
        self.stacked_value = value
        self.in_loop = in_loop
        self.loop = loop
        self.particles = particles

    @property
    def name(self) -> str:
        """The name in the user's program."""
        return self.address.rpartition("/")[2]

    @property
    def value(self) -> jax.Array:
        """The draw, gradients stopped unless the strategy is pathwise; particles come first."""
        return self.pad(self.stacked_value)

    @property
    def family(self) -> Distribution:
        """The elements' family without wrappers, to look at; see `parameter` for its arrays."""
        return elementwise_family(self.distribution)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the grid of independent elements: the plates' axes, then those of `to_event`."""
        return self._lead + elementwise(self.distribution).batch_shape

    @property
    def event_axes(self) -> int:
        """How many trailing axes of `shape` come from `to_event`."""
        return len(elementwise(self.distribution).batch_shape) - len(self.distribution.batch_shape)

    @property
    def _lead(self) -> tuple[int, ...]:
        if not self.particles:
            return ()
        gap = -self.particles[-1].dim - 1 - len(self.distribution.batch_shape)
        return tuple(frame.size for frame in self.particles) + (1,) * gap

    @property
    def _batch_rank(self) -> int:
        return len(self._lead) + len(self.distribution.batch_shape)

    def without_values(self) -> Site:
        """The site with shapes in place of tracers, to look at once their trace has ended."""

        def shape(x: Any) -> Any:
            return jax.typeof(x) if isinstance(x, jax.core.Tracer) else x

        site = copy.copy(self)
        site.__dict__ |= jax.tree.map(
            shape,
            {
                name: getattr(self, name)
                for name in ("distribution", "strategy", "key", "stacked_value")
            },
        )
        return site

    def pad(self, stacked: jax.Array) -> jax.Array:
        """Moves leading particle axes to their plates' dims."""
        depth = len(self.particles)
        return stacked.reshape(self._lead + stacked.shape[depth:]) if depth else stacked

    def unpad(self, value: jax.Array) -> jax.Array:
        """The inverse of `pad`."""
        depth = len(self.particles)
        if not depth:
            return value
        return value.reshape(value.shape[:depth] + value.shape[len(self._lead) :])

    def apply(self, fn: Callable[..., jax.Array], *stacked: Any) -> jax.Array:
        """`fn(distribution, *stacked)` of each particle, particle axes moved to their plates."""
        for _ in self.particles:
            fn = jax.vmap(fn)
        return self.pad(fn(self.distribution, *stacked))

    def keys(self, key: jax.Array) -> jax.Array:
        """A key per particle, to be handed to `apply`."""
        sizes = tuple(frame.size for frame in self.particles)
        return random.split(key, sizes) if sizes else key

    def parameter(self, name: str) -> jax.Array:
        """The family's parameter `name`, broadcast to `shape`."""

        def one(distribution: Distribution) -> jax.Array:
            value = getattr(elementwise_family(distribution), name)
            return jnp.broadcast_to(value, elementwise(distribution).batch_shape)

        return self.apply(one)

    def log_prob(self, value: jax.Array) -> jax.Array:
        """Log probability of each element, shape `shape`, differentiable in the parameters only."""
        value = jax.lax.stop_gradient(value)

        def one(distribution: Distribution, value: jax.Array) -> jax.Array:
            log_prob = jnp.asarray(elementwise(distribution).log_prob(value))
            return match_dtype(log_prob, (distribution, value))

        return self.apply(one, self.unpad(value))

    def support(self) -> jax.Array:
        """All values that an element can take, shape `(k,) + value.shape`, in the value's dtype."""
        stacked = self.distribution
        fn = lambda distribution: elementwise(distribution).enumerate_support(expand=True)  # noqa: E731
        for _ in self.particles:
            fn = jax.vmap(fn)
        values = jnp.moveaxis(fn(stacked), len(self.particles), 0)
        return jax.vmap(self.pad)(values).astype(self.stacked_value.dtype)

    def draw(self, key: jax.Array) -> jax.Array:
        """Another draw from the distribution, of the shape of `value`; gradients stopped."""
        value = self.apply(lambda distribution, key: draw(distribution, key)[0], self.keys(key))
        return jax.lax.stop_gradient(value)

    def plate_axes(self, frames: Frames) -> set[int]:
        """The axes of `shape` that belong to the plates in `frames`."""
        return {self._batch_rank + frame.dim for frame in frames}

    def coupled_axes(self, frames: Frames) -> list[int]:
        """Axes of `shape` with more than one element that are no axis of the plates in `frames`."""
        own = self.plate_axes(frames)
        return [i for i, size in enumerate(self.shape) if size > 1 and i not in own]

    def to_plates(self, values: jax.Array) -> jax.Array:
        """Sums an array of shape `shape` over all axes that belong to no plate of the site."""
        return self.to_frames(values, self.frames)

    def to_frames(self, values: jax.Array, frames: Frames) -> jax.Array:
        """Sums an array of shape `shape` over all axes but those of the plates in `frames`."""
        axes = tuple(range(values.ndim - self.event_axes, values.ndim))
        return reduce_to(jnp.sum(values, axis=axes) if axes else values, frames)

    def from_plates(self, values: jax.Array, lead: int = 0) -> jax.Array:
        """Reshapes an array over plates (after `lead` leading axes) to broadcast with `shape`."""
        pad = self._batch_rank - (values.ndim - lead)
        shape = values.shape[:lead] + (1,) * pad + values.shape[lead:] + (1,) * self.event_axes
        return values.reshape(shape)

    def gradient_term(self, coefficient: jax.Array, signal: jax.Array, frames: Frames) -> Term:
        """A term of value zero whose gradient is that of `coefficient` times `signal`.

        Args:
            coefficient: differentiable, of shape `shape` (or with extra axes already summed).
            signal: broadcasts with `coefficient`; its gradient is stopped.
            frames: the plates that the term keeps.
        """
        zero = coefficient - jax.lax.stop_gradient(coefficient)
        return self.zero_term(zero * jax.lax.stop_gradient(signal), frames)

    def zero_term(self, values: jax.Array, frames: Frames) -> Term:
        """Wraps values that are zero and carry a gradient, shape `shape`, as a cost term."""
        return Term(self.to_frames(values, frames), frames=frames, label=f"{self.address}:gradient")

    def explain(self, problem: str, remedy: str) -> ValueError:
        """An error that names site, strategy and plates."""
        plates = ", ".join(f"{f.name!r} (dim {f.dim}, size {f.size})" for f in sorted(self.frames))
        where = f"in the plates {plates}" if plates else "outside any plate"
        return ValueError(
            f"site {self.name!r} with strategy {self.strategy.name} ({where}): {problem}. {remedy}"
        )
