"""Pathfinder as the start of a Gaussian guide, and as a guide."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
from jax import random
from jaxtyping import Array, Float, Num
from numpyro import handlers
from numpyro.infer.initialization import init_to_uniform
from numpyro.util import not_jax_tracer as is_concrete

from ..._core import cholesky_each, whole_number
from ...diagnostics import psis
from ...distributions import NestedLayout, SubspaceNormal
from ._continuous import (
    ContinuousGuide,
)
from ._families import (
    GaussianGuide,
)
from ._pathfinder import (
    pathfinder,
    PathfinderResult,
    warn_of_paths,
)


def init_from_pathfinder(
    key: jax.Array,
    guide: GaussianGuide,
    *args: Any,
    num_paths: int = 4,
    num_samples: int = 200,
    max_steps: int = 100,
    memory: int = 10,
    **kwargs: Any,
) -> dict[str, jax.Array]:
    """Parameters of a Gaussian guide from the Gaussian that Pathfinder finds.

    The mean goes to the location. Of the covariance, a mean-field guide gets the conditional
    standard deviations (the optimum for a Gaussian posterior), a full-rank guide everything, a
    low-rank guide the best few factors, a structured guide the covariance within its blocks and
    between blocks and their parents.

    Args:
        key: randomness of starts and bounds.
        guide: the guide; a later call of it must have the same latents.
        *args: arguments of the model, as are **kwargs**.
        num_paths: independent starts; the path with the largest bound wins.
        num_samples: draws for each bound along the path.
        max_steps: of L-BFGS per path, at most; a path ends when it has converged.
        memory: pairs that L-BFGS remembers.

    Returns:
        constrained parameters by name: `init_params` of `SVI.init`, `SVI.run` and `vi.functional`.

    Raises:
        ImportError: BlackJAX is not installed.
        ValueError: no path has a finite bound, or an option is not positive.
    """
    if not isinstance(guide, GaussianGuide):
        raise ValueError(f"guide must be a vi.GaussianGuide, got {type(guide).__name__}")
    setup_key, path_key = random.split(key)
    _set_up(guide, setup_key, args, kwargs)
    options = {"num_samples": num_samples, "max_steps": max_steps, "memory": memory}
    normal = _run(path_key, guide, num_paths, options, args, kwargs).normal
    scale, rest = _SPLIT[guide.scale](normal, guide)
    named = {"loc": normal.loc, "scale": scale, **rest}
    return {f"{guide.prefix}_{name}": value for name, value in named.items()}


class PathfinderGuide(ContinuousGuide):
    """The Gaussian that Pathfinder finds, as a guide without trainable parameters.

    A fast approximate posterior, and a proposal for importance-weighted bounds and SMC. It runs at
    the first call, or in `prepare`, which has to be used if the first call would be traced.

    Args:
        model: NumPyro model with continuous latent sites.
        num_paths: independent starts; the path with the largest bound wins.
        num_samples: draws for each bound along the path.
        max_steps: of L-BFGS per path, at most; a path ends when it has converged.
        memory: pairs that L-BFGS remembers.
        prefix: of the auxiliary site.
        init_loc_fn: NumPyro's initialisation: the start of the first path. The others start
            uniformly in (-2, 2) in unconstrained space.

    Raises:
        ImportError: BlackJAX is not installed.
        ValueError: an option is not positive; at the first call, no path has a finite bound, or the
            model has discrete latents or none, or the call is traced.

    References:
        Zhang, Carpenter, Gelman and Vehtari (2022), "Pathfinder: parallel quasi-Newton variational
        inference".
    """

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        num_paths: int = 4,
        num_samples: int = 200,
        max_steps: int = 100,
        memory: int = 10,
        prefix: str = "auto",
        init_loc_fn: Callable[..., Any] = init_to_uniform,
    ):
        self.num_paths = num_paths
        self.options = {"num_samples": num_samples, "max_steps": max_steps, "memory": memory}
        _check_options(num_paths, self.options)
        self.result: PathfinderResult | None = None
        super().__init__(model, prefix=prefix, init_loc_fn=init_loc_fn)

    def prepare(self, key: jax.Array, *args: Any, **kwargs: Any) -> PathfinderResult:
        """Runs Pathfinder.

        Args:
            key: randomness of starts and bounds.
            *args: arguments of the model, as are **kwargs**.
        """
        with handlers.block(), handlers.seed(rng_seed=key):
            self._setup_prototype(*args, **kwargs)
        assert self.result is not None
        return self.result

    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:
        key = numpyro.prng_key()
        if not all(is_concrete(x) for x in jax.tree.leaves((key, args, kwargs))):
            raise ValueError(
                "PathfinderGuide cannot run while it is traced: call guide.prepare(key, *args) "
                "before jit, vmap or grad"
            )
        super()._setup_prototype(*args, **kwargs)
        self.result = _run(key, self, self.num_paths, self.options, args, kwargs)

    def _get_posterior(self) -> SubspaceNormal:
        assert self.result is not None
        return self.result.normal

    def get_posterior(self, params: dict[str, Any] | None = None) -> SubspaceNormal:
        """The Gaussian over the flat unconstrained latents.

        Args:
            params: not used.
        """
        return self._get_posterior()

    def median(self, params: dict[str, Any] | None = None) -> dict[str, Num[Array, ...]]:
        """The median of each latent site.

        Args:
            params: not used.
        """
        return self._unpack_and_constrain(self._get_posterior().loc, params or {})

    def resample(
        self, key: jax.Array, num_draws: int, *args: Any, **kwargs: Any
    ) -> tuple[dict[str, Num[Array, "num_draws ..."]], Float[Array, ""]]:
        """Draws from all paths, resampled by Pareto-smoothed importance weights.

        Closer to the posterior than `sample_posterior`, which draws from the best path.

        Args:
            key: randomness.
            num_draws: how many draws to return.
            *args: arguments of the model, as are **kwargs**.

        Returns:
            draws by site, with a leading axis, and the Pareto k-hat of the weights: below 0.7 they
            can be trusted. Infinite if no path has a Gaussian to draw from.

        Raises:
            ValueError: `prepare` was not called, or `num_draws` is not a positive integer.
        """
        if self.result is None:
            raise ValueError("call guide.prepare(key, *args) first")
        whole_number("num_draws", num_draws)
        draw_key, choice_key = random.split(key)
        normals = self.result.normals
        log_density = self.log_joint(args, kwargs)
        per_path = -(-10 * num_draws // self.num_paths)

        def weigh(key: jax.Array, normal: SubspaceNormal) -> tuple[jax.Array, jax.Array]:
            draws = normal.sample(key, (per_path,))
            return draws, jax.vmap(log_density)(draws) - normal.log_prob(draws)

        draws, log_ratios = jax.vmap(weigh)(random.split(draw_key, self.num_paths), normals)
        finite = jnp.isfinite(self.result.bounds)[:, None] & jnp.isfinite(log_ratios)
        log_ratios = jnp.where(finite, log_ratios, -jnp.inf).reshape(-1)
        smoothed = psis(log_ratios)
        chosen = random.categorical(choice_key, smoothed.log_weights, shape=(num_draws,))
        latent = draws.reshape(-1, self.latent_dim)[chosen]
        return self._unpack_and_constrain(latent, {}), smoothed.k_hat


def _set_up(guide: ContinuousGuide, key: jax.Array, args: Any, kwargs: Any) -> None:
    if guide.prototype_trace is None:
        with handlers.block(), handlers.seed(rng_seed=key):
            guide._setup_prototype(*args, **kwargs)


def _run(
    key: Any, guide: Any, num_paths: int, options: dict[str, int], args: Any, kwargs: Any
) -> PathfinderResult:
    _check_options(num_paths, options)
    start_key, path_key = random.split(key)
    first = guide._init_latent
    shape = (num_paths - 1, guide.latent_dim)
    others = random.uniform(start_key, shape, first.dtype, -2.0, 2.0)
    starts = jnp.concatenate([first[None], others])
    result = pathfinder(path_key, guide.log_joint(args, kwargs), starts, **options)
    if is_concrete(result.bound) and not jnp.isfinite(result.bound):
        raise ValueError(
            f"Pathfinder found no Gaussian with a finite bound on {num_paths} paths: the density "
            "is not finite there, or all have collapsed to a point; try more paths (num_paths), "
            "another init_loc_fn, or a longer path (max_steps)"
        )
    if is_concrete(result.bound):
        warn_of_paths(result, options["max_steps"])
    return result


def _check_options(num_paths: int, options: dict[str, int]) -> None:
    for name, value in {"num_paths": num_paths, **options}.items():
        whole_number(name, value)


def _meanfield(normal: SubspaceNormal, guide: GaussianGuide) -> tuple[jax.Array, dict]:
    return 1 / jnp.sqrt(normal.precision_diagonal), {}


def _fullrank(normal: SubspaceNormal, guide: GaussianGuide) -> tuple[jax.Array, dict]:
    tril = jnp.linalg.cholesky(normal.covariance_matrix)
    return jnp.diag(tril), {"lower": jnp.tril(tril, -1)}


def _lowrank(normal: SubspaceNormal, guide: GaussianGuide) -> tuple[jax.Array, dict]:
    """Principal factors: alternate between the residual's diagonal and the leading factors."""
    rank, d = guide.rank or 1, guide.latent_dim
    variance = normal.variance
    diag = 1 / normal.precision_diagonal
    factor = random.normal(random.key(0), (d, rank), variance.dtype)
    for _ in range(10):
        root = jnp.sqrt(diag)[:, None]
        for _ in range(10):  # subspace iteration for the leading eigenpairs of the whitened one
            factor = jnp.linalg.qr(normal.covariance_times(factor / root) / root)[0]
        inner = factor.T @ (normal.covariance_times(factor / root) / root)
        values, vectors = jnp.linalg.eigh(0.5 * (inner + inner.T))
        scaled = root * (factor @ vectors) * jnp.sqrt(jnp.maximum(values - 1, 0))
        diag = jnp.maximum(variance - jnp.sum(scaled**2, -1), 1e-3 * variance)
    return jnp.sqrt(diag), {"factor": scaled}


