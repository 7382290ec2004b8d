"""The bars test by six sparse coding models, time of an EM step, and patches of photographs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from benchmarks._declare import Benchmark, Figure, Target
from benchmarks._report import Report

SEEDS, QUICK_SEEDS = 10, 4
ROWS, QUICK_ROWS = 1000, 500
BARS, HEIGHT = 10, 10.0
WRONG = 1.0  # mean error of a pixel at which a bar is not found, a tenth of its height

PATCH, PATCHES, PATCH_STEPS, BATCH = 8, 20_000, 300, 1000

NAMES = ("BSC", "TSC", "DSC", "MCA", "MMCA", "GSC")
QUICK_NAMES = ("BSC", "MCA", "GSC")  # models of the quick run, and of larger sizes


class Case(NamedTuple):
    """How bars are made for a model, and how its posteriors are truncated where a step is timed.

    Attributes:
        options: of `datasets.bars`.
        num_candidates: as in the published experiments.
        max_active: as in the published experiments.
    """

    options: dict[str, Any]
    num_candidates: int
    max_active: int


CASES = {
    "BSC": Case({}, 8, 5),
    "TSC": Case({"values": (1.0, -1.0)}, 7, 5),
    "DSC": Case({"values": (1.0, 2.0), "value_probs": (0.75, 0.25)}, 7, 5),
    "MCA": Case({"superposition": "max"}, 8, 5),
    "MMCA": Case({"superposition": "max_magnitude", "signed": True}, 7, 5),
    "GSC": Case({"slab": (1.0, 1.0), "noise_var": 1.0}, 7, 4),
}

TARGETS = (
    *(
        Target(
            f"bars_{name}",
            ">=",
            9,
            quick=3 if name in QUICK_NAMES else None,
            meaning=f"seeds with all bars found, {name}",
        )
        for name in NAMES
    ),
    *(
        Target(
            f"step_{name}",
            ">=",
            20,
            quick=10 if name in QUICK_NAMES else None,
            unit="×",
            meaning=f"a step: NumPy ÷ {name}",
        )
        for name in NAMES
    ),
    Target("same", "<=", 5e-3, meaning="largest relative difference of weights after a step"),
    Target("patches", ">=", 2, quick=None, unit="nats", meaning="GSC over a normal, held out"),
)


def run(quick: bool, report: Report) -> Mapping[str, Any]:
    """All in float32, NumPy too."""
    report.note(
        f"Bars of 5 by 5 pixels: {BARS} bars of height {HEIGHT:g}, each in a fifth of the images, "
        f"variance of the noise 4 (GSC: 1, and bars are scaled by N(1, 1)). A bar is found if the "
        "mean error of its pixels is less than a tenth of its height, after the best matching; "
        "TSC knows bars up to sign, GSC up to scale. All models are learnt by "
        "learn_dictionary(key, MODEL, y, 10) without options."
    )
    figures = _bars(quick, report)
    figures |= _steps(quick, report)
    if not quick:
        figures |= _patches(report)
    return figures


def _bars(quick: bool, report: Report) -> dict[str, Any]:
    """How often all bars are found."""
    import time

    import jax
    import numpy as np

    from bayesjx import datasets, sbl

    seeds, rows = (QUICK_SEEDS, QUICK_ROWS) if quick else (SEEDS, ROWS)
    keys = jax.random.split(jax.random.key(0), seeds)
    figures, table = {}, []
    for name in QUICK_NAMES if quick else NAMES:
        kind, options = getattr(sbl, name), CASES[name].options

        def learnt(key: Any, kind: Any = kind, options: Any = options) -> Any:
            data_key, start_key = jax.random.split(key)
            truth = datasets.bars(data_key, rows, **options)
            return sbl.learn_dictionary(start_key, kind, truth.y, BARS, throw=False), truth.weights

        # One after another: side by side, by vmap, the probabilities of states leave the caches.
        begun = time.perf_counter()
        fits, weights = jax.block_until_ready(jax.jit(lambda keys: jax.lax.map(learnt, keys))(keys))
        seconds = time.perf_counter() - begun
        worst = [
            _worst(name, jax.tree.map(lambda x, i=i: x[i], fits.model), np.asarray(weights[i]))
            for i in range(seeds)
        ]
        found = sum(error < WRONG for error in worst)
        figures[f"bars_{name}"] = Figure(found, note=f"of {seeds}")
        noise, steps = np.median(fits.noise_var), int(np.median(fits.num_steps))
        table.append([name, found, float(np.median(worst)), max(worst), noise, steps, seconds])
    header = ["", "found", "worst bar, median", "largest", "noise", "steps", "seconds"]
    report.table(f"{seeds} seeds in one program, {rows} images each", header, table)
    return figures


def _worst(name: str, model: Any, truth: Any) -> float:
    """The largest mean error of a bar, after the best matching."""
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    found = np.asarray(model.weights)
    if name == "GSC":  # the root mean square of what a cause adds
        scale = np.sqrt(0.5 * (model.slab_mean**2 + model.slab_var)) * np.sign(model.slab_mean)
        found = found * np.asarray(scale)[:, None]
    errors = np.mean(np.abs(found[:, None] - truth), axis=2)
    if name == "TSC":
        errors = np.minimum(errors, np.mean(np.abs(found[:, None] + truth), axis=2))
    return float(np.max(errors[linear_sum_assignment(errors)]))


def _steps(quick: bool, report: Report) -> dict[str, Any]:
    """Time of a step at the published sizes, and at four times the pixels and twice the causes."""
    from benchmarks import compare

    figures, differences = {}, []
    report.note(
        "NumPy: the published algorithm for all data at once, with the mean of every state of "
        "every datum written out, in chunks that fit in the caches (benchmarks/sbl/"
        "_prosper_numpy.py, 200 lines). Both sides in float32, on the same two threads."
    )
    for name in QUICK_NAMES if quick else NAMES:
        for size in (5, 10) if not quick and name in QUICK_NAMES else (5,):
            ours, theirs, states = _candidates(name, QUICK_ROWS if quick else ROWS, size)
            differences.append(_difference(ours, theirs))
            rounds = {"rounds": 5, "min_rounds": 3, "seconds": 4.0}
            times = compare({"ours": ours, "NumPy": theirs}, **rounds)
            title = f"A step of {name}: {size**2} pixels, {2 * size} causes, {states} states"
            report.times(title, times, against="ours")
            figures[f"step_{name}" if size == 5 else f"larger_{name}"] = times.ratio(
                "NumPy", "ours"
            )
    return figures | {"same": max(differences)}


def _candidates(name: str, rows: int, size: int) -> tuple[Any, Any, int]:
    """A step of ours and of NumPy's from the same parameters, and the number of states."""
    import jax
    import numpy as np

    from bayesjx import datasets, sbl
    from benchmarks.sbl import _prosper_numpy as peer

    case = CASES[name]
    truth = datasets.bars(jax.random.key(3), rows, size=size, prior_prob=1 / size, **case.options)
    y, draw = np.asarray(truth.y), np.random.default_rng(0)
    weights = np.asarray(truth.weights) + draw.normal(size=truth.weights.shape)
    weights = (np.abs(weights) if name == "MCA" else weights).astype(y.dtype)
    probs = {"DSC": [0.15, 0.05]}.get(name, 0.2)
    truncation = {"num_candidates": case.num_candidates, "max_active": case.max_active}
    slab = (1.0, 1.0) if name == "GSC" else ()
    model = getattr(sbl, name)(weights, 4.0, probs, *slab, **truncation)
    algorithm = sbl.truncated_em(model)
    state = algorithm.init()
    ours = (jax.jit(lambda state, y: algorithm.step(None, state, y)[0].model), (state, truth.y))
    sizes, noise = peer.Sizes(case.num_candidates, case.max_active), y.dtype.type(4.0)
    if name in ("MCA", "MMCA"):
        theirs = (peer.maximal_step, (y, weights, noise, 0.2, name == "MMCA", sizes))
    elif name == "GSC":
        slabs = (np.asarray(x) for x in (model.prior_prob, model.slab_mean, model.slab_var))
        theirs = (peer.slab_step, (y, weights, noise, *slabs, sizes))
    else:
        values = np.asarray(model.value_probs()), model.values
        theirs = (peer.linear_step, (y, weights, noise, *values, sizes))
    return ours, theirs, model.num_states


