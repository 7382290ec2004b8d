"""Mistakes planted in `bayesjx.sbl`."""

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
        "expectation-maximisation without the posterior variances",
        "sbl/_updates.py",
        "new = (power + prior_var * (1 - found.known)) / (1 + shape)",
        "new = power / (1 + shape)",
        "tests/sbl/test_sbl.py -k expectation",
    ),
    Mutant(
        "the fixed point of the noise variance without the effective degrees of freedom",
        "sbl/_updates.py",
        "new, noise = ratio, found.error / found.free",
        "new, noise = ratio, found.error / n",
        "tests/sbl/test_sbl.py -k 'slope and fixed'",
    ),
    Mutant(
        "a re-estimate of fast marginal updates that forgets the sparsity factor",
        "sbl/_fast.py",
        "new = jnp.where(stays & (S > 0), theta / jnp.where(S > 0, s, 1) ** 2, 0)",
        "new = jnp.where(stays & (S > 0), theta, 0)",
        "tests/sbl/test_sbl.py -k 'gains or (slope and fast)'",
    ),
    Mutant(
        "the evidence of a trace in the internal units",
        "sbl/_sbl.py",
        "trace = trace - per * y.size * jnp.log(size)  # a density in units of y",
        "trace = trace + 0 * per",
        "tests/sbl/test_sbl.py -k 'rises and fixed and float64'",
    ),
    Mutant(
        "compaction that keeps the first columns",
        "sbl/_sbl.py",
        "return np.sort(np.concatenate([left, others]))",
        "return np.arange(size)",
        "tests/sbl/test_sbl.py -k left_out",
    ),
    Mutant(
        "orthogonal matching pursuit without its orthogonal projection",
        "sbl/_omp.py",
        "left = left - state.basis @ (state.basis.mT.conj() @ left)",
        "left = left * 1",
        "tests/sbl/test_omp.py -k loop",
    ),
    Mutant(
        "a marginal distribution with the noise's standard deviation",
        "sbl/_marginal.py",
        "return jnp.exp(self.log_noise_var), jnp.exp(self.log_prior_var)",
        "return jnp.exp(0.5 * self.log_noise_var), jnp.exp(self.log_prior_var)",
        "tests/sbl/test_marginal.py -k numpyros",
    ),
]
