"""Columns of random tables: rows of causes, a graph of nodes, and what is measured of them."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import erfinv
from jaxtyping import Array, Bool, Float, Int

WIDTH = 16  # nodes of a layer
LAYERS = 4  # of nodes, the first of which holds the causes
CLUSTERS = 10

# How often a unit has each of the activations of `activate`, in that order.
ACTIVATIONS = (0.4, 0.22, 0.12, 0.1, 0.05, 0.05, 0.06)

Shapes = dict[str, tuple[int, ...]]


class Needs(NamedTuple):
    """Names and shapes of the random numbers that a stage of a table needs."""

    uniform: Shapes
    normal: Shapes


class Stage(NamedTuple):
    """Random numbers of a stage of a table, by name."""

    uniform: dict[str, Array]
    normal: dict[str, Array]


class Rows(NamedTuple):
    """What rows are before anything of them is measured.

    Attributes:
        nodes: values of the graph's nodes, each of mean 0 and variance about 1.
        active: which of them this table has.
        cluster: the cluster of each row.
    """

    nodes: Float[Array, "n m"]
    active: Bool[Array, " m"]
    cluster: Int[Array, " n"]


def random_stages(key: jax.Array, needs: tuple[Needs, ...], dtype: Any) -> tuple[Stage, ...]:
    """Random numbers for each stage, of 16 random bits each.

    From one call of the generator: each further one costs more to compile than a stage does.
    """
    uniforms, normals = [need.uniform for need in needs], [need.normal for need in needs]
    split, size = _size(uniforms), _size(uniforms) + _size(normals)
    words = jax.random.bits(key, ((size + 1) // 2,), jnp.uint32)
    bits = jnp.concatenate([words & 0xFFFF, words >> 16])
    flat = (bits.astype(dtype) + jnp.asarray(0.5, dtype)) / 65536
    # XLA would generate and transform them again wherever they are used.
    flat = jax.lax.optimization_barrier((flat[:split], normal(flat[split:size])))
    return tuple(map(Stage, _fill(uniforms, flat[0]), _fill(normals, flat[1])))


def _size(shapes: list[Shapes]) -> int:
    return sum(math.prod(shape) for group in shapes for shape in group.values())


def _fill(shapes: list[Shapes], flat: Array) -> list[dict[str, Array]]:
    """Arrays of these shapes, from consecutive pieces of a vector."""
    groups: list[dict[str, Array]] = []
    for group in shapes:
        groups.append({})
        for name, shape in group.items():
            size = math.prod(shape)
            groups[-1][name] = flat[:size].reshape(shape)
            flat = flat[size:]
    return groups


def normal(u: Array) -> Array:
    """Standard normal values from uniform ones."""
    return math.sqrt(2) * erfinv(2 * u - 1)


def again(u: Array, factor: int = 256) -> Array:
    """Uniform values from the low bits of others, which are independent of their high bits."""
    return u * factor % 1


def log_uniform(u: Array, low: float | int, high: float | int) -> Array:
    """From uniform values to values whose logarithms are uniform."""
    return low * jnp.exp(u * math.log(high / low))


def pick(u: Array, probabilities: tuple[float, ...]) -> Array:
    """From uniform values to indices of the given probabilities, integers."""
    edges = [sum(probabilities[: index + 1]) for index in range(len(probabilities) - 1)]
    return jnp.sum(u[..., None] > jnp.asarray(edges, u.dtype), axis=-1)


def standardise(x: Float[Array, "n m"]) -> Float[Array, "n m"]:
    """Columns of mean 0 and variance 1; those that do not vary become 0."""
    x = x - jnp.mean(x, axis=0)
    return x * jax.lax.rsqrt(jnp.mean(x**2, axis=0) + 1e-6)


def activate(x: Float[Array, "n m"], kind: Int[Array, " m"]) -> Float[Array, "n m"]:
    """Each column through one of seven functions; the sine is one of parabolas."""
    turn = x / (2 * math.pi)
    turn = turn - jnp.round(turn)
    values = (x, jnp.tanh(x), jax.nn.relu(x), turn * (8 - 16 * jnp.abs(turn)), x**2, jnp.abs(x))
    result = jnp.where(x > 0, 1, -1).astype(x.dtype)
    for index, value in enumerate(values):
        result = jnp.where(kind == index, value, result)
    return result


def row_stage(num_rows: int) -> Needs:
    """What `random_rows` needs."""
    return Needs(
        {
            "scalars": (14,),
            "kind": (LAYERS, WIDTH),
            "kept": (LAYERS, WIDTH, WIDTH),
            "cluster": (num_rows,),
            "noise": (LAYERS, num_rows, WIDTH),
        },
        {
            "weights": (LAYERS, WIDTH, WIDTH),
            "bias": (LAYERS, WIDTH),
            "centres": (CLUSTERS, WIDTH),
            "scales": (CLUSTERS, WIDTH),
            "radii": (CLUSTERS, 1),
            "sizes": (CLUSTERS,),
        },
    )


def random_rows(stage: Stage, labelled: Bool[Array, ""], num_classes: Int[Array, ""]) -> Rows:
    """Rows of a random structural causal model, whose causes have clusters.

    Args:
        stage: random numbers.
        labelled: whether clusters are classes, one or two clusters a class.
        num_classes: how many.
    """
    u, z = stage
    s = u["scalars"]
    independent = s[0] < 0.2
    causes = jnp.where(independent, WIDTH, 1 + jnp.floor(WIDTH * s[1] ** 2.5))
    cluster, centred = _clusters(stage, causes, labelled, num_classes)
    keep = u["kept"] < jnp.where(s[7] < 0.3, 1, 0.1 + 0.9 * s[8])
    keep = keep | (jnp.arange(WIDTH)[:, None] == jnp.arange(WIDTH))  # none is left without an input
    weights = jnp.where(keep, z["weights"], 0)
    weights = weights * jax.lax.rsqrt(jnp.sum(weights**2, axis=1, keepdims=True) + 1e-6)
    layer = standardise(jnp.where(independent, centred, centred @ weights[0]))
    kinds = pick(u["kind"], ACTIVATIONS)
    kinds = jnp.where(s[9] < 0.5, kinds[0, 0], kinds)
    gain, node_noise = log_uniform(s[10], 0.3, 1.5), log_uniform(s[11], 0.01, 0.3)
    layers = [layer]
    for index in range(1, LAYERS):
        sums = gain * (layer @ weights[index]) + z["bias"][index]
        layer = standardise(activate(sums, kinds[index]))
        layer = layer + node_noise * math.sqrt(12) * (u["noise"][index] - 0.5)
        layers.append(layer)
    # Tables whose classes came first have shallow graphs more often.
    depth = pick(jnp.where(labelled, s[12] ** 1.6, s[12]), (0.35, 0.3, 0.2, 0.15))
    active = jnp.repeat(jnp.arange(LAYERS) <= depth, WIDTH)
    return Rows(jnp.concatenate(layers, axis=1), active, cluster)


def _clusters(stage: Stage, causes, labelled, num_classes):
    """The cluster of each row, and causes around the cluster's centre."""
    u, z = stage
    s, dtype = u["scalars"], u["scalars"].dtype
    # Half of the classes that come first are one cluster each, else some are several.
    extra = jnp.where(s[2] < 0.5, 0, jnp.floor(2 * (s[2] - 0.5) * (num_classes + 1)))
    few = jnp.floor(log_uniform(s[2], 0.6, 7)) + 1
    count = jnp.where(labelled, jnp.minimum(num_classes + extra, CLUSTERS), few)
    present = jnp.arange(CLUSTERS) < count
    sizes = jax.nn.softmax(jnp.where(present, 1.2 * s[3] * z["sizes"], -jnp.inf))
    cluster = jnp.sum(u["cluster"][:, None] > jnp.cumsum(sizes)[:-1], axis=1)
    distance = jnp.where(labelled, log_uniform(s[4], 2, 30), 3 * s[4])
    centres = z["centres"] * distance * jax.lax.rsqrt(2 * causes.astype(dtype))
    scales = jnp.exp((z["scales"] + z["radii"]) * jnp.maximum(2 * s[5] - 1, 0))
    member = jax.nn.one_hot(cluster, CLUSTERS, dtype=dtype)
    bell = normal(u["noise"][0])
    # Causes are normal, uniform, or of heavy tails, most of a table's alike.
    form = jnp.where(jnp.arange(WIDTH) % 3 == 0, s[13], s[6])
    values = jnp.where(form < 0.25, math.sqrt(12) * (u["noise"][0] - 0.5), bell)
    values = jnp.where(form > 0.9, bell * jnp.abs(bell) / math.sqrt(3), values)
    values = member @ centres + (member @ scales) * values
    return cluster, values * (jnp.arange(WIDTH) < causes)


