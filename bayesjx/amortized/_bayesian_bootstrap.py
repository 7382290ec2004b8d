"""The Bayesian bootstrap in direct form: functionals of randomly weighted data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._core import check_key, whole_number
from ._chains import applied, batch_of, run_chains
from ._martingale_posterior import MartingalePosterior
from ._predictive_rule import checked_rows, num_rows
from ._resampling import checked_values, takes_weights


def bayesian_bootstrap(
    key: jax.Array,
    data: Any,
    functional: Callable[..., Any],
    *,
    num_samples: int = 1000,
    concentration: float = 1.0,
    batch_size: int | None = None,
) -> MartingalePosterior:
    r"""Draws of a functional of the data with Dirichlet(1, ..., 1) weights.

    The martingale posterior of `PolyaUrn()` with an infinite horizon, without drawing ahead: the
    functional is that of the distribution $\sum_i w_i \delta_{y_i}$. The mean, for one, has the
    mean and the variance divided by $n + 1$ (of the data, with $n$ in its denominator).

    Args:
        key: PRNG key.
        data: observations, one a row, any pytree of arrays.
        functional: `functional(data, weights=)` to arrays, any pytree, with `weights` of shape
            `(n,)` that sum to 1: such as `weighted_mean`, `weighted_quantile(q)`, `least_squares`,
            or what `m_estimator` makes of a loss.
        num_samples: draws of the weights.
        concentration: of the Dirichlet distribution, for each row; 1 is the Bayesian bootstrap.
        batch_size: draws at a time; by default what fits in about 100 MB.

    Returns:
        Samples, without diagnostics. `initial` is the functional of equal weights.

    Raises:
        ValueError: no data, data that are not finite, a functional without `weights`.

    References:
        Rubin (1981), "The Bayesian bootstrap", Annals of Statistics 9. Lyddon, Holmes and Walker
        (2019), "General Bayesian updating and the loss-likelihood bootstrap", Biometrika 106, for
        minimisers of losses.
    """
    owner = "bayesian_bootstrap"
    check_key(key)
    data = checked_rows(owner, data)
    n = num_rows(data)
    if n == 0:
        raise ValueError(f"{owner}: data is empty, so that there is nothing to weight")
    num_samples = whole_number(f"{owner}: num_samples", num_samples)
    if not isinstance(concentration, int | float | np.number) or not 0 < concentration < np.inf:
        raise ValueError(f"{owner}: concentration must be a positive number, got {concentration!r}")
    if not callable(functional) or not takes_weights(functional):
        raise ValueError(
            f"{owner}: functional must be a function of data with an argument weights, such as "
            "amortized.weighted_mean"
        )
    floats = [v.dtype for v in jax.tree.leaves(data) if jnp.issubdtype(v.dtype, jnp.floating)]
    dtype = jnp.result_type(*floats) if floats else jnp.result_type(float)

    def weighted(data: Any, weights: jax.Array) -> Any:
        return functional(data, weights=weights)

    equal = jnp.full(n, 1 / n, dtype)
    checked_values(owner, weighted, data, equal)
    batch_size = batch_of(
        owner, batch_size, num_samples, 4 * sum(v.size for v in jax.tree.leaves(data))
    )

    def one(key: jax.Array, arrays: Any) -> Any:
        if concentration == 1:  # by exponential variables, which compile faster
            gammas = jax.random.exponential(key, (n,), dtype)
            return weighted(arrays[0], gammas / jnp.sum(gammas))
        gammas = jax.random.loggamma(key, arrays[1], (n,), dtype)
        return weighted(arrays[0], jax.nn.softmax(gammas))

    arrays = data, jnp.asarray(concentration, dtype)
    keys = jax.random.split(key, num_samples)
    samples = run_chains(one, keys, arrays, batch_size, functional)
    initial = applied(weighted, data, equal, source=functional)
    return MartingalePosterior(samples, None, initial, "the Bayesian bootstrap", n, None)
