"""A million cells, some missing: hyper-parameters, the missing values and draws; and evidences."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from benchmarks._declare import Benchmark, Target
from benchmarks._report import Report

SIDE, QUICK_SIDE = 100, 24
STRIDE, QUICK_STRIDE = 5, 2  # of the cells whose evidence is maximised
MISSING = 0.1
NOISE = 0.5  # standard deviation, of a function whose own is about 1
DRAWS, QUANTILE = 4, 2.132  # and that of the t distribution with as many degrees of freedom
RTOL = 5e-4  # of conjugate gradients, which compare largest elements, not norms
INDUCING, BATCH = 256, 1024
STEPS, QUICK_STEPS = 1000, 200  # of the sparse peer
LARGE, QUICK_LARGE = (100, 100, 20), (40, 40, 20)
SMALL, QUICK_SMALL = (20, 15, 10), (10, 10, 10)  # where dense is possible
TARGETS = (
    Target("rmse", "<=", 0.1, quick=0.25, meaning="error at missing cells ÷ noise"),
    Target("against_sparse", "<=", 0.5, quick=1.0, unit="×", meaning="error ÷ that of SVGP"),
    Target("coverage", "between", (0.8, 0.97), meaning="of the truth by 90 % intervals of draws"),
    Target("residual", "<=", 1e-3, meaning="relative residual of the weights"),
    Target(
        "evidence", "<=", 5.0, unit="s", meaning="evidence and gradient, 2·10⁵ cells (quick 32000)"
    ),
    Target(
        "dense", ">=", 20.0, quick=3.0, unit="×", meaning="dense ÷ grid, 3000 cells (quick 1000)"
    ),
)


def run(quick: bool, report: Report) -> Mapping[str, Any]:
    """Float64 throughout."""
    import jax

    with jax.enable_x64(True):
        return _evidences(quick, report) | _impute(quick, report)


def _impute(quick: bool, report: Report) -> dict[str, Any]:
    import jax
    import jax.numpy as jnp
    import numpy as np

    from bayesjx import gp

    side, stride = (QUICK_SIDE, QUICK_STRIDE) if quick else (SIDE, STRIDE)
    axis = np.linspace(0, 1, side)
    grid = gp.Grid(axis, axis, axis)
    truth = _truth(axis)
    rng = np.random.default_rng(0)
    y = truth + NOISE * rng.normal(size=truth.shape)
    mask = rng.random(truth.shape) >= MISSING
    lost = ~mask.reshape(-1)

    begun = time.perf_counter()
    some = (slice(None, None, stride),) * 3
    coarse = gp.Grid(*(axis[::stride],) * 3)
    data = jnp.asarray(y[some][mask[some]])
    masked = lambda prior: prior(coarse, mask[some], solver="schur")  # noqa: E731
    found = gp.minimise(
        lambda prior: -masked(prior).log_prob(data), _prior(), max_steps=10 if quick else 30
    )
    prior, fitting = found.params, time.perf_counter() - begun

    begun = time.perf_counter()
    solver = {"solver": "cg", "rtol": RTOL}

    @jax.jit
    def answers(y: Any, key: Any) -> Any:
        posterior = gp.grid_posterior(prior, grid, y, mask, **solver)
        weights = posterior.weights[posterior.observed]
        off = posterior.operator.mv(weights) - posterior.residual
        residual = jnp.linalg.norm(off) / jnp.linalg.norm(posterior.residual)
        return posterior.mean(grid), posterior.sample(key, grid, (DRAWS,)), residual

    mean, draws, residual = jax.block_until_ready(answers(jnp.asarray(y), jax.random.key(0)))
    predicting = time.perf_counter() - begun
    error = _rms((mean - truth.reshape(-1))[lost])
    # Draws vary about the mean that is known; their number is the degrees of freedom.
    scale = np.sqrt(np.mean((np.asarray(draws) - np.asarray(mean)) ** 2, axis=0))
    inside = np.abs(np.asarray(mean) - truth.reshape(-1)) < QUANTILE * scale
    sparse, seconds = _sparse(quick, prior, grid, y.reshape(-1), ~lost, truth.reshape(-1))
    report.note(
        f"{grid.size} cells, {MISSING:.0%} missing at random, a known function (not a draw of the "
        f"prior) with noise of standard deviation {NOISE}. Lengthscales, variance and noise "
        f"maximise the exact evidence of one cell in {stride} along each axis "
        f"({mask[some].sum()} observed), not of all. Seconds include compilation."
    )
    rows = [
        ["grid, exact", fitting, predicting, error],
        [f"SVGP, {INDUCING} points", "the same", seconds, sparse],
    ]
    header = ["method", "fit, s", "means and draws, s", "error at missing cells"]
    report.table(f"Missing cells of {side} × {side} × {side}", header, rows)
    return {
        "rmse": error / NOISE,
        "against_sparse": error / sparse,
        "coverage": float(np.mean(inside[lost])),
        "residual": float(residual),
        "fit_seconds": fitting,
        "predict_seconds": predicting,
    }


def _sparse(
    quick: bool, prior: Any, grid: Any, y: Any, seen: Any, truth: Any
) -> tuple[float, float]:
    """Error at missing cells by natural gradients on minibatches; kernel as on the grid."""
    import jax
    import numpy as np

    import bayesjx
    from bayesjx import gp

    begun = time.perf_counter()
    points, rng = np.asarray(grid.points()), np.random.default_rng(1)
    x, y = points[seen], y[seen]
    chosen = rng.choice(len(x), 10_000, replace=False)
    inducing = gp.kmeans_points(jax.random.key(0), x[chosen], INDUCING)
    svgp = gp.SVGP(prior, inducing_points=inducing)
    algorithm = gp.svgp_natgrad(svgp, None, 0.1, num_data=len(x))

    def batches(step: int) -> tuple[Any, Any]:
        at = rng.integers(0, len(x), BATCH)
        return x[at], y[at]

    steps = QUICK_STEPS if quick else STEPS
    result = bayesjx.fit(jax.random.key(1), algorithm, algorithm.init(), steps, batches=batches)
    posterior = svgp.trained(result.state).posterior()
    mean = jax.jit(lambda x: posterior.mean(x))
    lost = points[~seen]
    parts = [np.asarray(mean(part)) for part in np.array_split(lost, max(1, len(lost) // 10_000))]
    error = _rms(np.concatenate(parts) - truth[~seen])
    return error, time.perf_counter() - begun


def _evidences(quick: bool, report: Report) -> dict[str, Any]:
    """Seconds of the evidence with gradient, and beside dense algebra on the same cells."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from bayesjx import gp
    from benchmarks._timing import compare

    def problem(shape: tuple[int, ...]) -> tuple[Any, Any]:
        grid = gp.Grid(*(np.linspace(0, 1, n) for n in shape))
        return grid, jnp.asarray(np.random.default_rng(0).normal(size=grid.size))

    def evidence(x: Any) -> Any:
        value = lambda prior, y: prior(x).log_prob(y)  # noqa: E731
        return jax.jit(jax.value_and_grad(value))

    grid, y = problem(QUICK_LARGE if quick else LARGE)
    once = evidence(grid)
    jax.block_until_ready(once(_prior(), y))
    spent = []
    for _ in range(5):
        begun = time.perf_counter()
        jax.block_until_ready(once(_prior(), y))
        spent.append(time.perf_counter() - begun)
    grid, y = problem(QUICK_SMALL if quick else SMALL)
    candidates = {
        "grid": (evidence(grid), (_prior(), y)),
        "dense": (evidence(grid.points()), (_prior(), y)),
    }
    times = compare(candidates, rounds=8 if quick else 12, seconds=8 if quick else 60)
    report.times(f"Evidence and gradient, {grid.size} cells", times, against="grid")
    return {"evidence": float(np.median(spent)), "dense": times.ratio("dense", "grid")}


def _prior() -> Any:
    import jax.numpy as jnp

    from bayesjx import gp, kernels

    first = kernels.Matern52(jnp.asarray(0.3), jnp.asarray(1.0)).on(0)
    others = [kernels.Matern52(jnp.asarray(0.3)).on(d) for d in (1, 2)]
    return gp.GP(first * others[0] * others[1], noise_var=jnp.asarray(0.2))


def _truth(axis: Any) -> Any:
    import numpy as np

    a, b, c = np.meshgrid(axis, axis, axis, indexing="ij")
    wave = np.sin(7 * a + 4 * b) + np.cos(9 * b * c) + 0.7 * np.sin(12 * c) * a
    return wave / wave.std()


def _rms(errors: Any) -> float:
    import numpy as np

    return float(np.sqrt(np.mean(np.square(np.asarray(errors)))))


BENCHMARK = Benchmark(
    name="gp-grid",
    claim="regression on a grid of a million cells with gaps is exact and takes seconds",
    source="Saatçi 2011; Wilson and Nickisch 2015; our own bounds",
    targets=TARGETS,
    run=run,
)
