"""Seconds to a given bound: bayesjx, NumPyro and BlackJAX with the same guides and optimiser."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, TYPE_CHECKING

from benchmarks._declare import Benchmark, Figure, Target
from benchmarks._report import Report

if TYPE_CHECKING:
    from benchmarks.vi._peer_candidates import Candidate
    from benchmarks.vi._peer_problems import Posterior

MEANING = "best of ours ÷ best of the others"
TARGETS = (
    Target("A_meanfield", "<=", 1.05, quick=1.25, unit="×", meaning=MEANING),
    Target("A_fullrank", "<=", 1.05, quick=None, unit="×", meaning=MEANING),
    Target("schools_meanfield", "<=", 1.05, quick=None, unit="×", meaning=MEANING),
    Target("schools_fullrank", "<=", 1.05, quick=None, unit="×", meaning=MEANING),
    Target("logistic_meanfield", "<=", 1.05, quick=None, unit="×", meaning=MEANING),
    Target("logistic_fullrank", "<=", 1.05, quick=None, unit="×", meaning=MEANING),
    Target("B", "<=", 1.05, quick=None, unit="×", meaning=MEANING),
)
RATES, QUICK_RATES = (0.003, 0.01, 0.03, 0.1), (0.03, 0.1)
SEEDS, NETWORK_SEEDS = 25, 5  # steps to a bound differ by half between the seeds of one method
WITHIN = 0.5  # nats below the best bound that any candidate of the family reached
STEPS, QUICK_STEPS, EVERY = 3000, 300, 10
BURST = 50  # steps that are timed together
# Task B has a rate more suited to networks, is judged per image, and looks once per pass.
NETWORK_RATES, NETWORK_WITHIN, PASSES = (0.001, 0.003, 0.01), 0.25, 100


class Race(NamedTuple):
    """Bound before and after each leg: `rates seeds legs + 1`; and the steps of a leg."""

    bounds: Any
    every: int

    def steps_to(self, target: float) -> Any:
        """Median over seeds of the steps until the target is first reached, by rate."""
        import numpy as np

        reached = self.bounds >= target
        first = np.where(reached.any(axis=-1), reached.argmax(axis=-1), np.inf)
        return np.median(first, axis=1) * self.every


def run(quick: bool, report: Report) -> Mapping[str, Any]:
    """One table per posterior and family."""
    from benchmarks.vi import _peer_candidates as candidates, _peer_problems as problems

    rates = QUICK_RATES if quick else RATES
    report.note(
        "Seconds to a bound = steps until it is first reached (median of "
        f"{SEEDS} seeds, in B {NETWORK_SEEDS}, best of the rates {', '.join(map(str, rates))}) × "
        "seconds per step, measured in turn, plus Pathfinder where it is the start; compilation "
        "apart. All run Adam "
        f"from location 0, scale {candidates.SCALE:g}, {candidates.DRAWS} draws a step, in a "
        "compiled loop. The bound is taken with common draws outside of the time; it is "
        f"{WITHIN:g} nats below the best that anyone reached. A: hierarchical logistic regression "
        "(27 latents); schools: eight schools, non-centred (10); logistic: tumours on 30 "
        f"covariates (31); B: autoencoder of digits, {problems.BATCH} images a step, "
        f"{NETWORK_WITHIN:g} nats an image."
    )
    figures: dict[str, Any] = {}
    for name, make in problems.posteriors().items():
        if quick and name != "A":
            continue
        posterior = make()
        for family in ("meanfield",) if quick else ("meanfield", "fullrank"):
            figures[f"{name}_{family}"] = _gaussians(name, posterior, family, quick, report)
    if not quick:
        figures["B"] = _networks(report)
    return figures


def _gaussians(name: str, posterior: Posterior, family: str, quick: bool, report: Report) -> Figure:
    from benchmarks.vi import _peer_candidates as candidates

    found = candidates.gaussians(posterior, family)
    once: dict[str, tuple[float, Any]] = {}
    if family == "fullrank":
        once = _one_shot(posterior)
        found["bayesjx after pathfinder"] = candidates.started_by_pathfinder(posterior)
    steps, rates = (QUICK_STEPS, QUICK_RATES) if quick else (STEPS, RATES)
    bound = _gaussian_bound(posterior)
    races = {n: _race(c, bound, rates, steps, EVERY, None) for n, c in found.items()}
    title = f"{name}, {family}"
    return _judge(title, found, races, once, rates, WITHIN, None, quick, report)


def _networks(report: Report) -> Figure:
    import jax

    from benchmarks.vi import _hand, _peer_candidates as candidates, _peer_problems as problems

    images = problems.digits()
    all_images = images.reshape(-1, images.shape[-1])

    def bound(params: Any) -> Any:
        return -_hand.vae_loss(params, jax.random.key(11), all_images) / len(all_images)

    found, passes = candidates.autoencoders(), len(images)
    races = {
        n: _race(c, bound, NETWORK_RATES, PASSES * passes, passes, images) for n, c in found.items()
    }
    return _judge("B", found, races, {}, NETWORK_RATES, NETWORK_WITHIN, images, False, report)


def _race(
    candidate: Candidate, bound: Any, rates: Any, steps: int, every: int, batches: Any
) -> Race:
    import jax
    import jax.numpy as jnp
    import numpy as np

    def one(rate: Any, key: Any) -> Any:
        def leg(state: Any, steps: Any) -> Any:
            state = _advance(candidate, rate, state, key, steps, batches)
            return state, bound(candidate.result(state))

        numbers = jnp.arange(steps).reshape(-1, every)
        start = candidate.start(key, rate)
        after = jax.lax.scan(leg, start, numbers)[1]
        return jnp.concatenate([bound(candidate.result(start))[None], after])

    keys = jax.random.split(jax.random.key(1), SEEDS if batches is None else NETWORK_SEEDS)
    each_seed = jax.vmap(one, in_axes=(None, 0))
    # Only steps are counted here, so it is compiled in a hurry.
    options = {"xla_backend_optimization_level": 1}
    each_rate = jax.jit(jax.vmap(each_seed, in_axes=(0, None)), compiler_options=options)
    bounds = each_rate(jnp.array(rates), keys)
    return Race(np.nan_to_num(np.asarray(bounds, float), nan=-np.inf), every)


def _advance(
    candidate: Candidate, rate: Any, state: Any, key: Any, steps: Any, batches: Any
) -> Any:
    """The state after the numbered steps."""
    import jax

    def step(state: Any, i: Any) -> Any:
        batch = None if batches is None else batches[i % len(batches)]
        return candidate.step(jax.random.fold_in(key, i), rate, state, batch), None

    return jax.lax.scan(step, state, steps)[0]


def _judge(
    title: str,
    found: Mapping[str, Candidate],
    races: Mapping[str, Race],
    once: Mapping[str, tuple[float, Any]],
    rates: Any,
    within: float,
    batches: Any,
    quick: bool,
    report: Report,
) -> Figure:
    """Table of one family, and the ratio of the best times."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from benchmarks import compare, median, paired_ratio

    best = max([race.bounds.max() for race in races.values()] + [b for b, _ in once.values()])
    target = float(best) - within
    timed = {name: call for name, (_, call) in once.items()}
    for name, candidate in found.items():

        def burst(key: Any, rate: Any, state: Any, candidate: Candidate = candidate) -> Any:
            return _advance(candidate, rate, state, key, jnp.arange(BURST), batches)

        key, rate = jax.random.key(2), jnp.float32(rates[1])
        timed[name] = (jax.jit(burst), (key, rate, jax.jit(candidate.start)(key, rate)))
        if candidate.before:
            timed[f"{name}, before"] = candidate.before
    times = compare(timed, rounds=20 if quick else 60, seconds=3.0 if quick else 20.0)

    rows, totals = [], {}  # seconds to the bound, by round
    for name, race in races.items():
        steps = race.steps_to(target)
        chosen = int(steps.argmin())
        each = times.samples[name] / BURST
        before = times.samples[f"{name}, before"] if found[name].before else 0.0
        if np.isfinite(steps[chosen]):
            totals[name] = each * steps[chosen] + before
        top, spent = float(race.bounds.max()), 1e3 * median(totals.get(name, math.nan)).value
        rows.append([name, top, steps[chosen], rates[chosen], 1e6 * median(each).value, spent])
    for name, (top, _) in once.items():
        if top >= target:
            totals[name] = times.samples[name]
        rows.append([name, top, "", "", "", 1e3 * median(totals.get(name, math.nan)).value])
    header = ["", "best bound", "steps", "rate", "µs per step", "ms to the bound"]
    report.table(f"{title}: to a bound of {target:.2f}", header, rows)
    fastest = sorted(totals, key=lambda name: median(totals[name]).value)
    ours = next((name for name in fastest if name in found and found[name].ours), None)
    peer = next((name for name in fastest if name not in found or not found[name].ours), None)
    if ours is None or peer is None:
        return Figure(math.inf if peer else 0.0, note=f"only {ours or peer} reaches the bound")
    return paired_ratio(totals[ours], totals[peer], f"{ours} ÷ {peer}")


