"""The compiled loop that `fit` dispatches: many steps, a number known only when called."""

import dataclasses
import weakref
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from bayesjx._core._nonfinite import Watch
from bayesjx._core._tree import is_key, path_name, shape_text


@dataclasses.dataclass
class Program:
    """The loop over one `step`, for arguments of given shapes.

    Attributes:
        jaxpr: of one step.
        info: shapes and dtypes of one `Info`.
        capacity: most steps of one call.
        watch: what has to stay finite.
        call: `call(begin, end, first, key, state, data, batches) -> (state, rows, ok)` runs the
            global steps `first + begin` to `first + end - 1`. Leaves of `batches` and `rows`
            have a leading axis of length `capacity`, of which the entries `begin:end` are
            used. None until compiled.
    """

    jaxpr: Any
    info: Any
    capacity: int
    watch: Watch
    call: Callable | None = None

    def compile(self, step: Callable, key: Any, state: Any, data: tuple, batch: tuple) -> None:
        """Compile `call` for the step and the arguments that were traced."""
        run = _make_run(step, self)
        stacked = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((self.capacity, *x.shape), x.dtype), batch
        )
        shardings = None
        if any(map(_is_spread, jax.tree.leaves((key, state, data)))):
            shardings = (jax.tree.map(lambda x: x.sharding, state), None, None)
        zero = np.int32(0)
        lowered = jax.jit(run, out_shardings=shardings).lower(
            zero, zero, zero, key, state, data, stacked
        )
        self.call = lowered.compile()


# Values hold the constants of a step but not the step itself, so entries die with their keys.
_PROGRAMS: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def get_program(
    step: Callable, key: Any, state: Any, data: tuple, batch: tuple, capacity: int, watch: Watch
) -> Program:
    """The program of `step`, traced now or taken from the cache where the shapes were met before.

    Args:
        step: of an `Algorithm`, made hashable by `as_function`.
        key: one PRNG key.
        state: pytree of arrays.
        data: pytrees of arrays, the same at each step.
        batch: pytrees of arrays of one step.
        capacity: most steps of one call.
        watch: what has to stay finite.
    Raises:
        ValueError: `step` changes the structure, a shape or a dtype of the state, or returns
            an `Info` that cannot be recorded.
    """
    signature = _signature((key, state, data, batch), capacity, watch)
    programs = _PROGRAMS.setdefault(step, {})
    if signature not in programs:
        traced = jax.jit(step, inline=True).trace(key, state, *data, *batch)
        info = _check_output(traced.out_info, state)
        programs[signature] = Program(traced.jaxpr, info, capacity, watch)
    return programs[signature]


def as_function(step: Callable) -> Callable:
    """`step`, or a function that calls it where it cannot be a key of the cache itself.

    The method of an Equinox module that holds arrays has no hash, for instance; its program is
    compiled for each fit.
    """
    try:
        hash(step), weakref.ref(step)
    except TypeError:
        return lambda *args: step(*args)
    return step


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


def _signature(arguments: tuple, capacity: int, watch: Watch) -> tuple:
    leaves, structure = jax.tree.flatten(arguments)
    shapes = tuple((x.shape, x.dtype, getattr(x, "sharding", None)) for x in leaves)
    names = ("jax_enable_x64", "jax_default_matmul_precision", "jax_numpy_dtype_promotion")
    settings = tuple(getattr(jax.config, name, None) for name in names)
    return structure, shapes, capacity, watch, settings


def _make_run(step: Callable, program: Program) -> Callable:
    inner = jax.jit(step, inline=True)  # JAX has its trace from `get_program`

    def run(begin, end, first, key, state, data, batches):
        def body(i, carry):
            state, rows = carry
            batch = jax.tree.map(lambda x: _row(x, i), batches)
            new, row = inner(jax.random.fold_in(key, first + i), state, *data, *batch)
            new = jax.tree.map(lambda x, old: x.astype(old.dtype), new, state)
            rows = jax.tree.map(
                lambda x, y: jax.lax.dynamic_update_index_in_dim(x, y, i, 0), rows, row
            )
            return new, rows

        rows = jax.tree.map(
            lambda x: jnp.zeros((program.capacity, *x.shape), x.dtype), program.info
        )
        state, rows = jax.lax.fori_loop(begin, end, body, (state, rows))
        return state, rows, program.watch.all_finite(state, rows)

    return run


def _row(x, i):
    return jax.lax.dynamic_index_in_dim(x, i, keepdims=False)


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
