"""The candidates of the overhead benchmark that live in this process, by task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import optax
from numpyro import param
from numpyro.infer import SVI, Trace_ELBO, TraceGraph_ELBO

from bayesjx import vi
from benchmarks.vi import _hand, _programs

Candidates = dict[str, tuple[Any, tuple[Any, ...]]]  # jitted function and arguments, by name
STRATEGIES = {
    "enum": (vi.enum,),
    "mvd": (vi.mvd,),
    "mvd, mvd, enum": (vi.mvd, vi.mvd, vi.enum),
    "disarm": (vi.disarm,),
    "rloo": (vi.rloo,),
}
PROGRAMS: dict[str, tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]] = {
    "A": (_programs.regression_model, _programs.regression_guide, _hand.regression_loss),
    "B": (_programs.vae_model, _programs.vae_guide, _hand.vae_loss),
    "C": (_programs.scene_model, _programs.scene_guide(lambda d: d), _hand.scene_loss),
}


def gradients(task: str, problem: tuple[Any, Any], strategies: bool = True) -> Candidates:
    """Value and gradient of minus the bound: hand-written, ours, NumPyro's losses.

    Args:
        task: `"A"`, `"B"` or `"C"`.
        problem: parameters and data, of `_hand.problem`.
        strategies: with task C, all of ours and not only reinforce and enum.
    """
    params, data = problem
    model, guide, loss = PROGRAMS[task]
    losses = {"hand": loss, "ours": _ours(model, guide), "TraceGraph_ELBO": _peer(task)}
    if task == "C":
        losses["ours"] = _ours(model, _programs.scene_guide(vi.reinforce))
        losses["hand, enum"] = _hand.scene_enumerated_loss
        for name, wraps in STRATEGIES.items():
            if strategies or name == "enum":
                losses[name] = _ours(model, _programs.scene_guide(*wraps))
    else:
        losses["Trace_ELBO"] = _peer(task, Trace_ELBO())
    args = (params, jax.random.key(0), data)
    return {name: (jax.jit(jax.value_and_grad(f)), args) for name, f in losses.items()}


def training_steps(task: str, problem: tuple[Any, Any]) -> Candidates:
    """Whole steps of optimisation with Adam: hand-written, ours, NumPyro's SVI."""
    params, data = problem
    model, guide, loss = PROGRAMS[task]
    key, adam = jax.random.key(0), optax.adam(1e-3)

    def by_hand(key: jax.Array, state: Any, data: Any) -> Any:
        params, opt_state = state
        value, gradient = jax.value_and_grad(loss)(params, key, data)
        updates, opt_state = adam.update(gradient, opt_state)
        return (optax.apply_updates(params, updates), opt_state), value

    bound = vi.elbo(model, guide)
    init, step, _ = vi.optimise(bound, params, adam)
    elbo = TraceGraph_ELBO() if task == "C" else Trace_ELBO()

    def with_params(program: Callable[..., Any]) -> Callable[..., Any]:
        return lambda data: program(param("params", params), data)

    svi = SVI(with_params(model), with_params(guide), adam, elbo)
    return {
        "hand": (jax.jit(by_hand), (key, (params, adam.init(params)), data)),
        "ours": (jax.jit(step), (key, init(), data)),
        "SVI": (jax.jit(svi.update), (svi.init(key, data), data)),
    }


def _ours(model: Any, guide: Any) -> Callable[..., Any]:
    bound = vi.elbo(model, guide)
    return lambda params, key, data: -bound.surrogate(key, params, data)


def _peer(task: str, elbo: Any = None) -> Callable[..., Any]:
    model, guide, _ = PROGRAMS[task]
    elbo = elbo or TraceGraph_ELBO()
    return lambda params, key, data: elbo.loss(key, {}, model, guide, params, data)
