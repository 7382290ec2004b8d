"""A model's log density with its discrete latents summed out, and the check that this is right."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import random

from .._estimator import (
    Cost,
    Staged,
    tag,
)
from ._discrete_latents import (
    Discrete,
    plan,
)
from ._unconstrained import (
    Unconstrained,
    unconstrained,
)

_POINTS = 8  # at which the sum's tables are compared with direct runs of the model


def log_density_of(
    caller: str, model: Callable[..., Any], args: tuple, kwargs: dict[str, Any]
) -> Unconstrained:
    """The log density of a model's continuous latents, discrete ones summed out.

    Raises:
        ValueError: as `unconstrained`; or there are too many values of the discrete sites, or what
            is computed from them does not keep to their plates.
    """
    density, finite = unconstrained(caller, model, args, kwargs)
    if not finite:
        return density
    key = random.key(0) if density.subsampled else None

    def run(vector: jax.Array) -> tuple[Cost, dict]:
        others = {site.name: tag(jnp.asarray(site.support[0]), site.name) for site in finite}
        values, deterministic, _ = density.constrain(vector, others)
        return density.cost({**values, **others}, key), deterministic

    staged = Staged(run, jnp.zeros(density.dim, density.dtype))
    costs, deterministic = staged.depends()
    names = frozenset(site.name for site in finite)
    on = [frozenset().union(*_leaves(term)) & names for term in costs.terms]
    frames = [term.frames for term in staged.shape[0].terms]
    small = {s.name for s in finite if any(f.name in density.subsampled for f in s.frames)}
    local = small | {name for name, inputs in deterministic.items() if inputs & small}
    discrete = plan(caller, finite, list(zip(frames, on, strict=True)))
    density = dataclasses.replace(density, discrete=discrete, local=tuple(sorted(local)))
    _check(caller, density, discrete)
    return density


def _leaves(term: Any) -> list[frozenset[str]]:
    return jax.tree.leaves(term, is_leaf=lambda leaf: isinstance(leaf, frozenset))


def _check(caller: str, density: Unconstrained, discrete: Discrete) -> None:
    gaps, apart = (np.asarray(x) for x in _disagreements(density, discrete))
    names = sorted(discrete.supports)
    if (apart > 0).any():
        raise ValueError(
            f"{caller}: the support of a continuous site depends on the discrete sites {names}, "
            "which are to be summed out: give it a support that does not, and transform its value"
        )
    if (gaps > 100 * np.finfo(density.dtype).eps ** 0.5).any():
        plates = sorted({frame.name for v in discrete.variables for frame in v.frames})
        raise ValueError(
            f"{caller}: the discrete sites {names} cannot be summed out element by element of the "
            f"plates {plates}: a term of one element is computed from other elements, too. "
            "Compute it outside of the plate, sum the sites out in the model, or give them a guide "
            "of their own: vi.AutoDiscrete with vi.fit"
        )


@eqx.filter_jit
def _disagreements(density: Unconstrained, discrete: Discrete) -> tuple[jax.Array, jax.Array]:
    """Of the sum's tables from direct runs, and of the maps to the supports from each other."""
    plates = random.key(0) if density.subsampled else None

    def one(vector: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        chosen = discrete.random_choice(key)
        values, _, log_jacobian = density.constrain(vector)
        again, _, log_jacobian_again = density.constrain(vector, discrete.values(chosen))
        gaps = jax.tree.map(lambda a, b: jnp.sum(jnp.abs(a - b)), values, again)
        apart = sum(jax.tree.leaves(gaps), jnp.abs(log_jacobian - log_jacobian_again))
        cost_of = lambda others: density.cost({**values, **others}, plates)  # noqa: E731
        return discrete.disagreement(chosen, cost_of), apart

    start_key, choice_key = random.split(random.key(1))
    vectors = density.starts(start_key, _POINTS)
    pairs = vectors, random.split(choice_key, _POINTS)
    return jax.lax.map(lambda pair: one(*pair), pairs)


__all__ = ["log_density_of"]
