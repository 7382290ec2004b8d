"""Targets of the tests of guides: Gaussian posteriors, and a hierarchy of plates."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from bayesjx import vi

SCALES = ("meanfield", "lowrank", "structured", "fullrank")
D = 5


def covariance(d=D):
    root = np.random.default_rng(3).normal(size=(d, d))
    return jnp.asarray(root @ root.T / d + 0.3 * np.eye(d))


MEAN = jnp.arange(1.0, D + 1)


def gaussian():
    """A posterior that full-rank guides contain."""
    numpyro.sample("z", dist.MultivariateNormal(MEAN, covariance()))


def hierarchy(y):
    """Sites outside plates, in one plate and in two, with transformed supports."""
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    tau = numpyro.sample("tau", dist.HalfNormal(1.0))
    with numpyro.plate("groups", y.shape[0], dim=-2):
        a = numpyro.sample("a", dist.Normal(mu, tau))
        c = numpyro.sample("c", dist.Dirichlet(jnp.ones(3)))
        with numpyro.plate("units", y.shape[1], dim=-1):
            b = numpyro.sample("b", dist.Normal(a, 0.5))
            numpyro.sample("y", dist.Normal(b + c[..., 0], 0.3), obs=y)


READINGS = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2)))


def prepared(model, *args, init=None, **options):
    """A guide with its functional form, from generic parameters."""
    guide = vi.GaussianGuide(model, **options)
    problem = vi.functional(jax.random.key(0), model, guide, *args)
    noise = jax.random.normal(jax.random.key(7), (10_000,))
    start, params = 0, {}
    for name, value in sorted(problem.params.items()):
        step = noise[start : start + value.size].reshape(value.shape).astype(value.dtype)
        params[name] = value + 0.3 * step
        start += value.size
    return guide, problem._replace(params=params)
