"""Spike-and-slab linear regression: all sets of columns, or those that a Gibbs sampler visits."""

from __future__ import annotations

import math
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import random
from jaxtyping import Array, Bool, Float, Int
from numpyro import distributions as dist

from .._core import (
    check_key,
    checked_finite,
    compiled,
    first_of,
    is_successful,
    RESULTS,
    whole_number,
)
from ._arguments import one_of
from ._design import dense
from ._spike_slab_gibbs import checked_slots, SpikeSlabState, sweep
from ._spike_slab_problem import chosen, spike_slab_problem, SpikeSlabProblem

MOST_EXACT = 15  # columns up to which all sets are summed over by default
MOST_AT_ALL = 20
CHUNK = 256  # sets at a time
FLOOR = 1e-2  # differences of probabilities between chains that do not matter
AGREEMENT = 1.05  # R-hat up to which chains agree
MOST_AT_LIMIT = 0.01  # of the sampled sets may be as large as they can


class SpikeSlabPosterior(eqx.Module):
    """The posterior of spike-and-slab linear regression: a mixture over sets of columns.

    Attributes:
        mean: of the weights, shape `(m,)`.
        variance: of the weights, shape `(m,)`.
        inclusion_prob: posterior probability that a weight is not zero, shape `(m,)`.
        noise_var: posterior mean of the variance of the noise, or what it is known to be.
        slab_var: prior variance of weights that are not zero, shape `(m,)`, in units of the
            variance of the noise where that is unknown.
        log_evidence: log marginal likelihood; NaN where sets were sampled.
        states: sets of columns, booleans of shape `(s, m)`.
        log_weights: their log posterior probabilities, shape `(s,)`, all the same where sampled.
        rhat: between chains, shape `(m,)`; 1 where all sets were summed over.
        at_limit: share of the sampled sets that are as large as `max_active` allows.
        num_steps: sweeps of each chain; 0 where all sets were summed over.
        result: successful where all sets were summed over, or chains agree (R-hat at most 1.05,
            where differences of probabilities below 0.01 do not count); a breakdown where more
            than one sampled set in a hundred is as large as it may be.
    """

    mean: Float[Array, " m"]
    variance: Float[Array, " m"]
    inclusion_prob: Float[Array, " m"]
    noise_var: Float[Array, ""]
    slab_var: Float[Array, " m"]
    log_evidence: Float[Array, ""]
    states: Bool[Array, "s m"]
    log_weights: Float[Array, " s"]
    rhat: Float[Array, " m"]
    at_limit: Float[Array, ""]
    num_steps: Int[Array, ""]
    result: RESULTS
    problem: SpikeSlabProblem
    slots: int = eqx.field(static=True)

    @property
    def converged(self) -> Bool[Array, ""]:
        """Whether `result` is successful."""
        return is_successful(self.result)

    @property
    def active(self) -> Bool[Array, " m"]:
        """The median probability model: which weights are more likely not zero than zero.

        References:
            Barbieri and Berger (2004), "Optimal predictive model selection".
        """
        return self.inclusion_prob > 0.5

    def sample(
        self, key: jax.Array, sample_shape: tuple[int, ...] = ()
    ) -> Float[Array, "*sample m"]:
        """Draws of the weights, shape `(*sample_shape, m)`, exact zeros among them."""
        check_key(key)
        if not isinstance(sample_shape, tuple):
            raise ValueError(
                f"sample: sample_shape must be a tuple such as (100,), got {sample_shape!r}"
            )
        first, second = random.split(key)
        which = random.categorical(first, self.log_weights, shape=(math.prod(sample_shape),))
        draws = _draws(second, self.problem, self.states[which], self.slots)
        return draws.reshape(*sample_shape, -1)

    def predict(self, design: Any) -> dist.MixtureSameFamily:
        """Distributions of `k` new responses: mixtures over the sets of columns.

        Components are normal, or Student t where the variance of the noise is unknown. It takes
        `k` times the number of sets in memory: predict for some rows at a time.

        Args:
            design: shape `(k, m)`.

        Raises:
            ValueError: `design` does not have the columns of that of the data, or is not finite.
        """
        size = self.states.shape[1]
        design = dense(design)
        if jnp.ndim(design) != 2 or jnp.shape(design)[1] != size or jnp.iscomplexobj(design):
            raise ValueError(
                f"predict: design must be real, of shape (k, {size}), as the posterior is of that "
                f"many weights, got shape {jnp.shape(design)}"
            )
        design = checked_finite("design", jnp.asarray(design, self.mean.dtype))
        loc, scale = _predicted(self.problem, self.states, design, self.slots)
        if self.problem.noise is None:
            each = dist.Normal(loc, scale)
        else:
            each = dist.StudentT(self.problem.degrees_of_freedom, loc, scale)
        logits = jnp.broadcast_to(self.log_weights, loc.shape)
        return dist.MixtureSameFamily(dist.CategoricalLogits(logits), each)


