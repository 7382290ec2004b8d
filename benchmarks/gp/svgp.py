"""Stochastic variational processes on kin40k: time of a step, steps to a bound, decoupling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks._declare import Benchmark, Figure, Target
from benchmarks._report import Report

POINTS, BATCH, ROWS = 256, 512, 40_000
QUICK_POINTS, QUICK_BATCH = 128, 256
STEPS, QUICK_STEPS = 2000, 200  # of Adam
RATE, GAMMA = 0.01, 0.1
JUDGED = 4096  # rows on which bounds are compared
EVERY = 20

TARGETS = (
    Target("step", "<=", 0.7, quick=0.85, unit="×", meaning="step of Adam ÷ GPJax, whitened"),
    Target("value", "<=", 1e-6, meaning="relative difference of the two bounds, same q"),
    Target("natural", ">=", 5, quick=3, unit="×", meaning="steps: Adam ÷ natural gradients"),
    Target("decoupled", "<=", 0.02, meaning="decoupled bound below that of all points, relative"),
    Target("decoupled_step", "<=", 0.75, quick=0.95, unit="×", meaning="its step ÷ all points"),
)


def run(quick: bool, report: Report) -> Mapping[str, Any]:
    """All from the same start, in float64."""
    import jax

    with jax.enable_x64(True):
        return _run(quick, report)


def _run(quick: bool, report: Report) -> dict[str, Any]:
    import jax
    import jax.numpy as jnp
    import optax

    from bayesjx import gp

    m, batch = (QUICK_POINTS, QUICK_BATCH) if quick else (POINTS, BATCH)
    x, y, source = _data()
    prior, points = _prior(x.shape[1]), jnp.asarray(x[:m])
    whole = gp.SVGP(prior, inducing_points=points)
    halves = gp.DecoupledSVGP(
        prior, inducing_points=points[: m // 2], orthogonal_points=points[m // 2 :]
    )
    adam = optax.adam(RATE)
    report.note(
        f"{source}; {len(x)} rows, {m} inducing points that start at the first rows, minibatches "
        f"of {batch}, squared exponential with one lengthscale a column. Everything is trained: "
        f"Adam at a rate of {RATE:g}, natural gradients with steps of {GAMMA:g}. Bounds are taken "
        f"on {JUDGED} rows, as an estimate for all. 'q' trains the distribution of the inducing "
        "variables alone and keeps kernel, noise and points; otherwise these, moved by Adam at the "
        "same rate in all, decide how soon a bound is reached."
    )
    algorithms = {
        "Adam": (whole, gp.svgp_adam(whole, adam, num_data=len(x))),
        "natural": (whole, gp.svgp_natgrad(whole, adam, GAMMA, num_data=len(x))),
        "decoupled, Adam": (halves, gp.svgp_adam(halves, adam, num_data=len(x))),
        "decoupled, natural": (halves, gp.svgp_natgrad(halves, adam, GAMMA, num_data=len(x))),
    }
    rows = (jnp.asarray(x[:batch]), jnp.asarray(y[:batch]))
    candidates: dict[str, Any] = {
        name: (jax.jit(algorithm.step), (jax.random.key(0), algorithm.init(), *rows))
        for name, (_, algorithm) in algorithms.items()
    }
    figures: dict[str, Any] = _peer(candidates, points, rows, len(x))
    figures |= _times(candidates, quick, report)
    del algorithms["decoupled, Adam"]  # only its time is compared
    algorithms["q, Adam"] = (
        whole,
        gp.svgp_adam(whole, adam, num_data=len(x), trainable=_variational),
    )
    algorithms["q, natural"] = (whole, gp.svgp_natgrad(whole, None, GAMMA, num_data=len(x)))
    return figures | _races(algorithms, x, y, batch, quick, report)


def _variational(svgp: Any) -> Any:
    return [svgp.q.mean, svgp.q.scale_tril]


def _data() -> tuple[Any, Any, str]:
    """All rows of kin40k, or as many of a smooth function if that is not installed."""
    import numpy as np

    from benchmarks.gp._uci import random_split

    try:
        split = random_split("kin40k", ROWS, 0)
        return split.train_x, split.train_y, "kin40k"
    except FileNotFoundError:
        draw = np.random.default_rng(0)
        x = draw.normal(size=(ROWS, 8))
        y = np.sin(x[:, 0]) * np.cos(x[:, 1] + x[:, 2]) + 0.1 * draw.normal(size=ROWS)
        return x, y / y.std(), "a product of waves with noise (no kin40k)"


def _prior(num_columns: int) -> Any:
    import jax.numpy as jnp

    from bayesjx import gp, kernels

    return gp.GP(kernels.RBF(jnp.full(num_columns, num_columns**0.5)), noise_var=0.1)


def _peer_process(points: Any, q: Any = None, jitter: float = 1e-6) -> Any:
    import gpjax
    import jax.numpy as jnp

    d = points.shape[1]
    parameters: dict[str, Any] = {"lengthscale": jnp.full(d, d**0.5), "variance": jnp.ones(())}
    prior = gpjax.gps.Prior(
        mean_function=gpjax.mean_functions.Zero(),
        kernel=gpjax.kernels.RBF(**parameters),
        jitter=jitter,
    )
    model = prior * gpjax.likelihoods.Gaussian(obs_stddev=jnp.sqrt(jnp.asarray(0.1)))
    family: Any = gpjax.variational_families.WhitenedVariationalGaussian
    given = () if q is None else (q.mean[:, None], q.scale_tril)
    return family(model, points, *given)


def _peer(candidates: dict[str, Any], points: Any, rows: Any, num_data: int) -> dict[str, Any]:
    """Adds the peer's step, and compares the bounds of one distribution."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import optax

    from bayesjx import gp

    try:
        import gpjax
    except ImportError as error:
        return {"value": Figure.not_measured(str(error))}

    def bound(family: Any, x: Any, y: Any) -> Any:
        return gpjax.objectives.elbo(family, gpjax.Dataset(x, y[:, None], n_total=num_data))

    adam = optax.adam(RATE)
    free, fixed = eqx.partition(_peer_process(points), eqx.is_inexact_array)

    def step(free: Any, state: Any, x: Any, y: Any) -> Any:
        value, slope = jax.value_and_grad(lambda p: -bound(eqx.combine(p, fixed), x, y))(free)
        updates, state = adam.update(slope, state, free)
        return optax.apply_updates(free, updates), state, value

    candidates["GPJax"] = (jax.jit(step), (free, adam.init(free), *rows))
    draw = jax.random.normal(jax.random.key(1), (2, len(points), len(points))) / len(points)
    q = gp.WhitenedNormal(
        draw[0, 0] * len(points) ** 0.5, jnp.tril(draw[1]) + 0.5 * jnp.eye(len(points))
    )
    # GPJax adds its jitter to the variance of the function too; a small one hides that.
    ours = gp.SVGP(_prior(points.shape[1]), inducing_points=points, q=q, jitter=1e-10).elbo(
        *rows, num_data
    )
    theirs = bound(_peer_process(points, q, 1e-10), *rows)
    return {"value": float(abs(ours - theirs) / abs(theirs))}


