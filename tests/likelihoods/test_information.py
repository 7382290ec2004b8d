"""Observed and Fisher information of likelihoods, by closed forms and sums over observations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro import distributions as dist
from scipy import special

from bayesjx import likelihoods, ops

RNG = np.random.default_rng(0)
N, P = 5, 3
ONE, SEVERAL = RNG.normal(size=N), RNG.normal(size=(N, P))


def sigmoid(f):
    return 1 / (1 + np.exp(-f))


def blocks(entries):
    """A block-diagonal matrix of blocks `(n, p, p)`."""
    n, p = entries.shape[:2]
    out = np.zeros((n, p, n, p))
    out[np.arange(n), :, np.arange(n)] = entries
    return out.reshape(n * p, n * p)


def softmax_blocks(f):
    p = special.softmax(f, axis=-1)
    return p[:, :, None] * np.eye(p.shape[1]) - p[:, :, None] * p[:, None]


LABELS = RNG.integers(P, size=N)
BITS = RNG.integers(2, size=(N, P))
COUNTS = RNG.poisson(3, size=N)
NUMBERS = RNG.normal(size=(N, P))


def scaled_blocks(y, f):
    """Minus the Hessian for a normal with mean f0 and log standard deviation f1."""
    inverse = np.exp(-2 * f[:, 1])
    off = 2 * (y - f[:, 0]) * inverse
    square = 2 * (y - f[:, 0]) ** 2 * inverse
    return np.stack([np.stack([inverse, off], 1), np.stack([off, square], 1)], 1)


def gamma_fisher(f):
    """Of concentration and rate, exponentials of two latents each."""
    a = np.exp(f[:, 0])
    return np.stack([np.stack([a**2 * special.polygamma(1, a), -a], 1), np.stack([-a, a], 1)], 1)


def beta_fisher(f):
    a, b = np.exp(f[:, 0]), np.exp(f[:, 1])
    both = special.polygamma(1, a + b)
    first, second = special.polygamma(1, a) - both, special.polygamma(1, b) - both
    rows = [np.stack([a**2 * first, -a * b * both], 1), np.stack([-a * b * both, b**2 * second], 1)]
    return np.stack(rows, 1)


def scaled(f):
    return dist.Normal(f[..., 0], jnp.exp(f[..., 1]))


E = np.exp
BERNOULLI = sigmoid(ONE) * sigmoid(-ONE)
# Likelihood, values, observations, the observed and the Fisher information.
ROWS = {
    "gaussian": (likelihoods.Gaussian(0.3), SEVERAL, NUMBERS, np.eye(N * P) / 0.3, None),
    "categorical": (
        lambda f: dist.Categorical(logits=f), SEVERAL, LABELS,
        blocks(softmax_blocks(SEVERAL)), None,
    ),
    "tempered": (
        lambda f: dist.Categorical(logits=f / 2), SEVERAL, LABELS,
        blocks(softmax_blocks(SEVERAL / 2)) / 4, None,
    ),
    "shares": (
        lambda f: dist.Categorical(probs=jax.nn.softmax(f)), SEVERAL, LABELS,
        blocks(softmax_blocks(SEVERAL)), None,
    ),
    "bernoulli": (lambda f: dist.Bernoulli(logits=f), ONE, BITS[:, 0], np.diag(BERNOULLI), None),
    "bits": (
        lambda f: dist.Bernoulli(probs=jax.nn.sigmoid(f)), SEVERAL, BITS,
        np.diag((sigmoid(SEVERAL) * sigmoid(-SEVERAL)).reshape(-1)), None,
    ),
    "binomial": (lambda f: dist.Binomial(9, logits=f), ONE, COUNTS, np.diag(9 * BERNOULLI), None),
    "poisson": (lambda f: dist.Poisson(jnp.exp(f)), ONE, COUNTS, np.diag(E(ONE)), None),
    "exponential": (
        lambda f: dist.Exponential(jnp.exp(f)), ONE, E(NUMBERS[:, 0]),
        np.diag(E(ONE + NUMBERS[:, 0])), np.eye(N),
    ),
    "scale": (
        scaled, SEVERAL[:, :2], NUMBERS[:, 0],
        blocks(scaled_blocks(NUMBERS[:, 0], SEVERAL)),
        blocks(np.stack([[np.diag([v, 2])] for v in E(-2 * SEVERAL[:, 1])]).reshape(N, 2, 2)),
    ),
    "gamma": (
        lambda f: dist.Gamma(jnp.exp(f[..., 0]), jnp.exp(f[..., 1])), SEVERAL[:, :2],
        E(NUMBERS[:, 0]), None, blocks(gamma_fisher(SEVERAL)),
    ),
    "beta": (
        lambda f: dist.Beta(jnp.exp(f[..., 0]), jnp.exp(f[..., 1])), SEVERAL[:, :2],
        sigmoid(NUMBERS[:, 0]), None, blocks(beta_fisher(SEVERAL)),
    ),
    "laplace": (lambda f: dist.Laplace(f, 0.5), ONE, None, None, np.eye(N) / 0.25),
    "cauchy": (
        lambda f: dist.Cauchy(f, 0.5), ONE, NUMBERS[:, 0],
        np.diag(2 * (0.25 - (NUMBERS[:, 0] - ONE) ** 2) / (0.25 + (NUMBERS[:, 0] - ONE) ** 2) ** 2),
        np.eye(N) / 0.5,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_it_is_that_of_the_formula(name):
    likelihood, f, y, observed, fisher = ROWS[name]
    fisher = observed if fisher is None else fisher
    for dtype, rtol in ((jnp.float64, 1e-10), (jnp.float32, 1e-4)):

        @jax.jit
        def run(f, y=y, dtype=dtype):
            found = [likelihoods.fisher_information(likelihood, f)]
            if y is not None:
                y = jnp.asarray(y, dtype) if np.issubdtype(y.dtype, np.floating) else y
                found.append(likelihoods.observed_information(likelihood, f, y))
            return [operator.as_matrix() for operator in found]

        found = run(jnp.asarray(f, dtype))
        scale = np.abs(fisher).max()
        np.testing.assert_allclose(found[0], fisher, atol=rtol * scale)
        assert found[0].dtype == dtype
        if observed is not None:
            scale = np.abs(observed).max()
            np.testing.assert_allclose(found[1], observed, atol=rtol * scale)


def test_no_block_of_classes_by_classes_is_formed():
    f, y = jnp.zeros((2, 70_000)), jnp.zeros(2, int)
    likelihood = lambda f: dist.Categorical(logits=f)  # noqa: E731
    found = likelihoods.observed_information(likelihood, f, y)
    assert isinstance(found, ops.CategoricalCovariance)
    assert abs(found.mv(jnp.ones(f.size))).max() < 1e-12


def test_draws_where_there_is_no_closed_form():
    df, f = 5.0, jnp.asarray(ONE)
    likelihood = lambda f: dist.StudentT(df, f, 0.7)  # noqa: E731
    num = 1000
    found = likelihoods.fisher_information(likelihood, f, key=jax.random.key(0), num_samples=num)
    want = (df + 1) / (df + 3) / 0.49
    # The score is bounded by (df + 1) / (2 sqrt(df) scale), so its square spreads by less.
    error = ((df + 1) / (2 * df**0.5 * 0.7)) ** 2 / num**0.5
    assert np.all(np.abs(found.diag() - want) < 5 * error)


@pytest.mark.errors
def test_bad_input_is_named():
    f, y = jnp.asarray(SEVERAL), jnp.asarray(LABELS)
    categorical = lambda f: dist.Categorical(logits=f)  # noqa: E731
    with pytest.raises(ValueError, match="outside of the support"):
        likelihoods.observed_information(categorical, f, y + P)
    with pytest.raises(RuntimeError, match="outside of the support"):
        jax.block_until_ready(
            jax.jit(lambda y: likelihoods.observed_information(categorical, f, y).probs)(y + P)
        )
    with pytest.raises(ValueError, match="y has shape"):
        likelihoods.observed_information(categorical, f, y[:3])
    with pytest.raises(ValueError, match="no second derivatives.*Laplace"):
        likelihoods.observed_information(lambda f: dist.Laplace(f, 1.0), f[:, 0], f[:, 1])
    with pytest.raises(ValueError, match="StudentT has no closed form here, so that a key"):
        likelihoods.fisher_information(lambda f: dist.StudentT(3.0, f), f)
    with pytest.raises(ValueError, match="f must be real floating-point"):
        likelihoods.fisher_information(categorical, y)
    with pytest.raises(ValueError, match="f must be finite"):
        likelihoods.fisher_information(categorical, jnp.nan * f)
    with pytest.raises(TypeError, match="must be a function from values"):
        likelihoods.fisher_information(lambda f: f, f)
    with pytest.raises(ValueError, match="num_samples must be at least 1"):
        student = lambda f: dist.StudentT(3.0, f)  # noqa: E731
        likelihoods.fisher_information(student, f, key=jax.random.key(0), num_samples=0)
