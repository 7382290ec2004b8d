"""A layer whose weights are known to be sparse, beside the dense matrix product."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from benchmarks._declare import Benchmark, Figure, Target
from benchmarks._report import Report
from benchmarks._timing import compare, compiled_memory

GROUP = 32  # of the claims; other layouts are in the tables
TARGETS = (
    Target("grouped_10", ">=", 2.5, unit="×", meaning="dense ÷ groups of 32, 10 % dense"),
    Target("grouped_1", ">=", 6.0, unit="×", meaning="dense ÷ groups of 32, 1 % dense"),
    Target("state_10", "<=", 0.125, meaning="bytes of parameters, indices and Adam, ÷ dense"),
    Target("off", "<=", 1e-4, meaning="largest relative error of a result or gradient"),
)
SIZE = 1024  # rows and columns of the matrix
LAYOUTS = (
    ("blocks", 32),
    ("blocks", 128),
    ("grouped", 8),
    ("grouped", 32),
    ("grouped", 128),
    ("entries", 1),
)
QUICK_LAYOUTS = (("blocks", 32), ("grouped", 32), ("entries", 1))
DENSITIES, QUICK_DENSITIES = (0.01, 0.02, 0.05, 0.1, 0.25, 0.5), (0.01, 0.1, 0.5)


class Candidate(NamedTuple):
    """A jitted function of its arguments that gives result and gradients, and its operator."""

    function: Any
    args: tuple[Any, ...]
    operator: Any


def run(quick: bool, report: Report) -> Mapping[str, Any]:
    """Forward and backward products by layout and density, then the layer with variances."""
    report.note(
        f"Time of x @ W with the gradients of x and W, W {SIZE} × {SIZE}, float32; on the CPU, "
        "where XLA computes all of them (our kernels are for GPUs and TPUs). Densities are those "
        "held: whole blocks cannot be had in any number."
    )
    figures: dict[str, Any] = {}
    worst = 0.0
    for batch in (128,) if quick else (128, 512):
        found, off = _products(batch, quick, report)
        worst = max(worst, off)
        figures |= found
    found, off = _layers(quick, report)
    figures |= found | _memory(report)
    return figures | {"off": max(worst, off)}


def _operator(layout: str, size: int, density: float, shape: tuple[int, int] = (SIZE, SIZE)) -> Any:
    """A random pattern of the layout with standard normal values."""
    import jax.numpy as jnp
    import numpy as np

    from bayesjx.ops._block_sparse import BlockSparse
    from bayesjx.ops._entry_sparse import EntrySparse
    from bayesjx.ops._grouped_columns import GroupedColumns

    rng = np.random.default_rng(0)
    normal = lambda *s: jnp.asarray(rng.normal(size=s) / 32, jnp.float32)  # noqa: E731
    if layout == "blocks":
        grid = shape[0] // size, shape[1] // size
        count = max(1, round(density * grid[0] * grid[1]))
        flat = rng.choice(grid[0] * grid[1], count, replace=False)
        places = np.unravel_index(flat, grid)
        return BlockSparse.from_indices(shape, *places, normal(count, size, size))
    slots = max(1, round(density * shape[0]))
    groups = shape[1] // size
    index = np.stack([np.sort(rng.choice(shape[0], slots, replace=False)) for _ in range(groups)])
    if layout == "entries":
        return EntrySparse.from_columns(shape, index.T, normal(slots, groups))
    return GroupedColumns.from_indices(shape, index, normal(groups, slots, size))


def _inputs(batch: int) -> tuple[Any, Any]:
    import jax.numpy as jnp
    import numpy as np

    rng = np.random.default_rng(1)
    normal = lambda: jnp.asarray(rng.normal(size=(batch, SIZE)), jnp.float32)  # noqa: E731
    return normal(), normal()


def _sparse(operator: Any, batch: int) -> Candidate:
    import jax

    leaves, structure = jax.tree.flatten(operator)  # the values first, then the indices

    def both(values: Any, indices: Any, x: Any, y: Any) -> Any:
        multiply = lambda values, x: x @ structure.unflatten([values, *indices])  # noqa: E731
        out, pull = jax.vjp(multiply, values, x)
        return out, pull(y)

    args = (leaves[0], leaves[1:], *_inputs(batch))
    return Candidate(jax.jit(both), args, operator)


def _dense(batch: int) -> Candidate:
    import jax

    def both(matrix: Any, x: Any, y: Any) -> Any:
        out, pull = jax.vjp(lambda matrix, x: x @ matrix, matrix, x)
        return out, pull(y)

    matrix = _operator("entries", 1, 1.0).as_matrix()
    return Candidate(jax.jit(both), (matrix, *_inputs(batch)), None)


def _errors(candidate: Candidate, reference: Candidate) -> float:
    """Largest error of result and gradients, relative to the largest number of each."""
    import jax
    import numpy as np

    operator = candidate.operator
    got_out, (got_values, got_x) = candidate.function(*candidate.args)
    x, y = candidate.args[-2:]
    matrix, to_dense = jax.vjp(
        lambda v: _replaced(operator, v).as_matrix(),
        operator.values,
    )
    want_out, (want_matrix, want_x) = reference.function(matrix, x, y)
    want = want_out, to_dense(want_matrix)[0], want_x
    errors = [
        np.abs(np.asarray(g) - np.asarray(w)).max() / np.abs(np.asarray(w)).max()
        for g, w in zip((got_out, got_values, got_x), want, strict=True)
    ]
    return float(max(errors))


def _replaced(operator: Any, values: Any) -> Any:
    import dataclasses

    return dataclasses.replace(operator, values=values)


def _products(batch: int, quick: bool, report: Report) -> tuple[dict[str, Any], float]:
    layouts = QUICK_LAYOUTS if quick or batch > 128 else LAYOUTS
    densities = QUICK_DENSITIES if quick else DENSITIES
    dense = _dense(batch)
    candidates = {
        _key(layout, size, density): _sparse(_operator(layout, size, density), batch)
        for layout, size in layouts
        for density in densities
    }
    off = max(_errors(candidate, dense) for candidate in candidates.values())
    timed: dict[Any, Any] = {key: (c.function, c.args) for key, c in candidates.items()}
    timed["dense"] = dense.function, dense.args
    times = compare(timed, rounds=15 if quick else 60, seconds=15 if quick else 90)
    rows, series, figures = [], {}, {}
    rows.append(["dense", "", 1e3 * times.median("dense").value, 1.0, ""])
    for layout, size in layouts:
        name = _name(layout, size)
        points = []
        for density in densities:
            key = _key(layout, size, density)
            gain, held = times.ratio("dense", key), candidates[key].operator.density
            rows.append(
                [name, 100 * held, 1e3 * times.median(key).value, gain.value, _spread(gain)]
            )
            points.append((held, gain))
        series[name] = [100 * d for d, _ in points], [g.value for _, g in points]
        figures[f"break_even_{layout}{size}_{batch}"] = _break_even(points)
    title = f"Batch {batch}: forward and backward"
    report.table(title, ["layout", "density %", "ms", "dense ÷ it", "95 %"], rows)
    report.lines(title, "density %", "times faster than dense", series, log="xy")
    if batch == 128:
        figures["grouped_10"] = times.ratio("dense", _key("grouped", GROUP, 0.1))
        figures["grouped_1"] = times.ratio("dense", _key("grouped", GROUP, 0.01))
    return figures, off


def _key(layout: str, size: int, density: float) -> str:
    return f"{layout} {size} {density}"


def _name(layout: str, size: int) -> str:
    return {"blocks": f"blocks {size} × {size}", "grouped": f"groups 1 × {size}"}.get(
        layout, layout
    )


def _spread(figure: Figure) -> str:
    return f"{figure.low:.3g} … {figure.high:.3g}"


def _break_even(points: list[tuple[float, Figure]]) -> Figure:
    """The density from which on dense is faster, interpolated in logarithms."""
    note = "density in % at which dense is as fast"
    for (d0, g0), (d1, g1) in zip(points[:-1], points[1:], strict=True):
        if g0.value >= 1 > g1.value:
            part = math.log(g0.value) / math.log(g0.value / g1.value)
            return Figure(100 * d0 * (d1 / d0) ** part, unit="%", note=note)
    if points[-1][1].value >= 1:
        return Figure(100 * points[-1][0], unit="%", note=f"at least this {note}")
    return Figure(100 * points[0][0], unit="%", note=f"at most this {note}")


def _layers(quick: bool, report: Report) -> tuple[dict[str, Any], float]:
    """Mean and variance of a layer's output, one draw of it, and all three gradients."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    x, noise = _inputs(128)

    def gradients(moments: Callable[..., Any]) -> Any:
        def loss(mean: Any, var: Any, x: Any, noise: Any) -> Any:
            mean, var = moments(mean, var, x)
            return jnp.sum((mean + jnp.sqrt(var) * noise) ** 2)

        return jax.value_and_grad(loss, (0, 1, 2))

    def dense_moments(mean: Any, var: Any, x: Any) -> Any:
        return x @ mean, x**2 @ var

    dense = jax.jit(gradients(dense_moments))
    densities = (0.01, 0.1) if quick else (0.01, 0.02, 0.05, 0.1)
    timed: dict[Any, Any] = {}
    off = 0.0
    for density in densities:
        operator = _operator("grouped", GROUP, density)

        def sparse(mean: Any, var: Any, x: Any, noise: Any, operator: Any) -> Any:
            moments = lambda mean, var, x: _replaced(operator, mean).mean_and_var(var, x)  # noqa: E731
            return gradients(moments)(mean, var, x, noise)

        args = operator.values, operator.values**2 + 1e-3, x, noise
        run = jax.jit(sparse)
        timed[f"{density}"] = run, (*args, operator)
        (value, (_, __, to_x)) = run(*args, operator)
        matrices = [_replaced(operator, v).as_matrix() for v in args[:2]]
        want, (_, __, want_x) = dense(*matrices, x, noise)
        off = max(off, abs(float(value / want) - 1))
        off = max(off, float(np.abs(to_x - want_x).max() / np.abs(want_x).max()))
    full = _operator("entries", 1, 1.0).as_matrix()
    timed["dense"] = dense, (full, full**2, x, noise)
    times = compare(timed, rounds=15 if quick else 60, seconds=10 if quick else 60)
    rows = [["dense", "", 1e3 * times.median("dense").value, 1.0, ""]]
    for density in densities:
        gain = times.ratio("dense", f"{density}")
        rows.append(
            [_name("grouped", GROUP), 100 * density, 1e3 * times.median(f"{density}").value]
            + [gain.value, _spread(gain)]
        )
    title = "Batch 128: mean and variance, forward and backward"
    report.table(title, ["layout", "density %", "ms", "dense ÷ it", "95 %"], rows)
    return {
        "bayes_10": times.ratio("dense", "0.1", "mean and variance, 10 % dense"),
        "bayes_1": times.ratio("dense", "0.01", "mean and variance, 1 % dense"),
    }, off


