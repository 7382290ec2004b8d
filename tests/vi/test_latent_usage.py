"""Active units, collapse rates and information of guides whose answers are known."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy.integrate import quad

from bayesjx import vi
from bayesjx.distributions import OneHotCategorical

N = 211
LOC = jnp.stack([jnp.linspace(-1.5, 1.5, N), 0.05 * jnp.sin(jnp.arange(N)), jnp.zeros(N)], axis=1)
SCALE = jnp.array([0.3, 1.0, 0.8])


def model(loc, scale):
    with numpyro.plate("data", N):
        numpyro.sample("z", dist.Normal(jnp.zeros(3, loc.dtype), 1.0).to_event(1))


def guide(loc, scale):
    with numpyro.plate("data", N):
        numpyro.sample("z", vi.reinforce(dist.Normal(loc, scale)).to_event(1))


def test_normal_guide_in_closed_form(getkey, dtype, tol):
    loc, scale = LOC.astype(dtype), SCALE.astype(dtype)
    got = jax.jit(lambda key: vi.latent_usage(key, model, guide, loc, scale))(getkey())
    kl = 0.5 * (LOC**2 + SCALE**2 - 1) - jnp.log(SCALE)
    np.testing.assert_allclose(got.variance, LOC.var(axis=0), **tol)
    np.testing.assert_allclose(got.kl, kl.mean(axis=0), **tol)
    np.testing.assert_allclose(got.collapse_rate, (kl < 0.05).mean(axis=0), **tol)
    np.testing.assert_array_equal(got.active, [True, False, False])
    np.testing.assert_array_equal(got.collapsed, [False, True, True])
    assert got.num_active == vi.active_units(loc) == 1
    assert got.kl.dtype == got.mutual_information.dtype == dtype
    assert "1 of 3 active" in str(got) and "collapsed" in str(got)


def test_information_of_a_normal_guide(getkey):
    # Dimension 0 alone informs: entropy of a uniform mixture of normals minus that of one.
    means, scale = np.asarray(LOC[:, 0]), 0.3

    def minus_entropy(z):
        p = np.exp(-0.5 * ((z - means) / scale) ** 2).mean() / (scale * np.sqrt(2 * np.pi))
        return p * np.log(p)

    entropy = -quad(minus_entropy, -4, 4)[0]
    exact = entropy - 0.5 * np.log(2 * np.pi * np.e * scale**2)
    values = [
        vi.latent_usage(getkey(), model, guide, LOC, SCALE).mutual_information for _ in range(8)
    ]
    error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values) - exact) < 5 * error + 0.005  # dimension 1 adds a little


def test_a_guide_that_ignores_the_data_has_no_information(getkey):
    got = vi.latent_usage(getkey(), model, guide, 0 * LOC, jnp.ones(3))
    assert got.collapsed.all() and not got.active.any()
    np.testing.assert_allclose(got.mutual_information, 0, atol=1e-12)


def test_the_prior_may_be_conditional(getkey):
    def conditional(loc, scale):
        with numpyro.plate("data", N):
            numpyro.sample("z", dist.Normal(loc, scale).to_event(1))

    got = vi.latent_usage(getkey(), conditional, guide, LOC, SCALE)
    np.testing.assert_allclose(got.kl, 0, atol=1e-12)
    assert got.collapsed.all() and got.active[0]


def test_distributions_without_closed_forms_are_sampled(getkey):
    def flow(loc, scale):
        with numpyro.plate("data", N):
            base = dist.Normal(jnp.zeros(3), 1.0)
            shift = dist.transforms.AffineTransform(loc, scale)
            numpyro.sample("z", dist.TransformedDistribution(base, shift).to_event(1))

    got = vi.latent_usage(getkey(), model, flow, LOC, SCALE, num_draws=400)
    want = vi.latent_usage(getkey(), model, guide, LOC, SCALE)
    np.testing.assert_allclose(got.kl, want.kl, atol=0.02)
    np.testing.assert_allclose(got.variance, want.variance, atol=0.01)


def test_one_hot_sites_share_a_divergence(getkey):
    logits = jnp.stack([jnp.linspace(-3, 3, N), jnp.zeros(N)], axis=1)

    def program(logits):
        with numpyro.plate("data", N):
            numpyro.sample("c", OneHotCategorical(logits=logits))

    got = vi.latent_usage(getkey(), lambda x: program(0 * x), program, logits)
    assert got.variance.shape == (2,) and got.kl.shape == (1,)
    assert str(got)


@pytest.mark.errors
def test_bad_input_is_named(getkey):
    def two():
        numpyro.sample("a", dist.Normal(0.0, 1.0))
        numpyro.sample("b", dist.Normal(0.0, 1.0))

    def index():
        with numpyro.plate("data", N):
            numpyro.sample("c", dist.Categorical(probs=jnp.array([0.5, 0.5])))

    with pytest.raises(ValueError, match=r"\['a', 'b'\]; choose one"):
        vi.latent_usage(getkey(), two, two)
    with pytest.raises(ValueError, match="there is no 'c'"):
        vi.latent_usage(getkey(), two, two, site="c")
    with pytest.raises(ValueError, match="scalar value"):
        vi.latent_usage(getkey(), two, two, site="a")
    with pytest.raises(ValueError, match="OneHotCategorical"):
        vi.latent_usage(getkey(), index, index)
    with pytest.raises(ValueError, match=r"\(n, k\)"):
        vi.active_units(jnp.zeros(3))
