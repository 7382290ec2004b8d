"""The compiled loop that `fit` dispatches: many steps, a number known only when called."""

import dataclasses
import time
import weakref
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from bayesjx._core._tree import is_inexact, is_key, path_name, shape_text


@dataclasses.dataclass(frozen=True)
class Program:
    """The loop over one `step`, compiled for given shapes.

    Attributes:
        call: `call(begin, end, first, key, state, data, batches) -> (state, rows, ok)` runs the
            global steps `first + begin` to `first + end - 1`. Leaves of `batches` and `rows`
            have a leading axis of length `capacity`, of which the entries `begin:end` are
            used. `ok` is whether the objectives and the watched leaves are finite.
        jaxpr: of one step.
        info: shapes and dtypes of one `Info`.
        capacity: most steps of one call.
    """

    call: Callable
    jaxpr: Any
    info: Any
    capacity: int


_PROGRAMS: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def get_program(
    step: Callable, key: Any, state: Any, data: tuple, batch: tuple, capacity: int, watched: tuple
) -> tuple[Program, float]:
    """The program of `step`, from the cache where the shapes were met before.

    The cache lives as long as `step` does, and holds no arrays but the constants of `step`.

    Args:
        step: of an `Algorithm`.
        key: one PRNG key.
        state: pytree of arrays.
        data: pytrees of arrays, the same at each step.
        batch: pytrees of arrays of one step.
        capacity: most steps of one call.
        watched: for each leaf of `state`, whether it has to stay finite; None in place of
            the tuple also stops looking at the objective.
    Returns:
        The program, and the seconds spent on tracing and compiling it.
    Raises:
        ValueError: `step` changes the structure, a shape or a dtype of the state, or returns
            an `Info` that cannot be recorded.
    """
    signature = _signature((key, state, data, batch), capacity, watched)
    try:
        programs = _PROGRAMS.setdefault(step, {})
    except TypeError:  # a callable without a hash or without weak references
        programs = {}
    if signature in programs:
        return programs[signature], 0.0
    started = time.perf_counter()
    programs[signature] = _compile(step, key, state, data, batch, capacity, watched)
    return programs[signature], time.perf_counter() - started


def place(key: Any, state: Any, data: tuple) -> tuple[Any, Any, tuple]:
    """Copy what lies on one device to all of them, if something is spread over a mesh."""
    leaves = jax.tree.leaves((state, data))
    meshes = [x.sharding.mesh for x in leaves if _is_spread(x) and hasattr(x.sharding, "mesh")]
    if not meshes:
        return key, state, data
    everywhere = NamedSharding(meshes[0], PartitionSpec())

    def move(x):
        return x if _is_spread(x) else jax.device_put(x, everywhere)

    return jax.tree.map(move, (key, state, data))


def _is_spread(x) -> bool:
    return len(x.sharding.device_set) > 1


def _signature(arguments, capacity: int, watched) -> tuple:
    leaves, structure = jax.tree.flatten(arguments)
    shapes = tuple((x.shape, x.dtype, getattr(x, "sharding", None)) for x in leaves)
    names = ("jax_enable_x64", "jax_default_matmul_precision", "jax_numpy_dtype_promotion")
    settings = tuple(getattr(jax.config, name, None) for name in names)
    return structure, shapes, capacity, watched, settings


def _compile(step, key, state, data, batch, capacity, watched) -> Program:
    inner = jax.jit(step, inline=True)  # traced here, taken from the cache in the loop below
    traced = inner.trace(key, state, *data, *batch)
    info = _check_output(traced.out_info, state)
    stacked = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
            (capacity, *x.shape), jax.dtypes.canonicalize_dtype(x.dtype)
        ),
        batch,
    )

    def run(begin, end, first, key, state, data, batches):
        rows = jax.tree.map(lambda x: jnp.zeros((capacity, *x.shape), x.dtype), info)

        def body(i, carry):
            state, rows = carry
            batch = jax.tree.map(
                lambda x: jax.lax.dynamic_index_in_dim(x, i, keepdims=False), batches
            )
            new, row = inner(jax.random.fold_in(key, first + i), state, *data, *batch)
            new = jax.tree.map(lambda x, old: x.astype(old.dtype), new, state)
            rows = jax.tree.map(
                lambda x, y: jax.lax.dynamic_update_index_in_dim(x, y, i, 0), rows, row
            )
            return new, rows

        state, rows = jax.lax.fori_loop(begin, end, body, (state, rows))
        return state, rows, _all_finite(state, rows, watched)

    shardings = None
    if any(map(_is_spread, jax.tree.leaves((key, state, data)))):
        shardings = (jax.tree.map(lambda x: x.sharding, state), None, None)
    zero = np.int32(0)
    jitted = jax.jit(run, out_shardings=shardings)
    call = jitted.lower(zero, zero, zero, key, state, data, stacked).compile()
    return Program(call, traced.jaxpr, info, capacity)


def _all_finite(state, rows, watched):
    if watched is None:
        return jnp.bool_(True)
    leaves = [x for x, watch in zip(jax.tree.leaves(state), watched, strict=True) if watch]
    if hasattr(rows, "objective"):
        leaves.append(rows.objective)
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(x)) for x in leaves], dtype=bool))


def _check_output(out: Any, state: Any) -> Any:
    if not (isinstance(out, tuple) and len(out) == 2):
        raise ValueError(f"step must return the pair (state, info); got {type(out).__name__}.")
    new, info = out
    _check_same_state(state, new)
    for path, x in jax.tree_util.tree_leaves_with_path(info):
        if is_key(x):
            raise ValueError(f"{path_name(path, 'info')} is a PRNG key, which is not recorded.")
    objective = getattr(info, "objective", None)
    if objective is not None and getattr(objective, "shape", None) != ():
        got = (
            shape_text(objective) if hasattr(objective, "shape") else jax.tree.structure(objective)
        )
        raise ValueError(f"info.objective must be a scalar; got {got}. Was a mean or sum left out?")
    return info


def _check_same_state(state, new) -> None:
    old_leaves = jax.tree_util.tree_leaves_with_path(state)
    new_leaves = jax.tree_util.tree_leaves_with_path(new)
    old_names = [path_name(path) for path, _ in old_leaves]
    new_names = [path_name(path) for path, _ in new_leaves]
    for name in old_names:
        if name not in new_names:
            raise ValueError(f"step changes the structure of the state: {name} is gone.")
    for name in new_names:
        if name not in old_names:
            raise ValueError(f"step changes the structure of the state: {name} is new.")
    for name, (_, x), (_, y) in zip(old_names, old_leaves, new_leaves, strict=True):
        if (x.shape, x.dtype) != (y.shape, y.dtype):
            raise ValueError(
                f"step changes {name} from {shape_text(x)} to {shape_text(y)}. "
                "A Python number or a float64 constant may have promoted it."
            )
    if jax.tree.structure(state) != jax.tree.structure(new):
        raise ValueError(
            "step changes the structure of the state: given "
            f"{jax.tree.structure(state)}, returned {jax.tree.structure(new)}."
        )
