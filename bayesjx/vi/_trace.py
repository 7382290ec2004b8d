"""What a run of a program leaves behind."""

from __future__ import annotations

from collections.abc import Iterator

import equinox as eqx
import jax

from ._cost import Frames


class Trace(eqx.Module):
    """The latent values of one run of a program, a mapping from site names to arrays.

    Attributes:
        values: value per latent site.
        plates: indices per plate, so that another program sees the same minibatch.
        sizes: pairs of a plate's name and its size, before subsampling.
        frames: the plates as (name, dim, size), the size after subsampling.
        auxiliary: sites marked `infer={"is_auxiliary": True}`, which are not handed on.
    """

    values: dict[str, jax.Array]
    plates: dict[str, jax.Array]
    sizes: frozenset[tuple[str, int]] = eqx.field(static=True)
    frames: Frames = eqx.field(static=True)
    auxiliary: frozenset[str] = eqx.field(static=True)

    def __getitem__(self, name: str) -> jax.Array:
        return self.values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values)

    def __len__(self) -> int:
        return len(self.values)

    def __contains__(self, name: object) -> bool:
        return name in self.values
