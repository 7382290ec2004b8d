"""What a run of a program leaves behind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpyro.distributions as dist

from .._estimator import (
    elementwise_family,
    Frames,
)


class Drawn(NamedTuple):
    """A site as it was drawn, to be compared with how another program scores it.

    Attributes:
        name: of the site.
        shape: of one draw.
        event_dim: how many of the axes belong to one event.
        frames: the plates around it.
        discrete: whether its values are discrete; None if the distribution does not say.
        fixed_event: the event dimension says how the value is to be read, or nothing: False for
            a Delta, which holds a value that was made elsewhere.
    """

    name: str
    shape: tuple[int, ...]
    event_dim: int
    frames: Frames
    discrete: bool | None
    fixed_event: bool

    @staticmethod
    def of(msg: Any) -> Drawn:
        """From NumPyro's message of the sample statement."""
        fn = msg["fn"]
        family = elementwise_family(fn)
        delta = isinstance(family, dist.Delta)
        frames = frozenset(msg["cond_indep_stack"])
        whole = delta or getattr(family, "holds_plates", False)
        discrete = None if delta else is_discrete(fn)
        return Drawn(msg["name"], fn.shape(), fn.event_dim, frames, discrete, not whole)


def is_discrete(fn: Any) -> bool | None:
    """Whether the values of a distribution are discrete; None if it has no support to tell."""
    if elementwise_family(fn).has_enumerate_support:
        return True  # one-hot vectors, too, whose support is the simplex
    try:
        return bool(fn.is_discrete)
    except NotImplementedError:
        return None


class Trace(eqx.Module):
    """The latent values of one run of a program, a mapping from site names to arrays.

    Attributes:
        values: value per latent site.
        plates: indices per plate, so that another program sees the same minibatch.
        sizes: pairs of a plate's name and its size, before subsampling.
        frames: the plates as (name, dim, size), the size after subsampling.
        auxiliary: sites marked `infer={"is_auxiliary": True}`, which are not handed on.
        drawn: how each site was drawn: its shapes, its plates, its kind.
    """

    values: dict[str, jax.Array]
    plates: dict[str, jax.Array]
    sizes: frozenset[tuple[str, int]] = eqx.field(static=True)
    frames: Frames = eqx.field(static=True)
    auxiliary: frozenset[str] = eqx.field(static=True)
    drawn: tuple[Drawn, ...] = eqx.field(static=True, default=())

    def __getitem__(self, name: str) -> jax.Array:
        return self.values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values)

    def __len__(self) -> int:
        return len(self.values)

    def __contains__(self, name: object) -> bool:
        return name in self.values
