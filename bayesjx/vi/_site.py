"""One random choice of a program: its law, its plates, its value."""

from __future__ import annotations

from functools import cached_property

import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution

from ._cost import Frames, reduce_to, Term
from ._law import elementwise, elementwise_family
from ._strategy import AbstractStrategy


class Site:
    """A latent sample site as the strategies see it.

    Attributes:
        address: `"call/name"`, unique within an objective.
        law: the distribution that the value is drawn from, without masks and strategy.
        frames: the plates around the site.
        value: the draw, gradients stopped unless the strategy is pathwise.
        since: for a site inside scan or cond, the number of cost terms that existed before it;
            None elsewhere.
        loop: `"scan"` or `"reverse scan"` for a site whose leading axis is the time of a scan.
    """

    def __init__(
        self,
        address: str,
        law: Distribution,
        frames: Frames,
        strategy: AbstractStrategy,
        key: jax.Array,
        value: jax.Array,
        since: int | None = None,
        loop: str | None = None,
    ):
        self.address = address
        self.law = law
        self.frames = frames
        self.strategy = strategy
        self.key = key
        self.value = value
        self.since = since
        self.loop = loop

    @property
    def name(self) -> str:
        """The name in the user's program."""
        return self.address.rpartition("/")[2]

    @cached_property
    def elements(self) -> Distribution:
        """The law with `to_event` undone: one batch axis per axis of independent elements."""
        return elementwise(self.law)

    @property
    def family(self) -> Distribution:
        """The elements' family without wrappers; parameters broadcast to `shape`."""
        return elementwise_family(self.law)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the grid of independent elements: the plates' axes, then those of `to_event`."""
        return self.elements.batch_shape

    @property
    def event_axes(self) -> int:
        """How many trailing axes of `shape` come from `to_event`."""
        return len(self.shape) - len(self.law.batch_shape)

    def parameter(self, name: str) -> jax.Array:
        """The family's parameter `name`, broadcast to `shape`."""
        return jnp.broadcast_to(getattr(self.family, name), self.shape)

    def log_prob(self, value: jax.Array) -> jax.Array:
        """Log probability of each element, shape `shape`, differentiable in the parameters only."""
        return jnp.asarray(self.elements.log_prob(jax.lax.stop_gradient(value)))

    def support(self) -> jax.Array:
        """All values that an element can take, shape `(k,) + value.shape`, in the value's dtype."""
        values = self.elements.enumerate_support(expand=True)
        return values.astype(self.value.dtype)

    def plate_axes(self, frames: Frames) -> set[int]:
        """The axes of `shape` that belong to the plates in `frames`."""
        rank = len(self.law.batch_shape)
        return {rank + frame.dim for frame in frames}

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
        pad = len(self.law.batch_shape) - (values.ndim - lead)
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
