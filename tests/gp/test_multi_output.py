"""Several outputs: against dense formulas, independent processes and Kronecker products."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro import distributions as dist

from bayesjx import gp, kernels, ops

N, P = 7, 3
X = jnp.sort(jax.random.uniform(jax.random.key(0), (N,), maxval=3.0))
Y = jax.random.normal(jax.random.key(1), (N, P))
FACTOR = jnp.array([[1.0, 0.2], [-0.5, 0.7], [0.3, 0.1]])
OWN = jnp.array([0.4, 0.2, 1.1])
B = np.asarray(FACTOR @ FACTOR.T + jnp.diag(OWN))
RBF, MATERN = kernels.RBF(0.8, 1.3), kernels.Matern32(0.5)
RAGGED = [X, X[1:4] + 0.1, X[2:]]
RESPONSES = [Y[:, 0], Y[1:4, 1], Y[2:, 2]]


def grid(dtype=jnp.float64):
    return gp.Grid(X.astype(dtype), jnp.arange(P, dtype=dtype))


def dense_log_prob(covariance, y):
    return dist.MultivariateNormal(jnp.zeros(y.size), jnp.asarray(covariance)).log_prob(y.ravel())


def cast(tree, dtype):
    return jax.tree.map(lambda x: x.astype(dtype) if eqx.is_inexact_array(x) else x, tree)


def test_icm_on_a_grid_is_a_kronecker_product(dtype, tol):
    kernel = cast(gp.icm(RBF, FACTOR, OWN), dtype)
    distribution = eqx.filter_jit(lambda prior: prior(grid(dtype)))(gp.GP(kernel, noise_var=0.1))
    assert isinstance(distribution.covariance, ops.KronPlusNoise)
    want = np.kron(RBF.gram(X), B) + 0.1 * np.eye(N * P)
    found = eqx.filter_jit(lambda prior, y: prior(grid(dtype)).log_prob(y))
    tol = tol | {"rtol": 1e-4 if dtype == jnp.float32 else 1e-9}
    np.testing.assert_allclose(distribution.covariance.as_matrix(), want, **tol)
    value = found(gp.GP(kernel, noise_var=0.1), Y.ravel().astype(dtype))
    np.testing.assert_allclose(value, dense_log_prob(want, Y), **tol)
    points = gp.icm(RBF, FACTOR, OWN).gram(grid().points())
    np.testing.assert_allclose(points, np.kron(RBF.gram(X), B), rtol=1e-9, atol=1e-12)


def test_independent_outputs_are_independent_processes():
    kernel = gp.icm(RBF, jnp.zeros((P, 1)), jnp.ones(P))
    x, y = gp.stack_outputs(RAGGED, RESPONSES)

    @jax.jit
    def together(x, y):
        prior = gp.GP(kernel, noise_var=0.1)
        posterior = gp.condition(prior, x, y)
        return prior(x).log_prob(y), posterior.moments(gp.at_output(X + 0.05, 1))

    def alone(x, y):
        return gp.GP(RBF, noise_var=0.1)(x).log_prob(y)

    value, moments = together(x, y)
    apart = sum(alone(x, y) for x, y in zip(RAGGED, RESPONSES, strict=True))
    np.testing.assert_allclose(value, apart, rtol=1e-10)
    one = gp.condition(gp.GP(RBF, noise_var=0.1), RAGGED[1], RESPONSES[1]).moments(X + 0.05)
    np.testing.assert_allclose(moments[0], one[0], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(moments[1], one[1], rtol=1e-8, atol=1e-12)


def test_ragged_data_are_the_observed_part_of_the_grid():
    observed = np.ones((N, P), bool)
    observed[0, 1] = observed[3:, 1] = observed[:2, 2] = False
    index = [np.flatnonzero(observed[:, p]) for p in range(P)]
    x, y = gp.stack_outputs([X[i] for i in index], [Y[i, p] for p, i in enumerate(index)])
    assert x.shape == (observed.sum(), 2) and y.shape == (observed.sum(),)
    full = np.kron(RBF.gram(X), B) + 0.1 * np.eye(N * P)
    cells = np.concatenate([i * P + p for p, i in enumerate(index)])
    prior = gp.GP(gp.icm(RBF, FACTOR, OWN), noise_var=0.1)
    want = dense_log_prob(full[np.ix_(cells, cells)], y)
    np.testing.assert_allclose(prior(x).log_prob(y), want, rtol=1e-10)


def test_lcm_is_a_sum():
    kernel = gp.lcm([RBF, MATERN], [FACTOR, FACTOR[:, :1]], [OWN, jnp.zeros(P)])
    first = np.asarray(FACTOR[:, :1] @ FACTOR[:, :1].T)
    want = np.kron(RBF.gram(X), B) + np.kron(MATERN.gram(X), first)
    np.testing.assert_allclose(kernel.gram(grid().points()), want, rtol=1e-9, atol=1e-12)
    one = gp.lcm([RBF], [FACTOR], [OWN])
    np.testing.assert_allclose(one.gram(grid().points()), np.kron(RBF.gram(X), B), rtol=1e-9)


def test_two_terms_on_a_grid_keep_their_structure():
    """Signal and correlated noise, or a second process: both are a Kronecker product."""
    second = ops.Kron(MATERN.gram(X), jnp.diag(OWN) + 0.1, tags=ops.psd)

    @jax.jit
    def value_and_grad(factor, ell):
        def value(factor, ell):
            kernel = gp.icm(kernels.RBF(ell, 1.3), factor, OWN)
            return gp.GP(kernel, noise_var=second)(grid()).log_prob(Y.ravel())

        return jax.value_and_grad(value, (0, 1))(factor, ell)

    @jax.jit
    def dense(factor, ell):
        def value(factor, ell):
            left = factor @ factor.T + jnp.diag(OWN)
            total = jnp.kron(kernels.RBF(ell, 1.3).gram(X), left) + second.as_matrix()
            return dense_log_prob(total, Y)

        return jax.value_and_grad(value, (0, 1))(factor, ell)

    kernel = gp.icm(RBF, FACTOR, OWN)
    covariance = gp.GP(kernel, noise_var=second).observed_covariance(grid())
    assert isinstance(covariance, ops.KronPlusNoise)
    found, want = value_and_grad(FACTOR, 0.8), dense(FACTOR, 0.8)
    np.testing.assert_allclose(found[0], want[0], rtol=1e-9)
    for a, b in zip(found[1], want[1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8)


def test_noise_of_each_output():
    noise = jnp.array([0.1, 0.5, 0.02])
    x, y = gp.stack_outputs(RAGGED, RESPONSES)
    own = gp.output_noise(noise, x)
    np.testing.assert_allclose(own, np.repeat(np.asarray(noise), [7, 3, 5]))
    kernel = gp.icm(RBF, FACTOR, OWN)
    want = dense_log_prob(kernel.gram(x) + jnp.diag(own), y)
    found = jax.jit(lambda v: gp.GP(kernel, noise_var=gp.output_noise(v, x))(x).log_prob(y))(noise)
    np.testing.assert_allclose(found, want, rtol=1e-9)

    on_grid = gp.output_noise(noise, grid())
    np.testing.assert_allclose(on_grid.as_matrix(), np.diag(np.tile(np.asarray(noise), N)))
    total = np.kron(RBF.gram(X), B) + on_grid.as_matrix()
    found = gp.GP(kernel, noise_var=on_grid)(grid()).log_prob(Y.ravel())
    np.testing.assert_allclose(found, dense_log_prob(total, Y), rtol=1e-9)


def test_gradients_and_vmap_on_ragged_data():
    x, y = gp.stack_outputs(RAGGED, RESPONSES)

    @jax.jit
    def value(factor, own, y):
        return gp.GP(gp.icm(RBF, factor, own), noise_var=0.1)(x).log_prob(y)

    gradient = jax.jit(jax.grad(value, (0, 1)))(FACTOR, OWN, y)
    step, along = 1e-6, (jnp.cos(FACTOR), jnp.sin(OWN))
    up, down = (value(FACTOR + move * along[0], OWN + move * along[1], y) for move in (step, -step))
    found = sum(jnp.sum(g * a) for g, a in zip(gradient, along, strict=True))
    np.testing.assert_allclose(found, (up - down) / (2 * step), rtol=1e-6)
    many = jax.vmap(lambda y: value(FACTOR, OWN, y))(jnp.stack([y, 2 * y]))
    np.testing.assert_allclose(many[1], value(FACTOR, OWN, 2 * y), rtol=1e-10)


def test_points_of_several_coordinates():
    xs = [jnp.ones((2, 3)), jnp.zeros((4, 3))]
    x, y = gp.stack_outputs(xs, [np.arange(2), np.arange(4)])
    assert x.shape == (6, 4) and y.dtype == x.dtype
    np.testing.assert_array_equal(x[:, -1], [0, 0, 1, 1, 1, 1])
    np.testing.assert_array_equal(y, [0, 1, 0, 1, 2, 3])


@pytest.mark.errors
def test_bad_input_is_named():
    with pytest.raises(ValueError, match="got 2 and 1"):
        gp.stack_outputs([X, X], [Y[:, 0]])
    with pytest.raises(ValueError, match=r"output 1 has 7 points and responses of shape \(3,\)"):
        gp.stack_outputs([X, X], [Y[:, 0], Y[:3, 1]])
    with pytest.raises(ValueError, match=r"different dimensions: \[1, 2\]"):
        gp.stack_outputs([X, jnp.ones((2, 2))], [Y[:, 0], jnp.ones(2)])
    with pytest.raises(ValueError, match="for each term, got 2, 1 and 1"):
        gp.lcm([RBF, RBF], [FACTOR], [OWN])
    with pytest.raises(ValueError, match=r"different numbers of outputs: \[2, 3\]"):
        gp.lcm([RBF, RBF], [FACTOR, FACTOR[:2]], [OWN, OWN[:2]])
    with pytest.raises(ValueError, match=r"factor must have shape \(p, r\) and diagonal"):
        gp.icm(RBF, FACTOR, OWN[:2])
    with pytest.raises(ValueError, match="the number of an output, 0 to 1"):
        gp.output_noise(jnp.ones(2), grid())
    with pytest.raises(ValueError, match=r"variances must have shape \(p,\)"):
        gp.output_noise(1.0, grid())
