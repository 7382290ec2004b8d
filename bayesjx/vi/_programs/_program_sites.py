"""What a program's distribution needs to know before it runs: sites, supports and parameters."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import random
from numpyro import handlers
from numpyro.distributions import constraints
from numpyro.primitives import Messenger
from numpyro.util import not_jax_tracer as is_concrete

from .._estimator import (
    activate,
    Context,
)
from ._programs import (
    simulate,
)


class LatentSite(NamedTuple):
    """Shape, dtype and support of one latent site, its batch axes included in the event."""

    shape: tuple[int, ...]
    dtype: Any
    support: Any


def latent_sites(
    program: Callable[..., Any], args: tuple, kwargs: dict[str, Any]
) -> dict[str, LatentSite]:
    """The latent sites of a program in their order, by an abstract run.

    Raises:
        ValueError: there is none.
    """
    latents: dict[str, LatentSite] = {}

    def look() -> jax.Array:
        context = Context(random.key(0))
        with activate(context):
            trace, _ = simulate(program, *args, **kwargs)
        for site in context.sites:
            name = site.address.removeprefix("0/")
            if site.address.startswith("0/") and name in trace:
                value = jnp.asarray(trace[name])
                extra = value.ndim - site.distribution.event_dim
                support: Any = site.distribution.support
                if extra:
                    support = constraints.independent(support, extra)
                latents[name] = LatentSite(value.shape, value.dtype, support)
        return jnp.zeros(())

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        jax.eval_shape(look)
        leaves = jax.tree.leaves([site.support for site in latents.values()])
        if not all(is_concrete(leaf) for leaf in leaves):
            look()  # bounds that are computed: run for them; what else is computed is unused
    if not latents:
        raise ValueError("the program has no latent site")
    return latents


def join_supports(supports: Sequence[Any], sizes: Sequence[int]) -> Any:
    """Support of the concatenation of flattened values.

    Raises:
        NotImplementedError: a support is not elementwise (a simplex, a triangular matrix, ...).
    """
    parts = []
    for support in supports:
        while isinstance(support, constraints.independent):
            support = support.base_constraint
        if support.event_dim:
            raise NotImplementedError(
                f"several kept sites have no joint support if one is {support}; keep them in "
                "distributions of their own"
            )
        parts.append(support)
    if all(part is constraints.real for part in parts):
        return constraints.real_vector
    return constraints.independent(constraints.cat(parts, dim=-1, lengths=tuple(sizes)), 1)


def register_params(
    program: Callable[..., Any],
    keep: Sequence[str] | None,
    proposal: Callable[..., Any] | None,
    args: tuple,
    kwargs: dict[str, Any],
    key: jax.Array | None,
) -> dict[str, Any]:
    """Values of the `numpyro.param` sites of a program and its proposal.

    The sites are announced to the handlers around, which do not see into a marginal's own runs:
    `SVI` initialises and substitutes them as if they stood in the enclosing program.
    """
    key = random.key(0) if key is None else key

    def run() -> dict[str, Any]:
        context = Context(key)
        block = handlers.block(hide_fn=lambda msg: msg["type"] != "param")
        seen = _Params()
        with activate(context), block, handlers.seed(rng_seed=key), seen:
            trace = handlers.trace(program).get_trace(*args, **kwargs)
            if proposal is not None:
                given = {name: trace[name]["value"] for name in keep or ()}
                proposal(*((given,) if keep else ()), *args, **kwargs)
        return seen.values

    names: list[str] = []

    def look() -> jax.Array:
        with handlers.block():
            names.extend(run())
        return jnp.zeros(())

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        jax.eval_shape(look)
        return run() if names else {}


class _Params(Messenger):
    """Remembers the values of parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[str, Any] = {}

    def postprocess_message(self, msg: Any) -> None:
        if msg["type"] == "param":
            self.values[msg["name"]] = msg["value"]
