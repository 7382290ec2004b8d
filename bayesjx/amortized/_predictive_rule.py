"""Abstract base class of rules that predict the next observation, and rows of data with room."""

from __future__ import annotations

import abc
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._core import number_array, path_name, refuse_where


class AbstractPredictiveRule(eqx.Module):
    r"""Abstract base class of rules that predict the next observation given those before.

    A rule says $p(y_{i+1} \mid y_1, \dots, y_i)$, or $p(y_{i+1} \mid x_{i+1}, ...)$ where it has
    inputs. `predictive_resample` draws from it again and again. What follows is a posterior if
    probabilities of any event are a martingale, as those of Bayesian models are.

    Data are a pytree of arrays with one observation a row; of rules with inputs they are the pair
    `(x, y)`. All methods but `init` work on one observation, can be traced, and check nothing.
    """

    @property
    @abc.abstractmethod
    def has_inputs(self) -> bool:
        """Whether data are pairs `(x, y)`, and methods need the inputs `x` of an observation."""

    @property
    @abc.abstractmethod
    def has_density(self) -> bool:
        """Whether there is a `log_prob`."""

    @property
    @abc.abstractmethod
    def has_cdf(self) -> bool:
        """Whether there is a `cdf`."""

    @abc.abstractmethod
    def init(self, data: Any, num_forward: int = 0) -> Any:
        """The state after the data: a pytree of arrays.

        Args:
            data: observations, one a row; there may be none.
            num_forward: how many more there will have to be room for.

        Raises:
            ValueError: data that the rule is not for.
        """

    @abc.abstractmethod
    def sample(self, key: jax.Array, state: Any, x: Any = None) -> Any:
        """A draw of the next observation.

        Args:
            key: PRNG key.
            state: of the rule.
            x: its inputs, of rules that have them.
        """

    @abc.abstractmethod
    def absorb(self, state: Any, y: Any, x: Any = None) -> Any:
        """The state after one more observation, of the same structure and shapes.

        Args:
            state: of the rule.
            y: the observation.
            x: its inputs.
        """

    @abc.abstractmethod
    def log_prob(self, state: Any, y: Any, x: Any = None) -> Float[Array, ""]:
        """Log density, or log probability, of the next observation.

        Args:
            state: of the rule.
            y: where.
            x: its inputs.

        Raises:
            ValueError: the rule has none.
        """

    @abc.abstractmethod
    def cdf(self, state: Any, y: Any, x: Any = None) -> Float[Array, ""]:
        """Probability of at most `y`.

        Args:
            state: of the rule.
            y: where.
            x: its inputs.

        Raises:
            ValueError: the rule has none.
        """

    @abc.abstractmethod
    def report(self, state: Any) -> dict[str, Array]:
        """Numbers of a state that are worth recording, scalars by name; may be empty.

        Args:
            state: of the rule.
        """

    def step(self, key: jax.Array, state: Any, x: Any = None) -> tuple[Any, Any]:
        """A draw of the next observation, and the state after it.

        Args:
            key: PRNG key.
            state: of the rule.
            x: its inputs.
        """
        y = self.sample(key, state, x)
        return y, self.absorb(state, y, x)


class Rows(NamedTuple):
    """Rows of data with room for more.

    Attributes:
        rows: pytree of arrays `(capacity, ...)`.
        size: how many count.
    """

    rows: Any
    size: Int[Array, ""]


def with_room(data: Any, room: int) -> Rows:
    """Rows, and zeros for as many more."""

    def longer(x: Any) -> Any:
        return jnp.concatenate([jnp.asarray(x), jnp.zeros((room, *x.shape[1:]), x.dtype)])

    return Rows(jax.tree.map(longer, data), jnp.asarray(num_rows(data)))


def add_row(rows: Rows, row: Any) -> Rows:
    """The rows and one more."""
    put = lambda all_, one: all_.at[rows.size].set(jnp.asarray(one, all_.dtype))  # noqa: E731
    return Rows(jax.tree.map(put, rows.rows, row), rows.size + 1)


def pick_row(key: jax.Array, rows: Rows) -> Any:
    """One of the rows that count, each with the same probability."""
    index = jax.random.randint(key, (), 0, rows.size)
    return jax.tree.map(lambda x: x[index], rows.rows)


def num_rows(data: Any) -> int:
    """Length of the leading axis of a pytree of arrays."""
    return jax.tree.leaves(data)[0].shape[0]


def checked_rows(owner: str, data: Any) -> Any:
    """Data as arrays, one observation a row.

    Raises:
        ValueError: no arrays, of different lengths, or with values that are not finite.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(data)
    if not leaves:
        raise ValueError(f"{owner}: data must hold an array, one observation a row; got {data!r}")
    checked = []
    for path, leaf in leaves:
        name = f"{owner}: {path_name(path, 'data')}"
        array = number_array(name, leaf)
        if not np.ndim(array):
            raise ValueError(
                f"{name} must have an observation in each row, got one number; of a list make an "
                "array, since a list of numbers is a pytree of them"
            )
        checked.append(refuse_where(array, not_finite, f"{name} holds NaN or infinite values"))
    lengths = {np.shape(array)[0] for array in checked}
    if len(lengths) > 1:
        raise ValueError(
            f"{owner}: data must have the same number of rows in all arrays, got {sorted(lengths)}"
        )
    return jax.tree.unflatten(structure, [_as_array(array) for array in checked])


def checked_pairs(owner: str, data: Any) -> tuple[jax.Array, jax.Array]:
    """Inputs and targets of rules that have inputs.

    Raises:
        ValueError: data are no pair of arrays `(x, y)` with the same number of rows.
    """
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise ValueError(f"{owner}: data must be a pair (x, y), got {type(data).__name__}")
    x, y = checked_rows(owner, tuple(data))
    return x, y


def checked_vector(owner: str, data: Any) -> jax.Array:
    """Observations that are numbers.

    Raises:
        ValueError: data are no array of shape `(n,)`.
    """
    if isinstance(data, tuple | dict):
        raise ValueError(f"{owner}: data must be an array (n,), got a {type(data).__name__}")
    y = checked_rows(owner, data)
    if jnp.ndim(y) != 1:
        raise ValueError(f"{owner}: data must have shape (n,), got {jnp.shape(y)}")
    return y


def checked_rule(owner: str, rule: Any) -> AbstractPredictiveRule:
    """The rule, if it is one.

    Raises:
        ValueError: it is something else, such as a density.
    """
    if not isinstance(rule, AbstractPredictiveRule):
        hint = ""
        if hasattr(rule, "log_prob") or callable(rule):
            hint = "; a distribution says nothing of what follows an observation"
        raise ValueError(
            f"{owner}: rule must be a predictive rule such as amortized.NormalNormal, got "
            f"{type(rule).__name__}{hint}"
        )
    return rule


def refuse(rule: Any, what: str, why: str) -> ValueError:
    """The error that a rule without density or distribution function raises."""
    return ValueError(f"{what}: {type(rule).__name__} has none, as {why}")


def not_finite(array: Any) -> Any:
    """Where an array of NumPy or JAX is NaN or infinite."""
    return ~(jnp if isinstance(array, jax.core.Tracer) else np).isfinite(array)


def _as_array(array: Any) -> jax.Array:
    array = jnp.asarray(array)
    return array.astype(array.dtype)  # without weak types
