"""Grids with missing cells: steps, seconds and error of the exact path and of iterations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from benchmarks._declare import Benchmark, Target
from benchmarks._report import Report

GRIDS = {"10⁴": (100, 100), "10⁵": (50, 50, 40), "10⁶": (100, 100, 100)}
QUICK_GRIDS = ("10⁴",)
SHARES = (0.9, 0.5, 0.1)
NOISE = 0.1
RTOL = 1e-8
MAX_STEPS = 5000  # they grow with the root of the number of cells, as does the condition number
SMALL = (40, 40)  # cells of which the dense submatrix can be factorised
FEW = 1000  # missing cells in the rows that show the exact path
TARGETS = (
    Target("exact_error", "<=", 1e-9, meaning="exact path, worst relative error against dense"),
    Target("cg_error", "<=", 1e-6, meaning="iterations, worst relative error against dense"),
    Target("residual", "<=", 1e-5, meaning="iterations, worst relative residual on all grids"),
    Target("lanczos", "<=", 4.5, meaning="Lanczos logdet, worst error in standard errors"),
    Target("paths_agree", "<=", 1e-6, meaning="exact path and iterations, where dense is too big"),
    Target("steps_few", "<=", FEW + 1, meaning="steps with 1000 cells missing, against theory"),
)


def run(quick: bool, report: Report) -> Mapping[str, Any]:
    """Float64 throughout."""
    import jax

    with jax.enable_x64(True):
        return _run(quick, report)


def _run(quick: bool, report: Report) -> dict[str, Any]:
    report.note(
        "Observed cells of a grid at random, squared-exponential and Matérn factors, noise "
        f"{NOISE:g}; conjugate gradients, preconditioned by the inverse on the full grid, to a "
        f"relative tolerance of {RTOL:g}. One right-hand side; compilation apart."
    )
    figures = dict(_against_dense(report))
    rows, residuals, agreement = [], [], []
    for name in QUICK_GRIDS if quick else GRIDS:
        for share in SHARES:
            row, residual = _iterate(GRIDS[name], share)
            rows.append([name, f"{share:.0%}", *row, residual])
            residuals.append(residual)
        row, residual, difference = _few_missing(GRIDS[name])
        rows.append([name, f"all but {FEW}", *row, residual])
        residuals.append(residual)
        agreement.append(difference)
        figures["steps_few"] = row[0]
    header = ["cells", "observed", "steps", "seconds", "exact path, s", "relative residual"]
    report.table("Solves with missing cells", header, rows)
    return figures | {"residual": max(residuals), "paths_agree": max(agreement)}


def _against_dense(report: Report) -> dict[str, float]:
    """Both paths and the estimates of the log-determinant on a grid small enough for dense."""
    import jax
    import jax.numpy as jnp

    from bayesjx import ops

    rows, worst = [], {"exact_error": 0.0, "cg_error": 0.0, "lanczos": 0.0}
    for share in SHARES:
        op, mask, y = _problem(SMALL, share)
        dense = op.as_matrix()[mask][:, mask]
        tril = jnp.linalg.cholesky(dense)
        want = jax.scipy.linalg.cho_solve((tril, True), y)
        logdet = float(2 * jnp.sum(jnp.log(jnp.diag(tril))))
        exact = _masked(op, mask, "schur")
        found = jax.jit(lambda m, y: (m.solve(y), m.logdet()))(exact, y)
        steps = jax.jit(lambda m, y: m.solve_cg(y[:, None]))(_masked(op, mask, "cg"), y)
        masked = _masked(op, mask, "cg")
        key = jax.random.key(0)
        lanczos = ops.stochastic_logdet(key, masked, num_probes=20, num_steps=100)
        found_by_lanczos = float(lanczos.value), float(lanczos.standard_error)
        scaled = float(_masked(op, mask, "cg", "scaled").logdet())
        errors = [_error(found[0], want), abs(float(found[1]) / logdet - 1)]
        by_cg = _error(steps.value[:, 0], want)
        estimates = [abs(x - logdet) / len(y) for x in (found_by_lanczos[0], scaled)]
        rows.append([f"{share:.0%}", *errors, by_cg, int(steps.num_steps[0]), *estimates])
        worst["exact_error"] = max(worst["exact_error"], *errors)
        worst["cg_error"] = max(worst["cg_error"], by_cg)
        z = abs(found_by_lanczos[0] - logdet) / found_by_lanczos[1]
        worst["lanczos"] = max(worst["lanczos"], z)
    header = ["observed", "exact solve", "exact logdet", "iterations", "steps"]
    header += ["Lanczos, nats a cell", "scaled, nats a cell"]
    report.table(f"Relative errors against dense, {SMALL[0]} × {SMALL[1]}", header, rows)
    return worst


def _iterate(grid: tuple[int, ...], share: float) -> tuple[list[Any], float]:
    op, mask, y = _problem(grid, share)
    steps, seconds, residual, _ = _solve_cg(op, mask, y)
    return [steps, seconds, ""], residual


def _few_missing(grid: tuple[int, ...]) -> tuple[list[Any], float, float]:
    import jax

    op, mask, y = _problem(grid, FEW)
    steps, seconds, residual, solution = _solve_cg(op, mask, y)
    exact = _masked(op, mask, "schur")
    spent, found = _seconds(jax.jit(lambda m, y: m.solve(y)), exact, y)
    return [steps, seconds, spent], residual, _error(solution, found)


def _solve_cg(op: Any, mask: Any, y: Any) -> tuple[int, float, float, Any]:
    import jax

    masked = _masked(op, mask, "cg")
    seconds, found = _seconds(jax.jit(lambda m, y: m.solve_cg(y[:, None])), masked, y)
    solution = found.value[:, 0]
    return int(found.num_steps[0]), seconds, _error(masked.mv(solution), y), solution


def _problem(grid: tuple[int, ...], observed: float) -> tuple[Any, Any, Any]:
    """The sum on the full grid, a mask (by share, or all but a number), and data."""
    import jax.numpy as jnp
    import numpy as np

    from bayesjx import ops

    factors = []
    for d, n in enumerate(grid):
        t = jnp.linspace(0.0, 1.0, n)
        r = jnp.abs(t[:, None] - t) / (0.1 + 0.1 * d)
        s = jnp.sqrt(3.0) * r
        factors.append(jnp.exp(-0.5 * r**2) if d == 0 else (1 + s) * jnp.exp(-s))
    op = ops.Kron(*factors, tags=ops.psd) + ops.ScaledIdentity(NOISE)
    n = math.prod(grid)
    missing = round(n * (1 - observed)) if observed < 1 else int(observed)
    rng = np.random.default_rng(0)
    mask = np.ones(n, bool)
    mask[rng.choice(n, missing, replace=False)] = False
    return op, mask, jnp.asarray(rng.normal(size=n - missing))


def _masked(op: Any, mask: Any, solver: str, logdet: str = "refuse") -> Any:
    from bayesjx import ops

    return ops.Masked(op, mask, solver=solver, logdet=logdet, rtol=RTOL, max_steps=MAX_STEPS)


def _seconds(function: Any, *args: Any) -> tuple[float, Any]:
    """Seconds of a second call, and its result."""
    import time

    import jax

    jax.block_until_ready(function(*args))
    begun = time.perf_counter()
    result = jax.block_until_ready(function(*args))
    return time.perf_counter() - begun, result


def _error(found: Any, wanted: Any) -> float:
    import jax.numpy as jnp

    return float(jnp.linalg.norm(found - wanted) / jnp.linalg.norm(wanted))


BENCHMARK = Benchmark(
    name="ops-masked",
    claim="grids with missing cells are solved exactly, or in few steps",
    source="Wilson, Gilboa, Nehorai and Cunningham 2014; our own bounds",
    targets=TARGETS,
    run=run,
)
