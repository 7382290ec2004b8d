"""Prior precisions and noise of Laplace's approximation by its evidence."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..gp import minimise, Minimum
from ._laplace_evidence import Hyper, log_joint, noise_of
from ._laplace_posterior import LaplacePosterior
from ._structures import AbstractLogdet


class TunedLaplace(NamedTuple):
    """Result of `tune_laplace`.

    Attributes:
        posterior: with the prior precisions and the noise variance that were found.
        minimum: how the minimiser went, of minus the log evidence: look at its `result`.
    """

    posterior: LaplacePosterior
    minimum: Minimum


def tune_laplace(
    posterior: LaplacePosterior,
    *,
    per_layer: bool = False,
    tune_noise: bool = True,
    max_steps: int = 500,
    rtol: float = 1e-6,
    throw: bool = True,
) -> TunedLaplace:
    r"""Prior precisions and noise variance of a Laplace approximation by its evidence.

    L-BFGS from where they are, with the network and its curvature as they stand: a step costs
    $O(m)$ of one prior precision for all weights, and of Kronecker and diagonal structures; of one
    for each layer with full structures, a Cholesky factor. The network is not trained on, so that
    it is no longer at a mode with the new prior, as the new posterior reports.

    Args:
        posterior: by `laplace`.
        per_layer: whether each layer has a prior precision of its own.
        tune_noise: whether the noise variance of a Gaussian likelihood is tuned, too.
        max_steps: of L-BFGS.
        rtol: see `gp.minimise`.
        throw: whether it is an error that the evidence is not finite where it starts.

    Raises:
        ValueError: it is no such posterior, or options out of range.
        RuntimeError: an evidence that is not finite, unless `throw=False`.

    References:
        MacKay (1992), "Bayesian interpolation"; Immer, Bauer, Fortuin, Rätsch and Khan (2021),
        "Scalable marginal likelihood estimation for model selection in deep learning", ICML.
    """
    if not isinstance(posterior, LaplacePosterior):
        raise ValueError(f"tune_laplace: takes a LaplacePosterior, got {type(posterior).__name__}")
    about, precision = posterior.about, posterior.prior_precision
    squares, sizes = posterior._squares(), posterior._sizes()
    if not per_layer:
        precision = jnp.exp(sizes @ jnp.log(precision) / jnp.sum(sizes))[None]
        squares, sizes = jnp.sum(squares)[None], jnp.sum(sizes)[None]
    noise_var = noise_of(about.likelihood)
    hyper = Hyper(precision, None if noise_var is None else noise_var.astype(precision.dtype))
    logdet = about.structure.log_determinant(len(precision))
    powers = jnp.asarray(posterior.noise_power, precision.dtype)
    fixed = (lambda hyper: hyper.prior_precision) if not tune_noise else None
    count = jnp.asarray(about.f.size, precision.dtype)
    minimum = minimise(
        _negative_evidence, hyper, logdet, about.fit, squares, sizes, count, powers,
        trainable=fixed, max_steps=max_steps, rtol=rtol, throw=throw,
    )  # fmt: skip
    found = minimum.params
    new = posterior.at(
        prior_precision=jnp.broadcast_to(found.prior_precision, posterior.prior_precision.shape),
        noise_var=found.noise_var,
    )
    return TunedLaplace(new, minimum)


def _negative_evidence(
    hyper: Hyper,
    logdet: AbstractLogdet,
    fit: jax.Array,
    squares: jax.Array,
    sizes: jax.Array,
    count: jax.Array,
    power: jax.Array,
) -> jax.Array:
    one = jnp.ones((), fit.dtype)
    scale = one if hyper.noise_var is None else hyper.noise_var**-power
    joint = log_joint(hyper, fit, squares, sizes, count)
    return 0.5 * logdet(hyper.prior_precision, scale) - joint
