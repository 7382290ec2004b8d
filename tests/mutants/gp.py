"""Mistakes planted in `bayesjx.gp`."""

from mutant import Mutant

PACKAGE = "gp"
MUTANTS = [
    Mutant(
        "penalty of power expectation propagation at any power",
        "gp/_collapsed.py",
        "return (1 - alpha) * jnp.sum(each)",
        "return jnp.sum(each)",
        "tests/gp/test_collapsed.py -k objectives_are_their",
    ),
    Mutant(
        "the bound of Titsias where the tightened one is asked for",
        "gp/_collapsed.py",
        "jnp.sum(jnp.log1p(features.residual(x, phi) / noise))",
        "jnp.sum(features.residual(x, phi) / noise)",
        "tests/gp/test_collapsed.py -k objectives_are_their",
    ),
    Mutant(
        "half of the tightened term of a sparse variational process",
        "gp/_svgp.py",
        "return term - 0.5 * jnp.log1p(residual / noise)",
        "return term - jnp.log1p(residual / noise)",
        "tests/gp/test_svgp.py -k bound_is_its_formula",
    ),
    Mutant(
        "the divergence scaled as the data of a minibatch are",
        "gp/_svgp.py",
        "return weight * jnp.sum(term) - jnp.sum(divergence)",
        "return weight * (jnp.sum(term) - jnp.sum(divergence))",
        "tests/gp/test_svgp.py -k minibatches_is_unbiased",
    ),
    Mutant(
        "factor 2 of the curvature in a natural gradient",
        "gp/_natural_gradient.py",
        "jnp.maximum(-2 * curvature, 0)",
        "jnp.maximum(-curvature, 0)",
        "tests/gp/test_svgp.py -k one_natural_step",
    ),
    Mutant(
        "half of the prior in the Laplace evidence",
        "gp/_laplace.py",
        "- 0.5 * alpha @ (f - self.mean)",
        "- alpha @ (f - self.mean)",
        "tests/gp/test_laplace.py -k bernoulli_is_scikit",
    ),
    Mutant(
        "trace term of the heteroscedastic bound",
        "gp/_heteroscedastic.py",
        "return 0.25 * jnp.sum(noise.variance) + divergence",
        "return 0.5 * jnp.sum(noise.variance) + divergence",
        "tests/gp/test_posteriors.py -k varies",
    ),
    Mutant(
        "Matheron's rule without the noise of the draws",
        "gp/_pathwise.py",
        "(posterior.residual - drawn - noise).T",
        "(posterior.residual - drawn).T",
        "tests/gp/test_pathwise.py -k exact_posterior",
    ),
    Mutant(
        "hidden units in pairs of equal weights",
        "gp/_fourier.py",
        "jnp.concatenate([draw, -draw])",
        "jnp.concatenate([draw, draw])",
        "tests/gp/test_fourier.py -k 'inner_products or pairs'",
    ),
    Mutant(
        "new observations without their noise",
        "gp/_posterior.py",
        "jnp.sqrt(variance + noise.astype(mean.dtype))",
        "jnp.sqrt(variance)",
        "tests/gp/test_posteriors.py -k 'grid and float64 and not gaps'",
    ),
    Mutant(
        "the prior mean forgotten in a variational posterior on a grid",
        "gp/_kron_variational.py",
        "return self.prior.mean_at(x) + self._rows(x).mv(self.whitened_mean)",
        "return self._rows(x).mv(self.whitened_mean)",
        "tests/gp/test_posteriors.py -k Kronecker",
    ),
]