def _times(candidates: Mapping[str, Any], quick: bool, report: Report) -> dict[str, Any]:
    from benchmarks import compare

    times = compare(candidates, rounds=20 if quick else 60, seconds=8.0 if quick else 60.0)
    report.times("A step", times, against="GPJax" if "GPJax" in candidates else "Adam")
    found = {
        "decoupled_step": times.ratio("decoupled, Adam", "Adam"),
        "decoupled_natural_step": times.ratio("decoupled, natural", "natural"),
        "natural_step": times.ratio("natural", "Adam"),
    }
    if "GPJax" not in candidates:
        return found | {"step": Figure.not_measured("gpjax is not installed")}
    return found | {"step": times.ratio("Adam", "GPJax")}


def _races(
    algorithms: Mapping[str, Any], x: Any, y: Any, batch: int, quick: bool, report: Report
) -> dict[str, Any]:
    """Bounds along training with the same minibatches."""
    steps = QUICK_STEPS if quick else STEPS
    curves = {
        name: _race(svgp, algorithm, x, y, batch, steps)
        for name, (svgp, algorithm) in algorithms.items()
    }
    at = [EVERY * (i + 1) for i in range(steps // EVERY)]
    lines = {name: (at, [bound / len(x) for bound in curve]) for name, curve in curves.items()}
    report.lines("Bound, nats a row", "steps", "bound", lines)
    rows, figures = [], {}
    for kind, figure in (("", "natural"), ("q, ", "natural_q")):
        target = curves[f"{kind}Adam"][-1]
        reached = [
            step
            for step, bound in zip(at, curves[f"{kind}natural"], strict=True)
            if bound >= target
        ]
        figures[figure] = steps / reached[0] if reached else 0.0
    for name, curve in curves.items():
        rows.append([name, curve[-1] / len(x)])
    report.table(f"After {steps} steps", ["", "bound, nats a row"], rows)
    whole, halves = (curves[name][-1] for name in ("natural", "decoupled, natural"))
    return figures | {"decoupled": max(whole - halves, 0.0) / abs(whole)}


def _race(svgp: Any, algorithm: Any, x: Any, y: Any, batch: int, steps: int) -> list[float]:
    import jax
    import jax.numpy as jnp
    import numpy as np

    order = np.random.default_rng(1).integers(len(x), size=(steps // EVERY, EVERY, batch))
    judged = (jnp.asarray(x[-JUDGED:]), jnp.asarray(y[-JUDGED:]))
    x, y = jnp.asarray(x), jnp.asarray(y)

    @jax.jit
    def leg(state: Any, chosen: Any) -> Any:
        def step(state: Any, rows: Any) -> Any:
            return algorithm.step(jax.random.key(0), state, x[rows], y[rows])[0], None

        state = jax.lax.scan(step, state, chosen)[0]
        return state, svgp.trained(state).elbo(*judged, len(x))

    bounds, state = [], algorithm.init()
    for chosen in order:
        state, bound = leg(state, chosen)
        bounds.append(float(bound))
    return bounds


BENCHMARK = Benchmark(
    name="gp-svgp",
    claim="a step costs less than GPJax's, and natural gradients need far fewer of them",
    source="Hensman et al. 2015; Salimbeni et al. 2018; Shi et al. 2020; GPJax 1.0",
    targets=TARGETS,
    run=run,
)
