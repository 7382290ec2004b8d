"""Pathfinder: a Gaussian from the path of a quasi-Newton optimiser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import random

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

    def normal_of(iterate: Any) -> SubspaceNormal:
        root = jnp.sqrt(iterate.alpha)
        basis, upper = jnp.linalg.qr(iterate.beta / root[:, None])
        inner = upper @ iterate.gamma @ upper.T
        inner = jnp.eye(len(inner), dtype=inner.dtype) + 0.5 * (inner + inner.T)
        step = iterate.beta @ (iterate.gamma @ (iterate.beta.T @ iterate.grad_position))
        loc = iterate.position - iterate.alpha * iterate.grad_position - step
        return SubspaceNormal(loc, root, basis, jnp.linalg.cholesky(inner))

    def bound_of(key: jax.Array, normal: SubspaceNormal) -> jax.Array:
        draws = normal.sample(key, (num_samples,))
        bound = jnp.mean(jax.vmap(log_density)(draws)) + normal.entropy()
        return jnp.where(jnp.isfinite(bound), bound, -jnp.inf)

    def one(key: jax.Array, start: jax.Array) -> tuple[SubspaceNormal, jax.Array]:
        path_key, bound_key = random.split(key)
        _, info = approximate(
            path_key, log_density, start, 1, maxiter=max_steps, maxcor=memory, maxls=100
        )
        normals = jax.vmap(normal_of)(info.path)
        keys = random.split(bound_key, max_steps + 1)
        # One iterate at a time: num_samples evaluations of the density are enough at once.
        bounds = jax.lax.map(lambda pair: bound_of(*pair), (keys, normals))
        best = jnp.argmax(bounds)
        return jax.tree.map(lambda x: x[best], normals), bounds[best]

    @jax.jit
    def run(key: jax.Array, starts: jax.Array) -> PathfinderResult:
        normals, bounds = jax.vmap(one)(random.split(key, len(starts)), starts)
        best = jnp.argmax(bounds)
        return PathfinderResult(
            jax.tree.map(lambda x: x[best], normals), bounds[best], bounds, normals
        )

    return run(key, starts)


def _blackjax() -> Any:
    try:
        from blackjax.vi import pathfinder
    except ImportError as error:
        raise ImportError("this needs BlackJAX: pip install 'bayesjx[pathfinder]'") from error
    return pathfinder
