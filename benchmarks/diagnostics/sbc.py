"""SBC and TARP: how often they accept a right posterior and reject a wrong one; five families."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks._declare import Benchmark, Figure, Target
from benchmarks._report import Report

REPEATS, QUICK_REPEATS = 400, 60
SETS, DRAWS, D = 500, 99, 3
SCALES = (1.0, 0.8, 1.2)  # of the posterior's standard deviations over the right ones
LEVEL = 0.01  # at which a posterior is rejected, as in the report

TARGETS = (
    Target("sbc_accepts", ">=", 0.95, meaning="share of repeats with the right posterior"),
    Target("sbc_rejects", ">=", 0.95, meaning="the same, scale 20 % wrong, the worse side"),
    Target("tarp_accepts", ">=", 0.95, meaning="right posterior, references that depend on data"),
    Target("tarp_rejects", ">=", 0.95, meaning="scale 20 % wrong, the worse side"),
    Target("report_accepts", ">=", 0.95, meaning="one verdict of all tests together"),
    Target("report_rejects", ">=", 0.95, meaning="scale 20 % wrong, the worse side"),
    Target("families", "==", 5, meaning="of vi, gp, ssm, sbl and bnn that pass"),
    Target(
        "families_narrow", "==", 5, meaning="the same with draws that are 20 % too narrow: seen"
    ),
)


def run(quick: bool, report: Report) -> Mapping[str, Any]:
    """Float64 for the families, float32 for the repeats."""
    import jax

    figures = _repeats(QUICK_REPEATS if quick else REPEATS, report)
    with jax.enable_x64(True):
        return figures | _families(report)


def _repeats(repeats: int, report: Report) -> dict[str, Any]:
    """Three normal means seen through a matrix with noise: the posterior is normal, correlated."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from bayesjx import diagnostics
    from bayesjx.diagnostics import _report

    design = np.array([[1.0, 0.5, 0.0], [0.2, 1.0, 0.7], [0.0, 0.3, 0.6], [0.5, 0.0, 1.0]])
    noise = 0.5
    covariance = np.linalg.inv(np.eye(D) + design.T @ design / noise**2)
    gain, tril = covariance @ design.T / noise**2, np.linalg.cholesky(covariance)
    matrix, gain, tril = (jnp.asarray(a, jnp.float32) for a in (design, gain, tril))

    def prior(key: Any) -> Any:
        return jax.random.normal(key, (D,), jnp.float32)

    def simulator(key: Any, theta: Any) -> Any:
        return matrix @ theta + noise * jax.random.normal(key, (len(design),), jnp.float32)

    def one(key: Any) -> Any:
        first, *keys = jax.random.split(key, 5)

        def posterior(key: Any, y: Any) -> Any:
            return gain @ y + jax.random.normal(key, (DRAWS, D), jnp.float32) @ tril.T

        draws, truths = diagnostics.simulate(first, prior, simulator, posterior, num_datasets=SETS)
        centre = jnp.mean(draws, axis=0)

        def of_scale(scale: Any) -> Any:
            scaled = centre + scale * (draws - centre)
            options: dict[str, Any] = {"num_bootstrap": 2}
            ranks = diagnostics.sbc(keys[0], scaled, truths)
            far = diagnostics.tarp(keys[1], scaled, truths, **options)
            near = diagnostics.tarp(keys[2], scaled, truths, references="posterior", **options)
            columns = scaled.transpose(2, 0, 1), truths.T
            single, joint, pairs, _, _ = _report._checks(
                keys[3], ("a", "b", "c"), *columns, (0.5,), "random"
            )
            least = jnp.minimum(joint.p_value, pairs.p_value)
            together = 5 * jnp.minimum(jnp.min(single.uniformity.p_value), least)
            return jnp.stack([ranks.p_value, far.p_value, near.p_value, together])

        return jax.lax.map(of_scale, jnp.asarray(SCALES, jnp.float32))

    start = time.process_time()
    mapped = jax.jit(lambda keys: jax.lax.map(one, keys))
    p_values = np.asarray(mapped(jax.random.split(jax.random.key(0), repeats)))
    seconds = time.process_time() - start
    rejected = (p_values <= LEVEL).mean(axis=0)  # by scale, by test
    names = ("SBC", "TARP, random points", "TARP, points that depend on data", "report")
    report.table(
        f"Rejected at {LEVEL}, of {repeats} repeats with {SETS} data sets and {DRAWS} draws",
        ["", *(f"scale {scale:g}" for scale in SCALES)],
        [[name, *map(float, row)] for name, row in zip(names, rejected.T, strict=True)],
    )
    report.note(f"{seconds:.0f} CPU s, compilation included")
    figures = {}
    for name, i in (("sbc", 0), ("tarp_random", 1), ("tarp", 2), ("report", 3)):
        figures[f"{name}_accepts"] = _share(1 - rejected[0, i], repeats)
        figures[f"{name}_rejects"] = _share(rejected[1:, i].min(), repeats)
    return figures


