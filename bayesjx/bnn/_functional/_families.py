"""Normal and hierarchical priors of a network's weights, with parameters to learn."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import gammaln
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from ..._core import check_key, constrained_field, known_field
from ...distributions import Normal
from .._arguments import positive
from .._leaves import Leaves, Where
from .._network import check_network, Held
from .._priors import leaf_priors, log_prior, total
from ._prior import AbstractNetworkPrior, held_network, in_types, start_scales, widths


class NormalPrior(AbstractNetworkPrior):
    """Independent normal weights with a standard deviation for each leaf; see `normal_prior`.

    Attributes:
        network: which it is of.
        leaves: which are random.
        scales: one for each leaf, before the division by the square root of the inputs.
    """

    leaves: Leaves
    scales: tuple[Float[Array, ""], ...] = constrained_field(constraints.positive)
    network: Held = known_field()

    def by_leaf(self) -> tuple[dist.Distribution, ...]:
        pairs = zip(self.scales, widths(self), strict=True)
        return tuple(Normal(jnp.zeros_like(scale), scale * width) for scale, width in pairs)

    def draw(self, key: jax.Array) -> tuple[jax.Array, ...]:
        return tuple(
            scale * width * unit
            for scale, width, unit in zip(
                self.scales, widths(self), standard_normals(key, self.like), strict=True
            )
        )

    def log_prob(self, values: tuple[jax.Array, ...]) -> Float[Array, ""]:
        values = in_types(self, values)
        return log_prior(leaf_priors("log_prob", self, self.leaves, values), values)

    def sites(self) -> tuple[Any, ...]:
        priors = leaf_priors("random_network", self, self.leaves, self.like)
        pairs = zip(self.leaves.names, priors, strict=True)
        return tuple(numpyro.sample(name, prior) for name, prior in pairs)


class HierarchicalPrior(AbstractNetworkPrior):
    r"""Normal weights whose precision, one for each leaf, is random; see `hierarchical_prior`.

    Attributes:
        network: which it is of.
        leaves: which are random.
        concentrations: $a$ of each leaf.
        rates: $b$ of each leaf.
    """

    leaves: Leaves
    concentrations: tuple[Float[Array, ""], ...] = constrained_field(constraints.positive)
    rates: tuple[Float[Array, ""], ...] = constrained_field(constraints.positive)
    network: Held = known_field()

    def by_leaf(self) -> None:
        return None

    def draw(self, key: jax.Array) -> tuple[jax.Array, ...]:
        for_scales, for_units = jax.random.split(key)
        scales = self._scales(for_scales)
        units = standard_normals(for_units, self.like)
        triples = zip(scales, widths(self), units, strict=True)
        return tuple(scale * width * unit for scale, width, unit in triples)

    def log_prob(self, values: tuple[jax.Array, ...]) -> Float[Array, ""]:
        r"""Joint log density of the random leaves without the precisions, scalar.

        Those are integrated out: each leaf has a multivariate Student distribution with $2a$
        degrees of freedom and the scale $\sqrt{b / a}$, over the square root of the inputs.
        """
        values = in_types(self, values)
        parts = zip(self.concentrations, self.rates, widths(self), values, strict=True)
        return total([_log_student(*part) for part in parts], values)

    def sites(self) -> tuple[Any, ...]:
        drawn = []
        parts = zip(
            self.leaves.names, self.concentrations, self.rates, widths(self), self.like, strict=True
        )
        for name, concentration, rate, width, like in parts:
            precision = numpyro.sample(f"{name}.precision", dist.Gamma(concentration, rate))
            scale = width / jnp.sqrt(jnp.asarray(precision).astype(like.dtype))
            normal = Normal(jnp.zeros_like(scale), scale).expand(like.shape).to_event(like.ndim)
            drawn.append(numpyro.sample(name, normal))
        return tuple(drawn)

    def precisions(self, key: jax.Array, network: Any = None) -> tuple[Float[Array, ""], ...]:
        r"""Draws the precisions of all leaves, by themselves or given the weights.

        Args:
            key: PRNG key.
            network: one with the weights $w$, of which the result is then a Gibbs step: draws from
                $\mathrm{Gamma}(a + n / 2, b + k \sum w^2 / 2)$ for leaves of $n$ weights and $k$
                inputs.

        Raises:
            ValueError: no key, or a network with other leaves.
        """
        check_key(key)
        concentrations, rates = self.concentrations, self.rates
        if network is not None:
            values = self._values_of(network)
            concentrations = tuple(
                a + value.size / 2 for a, value in zip(concentrations, values, strict=True)
            )
            rates = tuple(
                b + jnp.sum((value / width) ** 2) / 2
                for b, value, width in zip(rates, values, widths(self), strict=True)
            )
        pairs = zip(rates, _log_gammas(key, concentrations), strict=True)
        return tuple(jnp.exp(log) / rate for rate, log in pairs)

    def given(self, precisions: tuple[Any, ...]) -> NormalPrior:
        """The prior of the weights where their precisions are known.

        Args:
            precisions: one for each leaf, positive.

        Raises:
            ValueError: another number of them, or some that are not positive.
        """
        if len(precisions) != len(self.rates):
            raise ValueError(
                f"given: precisions must be {len(self.rates)}, one for each of "
                f"{list(self.leaves.names)}; got {len(precisions)}"
            )
        scales = tuple(
            1 / jnp.sqrt(positive("given", "precisions", precision, rate.dtype))
            for precision, rate in zip(precisions, self.rates, strict=True)
        )
        return NormalPrior(network=self.network, leaves=self.leaves, scales=scales)

    def _values_of(self, network: Any) -> tuple[jax.Array, ...]:
        """The random leaves of another network like that of this prior."""
        check_network("precisions", network)
        try:
            values = self.leaves.of(network)
        except IndexError:
            values = ()
        shapes = [value.shape for value in self.like]
        if [jnp.shape(value) for value in values if eqx.is_inexact_array(value)] != shapes:
            raise ValueError(
                "precisions: network must be like that of the prior, with leaves "
                f"{list(self.leaves.names)} of shapes {shapes}"
            )
        return in_types(self, values)

    def _scales(self, key: jax.Array) -> tuple[jax.Array, ...]:
        """Standard deviations of the leaves; in logarithms, as small concentrations underflow."""
        logs = _log_gammas(key, self.concentrations)
        pairs = zip(self.rates, logs, strict=True)
        return tuple(jnp.exp((jnp.log(rate) - log) / 2) for rate, log in pairs)


def normal_prior(
    network: Any, weight_scale: Any = 1.0, bias_scale: Any = 1.0, *, where: Where = None
) -> NormalPrior:
    r"""Independent normal weights, with a standard deviation $s$ for each leaf to be learned.

    $w \sim N(0, s^2 / k)$ with `k` inputs and $b \sim N(0, s^2)$, as `FanIn` has them.

    Args:
        network: a callable Equinox module of one input.
        weight_scale: $s$ of all leaves of weights to start from, positive, scalar.
        bias_scale: $s$ of all leaves of biases.
        where: which leaves are random, see `mean_field`.

    Raises:
        ValueError: no such network or leaves; a scale that is not a positive number.

    References:
        Tran, Rossi, Milios and Filippone (2022), "All you need is a good functional prior for
        Bayesian deep learning", JMLR 23, section 4.2.
    """
    held, leaves = held_network("normal_prior", network, where)
    scales = start_scales("normal_prior", leaves, held, weight_scale, bias_scale)
    return NormalPrior(network=held, leaves=leaves, scales=scales)


def hierarchical_prior(
    network: Any, concentration: Any = 3.0, rate: Any = 3.0, *, where: Where = None
) -> HierarchicalPrior:
    r"""Normal weights with a random precision for each leaf, of a learned Gamma distribution.

    $s^{-2} \sim \mathrm{Gamma}(a, b)$ and $w \sim N(0, s^2 / k)$ with `k` inputs;
    biases have one. All weights of a leaf share $s$, so that functions differ in their scales and
    lengthscales, which normal weights cannot give. As a mixture over $s$ is a Student
    distribution, densities are exact without it; as sites of a NumPyro program the precisions are
    there, under the name of the leaf and `.precision`.

    Args:
        network: a callable Equinox module of one input.
        concentration: $a$ of all leaves to start from, positive, scalar.
        rate: $b$ of all leaves to start from, positive, scalar.
        where: which leaves are random, see `mean_field`.

    Raises:
        ValueError: no such network or leaves; parameters that are not positive numbers.

    References:
        Tran, Rossi, Milios and Filippone (2022), "All you need is a good functional prior for
        Bayesian deep learning", JMLR 23, section 4.2.
    """
    owner = "hierarchical_prior"
    held, leaves = held_network(owner, network, where)
    of_each = lambda argument, value: tuple(  # noqa: E731
        positive(owner, argument, value, like.dtype) for like in leaves.of(held.tree)
    )
    return HierarchicalPrior(
        network=held,
        leaves=leaves,
        concentrations=of_each("concentration", concentration),
        rates=of_each("rate", rate),
    )


def standard_normals(key: jax.Array, like: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    """Independent standard normal numbers in the shapes and types of some arrays."""
    keys = jax.random.split(key, len(like))
    return tuple(jax.random.normal(k, a.shape, a.dtype) for k, a in zip(keys, like, strict=True))


def _log_gammas(key: jax.Array, concentrations: tuple[Any, ...]) -> tuple[jax.Array, ...]:
    """Logarithms of Gamma variables of rate 1, drawn at once: each draw compiles for seconds."""
    dtype = jnp.result_type(*concentrations)
    together = jnp.stack([jnp.asarray(a).astype(dtype) for a in concentrations])
    logs = jax.random.loggamma(key, together, dtype=dtype)
    pairs = zip(logs, concentrations, strict=True)
    return tuple(log.astype(jnp.result_type(a)) for log, a in pairs)


def _log_student(concentration: Any, rate: Any, width: float, value: jax.Array) -> jax.Array:
    """Log density of a leaf, its precision integrated out."""
    size = value.size
    energy = jnp.sum((value / width) ** 2) / 2
    constants = gammaln(concentration + size / 2) - gammaln(concentration)
    constants -= size * (jnp.log(2 * jnp.pi * rate) / 2 + jnp.log(width))
    return constants - (concentration + size / 2) * jnp.log1p(energy / rate)
