"""Expected coverage of regions: around random points, and of highest density."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._core import check_key, compiled, number_array, whole_number
from ._bands import ecdf_band
from ._samples import as_columns
from ._sbc import random_ranks
from ._uniformity import tested, Uniformity

AROUND = ("random", "posterior")


class ExpectedCoverage(eqx.Module):
    """Result of `tarp` and `highest_density_coverage` for `n` data sets.

    Attributes:
        levels: credibility levels from 0 to 1, shape `(k,)`.
        coverage: share of the truths in regions of these levels, shape `(k,)`; equal to `levels` if
            the posterior is right.
        lower: lower end of a bootstrap band of `coverage`, level by level, shape `(k,)`.
        upper: upper end of the same, shape `(k,)`.
        values: for each truth the level of the smallest region that holds it, shape `(n,)`.
        uniformity: tests of the values; its band is simultaneous.
    """

    levels: Float[Array, " k"]
    coverage: Float[Array, " k"]
    lower: Float[Array, " k"]
    upper: Float[Array, " k"]
    values: Float[Array, " n"]
    uniformity: Uniformity

    @property
    def p_value(self) -> Float[Array, " *batch"]:
        """Of the tests of `uniformity`."""
        return self.uniformity.p_value


def tarp(
    key: jax.Array,
    draws: Any,
    truths: Any,
    *,
    references: Any = "random",
    num_bootstrap: int = 200,
    num_points: int = 50,
    prob: float = 0.95,
) -> ExpectedCoverage:
    r"""Tests of accuracy with random points: coverage of balls around reference points.

    For each data set the share of draws that are nearer to a reference point than the truth is;
    uniform if the joint posterior of all quantities is right. Coordinates are divided by their
    standard deviations over the truths first. False correlations of draws are seen best with
    `references="posterior"`; correlations that draws lack hardly: rank products (`sbc`). Works
    under `jit` and `vmap`.

    Args:
        key: for reference points, ties and the bootstrap.
        draws: shape `(s, n, ...)`, or a pytree of such arrays: draws first, then data sets. All
            become one vector of `d` coordinates.
        truths: shape `(n, ...)`, or the pytree of them.
        references: `"random"` for points that are uniform in the box of the truths;
            `"posterior"` for one draw of each data set, which is then left out of the others:
            points that depend on the data, as is needed to notice every mistake; or points of
            your own, shape `(n, d)`, which may depend on the data, never on truths or draws.
        num_bootstrap: resamples of data sets, for the band.
        num_points: intervals between levels.
        prob: of both bands.

    Raises:
        ValueError: shapes or structures that disagree, fewer than 3 data sets, values that are not
            finite, unknown `references`.
        RuntimeError: under `jit`, such values.

    References:
        Lemos, Coogan, Hezaveh and Perreault-Levasseur (2023), "Sampling-based accuracy testing of
        posterior estimators for general inference", ICML, algorithm 2.
    """
    check_key(key)
    _, draws, truths = as_columns("tarp", draws, truths, finite=True)
    number = truths.shape[-1]
    _check_sizes("tarp", number, num_bootstrap, num_points, prob)
    if isinstance(references, str):
        if references not in AROUND:
            raise ValueError(
                f"tarp: references must be one of {', '.join(AROUND)} or an array (n, d), got "
                f"{references!r}"
            )
        if references == "posterior" and draws.shape[1] < 2:
            raise ValueError("tarp: draws must be 2 or more for references='posterior', got 1")
    else:
        references = number_array("tarp: references", references)
        if references.shape != truths.shape[::-1]:
            raise ValueError(
                f"tarp: references must have shape (n, d) = {truths.shape[::-1]}, got "
                f"{references.shape}"
            )
        references = jnp.asarray(references).astype(truths.dtype)
    return covered(key, draws, truths, references, int(num_bootstrap), int(num_points), float(prob))


@compiled
def covered(
    key: jax.Array,
    draws: Float[Array, "d s n"],
    truths: Float[Array, "d n"],
    references: Any = "random",
    num_bootstrap: int = 200,
    num_points: int = 50,
    prob: float = 0.95,
) -> ExpectedCoverage:
    """As `tarp`, of arguments that were checked."""
    scale = jnp.std(truths, axis=1)
    scale = jnp.where(scale > 0, scale, 1.0)[:, None]
    draws, truths = draws / scale[:, None], truths / scale
    key, key_points = jax.random.split(key)
    if not isinstance(references, str):
        points = references.T / scale
    elif references == "posterior":
        points, draws = draws[:, 0], draws[:, 1:]
    else:
        low, high = (f(truths, axis=1, keepdims=True) for f in (jnp.min, jnp.max))
        points = low + (high - low) * jax.random.uniform(key_points, truths.shape, truths.dtype)
    far = jnp.sum((draws - points[:, None]) ** 2, axis=0), jnp.sum((truths - points) ** 2, axis=0)
    return _expected_coverage(key, *far, num_bootstrap, num_points, prob)


def highest_density_coverage(
    key: jax.Array,
    log_prob_draws: Any,
    log_prob_truths: Any,
    *,
    num_bootstrap: int = 200,
    num_points: int = 50,
    prob: float = 0.95,
) -> ExpectedCoverage:
    """Coverage of regions of highest posterior density.

    For each data set the share of draws whose posterior density is higher than that of the truth;
    uniform if the posterior is right. Works under `jit` and `vmap`.

    Args:
        key: for ties and the bootstrap.
        log_prob_draws: log density of each draw under its own posterior, up to a constant for each
            data set, shape `(s, n)`.
        log_prob_truths: of each truth, shape `(n,)`.
        num_bootstrap: resamples of data sets, for the band.
        num_points: intervals between levels.
        prob: of both bands.

    Raises:
        ValueError: shapes that disagree, fewer than 3 data sets, NaN.
        RuntimeError: under `jit`, NaN.

    References:
        Hermans, Delaunoy, Rozet, Wehenkel, Begy and Louppe (2022), "A crisis in simulation-based
        inference? Beware, your posterior approximations can be unfaithful", TMLR.
    """
    check_key(key)
    owner = "highest_density_coverage"
    named = {"log_prob": log_prob_draws}, {"log_prob": log_prob_truths}
    names, inside, truths = as_columns(owner, *named)
    if len(names) > 1:
        shapes = np.shape(log_prob_draws), np.shape(log_prob_truths)
        raise ValueError(
            f"{owner}: log_prob_draws must have shape (s, n) and log_prob_truths (n,), got "
            f"{shapes[0]} and {shapes[1]}"
        )
    _check_sizes(owner, truths.shape[-1], num_bootstrap, num_points, prob)
    options = int(num_bootstrap), int(num_points), float(prob)
    return _expected_coverage(key, -inside[0], -truths[0], *options)


@compiled
def _expected_coverage(
    key: jax.Array,
    draws: Float[Array, "s n"],
    truths: Float[Array, " n"],
    num_bootstrap: int,
    num_points: int,
    prob: float,
) -> ExpectedCoverage:
    """Of regions that hold what is less than a bound."""
    key_ranks, key_bootstrap = jax.random.split(key)
    values = random_ranks(key_ranks, draws[None], truths[None])[1][0]
    tests = tested(values, 20, num_points, prob)
    levels = jnp.linspace(0, 1, num_points + 1, dtype=values.dtype)
    inside = (values[:, None] <= levels).astype(values.dtype)

    def again(key: jax.Array) -> jax.Array:
        rows = jax.random.randint(key, values.shape, 0, len(values))
        return jnp.mean(inside[rows], axis=0)

    resampled = jax.lax.map(again, jax.random.split(key_bootstrap, num_bootstrap))
    tail = (1 - prob) / 2
    lower, upper = jnp.quantile(resampled, jnp.asarray([tail, 1 - tail], levels.dtype), axis=0)
    return ExpectedCoverage(levels, jnp.mean(inside, axis=0), lower, upper, values, tests)


def _check_sizes(owner: str, number: int, num_bootstrap: Any, num_points: Any, prob: Any) -> None:
    if number < 3:
        raise ValueError(f"{owner}: truths must be of 3 data sets or more, got {number}")
    whole_number(f"{owner}: num_bootstrap", num_bootstrap, 2)
    ecdf_band(number, num_points=num_points, prob=prob)  # checks its arguments
