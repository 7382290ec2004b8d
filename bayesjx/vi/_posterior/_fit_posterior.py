"""A posterior fitted by one call without options."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
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
from ._modes import (
    Coordinates,
    coordinates,
    find_modes,
    FLAT,
    Modes,
)
from ._normal_mixture import (
    adapted,
    DenseNormal,
    NormalMixture,
    split,
    weigh,
    Weighed,
)
from ._posterior_fit import (
    PosteriorFit,
)
from ._summed_out import (
    log_density_of,
)
from ._unconstrained import (
    Unconstrained,
)

_STARTS = 8
_DENSE = 300  # dimensions up to which batch and match has a dense covariance
_HESSIAN = 1000  # dimensions up to which there is a Hessian
_DRAWS = 4000  # importance draws of a round
_ROUNDS = 3
_GOOD = 0.5  # k-hat below which, and share of effective draws above which, nothing is adapted
_MOST_MODES = 4
_SLOPE = 0.1  # nats that a Newton step may still gain at a mode
_NEWTON_STEPS, _STILL = 20, 1e-2  # from where L-BFGS ended, while one gains more than this (nats)
_LIKELY = 7.0  # nats of evidence below the best mode down to which others count
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
            density is finite at no start; it is flat along some sites, which are named: an improper
            posterior.

    References:
        Cai, Modi, Pillaud-Vivien, Margossian, Gower, Blei and Saul (2024), "Batch and match",
        ICML; Zhang, Carpenter, Gelman and Vehtari (2022), "Pathfinder"; Vehtari, Simpson, Gelman,
        Yao and Gabry (2024), "Pareto smoothed importance sampling", JMLR 25; Cappé, Douc, Guillin,
        Marin and Robert (2008), "Adaptive importance sampling in general mixture classes".
    """
    check_key(key)
    density = log_density_of("fit_posterior", model, args, kwargs)
    fit = _fit(key, density)
    hint = advice(density) if not fit.reliable and not np.isnan(fit.k_hat) else None
    return dataclasses.replace(fit, notes=(*fit.notes, hint)) if hint else fit


def _fit(key: jax.Array, density: Unconstrained) -> PosteriorFit:
    keys = iter(random.split(key, 16))
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
    found = _find(next(keys), density)
    if density.dim > _DENSE:
        return _fit_many(keys, density, found)
    mixture = match_modes(keys, density, found.places)
    proposal, weighed, note = _improve(keys, density, mixture)
    trusted = bool(weighed.weights.reliable) and float(weighed.weights.ess) >= _FEW
    if density.dim > _SPLIT_DIM and not trusted and len(proposal.locs) == 1:
        normal = DenseNormal(proposal.locs[0], proposal.trils[0])
        return fit_checked(keys, density, normal, found.notes, found.collapses)
    # Weights do not tell of a neck that no draw has seen, and mixtures overfit their draws.
    fewest = math.inf if found.collapses else _FEW_OF_MIXTURE if note else _FEW
    return PosteriorFit.of(density, proposal, weighed, (*found.notes, *note), fewest)


def _fit_many(keys: Any, density: Unconstrained, found: _Found) -> PosteriorFit:
    """Hundreds of dimensions and more: Laplace's Gaussian, its curvature dense or of low rank."""
    if density.dim <= _HESSIAN:
        place = found.places[0]
        normal: Any = _laplace(place.loc, place.scale)
        note = f"{density.dim} dimensions: a Gaussian with the curvature at the mode"
    else:
        normal = krylov_at(next(keys), density, found.points[0][None])
        note = f"{density.dim} dimensions: a Gaussian with the curvature at the mode, on a subspace"
    several = len(found.points) > 1
    notes = (*found.notes, *(["only the best mode is in the draws"] if several else []), note)
    return fit_checked(keys, density, normal, notes, found.collapses or several)


@eqx.filter_jit
def _laplace(loc: jax.Array, scale: jax.Array) -> DenseNormal:
    return DenseNormal(loc, cholesky_in(scale, jnp.eye(loc.size, dtype=loc.dtype)))


