"""Prior precision of Laplace's approximation by observations that were held out."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._core import compiled, number_array, refuse_where, run_traced, traced, TracedFunction
from ..likelihoods import in_support
from ._arguments import inputs
from ._laplace_posterior import conditioned, LaplacePosterior

FACTORS = np.logspace(-2, 8, 31)
NODES = 256  # at which `predict` averages a likelihood of several outputs


class CalibratedLaplace(NamedTuple):
    """Result of `calibrate_laplace`.

    Attributes:
        posterior: with the prior precisions that were found.
        factors: what those were multiplied with, shape `(k,)`.
        log_predictive_prob: of each factor, mean of the observations, shape `(k,)`.
    """

    posterior: LaplacePosterior
    factors: Float[Array, " k"]
    log_predictive_prob: Float[Array, " k"]


def calibrate_laplace(
    posterior: LaplacePosterior, x: Any, y: Any, *, factors: Any = None
) -> CalibratedLaplace:
    r"""Prior precision of a Laplace approximation by observations that were held out.

    The prior precisions of all layers are multiplied with the one of some factors at which the
    observations, which the network was not trained with, have the largest log predictive density.
    Function values keep their mean, and their variance falls from factor to factor: the largest
    ones leave the network as it is, so that its predictions are not made worse.

    For classes this is the way. Where a network is sure of its classes, the likelihood has no
    curvature in its values and the linearised function next to no data: at the prior precision of
    the largest evidence, and of any that a network is well trained with, predictions are then too
    uncertain, with the whole Gauss-Newton matrix as with its approximations. For models to be
    compared, and for normal noise, there is `tune_laplace`.

    Args:
        posterior: by `laplace`.
        x: inputs that were held out, shape `(m, ...)`.
        y: their observations, shape `(m,)`, or `(m, ...)`.
        factors: positive, shape `(k,)`; by default three a decade from a hundredth to
            a hundred million. Each costs the structure's factorisation and a prediction.

    Raises:
        ValueError: it is no such posterior; shapes that disagree, empty data, NaN, `y` outside of
            the likelihood's support, factors that are not positive.
        TypeError: the likelihood does not return a NumPyro distribution.
        RuntimeError: under `jit`, such values.

    References:
        Ritter, Botev and Barber (2018), "A scalable Laplace approximation for neural networks",
        ICLR; Daxberger, Kristiadi, Immer, Eschenhagen, Bauer and Hennig (2021), "Laplace redux",
        NeurIPS, section 2.3; Immer, Korzepa and Bauer (2021), "Improving predictions of Bayesian
        neural nets via local linearization", AISTATS, for the choice by held-out data.
    """
    if not isinstance(posterior, LaplacePosterior):
        raise ValueError(
            f"calibrate_laplace: takes a LaplacePosterior, got {type(posterior).__name__}"
        )
    dtype = posterior.prior_precision.dtype
    x, guard = inputs("calibrate_laplace", x, dtype)
    mean = posterior.mean(x)
    y, guard = in_support(posterior.likelihood, y, mean, guard.astype(dtype), each_output=True)
    factors = _checked(FACTORS if factors is None else factors).astype(dtype)
    arrays, rest = eqx.partition(posterior, eqx.is_array)

    def score(arrays: Any, factor: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
        scaled = _scaled(eqx.combine(arrays, rest), factor)
        observed = scaled._predictive(scaled._mean(x), scaled._covariances(x), "nodes", NODES)
        return jnp.mean(observed.log_prob(y)).astype(dtype)

    look = traced(score, arrays, factors[0], x, y)
    found = guard * run_traced(_scores, look, look, arrays, factors, x, y)
    best = factors[jnp.argmax(jnp.where(jnp.isnan(found), -jnp.inf, found))]
    return CalibratedLaplace(_scaled(posterior, best), factors, found)


def _scaled(posterior: LaplacePosterior, factor: jax.Array) -> LaplacePosterior:
    mean = "network" if posterior.shift is None else "linear"
    return conditioned(
        posterior.about, posterior.layers, factor * posterior.prior_precision, mean,
        posterior.noise_power, posterior.chunk_size,
    )  # fmt: skip


@compiled
def _scores(
    look: TracedFunction, arrays: Any, factors: jax.Array, x: jax.Array, y: jax.Array
) -> jax.Array:
    return jax.lax.map(lambda factor: look(arrays, factor, x, y), factors)


def _checked(value: Any) -> jax.Array:
    factors = number_array("calibrate_laplace: factors", value)
    if jnp.ndim(factors) != 1 or jnp.size(factors) == 0:
        raise ValueError(
            "calibrate_laplace: factors must be positive, a vector of at least one; got shape "
            f"{jnp.shape(factors)}"
        )
    text = "calibrate_laplace: factors must be positive and finite"
    return jnp.asarray(refuse_where(factors, lambda v: ~((v > 0) & (v < np.inf)), text))
