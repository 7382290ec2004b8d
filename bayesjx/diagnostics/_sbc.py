"""Simulation-based calibration: ranks of truths among posterior draws."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._core import check_key, compiled, whole_number
from ._bands import ecdf_band
from ._samples import as_columns
from ._uniformity import tested, Uniformity


class SBC(eqx.Module):
    """Result of `sbc` for `q` quantities and `n` data sets.

    Attributes:
        names: of the quantities, such as `beta[0]`.
        ranks: how many draws are below the truth, ties in random order, shape `(q, n)`.
        values: ranks on the unit interval, shape `(q, n)`: `(rank + u) / (s + 1)`.
        uniformity: tests of the values.
        num_draws: how many draws there were, `s`.
    """

    names: tuple[str, ...] = eqx.field(static=True)
    ranks: Int[Array, "q n"]
    values: Float[Array, "q n"]
    uniformity: Uniformity
    num_draws: int = eqx.field(static=True)

    @property
    def p_value(self) -> Float[Array, " *batch"]:
        """One p-value of all quantities: the least of theirs times their number."""
        return jnp.minimum(len(self.names) * jnp.min(self.uniformity.p_value, axis=-1), 1.0)


def sbc(
    key: jax.Array,
    draws: Any,
    truths: Any,
    *,
    num_bins: int = 20,
    num_points: int = 50,
    prob: float = 0.95,
) -> SBC:
    r"""Simulation-based calibration: are ranks of truths among posterior draws uniform?

    Parameters are drawn from the prior, data are simulated from them, and the posterior given the
    data is drawn from (`simulate` does all three). If the posterior is right, the rank of the
    parameter among the draws is uniform, for every function of parameters and data. Add
    the log likelihood as one such quantity: ranks of parameters alone do not notice a posterior
    that is the prior. Draws should be independent; thin chains. Works under `jit` and `vmap`.

    Args:
        key: for the order of ties and within ranks.
        draws: shape `(s, n, ...)`, or a pytree of such arrays: draws first, then data sets.
        truths: shape `(n, ...)`, or the pytree of them.
        num_bins: of the histogram; best if it divides `s + 1`.
        num_points: intervals in which the empirical distribution function is looked at.
        prob: of its simultaneous band.

    Raises:
        ValueError: shapes or structures that disagree, fewer than 3 data sets, NaN.
        RuntimeError: under `jit`, NaN.

    References:
        Talts, Betancourt, Simpson, Vehtari and Gelman (2018), "Validating Bayesian inference
        algorithms with simulation-based calibration", arXiv 1804.06788; Modrák, Moon, Kim, Bürkner,
        Huurre, Faltejsková, Gelman and Vehtari (2023), "Simulation-based calibration checking for
        Bayesian computation: the choice of test quantities shapes sensitivity", Bayesian Analysis.
    """
    check_key(key)
    names, draws, truths = as_columns("sbc", draws, truths)
    if truths.shape[1] < 3:
        raise ValueError(f"sbc: truths must be of 3 data sets or more, got {truths.shape[1]}")
    whole_number("sbc: num_bins", num_bins, 2)
    ecdf_band(truths.shape[1], num_points=num_points, prob=prob)  # checks its arguments
    return ranked(key, names, draws, truths, int(num_bins), int(num_points), float(prob))


@compiled
def ranked(
    key: jax.Array,
    names: tuple[str, ...],
    draws: Float[Array, "q s n"],
    truths: Float[Array, "q n"],
    num_bins: int = 20,
    num_points: int = 50,
    prob: float = 0.95,
) -> SBC:
    """As `sbc`, of arguments that were checked."""
    ranks, values = random_ranks(key, draws, truths)
    return SBC(names, ranks, values, tested(values, num_bins, num_points, prob), draws.shape[1])


def random_ranks(
    key: jax.Array, draws: Float[Array, "q s n"], truths: Float[Array, "q n"]
) -> tuple[Int[Array, "q n"], Float[Array, "q n"]]:
    """Ranks of truths among draws, ties in random order, and the same on the unit interval."""
    below = jnp.sum(draws < truths[:, None], axis=1)
    tied = jnp.sum(draws == truths[:, None], axis=1)
    place = jax.random.uniform(key, truths.shape, truths.dtype) * (tied + 1).astype(truths.dtype)
    ranks = below + jnp.minimum(jnp.floor(place).astype(tied.dtype), tied)
    values = (below.astype(truths.dtype) + place) / (draws.shape[1] + 1)
    return ranks, jnp.minimum(values, 1.0)
