"""Recursive copula predictives of regression."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._core import compiled, whole_number
from ..gp import Minimum
from ._copula import log_kernels, log_odds, Points, update
from ._copula_density import uniforms, varied_or_given
from ._copula_fit import (
    checked_matrix,
    checked_orders,
    CopulaBandwidths,
    fitted_bandwidths,
    in_orders,
    Orders,
    points_of,
    resampled,
    Scaling,
)
from ._martingale_posterior import MartingalePosterior
from ._predictive_rule import add_row, pick_row, Rows, with_room


class CopulaRegression(eqx.Module):
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
        return CopulaRegression(
            _orders(best, z, inputs, orders), input_scaling, scaling, joint, minimum
        )

    @property
    def bandwidths(self) -> CopulaBandwidths:
        """Correlations of the copulas."""
        return self.orders.bandwidths

    @property
    def num_data(self) -> int:
        """How many observations there are."""
        return self.orders.log_prob.shape[1]

    def prequential_log_prob(self) -> Float[Array, ""]:
        """Sum of the log densities of each response given those before, averaged over orders."""
        each = jnp.mean(jnp.sum(_conditional(self.orders.log_prob), axis=1))
        return each - self.num_data * jnp.log(self.scaling.scale[0])

    def log_prob(self, x: Any, y: Any) -> Float[Array, " m"]:
        """Log predictive densities of responses, shape `(m,)`.

        Args:
            x: inputs, shape `(m, p)`, or `(m,)` for one.
            y: responses, shape `(m,)`.

        Raises:
            ValueError: wrong shapes, NaN.
        """
        points, _ = self._points("log_prob", x, y)
        return _conditional(points.log_pdf) - jnp.log(self.scaling.scale[0])

    def cdf(self, x: Any, y: Any) -> Float[Array, " m"]:
        """Predictive distribution functions of responses, shape `(m,)`.

        Args:
            x: inputs, shape `(m, p)`, or `(m,)` for one.
            y: responses, shape `(m,)`.

        Raises:
            ValueError: wrong shapes, NaN.
        """
        return self._points("cdf", x, y)[0].lower[:, -1]

    def resample(
        self,
        key: jax.Array,
        x: Any,
        y: Any,
        *,
        num_forward: int = 5000,
        num_samples: int = 1000,
        num_records: int = 5,
        batch_size: int | None = None,
    ) -> MartingalePosterior:
        """Draws of the conditional density at points, by drawing observations ahead.

        Inputs of a drawn observation are those of one of the rows so far, drawn ones included; its
        response is not drawn, as it counts only by a uniform variable. Those of the joint kind draw
        neither.

        Args:
            key: PRNG key.
            x: inputs, shape `(m, p)`, or `(m,)` for one.
            y: responses at them at which the density is wanted, shape `(m,)`: for a curve, repeat a
                row of `x`.
            num_forward: observations drawn.
            num_samples: densities.
            num_records: at how many times diagnostics are taken.
            batch_size: densities at a time; by default what fits in about 100 MB.

        Returns:
            Samples `"density"` and `"cdf"` of `y` given `x`, `(s, m)` each. Those of the
            conditional kind are martingales, of which the drift should be 0.

        Raises:
            ValueError: wrong shapes or numbers; no data to draw inputs from.
        """
        points, inputs = self._points("resample", x, y)
        rho, scale = self.bandwidths.outputs, self.scaling.scale[0]
        kernels = None
        start: tuple[Points, Rows | None] = (points, None)
        if not self.joint:
            if not self.num_data:
                raise ValueError("CopulaRegression.resample: x is empty, so no inputs can be drawn")
            own: Any = self.orders.inputs
            kernels = log_kernels(inputs, own[0], self.bandwidths.inputs)
            room = whole_number("CopulaRegression.resample: num_forward", num_forward)
            start = points, with_room(jnp.arange(self.num_data), room)

        def step(key: jax.Array, i: Any, carry: Any) -> Any:
            points, rows = carry
            key_x, key_y = jax.random.split(key)
            kernel, odds = 0.0, log_odds(i, rho.dtype)
            if kernels is not None:
                row = pick_row(key_x, rows)
                kernel, rows = kernels[:, row], add_row(rows, row)
            return update(points, uniforms(key_y, rho), odds, rho, kernel), rows

        def observe(carry: Any) -> dict[str, jax.Array]:
            log_pdf = _conditional(carry[0].log_pdf)
            return {"density": jnp.exp(log_pdf) / scale, "cdf": carry[0].lower[:, -1]}

        options = {"num_forward": num_forward, "num_samples": num_samples,
                   "num_records": num_records, "batch_size": batch_size}  # fmt: skip
        return resampled(
            "CopulaRegression.resample", key, "CopulaRegression", self.num_data, start, step,
            observe, options,
        )  # fmt: skip

    def _points(self, owner: str, x: Any, y: Any) -> tuple[Points, jax.Array]:
        """The predictive at points, and their standardised inputs."""
        owner, dtype = f"CopulaRegression.{owner}", self.scaling.loc.dtype
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


@compiled
def _orders(bandwidths: CopulaBandwidths, z: Any, x: Any, orders: Any) -> Orders:
    return in_orders(bandwidths, z, x, orders)


def _loss(bandwidths: CopulaBandwidths, z: Any, x: Any, orders: Any) -> jax.Array:
    return -jnp.mean(_conditional(in_orders(bandwidths, z, x, orders).log_prob))
