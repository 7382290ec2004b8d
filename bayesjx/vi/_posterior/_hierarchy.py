"""Which sites of a model are drawn with a scale that is itself a latent site."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from numpyro import handlers

from .._estimator import (
    elementwise_family,
    Staged,
    tag,
)
from ._unconstrained import (
    Unconstrained,
)

_SCALES = ("scale", "scale_tril", "covariance_matrix", "precision_matrix")


def drawn_with_scales(density: Unconstrained) -> dict[str, tuple[str, ...]]:
    """By continuous latent site, the latent sites that its scale is computed from."""
    others = density.discrete.first() if density.discrete else {}
    own = {site.name for site in density.sites}

    def scales(vector: jax.Array) -> dict[str, list[jax.Array]]:
        values, _, _ = density.constrain(vector)
        values = {name: tag(value, name) for name, value in values.items()}
        seeded = handlers.seed(density.model, rng_seed=0)
        run = handlers.substitute(seeded, data={**values, **others})
        args, kwargs = density.inputs
        with handlers.block():
            trace = handlers.trace(run).get_trace(*args, **kwargs)
        return {name: _scales_of(trace[name]["fn"]) for name in sorted(own & set(trace))}

    parents_of = {}
    for name, sources in Staged(scales, jnp.zeros(density.dim, density.dtype)).depends().items():
        parents = frozenset().union(*sources) & own - {name} if sources else frozenset()
        if parents:
            parents_of[name] = tuple(sorted(parents))
    return parents_of


def _scales_of(fn: Any) -> list[jax.Array]:
    family = elementwise_family(fn)
    held = [family.__dict__.get(name) for name in _SCALES]
    return [jnp.asarray(x) for x in held if x is not None]


def advice(density: Unconstrained) -> str | None:
    """What to write non-centred, by name; None where no site is drawn with a latent scale."""
    parents_of = drawn_with_scales(density)
    if not parents_of:
        return None
    sites = " and ".join(
        f"{name!r} (drawn with the scale {', '.join(map(repr, parents))})"
        for name, parents in parents_of.items()
    )
    first = next(iter(parents_of))
    return (
        f"write {sites} non-centred: {first}_z ~ Normal(0, 1) and {first} = loc + scale * "
        f"{first}_z, or numpyro.handlers.reparam with LocScaleReparam(0)"
    )