def spike_and_slab(
    design: Any,
    y: Any,
    *,
    noise_var: Any,
    slab_var: Any,
    prior_prob: Any = 0.5,
    method: Literal["exact", "gibbs"] | None = None,
    key: jax.Array | None = None,
    num_samples: int = 1000,
    num_warmup: int = 200,
    num_chains: int = 4,
    max_active: int | None = None,
) -> SpikeSlabPosterior:
    r"""Spike-and-slab linear regression $y = \Phi w + \epsilon$, with $w_j = s_j v_j$.

    $s_j \sim \mathrm{Bernoulli}(\pi_j)$ and $v_j \sim N(0, \text{slab\_var}_j)$. Up to 15 columns
    the posterior is exact, a sum over all $2^m$ sets of them; of more, chains of
    `spike_and_slab_gibbs` draw sets, and moments given each set are exact. Known noise is a number;
    where it is not known give its conjugate prior, `noise_var=dist.InverseGamma(2.0, rate)`, and
    the slab in units of the noise: $v_j \mid \sigma \sim N(0, \sigma^2\, \text{slab\_var}_j)$.

    Args:
        design: shape `(n, m)`. Columns of one scale share a slab; standardise them.
        y: responses, shape `(n,)`, centred (or with a constant column of `prior_prob` 1).
        noise_var: variance of the noise, or `numpyro.distributions.InverseGamma(a, b)`.
        slab_var: prior variance of weights that are not zero, a scalar or `(m,)`; in units of the
            variance of the noise where that is unknown.
        prior_prob: prior probability that a weight is not zero, a scalar or `(m,)`, 1 for columns
            that are always there; or `numpyro.distributions.Beta(a, b)` for one that is unknown.
        method: `"exact"`, up to 20 columns ($10^6$ sets), or `"gibbs"`; by default what the number
            of columns asks for.
        key: for Gibbs sampling.
        num_samples: sweeps that are kept, of each chain.
        num_warmup: sweeps before them.
        num_chains: at least 2; they start from no column and from random sets in turn.
        max_active: the most weights that are not zero at a time; see `spike_and_slab_gibbs`.

    Returns:
        The posterior. Look at `converged`.

    Raises:
        ValueError: shapes that disagree, data that are empty or not finite, complex data, variances
            that are not positive, options out of range, no key where one is needed; under `jit`
            values are a `RuntimeError`.

    References:
        Mitchell and Beauchamp (1988), "Bayesian variable selection in linear regression"; George
        and McCulloch (1997), "Approaches for Bayesian variable selection", section 4 for the
        conjugate form.
    """
    problem = spike_slab_problem("spike_and_slab", design, y, noise_var, slab_var, prior_prob)
    size = problem.design.shape[1]
    way = method or ("exact" if size <= MOST_EXACT else "gibbs")
    if one_of("spike_and_slab", "method", way, ("exact", "gibbs")) == "exact":
        if size > MOST_AT_ALL:
            raise ValueError(
                f"spike_and_slab: method='exact' sums over all sets of up to {MOST_AT_ALL} "
                f"columns, and design has {size}; use method='gibbs'"
            )
        return _exact(problem)
    if key is None:
        raise ValueError(f"spike_and_slab: key is needed for Gibbs sampling, of {size} columns")
    check_key(key)
    num_samples = whole_number("spike_and_slab: num_samples", num_samples, 4)
    num_warmup = whole_number("spike_and_slab: num_warmup", num_warmup, 0)
    num_chains = whole_number("spike_and_slab: num_chains", num_chains, 2)
    slots = checked_slots("spike_and_slab", max_active, size)
    return _sampled(key, problem, slots, num_samples, num_warmup, num_chains)


@compiled
def _exact(problem: SpikeSlabProblem) -> SpikeSlabPosterior:
    size = problem.design.shape[1]
    states = (jnp.arange(2**size)[:, None] >> jnp.arange(size)) & 1 == 1

    def of(active: jax.Array) -> tuple[jax.Array, ...]:
        at = chosen(problem, active, size)
        joint = problem.log_prior(active) + problem.log_evidence(at.rss, at.logdet)
        return joint, *at.moments(problem), problem.noise_var_given(at.rss)

    joint, mean, variance, noise_var = jax.lax.map(of, states, batch_size=CHUNK)
    log_evidence = jax.nn.logsumexp(joint)
    weights = jnp.exp(joint - log_evidence)
    overall = weights @ mean
    return SpikeSlabPosterior(
        mean=overall,
        variance=weights @ (variance + (mean - overall) ** 2),
        inclusion_prob=weights @ states,
        noise_var=weights @ noise_var * problem.y_scale**2,
        slab_var=problem.slab_var,
        log_evidence=log_evidence,
        states=states,
        log_weights=joint - log_evidence,
        rhat=jnp.ones_like(overall),
        at_limit=jnp.zeros_like(log_evidence),
        num_steps=jnp.asarray(0),
        result=RESULTS.successful,
        problem=problem,
        slots=size,
    )


