"""The posterior given observations, by whichever way the inputs and the likelihood allow."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from .. import ops
from ..likelihoods import Gaussian, Likelihood
from ._arguments import real_array
from ._exact import exact_posterior, times_posterior
from ._grid_posterior import grid_posterior
from ._inputs import as_points, Grid, Times
from ._laplace import laplace
from ._posterior import AbstractGPPosterior
from ._process import check_prior, GP, known_mask
from ._svgp import check_observed

OPTIONS = frozenset({"solver", "logdet", "key", "rtol", "max_steps"})  # of `ops.Masked`


def condition(
    prior: GP,
    x: Any,
    y: Any,
    likelihood: Likelihood | None = None,
    *,
    mask: Any = None,
    **options: Any,
) -> AbstractGPPosterior:
    """The posterior of a process given observations: exact with normal noise, else approximate.

    Args:
        prior: the process, with the variance of the noise if there is no likelihood.
        x: points, shape `(n, d)` or `(n,)`, a `Grid`, or `Times`.
        y: observations, shape `(n,)`, or of the grid's shape.
        likelihood: from the function to a NumPyro distribution of the observations, such as
            `lambda f: dist.Bernoulli(logits=f)`; by default, and with `likelihoods.Gaussian`, the
            posterior is exact. With parameters that are traced it should be an Equinox module, as a
            posterior that leaves the compiled program takes its likelihood along.
        mask: which observations there are, booleans of the shape of `y`, known when traced; where
            it is false `y` may hold NaN. Noise of each observation, and at points their covariance,
            is that of all or, at points, of those that there are.
        options: without a likelihood, on a grid with a mask, those of `ops.Masked` such as
            `solver="cg"`; with one, those of `laplace`, or at times of `ssm.approximate`.

    Returns:
        An `ExactPosterior`, or a `GridPosterior` on a grid, where everything keeps the Kronecker
        structure; both report the jitter that they needed. With a likelihood that is not normal a
        `LaplacePosterior`. At times, with any likelihood, a `TimesPosterior`, whose moments, draws
        and evidence take linear time.

    Raises:
        ValueError: shapes that disagree, empty or NaN data, a kernel without Kronecker structure on
            a grid, a likelihood beside noise of the prior; what is only known at run time is a
            `RuntimeError` under `jit`.
        RuntimeError: the covariance of the observations is not positive definite even with
            jitter, or holds NaN.
    """
    check_prior(prior)
    if likelihood is not None:
        check_observed(prior, likelihood, False)
        if not isinstance(likelihood, Gaussian):
            if isinstance(x, Times):
                return times_posterior(prior, x, y, mask, likelihood, **options)
            return laplace(prior, likelihood, x, y, mask, **options)
        prior = GP(prior.kernel, prior.mean, noise_var=likelihood.noise_var)
    if unknown := sorted(options.keys() - OPTIONS):
        raise ValueError(
            f"condition: {', '.join(unknown)} is no option of ops.Masked; those are "
            f"{', '.join(sorted(OPTIONS))}"
        )
    if isinstance(x, Grid):
        return grid_posterior(prior, x, y, mask, **options)
    if isinstance(x, Times) and not options:
        return times_posterior(prior, x, y, mask)
    if options:
        raise ValueError(f"condition: {', '.join(options)} is for a Grid with a mask")
    if mask is not None:
        prior, x, y = _observed(prior, as_points(x), real_array("y", y), known_mask(mask))
    return exact_posterior(prior, x, y)


def _observed(prior: GP, x: Any, y: Any, mask: Any) -> tuple[GP, Any, Any]:
    """Those that were observed, and the process with the noise of these."""
    if mask.shape != (len(x),):
        raise ValueError(f"condition: mask must have shape ({len(x)},), got {mask.shape}")
    if jnp.shape(y) != (len(x),):
        raise ValueError(f"condition: y must have shape ({len(x)},), as x; got {jnp.shape(y)}")
    if not mask.any():
        raise ValueError("condition: mask is all false, so nothing is observed")
    noise = prior.noise_var
    if isinstance(noise, ops.AbstractOperator):
        if noise.shape[0] == len(x):
            matrix = noise.as_matrix()[mask][:, mask]
            prior = GP(prior.kernel, prior.mean, noise_var=ops.Dense(matrix, ops.psd))
    elif noise.shape == (len(x),):
        prior = GP(prior.kernel, prior.mean, noise_var=noise[mask])
    return prior, x[mask], y[mask]
