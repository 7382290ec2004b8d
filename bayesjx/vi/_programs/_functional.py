"""NumPyro programs with `numpyro.param` sites as functions of their parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from numpyro import handlers
from numpyro.distributions import constraints, transforms

from ..._core import check_key
from .._estimator import (
    check_programs,
)

Program = Callable[..., Any]


class FunctionalPrograms(NamedTuple):
    """Pure programs and their parameters, made by `functional`.

    Attributes:
        model: `model(params, *args, **kwargs)`, a NumPyro program without `numpyro.param` sites.
        guide: likewise.
        params: initial unconstrained parameters by name.
        constrain: from unconstrained to constrained parameters, which the methods of AutoGuides
            such as `sample_posterior` take.
        unconstrain: the inverse of `constrain`.
    """

    model: Program
    guide: Program
    params: dict[str, Any]
    constrain: Callable[[dict[str, Any]], dict[str, Any]]
    unconstrain: Callable[[dict[str, Any]], dict[str, Any]]


def functional(
    key: jax.Array,
    model: Program,
    guide: Program,
    *args: Any,
    init_params: dict[str, Any] | None = None,
    **kwargs: Any,
) -> FunctionalPrograms:
    """Turns model and guide into functions of one dictionary of free parameters, for `vi.fit`.

    For AutoGuides and other programs that declare parameters by `numpyro.param`; the parameters
    are unconstrained by the same transforms as in `numpyro.infer.SVI`.

    Args:
        key: randomness of the initial parameters.
        model: NumPyro model.
        guide: NumPyro guide, AutoGuides included.
        *args: example arguments of both, as are **kwargs**.
        init_params: initial values of parameters, constrained, e.g. of `init_from_pathfinder`.

    Raises:
        ValueError: neither program has a parameter, or `init_params` names one that does not
            exist.
    """
    check_key(key)
    check_programs(model=model, guide=guide)
    guide_key, model_key = jax.random.split(key)
    given = dict(init_params or {})
    with handlers.block():
        seeded = handlers.substitute(handlers.seed(guide, guide_key), data=given)
        guide_trace = handlers.trace(seeded).get_trace(*args, **kwargs)
        values = {k: v["value"] for k, v in guide_trace.items() if v["type"] == "param"} | given
        seeded = handlers.replay(handlers.seed(model, model_key), trace=guide_trace)
        model_trace = handlers.trace(handlers.substitute(seeded, data=values)).get_trace(
            *args, **kwargs
        )
    sites = {k: v for k, v in (model_trace | guide_trace).items() if v["type"] == "param"}
    if not sites:
        raise ValueError("functional: neither model nor guide has a numpyro.param site")
    if unknown := sorted(set(given) - set(sites)):
        raise ValueError(f"init_params names {unknown}; the parameters are {sorted(sites)}")
    maps = {k: _transform(v) for k, v in sites.items()}

    def constrain(params: dict[str, Any]) -> dict[str, Any]:
        return {name: maps[name](value) for name, value in params.items()}

    def unconstrain(params: dict[str, Any]) -> dict[str, Any]:
        return {name: maps[name].inv(value) for name, value in params.items()}

    def of_params(program: Program) -> Program:
        def run(params: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            return handlers.substitute(program, data=constrain(params))(*args, **kwargs)

        return run

    start = unconstrain({name: site["value"] for name, site in sites.items()})
    return FunctionalPrograms(of_params(model), of_params(guide), start, constrain, unconstrain)


def _transform(site: Any) -> Any:
    constraint = site["kwargs"].get("constraint", constraints.real)
    if constraint is constraints.real:
        return transforms.IdentityTransform()  # which parameters that are pytrees need
    return transforms.biject_to(constraint)