@compiled
def _sampled(
    key: Any,
    problem: SpikeSlabProblem,
    slots: int,
    num_samples: int,
    num_warmup: int,
    num_chains: int,
) -> SpikeSlabPosterior:
    size, dtype = problem.design.shape[1], problem.y.dtype

    def chain(key: Any, number: Any) -> Any:
        start, key = random.split(key)
        # Every other chain starts from a random set, of about half as many as may be.
        rank = jnp.argsort(random.uniform(start, (size,)))
        active = (rank < max(1, slots // 2)) & (number % 2 == 1)
        walk = lambda state, i: sweep(random.fold_in(key, i), problem, state, slots)  # noqa: E731

        def warm(i: Any, state: SpikeSlabState) -> SpikeSlabState:
            return walk(state, i)[0]

        def keep(state: SpikeSlabState, i: Any) -> Any:
            state, info = walk(state, i)
            return state, (state.active, info)

        state = jax.lax.fori_loop(0, num_warmup, warm, SpikeSlabState(active))
        return jax.lax.scan(keep, state, num_warmup + jnp.arange(num_samples))[1]

    # In turn on CPUs, where chains side by side would all take the steps of the busiest one.
    chains = (random.split(key, num_chains), jnp.arange(num_chains))
    states, info = jax.lax.platform_dependent(
        chains,
        cpu=lambda chains: jax.lax.map(lambda c: chain(*c), chains),
        default=lambda chains: jax.vmap(chain)(*chains),
    )
    mean = jnp.mean(info.mean, axis=(0, 1))
    rhat = split_rhat(info.inclusion_prob, FLOOR)
    at_limit = jnp.mean(info.at_limit.astype(dtype))
    total = num_chains * num_samples
    return SpikeSlabPosterior(
        mean=mean,
        variance=jnp.mean(info.variance + (info.mean - mean) ** 2, axis=(0, 1)),
        inclusion_prob=jnp.mean(info.inclusion_prob, axis=(0, 1)),
        noise_var=jnp.mean(info.noise_var),
        slab_var=problem.slab_var,
        log_evidence=jnp.full((), jnp.nan, dtype),
        states=states.reshape(total, size),
        log_weights=jnp.full(total, -math.log(total), dtype),
        rhat=rhat,
        at_limit=at_limit,
        num_steps=jnp.asarray(num_warmup + num_samples),
        result=first_of(
            (at_limit > MOST_AT_LIMIT, RESULTS.breakdown),
            (jnp.all(rhat <= AGREEMENT), RESULTS.successful),
            otherwise=RESULTS.max_steps_reached,
        ),
        problem=problem,
        slots=slots,
    )


def split_rhat(draws: Float[Array, "c s m"], floor: float) -> Float[Array, " m"]:
    """Split R-hat of each column of chains, with differences below `floor` not counted.

    References:
        Gelman et al. (2013), "Bayesian data analysis", section 11.4.
    """
    half = draws.shape[1] // 2
    halves = jnp.concatenate([draws[:, :half], draws[:, -half:]])
    within = jnp.mean(jnp.var(halves, axis=1, ddof=1), axis=0)
    between = jnp.var(jnp.mean(halves, axis=1), axis=0, ddof=1)
    return jnp.sqrt(((1 - 1 / half) * within + between + floor**2) / (within + floor**2))


@compiled
def _draws(key: Any, problem: SpikeSlabProblem, states: Any, slots: int) -> jax.Array:
    """A draw of the weights for each set of columns."""

    def draw(row: Any) -> jax.Array:
        key, active = row
        at = chosen(problem, active, slots)
        first, second = random.split(key)
        noise = random.normal(first, (slots,), at.mean.dtype)
        if problem.noise is not None:
            shape = problem.degrees_of_freedom / 2
            gamma = random.gamma(second, shape, dtype=at.mean.dtype)
            noise = noise * jnp.sqrt(problem.noise_rate_given(at.rss) / gamma)
        drawn = jnp.zeros(active.shape, at.mean.dtype)
        drawn = drawn.at[at.index].set(at.mean + noise @ at.inverse_tril, mode="drop")
        return drawn * problem.weight_scale

    return jax.lax.map(draw, (random.split(key, len(states)), states), batch_size=CHUNK)


@compiled
def _predicted(
    problem: SpikeSlabProblem, states: Any, design: Any, slots: int
) -> tuple[jax.Array, jax.Array]:
    """Location and scale of new responses for each set of columns, shapes `(k, s)`."""
    scaled = design * (problem.weight_scale / problem.y_scale)

    def of(active: jax.Array) -> tuple[jax.Array, jax.Array]:
        at = chosen(problem, active, slots)
        columns = scaled.at[:, at.index].get(mode="fill", fill_value=0)
        variance = 1 + jnp.sum((columns @ at.inverse_tril.T) ** 2, axis=1)
        if problem.noise is not None:
            half_df = 0.5 * problem.degrees_of_freedom
            variance = variance * problem.noise_rate_given(at.rss) / half_df
        return columns @ at.mean * problem.y_scale, jnp.sqrt(variance) * problem.y_scale

    loc, scale = jax.lax.map(of, states, batch_size=CHUNK)
    return loc.T, scale.T
