"""The structured normal distribution against NumPyro's dense one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import MCMC, NUTS
from scipy.stats import multivariate_normal

from bayesjx.distributions._structured_normal import StructuredNormal
from bayesjx.ops import (
    BlockDiag,
    BlockTridiag,
    Dense,
    Diag,
    LowRankPlusDiag,
    psd,
    ScaledIdentity,
    Toeplitz,
)

N = 6  # three blocks of two
TIGHT = {"rtol": 1e-9, "atol": 1e-10}
# Each program runs once: what it costs is its compilation.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": "0"})


HALF = np.random.default_rng(0).standard_normal((3, 2, 2))
BLOCKS = HALF @ HALF.transpose(0, 2, 1) + 2 * np.eye(2)
ENTRIES = np.arange(1.0, N + 1)
FACTOR = np.random.default_rng(2).standard_normal((N, 2))
LOWER = 0.5 * np.random.default_rng(3).standard_normal((2, 2, 2))
LAGS = 0.6 ** np.arange(N)

# One of each structure, times a number to differentiate with respect to.
OPERATORS = {
    "dense": lambda s: Dense(s * (FACTOR @ FACTOR.T + np.eye(N)), psd),
    "diag": lambda s: Diag(s * ENTRIES, psd),
    "identity": lambda s: ScaledIdentity(s, N),
    "low_rank": lambda s: LowRankPlusDiag(s * FACTOR, jnp.asarray(ENTRIES)),
    "block_diag": lambda s: BlockDiag(s * BLOCKS, psd),
    "block_tridiag": lambda s: BlockTridiag(s * BLOCKS, s * LOWER),
    "toeplitz": lambda s: Toeplitz(s * LAGS),
    "mixed": lambda s: BlockDiag((Toeplitz(s * LAGS[:4]), Diag(s * ENTRIES[:2], psd))),
}


def make(kind, name, scale=1.0, dtype=jnp.float64):
    operator = OPERATORS[name](jnp.asarray(scale, jnp.float64))
    operator = jax.tree.map(lambda x: x.astype(dtype), operator)
    return StructuredNormal(jnp.arange(N, dtype=dtype), **{kind: operator})


def twin(structured):
    """The same distribution, dense."""
    operator = structured.covariance or structured.precision
    matrix = operator.as_matrix()
    cov = matrix if structured.precision is None else jnp.linalg.inv(matrix)
    return dist.MultivariateNormal(structured.loc, 0.5 * (cov + cov.T))


KINDS = pytest.mark.parametrize("kind", ["covariance", "precision"])
NAMES = pytest.mark.parametrize("name", tuple(OPERATORS))


@KINDS
@NAMES
def test_density_and_moments_are_those_of_the_dense_normal(kind, name):
    values = np.random.default_rng(5).standard_normal((2, 3, N))

    @jit
    def describe(scale):
        distribution = make(kind, name, scale)
        matrix = (distribution.covariance or distribution.precision).as_matrix()
        log_prob = distribution.log_prob(values), distribution.log_prob(values[0, 0])
        return matrix, (
            *log_prob,
            distribution.variance,
            distribution.entropy(),
            distribution.covariance_matrix,
        )

    matrix, got = describe(1.3)
    cov = np.asarray(matrix) if kind == "covariance" else np.linalg.inv(matrix)
    theirs = multivariate_normal(np.arange(N), cov)
    log_prob = theirs.logpdf(values)
    want = log_prob, log_prob[0, 0], np.diag(cov), theirs.entropy(), cov
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, **TIGHT)


@KINDS
def test_gradients_are_those_of_the_dense_normal(kind):
    values = np.random.default_rng(5).standard_normal((2, 3, N))

    @jit
    def both(values):
        def score(values, loc, scale, of):
            distribution = make(kind, "block_tridiag", scale)
            distribution = of(
                StructuredNormal(loc, distribution.covariance, distribution.precision)
            )
            moments = jnp.sum(distribution.variance**2) + distribution.entropy()
            return jnp.sum(jnp.sin(distribution.log_prob(values))) + moments

        point = values, jnp.ones(N), jnp.asarray(1.3)
        return [jax.value_and_grad(score, (0, 1, 2))(*point, of) for of in (lambda x: x, twin)]

    got, want = both(values)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **TIGHT), got, want)


# What is given, and the structures that the rest keeps: a whole block, at the end or between two;
# one component of every block; half a block.
GIVEN = {
    (1, 0): {"block_tridiag", "block_diag", "toeplitz"},
    (2, 3): {"block_tridiag", "block_diag"},
    (4, 0, 2): {"block_tridiag", "block_diag", "toeplitz"},
    (3,): set(),
}
ALWAYS = {"dense", "diag", "identity", "low_rank"}


@KINDS
@NAMES
def test_conditioning_is_that_of_the_dense_normal(kind, name):
    @jit
    def all_of(values):
        structured = make(kind, name, 1.3)
        operator = structured.covariance or structured.precision
        distributions = []
        for given, value in zip(GIVEN, values, strict=True):
            distribution = structured.condition(given, value)
            rest = distribution.covariance or distribution.precision
            even = kind == "precision" and name in GIVEN[given]
            kept = name in ALWAYS or even
            assert isinstance(rest, type(operator) if kept else Dense), (given, type(rest))
            distributions.append((distribution.loc, distribution.covariance_matrix))
        return operator.as_matrix(), distributions

    values = [np.random.default_rng(1).standard_normal(len(given)) for given in GIVEN]
    matrix, got = all_of(values)
    cov = np.asarray(matrix) if kind == "covariance" else np.linalg.inv(matrix)
    for given, value, (loc, left) in zip(GIVEN, values, got, strict=True):
        rest = np.setdiff1d(np.arange(N), given)
        gain = np.linalg.solve(cov[np.ix_(given, given)], cov[np.ix_(given, rest)]).T
        np.testing.assert_allclose(loc, rest + gain @ (value - np.asarray(given)), **TIGHT)
        np.testing.assert_allclose(
            left, cov[np.ix_(rest, rest)] - gain @ cov[np.ix_(given, rest)], **TIGHT
        )


@KINDS
@pytest.mark.parametrize("name", ["low_rank", "block_tridiag"])
def test_draws_have_the_moments_and_the_type(kind, name, dtype):
    num = 4000
    structured = make(kind, name, dtype=dtype)
    draws = jit(lambda distribution: distribution.sample(jax.random.key(0), (2, num // 2)))(
        structured
    )
    assert draws.shape == (2, num // 2, N) and draws.dtype == dtype
    assert structured.log_prob(draws[0, :3]).dtype == dtype
    assert structured.entropy().dtype == structured.variance.dtype == dtype
    cov = np.asarray(twin(make(kind, name)).covariance_matrix)
    centred = np.asarray(draws).reshape(num, N) - np.arange(N)
    error = np.sqrt((np.outer(np.diag(cov), np.diag(cov)) + cov**2) / num)
    assert np.all(np.abs(centred.T @ centred / num - cov) < 5 * error)
    assert np.all(np.abs(centred.mean(0)) < 5 * np.sqrt(np.diag(cov) / num))


@KINDS
def test_is_a_pytree_for_jit_vmap_and_expand(kind):
    value = jnp.sin(jnp.arange(6.0))

    @jit
    def both(structured, scales):
        leaves, tree = jax.tree.flatten(structured)
        again = jax.tree.unflatten(tree, leaves)
        expanded = again.expand((2,)).to_event(1).mask(True)
        batch = jax.vmap(lambda s: make(kind, "block_tridiag", s).log_prob(value))(scales)
        loop = [make(kind, "block_tridiag", s).log_prob(value) for s in scales]
        want = structured.log_prob(value)
        return (batch, expanded.log_prob(jnp.stack([value] * 2))), (jnp.stack(loop), 2 * want)

    got, want = both(make(kind, "block_tridiag"), jnp.asarray([1.0, 2.0]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **TIGHT), got, want)


def test_nuts_finds_the_exact_posterior():
    prior = make("precision", "block_tridiag")
    y, noise = jnp.sin(jnp.arange(6.0)), 0.5

    def model():
        x = numpyro.sample("x", prior)
        with numpyro.plate("data", N):
            numpyro.sample("y", dist.Normal(x, noise), obs=y)

    mcmc = MCMC(NUTS(model), num_warmup=200, num_samples=800, progress_bar=False)
    mcmc.run(jax.random.key(0))
    draws = np.asarray(mcmc.get_samples()["x"])
    precision = prior.precision.as_matrix() + jnp.eye(N) / noise**2
    mean = jnp.linalg.solve(precision, prior.precision @ prior.loc + y / noise**2)
    error = draws.std(0) / np.sqrt(effective_sample_size(draws[None]))
    assert np.all(np.abs(draws.mean(0) - mean) < 5 * error)
    np.testing.assert_allclose(draws.var(0), np.diag(jnp.linalg.inv(precision)), rtol=0.3)


def test_nuts_moves_what_the_operator_is_made_of():
    # A site whose covariance is random itself: gradients go through the operator.
    def model():
        scale = numpyro.sample("scale", dist.HalfNormal(1.0))
        covariance = LowRankPlusDiag(scale * FACTOR, jnp.full(N, 0.1))
        with numpyro.plate("rows", 20):
            numpyro.sample("y", StructuredNormal(jnp.zeros(N), covariance), obs=rows)

    truth = StructuredNormal(jnp.zeros(N), LowRankPlusDiag(0.7 * FACTOR, jnp.full(N, 0.1)))
    rows = truth.sample(jax.random.key(1), (20,))
    mcmc = MCMC(NUTS(model), num_warmup=100, num_samples=100, progress_bar=False)
    mcmc.run(jax.random.key(0))
    scale = np.asarray(mcmc.get_samples()["scale"])
    assert abs(scale.mean() - 0.7) < 5 * scale.std()
    assert 0 < scale.std() < 0.2


@pytest.mark.errors
def test_bad_input_is_named():
    covariance, loc = Diag(jnp.ones(N), psd), jnp.zeros(N)
    with pytest.raises(ValueError, match="one of covariance and precision, not both or none"):
        StructuredNormal(loc)
    with pytest.raises(ValueError, match="one of covariance and precision, not both or none"):
        StructuredNormal(loc, covariance, covariance)
    with pytest.raises(ValueError, match=r"loc must have shape \(6,\), got \(5,\)"):
        StructuredNormal(loc[:5], covariance)
    with pytest.raises(ValueError, match="loc is float32 and precision holds float64"):
        StructuredNormal(loc.astype(jnp.float32), precision=covariance)
    with pytest.raises(ValueError, match="StructuredNormal: precision needs a positive semi-def"):
        StructuredNormal(loc, precision=Diag(jnp.ones(N)))
    distribution = StructuredNormal(loc, covariance)
    with pytest.raises(ValueError, match=r"value must have shape \(..., 6\), got \(6, 1\)"):
        distribution.log_prob(loc[:, None])
    one = jnp.ones(1)
    with pytest.raises(ValueError, match=r"index must be in 0, ..., 5, got 6"):
        distribution.condition([6], one)
    with pytest.raises(ValueError, match=r"index must be in 0, ..., 5, got -1"):
        distribution.condition([-1], one)
    with pytest.raises(ValueError, match="index holds 2 more than once"):
        distribution.condition([2, 1, 2], jnp.ones(3))
    for number in (0, 6):
        with pytest.raises(
            ValueError, match=f"between 1 and 5 components can be given, got {number}"
        ):
            distribution.condition(range(number), jnp.ones(number))
    with pytest.raises(ValueError, match="np.flatnonzero"):
        distribution.condition([True] * 6, jnp.ones(6))
    with pytest.raises(ValueError, match="index is traced"):
        jax.jit(lambda index: distribution.condition(index, one).loc)(jnp.asarray([1]))
    with pytest.raises(ValueError, match=r"shape \(1,\) and type float64, got \(2,\) and float64"):
        distribution.condition([1], jnp.ones(2))


@pytest.mark.errors
def test_wrong_kinds_of_operator_are_named():
    with pytest.raises((ValueError, TypeError), match="covariance"):
        StructuredNormal(jnp.zeros(N), jnp.eye(N))


def test_density_is_nan_where_a_dense_covariance_is_not_definite():
    def log_prob(scale):
        matrix = jnp.array([[1.0, 1.0], [1.0, 1.0]]) * scale + jnp.diag(jnp.array([0.0, -0.5]))
        distribution = StructuredNormal(jnp.zeros(2), Dense(matrix, psd))
        return distribution.log_prob(jnp.ones(2))

    assert jnp.isnan(jax.jit(jax.value_and_grad(log_prob))(1.0)[0])
    with pytest.raises(Exception, match="not positive definite"):
        indefinite = jnp.diag(jnp.array([1.0, -1.0]))
        jax.block_until_ready(jax.jit(lambda m: Dense(m, psd).logdet())(indefinite))
