"""Parameters without sense that are known only at run time make the kernel NaN, and densities."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bayesjx import gp, kernels

# A valid kernel, of one coordinate, and its parameters that must not be negative.
BASE = {
    "RBF": (kernels.RBF(), "lengthscale variance"),
    "Matern12": (kernels.Matern12(), "lengthscale variance"),
    "Matern32": (kernels.Matern32(), "lengthscale variance"),
    "Matern52": (kernels.Matern52(), "lengthscale variance"),
    "Matern72": (kernels.Matern72(), "lengthscale variance"),
    "RationalQuadratic": (kernels.RationalQuadratic(), "lengthscale alpha variance"),
    "Periodic": (kernels.Periodic(), "lengthscale period variance"),
    "Cosine": (kernels.Cosine(), "period variance"),
    "White": (kernels.White(), "variance"),
    "Constant": (kernels.Constant(), "variance"),
    "Linear": (kernels.Linear(), "variance"),
    "Polynomial": (kernels.Polynomial(2), "variance offset"),
    "ArcCosine0": (kernels.ArcCosine(0), "lengthscale variance"),
    "ArcCosine1": (kernels.ArcCosine(1), "lengthscale variance"),
    "SHO": (kernels.SHO(), "period quality variance"),
    "Wiener": (kernels.Wiener(), "variance"),
    "IntegratedWiener": (kernels.IntegratedWiener(), "variance"),
    "Scaled": (2.0 * kernels.RBF(), "variance"),
    "SpectralMixture": (
        kernels.SpectralMixture(*(jnp.ones(2) for _ in range(3))),
        "weights rates frequencies",
    ),
    "StudentMixture": (
        kernels.StudentMixture(*(jnp.ones(2) for _ in range(3))),
        "weights rates frequencies",
    ),
}
X = jnp.array([0.3, 1.1, 2.0])


def negated(kernel, name, sign):
    """The kernel with one parameter, or one element of it, times a number that is not known."""
    value = jnp.asarray(getattr(kernel, name))
    changed = value * sign if value.ndim == 0 else value.at[0].multiply(sign)
    return eqx.tree_at(lambda k: getattr(k, name), kernel, changed)


def test_a_negative_parameter_makes_covariances_and_variances_nan():
    @jax.jit
    def found(sign):
        return {
            (kind, name): (negated(kernel, name, sign).gram(X), negated(kernel, name, sign).diag(X))
            for kind, (kernel, names) in BASE.items()
            for name in names.split()
        }

    for case, arrays in found(-1.0).items():
        assert all(np.isnan(array).all() for array in arrays), case
    for case, arrays in found(1.0).items():
        assert all(np.isfinite(array).all() for array in arrays), case


def test_two_negative_parameters_do_not_cancel_and_negative_noise_has_no_density():
    y = jnp.array([0.1, -0.4, 0.3])

    @jax.jit
    def densities(sign, noise):
        kinds = (
            kernels.Scaled(kernels.RBF(1.0, 2.0 * sign), 1.0 * sign),
            kernels.Scaled(kernels.Scaled(kernels.RBF(), sign), sign),
            kernels.RBF(1.0, sign) * kernels.Matern32(1.0, sign),
            kernels.Polynomial(2, sign, sign),
            kernels.SHO(sign, sign),
            kernels.Periodic(sign, sign),
            3.0 + kernels.RBF(sign),
            kernels.RBF(sign).transform(jnp.sin).on(0),
            kernels.Coregion(jnp.ones((3, 1)), sign * jnp.ones(3)).transform(jnp.floor),
        )
        exact = [gp.GP(kernel, noise_var=noise)(X).log_prob(y) for kernel in kinds]
        points = gp.sgpr(gp.GP(kinds[0], noise_var=noise), X, inducing_points=X[:2]).log_prob(y)
        each = gp.GP(kinds[0], noise_var=jnp.full(3, 1.0).at[1].set(noise))(X).log_prob(y)
        return jnp.stack([*exact, points, each])

    assert np.isnan(densities(-1.0, 0.1)).all()
    assert np.isnan(densities(1.0, -0.1)).all()  # the covariance itself is still definite
    assert np.isfinite(densities(1.0, 0.1)).all()
