"""A posterior fitted by one call without options."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax import random

from ..._core import check_key
from ._hierarchy import (
    advice,
)
from ._many_dimensions import (
    fit_checked,
    krylov_at,
)
from ._matched_modes import (
    cholesky_in,
    match_modes,
)
from ._mode_search import (
    DENSE,
    find_posterior_modes,
    HESSIAN,
    NUM_STARTS,
    PosteriorModes,
    search_from,
)
from ._normal_mixture import (
    adapted,
    DenseNormal,
    log_ratios,
    NormalMixture,
    split,
    weigh,
    Weighed,
)
from ._posterior_fit import (
    POOL,
    PosteriorFit,
)
from ._summed_out import (
    log_density_of,
)
from ._unconstrained import (
    Unconstrained,
)

_ROUNDS = 3
_SEARCHES = 3  # for modes that draws far away hint at
_FAR = 15.0  # how much wider these are
_SURPRISING = 3.5  # logarithm of the weight of such a draw
_GOOD = 0.5  # k-hat below which, and share of effective draws above which, nothing is adapted
_COMPONENTS, _SPLIT_ROUNDS, _SPLIT_DIM = 8, 6, 50
_FEW, _FEW_OF_MIXTURE = 100.0, 400.0  # effective draws that a trusted fit has at least


def fit_posterior(
    key: jax.Array, model: Callable[..., Any], /, *args: Any, **kwargs: Any
) -> PosteriorFit:
    r"""Fits the posterior of a model; says in plain words whether the fit can be trusted.

    What it does: (1) modes by L-BFGS from several starts, until nothing around is higher; (2)
    coordinates in which the best mode is standard, by the Hessian; (3) `batch_and_match` in them,
    from each mode whose evidence counts; (4) importance draws from the Gaussians found, with
    wider ones for the tails, whose weights move the Gaussians to the posterior's own means and
    covariances; (5) where Pareto $\hat k$ says that this will not do, a mixture of
    Gaussians, adapted in the same way. Draws of the result are resampled by their
    importance weights.

    Above 300 dimensions the Gaussian is that of the curvature at the mode, above 1000 with a
    covariance that is diagonal but for a subspace of 100 dimensions, by products with the Hessian.
    The importance weights of so many dimensions vary a lot, however small the error of each. Where
    they condemn a Gaussian of more than 50 dimensions, its draws are moved by a few transitions of
    Hamiltonian Monte Carlo: it is trusted if these change means by a tenth of a standard deviation
    and standard deviations by 15 %, at most, and draws of the fit are those after the transitions.
    Else it gets their mean and the curvature where they are, a few times.

    Discrete latents are summed out exactly, where the elements are few or plates separate them, and
    drawn from their exact distribution given the rest.

    A model with a subsampled plate has no exact weights: its posterior is fitted by stochastic
    gradients of a bound (`"stl"`, Adam) in the coordinates of (2), and $\hat k$ is NaN.

    Args:
        key: randomness.
        model: NumPyro program.
        *args: arguments of the model, as are **kwargs**.

    Returns:
        the fit: `sample(key, num_samples)`, `k_hat`, `reliable`, `log_density(values)`; printed,
        it says whether to trust it and what to do if not.

    Raises:
        ValueError: the model has a discrete latent with too many values to sum over (which is
            named, with the remedy), no latent, or a continuous latent in a subsampled plate; its
            density is finite at no start (the sites are named); it is flat along some sites, which
            are named: an improper posterior; or the call is inside of `jax.jit` or `jax.vmap`.

    References:
        Cai, Modi, Pillaud-Vivien, Margossian, Gower, Blei and Saul (2024), "Batch and match",
        ICML; Zhang, Carpenter, Gelman and Vehtari (2022), "Pathfinder"; Vehtari, Simpson, Gelman,
        Yao and Gabry (2024), "Pareto smoothed importance sampling", JMLR 25; Cappé, Douc, Guillin,
        Marin and Robert (2008), "Adaptive importance sampling in general mixture classes".
    """
    check_key(key)
    leaves = jax.tree.leaves((random.fold_in(key, 0), args, kwargs))
    if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        raise ValueError(
            "fit_posterior goes by the values that it meets and cannot be inside of jax.jit, "
            "jax.vmap or jax.grad: call it outside; what it runs is compiled, once for each model "
            "and shapes"
        )
    density = log_density_of("fit_posterior", model, args, kwargs)
    fit = _fit(key, density)
    hint = advice(density) if not fit.reliable and not np.isnan(fit.k_hat) else None
    return dataclasses.replace(fit, notes=(*fit.notes, hint)) if hint else fit


def _fit(key: jax.Array, density: Unconstrained) -> PosteriorFit:
    keys = iter(random.split(key, 64))
    if density.subsampled and density.dim == 0:
        raise ValueError(
            "fit_posterior: all latent sites are discrete and some plates subsampled, so that "
            "nothing is left to fit; leave out subsample_size"
        )
    if density.subsampled:
        from ._fit_minibatches import (
            fit_minibatches,
        )

        return fit_minibatches(next(keys), density)
    if density.dim == 0:
        return _only_discrete(next(keys), density)
    modes = find_posterior_modes(next(keys), density)
    if density.dim > DENSE:
        return _fit_many(keys, density, modes)
    mixture = match_modes(keys, density, modes.coordinates)
    seen = weigh(next(keys), density, mixture, POOL)
    for _ in range(_SEARCHES):
        starts = far_starts(next(keys), density, mixture, seen) if not modes.collapses else None
        more = modes if starts is None else search_from(density, modes, starts)
        if len(more.coordinates) == len(modes.coordinates):
            break
        modes = more
        mixture = match_modes(keys, density, modes.coordinates)
        seen = weigh(next(keys), density, mixture, POOL)
    proposal, weighed, note = _improve(keys, density, mixture, seen)
    trusted = bool(weighed.weights.reliable) and float(weighed.weights.ess) >= _FEW
    if density.dim > _SPLIT_DIM and not trusted and len(proposal.locs) == 1:
        normal = DenseNormal(proposal.locs[0], proposal.trils[0])
        return fit_checked(keys, density, normal, modes.text, modes.collapses)
    # Weights do not tell of a neck that no draw has seen, and mixtures overfit their draws.
    fewest = math.inf if modes.collapses else _FEW_OF_MIXTURE if note else _FEW
    return PosteriorFit.of(density, proposal, weighed, (*modes.text, *note), fewest)


def _fit_many(keys: Any, density: Unconstrained, modes: PosteriorModes) -> PosteriorFit:
    """Hundreds of dimensions and more: Laplace's Gaussian, its curvature dense or of low rank."""
    if density.dim <= HESSIAN:
        coords = modes.coordinates[0]
        normal: Any = _laplace(coords.loc, coords.scale)
        note = f"{density.dim} dimensions: a Gaussian with the curvature at the mode"
    else:
        normal = krylov_at(next(keys), density, modes.points[0][None])
        note = f"{density.dim} dimensions: a Gaussian with the curvature at the mode, on a subspace"
    several = len(modes.points) > 1
    notes = (*modes.text, *(["only the best mode is in the draws"] if several else []), note)
    return fit_checked(keys, density, normal, notes, modes.collapses or several)


