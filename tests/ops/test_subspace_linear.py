"""The layer: its value, what has a gradient, its size in an optimiser."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sparse_layouts import LAYOUTS, problem

from bayesjx.ops import BlockSparse, EntrySparse, GroupedColumns, SubspaceLinear

MAKE = {
    "blocks": lambda p, n: BlockSparse.from_indices((16, n), *p.index, p.values),
    "grouped": lambda p, n: GroupedColumns.from_indices((16, n), *p.index, p.values),
    "entries": lambda p, n: EntrySparse.from_columns((16, n), *p.index, p.values),
}


def layer(layout, with_base=True, dtype=jnp.float64):
    p = problem(layout, dtype=dtype)
    n = p.y.shape[0]
    base = jnp.sin(jnp.arange(16.0 * n, dtype=dtype)).reshape(16, n) if with_base else None
    return SubspaceLinear(base, MAKE[layout](p, n)), p


@pytest.mark.parametrize("layout", LAYOUTS)
def test_value_and_gradient(layout):
    linear, p = layer(layout)
    x = p.x.T

    @eqx.filter_jit
    def value_and_gradient(linear, x):
        return eqx.filter_value_and_grad(lambda m: jnp.sum(jnp.sin(m(x))))(linear)

    dense = linear.base + p.dense(p.values, *p.index)
    value, gradient = value_and_gradient(linear, x)
    np.testing.assert_allclose(value, jnp.sum(jnp.sin(x @ dense)), rtol=1e-12)
    np.testing.assert_array_equal(gradient.base, 0)
    (want,) = jax.vjp(lambda v: p.dense(v, *p.index), p.values)[1](x.T @ jnp.cos(x @ dense))
    np.testing.assert_allclose(gradient.active.values, want, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(linear(x[0]), (x @ dense)[0], rtol=1e-12)
    np.testing.assert_allclose(jax.vmap(linear)(x), x @ dense, rtol=1e-12)
    np.testing.assert_allclose(linear(x.reshape(4, 4, -1)).reshape(16, -1), x @ dense, rtol=1e-12)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_optimiser_holds_active_values_only(layout):
    linear, p = layer(layout, dtype=jnp.float32)
    moving, fixed = eqx.partition(linear, linear.trainable())
    leaves = jax.tree.leaves(moving)
    assert len(leaves) == 1 and leaves[0].shape == p.values.shape
    state = optax.adam(1e-3).init(moving)
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) == 2 * p.values.size + 1
    again = eqx.combine(moving, fixed)
    np.testing.assert_array_equal(again(p.x.T), linear(p.x.T))


def test_without_a_base():
    linear, p = layer("grouped", with_base=False)
    np.testing.assert_allclose(linear(p.x.T), p.x.T @ p.dense(p.values, *p.index), rtol=1e-12)


@pytest.mark.errors
def test_bad_input_is_named():
    linear, p = layer("grouped")
    with pytest.raises(ValueError, match="active must be one of BlockSparse"):
        SubspaceLinear(None, linear.base)
    with pytest.raises(ValueError, match=r"base must be as active, \(16, 32\) of float64"):
        SubspaceLinear(linear.base.T, linear.active)
    with pytest.raises(ValueError, match="base must be as active"):
        SubspaceLinear(linear.base.astype(jnp.float32), linear.active)
    with pytest.raises(ValueError, match="floating-point"):
        SubspaceLinear(linear.base.astype(jnp.int32), linear.active)
    with pytest.raises(ValueError, match=r"x must have shape \(\.\.\., 16\)"):
        linear(p.x[:, :5])
