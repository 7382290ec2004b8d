"""Second derivatives of what has derivatives by a rule of its own, against finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import distributions as dist

from bayesjx import gp, kernels, ops

X, Z = np.array([0.0, 0.7, 1.1, 2.0]), np.array([0.0, 0.9, 1.3])
COUNTS = np.array([[1, 0, 2], [3, 1, 0], [2, 2, 5], [0, 1, 1]])


def test_of_a_mode_and_of_eigenvalues():
    missing = np.ones((4, 3), bool)
    missing[1, 2] = False

    def answer(at):
        lengthscale, rise = at
        kernel = kernels.Matern52(lengthscale).on(0) * kernels.RBF(1.0).on(1)
        likelihood = lambda f: dist.Poisson(jnp.exp(f + rise))  # noqa: E731
        found = gp.laplace(gp.GP(kernel), likelihood, gp.Grid(X, Z), COUNTS)
        axes = kernels.Matern52(lengthscale).gram(X), kernels.RBF(rise + 1).gram(Z)
        full = ops.Kron(*axes, tags=ops.psd) + ops.ScaledIdentity(0.1)
        estimate = ops.Masked(full, missing, solver="cg", logdet="scaled").logdet()
        return found.log_evidence() + sum(found.evidence_bounds()) + estimate

    @jax.jit
    def both(at, direction):
        return jax.jvp(jax.value_and_grad(answer), (at,), (direction,))

    at, step, direction = np.array([0.8, 0.4]), 1e-5, np.array([1.0, -0.5])
    (_, slopes), (along, second) = both(at, direction)
    up, down = (both(at + sign * step * direction, direction)[0] for sign in (1, -1))
    np.testing.assert_allclose(along, (up[0] - down[0]) / (2 * step), rtol=1e-6)
    np.testing.assert_allclose(slopes @ direction, along, rtol=1e-9)
    np.testing.assert_allclose(second, (up[1] - down[1]) / (2 * step), rtol=1e-6)
