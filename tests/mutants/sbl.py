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
]
