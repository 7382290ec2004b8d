"""Recursive copula predictives of two classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Bool, Float

from .._core import compiled, number_array, refuse_where
from ..gp import Minimum
from ._copula import log_kernels, log_odds
from ._copula_fit import (
    checked_matrix,
    checked_orders,
    CHECKPOINT,
    CopulaBandwidths,
    fitted_bandwidths,
    over_orders,
    prequential,
    Scaling,
)
from ._copula_predictive import AbstractCopulaPredictive, Forward
from ._copula_regression import check_lengths
from ._predictive_rule import add_row, pick_row, with_room


class Chances(NamedTuple):
    """Probabilities of class 1 and of class 0 at `m` points, both accurate where they are small."""

    one: Float[Array, " m"]
    zero: Float[Array, " m"]


class ClassOrders(eqx.Module):
    """Data in `k` orders.

    Attributes:
        bandwidths: of the copulas.
        seen: probabilities of the classes of observations before they were seen, arrays `(k, n)`.
        classes: whether they were of class 1, shape `(k, n)`.
        inputs: in these orders, shape `(k, n, p)`.
        log_prob: of each class given those before it, shape `(k, n)`.
    """

    bandwidths: CopulaBandwidths
    seen: Chances
    classes: Bool[Array, "k n"]
    inputs: Float[Array, "k n p"]
    log_prob: Float[Array, "k n"]


class CopulaClassifier(AbstractCopulaPredictive):
    r"""Probability of class 1 given inputs by recursive copula updates.

    With the weight $\alpha_i(x)$ of `CopulaRegression` and $\beta = \rho \alpha_i(x)$, an
    observation of class 1 moves $p(x)$ to $(1 - \beta) p + \beta \min(p, q) / q$ and one of class 0
    to $(1 - \beta) p + \beta \max(p - q, 0) / (1 - q)$, where $q$ was the probability of class 1 at
    its inputs. All start at one half. `CopulaClassifier.fit` makes one.

    Attributes:
        orders: the data.
        input_scaling: mean and standard deviation of the inputs.
        minimum: how the bandwidths were found, where they were.

    References:
        Fong, Holmes and Walker (2023), "Martingale posterior distributions", JRSS-B 85: section 4.
    """

    orders: ClassOrders
    input_scaling: Scaling
    minimum: Minimum | None

    @staticmethod
    def fit(
        key: jax.Array,
        x: Any,
        y: Any,
        *,
        num_permutations: int = 10,
        bandwidths: CopulaBandwidths | None = None,
        max_steps: int = 100,
        rtol: float = 1e-4,
    ) -> CopulaClassifier:
        r"""The probability after data, with bandwidths that predict each class best.

        Args:
            key: PRNG key, of the orders.
            x: inputs, shape `(n, p)`, or `(n,)` for one.
            y: classes 0 and 1, or booleans, shape `(n,)`.
            num_permutations: orders that predictions are averaged over.
            bandwidths: by default those that maximise $\sum_i \log p_{i-1}(y_i \mid x_i)$, averaged
                over orders; one for the class, shape `(1,)`, and one for each input.
            max_steps: of L-BFGS.
            rtol: of L-BFGS, see `gp.minimise`; the objective is in nats an observation.

        Raises:
            ValueError: wrong shapes, NaN, other classes, no data without bandwidths.
        """
        owner = "CopulaClassifier.fit"
        x, classes = checked_matrix(owner, "x", x), _checked_classes(owner, y)
        check_lengths(owner, x, classes)
        if len(classes) < 2 and bandwidths is None:
            raise ValueError(
                f"{owner}: y must have at least 2 rows to find bandwidths, got {len(classes)}; "
                "give bandwidths="
            )
        scaling = Scaling.of(x)
        orders = checked_orders(owner, key, num_permutations, len(classes))
        inputs = scaling(x)
        half = jnp.full(x.shape[1] + 1, 0.8, inputs.dtype)
        start = CopulaBandwidths(half[:1], half[1:])
        best, minimum = fitted_bandwidths(
            owner, _loss, start, bandwidths, (classes, inputs, orders), max_steps, rtol
        )
        return CopulaClassifier(
            orders=_orders(best, classes, inputs, orders), input_scaling=scaling, minimum=minimum
        )

    def prequential_log_prob(self) -> Float[Array, ""]:
        """Sum of the log probabilities of each class given those before, averaged over orders."""
        return prequential(self.orders.log_prob, None)

    def predict(self, x: Any) -> dist.Distribution:
        """Predictive distributions of classes, each by itself, batch shape `(m,)`.

        Args:
            x: inputs, shape `(m, p)`, or `(m,)` for one.

        Raises:
            ValueError: wrong shapes, NaN.
        """
        inputs = self._inputs("CopulaClassifier.predict", x)
        chances = _chances(self.orders, inputs)
        return dist.Bernoulli(logits=jnp.log(chances.one) - jnp.log(chances.zero))

    def log_prob(self, x: Any, y: Any) -> Float[Array, " m"]:
        """Log predictive probabilities of classes, shape `(m,)`.

        Args:
            x: inputs, shape `(m, p)`, or `(m,)` for one.
            y: classes, shape `(m,)`.

        Raises:
            ValueError: wrong shapes, NaN, other classes.
        """
        owner = "CopulaClassifier.log_prob"
        inputs, classes = self._inputs(owner, x), _checked_classes(owner, y)
        check_lengths(owner, inputs, classes)
        return _log_prob(_chances(self.orders, inputs), classes)

    @property
    def _names(self) -> tuple[str, ...]:
        return ("x",)

    def _forward(self, owner: str, num_forward: int, *at: Any) -> Forward:
        new, n, rho = self._inputs(owner, *at), self.num_data, self.bandwidths
        if not n:
            raise ValueError(f"{owner}: x is empty, so no inputs can be drawn")
        own = self.orders.inputs[0]
        # Rows of the data come first, as their classes are drawn from what is predicted there.
        everywhere = jnp.concatenate([own, new])
        kernels = log_kernels(everywhere, own, rho.inputs)

        def step(key: jax.Array, i: Any, carry: Any) -> Any:
            chances, rows = carry
            key_x, key_y = jax.random.split(key)
            row = pick_row(key_x, rows)
            seen = jax.tree.map(lambda v: v[row], chances)
            is_one = jax.random.uniform(key_y, (), seen.one.dtype) < seen.one
            odds = log_odds(i, seen.one.dtype)
            moved = update_chances(chances, seen, is_one, odds, rho.outputs[0], kernels[:, row])
            return moved, add_row(rows, row)

        def observe(carry: Any) -> dict[str, jax.Array]:
            return {"probability": carry[0].one[n:]}

        start = _chances(self.orders, everywhere), with_room(jnp.arange(n), num_forward)
        return Forward(start, step, observe)

    def _inputs(self, owner: str, x: Any) -> jax.Array:
        loc = self.input_scaling.loc
        rows = checked_matrix(owner, "x", x, loc.shape[0])
        return self.input_scaling(rows.astype(loc.dtype))


def update_chances(
    chances: Chances, seen: Chances, is_one: Any, odds: Any, rho: Any, log_kernel: Any
) -> Chances:
    """Probabilities at points after one more observation.

    Args:
        chances: before.
        seen: those at the inputs of the observation, scalars.
        is_one: its class.
        odds: see `log_odds`.
        rho: correlation of the classes' copula, scalar.
        log_kernel: of the inputs at the points, shape `(m,)`.
    """
    beta = rho * jax.nn.sigmoid(odds + log_kernel)
    p, other = chances
    low = jnp.minimum(p, seen.one)
    # Of class 1: p -> min(p, q) / q. Of class 0, the same with the classes changed.
    both = jnp.minimum(other, seen.zero)
    one = jnp.where(is_one, low / seen.one, jnp.maximum(p - seen.one, 0) / seen.zero)
    zero = jnp.where(is_one, jnp.maximum(other - seen.zero, 0) / seen.one, both / seen.zero)
    return Chances((1 - beta) * p + beta * one, (1 - beta) * other + beta * zero)


def _half(rows: int, dtype: Any) -> Chances:
    half = jnp.full(rows, 0.5, dtype)
    return Chances(half, half)


def _log_prob(chances: Chances, classes: Any) -> jax.Array:
    return jnp.log(jnp.where(classes, chances.one, chances.zero))


@compiled
def _orders(bandwidths: CopulaBandwidths, classes: Any, x: Any, orders: Any) -> ClassOrders:
    return _in_orders(bandwidths, classes, x, orders)


def _in_orders(bandwidths: CopulaBandwidths, classes: Any, x: Any, orders: Any) -> ClassOrders:
    n, kernels = x.shape[0], log_kernels(x, x, bandwidths.inputs)
    if not n:
        none = jnp.zeros(orders.shape, x.dtype)
        return ClassOrders(bandwidths, Chances(none, none), classes[orders], x[orders], none)

    def one(order: Any) -> tuple[Chances, jax.Array]:
        is_one = classes[order]

        def observed(chances: Chances, at: Any) -> tuple[Chances, Any]:
            i, kernel = at
            seen = jax.tree.map(lambda v: v[i], chances)
            after = _step(bandwidths)(chances, (i, seen, is_one[i], kernel))
            return after, (seen, _log_prob(seen, is_one[i]))

        body = jax.checkpoint(observed) if n * n > CHECKPOINT else observed
        columns = kernels[order][:, order].T
        return jax.lax.scan(body, _half(n, x.dtype), (jnp.arange(n), columns))[1]

    seen, log_prob = over_orders(one, orders, n * n)
    return ClassOrders(bandwidths, seen, classes[orders], x[orders], log_prob)


@compiled
def _chances(orders: ClassOrders, x: Float[Array, "m p"]) -> Chances:
    """Probabilities after all data at standardised inputs, averaged over orders."""
    if not orders.log_prob.shape[1]:
        return _half(x.shape[0], x.dtype)
    step = _step(orders.bandwidths)

    def one(order: Any) -> Chances:
        seen, classes, inputs = order
        columns = log_kernels(x, inputs, orders.bandwidths.inputs).T
        at = (jnp.arange(inputs.shape[0]), seen, classes, columns)
        body = lambda chances, now: (step(chances, now), None)  # noqa: E731
        return jax.lax.scan(body, _half(x.shape[0], x.dtype), at)[0]

    each = jax.lax.map(one, (orders.seen, orders.classes, orders.inputs))
    return jax.tree.map(lambda v: jnp.mean(v, axis=0), each)


def _step(bandwidths: CopulaBandwidths) -> Callable[[Chances, Any], Chances]:
    def step(chances: Chances, at: Any) -> Chances:
        i, seen, is_one, kernel = at
        odds = log_odds(i + 1, chances.one.dtype)
        return update_chances(chances, seen, is_one, odds, bandwidths.outputs[0], kernel)

    return step


def _loss(bandwidths: CopulaBandwidths, classes: Any, x: Any, orders: Any) -> jax.Array:
    return -jnp.mean(_in_orders(bandwidths, classes, x, orders).log_prob)


def _checked_classes(owner: str, y: Any) -> Bool[Array, " n"]:
    array = number_array(f"{owner}: y", y)
    if jnp.ndim(array) != 1:
        raise ValueError(f"{owner}: y must have shape (n,), got {jnp.shape(array)}")
    array = refuse_where(
        array, lambda v: (v != 0) & (v != 1), f"{owner}: y must hold classes 0 and 1"
    )
    return jnp.asarray(array).astype(bool)
