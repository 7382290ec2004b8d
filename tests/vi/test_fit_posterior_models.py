"""One call on many kinds of models: a trusted fit is right, and what cannot be right is flagged."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

from bayesjx import vi

RNG = np.random.default_rng(7)
sample = numpyro.sample


def improper(name, support=constraints.real, shape=()):
    return sample(name, dist.ImproperUniform(support, (), shape))


def one_observation():
    mean = sample("mean", dist.Normal(0.0, 10.0))
    sample("y", dist.Normal(mean, 1.0), obs=0.3)


def correlated():
    cov = jnp.array([[1.0, 0.999], [0.999, 1.0]])
    sample("x", dist.MultivariateNormal(jnp.array([1.0, 2.0]), cov))


Y = RNG.normal(2.0, 1.5, size=23)


def location_and_scale():
    """Student's t with 22 degrees of freedom, by improper priors."""
    mean, scale = improper("mean"), improper("scale", constraints.positive)
    numpyro.factor("prior", -jnp.log(scale))
    sample("y", dist.Normal(mean, scale), obs=jnp.asarray(Y))


def hidden():
    """Data under a mask, with NaN where they are missing."""
    seen = jnp.arange(23) % 3 > 0
    y = jnp.where(seen, jnp.asarray(Y), 0.0)
    mean = sample("mean", dist.Normal(0.0, 10.0))
    with numpyro.plate("cells", 23), numpyro.handlers.mask(mask=seen):
        sample("y", dist.Normal(mean, 1.5), obs=y)


def precision(prior, data, var):
    total = prior + len(data) / var
    return np.sum(data) / var / total, total**-0.5


A = np.array([4.0, 8.0, 2.0, 1.0])
SEEN = Y[np.arange(23) % 3 > 0]
RIGHT = {
    one_observation: {"mean": precision(0.01, [0.3], 1.0)},
    correlated: {"x": (np.array([1.0, 2.0]), 1.0)},
    location_and_scale: {"mean": (Y.mean(), Y.std(ddof=1) / 23**0.5 * (22 / 20) ** 0.5)},
    hidden: {"mean": precision(0.01, SEEN, 2.25)},
}


@pytest.mark.slow
@pytest.mark.parametrize("model", RIGHT, ids=lambda model: model.__name__)
def test_good_fits_are_trusted(model):
    fit = vi.fit_posterior(jax.random.key(3), model)
    assert fit.reliable, repr(fit)
    draws = fit.sample(jax.random.key(5), 4000)
    for name, (mean, sd) in RIGHT[model].items():
        values = np.asarray(draws[name])
        assert np.abs((values.mean(axis=0) - mean) / sd).max() < 0.1
        assert np.abs(values.std(axis=0) / sd - 1).max() < 0.1


def funnel():
    width = sample("width", dist.Normal(0.0, 3.0))
    with numpyro.plate("cells", 9):
        sample("x", dist.Normal(0.0, jnp.exp(width / 2)))


def schools():
    effect = jnp.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
    error = jnp.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
    mean = sample("mean", dist.Normal(0.0, 5.0))
    width = sample("width", dist.HalfCauchy(5.0))
    with numpyro.plate("school", 8):
        x = sample("x", dist.Normal(mean, width))
        sample("effect", dist.Normal(x, error), obs=effect)


@pytest.mark.slow
@pytest.mark.parametrize("model", [funnel, schools], ids=lambda model: model.__name__)
def test_funnels_are_flagged_and_the_site_to_write_otherwise_named(model):
    fit = vi.fit_posterior(jax.random.key(3), model)
    assert not fit.reliable and "do not trust" in repr(fit)
    assert "write 'x' (drawn with the scale 'width') non-centred" in fit.notes[-1]


@pytest.mark.slow
def test_separated_classes_under_flat_priors_are_refused_or_flagged():
    x = RNG.normal(size=23)

    def model():
        level, slope = improper("level"), improper("slope")
        sample("y", dist.Bernoulli(logits=level + slope * x), obs=jnp.asarray(x > 0, int))

    try:
        fit = vi.fit_posterior(jax.random.key(3), model)
    except ValueError as error:
        assert "flat along ['level', 'slope']" in str(error)
    else:
        assert not fit.reliable and fit.k_hat > 1


@pytest.mark.slow
def test_tails_that_are_not_covered_are_said():
    """On the scale of the fit a simplex has exponential tails; its means are right."""

    def model():
        p = sample("p", dist.Dirichlet(jnp.ones(4)))
        sample("counts", dist.Multinomial(11, p), obs=jnp.array([3, 7, 1, 0]))

    fit = vi.fit_posterior(jax.random.key(3), model)
    assert fit.reliable or "do not trust its tails" in repr(fit)
    draws = np.asarray(fit.sample(jax.random.key(5), 4000)["p"])
    assert np.abs(draws.mean(axis=0) - A / 15).max() < 0.01
