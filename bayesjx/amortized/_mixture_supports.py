"""Mixtures of Gaussians on the supports of their coordinates, as NumPyro distributions."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import biject_to, constraints
from numpyro.distributions.transforms import IndependentTransform, Transform
from numpyro.distributions.util import validate_sample

from .._core import solve_tril_each

Support = tuple[tuple[float, float], ...]  # smallest and largest value of each coordinate
_NODES = 64  # of Gauss-Hermite quadrature, for moments of bounded coordinates


class Normals(dist.MultivariateNormal):
    """NumPyro's, in the precision of its parameters, without batched calls of LAPACK."""

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        shape = tuple(sample_shape) + self.batch_shape + self.event_shape
        noise = jax.random.normal(key, shape, self.loc.dtype)
        return self.loc + jnp.einsum("...ij,...j->...i", self.scale_tril, noise)

    @validate_sample
    def log_prob(self, value: Any) -> jax.Array:
        return normal_log_prob(value, self.loc, self.scale_tril)


def normal_log_prob(x: Any, loc: jax.Array, tril: jax.Array) -> jax.Array:
    """Log densities of Gaussians with lower Cholesky factors of their covariances."""
    rest = x - loc
    shape = jnp.broadcast_shapes(rest.shape, tril.shape[:-1])
    rest, tril = jnp.broadcast_to(rest, shape), jnp.broadcast_to(tril, (*shape, shape[-1]))
    white = solve_tril_each(tril, rest[..., None])[..., 0]
    diagonal = jnp.diagonal(tril, axis1=-2, axis2=-1)
    constant = jnp.sum(jnp.log(diagonal), axis=-1) + 0.5 * shape[-1] * math.log(2 * math.pi)
    return -0.5 * jnp.sum(white**2, axis=-1) - constant


class OnSupport(dist.TransformedDistribution):
    """A mixture of Gaussians, each coordinate mapped to its support, with mean and variance."""

    @property
    def mean(self) -> jax.Array:
        return self._moment(1)

    @property
    def variance(self) -> jax.Array:
        return self._moment(2) - self._moment(1) ** 2

    def _moment(self, power: int) -> jax.Array:
        base, support = self.base_dist, self.transforms[0].support  # ty: ignore
        loc = base.component_distribution.loc  # ty: ignore
        scale = jnp.sqrt(base.component_distribution.variance)  # ty: ignore
        columns = [
            _moment(loc[..., i], scale[..., i], bounds, power) for i, bounds in enumerate(support)
        ]
        moments = jnp.stack(columns, axis=-1)
        return jnp.sum(base.mixing_distribution.probs[..., None] * moments, axis=-2)  # ty: ignore


def _moment(loc: jax.Array, scale: jax.Array, bounds: tuple[float, float], power: int) -> Any:
    """Moment of a Gaussian variable that is mapped to an interval."""
    low, high = bounds
    if high < math.inf:
        nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
        nodes, weights = jnp.asarray(nodes, loc.dtype), jnp.asarray(weights, loc.dtype)
        values = _forward(loc[..., None] + scale[..., None] * nodes, bounds) ** power
        return values @ weights / math.sqrt(2 * math.pi)
    if low == -math.inf:
        return loc if power == 1 else loc**2 + scale**2
    first = jnp.exp(loc + 0.5 * scale**2)
    return low + first if power == 1 else low**2 + 2 * low * first + first**2 * jnp.exp(scale**2)


class _Box(constraints.Constraint):
    """Vectors whose coordinates lie in intervals of their own."""

    event_dim = 1

    def __init__(self, support: Support):
        self.support = support

    def __call__(self, x: Any) -> Any:
        low, high = (jnp.asarray(bound) for bound in zip(*self.support, strict=True))
        return jnp.all((x >= low) & (x <= high) & jnp.isfinite(x), axis=-1)

    def feasible_like(self, prototype: Any) -> jax.Array:
        return MapTo(self.support)(jnp.zeros_like(prototype))

    def tree_flatten(self) -> Any:
        return (), ((), {"support": self.support})

    def eq(self, other: object, static: bool = False) -> bool:
        del static
        return isinstance(other, _Box) and self.support == other.support


