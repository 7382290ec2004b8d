"""Fits of one posterior by several families, each for the wall time that a peer took."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import flowjax.bijections
import flowjax.distributions
import flowjax.flows
import jax
import jax.numpy as jnp
import optax
import paramax
from numpyro.infer import Trace_ELBO
from numpyro.infer.autoguide import AutoMultivariateNormal

from bayesjx import vi
from bayesjx.diagnostics import psis
from benchmarks.vi.posteriordb import Posterior

CHUNK = 500
RATE, LAST_RATE = 1e-2, 1e-4
FLOW_DRAWS = 8  # a step: networks cost little more for several draws than for one
FAST_COMPILE: Any = {"xla_backend_optimization_level": 1}  # for what runs once
Loss = Callable[[jax.Array, Any], Any]


class Fit(NamedTuple):
    """A fitted guide and how good it is.

    Attributes:
        family: its name.
        bound: evidence lower bound.
        k_hat: Pareto shape of its importance weights.
        mean_error: largest error of a posterior mean, in reference standard deviations.
        sd_error: largest relative error of a standard deviation.
        steps: of the optimiser.
        seconds: of the start and the steps, without compilation.
    """

    family: str
    bound: float
    k_hat: float
    mean_error: float
    sd_error: float
    steps: int
    seconds: float

    @property
    def score(self) -> float:
        """At most 1 if means are within 0.2 and standard deviations within 30 %."""
        return max(self.mean_error / 0.2, self.sd_error / 0.3)


class Runner:
    """A compiled chunk of optimisation, with the parameters that it starts from."""

    def __init__(self, loss: Loss, params: Any):
        self.params = params

        def chunk(carry: Any, total: jax.Array) -> Any:
            def step(carry: Any, _: None) -> tuple[Any, None]:
                params, state, key, count = carry
                key, now = jax.random.split(key)
                gradient = jax.grad(lambda p: loss(now, p))(params)
                update, state = optax.scale_by_adam().update(gradient, state)
                rate = RATE * (LAST_RATE / RATE) ** (count / total)
                params = jax.tree.map(lambda p, u: p - rate.astype(p.dtype) * u, params, update)
                return (params, state, key, count + 1), None

            return jax.lax.scan(step, carry, length=CHUNK)[0]

        start, total = self._start(), jnp.asarray(1.0)
        self.chunk = jax.jit(chunk).lower(start, total).compile()
        # The best of three, for everybody: a busy moment shall cost no one steps.
        self.chunk_seconds = min(self._time(start) for _ in range(3))

    def _start(self) -> Any:
        state = optax.scale_by_adam().init(self.params)
        return self.params, state, jax.random.key(2), jnp.zeros(())

    def _time(self, start: Any) -> float:
        begin = time.perf_counter()
        jax.block_until_ready(self.chunk(start, jnp.asarray(1e9)))
        return time.perf_counter() - begin

    def run(self, budget: float) -> tuple[Any, int, float]:
        """The parameters after as many steps as fit, how many, and the seconds that they took."""
        num_chunks = max(1, int(budget / self.chunk_seconds))
        begin = time.perf_counter()
        carry, total = self._start(), jnp.asarray(float(num_chunks * CHUNK))
        for _ in range(num_chunks):
            carry = self.chunk(carry, total)
        jax.block_until_ready(carry)
        return carry[0], num_chunks * CHUNK, time.perf_counter() - begin


def fit_all(
    posterior: Posterior, families: tuple[str, ...], budget: float, num_draws: int
) -> tuple[Fit, list[Fit]]:
    """NumPyro's full-rank guide, and ours, each after `budget` seconds.

    Args:
        posterior: what to fit.
        families: of ours.
        budget: wall time of a fit without compilation; that of Pathfinder is part of it.
        num_draws: for bounds, moments and k-hats.
    """
    peer = AutoMultivariateNormal(posterior.model)
    problem = vi.functional(jax.random.key(0), posterior.model, peer)

    def peer_loss(key: jax.Array, params: Any) -> Any:
        constrained = problem.constrain(params)
        return Trace_ELBO().loss(key, constrained, posterior.model, peer)

    runner = Runner(peer_loss, problem.params)
    params, steps, seconds = runner.run(budget)
    theirs = _judge(posterior, "NumPyro", peer, problem, params, steps, seconds, num_draws)
    start = _Start(posterior)
    return theirs, [_fit(posterior, name, start, budget, num_draws) for name in families]


def by_default(posterior: Posterior, num_draws: int) -> Fit:
    """The one call without options; its bound is the evidence that its weights estimate."""
    vi.fit_posterior(jax.random.key(0), posterior.model)  # compiles
    begin = time.perf_counter()
    fit = vi.fit_posterior(jax.random.key(5), posterior.model)
    seconds = time.perf_counter() - begin
    found = jax.vmap(posterior.quantities)(fit.sample(jax.random.key(6), num_draws))
    names = sorted(posterior.means)
    means = [abs(float(found[n].mean()) - posterior.means[n]) / posterior.sds[n] for n in names]
    sds = [abs(float(found[n].std()) / posterior.sds[n] - 1) for n in names]
    evidence = fit.log_evidence
    return Fit("fit_posterior", evidence, fit.k_hat, max(means), max(sds), 0, seconds)


class _Start:
    """Pathfinder's Gaussian, timed, and found once for all guides of one kind."""

    def __init__(self, posterior: Posterior):
        self.posterior = posterior
        self.seconds = 0.0
        self.found: dict[str, tuple[dict[str, jax.Array], float]] = {}

    def of(self, guide: vi.GaussianGuide) -> dict[str, jax.Array]:
        vi.functional(jax.random.key(0), self.posterior.model, guide)  # sets the guide up
        if guide.scale not in self.found:
            self.found[guide.scale] = self._find(guide)
        params, self.seconds = self.found[guide.scale]
        return params

    def _find(self, guide: vi.GaussianGuide) -> tuple[dict[str, jax.Array], float]:
        find = jax.jit(lambda key: vi.init_from_pathfinder(key, guide, max_steps=60))
        run = find.lower(jax.random.key(3)).compile(FAST_COMPILE)
        begin = time.perf_counter()
        params = jax.block_until_ready(run(jax.random.key(3)))
        return params, time.perf_counter() - begin


