"""NIW-Meta: exactness on conjugate tasks, few-shot regression and classification beside MAML."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from typing import Any

from benchmarks._declare import Benchmark, Figure, Target
from benchmarks._report import Report

STEPS = {"full": 6000, "quick": 100}  # of NIW-Meta, 4 tasks each
PEER_TRAINING = {"full": 20_000, "quick": 200}  # steps of the others, 16 tasks each
TASKS = {"full": 400, "quick": 20}  # held out
LINEAR_STEPS = {"full": 1500, "quick": 150}
QUERIES, SHOTS = 40, (5, 10)
DIGIT_SHOTS, DIGIT_ROWS = 5, 15  # of each class
PEERS = ("MAML", "first order", "Reptile")
PEER_STEPS = 10  # inner steps on held-out tasks, twice those of training
DIGIT_SHARE = 4  # how many times fewer steps digits take

TARGETS = (
    Target("exact", "<=", 1e-8, meaning="posterior of conjugate tasks, largest relative error"),
    Target("empirical_bayes", "<=", 0.02, quick=0.2,
           meaning="learnt mean of weights from that of EM, relative"),
    Target("error_ratio", "<=", 1.0, quick=100.0, unit="×", meaning="sinusoids: MSE ÷ MAML's"),
    Target("nll_gain", ">=", 0.0, quick=-100.0, unit="nats",
           meaning="sinusoids: log density of a target over MAML's"),
    Target("ece_ratio", "<=", 1.0, quick=100.0, unit="×",
           meaning="digits: calibration error ÷ MAML's"),
    Target("memory_growth", "<=", 1.05, unit="×", meaning="10 inner steps ÷ 1, a training step"),
)  # fmt: skip


def run(quick: bool, report: Report) -> Mapping[str, Any]:
    """One recipe for all: the defaults of `NIWMeta`, Adam at 1e-2 with a cosine schedule."""
    import jax

    size = "quick" if quick else "full"
    figures: dict[str, Any] = {}
    with jax.enable_x64(True):
        figures |= _conjugate(size, report)
    figures |= _memory(quick, report)
    figures |= _sinusoids(size, report)
    figures |= _digits(size, report)
    return figures


def _conjugate(size: str, report: Report) -> dict[str, Any]:
    """Bayesian linear regressions with known noise: posteriors, and what all have in common."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import numpy as np
    import numpyro.distributions as dist
    import optax

    import bayesjx
    from bayesjx import amortized

    number, rows, d, noise = 200, 6, 8, 0.5
    rng = np.random.default_rng(0)
    centre, spread = rng.normal(size=d), np.exp(rng.normal(size=d) - 0.5)
    x = rng.normal(size=(number, rows, d))
    weights = centre + spread * rng.normal(size=(number, d))
    y = np.einsum("tnd,td->tn", x, weights) + noise * rng.normal(size=(number, rows))

    def exact(loc: Any, precision: Any) -> tuple[Any, Any]:
        matrix = x.mT @ x / noise**2 + np.diag(precision)
        right = (x.mT @ y[..., None])[..., 0] / noise**2 + precision * loc
        return np.linalg.solve(matrix, right[..., None])[..., 0], np.linalg.inv(matrix)

    network = eqx.nn.Linear(d, "scalar", use_bias=False, key=jax.random.key(0))
    meta = amortized.NIWMeta(network, lambda f: dist.Normal(f, noise), task_scale=1.0)
    keys = jax.random.split(jax.random.key(1), number)
    made = jax.jit(jax.vmap(lambda key, x, y: meta.adapt(key, x, y)))(keys, x, y)
    mean, covariance = exact(np.asarray(meta.loc), np.asarray(meta.precision))
    own = np.asarray(jax.vmap(lambda m: m.weights.covariance_matrix)(made))
    errors = [
        np.max(np.abs(found - want)) / np.max(np.abs(want))
        for found, want in ((made.gaussian.loc, mean), (own, covariance))
    ]
    steps = LINEAR_STEPS[size]
    optimizer = optax.adam(optax.cosine_decay_schedule(0.05, steps))
    algorithm = amortized.niw_meta(meta, optimizer)
    data = jnp.asarray(x), jnp.asarray(y)
    fit = bayesjx.fit(
        jax.random.key(2), algorithm, algorithm.init(), steps, data=data, batch_size=50
    )
    found = bayesjx.trained(meta, fit.state)
    loc, variance = np.zeros(d), np.ones(d)
    for _ in range(3000):
        means, covariances = exact(loc, 1 / variance)
        loc = means.mean(axis=0)
        variance = np.mean((means - loc) ** 2 + np.diagonal(covariances, 0, 1, 2), axis=0)
    ours = np.asarray(found.loc)
    rows_shown = [
        [f"weight {i}", centre[i], loc[i], ours[i], spread[i], variance[i] ** 0.5,
         float(found.precision[i] ** -0.5)]
        for i in range(d)
    ]  # fmt: skip
    report.table(
        f"{number} linear regressions of {rows} rows and {d} weights",
        ["", "mean", "EM", "NIW-Meta", "deviation", "EM", "NIW-Meta"],
        rows_shown,
    )
    return {
        "exact": Figure(float(max(errors))),
        "empirical_bayes": Figure(float(np.linalg.norm(ours - loc) / np.linalg.norm(loc))),
    }


