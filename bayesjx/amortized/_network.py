"""Abstract base class of prior-data fitted networks."""

from __future__ import annotations

import abc
import math
import warnings
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Bool, Float, Num

from .._core import checked_finite, number_array, whole_number
from ._heads import AbstractHead
from ._pfn_posterior import checked_data, condition, PFNPosterior


class AbstractPFN(eqx.Module):
    """Abstract base class of prior-data fitted networks.

    Attributes:
        head: distribution of a target.
        num_inputs: number of inputs of a row, or the most that it was trained with.
        most_inputs: the most that it takes.
        num_styles: number of parameters that the network may be told.
        standardise: whether targets are centred and scaled by those of the context.
        causal: whether a row of the context attends to those before it only.
        missing: whether inputs may be NaN, which means that they are missing.
        absent: what stands in columns that data do not have, or None where they must have all.
        max_context: the largest context that it was trained with, or None.
    """

    head: eqx.AbstractVar[AbstractHead]
    num_inputs: eqx.AbstractVar[int]
    most_inputs: eqx.AbstractVar[int]
    num_styles: eqx.AbstractVar[int]
    standardise: eqx.AbstractVar[bool]
    causal: eqx.AbstractVar[bool]
    missing: eqx.AbstractVar[bool]
    absent: eqx.AbstractVar[float | None]
    max_context: eqx.AbstractVar[int | None]

    @abc.abstractmethod
    def limits(self) -> Float[Array, "2 d"] | None:
        """Smallest and largest inputs that it was trained with, or None."""

    @abc.abstractmethod
    def architecture(self) -> dict[str, Any]:
        """Arguments, but for the key and arrays, that make a network of these shapes; JSON."""

    @abc.abstractmethod
    def encode(
        self,
        x: Float[Array, "*batch n d"],
        y: Num[Array, "*batch n"],
        mask: Bool[Array, "*#batch n"],
        style: Float[Array, "*batch k"] | None = None,
        told: Bool[Array, "*#batch"] | None = None,
    ) -> Any:
        """What queries need of contexts, such as keys and values: any pytree of arrays.

        Args:
            x: inputs of contexts.
            y: their targets, standardised where the network does that.
            mask: rows that count.
            style: what the network may be told.
            told: whether it is; None for always.
        """

    @abc.abstractmethod
    def decode(self, x_new: Float[Array, "*batch m d"], cache: Any) -> Float[Array, "*batch m o"]:
        """Outputs for the head at queries, given what `encode` returned."""

    @abc.abstractmethod
    def extend(self, x: Any, y: Any, size: Any, cache: Any) -> Any:
        """The cache of a causal network with one more row in place `size`."""

    @property
    def dtype(self) -> Any:
        """Type of the parameters, in which everything is computed."""
        kinds = {leaf.dtype for leaf in jax.tree.leaves(self) if eqx.is_inexact_array(leaf)}
        return jnp.result_type(*kinds)

    def condition(
        self,
        x: Any,
        y: Any,
        *,
        style: Any = None,
        mask: Any = None,
        capacity: int | None = None,
    ) -> PFNPosterior:
        """The predictive distribution given data: the keys and values of a context.

        Takes time quadratic in the number of rows and memory linear in it. Rows are padded to a
        power of two, so that contexts of similar sizes share a compiled program.

        Args:
            x: inputs, shape `(n, d)`, or `(n,)` for one input; `n` may be 0.
            y: targets, shape `(n,)`.
            style: what the network is told, shape `(k,)`; None to average over it.
            mask: rows that count, booleans, shape `(n,)`; the others may hold anything.
            capacity: rows that there is room for, for `append`; those that are given by default.

        Raises:
            ValueError: wrong shapes, NaN, classes out of range, a style of a network that has none.

        Warns:
            UserWarning: more rows, or inputs further out, than the network was trained with.
        """
        x, y, mask = checked_data("condition", self, x, y, mask)
        room = max(len(y), 0 if capacity is None else whole_number("capacity", capacity, len(y)))
        self._warn_outside(len(y), x)
        size = max(8, 2 ** math.ceil(math.log2(max(room, 1)))) if capacity is None else room
        pad = size - len(y)
        x, y, mask = jnp.pad(x, ((0, pad), (0, 0))), jnp.pad(y, (0, pad)), jnp.pad(mask, (0, pad))
        return condition(self, x, y, mask, self._style(style), jnp.asarray(len(mask) - pad))

    def __call__(self, x: Any, y: Any, x_new: Any, *, style: Any = None) -> dist.Distribution:
        """Predictive distributions of targets at `x_new` given data; `condition` keeps the context.

        Args:
            x: inputs of the context, shape `(n, d)`.
            y: its targets, shape `(n,)`.
            x_new: inputs of queries, shape `(m, d)`.
            style: see `condition`.

        Returns:
            Batch shape `(m,)`.
        """
        return self.condition(x, y, style=style).predict(x_new)

    def outputs(
        self,
        x: Float[Array, "*batch n d"],
        y: Num[Array, "*batch n"],
        x_new: Float[Array, "*batch m d"],
        mask: Bool[Array, "*#batch n"],
        style: Float[Array, "*batch k"] | None = None,
        told: Bool[Array, "*#batch"] | None = None,
    ) -> Float[Array, "*batch m o"]:
        """Outputs for the head at queries, of many data sets at once.

        Args:
            x: inputs of contexts.
            y: their targets, standardised where the network does that.
            x_new: inputs of queries.
            mask: rows that count.
            style: what the network may be told.
            told: whether it is.
        """
        return self.decode(x_new, self.encode(x, y, mask, style, told))

    def _style(self, style: Any) -> Any:
        if style is None:
            return None
        if not self.num_styles:
            raise ValueError("condition: style is given, but this network has num_styles = 0")
        style = jnp.asarray(number_array("condition: style", style), self.dtype)
        style = checked_finite("condition: style", style)
        want = self.num_styles
        if np.shape(style) != (want,):
            raise ValueError(f"condition: style must have shape ({want},), got {np.shape(style)}")
        return style

    def _warn_outside(self, rows: int, x: Any) -> None:
        if self.max_context is not None and rows > self.max_context:
            warnings.warn(
                f"condition: {rows} rows of context, more than the {self.max_context} that the "
                "network was trained with; its predictions there are not checked",
                stacklevel=3,
            )
        if self.missing and x.shape[1] > self.num_inputs:
            warnings.warn(
                f"condition: {x.shape[1]} columns, more than the {self.num_inputs} that the "
                "network was trained with; its predictions there are not checked",
                stacklevel=3,
            )
        limits = self.limits()
        if limits is None or isinstance(x, jax.core.Tracer) or not x.size:
            return
        low, high = np.asarray(limits)
        room = 0.05 * (high - low)
        if np.any(x < low - room) or np.any(x > high + room):
            warnings.warn(
                "condition: inputs outside of the range that the network was trained with, "
                f"{low} to {high}; its predictions there are not checked",
                stacklevel=3,
            )


class Sizes(NamedTuple):
    """Checked sizes of a transformer."""

    width: int
    depth: int
    heads: int
    hidden: int


def checked_sizes(owner: str, head: Any, width: Any, depth: Any, heads: Any, hidden: Any) -> Sizes:
    """Sizes of a network as integers; `hidden` is twice `width` where it is None.

    Raises:
        ValueError: they are no positive integers, `heads` does not divide `width`, or `head` is no
            head.
    """
    names = {"width": width, "depth": depth, "heads": heads}
    width, depth, heads = (whole_number(f"{owner}: {name}", v) for name, v in names.items())
    hidden = 2 * width if hidden is None else whole_number(f"{owner}: hidden", hidden)
    if width % heads:
        raise ValueError(f"{owner}: heads must divide width, got {heads} and {width}")
    if not isinstance(head, AbstractHead):
        raise ValueError(
            f"{owner}: head must be a BarHead, NormalHead or CategoricalHead, got "
            f"{type(head).__name__}"
        )
    return Sizes(width, depth, heads, hidden)
