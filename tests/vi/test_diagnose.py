"""What `fit` says of a step that is not finite: the site that is guilty."""

import re

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import optax
import pytest

from bayesjx import NonFiniteError, vi

pytestmark = pytest.mark.errors

PARAMS = {"loc": jnp.asarray(-0.5), "scale": jnp.asarray(0.1)}


def narrow(p):
    numpyro.sample("w", dist.Normal(p["loc"], p["scale"]))


def half_normal(p):
    w = numpyro.sample("w", dist.HalfNormal(1.0))
    numpyro.sample("y", dist.Normal(0.0, w), obs=1.0)


def bad_scale(p):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(0.0, jnp.sqrt(w - 50)), obs=1.0)


def bad_slope(p):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(jnp.sqrt(0.0 * w) * p["loc"], 1.0), obs=1.0)


def bad_data(p):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Gamma(2.0, jnp.exp(w)), obs=jnp.array([1.0, -2.0]))


def hidden_data(p):
    """What a mask hides may be anything."""
    w = numpyro.sample("w", dist.HalfNormal(1.0))
    distribution = dist.Gamma(2.0, jnp.abs(w)).mask(jnp.array([True, False]))
    numpyro.sample("y", distribution, obs=jnp.array([1.0, -2.0]))


SAYS = {
    half_normal: r"'w' \(HalfNormal\): its log density is -inf.*outside its support \(above 0\)",
    bad_scale: r"site 'y' \(Normal\): its parameter 'scale' has .* nan",
    bad_slope: r"site 'y': the gradient of its log density in params\['loc'\] has 1 non-finite",
    bad_data: r"site 'y' \(Gamma\): its log density is -inf, since . of . values .*check the data",
    hidden_data: r"site 'w' \(HalfNormal\)",
}


@pytest.mark.filterwarnings("ignore:Out-of-support")
@pytest.mark.parametrize("particles", [None, 3], ids=["elbo", "iwelbo"])
@pytest.mark.parametrize("model", SAYS, ids=lambda model: model.__name__)
def test_the_guilty_site_is_named(model, particles):
    bound = vi.iwelbo(model, narrow, particles) if particles else vi.elbo(model, narrow)
    said = bound.diagnose(jax.random.key(0), PARAMS)
    says = SAYS[model]
    if particles and model is bad_slope:  # the bound is one term
        says = says.replace("'y'", "'.*y.*'")
    assert re.search(says, said), said


@pytest.mark.filterwarnings("ignore:Out-of-support")
@pytest.mark.parametrize("num_draws", [1, 20])
def test_fit_says_it(num_draws):
    """Of many draws of which few are bad, a bad one is looked at."""
    params = {"loc": jnp.asarray(0.15), "scale": jnp.asarray(0.1)}
    with pytest.raises(NonFiniteError, match=SAYS[half_normal]):
        vi.fit(
            jax.random.key(0),
            vi.elbo(half_normal, narrow),
            params,
            optax.sgd(0.0),
            60,
            num_draws=num_draws,
        )


def test_all_is_well():
    fine = lambda p: numpyro.sample("w", dist.Normal(0.0, 1.0))  # noqa: E731
    assert vi.elbo(fine, narrow).diagnose(jax.random.key(0), PARAMS) is None
