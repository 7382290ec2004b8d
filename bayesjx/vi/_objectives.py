"""Objectives of the library, each a few lines over the core."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ._cost import Cost
from ._expectation import Expectation, expectation
from ._particles import log_mean_exp, particles
from ._programs import log_density, simulate


def elbo(model: Callable[..., Any], guide: Callable[..., Any]) -> Expectation:
    r"""Evidence lower bound $E_q[\log p(x, z) - \log q(z)] \le \log p(x)$.

    Args:
        model: NumPyro program of the joint density.
        guide: NumPyro program of the approximate posterior; takes the same arguments.

    Returns:
        an `Expectation` of `(*args, **kwargs)`, which go to both programs.

    References:
        Jordan, Ghahramani, Jaakkola and Saul (1999), "An introduction to variational methods for
        graphical models".
    """

    def evidence_bound(*args: Any, **kwargs: Any) -> Cost:
        return _log_weight(model, guide, args, kwargs)

    return expectation(evidence_bound)


def iwelbo(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    num_particles: int = 8,
    local_plate: str | None = None,
) -> Expectation:
    r"""Importance-weighted bound $E[\log \frac1K \sum_k p(x, z_k) / q(z_k)] \le \log p(x)$.

    Tightens as `num_particles` grows and equals `elbo` at one. Prefer it where the bound itself
    matters or the guide is too simple; the guide's gradient gets noisier with more particles.

    Args:
        model: NumPyro program of the joint density.
        guide: NumPyro program of the proposal; takes the same arguments.
        num_particles: $K$, positive.
        local_plate: plate that holds all sites; the bound is then taken for each of its elements
            and summed, which is tighter if the latents are local to the plate.

    Returns:
        an `Expectation` of `(*args, **kwargs)`, which go to both programs. Score-function sites
        get VIMCO baselines.

    References:
        Burda, Grosse and Salakhutdinov (2016), "Importance weighted autoencoders".
    """

    def importance_bound(*args: Any, **kwargs: Any) -> Cost:
        weights = particles(num_particles)(lambda: _log_weight(model, guide, args, kwargs))()
        return log_mean_exp(weights, local_plate)

    return expectation(importance_bound)


def _log_weight(model: Any, guide: Any, args: Any, kwargs: Any) -> Cost:
    trace, log_q = simulate(guide, *args, **kwargs)
    return log_density(model, trace, *args, **kwargs) - log_q
