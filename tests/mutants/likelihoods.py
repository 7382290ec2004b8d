"""Mistakes planted in `bayesjx.likelihoods`."""

from mutant import Mutant

PACKAGE = "likelihoods"
TESTS = "tests/likelihoods/test_likelihood.py"
MUTANTS = [
    Mutant(
        "variance forgotten in an expected log density",
        "likelihoods/_likelihood.py",
        "square = (y - mean) ** 2 + variance",
        "square = (y - mean) ** 2",
        f"{TESTS} -k closed_forms",
    ),
    Mutant(
        "half of the variance in the mean of a log-normal rate",
        "likelihoods/_likelihood.py",
        "jnp.exp(mean + 0.5 * variance)",
        "jnp.exp(mean + variance)",
        f"{TESTS} -k closed_forms",
    ),
    Mutant(
        "Gauss-Hermite nodes of the other weight function",
        "likelihoods/_quadrature.py",
        "np.meshgrid(*[nodes] * dim",
        "np.meshgrid(*[nodes / np.sqrt(2)] * dim",
        f"{TESTS} -k 'quadrature_is or two_latents'",
    ),
    Mutant(
        "a predictive density without the function's own variance",
        "likelihoods/_likelihood.py",
        "dist.Normal(mean, jnp.sqrt(variance + noise_var)).log_prob(y)",
        "dist.Normal(mean, jnp.sqrt(noise_var)).log_prob(y)",
        f"{TESTS} -k wider_by",
    ),
    Mutant(
        "change of variables forgotten in adaptive weights",
        "likelihoods/_quadrature.py",
        "log_weights = jnp.log(step) + jnp.log(jnp.cosh(u)) - 0.5",
        "log_weights = jnp.log(step) - 0.5",
        "tests/likelihoods/test_quadrature.py",
    ),
    Mutant(
        "variance in place of the standard deviation at the nodes",
        "likelihoods/_predictive.py",
        "f = self.loc + jnp.sqrt(self.latent_var) * nodes",
        "f = self.loc + self.latent_var * nodes",
        "tests/likelihoods/test_predictive.py -k 'counts'",
    ),
    Mutant(
        "classes exchanged in a predictive distribution",
        "likelihoods/_predictive.py",
        "BernoulliLogits(log_probs[1] - log_probs[0])",
        "BernoulliLogits(log_probs[0] - log_probs[1])",
        "tests/likelihoods/test_predictive.py -k classes",
    ),
]
