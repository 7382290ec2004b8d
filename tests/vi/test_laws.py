"""Distributions of ours as NumPyro distributions: strategies, one-hot vectors, repaired ones."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions.kl import kl_divergence

from bayesjx import vi
from bayesjx.distributions import BernoulliLogits, Normal, OneHotCategorical, repaired

# Named constructors of batch shape (3,), with a twin of NumPyro's and values to score.
LOGITS = np.array([-0.7, 0.0, 1.3])
TABLE = {
    "enum Bernoulli": (
        lambda p: vi.enum(dist.Bernoulli(logits=p)),
        lambda p: dist.Bernoulli(probs=jax.nn.sigmoid(p)),
        np.array([0, 1, 1]),
    ),
    "reinforce Normal": (
        lambda p: vi.reinforce(dist.Normal(p, jnp.exp(p))),
        lambda p: dist.Normal(p, jnp.exp(p)),
        np.array([0.3, -1.0, 2.0]),
    ),
    "reparam Gamma": (
        lambda p: vi.reparam(dist.Gamma(jnp.exp(p), 2.0)),
        lambda p: dist.Gamma(jnp.exp(p), 2.0),
        np.array([0.3, 1.0, 2.0]),
    ),
    "reinforce Dirichlet": (
        lambda p: vi.reinforce(dist.Dirichlet(jnp.exp(p)[:, None] * jnp.ones(4, p.dtype))),
        lambda p: dist.Dirichlet(jnp.exp(p)[:, None] * jnp.ones(4, p.dtype)),
        np.array([[0.1, 0.2, 0.3, 0.4]] * 3),
    ),
    "mvd Poisson": (
        lambda p: vi.mvd(dist.Poisson(jnp.exp(p))),
        lambda p: dist.Poisson(jnp.exp(p)),
        np.array([0, 1, 4]),
    ),
    "one-hot": (
        lambda p: OneHotCategorical(logits=p[:, None] * jnp.arange(4, dtype=p.dtype)),
        None,
        np.eye(4)[[0, 3, 1]],
    ),
    "enum one-hot": (
        lambda p: vi.enum(OneHotCategorical(logits=p[:, None] * jnp.arange(4, dtype=p.dtype))),
        None,
        np.eye(4)[[0, 3, 1]],
    ),
    "repaired Bernoulli": (
        lambda p: BernoulliLogits(p),
        lambda p: dist.Bernoulli(probs=jax.nn.sigmoid(p)),
        np.array([0, 1, 1]),
    ),
    "repaired Normal": (
        lambda p: Normal(p, jnp.exp(p)),
        lambda p: dist.Normal(p, jnp.exp(p)),
        np.array([0.3, -1.0, 2.0]),
    ),
}
CASES = [name for name in TABLE]


def make(name, dtype=jnp.float64):
    build, twin, value = TABLE[name]
    value = jnp.asarray(value)
    value = value.astype(dtype) if jnp.issubdtype(value.dtype, jnp.floating) else value
    return build, twin, value, jnp.asarray(LOGITS, dtype)


def one_hot_log_prob(p, value):
    return jnp.sum(value * jax.nn.log_softmax(p[:, None] * jnp.arange(4)), axis=-1)


@pytest.mark.parametrize("name", CASES)
def test_vmap_and_pytree_round_trip(name):
    build, _, value, p = make(name)
    want = build(p).log_prob(value)
    leaves, treedef = jax.tree.flatten(build(p))
    again = jax.tree.unflatten(treedef, leaves)
    np.testing.assert_allclose(again.log_prob(value), want, rtol=1e-12)
    assert type(again) is type(build(p))
    mapped = jax.vmap(lambda d, v: d.log_prob(v), (0, None))(
        jax.vmap(build)(jnp.stack([p, p + 0.1])), value
    )
    np.testing.assert_allclose(mapped[0], want, rtol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_expand_mask_and_to_event(name):
    build, _, value, p = make(name)
    d = build(p)
    base = d.log_prob(value)
    expanded = d.expand((5, 3))
    assert expanded.batch_shape == (5, 3) and expanded.event_shape == d.event_shape
    np.testing.assert_allclose(expanded.log_prob(value), jnp.broadcast_to(base, (5, 3)), rtol=1e-12)
    mask = jnp.array([True, False, True])
    np.testing.assert_allclose(d.mask(mask).log_prob(value), base * mask, rtol=1e-12)
    event = d.to_event(1)
    assert event.batch_shape == () and event.event_shape == (3, *d.event_shape)
    np.testing.assert_allclose(event.log_prob(value), base.sum(), rtol=1e-12)


@pytest.mark.parametrize("wrap", ["expand", "mask", "to_event"])
@pytest.mark.parametrize("around", [False, True], ids=["method", "class"])
def test_no_wrapper_hides_a_strategy(wrap, around):
    """Both the method and NumPyro's own wrapper classes around ours keep it in force."""
    base = vi.enum(dist.Bernoulli(logits=jnp.zeros(3)))
    d = {
        ("expand", False): lambda: base.expand((2, 3)),
        ("mask", False): lambda: base.mask(jnp.ones(3, bool)),
        ("to_event", False): lambda: base.to_event(1),
        ("expand", True): lambda: dist.ExpandedDistribution(base, (2, 3)),
        ("mask", True): lambda: dist.MaskedDistribution(base, jnp.ones(3, bool)),
        ("to_event", True): lambda: dist.Independent(base, 1),
    }[wrap, around]()
    objective = vi.expectation(lambda: vi.simulate(lambda: numpyro.sample("b", d))[1])
    (row,) = objective.describe()
    assert (row.strategy, row.distribution) == ("Enum", "BernoulliLogits")


def test_divergences_see_through_strategies():
    p, q = dist.Normal(0.3, 1.2), dist.Normal(-0.1, 0.7)
    want = kl_divergence(p, q)
    for pair in ((vi.mvd(p), q), (p, vi.mvd(q)), (vi.reinforce(p), vi.mvd(q))):
        np.testing.assert_allclose(kl_divergence(*pair), want)


def test_repair_reaches_inside_wrappers():
    d = dist.Bernoulli(logits=jnp.zeros((2, 3))).mask(jnp.ones((2, 3), bool)).to_event(1)
    slope = jax.grad(
        lambda a: (
            repaired(dist.Bernoulli(logits=a).expand((2, 3)).mask(True).to_event(1))
            .log_prob(jnp.ones((2, 3)))
            .sum()
        )
    )(jnp.zeros(()))
    np.testing.assert_allclose(slope, 3.0)
    assert type(repaired(d)) is type(d)
    untouched = dist.Poisson(2.0)
    assert repaired(untouched) is untouched
