"""Drawing from a fitted guide."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from bayesjx import to_datatree, vi


def guide(loc):
    z = numpyro.sample("z", dist.Normal(loc, 1.0))
    numpyro.sample("extra", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
    with numpyro.plate("n", 3):
        numpyro.sample("b", vi.enum(dist.Bernoulli(logits=z)))


def test_draws_have_the_moments_of_the_guide(getkey):
    draws = jax.jit(lambda key: vi.sample(key, guide, 0.5, num_samples=4000))(getkey())
    assert set(draws) == {"z", "b"} and draws["b"].shape == (4000, 3)
    assert abs(float(draws["z"].mean()) - 0.5) < 5 / np.sqrt(4000)
    want = float(jax.nn.sigmoid(draws["z"]).mean())
    assert np.all(np.abs(draws["b"].mean(0) - want) < 5 * 0.5 / np.sqrt(4000))


def test_draws_become_a_labelled_posterior(getkey):
    draws = vi.sample(getkey(), guide, jnp.array(0.0), num_samples=7)
    tree = to_datatree(draws, dims={"b": ["state"]})
    assert tree["posterior"]["b"].dims == ("chain", "draw", "state")


@pytest.mark.errors
def test_the_number_of_draws_is_positive(getkey):
    with pytest.raises(ValueError, match="num_samples"):
        vi.sample(getkey(), guide, 0.0, num_samples=0)