def _memory(quick: bool, report: Report) -> dict[str, Any]:
    """Working memory of a training step, by XLA's plan."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import optax

    from bayesjx import amortized, likelihoods
    from benchmarks._timing import compiled_memory
    from benchmarks.amortized import _few_shot as few

    network, rows = _network("sinusoid"), 2 * SHOTS[1]
    arrays, rest = eqx.partition(network, eqx.is_inexact_array)
    counts = (1, 10) if quick else (1, 3, 10)
    plans: dict[str, list[int]] = {"NIW-Meta": [], "NIW-Meta, diagonal": [], "MAML": []}
    task = functools.partial(few.sinusoid, rows=rows)
    xs, ys = few.draw(few.sinusoid, 0, 4, rows)
    for steps in counts:
        kinds: dict[str, dict[str, Any]] = {
            "NIW-Meta": {},
            "NIW-Meta, diagonal": {"curvature": "diagonal", "num_probes": 2},
        }
        for name, options in list(kinds.items())[: 1 if quick else None]:  # programs to compile
            meta = amortized.NIWMeta(
                network, likelihoods.Gaussian(0.1), inner_steps=steps, **options
            )
            algorithm = amortized.niw_meta(meta, optax.sgd(1e-3), task, batch_size=4)
            step = lambda key, state, step=algorithm.step: step(key, state)  # noqa: E731
            plans[name].append(compiled_memory(step, jax.random.key(0), algorithm.init())["temp"])
        of_task = few.maml_loss("MAML", few.square, SHOTS[1], steps)

        def total(arrays: Any, of_task: Any = of_task) -> Any:
            params = eqx.combine(arrays, rest), jnp.log(0.01)
            return jnp.mean(jax.vmap(lambda x, y: of_task(params, x, y))(xs, ys))

        plans["MAML"].append(compiled_memory(jax.grad(total), arrays)["temp"])
    report.table(
        f"Working memory of a step of 4 sinusoids, {rows} rows each, KiB, by inner steps",
        ["", *map(str, counts)],
        [[name, *(size / 1024 for size in sizes)] for name, sizes in plans.items() if sizes],
    )
    grown = {name: sizes[-1] / sizes[0] for name, sizes in plans.items() if sizes}
    maml = grown.pop("MAML")
    return {
        "memory_growth": Figure(max(grown.values())),
        "maml_memory_growth": Figure(maml, unit="×"),
    }


def _network(kind: str) -> Any:
    """The same start for all methods."""
    import equinox as eqx
    import jax

    from benchmarks.amortized import _few_shot as few

    key = jax.random.key(0)
    if kind == "sinusoid":
        return eqx.nn.MLP(1, "scalar", 40, 2, key=key)
    return eqx.nn.MLP(64, few.WAYS, 40, 2, key=key)


def _trained(kind: str, task: Any, rows: int, steps: int) -> tuple[Any, float]:
    """The library's own recipe, and its seconds."""
    import jax
    import numpyro.distributions as dist
    import optax

    import bayesjx
    from bayesjx import amortized, likelihoods

    started = time.perf_counter()
    likelihood: Any = likelihoods.Gaussian(0.1)
    if kind != "sinusoid":
        likelihood = lambda f: dist.Categorical(logits=f)  # noqa: E731
    meta = amortized.NIWMeta(_network(kind), likelihood)
    optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, steps))
    algorithm = amortized.niw_meta(meta, optimizer, functools.partial(task, rows=rows))
    fit = bayesjx.fit(jax.random.key(1), algorithm, algorithm.init(), steps)
    return bayesjx.trained(meta, fit.state), time.perf_counter() - started


