"""Posteriors of networks as samples, against SciPy's distributions of each network."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import special, stats

from bayesjx import bnn, likelihoods

KEY = jax.random.key(7)
S, M, D, P = 5, 7, 3, 4
RNG = np.random.default_rng(0)
W, W_ALL, X = RNG.normal(size=(S, D)), RNG.normal(size=(S, P, D)), RNG.normal(size=(M, D))
LOG_WEIGHTS = RNG.normal(size=S)
WEIGHTS = special.softmax(LOG_WEIGHTS)
NOISE = RNG.uniform(0.2, 2.0, S)
Y = RNG.normal(size=M)


class Affine(eqx.Module):
    """A network of one or several outputs with an activation, which is no array."""

    weight: jax.Array
    shift: jax.Array
    activation: object

    def __call__(self, x):
        return self.activation(self.weight @ x) + self.shift


def stacked(weights, dtype):
    return Affine(jnp.asarray(weights, dtype), jnp.full(S, 0.1, dtype), jnp.tanh)


def f_of(weights):
    return np.tanh(np.einsum("s...d,md->sm...", weights, X)) + 0.1


F, F_ALL = f_of(W), f_of(W_ALL)
LABELS = np.arange(M) % P


def mixed(log_prob):
    return special.logsumexp(log_prob + LOG_WEIGHTS[:, None], axis=0) - special.logsumexp(
        LOG_WEIGHTS
    )


def moments(means, variances):
    mean = np.tensordot(WEIGHTS, means, axes=1)
    return mean, np.tensordot(WEIGHTS, variances + (means - mean) ** 2, axes=1)


# A likelihood, whether each network has its own, weights, observations; their log densities under
# the networks, their means and variances where the mixture has them.
ROWS = {
    "gaussian": lambda t: (
        (likelihoods.Gaussian(t(0.3)), False, W, Y),
        stats.norm(F, np.sqrt(0.3)).logpdf(Y),
        (F, 0.3 + 0 * F),
    ),
    "each gaussian": lambda t: (
        (eqx.filter_vmap(likelihoods.Gaussian)(t(NOISE)), True, W, Y),
        stats.norm(F, np.sqrt(NOISE)[:, None]).logpdf(Y),
        (F, NOISE[:, None] + 0 * F),
    ),
    "several outputs": lambda t: (
        (likelihoods.Gaussian(t(0.3)), False, W_ALL, F_ALL[0] + 0.5),
        stats.norm(F_ALL, np.sqrt(0.3)).logpdf(F_ALL[0] + 0.5).sum(axis=-1),
        (F_ALL, 0.3 + 0 * F_ALL),
    ),
    "counts": lambda t: (
        (likelihoods.PoissonExp(), False, W, LABELS),
        stats.poisson(np.exp(F)).logpmf(LABELS),
        (np.exp(F), np.exp(F)),
    ),
    "flags": lambda t: (
        (lambda f: dist.Bernoulli(logits=f), False, W, LABELS % 2),
        stats.bernoulli(special.expit(F)).logpmf(LABELS % 2),
        None,
    ),
    "classes": lambda t: (
        (lambda f: dist.Categorical(logits=f), False, W_ALL, LABELS),
        np.take_along_axis(special.log_softmax(F_ALL, -1), LABELS[None, :, None], -1)[..., 0],
        None,
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_predictions_are_mixtures_over_networks(name, dtype, tol):
    t = lambda x: jnp.asarray(x, dtype)  # noqa: E731
    (likelihood, each, weights, y), log_probs, of_y = ROWS[name](t)
    posterior = bnn.NetworkSamples(
        stacked(weights, dtype), likelihood, log_weights=LOG_WEIGHTS, likelihood_each=each
    )

    @jax.jit
    def answers(posterior, x):
        predicted = posterior.predict(x)
        slope = jax.grad(lambda x: jnp.sum(posterior.log_predictive_prob(x, y)))(x)
        shifted = jax.vmap(lambda x: posterior.mean(x))(jnp.stack([x, 2 * x]))
        own = predicted.mean, predicted.variance, predicted.sample(KEY, (3,))
        values = posterior.log_predictive_prob(x, y), *posterior.moments(x)
        return values, own, posterior.covariance(x), slope, shifted

    x = t(X)
    (log_prob, mean, variance), own, covariance, slope, shifted = answers(posterior, x)
    f = F if weights is W else F_ALL
    want, want_var = moments(f, 0 * f)
    np.testing.assert_allclose(log_prob, mixed(log_probs), **tol)
    np.testing.assert_allclose(mean, want, **tol)
    np.testing.assert_allclose(variance, want_var, **tol)
    off = (f - want).reshape(S, M, -1)
    full = np.einsum("s,smp,snp->pmn", WEIGHTS, off, off)
    np.testing.assert_allclose(covariance, full[0] if f.ndim == 2 else full, **tol)
    np.testing.assert_allclose(shifted[0], mean, **tol)
    if of_y is not None:
        for found, known in zip(own[:2], moments(*of_y), strict=True):
            np.testing.assert_allclose(found, known, **tol)
    assert own[2].shape == (3, *np.shape(y)) and log_prob.dtype == mean.dtype == dtype
    assert own[2].dtype == (
        dtype if np.issubdtype(np.asarray(y).dtype, np.floating) else own[2].dtype
    )
    if dtype == jnp.float64:
        step = 1e-6 * np.ones_like(X)
        ends = [answers(posterior, t(X + sign * step))[0][0].sum() for sign in (1, -1)]
        np.testing.assert_allclose(slope.sum(), (ends[0] - ends[1]) / 2e-6, rtol=1e-5, atol=1e-7)


def test_draws_are_those_of_the_mixture():
    noise = eqx.filter_vmap(likelihoods.Gaussian)(jnp.asarray(NOISE))
    posterior = bnn.NetworkSamples(
        stacked(W, float), noise, log_weights=LOG_WEIGHTS, likelihood_each=True
    )
    shared = bnn.NetworkSamples(stacked(W, float), likelihoods.Gaussian(0.3))
    n = 4000
    y = posterior.predict(X).sample(KEY, (n,))
    mean, variance = moments(F, NOISE[:, None] + 0 * F)
    assert np.all(np.abs(y.mean(axis=0) - mean) < 5 * np.sqrt(variance / n))
    error = np.sqrt(np.var((y - mean) ** 2, axis=0) / n)
    assert np.all(np.abs(np.var(y, axis=0) - variance) < 5 * error)
    y = shared.predict(X).sample(KEY, (n,))
    mean = F.mean(axis=0)
    variance = 0.3 + F.var(axis=0)
    assert np.all(np.abs(y.mean(axis=0) - mean) < 5 * np.sqrt(variance / n))
    f = np.asarray(posterior.sample(KEY, X, (n,)))  # whole networks
    which = np.argmin(np.abs(f[:, None] - F).sum(axis=-1), axis=1)
    np.testing.assert_allclose(f, F[which], rtol=1e-12)
    share = np.bincount(which, minlength=S) / n
    assert np.all(np.abs(share - WEIGHTS) < 5 * np.sqrt(WEIGHTS * (1 - WEIGHTS) / n))
    assert posterior.sample(KEY, X).shape == (M,)


@pytest.mark.parametrize("chunk_size", [1, 2, 11])
def test_chunks_change_nothing(chunk_size):
    whole = bnn.NetworkSamples(stacked(W_ALL, float))
    parts = bnn.NetworkSamples(stacked(W_ALL, float), chunk_size=chunk_size)
    np.testing.assert_allclose(parts.values(X), whole.values(X), rtol=1e-13)
    assert parts.num_samples == S and parts.values(X).shape == (S, M, P)


def test_lists_and_shared_arrays_and_inference_mode():
    networks = [Affine(jnp.asarray(w), jnp.asarray(0.1), jnp.tanh) for w in W]
    found = bnn.NetworkSamples(networks)
    np.testing.assert_allclose(found.values(X), F, rtol=1e-13)
    np.testing.assert_array_equal(found.network(2).weight, W[2])
    only = Affine(jnp.asarray(W), None, None)
    rest = Affine(None, jnp.asarray(0.1), jnp.tanh)
    shared = bnn.NetworkSamples(only, shared=rest)
    np.testing.assert_allclose(shared.values(X), F, rtol=1e-13)
    assert shared.network(0)(X[0]) == networks[0](X[0])
    dropped = eqx.nn.Sequential([eqx.nn.Dropout(0.5), eqx.nn.Linear(D, 1, key=KEY)])
    many = bnn.NetworkSamples([dropped, dropped])
    np.testing.assert_allclose(many.values(X)[0], many.values(X)[1])
    again = jax.jit(lambda posterior: posterior)(found)
    assert eqx.tree_equal(again.members, found.members)


@pytest.mark.errors
def test_bad_samples_are_named():
    raises = lambda match: pytest.raises(ValueError, match=match)  # noqa: E731
    with raises("at least one, got none"):
        bnn.NetworkSamples([])
    one = Affine(jnp.ones(D), jnp.ones(()), jnp.tanh)
    with raises("number 1 differs from the first"):
        bnn.NetworkSamples([one, Affine(jnp.ones(D), jnp.ones(()), jnp.sin)])
    with raises("first axis of the same length"):
        bnn.NetworkSamples(one)
    many = stacked(W, float)
    with raises("log_weights must have shape .5,."):
        bnn.NetworkSamples(many, log_weights=jnp.zeros(3))
    with raises("log_weights holds NaN"):
        bnn.NetworkSamples(many, log_weights=jnp.full(S, -jnp.inf))
    posterior = bnn.NetworkSamples(many)
    with raises("given no likelihood"):
        posterior.predict(X)
    with raises("do not hold the evidence"):
        posterior.log_evidence()
    with raises("x must hold real inputs"):
        posterior.values(X + 1j)
    with raises("x holds NaN"):
        posterior.mean(X * np.nan)
    with raises("x is empty"):
        posterior.mean(X[:0])
    with raises("fails at an input of shape .2,."):
        posterior.mean(X[:, :2])
    with raises("index must name one of 5"):
        posterior.network(5)
    data = bnn.NetworkSamples(many, lambda f: dist.Normal(f, jnp.ones(M)))
    with raises("does it hold data of each observation"):
        data.predict(X)
    with raises("y must have shape .7,."):
        bnn.NetworkSamples(many, likelihoods.Gaussian(0.1)).log_predictive_prob(X, Y[:3])
    flags = bnn.NetworkSamples(many, lambda f: dist.Bernoulli(logits=f))
    with raises("came out of jax.vmap"):
        jax.vmap(bnn.NetworkSamples(many, likelihoods.Gaussian(0.1)).predict)(X[:2, None]).log_prob(
            0.0
        )
    with raises("outside of the support"):
        flags.log_predictive_prob(X, np.full(M, 2))
    with raises("must return floating-point numbers of shape"):
        bnn.NetworkSamples([Affine(jnp.ones((2, D)), jnp.ones((3, 2)), jnp.tanh)]).mean(X)
