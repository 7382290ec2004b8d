"""Targets with known evidence for the bounds: the cone, a Gaussian, a state-space model."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from scipy.special import i0e
from scipy.stats import norm

from bayesjx import vi

FAST_COMPILE = {"xla_backend_optimization_level": 1}  # a third of the time; nothing is timed here

# The cone of Becker et al. (2024), section 2: what (x, y) has x² + y² near 5?

RADIUS = float(np.sqrt(5.0))
KEEP = ("x", "y")
# Where the training of the full run ends, for the quick one.
TRAINED = {
    "ELBO": (0.0, 2.219, -1.27, -3.23),
    "IWELBO(5)": (2.165, 0.0, -2.60, -0.58),
    "HVI": (-3.02, -3.02),
    "IWHVI(5)": (-3.02, -3.02),
    "DIWHVI(5,5)": (-2.04, -2.04),
}


def cone(p: Any = None) -> None:
    x = numpyro.sample("x", dist.Normal(0.0, 10.0))
    y = numpyro.sample("y", dist.Normal(0.0, 10.0))
    squared = x**2 + y**2
    numpyro.sample("z", dist.Normal(squared, 0.1 + squared / 100), obs=5.0)


def blob(p: jax.Array) -> None:
    """Mean-field guide: two locations, two log scales."""
    numpyro.sample("x", dist.Normal(p[0], jnp.exp(p[2])))
    numpyro.sample("y", dist.Normal(p[1], jnp.exp(p[3])))


def ring(p: jax.Array) -> None:
    """A position on the circle, and normal noise around it with two log scales."""
    angle = numpyro.sample("angle", dist.Uniform(-jnp.pi, jnp.pi))
    numpyro.sample("x", dist.Normal(RADIUS * jnp.cos(angle), jnp.exp(p[0])))
    numpyro.sample("y", dist.Normal(RADIUS * jnp.sin(angle), jnp.exp(p[1])))


def ring_proposal(given: Any, p: jax.Array) -> None:
    """Angles near that of the point: for equal scales the exact ones, at half the concentration."""
    x, y = given["x"], given["y"]
    concentration = 0.5 * RADIUS * jnp.hypot(x, y) / jnp.exp(2 * p[0])
    numpyro.sample("angle", dist.VonMises(jnp.arctan2(y, x), concentration))


def cone_log_joint(radius: np.ndarray) -> np.ndarray:
    """Log density of the cone at any point of that radius."""
    squared = radius**2
    prior = -np.log(2 * np.pi * 100) - squared / 200
    return prior + norm(squared, 0.1 + squared / 100).logpdf(5.0)


def cone_log_evidence() -> float:
    """By quadrature over the radius."""
    radius = np.linspace(1e-6, 8.0, 200_001)
    values = np.exp(cone_log_joint(radius)) * 2 * np.pi * radius
    return float(np.log(np.trapezoid(values, radius)))


def ring_bound(log_scale: float) -> float:
    r"""$E[\log p - \log q]$ of the ring's exact marginal with equal scales, by quadrature."""
    scale = np.exp(log_scale)
    radius = np.linspace(1e-6, RADIUS + 12 * scale, 200_001)
    exponent = -((radius - RADIUS) ** 2) / (2 * scale**2)
    bessel = i0e(radius * RADIUS / scale**2)
    log_q = exponent + np.log(bessel) - np.log(2 * np.pi * scale**2)
    values = np.exp(log_q) * (cone_log_joint(radius) - log_q) * 2 * np.pi * radius
    return float(np.trapezoid(values, radius))


def train(objective: vi.Objective, start: Any, num_steps: int, num_draws: int = 64) -> jax.Array:
    """Parameters after Adam, averaged over the last fifth of the steps."""
    adam = optax.adam(3e-2)
    start = jnp.asarray(start)

    def step(carry: Any, key: jax.Array) -> tuple[Any, Any]:
        params, state = carry
        _, gradient = objective.value_and_grad(key, params, num_draws=num_draws)
        updates, state = adam.update(-gradient, state)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    keys = jax.random.split(jax.random.key(0), num_steps)
    run = jax.jit(
        lambda keys: jax.lax.scan(step, (start, adam.init(start)), keys)[1],
        compiler_options=FAST_COMPILE,
    )
    return run(keys)[-num_steps // 5 :].mean(axis=0)


# A linear model with normal noise, whose posterior is correlated.

DESIGN = jnp.array([[1.0, 0.6], [0.3, 1.1], [0.8, 0.9]])
OUTCOME = jnp.array([0.9, 1.4, 0.2])
NOISE = 0.8
PRECISION = jnp.eye(2) + DESIGN.T @ DESIGN / NOISE**2
COVARIANCE = jnp.linalg.inv(PRECISION)
MEAN = COVARIANCE @ DESIGN.T @ OUTCOME / NOISE**2


def linear(p: Any = None) -> None:
    z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    numpyro.sample("y", dist.Normal(DESIGN @ z, NOISE).to_event(1), obs=OUTCOME)


def linear_guide(p: Any = None) -> None:
    """Off in the mean and without the correlation, wide enough for the chi-square bound."""
    numpyro.sample("z", dist.Normal(MEAN + 0.15, 0.6).to_event(1))


def linear_hierarchical(p: Any = None) -> None:
    """The same with a correlation, by an auxiliary site."""
    u = numpyro.sample("u", dist.Normal(0.0, 0.5))
    numpyro.sample("z", dist.Normal(MEAN + 0.15 + u * jnp.array([1.0, -1.0]), 0.45).to_event(1))


def linear_log_evidence() -> float:
    covariance = DESIGN @ DESIGN.T + NOISE**2 * jnp.eye(3)
    return float(dist.MultivariateNormal(jnp.zeros(3), covariance).log_prob(OUTCOME))


def linear_hierarchical_bound() -> float:
    """The ELBO of the exact marginal of `linear_hierarchical`: evidence minus a divergence."""
    across = jnp.array([1.0, -1.0])
    own = 0.45**2 * jnp.eye(2) + 0.25 * jnp.outer(across, across)
    q = dist.MultivariateNormal(MEAN + 0.15, own)
    p = dist.MultivariateNormal(MEAN, COVARIANCE)
    return linear_log_evidence() - float(dist.kl_divergence(q, p))


# A linear state-space model.

SERIES = jnp.array([0.4, -1.1, 0.7, 1.9, -0.3, 0.2, -1.4, 0.6, 1.0, -0.2])


def walk_step(p: Any, x: Any, y: jax.Array) -> Any:
    x = numpyro.sample("x", dist.Normal(0.8 * x, 0.8))
    numpyro.sample("y", dist.Normal(x, 0.6), obs=y)
    return x


def walk_guide(p: Any, x: jax.Array, y: jax.Array) -> None:
    numpyro.sample("x", dist.Normal(0.8 * x + 0.5 * (y - 0.8 * x), 0.6))


def kalman_log_evidence() -> float:
    mean, variance, total = 0.0, 0.0, 0.0
    for y in np.asarray(SERIES):
        mean, variance = 0.8 * mean, 0.64 * variance + 0.64
        total += norm(mean, np.sqrt(variance + 0.36)).logpdf(y)
        gain = variance / (variance + 0.36)
        mean, variance = mean + gain * (y - mean), (1 - gain) * variance
    return float(total)