def _share(share: float, repeats: int) -> Figure:
    """With the interval of Wilson (1927)."""
    z, n = 1.96, repeats
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5 / (1 + z**2 / n)
    return Figure(float(share), float(middle - half), float(middle + half))


def _families(report: Report) -> dict[str, Any]:
    """One model for each package, whose posterior is exact."""
    import jax
    import numpy as np

    from bayesjx import diagnostics

    rows, fine, seen = [], 0, 0
    for i, (name, make) in enumerate(FAMILIES.items()):
        key, first, second = jax.random.split(jax.random.key(i + 1), 3)
        start = time.process_time()
        draws, truths = diagnostics.simulate(key, *make(), num_datasets=SETS, batch_size=50)
        seconds = time.process_time() - start
        right = diagnostics.calibration_report(first, draws, truths)
        centre = draws.mean(axis=0)
        narrow = diagnostics.calibration_report(second, centre + 0.8 * (draws - centre), truths)
        fine, seen = fine + right.calibrated, seen + (not narrow.calibrated)
        parts = [part for r in (right, narrow) for part in (r.sbc, r.tarp) if part is not None]
        p_values = [float(part.p_value) for part in parts]
        scale = float(np.mean(1 / np.asarray(right.sbc.uniformity.score_scale)))
        rows.append([name, "yes" if right.calibrated else "NO", *p_values[:2], scale,
                     "yes" if not narrow.calibrated else "NO", *p_values[2:], seconds])  # fmt: skip
    header = ["posterior", "passes", "SBC p", "TARP p", "scale", "narrow one is seen", "SBC p",
              "TARP p", "CPU s"]  # fmt: skip
    report.table(f"Families, {SETS} data sets with {DRAWS} draws each", header, rows)
    return {"families": fine, "families_narrow": seen}


Problem = tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]


def _linear(size: int) -> tuple[Any, Any, Callable[..., Any], Callable[..., Any]]:
    """Design, noise, prior and simulator of a linear regression with standard normal weights."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    design = jnp.asarray(np.random.default_rng(0).normal(size=(size, D)))
    noise = 0.8

    def prior(key: Any) -> Any:
        return jax.random.normal(key, (D,))

    def simulator(key: Any, weights: Any) -> Any:
        return design @ weights + noise * jax.random.normal(key, (size,))

    return design, noise, prior, simulator


def _vi() -> Problem:
    """Batch and match, which is exact on a Gaussian posterior."""
    import jax
    import jax.numpy as jnp

    from bayesjx import vi

    design, noise, prior, simulator = _linear(7)

    def log_density(weights: Any, y: Any) -> Any:
        return -0.5 * jnp.sum(weights**2) - 0.5 * jnp.sum((y - design @ weights) ** 2) / noise**2

    algorithm = vi.batch_and_match(log_density)

    def posterior(key: Any, y: Any) -> Any:
        def step(state: Any, key: Any) -> Any:
            return algorithm.step(key, state, y)[0], None

        keys = jax.random.split(key, 13)
        state = jax.lax.scan(step, algorithm.init(jnp.zeros(D)), keys[1:])[0]
        return state.draw(keys[0], DRAWS)

    return prior, simulator, posterior


def _process(posterior_of: Callable[..., Any]) -> Problem:
    """Three values of a Matérn process, between and after seventeen noisy ones."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from bayesjx import kernels

    kernel = kernels.Matern52(lengthscale=jnp.asarray(0.7))
    times = np.sort(np.random.default_rng(1).uniform(0, 5, 17))
    new = np.array([1.3, 3.1, 5.5])
    points = jnp.concatenate([new, times])[:, None]
    whole = kernel.gram(points) + 1e-9 * jnp.eye(len(points))
    noise_var = 0.1

    def simulator(key: Any, value: Any) -> Any:
        # given the three values, a draw of the others
        gain = jnp.linalg.solve(whole[:D, :D], whole[:D, D:]).T
        rest = whole[D:, D:] - gain @ whole[:D, D:]
        tril = jnp.linalg.cholesky(rest + noise_var * jnp.eye(len(times)))
        return gain @ value + tril @ jax.random.normal(key, (len(times),))

    def prior(key: Any) -> Any:
        return jnp.linalg.cholesky(whole[:D, :D]) @ jax.random.normal(key, (D,))

    return prior, simulator, posterior_of(kernel, noise_var, times, new)


