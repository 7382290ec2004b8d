"""The Kronecker pair, in XLA and in both kernels interpreted, is the dense product."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from sparse_layouts import MODES, SIZES, tolerance, wide

from bayesjx.ops import kron_pair

# (m_a, n_a), (m_b, n_b), matrices
SHAPES = {
    16: ((16, 16), (16, 16), 1),
    128: ((128, 64), (32, 128), 2),
    200: ((200, 40), (30, 200), 3),
    257: ((33, 257), (257, 20), 2),
}


def problem(size=16, dtype=jnp.float64, seed=0):
    (m_a, n_a), (m_b, n_b), z = SHAPES[size]
    rng = np.random.default_rng(seed)
    normal = lambda *shape: jnp.asarray(rng.normal(size=shape) / 2, dtype)  # noqa: E731
    return normal(m_a, n_a), normal(m_b, n_b), normal(z, n_a, n_b), normal(z, m_a, m_b)


def small(dtype, seed=0):
    """Sides of all different sizes, so that no two can be exchanged."""
    rng = np.random.default_rng(seed)
    return tuple(jnp.asarray(rng.normal(size=s), dtype) for s in ((3, 5), (2, 7), (4, 5, 7)))


def dense(a, b, x):
    return (x.reshape(x.shape[0], -1) @ jnp.kron(a, b).T).reshape(-1, a.shape[0], b.shape[0])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("kernels", MODES)
@pytest.mark.parametrize("size", SIZES)
def test_product_and_gradients(size, kernels, dtype):
    *args, y = problem(size, dtype)

    def run(product, args, y):
        out, pull = jax.vjp(product, *args)
        return out, pull(y)

    ours = jax.jit(functools.partial(run, functools.partial(kron_pair, kernels=kernels)))
    # np.kron would be too large: the definition, one axis after the other
    plain = jax.jit(functools.partial(run, lambda a, b, x: jnp.einsum("ij,zjl,kl->zik", a, x, b)))
    got, want = ours(args, y), plain(*wide((args, y)))
    loose = 8 * SHAPES[size][2]  # the gradients of a and b sum over 10⁴ products
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert g.dtype == dtype
        tol = {name: loose * t for name, t in tolerance(dtype).items()}
        np.testing.assert_allclose(np.asarray(g, np.float64), w, **tol)


def test_is_the_kronecker_product_in_c_order():
    a, b, x = small(jnp.float64)
    np.testing.assert_allclose(kron_pair(a, b, x), dense(a, b, x), rtol=1e-12)
    np.testing.assert_allclose(kron_pair(a, b, x[0]), dense(a, b, x)[0], rtol=1e-12)
    stacked = kron_pair(a, b, x.reshape(2, 2, 5, 7))
    np.testing.assert_allclose(stacked.reshape(4, 3, 2), dense(a, b, x), rtol=1e-12)


@pytest.mark.parametrize("kernels", MODES)
def test_complex_numbers_are_for_xla(kernels):
    a, b, x = (t + 1j * jnp.cos(t) for t in small(jnp.float32))
    got = kron_pair(a, b, x, kernels=kernels)
    np.testing.assert_allclose(got, dense(a, b, x), rtol=1e-4)


@pytest.mark.parametrize("kernels", MODES)
def test_second_derivatives(kernels):
    args = small(jnp.float32 if kernels != "xla" else jnp.float64)

    def second(product):
        loss = lambda *args: jnp.sum(jnp.sin(product(*args)))  # noqa: E731
        gradient = jax.grad(loss, (0, 1, 2))
        squared = lambda *args: sum(jnp.sum(jnp.cos(g)) for g in gradient(*args))  # noqa: E731
        tangent = tuple(jnp.cos(a) for a in args)

        def run(*args):
            pushed = jax.jvp(gradient, args, tangent)[1]
            return jax.grad(squared, (0, 1, 2))(*args), pushed, jax.jvp(product, args, tangent)

        return jax.jit(run)(*args)

    got, want = second(functools.partial(kron_pair, kernels=kernels)), second(dense)
    tol = {"rtol": 1e-3, "atol": 1e-3} if kernels != "xla" else {"rtol": 1e-9, "atol": 1e-9}
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, **tol), got, want)


@pytest.mark.parametrize("kernels", MODES)
def test_vmap_is_a_loop(kernels):
    one, two = small(jnp.float32), small(jnp.float32, seed=1)
    both = jax.tree.map(lambda s, t: jnp.stack([s, t], -1), one, two)  # mapped axis last
    choices = [(-1, -1, -1), (-1, None, None), (None, -1, None), (None, None, -1), (-1, None, -1)]

    def run(product, *args):
        out, pull = jax.vjp(product, *args)
        return out, pull(jnp.cos(out))

    @jax.jit
    def mapped(one, both):
        ours = functools.partial(run, functools.partial(kron_pair, kernels=kernels))
        found = []
        for axes in choices:
            args = [o if a is None else b for o, b, a in zip(one, both, axes, strict=True)]
            found.append(jax.vmap(ours, axes)(*args))
        return found

    for axes, got in zip(choices, mapped(one, both), strict=True):
        for i, second in enumerate((one, two)):
            args = [o if a is None else s for o, s, a in zip(one, second, axes, strict=True)]
            want = jax.jit(functools.partial(run, dense))(*args)
            check = lambda g, w, i=i: np.testing.assert_allclose(g[i], w, rtol=1e-4, atol=1e-4)  # noqa: E731
            jax.tree.map(check, got, want)


def test_gradients_are_finite_differences():
    function = jax.jit(lambda *args: jnp.sum(jnp.sin(kron_pair(*args))))
    check_grads(function, small(jnp.float64), order=1, eps=1e-6, rtol=1e-6)


def test_both_orders_of_multiplication():
    """The cheaper one is taken: tall and wide factors need different ones."""
    rng = np.random.default_rng(0)
    for shapes in (((2, 30), (30, 3), (30, 3)), ((30, 3), (2, 30), (3, 30))):
        a, b, x = (jnp.asarray(rng.normal(size=s)) for s in shapes)
        np.testing.assert_allclose(kron_pair(a, b, x), a @ x @ b.T, rtol=1e-12)


def test_kernel_reads_no_memory_that_was_not_written():
    from jax.experimental.pallas import tpu as pltpu

    from bayesjx.ops._pallas.block_sparse import run_forward_tpu
    from bayesjx.ops._pallas.kron_pair import run_tpu

    model = pltpu.InterpretParams(uninitialized_memory="nan")
    a, b, x, _ = problem(200, jnp.float32)
    run = jax.jit(lambda a, b, x: run_tpu(a[None], b[None], x[None], interpret=model)[0])
    want = jnp.einsum("ij,zjl,kl->zik", a, x, b)
    np.testing.assert_allclose(run(a, b, x), want, rtol=1e-4, atol=1e-3)
    # a column of blocks that nothing is written to
    rows, cols = jnp.array([1, 0], jnp.int32), jnp.array([2, 0], jnp.int32)
    values, x = jnp.ones((2, 8, 8), jnp.float32), jnp.ones((16, 130), jnp.float32)
    options = {"shape": (16, 24), "block": (8, 8), "interpret": model}
    out = jax.jit(lambda v, x: run_forward_tpu(v, rows, cols, x, **options))(values, x)
    np.testing.assert_array_equal(out, np.repeat([8.0, 0.0, 8.0], 8)[:, None] * np.ones(130))


@pytest.mark.errors
def test_bad_input_is_named():
    a, b, x = small(jnp.float32)
    with pytest.raises(ValueError, match=r"x must end in \(5, 7\)"):
        kron_pair(a, b, x.mT)
    with pytest.raises(ValueError, match="takes matrices a"):
        kron_pair(a[0], b, x)
    with pytest.raises(ValueError, match="must have one type, got a float32, b float64"):
        kron_pair(a, b.astype(jnp.float64), x)
    with pytest.raises(ValueError, match="x must hold floating-point numbers, got int"):
        kron_pair(a, b, x.astype(jnp.int32))
    with pytest.raises(ValueError, match="kernels must be one of auto, xla"):
        kron_pair(a, b, x, kernels="gpu")
