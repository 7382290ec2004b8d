"""Mistakes planted in `bayesjx.ops`."""

from mutant import Mutant

PACKAGE = "ops"
KRON = "tests/ops/test_kron.py -k values_and_gradients"
MUTANTS = [
    Mutant(
        "power of the determinant of a Kronecker factor",
        "ops/_kron.py",
        "n // f.shape[0] * op._logdet()",
        "f.shape[0] * op._logdet()",
        KRON,
    ),
    Mutant(
        "axes of a rectangular Kronecker product out of order",
        "ops/_kron.py",
        "        grid = jnp.moveaxis(product, 0, axis)\n    return grid.reshape(-1, k)",
        "        grid = product\n    return grid.reshape(-1, k)",
        "tests/ops/test_kron.py -k any_shape",
    ),
    Mutant(
        "a sum is definite if one of its terms is",
        "ops/_kron_noise.py",
        "psd if psd in signal.tags & noise.tags else symmetric",
        "psd if psd in signal.tags | noise.tags else symmetric",
        "tests/ops/test_algebra.py -k tags_of_multiples",
    ),
    Mutant(
        "sign in the diagonal of an inverse (Woodbury)",
        "ops/_low_rank.py",
        "return (1 - jnp.sum(half**2, axis=0)) / operator.diagonal",
        "return (1 + jnp.sum(half**2, axis=0)) / operator.diagonal",
        "tests/ops/test_low_rank.py -k methods_are_those",
    ),
    Mutant(
        "factor 2 of the inner determinant",
        "ops/_low_rank.py",
        "jnp.sum(jnp.log(operator.diagonal)) + 2 * inner",
        "jnp.sum(jnp.log(operator.diagonal)) + inner",
        "tests/ops/test_low_rank.py -k methods_are_those",
    ),
    Mutant(
        "a quadratic form without derivative",
        "ops/_low_rank.py",
        "return least + (product - jax.lax.stop_gradient(product)), operator._logdet()",
        "return least, operator._logdet()",
        "tests/ops/test_low_rank.py -k derivatives_are_those",
    ),
    Mutant(
        "sign of the second term of Gohberg and Semencul",
        "ops/_toeplitz.py",
        "_inverse_transform(by_a - by_c, size, n)",
        "_inverse_transform(by_a + by_c, size, n)",
        "tests/ops/test_toeplitz.py -k methods_are_those",
    ),
    Mutant(
        "transposed block above the diagonal",
        "ops/_block_tridiag.py",
        "return out.at[:-1].add(self.lower.mT @ rows[1:])",
        "return out.at[:-1].add(self.lower @ rows[1:])",
        "tests/ops/test_block_tridiag.py -k test_methods",
    ),
    Mutant(
        "blocks beside the diagonal count once in a derivative",
        "ops/_block_tridiag.py",
        "total += 2 * jnp.sum(inverse.lower * change.lower)",
        "total += jnp.sum(inverse.lower * change.lower)",
        "tests/ops/test_block_tridiag.py -k test_derivatives",
    ),
    Mutant(
        "missing cells add to what is known",
        "ops/_masked.py",
        "operator.full.inverse_diag() - operator._unexplained(None)",
        "operator.full.inverse_diag() + operator._unexplained(None)",
        "tests/ops/test_khatri_rao.py -k marginal_variance",
    ),
    Mutant(
        "missing cells dropped from a determinant",
        "ops/_masked.py",
        "return self.full._logdet() + Dense(self._kept_precision(), psd)._logdet()",
        "return self.full._logdet()",
        "tests/ops/test_masked.py -k exact_solver",
    ),
    Mutant(
        "probes of a length of their own",
        "ops/_lanczos.py",
        "scale = probes.shape[0] / jnp.sum(unit * probes, axis=0)",
        "scale = 1.0",
        "tests/ops/test_lanczos.py -k perfect_preconditioner",
    ),
    Mutant(
        "vmapped sparse matrices read the rows of the first",
        "ops/_sparse_products.py",
        "array = array + offsets.reshape(-1, *(1,) * (array.ndim - 1))",
        "array = array + 0 * offsets.reshape(-1, *(1,) * (array.ndim - 1))",
        "tests/ops/test_sparse_products.py -k vmap_is_a_loop",
    ),
    Mutant(
        "factor in the derivative of a sparse product",
        "ops/_sparse_products.py",
        "return backward_p.bind(*rest[:-1], ct, **params)",
        "return 2 * backward_p.bind(*rest[:-1], ct, **params)",
        "tests/ops/test_sparse_products.py -k product_and_gradients",
    ),
]
