"""Exact marginal likelihood with its gradient, beside GPJax, tinygp and scikit-learn."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from benchmarks._declare import Benchmark, Figure, Target
from benchmarks._report import Report

N, D = 1000, 8
NOISE = 0.1
MISSING = "{} is not installed"

TARGETS = (
    Target("peers", "<=", 0.85, quick=0.9, unit="×", meaning="ours ÷ the best of GPJax and tinygp"),
    Target("sklearn", ">=", 1.6, quick=1.5, unit="×", meaning="scikit-learn ÷ ours", optional=True),
    Target("values", "<=", 1e-6, meaning="largest relative difference of the values"),
    Target("gradients", "<=", 1e-6, meaning="largest relative difference of the gradients"),
)


def run(quick: bool, report: Report) -> Mapping[str, Any]:
    """Value and gradient in all hyper-parameters, float64."""
    import jax

    with jax.enable_x64(True):
        return _run(quick, report)


def _run(quick: bool, report: Report) -> dict[str, Any]:
    import jax
    import numpy as np

    from benchmarks import compare

    x, y, theta = _problem()
    candidates = {"bayesjx": _ours(x, y), "through the factor": _through_the_factor(x, y)}
    candidates |= {name: f for name, f in _peers(x, y).items() if f is not None}
    report.note(
        f"{N} points in {D} dimensions, squared exponential with a lengthscale each, a variance "
        f"and noise: {D + 2} parameters, on a logarithmic scale. 'Through the factor' is the "
        "plain density with the derivative of its Cholesky factor."
    )
    found = {name: f(theta) for name, f in candidates.items()}
    want_value, want_gradient = (np.asarray(part) for part in found["bayesjx"])
    values, gradients = [], []
    for value, gradient in found.values():
        values.append(abs(float(value) / float(want_value) - 1))
        scale = np.abs(want_gradient).max()
        gradients.append(np.abs(np.asarray(gradient) - want_gradient).max() / scale)
    timed = {name: (f, (theta,)) for name, f in candidates.items()}
    timed["Cholesky, its inverse"] = (jax.jit(_bound), (_covariance(x, theta),))
    timed["product of matrices"] = (jax.jit(lambda a: a @ a), (_covariance(x, theta),))
    times = compare(timed, rounds=15 if quick else 40, seconds=12 if quick else 60)
    report.times(f"value and gradient, n = {N}", times, against="bayesjx")
    figures: dict[str, Any] = {"values": max(values), "gradients": max(gradients)}
    figures |= _ratios(times)
    figures |= _limits(times)
    return figures


def _ratios(times: Any) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    peers = [name for name in ("GPJax", "tinygp") if name in times.samples]
    if len(peers) == 2:
        best = min(peers, key=lambda name: times.median(name).value)
        figures["peers"] = times.ratio("bayesjx", best)
    else:
        figures["peers"] = Figure.not_measured(MISSING.format("GPJax or tinygp"))
    if "scikit-learn" in times.samples:
        figures["sklearn"] = times.ratio("scikit-learn", "bayesjx")
    else:
        figures["sklearn"] = Figure.not_measured(MISSING.format("scikit-learn"))
    return figures


def _limits(times: Any) -> dict[str, Any]:
    """How far the time is from what the FLOPs would take at the speed of a matrix product."""
    seconds = {name: times.median(name).value for name in times.samples}
    speed = 2 * N**3 / seconds["product of matrices"]
    # A Cholesky factor, its inverse, and the product of that with itself: n³ / 3 FLOPs each.
    bound = N**3 / speed
    return {
        "over_flops": Figure(seconds["bayesjx"] / bound, unit="×", note="÷ n³ FLOPs at GEMM speed"),
        "over_lapack": times.ratio("bayesjx", "Cholesky, its inverse"),
    }


def _problem() -> tuple[Any, Any, Any]:
    import jax.numpy as jnp
    import numpy as np

    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, D))
    y = np.sin(x @ rng.normal(size=D)) + NOISE**0.5 * rng.normal(size=N)
    theta = jnp.log(jnp.array([2.0] * D + [1.3, NOISE]))
    return jnp.asarray(x), jnp.asarray(y), theta


def _ours(x: Any, y: Any) -> Any:
    import jax
    import jax.numpy as jnp

    from bayesjx import gp, kernels

    def evidence(theta: Any) -> Any:
        t = jnp.exp(theta)
        return -gp.GP(kernels.RBF(t[:D], t[D]), noise_var=t[D + 1])(x).log_prob(y)

    return jax.jit(jax.value_and_grad(evidence))


def _covariance(x: Any, theta: Any) -> Any:
    import jax.numpy as jnp

    from bayesjx import kernels

    t = jnp.exp(theta)
    return kernels.RBF(t[:D], t[D]).gram(x) + t[D + 1] * jnp.eye(N)


def _through_the_factor(x: Any, y: Any) -> Any:
    import jax
    import jax.numpy as jnp
    from jax.scipy.linalg import solve_triangular

    def evidence(theta: Any) -> Any:
        tril = jnp.linalg.cholesky(_covariance(x, theta))
        half = solve_triangular(tril, y, lower=True)
        logdet = 2 * jnp.sum(jnp.log(jnp.diag(tril)))
        return 0.5 * (half @ half + logdet + N * jnp.log(2 * jnp.pi))

    return jax.jit(jax.value_and_grad(evidence))


def _bound(matrix: Any) -> Any:
    import jax.numpy as jnp
    from jax.scipy.linalg import cho_solve

    return cho_solve((jnp.linalg.cholesky(matrix), True), jnp.eye(N))


def _peers(x: Any, y: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, make in (("GPJax", _gpjax), ("tinygp", _tinygp), ("scikit-learn", _sklearn)):
        try:
            found[name] = make(x, y)
        except ImportError:
            found[name] = None
    return found


def _gpjax(x: Any, y: Any) -> Any:
    import jax
    import jax.numpy as jnp

    gpjax: Any = importlib.import_module("gpjax")
    data = gpjax.Dataset(x, y[:, None])

    def evidence(theta: Any) -> Any:
        t = jnp.exp(theta)
        kernel = gpjax.kernels.RBF(lengthscale=t[:D], variance=t[D])
        # Its jitter, which would be seen in the seventh digit, is not needed with this noise.
        mean = gpjax.mean_functions.Zero()
        prior = gpjax.gps.Prior(mean_function=mean, kernel=kernel, jitter=0.0)
        likelihood = gpjax.likelihoods.Gaussian(obs_stddev=jnp.sqrt(t[D + 1]))
        return -gpjax.objectives.conjugate_mll(prior * likelihood, data)

    return jax.jit(jax.value_and_grad(evidence))


def _tinygp(x: Any, y: Any) -> Any:
    import jax
    import jax.numpy as jnp
    import tinygp

    def evidence(theta: Any) -> Any:
        t = jnp.exp(theta)
        kernel = t[D] * tinygp.transforms.Linear(1 / t[:D], tinygp.kernels.ExpSquared())
        return -tinygp.GaussianProcess(kernel, x, diag=t[D + 1]).log_probability(y)

    return jax.jit(jax.value_and_grad(evidence))


def _sklearn(x: Any, y: Any) -> Any:
    import numpy as np
    from sklearn import gaussian_process
    from sklearn.gaussian_process.kernels import ConstantKernel, RBF, WhiteKernel

    kernel = ConstantKernel(1.3) * RBF([2.0] * D) + WhiteKernel(NOISE)
    model = gaussian_process.GaussianProcessRegressor(kernel, alpha=0, optimizer=None)
    model.fit(np.asarray(x), np.asarray(y))
    order = [*range(1, D + 1), 0, D + 1]  # theirs: variance, lengthscales, noise

    def evidence(theta: Any) -> Any:
        theirs = np.empty(D + 2)
        theirs[order] = np.asarray(theta)
        value, gradient = model.log_marginal_likelihood(theirs, eval_gradient=True)
        return -value, -gradient[order]

    return evidence


BENCHMARK = Benchmark(
    name="gp-exact",
    claim="the exact marginal likelihood with its gradient is faster than that of others",
    source="Rasmussen and Williams 2006, section 5.4.1",
    targets=TARGETS,
    run=run,
)
