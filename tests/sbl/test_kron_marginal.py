"""`KroMarginal` against dense distributions: densities, all derivatives, batches, and NUTS."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions.batch_util import promote_batch_shape
from numpyro.infer import MCMC, NUTS

from bayesjx import sbl

SIZES = ((3, 5), (4, 2), (2, 3))  # the second has a singular covariance without noise
RNG = np.random.default_rng(0)


def arguments(is_complex, dtype=jnp.float64):
    rng = np.random.default_rng(1)
    kind = jnp.result_type(dtype, 1j) if is_complex else dtype
    draw = lambda shape: rng.normal(size=shape) + 1j * is_complex * rng.normal(size=shape)  # noqa: E731
    take = (lambda x: x) if is_complex else np.real
    factors = tuple(jnp.asarray(take(draw(size)), kind) for size in SIZES)
    variances = tuple(jnp.asarray(rng.uniform(0.2, 2, n), dtype) for _, n in SIZES)
    values = jnp.asarray(take(draw((3, 24))), kind)
    return (factors, variances, jnp.asarray(0.3, dtype)), values


def covariance(factors, variances, noise_var):
    parts = [(f * g) @ f.conj().T for f, g in zip(factors, variances, strict=True)]
    cov = functools.reduce(jnp.kron, parts)
    return cov + noise_var * jnp.eye(len(cov), dtype=cov.dtype)


def dense(args, values):
    cov = covariance(*args)
    half = 1.0 if jnp.iscomplexobj(cov) else 0.5
    quad = jnp.sum(values.conj() * jnp.linalg.solve(cov, values.T).T, axis=-1).real
    logdet = jnp.linalg.slogdet(cov)[1] + len(cov) * jnp.log(np.pi / half)
    return -half * (logdet + quad)


@pytest.mark.parametrize("is_complex", [False, True], ids=["real", "complex"])
def test_density_and_its_gradient_are_the_dense_ones(is_complex, dtype):
    args, values = arguments(is_complex, dtype)
    weights = jnp.asarray([1.0, -2.0, 0.5], dtype)

    def ours(args, values):
        return jnp.sum(weights * sbl.KroMarginal(*args).log_prob(values))

    def both(args, values):
        batch = jax.vmap(lambda v: sbl.KroMarginal(*args).log_prob(v))(values)
        once = sbl.KroMarginal(*args).log_prob(values)
        return once, batch, jax.grad(ours, (0, 1))(args, values)

    once, batch, gradient = jax.jit(both)(args, values)
    assert once.dtype == dtype and once.shape == (3,)
    wide, wide_values = arguments(is_complex)
    peer = lambda args, values: jnp.sum(weights * dense(args, values))  # noqa: E731
    wanted, slopes = jax.jit(lambda a, v: (dense(a, v), jax.grad(peer, (0, 1))(a, v)))(
        wide, wide_values
    )
    rtol = 1e-4 if dtype == jnp.float32 else 1e-9
    np.testing.assert_allclose(once, wanted, rtol=rtol)
    np.testing.assert_allclose(batch, wanted, rtol=rtol)
    for got, want in zip(jax.tree.leaves(gradient), jax.tree.leaves(slopes), strict=True):
        assert got.dtype == jnp.asarray(want).astype(got.dtype).dtype
        np.testing.assert_allclose(got, want, rtol=10 * rtol, atol=10 * rtol * np.abs(want).max())


def test_it_is_numpyros_multivariate_normal():
    args, values = arguments(False)
    distribution, peer = sbl.KroMarginal(*args), dist.MultivariateNormal(0.0, covariance(*args))

    @jax.jit
    def answers(distribution, peer, values):
        mine, theirs = (
            (d.log_prob(values), d.entropy(), d.variance, d.covariance_matrix, d.mean)
            for d in (distribution, peer)
        )
        return mine, theirs, distribution.sample(jax.random.key(0), (4000,))

    mine, theirs, draws = answers(distribution, peer, values)
    for got, want in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)
    var = np.asarray(distribution.variance)
    assert np.max(np.abs(draws.mean(axis=0)) / np.sqrt(var / 4000)) < 5
    assert np.max(np.abs(draws.var(axis=0) / var - 1)) < 5 * np.sqrt(2 / 4000)


def test_batches_of_parameters_are_one_after_another():
    args, values = arguments(True)
    scales = jnp.asarray([0.5, 2.0])

    def make(scale):
        factors, variances, noise_var = args
        return sbl.KroMarginal(factors, (scale * variances[0], *variances[1:]), noise_var / scale)

    @jax.jit
    def run(scales):
        distribution = promote_batch_shape(jax.vmap(make)(scales))
        return (
            distribution,
            distribution.log_prob(values[0]),
            distribution.sample(jax.random.key(0), (5,)),
        )

    distribution, found, draws = run(scales)
    assert (
        distribution.batch_shape == (2,)
        and draws.shape == (5, 2, 24)
        and draws.dtype == jnp.complex128
    )
    one = jax.jit(lambda scale: make(scale).log_prob(values[0]))
    np.testing.assert_allclose(found, [one(scale) for scale in scales], rtol=1e-12)


def test_a_variance_of_zero_has_a_derivative_and_a_negative_one_no_density():
    (factors, variances, noise_var), values = arguments(False)

    @jax.jit
    def slope(first):
        distribution = lambda g: sbl.KroMarginal(factors, (g, *variances[1:]), noise_var)  # noqa: E731
        return jax.value_and_grad(lambda g: distribution(g).log_prob(values[0]))(first)

    first = variances[0].at[1].set(0)
    value, gradient = slope(first)
    step = 1e-6
    ahead = slope(first.at[1].set(step))[0]
    np.testing.assert_allclose(gradient[1], (ahead - value) / step, rtol=1e-4)
    assert np.isnan(slope(first.at[1].set(-0.1))[0])


@pytest.mark.slow
def test_nuts_runs_over_variances_twice():
    """Where the posterior is known: one variance and the noise, by quadrature."""
    rng = np.random.default_rng(4)
    factors = tuple(rng.normal(size=size) for size in SIZES)
    y = np.asarray(sbl.KroMarginal(factors, tuple(np.ones(n) for _, n in SIZES), 0.5).sample(
        jax.random.key(0)
    ))  # fmt: skip

    def log_joint(log_scale, log_noise):
        distribution = marginal(log_scale, log_noise)
        priors = dist.Normal(0.0, 1.0).log_prob(log_scale) + dist.Normal(0.0, 1.0).log_prob(
            log_noise
        )
        return distribution.log_prob(y) + priors

    def marginal(log_scale, log_noise):
        scaled = (jnp.exp(log_scale) * np.ones(5), np.ones(2), np.ones(3))
        return sbl.KroMarginal(factors, scaled, jnp.exp(log_noise))

    def model():
        log_scale = numpyro.sample("log_scale", dist.Normal(0.0, 1.0))
        log_noise = numpyro.sample("log_noise", dist.Normal(0.0, 1.0))
        numpyro.sample("y", marginal(log_scale, log_noise), obs=y)

    @jax.jit
    def sample(key):
        mcmc = MCMC(NUTS(model), num_warmup=300, num_samples=700, progress_bar=False)
        mcmc.run(key)
        return mcmc.get_samples()

    axis = jnp.linspace(-4, 4, 81)
    grid = jax.jit(jax.vmap(jax.vmap(log_joint, (None, 0)), (0, None)))(axis, axis)
    mass = np.exp(grid - grid.max()) / np.sum(np.exp(grid - grid.max()))
    for key in jax.random.split(jax.random.key(1)):
        draws = sample(key)
        for name, along in (("log_scale", 1), ("log_noise", 0)):
            marginal_mass = mass.sum(axis=along)
            mean = np.sum(marginal_mass * axis)
            scale = np.sqrt(np.sum(marginal_mass * (axis - mean) ** 2))
            off = np.mean(draws[name]) - mean
            assert abs(off) < 5 * scale / np.sqrt(700 / 4)  # effective draws are a quarter, or more


@pytest.mark.errors
def test_bad_arguments_are_named():
    (factors, variances, noise_var), values = arguments(False)
    distribution = sbl.KroMarginal(factors, variances, noise_var)
    with pytest.raises(ValueError, match="prior_factors must have shapes"):
        sbl.KroMarginal(factors, variances[:2], noise_var)
    with pytest.raises(ValueError, match="noise_var must be a scalar"):
        sbl.KroMarginal(factors, variances, jnp.ones(24))
    with pytest.raises(ValueError, match="one precision"):
        sbl.KroMarginal(factors, tuple(g.astype(jnp.float32) for g in variances), noise_var)
    with pytest.raises(ValueError, match="invalid noise_var"):
        sbl.KroMarginal(factors, variances, -1.0, validate_args=True)
    with pytest.raises(ValueError, match="invalid prior_factors"):
        sbl.KroMarginal(factors, (-variances[0], *variances[1:]), 1.0, validate_args=True)
    with pytest.raises(ValueError, match=r"value must have shape \(\.\.\., 24\)"):
        distribution.log_prob(values.reshape(3, 3, 4, 2))
    with pytest.raises(ValueError, match="value must be real"):
        distribution.log_prob(values + 1j)
    with pytest.raises(ValueError, match="first derivatives of its evidence"):
        jax.hessian(lambda g: sbl.KroMarginal(factors, g, noise_var).log_prob(values[0]))(variances)
