"""A chain that takes long, to be killed: python chain.py CHECKPOINT NUM_SAMPLES."""

import sys
import time

import blackjax
import jax
import jax.numpy as jnp
import numpy as np

from bayesjx import interop

PRECISION = np.array([[2.0, -0.9], [-0.9, 1.0]])
MEAN = np.array([1.0, -2.0])


def log_density(position):
    """Normal, of two blocks of one."""
    z = jnp.stack([position["a"], position["b"][0]]) - MEAN
    return -0.5 * z @ PRECISION @ z


def start(chains=None):
    shape = () if chains is None else (chains,)
    return {"a": jnp.zeros(shape), "b": jnp.ones((*shape, 1))}


SAMPLER = blackjax.hmc(log_density, 0.6, jnp.ones(2), 5)


def run(num_samples, **options):
    """Four chains, every third state."""
    options = {"chunk_size": 7, **options}
    return interop.sample(
        jax.random.key(2), SAMPLER, start(4), num_samples, thin=3, num_chains=4, **options
    )


if __name__ == "__main__":
    path, num_samples = sys.argv[1], int(sys.argv[2])
    run(num_samples, checkpoint=path, checkpoint_every=0.0, callback=lambda _: time.sleep(0.02))