def measure_stage(num_rows: int, num_features: int) -> Needs:
    """What `measured` needs."""
    size = LAYERS * WIDTH
    column = (num_features,)
    return Needs(
        {
            "scalars": (10,),
            "node": column,
            "lost": column,
            "rounded": column,
            "step": column,
            "level": column,
            "kept": (size, num_features),
        },
        {"mix": (size, num_features), "scale": column, "noise": (num_rows, num_features)},
    )


def measured(stage: Stage, rows: Rows) -> tuple[Float[Array, "n d"], Bool[Array, " d"]]:
    """Features of rows, of mean 0 and variance 1, and which of them have few values.

    Each is a node, often mixed with others, with noise; some are noise, some rounded.
    """
    u, z = stage
    s = u["scalars"]
    size, num_features = z["mix"].shape
    # One node for each from a random layer; no node twice while there are others.
    layer = jnp.floor(u["node"] * jnp.sum(rows.active) / WIDTH).astype(int)
    unit = (jnp.arange(num_features) + jnp.floor(s[0] * WIDTH).astype(int)) % WIDTH
    own = jax.nn.one_hot(layer * WIDTH + unit, size, dtype=s.dtype, axis=0)
    amount = jnp.where(s[1] < 0.5, 0, log_uniform(s[2], 0.1, 2))
    mix = jnp.where(rows.active[:, None] & (u["kept"] < 0.1 + 0.9 * s[3]), z["mix"], 0)
    mix = mix * jax.lax.rsqrt(jnp.sum(mix**2, axis=0) + 1e-6)
    x = standardise(rows.nodes @ (own + amount * mix))
    noise = jnp.where(s[4] < 0.4, 0.01, log_uniform(s[5], 0.02, 0.6)) * jnp.exp(0.5 * z["scale"])
    lost = u["lost"] < jnp.where(s[6] < 0.6, 0, 0.7 * s[7] ** 2)
    x = jnp.where(lost, z["noise"], x + noise * z["noise"])
    rounded = u["rounded"] < jnp.where(s[8] < 0.5, 0, 1.1 * s[9])
    return standardise(jnp.where(rounded, _round(x, u["step"], u["level"]), x)), rounded


