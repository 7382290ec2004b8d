"""The compiled loop that `fit` dispatches: many steps, a number known only when called."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import numpyro
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from numpyro.distributions import Distribution

from bayesjx._core._failures import on_failure
from bayesjx._core._identity import ArraySpec, Identity, WeakCache
from bayesjx._core._nonfinite import Watch
from bayesjx._core._tree import is_key, path_name, shape_text

MOST = 32  # programs that are kept


class Step:
    """A step of an algorithm that is known by what it is made of.

    `Step(function, *parts)` is `lambda key, state, *batch: function(*parts, key, state, *batch)`.
    Arrays of JAX within the parts are arguments of the program that `fit` compiles, which serves
    all steps that are equal but for the values of these arrays. All else is part of the program.

    Args:
        function: a pure function of a module, best defined outside of functions.
        parts: pytrees.
    """

    def __init__(self, function: Callable, *parts: Any):
        self.function, self.parts = function, parts

    def __call__(self, key: Any, state: Any, *batch: Any) -> tuple[Any, Any]:
        return self.function(*self.parts, key, state, *batch)


class Arguments:
    """Arguments of the program of a step: arrays in a list, and their structure.

    Args:
        step: of an `Algorithm`.
        key: one PRNG key.
        state: pytree of arrays.
        data: pytrees of arrays, the same at each step.
        batch: pytrees of arrays of one step.
        keep: from a state to what is kept of it, or None.
        batch_size: rows of the data that a step draws, or None for all of them.
    """

    def __init__(
        self,
        step: Callable,
        key: Any,
        state: Any,
        data: tuple,
        batch: tuple,
        keep: Callable | None = None,
        batch_size: int | None = None,
    ):
        self._keep, self._batch_size = keep, batch_size
        made_of = (step.function, step.parts) if isinstance(step, Step) else step
        own, self._static = eqx.partition(made_of, eqx.is_array)
        self.key, self.own, self.state, self.data = place(key, own, state, data)
        self.batch = batch
        leaves = self.own, self.state, self.data, self.batch
        self._structures = [jax.tree.structure(tree) for tree in leaves]

    def fixed(self) -> list[Any]:
        """The arrays of the step and of the data."""
        return jax.tree.leaves((self.own, self.data))

    def identity(self, *options: Any) -> Identity:
        """Equal for steps that do the same to arrays of equal shapes, if that can be told."""
        trees = jax.tree.map(ArraySpec.of, (self.key, self.own, self.state, self.data, self.batch))
        own_options = self._keep, self._batch_size
        return Identity(self._static, *trees, *own_options, *options, *_settings())

    def trace(self, key: Any = None, shapes: bool = False) -> Any:
        """The step as a function of a key and the leaves of all else, traced.

        Args:
            key: instead of the own one.
            shapes: whether to forget where the arrays lie.
        """
        trees = self.key if key is None else key, self.own, self.state, self.data, self.batch
        if shapes:
            trees = jax.tree.map(_shape_of, trees)
        static, structures = self._static, self._structures
        keep, batch_size = self._keep, self._batch_size

        def flat(key: Any, *leaves: list[Any]) -> Any:
            pairs = zip(structures, leaves, strict=True)
            own, state, data, batch = (jax.tree.unflatten(s, x) for s, x in pairs)
            made_of = eqx.combine(own, static)
            step = Step(made_of[0], *made_of[1]) if isinstance(made_of, tuple) else made_of
            if batch_size is not None:
                key, row_key = jax.random.split(key)
                data = drawn_rows(row_key, data, batch_size)
            out = step(key, state, *data, *batch)
            kept = None if keep is None or not _is_pair(out) else _checked_kept(keep(out[0]))
            return out, kept

        # Not of the trees: their structures may hold functions of users, which a program must not.
        return jax.jit(flat, inline=True).trace(trees[0], *map(jax.tree.leaves, trees[1:]))


def drawn_rows(key: Any, data: Any, size: int) -> Any:
    """The same random rows, with replacement, of all arrays of a pytree."""
    leaves = jax.tree.leaves(data)
    index = jax.random.randint(key, (size,), 0, leaves[0].shape[0])
    return jax.tree.map(lambda x: x[index], data)


def _checked_kept(kept: Any) -> Any:
    for path, x in jax.tree_util.tree_leaves_with_path(kept):
        if not (hasattr(x, "dtype") or isinstance(x, int | float | complex)):
            name = path_name(path, "kept")
            raise ValueError(f"{name} must be an array; keep gave a {type(x).__name__}.")
    return kept


def _is_pair(out: Any) -> bool:
    return isinstance(out, tuple) and len(out) == 2


def _shape_of(x: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, weak_type=getattr(x, "weak_type", False))


def _settings() -> tuple[Any, ...]:
    """What else decides on how a function is traced."""
    names = ("jax_enable_x64", "jax_default_matmul_precision", "jax_numpy_dtype_promotion")
    jax_options = (getattr(jax.config, name, None) for name in names)
    handlers = tuple(numpyro.primitives._PYRO_STACK)
    return *jax_options, Distribution._validate_args, on_failure(), handlers


@dataclasses.dataclass
class Program:
    """The loop over one step, for arguments of given shapes.

    Attributes:
        jaxpr: of one step; None once `call` is compiled, as it may hold functions of a user.
        info: shapes and dtypes of one `Info`.
        kept: shapes and dtypes of what is kept of a state.
        capacity: most steps of one call.
        thin: of how many states the last one is kept.
        watch: what has to stay finite.
        call: `call(begin, end, first, key, own, state, data, batches) -> (state, rows, kept, ok)`
            runs the global steps `first + begin` to `first + end - 1`. All but the first four are
            lists of leaves. Those of `batches` and of the tree `rows` have a leading axis of length
            `capacity`, of which the entries `begin:end` are used. Entry `j` of those of the tree
            `kept` is of the last step so far of block `first // thin + j`, where a block has `thin`
            steps. None until compiled.
        fingerprint: of the jaxpr, once a checkpoint has asked for it.
    """

    jaxpr: Any
    info: Any
    kept: Any
    capacity: int
    thin: int
    watch: Watch
    call: Callable | None = None
    fingerprint: str | None = None

    def compile(self, arguments: Arguments) -> None:
        """Compile `call` for the arguments that were traced."""
        own, state, data, batch = map(
            jax.tree.leaves, (arguments.own, arguments.state, arguments.data, arguments.batch)
        )
        stacked = [jax.ShapeDtypeStruct((self.capacity, *x.shape), x.dtype) for x in batch]
        shardings = None
        if any(map(is_sharded, (arguments.key, *own, *state, *data))):
            shardings = ([x.sharding for x in state], None, None, None)
        zero = np.int32(0)
        lowered = jax.jit(_make_run(self), out_shardings=shardings).lower(
            zero, zero, zero, arguments.key, own, state, data, stacked
        )
        self.call, self.jaxpr = lowered.compile(), None


_PROGRAMS = WeakCache(MOST)


def get_program(arguments: Arguments, capacity: int, thin: int, watch: Watch) -> Program:
    """The program of a step, traced now or taken from the cache where its like was met before.

    Args:
        arguments: of the step.
        capacity: most steps of one call.
        thin: of how many states the last one is kept.
        watch: what has to stay finite.
    Raises:
        ValueError: the step changes the structure, a shape or a dtype of the state, or returns
            an `Info` that cannot be recorded.
    """
    key = arguments.identity(capacity, thin, watch)
    program = _PROGRAMS.get(key)
    if program is None:
        traced = arguments.trace()
        out, kept = traced.out_info
        info = _check_output(out, arguments.state)
        _check_no_key(kept, "kept")
        program = Program(traced.jaxpr, info, kept, capacity, thin, watch)
        _PROGRAMS.put(key, program)
    return program


def place(*trees: Any) -> tuple[Any, ...]:
    """Copy what lies on one device to all of them, if something is sharded over a mesh."""
    leaves = jax.tree.leaves(trees)
    meshes = [x.sharding.mesh for x in leaves if is_sharded(x) and hasattr(x.sharding, "mesh")]
    if not meshes:
        return trees
    everywhere = automatic(NamedSharding(meshes[0], PartitionSpec()))

    def move(x):
        return jax.device_put(x, automatic(x.sharding) if is_sharded(x) else everywhere)

    return jax.tree.map(move, trees)


def automatic(sharding: Any) -> Any:
    """The same sharding over axes along which the compiler decides, as those of `Mesh` are.

    Axes of `jax.make_mesh` are explicit: each operation would have to say how its result lies.
    """
    mesh = getattr(sharding, "mesh", None)
    if not isinstance(mesh, Mesh) or all(kind == AxisType.Auto for kind in mesh.axis_types):
        return sharding
    return NamedSharding(Mesh(mesh.devices, mesh.axis_names), sharding.spec)


def is_sharded(x: Any) -> bool:
    """Whether an array is on several devices, which none of NumPy is."""
    return isinstance(x, jax.Array) and len(x.sharding.device_set) > 1


def _make_run(program: Program) -> Callable:
    step, constants, watch = program.jaxpr.jaxpr, program.jaxpr.consts, program.watch
    capacity, thin = program.capacity, program.thin
    like, structure = jax.tree.flatten(program.info)
    kept_like, kept_structure = jax.tree.flatten(program.kept)
    blocks = (capacity - 1) // thin + 2  # that a call may have a part of

    def run(begin, end, first, key, own, state, data, batches):
        def body(i, carry):
            state, rows, kept = carry
            now = jax.random.fold_in(key, first + i)
            batch = [_row(x, i) for x in batches]
            outputs = jax.core.eval_jaxpr(step, constants, now, *own, *state, *data, *batch)
            new, outputs = outputs[: len(state)], outputs[len(state) :]
            new = [x.astype(old.dtype) for x, old in zip(new, state, strict=True)]
            rows = _written(rows, i, outputs[: len(rows)])
            block = (first + i) // thin - first // thin
            return new, rows, _written(kept, block, outputs[len(rows) :])

        rows = [jnp.zeros((capacity, *x.shape), x.dtype) for x in like]
        kept = [jnp.zeros((blocks, *x.shape), x.dtype) for x in kept_like]
        state, rows, kept = jax.lax.fori_loop(begin, end, body, (state, rows, kept))
        rows, kept = jax.tree.unflatten(structure, rows), jax.tree.unflatten(kept_structure, kept)
        return state, rows, kept, watch.all_finite(state, rows)

    return run


def _written(arrays: list[Any], i: Any, values: list[Any]) -> list[Any]:
    pairs = zip(arrays, values, strict=True)
    return [jax.lax.dynamic_update_index_in_dim(x, y, i, 0) for x, y in pairs]


def _row(x, i):
    return jax.lax.dynamic_index_in_dim(x, i, keepdims=False)


def _check_output(out: Any, state: Any) -> Any:
    if not (isinstance(out, tuple) and len(out) == 2):
        raise ValueError(f"step must return the pair (state, info); got {type(out).__name__}.")
    new, info = out
    _check_same_state(state, new)
    _check_no_key(info, "info")
    objective = getattr(info, "objective", None)
    if objective is not None and getattr(objective, "shape", None) != ():
        got = (
            shape_text(objective) if hasattr(objective, "shape") else jax.tree.structure(objective)
        )
        raise ValueError(f"info.objective must be a scalar; got {got}. Was a mean or sum left out?")
    return info


def _check_no_key(tree: Any, root: str) -> None:
    for path, x in jax.tree_util.tree_leaves_with_path(tree):
        if is_key(x):
            raise ValueError(f"{path_name(path, root)} is a PRNG key, which is not recorded.")


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
