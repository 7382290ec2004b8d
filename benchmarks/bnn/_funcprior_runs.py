"""Networks with matched and fixed priors on regression sets: one recipe for all of them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

WIDTH = 100  # hidden units, tanh
CHAINS, BATCH, THIN = 4, 128, 50
MEMBERS = 5
NOISES = np.geomspace(1e-4, 1.0, 33)  # variances, of standardised responses
FUNCTIONS, POINTS = 1024, 100  # of held-out distances


@dataclasses.dataclass(frozen=True)
class Size:
    """How long all is run.

    Attributes:
        matching: steps of `match_prior`.
        burn_in: of each chain.
        steps: of each chain, burn-in included.
        training: steps of the ensembles.
    """

    matching: int
    burn_in: int
    steps: int
    training: int


class Score(NamedTuple):
    """Of test rows, in standardised units: mean negative log density, and error of the mean."""

    nll: float
    rmse: float


class Matched(NamedTuple):
    """A prior matched to the process of one set, and distances to it on held-out functions."""

    prior: Any
    before: float
    after: float
    floor: float


def network(inputs: int, seed: int) -> Any:
    """One hidden layer."""
    import equinox as eqx
    import jax

    key = jax.random.key(seed)
    return eqx.nn.MLP(inputs, "scalar", WIDTH, 1, activation=jax.nn.tanh, key=key)


def process(inputs: int) -> Any:
    """The target: squared exponential kernel with a lengthscale of √(2D) and a variance of 1."""
    from bayesjx import gp, kernels

    return gp.GP(kernels.RBF(lengthscale=(2.0 * inputs) ** 0.5))


def noise_of(x: np.ndarray, y: np.ndarray) -> float:
    """The noise variance of largest evidence under that process, for all methods alike."""
    squares = np.sum(x**2, axis=1)
    distances = squares[:, None] + squares - 2 * x @ x.T
    values, vectors = np.linalg.eigh(np.exp(-distances / (4 * x.shape[1])))
    rotated = (vectors.T @ y) ** 2
    variances = np.maximum(values, 0) + NOISES[:, None]
    return float(NOISES[np.argmin(np.sum(np.log(variances) + rotated / variances, axis=1))])


def matched(name: str, x: np.ndarray, held_out: np.ndarray, size: Size) -> Matched:
    """The prior of a set, matched on training inputs, and distances on test inputs."""
    import jax
    import jax.numpy as jnp

    from bayesjx import bnn

    model, target = network(x.shape[1], 0), process(x.shape[1])
    for_match, for_check = jax.random.split(jax.random.key(1))
    measure = bnn.MeasurementSet(jnp.asarray(x, jnp.float32), num_points=POINTS)
    found = bnn.match_prior(
        for_match, bnn.normal_prior(model), target, measure,
        discrepancy=bnn.SlicedWasserstein(), max_steps=size.matching,
    ).prior  # fmt: skip
    keys = jax.random.split(for_check, 7)
    inputs = jnp.asarray(held_out[:POINTS], jnp.float32)
    unmatched = bnn.NormalPrior(
        network=found.network, leaves=found.leaves, scales=unit_scales(found)
    )
    functions = [
        prior.sample_functions(key, inputs, FUNCTIONS)
        for key, prior in zip(keys[:2], (unmatched, found), strict=True)
    ]
    real = [target.latent(inputs).sample(key, (FUNCTIONS,)) for key in keys[2:4]]
    pairs = [(functions[0], real[0]), (functions[1], real[0]), (real[1], real[0])]
    distances = [float(bnn.functions_distance(keys[4], *pair)) for pair in pairs]
    return Matched(found, *distances)


def unit_scales(prior: Any) -> tuple[Any, ...]:
    """Scales with which each weight is N(0, 1), whatever its number of inputs."""
    import jax.numpy as jnp

    like = zip(prior.leaves.names, prior.leaves.of(prior.network.tree), strict=True)
    return tuple(
        jnp.asarray(value.shape[1] ** 0.5 if value.ndim == 2 else 1.0, value.dtype)
        for _, value in like
    )


def sampled(seed: int, prior: Any, split: Any, noise: float, size: Size) -> tuple[Score, float]:
    """Chains of a network with that prior, and the largest R̂ of its predictions."""
    import jax

    import bayesjx
    from bayesjx import bnn

    x, y, new, truth = _single(split)
    start, run = jax.random.split(jax.random.key(seed))
    chains = bnn.network_chains(
        start, network(x.shape[1], seed), _noise(noise), prior=prior, num_chains=CHAINS
    )
    algorithm = bnn.sghmc(chains, batch_size=BATCH, burn_in=size.burn_in)
    fit = bayesjx.fit(
        run, algorithm, algorithm.init(), size.steps, data=(x, y), keep=bnn.chain_draws, thin=THIN
    )
    score = _score(chains.posterior(fit.kept), new, truth)
    return score, float(np.quantile(chains.diagnostics(fit.kept, new).r_hat, 0.9))


def ensembled(seed: int, prior: Any, split: Any, noise: float, size: Size) -> Score:
    """A deep ensemble, by the likelihood alone or with a prior."""
    import equinox as eqx
    import jax

    import bayesjx
    from bayesjx import bnn

    x, y, new, truth = _single(split)
    start, run = jax.random.split(jax.random.key(seed))
    make = lambda key: eqx.nn.MLP(  # noqa: E731
        x.shape[1], "scalar", WIDTH, 1, activation=jax.nn.tanh, key=key
    )
    ensemble = bnn.deep_ensemble(start, make, _noise(noise), num_members=MEMBERS, prior=prior)
    algorithm = bnn.ensemble_map(
        ensemble, _adam(size.training), num_data=len(x), trainable=_networks
    )
    fit = bayesjx.fit(
        run, algorithm, algorithm.init(), size.training, data=(x, y),
        batch_size=min(BATCH, len(x)),
    )  # fmt: skip
    return _score(ensemble.trained(fit.state).posterior(), new, truth)


def scores(
    split: Any, fold: int, prior: Any, size: Size
) -> tuple[Mapping[str, Score], float, float]:
    """All methods on one split; the worst R̂ of chains with the matched prior, and the noise."""
    from bayesjx import bnn

    noise = noise_of(split.train_x, split.train_y)
    found, r_hat = sampled(fold, prior, split, noise, size)
    return {
        "matched prior": found,
        "N(0, 1)": sampled(fold, 1.0, split, noise, size)[0],
        "N(0, 1 / inputs)": sampled(fold, bnn.FanIn(), split, noise, size)[0],
        "deep ensemble": ensembled(fold, None, split, noise, size),
        "deep ensemble, N(0, 1 / inputs)": ensembled(fold, bnn.FanIn(), split, noise, size),
    }, r_hat, noise  # fmt: skip


@functools.cache
def _adam(steps: int) -> Any:
    """One optimiser for all, so that fits of the same shapes share a program."""
    import optax

    return optax.adam(optax.cosine_decay_schedule(0.01, steps))


def _networks(ensemble: Any) -> Any:
    return ensemble.networks


def _noise(variance: float) -> Any:
    import jax.numpy as jnp

    from bayesjx import likelihoods

    return likelihoods.Gaussian(jnp.asarray(variance, jnp.float32))


def _single(split: Any) -> tuple[Any, ...]:
    import jax.numpy as jnp

    return tuple(jnp.asarray(part, jnp.float32) for part in split)


def _score(posterior: Any, x: Any, y: Any) -> Score:
    nll = -np.mean(posterior.log_predictive_prob(x, y))
    return Score(float(nll), float(np.sqrt(np.mean((posterior.mean(x) - y) ** 2))))
