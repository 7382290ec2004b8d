"""Pathfinder: a Gaussian from the path of a quasi-Newton optimiser."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from jaxtyping import Array, Bool, Float, Int

from ..._core import each, first_of, is_successful, RESULTS
from ...distributions import SubspaceNormal
from .._posterior import (
    sign_search,
)

_NEAR = 0.01  # nats below the mode at which a path counts as converged
_ATTEMPTS = 3  # of a path that ends elsewhere than at a mode
_APART = 0.5  # nats between the modes of paths that count as different


class PathfinderResult(NamedTuple):
    """Result of `pathfinder`.

    Attributes:
        normal: the Gaussian with the largest bound over all paths.
        bound: its evidence lower bound.
        bounds: the largest bound on each path, shape `(num_paths,)`; -inf where no Gaussian of the
            path could be drawn from or had a finite density.
        normals: the Gaussian of each path; its arrays have a leading axis.
        log_densities: where each path ended.
        num_steps: of L-BFGS on each path, at its last attempt.
        result: how each path ended; successful where it has come within 0.01 nats of a mode, as its
            last step estimates.
    """

    normal: SubspaceNormal
    bound: Float[Array, ""]
    bounds: Float[Array, " num_paths"]
    normals: SubspaceNormal
    log_densities: Float[Array, " num_paths"]
    num_steps: Int[Array, " num_paths"]
    result: RESULTS

    @property
    def converged(self) -> Bool[Array, " num_paths"]:
        """Whether the result of each path is successful."""
        return is_successful(self.result)


class _Path(NamedTuple):
    normal: SubspaceNormal
    bound: jax.Array
    log_density: jax.Array  # at its end
    num_steps: jax.Array
    converged: jax.Array
    around: jax.Array  # the highest point that was seen around its end


class PathfinderWarning(UserWarning):
    """Paths of Pathfinder that did not reach a mode, or that reached different ones."""


def pathfinder(
    key: jax.Array,
    log_density: Callable[[jax.Array], jax.Array],
    starts: Float[Array, "num_paths d"],
    *,
    num_samples: int = 200,
    max_steps: int = 100,
    memory: int = 10,
) -> PathfinderResult:
    """Runs L-BFGS from each start and keeps the iterate whose Gaussian has the largest bound.

    The path and its inverse Hessians are BlackJAX's. The Gaussians' means are not: BlackJAX 1.7
    steps from the iterate along the gradient of the negative log density in place of against it.
    Paths run one after the other and end when they have converged; one that ends below a point
    that `sign_search` finds around its end starts again from there. A Gaussian whose standard
    deviation the floating-point numbers around its mean do not resolve is passed over.

    Args:
        key: randomness of the bounds' estimates.
        log_density: of a flat vector, unnormalised.
        starts: shape `(num_paths, d)`.
        num_samples: draws per iterate and bound.
        max_steps: of L-BFGS, at most.
        memory: pairs that L-BFGS remembers.

    Raises:
        ImportError: BlackJAX is not installed.
    """
    approximate = _blackjax().approximate
    tolerance = float(jnp.finfo(starts.dtype).eps) ** (2 / 3)

    def bound_of(key: jax.Array, normal: SubspaceNormal) -> jax.Array:
        draws = normal.sample(key, (num_samples,))
        bound = jnp.mean(jax.vmap(log_density)(draws)) + normal.entropy()
        return jnp.where(jnp.isfinite(bound) & _resolved(normal), bound, -jnp.inf)

    def path_from(key: jax.Array, start: jax.Array) -> _Path:
        path_key, bound_key = random.split(key)
        options = {"maxiter": max_steps, "maxcor": memory, "maxls": 100, "ftol": tolerance}
        path = approximate(path_key, log_density, start, 1, **options)[1].path
        normals, moves = _normals(path)
        num_steps = jnp.sum(jnp.any(jnp.diff(path.position, axis=0) != 0, axis=1))

        def bound_at(args: Any) -> jax.Array:
            index, key, normal = args
            never = jnp.asarray(-jnp.inf, starts.dtype)
            return jax.lax.cond(index <= num_steps, bound_of, lambda *_: never, key, normal)

        # One iterate at a time: num_samples evaluations of the density are enough at once.
        index = jnp.arange(max_steps + 1)
        keys = random.split(bound_key, max_steps + 1)
        bounds = jax.lax.map(bound_at, (index, keys, normals))
        step = jnp.argmax(bounds)
        normal, bound = jax.tree.map(lambda x: x[step], (normals, bounds))
        left = path.grad_position[num_steps] @ moves[num_steps] / 2
        # The curvature that an unlucky path has seen may be off by any factor: look around.
        end = path.position[num_steps]
        around = sign_search(lambda x: -log_density(x), end)
        higher = -around.value - log_density(end) > _NEAR
        converged = (jnp.abs(left) < _NEAR) & ~higher
        return _Path(normal, bound, log_density(end), num_steps, converged, around.point)

    def best_of(pair: tuple[jax.Array, jax.Array]) -> _Path:
        key, start = pair

        def go_on(carry: tuple[jax.Array, _Path]) -> jax.Array:
            again, path = carry
            return (again < _ATTEMPTS) & ~path.converged

        def once_more(carry: tuple[jax.Array, _Path]) -> tuple[jax.Array, _Path]:
            again, path = carry
            new = path_from(random.fold_in(key, again), path.around)
            better = new.bound > path.bound
            kept = jax.tree.map(
                lambda a, b: jnp.where(better, a, b), (new.normal, new.bound), path[:2]
            )
            return again + 1, _Path(*kept, *new[2:])

        shapes = jax.eval_shape(path_from, key, start)
        empty = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        lowest = jnp.asarray(-jnp.inf, empty.bound.dtype)
        first = jnp.asarray(0), empty._replace(around=start, bound=lowest)
        return jax.lax.while_loop(go_on, once_more, first)[1]

    @jax.jit
    def run(key: jax.Array, starts: jax.Array) -> PathfinderResult:
        pairs = random.split(key, len(starts)), starts
        paths = jax.lax.map(best_of, pairs)
        best = jnp.argmax(paths.bound)
        normal = jax.tree.map(lambda x: x[best], paths.normal)
        bound, ends = paths.bound[best], jax.vmap(lambda path: _ended(path, max_steps))(paths)
        return PathfinderResult(
            normal, bound, paths.bound, paths.normal, paths.log_density, paths.num_steps, ends
        )

    return run(key, starts)


def _ended(path: _Path, max_steps: int) -> RESULTS:
    return first_of(
        (path.converged, RESULTS.successful),
        (path.num_steps >= max_steps, RESULTS.max_steps_reached),
        (~jnp.isfinite(path.log_density), RESULTS.nonfinite),
        otherwise=RESULTS.stagnation,
    )


def warn_of_paths(result: PathfinderResult, max_steps: int) -> None:
    """Warns, once for all of it, of paths that failed or disagree; needs known values."""
    bounds, converged = np.asarray(result.bounds), np.asarray(result.converged)
    told = []
    if not converged.all():
        at = int(np.sum(np.asarray(result.num_steps)[~converged] >= max_steps))
        end = f" ({at} of them stopped at max_steps={max_steps})" if at else ""
        told.append(f"{np.sum(~converged)} of {len(bounds)} paths did not reach a mode{end}")
    modes = np.asarray(result.log_densities)[converged]
    if len(modes) and modes.max() - modes.min() > _APART:
        told.append("paths reached modes of different heights")
    if told:
        listed = ", ".join(f"{bound:.6g}" for bound in bounds)
        best = "" if converged[np.argmax(bounds)] else "; the best of them is among those"
        warnings.warn(
            f"Pathfinder: {'; '.join(told)}{best}. Their bounds are {listed}. Look at k-hat before "
            "using the result; more paths, another init_loc_fn or more steps (max_steps) may help",
            PathfinderWarning,
            stacklevel=2,
        )


def _resolved(normal: SubspaceNormal) -> jax.Array:
    """Whether floating-point numbers around the mean resolve the standard deviations."""
    scale = jnp.sqrt(normal.variance)
    return jnp.all(scale > 8 * jnp.finfo(scale.dtype).eps * jnp.abs(normal.loc))


def _normals(path: Any) -> tuple[SubspaceNormal, jax.Array]:
    """The Gaussians of all iterates, factorised in turn on CPUs, and the steps to their means."""
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
    normals = jax.vmap(SubspaceNormal)(path.position - move, root, basis, inner_tril)
    return normals, move


def _blackjax() -> Any:
    try:
        from blackjax.vi import pathfinder
    except ImportError as error:
        raise ImportError("this needs BlackJAX: pip install 'bayesjx[pathfinder]'") from error
    return pathfinder
