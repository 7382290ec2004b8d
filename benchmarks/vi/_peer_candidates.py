"""The same Gaussian guides and the same autoencoder, trained by bayesjx, NumPyro and BlackJAX.

Every candidate is a pure step of Adam with a given rate, so all of them run in the same loop, which
the benchmark compiles.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpyro
import optax
from blackjax.vi import fullrank_vi, meanfield_vi
from jax import random
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from numpyro.infer.initialization import init_to_uniform

from bayesjx import vi
from benchmarks.vi import _hand, _programs
from benchmarks.vi._peer_problems import BATCH, HIDDEN, LATENT, Posterior

DRAWS = 8  # per step, for all
SCALE = 0.1  # initial standard deviation; the initial location is zero
OURS_ON_B: dict[str, Literal["mc", "analytic"]] = {"bayesjx": "mc", "bayesjx analytic": "analytic"}
START = init_to_uniform(radius=0.0)


class Candidate(NamedTuple):
    """How one library trains.

    Attributes:
        ours: whether it is bayesjx.
        start: `start(key, rate) -> state`.
        step: `step(key, rate, state, batch) -> state`; the batch is None where there is none.
        result: `result(state)`: location and triangular scale, or the autoencoder's parameters.
        before: what runs once before the first step, a function and its arguments, if anything.
    """

    ours: bool
    start: Callable[[jax.Array, Any], Any]
    step: Callable[[jax.Array, Any, Any, Any], Any]
    result: Callable[[Any], Any]
    before: tuple[Callable[..., Any], tuple] | None = None


def gaussians(posterior: Posterior, family: str) -> dict[str, Candidate]:
    """Candidates for one family, `"meanfield"` or `"fullrank"`."""
    blackjax = _blackjax_meanfield if family == "meanfield" else _blackjax_fullrank
    return {
        "bayesjx": _ours(posterior, family, "mc"),
        "bayesjx analytic": _ours(posterior, family, "analytic"),
        "bayesjx stl": _ours(posterior, family, "stl"),
        "NumPyro SVI": _numpyro(posterior, family),
        f"BlackJAX {family}_vi": blackjax(posterior),
    }


def started_by_pathfinder(posterior: Posterior) -> Candidate:
    """Full rank, from where Pathfinder ends."""
    return _ours(posterior, "fullrank", "stl", pathfinder=True)


def _ours(posterior: Posterior, family: Any, entropy: Any, pathfinder: bool = False) -> Candidate:
    guide = vi.GaussianGuide(posterior.model, scale=family, init_loc_fn=START, init_scale=SCALE)
    find = jax.jit(lambda key: vi.init_from_pathfinder(key, guide, num_paths=1))
    before = (find, (random.key(3),)) if pathfinder else None
    vi.functional(random.key(0), posterior.model, guide)  # the guide looks at its model once
    found = find(random.key(3)) if pathfinder else None
    model, program, params, constrain, _ = vi.functional(
        random.key(0), posterior.model, guide, init_params=found
    )
    bound = vi.elbo(model, program, entropy)

    def algorithm(rate: Any) -> Any:
        return vi.optimise(bound, params, optax.adam(rate), num_draws=DRAWS)

    def result(state: Any) -> tuple[jax.Array, jax.Array]:
        normal = guide.get_posterior(constrain(state.params))
        if family == "meanfield":
            return normal.mean, jnp.diag(normal.base_dist.scale)
        return normal.mean, normal.scale_tril

    return Candidate(
        True,
        lambda key, rate: algorithm(rate).init(),
        lambda key, rate, state, _: algorithm(rate).step(key, state)[0],
        result,
        before,
    )


def _numpyro(posterior: Posterior, family: str) -> Candidate:
    auto: Any = AutoNormal if family == "meanfield" else AutoMultivariateNormal
    guide = auto(posterior.model, init_loc_fn=START, init_scale=SCALE)

    def result(params: dict[str, Any]) -> tuple[jax.Array, jax.Array]:
        if family == "meanfield":
            loc, scale = (
                jnp.concatenate([params[f"{name}_auto_{part}"].ravel() for name in posterior.names])
                for part in ("loc", "scale")
            )
            return loc, jnp.diag(scale)
        return params["auto_loc"], params["auto_scale_tril"]

    return _svi(posterior.model, guide, Trace_ELBO(num_particles=DRAWS), result)


def _svi(
    model: Any,
    guide: Any,
    loss: Any,
    result: Callable[[dict[str, Any]], Any],
    example: tuple = (),
) -> Candidate:
    """NumPyro's SVI; the key of each step is the one that SVI keeps in its state."""
    first = SVI(model, guide, optax.adam(1e-3), loss)
    first.init(random.key(0), *example)  # an AutoGuide looks at its model once, outside of jit

    def svi(rate: Any) -> SVI:
        made = SVI(model, guide, optax.adam(rate), loss)
        made.constrain_fn = first.constrain_fn
        return made

    def step(key: jax.Array, rate: Any, state: Any, batch: Any) -> Any:
        del key
        return svi(rate).update(state, *(() if batch is None else (batch,)))[0]

    return Candidate(
        False,
        lambda key, rate: svi(rate).init(key, *example),
        step,
        lambda state: result(first.get_params(state)),
    )


