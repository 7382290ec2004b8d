"""Annealed sequential Monte Carlo over the latent sites of a program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float
from numpyro import handlers
from numpyro.distributions import biject_to

from ..._core import whole_number
from .._estimator import (
    activate,
    check_programs,
    Context,
    Cost,
    current,
    drawable,
    log_mean,
)
from .._programs import (
    latent_sites,
    log_density,
    simulate,
)
from ._inference import (
    AbstractEvidenceEstimator,
    Target,
    Values,
)
from ._marginal import (
    exact_densities,
)


class SMC(AbstractEvidenceEstimator):
    r"""Sequential Monte Carlo from a proposal to the target along $r^{1-\beta} p^\beta$.

    Made by `smc`. Particles are reweighted, resampled and moved by random-walk Metropolis steps
    in unconstrained space at each temperature. Gradients flow through the densities at the
    particles, not through the particles.
    """

    num_particles: int = eqx.field(static=True)
    proposal: Callable[..., Any] | None = eqx.field(static=True)
    num_temperatures: int = eqx.field(static=True)
    num_moves: int = eqx.field(static=True)
    step_size: float = eqx.field(static=True)

    def __check_init__(self):
        for name in ("num_particles", "num_temperatures", "num_moves"):
            whole_number(name, getattr(self, name))
        check_programs(True, proposal=self.proposal)
        if not self.step_size > 0:
            raise ValueError(f"step_size must be positive, got {self.step_size}")

    def log_evidence(self, target: Target) -> Float[Array, ""]:
        return self._run(target, None)[1]

    def log_evidence_given(self, target: Target, values: Values, density: Cost) -> Float[Array, ""]:
        return self._run(target, values)[1]

    def resample(self, target: Target) -> tuple[Values, Float[Array, ""], Float[Array, ""]]:
        values, log_evidence = self._run(target, None)
        return values, target.log_joint(values), log_evidence

    def _run(self, target: Target, retained: Values | None) -> tuple[Values, jax.Array]:
        _, key = current("smc").enter_call()
        plan = _Plan.of(target, self.proposal, key)
        kept = None
        if retained is not None:
            kept = jax.lax.stop_gradient(plan.flatten(retained))
            kept = jnp.where(jnp.isfinite(kept), kept, 0.0)  # a value outside its support
        start_key, path_key, move_key, last_key = random.split(key, 4)
        betas = jnp.asarray(np.linspace(0, 1, self.num_temperatures + 1), plan.dtype)
        keys = random.split(start_key, self.num_particles)
        points = jax.lax.stop_gradient(jax.vmap(plan.propose)(keys))
        path = None
        if kept is not None:
            # The retained particle's past: the moves are reversible, so they also run backwards.
            path = self._backwards(plan, path_key, kept, betas)
            points = points.at[0].set(path[0])

        def anneal(carry: Any, t: Any) -> tuple[Any, None]:
            points, log_z = carry
            ratio = jax.vmap(plan.log_ratio)(points)
            log_w = (betas[t + 1] - betas[t]) * ratio
            log_z = log_z + log_mean(log_w)
            index_key, particle_key = random.split(random.fold_in(move_key, t))
            index = random.categorical(index_key, drawable(log_w), shape=(self.num_particles,))
            index = index if path is None else index.at[0].set(0)
            moved = jax.vmap(lambda k, x: self._move(plan, k, x, betas[t + 1]))(
                random.split(particle_key, self.num_particles), jax.lax.stop_gradient(points)[index]
            )
            moved = moved if path is None else moved.at[0].set(path[t + 1])
            return (moved, log_z), None

        steps = jnp.arange(self.num_temperatures)
        zero = jnp.zeros((), plan.dtype)
        (points, log_z), _ = jax.lax.scan(anneal, (points, zero), steps)
        chosen = points[random.randint(last_key, (), 0, self.num_particles)]
        return plan.unflatten(chosen), log_z

    def _backwards(self, plan: _Plan, key: jax.Array, x: jax.Array, betas: jax.Array) -> jax.Array:
        def back(x: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
            before = self._move(plan, random.fold_in(key, t), x, betas[t + 1])
            return before, before

        steps = jnp.arange(self.num_temperatures)
        _, past = jax.lax.scan(back, x, steps, reverse=True)
        return jnp.concatenate([past, x[None]])

    def _move(self, plan: _Plan, key: jax.Array, x: jax.Array, beta: jax.Array) -> jax.Array:
        def one(state: Any, key: jax.Array) -> tuple[Any, None]:
            x, log_p = state
            step_key, accept_key = random.split(key)
            proposed = x + self.step_size * random.normal(step_key, x.shape, x.dtype)
            log_new = plan.log_tempered(proposed, beta)
            accept = jnp.log(random.uniform(accept_key, (), x.dtype)) < log_new - log_p
            return (jnp.where(accept, proposed, x), jnp.where(accept, log_new, log_p)), None

        start = (x, plan.log_tempered(x, beta))
        (x, _), _ = jax.lax.scan(one, start, random.split(key, self.num_moves))
        return jax.lax.stop_gradient(x)


class _Plan(NamedTuple):
    """A target as functions of one unconstrained vector."""

    target: Target
    program: Callable[..., Any]
    reference: Callable[..., Any]
    transforms: dict[str, Any]
    unravel: Callable[[jax.Array], Any]
    dtype: Any

    @staticmethod
    def of(target: Target, proposal: Callable[..., Any] | None, key: jax.Array) -> _Plan:
        program = exact_densities(target.conditioned, "vi.smc", "use vi.sir")
        reference = _prior(program) if proposal is None else target.propose(proposal)
        reference = exact_densities(reference, "vi.smc", "use vi.sir")
        transforms: dict[str, Any] = {}
        zeros: dict[str, jax.Array] = {}
        with activate(Context(key)):
            sites = latent_sites(reference, target.args, dict(target.kwargs))
        for name, site in sites.items():
            if site.support.is_discrete:
                raise ValueError(f"smc moves continuous sites only; {name!r} is discrete")
            transforms[name] = biject_to(site.support)
            zeros[name] = jnp.zeros(transforms[name].inverse_shape(site.shape), site.dtype)
        flat, unravel = ravel_pytree(zeros)
        return _Plan(target, program, reference, transforms, unravel, flat.dtype)

    def propose(self, key: jax.Array) -> jax.Array:
        with activate(Context(key)):
            trace, _ = simulate(self.reference, *self.target.args, **self.target.kwargs)
        return self.flatten({name: trace[name] for name in self.transforms})

    def flatten(self, values: Values) -> jax.Array:
        inverse = {name: t.inv(values[name]) for name, t in self.transforms.items()}
        return ravel_pytree(inverse)[0].astype(self.dtype)

    def unflatten(self, x: jax.Array) -> Values:
        free = self.unravel(x)
        return {name: t(free[name]) for name, t in self.transforms.items()}

    def log_ratio(self, x: jax.Array) -> jax.Array:
        """Log of target over reference; the Jacobians cancel."""
        log_p, log_r = self._log_densities(self.unflatten(x))
        return jnp.where(log_p == -jnp.inf, -jnp.inf, log_p - log_r)

    def log_tempered(self, x: jax.Array, beta: jax.Array) -> jax.Array:
        """Log of the density at a temperature, in unconstrained space."""
        free, values = self.unravel(x), self.unflatten(x)
        log_p, log_r = self._log_densities(values)
        impossible = (log_p == -jnp.inf) | ((log_r == -jnp.inf) & (beta < 1))
        log_tempered = jnp.where(beta < 1, log_r + beta * (log_p - log_r), log_p)
        jacobian = jnp.zeros((), self.dtype)
        for name, transform in self.transforms.items():
            jacobian += jnp.sum(transform.log_abs_det_jacobian(free[name], values[name]))
        return jnp.where(impossible, -jnp.inf, log_tempered + jacobian)

    def _log_densities(self, values: Values) -> tuple[jax.Array, jax.Array]:
        """Target and reference."""
        args, kwargs = self.target.args, self.target.kwargs
        log_p = log_density(self.program, values, *args, **kwargs).total
        return log_p, log_density(self.reference, values, *args, **kwargs).total


def smc(
    num_particles: int,
    proposal: Callable[..., Any] | None = None,
    *,
    num_temperatures: int = 10,
    num_moves: int = 5,
    step_size: float = 0.5,
) -> AbstractEvidenceEstimator:
    """Annealed sequential Monte Carlo, for `marginal` and `normalize`.

    Prefer it to `sir` where importance weights degenerate, from about five continuous
    dimensions on. Its gradient reaches the densities but not the particles, so it serves
    objectives that count draws as data (wake phases, forward divergences) and evaluation; the
    gradient of a bound through it is biased.

    Args:
        num_particles: positive.
        proposal: NumPyro program of the starting distribution, as in `sir`; by default the
            program without its observations.
        num_temperatures: steps from the proposal to the target.
        num_moves: random-walk Metropolis moves at each temperature.
        step_size: standard deviation of a move in unconstrained space.

    Raises:
        ValueError: a size is not a positive integer, `step_size` is not positive; when used, a
            discrete site, or one whose density is itself an estimate.

    References:
        Del Moral, Doucet and Jasra (2006), "Sequential Monte Carlo samplers"; Andrieu, Doucet and
        Holenstein (2010) for the conditional version that evaluates densities.
    """
    return SMC(num_particles, proposal, num_temperatures, num_moves, step_size)


def _prior(program: Callable[..., Any]) -> Callable[..., Any]:
    """The program without the density of its observations."""

    def run(*args: Any, **kwargs: Any) -> Any:
        with handlers.block(hide_fn=lambda msg: msg["type"] == "sample" and msg["is_observed"]):
            return program(*args, **kwargs)

    return run
