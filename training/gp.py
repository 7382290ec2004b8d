"""Gaussian-process regression in one to three inputs, with hyper-priors."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from bayesjx import amortized, kernels

ROWS, QUERIES, INPUTS = 96, 32, 3
ABSENT = 0.5  # in columns that a data set does not have
SIZE: dict[str, Any] = {"width": 64, "depth": 4, "heads": 4}
ABOUT = (
    "Targets of a Gaussian process with a Matérn 5/2 kernel and one length scale for each of one "
    "to three inputs in [0, 1], length scales Gamma(3, 6), variance Gamma(2, 2), noise standard "
    "deviation LogNormal(log 0.1, 0.5), mean 0."
)


def model(x, y=None):
    """Hyper-parameters from their priors, and noisy targets of a Gaussian process."""
    lengthscales = numpyro.sample("lengthscales", dist.Gamma(3.0, 6.0).expand([INPUTS]).to_event())
    variance = numpyro.sample("variance", dist.Gamma(2.0, 2.0))
    noise_scale = numpyro.sample("noise_scale", dist.LogNormal(jnp.log(0.1), 0.5))
    covariance = variance * kernels.Matern52().gram(x / lengthscales)
    covariance = covariance + (noise_scale**2 + 1e-5) * jnp.eye(len(x))
    numpyro.sample("y", dist.MultivariateNormal(0.0, covariance), obs=y)


def inputs(key):
    """Uniform inputs; columns beyond a random number are constant, and so without effect."""
    key_number, key_x = jax.random.split(key)
    x = jax.random.uniform(key_x, (ROWS, INPUTS))
    return jnp.where(jnp.arange(INPUTS) < jax.random.randint(key_number, (), 1, 4), x, ABSENT)


def make(key):
    """The prior and the network before training."""
    prior = amortized.from_numpyro(model, inputs=inputs)
    network = amortized.PFN.for_prior(
        key, prior, num_queries=QUERIES, num_bars=100, absent=ABSENT, **SIZE
    )
    return prior, network
