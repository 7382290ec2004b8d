"""Searches for where a posterior has its mass: modes that count, or what grows without end."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ._modes import (
    Coordinates,
    coordinates,
    find_modes,
    FLAT,
    Modes,
    resized,
)
from ._unconstrained import (
    Unconstrained,
)

NUM_STARTS = 8
DENSE = 300  # dimensions up to which batch and match has a dense covariance
HESSIAN = 1000  # dimensions up to which there is a Hessian
_MOST_MODES = 8
_SLOPE = 0.1  # nats that a Newton step may still gain at a mode
_NEWTON_STEPS, _STILL = 20, 1e-2  # from where L-BFGS ended, while one gains more than this (nats)
_HOPELESS = 20.0  # nats below a mode of a plateau that does not matter
_LIKELY = 7.0  # nats of evidence below the best mode down to which others count


class PosteriorModes(NamedTuple):
    """Modes of a posterior, and what is to be said of them.

    Attributes:
        points: modes that count, the best first.
        coordinates: coordinates of each; none in very many dimensions.
        notes: what is to be said besides.
        collapses: whether the density seems to grow without end.
        others: coordinates of modes that do not count.
    """

    points: list[jax.Array]
    coordinates: list[Coordinates]
    notes: tuple[str, ...]
    collapses: bool = False
    others: tuple[Coordinates, ...] = ()

    @property
    def text(self) -> tuple[str, ...]:
        """The notes, with how many modes there are."""
        number, used = len(self.coordinates) + len(self.others), len(self.coordinates)
        if number < 2:
            return self.notes
        count = "one of them" if used == 1 else f"{used} of them"
        return (*self.notes, f"{number} modes were found, and {count} used")


def find_posterior_modes(key: jax.Array, density: Unconstrained) -> PosteriorModes:
    """Searches for modes from several starts, and keeps those whose evidence counts.

    Raises:
        ValueError: no start has a finite density, or the posterior is flat along some sites.
    """
    starts = density.starts(key, NUM_STARTS if density.dim <= DENSE else 2)
    free = jnp.ones(density.dim, bool)
    modes = find_modes(density, starts, free)
    values, converged = np.asarray(modes.values), np.asarray(modes.converged)
    if not np.isfinite(values).any():
        sites = density.not_finite(starts[0])
        raise ValueError(
            f"fit_posterior: the log density is finite at none of {len(starts)} starts"
            f"{': that of ' + ' and '.join(sites) + ' is not' if sites else ''}; look at the data, "
            "and at sites whose support does not match what they are used for"
        )
    notes: list[str] = []
    if not (converged & np.isfinite(values)).any():
        order = [int(i) for i in np.argsort(-values) if np.isfinite(values[i])]
        few = density.dim <= HESSIAN
        best = _distinct(density, modes, order, notes, polished=True) if few else None
        return best or _without_mode(density, modes, starts)
    if not converged.all():
        notes.append(f"{np.sum(~converged)} of {len(starts)} starts reached no mode")
    order = [int(i) for i in np.argsort(-values) if converged[i] and np.isfinite(values[i])]
    if density.dim > HESSIAN:
        return PosteriorModes([modes.points[order[0]]], [], tuple(notes))
    return _distinct(density, modes, order, notes) or _without_mode(density, modes, starts)


def search_from(density: Unconstrained, known: PosteriorModes, starts: jax.Array) -> PosteriorModes:
    """The known modes, and modes that further starts lead to."""
    modes = find_modes(density, starts, jnp.ones(density.dim, bool))
    values = np.asarray(modes.values)
    order = [int(i) for i in np.argsort(-values) if modes.converged[i] and np.isfinite(values[i])]
    return _distinct(density, modes, order, [*known.notes], True, known) or known


def _distinct(
    density: Unconstrained,
    modes: Modes,
    order: list[int],
    notes: list[str],
    polished: bool = False,
    known: PosteriorModes | None = None,
) -> PosteriorModes | None:
    """The modes whose Laplace evidence counts, best first; with `polished` only true ones."""
    listed = [*known.coordinates, *known.others] if known else []
    short = False
    for index in order:
        if len(listed) >= _MOST_MODES:
            break
        point = modes.points[index]
        if any(_near(coords, point) for coords in listed):
            continue
        coords = _newton(density, point)
        rises = float(coords.decrement) > _SLOPE
        endless = bool(jnp.any(coords.runaway)) or (rises and _flat_sites(density, coords))
        broken = not np.isfinite(np.asarray(coords.scale)).all() or not np.isfinite(coords.value)
        if broken or endless or bool(coords.saddle) or (rises and polished):
            continue  # no derivatives, a saddle, or a density that grows ever more slowly
        if any(_near(other, coords.loc) for other in listed):
            continue
        flat = _flat_sites(density, coords)
        if flat and listed and coords.value < max(p.value for p in listed) - _HOPELESS:
            continue  # a plateau far below
        _refuse_flat(density, flat)
        short = short or rises
        listed.append(coords)
    if not listed:
        return None
    evidences = [float(p.value) + np.linalg.slogdet(np.asarray(p.scale))[1] for p in listed]
    best = max(evidences)
    ranked = [int(i) for i in np.argsort(evidences)[::-1]]
    kept = [listed[i] for i in ranked if evidences[i] > best - _LIKELY]
    others = tuple(listed[i] for i in ranked if evidences[i] <= best - _LIKELY)
    if short and density.dtype == jnp.float32:
        notes.append("L-BFGS stopped short of a mode; double precision (jax_enable_x64) may help")
    return PosteriorModes([coords.loc for coords in kept], kept, tuple(notes), others=others)


def _newton(density: Unconstrained, point: jax.Array) -> Coordinates:
    """Coordinates of a mode, after some of Newton's steps where L-BFGS stalled before it."""
    free = jnp.ones(density.dim, bool)
    coords = coordinates(density, point, free)
    for _ in range(_NEWTON_STEPS):
        if not float(coords.decrement) > _STILL or bool(jnp.all(coords.loc == point)):
            break
        point = coords.loc
        coords = coordinates(density, point, free)
    if _flat_sites(density, coords) and not bool(coords.saddle | jnp.any(coords.runaway)):
        return resized(density, coords)
    return coords


