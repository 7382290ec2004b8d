"""Prior-data fitted networks: Bayesian prediction in one forward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._core import check_key, known_field, whole_number
from ..distributions import equal_mass_borders
from ._attention import Dense, KeysValues, Layer, MLP, normed
from ._heads import AbstractHead, BarHead, CategoricalHead, encode_targets
from ._network import AbstractPFN, checked_sizes
from ._tasks import check_prior, sample_tasks, Task

MOST_CLASSES = 100  # that integer targets are taken for, unless a head says otherwise


class PFN(AbstractPFN):
    """A prior-data fitted network: a transformer that was taught the predictions of a prior.

    Tokens are rows; each attends to the rows of the context only, so that queries are independent
    of each other and the keys and values of a context are computed once, by `condition`. Rows have
    no positions: what is predicted does not depend on their order, but for `causal` networks.

    Trained by `pfn_training`; `PFN.for_prior` chooses what follows from the prior.

    Args:
        num_inputs: `d`; 0 for a density without inputs.
        head: distribution of a target: `BarHead`, `NormalHead` or `CategoricalHead`.
        key: PRNG key of the initial weights.
        width: size of a token.
        depth: number of layers.
        heads: number of heads of attention, which divides `width`.
        hidden: width of the layers' own networks, by default twice `width`.
        num_styles: number of parameters that the network may be told; unless it is, it averages
            over them.
        input_loc: what inputs are centred by, scalar or shape `(d,)`.
        input_scale: what they are divided by.
        standardise: whether targets are centred and scaled by those of the context, for priors to
            which neither matters. The units of predictions are those of the data always.
        causal: whether a row of the context attends to those before it only. Then a row is appended
            in time linear in their number, and predictions depend on the order.
        max_context: the largest context that it was trained with, for a warning beyond it.
        input_range: smallest and largest inputs that it was trained with, shape `(2, d)`, likewise.
        absent: what stands in columns that data do not have, for networks that were trained with
            data sets in which it does; None where data must have all `d` columns.

    Raises:
        ValueError: sizes that are no positive integers or do not divide, no head, no key.

    References:
        Müller, Hollmann, Pineda Arango, Grabocka and Hutter (2022), "Transformers can do Bayesian
        inference", ICLR. Hollmann, Müller, Eggensperger and Hutter (2023), "TabPFN", ICLR.
    """

    inputs: MLP
    targets: Dense
    styles: Dense | None
    no_style: Float[Array, " e"] | None
    layers: tuple[Layer, ...]
    norm: eqx.nn.LayerNorm
    decoder: MLP
    head: AbstractHead
    input_loc: Float[Array, " d"] = known_field()
    input_scale: Float[Array, " d"] = known_field()
    input_range: Float[Array, "2 d"] | None = known_field()
    standardise: bool = eqx.field(static=True)
    causal: bool = eqx.field(static=True)
    max_context: int | None = eqx.field(static=True)
    absent: float | None = eqx.field(static=True)
    num_inputs: int = eqx.field(static=True)
    most_inputs: int = eqx.field(static=True)
    num_styles: int = eqx.field(static=True)
    missing: bool = eqx.field(static=True)

    def __init__(
        self,
        num_inputs: int,
        head: AbstractHead,
        *,
        key: jax.Array,
        width: int = 64,
        depth: int = 4,
        heads: int = 4,
        hidden: int | None = None,
        num_styles: int = 0,
        input_loc: Any = 0.0,
        input_scale: Any = 1.0,
        standardise: bool = False,
        causal: bool = False,
        max_context: int | None = None,
        input_range: Any = None,
        absent: float | None = None,
    ):
        check_key(key)
        d = whole_number("PFN: num_inputs", num_inputs, 0)
        num_styles = whole_number("PFN: num_styles", num_styles, 0)
        width, depth, heads, hidden = checked_sizes("PFN", head, width, depth, heads, hidden)
        if standardise and (causal or head.num_classes is not None):
            raise ValueError(
                "PFN: standardise is for real targets, and not for causal networks, in which a row "
                "must not depend on those after it"
            )
        keys = jax.random.split(key, depth + 5)
        self.inputs = MLP(d, hidden, width, key=keys[0])
        self.targets = Dense(head.num_classes or 1, width, key=keys[1])
        self.styles = Dense(num_styles, width, key=keys[2]) if num_styles else None
        self.no_style = 0.02 * jax.random.normal(keys[3], (width,)) if num_styles else None
        self.layers = tuple(Layer(width, heads, hidden, key=k) for k in keys[5:])
        self.norm = eqx.nn.LayerNorm(width)
        self.decoder = MLP(width, 2 * width, head.size, key=keys[4])
        self.head = head
        self.input_loc = jnp.broadcast_to(jnp.asarray(input_loc, jnp.result_type(float)), (d,))
        self.input_scale = jnp.broadcast_to(jnp.asarray(input_scale, jnp.result_type(float)), (d,))
        self.input_range = None
        if input_range is not None:
            self.input_range = jnp.broadcast_to(
                jnp.asarray(input_range, self.input_loc.dtype), (2, d)
            )
        self.standardise, self.causal, self.max_context = standardise, causal, max_context
        self.num_inputs, self.most_inputs, self.num_styles = d, d, num_styles
        self.absent, self.missing = absent, False

    @staticmethod
    def for_prior(
        key: jax.Array,
        prior: Callable[[jax.Array], Task],
        *,
        num_queries: int = 16,
        num_bars: int = 100,
        num_tasks: int = 1000,
        head: AbstractHead | None = None,
        standardise: bool = False,
        **options: Any,
    ) -> PFN:
        """A network with the head, the scales of inputs and the sizes that suit a prior.

        Args:
            key: PRNG key, of draws of the prior and of the initial weights.
            prior: from a key to a `Task`.
            num_queries: rows of a data set that are predicted in training; the others are context.
            num_bars: of the bar distribution of real targets, of equal mass under the prior.
            num_tasks: data sets that are drawn.
            head: by default a `CategoricalHead` for integer targets, which are classes, and a
                `BarHead` for others, such as counts that the program returns as floats.
            standardise: see `PFN`.
            **options: of `PFN`.

        Raises:
            ValueError: `prior` is none, its data sets have no more than `num_queries` rows, or its
                targets are negative integers or very large ones.
        """
        check_key(key)
        shapes = check_prior("for_prior", prior)
        rows, d = shapes.x.shape
        max_context = rows - whole_number("for_prior: num_queries", num_queries)
        if max_context < 1:
            raise ValueError(
                f"for_prior: data sets of the prior have {rows} rows, which must be more than "
                f"num_queries = {num_queries}"
            )
        num_tasks = whole_number("for_prior: num_tasks", num_tasks, 2)
        key_tasks, key_weights = jax.random.split(key)
        tasks = jax.jit(lambda k: sample_tasks(k, prior, num_tasks))(key_tasks)
        x, y = np.asarray(tasks.x).reshape(num_tasks * rows, d), np.asarray(tasks.y)
        if head is None:
            head = _head(y, max_context, num_bars, standardise)
        scale = np.std(x, axis=0)
        return PFN(
            d,
            head,
            key=key_weights,
            num_styles=0 if shapes.style is None else shapes.style.shape[0],
            input_loc=np.mean(x, axis=0),
            input_scale=np.where(scale > 0, scale, 1.0),
            input_range=np.stack([x.min(axis=0), x.max(axis=0)]),
            standardise=standardise,
            max_context=max_context,
            **options,
        )

    def limits(self) -> Float[Array, "2 d"] | None:
        return self.input_range

    def architecture(self) -> dict[str, Any]:
        return {
            "num_inputs": self.num_inputs,
            "head": self.head.architecture(),
            "width": self.norm.shape[0],
            "depth": len(self.layers),
            "heads": self.layers[0].attention.heads,
            "hidden": self.layers[0].feed.first.linear.out_features,
            "num_styles": self.num_styles,
            "standardise": self.standardise,
            "causal": self.causal,
            "max_context": self.max_context,
            "input_range": None if self.input_range is None else [[0.0], [1.0]],
            "absent": self.absent,
        }

    def encode(
        self, x: Any, y: Any, mask: Any, style: Any = None, told: Any = None
    ) -> tuple[tuple[KeysValues, ...], Any]:
        tokens = self._embed(x, y)
        if self.no_style is not None:
            first = jnp.broadcast_to(self.no_style, (*tokens.shape[:-2], len(self.no_style)))
            if style is not None and self.styles is not None:
                given = self.styles(style.astype(tokens.dtype))
                first = given if told is None else jnp.where(told[..., None], given, first)
            tokens = jnp.concatenate([first[..., None, :], tokens], axis=-2)
            mask = jnp.concatenate([jnp.ones((*mask.shape[:-1], 1), bool), mask], axis=-1)
        allowed = mask[..., None, :]
        if self.causal:
            n = tokens.shape[-2]
            allowed = allowed & jnp.tril(jnp.ones((n, n), bool))
        caches = []
        for layer in self.layers:
            caches.append(layer.keys_values(tokens))
            tokens = layer(tokens, caches[-1], allowed)
        return tuple(caches), mask

    def decode(self, x_new: Any, cache: Any) -> Any:
        caches, mask = cache
        tokens = self._embed(x_new, None)
        for layer, one in zip(self.layers, caches, strict=True):
            tokens = layer(tokens, one, mask[..., None, :])
        return self.decoder(normed(self.norm, tokens))

    def extend(self, x: Any, y: Any, size: Any, cache: Any) -> Any:
        caches, mask = cache
        place = size if self.no_style is None else size + 1
        mask = mask.at[place].set(True)
        token, new = self._embed(x[None], y[None]), []
        for layer, old in zip(self.layers, caches, strict=True):
            row = layer.keys_values(token)
            new.append(jax.tree.map(lambda all_, one: all_.at[:, place].set(one[:, 0]), old, row))
            token = layer(token, new[-1], mask[None])
        return tuple(new), mask

    def _embed(self, x: Any, y: Any) -> Any:
        """First tokens of rows, without targets those of queries."""
        tokens = self.inputs((x - self.input_loc) / self.input_scale)
        if y is None:
            return tokens
        return tokens + self.targets(encode_targets(self.head, y).astype(tokens.dtype))


def _head(y: np.ndarray, max_context: int, num_bars: int, standardise: bool) -> AbstractHead:
    if np.issubdtype(y.dtype, np.integer) or y.dtype == bool:
        low, high = int(y.min()), int(y.max())
        if low < 0 or high >= MOST_CLASSES:
            raise ValueError(
                f"for_prior: the prior has integer targets, {low} to {high}, which would be "
                f"classes 0 to at most {MOST_CLASSES - 1}; give head=CategoricalHead(...), or "
                "make them floating-point in the program for a BarHead"
            )
        return CategoricalHead(max(2, high + 1))
    if standardise:
        context = y[:, :max_context]
        scale = context.std(axis=1, keepdims=True)
        y = (y - context.mean(axis=1, keepdims=True)) / np.where(scale > 0, scale, 1.0)
    return BarHead(equal_mass_borders(y.reshape(-1), num_bars))
