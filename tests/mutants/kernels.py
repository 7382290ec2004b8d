"""Mistakes planted in `bayesjx.kernels`."""

from mutant import Mutant

PACKAGE = "kernels"
MUTANTS = [
    Mutant(
        "coefficient of the Matérn 5/2 polynomial",
        "kernels/_distances.py",
        "1 + s + z / 3, 1 + s + 0.4",
        "1 + s + z / 5, 1 + s + 0.4",
        "tests/kernels/test_kernels.py -k stationary_kernels",
    ),
    Mutant(
        "factor in the derivative of the Matérn correlation",
        "kernels/_distances.py",
        "/ (4 * order - 2)",
        "/ (4 * order + 2)",
        "tests/kernels/test_kernels.py -k differences",
    ),
    Mutant(
        "exponent of the periodic kernel",
        "kernels/_stationary.py",
        "self.amplitude(x) * jnp.exp(-0.5 * r2)",
        "self.amplitude(x) * jnp.exp(-2.0 * r2)",
        "tests/kernels/test_kernels.py -k periodic_and_cosine",
    ),
    Mutant(
        "derivative in the period lacks a power",
        "kernels/_stationary.py",
        "(dx - (x - offset) / period * d_period) / period",
        "(dx - (x - offset) * d_period) / period",
        "tests/kernels/test_kernels.py -k differences",
    ),
    Mutant(
        "variance of the arc-cosine kernel of order 2",
        "kernels/_linear.py",
        "at_equal = (1.0, 1.0, 3.0)",
        "at_equal = (1.0, 1.0, 1.0)",
        "tests/kernels/test_kernels.py -k test_every_kernel",
    ),
    Mutant(
        "centre of one argument only",
        "kernels/_linear.py",
        "((x - centre) * variance) @ (y - centre).T",
        "((x - centre) * variance) @ y.T",
        "tests/kernels/test_kernels.py -k inner_product",
    ),
    Mutant(
        "coefficients of the integrated Wiener process swapped",
        "kernels/_temporal.py",
        "m**2 * (m / 3 + lag / 2)",
        "m**2 * (m / 2 + lag / 3)",
        "tests/kernels/test_kernels.py -k wiener",
    ),
    Mutant(
        "half of the mixed term of expanded squares",
        "kernels/_distances.py",
        "- 2 * jnp.matmul(",
        "- jnp.matmul(",
        "tests/kernels/test_kernels.py -k many_dimensions",
    ),
    Mutant(
        "variance of an output lacks its own part",
        "kernels/_coregion.py",
        "own = nan_unless_valid(self, jnp.sum(self.factor**2, axis=1) + self.diagonal)",
        "own = nan_unless_valid(self, jnp.sum(self.factor**2, axis=1))",
        "tests/kernels/test_coregion.py -k is_its_matrix",
    ),
    Mutant(
        "a negative offset of a polynomial passes",
        "kernels/_linear.py",
        '    offset: Float[Array, ""] = constrained_field(constraints.nonnegative)',
        '    offset: Float[Array, ""]',
        "tests/kernels/test_invalid.py -k every_parameter",
    ),
    Mutant(
        "a kernel with a broken constraint is finite",
        "kernels/_parameters.py",
        "return nan_unless_valid(kernel, kernel.variance).astype(dtype)",
        "return kernel.variance.astype(dtype)",
        "tests/kernels/test_invalid.py -k covariances",
    ),
    Mutant(
        "variances of a spectral mixture in another precision",
        "kernels/_spectral.py",
        "jnp.sum(nan_unless_valid(self, self.weights)).astype(x.dtype)",
        "jnp.sum(nan_unless_valid(self, self.weights))",
        "tests/kernels/test_kernels.py -k test_every_kernel",
    ),
]
