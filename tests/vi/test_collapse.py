"""The collapse theory of linear VAEs against numerical minima of their losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from bayesjx import vi

N, D, P, K = 211, 5, 4, 3


def problem(dtype=jnp.float64):
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.standard_normal((D, D)))[0]
    x = rng.standard_normal((N, D)) @ np.diag([2.0, 1.5, 1.0, 0.7, 0.4]) @ axes
    noise = rng.standard_normal((N, P)) @ np.diag([1.5, 1.0, 0.6, 0.3])
    y = x[:, :2] @ rng.standard_normal((2, P)) + noise
    return jnp.asarray(x + 3, dtype), jnp.asarray(y - 1, dtype)


X, Y = problem()


def covariance(*arrays):
    joint = jnp.concatenate(arrays, axis=1)
    return jnp.cov(joint.T, bias=True)


def root(matrix):
    values, vectors = np.linalg.eigh(matrix)
    return vectors * np.sqrt(values)


def spectrum(matrix):
    return np.linalg.svd(matrix, compute_uv=False)


def quadratic(matrix, cov):
    return jnp.trace(matrix @ cov @ matrix.T)


def divergence(weight, cov, var, eta_enc):
    return (quadratic(weight, cov) + jnp.sum(var)) / eta_enc**2 - jnp.sum(jnp.log(var))


# Population losses: twice the negative ELBO in expectation, up to constants. `log_scale` comes
# last, so that it may be a parameter or given.


def vae_loss(weights, log_scale, beta, eta_dec, eta_enc):
    dec, enc = weights
    var = jnp.exp(2 * log_scale)
    cov = covariance(X)
    error = quadratic(jnp.eye(D) - dec @ enc, cov) + jnp.sum(dec**2 * var)
    return error / eta_dec**2 + beta * divergence(enc, cov, var, eta_enc)


def cvae_loss(weights, log_scale, beta, eta_dec, eta_enc):
    dec, dec_x, enc_x, enc = weights
    var = jnp.exp(2 * log_scale)
    cov = covariance(X, Y)
    off = jnp.concatenate([-dec_x - dec @ enc_x, jnp.eye(P) - dec @ enc], axis=1)
    error = quadratic(off, cov) + jnp.sum(dec**2 * var)
    mean = jnp.concatenate([enc_x, enc], axis=1)
    return error / eta_dec**2 + beta * divergence(mean, cov, var, eta_enc)


def hvae_loss(weights, log_scale, sigma1, beta1, beta2, eta_dec, eta_enc):
    enc, dec, enc2, dec2 = weights
    var = jnp.exp(2 * log_scale)
    cov = covariance(X)
    cov1 = enc @ cov @ enc.T + sigma1**2 * jnp.eye(K)
    error = quadratic(jnp.eye(D) - dec @ enc, cov) + sigma1**2 * jnp.sum(dec**2)
    error += beta1 * (quadratic(jnp.eye(K) - dec2 @ enc2, cov1) + jnp.sum(dec2**2 * var))
    return error / eta_dec**2 + beta2 * divergence(enc2, cov1, var, eta_enc)


SHAPES = {
    vae_loss: [(D, K), (K, D)],
    cvae_loss: [(P, K), (P, D), (K, D), (K, P)],
    hvae_loss: [(K, D), (D, K), (K, K), (K, K)],
}


def unpack(vector, shapes):
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
    parts = jnp.split(vector, ends[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def learned(loss):
    """Value and gradient in one vector of weights and log scales."""

    def of_vector(vector, *setting):
        *weights, log_scale = unpack(vector, [*SHAPES[loss], (K,)])
        return loss(weights, log_scale, *setting)

    return jax.jit(jax.value_and_grad(of_vector)), [*SHAPES[loss], (K,)]


def given(loss):
    """The same with the log scales as the first entry of the setting."""

    def of_vector(vector, log_scale, *setting):
        return loss(unpack(vector, SHAPES[loss]), log_scale, *setting)

    return jax.jit(jax.value_and_grad(of_vector)), SHAPES[loss]


VAE, VAE_GIVEN, CVAE = learned(vae_loss), given(vae_loss), learned(cvae_loss)
HVAE, HVAE_GIVEN = learned(hvae_loss), given(hvae_loss)


def minimum(problem, *setting, starts=4):
    """The best of a few local minima."""
    function, shapes = problem
    size = sum(int(np.prod(shape)) for shape in shapes)
    found = []
    for seed in range(starts):
        begin = 0.3 * np.random.default_rng(seed).standard_normal(size)
        options = {"gtol": 1e-9, "maxiter": 3000}
        found.append(minimize(function, begin, setting, "BFGS", jac=True, options=options))
    best = min(found, key=lambda result: result.fun)
    return [np.asarray(part) for part in unpack(best.x, shapes)]


CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.mark.parametrize("setting", [(0.5, 0.8, 1.3), (1.5, 1.0, 0.7)])
def test_vae_is_the_minimum(setting):
    dec, enc, log_scale = minimum(VAE, *setting)
    theory = vi.linear_vae_collapse(X, *setting, latent_dim=K)
    np.testing.assert_allclose(spectrum(dec), theory.decoder, **CLOSE)
    np.testing.assert_allclose(spectrum(enc @ root(covariance(X))), theory.encoder, **CLOSE)
    np.testing.assert_allclose(np.sort(np.exp(log_scale)), theory.posterior_scale, **CLOSE)
    np.testing.assert_array_equal(spectrum(dec) < 1e-4, theory.collapsed)


@pytest.mark.parametrize("setting", [(0.5, 0.8, 1.3), (1.5, 1.4, 0.7)])
def test_vae_with_given_scales_is_the_minimum(setting):
    scale = jnp.array([0.5, 0.9, 0.7])
    dec, enc = minimum(VAE_GIVEN, jnp.log(scale), *setting)
    theory = vi.linear_vae_collapse(X, *setting, latent_dim=K, encoder_scale=scale)
    np.testing.assert_allclose(spectrum(dec), np.sort(theory.decoder)[::-1], **CLOSE)
    np.testing.assert_allclose(
        spectrum(enc @ root(covariance(X))), np.sort(theory.encoder)[::-1], **CLOSE
    )
    assert np.sum(spectrum(dec) < 1e-4) == np.sum(theory.collapsed)


@pytest.mark.parametrize("setting", [(0.5, 0.8, 1.3), (1.2, 1.0, 0.7)])
def test_cvae_is_the_minimum(setting):
    dec, _, _, enc, log_scale = minimum(CVAE, *setting)
    theory = vi.linear_cvae_collapse(X, Y, *setting, latent_dim=K)
    joint = covariance(X, Y)
    cross = joint[:D, D:]
    residual = joint[D:, D:] - cross.T @ jnp.linalg.solve(joint[:D, :D], cross)
    np.testing.assert_allclose(theory.theta, spectrum(residual)[:K], **CLOSE)
    np.testing.assert_allclose(spectrum(dec), theory.decoder, **CLOSE)
    np.testing.assert_allclose(spectrum(enc @ root(residual)), theory.encoder, **CLOSE)
    np.testing.assert_allclose(np.sort(np.exp(log_scale)), theory.posterior_scale, **CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "used"),
    [
        ((1.2, 1.0, 0.5, 0.8, 1.1), 3),
        ((1.5, 1.0, 1.2, 0.8, 1.0), 3),
        ((0.5, 1.0, 1.0, 0.9, 1.2), 1),
        ((0.3, 2.0, 2.0, 0.6, 1.0), 1),
        ((0.5, 0.5, 1.5, 1.0, 0.8), 0),
    ],
)
def test_hvae_is_the_minimum(setting, used):
    enc, dec, _, dec2, _ = minimum(HVAE, *setting)
    check_hvae(vi.linear_hvae_collapse(X, *setting, latent_dim=K), enc, dec, dec2, used)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "sigma2", "used"),
    [
        ((1.2, 1.0, 0.5, 0.8, 1.1), 0.7, 3),
        ((1.5, 1.0, 1.2, 0.8, 1.0), 0.5, 3),
        ((0.5, 2.0, 1.5, 1.0, 0.8), 0.6, 2),  # a condition of the authors' code says none
        ((0.3, 0.5, 2.0, 1.0, 0.9), 0.9, 0),
    ],
)
def test_hvae_with_given_scales_is_the_minimum(setting, sigma2, used):
    enc, dec, _, dec2 = minimum(HVAE_GIVEN, jnp.full(K, jnp.log(sigma2)), *setting)
    theory = vi.linear_hvae_collapse(X, *setting, sigma2=sigma2, latent_dim=K)
    check_hvae(theory, enc, dec, dec2, used)


def check_hvae(theory, enc, dec, dec2, used):
    np.testing.assert_allclose(spectrum(enc @ root(covariance(X))), theory.encoder, **CLOSE)
    np.testing.assert_allclose(spectrum(dec2), theory.upper_decoder, **CLOSE)
    np.testing.assert_allclose(spectrum(dec), np.sort(theory.decoder)[::-1], **CLOSE)
    assert K - np.sum(theory.collapsed) == used == np.sum(spectrum(dec2) > 1e-4)


FUNCTIONS = {
    "vae": lambda data, **kw: vi.linear_vae_collapse(data[0], **kw),
    "vae with target": lambda data, **kw: vi.linear_vae_collapse(
        data[0], target=data[1], latent_dim=K, **kw
    ),
    "vae with scale": lambda data, **kw: vi.linear_vae_collapse(data[0], encoder_scale=0.8, **kw),
    "cvae": lambda data, **kw: vi.linear_cvae_collapse(*data, **kw),
    "hvae": lambda data, beta=1.0, **kw: vi.linear_hvae_collapse(data[0], 0.6, 1.2, beta, **kw),
    "hvae with scale": lambda data, beta=1.0, **kw: vi.linear_hvae_collapse(
        data[0], 0.6, 1.2, beta, sigma2=0.9, **kw
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_dtype_jit_and_vmap(name, dtype):
    function = FUNCTIONS[name]
    data = problem(dtype)
    betas = jnp.array([0.3, 1.0, 4.0], dtype)
    many = jax.jit(jax.vmap(lambda beta: function(data, beta=beta)))(betas)
    for i, beta in enumerate(betas):
        one = function(problem(), beta=float(beta))
        for field, got, want in zip(one._fields, many, one, strict=True):
            assert got.dtype == (bool if want.dtype == bool else dtype), field
            np.testing.assert_allclose(got[i], want, rtol=3e-4, atol=3e-4)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_critical_beta_is_where_the_rank_falls(name):
    function = FUNCTIONS[name]
    critical = function(problem())[-1]
    for rank in range(1, len(critical) + 1):
        for factor, held in ((0.999, True), (1.001, False)):
            result = function(problem(), beta=factor * critical[rank - 1])
            assert (np.sum(~np.asarray(result.collapsed)) >= rank) == held


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_are_finite_at_collapsed_dimensions(name):
    def total(beta):
        result = FUNCTIONS[name](problem(), beta=beta)
        return sum(jnp.sum(x) for x in result if x.dtype != bool)

    gradient = jax.grad(total)(2.0)
    step = (total(2.0 + 1e-5) - total(2.0 - 1e-5)) / 2e-5
    np.testing.assert_allclose(gradient, step, rtol=1e-5)


def test_target_like_the_input_changes_nothing():
    plain, same = (vi.linear_vae_collapse(X, 0.5, target=t) for t in (None, X))
    for left, right in zip(plain, same, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-12)


def test_copies_of_a_condition_change_nothing(dtype, tol):
    x, y = problem(dtype)
    plain = vi.linear_cvae_collapse(x, y, 0.5)
    twice = vi.linear_cvae_collapse(jnp.concatenate([x, x, 0 * x], axis=1), y, 0.5)
    for left, right in zip(plain, twice, strict=True):
        np.testing.assert_allclose(left, right, rtol=10 * tol["rtol"], atol=100 * tol["atol"])


def test_a_perfect_prediction_collapses_everything():
    result = vi.linear_cvae_collapse(X, X @ jnp.ones((D, 2)), 1e-6)
    assert result.collapsed.all()
    np.testing.assert_allclose(result.posterior_scale, 1.0)


def test_centring_is_for_maps_with_biases():
    centred = X - X.mean(axis=0)
    for left, right in zip(
        vi.linear_vae_collapse(X), vi.linear_vae_collapse(centred, centre=False), strict=True
    ):
        np.testing.assert_allclose(left, right, rtol=1e-9)
    assert vi.linear_vae_collapse(X, centre=False).theta[0] > 2 * centred.std()


def test_more_latents_than_data_dimensions_collapse():
    result = vi.linear_vae_collapse(X, 1e-3, latent_dim=D + 2)
    np.testing.assert_array_equal(result.collapsed, [False] * D + [True] * 2)
    np.testing.assert_array_equal(result.critical_beta[D:], 0)


def test_integers_are_data_too():
    counts = jnp.round(X).astype(int)
    want = vi.linear_vae_collapse(counts.astype(float))
    np.testing.assert_allclose(vi.linear_vae_collapse(counts).theta, want.theta)


@pytest.mark.errors
def test_bad_input_is_named():
    with pytest.raises(ValueError, match="at least one row"):
        vi.linear_vae_collapse(jnp.zeros((0, 3)))
    with pytest.raises(ValueError, match=r"\(n, d\)"):
        vi.linear_hvae_collapse(jnp.zeros(3), 0.5)
    with pytest.raises(ValueError, match="centre=False"):
        vi.linear_vae_collapse(jnp.ones((1, 3)))
    with pytest.raises(ValueError, match="pairs"):
        vi.linear_cvae_collapse(X, Y[1:])
    with pytest.raises(ValueError, match="use jax.vmap"):
        vi.linear_vae_collapse(X, jnp.ones(3))
    with pytest.raises(ValueError, match="encoder_scale must be a scalar or of shape"):
        vi.linear_vae_collapse(X, encoder_scale=jnp.ones(2))
    with pytest.raises(ValueError, match="latent_dim"):
        vi.linear_vae_collapse(X, latent_dim=0)


@pytest.mark.errors
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: vi.linear_vae_collapse(X.at[3, 1].set(jnp.nan)), "x has NaN"),
        (lambda: vi.linear_cvae_collapse(X, Y.at[0, 0].set(jnp.inf)), "y has NaN or infinite"),
        (lambda: vi.linear_vae_collapse(X, beta=0.0), "beta must be positive"),
        (lambda: vi.linear_vae_collapse(X, eta_dec=-1.0), "eta_dec must be positive"),
        (lambda: vi.linear_cvae_collapse(X, Y, eta_enc=jnp.nan), "eta_enc must be positive"),
        (lambda: vi.linear_hvae_collapse(X, 0.0), "sigma1 must be positive"),
        (lambda: vi.linear_hvae_collapse(X, 1.0, sigma2=-1.0), "sigma2 must be positive"),
        (lambda: vi.linear_vae_collapse(X, encoder_scale=jnp.arange(5.0)), "encoder_scale must"),
    ],
)
def test_bad_values_are_named(call, message):
    with pytest.raises(RuntimeError, match=message):
        call()
