"""Recursive copula predictives of regression."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..gp import Minimum
from ._copula import log_kernels, log_odds, Points, scores, update
from ._copula_density import varied_or_given
from ._copula_fit import (
    checked_matrix,
    checked_orders,
    CopulaBandwidths,
    fitted_bandwidths,
    in_orders,
    Orders,
    orders_of,
    points_of,
    prequential,
    Scaling,
    warn_of_ties,
)
from ._copula_predictive import AbstractCopulaPredictive, Forward
from ._predictive_rule import add_row, pick_row, Rows, with_room


class CopulaRegression(AbstractCopulaPredictive):
    r"""Density of a response given inputs by recursive Gaussian copula updates.

    `kind="conditional"` weights each observation by how near its inputs are, $\alpha_i(x) =
    \alpha_i k / (1 - \alpha_i + \alpha_i k)$ with the copula kernel $k(x, x_i)$; distributions of
    inputs are not modelled. `kind="joint"` is the copula density of inputs and response together,
    of which the conditional is taken. `CopulaRegression.fit` makes one.

    Attributes:
        orders: the data.
        input_scaling: mean and standard deviation of the inputs.
        scaling: those of the response.
        joint: whether it is of that kind.
        minimum: how the bandwidths were found, where they were.

    References:
        Fong, Holmes and Walker (2023), "Martingale posterior distributions", JRSS-B 85: section 4,
        equations 4.8 to 4.11.
    """

    orders: Orders
    input_scaling: Scaling
    scaling: Scaling
    joint: bool = eqx.field(static=True)
    minimum: Minimum | None

    @staticmethod
    def fit(
        key: jax.Array,
        x: Any,
        y: Any,
        *,
        kind: str = "conditional",
        num_permutations: int = 10,
        bandwidths: CopulaBandwidths | None = None,
        max_steps: int = 100,
        rtol: float = 1e-4,
    ) -> CopulaRegression:
        r"""The density after data, with bandwidths that predict each response best.

        They maximise $\sum_i \log p_{i-1}(y_i \mid x_i)$, averaged over orders, by L-BFGS over all
        of them at once: one for the response and one for each input, of which those that do not
        matter go to 0.

        Args:
            key: PRNG key, of the orders.
            x: inputs, shape `(n, p)`, or `(n,)` for one.
            y: responses, shape `(n,)`.
            kind: `"conditional"` or `"joint"`.
            num_permutations: orders that predictions are averaged over.
            bandwidths: by default those that fit best. Those of `"joint"` have `outputs` for inputs
                and response, in this order.
            max_steps: of L-BFGS.
            rtol: of L-BFGS, see `gp.minimise`; the objective is in nats an observation.

        Raises:
            ValueError: wrong shapes, NaN, a constant response, no data without bandwidths.
        """
        owner = "CopulaRegression.fit"
        if kind not in ("conditional", "joint"):
            raise ValueError(f"{owner}: kind must be 'conditional' or 'joint', got {kind!r}")
        x, rows = checked_responses(owner, x, y, bandwidths)
        input_scaling, scaling = Scaling.of(x), Scaling.of(rows)
        orders = checked_orders(owner, key, num_permutations, len(rows))
        inputs, z = input_scaling(x), scaling(rows)
        joint = kind == "joint"
        if joint:
            inputs, z = None, jnp.concatenate([inputs, z], axis=1)
        start = CopulaBandwidths(
            jnp.full(z.shape[1], 0.8, z.dtype),
            None if joint else jnp.full(x.shape[1], 0.8, z.dtype),
        )
        best, minimum = fitted_bandwidths(
            owner, _loss, start, bandwidths, (z, inputs, orders), max_steps, rtol
        )
        warn_of_ties(owner, best, minimum)
        return CopulaRegression(
            orders=orders_of(best, z, inputs, orders),
            input_scaling=input_scaling,
            scaling=scaling,
            joint=joint,
            minimum=minimum,
        )

    def prequential_log_prob(self) -> Float[Array, ""]:
        """Sum of the log densities of each response given those before, averaged over orders."""
        return prequential(_conditional(self.orders.log_prob), self.scaling.scale)

    def log_prob(self, x: Any, y: Any) -> Float[Array, " m"]:
        """Log predictive densities of responses, shape `(m,)`.

        Args:
            x: inputs, shape `(m, p)`, or `(m,)` for one.
            y: responses, shape `(m,)`.

        Raises:
            ValueError: wrong shapes, NaN.
        """
        points, _ = self._points("CopulaRegression.log_prob", x, y)
        return _conditional(points.log_pdf) - jnp.log(self.scaling.scale[0])

    def cdf(self, x: Any, y: Any) -> Float[Array, " m"]:
        """Predictive distribution functions of responses, shape `(m,)`.

        Args:
            x: inputs, shape `(m, p)`, or `(m,)` for one.
            y: responses, shape `(m,)`.

        Raises:
            ValueError: wrong shapes, NaN.
        """
        return self._points("CopulaRegression.cdf", x, y)[0].lower[:, -1]

    @property
    def _names(self) -> tuple[str, ...]:
        return "x", "y"

    def _forward(self, owner: str, num_forward: int, *at: Any) -> Forward:
        points, inputs = self._points(owner, *at)
        rho, scale = self.bandwidths.outputs, self.scaling.scale[0]
        kernels = None
        start: tuple[Points, Rows | None] = (points, None)
        if not self.joint:
            if not self.num_data:
                raise ValueError(f"{owner}: x is empty, so no inputs can be drawn")
            own: Any = self.orders.inputs
            kernels = log_kernels(inputs, own[0], self.bandwidths.inputs)
            start = points, with_room(jnp.arange(self.num_data), num_forward)

        def step(key: jax.Array, i: Any, carry: Any) -> Any:
            points, rows = carry
            key_x, key_y = jax.random.split(key)
            kernel, odds = 0.0, log_odds(i, rho.dtype)
            if kernels is not None:
                row = pick_row(key_x, rows)
                kernel, rows = kernels[:, row], add_row(rows, row)
            seen = jax.random.normal(key_y, rho.shape, rho.dtype)
            return update(points, scores(points), seen, odds, rho, kernel), rows

        def observe(carry: Any) -> dict[str, jax.Array]:
            log_pdf = _conditional(carry[0].log_pdf)
            return {"density": jnp.exp(log_pdf) / scale, "cdf": carry[0].lower[:, -1]}

        return Forward(start, step, observe)

    def _points(self, owner: str, x: Any, y: Any) -> tuple[Points, jax.Array]:
        """The predictive at points, and their standardised inputs."""
        dtype = self.scaling.loc.dtype
        x = checked_matrix(owner, "x", x, self.input_scaling.loc.shape[0]).astype(dtype)
        rows = checked_matrix(owner, "y", y, 1).astype(dtype)
        check_lengths(owner, x, rows)
        x, z = self.input_scaling(x), self.scaling(rows)
        if self.joint:
            return points_of(self.orders, jnp.concatenate([x, z], axis=1), None), x
        return points_of(self.orders, z, x), x


def checked_responses(owner: str, x: Any, y: Any, bandwidths: Any) -> tuple[jax.Array, jax.Array]:
    """Inputs `(n, p)` and responses `(n, 1)`, of one type.

    Raises:
        ValueError: wrong shapes, NaN, a constant response, none without bandwidths.
    """
    x = checked_matrix(owner, "x", x)
    if jnp.ndim(y) != 1:
        raise ValueError(f"{owner}: y must have shape (n,), got {jnp.shape(y)}")
    rows = varied_or_given(owner, "y", y, bandwidths)
    check_lengths(owner, x, rows)
    dtype = jnp.promote_types(x.dtype, rows.dtype)
    return x.astype(dtype), rows.astype(dtype)


def check_lengths(owner: str, x: jax.Array, rows: jax.Array) -> None:
    """Raises `ValueError` unless inputs and responses have the same number of rows."""
    if x.shape[0] != rows.shape[0]:
        raise ValueError(
            f"{owner}: x and y must have the same number of rows, got {x.shape[0]} and "
            f"{rows.shape[0]}"
        )


def _conditional(log_pdf: Float[Array, "*k d"]) -> Float[Array, "*k"]:
    """Log density of the last coordinate given those before it."""
    last = log_pdf[..., -1]
    return last - log_pdf[..., -2] if log_pdf.shape[-1] > 1 else last


def _loss(bandwidths: CopulaBandwidths, z: Any, x: Any, orders: Any) -> jax.Array:
    return -jnp.mean(_conditional(in_orders(bandwidths, z, x, orders).log_prob))
