"""Proximal maps against a search over a grid; monotone FISTA against conditions of optimality."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesjx import ops, RESULTS, sbl

N, M = 11, 7
RNG = np.random.default_rng(0)
DESIGN = RNG.normal(size=(N, M))
Y = DESIGN @ np.array([2.0, 0, 0, -1.5, 0, 0, 0.3]) + 0.1 * RNG.normal(size=N)
NORMS = np.linspace(0.3, 1.6, 41)
POINTS = np.linspace(-3, 3, 41) + 0.01  # no tie between zero and another value among them
PENALTIES = {
    "l1": (lambda t: sbl.L1(t(0.7)), lambda x, a: 0.7 * np.abs(x)),
    "l0": (lambda t: sbl.L0(t(0.7)), lambda x, a: 0.7 * (x != 0)),
    "l1/2": (lambda t: sbl.Lq(t(0.7), 0.5), lambda x, a: 0.7 * np.abs(x) ** 0.5),
    "l0.2": (lambda t: sbl.Lq(t(0.7), 0.2), lambda x, a: 0.7 * np.abs(x) ** 0.2),
    "l0.9": (lambda t: sbl.Lq(t(0.7), 0.9), lambda x, a: 0.7 * np.abs(x) ** 0.9),
    "cel0": (
        lambda t: sbl.CEL0(t(0.7), t(NORMS)),
        lambda x, a: 0.7 - 0.5 * np.maximum(np.sqrt(1.4) - a * np.abs(x), 0) ** 2,
    ),
}


@pytest.mark.parametrize("name", PENALTIES)
def test_proximal_maps_are_the_best_of_a_grid(name, dtype, tol):
    make, value = PENALTIES[name]

    @jax.jit
    def answers(z):
        penalty = make(lambda x: jnp.asarray(x, dtype))
        slope = jax.grad(lambda z: jnp.sum(penalty.prox(z, 0.8)))(z)
        phase = jnp.exp(0.5j).astype(jnp.result_type(dtype, jnp.complex64))
        turned = penalty.prox(z * phase, 0.8) / phase
        return penalty.prox(z, 0.8), penalty.each(z), penalty(z), slope, turned

    found, each, total, slope, turned = answers(jnp.asarray(POINTS, dtype))
    grid = np.linspace(-3.2, 3.2, 64001)  # 0 is one of them
    for z, x, norm, d in zip(POINTS, np.asarray(found, float), NORMS, slope, strict=True):
        objective = 0.5 * (grid - z) ** 2 + 0.8 * value(grid, norm)
        best = np.argmin(objective)
        at = 0.5 * (x - z) ** 2 + 0.8 * value(x, norm)
        assert at <= objective[best] + 10 * tol["atol"]
        assert abs(x - grid[best]) < 1e-3 and (x == 0) == (grid[best] == 0)
        if x != 0 and name in ("l1/2", "l0.2", "l0.9"):  # by the implicit function theorem
            q = {"l1/2": 0.5, "l0.2": 0.2, "l0.9": 0.9}[name]
            want = 1 / (1 + 0.56 * q * (q - 1) * abs(x) ** (q - 2))
            np.testing.assert_allclose(d, want, rtol=100 * tol["rtol"])
    np.testing.assert_allclose(each, value(POINTS, NORMS), **tol)
    np.testing.assert_allclose(total, value(POINTS, NORMS).sum(), **tol)
    np.testing.assert_allclose(turned, found, atol=100 * tol["atol"])
    assert found.dtype == each.dtype == dtype and np.all(np.isfinite(slope))


def test_strengths_of_any_size_and_zero():
    z = jnp.array([-2.0, 0.0, 1.0])
    makers = sbl.L1, sbl.L0, sbl.Lq, lambda s: sbl.CEL0(s, 1.0)

    @jax.jit
    def answers(z, small):
        strengths = (0.0, z), (1e6, z), (1e-20, small)
        return [[make(s).prox(at) for s, at in strengths] for make in makers]

    for none, all_zero, tiny in answers(z, z.astype(jnp.float32) * 1e-15):
        np.testing.assert_array_equal(none, z)
        np.testing.assert_array_equal(all_zero, 0)
        assert tiny.dtype == jnp.float32 and np.all(np.isfinite(tiny))
    each = sbl.L1([0.0, 1.0, 0.25]).prox(z)
    np.testing.assert_allclose(each, [-2, 0, 0.75])


def complex_problem(dtype):
    dtype = jnp.result_type(dtype, jnp.complex64)
    design = DESIGN + 1j * RNG.normal(size=(N, M))
    return jnp.asarray(design, dtype), jnp.asarray(Y + 1j * DESIGN[:, 1], dtype)


FACTORS = RNG.normal(size=(3, 2)), RNG.normal(size=(4, 3))
DESIGNS = {
    "dense": lambda t: (jnp.asarray(DESIGN, t), jnp.asarray(Y, t)),
    "wide": lambda t: (jnp.asarray(DESIGN[:4], t), jnp.asarray(Y[:4], t)),
    "complex": complex_problem,
    "operator": lambda t: (
        ops.Kron(*(jnp.asarray(f, t) for f in FACTORS)),
        jnp.asarray(np.linspace(-1, 3, 12), t),
    ),
}


@pytest.mark.parametrize("name", DESIGNS)
def test_the_lasso_meets_its_conditions_of_optimality(name, dtype):
    design, y = DESIGNS[name](dtype)
    strength = 1.3

    @jax.jit
    def answers(y):
        solve = lambda y: sbl.fista(design, y, sbl.L1(strength))  # noqa: E731
        return solve(y), jax.vmap(solve)(jnp.stack([y, 0 * y])).weights

    found, many = answers(y)
    matrix = np.asarray(design.as_matrix() if name == "operator" else design)
    eps = np.finfo(dtype).eps
    slope = matrix.conj().T @ (np.asarray(y) - matrix @ np.asarray(found.weights))
    # A step that moves by rtol is off by L rtol in the gradient.
    off = (
        float(found.norm_squared) * max(1e-8, 1e-5 * (eps > 1e-10)) * np.linalg.norm(found.weights)
    )
    active = np.asarray(found.active)
    assert found.converged and 0 < active.sum()
    assert np.all(np.abs(slope) <= strength + 10 * off)
    phases = np.asarray(found.weights)[active] / np.abs(found.weights)[active]
    np.testing.assert_allclose(slope[active], strength * phases, atol=10 * off)
    trace = np.asarray(found.objective_trace)[: found.num_steps]
    assert np.all(np.diff(trace) <= 100 * eps * trace[0]) and trace[-1] == found.objective
    assert np.all(np.isnan(found.objective_trace[found.num_steps :]))
    assert found.norm_squared >= np.linalg.norm(matrix, 2) ** 2 * 0.99
    np.testing.assert_allclose(many[0], found.weights, atol=10 * off)
    assert np.all(many[1] == 0)
    assert found.weights.dtype == matrix.dtype and found.objective.dtype == dtype


def test_orthonormal_columns_are_separate_problems():
    """Then the minimum is known, a proximal map of each product; of CEL0 that of the penalty l0."""
    design, _ = np.linalg.qr(DESIGN)
    inside = design.T @ Y

    @jax.jit
    def answers(y):
        penalties = sbl.L0(0.2), sbl.Lq(0.2, 0.5), sbl.Lq(0.2, 0.3), sbl.CEL0(0.2, jnp.ones(M))
        return [sbl.fista(design, y, p, init=design.T @ y) for p in penalties]

    wants = [np.where(np.abs(inside) > np.sqrt(0.4), inside, 0)]
    wants += [np.asarray(sbl.Lq(0.2, q).prox(jnp.asarray(inside))) for q in (0.5, 0.3)]
    for found, want in zip(answers(Y), [*wants, wants[0]], strict=True):
        # A step a little shorter than 1 keeps what is near its threshold: compare objectives.
        assert found.converged
        objective = 0.5 * np.sum((Y - design @ want) ** 2)
        np.testing.assert_allclose(found.weights, want, atol=1e-6)
        assert found.objective >= objective


def test_how_it_ended_is_told():
    short = sbl.fista(DESIGN, Y, sbl.L1(0.1), max_steps=3)
    assert short.result == RESULTS.max_steps_reached and short.num_steps == 3
    with pytest.raises(RuntimeError, match="fista: not converged"):
        sbl.fista(DESIGN, Y, sbl.L1(0.1), max_steps=3, throw=True)
    again = sbl.fista(DESIGN, Y, sbl.L1(0.1), init=sbl.fista(DESIGN, Y, sbl.L1(0.1)).weights)
    assert again.converged and again.num_steps <= 2
    silent = sbl.fista(0 * DESIGN, Y, sbl.L1(0.1))
    assert silent.converged and np.all(silent.weights == 0)
    exact = sbl.fista(DESIGN, Y, sbl.L1(1e-9), rtol=0.0, max_steps=5000)
    assert exact.result in (RESULTS.stagnation, RESULTS.max_steps_reached, RESULTS.successful)
    np.testing.assert_allclose(exact.weights, np.linalg.lstsq(DESIGN, Y)[0], rtol=1e-6)


@pytest.mark.errors
def test_bad_input_is_named():
    with pytest.raises(ValueError, match="strength must be 0 or more"):
        sbl.L1(-0.1)
    with pytest.raises(ValueError, match="q must be a number between 0 and 1"):
        sbl.Lq(0.1, 1.0)
    with pytest.raises(ValueError, match="column_norms must be 0 or more"):
        sbl.CEL0(0.1, -np.ones(M))
    with pytest.raises(ValueError, match="transposed"):
        sbl.fista(DESIGN.T, Y, sbl.L1(0.1))
    with pytest.raises(ValueError, match="y holds NaN"):
        sbl.fista(DESIGN, np.where(Y > 0, Y, np.nan), sbl.L1(0.1))
    with pytest.raises(ValueError, match=r"arrays of penalty must be scalars or have shape \(7,\)"):
        sbl.fista(DESIGN, Y, sbl.L1(np.ones(M - 1)))
    with pytest.raises(ValueError, match="init must be float64 of shape"):
        sbl.fista(DESIGN, Y, sbl.L1(0.1), init=np.zeros(M - 1))
    with pytest.raises(ValueError, match="rtol must be a number"):
        sbl.fista(DESIGN, Y, sbl.L1(0.1), rtol=-1.0)
