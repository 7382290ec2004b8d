"""Ways to score a guide in the ELBO: at its draw, in closed form, or along the path only."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro import handlers

from .._estimator import (
    Cost,
    current,
    elementwise_family,
    named,
    site_name,
    split,
    Term,
)
from .._programs import (
    DensityHandler,
    frozen,
    SimulateHandler,
    Trace,
)

ENTROPIES = ("mc", "analytic", "stl", "proximal")


def simulate_with_entropy(
    program: Callable[..., Any], args: Any, kwargs: Any, proximal: bool = False
) -> tuple[Trace, Cost]:
    """`simulate`, whose latent sites are scored by minus their entropies in place of `log_prob`.

    Args:
        program: guide whose distributions have closed-form entropies.
        args: positional arguments of the guide.
        kwargs: keyword arguments of the guide.
        proximal: give the entropies no gradient, and check that `prox_scale` takes its place.

    Raises:
        ValueError: a site has no closed-form entropy, or `proximal` and it is none of a
            `GaussianGuide` whose entropy is the sum of the logarithms of its scales.
    """
    context = current("elbo")
    prefix, key = context.enter_call()
    handler = SimulateHandler(context, prefix, partial(_entropy_term, proximal))
    with handlers.block(), handlers.seed(rng_seed=named(key, "__seed__")), handler:
        program(*args, **kwargs)
    return handler.result()


def path_log_density(program: Callable[..., Any], trace: Trace, args: Any, kwargs: Any) -> Cost:
    """Log density of a guide at its own draw, as a function of the draw with parameters stopped.

    Unlike `log_density`, it scores the auxiliary sites too, and sites that are functions of others
    (Delta sites of AutoGuides) are computed again.
    """
    context = current("elbo")
    prefix, key = context.enter_call()
    handler = _PathHandler(context, prefix, trace)
    with handlers.block(), handlers.seed(rng_seed=named(key, "__seed__")), handler:
        try:
            frozen(program)(*args, **kwargs)
        except NotImplementedError as error:
            raise ValueError(
                'entropy="stl" needs the density of the guide at given values, and a distribution '
                f'or flow of this guide has none ({error}); use entropy="mc"'
            ) from error
    return Cost(tuple(handler.terms))


def with_values_of(drawn: Cost, path: Cost) -> Cost:
    """`path` with the values of the same sites in `drawn`, and its own gradients.

    A guide knows the density of its own draw exactly; computed from the value, it loses all digits
    where the guide has collapsed, and a bound of any size comes out.
    """
    known = {site_name(term.label): term.value for term in drawn.terms}

    def valued(term: Term) -> Term:
        value = known.get(site_name(term.label), term.value)
        slope = term.value - jax.lax.stop_gradient(term.value)
        return dataclasses.replace(term, value=jax.lax.stop_gradient(value) + slope)

    return Cost(tuple(valued(term) for term in path.terms))


def _entropy_term(proximal: bool, msg: Any, term: Term) -> Term:
    """The term of a site with minus its entropy in closed form for its log density."""
    fn = split(msg["fn"], {})[0]
    if msg["is_observed"] or _is_delta(fn):
        return term
    if proximal and not msg["infer"].get("entropy_is_log_scale"):
        raise ValueError(
            f'entropy="proximal": site {msg["name"]!r} is no GaussianGuide with '
            'conditioner="linear" and a mean-field, full-rank or structured scale; use '
            'entropy="analytic"'
        )
    try:
        entropy = jnp.asarray(fn.entropy())
    except NotImplementedError:
        family = type(elementwise_family(fn)).__name__
        raise ValueError(
            f"entropy: site {msg['name']!r} ({family}) has no closed-form entropy; use "
            'entropy="mc" or entropy="stl"'
        ) from None
    if proximal:
        entropy = jax.lax.stop_gradient(entropy)
    scale = 1.0 if msg["scale"] is None else msg["scale"]
    value = jnp.broadcast_to(-scale * entropy, term.value.shape)
    return dataclasses.replace(term, value=value, detached=False)


class _PathHandler(DensityHandler):
    def __init__(self, context: Any, prefix: str, trace: Trace):
        super().__init__(context, prefix, trace)
        self.given = dict(trace.values)

    def process_message(self, msg: Any) -> None:
        if msg["type"] == "sample" and not msg["is_observed"] and _is_delta(msg["fn"]):
            msg["value"] = msg["fn"].sample(jax.random.key(0))
        else:
            super().process_message(msg)


def _is_delta(fn: Any) -> bool:
    return isinstance(elementwise_family(fn), dist.Delta)
