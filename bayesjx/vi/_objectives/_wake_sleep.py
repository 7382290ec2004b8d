"""Wake-sleep objectives: the guide is trained on draws that count as data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import random
from numpyro import handlers

from ..._core import whole_number
from .._estimator import (
    check_programs,
    Cost,
    current,
    drawable,
    expectation,
    log_mean,
    map_sites,
    Objective,
    particles,
    shares,
    weighted_sum,
)
from .._programs import (
    detached,
    draw,
    log_density,
    simulate,
    Trace,
)
from ._multi_bounds import (
    iwelbo,
    log_weight,
)

Program = Callable[..., Any]


def wake_model(model: Program, guide: Program, num_particles: int = 10) -> Objective:
    r"""Wake phase for the model: $\sum_k \bar w_k \nabla_\theta \log p$, the gradient of `iwelbo`.

    Climb it in the model's parameters only (the guide's are trained by `wake_guide`).

    References:
        Bornschein and Bengio (2015), "Reweighted wake-sleep".
    """
    return iwelbo(model, guide, num_particles)


def wake_guide(model: Program, guide: Program, num_particles: int = 10) -> Objective:
    r"""Wake phase for the guide: $E[\sum_k \bar w_k \log q(z_k)]$, to be climbed.

    Minus a cross-entropy from the posterior to the guide, by self-normalised weights, so it
    covers mass; its bias is of order one over `num_particles`. Discrete sites need no gradient
    strategy. Not a bound of the evidence. Draws of weight zero count nothing; if all are, the
    estimate is 0.

    Args:
        model: NumPyro program of the joint density.
        guide: NumPyro program of the proposal; takes the same arguments.
        num_particles: draws of the guide.

    References:
        Bornschein and Bengio (2015), "Reweighted wake-sleep", equation 10; Le, Kosiorek,
        Siddharth, Teh and Wood (2019), "Revisiting reweighted wake-sleep".
    """
    check_programs(model=model, guide=guide)
    whole_number("num_particles", num_particles)

    def objective(*args: Any, **kwargs: Any) -> jax.Array:
        drawn = _propose(model, guide, num_particles, args, kwargs)
        weights = shares(drawn.log_p - drawn.log_q)
        log_q = map_sites(
            lambda values: log_density(guide, values, *args, **kwargs).total, drawn.trace.values
        )
        return weighted_sum(weights, log_q)

    return expectation(objective)


def sleep(model: Program, guide: Program, data: Mapping[str, int | str]) -> Objective:
    r"""Sleep phase: $E_{p(z, x)}[\log q(z \mid x)]$, to be climbed in the guide's parameters.

    Draws latents and data from the model and scores the guide on them: amortised inference by
    maximum likelihood. Not a bound of the evidence.

    Args:
        model: NumPyro program of latents and data; sites named in `data` are drawn, whether or
            not they are observed.
        guide: NumPyro program; takes the same arguments, with simulated data in place of data.
        data: per observed site, the argument of the guide that it replaces: its position or name.

    References:
        Hinton, Dayan, Frey and Neal (1995), "The wake-sleep algorithm for unsupervised neural
        networks".

    Raises:
        TypeError: `data` is no mapping, or a place is neither a position nor a name.
        ValueError: the model has no such site, or the guide no such position.
    """
    check_programs(model=model, guide=guide)
    if not isinstance(data, Mapping):
        raise TypeError(
            "data must be a mapping from observed sites to arguments of the guide, such as "
            f'{{"y": 0}}, got {type(data).__name__}'
        )
    for place in data.values():
        if not isinstance(place, int | str) or isinstance(place, bool):
            raise TypeError(f"data names an argument by position or name, got {place!r}")

    def objective(*args: Any, **kwargs: Any) -> Cost:
        trace = draw(handlers.uncondition(model), *args, **kwargs)
        positional, named = list(args), dict(kwargs)
        for site, place in data.items():
            if site not in trace:
                raise ValueError(
                    f"sleep: data names {site!r}, but the model has no site {site!r}; it has "
                    f"{sorted(trace)}"
                )
            if isinstance(place, int):
                if not -len(args) <= place < len(args):
                    raise ValueError(
                        f"sleep: data puts {site!r} in position {place}, but there "
                        f"{'is' if len(args) == 1 else 'are'} {len(args)} positional "
                        f"argument{'s' * (len(args) != 1)}; name it, or pass an argument there"
                    )
                positional[place] = trace[site]
            else:
                named[place] = trace[site]
        latents = {k: v for k, v in trace.values.items() if k not in data}
        return log_density(guide, latents, *positional, **named)

    return expectation(objective)


def forward_kl(model: Program, guide: Program, num_particles: int = 10) -> Objective:
    r"""QWAKE: an estimate of $KL(p(z \mid x) \,\|\, q)$ up to resampling, to be descended.

    One draw is resampled from `num_particles` proposals of the guide; its resampling density,
    estimated from above, stands in for the posterior, and the guide is evaluated on it. An upper
    bound of the divergence from the resampled draws to the guide; inf, without a gradient, where
    all proposals have weight zero.

    Args:
        model: NumPyro program of the joint density.
        guide: NumPyro program; takes the same arguments. Its sites need no gradient strategy.
        num_particles: proposals, positive; more bring the resampled draws closer to the posterior.

    References:
        Becker et al. (2024), section 2 (QWAKE).
    """
    check_programs(model=model, guide=guide)
    whole_number("num_particles", num_particles)

    def objective(*args: Any, **kwargs: Any) -> jax.Array:
        drawn = _resample(model, guide, num_particles, args, kwargs)
        log_q = log_density(guide, drawn.trace.values, *args, **kwargs).total
        return jnp.where(drawn.possible, drawn.log_p - drawn.log_evidence - log_q, jnp.inf)

    return expectation(objective, maximise=False)


def wake_posterior(model: Program, guide: Program, num_particles: int = 10) -> Objective:
    r"""PWAKE: $\log p(x, z) - \log \check q(z)$ at a draw resampled from the guide's proposals.

    A lower bound of the evidence that trains the model on draws close to its posterior; climb it
    in the model's parameters. Sites need no gradient strategy.

    Args:
        model: NumPyro program of the joint density.
        guide: NumPyro program; takes the same arguments.
        num_particles: proposals, positive.

    References:
        Becker et al. (2024), section 2 (PWAKE).
    """
    check_programs(model=model, guide=guide)
    whole_number("num_particles", num_particles)

    def objective(*args: Any, **kwargs: Any) -> jax.Array:
        drawn = _resample(model, guide, num_particles, args, kwargs)
        log_p = log_density(model, drawn.trace, *args, **kwargs).total
        bound = log_p - drawn.log_p + drawn.log_evidence
        return jnp.where(drawn.possible, bound, -jnp.inf)

    return expectation(objective)


def symmetric_kl(model: Program, guide: Program, num_particles: int = 10) -> Objective:
    r"""The sum of both divergences between guide and posterior, to be descended.

    The log evidence cancels up to the gap of the resampling. Combines the mode seeking of `elbo`
    with the mass covering of `forward_kl`; the guide's sites need strategies as in `elbo`.

    Args:
        model: NumPyro program of the joint density.
        guide: NumPyro program; takes the same arguments.
        num_particles: proposals of the forward half.
    """
    check_programs(model=model, guide=guide)
    whole_number("num_particles", num_particles)

    def objective(*args: Any, **kwargs: Any) -> Cost:
        backward = log_weight(model, guide, args, kwargs)
        drawn = _resample(model, guide, num_particles, args, kwargs)
        log_q = log_density(guide, drawn.trace.values, *args, **kwargs).total
        return -backward + jnp.where(drawn.possible, drawn.log_p - log_q, jnp.inf)

    return expectation(objective, maximise=False)


class _Drawn(NamedTuple):
    """Draws of a guide as data, or one that was resampled among them.

    Attributes:
        trace: the values.
        log_p: log density of the model.
        log_q: log density of the guide, that of the run that drew the values.
        log_evidence: log of the mean weight.
        possible: whether any draw has a positive weight.
    """

    trace: Trace
    log_p: jax.Array
    log_q: jax.Array
    log_evidence: jax.Array
    possible: jax.Array


def _propose(model: Program, guide: Program, count: int, args: Any, kwargs: Any) -> _Drawn:
    def one() -> tuple[Trace, jax.Array, jax.Array]:
        trace, log_q = simulate(guide, *args, **kwargs)
        return trace, log_density(model, trace, *args, **kwargs).total, log_q.total

    trace, log_p, log_q = detached("wake_guide", lambda: particles(count)(one)())
    log_evidence = log_mean(log_p - log_q)
    return _Drawn(trace, log_p, log_q, log_evidence, log_evidence > -jnp.inf)


def _resample(model: Program, guide: Program, count: int, args: Any, kwargs: Any) -> _Drawn:
    drawn = _propose(model, guide, count, args, kwargs)
    _, key = current("forward_kl").enter_call()
    index = random.categorical(key, drawable(drawn.log_p - drawn.log_q))
    trace, log_p, log_q = jax.tree.map(lambda x: x[index], drawn[:3])
    return drawn._replace(trace=trace, log_p=log_p, log_q=log_q)
