"""Predictive distributions of prior-data fitted networks, given a context."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Bool, Float, Int, Num

from .._core import checked_finite, compiled, number_array, refuse_where, whole_number

BLOCK = 4  # queries at a time: in blocks of one size, the bits of one do not depend on others


class PFNPosterior(eqx.Module):
    """Predictive distribution of a prior-data fitted network given a context; see `PFN.condition`.

    Attributes:
        network: a `PFN`.
        cache: what the network keeps of the context, such as keys and values of each layer.
        x: inputs of the context with room for more, shape `(c, d)`.
        y: its targets, shape `(c,)`.
        mask: rows that count, shape `(c,)`.
        style: what the network is told, or None.
        size: number of rows of `x` that are taken.
        loc: what targets were centred by.
        scale: what they were divided by.
    """

    network: Any
    cache: Any
    x: Float[Array, "c d"]
    y: Num[Array, " c"]
    mask: Bool[Array, " c"]
    style: Float[Array, " k"] | None
    size: Int[Array, ""]
    loc: Float[Array, ""]
    scale: Float[Array, ""]

    @property
    def nbytes(self) -> int:
        """Bytes of what is kept of the context."""
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self.cache))

    def predict(self, x: Any, *, batch_size: int = BLOCK) -> dist.Distribution:
        """Distributions of new observations, each by itself.

        Args:
            x: inputs, shape `(m, d)`, or `(m,)` for one input.
            batch_size: queries at a time. Those of one `batch_size` do not depend, bit for bit, on
                the other queries.

        Returns:
            Batch shape `(m,)`: what the network's head says.

        Raises:
            ValueError: wrong shapes, NaN, no rows.
        """
        x = checked_inputs("predict", self.network, x, self.x.shape[1])
        if not len(x):
            raise ValueError("predict: x has no rows")
        block = whole_number("predict: batch_size", batch_size)
        blocks = -(-len(x) // block)
        padded = jnp.pad(x, ((0, blocks * block - len(x)), (0, 0)))
        outputs = _parameters(self, padded.reshape(blocks, block, x.shape[1]))
        outputs = outputs.reshape(blocks * block, -1)[: len(x)]
        return self.network.head.distribution(outputs, self.loc, self.scale)

    def log_predictive_prob(self, x: Any, y: Any, *, batch_size: int = BLOCK) -> Any:
        """Log density of each new observation, shape `(m,)`.

        Args:
            x: inputs, shape `(m, d)`.
            y: targets, shape `(m,)`.
            batch_size: queries at a time.
        """
        x, y, _ = checked_data("log_predictive_prob", self.network, x, y, None, self.x.shape[1])
        return self.predict(x, batch_size=batch_size).log_prob(y)

    def append(self, x: Any, y: Any) -> PFNPosterior:
        """The posterior with one more row.

        Linear in the number of rows for causal networks; others compute their context anew.

        Args:
            x: its inputs, shape `(d,)`.
            y: its target, scalar.

        Raises:
            ValueError: wrong shapes, NaN; no room under `jit`, see `capacity` of `condition`.
        """
        row, target = jnp.reshape(jnp.asarray(x), (1, -1)), jnp.reshape(jnp.asarray(y), (1,))
        width = self.x.shape[1]
        x, y, _ = checked_data("append", self.network, row, target, None, width)
        full = self.size >= len(self.y)
        if not isinstance(full, jax.core.Tracer) and bool(full):
            return self._grown().append(x[0], y[0])
        size = refuse_where(
            self.size, lambda s: s >= len(self.y), "append: no room, see capacity of condition"
        )
        return append_row(self, x[0], y[0].astype(self.y.dtype), size)

    def _grown(self) -> PFNPosterior:
        pad = len(self.y)
        x = jnp.pad(self.x, ((0, pad), (0, 0)))
        y, mask = jnp.pad(self.y, (0, pad)), jnp.pad(self.mask, (0, pad))
        return condition(self.network, x, y, mask, self.style, self.size)


@compiled
def condition(network: Any, x: Any, y: Any, mask: Any, style: Any, size: Any) -> PFNPosterior:
    """The posterior of a network given rows that count."""
    loc, scale = jnp.zeros((), network.dtype), jnp.ones((), network.dtype)
    if network.standardise:
        loc, scale = moments(y, mask)
    seen = (y - loc) / scale if network.standardise else y
    cache = network.encode(x, seen, mask, style)
    return PFNPosterior(network, cache, x, y, mask, style, size, loc, scale)


def moments(y: Float[Array, "*batch n"], mask: Bool[Array, "*#batch n"]) -> tuple[Any, Any]:
    """Mean and standard deviation of the targets that count; 0 and 1 where there are none.

    The standard deviation of one target, or of equal ones, is taken for 1.
    """
    count = jnp.maximum(jnp.sum(mask, axis=-1), 1).astype(y.dtype)
    loc = jnp.sum(jnp.where(mask, y, 0), axis=-1) / count
    rest = jnp.where(mask, y - loc[..., None], 0)
    scale = jnp.sqrt(jnp.sum(rest**2, axis=-1) / count)
    tiny = scale <= 10 * jnp.finfo(y.dtype).eps * jnp.abs(loc)
    return loc, jnp.where(tiny, 1, scale)


@compiled
def _parameters(posterior: PFNPosterior, x: Float[Array, "b k d"]) -> Float[Array, "b k o"]:
    network, cache = posterior.network, posterior.cache
    return jax.lax.map(lambda rows: network.head.parameters(network.decode(rows, cache)), x)


@compiled
def append_row(posterior: PFNPosterior, x: Any, y: Any, size: Any) -> PFNPosterior:
    """The posterior with one more row in place `size`, unchecked."""
    network = posterior.network
    xs, ys = posterior.x.at[size].set(x), posterior.y.at[size].set(y)
    mask = posterior.mask.at[size].set(True)
    if not network.causal:
        return condition(network, xs, ys, mask, posterior.style, size + 1)
    cache = network.extend(x, y, size, posterior.cache)
    return PFNPosterior(
        network, cache, xs, ys, mask, posterior.style, size + 1, posterior.loc, posterior.scale
    )


def checked_inputs(owner: str, network: Any, x: Any, width: int | None = None) -> Any:
    """Inputs of rows, in the network's precision, shape `(n, d)`.

    Args:
        owner: function whose argument they are.
        network: that is to see them.
        x: the inputs.
        width: columns of the context, where there is one.

    Raises:
        ValueError: they have another number of columns, or are not finite.
    """
    x = number_array(f"{owner}: x", x)
    most, fewer = network.most_inputs, network.missing or network.absent is not None
    if np.ndim(x) == 1 and (most == 1 or fewer):
        x = x[:, None]
    columns = np.shape(x)[1] if np.ndim(x) == 2 else -1
    if network.absent is not None and 0 < columns < most:
        pad = jnp.full((len(x), most - columns), network.absent, network.dtype)
        x, columns = jnp.concatenate([jnp.asarray(x, network.dtype), pad], axis=1), most
    few = 1 if network.missing else most
    low, high = (few, most) if width is None else (width, width)
    if not low <= columns <= high:
        wanted = f"{high}" if low == high else f"{low} to {high}"
        fewer_said = " or fewer" if network.absent is not None else ""
        raise ValueError(
            f"{owner}: x must have shape (n, d) with {wanted}{fewer_said} columns, got shape "
            f"{np.shape(x)}"
        )
    x = jnp.asarray(x, network.dtype)
    if network.missing:
        return refuse_where(x, _infinite, f"{owner}: x holds infinite values; NaN means missing")
    return checked_finite(f"{owner}: x", x) if x.size else x


def checked_data(
    owner: str, network: Any, x: Any, y: Any, mask: Any, width: int | None = None
) -> tuple[Any, Any, Any]:
    """Rows of a context.

    Raises:
        ValueError: shapes disagree, values are not finite or no classes of the network.
    """
    x, y = number_array(f"{owner}: x", x), number_array(f"{owner}: y", y)
    rows = np.shape(x)[0] if np.ndim(x) else 0
    if np.shape(y) != (rows,):
        raise ValueError(f"{owner}: y must have shape ({rows},), got {np.shape(y)}")
    counted = _checked_mask(owner, mask, rows)
    if mask is not None:  # what does not count may be anything
        y = jnp.where(counted, y, 0)
        x = jnp.where(jnp.reshape(counted, (-1,) + (1,) * (np.ndim(x) - 1)), x, 0)
    x = checked_inputs(owner, network, x, width)
    classes = network.head.num_classes
    if classes is None:
        y = jnp.asarray(y, x.dtype)
        y = checked_finite(f"{owner}: y", y) if y.size else y
    else:
        y = refuse_where(
            y,
            lambda v: (v < 0) | (v >= classes) | (v != v // 1),
            f"{owner}: y must hold classes 0, ..., {classes - 1}",
        )
        y = jnp.asarray(y).astype(jnp.int32)
    return x, y, counted


def _checked_mask(owner: str, mask: Any, rows: int) -> jax.Array:
    if mask is None:
        return jnp.ones(rows, bool)
    mask = jnp.asarray(mask)
    if mask.shape != (rows,) or mask.dtype != bool:
        raise ValueError(
            f"{owner}: mask must be booleans of shape ({rows},), got {mask.dtype} of shape "
            f"{mask.shape}"
        )
    return mask


def _infinite(x: Any) -> Any:
    return (jnp if isinstance(x, jax.core.Tracer) else np).isinf(x)
