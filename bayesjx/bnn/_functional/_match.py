"""Matching of a network's prior over functions to a process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..._core import Algorithm, check_key, fit, FitResult, gradient_algorithm, whole_number
from .._arguments import check_optimizer, check_single
from .._network import parameter_dtype, value_at
from ._discrepancies import AbstractDiscrepancy, flat, functions_distance, Wasserstein
from ._prior import AbstractNetworkPrior
from ._target import checked_measure, checked_target, Target

RATE = 0.05  # of the default optimiser, from where it falls to 0


class MatchedPrior(NamedTuple):
    """A prior of a network that was matched to a process, and how well.

    The distances are sliced Wasserstein-1 distances on functions and inputs that were not used in
    training, in the units of the functions.

    Attributes:
        prior: the trained prior.
        discrepancy: at the start of each step, estimated from functions of that step.
        before: distance of the prior that training started from.
        after: distance of the trained prior.
        floor: distance of two samples of the process itself, what a perfect match has.
        fit: what `bayesjx.fit` returned.
    """

    prior: Any
    discrepancy: np.ndarray
    before: float
    after: float
    floor: float
    fit: FitResult

    @property
    def num_steps(self) -> int:
        """Steps of the training."""
        return self.fit.num_steps


class Matching(eqx.Module):
    """The discrepancy of a prior and a process on functions that are drawn anew each time.

    Attributes:
        target: the process.
        measure: from a key to inputs.
        discrepancy: of functions at them.
        num_samples: how many of each.
    """

    target: Target
    measure: Callable[[jax.Array], Any]
    discrepancy: AbstractDiscrepancy
    num_samples: int = eqx.field(static=True)

    def __call__(self, key: jax.Array, prior: AbstractNetworkPrior) -> Float[Array, ""]:
        key, last = jax.random.split(key)
        f, g = self.draws(key, prior, self.num_samples)
        return self.discrepancy(last, flat(f), flat(g))

    def draws(
        self, key: jax.Array, prior: AbstractNetworkPrior, num_samples: int
    ) -> tuple[jax.Array, jax.Array]:
        """Functions of the prior and of the process at the same inputs."""
        for_inputs, for_prior, for_target = jax.random.split(key, 3)
        x = self.inputs(for_inputs, prior)
        g = self.target(for_target, x, num_samples)
        f = prior.values(for_prior, x, num_samples)
        return f, jax.lax.stop_gradient(g).astype(f.dtype)

    def inputs(self, key: jax.Array, prior: AbstractNetworkPrior) -> jax.Array:
        """Inputs in the type of the network's parameters."""
        x = jnp.asarray(self.measure(key))
        if x.ndim == 0 or x.shape[0] == 0:
            raise ValueError(f"measure must give inputs, one a row, got shape {x.shape}")
        return x.astype(parameter_dtype(prior.like))


def prior_matching(
    prior: AbstractNetworkPrior,
    target: Any,
    measure: Any,
    optimizer: optax.GradientTransformation,
    *,
    discrepancy: AbstractDiscrepancy | None = None,
    num_samples: int = 256,
) -> Algorithm:
    """Stochastic gradient descent of the discrepancy of a prior and a process, for `bayesjx.fit`.

    Args:
        prior: where to start.
        target: see `match_prior`.
        measure: see `match_prior`.
        optimizer: Optax gradient transformation, such as `optax.rmsprop(0.01)`; scales and the like
            move on a logarithmic scale.
        discrepancy: of functions; by default `Wasserstein()`.
        num_samples: functions of each that are drawn for a step, at least 4.

    Returns:
        `init() -> GradientState`, `step(key, state) -> (GradientState, GradientInfo)`; the
        objective is the discrepancy. `prior.trained(state)` is the result.

    Raises:
        ValueError: no such prior, process, inputs, optimiser or options; a process or network that
            does not take the inputs.
    """
    check_optimizer("prior_matching", optimizer)
    matching = _matching("prior_matching", prior, target, measure, discrepancy, num_samples)
    return gradient_algorithm(matching, prior, optimizer)