def _only_discrete(key: jax.Array, density: Unconstrained) -> PosteriorFit:
    """All sites are summed out, so that nothing is left to approximate."""
    empty = jnp.zeros((0, 0), density.dtype)
    point = DenseNormal(empty[0:0].reshape(0), empty)
    weighed = weigh(key, density, point, 1000)
    note = "all latent sites are discrete and were summed over: the posterior is exact"
    return PosteriorFit.of(density, point, weighed, (note,), _FEW)


class _Found(NamedTuple):
    """Where the posterior has its mass.

    Attributes:
        points: modes that count, the best first.
        places: coordinates of each; None in many dimensions.
        notes: what is to be said.
        collapses: whether the density seems to grow without end.
    """

    points: list[jax.Array]
    places: list[Coordinates]
    notes: tuple[str, ...]
    collapses: bool = False


def _find(key: jax.Array, density: Unconstrained) -> _Found:
    starts = density.starts(key, _STARTS if density.dim <= _DENSE else 2)
    free = jnp.ones(density.dim, bool)
    modes = find_modes(density, starts, free)
    values, converged = np.asarray(modes.values), np.asarray(modes.converged)
    if not np.isfinite(values).any():
        raise ValueError(
            f"fit_posterior: the log density is finite at none of {len(starts)} starts; look at "
            "the data, and at sites whose support does not match what they are used for"
        )
    notes: list[str] = []
    if not (converged & np.isfinite(values)).any():
        return _without_mode(density, modes, starts)
    if not converged.all():
        notes.append(f"{np.sum(~converged)} of {len(starts)} starts reached no mode")
    order = [int(i) for i in np.argsort(-values) if converged[i] and np.isfinite(values[i])]
    if density.dim > _HESSIAN:
        return _Found([modes.points[order[0]]], [], tuple(notes))
    return _distinct(density, modes, order, notes) or _without_mode(density, modes, starts)


def _distinct(
    density: Unconstrained, modes: Modes, order: list[int], notes: list[str]
) -> _Found | None:
    """The modes whose Laplace evidence counts, best first."""
    free = jnp.ones(density.dim, bool)
    points, places, evidences, short = [], [], [], False
    for index in order:
        point = modes.points[index]
        if any(_near(place, point) for place in places):
            continue
        place = _newton(density, point, free)
        rises = float(place.decrement) > _SLOPE
        if bool(jnp.any(place.runaway)) or (rises and _flat_sites(density, place)):
            continue  # a density that grows without end, ever more slowly
        short = short or rises
        _refuse_flat(density, place)
        if any(_near(other, place.loc) for other in places):
            continue
        points.append(place.loc)
        places.append(place)
        log_det = np.linalg.slogdet(np.asarray(place.scale))[1]
        evidences.append(float(modes.values[index]) + log_det)
        if len(points) == _MOST_MODES:
            break
    if not points:
        return None
    best = max(evidences)
    kept = [int(i) for i in np.argsort(evidences)[::-1] if evidences[i] > best - _LIKELY]
    if short and density.dtype == jnp.float32:
        notes.append("L-BFGS stopped short of a mode; double precision (jax_enable_x64) may help")
    if len(points) > 1:
        count = "one of them" if len(kept) == 1 else f"{len(kept)} of them"
        notes.append(f"{len(points)} modes were found, and {count} used")
    return _Found([points[i] for i in kept], [places[i] for i in kept], tuple(notes))


def _newton(density: Unconstrained, point: jax.Array, free: jax.Array) -> Coordinates:
    """Coordinates of a mode after a few Newton steps: L-BFGS stalls among columns of raw units."""
    place = coordinates(density, point, free)
    for _ in range(_NEWTON_STEPS):
        if not float(place.decrement) > _STILL or bool(jnp.all(place.loc == point)):
            break
        point = place.loc
        place = coordinates(density, point, free)
    return place