def _gaussian_bound(posterior: Posterior, draws: int = 200) -> Any:
    """The bound of a Gaussian by common draws, entropy in closed form."""
    import jax
    import jax.numpy as jnp

    noise = jax.random.normal(jax.random.key(17), (draws, posterior.size))
    noise = jnp.concatenate([noise, -noise])

    def bound(gaussian: tuple[Any, Any]) -> Any:
        loc, tril = gaussian
        log_p = jax.vmap(posterior.log_density)(loc + noise @ tril.T)
        entropy = jnp.sum(jnp.log(jnp.abs(jnp.diag(tril))))
        return jnp.mean(log_p) + entropy + posterior.size * 0.5 * (1 + math.log(2 * math.pi))

    return bound


def _one_shot(posterior: Posterior) -> dict[str, tuple[float, Any]]:
    """Pathfinder by BlackJAX: its bound, and the call to time."""
    import jax
    import jax.numpy as jnp
    from blackjax.vi import pathfinder

    start = jnp.zeros(posterior.size)

    def find(key: Any) -> Any:
        return pathfinder.approximate(key, posterior.log_density, start, 200, maxls=100)[0]

    def bound(key: Any) -> Any:
        drawn: Any = pathfinder.sample(key, find(jax.random.key(4)), 2000)
        return jnp.mean(jax.vmap(posterior.log_density)(drawn[0]) - drawn[1])

    value = float(jax.jit(bound)(jax.random.key(5)))
    call = (jax.jit(find), (jax.random.key(4),))
    return {"pathfinder, BlackJAX": (value if math.isfinite(value) else -math.inf, call)}


BENCHMARK = Benchmark(
    name="vi-peers",
    claim="a given bound is reached as fast as with the fastest other library",
    source="NumPyro SVI (Trace_ELBO); BlackJAX meanfield_vi, fullrank_vi, pathfinder",
    targets=TARGETS,
    run=run,
)