def _blackjax_meanfield(posterior: Posterior) -> Candidate:
    def start(key: jax.Array, rate: Any) -> Any:
        state = meanfield_vi.init(jnp.zeros(posterior.size), optax.adam(rate))
        return state._replace(rho=jnp.full(posterior.size, math.log(SCALE)))

    def step(key: jax.Array, rate: Any, state: Any, batch: Any) -> Any:
        options = (posterior.log_density, optax.adam(rate), DRAWS)
        return meanfield_vi.step(key, state, *options)[0]

    return Candidate(False, start, step, lambda state: (state.mu, jnp.diag(jnp.exp(state.rho))))


def _blackjax_fullrank(posterior: Posterior) -> Candidate:
    d = posterior.size

    def start(key: jax.Array, rate: Any) -> Any:
        state = fullrank_vi.init(jnp.zeros(d), optax.adam(rate))
        return state._replace(chol_params=state.chol_params.at[:d].set(math.log(SCALE)))

    def step(key: jax.Array, rate: Any, state: Any, batch: Any) -> Any:
        options = (posterior.log_density, optax.adam(rate), DRAWS)
        return fullrank_vi.step(key, state, *options)[0]

    def result(state: Any) -> tuple[jax.Array, jax.Array]:
        lower = jnp.zeros((d, d)).at[jnp.tril_indices(d, -1)].set(state.chol_params[d:])
        return state.mu, lower + jnp.diag(jnp.exp(state.chol_params[:d]))

    return Candidate(False, start, step, result)


def autoencoders() -> dict[str, Candidate]:
    """Task B."""
    params = _hand.vae_params(64, HIDDEN, LATENT)
    found = {}
    for name, entropy in OURS_ON_B.items():
        bound = vi.elbo(_programs.vae_model, _programs.vae_guide, entropy)
        found[name] = _ours_on_batches(bound, params)

    def model(images: jax.Array) -> None:
        _programs.vae_model({"decoder": _declared("decoder", params)}, images)

    def guide(images: jax.Array) -> None:
        _programs.vae_guide({"encoder": _declared("encoder", params)}, images)

    example = (jnp.zeros((BATCH, 64)),)
    found["NumPyro SVI"] = _svi(model, guide, Trace_ELBO(), lambda params: params, example)
    return found


def _ours_on_batches(bound: vi.Objective, params: Any) -> Candidate:
    def algorithm(rate: Any) -> Any:
        return vi.optimise(bound, params, optax.adam(rate))

    return Candidate(
        True,
        lambda key, rate: algorithm(rate).init(),
        lambda key, rate, state, batch: algorithm(rate).step(key, state, batch)[0],
        lambda state: state.params,
    )


def _declared(name: str, params: Any) -> Any:
    return numpyro.param(name, params[name])
