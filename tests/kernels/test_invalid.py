"""Parameters without sense that are known only at run time make the kernel NaN, and densities."""

import dataclasses
import inspect

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesjx import gp, kernels, ssm

# A valid kernel of one coordinate of each kind.
BASE = {
    "RBF": kernels.RBF(),
    "Matern12": kernels.Matern12(),
    "Matern32": kernels.Matern32(),
    "Matern52": kernels.Matern52(),
    "Matern72": kernels.Matern72(),
    "RationalQuadratic": kernels.RationalQuadratic(),
    "Periodic": kernels.Periodic(),
    "Cosine": kernels.Cosine(),
    "White": kernels.White(),
    "Constant": kernels.Constant(),
    "Linear": kernels.Linear(),
    "Polynomial": kernels.Polynomial(2),
    "ArcCosine": kernels.ArcCosine(1),
    "SHO": kernels.SHO(),
    "Wiener": kernels.Wiener(),
    "IntegratedWiener": kernels.IntegratedWiener(),
    "Scaled": 2.0 * kernels.Matern32(),
    "SpectralMixture": kernels.SpectralMixture(*jnp.ones((3, 2))),
    "StudentMixture": kernels.StudentMixture(*jnp.ones((3, 2))),
    "Coregion": kernels.Coregion(jnp.ones((3, 1)), jnp.ones(3)),
}
WITHOUT = {"Sum", "Product", "OnDims", "Transformed"}  # parameters of their own
IN_TIME = "Matern12 Matern32 Matern52 Matern72 Periodic Cosine Constant Linear SHO Wiener".split()
IN_TIME += ["IntegratedWiener", "Scaled"]
WITH_WAVES = "RBF Matern52 RationalQuadratic Periodic Cosine SpectralMixture StudentMixture".split()
WITH_WAVES += ["Scaled", "Linear", "ArcCosine"]
X = jnp.array([0.3, 1.1, 2.0])
INDEX = jnp.arange(3.0)


def constrained(kernel):
    """Names of the parameters that have a constraint."""
    fields = dataclasses.fields(kernel)
    return [field.name for field in fields if field.metadata.get("constraint") is not None]


def negated(kernel, name, sign):
    """The kernel with one parameter, or one element of it, times a number that is not known."""
    value = jnp.asarray(getattr(kernel, name))
    changed = value * sign if value.ndim == 0 else value.at[0].multiply(sign)
    return eqx.tree_at(lambda k: getattr(k, name), kernel, changed)


def test_every_kernel_is_here_and_every_parameter_without_a_sign_has_a_constraint():
    public = {
        name
        for name, kind in vars(kernels).items()
        if inspect.isclass(kind) and issubclass(kind, kernels.AbstractKernel)
        if not name.startswith("Abstract")
    }
    assert public == set(BASE) | WITHOUT
    either = {"centre", "bias", "origin", "factor", "kernel"}
    for name, kernel in BASE.items():
        arrays = {f.name for f in dataclasses.fields(kernel) if not f.metadata.get("static", False)}
        assert arrays == set(constrained(kernel)) | (arrays & either), name


def test_a_negative_parameter_makes_covariances_and_variances_nan():
    @jax.jit
    def found(sign):
        return {
            (kind, name): (
                negated(kernel, name, sign).gram(at),
                negated(kernel, name, sign).diag(at),
            )
            for kind, kernel in BASE.items()
            for at in [INDEX if kind == "Coregion" else X]
            for name in constrained(kernel)
        }

    for case, arrays in found(-1.0).items():
        assert all(np.isnan(array).all() for array in arrays), case
    for case, arrays in found(1.0).items():
        assert all(np.isfinite(array).all() for array in arrays), case


def one_or_all_negated(kernel):
    """The kernel, with one parameter negated, and with two; a stack."""
    names = constrained(kernel)
    sets = [(), *((name,) for name in names), *((a, b) for a in names for b in names if a < b)]
    made = []
    for chosen in sets:
        changed = kernel
        for name in chosen:
            changed = negated(changed, name, -1.0)
        made.append(changed)
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *made)


@pytest.mark.parametrize("kinds", [IN_TIME[:6], IN_TIME[6:]], ids=["first", "second"])
def test_densities_in_time_are_nan(kinds):
    """Of state spaces, whose formulas are others; also of two that are negative together."""
    y = jnp.array([0.1, -0.4, 0.3])
    density = lambda kernel: ssm.MarkovGP(kernel, X, noise_var=0.1).log_prob(y)  # noqa: E731
    stacks = {kind: one_or_all_negated(BASE[kind]) for kind in kinds}
    found = jax.jit(lambda stacks: {k: jax.vmap(density)(v) for k, v in stacks.items()})(stacks)
    for kind, values in found.items():
        assert np.isfinite(values[0]) and np.isnan(values[1:]).all(), (kind, values)


def test_random_features_are_nan():
    """Their covariance, whatever signs cancel."""

    def variances(kernel):
        phi = gp.fourier_features(jax.random.key(0), kernel, 8, 1)(X)
        return jnp.sum(phi**2, axis=1)

    stacks = {kind: one_or_all_negated(BASE[kind]) for kind in WITH_WAVES}
    found = jax.jit(lambda stacks: {k: jax.vmap(variances)(v) for k, v in stacks.items()})(stacks)
    for kind, values in found.items():
        assert np.isfinite(values[0]).all() and np.isnan(values[1:]).all(), (kind, values)


@pytest.mark.errors
@pytest.mark.parametrize("kind", BASE)
def test_values_that_are_known_are_refused(kind):
    kernel = BASE[kind]
    given = {f.name: getattr(kernel, f.name) for f in dataclasses.fields(kernel)}
    for name in constrained(kernel):
        for bad in (-1.0, jnp.nan):
            value = jnp.full(jnp.shape(given[name]), bad)
            with pytest.raises(ValueError, match=f"^{name} must (be positive|not be negative)"):
                type(kernel)(**{**given, name: value})


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
