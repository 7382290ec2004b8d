"""Kronecker algebra beside plain matrix multiplications, dense algebra and GPJax's operator."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from benchmarks._declare import Benchmark, Figure, Target
from benchmarks._report import Report

SHAPES, QUICK_SHAPES = ((1000, 1000), (100, 100, 100), (32, 32, 32, 32)), ((100, 100, 100),)
GROWTH, QUICK_GROWTH = (20, 40, 80, 160), (20, 40, 80)  # points along each of three axes
DENSE = (14, 14, 14)
BOUND = "÷ plain matrix multiplications with the same FLOPs"


def _targets() -> tuple[Target, ...]:
    found = []
    for what in ("mv", "solve", "evidence"):
        for shape in SHAPES:
            quick = 1.5 if shape in QUICK_SHAPES else None
            meaning = f"{what}, {_name(shape)} {BOUND}"
            found.append(Target(f"{what}_{len(shape)}", "<=", 1.3, quick, "×", meaning))
    return (
        *found,
        Target("gpjax", "<=", 1.05, None, "×", "mv, 1000² ÷ GPJax's Kronecker", optional=True),
        Target("dense", ">=", 20.0, meaning="evidence and gradient, 14³: dense ÷ ours", unit="×"),
        Target("memory", "<=", 1000, unit="MB", meaning="evidence and gradient, 100³, compiled"),
        Target("growth", "<=", 0.1, quick=0.2, meaning="exponent by which mv outgrows its FLOPs"),
    )


def run(quick: bool, report: Report) -> Mapping[str, Any]:
    """Products, solves and evidence in float64."""
    import jax

    with jax.enable_x64(True):
        return _run(quick, report)


def _run(quick: bool, report: Report) -> dict[str, Any]:
    report.note(
        "float64. The bound is what any use of the Kronecker structure has to multiply: D products "
        "of an n × n matrix with an n × N/n one for mv, twice that for a solve (with the "
        "eigenvectors known) and for the evidence with its gradient in all factors and the noise, "
        "to which the eigendecompositions of the factors and two products of n × n matrices for "
        "each are added. It is timed by chains of such multiplications. CPU runs plain XLA; no "
        "kernel of ours is involved."
    )
    figures: dict[str, Any] = {}
    rows = []
    for shape in QUICK_SHAPES if quick else SHAPES:
        times = _compare(shape, quick)
        d = len(shape)
        for what in ("mv", "solve", "evidence"):
            ratio = times.ratio(what, f"{what}, bound")
            figures[f"{what}_{d}"] = ratio
            flops = _flops(shape, what)
            seconds = times.median(what).value
            rows.append([_name(shape), what, 1e3 * seconds, ratio, flops / seconds / 1e9])
        if "GPJax" in times.samples:
            figures["gpjax"] = times.ratio("mv", "GPJax")
            report.times("mv, 1000 × 1000", _only(times, ("mv", "GPJax")), against="GPJax")
    report.table("Time and the bound", ["grid", "what", "ms", "÷ bound", "GFLOP/s"], rows)
    if "gpjax" not in figures and not quick:
        figures["gpjax"] = Figure.not_measured("gpjax is not installed")
    figures["dense"] = _dense(quick, report)
    figures["memory"] = _memory(report)
    figures["growth"] = _growth(quick, report)
    return figures


def _compare(shape: tuple[int, ...], quick: bool) -> Any:
    import jax
    import jax.numpy as jnp

    from bayesjx import ops
    from benchmarks import compare

    factors, y = _problem(shape)
    noisy = jax.jit(_noisy)(factors, jnp.asarray(0.1))
    candidates: dict[str, Any] = {
        "mv": (jax.jit(lambda k, y: ops.Kron(*k).mv(y)), (factors, y)),
        "solve": (jax.jit(lambda op, y: op.solve(y)), (noisy, y)),
        "evidence": (
            jax.jit(jax.value_and_grad(_evidence, (0, 1))),
            (factors, jnp.asarray(0.1), y),
        ),
        "mv, bound": (jax.jit(_products), (factors, y)),
        "solve, bound": (jax.jit(lambda k, y: _products(k + k, y)), (factors, y)),
        "evidence, bound": (jax.jit(_evidence_bound), (factors, y)),
    }
    peer = _gpjax(factors) if len(shape) == 2 else None
    if peer is not None:
        candidates["GPJax"] = (peer, (factors, y))
    return compare(candidates, rounds=10 if quick else 30, seconds=6.0 if quick else 60.0)


def _problem(shape: tuple[int, ...]) -> tuple[Any, Any]:
    """Matérn-like factors on regular axes, and data."""
    import jax
    import jax.numpy as jnp

    factors = []
    for n in shape:
        t = jnp.linspace(0.0, 1.0, n)
        factors.append(jnp.exp(-jnp.abs(t[:, None] - t) / 0.3))
    return tuple(factors), jax.random.normal(jax.random.key(0), (math.prod(shape),))


def _noisy(factors: Any, noise: Any) -> Any:
    from bayesjx import ops

    return ops.Kron(*factors, tags=ops.psd) + ops.ScaledIdentity(noise)


def _evidence(factors: Any, noise: Any, y: Any) -> Any:
    quad, logdet = _noisy(factors, noise).inv_quad_logdet(y)
    return -0.5 * (quad + logdet)


def _products(factors: Any, y: Any) -> Any:
    """One plain matrix multiplication for each factor, in a chain."""
    x = y
    for factor in factors:
        x = factor @ x.reshape(len(factor), -1)
    return x


def _evidence_bound(factors: Any, y: Any) -> Any:
    """Eigenvectors; one multiplication per factor, one that makes a gradient of each, and two that
    take it back from the eigenvectors."""
    import jax.numpy as jnp

    vectors = [jnp.linalg.eigh(factor)[1] for factor in factors]
    x = y
    for q in vectors:
        x = q.T @ x.reshape(len(q), -1)
    grids = [x.reshape(len(factor), -1) for factor in factors]
    squares = [(1.0 + i) * grid @ (grid - i).T for i, grid in enumerate(grids)]
    return [q @ square @ q.T for q, square in zip(vectors, squares, strict=True)]


def _flops(shape: tuple[int, ...], what: str) -> float:
    """Of the multiplications; the eigendecompositions are not counted."""
    passes = 2 * math.prod(shape) * sum(shape)
    if what == "evidence":
        return 2 * passes + 4 * sum(n**3 for n in shape)
    return passes * (1 if what == "mv" else 2)


def _gpjax(factors: Any) -> Any:
    import jax
    import lineax as lx

    try:
        from gpjax.linalg.custom_operators import Kronecker
    except ImportError:
        return None

    def product(factors: Any, y: Any) -> Any:
        return Kronecker(*(lx.MatrixLinearOperator(k) for k in factors)).mv(y)

    return jax.jit(product)


def _dense(quick: bool, report: Report) -> Any:
    import jax
    import jax.numpy as jnp

    from benchmarks import compare

    def dense(factors: Any, noise: Any, y: Any) -> Any:
        k = factors[0]
        for factor in factors[1:]:
            k = jnp.kron(k, factor)
        tril = jnp.linalg.cholesky(k + noise * jnp.eye(len(k)))
        half = jax.scipy.linalg.solve_triangular(tril, y, lower=True)
        return -0.5 * half @ half - jnp.sum(jnp.log(jnp.diag(tril)))

    factors, y = _problem(DENSE)
    args = (factors, jnp.asarray(0.1), y)
    times = compare(
        {
            "ours": (jax.jit(jax.value_and_grad(_evidence, (0, 1))), args),
            "dense": (jax.jit(jax.value_and_grad(dense, (0, 1))), args),
        },
        rounds=3 if quick else 8,
        min_rounds=2 if quick else 4,
        seconds=10.0 if quick else 60.0,
    )
    report.times(f"Evidence and gradient, {_name(DENSE)}", times, against="dense")
    return times.ratio("dense", "ours")


def _memory(report: Report) -> float:
    import jax
    import jax.numpy as jnp

    from benchmarks import compiled_memory

    factors, y = _problem((100, 100, 100))
    gradient = jax.jit(jax.value_and_grad(_evidence, (0, 1)))
    plan = compiled_memory(gradient, factors, jnp.asarray(0.1), y)
    sizes = {kind: plan[kind] for kind in ("argument", "output", "temp")}
    rows = [[name, size / 1e6] for name, size in sizes.items()]
    report.table("Memory of the evidence and its gradient, 100³", ["", "MB"], rows)
    return sum(sizes.values()) / 1e6


def _growth(quick: bool, report: Report) -> float:
    import jax
    import numpy as np

    from bayesjx import ops
    from benchmarks import compare

    candidates = {}
    sizes = QUICK_GROWTH if quick else GROWTH
    for n in sizes:
        factors, y = _problem((n, n, n))
        candidates[f"{n}"] = (jax.jit(lambda k, y: ops.Kron(*k).mv(y)), (factors, y))
        candidates[f"{n}, bound"] = (jax.jit(_products), (factors, y))
    times = compare(candidates, rounds=15 if quick else 30, seconds=6.0 if quick else 30.0)
    ratios = [times.ratio(f"{n}", f"{n}, bound").value for n in sizes]
    flops = [_flops((n, n, n), "mv") for n in sizes]
    rows = [
        [f"{n}³", 1e3 * times.median(f"{n}").value, f / times.median(f"{n}").value / 1e9, r]
        for n, f, r in zip(sizes, flops, ratios, strict=True)
    ]
    report.table("Growth of mv with three factors", ["grid", "ms", "GFLOP/s", "÷ bound"], rows)
    report.lines(
        "Seconds of a product with three factors",
        "multiply-adds",
        "seconds",
        {
            "Kron": ([f / 2 for f in flops], [times.median(f"{n}").value for n in sizes]),
            "bound": ([f / 2 for f in flops], [times.median(f"{n}, bound").value for n in sizes]),
        },
        log="xy",
    )
    return float(np.polyfit(np.log(flops), np.log(ratios), 1)[0])


def _only(times: Any, names: tuple[str, ...]) -> Any:
    return type(times)({name: times.samples[name] for name in names})


def _name(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))


BENCHMARK = Benchmark(
    name="ops-kron",
    claim="Kronecker algebra runs at the speed of plain matrix multiplications",
    source="Saatçi 2011; our own bound",
    targets=_targets(),
    run=run,
)