class MapTo(Transform):
    """From real vectors to those whose coordinates lie in intervals: `exp` and sigmoids."""

    domain = constraints.real_vector

    def __init__(self, support: Support):
        self.support = support

    @property
    def codomain(self) -> Any:
        kinds = {bounds for bounds in self.support}
        if len(kinds) > 1:
            return _Box(self.support)
        low, high = kinds.pop()
        if high < math.inf:
            one = (
                constraints.unit_interval
                if (low, high) == (0, 1)
                else constraints.interval(low, high)
            )
        elif low == -math.inf:
            return constraints.real_vector
        else:
            one = constraints.positive if low == 0 else constraints.greater_than(low)
        return constraints.independent(one, 1)

    def __call__(self, x: Any) -> jax.Array:
        columns = [_forward(x[..., i], bounds) for i, bounds in enumerate(self.support)]
        return jnp.stack(columns, axis=-1)

    def _inverse(self, y: Any) -> jax.Array:
        columns = [_backward(y[..., i], bounds) for i, bounds in enumerate(self.support)]
        return jnp.stack(columns, axis=-1)

    def log_abs_det_jacobian(self, x: Any, y: Any, intermediates: Any = None) -> jax.Array:
        del y, intermediates
        total = jnp.zeros(x.shape[:-1], x.dtype)
        for i, (low, high) in enumerate(self.support):
            if high < math.inf:
                slope = -jax.nn.softplus(x[..., i]) - jax.nn.softplus(-x[..., i])
                total = total + slope + math.log(high - low)
            elif low > -math.inf:
                total = total + x[..., i]
        return total

    def tree_flatten(self) -> Any:
        return (), ((), {"support": self.support})

    def eq(self, other: object, static: bool = False) -> bool:
        del static
        return isinstance(other, MapTo) and self.support == other.support


@biject_to.register(_Box)
def _(constraint: _Box) -> MapTo:
    return MapTo(constraint.support)


def _forward(x: Any, bounds: tuple[float, float]) -> Any:
    low, high = bounds
    if high < math.inf:
        tiny = jnp.finfo(x.dtype).eps
        return low + (high - low) * jnp.clip(jax.nn.sigmoid(x), tiny, 1 - tiny)
    return x if low == -math.inf else low + jnp.exp(x)


def _backward(y: Any, bounds: tuple[float, float]) -> Any:
    low, high = bounds
    if high < math.inf:
        return jnp.log(y - low) - jnp.log(high - y)
    return y if low == -math.inf else jnp.log(y - low)


def checked_support(owner: str, support: Any, num_latents: int) -> Support:
    """The interval of each coordinate.

    Args:
        owner: whose argument it is.
        support: one NumPyro constraint of numbers, or one for each coordinate.
        num_latents: number of coordinates.

    Raises:
        ValueError: it is another constraint, or there is another number of them.
    """
    each = support if isinstance(support, tuple | list) else (support,) * num_latents
    if len(each) != num_latents:
        raise ValueError(
            f"{owner}: support must be one constraint or one for each of the {num_latents} "
            f"latent variables, got {len(each)}"
        )
    return tuple(_bounds(owner, one) for one in each)


def _bounds(owner: str, constraint: Any) -> tuple[float, float]:
    if constraint is constraints.real:
        return -math.inf, math.inf
    low = getattr(constraint, "lower_bound", None)
    high = getattr(constraint, "upper_bound", math.inf)
    known = (constraints.interval, constraints.greater_than, type(constraints.positive))
    unit = type(constraints.unit_interval)
    if not isinstance(constraint, (*known, unit)) or np.ndim(low) or np.ndim(high):  # ty: ignore
        raise ValueError(
            f"{owner}: support must be real, positive, unit_interval, interval(a, b) or "
            f"greater_than(a) of numpyro.distributions.constraints, got {constraint!r:.80}"
        )
    low, high = float(low), float(high)  # ty: ignore[invalid-argument-type]
    if not low < high:
        raise ValueError(f"{owner}: support must be an interval that is not empty, got {low, high}")
    return low, high


def scalar_map(transform: Any) -> tuple[float, float] | None:
    """The interval to which NumPyro's transform maps numbers by `exp` or a sigmoid, or None."""
    while isinstance(transform, IndependentTransform):
        transform = transform.base_transform
    if isinstance(transform, dist.transforms.ExpTransform):
        return 0.0, math.inf
    if isinstance(transform, dist.transforms.SigmoidTransform):
        return 0.0, 1.0
    return None
