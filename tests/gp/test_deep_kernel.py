"""A kernel of the features of a network, trained with them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bayesjx import gp, kernels


def test_a_deep_kernel_learns_a_jump():
    """Where the function jumps, no lengthscale fits; a network moves the two sides apart."""
    x = jnp.linspace(-1.0, 1.0, 40)
    y = jnp.where(x > 0.1, 1.0, -1.0) + 0.3 * jnp.sin(3 * x)
    y += 0.05 * jax.random.normal(jax.random.key(0), x.shape)
    new = jnp.linspace(-0.97, 0.97, 39)
    new = new[jnp.abs(new - 0.1) > 0.03]  # between the two data there the side is not known
    truth = jnp.where(new > 0.1, 1.0, -1.0) + 0.3 * jnp.sin(3 * new)
    network = eqx.nn.MLP(1, 2, 16, 2, activation=jnp.tanh, key=jax.random.key(1))

    def trained(kernel):
        def loss(prior, x, y):
            return -prior(x).log_prob(y)

        found = gp.minimise(loss, gp.GP(kernel, noise_var=0.05), x, y, max_steps=60)
        mean = eqx.filter_jit(lambda prior: gp.condition(prior, x, y).mean(new))
        error = mean(found.params) - truth
        return found, float(jnp.sqrt(jnp.mean(error**2)))

    plain, plain_error = trained(kernels.RBF(0.3))
    deep, deep_error = trained(kernels.RBF(0.3).transform(network))
    assert deep.objective < plain.objective - 20  # nats
    assert deep_error < 0.5 * plain_error
    before, after = network.layers[0].weight, deep.params.kernel.function.layers[0].weight
    assert np.max(np.abs(after - before)) > 1e-2
    assert deep.params.kernel.function(x[:1]).shape == (2,)
