"""A prior-data fitted network beside the exact Gaussian process that it was trained on."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from benchmarks._declare import Benchmark, Figure, Target
from benchmarks._report import Report

LENGTHSCALE, NOISE_VAR = 0.2, 0.01
CONTEXT, QUERIES, SETS = 20, 40, 1000
SIZES = (1, 5, 10, 20)  # rows of context that are judged
STEPS = {"full": (2500, 9000), "quick": (300,)}  # of a short and a long run
BATCH, LEARNING_RATE, BARS = 32, 1e-3, 100
NETWORK: dict[str, Any] = {"width": 64, "depth": 4, "heads": 4}
QUICK_NETWORK: dict[str, Any] = {"width": 32, "depth": 2, "heads": 4}

TARGETS = (
    Target("excess", "<=", 0.12, quick=0.8, unit="nats", meaning="over the exact, short run"),
    Target("minutes", "<=", 10, quick=1, unit="min", meaning="of the short run, compilation too"),
    Target("excess_long", "<=", 0.05, quick=None, unit="nats", meaning="the same, long run"),
)


def run(quick: bool, report: Report) -> Mapping[str, Any]:
    """Float32; one recipe for both runs, which differ in their number of steps."""
    import jax

    prior = _prior()
    tasks = jax.jit(jax.vmap(prior))(jax.random.split(jax.random.key(99), SETS))
    exact = {n: _exact(tasks, n) for n in SIZES}
    figures: dict[str, Any] = {}
    rows = []
    for i, steps in enumerate(STEPS["quick" if quick else "full"]):
        network, seconds, curve = _train(prior, steps, QUICK_NETWORK if quick else NETWORK)
        excess, each = _excess(network, tasks, exact)
        figures["excess_long" if i else "excess"] = excess
        if not i:
            figures["minutes"] = Figure(seconds / 60)
        rows.append([steps, BATCH * steps, seconds / 60, *each, excess.value])
        report.table(
            f"Learning curve of {steps} steps: mean log score of queries", ["step", "nats"], curve
        )
    header = ["steps", "data sets", "minutes", *(f"n = {n}" for n in SIZES), "mean"]
    report.table(
        f"Excess over the exact predictive, nats, of {SETS} data sets of {QUERIES} queries",
        header,
        rows,
    )
    return figures


def _prior() -> Any:
    """Targets of a Gaussian process of one input, as a NumPyro program."""
    import jax
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    from bayesjx import amortized, kernels

    def model(x: Any) -> None:
        covariance = kernels.RBF(jnp.asarray(LENGTHSCALE)).gram(x) + NOISE_VAR * jnp.eye(len(x))
        numpyro.sample("y", dist.MultivariateNormal(0.0, covariance))

    def inputs(key: Any) -> Any:
        return jax.random.uniform(key, (CONTEXT + QUERIES, 1))

    return amortized.from_numpyro(model, inputs=inputs)


def _train(prior: Any, steps: int, sizes: dict[str, Any]) -> tuple[Any, float, list[list[Any]]]:
    import jax
    import numpy as np
    import optax

    import bayesjx
    from bayesjx import amortized

    started = time.perf_counter()
    keys = jax.random.split(jax.random.key(1))
    network = amortized.PFN.for_prior(keys[0], prior, num_queries=QUERIES, num_bars=BARS, **sizes)
    schedule = optax.warmup_cosine_decay_schedule(0, LEARNING_RATE, steps // 10, steps)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule, b2=0.98))
    algorithm = amortized.pfn_training(
        network, prior, optimizer, batch_size=BATCH, num_queries=QUERIES
    )
    fit = bayesjx.fit(keys[1], algorithm, algorithm.init(), steps)
    scores = np.array_split(np.asarray(fit.info.objective), 10)
    curve = [[(i + 1) * steps // 10, float(part.mean())] for i, part in enumerate(scores)]
    return bayesjx.trained(network, fit.state), time.perf_counter() - started, curve


def _exact(tasks: Any, n: int) -> Any:
    """Log predictive densities by NumPy in double precision, shape `(sets, queries)`."""
    import numpy as np

    x, y = np.asarray(tasks.x, np.float64)[..., 0], np.asarray(tasks.y, np.float64)
    covariance = np.exp(-0.5 * ((x[:, :, None] - x[:, None]) / LENGTHSCALE) ** 2)
    gram = covariance[:, :n, :n] + NOISE_VAR * np.eye(n)
    cross = covariance[:, :n, CONTEXT:]
    weights = np.linalg.solve(gram, cross)
    mean = np.einsum("bnm,bn->bm", weights, y[:, :n])
    variance = 1 + NOISE_VAR - np.sum(cross * weights, axis=1)
    return -0.5 * (np.log(2 * np.pi * variance) + (y[:, CONTEXT:] - mean) ** 2 / variance)


def _excess(network: Any, tasks: Any, exact: Mapping[int, Any]) -> tuple[Figure, list[float]]:
    """Mean over sizes of context and data sets, with its 95 % interval."""
    import jax
    import numpy as np

    @jax.jit
    def scores(network: Any, n: Any) -> Any:
        def one(x: Any, y: Any) -> Any:
            mask = jax.numpy.arange(CONTEXT) < n
            posterior = network.condition(x[:CONTEXT], y[:CONTEXT], mask=mask)
            return posterior.log_predictive_prob(x[CONTEXT:], y[CONTEXT:])

        return jax.lax.map(lambda task: one(*task), (tasks.x, tasks.y), batch_size=50)

    per_set = np.stack([np.mean(exact[n] - np.asarray(scores(network, n)), axis=1) for n in SIZES])
    means = per_set.mean(axis=0)
    half = 1.96 * means.std() / len(means) ** 0.5
    value = means.mean()
    figure = Figure(float(value), float(value - half), float(value + half))
    return figure, [float(v) for v in per_set.mean(axis=1)]


BENCHMARK = Benchmark(
    name="am-pfn-gp",
    claim="a prior-data fitted network predicts nearly as the Gaussian process of its prior",
    source="Müller et al. (2022), ICLR, figures 3 and 4a",
    targets=TARGETS,
    run=run,
)