def _predicted(meta: Any, tasks: Any, shots: int, of: Any) -> Any:
    """What `of` makes of the predictive distribution and targets of each task."""
    import jax

    @jax.jit
    def predict(arrays: Any) -> Any:
        def one(task: Any) -> Any:
            key, x, y = task
            made = meta.adapt(key, x[:shots], y[:shots])
            return of(made.predict(x[shots:]), y[shots:])

        return jax.lax.map(one, arrays, batch_size=20)

    return predict((jax.random.split(jax.random.key(3), len(tasks[0])), *tasks))


def _sinusoids(size: str, report: Report) -> dict[str, Any]:
    import jax
    import jax.numpy as jnp
    import numpy as np
    from scipy.stats import norm

    from benchmarks.amortized import _few_shot as few

    steps, number, rows = STEPS[size], TASKS[size], []
    figures: dict[str, Any] = {}
    sizes = SHOTS if size == "full" else SHOTS[:1]  # each with programs of its own
    for shots in sizes:
        tasks = few.draw(few.sinusoid, 7, number, shots + QUERIES)
        meta, seconds = _trained("sinusoid", few.sinusoid, 2 * shots, steps)
        scores = {
            "NIW-Meta": _predicted(
                meta, tasks, shots,
                lambda new, y: (jnp.mean((new.mean - y) ** 2), -jnp.mean(new.log_prob(y))),
            )
        }  # fmt: skip
        spent = {"NIW-Meta": seconds}
        tuning = few.draw(few.sinusoid, 8, number, shots + QUERIES)
        for kind in PEERS:
            started = time.perf_counter()
            params = few.maml(
                jax.random.key(1), _network("sinusoid"), kind, few.square, few.sinusoid, shots,
                2 * shots, PEER_TRAINING[size],
            )  # fmt: skip
            jax.block_until_ready(params[1])
            spent[kind] = time.perf_counter() - started
            values = lambda t: few.maml_predictions(params, few.square, t, shots, PEER_STEPS)  # noqa: B023, E731
            noise = float(jnp.mean((values(tuning) - tuning[1][:, shots:]) ** 2)) ** 0.5
            error = np.asarray(values(tasks) - tasks[1][:, shots:])
            scores[kind] = (error**2).mean(1), -norm.logpdf(error, 0, noise).mean(1)
        for name, (square, nll) in scores.items():
            rows.append([f"{shots} shots, {name}", *_summary(square), *_summary(nll), spent[name]])
        ours, peer = scores["NIW-Meta"], scores["MAML"]
        figures[f"error_ratio_{shots}"] = _ratio(np.asarray(ours[0]), np.asarray(peer[0]))
        gain = np.asarray(peer[1]) - np.asarray(ours[1])
        mean, error = _summary(gain)
        figures[f"nll_gain_{shots}"] = Figure(mean, mean - 1.96 * error, mean + 1.96 * error)
    report.table(
        f"Sinusoids, {number} held-out tasks, {QUERIES} queries each; NIW-Meta by {4 * steps} "
        f"tasks of training, the others by {16 * PEER_TRAINING[size]}",
        ["", "MSE", "standard error", "NLL", "standard error", "seconds"],
        rows,
    )
    worst = max((figures[f"error_ratio_{s}"] for s in sizes), key=lambda f: f.value)
    least = min((figures[f"nll_gain_{s}"] for s in sizes), key=lambda f: f.value)
    return figures | {"error_ratio": worst, "nll_gain": least}


