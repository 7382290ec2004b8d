"""Objectives of the library, each a few lines over the core."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._estimator import (
    check_programs,
    Cost,
    expectation,
    Objective,
)
from .._programs import (
    log_density,
    simulate,
)
from ._entropy import (
    ENTROPIES,
    path_log_density,
    simulate_with_entropy,
    with_values_of,
)


def elbo(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    entropy: str = "mc",
) -> Objective:
    r"""Evidence lower bound $E_q[\log p(x, z) - \log q(z)] \le \log p(x)$.

    Args:
        model: NumPyro program of the joint density.
        guide: NumPyro program of the approximate posterior; takes the same arguments.
        entropy: how $-E_q \log q$ is estimated, unbiased in value and gradient each time.
            `"mc"`: at the draw; serves every guide. `"analytic"`: in closed form site by site,
            for sites whose distribution has `entropy()`; the value is less noisy. `"stl"`,
            sticking the landing: at the draw, with the guide's parameters stopped; the gradient's
            variance falls to zero as the guide approaches the posterior, and may be higher far
            from it. Parameters that the guide closes over, instead of taking them as arguments
            or by `numpyro.param`, are not stopped. `"proximal"`: closed form without a gradient,
            which the proximal step `prox_scale` takes care of.

    Returns:
        an `Objective` of `(*args, **kwargs)`, which go to both programs.

    Raises:
        ValueError: an unknown `entropy`, or one that a site of the guide does not have; when
            used, sites of guide and model that do not match (see `log_density`).
        TypeError: `model` or `guide` is not callable.

    References:
        Jordan, Ghahramani, Jaakkola and Saul (1999), "An introduction to variational methods for
        graphical models"; Roeder, Wu and Duvenaud (2017), "Sticking the landing".
    """
    check_programs(model=model, guide=guide)
    if entropy not in ENTROPIES:
        raise ValueError(f"entropy must be one of {ENTROPIES}, got {entropy!r}")

    def evidence_bound(*args: Any, **kwargs: Any) -> Cost:
        if entropy == "mc":
            return _log_weight(model, guide, args, kwargs)
        if entropy == "stl":
            trace, log_q = simulate(guide, *args, **kwargs)
            log_p = log_density(model, trace, *args, **kwargs)
            return log_p - with_values_of(log_q, path_log_density(guide, trace, args, kwargs))
        trace, log_q = simulate_with_entropy(guide, args, kwargs, entropy == "proximal")
        return log_density(model, trace, *args, **kwargs) - log_q

    return expectation(evidence_bound)


def _log_weight(model: Any, guide: Any, args: Any, kwargs: Any) -> Cost:
    trace, log_q = simulate(guide, *args, **kwargs)
    return log_density(model, trace, *args, **kwargs) - log_q
