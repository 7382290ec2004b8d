"""Bounds from several particles: importance-weighted, Rényi, chi-square and thermodynamic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from ..._core import whole_number
from .._estimator import (
    AbstractPathwise,
    check_number,
    check_programs,
    Cost,
    current,
    expectation,
    log_mean,
    log_mean_exp,
    Objective,
    particles,
    shares,
    weighted_sum,
)
from .._marginals import (
    exact_densities,
)
from .._programs import (
    draw,
    frozen,
    log_density,
    simulate,
)

Program = Callable[..., Any]


def iwelbo(
    model: Program,
    guide: Program,
    num_particles: int = 8,
    local_plate: str | None = None,
    gradient: Literal["standard", "dreg"] = "standard",
) -> Objective:
    r"""Importance-weighted bound $E[\log \frac1K \sum_k p(x, z_k) / q(z_k)] \le \log p(x)$.

    A lower bound that tightens as `num_particles` grows and equals `elbo` at one. Prefer it where
    the bound itself matters or the guide is too simple; with the standard gradient the guide's
    gradient gets noisier with more particles, with the doubly reparameterised one it does not.

    Args:
        model: NumPyro program of the joint density.
        guide: NumPyro program of the proposal; takes the same arguments.
        num_particles: $K$, positive.
        local_plate: plate that holds all sites; the bound is then taken for each of its elements
            and summed, which is tighter if the latents are local to the plate.
        gradient: `"standard"` serves all sites (score-function sites get VIMCO baselines);
            `"dreg"` is for guides whose sites are all reparameterised and reach their parameters
            through arguments or `numpyro.param`.

    Returns:
        an `Objective` of `(*args, **kwargs)`, which go to both programs.

    Raises:
        ValueError: an unknown gradient, `num_particles` not positive, DReG with `local_plate`,
            with a site that is not reparameterised or with a marginal.

    References:
        Burda, Grosse and Salakhutdinov (2016), "Importance weighted autoencoders"; Tucker, Lawson,
        Gu and Maddison (2019), "Doubly reparameterized gradient estimators for Monte Carlo
        objectives"; Mnih and Rezende (2016) for VIMCO.
    """
    check_programs(model=model, guide=guide)
    if local_plate is not None and not isinstance(local_plate, str):
        raise ValueError(f"local_plate must be the name of a plate, got {local_plate!r}")
    if gradient == "stl":
        raise ValueError(
            'gradient="stl" (sticking the landing) is biased for more than one particle; '
            'use gradient="dreg"'
        )
    if gradient not in ("standard", "dreg"):
        raise ValueError(f'gradient must be "standard" or "dreg", got {gradient!r}')
    if gradient == "dreg" and local_plate is not None:
        raise ValueError('gradient="dreg" does not combine with local_plate')
    whole_number("num_particles", num_particles)

    def importance_bound(*args: Any, **kwargs: Any) -> Cost:
        weights = particles(num_particles)(lambda: log_weight(model, guide, args, kwargs))()
        return log_mean_exp(weights, local_plate)

    def doubly_reparameterised(*args: Any, **kwargs: Any) -> jax.Array:
        # Three log weights of the same draws: by value, by the model's parameters at fixed draws,
        # and along the path of the draws at fixed parameters.
        remedy = 'use gradient="standard"'
        p = exact_densities(model, 'gradient="dreg"', remedy)
        q = exact_densities(guide, 'gradient="dreg"', remedy)

        def weights() -> tuple[jax.Array, jax.Array, jax.Array]:
            trace, log_q = simulate(q, *args, **kwargs)
            _require_pathwise()
            fixed = jax.lax.stop_gradient(trace)
            by_model = log_density(p, fixed, *args, **kwargs).total
            path = log_density(frozen(p), trace, *args, **kwargs)
            path = path - log_density(frozen(q), trace.values, *args, **kwargs)
            return by_model - jax.lax.stop_gradient(log_q.total), by_model, path.total

        value, by_model, path = particles(num_particles)(weights)()
        share = shares(value)
        slope = weighted_sum(share, by_model) + weighted_sum(share**2, path)
        return jax.lax.stop_gradient(log_mean(value)) + slope - jax.lax.stop_gradient(slope)

    return expectation(importance_bound if gradient == "standard" else doubly_reparameterised)


def renyi(model: Program, guide: Program, alpha: float = 0.5, num_particles: int = 8) -> Objective:
    r"""Rényi bound $\frac1{1-\alpha} \log \frac1K \sum_k (p/q)^{1-\alpha}$.

    A lower bound of the evidence for $\alpha \ge 0$ (in the limit of many particles; with few it
    is lower still for $\alpha < 1$), the ELBO as $\alpha \to 1$, `iwelbo` at 0. Small alpha covers
    mass, large alpha seeks modes. For $\alpha < 0$ it turns into an upper bound only in the limit
    of many particles.

    Args:
        model: NumPyro program of the joint density.
        guide: NumPyro program; takes the same arguments.
        alpha: order, not 1.
        num_particles: $K$, positive.

    Raises:
        ValueError: `alpha` is 1, or `num_particles` not positive.

    References:
        Li and Turner (2016), "Rényi divergence variational inference", equation 7.
    """
    check_programs(model=model, guide=guide)
    check_number("alpha", alpha)
    if alpha == 1:
        raise ValueError("renyi: alpha = 1 is the ELBO; use vi.elbo")
    whole_number("num_particles", num_particles)

    def bound(*args: Any, **kwargs: Any) -> Cost:
        weights = particles(num_particles)(lambda: log_weight(model, guide, args, kwargs))()
        return log_mean_exp(weights * (1 - alpha)) / (1 - alpha)

    return expectation(bound)


def chi_square(
    model: Program, guide: Program, order: float = 2.0, num_particles: int = 8
) -> Objective:
    r"""CUBO $\frac1n \log E_q[(p/q)^n] \ge \log p(x)$, an upper bound to be minimised.

    The estimate from finitely many particles lies below its limit, so report it with many and
    look at the Pareto k-hat of the weights; use it with `elbo` for a sandwich.

    Args:
        model: NumPyro program of the joint density.
        guide: NumPyro program; takes the same arguments.
        order: $n \ge 1$; 2 is the chi-square divergence.
        num_particles: positive.

    Raises:
        ValueError: `order` is below 1, or `num_particles` not positive.

    References:
        Dieng, Tran, Ranganath, Paisley and Blei (2017), "Variational inference via $\chi$ upper
        bound minimization".
    """
    check_programs(model=model, guide=guide)
    check_number("order", order)
    if order < 1:
        raise ValueError(f"chi_square: order must be at least 1, got {order}")
    whole_number("num_particles", num_particles)

    def bound(*args: Any, **kwargs: Any) -> Cost:
        weights = particles(num_particles)(lambda: log_weight(model, guide, args, kwargs))()
        return log_mean_exp(weights * order) / order

    return expectation(bound, maximise=False)


def thermodynamic(
    model: Program,
    guide: Program,
    num_particles: int = 32,
    inverse_temperatures: Sequence[float | int] | np.ndarray | None = None,
    upper: bool = False,
) -> Objective:
    r"""Thermodynamic variational objective: a Riemann sum of
    $\log p(x) = \int_0^1 E_{\pi_\beta}[\log p/q]\,d\beta$, $\pi_\beta \propto q^{1-\beta} p^\beta$.

    The left sum is a lower bound tighter than the ELBO, the right sum an upper bound (both up to
    the bias of self-normalised weights with finitely many particles). No site needs a gradient
    strategy: the gradient is a covariance at fixed draws, so discrete latents are welcome. Draws
    that the model excludes make the left sum −inf and have no gradient.

    Args:
        model: NumPyro program of the joint density.
        guide: NumPyro program; takes the same arguments.
        num_particles: draws shared by all temperatures, at least two.
        inverse_temperatures: increasing grid from 0 to 1; by default 0 and five log-spaced values
            from 0.01 to 1. `(0, 1)` gives the ELBO.
        upper: take the right Riemann sum and minimise it.

    Raises:
        ValueError: the grid does not increase from 0 to 1; fewer than two particles; a program
            contains a marginal.

    References:
        Masrani, Le and Wood (2019), "The thermodynamic variational objective", equations 8 and 19.
    """
    check_programs(model=model, guide=guide)
    default = [0.0, *np.geomspace(0.01, 1.0, 5)]
    grid = np.asarray(default if inverse_temperatures is None else inverse_temperatures)
    ends = grid.ndim == 1 and len(grid) > 1 and grid[0] == 0 and grid[-1] == 1
    if not ends or not np.all(np.diff(grid) > 0):
        raise ValueError(f"inverse_temperatures must increase from 0 to 1, got {grid.tolist()}")
    points = grid[1:] if upper else grid[:-1]
    whole_number("num_particles", num_particles)
    if num_particles == 1:
        raise ValueError(
            "thermodynamic estimates a covariance: num_particles must be two particles or more"
        )
    remedy = "use vi.iwelbo"

    def objective(*args: Any, **kwargs: Any) -> jax.Array:
        p = exact_densities(model, "vi.thermodynamic", remedy)
        q = exact_densities(guide, "vi.thermodynamic", remedy)

        def pair() -> tuple[jax.Array, jax.Array]:
            trace = draw(q, *args, **kwargs)
            log_p = log_density(p, trace, *args, **kwargs).total
            return log_p, log_density(q, trace.values, *args, **kwargs).total

        log_p, log_q = particles(num_particles)(pair)()
        log_w = log_p - log_q
        fixed = jax.lax.stop_gradient(log_w)
        total = jnp.zeros((), log_w.dtype)
        for beta, width in zip(points.tolist(), np.diff(grid).tolist(), strict=True):
            share = shares(beta * fixed if beta else jnp.zeros_like(fixed))
            value = weighted_sum(share, fixed)
            # Impossible draws make the value −inf at β = 0; they have no gradient anywhere.
            share = shares(jnp.where(fixed == -jnp.inf, fixed, beta * fixed))
            centred = jnp.where(share == 0, 0.0, fixed - weighted_sum(share, fixed))
            # The centre is the draws' own mean, which shrinks an even covariance by 1 - 1/K.
            centred = centred if beta else centred * num_particles / (num_particles - 1)
            path = (1 - beta) * log_q + beta * log_p
            slope = weighted_sum(share, log_w) + weighted_sum(share * centred, path)
            total = total + width * (value + slope - jax.lax.stop_gradient(slope))
        return jnp.where(jnp.all(fixed == -jnp.inf), -jnp.inf, total)

    return expectation(objective, maximise=not upper)


def log_weight(model: Program, guide: Program, args: Any, kwargs: Any) -> Cost:
    """`log p - log q` of one draw of the guide, structured."""
    trace, log_q = simulate(guide, *args, **kwargs)
    return log_density(model, trace, *args, **kwargs) - log_q


def _require_pathwise() -> None:
    for site in current("iwelbo").sites:
        if not isinstance(site.strategy, AbstractPathwise):
            raise site.explain(
                'gradient="dreg" needs reparameterised sites', 'Use gradient="standard"'
            )