def _gp() -> Problem:
    from bayesjx import gp

    def posterior_of(kernel: Any, noise_var: Any, times: Any, new: Any) -> Any:
        def posterior(key: Any, y: Any) -> Any:
            found = gp.condition(gp.GP(kernel, noise_var=noise_var), times[:, None], y)
            return found.sample(key, new[:, None], (DRAWS,))

        return posterior

    return _process(posterior_of)


def _ssm() -> Problem:
    from bayesjx import ssm

    def posterior_of(kernel: Any, noise_var: Any, times: Any, new: Any) -> Any:
        def posterior(key: Any, y: Any) -> Any:
            found = ssm.MarkovGP(kernel, times, noise_var=noise_var).condition(y)
            return found.sample(key, new, (DRAWS,))

        return posterior

    return _process(posterior_of)


def _sbl() -> Problem:
    """Spike and slab, a sum over all sets of columns; a third of the weights are 0: ties."""
    import jax

    from bayesjx import sbl

    design, noise, _, simulator = _linear(7)

    def prior(key: Any) -> Any:
        slab, spike = jax.random.split(key)
        return jax.random.normal(slab, (D,)) * jax.random.bernoulli(spike, 0.7, (D,))

    def posterior(key: Any, y: Any) -> Any:
        options: dict[str, Any] = {"noise_var": noise**2, "slab_var": 1.0, "prior_prob": 0.7}
        return sbl.spike_and_slab(design, y, **options).sample(key, (DRAWS,))

    return prior, simulator, posterior


def _bnn() -> Problem:
    """Laplace's approximation of a linear network, exact wherever it is made; outputs at inputs."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import numpy as np

    from bayesjx import bnn, likelihoods

    design, noise, draw, weigh = _linear(11)
    network = eqx.nn.Linear(D, 1, use_bias=False, key=jax.random.key(0))
    new = jnp.asarray(np.random.default_rng(2).normal(size=(D, D)))

    def prior(key: Any) -> Any:
        return new @ draw(key)

    def simulator(key: Any, outputs: Any) -> Any:
        return weigh(key, jnp.linalg.solve(new, outputs))[:, None]

    def posterior(key: Any, y: Any) -> Any:
        found = bnn.laplace(
            network, design, y, likelihoods.Gaussian(noise**2), structure="full", mean="linear",
            prior_precision=1.0, throw=False,
        )  # fmt: skip
        return found.sample(key, new, (DRAWS,))[..., 0]

    return prior, simulator, posterior


FAMILIES = {"vi": _vi, "gp": _gp, "ssm": _ssm, "sbl": _sbl, "bnn": _bnn}

BENCHMARK = Benchmark(
    name="am-sbc",
    claim="SBC and TARP accept right posteriors and reject a scale that is 20 % wrong",
    source="Talts et al. (2018), arXiv 1804.06788; Lemos et al. (2023), arXiv 2302.03026",
    targets=TARGETS,
    run=run,
)
