"""Sparse networks of the tests: weights with known numbers, and their dense forms in NumPy."""

import jax.numpy as jnp
import numpy as np

from bayesjx.bnn import SparseLinear

# Size, block, and units of a group; neither size is a multiple of a block of several columns.
LAYOUTS = {
    "entries": ((13, 7), (1, 1), 3),
    "groups": ((13, 7), (1, 3), 4),
    "blocks": ((13, 7), (2, 3), 5),
    "dense": ((13, 7), (1, 7), 13),
}


def arrays(layout, dtype=np.float64, seed=0):
    """Index, means and scales."""
    rng = np.random.default_rng(seed)
    (rows, cols), (bk, bn), k = LAYOUTS[layout]
    grid = -(-rows // bk), -(-cols // bn)
    groups, candidates = (grid[1], grid[0]) if bk == 1 else (1, grid[0] * grid[1])
    index = np.stack([rng.permutation(candidates)[:k] for _ in range(groups)])
    shape = (groups, k, bk * bn)
    return index, rng.normal(size=shape).astype(dtype), rng.uniform(0.1, 1, shape).astype(dtype)


def dense(layout, index, values):
    """The matrix that has these values at its active units."""
    (rows, cols), (bk, bn), _ = LAYOUTS[layout]
    across = -(-cols // bn)
    matrix = np.zeros((-(-rows // bk) * bk, across * bn), values.dtype)
    for g, units in enumerate(index):
        for t, unit in enumerate(units):
            row, col = (unit, g) if bk == 1 else divmod(unit, across)
            block = values[g, t].reshape(bk, bn)
            matrix[row * bk : (row + 1) * bk, col * bn : (col + 1) * bn] = block
    return matrix[:rows, :cols]


def layer(layout, dtype=np.float64, seed=0):
    """A layer with a bias, and its dense means, variances and bias."""
    index, mean, scale = arrays(layout, dtype, seed)
    size, block, _ = LAYOUTS[layout]
    bias = np.linspace(-1, 1, size[1], dtype=dtype)
    made = SparseLinear.from_indices(size, block, index, jnp.asarray(mean), scale, bias)
    return made, (dense(layout, index, mean), dense(layout, index, scale**2), bias)
