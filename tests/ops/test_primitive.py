"""The machinery of primitives, on a product of three numbers."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesjx.ops._primitive import Kernel, kernel_mode, mapped_size, multilinear, SMALL, with_axis


def make(calls):
    """`x * y` for equal shapes; its kernels record that they ran, and give twice the product."""

    def kernel(platform):
        def run(x, y, *, interpret):
            calls.append((platform, interpret))
            return 2 * x * y

        return Kernel(run, lambda x, y, *, dtype: len(x) == 1)

    def batch(bind, operands, axes, *, mode):
        size = mapped_size(operands, axes)
        x, y = (with_axis(o, a, size) for o, a in zip(operands, axes, strict=True))
        return bind(x.reshape(-1), y.reshape(-1), mode=mode).reshape(x.shape), 0

    product = multilinear(
        "test_product",
        lambda x, y: x * y,
        transposes={
            0: lambda ct, x, y, mode: product.bind(ct, y, mode=mode),
            1: lambda ct, x, y, mode: product.bind(x, ct, mode=mode),
        },
        shapes=lambda x, y: x,
        floating=0,
        batch=batch,
        kernels={p: kernel(p) for p in ("tpu", "cuda")},
    )
    return product


X, Y = jnp.array([2.0, -3.0, 0.5]), jnp.array([1.5, 4.0, -1.0])


def test_eager_jit_and_derivatives():
    product = functools.partial(make([]).bind, mode="auto")
    assert product(X, Y).dtype == X.dtype
    np.testing.assert_array_equal(product(X, Y), X * Y)
    np.testing.assert_array_equal(jax.jit(product)(X, Y), X * Y)
    value, change = jax.jvp(product, (X, Y), (Y, X))
    np.testing.assert_array_equal((value, change), (X * Y, Y * Y + X * X))
    np.testing.assert_array_equal(jax.jvp(lambda x: product(x, Y), (X,), (X,))[1], X * Y)
    cubed = lambda x: jnp.sum(product(product(x, x), x))  # noqa: E731
    np.testing.assert_allclose(jax.grad(cubed)(X), 3 * X**2)
    np.testing.assert_allclose(jax.hessian(cubed)(X), jnp.diag(6 * X))
    np.testing.assert_allclose(jax.jacrev(jax.grad(cubed))(X), jnp.diag(6 * X))
    np.testing.assert_allclose(jax.vmap(jax.grad(lambda x: product(x, x)[()]))(X), 2 * X)
    (back,) = jax.linear_transpose(lambda x: product(x, Y), X)(X)
    np.testing.assert_array_equal(back, X * Y)


def test_an_unused_derivative_is_none():
    product = functools.partial(make([]).bind, mode="auto")
    text = str(jax.make_jaxpr(jax.grad(lambda x: jnp.sum(product(x, Y))))(X))
    assert text.count("test_product") == 2  # the value and the transpose: nothing for y


@pytest.mark.parametrize("mode", ["auto", "xla", "interpret", "interpret-tpu", "interpret-cuda"])
def test_the_mode_decides_on_the_cpu(mode):
    calls = []
    product = make(calls)
    run = jax.jit(functools.partial(product.bind, mode=mode))
    result = run(X, Y)
    interpreted = mode.startswith("interpret")
    np.testing.assert_array_equal(result, X * Y * (2 if interpreted else 1))
    platform = "cuda" if mode == "interpret-cuda" else "tpu"
    assert calls == ([(platform, True)] if interpreted else [])
    # what does not fit goes to XLA, and modes stay apart within a process
    np.testing.assert_array_equal(run(X[None], Y[None]), (X * Y)[None])
    np.testing.assert_array_equal(jax.jit(functools.partial(product.bind, mode="xla"))(X, Y), X * Y)


@pytest.mark.parametrize(
    "platform, mode, size, dtype, ran",
    [
        ("tpu", "auto", SMALL, jnp.float32, True),
        ("cuda", "auto", SMALL, jnp.float32, True),
        ("cuda", "auto", SMALL, jnp.float64, True),
        ("tpu", "auto", SMALL, jnp.float64, False),  # TPUs have no such numbers
        ("tpu", "auto", SMALL, jnp.float16, False),
        ("cuda", "auto", SMALL, jnp.float16, True),
        ("cuda", "auto", SMALL, jnp.complex64, False),
        ("tpu", "auto", SMALL // 2 - 1, jnp.float32, False),
        ("tpu", "xla", SMALL, jnp.float32, False),
        ("cpu", "auto", SMALL, jnp.float32, False),
    ],
)
def test_what_is_lowered_for_a_platform(platform, mode, size, dtype, ran):
    calls = []
    x = jnp.zeros(size, dtype)
    # `fits` of the toy wants one axis
    traced = jax.jit(functools.partial(make(calls).bind, mode=mode)).trace(x, x)
    traced.lower(lowering_platforms=(platform,))
    assert calls == ([(platform, False)] if ran else [])


def test_empty_operands_need_no_kernel():
    calls = []
    empty = jnp.zeros((0,))
    assert make(calls).bind(empty, empty, mode="interpret").shape == (0,)
    assert not calls


def test_the_environment_is_read_when_tracing(monkeypatch):
    monkeypatch.delenv("BAYESJX_KERNELS", raising=False)
    assert kernel_mode() == "auto"
    monkeypatch.setenv("BAYESJX_KERNELS", "xla")
    assert kernel_mode() == "xla"
    assert kernel_mode("interpret") == "interpret"


@pytest.mark.errors
def test_unknown_modes_are_named(monkeypatch):
    with pytest.raises(ValueError, match="kernels must be one of auto, xla, .*got 'fast'"):
        kernel_mode("fast")
    monkeypatch.setenv("BAYESJX_KERNELS", "on")
    with pytest.raises(ValueError, match="BAYESJX_KERNELS must be one of .*got 'on'"):
        kernel_mode()


def test_helpers_of_batching_rules():
    x = jnp.arange(6.0).reshape(2, 3)
    assert mapped_size((X, x), (None, 1)) == 3
    assert with_axis(x, 1, 3).shape == (3, 2)
    assert with_axis(x, None, 4).shape == (4, 2, 3)
    assert math.prod(with_axis(x, 0, 2).shape) == 6