def _structured(normal: SubspaceNormal, guide: GaussianGuide) -> tuple[jax.Array, dict]:
    """Rows of the Cholesky factor of each block's covariance together with its ancestors'."""
    layout = guide.layout
    assert isinstance(layout, NestedLayout)
    covariance = normal.covariance_matrix
    diagonals, rest = [], {}
    for i, group in enumerate(layout.groups):
        grid, k = group.index.shape[:-1], group.size
        pieces = [layout.groups[p].index for p in group.parents]
        pieces = [jnp.broadcast_to(x, (*grid, x.shape[-1])) for x in (*pieces, group.index)]
        index = jnp.concatenate(pieces, axis=-1)
        tril = cholesky_each(covariance[index[..., :, None], index[..., None, :]])
        rows, start = tril[..., -k:, :], 0
        for p in group.parents:
            size = layout.groups[p].size
            rest[f"link_{i}_{p}"] = rows[..., start : start + size]
            start += size
        own = rows[..., start:]
        diagonals.append(jnp.diagonal(own, axis1=-2, axis2=-1).reshape(-1))
        rest[f"lower_{i}"] = jnp.tril(own, -1)
    return jnp.concatenate(diagonals)[layout.order], rest


_SPLIT = {
    "meanfield": _meanfield,
    "fullrank": _fullrank,
    "lowrank": _lowrank,
    "structured": _structured,
}
