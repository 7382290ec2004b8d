"""What programmability costs: one gradient step beside hand-written JAX, NumPyro and genjax."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from benchmarks import Benchmark, Figure, Target


def _target(figure: str, comparison: str, full: float, quick: Any, meaning: str) -> Target:
    return Target(figure, comparison, full, quick, "×", meaning, optional="genjax" in figure)


DIRECT = "step ÷ hand-coded"
NUMPYRO = "step ÷ NumPyro's, the slower of our two ratios"
GENJAX = "our ratio to hand-coded ÷ genjax's"
TARGETS = (
    _target("A_hand", "<=", 1.05, 1.15, f"A, {DIRECT}"),
    _target("B_hand", "<=", 1.05, 1.15, f"B, {DIRECT}"),
    _target("C_hand", "<=", 1.05, 1.15, f"C with reinforce, {DIRECT}"),
    _target("A_numpyro", "<=", 1.0, 1.1, f"A, {NUMPYRO}"),
    _target("B_numpyro", "<=", 1.0, 1.1, f"B, {NUMPYRO}"),
    _target("C_enum", ">=", 1.5, 1.25, "C, joint enumeration by hand ÷ enum"),
    _target("A_genjax", "<=", 1.0, None, f"A, {GENJAX}"),
    _target("B_genjax", "<=", 1.0, None, f"B, {GENJAX}"),
    _target("C_genjax", "<=", 1.0, None, f"C with reinforce, {GENJAX}"),
    _target("C_genjax_enum", "<=", 1.0, None, f"C with enum, {GENJAX}"),
    _target("C_genjax_mvd", "<=", 1.0, None, f"C with mvd, {GENJAX}"),
    _target("A_compile", "<=", 2.0, None, "A, tracing and compiling ÷ hand-coded"),
    _target("B_compile", "<=", 2.0, None, "B, tracing and compiling ÷ hand-coded"),
    _target("C_compile", "<=", 2.0, None, "C with reinforce, tracing and compiling ÷ hand-coded"),
    Target("agreement", "<", 4.5, meaning="largest |z| between two candidates' means"),
)
TEXT = (
    "A: hierarchical logistic regression, mean-field Gaussian guide. B: variational autoencoder. "
    "C: attend-infer-repeat in small, three chained Bernoulli presences and three Gaussian codes. "
    "A step is one jitted value and gradient of minus the bound with one draw, float32. "
    "hand: plain JAX, in C with the score function or with all eight joint presences under vmap. "
    "genjax runs in a process of its own, beside the same hand-written code."
)


def run(quick: bool, report: Any) -> Mapping[str, Any]:
    """Times all candidates in turn, task by task."""
    figures: dict[str, Any] = {}
    report.note(TEXT)
    with ExitStack() as stack:
        peer, reason = (None, "not in the quick run") if quick else _genjax(stack, report)
        for task in "ABC":
            figures |= _task(task, quick, report, peer, reason)
    figures["agreement"] = max(figures.pop(f"agreement_{task}") for task in "ABC")
    return figures


def _genjax(stack: ExitStack, report: Any) -> tuple[Any, str]:
    from benchmarks import Unavailable, Worker

    try:
        script, needs = "benchmarks/vi/genjax_worker.py", ["genjax==1.0.14"]
        worker = stack.enter_context(Worker(script, python="3.12", requirements=needs))
    except Unavailable as error:
        return None, str(error)
    found = worker.versions("genjax", "jax", "tfp-nightly")
    report.note("genjax: " + ", ".join(f"{name} {version}" for name, version in found.items()))
    return worker, ""


def _task(task: str, quick: bool, report: Any, peer: Any, reason: str) -> dict[str, Any]:
    from benchmarks import compare, compare_compilation
    from benchmarks.vi import _agree, _hand, _tasks

    size: dict[str, Any] = {"n": 250, "num_groups": 10, "batch": 64} if quick else {}
    size["images"] = _digits()
    problem = _hand.problem(task, **size)
    own = _tasks.gradients(task, problem, strategies=not quick)
    draws = 50 if quick else 400
    found = {name: _agree.moments(*candidate, draws) for name, candidate in own.items()}
    theirs = peer.ask("start", task=task, size=size) if peer else []
    for name in theirs:
        found[name] = peer.ask("moments", name=name, draws=draws)
    worst, whose = _agree.largest_z(found, "hand")
    report.note(f"{task}: means of value and gradient agree, largest |z| {worst:.2f} ({whose})")

    every = own | {name: peer.candidate(name) for name in theirs}
    times = compare(every, rounds=300, seconds=4 if quick else 60)
    report.times(f"Task {task}", times, against="hand")
    figures = {f"{task}_hand": times.ratio("ours", "hand"), f"agreement_{task}": worst}
    if task == "C":
        figures["C_enum"] = times.ratio("hand, enum", "enum")
    else:
        ratios = [times.ratio("ours", name) for name in ("Trace_ELBO", "TraceGraph_ELBO")]
        figures[f"{task}_numpyro"] = max(ratios, key=lambda ratio: ratio.value)
    if quick:
        return figures

    pairs = {"genjax": "ours"}
    if task == "C":
        pairs = {"genjax": "ours", "genjax_enum": "enum", "genjax_mvd": "mvd"}
    for name, mine in pairs.items():
        figures[f"{task}_{name}"] = (
            times.ratio_of_ratios((mine, "hand"), (name, "their hand"))
            if peer
            else Figure.not_measured(reason)
        )
    compiled = compare_compilation({name: own[name] for name in ("hand", "ours")}, rounds=7)
    report.times(f"Task {task}, tracing and compiling", compiled["total"], against="hand")
    figures[f"{task}_compile"] = compiled["total"].ratio("ours", "hand")
    steps = compare(_tasks.training_steps(task, problem), rounds=200, seconds=15)
    report.times(f"Task {task}, a whole step with Adam", steps, against="hand")
    return figures


def _digits() -> list[list[int]]:
    """128 digits of 64 pixels, grey values 0 to 16."""
    from sklearn.datasets import load_digits

    return load_digits().data[:128].astype(int).tolist()


BENCHMARK = Benchmark(
    "vi-overhead",
    "programmable inference costs what hand-written JAX costs",
    "Becker et al. 2024 (PLDI), tables 1 and 2",
    TARGETS,
    run,
)
