"""Orthogonally decoupled processes: between the bounds of one set of points and of both."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads
from numpyro import distributions as dist

import bayesjx
from bayesjx import gp, kernels

N, M, M2, D = 13, 5, 3, 2
KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(N, D))
Y = np.sin(2 * X[:, 0]) + 0.2 * X[:, 1]
POINTS, ORTHOGONAL = X[:M] + 0.1, X[M : M + M2] - 0.1


def make_prior(dtype=jnp.float64, noise=0.1):
    kernel = kernels.RBF(jnp.asarray([1.0, 1.5], dtype), jnp.asarray(1.3, dtype))
    return gp.GP(kernel, jnp.asarray(0.2, dtype), noise_var=jnp.asarray(noise, dtype))


def some_distribution(m, seed, dtype=jnp.float64):
    draw = np.random.default_rng(seed).normal(size=(m, m + 1)) / m
    tril = np.tril(draw[:, 1:]) + 0.7 * np.eye(m)
    return gp.WhitenedNormal(jnp.asarray(draw[:, 0], dtype), jnp.asarray(tril, dtype))


def make(dtype=jnp.float64, likelihood=None, q_orthogonal=None, **options):
    return gp.DecoupledSVGP(
        make_prior(dtype, 0.1 if likelihood is None else 0.0),
        likelihood,
        inducing_points=jnp.asarray(POINTS, dtype),
        orthogonal_points=jnp.asarray(ORTHOGONAL, dtype),
        q=some_distribution(M, 1, dtype),
        q_orthogonal=q_orthogonal or some_distribution(M2, 2, dtype),
        **options,
    )


@eqx.filter_jit
def elbo(svgp, x, y):
    return svgp.elbo(x, y)


@eqx.filter_jit
def block_slopes(svgp, x, y):
    return jax.grad(lambda blocks: svgp.with_blocks(blocks).elbo(x, y))(svgp.blocks)


def optimum(svgp, steps):
    """The process after full-batch natural steps of length 1, blocks in turn."""
    algorithm = gp.svgp_natgrad(svgp, None, 1.0, num_data=N)

    def one(state, _):
        state, info = algorithm.step(KEY, state, X, Y)
        return state, info.objective

    state, bounds = jax.jit(lambda s: jax.lax.scan(one, s, None, steps))(algorithm.init())
    return svgp.trained(state), bounds


def test_it_is_the_process_of_both_sets_with_a_block_diagonal_covariance(dtype, tol):
    svgp = make(dtype)
    distributions = svgp.q, svgp.q_orthogonal
    joint = gp.WhitenedNormal(
        jnp.concatenate([distribution.mean for distribution in distributions]),
        jax.scipy.linalg.block_diag(*[distribution.scale_tril for distribution in distributions]),
    )
    both = gp.SVGP(
        svgp.prior,
        inducing_points=jnp.concatenate([svgp.inducing_points, svgp.orthogonal_points]),
        q=joint,
    )

    @jax.jit
    def compare(svgp, both, x):
        at = svgp.project(x)
        values = svgp.elbo(x, Y), both.elbo(x, Y)
        return *values, svgp.posterior().moments(x), at, svgp.contributions(at)

    found, want, (mean, variance), at, parts = compare(svgp, both, jnp.asarray(X, dtype))
    assert found.dtype == dtype
    loose = {"rtol": 10 * tol["rtol"], "atol": 100 * tol["atol"]}
    np.testing.assert_allclose(found, want, **loose)
    np.testing.assert_allclose(mean, at.mean + parts[0][0] + parts[1][0], **loose)
    np.testing.assert_allclose(variance, at.residual + parts[0][1] + parts[1][1], **loose)


def test_what_both_sets_leave_is_the_residual_of_their_union():
    kernel, jitter = make_prior().kernel, 1.3e-6
    both = np.concatenate([POINTS, ORTHOGONAL])
    inside, cross = kernel.gram(both) + jitter * np.eye(M + M2), kernel.gram(both, X)
    want = 1.3 - np.einsum("mn,mn->n", cross, np.linalg.solve(inside, cross))
    np.testing.assert_allclose(make().project(jnp.asarray(X)).residual, want, atol=1e-12)


def test_without_knowledge_of_the_second_set_it_is_the_process_of_the_first():
    """The whole distribution, not only the bound: the second block of features drops out."""
    prior_distribution = gp.WhitenedNormal(jnp.zeros(M2), jnp.eye(M2))
    svgp, single = (
        make(q_orthogonal=prior_distribution),
        gp.SVGP(make_prior(), inducing_points=POINTS, q=some_distribution(M, 1)),
    )
    np.testing.assert_allclose(elbo(svgp, X, Y), elbo(single, X, Y), rtol=1e-10)
    moments = eqx.filter_jit(lambda svgp: svgp.posterior().moments(X))
    pairs = zip(moments(svgp), moments(single), strict=True)
    for found, want in pairs:
        np.testing.assert_allclose(found, want, atol=1e-9)


@pytest.mark.parametrize("tight", [False, True])
def test_its_optimum_lies_between_those_of_one_set_and_of_both(tight):
    best, bounds = optimum(make(tight=tight), 60)
    assert np.all(np.diff(bounds) > -1e-9)
    np.testing.assert_allclose(bounds[-1], bounds[-10], rtol=1e-6)
    prior, both = make_prior(), np.concatenate([POINTS, ORTHOGONAL])
    # The tightened bounds pay for what the union leaves, whatever the distributions, so only those
    # of the same sort are ordered.
    collapsed = jax.jit(
        lambda points: gp.sgpr(prior, X, inducing_points=points, tight=tight).log_prob(Y)
    )
    one, two = collapsed(POINTS), collapsed(both)
    assert one + 0.01 < elbo(best, X, Y) < two - 1e-4
    assert two < jax.jit(lambda y: prior(X).log_prob(y))(Y)


def test_blocks_move_in_turn():
    """After one step the second distribution is the best one given what the first has become."""
    best, _ = optimum(make(), 1)
    slopes = block_slopes(best, X, Y)
    size = [max(np.abs(leaf).max() for leaf in jax.tree.leaves(block)) for block in slopes]
    assert size[1] < 1e-9 < 1e-3 < size[0]


def test_natural_gradients_train_any_likelihood():
    labels = (Y > 0).astype(int)
    svgp = make(likelihood=lambda f: dist.Bernoulli(logits=f))
    algorithm = gp.svgp_natgrad(svgp, None, 0.5, num_data=N)
    state = bayesjx.fit(KEY, algorithm, algorithm.init(), 60, data=(X, labels)).state
    slopes = block_slopes(svgp.trained(state), X, labels)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(slopes)) < 1e-5


def test_adam_trains_both_sets(dtype):
    svgp = make(dtype)
    algorithm = gp.svgp_adam(svgp, optax.adam(0.03), num_data=N)
    data = (jnp.asarray(X, dtype), jnp.asarray(Y, dtype))
    result = bayesjx.fit(KEY, algorithm, algorithm.init(), 50, data=data)
    trained = svgp.trained(result.state)
    end = elbo(trained, *data)
    assert end > elbo(svgp, *data) + 5
    assert end.dtype == dtype
    assert np.all(trained.orthogonal_points != svgp.orthogonal_points)


def test_derivatives_are_finite_differences():
    arrays, rest = eqx.partition(make(), eqx.is_inexact_array)

    def value(arrays):
        return eqx.combine(arrays, rest).elbo(X, Y, 3 * N)

    check_grads(jax.jit(value), (arrays,), order=1, modes=["fwd", "rev"], rtol=1e-5, atol=1e-5)


@pytest.mark.errors
def test_bad_points_are_named():
    prior = make_prior()
    with pytest.raises(ValueError, match="2 coordinates and orthogonal_points 3"):
        gp.DecoupledSVGP(prior, inducing_points=POINTS, orthogonal_points=np.ones((3, 3)))
    with pytest.raises(ValueError, match="empty"):
        gp.DecoupledSVGP(prior, inducing_points=POINTS, orthogonal_points=np.ones((0, 2)))
    with pytest.raises(ValueError, match="q_orthogonal must have a mean of shape"):
        gp.DecoupledSVGP(
            prior,
            inducing_points=POINTS,
            orthogonal_points=ORTHOGONAL,
            q_orthogonal=some_distribution(M, 1),
        )
