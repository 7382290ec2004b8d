"""Pathfinder: a Gaussian from the path of a quasi-Newton optimiser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import random

from .._core import each
from ..distributions import SubspaceNormal


class PathfinderResult(NamedTuple):
    """What `pathfinder` found.

    Attributes:
        normal: the Gaussian with the largest bound over all paths.
        bound: its evidence lower bound.
        bounds: the largest bound on each path, shape `(num_paths,)`.
        normals: the Gaussian of each path; its arrays have a leading axis.
    """

    normal: SubspaceNormal
    bound: jax.Array
    bounds: jax.Array
    normals: SubspaceNormal


def pathfinder(
    key: jax.Array,
    log_density: Callable[[jax.Array], jax.Array],
    starts: jax.Array,
    *,
    num_samples: int = 200,
    max_steps: int = 30,
    memory: int = 10,
) -> PathfinderResult:
    """Runs L-BFGS from each start and keeps the iterate whose Gaussian has the largest bound.

    The path and its inverse Hessians are BlackJAX's. The Gaussians' means are not: BlackJAX 1.7
    steps from the iterate along the gradient of the negative log density in place of against it.

    Args:
        key: randomness of the bounds' estimates.
        log_density: of a flat vector, unnormalised.
        starts: shape `(num_paths, d)`.
        num_samples: draws per iterate and bound.
        max_steps: of L-BFGS.
        memory: pairs that L-BFGS remembers.

    Raises:
        ImportError: BlackJAX is not installed.
    """
    approximate = _blackjax().approximate

    def path_of(key: jax.Array, start: jax.Array) -> Any:
        return approximate(key, log_density, start, 1, maxiter=max_steps, maxcor=memory, maxls=100)[
            1
        ].path

    def bounds_of(key: jax.Array, normals: SubspaceNormal) -> jax.Array:
        def bound_of(pair: Any) -> jax.Array:
            key, normal = pair
            draws = normal.sample(key, (num_samples,))
            bound = jnp.mean(jax.vmap(log_density)(draws)) + normal.entropy()
            return jnp.where(jnp.isfinite(bound), bound, -jnp.inf)

        # One iterate at a time: num_samples evaluations of the density are enough at once.
        return jax.lax.map(bound_of, (random.split(key, max_steps + 1), normals))

    @jax.jit
    def run(key: jax.Array, starts: jax.Array) -> PathfinderResult:
        keys = jax.vmap(random.split)(random.split(key, len(starts)))
        normals = _normals(jax.vmap(path_of)(keys[:, 0], starts))
        path_bounds = jax.vmap(bounds_of)(keys[:, 1], normals)
        step = jnp.argmax(path_bounds, axis=1)
        path = jnp.arange(len(starts))
        normals, bounds = jax.tree.map(lambda x: x[path, step], (normals, path_bounds))
        best = jnp.argmax(bounds)
        return PathfinderResult(
            jax.tree.map(lambda x: x[best], normals), bounds[best], bounds, normals
        )

    return run(key, starts)


def _normals(path: Any) -> SubspaceNormal:
    """The Gaussians of all iterates of all paths; factorised in turn on CPUs, see `each`."""
    root = jnp.sqrt(path.alpha)

    def factors(pair: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        beta, gamma = pair
        basis, upper = jnp.linalg.qr(beta)
        inner = upper @ gamma @ upper.mT
        inner = jnp.eye(inner.shape[-1], dtype=inner.dtype) + 0.5 * (inner + inner.mT)
        return basis, jnp.linalg.cholesky(inner)

    basis, inner_tril = each(factors, (path.beta / root[..., None], path.gamma))
    move = path.alpha * path.grad_position
    inside = jnp.einsum("...dk,...d->...k", path.beta, path.grad_position)
    move += jnp.einsum("...dk,...kl,...l->...d", path.beta, path.gamma, inside)
    make = jax.vmap(jax.vmap(SubspaceNormal))
    return make(path.position - move, root, basis, inner_tril)


def _blackjax() -> Any:
    try:
        from blackjax.vi import pathfinder
    except ImportError as error:
        raise ImportError("this needs BlackJAX: pip install 'bayesjx[pathfinder]'") from error
    return pathfinder
