"""Stochastic optimisation of sparse variational processes, by natural gradients or Adam alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int

from .._core import Algorithm, gradient_algorithm, GradientState, inverse_tril, learnable
from ._arguments import check_optimizer
from ._inverse_factor import root_of_inverse
from ._svgp import AbstractSVGP, Projection, total, WhitenedNormal


class NaturalNormal(NamedTuple):
    r"""The normal distribution of inducing variables by its natural parameters.

    Attributes:
        precision: $\Lambda = S^{-1}$, shape `(..., m, m)`.
        shift: $S^{-1} m$, shape `(..., m)`.
    """

    precision: Float[Array, "... m m"]
    shift: Float[Array, "... m"]


class NaturalState(NamedTuple):
    """State of natural gradients: the distributions of the inducing variables.

    Attributes:
        blocks: distributions of the inducing variables.
        normals: the same by natural parameters.
        count: number of steps made, integer.
    """

    blocks: tuple[WhitenedNormal, ...]
    normals: tuple[NaturalNormal, ...]
    count: Int[Array, ""]


def svgp_adam(
    svgp: AbstractSVGP,
    optimizer: optax.GradientTransformation,
    *,
    num_data: int,
    trainable: Callable[[Any], Any] | None = None,
) -> Algorithm:
    """Stochastic gradient ascent of all parameters together, for `bayesjx.fit`.

    Simple and the cheapest step; `svgp_natgrad` needs far fewer of them.

    Args:
        svgp: where to start.
        optimizer: Optax gradient transformation, such as `optax.adam(1e-2)`. Positive fields move
            on a logarithmic scale.
        num_data: number of all data, of which minibatches are drawn.
        trainable: chooses what changes, `trainable(svgp)` a leaf or a list of leaves; by default
            every floating-point array that the bound depends on.

    Returns:
        `init() -> GradientState`, `step(key, state, x, y) -> (GradientState, GradientInfo)` and a
        diagnosis. `svgp.trained(state)` is the result.

    Raises:
        ValueError: nothing to train; when traced, what `elbo` of the process raises.
    """
    check_optimizer(optimizer)
    return gradient_algorithm(
        Partial(_bound, num_data),
        svgp,
        optimizer,
        trainable=trainable,
        maximise=True,
        diagnose=_diagnosis(svgp),
    )


def _bound(num_data: int, key: jax.Array, svgp: AbstractSVGP, x: Any, y: Any) -> jax.Array:
    return svgp.elbo(x, y, num_data, key=key)


def svgp_natgrad(
    svgp: AbstractSVGP,
    optimizer: optax.GradientTransformation | None,
    gamma: float | Callable[[jax.Array], Any] = 0.1,
    *,
    num_data: int,
    trainable: Callable[[Any], Any] | None = None,
) -> Algorithm:
    r"""Natural gradients for the distributions of inducing variables, Optax for the rest.

    With $g$ and $h$ the derivatives of an expected log density in mean and variance of the
    function, and $\phi$ the features, a step makes
    $\Lambda \leftarrow (1 - \gamma) \Lambda + \gamma (I - 2 w \sum_n h_n \phi_n \phi_n^\top)$ and
    $\Lambda m \leftarrow (1 - \gamma) \Lambda m + \gamma w \sum_n (g_n - 2 h_n \phi_n^\top m)
    \phi_n$, then a step of Optax on kernel, points and likelihood at the new distribution.
    Nothing is differentiated through that, and $\Lambda$ stays positive definite at any `gamma` up
    to 1: $h$, negative wherever the likelihood is log-concave, is clipped at 0 elsewhere. With
    normal noise and all data, `gamma = 1` finds the optimum at once. Several blocks, as of
    `DecoupledSVGP`, are moved in turn, each given the others.

    Args:
        svgp: where to start.
        optimizer: Optax gradient transformation for all but these; None keeps all of that.
        gamma: length of the natural step, in (0, 1], or a schedule of Optax. For likelihoods other
            than normal ones start small, as with `optax.linear_schedule(1e-3, 0.1, 20)`.
        num_data: number of all data, of which minibatches are drawn.
        trainable: chooses what Optax changes, `trainable(svgp)` a leaf or a list of leaves; by
            default every floating-point array besides these that the bound depends on.

    Returns:
        `init() -> GradientState`, `step(key, state, x, y) -> (GradientState, GradientInfo)` and a
        diagnosis. `svgp.trained(state)` is the result.

    Raises:
        ValueError: `gamma` is out of range; when traced, what `elbo` of the process raises.

    References:
        Khan and Lin (2017), "Conjugate-computation variational inference", AISTATS, equation 9;
        Salimbeni, Eleftheriadis and Hensman (2018), "Natural gradients in practice: non-conjugate
        variational inference in Gaussian process models", AISTATS (the schedule).
    """
    if not callable(gamma) and not 0 < gamma <= 1:
        raise ValueError(f"svgp_natgrad: gamma must be in (0, 1], got {gamma}")
    if optimizer is not None:
        check_optimizer(optimizer)
    spec = learnable(svgp, trainable)
    spec = eqx.tree_at(lambda s: s.blocks, spec, jax.tree.map(lambda _: False, svgp.blocks))
    natural = NaturalState(svgp.blocks, tuple(map(_natural, svgp.blocks)), jnp.zeros((), jnp.int32))
    return gradient_algorithm(
        Partial(_natural_loss, gamma, num_data),
        svgp,
        optimizer,
        trainable=spec,
        natural=natural,
        diagnose=_diagnosis(svgp),
    )


def _natural_loss(
    gamma: Any,
    num_data: int,
    key: jax.Array,
    svgp: AbstractSVGP,
    natural: NaturalState,
    x: Any,
    y: Any,
) -> tuple[jax.Array, jax.Array, NaturalState]:
    """The negative bound after the natural step, the bound before it, and what it led to."""
    length = gamma(natural.count) if callable(gamma) else gamma
    now = svgp.with_blocks(natural.blocks)
    x, y, weight = now.batch(x, y, num_data)
    at = now.project(x)  # once, for both steps
    held, held_at = jax.lax.stop_gradient((eqx.filter(now, eqx.is_array), at))
    held = eqx.combine(held, now)
    before, blocks, normals = _natural_step(held, held_at, y, weight, natural.normals, length, key)
    value = now.with_blocks(blocks).bound(at, y, weight, key)
    return -value, before, NaturalState(blocks, normals, natural.count + 1)


def _natural_step(
    svgp: AbstractSVGP,
    at: Projection,
    y: jax.Array,
    weight: Any,
    natural: tuple[NaturalNormal, ...],
    gamma: Any,
    key: jax.Array,
) -> tuple[jax.Array, tuple[WhitenedNormal, ...], tuple[NaturalNormal, ...]]:
    """The bound before the step, and the distributions after it, in both forms."""
    parts, blocks, naturals = svgp.contributions(at), list(svgp.blocks), list(natural)
    before = -jnp.stack([block.divergence() for block in blocks]).sum()

    def data(moments: tuple[jax.Array, jax.Array]) -> jax.Array:
        return weight * jnp.sum(svgp.data_term(at, y, *moments, key))

    for i, phi in enumerate(at.features):
        value, (slope, curvature) = jax.value_and_grad(data)(total(parts))
        if i == 0:
            before = before + value
        naturals[i] = _mixed(naturals[i], phi, parts[i][0], slope, curvature, gamma)
        blocks[i] = _moments(naturals[i])
        if i + 1 < len(blocks):
            parts[i] = blocks[i].through(phi)
    return before, tuple(blocks), tuple(naturals)


def _mixed(
    normal: NaturalNormal, phi: jax.Array, mean: Any, slope: Any, curvature: Any, gamma: Any
) -> NaturalNormal:
    """The distribution moved along the natural gradient; data are `(n,)` or `(n, l)`."""
    weight = jnp.maximum(-2 * curvature, 0)
    site = (phi * weight.T[..., None, :]) @ phi.T
    target = site + jnp.eye(len(phi), dtype=phi.dtype)
    shift = (slope + weight * mean).T @ phi.T
    gamma = jnp.asarray(gamma, phi.dtype)
    return NaturalNormal(
        (1 - gamma) * normal.precision + gamma * target, (1 - gamma) * normal.shift + gamma * shift
    )


def _moments(normal: NaturalNormal) -> WhitenedNormal:
    tril = root_of_inverse(normal.precision)
    return WhitenedNormal((tril @ (tril.mT @ normal.shift[..., None]))[..., 0], tril)


def _natural(normal: WhitenedNormal) -> NaturalNormal:
    inverse = inverse_tril(jnp.tril(normal.scale_tril))
    precision = inverse.mT @ inverse
    return NaturalNormal(precision, (precision @ normal.mean[..., None])[..., 0])


def _diagnosis(svgp: AbstractSVGP) -> Callable[..., str]:
    def diagnose(key: jax.Array, state: GradientState, x: Any, y: Any) -> str:
        now = svgp.trained(state)
        x, y, _ = now.batch(x, y, None)
        at = now.project(x)
        if not all(bool(jnp.all(jnp.isfinite(phi))) for phi in at.features):
            return "the covariance of the inducing points has no Cholesky factor even with jitter"
        mean, variance = total(now.contributions(at))
        if not bool(jnp.all(jnp.isfinite(mean)) & jnp.all(jnp.isfinite(variance))):
            return "the distribution of the inducing variables is not finite; take shorter steps"
        term = now.data_term(at, y, mean, variance, key)
        bad = ~jnp.isfinite(term)
        if bool(jnp.any(bad)):
            return (
                f"the expected log density of {int(jnp.sum(bad))} of {len(x)} observations is not "
                f"finite, first of number {int(jnp.argmax(bad))} of the batch"
            )
        return "the bound is finite at this state; its gradient or the update is not"

    return diagnose
