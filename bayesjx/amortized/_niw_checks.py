"""Checks of networks and tasks of NIW-Meta."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Bool

from .._core import checked_finite, number_array
from ..likelihoods import in_support


def checked_network(owner: str, network: Any, likelihood: Any) -> None:
    """Refuses what is no network of one input, or no likelihood.

    Raises:
        ValueError: it is not.
    """
    if isinstance(network, type) or not (isinstance(network, eqx.Module) and callable(network)):
        raise ValueError(
            f"{owner}: network must be a callable Equinox module such as eqx.nn.MLP(...), got "
            f"{network!r:.80}"
        )
    kinds = eqx.nn.StatefulLayer | eqx.nn.StateIndex
    has_state = lambda x: isinstance(x, kinds) and not isinstance(x, eqx.nn.Sequential)  # noqa: E731
    for node in jax.tree.leaves(network, is_leaf=has_state):
        if has_state(node):
            raise ValueError(
                f"{owner}: network must have no state, but has a {type(node).__name__}; use a "
                "layer such as eqx.nn.LayerNorm"
            )
    if isinstance(likelihood, dist.Distribution) or not callable(likelihood):
        raise ValueError(
            f"{owner}: likelihood must be a function from values of the network to a NumPyro "
            f"distribution, such as lambda f: dist.Categorical(logits=f); got {likelihood!r:.80}"
        )


def checked_inputs(owner: str, meta: Any, x: Any) -> jax.Array:
    """Inputs, one a row, of the type of the network, which takes them.

    Raises:
        ValueError: none, NaN, or a shape that the network does not take.
    """
    array = number_array(f"{owner}: x", x)
    if jnp.ndim(array) == 0 or jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise ValueError(
            f"{owner}: x must hold real inputs of the network, one a row, shape (n, ...); got "
            f"{array.dtype} of shape {jnp.shape(array)}"
        )
    array = checked_finite(f"{owner}: x", jnp.asarray(array))
    if jnp.issubdtype(array.dtype, jnp.floating) or array.dtype == bool:
        array = array.astype(meta.loc.dtype)
    outputs(owner, meta, array)
    return array


def outputs(owner: str, meta: Any, x: Any) -> Any:
    """Shape and type of the network's values at one row of inputs.

    Raises:
        ValueError: it fails there, or returns something else than `()` or `(p,)` numbers.
    """
    row = jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
    try:
        value = jax.eval_shape(lambda weights, x: meta.network(weights)(x), meta.loc, row)
    except (TypeError, ValueError, AssertionError, IndexError) as error:
        hint = "" if jnp.issubdtype(x.dtype, jnp.floating) else ", and is x to be floating-point"
        raise ValueError(
            f"{owner}: the network fails at an input of shape {x.shape[1:]} and type {x.dtype}, a "
            f"row of x; has x the shape (n, ...) of n inputs{hint}? {error}"
        ) from error
    fine = isinstance(value, jax.ShapeDtypeStruct) and value.ndim <= 1
    if not fine or not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(
            f"{owner}: network must return floating-point numbers of shape () or (p,) of one "
            f"input, a row of x, got {value}"
        )
    return value


def checked_task(
    owner: str, meta: Any, x: Any, y: Any, mask: Any, all_classes: bool
) -> tuple[jax.Array, jax.Array, Bool[Array, " n"]]:
    """The arrays of a task.

    Raises:
        ValueError: see `NIWMeta.adapt`; under `jit` values outside of the support are a
            `RuntimeError` when it runs.
    """
    y = number_array(f"{owner}: y", y)
    if mask is not None and jnp.shape(mask) == jnp.shape(x)[:1] == jnp.shape(y)[:1]:
        mask = checked_mask(owner, mask, jnp.shape(y)[:1])
        x, y = counted(number_array(f"{owner}: x", x), mask), counted(y, mask)
    x = checked_inputs(owner, meta, x)
    if jnp.ndim(y) == 0 or len(y) != len(x):
        raise ValueError(
            f"{owner}: y must have a target for each of the {len(x)} rows of x, got shape "
            f"{jnp.shape(y)}"
        )
    if jnp.issubdtype(y.dtype, jnp.floating):
        y = checked_finite(f"{owner}: y", jnp.asarray(y))
    mask = checked_mask(owner, mask, (len(x),))
    value = outputs(owner, meta, x)
    guard = jnp.ones((), meta.loc.dtype)
    at = jnp.zeros((len(x), *value.shape), value.dtype)
    try:
        y, guard = in_support(meta.likelihood, y, at, guard, each_output=True)
    except ValueError as error:
        hint = ""
        if value.shape == (1,):
            hint = "; the network has one output in a vector: is out_size='scalar' meant?"
        raise ValueError(f"{owner}: {error}{hint}") from error
    if all_classes:
        _check_classes(owner, meta.likelihood(at), y, mask)
    x = x * guard.astype(x.dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x
    return x, y, mask


def checked_mask(owner: str, mask: Any, shape: tuple[int, ...]) -> jax.Array:
    """Booleans of that shape, by default all true.

    Raises:
        ValueError: something else, or no row that counts, where it is known.
    """
    if mask is None:
        return jnp.ones(shape, bool)
    if jnp.shape(mask) != shape or not jnp.issubdtype(jnp.result_type(mask), jnp.bool_):
        raise ValueError(
            f"{owner}: mask must be booleans of shape {shape}, got {jnp.result_type(mask)} of "
            f"shape {jnp.shape(mask)}"
        )
    if not isinstance(mask, jax.core.Tracer) and not np.any(np.asarray(mask)):
        raise ValueError(f"{owner}: mask leaves no row that counts")
    return jnp.asarray(mask)


def counted(rows: Any, mask: Any) -> Any:
    """Rows, with the first that counts in place of those that do not, whatever these hold."""
    library = jnp if any(isinstance(v, jax.core.Tracer) for v in (rows, mask)) else np
    rows, mask = library.asarray(rows), library.asarray(mask)
    keep = mask.reshape(-1, *(1,) * (rows.ndim - 1))
    return library.where(keep, rows, rows[library.argmax(mask)])


def _check_classes(owner: str, observed: Any, y: Any, mask: Any) -> None:
    if isinstance(y, jax.core.Tracer) or isinstance(mask, jax.core.Tracer):
        return
    number = 2 if isinstance(observed, dist.BernoulliLogits | dist.BernoulliProbs) else None
    if isinstance(observed, dist.CategoricalLogits | dist.CategoricalProbs):
        number = observed.probs.shape[-1]
    if number is None or observed.event_shape or len(observed.batch_shape) > 1:
        return
    missing = sorted(set(range(number)) - set(np.asarray(y)[np.asarray(mask)].tolist()))
    if missing:
        raise ValueError(
            f"{owner}: y has no example of class {missing[0]}, of {number}; labels of a task are "
            "0, 1, ... of its own classes. If some have none, say all_classes=False"
        )
