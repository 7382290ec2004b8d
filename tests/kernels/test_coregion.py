"""The kernel of an output's number against its matrix."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesjx import kernels

FACTOR = jnp.array([[1.0, 0.2], [-0.5, 0.7], [0.3, 0.1]])
DIAGONAL = jnp.array([0.4, 0.2, 1.1])
INDEX = np.array([0, 2, 1, 2, 0])


def test_it_is_its_matrix(dtype, tol):
    kernel = kernels.Coregion(FACTOR.astype(dtype), DIAGONAL.astype(dtype))
    x, z = jnp.asarray(INDEX, dtype), jnp.array([1.0, 0.0], dtype)
    want = np.asarray(FACTOR @ FACTOR.T + jnp.diag(DIAGONAL))
    found = kernel.gram(x), kernel.gram(x, z), kernel.diag(x)
    assert all(array.dtype == dtype for array in found)
    np.testing.assert_allclose(kernel.matrix(), want, **tol)
    np.testing.assert_allclose(found[0], want[INDEX][:, INDEX], **tol)
    np.testing.assert_allclose(found[1], want[INDEX][:, [1, 0]], **tol)
    np.testing.assert_allclose(found[2], want[INDEX, INDEX], **tol)
    assert kernel.num_outputs == 3


def test_jit_vmap_and_gradients():
    kernel, x = kernels.Coregion(FACTOR, DIAGONAL), jnp.asarray(INDEX, float)
    np.testing.assert_allclose(eqx.filter_jit(kernel.gram)(x), kernel.gram(x), rtol=1e-12)
    one_by_one = jax.vmap(lambda a: jax.vmap(lambda b: kernel(a, b))(x))(x)
    np.testing.assert_allclose(one_by_one, kernel.gram(x), rtol=1e-12)

    def total(kernel):
        return jnp.sum(jnp.sin(kernel.gram(x)))

    gradient, step = jax.grad(total)(kernel), 1e-6
    for name, values in (("factor", FACTOR), ("diagonal", DIAGONAL)):
        for at in np.ndindex(values.shape):
            up, down = (
                total(eqx.tree_at(lambda k: getattr(k, name), kernel, values.at[at].add(move)))  # noqa: B023
                for move in (step, -step)
            )
            found = getattr(gradient, name)[at]
            np.testing.assert_allclose(found, (up - down) / (2 * step), rtol=1e-6, atol=1e-8)


def test_what_is_no_output_at_run_time_has_no_covariance():
    kernel = kernels.Coregion(FACTOR, DIAGONAL)
    x = jnp.array([0.0, 3.0, -1.0, 0.5, jnp.nan, 2.0])
    bad = np.array([False, True, True, True, True, False])
    gram, diag = jax.jit(lambda x: (kernel.gram(x), kernel.diag(x)))(x)
    np.testing.assert_array_equal(np.isnan(gram), bad[:, None] | bad)
    np.testing.assert_array_equal(np.isnan(diag), bad)


@pytest.mark.errors
@pytest.mark.parametrize("value", [3.0, -1.0, 0.5])
def test_what_is_known_to_be_no_output_is_refused(value):
    kernel = kernels.Coregion(FACTOR, DIAGONAL)
    with pytest.raises(ValueError, match=rf"numbers 0 to 2 and points hold others: \[{value:g}"):
        kernel.gram(jnp.array([0.0, value]))
    with pytest.raises(ValueError, match="numbers 0 to 2"):
        kernel.diag(jnp.array([0.0, value]))


@pytest.mark.errors
def test_bad_shapes_are_named():
    with pytest.raises(ValueError, match=r"got \(3, 2\) and \(2,\)"):
        kernels.Coregion(FACTOR, jnp.ones(2))
    with pytest.raises(ValueError, match=r"factor must have shape \(p, r\)"):
        kernels.Coregion(jnp.ones(3), jnp.ones(3))
    with pytest.raises(ValueError, match=r"got \(3, 2\) and \(\)"):
        kernels.Coregion(FACTOR, 1.0)
    with pytest.raises(ValueError, match="diagonal must not be negative"):
        kernels.Coregion(FACTOR, -DIAGONAL)
    with pytest.raises(ValueError, match=r"points have 2; choose it, by \.on\(-1\)"):
        kernels.Coregion(FACTOR, DIAGONAL).gram(jnp.ones((2, 2)))
