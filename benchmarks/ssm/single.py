"""Likelihoods in single precision, over seven decades of spacing and six of lengthscale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks._declare import Benchmark, Target
from benchmarks._report import Report

SPACINGS = tuple(10.0**k for k in range(-6, 2))
LENGTHSCALES = tuple(10.0**k for k in range(-3, 4))
ORDERS = ("32", "52")
SCRIPT = "benchmarks/ssm/single_worker.py"
PEERS = ("dynamax==1.0.3", "celerite2==0.3.3", "jax==0.10.2")

TARGETS = (
    Target("error", "<=", 1e-3, meaning="worst relative error of ours, all spacings and kernels"),
    Target("finite", "==", 1, meaning="share of ours that are finite"),
)


def run(quick: bool, report: Report) -> Mapping[str, Any]:
    """Against a Cholesky factor in double precision."""
    import numpy as np

    from benchmarks import Unavailable, Worker

    report.note(
        "200 equally spaced times; spacings 1e-6 to 10 by lengthscales 1e-3 to 1e3, variance 1, "
        "noise 0.1. Relative error of the log density in float32 against a dense Cholesky factor "
        "in float64 at the same rounded times; NaN counts as infinite."
    )
    cases = [[spacing, scale] for spacing in SPACINGS for scale in LENGTHSCALES]
    single = {"JAX_ENABLE_X64": "0"}
    libraries: dict[str, tuple[str, ...]] = {"bayesjx": (), "tinygp": ()}
    if not quick:
        libraries["dynamax"] = PEERS
    rows, ours, finite = [], [], []
    for library, requirements in libraries.items():
        try:
            worker = Worker(SCRIPT, requirements=requirements, environment=single)
        except Unavailable as error:
            report.note(f"{library}: {error}")
            continue
        with worker:
            for order in ORDERS:
                found = worker.ask("densities", library=library, order=order, cases=cases)
                exact = [_exact(order, *case) for case in cases]
                errors = np.abs(np.array(found) / np.array(exact) - 1)
                errors = np.where(np.isfinite(errors), errors, np.inf)
                bad = np.mean(errors > 1e-3)
                where = cases[int(np.argmax(errors))]
                rows.append(
                    [library, f"Matérn-{order[0]}/2", float(np.median(errors)),
                     float(np.max(errors)), f"{where[0]:g}, {where[1]:g}", f"{bad:.0%}"]
                )  # fmt: skip
                if library == "bayesjx":
                    ours.append(float(np.max(errors)))
                    finite.append(float(np.mean(np.isfinite(errors))))
    columns = ["", "kernel", "median", "worst", "at spacing, lengthscale", "above 1e-3"]
    report.table("Relative error of the log density in single precision", columns, rows)
    return {"error": max(ours), "finite": float(np.mean(finite))}


def _exact(order: str, spacing: float, lengthscale: float) -> float:
    import numpy as np
    from scipy.linalg import cho_solve, cholesky

    from benchmarks.ssm.single_worker import COUNT, NOISE, SIGNAL

    times = (spacing * np.arange(COUNT)).astype(np.float32).astype(np.float64)
    scale = float(np.float32(lengthscale))
    x = np.sqrt(2.0 * {"32": 2, "52": 3}[order] - 1) * np.abs(times[:, None] - times) / scale
    cov = np.exp(-x) * (1 + x + (x**2 / 3 if order == "52" else 0))
    factor = cholesky(cov + float(np.float32(NOISE)) * np.eye(COUNT), lower=True)
    y = SIGNAL.astype(np.float32).astype(np.float64)
    quadratic = y @ cho_solve((factor, True), y)
    return float(-0.5 * (quadratic + COUNT * np.log(2 * np.pi)) - np.sum(np.log(np.diag(factor))))


BENCHMARK = Benchmark(
    name="ssm-float32",
    claim="single precision keeps three digits at any spacing and lengthscale",
    source="our bound; scaled states and accurate process noise",
    targets=TARGETS,
    run=run,
)
