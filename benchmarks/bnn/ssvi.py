"""Sparse subspace variational inference beside dense mean field and a static mask."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks._declare import Benchmark, Figure, Target
from benchmarks._report import Report
from benchmarks._stats import median, paired_ratio
from benchmarks._timing import compare
from benchmarks.bnn._ssvi_runs import (
    algorithm_of,
    BATCH,
    convolutions,
    Data,
    data,
    GROUP,
    Kind,
    likelihood,
    perceptron,
    PRIOR_SCALE,
    Score,
    sparse,
    trained,
)

WIDTH = 1024  # of what is timed
LEARNT, QUICK_LEARNT = 512, 256  # of what is trained to the end
STEPS, QUICK_STEPS = 1200, 200
SEEDS, QUICK_SEEDS = 5, 1
DENSITIES, QUICK_DENSITIES = (0.1, 0.05, 0.01), (0.1, 0.05)
ENTRY_DENSITIES, QUICK_ENTRY_DENSITIES = (0.01, 0.02, 0.05, 0.1), (0.02,)
MOVE_EVERY = 50
AT_ONCE = 3  # steps in a timed program

TARGETS = (
    Target("drop_mlp_10", "<=", 0.03, quick=None, meaning="accuracy of dense − 10 %, perceptron"),
    Target("drop_mlp_5", "<=", 0.03, quick=None, meaning="accuracy of dense − 5 %, perceptron"),
    Target(
        "drop_conv_10", "<=", 0.03, quick=None, meaning="accuracy of dense − 10 %, convolutions"
    ),
    Target("drop_conv_5", "<=", 0.03, quick=None, meaning="accuracy of dense − 5 %, convolutions"),
    Target("over_static", ">=", 0.0, quick=None, meaning="least accuracy over a static mask"),
    Target("step_10", ">=", 3.0, quick=2.0, unit="×", meaning="step of dense ÷ 10 %, groups of 32"),
    Target("step_5", ">=", 4.0, quick=3.0, unit="×", meaning="step of dense ÷ 5 %, groups of 32"),
    Target("state_10", "<=", 0.125, unit="", meaning="bytes of parameters and optimiser ÷ dense"),
    Target(
        "longer", "<=", 0.005, quick=None, meaning="accuracy of dense with twice the steps − it"
    ),
)


def run(quick: bool, report: Report) -> Mapping[str, Any]:
    """Predictions of five seeds, then time and memory of a step."""
    seeds, steps = (QUICK_SEEDS, QUICK_STEPS) if quick else (SEEDS, STEPS)
    width = QUICK_LEARNT if quick else LEARNT
    name = data(0, False)[1]
    report.note(
        f"{name}, four fifths of them to train on. One recipe for all, dense mean field included, "
        f"which is the same program with all weights active: Adam, {steps} steps of {BATCH} "
        f"images, prior scale {PRIOR_SCALE}, divergence times 0.1, groups of 32 (of 8 below 5 %), "
        "first convolution and last layer dense. Test probabilities average 10 networks. Images of "
        "another kind are the test images cut into squares in random order. Perceptron: "
        f"{width} and {width} hidden units; convolutions: 16 and 32 channels of 5 × 5, stride 2, "
        "then 128 units."
    )
    figures = _quality("mlp", quick, width, steps, seeds, report)
    if not quick:
        figures |= _quality("conv", quick, width, steps, seeds, report)
        gains = [value for key, value in figures.items() if key.startswith("gain_")]
        figures["over_static"] = min(gains)
        figures |= _longer(width, steps)
    return figures | _costs(quick, report)


def _network(net: str, seed: int, width: int) -> tuple[Any, Data]:
    import jax

    of, _ = data(seed, images=net == "conv")
    side = round(of.x[0].size ** 0.5)
    key = jax.random.key(1000 + seed)
    return (convolutions(key, side) if net == "conv" else perceptron(key, side**2, width)), of


def _quality(
    net: str, quick: bool, width: int, steps: int, seeds: int, report: Report
) -> dict[str, Any]:
    densities = QUICK_DENSITIES if quick else DENSITIES
    kinds = [Kind(1.0), *(Kind(d, moves) for d in densities for moves in (True, False))]
    if quick:
        kinds = [kind for kind in kinds if kind.moves]
    elif net == "mlp":
        kinds.append(Kind(min(densities), entries=True))
    scores: dict[str, list[Score]] = {kind.name: [] for kind in kinds}
    for seed in range(seeds):
        model, of = _network(net, seed, width)
        for kind in kinds:
            scores[kind.name].append(trained(seed, model, kind, of, steps))
    header = ["", "accuracy", "± s.e.", "NLL", "ECE", "OOD AUROC", "compression"]
    rows = []
    for name, each in scores.items():
        mean = Score(*np.mean(each, axis=0))
        error = np.std([s.accuracy for s in each]) / max(1, len(each) - 1) ** 0.5
        rows.append([name, mean.accuracy, error, *mean[1:5]])
    report.table(f"Test images, {net}, {seeds} seeds", header, rows)
    cost = [[name, 1e3 * np.median([s.seconds for s in each]), each[0].flops]
            for name, each in scores.items()]  # fmt: skip
    report.table(f"Each run, {net}", ["", "ms a step", "FLOPs ÷ dense"], cost)
    accuracy = {name: np.array([s.accuracy for s in each]) for name, each in scores.items()}
    figures: dict[str, Any] = {}
    for density in densities:
        label, drop = f"{100 * density:g}", accuracy["dense mean field"]
        figures[f"drop_{net}_{label}"] = _mean(drop - accuracy[Kind(density).name])
        static = Kind(density, False).name
        if static in accuracy:
            figures[f"gain_{net}_{label}"] = float(
                np.mean(accuracy[Kind(density).name] - accuracy[static])
            )
    return figures


def _mean(differences: np.ndarray) -> Figure:
    """Their mean with two standard errors."""
    middle, count = float(np.mean(differences)), len(differences)
    if count < 2:
        return Figure(middle)
    error = 2 * float(np.std(differences, ddof=1)) / math.sqrt(count)
    return Figure(middle, middle - error, middle + error)


def _longer(width: int, steps: int) -> dict[str, Any]:
    """Whether dense mean field has converged."""
    model, of = _network("mlp", 0, width)
    once, twice = (trained(0, model, Kind(1.0), of, n) for n in (steps, 2 * steps))
    return {"longer": twice.accuracy - once.accuracy}


def _costs(quick: bool, report: Report) -> dict[str, Any]:
    """Time of a step of the large perceptron in one process, and bytes."""
    import jax

    from bayesjx import bnn

    model, of = _network("mlp", 0, WIDTH)
    x, y = of.x[:BATCH], of.y[:BATCH]
    timed: dict[Any, Any] = {}
    held: dict[str, Any] = {}
    groups = QUICK_DENSITIES if quick else DENSITIES
    cases = {"dense": (1.0, GROUP)} | {f"{100 * d:g} %": (d, GROUP) for d in groups}
    entries = QUICK_ENTRY_DENSITIES if quick else ENTRY_DENSITIES
    cases |= {f"{100 * d:g} % entries": (d, 1) for d in entries}
    for name, (density, group) in cases.items():
        q = sparse(jax.random.key(0), model, density, group)
        algorithm = algorithm_of(q, len(of.x), STEPS, density < 1)
        state = algorithm.init()
        held[name] = bnn.training_costs(q, algorithm, state, x, y)
        timed[name] = _many(algorithm, AT_ONCE), (state, x, y)
        if name in ("10 %", "5 %"):
            last = state._replace(
                natural=state.natural._replace(step=state.natural.step + MOVE_EVERY - 1)
            )
            timed[f"{name} move"] = _many(algorithm, 1), (last, x, y)
    algorithm = _peer(model, len(of.x))
    timed["dense, mean_field"] = _many(algorithm, AT_ONCE), (algorithm.init(), x, y)
    times = compare(timed, rounds=5 if quick else 40, min_rounds=3, seconds=5 if quick else 120)
    seconds = {n: t / (1 if n.endswith("move") else AT_ONCE) for n, t in times.samples.items()}
    seconds |= {  # with the moves' share
        n: (1 - 1 / MOVE_EVERY) * seconds[n] + seconds[f"{n} move"] / MOVE_EVERY
        for n in ("10 %", "5 %")
    }
    dense = min((seconds["dense"], seconds["dense, mean_field"]), key=np.median)
    rows = []
    for name, each in seconds.items():
        gain, costs = paired_ratio(dense, each), held.get(name)
        row = [name, 1e3 * median(each).value, gain.value, f"{gain.low:.3g} … {gain.high:.3g}"]
        if costs is None:
            rows.append([*row, "", "", "", ""])
            continue
        kept = costs.parameter_bytes + costs.optimizer_bytes
        flops = costs.step_flops / costs.dense_step_flops
        rows.append([*row, flops, kept / 1e6, costs.index_bytes / 1e6, costs.temporary_bytes / 1e6])
    report.table(
        "A step of 784-1024-1024-10, moves included where there is a row of theirs",
        ["", "ms", "dense ÷ it", "95 %", "FLOPs ÷ dense", "MB kept", "MB indices", "MB temporary"],
        rows,
    )
    full = held["dense"].parameter_bytes + held["dense"].optimizer_bytes
    share = held["10 %"].parameter_bytes + held["10 %"].optimizer_bytes + held["10 %"].index_bytes
    figures: dict[str, Any] = {} if quick else {"step_1": paired_ratio(dense, seconds["1 %"])}
    return figures | {
        "step_10": paired_ratio(dense, seconds["10 %"]),
        "step_5": paired_ratio(dense, seconds["5 %"]),
        "state_10": share / full,
        "entries_even": _break_even(dense, seconds, entries),
    }


def _many(algorithm: Any, count: int) -> Any:
    """Steps of an algorithm in one program, as `fit` makes them."""
    import jax

    def run(state: Any, x: Any, y: Any) -> Any:
        body = lambda i, s: algorithm.step(jax.random.fold_in(jax.random.key(0), i), s, x, y)[0]  # noqa: E731
        return jax.lax.fori_loop(0, count, body, state)

    return jax.jit(run)


def _peer(model: Any, num_data: int) -> Any:
    """Dense mean-field inference of the same weights by the library's general way."""
    import optax

    from bayesjx import bnn

    weights = lambda network: [layer.weight for layer in network.layers]  # noqa: E731
    q = bnn.mean_field(
        model, likelihood, prior=PRIOR_SCALE, where=weights, init_scale=1e-3, estimator="local"
    )
    return bnn.mean_field_vi(q, optax.adam(1e-3), num_data=num_data, kl_weight=0.1)


def _break_even(dense: np.ndarray, seconds: Mapping[str, Any], densities: Any) -> Figure:
    """The density of single entries from which on dense is faster, interpolated in logarithms."""
    note = "density of entries in % at which dense is as fast"
    gains = [float(np.median(dense / seconds[f"{100 * d:g} % entries"])) for d in densities]
    pairs = list(zip(densities, gains, strict=True))
    for (d0, g0), (d1, g1) in zip(pairs[:-1], pairs[1:], strict=True):
        if g0 >= 1 > g1:
            part = math.log(g0) / math.log(g0 / g1)
            return Figure(100 * d0 * (d1 / d0) ** part, unit="%", note=note)
    ends = ("at most", pairs[0][0]) if gains[0] < 1 else ("at least", pairs[-1][0])
    return Figure(100 * ends[1], unit="%", note=f"{ends[0]} this {note}")


BENCHMARK = Benchmark(
    name="bnn-ssvi",
    claim="sparse networks predict nearly as well as dense ones, in a fraction of time and memory",
    source="Li et al. 2024 (sparse subspace variational inference): 10-20 times compression",
    targets=TARGETS,
    run=run,
)
