"""Mistakes planted in `bayesjx.sbl`."""

import sparse_coding
from mutant import Mutant

PACKAGE = "sbl"
MUTANTS = [
    Mutant(
        "a real density of complex measurements",
        "sbl/_weights.py",
        "if jnp.iscomplexobj(y):\n        return",
        "if False:\n        return",
        "tests/sbl/test_weights.py -k 'dense_algebra and data and complex128'",
    ),
    Mutant(
        "the transpose where the adjoint is meant",
        "sbl/_design.py",
        "return design.mT.conj() @ x",
        "return design.mT @ x",
        "tests/sbl/test_weights.py -k 'dense_algebra and data and complex128'",
    ),
    Mutant(
        "the derivative of the log-determinant without the prior variances",
        "sbl/_weight_space.py",
        "d_logdet = jnp.sum(jnp.real(jnp.diag(explained)) * d_var)",
        "d_logdet = jnp.zeros(())",
        "tests/sbl/test_weights.py -k 'dense_algebra and weight and float64'",
    ),
    Mutant(
        "draws without the noise of Matheron's rule",
        "sbl/_weights.py",
        "seen = times(self.design, prior) + jnp.sqrt(self.noise_var) * noise",
        "seen = times(self.design, prior)",
        "tests/sbl/test_weights.py -k 'draws and data'",
    ),
    Mutant(
        "leave-one-out means that leave nothing out",
        "sbl/_weights.py",
        "mean = self.y - self.residual / (free if self.y.ndim == 1 else free[:, None])",
        "mean = self.y - self.residual",
        "tests/sbl/test_weights.py -k 'dense_algebra and data and float64'",
    ),
    Mutant(
        "the mean of the other variances counted once too often in alternating minimisation",
        "sbl/_kron_updates.py",
        "others = math.prod(counts[:axis] + counts[axis + 1 :])",
        "others = math.prod(counts)",
        "tests/sbl/test_kron_sbl.py -k 'dense_ones and am'",
    ),
    Mutant(
        "the bound's slopes without the other variances",
        "sbl/_kron_updates.py",
        "below = contract_grid(leverage, current, axis)",
        "below = contract_grid(leverage, [jnp.ones_like(g) for g in current], axis)",
        "tests/sbl/test_kron_sbl.py -k 'dense_ones and convex'",
    ),
    Mutant(
        "measurements beyond the range of a tall design forgotten in the noise",
        "sbl/_kron_moments.py",
        "residual = noise_var**2 * jnp.sum(square(weighted)) + problem.rest",
        "residual = noise_var**2 * jnp.sum(square(weighted))",
        "tests/sbl/test_kron_sbl.py -k 'dense_ones and convex'",
    ),
    Mutant(
        "coefficients in units of columns of norm 1",
        "sbl/_kron_sbl.py",
        "mean = mean * (units.y / norms[..., None])",
        "mean = mean * units.y",
        "tests/sbl/test_kron_sbl.py -k 'dense_ones and ksbl'",
    ),
    Mutant(
        "the noise of EM without the variance of the fit",
        "sbl/_kron_sbl.py",
        "(found.residual_sq + noise_var * found.effective_dof) / problem.size",
        "found.residual_sq / problem.size",
        "tests/sbl/test_kron_sbl.py -k 'dense_ones and svd'",
    ),
    Mutant(
        "half of the change of an axis's covariance in the gradient of a marginal",
        "sbl/_kron_marginal.py",
        "(d_turned * g + turned * d_variances[axis] / 2)",
        "(d_turned * g + turned * d_variances[axis])",
        "tests/sbl/test_kron_marginal.py -k 'density and real and f64'",
    ),
    Mutant(
        "conjugates forgotten in the gradient of a complex marginal",
        "sbl/_kron_marginal.py",
        "grid_gram(c.conj(), c * w, axis)",
        "grid_gram(c, c * w, axis)",
        "tests/sbl/test_kron_marginal.py -k 'density and complex and f64'",
    ),
    Mutant(
        "atoms chosen by correlations without a conjugate",
        "sbl/_kron_pursuit.py",
        "kron_mm(tuple(f.conj().T for f in scaled), state.residual)",
        "kron_mm(tuple(f.T for f in scaled), state.residual)",
        "tests/sbl/test_kron_pursuit.py -k in_a_batch",
    ),
    Mutant(
        "differences of angles at a surface with the wrong sign",
        "datasets/_irs_mimo.py",
        "difference = (departure - arrival) % num",
        "difference = (arrival - departure) % num",
        "tests/datasets/test_linear_problems.py -k irs_mimo",
    ),
    *sparse_coding.MUTANTS,
]