def _near(coords: Coordinates, point: jax.Array) -> bool:
    """Whether a point lies within a standard deviation of a mode."""
    shift = np.asarray(point) - np.asarray(coords.loc)
    return bool(np.linalg.norm(np.linalg.solve(np.asarray(coords.scale), shift)) < 1.0)


def _without_mode(density: Unconstrained, modes: Modes, starts: jax.Array) -> PosteriorModes:
    """Scales that collapse are held at their start, and the rest goes to its mode given them."""
    best = int(np.nanargmax(np.asarray(modes.values)))
    free = np.ones(density.dim, bool)
    names: list[str] = []
    if density.dim <= HESSIAN:
        coords = coordinates(density, modes.points[best], jnp.asarray(free))
        free = ~np.asarray(coords.runaway)
        names = sorted({density.name_of(int(i)) for i in np.flatnonzero(~free)})
    single = density.dtype == jnp.float32 and bool(free.all())
    if free.all() or len(names) == len(density.sites):
        scales = [site for site in density.sites if site.is_scale]
        free = np.ones(density.dim, bool)
        for site in scales:
            free[site.start : site.start + site.size] = False
        names = [site.name for site in scales]
    note = "no start reached a mode: the density seems to grow without end"
    if names:
        note += f" along {' and '.join(map(repr, names))}"
    if single:
        note += ", unless double precision (jax_enable_x64) can tell otherwise"
    if density.dim > HESSIAN or free.all():
        listed = []
        if density.dim <= HESSIAN:
            listed = [coordinates(density, modes.points[best], jnp.asarray(free))]
        return PosteriorModes([modes.points[best]], listed, (note,), True)
    if free.any():
        held = find_modes(density, starts[:2], jnp.asarray(free))
        index = int(np.argmax(np.asarray(held.values)))
        start = held.points[index]
    else:
        start = starts[0]
    return PosteriorModes([start], [coordinates(density, start, jnp.asarray(free))], (note,), True)


def _flat_sites(density: Unconstrained, coords: Coordinates) -> list[str]:
    """Sites of the directions without curvature."""
    flat = [density.name_of(int(i)) for i in np.flatnonzero(np.asarray(coords.flat))]
    if not flat and float(coords.lowest) < FLAT:
        size = np.abs(np.asarray(coords.direction))
        flat = [density.name_of(int(i)) for i in np.flatnonzero(size > 0.3 * size.max())]
    return sorted(set(flat))


def _refuse_flat(density: Unconstrained, flat: list[str]) -> None:
    if flat and density.dtype == jnp.float32:
        raise ValueError(
            f"fit_posterior: in single precision the posterior is flat along {flat}: data and "
            "priors do not determine them, or so little beside other directions that it takes "
            "double precision to tell: jax.config.update('jax_enable_x64', True). Columns of "
            "large mean or unit, if centred and scaled, need no more digits than others"
        )
    if flat:
        raise ValueError(
            f"fit_posterior: the posterior is flat along {flat}: data and priors do "
            "not determine them, and it cannot be normalised. Give them proper priors, or drop "
            "what is redundant (an intercept beside dummies of all groups, say); classes that "
            "covariates separate without error leave a logistic regression flat, too"
        )
