"""Gaussian weights against dense algebra in NumPy: both systems, real and complex."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesjx import ops, sbl

L = 3
FORMS = {"data space": (5, 7), "weight space": (7, 5)}


def problem(n, m, kind):
    """Design, measurements, new rows, noise variance and prior variances, of which one is 0."""
    rng = np.random.default_rng(n)

    def numbers(*shape):
        x = rng.normal(size=shape)
        x = x + 1j * rng.normal(size=shape) if kind.startswith("c") else x
        return x.astype(kind)

    prior_var = rng.uniform(0.5, 2, m)
    prior_var[2] = 0
    return numbers(n, m), numbers(n, L), numbers(2, m), 0.3, prior_var


def dense(design, y, new, noise_var, prior_var):
    """The answers by the covariance of the measurements, its inverse and determinant."""
    n, per = len(y), 2 if np.iscomplexobj(y) else 1
    cov = noise_var * np.eye(n) + (design * prior_var) @ design.conj().T
    inverse = np.linalg.inv(cov)
    quad = np.real(np.sum(y.conj() * (inverse @ y)))
    logdet = np.linalg.slogdet(cov)[1]
    evidence = -per / 2 * (L * (n * np.log(2 * np.pi / per) + logdet) + quad)
    gain = prior_var[:, None] * design.conj().T @ inverse
    covariance = np.diag(prior_var) - gain @ (design * prior_var)
    score, sensitivity = design.conj().T @ inverse @ y, design.conj().T @ inverse @ design
    slopes = np.sum(abs(score) ** 2, 1) - L * np.real(np.diag(sensitivity))
    leverage = np.real(np.diag(design @ covariance @ design.conj().T)) / noise_var
    free = np.real(np.diag(inverse))
    spread = np.real(np.diag(new @ covariance @ new.conj().T))
    return {
        "mean": gain @ y,
        "variance": np.real(np.diag(covariance)),
        "covariance": covariance,
        "evidence": evidence,
        "dof": leverage.sum(),
        "residual": y - design @ gain @ y,
        "loo mean": y - inverse @ y / free[:, None],
        "loo variance": np.broadcast_to(1 / free[:, None], y.shape),
        "predicted": new @ gain @ y,
        "spread": np.tile(noise_var + spread[:, None], L),
        "slopes": per / 2 * slopes,
    }


@jax.jit
def answers(design, y, new, noise_var, prior_var):
    def evidence(prior_var):
        posterior = sbl.condition(design, y, noise_var=noise_var, prior_var=prior_var)
        return posterior.log_evidence(), posterior

    (value, posterior), slopes = jax.value_and_grad(evidence, has_aux=True)(prior_var)
    one, new = posterior.leave_one_out(), posterior.predict(new)

    def mean(column):
        return sbl.condition(design, column, noise_var=noise_var, prior_var=prior_var).mean

    found = {
        "mean": posterior.mean,
        "variance": posterior.variance,
        "covariance": posterior.covariance(),
        "evidence": value,
        "dof": posterior.effective_dof,
        "residual": posterior.residual,
        "loo mean": one.mean,
        "loo variance": one.variance,
        "predicted": new.mean,
        "spread": new.variance,
        "slopes": slopes,
    }
    return found, jax.vmap(mean, 1, 1)(y)


@pytest.mark.parametrize("kind", ["float64", "complex128", "float32", "complex64"])
@pytest.mark.parametrize("form", FORMS)
def test_answers_are_those_of_dense_algebra(form, kind):
    arguments = problem(*FORMS[form], kind)
    want = dense(*arguments)
    real = np.finfo(kind).dtype
    found, mapped = answers(*arguments[:3], *(jnp.asarray(a, real) for a in arguments[3:]))
    # The condition number of the covariance is below 100.
    tol = 1e4 * np.finfo(kind).eps
    for name, value in want.items():
        scale = np.abs(value).max()
        np.testing.assert_allclose(found[name], value, rtol=tol, atol=tol * scale, err_msg=name)
        assert np.finfo(found[name].dtype).dtype == real, name
    np.testing.assert_allclose(mapped, found["mean"], rtol=tol, atol=tol)


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ["float64", "complex128"])
@pytest.mark.parametrize("form", FORMS)
def test_second_derivatives_of_the_evidence(form, kind):
    design, y, _, noise_var, prior_var = problem(*FORMS[form], kind)
    per = 2 if kind == "complex128" else 1

    def ours(noise_var, prior_var):
        return sbl.condition(design, y, noise_var=noise_var, prior_var=prior_var).log_evidence()

    def plain(noise_var, prior_var):
        cov = noise_var * jnp.eye(len(y)) + (design * prior_var) @ design.conj().T
        quad = jnp.real(jnp.sum(y.conj() * jnp.linalg.solve(cov, y)))
        return -per / 2 * (L * jnp.linalg.slogdet(cov)[1] + quad)

    at = (jnp.asarray(noise_var), jnp.asarray(prior_var))
    found, want = (jax.jit(jax.hessian(f, (0, 1)))(*at) for f in (ours, plain))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("form", FORMS)
def test_draws_have_the_posterior_moments(form):
    design, y, _, noise_var, prior_var = problem(*FORMS[form], "complex128")
    posterior = sbl.condition(design, y, noise_var=noise_var, prior_var=prior_var)
    num = 4000
    draws = jax.jit(lambda key: posterior.sample(key, (num,)))(jax.random.key(0))
    assert draws.shape == (num, design.shape[1], L)
    shift = draws - posterior.mean
    want = dense(design, y, design[:2], noise_var, prior_var)["covariance"]
    variance = np.real(np.diag(want))
    # Entries of the sample covariance of num L draws, and their means.
    error = np.sqrt(variance[:, None] * variance / (num * L))
    found = np.einsum("sml,skl->mk", shift, shift.conj()) / (num * L)
    assert np.all(np.abs(found - want) <= 5 * error + 1e-12)
    assert np.all(np.abs(shift.mean((0, 2))) <= 5 * np.sqrt(variance / (num * L)) + 1e-12)
    assert np.all(draws[:, 2] == 0)  # a prior variance of 0


def test_an_operator_is_its_matrix():
    rng = np.random.default_rng(0)
    factors = [rng.normal(size=(2, 3)), rng.normal(size=(2, 2))]
    kron, y = ops.Kron(*(ops.Dense(f) for f in factors)), rng.normal(size=4)
    options = {"noise_var": 0.1, "prior_precision": np.array([1, 2, np.inf, 3, 4, 5])}
    found = sbl.condition(kron, y, **options)
    want = sbl.condition(np.kron(*factors), y, **options)
    for name in ("mean", "variance", "logdet", "quadratic", "effective_dof"):
        np.testing.assert_allclose(getattr(found, name), getattr(want, name), rtol=1e-9, atol=1e-12)
    rows = rng.normal(size=(2, 6))
    for new in (rows, ops.Dense(rows)):
        np.testing.assert_allclose(found.predict(new).scale, want.predict(rows).scale, rtol=1e-9)
    assert found.mean[2] == 0


@pytest.mark.parametrize("form", FORMS)
def test_covariances_of_combinations_and_the_posterior_from_products(form):
    n, m = FORMS[form]
    for kind, rtol in (("float64", 1e-10), ("float32", 1e-3)):
        design, y, _, noise_var, prior_var = problem(n, m, kind)
        y, rows = y[:, 0], np.random.default_rng(1).normal(size=(3, 2, m)).astype(kind)

        @jax.jit
        def run(design, y, rows, prior_var, noise_var=noise_var):
            def evidence(prior_var):
                return products(prior_var).log_evidence(y @ y, len(y))

            def products(prior_var):
                return sbl.condition_products(
                    design.T @ design, design.T @ y, noise_var=noise_var, prior_var=prior_var
                )

            whole = sbl.condition(design, y, noise_var=noise_var, prior_var=prior_var)
            found = products(prior_var)
            draws = found.sample(jax.random.key(0), (2000,))
            return (
                (whole.covariance_of(rows), found.covariance_of(rows), found.covariance()),
                (whole.mean, found.mean, whole.log_evidence(), jax.grad(evidence)(prior_var)),
                (draws, jax.vmap(evidence)(jnp.stack([prior_var, 2 * prior_var]))),
            )

        data = tuple(jnp.asarray(a, kind) for a in (design, y, rows, prior_var))
        covariances, means, (draws, many) = run(*data)
        want = dense(design, y[:, None], design[:2], noise_var, prior_var)
        sigma = want["covariance"]
        for found, wanted in zip(
            covariances[:2], (rows @ sigma @ rows.swapaxes(1, 2),) * 2, strict=True
        ):
            np.testing.assert_allclose(found, wanted, rtol=rtol, atol=10 * rtol)
        np.testing.assert_allclose(covariances[2], sigma, atol=rtol)
        for mean in means[:2]:
            np.testing.assert_allclose(mean, want["mean"][:, 0], rtol=rtol, atol=10 * rtol)
        cov = noise_var * np.eye(n) + (design * prior_var) @ design.T
        quad = y @ np.linalg.solve(cov, y)
        wanted = -0.5 * (quad + np.linalg.slogdet(2 * np.pi * cov)[1])
        np.testing.assert_allclose(means[2], wanted, rtol=10 * rtol)
        np.testing.assert_allclose(many[0], wanted, rtol=10 * rtol)
        score, pull = design.T @ np.linalg.solve(cov, y), design.T @ np.linalg.solve(cov, design)
        slope = 0.5 * (score**2 - np.diag(pull))
        np.testing.assert_allclose(means[3], slope, rtol=10 * rtol, atol=100 * rtol)
        spread = np.asarray(draws, float).var(axis=0)
        assert np.all(
            np.abs(spread - np.diag(sigma)) <= 5 * np.diag(sigma) * (2 / 2000) ** 0.5 + rtol
        )


@pytest.mark.errors
def test_products_that_disagree_are_named():
    gram, rhs = np.eye(3), np.ones(3)
    options = {"noise_var": 1.0, "prior_var": 1.0}
    with pytest.raises(ValueError, match=r"gram must be \(m, m\) and rhs \(m,\)"):
        sbl.condition_products(gram[:2], rhs, **options)
    with pytest.raises(ValueError, match="one type, got float64 and float32"):
        sbl.condition_products(gram, rhs.astype(np.float32), **options)
    with pytest.raises(ValueError, match="gram holds NaN"):
        sbl.condition_products(np.nan * gram, rhs, **options)
    with pytest.raises(ValueError, match="noise_var must be finite and positive"):
        sbl.condition_products(gram, rhs, noise_var=0.0, prior_var=1.0)
    found = sbl.condition_products(gram, rhs, **options)
    with pytest.raises(ValueError, match=r"design must have shape \(\.\.\., k, 3\)"):
        found.covariance_of(np.ones((2, 4)))
