"""Training of distribution transformers on draws of priors and observations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import optax
from jax.tree_util import Partial

from .._core import Algorithm, gradient_algorithm, number_array, whole_number
from ._distribution_transformer import DistributionTransformer
from ._gaussian_mixture import GaussianMixture, propagate_mixture
from ._meta_priors import check_meta_prior, sample_updates, Update
from ._mixture_supports import MapTo, Support


def transformer_training(
    network: DistributionTransformer,
    meta_prior: Callable[[jax.Array], Any],
    simulator: Callable[[jax.Array, jax.Array], Any],
    optimizer: optax.GradientTransformation,
    *,
    prior: Callable[[Any], dist.Distribution] | None = None,
    batch_size: int = 256,
    min_observed: int | None = None,
    dynamics: tuple[Any, Any] | None = None,
    num_steps: int = 1,
    average: float | None = None,
) -> Algorithm:
    r"""Trains a distribution transformer on priors that are drawn at each step, for `bayesjx.fit`.

    The loss is the mean of $-\log q(x \mid z, \phi) - \log q(x \mid \phi)$ over priors $\phi$ of
    the meta-prior, $x$ of the prior and observations $z$ of $x$. But for a constant, the first
    term is the mean Kullback-Leibler divergence from the posterior to that of the network; the
    second does the same for the prior that the network makes of parameters. There is none for
    mixtures, which a residual network keeps. All draws are new at each step, so that nothing is
    over-fitted.

    With `dynamics`, on roll-outs of a filter: the mean over times of $-\log q(x_t \mid z_{1:t})$.

    Args:
        network: to train; `bayesjx.trained(network, state)` is the trained one.
        meta_prior: from a key to a prior: a `GaussianMixture` on the unconstrained scale, or
            parameters, shape `(p,)`.
        simulator: from a key and latent variables on their support, shape `(s,)`, to observations,
            shape `(n, d)`.
        optimizer: Optax gradient transformation, best with a schedule that ends at 0.
        prior: from parameters to the NumPyro distribution of latent variables; with parameters
            only.
        batch_size: priors of a step.
        min_observed: fewest observations of an update: their number is drawn uniformly for each
            prior; by default all are used always.
        dynamics: transition matrix and noise covariance, both of shape `(s, s)`.
        num_steps: times of a roll-out.
        average: see `gradient_algorithm`.

    Returns:
        `init() -> GradientState`, `step(key, state) -> (GradientState, GradientInfo)`; the
        objective is the mean log density of latent variables, the sum of both terms.

    Raises:
        ValueError: sizes out of range, functions that do not return what they should, or shapes
            that are not those of the network.

    References:
        Whittle, Ziomek, Rawling and Osborne (2025), "Distribution transformers: fast approximate
        Bayesian inference with on-the-fly prior adaptation", arXiv 2502.02463.
    """
    owner = "transformer_training"
    if not isinstance(network, DistributionTransformer):
        raise ValueError(
            f"{owner}: network must be an amortized.DistributionTransformer, got "
            f"{type(network).__name__}"
        )
    shapes = check_meta_prior(owner, meta_prior, simulator, prior, network.support)
    _check_sizes(owner, network, shapes)
    whole_number(f"{owner}: batch_size", batch_size)
    whole_number(f"{owner}: num_steps", num_steps)
    if min_observed is not None:
        whole_number(f"{owner}: min_observed", min_observed, 0, shapes.z.shape[0])
    if dynamics is None and num_steps > 1:
        raise ValueError(f"{owner}: num_steps is for dynamics, which were not given")
    if dynamics is not None:
        dynamics = _checked_dynamics(owner, dynamics, network)
    loss = Partial(
        _log_density, meta_prior, simulator, prior, batch_size, min_observed, dynamics, num_steps
    )
    return gradient_algorithm(loss, network, optimizer, average=average, maximise=True)


def _log_density(
    meta_prior: Any,
    simulator: Any,
    prior: Any,
    batch_size: int,
    min_observed: int | None,
    dynamics: Any,
    num_steps: int,
    key: jax.Array,
    network: DistributionTransformer,
) -> jax.Array:
    key_draws, key_size, key_path = jax.random.split(key, 3)
    drawn = sample_updates(key_draws, meta_prior, simulator, prior, network.support, batch_size)
    tokens = network.embed(drawn.phi)
    before = jnp.zeros((), network.dtype)
    if network.whole is not None:  # else the mixture is the prior itself
        before = jnp.mean(tokens.mixture.log_prob(drawn.x))
    x, z, total = drawn.x, drawn.z, 0.0
    for t, one in enumerate(jax.random.split(key_path, num_steps)):
        if t:
            x, z = _moved(one, x, simulator, network.support, dynamics)
            tokens = network.embed(propagate_mixture(tokens.mixture, *dynamics))
        mask = _mask(jax.random.fold_in(key_size, t), z.shape[:-1], min_observed)
        tokens = network.update(tokens, z, mask=mask)
        total = total + jnp.mean(tokens.mixture.log_prob(x))
    return total / num_steps + before


def _moved(key: Any, x: Any, simulator: Any, support: Support, dynamics: Any) -> tuple[Any, Any]:
    """The next states, and observations of them."""
    key_noise, key_observe = jax.random.split(key)
    transition, noise_cov = (jnp.asarray(matrix, x.dtype) for matrix in dynamics)
    # A covariance may be singular: its square root, not its Cholesky factor.
    values, vectors = jnp.linalg.eigh(noise_cov)
    root = vectors * jnp.sqrt(jnp.maximum(values, 0))
    x = x @ transition.T + jax.random.normal(key_noise, x.shape, x.dtype) @ root.T
    observe = jax.vmap(lambda k, one: simulator(k, MapTo(support)(one)))
    return x, jnp.asarray(observe(jax.random.split(key_observe, len(x)), x), x.dtype)


def _mask(key: Any, shape: tuple[int, ...], min_observed: int | None) -> Any:
    if min_observed is None:
        return None
    count = jax.random.randint(key, shape[:-1], min_observed, shape[-1] + 1)
    return jnp.arange(shape[-1]) < count[..., None]


def _check_sizes(owner: str, network: DistributionTransformer, shapes: Update) -> None:
    if shapes.z.shape[-1] != network.num_observed:
        raise ValueError(
            f"{owner}: simulator must return observations of {network.num_observed} numbers, as "
            f"the network has, got {shapes.z.shape}"
        )
    if isinstance(shapes.phi, GaussianMixture):
        if network.prior_inputs is not None:
            raise ValueError(f"{owner}: meta_prior must return parameters for this network")
        if shapes.phi.num_components > network.num_components:
            raise ValueError(
                f"{owner}: meta_prior must have at most {network.num_components} components, got "
                f"{shapes.phi.num_components}"
            )
    elif shapes.phi.shape[0] != network.prior_inputs:
        raise ValueError(
            f"{owner}: meta_prior must return {network.prior_inputs} parameters for this network, "
            f"got {shapes.phi.shape[0]}"
        )


def _checked_dynamics(owner: str, dynamics: Any, network: DistributionTransformer) -> Any:
    if not isinstance(dynamics, tuple) or len(dynamics) != 2:
        raise ValueError(f"{owner}: dynamics must be (transition, noise_cov), got {dynamics!r:.60}")
    s = network.num_latents
    matrices = [number_array(f"{owner}: dynamics", matrix) for matrix in dynamics]
    for matrix in matrices:
        if matrix.shape != (s, s):
            raise ValueError(f"{owner}: dynamics must have shapes ({s}, {s}), got {matrix.shape}")
    if any(bounds != (-float("inf"), float("inf")) for bounds in network.support):
        raise ValueError(f"{owner}: dynamics need a support that is real")
    return tuple(jnp.asarray(matrix) for matrix in matrices)
