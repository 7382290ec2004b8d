"""Names, checks and conversion of pytrees of arrays."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def path_name(path: tuple, root: str = "state") -> str:
    """Name of a leaf as one would write it: `params['scale']`, `opt_state[0].mu`.

    Args:
        path: a key path of `jax.tree_util`.
        root: what to call the tree where the path does not start with an attribute.
    """
    text = jax.tree_util.keystr(path)
    return text[1:] if text.startswith(".") else root + text


def tree_paths(tree: Any, root: str = "state") -> list[str]:
    """Path names of the leaves of `tree`, in the order of `jax.tree.leaves`."""
    return [path_name(path, root) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


def is_array(x: Any) -> bool:
    """Whether `x` is an array, of JAX or NumPy, that JAX can hold."""
    if isinstance(x, jax.Array):
        return True
    if not isinstance(x, np.ndarray | np.generic):
        return False
    return x.dtype.kind in "biufc" or jnp.issubdtype(x.dtype, jnp.number)


def is_key(x: Any) -> bool:
    """Whether `x` is an array (or the shape of one) of typed PRNG keys."""
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def is_inexact(x: Any) -> bool:
    """Whether `x` holds real or complex floating-point numbers."""
    return jnp.issubdtype(x.dtype, jnp.inexact)


def shape_text(x: Any) -> str:
    """Dtype and shape of an array as text, e.g. `float32[5,3]`."""
    return f"{x.dtype}[{','.join(map(str, x.shape))}]"


def as_arrays(tree: Any, root: str) -> Any:
    """`tree` with every leaf a strongly typed JAX array.

    Raises:
        ValueError: a leaf is not an array; names the leaf.
    """

    def convert(path, x):
        if not is_array(x):
            raise ValueError(
                f"{path_name(path, root)} must be an array; got {type(x).__name__} {x!r:.60}. "
                "Wrap numbers in jnp.asarray; keep functions and text in static fields."
            )
        x = jnp.asarray(x)
        return x.astype(x.dtype) if getattr(x, "weak_type", False) else x

    return jax.tree_util.tree_map_with_path(convert, tree)


def check_key(key: Any) -> None:
    """Check that `key` is one PRNG key, typed or raw.

    Raises:
        ValueError: it is something else.
    """
    got = type(key).__name__
    if is_array(key):
        if key.ndim == 0 if is_key(key) else (key.dtype == jnp.uint32 and key.ndim == 1):
            return
        got = shape_text(key)
    raise ValueError(
        f"key must be one PRNG key such as jax.random.key(0); got {got}. "
        "Was the result of jax.random.split passed whole?"
    )
