"""One problem for each sparse layout, with its dense matrix; checks that all layouts share."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bayesjx.ops import block_product, entry_product, grouped_product

MODES = ("xla", "interpret-tpu", "interpret-cuda")
LAYOUTS = ("blocks", "grouped", "entries")
SIZES = (16, 128, 200, 257)
# K, N, M, block, active blocks | columns in a group, active rows | entries in a column
_SHAPES: dict[int, Any] = {
    16: (16, 32, 16, (8, 16), 3, 8, 5, 4),
    128: (128, 64, 128, (32, 32), 4, 32, 16, 9),
    200: (200, 150, 33, (40, 25), 7, 30, 37, 11),
    257: (257, 80, 130, (257, 20), 3, 80, 45, 13),
}


class Problem(NamedTuple):
    values: jax.Array
    index: tuple[jax.Array, ...]
    x: jax.Array
    y: jax.Array
    product: Any  # (values, *index, x, kernels) -> W^T x
    dense: Any  # (values, *index) -> W


def problem(layout, size=16, dtype=jnp.float64, seed=0):
    """The values, places and inputs of a product, small integers and halves for exactness."""
    rng = np.random.default_rng(seed)
    k, n, m, block, count, g, slots, entries = _SHAPES[size]
    normal = lambda *shape: jnp.asarray(rng.normal(size=shape) / 2, dtype)  # noqa: E731
    x, y = normal(k, m), normal(n, m)
    choose = lambda number: rng.choice(k, number, replace=False)  # noqa: E731
    if layout == "blocks":
        grid = k // block[0], n // block[1]
        flat = rng.choice(grid[0] * grid[1], count, replace=False)  # unsorted; columns left out
        rows, cols = (jnp.asarray(i, jnp.int32) for i in np.unravel_index(flat, grid))
        product = lambda v, r, c, x, **kw: block_product(v, r, c, x, n, **kw)  # noqa: E731

        def dense(v, r, c):
            out = jnp.zeros((grid[0], grid[1], *block), v.dtype).at[r, c].add(v)
            return out.transpose(0, 2, 1, 3).reshape(k, n)

        return Problem(normal(count, *block), (rows, cols), x, y, product, dense)
    if layout == "grouped":
        index = jnp.asarray([choose(slots) for _ in range(n // g)], jnp.int32)
        columns = jnp.arange(n).reshape(-1, 1, g)
        dense = lambda v, i: jnp.zeros((k, n), v.dtype).at[i[:, :, None], columns].add(v)  # noqa: E731
        return Problem(normal(n // g, slots, g), (index,), x, y, grouped_product, dense)
    index = jnp.asarray([choose(entries) for _ in range(n)], jnp.int32).T
    dense = lambda v, i: jnp.zeros((k, n), v.dtype).at[i, jnp.arange(n)].add(v)  # noqa: E731
    return Problem(normal(entries, n), (index,), x, y, entry_product, dense)


def tolerance(dtype):
    """For sums of some hundred products of size one."""
    eps = float(jnp.finfo(dtype).eps)
    return {"rtol": 16 * eps, "atol": 64 * eps}


def wide(tree):
    return jax.tree.map(lambda a: np.asarray(a, np.float64), tree)


def check_products(layout, size, dtype, kernels):
    """Value and both gradients against the dense matrix."""
    p = problem(layout, size, dtype)

    @jax.jit
    def ours(values, x, y):
        product = lambda v, x: p.product(v, *p.index, x, kernels=kernels)  # noqa: E731
        out, pull = jax.vjp(product, values, x)
        return out, pull(y)

    @jax.jit
    def dense(values, x, y):
        out, pull = jax.vjp(lambda v, x: p.dense(v, *p.index).T @ x, values, x)
        return out, pull(y)

    got = ours(p.values, p.x, p.y)
    want = dense(*wide((p.values, p.x, p.y)))
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert g.dtype == dtype
        np.testing.assert_allclose(np.asarray(g, np.float64), w, **tolerance(dtype))


def check_second_order(layout, kernels, dtype):
    """Gradient of gradient and forward over reverse, all against the dense matrix."""
    p = problem(layout, 16, dtype)

    def second(multiply):
        loss = lambda v, x: jnp.sum(jnp.sin(multiply(v, x)) * p.y)  # noqa: E731
        gradient = jax.grad(loss, (0, 1))
        squared = lambda v, x: sum(jnp.sum(jnp.cos(g)) for g in gradient(v, x))  # noqa: E731
        tangent = (jnp.cos(p.values), jnp.sin(p.x))

        def run(v, x):
            pushed = jax.jvp(gradient, (v, x), tangent)[1]
            return jax.grad(squared, (0, 1))(v, x), pushed, jax.jvp(multiply, (v, x), tangent)

        return jax.jit(run)(p.values, p.x)

    got = second(lambda v, x: p.product(v, *p.index, x, kernels=kernels))
    want = second(lambda v, x: p.dense(v, *p.index).T @ x)
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, **tolerance(dtype)), got, want)


def check_vmap(layout, kernels, dtype):
    """Value and gradients under every choice of mapped operands, against a loop."""
    first, second = problem(layout, 16, dtype), problem(layout, 16, dtype, seed=1)

    def run(v, index, x, y):
        out, pull = jax.vjp(lambda v, x: first.product(v, *index, x, kernels=kernels), v, x)
        return out, pull(y)

    one, two = ((p.values, p.index, p.x, p.y) for p in (first, second))
    both = jax.tree.map(lambda a, b: jnp.stack([a, b]), one, two)
    choices = [(0, 0, 0, 0), (None, None, 0, None), (0, None, None, 0), (None, 0, None, 0)]
    choices += [(0, None, 0, None), (None, None, 0, 0)]

    @jax.jit
    def all_choices(both, one):
        found = []
        for axes in choices:
            args = [b if axis == 0 else o for axis, b, o in zip(axes, both, one, strict=True)]
            found.append(jax.vmap(run, axes)(*args))
        return found

    @jax.jit
    def loop(both, one):
        found = []
        for axes in choices:
            parts = []
            for i in range(2):
                pick = lambda a, i=i: a[i]  # noqa: E731
                args = [
                    jax.tree.map(pick, b) if axis == 0 else o
                    for axis, b, o in zip(axes, both, one, strict=True)
                ]
                out, pull = jax.vjp(lambda v, x, i=args[1]: first.dense(v, *i).T @ x, *args[::2])
                parts.append((out, pull(args[3])))
            found.append(jax.tree.map(lambda a, b: jnp.stack([a, b]), *parts))
        return found

    got, want = all_choices(both, one), loop(both, one)
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, **tolerance(dtype)), got, want)
