"""Prior distributions of the random leaves of a network."""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions import constraints
from numpyro.distributions.distribution import ExpandedDistribution, Independent

from .._core import known_field
from ..distributions import Normal, repaired
from ._arguments import positive
from ._leaves import Leaves

WeightPrior = Any  # a number, a distribution, a function of name and shape, or a mapping


class FanIn(eqx.Module):
    r"""Normal prior of weights whose variance is divided by the number of inputs.

    $w \sim N(0, s^2 / n_{\text{in}})$, so that the function's scale does not grow with the width
    of a network. $n_{\text{in}}$ is the size of a leaf without its first axis, as
    `equinox.nn.Linear` and the convolutions have it; leaves called `bias`, and vectors, have the
    standard deviation of biases.

    Args:
        weight_scale: $s$, positive, scalar.
        bias_scale: standard deviation of biases, positive, scalar.

    Raises:
        ValueError: a scale that is not a positive number.

    References:
        Neal (1996), "Bayesian learning for neural networks", section 2.1.
    """

    weight_scale: Float[Array, ""] = known_field()
    bias_scale: Float[Array, ""] = known_field()

    def __init__(self, weight_scale: Any = 1.0, bias_scale: Any = 1.0):
        dtypes = (jnp.result_type(scale) for scale in (weight_scale, bias_scale))
        exact = [t for t in dtypes if jnp.issubdtype(t, jnp.floating)]
        dtype = jnp.result_type(*exact) if exact else jnp.result_type(float)
        self.weight_scale = positive("FanIn", "weight_scale", weight_scale, dtype)
        self.bias_scale = positive("FanIn", "bias_scale", bias_scale, dtype)

    def __call__(self, name: str, shape: tuple[int, ...]) -> dist.Normal:
        """The prior of each element of a leaf of that name and shape."""
        if is_bias(name, shape):
            return Normal(jnp.zeros_like(self.bias_scale), self.bias_scale)
        scale = self.weight_scale / fan_in(name, shape) ** 0.5
        return Normal(jnp.zeros_like(self.weight_scale), scale)


