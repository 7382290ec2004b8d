"""A normal distribution with the sparse scale matrix of a hierarchical model."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import constraints

from .._core import solve_tril_each
from ._vector_normal import AbstractVectorNormal


@dataclasses.dataclass(frozen=True, eq=False)
class NestedGroup:
    """The coordinates that share one set of plates.

    Attributes:
        index: positions in the flat vector, shape `grid + (k,)`: one block of `k` coordinates for
            each element of the grid; grids of all groups have the same rank and broadcast.
        parents: numbers of earlier groups whose noise the blocks also see.
    """

    index: np.ndarray
    parents: tuple[int, ...]

    @property
    def size(self) -> int:
        """Coordinates in one block."""
        return self.index.shape[-1]


@dataclasses.dataclass(frozen=True, eq=False)
class NestedLayout:
    """Groups in an order where parents come first; together they hold every coordinate once."""

    groups: tuple[NestedGroup, ...]

    @property
    def dim(self) -> int:
        """Length of the flat vector."""
        return sum(group.index.size for group in self.groups)

    @property
    def order(self) -> np.ndarray:
        """Positions of the coordinates in the concatenated blocks of all groups."""
        return np.argsort(np.concatenate([group.index.reshape(-1) for group in self.groups]))


def noise_log_prob(noise: jax.Array) -> jax.Array:
    """Log density of standard normal noise, summed over the last axis."""
    constant = 0.5 * noise.shape[-1] * math.log(2 * math.pi)
    return -0.5 * jnp.sum(noise**2, -1) - constant


class NestedNormal(AbstractVectorNormal):
    r"""Normal distribution of $m + C u$ with the sparse lower triangular $C$ of nested plates.

    A block $b$ of coordinates is $m_b + L_b u_b + \sum_p B_{bp} u_p$ over its parents $p$, so
    blocks of one plate are independent given the parents. With $n$ blocks of size $k$ below $g$
    global coordinates, storage and time are $O(g^2 + n k (g + k))$.

    Args:
        loc: $m$, shape `(d,)`.
        scale: positive diagonal of $C$, shape `(d,)`.
        lowers: per group, what stands below the diagonals of $L_b$, shape `grid + (k, k)`; other
            entries are ignored.
        links: per group and parent, $B_{bp}$, shape `grid + (k, k_parent)`.
        layout: the coordinates of each block.
    """

    arg_constraints = {
        "loc": constraints.real_vector,
        "scale": constraints.independent(constraints.positive, 1),
        **dict.fromkeys(("lowers", "links", "layout"), constraints.dependent),
    }
    pytree_data_fields = ("loc", "scale", "lowers", "links")
    pytree_aux_fields = ("layout",)

    def __init__(
        self,
        loc: Any,
        scale: Any,
        lowers: Any,
        links: Any,
        layout: NestedLayout,
        *,
        validate_args: bool | None = False,
    ):
        self.loc = loc
        self.scale = scale
        self.lowers = tuple(lowers)
        self.links = tuple(tuple(group) for group in links)
        self.layout = layout
        _check(loc, scale, self.lowers, self.links, layout)
        super().__init__((), (layout.dim,), validate_args=validate_args)

    @property
    def _mapped_ndim(self) -> int:
        return jnp.ndim(self.loc) - 1

    def sample_with_intermediates(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        if self._mapped_ndim:
            return self.sample(key, sample_shape), []
        noise = jax.random.normal(key, (*sample_shape, *self.event_shape), self.loc.dtype)
        return self._moved(noise), [noise]

    def log_prob(self, value: Any, intermediates: Any = None) -> jax.Array:
        # The noise of an own draw is known; a solve has an error of any size as scales collapse.
        if not intermediates:
            return self._batched_log_prob(value)
        return noise_log_prob(intermediates[0]) - jnp.sum(jnp.log(self.scale))

    def _sample(self, key: Any, shape: tuple[int, ...]) -> jax.Array:
        return self._moved(jax.random.normal(key, (*shape, *self.event_shape), self.loc.dtype))

    def _moved(self, noise: jax.Array) -> jax.Array:
        return self.loc + jnp.vectorize(self._times, signature="(d)->(d)")(noise)

    def _log_prob(self, value: jax.Array) -> jax.Array:
        noise = jnp.vectorize(self._solve, signature="(d)->(d)")(value - self.loc)
        return noise_log_prob(noise) - jnp.sum(jnp.log(self.scale))

    def _entropy(self) -> jax.Array:
        return 0.5 * self.loc.size * (1 + jnp.log(2 * jnp.pi)) + jnp.sum(jnp.log(self.scale))

    def _tril(self, number: int) -> jax.Array:
        scale = self.scale[self.layout.groups[number].index]
        eye = jnp.eye(scale.shape[-1], dtype=scale.dtype)
        return jnp.tril(self.lowers[number], -1) + scale[..., None] * eye

    def _from_parents(self, number: int, noises: list[jax.Array]) -> Any:
        parents = self.layout.groups[number].parents
        return sum(
            jnp.einsum("...ij,...j->...i", link, noises[parent])
            for link, parent in zip(self.links[number], parents, strict=True)
        )

    def _times(self, noise: jax.Array) -> jax.Array:
        noises = [noise[group.index] for group in self.layout.groups]
        parts = [
            jnp.einsum("...ij,...j->...i", self._tril(i), noises[i]) + self._from_parents(i, noises)
            for i in range(len(noises))
        ]
        return jnp.concatenate([part.reshape(-1) for part in parts])[self.layout.order]

    def _solve(self, shift: jax.Array) -> jax.Array:
        noises: list[jax.Array] = []
        for i, group in enumerate(self.layout.groups):
            rest = shift[group.index] - self._from_parents(i, noises)
            noises.append(solve_tril_each(self._tril(i), rest[..., None])[..., 0])
        return jnp.concatenate([part.reshape(-1) for part in noises])[self.layout.order]

    def _variance(self) -> jax.Array:
        parts = []
        for i in range(len(self.layout.groups)):
            rows = [self._tril(i), *self.links[i]]
            squares = [jnp.sum(row**2, -1) for row in rows]
            parts.append(sum(squares[1:], squares[0]).reshape(-1))
        return jnp.concatenate(parts)[self.layout.order]

    @property
    def scale_matrix(self) -> jax.Array:
        """The dense $C$ in the coordinates' own order, shape `(d, d)`; not always triangular."""
        return jax.vmap(self._times)(jnp.eye(self.loc.size, dtype=self.loc.dtype)).T

    def _covariance_matrix(self) -> jax.Array:
        return self.scale_matrix @ self.scale_matrix.T


def _check(loc: Any, scale: Any, lowers: Any, links: Any, layout: NestedLayout) -> None:
    if jnp.shape(loc) != (layout.dim,) or jnp.shape(scale) != (layout.dim,):
        raise ValueError(
            f"NestedNormal: loc and scale must have shape {(layout.dim,)}, the size of the layout, "
            f"got {jnp.shape(loc)} and {jnp.shape(scale)}"
        )
    if len(lowers) != len(layout.groups) or len(links) != len(layout.groups):
        raise ValueError(
            f"NestedNormal: lowers and links must have {len(layout.groups)} elements, one for each "
            f"group of the layout, got {len(lowers)} and {len(links)}"
        )
    for number, group in enumerate(layout.groups):
        wanted = (*group.index.shape, group.size)
        if jnp.shape(lowers[number]) != wanted:
            raise ValueError(
                f"NestedNormal: lowers[{number}] must have shape {wanted}, got "
                f"{jnp.shape(lowers[number])}"
            )
        if len(links[number]) != len(group.parents):
            raise ValueError(
                f"NestedNormal: links[{number}] must have {len(group.parents)} elements, one for "
                f"each parent, got {len(links[number])}"
            )
