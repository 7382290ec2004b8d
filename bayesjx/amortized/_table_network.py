"""Prior-data fitted networks of tables, with attention between columns and between rows."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._core import check_key, known_field, whole_number
from ._attention import Attention, Dense, KeysValues, MLP, normed
from ._heads import AbstractHead, BarHead, CategoricalHead, encode_targets
from ._network import AbstractPFN, checked_sizes
from ._table_baselines import log_masses, num_features, table_baselines, TableBaselines

MOST_GROUPS = 64
CHANNELS = 3  # of a value: standardised, its rank, whether it is missing


class ColumnStatistics(eqx.Module):
    """What is known of the columns of a context.

    Attributes:
        loc: means of the values that there are, shape `(..., d)`.
        scale: their standard deviations, 1 for constants.
        ordered: values of each column in order, infinite from the number of values on, shape
            `(..., d, n)`.
        count: numbers of values, shape `(..., d)`.
        used: which columns have more than one value.
    """

    loc: Float[Array, "*batch d"]
    scale: Float[Array, "*batch d"]
    ordered: Float[Array, "*batch d n"]
    count: Float[Array, "*batch d"]
    used: Bool[Array, "*batch d"]


class TableCache(eqx.Module):
    """What queries need of a table: its columns, and keys and values of rows in each layer."""

    columns: ColumnStatistics
    rows: tuple[KeysValues, ...]
    mask: Bool[Array, "*batch n"]
    baselines: TableBaselines | None = None
    shares: Float[Array, "*batch k"] | None = None  # of the classes


class TableLayer(eqx.Module):
    """A layer with attention between the columns of a row, then between the rows of a column.

    Attributes:
        norms: layer normalisation before each of the three.
        columns: attention between columns.
        rows: attention to rows of the context.
        feed: of each token.
    """

    norms: tuple[eqx.nn.LayerNorm, eqx.nn.LayerNorm, eqx.nn.LayerNorm]
    columns: Attention
    rows: Attention
    feed: MLP

    def __init__(self, width: int, heads: int, hidden: int, *, key: jax.Array):
        keys = jax.random.split(key, 3)
        self.norms = (eqx.nn.LayerNorm(width), eqx.nn.LayerNorm(width), eqx.nn.LayerNorm(width))
        self.columns = Attention(width, heads, key=keys[0])
        self.rows = Attention(width, heads, key=keys[1])
        self.feed = MLP(width, hidden, width, key=keys[2], zero=True)

    def __call__(
        self,
        tokens: Float[Array, "*batch c n e"],
        used: Bool[Array, "*batch c"],
        mask: Bool[Array, "*batch k"],
        context: KeysValues | None = None,
    ) -> tuple[Float[Array, "*batch c n e"], KeysValues]:
        """The next layer's tokens, by columns, and what rows attend to: `tokens` if None."""
        by_row = jnp.swapaxes(tokens, -3, -2)
        normal = normed(self.norms[0], by_row)
        pairs = self.columns.keys_values(normal)
        by_row = by_row + self.columns(normal, pairs, used[..., None, None, :])
        tokens = jnp.swapaxes(by_row, -3, -2)
        normal = normed(self.norms[1], tokens)
        if context is None:
            context = self.rows.keys_values(normal)
        tokens = tokens + self.rows(normal, context, mask[..., None, None, :])
        return tokens + self.feed(normed(self.norms[2], tokens)), context