def _round(x, step, level):
    """Few values a column: two of them, or a whole number of steps."""
    pitch = log_uniform(step, 0.25, 2.5)
    steps = jnp.clip(jnp.round(x / pitch + level), -6, 6)
    return jnp.where(step > 0.75, (x > 2.4 * (level - 0.5)).astype(x.dtype), steps)


def record_stage(num_rows: int, num_features: int) -> Needs:
    """What `recorded` needs."""
    column = (num_features,)
    names = ("warp", "curve", "side", "code", "missing")
    shapes = dict.fromkeys(names, column)
    return Needs({"scalars": (8,), "lacking": (num_rows, num_features), **shapes}, {})


def recorded(
    stage: Stage,
    x: Float[Array, "n d"],
    rounded: Bool[Array, " d"],
    used: Bool[Array, " d"],
    missing_prob: float | int,
) -> Float[Array, "n d"]:
    """Features as a table has them: warped, coded in a random order, missing.

    Args:
        stage: random numbers.
        x: features of mean 0 and variance 1.
        rounded: which have few values.
        used: which there are; the others become NaN.
        missing_prob: how probable it is that a table lacks values.
    """
    u, _ = stage
    s = u["scalars"]
    # A skewed table has most of its columns skewed to the right.
    curve = log_uniform(u["curve"], 0.15, 1.1)
    curve = jnp.where(u["side"] < 0.5 * s[0], -curve, curve)
    share = jnp.where(s[1] < 0.35, 1e-3, s[2])
    kind = u["warp"] / share
    warped = jnp.where(kind < 1, jnp.tanh(2 * curve * x), x)
    warped = jnp.where(kind < 0.8, x * jnp.abs(x), warped)
    warped = jnp.where(kind < 0.65, jnp.expm1(jnp.clip(curve * x, -6, 6)) / curve, warped)
    coded = rounded & (u["code"] < jnp.where(s[3] < 0.5, 0, s[4]))
    warped = jnp.where(coded, _codes(x, u["warp"], u["curve"]), jnp.where(rounded, x, warped))
    rate = jnp.where(u["missing"] < s[5], 0.4 * s[6], 0)
    lacking = u["lacking"] < jnp.where(s[7] < missing_prob, rate, 0)
    return jnp.where(lacking | ~used, jnp.nan, warped)


def _codes(x, u, v):
    """Intervals of a column in a random order, as a whole number of codes that is a prime."""
    count = 2 * jnp.floor(3 * u) + 3
    factor = 1 + jnp.floor(v * (count - 1))
    return (jnp.round(1.5 * x) + 21) * factor % count
