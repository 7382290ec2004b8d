"""What NumPyro asks of a distribution, of all of ours: its own generic tests, on a table of them.

Shapes, expansion, pytrees, vmap, gradients, constraints, validation and moments, after NumPyro's
`test/test_distributions.py`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.distributions import kl_divergence
from numpyro.distributions.batch_util import promote_batch_shape, vmap_over
from numpyro.distributions.constraints import is_dependent

from bayesjx import bnn, distributions as ours, likelihoods, ops

N = 5
RNG = np.random.default_rng(7)
HALF, OTHER = RNG.normal(size=(2, N, N))
MATRIX, SECOND = HALF @ HALF.T + np.eye(N), OTHER @ OTHER.T + np.eye(N)
FACTOR, LOC, SHIFT = RNG.normal(size=(N, 2)), RNG.normal(size=N), RNG.normal(size=(3, N))
LOCS = RNG.normal(size=(2, N))
LAYOUT = ours.NestedLayout(
    (ours.NestedGroup(np.array([2]), ()), ours.NestedGroup(np.array([[0, 3], [4, 1]]), (0,)))
)


def nested(t):
    lowers = (jnp.zeros((1, 1)), jnp.asarray(np.full((2, 2, 2), 0.4)))
    links = ((), (t * jnp.asarray(FACTOR[:4].reshape(2, 2, 2)[..., :1]),))
    return ours.NestedNormal(t * LOC, jnp.full(N, 0.7) * t, lowers, links, LAYOUT)


# Builders from a positive number to a distribution.
DISTRIBUTIONS = {
    "dense covariance": lambda t: ours.StructuredNormal(t * LOC, ops.Dense(t * MATRIX, ops.psd)),
    "precision": lambda t: ours.StructuredNormal(
        t * LOC, precision=ops.Diag(t + jnp.arange(N), ops.psd)
    ),
    "batch of means": lambda t: ours.StructuredNormal(
        t * LOCS, ops.LowRankPlusDiag(t * FACTOR, jnp.ones(N))
    ),
    "collapsed": lambda t: ours.CollapsedNormal(
        t * LOC, ops.LowRankPlusDiag(t * FACTOR, jnp.ones(N)), t
    ),
    "nested": nested,
    "subspace": lambda t: ours.SubspaceNormal(
        t * LOC, t + jnp.arange(N), np.linalg.qr(FACTOR)[0], t * jnp.array([[1.0, 0], [0.5, 2]])
    ),
    "one-hot": lambda t: ours.OneHotCategorical(logits=t * jnp.asarray(LOCS)),
    "flag": lambda t: ours.BernoulliLogits(t * LOC),
    "normal": lambda t: ours.Normal(t * LOC, t),
    "bars": lambda t: ours.BarDistribution(
        t * jnp.arange(N + 1.0), t * jnp.asarray(LOCS)
    ),
    "predictive": lambda t: likelihoods.Predictive(
        likelihoods.PoissonExp(), t * LOC, t * jnp.ones(N)
    ),
    "mixture over networks": lambda t: bnn.NetworkMixture(
        likelihoods.PoissonExp(), t * jnp.asarray(SHIFT), jnp.log(jnp.array([0.2, 0.5, 0.3]))
    ),
}  # fmt: skip
REFUSES_VMAP = "mixture over networks"  # by an error that says so
NAMES = pytest.mark.parametrize("name", DISTRIBUTIONS)
VECTORS = pytest.mark.parametrize("name", ["dense covariance", "precision", "batch of means",
                                           "collapsed", "nested", "subspace"])  # fmt: skip
KEY = jax.random.key(0)


@NAMES
def test_numpyros_generic_tests(name):
    make = DISTRIBUTIONS[name]

    @jax.jit
    def run(t):
        distribution = make(t)
        value = jax.lax.stop_gradient(distribution.sample(KEY))
        density = lambda t: jnp.sum(make(t).log_prob(value))  # noqa: E731
        step = 1e-5
        slopes = jax.grad(density)(t), (density(t + step) - density(t - step)) / (2 * step)
        leaves, tree = jax.tree.flatten(distribution)
        again = jax.tree.unflatten(tree, leaves).log_prob(value)
        wide = distribution.expand((3, *distribution.batch_shape))
        draws = (
            distribution.sample(KEY, (2, 3)),
            wide.sample(KEY),
            wide.to_event(1).log_prob(jnp.broadcast_to(value, (3, *value.shape))),
        )
        batch, pair = None, (0, 0)
        if name != REFUSES_VMAP:
            batch = promote_batch_shape(jax.vmap(make)(jnp.stack([t, 1.5 * t])))
            pair = (
                batch.log_prob(value),
                jnp.stack([distribution.log_prob(value), make(1.5 * t).log_prob(value)]),
            )
        inside = jnp.all(distribution.support(value))
        return (
            distribution,
            value,
            slopes,
            (again, distribution.log_prob(value)),
            draws,
            batch,
            pair,
            inside,
        )

    distribution, value, slopes, same, draws, batch, pair, inside = run(1.3)
    np.testing.assert_allclose(*slopes, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(*same, rtol=1e-12)
    np.testing.assert_allclose(*pair, rtol=1e-9)
    assert (
        inside and value.shape == distribution.shape() and same[0].shape == distribution.batch_shape
    )
    assert draws[0].shape == distribution.shape((2, 3)) and draws[1].shape == (
        3,
        *distribution.shape(),
    )
    assert draws[2].shape == ((3,) if distribution.batch_shape else ())
    assert batch is None or (
        batch.batch_shape == (2, *distribution.batch_shape)
        and batch.event_shape == distribution.event_shape
    )


@NAMES
def test_arguments_meet_their_constraints_and_make_it_again(name):
    distribution = DISTRIBUTIONS[name](jnp.asarray(1.3))
    arguments = distribution.get_args()
    assert arguments
    for argument, constraint in distribution.arg_constraints.items():
        if argument in arguments and not is_dependent(constraint):
            assert np.all(constraint(arguments[argument])), argument
    value = distribution.sample(KEY)
    again = type(distribution)(**arguments, validate_args=True)
    np.testing.assert_allclose(again.log_prob(value), distribution.log_prob(value), rtol=1e-12)


@VECTORS
def test_values_are_checked_and_moments_are_those_of_draws(name):
    distribution = DISTRIBUTIONS[name](jnp.asarray(1.3))
    checked = type(distribution)(**distribution.get_args(), validate_args=True)
    with pytest.warns(UserWarning, match="Out-of-support"):
        assert np.all(checked.log_prob(jnp.full(N, jnp.nan)) == -jnp.inf)
    num = 4000
    draws = np.asarray(distribution.sample(KEY, (num,)))
    variance, dense = np.asarray(distribution.variance), np.asarray(distribution.covariance_matrix)
    np.testing.assert_allclose(np.diagonal(dense, axis1=-2, axis2=-1), variance, rtol=1e-9)
    assert np.all(np.abs(draws.mean(0) - distribution.mean) < 5 * np.sqrt(variance / num))
    assert np.all(np.abs(draws.var(0) / variance - 1) < 5 * np.sqrt(2 / num))
    want = 0.5 * (N * (1 + np.log(2 * np.pi)) + np.linalg.slogdet(dense)[1])
    np.testing.assert_allclose(
        distribution.entropy(), np.broadcast_to(want, distribution.batch_shape), rtol=1e-9
    )


def test_batches_of_covariances_keep_their_order():
    """Two axes made by vmap before one of `loc`, against one distribution at a time."""
    scales = jnp.asarray([[1.0, 2.0, 3.0], [0.5, 0.7, 0.9]])
    locs = jnp.asarray(RNG.normal(size=(2, 3, 4, N)))

    def make(scale, loc):
        return ours.StructuredNormal(loc, ops.Dense(scale * MATRIX, ops.psd))

    @jax.jit
    def run(scales, locs):
        distribution = promote_batch_shape(jax.vmap(jax.vmap(make))(scales, locs))
        value = distribution.sample(KEY, (2,))
        return (
            distribution,
            value,
            distribution.log_prob(value),
            distribution.log_prob(value[0, 0, 0]),
            distribution.entropy(),
        )

    distribution, value, log_prob, shared, entropy = run(scales, locs)
    assert distribution.batch_shape == (2, 3, 4) and value.shape == (2, 2, 3, 4, N)
    assert distribution.variance.shape == (2, 3, 4, N) and distribution.covariance_matrix.shape == (
        2,
        3,
        4,
        N,
        N,
    )
    one = dist.MultivariateNormal(locs[1, 2, 3], scales[1, 2] * MATRIX)
    np.testing.assert_allclose(log_prob[:, 1, 2, 3], one.log_prob(value[:, 1, 2, 3]), rtol=1e-9)
    np.testing.assert_allclose(shared[1, 2, 3], one.log_prob(value[0, 0, 0, 3]), rtol=1e-9)
    np.testing.assert_allclose(entropy[1, 2, 3], one.entropy(), rtol=1e-9)
    # Draws of different distributions are independent.
    white = (value - locs) / np.sqrt(np.asarray(scales))[..., None, None]
    assert np.abs(white[:, 0, 0] - white[:, 1, 1]).min() > 0
    batch, at = DISTRIBUTIONS["batch of means"](1.0), value[0, 0, 0, 0]
    each = jax.vmap(lambda d: d.log_prob(at), in_axes=(vmap_over(batch, loc=0),))
    np.testing.assert_allclose(each(batch), batch.log_prob(at), rtol=1e-9)


OPERATORS = {
    "dense": ops.Dense(jnp.asarray(SECOND), ops.psd),
    "diag": ops.Diag(1 + jnp.arange(float(N)), ops.psd),
    "low rank": ops.LowRankPlusDiag(jnp.asarray(FACTOR), 1 + jnp.arange(float(N))),
}


@pytest.mark.parametrize("kind", ["covariance", "precision"])
def test_divergences_are_those_of_dense_distributions(kind):
    distributions = [
        ours.StructuredNormal(jnp.asarray(loc), **{kind: operator})
        for loc, operator in zip(SHIFT, OPERATORS.values(), strict=True)
    ]
    distributions.append(
        ours.StructuredNormal(jnp.asarray(LOC), ops.Dense(jnp.asarray(MATRIX), ops.psd))
    )

    @jax.jit
    def run(distributions):
        dense = [dist.MultivariateNormal(p.loc, p.covariance_matrix) for p in distributions]
        pairs = [(p, q) for p in range(4) for q in range(4)]
        wanted = jnp.stack([kl_divergence(dense[p], dense[q]) for p, q in pairs])
        return wanted, [
            jnp.stack([kl_divergence(left[p], right[q]) for p, q in pairs])
            for left, right in (
                (distributions, distributions),
                (distributions, dense),
                (dense, distributions),
            )
        ]

    wanted, found = run(distributions)
    for one in found:
        np.testing.assert_allclose(one, wanted, rtol=1e-8, atol=1e-10)


def test_divergences_of_batches_and_of_other_normal_distributions():
    @jax.jit
    def both():
        covariance = ops.Dense(jnp.asarray(MATRIX), ops.psd)
        one = ours.StructuredNormal(jnp.asarray(LOC), covariance)
        rows = ours.StructuredNormal(jnp.asarray(SHIFT), covariance)
        scaled = lambda s: ours.StructuredNormal(s * LOC, ops.Dense(s * SECOND, ops.psd))  # noqa: E731
        many = promote_batch_shape(jax.vmap(scaled)(jnp.asarray([1.0, 2.0, 3.0])))
        thin = dist.LowRankMultivariateNormal(
            jnp.zeros(N), jnp.asarray(FACTOR), 1 + jnp.arange(float(N))
        )
        mean_field = dist.Normal(jnp.asarray(SHIFT), 0.5).to_event(1)
        wide = one.expand((3,))

        def dense(distribution):
            if distribution is wide:
                return dist.MultivariateNormal(LOC, np.stack([MATRIX] * 3))
            if distribution is mean_field:
                return dist.MultivariateNormal(SHIFT, 0.25 * np.eye(N))
            return dist.MultivariateNormal(distribution.mean, distribution.covariance_matrix)

        pairs = [(one, rows), (rows, one), (many, rows), (rows, many), (many, one), (one, thin),
                 (thin, many), (mean_field, one), (one, mean_field), (mean_field, many),
                 (dense(many), rows), (wide, many)]  # fmt: skip
        return [(kl_divergence(p, q), kl_divergence(dense(p), dense(q))) for p, q in pairs]

    for got, want in both():
        np.testing.assert_allclose(got, want, rtol=1e-8)


@pytest.mark.errors
def test_what_has_no_divergence_or_is_a_batch_is_named():
    distribution = DISTRIBUTIONS["batch of means"](jnp.asarray(1.0))
    with pytest.raises(ValueError, match=r"condition: loc has shape \(2, 5\), a batch"):
        distribution.condition([0], jnp.zeros(1))
    with pytest.raises(ValueError, match=r"value must have a shape that broadcasts with \(2, 5\)"):
        distribution.log_prob(jnp.zeros((3, N)))
    with pytest.raises(ValueError, match=r"vectors of shape \(5,\) and \(2,\)"):
        kl_divergence(
            distribution, ours.StructuredNormal(jnp.zeros(2), ops.ScaledIdentity(jnp.ones(()), 2))
        )
    with pytest.raises(NotImplementedError, match="of a StructuredNormal and Independent"):
        kl_divergence(distribution, dist.Laplace(jnp.zeros(N), 1.0).to_event(1))
