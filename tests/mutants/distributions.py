"""Mistakes planted in `bayesjx.distributions`."""

from mutant import Mutant

PACKAGE = "distributions"
STRUCTURED = "tests/distributions/test_structured_normal.py"
REPAIR = "tests/distributions/test_repair.py -k density_and_two"
MUTANTS = [
    Mutant(
        "determinants swapped in a divergence",
        "distributions/_kl.py",
        "+ logdet - log_determinant(p)",
        "- logdet + log_determinant(p)",
        "tests/distributions/test_generic.py -k divergences_are_those",
    ),
    Mutant(
        "draws without their mean",
        "distributions/_structured_normal.py",
        "return self.loc + self.precision.sample_inverse(key, shape)",
        "return self.precision.sample_inverse(key, shape)",
        f"{STRUCTURED} -k draws_have",
    ),
    Mutant(
        "sign of a determinant of a precision",
        "distributions/_structured_normal.py",
        "logdet = -d.precision.psd_logdet()",
        "logdet = d.precision.psd_logdet()",
        f"{STRUCTURED} -k density_and_moments",
    ),
    Mutant(
        "sign of the shift of a conditional mean",
        "distributions/_structured_normal.py",
        "self.loc[rest] - remaining.solve(product)",
        "self.loc[rest] + remaining.solve(product)",
        f"{STRUCTURED} -k conditioning",
    ),
    Mutant(
        "blocks that are no longer neighbours stay coupled",
        "distributions/_structured_normal.py",
        "jnp.where(cut, 0, lower)",
        "lower",
        f"{STRUCTURED} -k conditioning",
    ),
    Mutant(
        "an entropy lacks its constant",
        "distributions/_structured_normal.py",
        "self.loc.shape[-1] * (1 + log_two_pi(self.loc.dtype))",
        "self.loc.shape[-1] * log_two_pi(self.loc.dtype)",
        f"{STRUCTURED} -k density_and_moments",
    ),
    Mutant(
        "sign of the Jacobian of a nested normal",
        "distributions/_nested_normal.py",
        "return noise_log_prob(noise) - jnp.sum(jnp.log(self.scale))",
        "return noise_log_prob(noise) + jnp.sum(jnp.log(self.scale))",
        "tests/vi/test_families_entropy.py -k 'both_precisions and nested'",
    ),
    Mutant(
        "variance on the subspace counted twice",
        "distributions/_subspace_normal.py",
        "inside = jnp.sum(rows**2, -1) - jnp.sum(self.basis**2, -1)\n        return self.scale**2",
        "inside = jnp.sum(rows**2, -1)\n        return self.scale**2",
        "tests/distributions/test_generic.py -k values_are_checked",
    ),
    Mutant(
        "slope of a Bernoulli density in its value",
        "distributions/_repair_discrete.py",
        "slope += jnp.where(jnp.isinf(logits), 0, logits) * tangents[1]",
        "slope += 0 * tangents[1]",
        "tests/vi/test_distribution_values.py -k repaired_bernoulli",
    ),
    Mutant(
        "odds of a zero-inflated density",
        "distributions/_repair_discrete.py",
        "slope = jnp.exp(-safe) - ratio",
        "slope = jnp.exp(-safe)",
        REPAIR,
    ),
    Mutant(
        "equal concentrations are not told apart",
        "distributions/_repair_discrete.py",
        "return betaln(a, b + equal) + jnp.where(equal, jnp.log1p(a / b), 0.0)",
        "return betaln(a, b)",
        REPAIR,
    ),
    Mutant(
        "which tail a truncated density loses",
        "distributions/_repair_tails.py",
        "self.base_dist.log_prob(value) - _log_sf(self.base_dist, self.low)",
        "self.base_dist.log_prob(value) - _log_cdf(self.base_dist, self.low)",
        REPAIR,
    ),
    Mutant(
        "a complex normal with the density of a real one",
        "distributions/_complex_normal.py",
        "return -square / self.scale**2 - jnp.log(jnp.pi * self.scale**2)",
        "return -0.5 * square / self.scale**2 - jnp.log(jnp.pi * self.scale**2)",
        "tests/distributions/test_complex_normal.py",
    ),
]