@eqx.filter_jit
def _laplace(loc: jax.Array, scale: jax.Array) -> DenseNormal:
    return DenseNormal(loc, cholesky_in(scale, jnp.eye(loc.size, dtype=loc.dtype)))


def _only_discrete(key: jax.Array, density: Unconstrained) -> PosteriorFit:
    """All sites are summed out, so that nothing is left to approximate."""
    point = DenseNormal(jnp.zeros(0, density.dtype), jnp.zeros((0, 0), density.dtype))
    weighed = weigh(key, density, point, 1000)
    note = "all latent sites are discrete and were summed over: the posterior is exact"
    if density.discrete is None:
        note = "all latent sites are empty: there is nothing to fit"
    return PosteriorFit.of(density, point, weighed, (note,), _FEW)


def far_starts(
    key: jax.Array, density: Unconstrained, mixture: NormalMixture, seen: Weighed
) -> jax.Array | None:
    """Draws whose density the mixture does not explain; None if there are none.

    Among them are draws of a far wider mixture, so that modes at a distance are met.
    """
    if density.dim > _SPLIT_DIM:
        return None
    wide = NormalMixture(mixture.log_shares, mixture.locs, _FAR * mixture.trils)
    draws, wide_ratios = log_ratios(key, density, wide)
    both, ratios = _unexplained(mixture, wide, seen, draws, wide_ratios)
    if float(ratios[0]) < _SURPRISING:
        return None
    return both


@eqx.filter_jit
def _unexplained(
    mixture: NormalMixture,
    wide: NormalMixture,
    seen: Weighed,
    draws: jax.Array,
    wide_ratios: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The draws of the largest weights, and their logarithms relative to the mean weight."""
    ratios = wide_ratios + wide.log_prob(draws) - mixture.log_prob(draws)
    ratios = jnp.concatenate([seen.log_ratios, ratios]) - seen.log_evidence
    values, index = jax.lax.top_k(jnp.where(jnp.isnan(ratios), -jnp.inf, ratios), NUM_STARTS)
    return jnp.concatenate([seen.draws, draws])[index], values


def _improve(
    keys: Any, density: Unconstrained, mixture: NormalMixture, seen: Weighed
) -> tuple[NormalMixture, Weighed, tuple[str, ...]]:
    """Rounds of adaptation; the round with the best weights is weighed anew."""
    best = mixture
    if float(seen.weights.k_hat) < _GOOD and float(seen.weights.ess) > _GOOD * POOL:
        return best, seen, ()
    now, last = best, seen
    for _ in range(_ROUNDS - 1):
        now = adapted(now, last)
        last = weigh(next(keys), density, now, POOL)
        if last.better_than(seen):
            best, seen = now, last
    note: tuple[str, ...] = ()
    if not bool(seen.weights.reliable) and density.dim <= _SPLIT_DIM:
        now, last = split(next(keys), seen, _COMPONENTS), seen
        fresh = random.split(next(keys), _SPLIT_ROUNDS)
        for round_key in fresh:
            last = weigh(round_key, density, now, POOL)
            if last.better_than(seen):
                best, seen = now, last
                note = (f"not Gaussian: a mixture of {_COMPONENTS} Gaussians was fitted",)
            now = adapted(now, last)
    # The winner of a comparison looks better than it is.
    return best, weigh(next(keys), density, best, POOL), note
