"""Every layout, in XLA and in both kernels interpreted, is the dense product."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from sparse_layouts import (
    check_products,
    check_second_order,
    check_vmap,
    LAYOUTS,
    MODES,
    problem,
    SIZES,
)

from bayesjx.ops import (
    _sparse_products,
    block_product,
    BlockSparse,
    entry_product,
    EntrySparse,
    grouped_moments,
    grouped_product,
    GroupedColumns,
)


@pytest.mark.parametrize("kernels", MODES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_product_and_gradients_are_the_dense_ones(layout, size, kernels):
    check_products(layout, size, jnp.float32, kernels)


@pytest.mark.parametrize("kernels", MODES)
@pytest.mark.parametrize("size", [128, 257])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_products_in_half_precision(layout, size, kernels):
    check_products(layout, size, jnp.bfloat16, kernels)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_products_in_double_precision(layout):
    check_products(layout, 200, jnp.float64, "auto")


@pytest.mark.parametrize("kernels", MODES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_second_derivatives_are_the_dense_ones(layout, kernels):
    check_second_order(layout, kernels, jnp.float64 if kernels == "xla" else jnp.float32)


@pytest.mark.parametrize("kernels", MODES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_vmap_is_a_loop(layout, kernels):
    check_vmap(layout, kernels, jnp.float64 if kernels == "xla" else jnp.float32)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_draws_of_the_values_share_the_inputs(layout):
    p = problem(layout)
    many = jnp.stack([p.values] * 5)
    run = jax.vmap(lambda v: p.product(v, *p.index, p.x))
    (product,) = [
        eqn for eqn in jax.make_jaxpr(run)(many).eqns if eqn.primitive.name.endswith("_forward")
    ]
    assert product.invars[-1].aval.shape == p.x.shape


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_are_finite_differences(layout):
    p = problem(layout)
    function = jax.jit(lambda v, x: jnp.sum(jnp.sin(p.product(v, *p.index, x))))
    check_grads(function, (p.values, p.x), order=1, modes=("fwd", "rev"), eps=1e-6, rtol=1e-6)


@pytest.mark.parametrize("limit", [1, 160, 600])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_small_chunks_change_nothing(layout, limit, monkeypatch):
    monkeypatch.setattr("bayesjx.ops._entry_sparse._CACHED", 600)
    monkeypatch.setattr(_sparse_products.chunk, "__defaults__", (limit,))
    jax.clear_caches()  # the rules of lowering read the limits
    check_products(layout, 16, jnp.float32, "xla")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_empty_batch_gives_an_empty_result(layout):
    p = problem(layout)
    out, pull = jax.vjp(lambda v: p.product(v, *p.index, p.x[:, :0], kernels="interpret"), p.values)
    assert out.shape == (p.y.shape[0], 0)
    np.testing.assert_array_equal(pull(out)[0], jnp.zeros_like(p.values))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_kernel_ran(layout, monkeypatch):
    """The comparisons above are of kernels: without them they would pass as well."""
    module = {"grouped": "grouped_columns", "blocks": "block_sparse", "entries": "entry_sparse"}
    p = problem(layout)
    name = f"bayesjx.ops._pallas.{module[layout]}.run_forward_cuda"
    monkeypatch.setattr(name, lambda *operands, **options: jnp.zeros_like(p.y))
    run = jax.jit(
        lambda x, kernels: p.product(p.values, *p.index, x, kernels=kernels), static_argnums=1
    )
    assert not run(p.x, "interpret-cuda").any()
    assert run(p.x, "interpret-tpu").any()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_matrix_is_never_made(layout):
    """Working memory of a product and its gradients, where the matrix would take 64 GiB."""
    n, batch = 2**17, 64
    product, values, index = {
        "blocks": (lambda v, r, c, x: block_product(v, r, c, x, n), (64, 32, 32), [(64,)] * 2),
        "grouped": (grouped_product, (n // 32, 8, 32), [(n // 32, 8)]),
        "entries": (entry_product, (8, n), [(8, n)]),
    }[layout]

    def run(values, index, x, y):
        out, pull = jax.vjp(lambda v, x: product(v, *index, x), values, x)
        return out, pull(y)

    floats = [jax.ShapeDtypeStruct(s, jnp.float32) for s in (values, (n, batch), (n, batch))]
    places = [jax.ShapeDtypeStruct(s, jnp.int32) for s in index]
    plan = jax.jit(run).lower(floats[0], places, *floats[1:]).compile().memory_analysis()
    assert plan.temp_size_in_bytes < 6 * n * batch * 4  # a few arrays of the size of x


@pytest.mark.errors
def test_places_out_of_range_are_refused():
    x, two, three = jnp.ones((6, 2)), jnp.ones((2, 3, 2)), jnp.ones((2, 3))
    good = np.array([[0, 5, 2], [1, 3, 4]])
    for bad in (good + 1, good - 1, good + 2**32):
        for product in (
            lambda at: entry_product(three, at, x),
            lambda at: grouped_product(two, at, x),
            lambda at: grouped_moments(two, two, at, x),
            lambda at: EntrySparse(three, at, None, (6, 3)),
            lambda at: GroupedColumns(two, at, (6, 4)),
            lambda at: block_product(jnp.ones((3, 1, 2)), at[0], [0, 1, 0], x, 4),
            lambda at: block_product(jnp.ones((3, 2, 1)), [0, 1, 0], at[0], x, 6),
            lambda at: BlockSparse(jnp.ones((3, 2, 1)), [0, 1, 0], at[0], (6, 6)),
        ):
            with pytest.raises(ValueError, match=r"(index|rows|cols) must lie in \[0, 6\)"):
                jax.eval_shape(lambda at=bad, product=product: product(at))
    traced = eqx.filter_jit(lambda at, x: entry_product(three, at, x))
    np.testing.assert_array_equal(traced(jnp.asarray(good), x), np.full((3, 2), 2.0))
    with pytest.raises(Exception, match=r"index must lie in \[0, 6\)"):
        traced(jnp.asarray(good + 1), x)
