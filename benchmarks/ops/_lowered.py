"""Every primitive of `bayesjx.ops` under every transformation: for `ops-lower` and a test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bayesjx.ops import block_product, entry_product, grouped_moments, grouped_product, kron_pair

# What a kernel of ours is called in a lowered module.
CALLS = {"tpu": "tpu_custom_call", "cuda": "__gpu$xla.gpu.triton"}


class Case(NamedTuple):
    """A function of floating-point arrays that binds a primitive.

    Attributes:
        function: takes `args`.
        args: large enough for a kernel to be worth it.
        in_gradient: kernels in the module of its value and gradient.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]
    in_gradient: int


def cases() -> dict[str, Case]:
    """By name of the primitive; sizes are ragged."""
    rng = np.random.default_rng(0)
    normal = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    x, values = normal(200, 130), normal(5, 21, 40)
    index = np.stack([rng.choice(200, 21, replace=False) for _ in range(5)]).astype(np.int32)
    rows, cols = np.array([4, 0, 2, 2], np.int32), np.array([0, 1, 1, 4], np.int32)
    single = np.stack([rng.choice(200, 7, replace=False) for _ in range(100)], 1).astype(np.int32)
    return {
        "kron_pair": Case(kron_pair, (normal(100, 130), normal(90, 33), normal(2, 130, 33)), 2),
        "block_sparse": Case(
            lambda v, x: block_product(v, rows, cols, x, 125), (normal(4, 40, 25), x), 3
        ),
        "grouped_columns": Case(lambda v, x: grouped_product(v, index, x), (values, x), 2),
        "grouped_moments": Case(
            lambda m, v, x: grouped_moments(m, v, index, x), (values, values**2, x), 3
        ),
        "entry_sparse": Case(lambda v, x: entry_product(v, single, x), (normal(7, 100), x), 1),
    }


def transformed(case: Case) -> dict[str, tuple[Callable[..., Any], tuple[Any, ...], int]]:
    """By name of the transformation: function, arguments, and how many kernels at least."""
    function, args, in_gradient = case
    every = tuple(range(len(args)))

    def loss(*args: Any) -> jax.Array:
        return jnp.array([jnp.sum(jnp.sin(y)) for y in jax.tree.leaves(function(*args))]).sum()

    gradient = jax.grad(loss, every)

    def squared(*args: Any) -> jax.Array:
        return jnp.array([jnp.sum(g**2) for g in gradient(*args)]).sum()

    twice = tuple(jnp.stack([a, 2 * a]) for a in args)
    value = jax.value_and_grad(loss, every)
    return {
        "value": (function, args, 1),
        "jvp": (lambda *a: jax.jvp(function, a, a), args, 1),
        "vmap": (jax.vmap(function), twice, 1),
        "vmap of one": (
            jax.vmap(function, (0,) + (None,) * len(every[1:])),
            (twice[0], *args[1:]),
            1,
        ),
        "grad": (value, args, in_gradient),
        "vmap of grad": (jax.vmap(value), twice, in_gradient),
        "grad of vmap": (
            jax.grad(lambda *a: jnp.sum(jax.vmap(loss)(*a)), every),
            twice,
            in_gradient,
        ),
        "grad of grad": (jax.grad(squared, every), args, in_gradient),
        "jvp of grad": (lambda *a: jax.jvp(gradient, a, a), args, in_gradient),
        "scan": (_scanned(function), args, 1),
    }


def _scanned(function: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any) -> Any:
        start = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(function, *args))
        step = lambda total, _: (jax.tree.map(jnp.add, total, function(*args)), None)  # noqa: E731
        return jax.lax.scan(step, start, length=2)[0]

    return run


def lowered_calls(function: Callable[..., Any], args: tuple[Any, ...], platform: str) -> int:
    """How many kernels the module for a platform calls; without hardware."""
    text = jax.jit(function).trace(*args).lower(lowering_platforms=(platform,)).as_text()
    return text.count(f"@{CALLS[platform]}" if platform == "tpu" else CALLS[platform])


def exported(function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """One module for CPU, TPU and GPU."""
    check = jax.export.DisabledSafetyCheck.custom_call
    return jax.export.export(
        jax.jit(function),
        platforms=("cpu", "tpu", "cuda"),
        disabled_checks=[check(name) for name in CALLS.values()],
    )(*args)