def _memory(report: Report) -> dict[str, Any]:
    """Bytes that training a matrix keeps, and XLA's working memory of a step."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import optax

    from bayesjx.ops._subspace_linear import SubspaceLinear

    def kept(*trees: Any) -> int:
        return sum(leaf.nbytes for tree in trees for leaf in jax.tree.leaves(tree))

    adam, matrix = optax.adam(1e-3), jnp.zeros((SIZE, SIZE), jnp.float32)
    all_of_it = kept(matrix, adam.init(matrix))
    dense = _dense(128)
    rows = [["dense", 100.0, all_of_it, 1.0, compiled_memory(dense.function, *dense.args)["temp"]]]
    share = math.nan
    for layout, size in QUICK_LAYOUTS:
        for density in (0.1, 0.01):
            operator = _operator(layout, size, density)
            layer = SubspaceLinear(None, operator)
            moving, _ = eqx.partition(layer, layer.trainable())
            held = kept(layer, adam.init(moving))
            candidate = _sparse(operator, 128)
            temp = compiled_memory(candidate.function, *candidate.args)["temp"]
            row = [_name(layout, size), 100 * operator.density, held, held / all_of_it, temp]
            rows.append(row)
            if (layout, size, density) == ("grouped", GROUP, 0.1):
                share = held / all_of_it
    header = ["layout", "density %", "bytes kept", "÷ dense", "bytes of working memory"]
    report.table("Parameters, indices and both moments of Adam", header, rows)
    return {"state_10": share}


BENCHMARK = Benchmark(
    name="ops-sparse",
    claim="sparse layers take time and memory in proportion to their density",
    source="shapes and densities of Li et al. 2024 (sparse subspace variational inference)",
    targets=TARGETS,
    run=run,
)
