"""Whether reparameterised gradients are those of the objective: a test against scores."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import random

from ..._core import check_key, path_name, whole_number
from .._estimator import (
    AbstractStrategy,
    BiasedGradientWarning,
    check_argnums,
    check_positive,
    Context,
    Objective,
    replace_strategies,
)
from .._strategies import (
    Reinforce,
    Reparam,
)


class ReparamCheck(NamedTuple):
    """One row of `check_reparam`.

    Attributes:
        site: name of the site.
        z: largest difference between the two mean gradients in standard errors.
        parameter: where it is, such as `"params['loc']"`.
        agrees: whether `z` stays below the threshold.
    """

    site: str
    z: float
    parameter: str
    agrees: bool


def check_reparam(
    key: jax.Array,
    objective: Objective,
    *args: Any,
    num_draws: int = 2000,
    argnums: int = 0,
    threshold: float = 4.5,
    **kwargs: Any,
) -> list[ReparamCheck]:
    """Compares each reparameterised site's mean gradient with that of the score function.

    A reparameterised value in a comparison, a rounding or an index gets no gradient from there,
    silently. The score function needs no derivative of the cost, so where the two disagree the cost
    jumps, and `vi.reinforce` is the strategy to take.

    Args:
        key: randomness.
        objective: an `Objective`.
        *args: the objective's arguments, as are **kwargs**.
        num_draws: gradients per strategy; a difference of `threshold` standard errors is found.
        argnums: which argument to differentiate.
        threshold: in standard errors. The default is passed by chance once in 10⁵ elements.

    Returns:
        one row per reparameterised site outside of scan and cond, in the program's order.

    Raises:
        TypeError: `objective` is no `Objective`.
        ValueError: `num_draws` is below 2, `threshold` not positive, `argnums` no position of an
            argument, or there is nothing to differentiate.
    """
    if not isinstance(objective, Objective):
        raise TypeError(f"objective must be an Objective, got {type(objective).__name__}")
    whole_number("num_draws", num_draws, least=2)
    check_argnums(argnums, args)
    check_key(key)
    check_positive("threshold", threshold)
    trained, _ = eqx.partition(args[argnums], eqx.is_inexact_array)
    leaves = jax.tree_util.tree_leaves_with_path(trained)
    if not leaves:
        raise ValueError(f"argument {argnums} holds no floating-point array")
    names = [path_name(path, "params") for path, _ in leaves]

    def moments(key: jax.Array, replaced: dict[str, AbstractStrategy]) -> Any:
        def gradient(key: jax.Array) -> Any:
            with replace_strategies(replaced):
                return objective.value_and_grad(key, *args, argnums=argnums, **kwargs)[1]

        def add(sums: Any, key: jax.Array) -> tuple[Any, None]:
            count, mean, squares = sums
            new = jax.tree.leaves(eqx.filter(gradient(key), eqx.is_inexact_array))
            gaps = [g - m for g, m in zip(new, mean, strict=True)]
            mean = [m + gap / (count + 1) for m, gap in zip(mean, gaps, strict=True)]
            left = zip(squares, gaps, new, mean, strict=True)
            return (count + 1, mean, [s + gap * (g - m) for s, gap, g, m in left]), None

        zero = [jnp.zeros_like(leaf) for _, leaf in leaves]
        (_, mean, squares), _ = jax.lax.scan(add, (0, zero, zero), random.split(key, num_draws))
        return mean, [s / (num_draws * (num_draws - 1)) for s in squares]

    rows = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BiasedGradientWarning)
        sites = _reparameterised(objective, args, kwargs)
        key, other = random.split(key)
        present = jax.jit(lambda key: moments(key, {}))(key)
        for name, address in sites:
            changed = {address: Reinforce()}
            score = jax.jit(lambda key, changed=changed: moments(key, changed))(other)
            z = [_largest_z(*pair) for pair in zip(*present, *score, strict=True)]
            worst = max(range(len(z)), key=z.__getitem__)
            rows.append(ReparamCheck(name, z[worst], names[worst], z[worst] < threshold))
    return rows


def _reparameterised(objective: Objective, args: Any, kwargs: Any) -> list[tuple[str, str]]:
    sites_found: list[tuple[str, str]] = []

    def run() -> None:
        context = Context(random.key(0))
        objective._run(context, args, kwargs)
        for site in context.sites:
            if isinstance(site.strategy, Reparam) and not site.in_loop:
                sites_found.append((site.name, site.address))

    jax.eval_shape(run)
    return sites_found


def _largest_z(mean: Any, error: Any, other_mean: Any, other_error: Any) -> float:
    """Of the difference of two means; 0 where both are equal without noise."""
    gap, standard_error = jnp.abs(mean - other_mean), jnp.sqrt(error + other_error)
    floor = 1e3 * jnp.finfo(gap.dtype).eps * (jnp.abs(mean) + jnp.abs(other_mean))
    z = jnp.where(gap <= floor, 0.0, gap / jnp.where(standard_error > 0, standard_error, floor))
    return float(jnp.max(jnp.where(jnp.isnan(z), jnp.inf, z), initial=0.0))


__all__ = ["ReparamCheck", "check_reparam"]
