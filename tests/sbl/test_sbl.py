"""Classic sparse Bayesian learning: its evidence, its stationary points, and bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayesjx
from bayesjx import sbl

UPDATES = ("fixed-point", "convex", "em", "fast")
STEPS = 400


def problem(n=31, m=53, k=3, kind="float64", num=2, noise=0.05):
    """A design, measurement vectors with a common support, and their weights."""
    rng = np.random.default_rng(m)

    def numbers(*shape):
        x = rng.normal(size=shape)
        x = x + 1j * rng.normal(size=shape) if kind.startswith("c") else x
        return x.astype(kind)

    design, weights = numbers(n, m), np.zeros((m, num), kind)
    weights[rng.choice(m, k, False)] = 2 * np.sign(rng.normal(size=(k, num))) + numbers(k, num) / 4
    return design, design @ weights + noise * numbers(n, num), weights


def dense_evidence(design, y, prior_var, noise_var):
    """By the covariance of the measurements."""
    n, per = len(y), 2 if np.iscomplexobj(y) else 1
    cov = noise_var * np.eye(n) + (design * prior_var) @ design.conj().T
    quad = np.real(np.sum(y.conj() * np.linalg.solve(cov, y)))
    logdet = np.linalg.slogdet(cov)[1]
    return -per / 2 * (y.shape[1] * (n * np.log(2 * np.pi / per) + logdet) + quad)


def learned(update):
    @jax.jit
    def run(design, y):
        def mean(y):
            return sbl.sbl(design, y, update=update, max_steps=STEPS).mean

        posterior = sbl.sbl(design, y, update=update, max_steps=STEPS)
        return posterior, jax.vmap(mean)(jnp.stack([y, 3 * y]))

    return run


CASES = [
    ("fixed-point", (31, 53), "float64"), ("fixed-point", (53, 31), "complex64"),
    ("convex", (31, 53), "complex128"), ("convex", (53, 31), "float32"),
    ("em", (53, 31), "float64"), ("fast", (31, 53), "complex128"), ("fast", (53, 31), "float32"),
]  # fmt: skip


@pytest.mark.parametrize("update,shape,kind", CASES)
def test_evidence_rises_to_a_posterior_that_finds_the_support(update, shape, kind):
    design, y, weights = problem(*shape, kind=kind)
    posterior, mapped = learned(update)(design, y)
    steps, eps = int(posterior.num_steps), np.finfo(kind).eps
    trace = np.asarray(posterior.evidence_trace)
    assert np.all(np.isnan(trace[steps:])) and np.all(np.isfinite(trace[:steps]))
    # Rounding of the quadratic form and the log-determinant, of condition up to 1e4.
    slack = 1e4 * eps * np.abs(trace[steps - 1])
    assert np.all(np.diff(trace[:steps]) >= -slack)
    want = dense_evidence(design, y, np.asarray(posterior.prior_var), float(posterior.noise_var))
    np.testing.assert_allclose(posterior.log_evidence(), want, atol=max(slack, 1e-9))
    last = slack if update != "fast" else 0.02  # which ends after a step of a gain below rtol
    np.testing.assert_allclose(posterior.log_evidence(), trace[steps - 1], atol=max(last, 1e-9))
    # An error of the weights of the order of the noise, where least squares has as many unknowns.
    found = np.asarray(posterior.mean)
    assert np.linalg.norm(found - weights) < 0.05 * np.linalg.norm(weights)
    support = np.abs(weights[:, 0]) > 0
    assert np.all(posterior.active[support])
    size = np.linalg.norm(found, axis=1)
    assert size[support].min() > 10 * size[~support].max()
    # Units of y do not matter.
    scale = np.abs(found).max()
    np.testing.assert_allclose(mapped[0], found, atol=1e5 * eps * scale)
    np.testing.assert_allclose(mapped[1], 3 * found, atol=3e5 * eps * scale)
    assert posterior.mean.dtype == kind and posterior.variance.dtype == np.finfo(kind).dtype


@pytest.mark.parametrize("update", ["fixed-point", "fast"])
def test_it_ends_where_the_evidence_has_no_slope(update):
    design, y, _ = problem(53, 31, noise=0.3)
    posterior = sbl.sbl(design, y, update=update, rtol=1e-6, max_steps=2000)
    assert posterior.converged
    prior_var, noise_var = np.asarray(posterior.prior_var), float(posterior.noise_var)

    def evidence(log_noise, factors):
        return dense_evidence(design, y, prior_var * factors, noise_var * np.exp(log_noise))

    step, ones = 1e-3, np.ones(len(prior_var))
    slopes = [(evidence(step, ones) - evidence(-step, ones)) / (2 * step)]
    for j in np.flatnonzero(posterior.active)[:5]:
        change = np.where(np.arange(len(ones)) == j, np.exp(step), 1)
        slopes.append((evidence(0, change) - evidence(0, 1 / change)) / (2 * step))
    # The slope in log g is (|mu|² / g - known) L / 2, of the order of 1 away from there.
    np.testing.assert_allclose(slopes, 0, atol=1e-3)


def test_a_step_of_expectation_maximisation_is_its_formula():
    design, y, _ = problem(13, 7, kind="complex128")
    first, second = (sbl.sbl(design, y, update="em", max_steps=steps) for steps in (1, 2))
    power = np.mean(np.abs(first.mean) ** 2, axis=1)
    np.testing.assert_allclose(second.prior_var, power + first.variance, rtol=1e-10)
    error = np.sum(np.abs(y - design @ first.mean) ** 2) / y.shape[1]
    noise = (error + first.noise_var * first.effective_dof) / len(y)
    np.testing.assert_allclose(second.noise_var, noise, rtol=1e-10)


def test_fast_marginal_gains_are_differences_of_the_evidence():
    # From the second step on the trace is one change of one column each, with the noise given.
    design, y, _ = problem(17, 23, kind="complex128")
    posterior = sbl.sbl(design, y, update="fast", noise_var=0.02, rtol=1e-9, max_steps=STEPS)
    prior_var, known = np.asarray(posterior.prior_var), float(posterior.noise_var)
    best = dense_evidence(design, y, prior_var, known)
    for j in range(23):  # no single prior variance raises the evidence any more
        for factor in (0.0, 0.9, 1.1):
            changed = prior_var.copy()
            changed[j] = factor * prior_var[j] if prior_var[j] else factor * 1e-3
            assert dense_evidence(design, y, changed, known) <= best + 1e-9


def test_columns_are_left_out_between_programs(monkeypatch):
    from bayesjx.sbl import _sbl

    design, y, _ = problem(13, 41, num=1)
    design[:, 7] = 0  # a column of zeros is never in use
    whole = sbl.sbl(design, y[:, 0])
    monkeypatch.setattr(_sbl, "COMPACT", 10)
    halves = sbl.sbl(design, y[:, 0])
    assert halves.columns.size < 41 and whole.columns.size == 41 and not whole.active[7]
    for name in ("mean", "variance", "prior_var", "evidence_trace", "noise_var"):
        a, b = getattr(halves, name), getattr(whole, name)
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8, err_msg=name)
    np.testing.assert_allclose(halves.covariance(), whole.covariance(), atol=1e-8)
    new, key = problem(5, 41)[0], jax.random.key(0)
    np.testing.assert_allclose(halves.predict(new).scale, whole.predict(new).scale, rtol=1e-6)
    draws = halves.sample(key, (3,))
    assert draws.shape == (3, 41) and np.all(draws[:, ~halves.active] == 0)


def test_the_derivative_of_the_evidence_holds_the_variances():
    design, y, _ = problem(13, 7, noise=0.3, num=1)
    options = {"rtol": 1e-8, "max_steps": 2000}
    f = jax.jit(lambda y: sbl.sbl(design, y, **options).log_evidence())
    slope = jax.grad(f)(jnp.asarray(y[:, 0]))
    change, step = np.cos(np.arange(13.0)), 1e-4
    want = (f(y[:, 0] + step * change) - f(y[:, 0] - step * change)) / (2 * step)
    np.testing.assert_allclose(slope @ change, want, rtol=1e-4)


def test_a_hyper_prior_keeps_and_shrinks():
    design, y, _ = problem(31, 53)
    with_rate = sbl.sbl(design, y, hyper_prior=(1e-6, 1e-2), noise_var=0.1)
    assert with_rate.active.all() and np.all(np.diff(with_rate.evidence_trace[:6]) > 0)
    with_shape = sbl.sbl(design, y, hyper_prior=(2.0, 0.0), noise_var=0.1)
    plain = sbl.sbl(design, y, noise_var=0.1)
    assert with_shape.active.sum() <= plain.active.sum()
    assert with_shape.prior_var.max() < plain.prior_var.max()


def test_how_it_ended_is_told():
    design, y, _ = problem(13, 7)
    short = sbl.sbl(design, y, max_steps=2)
    assert short.result == bayesjx.RESULTS.max_steps_reached and not short.converged
    full = sbl.sbl(design, y, update="fast", max_active=1)
    assert full.result == bayesjx.RESULTS.stagnation and full.active.sum() == 1
    noise = sbl.sbl(design, y, update="fast", noise_var=1e30)  # beside which data are nothing
    assert noise.converged and np.all(np.abs(noise.mean) < 1e-20)
    # Without noise in single precision: the floor of the noise variance is above its rounding.
    design, y, weights = problem(13, 29, k=2, kind="float32", noise=0)
    exact = sbl.sbl(design, y)
    assert np.isfinite(exact.mean).all() and exact.noise_var > 0
    np.testing.assert_allclose(exact.mean, weights, atol=0.05)


SINGLE = {"design": np.eye(3, 5, dtype="f"), "y": np.arange(3, dtype="f")}


@pytest.mark.errors
@pytest.mark.parametrize(
    "changed,message",
    [
        ({"y": np.ones(5)}, "transposed"),
        ({"y": np.full(3, np.nan)}, "y holds NaN"),
        ({"y": np.zeros(3)}, "y is 0 everywhere"),
        ({"y": np.ones(3, np.float32)}, "design is float64 and y float32"),
        ({"update": "mackay"}, 'update must be one of "fixed-point"'),
        ({"noise_var": 0.0}, "noise_var must be finite and positive, got 0.0"),
        (SINGLE | {"noise_var": 1e-50}, "noise_var .* got 1e-50, which is none in float32"),
        (SINGLE | {"design": np.eye(3, 5, dtype="f") * 1e25}, "none in float32: rescale columns"),
        ({"prune": 0.7}, r"prune must be a number in \[0, 0.5\)"),
        ({"max_steps": 0}, "max_steps must be at least 1"),
        ({"hyper_prior": 1e-6}, "hyper_prior must be a pair"),
        ({"max_active": 4}, "max_active must be in 1, ..., 3"),
    ],
)
def test_bad_input_is_named(changed, message):
    arguments = {"design": np.eye(3, 5), "y": np.arange(3.0)} | changed
    with pytest.raises(ValueError, match=message):
        sbl.sbl(arguments.pop("design"), arguments.pop("y"), **arguments)


@pytest.mark.errors
def test_not_converged_can_be_an_error():
    with pytest.raises(RuntimeError, match="sbl: not converged in as many steps"):
        sbl.sbl(np.eye(3, 5), np.arange(3.0), max_steps=1, throw=True)


def test_single_precision_converges_where_the_evidence_does_not_rise():
    # The noise variance shrinks until rounding decides whether the evidence rises.
    rng = np.random.default_rng(3)
    design, weights = rng.normal(size=(101, 257)), np.zeros(257)
    weights[rng.choice(257, 19, False)] = rng.normal(size=19)
    y = design @ weights + 0.45 * rng.normal(size=101)
    posterior = sbl.sbl(design.astype("float32"), y.astype("float32"))
    assert posterior.converged and posterior.num_steps < 100
    trace = np.asarray(posterior.evidence_trace)
    assert trace[int(posterior.num_steps) - 1] > np.nanmax(trace) - 1