def _near(place: Coordinates, point: jax.Array) -> bool:
    """Whether a point lies within a standard deviation of a mode."""
    shift = np.asarray(point) - np.asarray(place.loc)
    return bool(np.linalg.norm(np.linalg.solve(np.asarray(place.scale), shift)) < 1.0)


def _without_mode(density: Unconstrained, modes: Modes, starts: jax.Array) -> _Found:
    """Scales that collapse are held at their start, and the rest goes to its mode given them."""
    best = int(np.nanargmax(np.asarray(modes.values)))
    free = np.ones(density.dim, bool)
    names: list[str] = []
    if density.dim <= _HESSIAN:
        place = coordinates(density, modes.points[best], jnp.asarray(free))
        free = ~np.asarray(place.runaway)
        names = sorted({density.name_of(int(i)) for i in np.flatnonzero(~free)})
    if free.all() or len(names) == len(density.sites):
        scales = [site for site in density.sites if site.is_scale]
        free = np.ones(density.dim, bool)
        for site in scales:
            free[site.start : site.start + site.size] = False
        names = [site.name for site in scales]
    note = "no start reached a mode: the density seems to grow without end"
    if names:
        note += f" along {' and '.join(map(repr, names))}"
    if density.dim > _HESSIAN or free.all():
        places = []
        if density.dim <= _HESSIAN:
            places = [coordinates(density, modes.points[best], jnp.asarray(free))]
        return _Found([modes.points[best]], places, (note,), True)
    if free.any():
        held = find_modes(density, starts[:2], jnp.asarray(free))
        index = int(np.argmax(np.asarray(held.values)))
        start = held.points[index]
    else:
        start = starts[0]
    return _Found([start], [coordinates(density, start, jnp.asarray(free))], (note,), True)


def _flat_sites(density: Unconstrained, place: Coordinates) -> list[str]:
    """Sites of the directions without curvature."""
    flat = [density.name_of(int(i)) for i in np.flatnonzero(np.asarray(place.flat))]
    if not flat and float(place.lowest) < FLAT:
        size = np.abs(np.asarray(place.direction))
        flat = [density.name_of(int(i)) for i in np.flatnonzero(size > 0.3 * size.max())]
    return sorted(set(flat))


def _refuse_flat(density: Unconstrained, place: Coordinates) -> None:
    if flat := _flat_sites(density, place):
        raise ValueError(
            f"fit_posterior: the posterior is flat along {flat}: data and priors do "
            "not determine them, and it cannot be normalised. Give them proper priors, or drop "
            "what is redundant (an intercept beside dummies of all groups, say); classes that "
            "covariates separate without error leave a logistic regression flat, too"
        )


def _improve(
    keys: Any, density: Unconstrained, mixture: NormalMixture
) -> tuple[NormalMixture, Weighed, tuple[str, ...]]:
    """Rounds of adaptation; the round with the best weights is weighed anew."""
    best, seen = mixture, weigh(next(keys), density, mixture, _DRAWS)
    if float(seen.weights.k_hat) < _GOOD and float(seen.weights.ess) > _GOOD * _DRAWS:
        return best, seen, ()
    now, last = best, seen
    for _ in range(_ROUNDS - 1):
        now = adapted(now, last)
        last = weigh(next(keys), density, now, _DRAWS)
        if last.better_than(seen):
            best, seen = now, last
    note: tuple[str, ...] = ()
    if not bool(seen.weights.reliable) and density.dim <= _SPLIT_DIM:
        now, last = split(next(keys), seen, _COMPONENTS), seen
        fresh = random.split(next(keys), _SPLIT_ROUNDS)
        for round_key in fresh:
            last = weigh(round_key, density, now, _DRAWS)
            if last.better_than(seen):
                best, seen = now, last
                note = (f"not Gaussian: a mixture of {_COMPONENTS} Gaussians was fitted",)
            now = adapted(now, last)
    # The winner of a comparison looks better than it is.
    return best, weigh(next(keys), density, best, _DRAWS), note
