"""Draws of a posterior as functions: draws of the prior, updated by the data (Matheron's rule)."""

from __future__ import annotations

import functools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import random
from jaxtyping import Array, Float

from .._core import check_key, cho_solve, in_chunks, solve_triangular, whole_number
from ._collapsed import SparsePosterior
from ._exact import ExactPosterior
from ._fourier import fourier_features, FourierFeatures
from ._grid_posterior import _on_grid, checked_points, grid_cross, GridPosterior
from ._heteroscedastic import HeteroscedasticPosterior
from ._inputs import all_points, Grid
from ._posterior import AbstractGPPosterior, pathwise_draws
from ._process import GP

CHUNK = 1024  # points at which the prior's features are held at a time


class PathwiseSamples(eqx.Module):
    r"""Functions $m(x) + \phi(x)^\top w + k(x, c)\, v$, draws of a posterior.

    Called with points of shape `(m, d)` or `(m,)`, or a `Grid`, it gives values of shape
    `(num, m)`, in time linear in `m`. The functions are fixed: the same point has the same values
    at every call, and derivatives in points are those of the draws.

    Attributes:
        prior: the process before data.
        features: $\phi$, whose combinations are draws of the prior.
        weights: $w$, shape `(num, features.size)`.
        centres: $c$, the data or the inducing points, shape `(n, d)`, or the cells of a `Grid`.
        updates: $v$, what the data change, shape `(num, n)`.
    """

    prior: GP
    features: FourierFeatures
    weights: Float[Array, "num F"]
    centres: Float[Array, "n d"] | Grid
    updates: Float[Array, "num n"]

    def __call__(self, x: Any) -> Float[Array, "num m"]:
        x = checked_points(x, self.updates.dtype)
        if isinstance(self.centres, Grid):
            change = grid_cross(self.prior, x, self.centres).mm(self.updates.T)
        else:
            change = self.prior.kernel.gram(all_points(x), self.centres) @ self.updates.T
        drawn = self.features(all_points(x)) @ self.weights.T
        return self.prior.mean_at(x) + (drawn + change).T


def pathwise(
    key: jax.Array, posterior: AbstractGPPosterior, num_samples: int, *, num_features: int = 2000
) -> PathwiseSamples:
    r"""Draws of a posterior as functions, by Matheron's rule.

    $f(x) = f_0(x) + k(x, c) (K + N)^{-1} (u - f_0(c) - \epsilon)$ with a draw $f_0$ of the prior
    and $\epsilon \sim N(0, N)$. The data enter exactly; $f_0$ has as covariance the estimate of the
    kernel by random features, the same for all draws of one call, with errors of the order of
    `num_features ** -0.5` where data leave the function free. It is exact where the features are,
    see `fourier_features`.

    Args:
        key: of the draws.
        posterior: an exact or a sparse one, one on a grid, or a heteroscedastic one.
        num_samples: how many functions.
        num_features: see `fourier_features`.

    Raises:
        ValueError: `num_samples` is not positive, or the kernel has no Fourier features.
        NotImplementedError: a posterior of another kind.

    References:
        Wilson, Borovitskiy, Terenin, Mostowsky and Deisenroth (2020), "Efficiently sampling
        functions from Gaussian process posteriors", ICML; (2021), "Pathwise conditioning of
        Gaussian processes", JMLR 22.
    """
    check_key(key)
    num = whole_number("num_samples", num_samples, -math.inf)
    if num < 1:
        raise ValueError(f"num_samples must be positive, got {num}")
    features = whole_number("num_features", num_features, 2)
    posterior, centres = _anchored(posterior)
    seen = all_points(centres)
    if isinstance(posterior, GridPosterior):
        seen = seen[posterior.observed]
    from_spectrum, from_weights, from_data = random.split(key, 3)
    phi = fourier_features(from_spectrum, posterior.prior.kernel, features, seen.shape[1])
    weights = random.normal(from_weights, (num, phi.size), seen.dtype)
    # Of many points the features would take more memory than the data: some points at a time.
    drawn = in_chunks(lambda some: phi(some) @ weights.T, seen, CHUNK)
    updates = _updates(posterior, from_data, drawn.T)
    return PathwiseSamples(posterior.prior, phi, weights, centres, updates)


@pathwise_draws.register
def _(
    posterior: AbstractGPPosterior, key: jax.Array, num_samples: int, num_features: int
) -> PathwiseSamples:
    return pathwise(key, posterior, num_samples, num_features=num_features)


@functools.singledispatch
def _anchored(posterior: Any) -> tuple[Any, Any]:
    """The posterior of a process, and the points or the grid where data or variables are."""
    raise NotImplementedError(
        "pathwise: posterior must be an exact or a sparse one, one on a grid, or a heteroscedastic "
        f"one; draws of {type(posterior).__name__} as functions are not known"
    )


@functools.singledispatch
def _updates(posterior: Any, key: jax.Array, drawn: jax.Array) -> jax.Array:
    """Weights of the kernel at the centres, shape `(num, n)`.

    Args:
        posterior: what is drawn from.
        key: for noise.
        drawn: draws of the prior without its mean at the centres, on a grid at those that are
            observed, shape `(num, n_o)`.
    """
    raise NotImplementedError(f"pathwise: draws of {type(posterior).__name__} are not known")


@_anchored.register
def _(posterior: ExactPosterior) -> tuple[Any, Any]:
    return posterior, posterior.x


@_anchored.register
def _(posterior: HeteroscedasticPosterior) -> tuple[Any, Any]:
    return posterior.function, posterior.function.x


@_anchored.register
def _(posterior: GridPosterior) -> tuple[Any, Any]:
    return posterior, posterior.grid


@_anchored.register
def _(posterior: SparsePosterior) -> tuple[Any, Any]:
    return posterior, posterior.features.inducing_points


@_updates.register
def _(posterior: ExactPosterior, key: jax.Array, drawn: jax.Array) -> jax.Array:
    from_noise, from_jitter = random.split(key)
    noise = posterior.prior.noise_operator(posterior.x).sample(from_noise, drawn.shape[:1])
    noise += _jitter(posterior.jitter, from_jitter, drawn)
    return cho_solve((posterior.tril, True), (posterior.residual - drawn - noise).T).T


@_updates.register
def _(posterior: GridPosterior, key: jax.Array, drawn: jax.Array) -> jax.Array:
    noise = posterior._noise(key, len(drawn))
    solved = posterior.operator.solve(posterior.residual[:, None] - drawn.T - noise)
    return _on_grid(solved, posterior.operator, posterior.grid.size).T


@_updates.register
def _(posterior: SparsePosterior, key: jax.Array, drawn: jax.Array) -> jax.Array:
    features, (from_inducing, from_jitter) = posterior.features, random.split(key)
    # The inducing variables are values of the function with the jitter as noise.
    values = drawn + _jitter(features.jitter, from_jitter, drawn)
    whitened = solve_triangular(features.tril, values.T, lower=True)
    drawn_inducing = random.normal(from_inducing, drawn.shape, drawn.dtype) @ posterior.scale_tril.T
    wanted = (posterior.whitened_mean + drawn_inducing).T
    return solve_triangular(features.tril, wanted - whitened, lower=True, trans=1).T


def _jitter(jitter: jax.Array, key: jax.Array, like: jax.Array) -> jax.Array:
    """What a jitter on the diagonal says: independent noise of that variance."""
    return jnp.sqrt(jax.lax.stop_gradient(jitter)) * random.normal(key, like.shape, like.dtype)