def _difference(ours: Any, theirs: Any) -> float:
    import numpy as np

    model, (weights, noise) = ours[0](*ours[1]), theirs[0](*theirs[1])
    apart = np.max(np.abs(np.asarray(model.weights) - weights)) / np.max(np.abs(weights))
    return float(max(apart, abs(float(model.noise_var) / noise - 1)))


def _patches(report: Report) -> dict[str, Any]:
    """Held-out density of whitened patches of a photograph: GSC beside a normal distribution."""
    import jax
    import numpy as np
    from scipy.stats import multivariate_normal

    import bayesjx
    from bayesjx import sbl

    train, test = _whitened()
    start = sbl.GSC.at_data(jax.random.key(0), train, train.shape[1])
    algorithm = sbl.truncated_em(start, step_size=_decay)
    fit = bayesjx.fit(
        jax.random.key(1),
        algorithm,
        algorithm.init(),
        PATCH_STEPS,
        data=(jax.numpy.asarray(train),),
        batch_size=BATCH,
    )
    found = np.asarray(fit.state.model.log_evidence(test))
    normal = multivariate_normal(train.mean(axis=0), np.cov(train.T, dtype=float)).logpdf(test)
    error = np.std(found - normal) / len(test) ** 0.5
    report.note(
        f"Patches of {PATCH} by {PATCH} pixels of scikit-learn's photograph of a temple, whitened; "
        f"{PATCHES} of its left three quarters for training, {len(test)} of the rest for testing. "
        f"GSC with {train.shape[1]} causes by {PATCH_STEPS} steps of stepwise EM with {BATCH} "
        f"patches each, {fit.seconds:.1f} s: a bound of {found.mean():.2f} nats a patch, a normal "
        f"distribution of full covariance {normal.mean():.2f}."
    )
    gain = float(np.mean(found - normal))
    return {"patches": Figure(gain, gain - 1.96 * error, gain + 1.96 * error)}


