"""Normalising flows as priors of a network's layers."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from ..._core import check_key, constrained_field, known_field, whole_number
from .._leaves import Leaves, Where
from .._network import Held
from .._priors import total
from ._prior import AbstractNetworkPrior, held_network, in_types, start_scales, widths


class PlanarFlow(eqx.Module):
    r"""Planar maps one after another, $z \mapsto z + \hat u \tanh(w^\top z + b)$.

    $\hat u = u + (\mathrm{softplus}(w^\top u) - 1 - w^\top u) \, w / \lVert w \rVert^2$ keeps each
    of them invertible. FlowJAX's `Planar` has no inverse with the hyperbolic tangent, and without
    one the density at given weights is not known; this one solves one monotone equation in one
    unknown.

    Attributes:
        weights: $w$ of each map.
        shifts: $u$ of each map.
        biases: $b$ of each map.

    References:
        Rezende and Mohamed (2015), "Variational inference with normalizing flows", ICML, equations
        10 to 12 and appendix A.1.
    """

    weights: Float[Array, "k d"]
    shifts: Float[Array, "k d"]
    biases: Float[Array, " k"]

    def forward(self, z: Float[Array, " d"]) -> tuple[Float[Array, " d"], Float[Array, ""]]:
        """The image of a point, and the log determinant of the derivative there."""

        def apply(z: jax.Array, layer: Any) -> tuple[jax.Array, jax.Array]:
            weight, shift, bias, slope = layer
            height = jnp.tanh(weight @ z + bias)
            return z + shift * height, jnp.log1p(slope * (1 - height**2))

        image, log_dets = jax.lax.scan(apply, z, self._layers())
        return image, jnp.sum(log_dets)

    def inverse(self, y: Float[Array, " d"]) -> tuple[Float[Array, " d"], Float[Array, ""]]:
        """The point whose image this is, and the log determinant of the derivative at it."""

        def undo(y: jax.Array, layer: Any) -> tuple[jax.Array, jax.Array]:
            weight, shift, bias, slope = layer
            height = jnp.tanh(_solved(weight @ y + bias, slope))
            return y - shift * height, jnp.log1p(slope * (1 - height**2))

        point, log_dets = jax.lax.scan(undo, y, self._layers(), reverse=True)
        return point, jnp.sum(log_dets)

    def _layers(self) -> Any:
        r"""Parameters of the maps, with $\hat u$ in the place of $u$, and $w^\top \hat u > -1$."""
        squares = jnp.sum(self.weights**2, -1)
        slopes = jnp.sum(self.weights * self.shifts, -1)
        allowed = jax.nn.softplus(slopes) - 1
        factor = (allowed - slopes) / squares
        return self.weights, self.shifts + factor[:, None] * self.weights, self.biases, allowed


class FlowPrior(AbstractNetworkPrior):
    """The weights of each layer as the image of normal ones under a flow; see `flow_prior`.

    Attributes:
        network: which it is of.
        leaves: which are random.
        layers: names of the layers, which are what holds the leaves.
        places: numbers of the leaves of each layer.
        flows: of each layer.
        scales: one for each leaf, before the division by the square root of the inputs.
    """

    leaves: Leaves
    layers: tuple[str, ...] = known_field(static=True)
    places: tuple[tuple[int, ...], ...] = known_field(static=True)
    flows: tuple[PlanarFlow, ...] = constrained_field(constraints.real)
    scales: tuple[Float[Array, ""], ...] = constrained_field(constraints.positive)
    network: Held = known_field()

    def by_leaf(self) -> None:
        return None

    def draw(self, key: jax.Array) -> tuple[jax.Array, ...]:
        keys = jax.random.split(key, len(self.flows))
        parts = zip(keys, self.flows, strict=True)
        return self._leaves(
            [jax.random.normal(k, flow.weights.shape[1:], flow.weights.dtype) for k, flow in parts]
        )

    def log_prob(self, values: tuple[jax.Array, ...]) -> Float[Array, ""]:
        values, terms = in_types(self, values), []
        scales = [scale * width for scale, width in zip(self.scales, widths(self), strict=True)]
        for own, flow in zip(self.places, self.flows, strict=True):
            units = jnp.concatenate([jnp.ravel(values[i] / scales[i]) for i in own])
            point, log_det = flow.inverse(units)
            log_det += sum(values[i].size * jnp.log(scales[i]) for i in own)
            normal = -0.5 * (point @ point + point.size * jnp.log(2 * jnp.pi))
            terms.append(normal - log_det)
        return total(terms, values)

    def sites(self) -> tuple[Any, ...]:
        bases = []
        for layer, flow in zip(self.layers, self.flows, strict=True):
            zeros = jnp.zeros_like(flow.weights[0])
            name = f"{layer}.base" if layer else "base"
            value = numpyro.sample(name, dist.Normal(zeros, 1).to_event(1))
            bases.append(jnp.asarray(value).astype(zeros.dtype))
        pairs = zip(self.leaves.names, self._leaves(bases), strict=True)
        return tuple(numpyro.deterministic(name, value) for name, value in pairs)

    def _leaves(self, bases: list[jax.Array]) -> tuple[jax.Array, ...]:
        """The leaves that standard normal vectors, one for each layer, are mapped to."""
        found, like, width = {}, self.like, widths(self)
        for own, flow, base in zip(self.places, self.flows, bases, strict=True):
            units, start = flow.forward(base)[0], 0
            for i in own:
                part = units[start : start + like[i].size].reshape(like[i].shape)
                found[i] = (self.scales[i] * width[i] * part).astype(like[i].dtype)
                start += like[i].size
        return tuple(found[i] for i in range(len(found)))


def flow_prior(
    key: jax.Array,
    network: Any,
    num_layers: int = 4,
    weight_scale: Any = 1.0,
    bias_scale: Any = 1.0,
    *,
    where: Where = None,
) -> FlowPrior:
    r"""Planar flows on the weights of each layer of a network, to be learned.

    The vector of all random leaves of a layer, weights and biases, is that of independent standard
    normal numbers under a few planar maps, times $s / \sqrt{k}$ of each leaf with `k` inputs. They
    start at the identity, and so at `normal_prior`.

    Args:
        key: PRNG key, of where the maps start.
        network: a callable Equinox module of one input.
        num_layers: planar maps on each layer of the network.
        weight_scale: $s$ of all leaves of weights to start from, positive, scalar.
        bias_scale: $s$ of all leaves of biases.
        where: which leaves are random, see `mean_field`.

    Raises:
        ValueError: no key, network, leaves or number; a scale that is not a positive number.

    References:
        Tran, Rossi, Milios and Filippone (2022), "All you need is a good functional prior for
        Bayesian deep learning", JMLR 23, section 4.2.
    """
    check_key(key)
    number = whole_number("flow_prior: num_layers", num_layers)
    held, leaves = held_network("flow_prior", network, where)
    scales = start_scales("flow_prior", leaves, held, weight_scale, bias_scale)
    groups: dict[str, list[int]] = {}
    for i, name in enumerate(leaves.names):
        groups.setdefault(name.rpartition(".")[0], []).append(i)
    places = tuple(tuple(own) for own in groups.values())
    values = leaves.of(held.tree)
    flows = []
    for own, layer_key in zip(places, jax.random.split(key, len(places)), strict=True):
        size = sum(values[i].size for i in own)
        dtype = jnp.result_type(*[values[i] for i in own])
        flows.append(_identity_flow(layer_key, number, size, dtype))
    return FlowPrior(
        network=held,
        leaves=leaves,
        layers=tuple(groups),
        places=places,
        flows=tuple(flows),
        scales=scales,
    )


def _identity_flow(key: jax.Array, number: int, size: int, dtype: Any) -> PlanarFlow:
    """Maps in random directions that do nothing yet: softplus(w^T u) = 1, and thus u^ = 0."""
    weights = jax.random.normal(key, (number, size), dtype) / size**0.5
    squares = jnp.sum(weights**2, -1, keepdims=True)
    return PlanarFlow(weights, np.log(np.e - 1) * weights / squares, jnp.zeros(number, dtype))


def _solved(target: jax.Array, slope: jax.Array) -> jax.Array:
    r"""The $a$ with $a + s \tanh(a) = t$ for $s > -1$, differentiable in both.

    By bisection, since Newton's method cycles where the slope is near -1; a last Newton step
    has the derivatives of the solution.
    """
    known, steep = jax.lax.stop_gradient((target, slope))
    low, high = known - jnp.abs(steep), known + jnp.abs(steep)

    def halve(_: Any, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        middle = (bounds[0] + bounds[1]) / 2
        above = middle + steep * jnp.tanh(middle) > known
        return jnp.where(above, bounds[0], middle), jnp.where(above, middle, bounds[1])

    steps = 60 if target.dtype == jnp.float64 else 30
    low, high = jax.lax.fori_loop(0, steps, halve, (low, high))
    start = jax.lax.stop_gradient((low + high) / 2)
    height = jnp.tanh(start)
    steepness = jax.lax.stop_gradient(1 + slope * (1 - height**2))
    return start - (start + slope * height - target) / steepness