def _fit(posterior: Posterior, family: str, start: _Start, budget: float, num_draws: int) -> Fit:
    guide, given, entropy = _FAMILIES[family](posterior, start)
    problem = vi.functional(jax.random.key(1), posterior.model, guide, init_params=given)
    bound = vi.elbo(problem.model, problem.guide, entropy=entropy)
    draws = FLOW_DRAWS if family == "flow" else 1

    def loss(key: jax.Array, params: Any) -> jax.Array:
        keys = jax.random.split(key, draws)
        return -jnp.mean(jax.vmap(lambda k: bound.surrogate(k, params))(keys))

    runner = Runner(loss, problem.params)
    params, steps, seconds = runner.run(budget - start.seconds)
    seconds += start.seconds
    return _judge(posterior, family, guide, problem, params, steps, seconds, num_draws)


def _gaussian(scale: str, entropy: str, **options: Any) -> Callable[..., Any]:
    def make(posterior: Posterior, start: _Start) -> tuple[Any, Any, str]:
        guide = vi.GaussianGuide(posterior.model, scale=scale, **options)
        return guide, start.of(guide), entropy

    return make


def _flow(posterior: Posterior, start: _Start) -> tuple[Any, Any, str]:
    """An inverse autoregressive flow in coordinates where Pathfinder's Gaussian is standard."""
    gaussian = vi.GaussianGuide(posterior.model, scale="fullrank")
    transform = gaussian.get_transform(start.of(gaussian))
    loc, tril = jnp.asarray(transform.loc), jnp.asarray(transform.scale_tril)

    def make(key: jax.Array, dim: int) -> Any:
        flow = flowjax.flows.masked_autoregressive_flow(
            key,
            base_dist=flowjax.distributions.Normal(jnp.zeros(dim)),
            invert=True,
            flow_layers=3,
            nn_width=16,
            nn_depth=1,
        )
        affine = paramax.non_trainable(flowjax.bijections.TriangularAffine(loc, tril))
        return flowjax.distributions.Transformed(flow, affine)

    return vi.FlowGuide(posterior.model, make), None, "mc"


_FAMILIES = {
    "mean-field": _gaussian("meanfield", "analytic"),
    "structured": _gaussian("structured", "stl"),
    "full-rank": _gaussian("fullrank", "stl"),
    "flow": _flow,
}


def _judge(
    posterior: Posterior,
    family: str,
    guide: Any,
    problem: vi.FunctionalPrograms,
    params: Any,
    steps: int,
    seconds: float,
    num_draws: int,
) -> Fit:
    bound = vi.elbo(problem.model, problem.guide)

    def measure(params: Any, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        keys = jax.random.split(key, num_draws)
        log_weights = jax.lax.map(lambda k: bound.estimate(k, params), keys, batch_size=1000)
        draws = guide.sample_posterior(key, problem.constrain(params), sample_shape=(num_draws,))
        return log_weights, jax.vmap(posterior.quantities)(draws)

    measured = jax.jit(measure, compiler_options=FAST_COMPILE)
    log_weights, found = measured(params, jax.random.key(4))
    names = sorted(posterior.means)
    mean_errors = [
        abs(float(found[n].mean()) - posterior.means[n]) / posterior.sds[n] for n in names
    ]
    sd_errors = [abs(float(found[n].std()) / posterior.sds[n] - 1) for n in names]
    return Fit(
        family,
        float(jnp.mean(log_weights)),
        float(psis(log_weights).k_hat),
        max(mean_errors),
        max(sd_errors),
        steps,
        seconds,
    )
