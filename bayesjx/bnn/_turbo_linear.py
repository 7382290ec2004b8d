"""Turbo variational inference of a linear model with structured sparsity."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .. import sbl
from .._core import (
    checked_finite,
    compiled,
    first_of,
    number_array,
    refuse_where,
    RESULTS,
    thrown,
    whole_number,
)
from ._arguments import positive
from ._spike import spike_schedule, SpikeSlabPrecision
from ._support import LARGEST, MarkovSupport

FIRST_NOISE = 0.1  # part of the mean square of the measurements
SETTLED = 1e-3  # nats that the bound may still move by in the last step


class TurboPosterior(eqx.Module):
    """Approximate posterior of the weights of a linear model; see `turbo_vbi`.

    Attributes:
        weights: the weights given the mean precisions, with predictions, draws and covariances.
        inclusion_prob: probability that each weight is not zero, shape `(m,)`.
        precision: mean precision of each weight's prior, shape `(m,)`.
        bound_trace: evidence lower bound at each step, shape `(num_steps,)`; it rises while the
            spike's rate does not change.
        result: `successful`, `max_steps_reached` if the bound still moved, or `breakdown`.
    """

    weights: sbl.WeightPosterior
    inclusion_prob: Float[Array, "... m"]
    precision: Float[Array, "... m"]
    bound_trace: Float[Array, "... steps"]
    result: RESULTS

    @property
    def active(self) -> Bool[Array, "... m"]:
        """Weights that are likelier not to be zero, shape `(m,)`."""
        return self.inclusion_prob > 0.5

    @property
    def mean(self) -> Float[Array, "... m"]:
        """Posterior means of the weights, shape `(m,)`."""
        return self.weights.mean

    @property
    def variance(self) -> Float[Array, "... m"]:
        """Posterior variances of the weights, shape `(m,)`."""
        return self.weights.variance

    @property
    def noise_var(self) -> Float[Array, ...]:
        """Variance of the noise, scalar."""
        return self.weights.noise_var

    def predict(self, design: Any) -> Any:
        """Predictive distributions of new measurements, see `sbl.WeightPosterior.predict`."""
        return self.weights.predict(design)

    def log_evidence(self) -> Float[Array, ...]:
        """The evidence lower bound at the end, scalar."""
        return self.bound_trace[..., -1]


def turbo_vbi(
    design: Any,
    y: Any,
    *,
    support: MarkovSupport,
    noise_var: Any = None,
    precision: SpikeSlabPrecision | None = None,
    num_steps: int = 160,
    throw: bool = False,
) -> TurboPosterior:
    r"""Turbo-VBI: variational inference of weights whose non-zeros come in runs.

    $y = \Phi w + \epsilon$ with the three-layer prior of `SpikeSlabPrecision` and indicators along
    the columns of $\Phi$ in a Markov chain. Two modules take turns: the normal weights given mean
    precisions, and the chain's messages given what the weights say of each indicator. Precisions
    are integrated out of what is said, and stay tied to their indicators; so while the spike's
    rate stands still no step lowers the bound, also with the chain. The rate falls on a schedule,
    from independent indicators to the chain: with a narrow spike, or the chain, from the first
    step on all weights would stay in use.

    Columns and measurements are scaled to a mean square of 1 internally, so that scales do not
    matter.

    Args:
        design: $\Phi$, shape `(n, m)`, real.
        y: measurements, shape `(n,)`, centred, as there is no intercept.
        support: prior of the indicators.
        noise_var: $\sigma^2 > 0$, scalar, in squared units of `y`; learned if None.
        precision: gamma priors of the precisions, in units where columns and measurements have a
            mean square of 1; by default shapes and the slab's rate are 1.
        num_steps: of both modules; a quarter of them with independent indicators, half with the
            chain and a falling rate, the rest at 1e-6.
        throw: whether it is an error, or a `result`, that the bound still moves at the end.

    Raises:
        ValueError: shapes that disagree, empty or NaN data, complex data, measurements that are
            all 0, options out of range.
        RuntimeError: under `jit`, values that are not finite or out of range.

    References:
        Xia, Tsang and Lau (2023), "Structured Bayesian compression for deep neural networks based
        on the turbo-VBI approach", IEEE Transactions on Signal Processing 71, algorithm 1; Liu,
        Liu and Lau (2020), "Robust recovery of structured sparse signals with uncertain sensing
        matrix: a turbo-VBI approach", IEEE Transactions on Wireless Communications 19.
    """
    if not isinstance(support, MarkovSupport):
        raise ValueError(f"turbo_vbi: support must be a MarkovSupport, got {support!r:.80}")
    if not isinstance(precision, SpikeSlabPrecision | None):
        raise ValueError(
            f"turbo_vbi: precision must be a SpikeSlabPrecision, got {precision!r:.80}"
        )
    design, y = _checked("design", design, 2), _checked("y", y, 1)
    if design.shape[0] != y.shape[0]:
        hint = "; was design transposed?" if design.shape[1] == y.shape[0] else ""
        raise ValueError(
            f"turbo_vbi: design must be (n, m) and y (n,), got {design.shape} and {y.shape}{hint}"
        )
    if design.dtype != y.dtype:
        raise ValueError(f"turbo_vbi: design is {design.dtype} and y {y.dtype}; convert one")
    y = refuse_where(y, lambda v: (v == 0).all(), "turbo_vbi: y is 0 everywhere")
    if noise_var is not None:
        noise_var = positive("turbo_vbi", "noise_var", noise_var, y.dtype)
    steps = whole_number("turbo_vbi: num_steps", num_steps, 4)
    precision = SpikeSlabPrecision() if precision is None else precision
    posterior = _learn(design, y, noise_var, support, precision, steps)
    return thrown("turbo_vbi", posterior.result, posterior) if throw else posterior


@compiled
def _learn(
    design: jax.Array,
    y: jax.Array,
    noise_var: Any,
    support: MarkovSupport,
    prior: SpikeSlabPrecision,
    num_steps: int,
) -> TurboPosterior:
    size, length = _root_mean_square(y), _root_mean_square(design, axis=0)
    length = jnp.where(length > 0, length, 1)
    x, target = design / length, y / size
    independent = MarkovSupport.independent(support.density)
    learn = noise_var is None
    noise = jnp.asarray(FIRST_NOISE, y.dtype) if learn else noise_var / size / size

    def condition(rho: jax.Array, noise: jax.Array) -> sbl.WeightPosterior:
        return sbl.condition(x, target, noise_var=noise, prior_var=1 / rho)

    def step(state: tuple[jax.Array, jax.Array, jax.Array], i: jax.Array) -> Any:
        rho, noise, _ = state
        rate, chained = spike_schedule(i.astype(y.dtype), num_steps)
        weights = condition(rho, noise)
        square = weights.mean**2 + weights.variance
        zero, one = prior.evidence(square, rate)
        said = jnp.clip(one - zero, -LARGEST, LARGEST)
        told, total = jax.tree.map(
            lambda a, b: jnp.where(chained, a, b),
            support.messages(said),
            independent.messages(said),
        )
        prob = jax.nn.sigmoid(told + said)
        error = jnp.sum(weights.residual**2) + noise * weights.effective_dof
        bound = _expected_log_likelihood(error, noise, len(y)) + _entropy(weights, rho)
        bound += jnp.sum(zero) + total
        new_noise = jnp.maximum(error / len(y), 1e-8) if learn else noise
        rho = prior.mean_precision(square, rate, prob)
        return (rho, new_noise, prob), bound

    # As if each weight were as likely in use as not, with the width of the measurements.
    start = jnp.ones(design.shape[1], y.dtype), noise, jnp.zeros(design.shape[1], y.dtype)
    (rho, noise, prob), bounds = jax.lax.scan(step, start, jnp.arange(num_steps))
    own = rho * (length / size) ** 2
    noise = noise * size**2 if learn else noise_var
    weights = sbl.condition(design, y, noise_var=noise, prior_var=1 / own)
    change = jnp.abs(bounds[-1] - bounds[-2])
    slack = SETTLED + 100 * jnp.finfo(y.dtype).eps * jnp.abs(bounds[-1])
    result = first_of(
        (~jnp.isfinite(bounds[-1]), RESULTS.breakdown),
        (change <= slack, RESULTS.successful),
        otherwise=RESULTS.max_steps_reached,
    )
    return TurboPosterior(weights, prob, own, bounds - len(y) * jnp.log(size), result)


def _expected_log_likelihood(error: jax.Array, noise: jax.Array, n: int) -> jax.Array:
    return -0.5 * (n * jnp.log(2 * jnp.pi * noise) + error / noise)


def _entropy(weights: sbl.WeightPosterior, rho: jax.Array) -> jax.Array:
    """Of the normal weights, whose covariance has the determinant that the evidence tells."""
    n, m = len(weights.y), len(rho)
    logdet = n * jnp.log(weights.noise_var) - weights.logdet - jnp.sum(jnp.log(rho))
    return 0.5 * (logdet + m * (1 + jnp.log(2 * jnp.pi)))


def _root_mean_square(x: jax.Array, axis: int | None = None) -> jax.Array:
    largest = jnp.max(jnp.abs(x), axis=axis)
    safe = jnp.where(largest > 0, largest, 1)
    return safe * jnp.sqrt(jnp.mean((x / safe) ** 2, axis=axis))


def _checked(name: str, value: Any, ndim: int) -> jax.Array:
    array = number_array(f"turbo_vbi: {name}", value)
    if jnp.ndim(array) != ndim or jnp.issubdtype(array.dtype, np.complexfloating):
        shape = "(n, m)" if ndim == 2 else "(n,)"
        raise ValueError(
            f"turbo_vbi: {name} must hold real numbers of shape {shape}, got {array.dtype} of "
            f"shape {jnp.shape(array)}"
        )
    if 0 in jnp.shape(array):
        raise ValueError(f"turbo_vbi: {name} is empty: its shape is {jnp.shape(array)}")
    exact = jnp.issubdtype(array.dtype, jnp.floating)
    array = jnp.asarray(array) if exact else jnp.asarray(array, float)
    return checked_finite(f"turbo_vbi: {name}", array)
