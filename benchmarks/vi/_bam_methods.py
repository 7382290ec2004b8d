"""Targets of `vi-bam`, and the methods that fit a Gaussian to them."""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import random

from bayesjx import vi

BATCH, BOUND_DRAWS, BLACKJAX_DRAWS = 32, 8, 100
MOST_GRADIENTS = 400_000
CHECKS = 10  # looks per method
STEPS_TIMED = 50


class GaussianFit(NamedTuple):
    """A mean and a covariance."""

    loc: jax.Array
    covariance: jax.Array


class Problem(NamedTuple):
    """A density of a flat vector and what counts as near to it.

    Attributes:
        dim: number of coordinates.
        log_density: unnormalised.
        distance: of a fit; at most 1 is near.
    """

    dim: int
    log_density: Callable[[jax.Array], jax.Array]
    distance: Callable[[GaussianFit], float]


class Method(NamedTuple):
    """A method with its state.

    Attributes:
        state: at the start.
        step: `step(key, state) -> state`.
        fit: of a state.
        gradients: that a step takes.
    """

    state: Any
    step: Callable[[jax.Array, Any], Any]
    fit: Callable[[Any], GaussianFit]
    gradients: int


def _moments(d: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(d)
    root = rng.normal(size=(d, d)) / math.sqrt(d)
    return rng.normal(size=d), root @ root.T + 0.1 * np.eye(d)


def whitened_error(fit: GaussianFit, mean: np.ndarray, cov: np.ndarray) -> float:
    tril = np.linalg.cholesky(cov)
    shift = np.linalg.solve(tril, np.asarray(fit.loc) - mean)
    inner = np.linalg.solve(tril, np.linalg.solve(tril, np.asarray(fit.covariance)).T)
    error = max(np.abs(shift).max(), np.abs(inner - np.eye(len(mean))).max())
    return float(error) if np.isfinite(error) else math.inf


def gaussian(d: int, error: float = 0.05) -> Problem:
    mean, cov = _moments(d)
    precision, loc = jnp.asarray(np.linalg.inv(cov)), jnp.asarray(mean)

    def log_density(z: jax.Array) -> jax.Array:
        return -0.5 * (z - loc) @ precision @ (z - loc)

    return Problem(d, log_density, lambda fit: whitened_error(fit, mean, cov) / error)


def sinh_arcsinh(d: int, skew: float = 0.1, tail: float = 1.1) -> Problem:
    """Sinh-arcsinh of a correlated normal; near is within 0.1 sd and 20 % of simulated moments."""
    _, cov = _moments(d)
    tril = np.linalg.cholesky(cov / np.sqrt(np.outer(np.diag(cov), np.diag(cov))))
    inverse = jnp.asarray(np.linalg.inv(tril))

    def log_density(z: jax.Array) -> jax.Array:
        inner = (jnp.arcsinh(z) - skew) / tail
        x = jnp.sinh(inner)
        slope = jnp.log(jnp.cosh(inner)) - 0.5 * jnp.log1p(z**2)
        return -0.5 * jnp.sum((inverse @ x) ** 2) + jnp.sum(slope)

    normal = np.random.default_rng(0).normal(size=(400_000, d)) @ tril.T
    draws = np.sinh(np.arcsinh(normal) * tail + skew)
    mean, sd = draws.mean(0), draws.std(0)

    def distance(fit: GaussianFit) -> float:
        shift = np.abs((np.asarray(fit.loc) - mean) / sd).max() / 0.1
        width = np.abs(np.sqrt(np.diag(np.asarray(fit.covariance))) / sd - 1).max() / 0.2
        return float(np.nan_to_num(max(shift, width), nan=np.inf))

    return Problem(d, log_density, distance)


def posterior(name: str, mean: float, sd: float) -> Problem:
    """In coordinates where the Laplace approximation has means 2 and standard deviations 1/2.

    So that none of the methods, which start at zero with unit covariance, begins near the answer.
    """
    from benchmarks.vi._default_peers import _flat
    from benchmarks.vi.posteriordb import load

    target = load(name)
    density, constrain, starts = _flat(target)
    loc = starts[0]
    value = lambda x: -density(x)  # noqa: E731
    solver = optax.lbfgs()
    state, step = solver.init(loc), jax.jit(_lbfgs_step(value, solver))
    for _ in range(200):
        loc, state = step(loc, state)
    values, vectors = jnp.linalg.eigh(jax.hessian(value)(loc))
    scale = 2 * vectors / jnp.sqrt(values)
    loc = loc - scale @ jnp.full(loc.size, 2.0)
    quantities = jax.jit(jax.vmap(lambda u: target.quantities(constrain(loc + scale @ u))))
    noise = np.random.default_rng(1).normal(size=(4000, loc.size))

    def distance(fit: GaussianFit) -> float:
        tril = np.linalg.cholesky(np.asarray(fit.covariance))
        found = quantities(jnp.asarray(np.asarray(fit.loc) + noise @ tril.T))
        shift = max(
            abs(float(found[n].mean()) - m) / target.sds[n] for n, m in target.means.items()
        )
        width = max(abs(float(found[n].std()) / s - 1) for n, s in target.sds.items())
        return float(np.nan_to_num(max(shift / mean, width / sd), nan=np.inf))

    return Problem(int(loc.size), lambda u: density(loc + scale @ u), distance)


def _lbfgs_step(value: Any, solver: Any) -> Any:
    def step(x: jax.Array, state: Any) -> tuple[jax.Array, Any]:
        now, gradient = optax.value_and_grad_from_state(value)(x, state=state)
        updates, state = solver.update(gradient, state, x, value=now, grad=gradient, value_fn=value)
        return x + updates, state

    return step


def ours(problem: Problem) -> Method:
    algorithm = vi.batch_and_match(problem.log_density, num_draws=BATCH)
    state = algorithm.init(jnp.zeros(problem.dim))
    return Method(
        state,
        lambda key, s: algorithm.step(key, s)[0],
        lambda s: GaussianFit(s.loc, s.covariance),
        BATCH,
    )


def score_matching(problem: Problem) -> Method:
    """Gaussian score matching with the update of the `gsmvi` package (or its formula)."""
    update = _gsm_update()
    score = jax.vmap(jax.grad(problem.log_density))

    def step(key: jax.Array, state: GaussianFit) -> GaussianFit:
        tril = jnp.linalg.cholesky(state.covariance)
        noise = random.normal(key, (BATCH, problem.dim))
        draws = state.loc + noise @ tril.T
        loc, cov = update(draws, score(draws), state.loc, state.covariance)
        good = jnp.all(jnp.isfinite(jnp.linalg.cholesky(cov))) & jnp.all(jnp.isfinite(loc))
        return jax.tree.map(lambda a, b: jnp.where(good, a, b), GaussianFit(loc, cov), state)

    return Method(GaussianFit(jnp.zeros(problem.dim), jnp.eye(problem.dim)), step, _same, BATCH)


def bound(rate: float) -> Callable[[Problem], Method]:
    def make(problem: Problem) -> Method:
        solver = optax.adam(rate)
        d = problem.dim
        params = {"loc": jnp.zeros(d), "scale": jnp.zeros(d), "lower": jnp.zeros((d, d))}

        def tril_of(p: dict[str, jax.Array]) -> jax.Array:
            return jnp.tril(p["lower"], -1) + jnp.diag(jnp.exp(p["scale"]))

        def loss(p: dict[str, jax.Array], key: jax.Array) -> jax.Array:
            noise = random.normal(key, (BOUND_DRAWS, d))
            tril = tril_of(p)
            draws = p["loc"] + noise @ tril.T
            slope = -jax.scipy.linalg.solve_triangular(tril, noise.T, trans=1, lower=True).T
            values = jax.vmap(problem.log_density)(draws)
            return -jnp.mean(values - jnp.sum(jax.lax.stop_gradient(slope) * draws, axis=1))

        def step(key: jax.Array, state: Any) -> Any:
            p, opt = state
            updates, opt = solver.update(jax.grad(loss)(p, key), opt)
            return optax.apply_updates(p, updates), opt

        def fit(state: Any) -> GaussianFit:
            tril = tril_of(state[0])
            return GaussianFit(state[0]["loc"], tril @ tril.T)

        return Method((params, solver.init(params)), step, fit, BOUND_DRAWS)

    return make


def full_rank_blackjax(problem: Problem) -> Method:
    method = blackjax.fullrank_vi(problem.log_density, optax.adam(0.01), BLACKJAX_DRAWS)

    def fit(state: Any) -> GaussianFit:
        d = problem.dim
        flat = state.chol_params
        tril = jnp.zeros((d, d)).at[jnp.tril_indices(d, -1)].set(flat[d:])
        tril = tril + jnp.diag(jnp.exp(flat[:d]))
        return GaussianFit(state.mu, tril @ tril.T)

    state = method.init(jnp.zeros(problem.dim))
    return Method(state, lambda key, s: method.step(key, s)[0], fit, BLACKJAX_DRAWS)


ALL: tuple[tuple[str, Callable[[Problem], Method]], ...] = (
    ("ours", ours),
    ("score matching", score_matching),
    ("stl, Adam 0.1", bound(0.1)),
    ("stl, Adam 0.01", bound(0.01)),
    ("BlackJAX full rank", full_rank_blackjax),
)


class Reached(NamedTuple):
    """What a method took until its fit was near; infinite if it never was.

    Attributes:
        gradients: evaluated.
        milliseconds: of its steps in one program, without compilation.
    """

    gradients: float
    milliseconds: float

    def cell(self) -> str:
        if math.isinf(self.gradients):
            return "never"
        return f"{self.gradients:g} ({self.milliseconds:.3g} ms)"


def reach(method: Method, problem: Problem) -> Reached:
    """Steps until the fit is near, looked at ever more rarely; then timed once more."""
    state, done, key = method.state, 0, random.key(0)
    run = jax.jit(
        lambda key, state, first, number: jax.lax.fori_loop(
            first, first + number, lambda i, s: method.step(random.fold_in(key, i), s), state
        )
    )
    while done * method.gradients < MOST_GRADIENTS:
        number = max(1, done // CHECKS)
        state = run(key, state, done, number)
        done += number
        if problem.distance(method.fit(state)) <= 1:
            seconds = [_seconds(run, key, method.state, done) for _ in range(3)]
            return Reached(float(done * method.gradients), 1e3 * sorted(seconds)[1])
    return Reached(math.inf, math.inf)


def _seconds(run: Callable[..., Any], key: jax.Array, state: Any, number: int) -> float:
    begin = time.perf_counter()
    jax.block_until_ready(run(key, state, 0, number))
    return time.perf_counter() - begin


def final_error(problem: Problem) -> float:
    """Whitened error of ours after 100 steps."""
    method = ours(problem)
    step, state = jax.jit(method.step), method.state
    for i in range(100):
        state = step(random.fold_in(random.key(1), i), state)
    return problem.distance(method.fit(state)) * 0.05


def contraction(problem: Problem) -> float:
    """Geometric mean over the first six steps of the ratio of errors."""
    method = ours(problem)
    step, state = jax.jit(method.step), method.state
    first = problem.distance(method.fit(state))
    for i in range(6):
        state = step(random.fold_in(random.key(2), i), state)
    return (problem.distance(method.fit(state)) / first) ** (1 / 6)


def steps(d: int) -> dict[str, Any]:
    """Fifty steps of ours, of `gsmvi`, if it is installed, and of its update in one program."""
    problem = gaussian(d)
    candidates = {"ours": _loop(ours(problem))}
    try:
        package = importlib.import_module("gsmvi.gsm")
    except ImportError:
        return candidates
    score = jax.jit(jax.vmap(jax.grad(problem.log_density)))
    method = package.GSM(d, problem.log_density, score)

    def fit(key: jax.Array) -> Any:
        return method.fit(key, batch_size=BATCH, niter=STEPS_TIMED - 1, nprint=1, verbose=False)

    candidates["gsmvi"] = (fit, (random.PRNGKey(0),))
    candidates["gsmvi's update, compiled loop"] = _loop(score_matching(problem))
    return candidates


def _loop(method: Method) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Steps in one program, as both are run: a call of one step is mostly the call."""

    @jax.jit
    def run(key: jax.Array, state: Any) -> Any:
        step = lambda i, s: method.step(random.fold_in(key, i), s)  # noqa: E731
        return jax.lax.fori_loop(0, STEPS_TIMED, step, state)

    return run, (random.key(0), method.state)


def _same(state: GaussianFit) -> GaussianFit:
    return state


def _gsm_update() -> Callable[..., tuple[jax.Array, jax.Array]]:
    try:
        return importlib.import_module("gsmvi.gsm").gsm_update
    except ImportError:
        return _own_gsm_update


def _own_gsm_update(draws: Any, scores: Any, loc: Any, cov: Any) -> tuple[jax.Array, jax.Array]:
    """Modi et al. (2023), "Variational inference with Gaussian score matching", equation 8."""

    def one(z: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
        through, back = cov @ g, loc - z
        along = back @ g
        rho = 0.5 * jnp.sqrt(1 + 4 * (g @ through + along**2)) - 0.5
        gap = through - back
        move = (gap - back * (g @ gap) / (1 + rho + along)) / (1 + rho)
        new = loc + move - z
        return move, jnp.outer(back, back) - jnp.outer(new, new)

    move, change = jax.vmap(one)(draws, scores)
    return loc + jnp.mean(move, axis=0), cov + jnp.mean(change, axis=0)