def match_prior(
    key: jax.Array,
    prior: AbstractNetworkPrior,
    target: Any,
    measure: Any,
    *,
    discrepancy: AbstractDiscrepancy | None = None,
    max_steps: int = 200,
    num_samples: int = 256,
    optimizer: optax.GradientTransformation | None = None,
    num_held_out: int = 512,
    progress: bool = False,
    callback: Callable[..., Any] | None = None,
) -> MatchedPrior:
    """Matches a network's prior over functions to a process, such as a Gaussian process.

    Weights have no scale that one would know; functions do. So the parameters of the weights' prior
    are trained until functions of random networks look like those of the process, at random sets of
    inputs, by stochastic gradient descent of a discrepancy between draws of both.

    Args:
        key: PRNG key.
        prior: where to start, from `normal_prior`, `hierarchical_prior` or `flow_prior`.
        target: a `gp.GP`, of which the function without noise counts, one for each output of the
            network; or a function `target(key, x)` that returns values of one function at the
            inputs, shape `(m,)` or `(m, p)`, or a NumPyro distribution of them. So
            `lambda key, x: gp.GP(kernels.RBF(lengthscale=draw(key))).latent(x)` is a process with a
            random lengthscale.
        measure: `measure(key)` gives inputs, shape `(m, ...)`, such as `MeasurementSet`; or the
            inputs themselves, always the same.
        discrepancy: of functions: `Wasserstein` by default, `SlicedWasserstein` or `MMD`.
        max_steps: steps of gradient descent.
        num_samples: functions of each that are drawn for a step, at least 4.
        optimizer: Optax gradient transformation; by default Adam whose rate falls from 0.05 to 0
            over the steps.
        num_held_out: functions of each for the distances before and after.
        progress: see `bayesjx.fit`.
        callback: see `bayesjx.fit`.

    Returns:
        The trained prior, the discrepancy at each step, and distances on functions held out.

    Raises:
        NonFiniteError: the discrepancy or a parameter is not finite any more.
        ValueError: no key; what `prior_matching` raises.

    References:
        Tran, Rossi, Milios and Filippone (2022), "All you need is a good functional prior for
        Bayesian deep learning", JMLR 23, algorithm 1.
    """
    check_key(key)
    owner = "match_prior"
    max_steps = whole_number(f"{owner}: max_steps", max_steps)
    held_out = whole_number(f"{owner}: num_held_out", num_held_out, 2)
    if optimizer is None:
        optimizer = optax.adam(optax.cosine_decay_schedule(RATE, max_steps))
    check_optimizer(owner, optimizer)
    matching = _matching(owner, prior, target, measure, discrepancy, num_samples)
    algorithm = gradient_algorithm(matching, prior, optimizer)
    for_fit, for_distances = jax.random.split(key)
    fitted = fit(
        for_fit, algorithm, algorithm.init(), max_steps, progress=progress, callback=callback
    )
    end = prior.trained(fitted.state)
    before, after, floor = _distances(for_distances, matching, prior, end, held_out)
    return MatchedPrior(
        end, fitted.info.objective, float(before), float(after), float(floor), fitted
    )


@eqx.filter_jit
def _distances(
    key: jax.Array, matching: Matching, start: Any, end: Any, num_samples: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Sliced distances of two priors, and of the process from itself, at the same inputs."""
    for_inputs, for_start, for_own, for_directions = jax.random.split(key, 4)
    x = matching.inputs(for_inputs, start)
    g, again = jnp.split(matching.target(for_own, x, 2 * num_samples), 2)
    first, last = (prior.values(for_start, x, num_samples) for prior in (start, end))
    g, again = g.astype(first.dtype), again.astype(first.dtype)
    of_pair = lambda f: functions_distance(for_directions, f, g)  # noqa: E731
    return of_pair(first), of_pair(last), of_pair(again)


def _matching(
    owner: str, prior: Any, target: Any, measure: Any, discrepancy: Any, num_samples: Any
) -> Matching:
    """What is minimised, after its parts are checked and tried at their shapes."""
    if not isinstance(prior, AbstractNetworkPrior):
        raise ValueError(
            f"{owner}: prior must be one of a whole network, such as bnn.normal_prior(network) "
            f"returns, got {type(prior).__name__}"
        )
    discrepancy = Wasserstein() if discrepancy is None else discrepancy
    if not isinstance(discrepancy, AbstractDiscrepancy):
        raise ValueError(
            f"{owner}: discrepancy must be bnn.Wasserstein(), bnn.SlicedWasserstein() or "
            f"bnn.MMD(), got {discrepancy!r:.80}"
        )
    check_single(owner, parameter_dtype(prior.like))
    number = whole_number(f"{owner}: num_samples", num_samples, 4)
    target, measure = checked_target(owner, target), checked_measure(owner, measure)
    whole = Matching(Target(target, ()), measure, discrepancy, number)
    x = eqx.filter_eval_shape(whole.inputs, jax.random.key(0), prior)
    row = jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
    value = eqx.filter_eval_shape(value_at, owner, prior.network.tree, row)
    return eqx.tree_at(lambda m: m.target, whole, Target(target, value.shape))
