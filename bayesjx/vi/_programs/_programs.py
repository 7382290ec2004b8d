"""The two verbs of an objective: run a program forward, or score its density at given values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import jax
from jax import random
from numpyro import handlers

from ..._core import check_key, whole_number
from .._estimator import (
    activate,
    check_programs,
    Context,
    Cost,
    current,
    named,
    one_dtype,
    peek,
)
from ._handlers import (
    DensityHandler,
    SimulateHandler,
)
from ._trace import (
    Trace,
)


def simulate(program: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[Trace, Cost]:
    """Runs a NumPyro program forward inside an objective.

    Args:
        program: callable with NumPyro primitives; latent sites draw by their strategies, sites
            with `obs` are scored.
        *args: passed to the program, as are **kwargs**.

    Returns:
        the latent values, and the log density of all sample statements as a structured `Cost`.

    Raises:
        RuntimeError: called outside an objective.
        ValueError: two sites share a name, or a site cannot have the strategy it was given.
    """
    context = current("simulate")
    check_programs(program=program)
    prefix, key = context.enter_call()
    handler = SimulateHandler(context, prefix)
    with handlers.block(), handlers.seed(rng_seed=named(key, "__seed__")), handler:
        program(*args, **kwargs)
    return handler.result()


def sample(
    key: jax.Array,
    program: Callable[..., Any],
    *args: Any,
    num_samples: int | None = None,
    **kwargs: Any,
) -> dict[str, jax.Array]:
    """Draws the latent sites of a program, such as a fitted guide.

    Args:
        key: randomness.
        program: NumPyro program.
        *args: passed to the program, as are **kwargs**.
        num_samples: number of independent draws, by `jax.vmap`; None for a single one.

    Returns:
        values by site, auxiliary sites left out, with a leading axis of `num_samples`; what
        `bayesjx.to_datatree` takes as a posterior.

    Raises:
        ValueError: `num_samples` is not a positive integer, or `key` not a PRNG key.
        TypeError: `program` is not callable.
    """
    check_key(key)
    check_programs(program=program)
    if num_samples is not None:
        whole_number("num_samples", num_samples)

    def one(key: jax.Array) -> dict[str, jax.Array]:
        with activate(Context(key)):
            trace, _ = simulate(program, *args, **kwargs)
        return {name: v for name, v in trace.values.items() if name not in trace.auxiliary}

    return one(key) if num_samples is None else jax.vmap(one)(random.split(key, num_samples))


def log_density(
    program: Callable[..., Any],
    values: Trace | Mapping[str, Any],
    *args: Any,
    **kwargs: Any,
) -> Cost:
    """Log density of a NumPyro program at given values of all its latent sites.

    Args:
        program: callable with NumPyro primitives.
        values: the `Trace` of another program, or a mapping from site names to arrays.
        *args: passed to the program, as are **kwargs**.

    Returns:
        the log density of all sample statements, scaled as subsampled plates ask, as a
        structured `Cost`.

    Raises:
        ValueError: a latent site of the program has no value or a value has no site (auxiliary
            sites of a `Trace` excepted); two sites share a name; plates of the same name
            disagree; an observed or given value does not fit its distribution or plates; a site
            of the `Trace` has another shape, event dimension or kind (discrete or continuous) than
            that of the program, or was drawn in other subsampled plates.
        TypeError: `program` is not callable, or `values` no mapping of real arrays.
    """
    check_programs(program=program)
    if not isinstance(values, Trace | Mapping):
        raise TypeError(
            "values must be a Trace or a mapping from site names to arrays, got "
            f"{type(values).__name__}"
        )
    context = peek()
    prefix, key = context.enter_call() if context else ("density/", None)
    handler = DensityHandler(context, prefix, values)
    seeded = nullcontext() if key is None else handlers.seed(rng_seed=named(key, "__seed__"))
    with handlers.block(), seeded, handler:
        program(*args, **kwargs)
    handler.check_all_used()
    return Cost(one_dtype(tuple(handler.terms)))