def is_bias(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a leaf counts as one of biases: by its name, or as a vector."""
    return len(shape) < 2 or name.rpartition(".")[2] == "bias"


def fan_in(name: str, shape: tuple[int, ...]) -> int:
    """The number of inputs that a leaf's weights are multiplied with, 1 for biases."""
    return 1 if is_bias(name, shape) else max(math.prod(shape[1:]), 1)


class AbstractJointPrior(eqx.Module):
    """Abstract base class of distributions of all random leaves of one network.

    Attributes:
        leaves: which are random.
    """

    leaves: eqx.AbstractVar[Leaves]

    @property
    @abc.abstractmethod
    def like(self) -> tuple[jax.Array, ...]:
        """Arrays of the shapes and types of the random leaves."""

    @abc.abstractmethod
    def by_leaf(self) -> tuple[dist.Distribution, ...] | None:
        """A distribution that broadcasts to each leaf where they are independent, else None."""

    @abc.abstractmethod
    def log_prob(self, values: tuple[jax.Array, ...]) -> Float[Array, ""]:
        """Joint log density of the random leaves, scalar."""

    @abc.abstractmethod
    def sites(self) -> tuple[Any, ...]:
        """The random leaves as sample sites of a NumPyro program, which have their names."""

    def check_fits(self, owner: str, leaves: Leaves, values: Any) -> None:
        """Refuses other leaves than these.

        Raises:
            ValueError: names or shapes of the leaves differ.
        """
        own = {name: a.shape for name, a in zip(self.leaves.names, self.like, strict=True)}
        given = {name: tuple(v.shape) for name, v in zip(leaves.names, values, strict=True)}
        if own != given:
            raise ValueError(
                f"{owner}: prior must be one of the same random leaves, made of the same network "
                f"and where: it is of {own}, and the leaves are {given}"
            )


def leaf_priors(
    owner: str, prior: WeightPrior, leaves: Leaves, values: Any, *, real: bool = True
) -> tuple[Any, ...]:
    """The prior of each random leaf as one distribution of its shape and type.

    Args:
        owner: function whose argument it is.
        prior: a standard deviation; a distribution that is broadcast to each leaf; a function of a
            leaf's name and shape that returns one of these, such as `FanIn`; a mapping from names
            to them; or a prior of a whole network of independent leaves.
        leaves: which are random.
        values: arrays of these shapes and types.
        real: whether all real numbers must be in the support.

    Raises:
        ValueError: no such prior; a distribution that does not fit a leaf, which is named.
    """
    if isinstance(prior, AbstractJointPrior):
        prior.check_fits(owner, leaves, values)
        prior = dict(zip(leaves.names, _independent(owner, prior), strict=True))
    if isinstance(prior, Mapping):
        missing = sorted(set(leaves.names) - set(prior))
        unknown = sorted(set(prior) - set(leaves.names))
        if missing or unknown:
            raise ValueError(
                f"{owner}: prior must have an entry for each random leaf, {list(leaves.names)}; "
                f"{missing} have none, {unknown} are no such leaves"
            )
    pairs = zip(leaves.names, values, strict=True)
    return tuple(_of_leaf(owner, prior, name, value, real) for name, value in pairs)


def check_prior(owner: str, prior: WeightPrior, leaves: Leaves, values: Any) -> None:
    """Refuses a prior that does not fit the random leaves.

    Raises:
        ValueError: no such prior, or one that does not fit.
    """
    if isinstance(prior, AbstractJointPrior):
        prior.check_fits(owner, leaves, values)
    else:
        leaf_priors(owner, prior, leaves, values)


def joint_log_prior(
    owner: str, prior: WeightPrior, leaves: Leaves, values: tuple[jax.Array, ...]
) -> Float[Array, ""]:
    """Log density of the random leaves under any prior, scalar; see `leaf_priors`."""
    if isinstance(prior, AbstractJointPrior):
        prior.check_fits(owner, leaves, values)
        return prior.log_prob(values)
    return log_prior(leaf_priors(owner, prior, leaves, values), values)


def log_prior(priors: tuple[Any, ...], values: tuple[jax.Array, ...]) -> Float[Array, ""]:
    """Log density of the random leaves, scalar."""
    terms = [repaired(p).log_prob(value) for p, value in zip(priors, values, strict=True)]
    return total(terms, values)


def total(terms: list[Any], values: tuple[jax.Array, ...]) -> Float[Array, ""]:
    """The sum of scalars, in the widest type of the leaves."""
    dtype = jnp.result_type(*[value.dtype for value in values])
    return jnp.sum(jnp.stack([jnp.asarray(term, dtype) for term in terms]))


def normal_parameters(prior: Any) -> tuple[Any, Any] | None:
    """Mean and standard deviation that broadcast to a leaf if its prior is normal, else None."""
    while isinstance(prior, ExpandedDistribution | Independent):
        prior = prior.base_dist
    return (prior.loc, prior.scale) if isinstance(prior, dist.Normal) else None


def _independent(owner: str, prior: AbstractJointPrior) -> tuple[dist.Distribution, ...]:
    distributions = prior.by_leaf()
    if distributions is None:
        raise ValueError(
            f"{owner}: prior must be one of independent leaves, such as bnn.normal_prior(network), "
            f"but the leaves of a {type(prior).__name__} depend on each other"
        )
    return distributions


def _of_leaf(owner: str, prior: Any, name: str, value: Any, real: bool) -> Any:
    if isinstance(prior, Mapping):
        prior = prior[name]
    if callable(prior) and not isinstance(prior, dist.Distribution):
        prior = prior(name, tuple(value.shape))
    if not isinstance(prior, dist.Distribution):
        prior = Normal(jnp.zeros((), value.dtype), _scale(owner, prior, value.dtype))
    lead = value.shape[: value.ndim - prior.event_dim]
    try:
        whole = prior.expand(lead)
        fits = (*whole.batch_shape, *whole.event_shape) == tuple(value.shape)
    except (TypeError, ValueError):
        fits, whole = False, prior
    if not fits:
        raise ValueError(
            f"{owner}: prior of {name} must broadcast to its shape {tuple(value.shape)}, but has "
            f"batches of shape {prior.batch_shape} of values of shape {prior.event_shape}"
        )
    if real and not _is_real(prior.support):
        raise ValueError(
            f"{owner}: prior of {name} must be a distribution of all real numbers, but the support "
            f"of {type(prior).__name__} is {prior.support}"
        )
    cast = lambda x: x.astype(value.dtype) if eqx.is_inexact_array(x) else x  # noqa: E731
    return jax.tree.map(cast, whole.to_event(len(lead)))


def _scale(owner: str, prior: Any, dtype: Any) -> jax.Array:
    if isinstance(prior, bool) or not (eqx.is_array_like(prior) and jnp.ndim(prior) == 0):
        raise ValueError(
            f"{owner}: prior must be a standard deviation, a NumPyro distribution, a mapping from "
            "names of leaves to them, or a function of name and shape such as bnn.FanIn(); got "
            f"{prior!r:.80}"
        )
    return positive(owner, "prior", prior, dtype)


def _is_real(support: Any) -> bool:
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return support is constraints.real or support is constraints.real_vector
