"""What programmability costs: one gradient step beside hand-written JAX, NumPyro and genjax."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks._declare import Benchmark, Target
from benchmarks._report import Figure, Report

PEER = "NumPyro's faster loss"
TARGETS = (
    Target("A_hand", "<=", 1.05, quick=1.15, unit="×", meaning="task A, step ÷ hand-coded"),
    Target("B_hand", "<=", 1.05, quick=1.15, unit="×", meaning="task B, step ÷ hand-coded"),
    Target("C_hand", "<=", 1.05, quick=1.15, unit="×", meaning="task C, reinforce ÷ hand-coded"),
    Target("A_numpyro", "<=", 1.0, quick=1.1, unit="×", meaning=f"task A, step ÷ {PEER}"),
    Target("B_numpyro", "<=", 1.0, quick=1.1, unit="×", meaning=f"task B, step ÷ {PEER}"),
    Target("C_enum", ">=", 1.5, quick=1.2, unit="×", meaning="joint enumeration by hand ÷ enum"),
    Target("A_genjax", "<=", 1.0, quick=None, unit="×", meaning="our ratio to hand ÷ genjax's"),
    Target("B_genjax", "<=", 1.0, quick=None, unit="×", meaning="our ratio to hand ÷ genjax's"),
    Target("C_genjax", "<=", 1.0, quick=None, unit="×", meaning="reinforce: ours ÷ genjax's"),
    Target("A_compile", "<=", 2.0, quick=None, unit="×", meaning="compile time ÷ hand-coded"),
    Target("B_compile", "<=", 2.0, quick=None, unit="×", meaning="compile time ÷ hand-coded"),
    Target("C_compile", "<=", 2.0, quick=None, unit="×", meaning="compile time ÷ hand-coded"),
    Target("agreement", "<", 4.5, meaning="largest |z| between ours and hand-coded values"),
)
STRATEGIES = ("enum", "mvd", "disarm", "rloo")


def run(quick: bool, report: Report) -> Mapping[str, Any]:
    """Times one jitted value-and-gradient on each task, everything in turn."""
    images = _images()
    figures: dict[str, Any] = {"agreement": _agreement(images)}
    seconds = 6.0 if quick else 40.0
    report.note(
        "A: hierarchical logistic regression, n = 500, 5 covariates, 20 groups. B: autoencoder, "
        "128 × 64 binary pixels, 128 hidden, 10 latent. C: attend-infer-repeat in small, three "
        "chained presences and three Gaussian codes, 128 × 64 pixels. A step is one value and "
        "gradient, all losses on the same parameters and data, float32."
    )
    worker = None if quick else _worker(report)
    try:
        for task in "ABC":
            figures.update(_time(task, images, quick, seconds, worker, report))
    finally:
        if worker is not None:
            worker.__exit__(None, None, None)
    return figures


def _worker(report: Report) -> Any:
    from benchmarks import Unavailable, Worker

    try:
        script, needs = "benchmarks/vi/genjax_worker.py", ["genjax==1.0.14"]
        return Worker(script, python="3.12", requirements=needs).__enter__()
    except Unavailable as error:
        report.note(f"genjax was not measured: {error}")
        return None


def _time(
    task: str, images: Any, quick: bool, seconds: float, worker: Any, report: Report
) -> dict[str, Any]:
    from benchmarks import compare, compare_compilation

    own = candidates(task, images, quick)
    peers: dict[str, Any] = {}
    figures: dict[str, Any] = {}
    if worker is not None:
        data = None if task == "A" else _shown(task, images).tolist()
        names = worker.ask("start", task=task, images=data)
        peers = {name: worker.candidate(name) for name in names}
    times = compare({**own, **peers}, rounds=300, seconds=seconds)
    report.times(f"Task {task}", times, against="hand")
    figures[f"{task}_hand"] = times.ratio("ours", "hand")
    if task == "C":
        figures["C_enum"] = times.ratio("hand enum", "enum")
    else:
        best = min(("Trace_ELBO", "TraceGraph_ELBO"), key=lambda n: float(times.median(n).value))
        figures[f"{task}_numpyro"] = times.ratio("ours", best)
    if quick:
        return figures
    name = "genjax reinforce" if task == "C" else "genjax"
    missing = Figure.not_measured("no Python 3.12 with genjax")
    pairs = (("ours", "hand"), (name, "its hand"))
    figures[f"{task}_genjax"] = times.ratio_of_ratios(*pairs) if peers else missing
    direct = {name: own[name] for name in ("ours", "hand")}
    compiled = compare_compilation(direct, rounds=5)
    report.times(f"Task {task}, tracing and compiling", compiled["total"], against="hand")
    figures[f"{task}_compile"] = compiled["total"].ratio("ours", "hand")
    return figures


def candidates(task: str, images: Any, quick: bool) -> dict[str, Any]:
    """Jitted losses with gradients and their arguments, by name."""
    import jax
    from numpyro.infer import Trace_ELBO, TraceGraph_ELBO

    from bayesjx import vi
    from benchmarks.vi import _hand, _programs

    def gradient(loss: Any) -> Any:
        return jax.jit(jax.value_and_grad(loss))

    def ours(model: Any, guide: Any) -> Any:
        bound = vi.elbo(model, guide)
        return gradient(lambda params, key, data: -bound.surrogate(key, params, data))

    def peer(elbo: Any, model: Any, guide: Any) -> Any:
        return gradient(lambda params, key, data: elbo.loss(key, {}, model, guide, params, data))

    key = jax.random.key(0)
    if task == "C":
        args = (_hand.scene_params(64, 128), key, _shown(task, images))
        model, plain = _programs.scene_model, _programs.scene_guide(lambda d: d)
        found = {
            "hand": gradient(_hand.scene_loss),
            "ours": ours(model, _programs.scene_guide(vi.reinforce)),
            "TraceGraph_ELBO": peer(TraceGraph_ELBO(), model, plain),
            "hand enum": gradient(_hand.scene_enumerated_loss),
        }
        for name in STRATEGIES[:1] if quick else STRATEGIES:
            found[name] = ours(model, _programs.scene_guide(getattr(vi, name)))
        return {name: (fn, args) for name, fn in found.items()}
    if task == "A":
        args = (_hand.regression_params(5, 20), key, _hand.grouped_data(500, 5, 20))
        model, guide = _programs.regression_model, _programs.regression_guide
        loss = _hand.regression_loss
    else:
        args = (_hand.vae_params(64, 128, 10), key, _shown(task, images))
        model, guide, loss = _programs.vae_model, _programs.vae_guide, _hand.vae_loss
    found = {
        "hand": gradient(loss),
        "ours": ours(model, guide),
        "Trace_ELBO": peer(Trace_ELBO(), model, guide),
        "TraceGraph_ELBO": peer(TraceGraph_ELBO(), model, guide),
    }
    return {name: (fn, args) for name, fn in found.items()}


def _agreement(images: Any) -> float:
    """Worst z between our mean value and the hand-coded one, per task over 400 keys."""
    worst = 0.0
    for task in "ABC":
        found = candidates(task, images, quick=True)
        (a, error_a), (b, error_b) = (_mean(*found[name]) for name in ("ours", "hand"))
        worst = max(worst, abs(a - b) / (error_a**2 + error_b**2) ** 0.5)
    return worst


def _mean(fn: Any, args: Any, draws: int = 400) -> tuple[float, float]:
    """Mean value of a loss over keys, and its standard error."""
    import jax
    import numpy as np

    params, key, data = args
    keys = jax.random.split(key, draws)
    values = np.asarray(jax.lax.map(lambda key: fn(params, key, data)[0], keys))
    return float(values.mean()), float(values.std() / draws**0.5)


def _images() -> Any:
    from sklearn.datasets import load_digits

    return load_digits().data[:128]


def _shown(task: str, images: Any) -> Any:
    import jax.numpy as jnp

    return jnp.float32(images >= 8) if task == "B" else jnp.float32(images / 16)


BENCHMARK = Benchmark(
    "vi-overhead",
    "programmable inference costs what hand-written JAX costs",
    "Becker et al. 2024 (PLDI), table 1 and section 8",
    TARGETS,
    run,
)