def _decay(count: Any) -> Any:
    """Step sizes of stepwise EM."""
    return (count + 2.0) ** -0.6


def _whitened() -> tuple[Any, Any]:
    """Patches for training and for testing."""
    import numpy as np
    from sklearn.datasets import load_sample_image

    image, draw = load_sample_image("china.jpg").mean(axis=2) / 255, np.random.default_rng(0)
    windows = np.lib.stride_tricks.sliding_window_view(image, (PATCH, PATCH))
    edge = 3 * image.shape[1] // 4
    parts = []
    for columns, number in (((0, edge - PATCH), PATCHES), ((edge, windows.shape[1]), 4000)):
        rows = draw.integers(0, len(windows), number)
        parts.append(windows[rows, draw.integers(*columns, number)].reshape(number, -1))
    values, vectors = np.linalg.eigh(np.cov(parts[0].T))
    whiten = (vectors / np.sqrt(values + 1e-3 * values.mean())) @ vectors.T
    return tuple(((x - parts[0].mean(axis=0)) @ whiten).astype(np.float32) for x in parts)


BENCHMARK = Benchmark(
    name="sbl-prosper",
    claim="all bars are found by one recipe, and a step costs a twentieth of vectorised NumPy",
    source="Lücke and Eggert 2010; Exarchakis and Lücke 2017; Sheikh et al. 2014; ProSper",
    targets=TARGETS,
    run=run,
)
