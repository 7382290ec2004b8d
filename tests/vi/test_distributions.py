"""Distributions of ours as NumPyro distributions: strategies, one-hot vectors, repaired ones."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from distribution_cases import case, TABLE
from numpyro.distributions.kl import kl_divergence

from bayesjx import vi
from bayesjx.distributions import repaired


@pytest.mark.parametrize("name", TABLE)
def test_vmap_and_pytree_round_trip(name):
    build, _, value, p = case(name)
    want = build(p).log_prob(value)
    leaves, treedef = jax.tree.flatten(build(p))
    again = jax.tree.unflatten(treedef, leaves)
    np.testing.assert_allclose(again.log_prob(value), want, rtol=1e-12)
    assert type(again) is type(build(p))
    mapped = jax.vmap(lambda d, v: d.log_prob(v), (0, None))(
        jax.vmap(build)(jnp.stack([p, p + 0.1])), value
    )
    np.testing.assert_allclose(mapped[0], want, rtol=1e-12)


@pytest.mark.parametrize("name", TABLE)
def test_expand_mask_and_to_event(name):
    build, _, value, p = case(name)
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
    assert (row.strategy, row.distribution) == ("enum", "BernoulliLogits")


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
    untouched = dist.Gumbel(2.0)
    assert repaired(untouched) is untouched
