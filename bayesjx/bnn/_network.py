"""Networks: what they must be, and their values at many inputs."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float

from .._core import is_array, whole_number
from ..likelihoods import in_support, Likelihood, log_likelihood
from ._arguments import inputs
from ._leaves import Leaves, random_leaves, Where
from ._priors import joint_log_prior, WeightPrior


@dataclasses.dataclass(frozen=True)
class Place:
    """A leaf of a tree: its value in a tuple, which is empty for an array."""

    value: tuple[Any, ...] = ()


class Skeleton:
    """A hashable pytree without its arrays, whose copies and pickles are equal to it.

    Structures of modules that are copied by themselves are not.

    Attributes:
        structure: of the tree.
        leaves: a `Place` for each leaf.

    Args:
        tree: with a `Place` for each leaf.
    """

    def __init__(self, tree: Any):
        leaves, self.structure = jax.tree.flatten(tree)
        self.leaves = tuple(leaves)

    def __eq__(self, other: object) -> bool:
        same = isinstance(other, Skeleton) and self.structure == other.structure
        return same and self.leaves == other.leaves

    def __hash__(self) -> int:
        return hash((self.structure, self.leaves))

    def __reduce__(self) -> tuple[Any, ...]:
        return Skeleton, (jax.tree.unflatten(self.structure, self.leaves),)


class Held(eqx.Module):
    """A pytree whose arrays are leaves and whose other leaves are static.

    So that what holds a network can be passed through `jax.jit`.

    Attributes:
        arrays: of the tree, in its order.
        rest: all else.
    """

    arrays: tuple[Any, ...]
    rest: Skeleton = eqx.field(static=True)

    def __init__(self, tree: Any):
        leaves, structure = jax.tree.flatten(tree)
        self.arrays = tuple(leaf for leaf in leaves if is_array(leaf))
        places = [Place() if is_array(leaf) else Place((leaf,)) for leaf in leaves]
        self.rest = Skeleton(jax.tree.unflatten(structure, places))

    @property
    def tree(self) -> Any:
        """The tree, with whatever the arrays are now."""
        arrays = iter(self.arrays)
        leaves = [p.value[0] if p.value else next(arrays) for p in self.rest.leaves]
        return jax.tree.unflatten(self.rest.structure, leaves)


class Outputs(eqx.Module):
    """A likelihood of networks with several outputs, whose distributions are of whole rows.

    Of the axes of a batch that are not those of the data, as a normal distribution of each output
    has, it makes axes of an event.

    Attributes:
        likelihood: from values of the network to a distribution.
        lead: number of axes of the data.
    """

    likelihood: Any
    lead: int = eqx.field(static=True, default=1)

    def __call__(self, f: jax.Array) -> Any:
        observed = self.likelihood(f)
        if not isinstance(observed, dist.Distribution):
            return observed
        return observed.to_event(max(len(observed.batch_shape) - self.lead, 0))


def check_network(owner: str, network: Any) -> None:
    """Refuses what is no network of one input.

    Raises:
        ValueError: it is not callable, a class, or has layers with a state.
    """
    if isinstance(network, type) or not callable(network):
        raise ValueError(
            f"{owner}: network must be a callable Equinox module such as eqx.nn.MLP(...), got "
            f"{network!r:.80}"
        )
    nodes = jax.tree.leaves(network, is_leaf=_has_state)
    for node in nodes:
        if _has_state(node):
            raise ValueError(
                f"{owner}: network must have no state, but has a {type(node).__name__}; "
                "use a layer such as eqx.nn.LayerNorm or GroupNorm"
            )


def _has_state(node: Any) -> bool:
    kinds = eqx.nn.StatefulLayer | eqx.nn.StateIndex
    return isinstance(node, kinds) and not isinstance(node, eqx.nn.Sequential)


def takes_key(network: Any) -> bool:
    """Whether calls of a network may have an argument `key`."""
    try:
        return "key" in inspect.signature(network).parameters
    except (TypeError, ValueError):
        return False


def parameter_dtype(network: Any) -> Any:
    """The type of a network's floating-point arrays, or the default one."""
    dtypes = [leaf.dtype for leaf in jax.tree.leaves(network) if eqx.is_inexact_array(leaf)]
    return jnp.result_type(*dtypes) if dtypes else jnp.result_type(float)