def _digits(size: str, report: Report) -> dict[str, Any]:
    import jax
    import numpy as np

    from bayesjx import diagnostics
    from benchmarks.amortized import _few_shot as few

    steps, number = STEPS[size] // DIGIT_SHARE, TASKS[size]
    shots, rows = few.WAYS * DIGIT_SHOTS, few.WAYS * DIGIT_ROWS
    train, test = few.digits("train"), few.digits("test")
    tasks = few.draw(test, 7, number, rows)
    meta, seconds = _trained("digits", train, 2 * shots, steps)
    probs = {"NIW-Meta": np.asarray(_predicted(meta, tasks, shots, lambda new, _: new.probs))}
    spent = {"NIW-Meta": seconds}
    for kind in PEERS:
        started = time.perf_counter()
        params = few.maml(
            jax.random.key(1), _network("digits"), kind, few.cross_entropy, train, shots,
            2 * shots, PEER_TRAINING[size] // DIGIT_SHARE,
        )  # fmt: skip
        jax.block_until_ready(params[1])
        spent[kind] = time.perf_counter() - started
        logits = few.maml_predictions(params, few.cross_entropy, tasks, shots, PEER_STEPS)
        probs[kind] = np.asarray(jax.nn.softmax(logits))
    labels = np.asarray(tasks[1][:, shots:])
    errors, table = {}, []
    for name, of_tasks in probs.items():
        flat = of_tasks.reshape(-1, few.WAYS)
        score = diagnostics.log_score(flat, labels.reshape(-1))
        right = np.mean(np.argmax(of_tasks, axis=-1) == labels, axis=1)
        errors[name] = _bootstrap(of_tasks, labels)
        table.append([name, *_summary(right), float(score), errors[name][0], spent[name]])
    report.table(
        f"Digits 7, 8 and 9 by networks that have seen 0 to 6: {DIGIT_SHOTS} images of each, "
        f"{number} tasks; NIW-Meta by {4 * steps} tasks of training, the others by "
        f"{16 * PEER_TRAINING[size] // DIGIT_SHARE}",
        ["", "accuracy", "standard error", "NLL", "ECE", "seconds"],
        table,
    )
    ours, peer = errors["NIW-Meta"], errors["MAML"]
    low, high = np.quantile(ours[1:] / peer[1:], [0.025, 0.975])
    return {"ece_ratio": Figure(float(ours[0] / peer[0]), float(low), float(high))}


def _bootstrap(probs: Any, labels: Any) -> Any:
    """Calibration error of all predictions, and of 100 draws of tasks."""
    import numpy as np

    from bayesjx import diagnostics

    rng = np.random.default_rng(0)
    found = []
    for i in range(101):
        chosen = rng.integers(len(probs), size=len(probs)) if i else np.arange(len(probs))
        flat = probs[chosen].reshape(-1, probs.shape[-1])
        found.append(float(diagnostics.calibration_error(flat, labels[chosen].reshape(-1))))
    return np.asarray(found)


def _summary(values: Any) -> tuple[float, float]:
    import numpy as np

    values = np.asarray(values)
    return float(values.mean()), float(values.std() / len(values) ** 0.5)


def _ratio(ours: Any, peer: Any) -> Figure:
    """Of means over tasks, with its interval by drawing tasks."""
    import numpy as np

    rng = np.random.default_rng(0)
    drawn = [rng.integers(len(ours), size=len(ours)) for _ in range(1000)]
    low, high = np.quantile([ours[i].mean() / peer[i].mean() for i in drawn], [0.025, 0.975])
    return Figure(float(ours.mean() / peer.mean()), float(low), float(high))


BENCHMARK = Benchmark(
    name="am-niw",
    claim="networks adapt to a few rows by Bayes, in constant memory, as well as by gradient steps",
    source="Kim and Hospedales (2024), ICLR; Finn, Abbeel and Levine (2017), ICML",
    targets=TARGETS,
    run=run,
)
