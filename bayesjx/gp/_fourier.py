"""Random Fourier features: finitely many functions whose products are a kernel on average."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import random
from jaxtyping import Array, Float

from .. import kernels
from .._core import nan_if_negative, safe_sqrt
from ..kernels import (
    ArcCosine,
    check_coordinates,
    check_one_coordinate,
    Coregion,
    HARMONICS,
    has_spectrum,
    log_harmonics,
    parameter_dtype,
    real_points,
    sample_spectrum,
    valid_variance,
)


class Waves(eqx.Module):
    """A cosine and a sine of each frequency `(F / 2, d)`, of variances `weights`, `(F / 2,)`."""

    frequencies: Float[Array, "k d"]
    weights: Float[Array, " k"]

    def __call__(self, x: Float[Array, "n d"]) -> Float[Array, "n F"]:
        angle = x @ self.frequencies.astype(x.dtype).T
        scale = _root(self.weights).astype(x.dtype)
        return jnp.concatenate([scale * jnp.cos(angle), scale * jnp.sin(angle)], axis=1)


class Slopes(eqx.Module):
    """Each coordinate less the centre, a scalar or `(d,)`, with `variance` of shape `(d,)`."""

    centre: Float[Array, ...]
    variance: Float[Array, " d"]

    def __call__(self, x: Float[Array, "n d"]) -> Float[Array, "n d"]:
        return _root(self.variance).astype(x.dtype) * (x - self.centre.astype(x.dtype))


class Units(eqx.Module):
    """Hidden units with weights `(F, d + 1)`: steps, rectified linear ones or their squares."""

    kernel: ArcCosine
    weights: Float[Array, "F d_plus_1"]

    def __call__(self, x: Float[Array, "n d"]) -> Float[Array, "n F"]:
        kernel = self.kernel
        fields = kernel._augmented(x) @ self.weights.astype(x.dtype).T
        on = fields > 0
        units = jnp.where(on, fields, 0) ** kernel.order if kernel.order else on.astype(x.dtype)
        return _root(2 * valid_variance(kernel, x.dtype) / len(self.weights)) * units


class Outputs(eqx.Module):
    """The row of each output in a root of the matrix of coregionalisation, `F = r + p`."""

    kernel: Coregion

    def __call__(self, x: Float[Array, "n d"]) -> Float[Array, "n F"]:
        index, is_one = self.kernel.index(x)
        own = jnp.diag(_root(self.kernel.diagonal))
        root = jnp.concatenate([self.kernel.factor, own], axis=1).astype(x.dtype)
        return jnp.where(is_one[:, None], root[index], jnp.nan)


class Weighted(eqx.Module):
    """Features times the root of a variance."""

    part: Any
    variance: Float[Array, ""]

    def __call__(self, x: Float[Array, "n d"]) -> Float[Array, "n F"]:
        return _root(self.variance).astype(x.dtype) * self.part(x)


class Mapped(eqx.Module):
    """Features of other points, made from these."""

    parts: tuple[Any, ...]
    function: Callable[[jax.Array], jax.Array]

    def __call__(self, x: Float[Array, "n d"]) -> Float[Array, "n F"]:
        mapped = self.function(x)
        return jnp.concatenate([part(mapped) for part in self.parts], axis=1)


class Each(eqx.Module):
    """A function of one point as one of points."""

    function: Callable[[jax.Array], jax.Array]

    def __call__(self, x: Float[Array, "n d"]) -> jax.Array:
        return jax.vmap(self.function)(x)


class Tensor(eqx.Module):
    """Products of one feature of each factor, all of them; a factor is a tuple of maps."""

    factors: tuple[tuple[Any, ...], ...]

    def __call__(self, x: Float[Array, "n d"]) -> Float[Array, "n F"]:
        total = jnp.ones((len(x), 1), x.dtype)
        for parts in self.factors:
            features = jnp.concatenate([part(x) for part in parts], axis=1)
            total = (total[:, :, None] * features[:, None]).reshape(len(x), -1)
        return total


def _root(variance: jax.Array) -> jax.Array:
    """With derivative 0 at 0, and NaN of what is negative."""
    return safe_sqrt(nan_if_negative(variance))


class FourierFeatures(eqx.Module):
    """Functions whose inner products estimate a kernel without bias.

    Called with points of shape `(n, d)` or `(n,)` it gives their values, shape `(n, size)`. It is a
    module of arrays: it can be mapped, compiled and differentiated, in points and parameters.

    Attributes:
        parts: functions from points `(n, d)` to some of the features.
        dim: coordinates of a point, $d$.
    """

    parts: tuple[Any, ...]
    dim: int = eqx.field(static=True)

    @property
    def size(self) -> int:
        """How many functions there are."""
        at_one = jax.ShapeDtypeStruct((1, self.dim), jnp.result_type(float))
        return sum(eqx.filter_eval_shape(part, at_one).shape[1] for part in self.parts)

    def __call__(self, x: Any) -> Float[Array, "n F"]:
        x = real_points("x", x)
        if x.shape[1] != self.dim:
            raise ValueError(f"the features are of {self.dim} coordinates, points have {x.shape}")
        return jnp.concatenate([part(x) for part in self.parts], axis=1).astype(x.dtype)


def fourier_features(
    key: jax.Array, kernel: kernels.AbstractKernel, num_features: int, dim: int
) -> FourierFeatures:
    r"""Features $\phi$ with $E\, \phi(x)^\top \phi(x') = k(x, x')$, drawn from the spectrum of $k$.

    A stationary kernel gets cosines and sines of the same frequencies: in pairs they estimate
    variances without error, and covariances with less of it than waves of random phases do
    wherever $k(2\tau) \le 2 k(\tau)^2$. Arc-cosine kernels get hidden units in pairs of opposite
    weights. `Constant`, `Linear`, `Coregion`, `Cosine`, and `Periodic` of one coordinate with at
    least 512 features are exact. Terms of a sum have features of their own. Products are of
    stationary kernels, whose frequencies add; with `Linear` or `Coregion`, products of all pairs of
    features are taken, so that there are more of them; a sum in a product is multiplied out.

    With the key fixed, features are smooth in the parameters, except those of order 0 of the
    arc-cosine kernel, of `alpha` and of several coordinates of `Periodic`, where gradients are
    right on average only (order 0: not at all in the points).

    Args:
        key: of the draw.
        kernel: the covariance function.
        num_features: of each term that is random, at least 2; of an odd number the last is left
            out.
        dim: coordinates of a point.

    Raises:
        ValueError: a kernel that is no function's (`White`) or for which no features are known, a
            product of others than those above, fewer features than components of a mixture.
        RuntimeError: a lengthscale of `Periodic` below 0.03, which needs more harmonics.

    References:
        Rahimi and Recht (2007), "Random features for large-scale kernel machines", NeurIPS;
        Sutherland and Schneider (2015), "On the error of random Fourier features", UAI, for the
        pairs; Cho and Saul (2009), "Kernel methods for deep learning", NeurIPS.
    """
    if num_features < 2 or dim < 1:
        raise ValueError(
            f"num_features must be at least 2 and dim at least 1, got {num_features} and {dim}"
        )
    return FourierFeatures(_features(kernel, key, num_features, dim), dim)


@functools.singledispatch
def _features(kernel: Any, key: jax.Array, num: int, dim: int) -> tuple[Any, ...]:
    """Maps from points to features; of stationary kernels unless they have rules of their own."""
    if not has_spectrum(kernel):
        raise _no_features(kernel)
    return (Waves(*sample_spectrum(key, kernel, num // 2, dim)),)


@_features.register
def _(kernel: kernels.Constant, key: jax.Array, num: int, dim: int) -> tuple[Any, ...]:
    return (Waves(jnp.zeros((1, dim), kernel.variance.dtype), kernel.variance[None]),)


@_features.register
def _(kernel: kernels.Cosine, key: jax.Array, num: int, dim: int) -> tuple[Any, ...]:
    check_coordinates(kernel, "period", dim)
    frequency = jnp.broadcast_to(2 * jnp.pi / nan_if_negative(kernel.period), (dim,))
    return (Waves(frequency[None], kernel.variance[None]),)


@_features.register
def _(kernel: kernels.Periodic, key: jax.Array, num: int, dim: int) -> tuple[Any, ...]:
    if dim > 1 or num // 2 < HARMONICS:
        return (Waves(*sample_spectrum(key, kernel, num // 2, dim)),)
    for name in ("lengthscale", "period"):
        check_coordinates(kernel, name, dim)
    weights = jnp.exp(log_harmonics(jnp.broadcast_to(kernel.lengthscale, (1,)))[0])
    period = jnp.broadcast_to(nan_if_negative(kernel.period), (1,))
    frequencies = 2 * jnp.pi * jnp.arange(HARMONICS) / period
    return (Waves(frequencies[:, None], kernel.variance * weights),)


@_features.register
def _(kernel: kernels.Linear, key: jax.Array, num: int, dim: int) -> tuple[Any, ...]:
    for name in ("variance", "centre"):
        check_coordinates(kernel, name, dim)
    return (Slopes(kernel.centre, jnp.broadcast_to(kernel.variance, (dim,))),)


@_features.register
def _(kernel: kernels.Coregion, key: jax.Array, num: int, dim: int) -> tuple[Any, ...]:
    check_one_coordinate(kernel, dim)
    return (Outputs(kernel),)


@_features.register
def _(kernel: kernels.ArcCosine, key: jax.Array, num: int, dim: int) -> tuple[Any, ...]:
    check_coordinates(kernel, "lengthscale", dim)
    draw = random.normal(key, (num // 2, dim + 1), parameter_dtype(kernel))
    return (Units(kernel, jnp.concatenate([draw, -draw])),)


@_features.register
def _(kernel: kernels.Scaled, key: jax.Array, num: int, dim: int) -> tuple[Any, ...]:
    inner = _features(kernel.kernel, key, num, dim)
    return tuple(Weighted(part, kernel.variance) for part in inner)


@_features.register
def _(kernel: kernels.Sum, key: jax.Array, num: int, dim: int) -> tuple[Any, ...]:
    keys = random.split(key, len(kernel.terms))
    terms = zip(kernel.terms, keys, strict=True)
    return tuple(part for term, k in terms for part in _features(term, k, num, dim))


@_features.register
def _(kernel: kernels.Product, key: jax.Array, num: int, dim: int) -> tuple[Any, ...]:
    waves = tuple(term for term in kernel.terms if has_spectrum(term))
    exact = tuple(term for term in kernel.terms if not has_spectrum(term))
    for term in exact:
        parts = _summands(term)
        if not _is_exact(term) and len(parts) > 1:
            others = tuple(t for t in kernel.terms if t is not term)
            products = tuple(kernels.Product((part, *others)) for part in parts)
            return _features(kernels.Sum(products), key, num, dim)
        if not _is_exact(term):
            raise ValueError(
                "fourier_features: products are of stationary kernels, Linear and Coregion, and "
                f"this one has a factor {_named(term)}"
            )
    factors = [_features(term, key, num, dim) for term in exact]  # which use no key
    if waves:
        factors.insert(0, (Waves(*sample_spectrum(key, kernels.Product(waves), num // 2, dim)),))
    return (Tensor(tuple(factors)),) if len(factors) > 1 else factors[0]


@_features.register
def _(kernel: kernels.OnDims, key: jax.Array, num: int, dim: int) -> tuple[Any, ...]:
    inner = _features(kernel.kernel, key, num, len(kernel.columns(dim)))
    return (Mapped(inner, kernel.select),)


@_features.register
def _(kernel: kernels.Transformed, key: jax.Array, num: int, dim: int) -> tuple[Any, ...]:
    point = jax.ShapeDtypeStruct((dim,), parameter_dtype(kernel))
    mapped = eqx.filter_eval_shape(kernel.function, point)
    if mapped.ndim != 1:
        raise ValueError(f"a transform must give a point of shape (e,), this one gives {mapped}")
    inner = _features(kernel.kernel, key, num, mapped.shape[0])
    return (Mapped(inner, Each(kernel.function)),)


@_features.register
def _(kernel: kernels.White, key: jax.Array, num: int, dim: int) -> tuple[Any, ...]:
    raise _no_features(kernel)


def _is_exact(kernel: Any) -> bool:
    """Whether the features of a kernel that is not stationary are few and exact."""
    if isinstance(kernel, kernels.Scaled | kernels.OnDims):
        return _is_exact(kernel.kernel)
    if isinstance(kernel, kernels.Sum | kernels.Product):
        return all(_is_exact(term) for term in kernel.terms)
    return isinstance(kernel, kernels.Linear | kernels.Coregion | kernels.Constant)


def _summands(kernel: Any) -> list[Any]:
    """The terms of a sum, also of one that is scaled or of some coordinates."""
    if isinstance(kernel, kernels.Scaled):
        return [kernels.Scaled(term, kernel.variance) for term in _summands(kernel.kernel)]
    if isinstance(kernel, kernels.OnDims):
        return [kernels.OnDims(term, kernel.dims) for term in _summands(kernel.kernel)]
    if isinstance(kernel, kernels.Sum):
        return [part for term in kernel.terms for part in _summands(term)]
    return [kernel]


def _named(kernel: Any) -> str:
    inner = isinstance(kernel, kernels.Scaled | kernels.OnDims)
    return _named(kernel.kernel) if inner else type(kernel).__name__


def _no_features(kernel: Any) -> ValueError:
    """The error of a kernel without features."""
    name = type(kernel).__name__
    if isinstance(kernel, kernels.White):
        return ValueError(
            "fourier_features: White is not the covariance of a function; leave it out of the "
            "kernel and add its variance to noise_var"
        )
    return ValueError(f"fourier_features: no random features of {name} are known")