def value_at(owner: str, network: Any, x: jax.Array, key: jax.Array | None = None) -> jax.Array:
    """The network's value at one input, with a key if it takes one.

    Raises:
        ValueError: it fails, or its value is not floating-point of shape `()` or `(p,)`.
    """
    options = {"key": key} if key is not None and takes_key(network) else {}
    try:
        f = network(x, **options)
    except (TypeError, ValueError, AssertionError, IndexError) as error:
        raise ValueError(
            f"{owner}: the network fails at an input of shape {x.shape}, a row of x; has x the "
            f"shape (n, ...) of n inputs? {error}"
        ) from error
    if not eqx.is_array(f) or f.ndim > 1 or not jnp.issubdtype(f.dtype, jnp.floating):
        got = f"{f.dtype} of shape {f.shape}" if eqx.is_array(f) else type(f).__name__
        raise ValueError(
            f"{owner}: the network must return floating-point numbers of shape () or (p,) of one "
            f"input, got {got}"
        )
    return f


def network_values(owner: str, network: Any, x: jax.Array, key: jax.Array | None) -> jax.Array:
    """Values of a network at each row, shape `(n,)` or `(n, p)`."""
    if key is None or not takes_key(network):
        return jax.vmap(lambda x: value_at(owner, network, x))(x)
    keys = jax.random.split(key, len(x))
    return jax.vmap(lambda x, key: value_at(owner, network, x, key))(x, keys)


def log_likelihoods(
    likelihood: Likelihood | None, f: jax.Array, y: Any, guard: jax.Array
) -> Float[Array, "s n"]:
    """Log density of each observation where a network has values `(s, n)` or `(s, n, p)`.

    Raises:
        ValueError: shapes that disagree, or `y` that is known to be outside of the support; under
            `jit` the last is a `RuntimeError` when it runs.
        TypeError: no likelihood.
    """
    plain = likelihood is None or isinstance(likelihood, dist.Distribution)
    each = likelihood if plain or not callable(likelihood) else Outputs(likelihood)
    try:
        y, guard = in_support(each, y, f[0], guard)  # ty: ignore[invalid-argument-type]
    except ValueError as error:
        hint = ""
        if f.shape[2:] == (1,):
            hint = "; the network has one output in a vector: is out_size='scalar' meant?"
        raise ValueError(f"{error}{hint}") from error
    guard = guard.astype(f.dtype)
    return guard * jax.vmap(lambda f: log_likelihood(each, f, y))(f)  # ty: ignore[invalid-argument-type]


def log_joint(
    network: Any,
    likelihood: Likelihood,
    x: Any,
    y: Any,
    num_data: int | None = None,
    *,
    prior: WeightPrior | None = None,
    where: Where = None,
    key: jax.Array | None = None,
) -> Float[Array, ""]:
    r"""Log density of data and weights, or its unbiased estimate from a minibatch.

    $\frac{N}{B} \sum_n \log p(y_n \mid f_w(x_n)) + \log p(w)$, the log posterior density of the
    weights up to a constant.

    Args:
        network: a callable Equinox module of one input, with values of shape `()` or `(p,)`.
        likelihood: from these values to a NumPyro distribution of observations.
        x: inputs, shape `(b, ...)`.
        y: observations, shape `(b,)`, or `(b, ...)` of vectors.
        num_data: $N$, of which these are drawn; by default these are all.
        prior: of the random leaves, see `mean_field`; None for none.
        where: which leaves have it, see `mean_field`.
        key: for networks that take one, as with dropout.

    Returns:
        Scalar.

    Raises:
        ValueError: no such network, prior or leaves; shapes that disagree, NaN in `x`, `y` outside
            of the likelihood's support, fewer data than the batch has.
        TypeError: the likelihood does not return a NumPyro distribution.
        RuntimeError: under `jit`, such values.
    """
    check_network("log_joint", network)
    leaves = None if prior is None else random_leaves("log_joint", network, where)
    return log_joint_of_leaves(network, likelihood, x, y, num_data, prior, leaves, key)


def log_joint_of_leaves(
    network: Any,
    likelihood: Any,
    x: Any,
    y: Any,
    num_data: int | None,
    prior: WeightPrior | None,
    leaves: Leaves | None,
    key: jax.Array | None,
) -> Float[Array, ""]:
    """`log_joint` for leaves that are known; without a prior or leaves the density of the data."""
    x, guard = inputs("log_joint", x, parameter_dtype(network))
    f = network_values("log_joint", network, x, key)
    terms = log_likelihoods(likelihood, f[None], y, guard)
    data = batch_weight("log_joint", x, num_data) * jnp.sum(terms)
    if leaves is None or prior is None:
        return data
    values = leaves.of(network)
    return data + joint_log_prior("log_joint", prior, leaves, values).astype(f.dtype)


def batch_weight(owner: str, x: jax.Array, num_data: int | None) -> float:
    """What the sum over a batch is multiplied with.

    Raises:
        ValueError: there are fewer data than the batch has.
    """
    if num_data is None:
        return 1.0
    number = whole_number(f"{owner}: num_data", num_data)
    if number < len(x):
        raise ValueError(f"{owner}: num_data is {number}, less than the {len(x)} of the batch")
    return number / len(x)