class TablePFN(AbstractPFN):
    """A prior-data fitted network of tables, whose cells attend to columns and to rows.

    Tokens are groups of cells of one row, and its target; they attend to those of their row, then
    to those of their column in the context. Tables may have any number of columns and missing
    values (NaN); columns are standardised by the context, and their ranks in it are seen too. What
    is predicted does not depend on the order of rows.

    Args:
        num_inputs: the most columns of tables that it is trained with, for a warning beyond it.
        head: distribution of a target: `BarHead`, `NormalHead` or `CategoricalHead`.
        key: PRNG key of the initial weights.
        width: size of a token.
        depth: number of layers.
        heads: number of heads of attention, which divides `width`.
        hidden: width of the layers' own networks, by default twice `width`.
        group: columns of a token.
        max_context: the largest context that it is trained with.
        baselines: whether the network goes on from Gaussian-process regressions of the table: it
            sees what they predict for each row given the others, and what it returns is added to
            their log probabilities. Takes time cubic in the rows of the context and memory
            quadratic in them.

    Raises:
        ValueError: sizes that are no positive integers or do not divide, no head, no key.

    References:
        Hollmann, Müller, Purucker and others (2025), "Accurate predictions on small data with a
        tabular foundation model", Nature 637: attention between features and between samples.
        Wolpert (1992), "Stacked generalization", Neural Networks 5, for `baselines`.
    """

    cells: Dense
    targets: Dense
    unknown: Float[Array, " e"]
    places: Dense
    layers: tuple[TableLayer, ...]
    norm: eqx.nn.LayerNorm
    decoder: MLP
    head: AbstractHead
    num_inputs: int = eqx.field(static=True)
    group: int = eqx.field(static=True)
    max_context: int | None = eqx.field(static=True)
    most_inputs: int = eqx.field(static=True)
    num_styles: int = eqx.field(static=True)
    standardise: bool = eqx.field(static=True)
    causal: bool = eqx.field(static=True)
    missing: bool = eqx.field(static=True)
    absent: float | None = eqx.field(static=True)
    stacked: Dense | None
    trust: Float[Array, ""] | None
    directions: Float[Array, "g k"] = known_field()

    def __init__(
        self,
        num_inputs: int,
        head: AbstractHead,
        *,
        key: jax.Array,
        width: int = 48,
        depth: int = 4,
        heads: int = 4,
        hidden: int | None = None,
        group: int = 2,
        max_context: int | None = None,
        baselines: bool = False,
    ):
        check_key(key)
        if not isinstance(baselines, bool):
            raise ValueError(f"TablePFN: baselines must be True or False, got {baselines!r:.60}")
        if baselines and not isinstance(head, BarHead | CategoricalHead):
            raise ValueError("TablePFN: baselines need a BarHead or a CategoricalHead")
        self.num_inputs = whole_number("TablePFN: num_inputs", num_inputs)
        self.group = whole_number("TablePFN: group", group)
        width, depth, heads, hidden = checked_sizes("TablePFN", head, width, depth, heads, hidden)
        if width % 4:
            raise ValueError(f"TablePFN: 4 must divide width, got {width}")
        keys = jax.random.split(key, depth + 6)
        self.stacked = self.trust = None
        if baselines:
            features = num_features(head.num_classes or 1)
            self.stacked = Dense(features, width, key=jax.random.fold_in(key, depth + 6))
            self.trust = jnp.ones(())
        self.cells = Dense(CHANNELS * group, width, key=keys[0])
        self.targets = Dense(head.num_classes or 1, width, key=keys[1])
        self.unknown = 0.02 * jax.random.normal(keys[2], (width,))
        self.places = Dense(width // 4, width, key=keys[3])
        self.directions = jax.random.normal(keys[4], (MOST_GROUPS, width // 4))
        self.layers = tuple(TableLayer(width, heads, hidden, key=k) for k in keys[6:])
        self.norm = eqx.nn.LayerNorm(width)
        self.decoder = MLP(width, 2 * width, head.size, key=keys[5])
        if baselines:  # starts near the regressions, and not at zeros, which XLA folds wrongly
            last = self.decoder.second.linear.weight
            self.decoder = eqx.tree_at(lambda m: m.second.linear.weight, self.decoder, 0.1 * last)
        self.head, self.max_context = head, max_context
        self.most_inputs, self.num_styles = MOST_GROUPS * self.group, 0
        self.standardise, self.causal = head.num_classes is None, False
        self.missing, self.absent = True, None

    def limits(self) -> None:
        return None

    def architecture(self) -> dict[str, Any]:
        return {
            "num_inputs": self.num_inputs,
            "head": self.head.architecture(),
            "width": self.norm.shape[0],
            "depth": len(self.layers),
            "heads": self.layers[0].rows.heads,
            "hidden": self.layers[0].feed.first.linear.out_features,
            "group": self.group,
            "max_context": self.max_context,
            "baselines": self.stacked is not None,
        }

    def encode(self, x: Any, y: Any, mask: Any, style: Any = None, told: Any = None) -> TableCache:
        mask = jnp.broadcast_to(mask, y.shape)
        columns = column_statistics(x, mask)
        cells = cell_values(x, columns)
        seen = encode_targets(self.head, y).astype(x.dtype)
        target, baselines, shares = self.targets(seen), None, None
        if self.stacked is not None:
            baselines, shares = self._baselines(cells, seen, columns, mask)
            features = baselines.features(baselines.loo_mean, baselines.loo_scale)
            target = target + self.stacked(features.astype(x.dtype))
        tokens, used, cache = *self._tokens(cells, columns, target), []
        for layer in self.layers:
            tokens, rows = layer(tokens, used, mask)
            cache.append(rows)
        return TableCache(columns, tuple(cache), mask, baselines, shares)

    def decode(self, x_new: Any, cache: Any) -> Any:
        target = jnp.broadcast_to(self.unknown, (*x_new.shape[:-1], len(self.unknown)))
        cells, base = cell_values(x_new, cache.columns), 0.0
        if self.stacked is not None:
            mean, scale = cache.baselines.predict(*_wide(cells[..., 0], cells[..., 1]))
            features = cache.baselines.features(mean, scale)
            target = target + self.stacked(features.astype(x_new.dtype))
            base = (self.trust * self._log_probs(mean, scale, cache)).astype(x_new.dtype)
        tokens, used = self._tokens(cells, cache.columns, target)
        for layer, rows in zip(self.layers, cache.rows, strict=True):
            tokens, _ = layer(tokens, used, cache.mask, rows)
        return base + self.decoder(normed(self.norm, tokens[..., -1, :, :]))

    def _baselines(self, cells: Any, seen: Any, columns: Any, mask: Any) -> tuple[Any, Any]:
        """Regressions on targets, or on indicators of classes less their shares."""
        shares, degrees = None, 1
        z, rank, seen = _wide(cells[..., 0], cells[..., 1], seen)
        if self.head.num_classes is not None:
            counted = jnp.where(mask[..., None], seen, 0)
            rows = jnp.maximum(jnp.sum(mask, axis=-1), 1)[..., None]
            shares = jnp.sum(counted, axis=-2) / rows
            seen, degrees = seen - shares[..., None, :], jnp.sum(shares > 0, axis=-1) - 1
        return table_baselines(z, rank, columns.used, seen, mask, degrees), shares

    def _log_probs(self, mean: Any, scale: Any, cache: TableCache) -> Any:
        """Log probabilities of bars or classes by the regressions alone."""
        weights = cache.baselines.log_evidence  # ty: ignore
        if isinstance(self.head, BarHead):
            return log_masses(self.head.borders, mean[..., 0], scale, weights)
        shares = cache.shares[..., None, :]  # ty: ignore
        probs = shares + jnp.einsum("...f,...mft->...mt", jnp.exp(weights), mean)
        return jnp.log(jnp.clip(probs, jnp.where(shares > 0, 0.02, 1e-3), 1.0))

    def extend(self, x: Any, y: Any, size: Any, cache: Any) -> Any:
        raise NotImplementedError("tables are not causal")

    def _tokens(self, values: Any, columns: ColumnStatistics, target: Any) -> tuple[Any, Any]:
        """First tokens by columns, the target's last, and which of them are used."""
        d = values.shape[-2]
        pad = -d % self.group
        lacking = jnp.zeros((*values.shape[:-2], pad, CHANNELS), values.dtype).at[..., 2].set(1)
        values = jnp.concatenate([values, lacking], axis=-2)  # as a column without values
        used = jnp.pad(columns.used, [(0, 0)] * (columns.used.ndim - 1) + [(0, pad)])
        groups = (d + pad) // self.group
        values = values.reshape(*values.shape[:-2], groups, -1)
        used = jnp.any(used.reshape(*used.shape[:-1], groups, -1), axis=-1)
        tokens = self.cells(values) + self.places(self.directions[:groups])
        tokens = jnp.concatenate([tokens, target[..., None, :]], axis=-2)
        used = jnp.concatenate([used, jnp.ones((*used.shape[:-1], 1), bool)], axis=-1)
        return jnp.swapaxes(tokens, -3, -2), used


def _wide(*arrays: Any) -> tuple[Any, ...]:
    """Arrays in single precision at least, which factorisations need."""
    return tuple(a.astype(jnp.promote_types(a.dtype, jnp.float32)) for a in arrays)


def column_statistics(
    x: Float[Array, "*batch n d"], mask: Bool[Array, "*batch n"]
) -> ColumnStatistics:
    """Moments and ordered values of the columns of contexts, missing values left out."""
    there = mask[..., None] & ~jnp.isnan(x)
    count = jnp.sum(there, axis=-2).astype(x.dtype)
    safe = jnp.maximum(count, 1)
    # Constants come out exactly, whatever their size: from the largest value.
    top = jnp.max(jnp.where(there, x, -jnp.inf), axis=-2)
    low = jnp.min(jnp.where(there, x, jnp.inf), axis=-2)
    base = jnp.where(count > 0, top, 0)
    rest = jnp.where(there, x - base[..., None, :], 0)
    mean = jnp.sum(rest, axis=-2) / safe
    deviation = jnp.where(there, rest - mean[..., None, :], 0)
    scale = jnp.sqrt(jnp.sum(deviation**2, axis=-2) / safe)
    used = (count > 1) & (top > low)
    ordered = jnp.sort(jnp.swapaxes(jnp.where(there, x, jnp.inf), -1, -2), axis=-1)
    return ColumnStatistics(base + mean, jnp.where(used, scale, 1), ordered, count, used)


def cell_values(
    x: Float[Array, "*batch m d"], columns: ColumnStatistics
) -> Float[Array, "*batch m d 3"]:
    """What a network sees of cells: standardised values, ranks in the context, what is missing.

    Values beyond three standard deviations grow by the logarithm.
    """
    missing = jnp.isnan(x) | ~columns.used[..., None, :]
    z = (x - columns.loc[..., None, :]) / columns.scale[..., None, :]
    size = jnp.abs(jnp.where(missing, 0, z))
    z = jnp.sign(z) * jnp.where(size > 3, 3 + jnp.log(jnp.maximum(size, 3) - 2), size)
    by_column = jnp.swapaxes(jnp.where(missing, 0, x), -1, -2)
    below, upto = (
        jnp.vectorize(
            lambda sorted_, v, side=side: jnp.searchsorted(sorted_, v, side=side, method="scan"),
            signature="(n),(m)->(m)",
        )(columns.ordered, by_column)
        for side in ("left", "right")
    )
    middle = (below + upto).astype(x.dtype) / 2 / jnp.maximum(columns.count, 1)[..., None]
    # A standard deviation of 1, as that of the values.
    rank = (jnp.swapaxes(jnp.minimum(middle, 1), -1, -2) - 0.5) * 12**0.5
    cells = jnp.stack([z, rank, jnp.zeros_like(z)], axis=-1)
    lacking = jnp.stack([jnp.zeros_like(z), jnp.zeros_like(z), jnp.ones_like(z)], axis=-1)
    return jnp.where(missing[..., None], lacking, cells)
