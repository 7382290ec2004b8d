"""Mistakes planted in distribution transformers and their mixtures of Gaussians."""

from mutant import Mutant

TEST = "tests/amortized/test_distribution_transformer.py -k '{}'"
MUTANTS = [
    Mutant(
        "exact mixture update: the determinant of the noise forgotten in the evidence",
        "amortized/_gaussian_mixture.py",
        "        - _log_diagonal(noise_tril)\n",
        "",
        TEST.format("exact_update_is"),
    ),
    Mutant(
        "exact mixture update: weights not multiplied by the evidence",
        "amortized/_gaussian_mixture.py",
        "log_weights = mixture.log_weights + log_evidence",
        "log_weights = mixture.log_weights + 0 * log_evidence",
        TEST.format("exact_update_is"),
    ),
    Mutant(
        "mixture prediction without the noise of the dynamics",
        "amortized/_gaussian_mixture.py",
        "cholesky_each(half @ half.mT + noise_cov)",
        "cholesky_each(half @ half.mT + 1e-9 * noise_cov)",
        TEST.format("kalman_filter"),
    ),
    Mutant(
        "distribution transformer: masked observations attended to by components",
        "amortized/_transformer_forward.py",
        "hidden = layer(hidden, seen, allowed)",
        "hidden = layer(hidden, seen, jnp.ones_like(allowed))",
        TEST.format("order_does_not_matter and residual"),
    ),
    Mutant(
        "distribution transformer: an update without observations",
        "amortized/_transformer_forward.py",
        "jnp.any(mask, axis=-1)",
        "jnp.any(mask | True, axis=-1)",
        TEST.format("order_does_not_matter and residual"),
    ),
    Mutant(
        "distribution transformer: copies add up to more than the component",
        "amortized/_mixture_tokens.py",
        "log_weights = log_weights - jnp.log(jnp.asarray(counts, log_weights.dtype))",
        "log_weights = log_weights - 0 * counts",
        TEST.format("untrained"),
    ),
    Mutant(
        "distribution transformer: copies of a component not told apart",
        "amortized/_mixture_tokens.py",
        "_JITTER = 0.01 ",
        "_JITTER = 0.0 ",
        TEST.format("untrained"),
    ),
    Mutant(
        "distribution transformer: the slope of a sigmoid without its width",
        "amortized/_mixture_supports.py",
        "total = total + slope + math.log(high - low)",
        "total = total + slope",
        TEST.format("densities_on_the_support and mixed"),
    ),
    Mutant(
        "distribution transformer: the second moment of a log-normal coordinate",
        "amortized/_mixture_supports.py",
        "first**2 * jnp.exp(scale**2)",
        "first**2 * jnp.exp(scale)",
        TEST.format("densities_on_the_support and mixed"),
    ),
    Mutant(
        "distribution transformer: log weights that are not normalised",
        "amortized/_gaussian_mixture.py",
        "jax.nn.log_softmax(jnp.asarray(log_weights, dtype), axis=-1)",
        "jnp.asarray(log_weights, dtype)",
        TEST.format("gradient_in_logits"),
    ),
    Mutant(
        "training of distribution transformers: the prior not learned",
        "amortized/_transformer_training.py",
        "before = jnp.mean(tokens.mixture.log_prob(drawn.x))",
        "before = 0.0 * jnp.mean(tokens.mixture.log_prob(drawn.x))",
        TEST.format("both_terms"),
    ),
    Mutant(
        "training of distribution transformers: a state that does not move between times",
        "amortized/_transformer_training.py",
        "x = x @ transition.T + jax",
        "x = x + 0 * jax",
        TEST.format("climbs"),
    ),
]
