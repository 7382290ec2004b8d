"""The maps from points `(n, d)` to features `(n, F)` of which Fourier features are made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from ..kernels import ArcCosine, Coregion
from ..kernels._distances import safe_sqrt
from ..kernels._parameters import amplitude, valid


class Waves(eqx.Module):
    """A cosine and a sine of each frequency `(F / 2, d)`, of variances `weights`, `(F / 2,)`."""

    frequencies: jax.Array
    weights: jax.Array

    def __call__(self, x: jax.Array) -> jax.Array:
        angle = x @ self.frequencies.astype(x.dtype).T
        scale = _root(self.weights).astype(x.dtype)
        return jnp.concatenate([scale * jnp.cos(angle), scale * jnp.sin(angle)], axis=1)


class Slopes(eqx.Module):
    """Each coordinate less the centre, `variance` of shape `(d,)`."""

    centre: jax.Array
    variance: jax.Array

    def __call__(self, x: jax.Array) -> jax.Array:
        return _root(self.variance).astype(x.dtype) * (x - self.centre.astype(x.dtype))


class Units(eqx.Module):
    """Hidden units with weights `(F, d + 1)`: steps, rectified linear ones or their squares."""

    kernel: ArcCosine
    weights: jax.Array

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.kernel
        fields = kernel._augmented(x) @ self.weights.astype(x.dtype).T
        on = fields > 0
        units = jnp.where(on, fields, 0) ** kernel.order if kernel.order else on.astype(x.dtype)
        return _root(2 * amplitude(kernel, x.dtype) / len(self.weights)) * units


class Outputs(eqx.Module):
    """The row of each output in a root of the matrix of coregionalisation, `F = r + p`."""

    kernel: Coregion

    def __call__(self, x: jax.Array) -> jax.Array:
        index, is_one = self.kernel.index(x)
        own = jnp.diag(_root(self.kernel.diagonal))
        root = jnp.concatenate([self.kernel.factor, own], axis=1).astype(x.dtype)
        return jnp.where(is_one[:, None], root[index], jnp.nan)


class Weighted(eqx.Module):
    """Features times the root of a variance."""

    part: Any
    variance: jax.Array

    def __call__(self, x: jax.Array) -> jax.Array:
        return _root(self.variance).astype(x.dtype) * self.part(x)


class Mapped(eqx.Module):
    """Features of other points, made from these."""

    parts: tuple[Any, ...]
    function: Callable[[jax.Array], jax.Array]

    def __call__(self, x: jax.Array) -> jax.Array:
        there = self.function(x)
        return jnp.concatenate([part(there) for part in self.parts], axis=1)


class Each(eqx.Module):
    """A function of one point as one of points."""

    function: Callable[[jax.Array], jax.Array]

    def __call__(self, x: jax.Array) -> jax.Array:
        return jax.vmap(self.function)(x)


class Tensor(eqx.Module):
    """Products of one feature of each factor, all of them; a factor is a tuple of maps."""

    factors: tuple[tuple[Any, ...], ...]

    def __call__(self, x: jax.Array) -> jax.Array:
        total = jnp.ones((len(x), 1), x.dtype)
        for parts in self.factors:
            features = jnp.concatenate([part(x) for part in parts], axis=1)
            total = (total[:, :, None] * features[:, None]).reshape(len(x), -1)
        return total


def _root(variance: jax.Array) -> jax.Array:
    """With derivative 0 at 0, and NaN of what is negative."""
    return safe_sqrt(valid(variance))
