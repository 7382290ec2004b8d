"""Marginal likelihoods of long series beside tinygp, dynamax and celerite2, with and without
the option of XLA that fuses small loops."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from benchmarks._declare import Benchmark, Figure, Target
from benchmarks._report import Report

FUSE = "--xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold=100000"
SETTINGS = {"default": "", "fused": FUSE}
SIZES, QUICK_SIZES = (10_000, 100_000, 1_000_000), (10_000,)
ORDERS = ("32", "52")
JUDGED = 100_000  # observations from which on the targets hold
DYNAMAX_SIZE = 10_000
SCRIPT = "benchmarks/ssm/series_worker.py"
PEERS = ("dynamax==1.0.3", "celerite2==0.3.3", "jax==0.10.2")

TARGETS = (
    Target(
        "gradient", ">=", 3, quick=1.5, unit="×", meaning="worst: tinygp ÷ ours, value and gradient"
    ),
    Target("value", ">=", 2, quick=1.3, unit="×", meaning="worst: tinygp ÷ ours, value"),
    Target("celerite2", ">=", 2, quick=None, unit="×", meaning="worst: celerite2 ÷ ours, value"),
    Target("dynamax", ">=", 20, quick=None, unit="×", meaning="worst: dynamax ÷ ours"),
    Target("agreement", "<=", 1e-8, meaning="largest relative difference of the values"),
    Target("growth", "<=", 1.1, quick=None, meaning="exponent of the cost in n, worst"),
)


def run(quick: bool, report: Report) -> Mapping[str, Any]:
    """Float64; each setting in processes of its own, whose times are taken in turn."""
    report.note(
        "Matérn kernels at random times, three parameters; 'gradient' is value and gradient. "
        "Default: no options of XLA. Fused: XLA_FLAGS=" + FUSE + ", what configure_cpu sets. "
        f"Targets on tinygp and celerite2 are judged from {JUDGED} observations on (quick: all), "
        f"dynamax at {DYNAMAX_SIZE}, with the option, value. celerite2 is C++ and has an "
        "approximate Matérn-3/2 and no 5/2; its values are not compared."
    )
    found: dict[str, list[Any]] = {name: [] for name in ("gradient", "value", "celerite2")}
    found |= {"dynamax": [], "agreement": [], "growth": []}
    for setting, flags in SETTINGS.items():
        for order in ORDERS:
            _series(setting, flags, order, quick, report, found)
    figures: dict[str, Any] = {}
    for name, values in found.items():
        worst = max if name in ("agreement", "growth") else min
        if values:
            figures[name] = worst(values, key=lambda value: Figure.of(value).value)
    return figures


def _series(
    setting: str, flags: str, order: str, quick: bool, report: Report, found: dict[str, list[Any]]
) -> None:
    import numpy as np

    from benchmarks import compare

    medians = []
    for n in QUICK_SIZES if quick else SIZES:
        with ExitStack() as stack:
            candidates = _candidates(stack, flags, order, n, quick, found)
            times = compare(candidates, rounds=20, min_rounds=5, seconds=10 if quick else 30)
        report.times(f"Matérn-{order[0]}/2, {n} observations, {setting}", times, "bayesjx value")
        medians.append(
            (n, *(times.median(f"bayesjx {kind}").value for kind in ("value", "gradient")))
        )
        if n >= JUDGED or quick:
            for kind in ("value", "gradient"):
                found[kind].append(times.ratio(f"tinygp {kind}", f"bayesjx {kind}"))
            if "celerite2 value" in candidates:
                found["celerite2"].append(times.ratio("celerite2 value", "bayesjx value"))
        if "dynamax value" in candidates and setting == "fused":
            found["dynamax"].append(times.ratio("dynamax value", "bayesjx value"))
    if len(medians) > 1:
        sizes, *seconds = np.log(np.array(medians).T)
        found["growth"] += [float(np.polyfit(sizes, cost, 1)[0]) for cost in seconds]


def _candidates(
    stack: ExitStack, flags: str, order: str, n: int, quick: bool, found: dict[str, list[Any]]
) -> dict[str, Any]:
    """What is timed, in workers that end with the stack."""
    from benchmarks import Unavailable, Worker

    environment = {"XLA_FLAGS": flags}
    candidates: dict[str, Any] = {}
    values = {}
    own = stack.enter_context(Worker(SCRIPT, environment=environment))
    for library in ("bayesjx", "tinygp"):
        values[library] = own.ask("start", library=library, order=order, n=n)["value"]
        for kind in ("value", "gradient"):
            candidates[f"{library} {kind}"] = own.candidate(f"{library} {kind}")
    wanted = ["celerite2"] * (order == "32") + ["dynamax"] * (n <= DYNAMAX_SIZE)
    if not quick and wanted:
        try:
            peers = stack.enter_context(Worker(SCRIPT, requirements=PEERS, environment=environment))
        except Unavailable:
            wanted = []
        for library in wanted:
            found_there = peers.ask("start", library=library, order=order, n=n, gradient=False)
            candidates[f"{library} value"] = peers.candidate(f"{library} value")
            if library == "dynamax":
                values[library] = found_there["value"]
    # dynamax adds 1e-9 to the variance of each innovation, which is seen in the eighth digit.
    found["agreement"].append(abs(values["tinygp"] / values["bayesjx"] - 1))
    return candidates


BENCHMARK = Benchmark(
    name="ssm-loglik",
    claim="marginal likelihoods of long series are faster than those of others, with any options",
    source="Hartikainen and Särkkä 2010; Foreman-Mackey et al. 2017; tinygp; dynamax; our bounds",
    targets=TARGETS,
    run=run,
)
