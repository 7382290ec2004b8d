"""Priors over small tables: what a network that reads tables is trained on."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._core import check_key, whole_number
from ._table_columns import (
    activate,
    ACTIVATIONS,
    again,
    CLUSTERS,
    LAYERS,
    log_uniform,
    measure_stage,
    measured,
    Needs,
    pick,
    random_rows,
    random_stages,
    record_stage,
    recorded,
    row_stage,
    Rows,
    Stage,
    standardise,
    WIDTH,
)
from ._tasks import Task

HIDDEN = 32  # units of a layer of random functions
TREES = 8
SPLITS = 4  # of a tree, each of which all leaves share

# How often targets come from clusters, nodes, networks and trees.
CLASS_FAMILIES = (0.4, 0.2, 0.25, 0.15)
VALUE_FAMILIES = (0.05, 0.3, 0.4, 0.25)


class TablePrior(eqx.Module):
    """A prior over small tables with a target, for classification or regression.

    Attributes:
        num_rows: rows of a table.
        num_features: columns that a table can have; it uses 1 to all of them.
        num_classes: the most classes a table can have, or None for regression.
        missing_prob: how probable it is that a table lacks values.
        dtype: of the tables.
    """

    num_rows: int = eqx.field(static=True)
    num_features: int = eqx.field(static=True)
    num_classes: int | None = eqx.field(static=True, default=None)
    missing_prob: float | int = eqx.field(static=True, default=0.15)
    dtype: Any = eqx.field(static=True, default=None)

    def __check_init__(self):
        whole_number("TablePrior: num_rows", self.num_rows, least=2)
        whole_number("TablePrior: num_features", self.num_features)
        if self.num_classes is not None:
            whole_number("TablePrior: num_classes", self.num_classes, least=2, most=CLUSTERS)
        prob = self.missing_prob
        if isinstance(prob, bool) or not isinstance(prob, int | float) or not 0 <= prob <= 1:
            raise ValueError(f"TablePrior: missing_prob must be a probability, got {prob!r:.60}")
        if self.dtype is not None and not jnp.issubdtype(self.dtype, jnp.floating):
            raise ValueError(f"TablePrior: dtype must be a real one, got {self.dtype!r:.60}")

    def __call__(self, key: jax.Array) -> Task:
        """One table."""
        check_key(key)
        n, d = self.num_rows, self.num_features
        regression = self.num_classes is None
        most = self.num_classes or 2
        needs = (
            Needs({"scalars": (6,)}, {}),
            row_stage(n),
            measure_stage(n, d),
            _score_stage(d, most),
            _value_stage(n) if regression else _label_stage(n, most),
            record_stage(n, d),
        )
        dtype = jnp.result_type(float) if self.dtype is None else self.dtype
        table, row, measure, score, target, record = random_stages(key, needs, dtype)
        s = table.uniform["scalars"]
        used = jnp.arange(d) < _num_used(s[0], s[1], d)
        classes = _num_classes(s[2], most)
        family = pick(s[3], VALUE_FAMILIES if regression else CLASS_FAMILIES)
        labelled = (family == 0) & (not regression)
        rows = random_rows(row, labelled, classes)
        x, rounded = measured(measure, rows)
        # A fifth of the tables have targets from two families.
        second = jnp.where(s[4] < 0.2, pick(s[5], VALUE_FAMILIES), family)
        weights = jnp.maximum(jnp.arange(4) == family, 0.7 * (jnp.arange(4) == second))
        scores = _scores(score, rows, x, used, weights.astype(dtype))
        if regression:
            y = _values(target, scores)
        else:
            y = _labels(target, scores, classes, jnp.where(labelled, rows.cluster % classes, -1))
        return Task(recorded(record, x, rounded, used, self.missing_prob), y)


def _num_used(u, v, num_features):
    """How many columns a table uses: all of them in a tenth of the tables, else rather few."""
    few = jnp.maximum(1 + jnp.floor(num_features * u**1.6), jnp.where(v < 0.2, 1, 2))
    return jnp.where(v < 0.1, num_features, few)


def _num_classes(u, most):
    """How many classes a table has: two in most of the tables, rarely many."""
    rates = [1 / (count - 1) ** 1.8 for count in range(2, most + 1)]
    return 2 + pick(u, tuple(rate / sum(rates) for rate in rates))


def _score_stage(d: int, num_scores: int) -> Needs:
    """What `_scores` needs."""
    return Needs(
        {
            "scalars": (12,),
            "relevant": (d,),
            "nodes": (LAYERS * WIDTH, num_scores),
            "kind": (2, HIDDEN),
            "seen": (HIDDEN,),
            "split": (TREES * SPLITS,),
        },
        {
            "relevance": (d,),
            "clusters": (CLUSTERS, num_scores),
            "first": (d, HIDDEN),
            "second": (HIDDEN, HIDDEN),
            "last": (HIDDEN, num_scores),
            "bias": (2, HIDDEN),
            "trend": (d, num_scores),
            "effects": (TREES, SPLITS, num_scores),
            "leaves": (TREES, 2**SPLITS, num_scores),
            "thresholds": (TREES * SPLITS,),
        },
    )


def _scores(stage: Stage, rows: Rows, x, used, weights) -> Float[Array, "n c"]:
    """What targets are made from: columns of mean 0 and variance 1."""
    u, z = stage
    s = u["scalars"]
    relevant = used & ((u["relevant"] < 0.2 + 0.9 * s[0]) | (jnp.arange(len(used)) == 0))
    relevance = jnp.where(relevant, jnp.exp((0.3 + 1.2 * s[11]) * z["relevance"]), 0)
    relevance = relevance * jax.lax.rsqrt(jnp.sum(relevance**2))
    member = jax.nn.one_hot(rows.cluster, CLUSTERS, dtype=x.dtype)
    values = (
        member @ z["clusters"],
        _node_scores(stage, rows),
        _network_scores(stage, x, relevance),
        _tree_scores(stage, x, relevance),
    )
    # Most functions have a trend.
    trend = x @ (jnp.maximum(2.4 * again(s[0]) - 0.8, 0) * relevance[:, None] * z["trend"])
    values = (values[0], *(standardise(value) + trend for value in values[1:]))
    total = sum(weight * standardise(value) for weight, value in zip(weights, values, strict=True))
    return standardise(total)


def _node_scores(stage: Stage, rows: Rows):
    """Nodes of the graph, or mixtures of them, the later the more often."""
    u, s = stage.uniform["nodes"], stage.uniform["scalars"]
    late = 3 * s[1] * jnp.arange(len(u)) / len(u)
    logits = jnp.where(rows.active[:, None], late[:, None] - jnp.log(-jnp.log(u)), -jnp.inf)
    weights = jax.nn.softmax(jnp.where(s[2] < 0.6, 30, 1.5) * logits, axis=0)
    return rows.nodes @ jnp.where(again(u) < 0.5, -weights, weights)


def _network_scores(stage: Stage, x, relevance):
    """Networks of one or two layers, linear functions, and sums of functions of single columns."""
    u, z = stage
    s = u["scalars"]
    kind = pick(u["kind"], ACTIVATIONS)
    kind = jnp.where(s[3] < 0.6, kind[0, 0], kind)
    # A unit of an additive function sees one column, drawn by its relevance.
    single = _column(u["seen"], relevance)
    first = jnp.where(s[4] < 0.25, single * z["first"], z["first"] * relevance[:, None])
    bias = z["bias"] * jnp.where(again(s[7]) < 0.4, 0.2, 1)
    hidden = activate(log_uniform(s[5], 0.15, 1.8) * (x @ first + bias[0]), kind[0])
    deeper = standardise(hidden @ z["second"]) + bias[1]
    deeper = activate(log_uniform(s[6], 0.4, 1.5) * deeper, kind[1])
    hidden = jnp.where(s[7] < 0.3, deeper, hidden)
    # Some functions have a few units, such as one threshold.
    kept = jnp.arange(HIDDEN) < jnp.where(s[8] < 0.3, 1 + 20 * s[8], HIDDEN)
    return hidden @ jnp.where(kept[:, None], z["last"], 0)


def _tree_scores(stage: Stage, x, relevance):
    """Sums of one to eight trees of one to four splits, which all leaves of a tree share."""
    u, z = stage
    s = u["scalars"]
    sides = x @ _column(u["split"], relevance) > 0.8 * z["thresholds"]
    depth = 1 + jnp.floor(SPLITS * s[9] ** 1.5)
    bits_of_leaf = 2 ** jnp.arange(SPLITS)
    bits = jnp.where(jnp.arange(SPLITS) < depth, bits_of_leaf, 0)
    leaf = jnp.sum(sides.reshape(-1, TREES, SPLITS) * bits, axis=-1)
    member = jax.nn.one_hot(leaf, 2**SPLITS, dtype=x.dtype).reshape(len(x), -1)
    kept = jnp.arange(TREES) < log_uniform(s[10], 1, TREES + 1)
    # Splits have effects of their own, and interactions.
    signs = (jnp.arange(2**SPLITS)[:, None] // bits_of_leaf % 2 - 0.5).astype(x.dtype)
    leaves = jnp.einsum("ls,tsc->tlc", signs, z["effects"]) + again(s[9]) ** 2 * z["leaves"]
    leaves = jnp.where(kept[:, None, None], leaves, 0)
    return member @ leaves.reshape(member.shape[1], -1)


def _column(u, relevance) -> Float[Array, "d k"]:
    """Columns drawn by their relevance, as indicators."""
    shares = jnp.cumsum(relevance**2)
    column = jnp.sum(u * shares[-1] > shares[:-1, None], axis=0)
    return jax.nn.one_hot(column, len(relevance), dtype=u.dtype, axis=0)


def _value_stage(n: int) -> Needs:
    """What `_values` needs."""
    return Needs({"scalars": (10,), "tails": (n,)}, {"noise": (n,)})


def _values(stage: Stage, scores: Float[Array, "n 2"]) -> Float[Array, " n"]:
    """Targets of a regression: a score, noise, and the units that they are recorded in."""
    u, z = stage
    s = u["scalars"]
    heavy = z["noise"] * jnp.sqrt(-jnp.log(u["tails"]))
    noise = jnp.where(s[0] < 0.2, heavy, z["noise"])
    noise = noise * jnp.exp(jnp.where(s[1] < 0.3, s[2] * scores[:, 1], 0))
    y = scores[:, 0] + log_uniform(s[3], 0.02, 2) * noise
    y = standardise(y[:, None])[:, 0]
    curve = log_uniform(s[4], 0.15, 1.2)
    skewed = jnp.expm1(jnp.clip(curve * y, -6, 6)) / curve
    capped = jnp.minimum(y, 0.5 + 1.5 * s[4])
    y = jnp.where(s[5] < 0.25, skewed, jnp.where(s[5] < 0.3, capped, y))
    pitch = log_uniform(s[7], 0.3, 1.5)
    y = jnp.where(s[6] < 0.12, pitch * jnp.round(y / pitch), y)
    return standardise(jnp.where(s[8] < 0.2, -y, y)[:, None])[:, 0]


def _label_stage(n: int, most: int) -> Needs:
    """What `_labels` needs."""
    uniform = {"scalars": (6,), "order": (most,), "flip": (n,), "other": (n,), "noise": (n, most)}
    return Needs(uniform, {"sizes": (most,)})


def _labels(stage: Stage, scores, classes, known) -> Int[Array, " n"]:
    """Classes: intervals of a noisy score, the largest of noisy scores, or the known ones."""
    u, z = stage
    s = u["scalars"]
    present = jnp.arange(scores.shape[1]) < classes
    sizes = jnp.where(present, 1.2 * s[0] ** 2 * z["sizes"], -jnp.inf)
    noise = -jnp.log(-jnp.log(u["noise"]))
    largest = jnp.argmax(scores + sizes + log_uniform(s[1], 0.005, 0.6) * noise, axis=1)

    noisy = scores[:, 0] + log_uniform(s[1], 0.005, 0.6) * (noise[:, 0] - noise[:, 1])
    below = jnp.mean((noisy[:, None] > noisy).astype(scores.dtype), axis=1)
    edges = jnp.cumsum(jax.nn.softmax(sizes))
    # A fifth of these have each class twice, in two intervals.
    twice = jnp.where(s[5] < 0.2, 2 * below, below)
    interval = jnp.sum((twice % 1)[:, None] > edges[:-1], axis=1)
    labels = jnp.where(s[2] < 0.5, largest, jnp.minimum(interval, classes - 1))
    order = jnp.argsort(jnp.where(present, u["order"], 2 + u["order"]))
    labels = order[jnp.where(known >= 0, known, labels)]
    flipped = u["flip"] < jnp.where(s[3] < 0.12, 0.25 * s[4], 0)
    other = jnp.floor(u["other"] * classes).astype(labels.dtype)
    return jnp.where(flipped, other, labels).astype(jnp.int32)
