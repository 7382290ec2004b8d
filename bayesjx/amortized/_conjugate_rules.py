"""Predictive rules of urns and of conjugate models, in closed form."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.scipy.special import ndtr
from jaxtyping import Array, Float

from .._core import known_field, number_array, refuse_where
from ._predictive_rule import (
    AbstractPredictiveRule,
    add_row,
    checked_rows,
    checked_vector,
    num_rows,
    pick_row,
    refuse,
    Rows,
    with_room,
)


class PolyaUrn(AbstractPredictiveRule):
    r"""Pólya's urn: the next observation is one of those before, each with the same probability.

    With a `concentration` $c$ and a `base` distribution $G$ it is the Blackwell-MacQueen urn: the
    next is new, a draw of $G$, with probability $c / (c + i)$ after $i$ observations, and the
    martingale posterior is that of a Dirichlet process with the prior $DP(c, G)$. Without, it is
    the Bayesian bootstrap: weights of the observations are Dirichlet(1, ..., 1), which
    `bayesian_bootstrap` draws at once.

    Observations are rows of any pytree, such as pairs `(x, y)`, unless there is a base, of which
    they are draws.

    Args:
        concentration: $c \ge 0$, scalar: how many observations the base counts for.
        base: NumPyro distribution without batch shape, or None if `concentration` is 0.

    Raises:
        ValueError: a negative concentration, one without a base, or the other way around.

    References:
        Blackwell and MacQueen (1973), "Ferguson distributions via Pólya urn schemes", Annals of
        Statistics 1. Rubin (1981), "The Bayesian bootstrap", Annals of Statistics 9.
    """

    concentration: Float[Array, ""]
    base: dist.Distribution | None

    def __init__(self, concentration: Any = 0.0, base: dist.Distribution | None = None):
        self.concentration = _scalar("PolyaUrn: concentration", concentration, zero=True)
        if base is not None and not isinstance(base, dist.Distribution):
            raise ValueError(
                f"PolyaUrn: base must be a NumPyro distribution, got {type(base).__name__}"
            )
        if base is not None and base.batch_shape:
            raise ValueError(
                "PolyaUrn: base must be the distribution of one observation, without batch shape; "
                f"got {base.batch_shape}. Use to_event"
            )
        if base is None:
            refuse_where(
                self.concentration, lambda c: c > 0, "PolyaUrn: a concentration needs a base"
            )
        self.base = base

    @property
    def has_inputs(self) -> bool:
        return False

    @property
    def has_density(self) -> bool:
        support: Any = None if self.base is None else self.base.support
        return support is None or support.is_discrete

    @property
    def has_cdf(self) -> bool:
        if self.base is None:
            return True
        inner = self.base
        while isinstance(inner, dist.TransformedDistribution):
            inner = inner.base_dist
        known = type(inner).cdf is not dist.Distribution.cdf  # as not all of NumPyro's do
        return known and not self.base.event_shape

    def init(self, data: Any, num_forward: int = 0) -> Rows:
        data = checked_rows("PolyaUrn", data)
        if self.base is not None:
            shape = jnp.shape(data) if isinstance(data, jax.Array) else None
            if shape is None or shape[1:] != self.base.event_shape:
                raise ValueError(
                    f"PolyaUrn: data must be an array (n, *{self.base.event_shape}) of draws of "
                    f"the base, got {shape or type(data).__name__}"
                )
            if not jnp.issubdtype(data.dtype, jnp.floating):  # draws of the base are rows too
                drawn = jax.eval_shape(self.base.sample, jax.random.key(0))
                data = data.astype(jnp.promote_types(data.dtype, drawn.dtype))
        if num_rows(data) == 0:
            if self.base is None:
                raise ValueError("PolyaUrn: data is empty, and without a base nothing can be drawn")
            refuse_where(
                self.concentration, lambda c: c == 0,
                "PolyaUrn: data is empty, and with a concentration of 0 nothing can be drawn",
            )  # fmt: skip
        return with_room(data, num_forward)

    def sample(self, key: jax.Array, state: Rows, x: Any = None) -> Any:
        if self.base is None:
            return pick_row(key, state)
        key_new, key_old, key_base = jax.random.split(key, 3)
        share = self.concentration / (self.concentration + state.size)
        old, new = pick_row(key_old, state), self.base.sample(key_base)
        is_new = jax.random.uniform(key_new, (), share.dtype) < share
        return jnp.where(is_new, new, old).astype(state.rows.dtype)

    def absorb(self, state: Rows, y: Any, x: Any = None) -> Rows:
        return add_row(state, y)

    def log_prob(self, state: Rows, y: Any, x: Any = None) -> Float[Array, ""]:
        if not self.has_density:
            raise refuse(self, "log_prob", "it has atoms beside its base, a density")
        same = jax.tree.map(lambda rows, one: _all_of_row(rows == one), state.rows, y)
        equal = jnp.all(jnp.stack(jax.tree.leaves(same)), axis=0)
        mass = self._mean(state, equal, lambda base: jnp.exp(base.log_prob(y)))
        return jnp.log(mass)

    def cdf(self, state: Rows, y: Any, x: Any = None) -> Float[Array, ""]:
        if not self.has_cdf or not isinstance(state.rows, jax.Array) or state.rows.ndim > 1:
            raise refuse(self, "cdf", "observations are no numbers")
        return self._mean(state, state.rows <= y, lambda base: base.cdf(y))

    def report(self, state: Rows) -> dict[str, Array]:
        return {}

    def _mean(self, state: Rows, holds: Any, of_base: Any) -> jax.Array:
        """The probability of an event, given for each row and as a function of the base."""
        first = jax.tree.leaves(state.rows)[0].dtype
        dtype = first if jnp.issubdtype(first, jnp.floating) else jnp.result_type(float)
        counted = holds & (jnp.arange(len(holds)) < state.size)
        count, concentration = jnp.sum(counted).astype(dtype), self.concentration.astype(dtype)
        if self.base is not None:
            count = count + concentration * of_base(self.base)
        return count / (concentration + state.size.astype(dtype))


class CategoricalUrn(AbstractPredictiveRule):
    r"""Dirichlet-multinomial model of classes: a coin or a die with unknown probabilities.

    After counts $n_k$ class $k$ is next with probability $(a_k + n_k) / \sum_j (a_j + n_j)$. Two
    classes are the Beta-Bernoulli model: Beta$(a, b)$ for the probability of 1 is
    `CategoricalUrn([b, a])`. The martingale posterior of the frequencies is
    Dirichlet$(a + n)$.

    Args:
        concentrations: $a_k > 0$ of the Dirichlet prior, shape `(k,)`.

    Raises:
        ValueError: fewer than two classes, concentrations that are not positive.
    """

    concentrations: Float[Array, " k"]

    def __init__(self, concentrations: Any):
        given = number_array("CategoricalUrn: concentrations", concentrations)
        if np.ndim(given) != 1 or np.shape(given)[0] < 2:
            raise ValueError(
                "CategoricalUrn: concentrations must have shape (k,) with at least 2 classes, got "
                f"{np.shape(given)}"
            )
        given = refuse_where(
            given, lambda a: ~((a > 0) & (a < np.inf)),
            "CategoricalUrn: concentrations must be positive and finite",
        )  # fmt: skip
        self.concentrations = _floating(given)

    @property
    def has_inputs(self) -> bool:
        return False

    @property
    def has_density(self) -> bool:
        return True

    @property
    def has_cdf(self) -> bool:
        return True

    def init(self, data: Any, num_forward: int = 0) -> Float[Array, " k"]:
        y = checked_vector("CategoricalUrn", data)
        classes = self.concentrations.shape[0]
        y = refuse_where(
            y, lambda v: (v < 0) | (v >= classes) | (v != v // 1),
            f"CategoricalUrn: data must hold classes 0, ..., {classes - 1}",
        )  # fmt: skip
        counts = jnp.zeros_like(self.concentrations).at[y.astype(jnp.int32)].add(1)
        return self.concentrations + counts

    def sample(self, key: jax.Array, state: Any, x: Any = None) -> Any:
        return jax.random.categorical(key, jnp.log(state))

    def absorb(self, state: Any, y: Any, x: Any = None) -> Any:
        return state.at[jnp.asarray(y).astype(jnp.int32)].add(1)

    def log_prob(self, state: Any, y: Any, x: Any = None) -> Float[Array, ""]:
        # What is no class has the probability 0.
        return jnp.log(jnp.sum(jnp.where(jnp.arange(len(state)) == y, state, 0)) / jnp.sum(state))

    def cdf(self, state: Any, y: Any, x: Any = None) -> Float[Array, ""]:
        return jnp.sum(jnp.where(jnp.arange(len(state)) <= y, state, 0)) / jnp.sum(state)

    def report(self, state: Any) -> dict[str, Array]:
        return {}


class NormalState(NamedTuple):
    """Posterior of the mean of a normal distribution.

    Attributes:
        mean: of the posterior.
        precision: one over its variance.
    """

    mean: Float[Array, ""]
    precision: Float[Array, ""]


class NormalNormal(AbstractPredictiveRule):
    r"""Normal observations with known variance, whose mean has a normal prior.

    $y_i \sim N(\mu, \sigma^2)$ and $\mu \sim N(m, s^2)$. After $i$ observations the next is
    $N(\mu_i, \sigma^2 + 1/\pi_i)$ with $\pi_i = 1/s^2 + i/\sigma^2$. The state is a
    `NormalState`, of $\mu_i$ and $\pi_i$: after $N$ rows in all the functional
    `lambda state: state.mean` has the mean $\mu_n$ and the variance $1/\pi_n - 1/\pi_N$.

    Args:
        loc: $m$, scalar.
        scale: $s > 0$, scalar.
        noise_scale: $\sigma > 0$, scalar.

    Raises:
        ValueError: values that are no finite scalars, scales that are not positive.
    """

    loc: Float[Array, ""]
    scale: Float[Array, ""]
    noise_scale: Float[Array, ""] = known_field()

    def __init__(self, loc: Any, scale: Any, noise_scale: Any):
        self.loc = _scalar("NormalNormal: loc", loc, real=True)
        self.scale = _scalar("NormalNormal: scale", scale)
        self.noise_scale = _scalar("NormalNormal: noise_scale", noise_scale)

    @property
    def has_inputs(self) -> bool:
        return False

    @property
    def has_density(self) -> bool:
        return True

    @property
    def has_cdf(self) -> bool:
        return True

    def init(self, data: Any, num_forward: int = 0) -> NormalState:
        y = checked_vector("NormalNormal", data)
        y = _floating(y)
        loc, scale, noise_scale = (
            v.astype(y.dtype) for v in (self.loc, self.scale, self.noise_scale)
        )
        precision = scale**-2 + y.size * noise_scale**-2
        mean = (loc * scale**-2 + jnp.sum(y) * noise_scale**-2) / precision
        return NormalState(mean, precision)

    def sample(self, key: jax.Array, state: NormalState, x: Any = None) -> Any:
        noise = jax.random.normal(key, (), state.mean.dtype)
        return state.mean + self._predictive_scale(state) * noise

    def absorb(self, state: NormalState, y: Any, x: Any = None) -> NormalState:
        noise = self.noise_scale.astype(state.mean.dtype) ** -2
        precision = state.precision + noise
        return NormalState(state.mean + noise / precision * (y - state.mean), precision)

    def log_prob(self, state: NormalState, y: Any, x: Any = None) -> Float[Array, ""]:
        return dist.Normal(state.mean, self._predictive_scale(state)).log_prob(y)

    def cdf(self, state: NormalState, y: Any, x: Any = None) -> Float[Array, ""]:
        return ndtr((y - state.mean) / self._predictive_scale(state))

    def report(self, state: NormalState) -> dict[str, Array]:
        return {}

    def _predictive_scale(self, state: NormalState) -> jax.Array:
        return jnp.sqrt(self.noise_scale.astype(state.mean.dtype) ** 2 + 1 / state.precision)


def _scalar(name: str, value: Any, *, zero: bool = False, real: bool = False) -> jax.Array:
    """A finite number, positive unless zero or any real number is allowed too."""
    array = number_array(name, value)
    if np.ndim(array):
        raise ValueError(f"{name} must be a scalar, got shape {np.shape(array)}")
    least = "finite" if real else "finite and not negative" if zero else "finite and positive"
    low = -np.inf if real else 0.0

    def bad(a: Any) -> Any:
        return ~((a < np.inf) & ((a >= low) if zero else (a > low)))

    return _floating(refuse_where(array, bad, f"{name} must be {least}"))


def _floating(array: Any) -> jax.Array:
    array = jnp.asarray(array)
    floats = jnp.issubdtype(array.dtype, jnp.floating)
    return array.astype(array.dtype if floats else jnp.result_type(float))


def _all_of_row(equal: jax.Array) -> jax.Array:
    return jnp.all(equal.reshape(len(equal), -1), axis=1)
