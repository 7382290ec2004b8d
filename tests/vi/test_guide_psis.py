"""Pareto k-hat of model against guide."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from bayesjx import vi
from bayesjx.diagnostics import psis

N = 7
Y = jnp.linspace(-1.0, 2.0, N)


def model(scale):
    with numpyro.plate("data", N):
        z = numpyro.sample("z", dist.Normal(0.0, jnp.ones((), scale.dtype)))
        numpyro.sample("y", dist.Normal(z, jnp.ones((), scale.dtype)), obs=Y.astype(scale.dtype))


def guide(scale):
    """Exact at scale one, narrower or wider elsewhere."""
    with numpyro.plate("data", N):
        loc = Y.astype(scale.dtype) / 2
        numpyro.sample("z", dist.Normal(loc, scale * jnp.sqrt(jnp.asarray(0.5, scale.dtype))))


ELBO = vi.elbo(model, guide)


def test_an_exact_guide_is_reliable_and_a_narrow_one_is_not(getkey, dtype):
    run = jax.jit(lambda key, scale: vi.psis(key, ELBO, scale, num_draws=1000))
    exact, narrow, wide = (run(getkey(), jnp.asarray(s, dtype)) for s in (1.0, 0.5, 1.1))
    assert exact.reliable
    np.testing.assert_allclose(exact.ess, 1000, rtol=1e-3)
    assert narrow.k_hat > 0.7
    assert wide.reliable and wide.k_hat.dtype == dtype


def test_k_hat_of_a_normal_guide_follows_the_ratio_of_scales(getkey):
    # p/q of two normals of variances 1 and s^2 < 1 has tail shape 1 - s^2.
    def target():
        numpyro.sample("z", dist.Normal(0.0, 1.0))

    def narrow():
        numpyro.sample("z", dist.Normal(0.0, 0.6))

    k_hat = vi.psis(getkey(), vi.elbo(target, narrow), num_draws=50_000).k_hat
    assert abs(k_hat - (1 - 0.6**2)) < 0.25  # the tail settles slowly


@pytest.mark.compiles(500, "weights outside of jit, where users ask for them")
def test_plates_have_one_k_hat_per_element(getkey):
    key = getkey()
    result = vi.psis(key, ELBO, jnp.array(0.6), num_draws=500, plate="data", batch_size=100)
    assert result.k_hat.shape == (N,) and result.log_weights.shape == (N, 500)
    joint = vi.psis(key, ELBO, jnp.array(0.6), num_draws=500)
    raw = jnp.sum(result.log_weights, axis=0)
    assert joint.k_hat > result.k_hat.max() or np.isfinite(raw).all()


def test_weights_are_those_of_the_draws(getkey):
    key, scale = getkey(), jnp.array(0.8)
    got = vi.psis(key, ELBO, scale, num_draws=200)
    values = jax.vmap(lambda k: ELBO.estimate(k, scale))(jax.random.split(key, 200))
    want = psis(values)
    for left, right in zip(got, want, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-9)


@pytest.mark.errors
def test_bad_input_is_named(getkey):
    def subsampled(scale):
        with numpyro.plate("data", N, subsample_size=3):
            numpyro.sample("z", dist.Normal(0.0, scale))

    def outside(scale):
        numpyro.sample("m", dist.Normal(0.0, scale))

    with pytest.raises(TypeError, match="Objective"):
        vi.psis(getkey(), lambda: 0.0)
    with pytest.raises(ValueError, match="num_draws"):
        vi.psis(getkey(), ELBO, jnp.array(1.0), num_draws=0)
    with pytest.raises(ValueError, match="run them on all data"):
        vi.psis(getkey(), vi.elbo(subsampled, subsampled), jnp.array(1.0))
    with pytest.raises(ValueError, match="outside plate 'data'"):
        vi.psis(getkey(), vi.elbo(outside, outside), jnp.array(1.0), plate="data")
