"""Positive fields and their logarithms; checks of values."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.distributions import constraints

from bayesjx import gp, kernels
from bayesjx._core import checked_finite, constrained_field, from_real, refuse_where, to_real


def module():
    net = eqx.nn.MLP(2, 2, 4, 1, key=jax.random.key(0))
    kernel = 0.5 * kernels.RBF(jnp.array([0.7, 1.3])).transform(net) + kernels.Linear(2.0, -1.0)
    return {"prior": gp.GP(kernel, mean=-0.3, noise_var=0.2), "others": (jnp.array([-1.0, 2.0]), 3)}


def test_positive_fields_become_logarithms_and_nothing_else_does():
    tree = module()
    real = to_real(tree)
    scaled, linear = real["prior"].kernel.terms
    np.testing.assert_allclose(scaled.variance, np.log(0.5))
    np.testing.assert_allclose(scaled.kernel.kernel.lengthscale, np.log([0.7, 1.3]))
    np.testing.assert_allclose(linear.variance, np.log(2.0))
    np.testing.assert_allclose(linear.centre, -1.0)
    np.testing.assert_allclose(real["prior"].noise_var, np.log(0.2))
    np.testing.assert_allclose(real["prior"].mean, -0.3)
    np.testing.assert_array_equal(real["others"][0], [-1.0, 2.0])
    weights = [t["prior"].kernel.terms[0].kernel.function.layers[0].weight for t in (tree, real)]
    np.testing.assert_array_equal(*weights)
    for a, b in zip(jax.tree.leaves(from_real(real)), jax.tree.leaves(tree), strict=True):
        if eqx.is_array(a):
            np.testing.assert_allclose(a, b, rtol=1e-14)


def test_the_change_of_variables_is_differentiable_and_jitted():
    prior = gp.GP(kernels.Matern52(0.5), noise_var=0.1)
    x, y = jnp.linspace(0, 1, 5), jnp.array([0.3, 0.1, -0.4, 0.2, 0.9])
    arrays, static = eqx.partition(to_real(prior), eqx.is_array)

    def loss(arrays):
        return -from_real(eqx.combine(arrays, static))(x).log_prob(y)

    gradient = jax.jit(jax.grad(loss))(arrays)
    step = 1e-6

    def moved(sign):
        return loss(eqx.tree_at(lambda p: p.noise_var, arrays, arrays.noise_var + sign * step))

    np.testing.assert_allclose(gradient.noise_var, (moved(1) - moved(-1)) / (2 * step), rtol=1e-6)


TRIANGLE = np.tril(np.random.default_rng(0).normal(size=(3, 3)), -1) + np.diag([0.5, 1.5, 2.5])
FIELDS = {
    "positive": (constraints.positive, [0.3, 7.0]),
    "nonnegative": (constraints.nonnegative, [0.3, 7.0]),
    "softplus": (constraints.softplus_positive, [0.3, 7.0]),
    "unit": (constraints.unit_interval, [0.1, 0.8]),
    "interval": (constraints.interval(-1.0, 3.0), [-0.5, 2.9]),
    "greater": (constraints.greater_than(2.0), [2.5, 9.0]),
    "simplex": (constraints.simplex, [0.2, 0.5, 0.3]),
    "ordered": (constraints.ordered_vector, [-1.0, 0.5, 3.0]),
    "cholesky": (constraints.lower_cholesky, TRIANGLE),
    "definite": (constraints.positive_definite, TRIANGLE @ TRIANGLE.T),
    "real": (constraints.real, [-1.0, 2.0]),
}


def test_every_constraint_leads_to_the_real_line_and_back(dtype, tol):
    """And any step there keeps to it."""

    kinds = {
        name: type(name, (eqx.Module,), {
            "__annotations__": {"value": jax.Array}, "value": constrained_field(constraint)
        })
        for name, (constraint, _) in FIELDS.items()
    }  # fmt: skip
    tree = {name: kinds[name](jnp.asarray(value, dtype)) for name, (_, value) in FIELDS.items()}

    @jax.jit
    def run(tree):
        real = to_real(tree)
        return real, from_real(real), from_real(jax.tree.map(lambda x: x + 0.7, real))

    real, back, moved = run(tree)
    assert real["simplex"].value.shape == (2,) and real["definite"].value.shape == (6,)
    for name, (constraint, value) in FIELDS.items():
        assert real[name].value.dtype == back[name].value.dtype == dtype, name
        np.testing.assert_allclose(back[name].value, value, **tol, err_msg=name)
        assert np.all(constraint(moved[name].value)), name
        assert not np.allclose(moved[name].value, value), name


@pytest.mark.errors
def test_values_are_refused_at_once_or_when_the_program_runs():
    with pytest.raises(ValueError, match="no good"):
        refuse_where(np.array([1.0, -1.0]), lambda v: v < 0, "no good")
    with pytest.raises(ValueError, match="y holds NaN or infinite values; mask them"):
        checked_finite("y", jnp.array([0.0, jnp.nan]), "; mask them")
    with pytest.raises(ValueError, match=r"y is empty: its shape is \(0, 2\)"):
        checked_finite("y", jnp.zeros((0, 2)))
    with pytest.raises(RuntimeError, match="y holds NaN"):
        eqx.filter_jit(lambda y: checked_finite("y", y))(jnp.array([jnp.inf]))
    assert jax.jit(lambda y: checked_finite("y", y))(jnp.ones(2)).sum() == 2
