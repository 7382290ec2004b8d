"""Mistakes planted in `bayesjx.bnn`."""

import bnn_curvature
import network_chains
import network_priors
import sparse_networks
import turbo
from mutant import Mutant

PACKAGE = "bnn"
MUTANTS = [
    Mutant(
        "one sign for all inputs of a group in flipout's weights",
        "bnn/_stochastic.py",
        "signs = signs * self.out_signs[:, None]",
        "signs = signs * self.out_signs[:1, None]",
        "tests/bnn/test_mean_field.py -k networks_read",
    ),
    Mutant(
        "flipout without the signs of outputs",
        "bnn/_stochastic.py",
        "return self.mean(x) + flipped * _along_first(self.out_signs, flipped)",
        "return self.mean(x) + flipped",
        "tests/bnn/test_mean_field.py -k networks_read",
    ),
    Mutant(
        "the same noise in both halves of a batch",
        "bnn/_noise.py",
        "data = jnp.concatenate([data, data[: 2 * half - axis_size]])",
        "data = jnp.concatenate([data[:half], data[:half]])",
        "tests/bnn/test_mean_field.py -k noise_of_layers",
    ),
    Mutant(
        "standard deviations in place of variances of local noise",
        "bnn/_stochastic.py",
        "variance = _with(mean, scale.weight**2, bias)",
        "variance = _with(mean, scale.weight, bias)",
        "tests/bnn/test_mean_field.py -k 'moments and linear'",
    ),
    Mutant(
        "layers in loops counted once",
        "bnn/_stochastic.py",
        "again = 2 if eqn.primitive.name in _LOOPS else 1",
        "again = 1",
        "tests/bnn/test_mean_field.py -k 'applied_once and scan'",
    ),
    Mutant(
        "noise of all inputs from one key",
        "bnn/_mean_field.py",
        "keys = jax.random.split(rows, len(x))",
        "keys = jnp.broadcast_to(rows, (len(x), *rows.shape))",
        "tests/bnn/test_mean_field.py -k 'moments and linear'",
    ),
    Mutant(
        "divergence without the means",
        "bnn/_mean_field.py",
        "squares = ratio**2 + ((mean - loc) / width) ** 2",
        "squares = ratio**2",
        "tests/bnn/test_mean_field.py -k 'sum_over_weights and one'",
    ),
    Mutant(
        "a minibatch that counts for itself",
        "bnn/_mean_field.py",
        "data = data_weight * jnp.sum(terms) / number",
        "data = jnp.sum(terms) / number",
        "tests/bnn/test_mean_field.py -k 'unbiased and flipout'",
    ),
    Mutant(
        "fan-in with the number of outputs",
        "bnn/_priors.py",
        "return 1 if is_bias(name, shape) else max(math.prod(shape[1:]), 1)",
        "return 1 if is_bias(name, shape) else max(math.prod(shape[:1]), 1)",
        "tests/bnn/test_mean_field.py -k 'sum_over_weights and fan'",
    ),
    Mutant(
        "densities of the mixture without weights",
        "bnn/_mixture.py",
        "return jax.nn.logsumexp(terms + weights, axis=0)",
        "return jax.nn.logsumexp(terms - jnp.log(len(terms)), axis=0)",
        "tests/bnn/test_network_samples.py -k 'mixtures and gaussian and f64'",
    ),
    Mutant(
        "variance of the mixture without that between networks",
        "bnn/_mixture.py",
        "return self._averaged(within + (means - self._averaged(means)) ** 2)",
        "return self._averaged(within)",
        "tests/bnn/test_network_samples.py -k 'mixtures and counts and f64'",
    ),
    Mutant(
        "noise of the first network for all draws",
        "bnn/_mixture.py",
        "lambda x: x[which.reshape(-1)] if eqx.is_array(x) else x, self.likelihood",
        "lambda x: x[0 * which.reshape(-1)] if eqx.is_array(x) else x, self.likelihood",
        "tests/bnn/test_network_samples.py -k draws",
    ),
    Mutant(
        "gradients of an ensemble divided among its members",
        "bnn/_ensemble.py",
        "return -jnp.sum(values), jnp.mean(values), natural",
        "return -jnp.mean(values), jnp.mean(values), natural",
        "tests/bnn/test_ensemble_swag.py -k alone",
    ),
    Mutant(
        "one optimiser for all members",
        "bnn/_ensemble.py",
        "return gradient_algorithm(loss, ensemble, each, trainable=trainable, natural={})",
        "return gradient_algorithm(loss, ensemble, optimizer, trainable=trainable, natural={})",
        "tests/bnn/test_ensemble_swag.py -k alone",
    ),
    Mutant(
        "SWAG's deviations from the mean before a point",
        "bnn/_swag.py",
        "zip(state.deviations, point.means, mean.means, strict=True)",
        "zip(state.deviations, point.means, state.mean.means, strict=True)",
        "tests/bnn/test_ensemble_swag.py -k 'path and f64'",
    ),
    Mutant(
        "SWAG's low-rank part twice",
        "bnn/_swag.py",
        "jnp.sqrt(2 * jnp.maximum(used - 1, 1).astype(dtype))",
        "jnp.sqrt(jnp.maximum(used - 1, 1).astype(dtype))",
        "tests/bnn/test_ensemble_swag.py -k covariance",
    ),
    Mutant(
        "weights drawn in another type than theirs",
        "bnn/_sites.py",
        "return [jnp.asarray(value).astype(like.dtype) for value, like in pairs]",
        "return [jnp.asarray(value).astype(float) for value, like in pairs]",
        "tests/bnn/test_network_sites.py -k types",
    ),
    *turbo.MUTANTS,
    *sparse_networks.MUTANTS,
    *bnn_curvature.MUTANTS,
    *network_chains.MUTANTS,
    *network_priors.MUTANTS,
]
