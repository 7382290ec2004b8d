"""Sparse layers: values, moments and gradients of the dense ones, and bad input."""

import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sparse_problems import arrays, dense, layer, LAYOUTS

from bayesjx import bnn


def all_of_it(made, x, key):
    """Mean output of rows, moments, a draw, and gradients of a function of the moments."""

    def function(made, x):
        mean, var = made.weight.moments(x)
        return jnp.sum(jnp.sin(mean)) + jnp.sum(jnp.sqrt(var)), (mean, var)

    (_, moments), gradient = eqx.filter_value_and_grad(function, has_aux=True)(made, x)
    to_x = jax.grad(lambda x: function(made, x)[0])(x)
    draws = jax.vmap(lambda key: made(x[0], key=key))(jax.random.split(key, 4000))
    return jax.vmap(made)(x), moments, (gradient.weight.mean, gradient.weight.scale, to_x), draws


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_a_layer_is_the_dense_one(layout, kind, getkey):
    made, (mean, var, bias) = layer(layout, kind)
    x = np.random.default_rng(1).normal(size=(5, 13)).astype(kind)
    out, moments, gradients, draws = jax.jit(all_of_it)(made, x, getkey())
    rtol = 100 * np.finfo(kind).eps * 13
    np.testing.assert_allclose(out, x @ mean + bias, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(moments[0], x @ mean, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(moments[1], x**2 @ var, rtol=rtol, atol=rtol)
    # Gradients by the chain rule, taken at the active units.
    to_mean, to_var = np.cos(x @ mean), 0.5 / np.sqrt(np.maximum(x**2 @ var, 1e-36))
    to_var = np.where(x**2 @ var > 0, to_var, 0)
    at_units = [x.T @ to_mean, (x.T**2 @ to_var) * 2 * np.sqrt(var)]
    for got, want in zip(gradients, at_units, strict=False):
        got = dense(layout, np.asarray(made.weight.index), np.asarray(got))
        np.testing.assert_allclose(got, want * (var > 0), rtol=rtol, atol=10 * rtol)
    want = to_mean @ mean.T + 2 * x * (to_var @ var.T)
    np.testing.assert_allclose(gradients[2], want, rtol=rtol, atol=10 * rtol)
    std = np.sqrt(x[0] ** 2 @ var)
    np.testing.assert_array_less(abs(draws.mean(0) - out[0]), 5 * std / 4000**0.5 + rtol)
    spread = 5 * std**2 * (2 / 4000) ** 0.5
    np.testing.assert_array_less(abs(np.var(draws, 0) - std**2), spread + rtol)
    assert out.dtype == draws.dtype == kind


@pytest.mark.parametrize("layout", LAYOUTS)
def test_divergence_and_masks_count_what_lies_in_the_matrix(layout):
    made, (mean, var, _) = layer(layout)
    active = var > 0
    each = 0.5 * ((var + mean**2) / 0.3 - 1 - np.log(np.where(active, var, 1) / 0.3))
    np.testing.assert_allclose(made.weight.divergence(0.3**0.5), each[active].sum(), rtol=1e-10)
    np.testing.assert_array_equal(made.weight.mask(), active)
    np.testing.assert_array_equal(made.weight.matrix(), mean)
    known = made.weight.drawn(jax.random.key(0))
    assert known.scale is None and np.all(np.asarray(known.matrix())[~active] == 0)


CONVOLUTIONS = [
    ((5, 4), {"stride": 2, "padding": 1}, (1, 3)),
    ((3,), {"padding": "SAME", "dilation": 2, "padding_mode": "REFLECT"}, (1, 1)),
    ((2, 2), {"padding": "SAME_LOWER", "use_bias": False}, (4, 2)),
]


@pytest.mark.parametrize("kernel,options,block", CONVOLUTIONS)
def test_a_convolution_is_the_dense_one(kernel, options, block, getkey):
    conv = eqx.nn.Conv(len(kernel), 3, 5, kernel, **options, key=getkey())
    model = eqx.nn.Sequential([conv])
    sparse = bnn.sparsify(getkey(), model, [0.4], block=block, start="weights")[0]
    x = np.random.default_rng(0).normal(size=(4, 3, *(9, 8)[: len(kernel)]))

    @eqx.filter_jit
    def both(sparse, conv, x):
        masked = eqx.tree_at(
            lambda c: c.weight, conv, sparse.weight.matrix().T.reshape(conv.weight.shape)
        )
        squares = sparse.weight.replaced(mean=sparse.weight.scale**2).matrix().T
        variance = eqx.tree_at(lambda c: c.weight, conv, squares.reshape(conv.weight.shape))
        if conv.use_bias:
            variance = eqx.tree_at(lambda c: c.bias, variance, 0 * conv.bias)
        draws = jax.vmap(lambda key: sparse(x[0], key=key))(
            jax.random.split(jax.random.key(3), 2000)
        )
        slopes = [
            jax.grad(lambda x, m=m: jnp.sum(jnp.sin(jax.vmap(m)(x))))(x) for m in (sparse, masked)
        ]
        values = [jax.vmap(m)(x) for m in (sparse, masked)]
        return values, slopes, draws, variance(x[0] ** 2)

    values, slopes, draws, variance = both(sparse, conv, x)
    np.testing.assert_allclose(*values, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(*slopes, rtol=1e-10, atol=1e-12)
    again = pickle.loads(pickle.dumps(sparse))
    assert jax.tree.structure(again) == jax.tree.structure(sparse)
    share = sparse.weight.density
    assert (
        0.3 < share < 0.6 and np.count_nonzero(sparse.weight.matrix()) <= share * conv.weight.size
    )
    spread = 5 * np.asarray(variance) * (2 / 2000) ** 0.5
    np.testing.assert_array_less(abs(np.var(draws, 0) - variance), spread + 1e-9)


def test_layers_of_random_units_alone_and_in_a_model(getkey):
    linear = bnn.SparseLinear(getkey(), 13, 10, density=0.3, group=4, dtype=jnp.float32)
    assert linear.weight.index.shape == (3, 4) and linear.weight.dtype == jnp.float32
    conv = bnn.SparseConv(getkey(), 2, 3, (3, 3), padding="SAME", density=0.5, group=1)
    assert conv.weight.index.shape == (3, 9) and conv(jnp.ones((2, 5, 4))).shape == (3, 5, 4)
    model = eqx.nn.Sequential([linear, eqx.nn.Lambda(jnp.tanh), eqx.nn.Linear(10, 2, key=getkey())])
    assert jax.vmap(model)(jnp.ones((3, 13), jnp.float32)).shape == (3, 2)
    assert linear(jnp.arange(13)).dtype == jnp.float32  # images of integers
    # Of the size of the inputs, whatever that is.
    for scale in (1e-8, 1e8):
        x = jnp.full(13, scale, jnp.float32)
        draw = linear(x, key=getkey()) - linear(x)
        assert 0.001 * scale < float(jnp.std(draw)) < scale
        slope = jax.grad(lambda x: jnp.sum(linear(x, key=jax.random.key(0))))(x)
        assert np.all(np.isfinite(slope))
    assert np.all(np.isfinite(jax.grad(lambda x: jnp.sum(linear(x, key=jax.random.key(0))))(0 * x)))


def test_scalars_in_and_out(getkey):
    model = eqx.nn.MLP("scalar", "scalar", 12, 2, key=getkey())
    sparse = bnn.sparsify(getkey(), model, [1.0, 0.5, 1.0], group=5)
    assert jax.vmap(sparse)(jnp.linspace(0, 1, 3)).shape == (3,)
    dense_model = bnn.sparsify(getkey(), model, 1.0)
    np.testing.assert_allclose(dense_model(jnp.ones(())), model(jnp.ones(())), rtol=1e-12)


@pytest.mark.parametrize("budget", ["uniform", "erk", "global"])
@pytest.mark.parametrize("start", ["random", "weights"])
def test_budgets(budget, start, getkey):
    model = eqx.nn.MLP(20, 3, 30, 2, key=getkey())
    sparse = bnn.sparsify(getkey(), model, 0.2, group=5, budget=budget, start=start)
    *layers, last = sparse.layers
    assert last.weight.full and np.array_equal(last.weight.matrix(), model.layers[2].weight.T)
    active = sum(int(layer.weight.mask().sum()) for layer in layers)
    # A unit of each group is the granularity.
    assert abs(active - 0.2 * (600 + 900)) <= 30
    densities = [layer.weight.density for layer in layers]
    if budget == "erk":  # (n_in + n_out) / (n_in n_out)
        np.testing.assert_allclose(densities[0] / densities[1], 50 / 600 / (60 / 900), rtol=0.2)
    if start == "weights":
        kept = np.asarray(layers[0].weight.matrix())
        full = np.asarray(model.layers[0].weight.T)
        mask = np.asarray(layers[0].weight.mask())
        np.testing.assert_array_equal(kept, np.where(mask, full, 0))
        norms = (full**2).reshape(20, 6, 5).sum(2)
        inside = mask.reshape(20, 6, 5).all(2)
        assert np.all(np.where(inside, norms, np.inf).min(0) >= np.where(inside, 0, norms).max(0))


BAD = [
    (lambda k, m: bnn.sparsify(k, m, 0.01), "density 0.01 leaves no unit of layers"),
    (lambda k, m: bnn.sparsify(k, m, 1.5), "density must be a number above 0 and at most 1"),
    (lambda k, m: bnn.sparsify(k, m, [0.5, 0.5]), "one for each of the 3 layers"),
    (lambda k, m: bnn.sparsify(k, m, budget="er"), "budget must be one of uniform, erk, global"),
    (lambda k, m: bnn.sparsify(k, m, group=0), "group must be at least 1"),
    (lambda k, m: bnn.sparsify(k, m, block=4), "block must be two positive integers"),
    (lambda k, m: bnn.sparsify(k, jnp.tanh), "model holds no equinox.nn.Linear"),
    (lambda k, m: bnn.sparsify(k, m, layers=lambda m: m.activation), "layers must return layers"),
    (
        lambda k, m: bnn.sparsify(k, eqx.nn.GRUCell(3, 5, key=k)),
        "is a GRUCell, which has no sparse",
    ),
    (
        lambda k, m: bnn.sparsify(k, eqx.nn.Conv1d(4, 4, 3, groups=2, key=k)),
        "Conv1d with 2 groups of channels",
    ),
    (
        lambda k, m: bnn.sparsify(
            k, eqx.filter_vmap(lambda k: eqx.nn.Linear(3, 4, key=k))(k[None])
        ),
        "stack of layers",
    ),
    (lambda k, m: bnn.sparsify(0, m), "PRNG"),
    (lambda k, m: bnn.SparseLinear(k, 0, 3), "in_features must be at least 1"),
    (lambda k, m: bnn.SparseLinear(k, 5, 3, density=0.01), "leaves no unit of the layer"),
    (
        lambda k, m: bnn.SparseLinear(k, 5, 3, density=0.5, relative_scale=0.0),
        "relative_scale must be",
    ),
    (lambda k, m: bnn.SparseConv(k, 5, 3, 3), "kernel_size must be a tuple"),
    (
        lambda k, m: bnn.SparseConv(k, 5, 3, (3, 3), density=0.5)(jnp.ones((4, 9, 9))),
        "x must be one",
    ),
    (
        lambda k, m: bnn.SparseConv(k, 5, 3, (3, 3), density=0.5)(jnp.ones((5, 2, 2))),
        "smaller than",
    ),
    (lambda k, m: layer("groups")[0](jnp.ones((2, 13))), r"one input of shape \(13,\)"),
    (lambda k, m: layer("groups")[0](jnp.ones(13, jnp.float32)), "x is float32 and the weights"),
]


@pytest.mark.errors
@pytest.mark.parametrize("call,text", BAD)
def test_bad_input_is_named(call, text, getkey):
    key = getkey()
    model = eqx.nn.MLP(20, 3, 30, 2, key=key)
    with pytest.raises(ValueError, match=text):
        call(key, model)


@pytest.mark.errors
def test_bad_indices_are_named():
    index, mean, scale = arrays("groups")

    def made(**changes):
        given = {"index": index, "mean": mean, "scale": scale} | changes
        return bnn.SparseLinear.from_indices((13, 7), (1, 3), **given)

    with pytest.raises(ValueError, match=r"takes index \(3, k\), integers with k in 1, ..., 13"):
        made(index=index[:2])
    with pytest.raises(ValueError, match=r"mean \(3, 4, 3\) of float64; got \(3, 4, 2\)"):
        made(mean=mean[:, :, :2])
    with pytest.raises(ValueError, match=r"scale \(3, 4, 3\) of float64; got .* float32"):
        made(scale=scale.astype(np.float32))
    with pytest.raises(ValueError, match="index must lie in 0, ..., 12 and be distinct"):
        made(index=index + 9)
    with pytest.raises(ValueError, match="be distinct"):
        made(index=np.zeros_like(index))
    with pytest.raises(ValueError, match="scale must be positive"):
        made(scale=-scale)
    with pytest.raises(ValueError, match="mean holds NaN"):
        made(mean=mean * np.nan)
    with pytest.raises(ValueError, match=r"bias must have shape \(7,\)"):
        made(bias=np.zeros(13))
    with pytest.raises(Exception, match="be distinct"):
        jax.block_until_ready(eqx.filter_jit(lambda i: made(index=i).weight.index)(index * 0))
