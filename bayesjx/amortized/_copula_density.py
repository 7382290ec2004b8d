"""Recursive copula predictives of densities."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._core import compiled
from ..gp import Minimum
from ._copula import log_odds, Points, Uniforms, update
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
    varied,
)
from ._martingale_posterior import MartingalePosterior


class CopulaDensity(eqx.Module):
    r"""Density of `d` coordinates by recursive Gaussian copula updates, without a likelihood.

    From a standard normal of standardised data, each observation multiplies the density by
    $1 - \alpha_i + \alpha_i \prod_j c_{\rho_j}(u_j, v_j)$. The order matters a little: predictions
    are mixtures over several random orders. `CopulaDensity.fit` makes one.

    Attributes:
        orders: the data.
        scaling: mean and standard deviation of the data.
        minimum: how the bandwidths were found, where they were; its `message` says how well.

    References:
        Fong, Holmes and Walker (2023), "Martingale posterior distributions", JRSS-B 85: section 4,
        equations 4.2 to 4.5. Hahn, Martin and Walker (2018), "On recursive Bayesian predictive
        distributions", JASA 113.
    """

    orders: Orders
    scaling: Scaling
    minimum: Minimum | None

    @staticmethod
    def fit(
        key: jax.Array,
        y: Any,
        *,
        num_permutations: int = 10,
        bandwidths: CopulaBandwidths | None = None,
        max_steps: int = 100,
        rtol: float = 1e-4,
    ) -> CopulaDensity:
        r"""The density after data, with bandwidths that predict each observation best.

        They maximise the prequential log likelihood $\sum_i \log p_{i-1}(y_i)$, averaged over
        orders, by L-BFGS over all coordinates at once. A step takes time $O(k n^2 d)$ for `k`
        orders. Use float64 for more than a thousand rows, over which rounding adds up.

        Args:
            key: PRNG key, of the orders.
            y: observations, shape `(n, d)`, or `(n,)` for one coordinate; there may be none, and
                then the bandwidths must be given and units are those of the data already.
            num_permutations: orders.
            bandwidths: by default those that fit best.
            max_steps: of L-BFGS.
            rtol: of L-BFGS, see `gp.minimise`; the objective is in nats an observation.

        Raises:
            ValueError: wrong shapes, NaN, constant columns, no data without bandwidths.
        """
        owner = "CopulaDensity.fit"
        rows = varied_or_given(owner, "y", y, bandwidths)
        scaling, orders = Scaling.of(rows), checked_orders(owner, key, num_permutations, len(rows))
        z = scaling(rows)
        start = CopulaBandwidths(jnp.full(z.shape[1], 0.9, z.dtype), None)
        best, minimum = fitted_bandwidths(
            owner, _loss, start, bandwidths, (z, orders), max_steps, rtol
        )
        return CopulaDensity(_orders(best, z, orders), scaling, minimum)

    @property
    def bandwidths(self) -> CopulaBandwidths:
        """Correlations of the copulas."""
        return self.orders.bandwidths

    @property
    def num_data(self) -> int:
        """How many observations there are."""
        return self.orders.log_prob.shape[1]

    def prequential_log_prob(self) -> Float[Array, ""]:
        """Sum of the log densities of each observation given those before, averaged over orders."""
        each = jnp.mean(jnp.sum(self.orders.log_prob[..., -1], axis=1))
        return each - self.num_data * jnp.sum(jnp.log(self.scaling.scale))

    def log_prob(self, y: Any) -> Float[Array, " m"]:
        """Log predictive densities, shape `(m,)`.

        Args:
            y: where, shape `(m, d)`, or `(m,)` for one coordinate.

        Raises:
            ValueError: wrong shapes, NaN.
        """
        return self._points(y, "log_prob").log_pdf[:, -1] - jnp.sum(jnp.log(self.scaling.scale))

    def cdf(self, y: Any) -> Float[Array, "m ..."]:
        """Distribution function, `(m,)`; of several coordinates that of each given those before.

        Args:
            y: where, shape `(m, d)`, or `(m,)` for one coordinate.

        Raises:
            ValueError: wrong shapes, NaN.
        """
        lower = self._points(y, "cdf").lower
        return lower[:, 0] if lower.shape[1] == 1 else lower

    def resample(
        self,
        key: jax.Array,
        y: Any,
        *,
        num_forward: int = 5000,
        num_samples: int = 1000,
        num_records: int = 5,
        batch_size: int | None = None,
    ) -> MartingalePosterior:
        """Draws of the density, by drawing observations ahead.

        An observation counts only by what it is under the predictive before it, which is uniform:
        no `y` is drawn. Time does not depend on the number of data.

        Args:
            key: PRNG key.
            y: where the density is wanted, shape `(m, d)`, or `(m,)` for one coordinate.
            num_forward: observations drawn.
            num_samples: densities.
            num_records: at how many times diagnostics are taken.
            batch_size: densities at a time; by default what fits in about 100 MB.

        Returns:
            Samples `"density"`, `(s, m)`, and `"cdf"`, `(s, m)` or `(s, m, d)` as of `cdf`.
            Densities are a martingale, of which the drift should be 0.

        Raises:
            ValueError: wrong shapes or numbers.
        """
        start, rho = self._points(y, "resample"), self.bandwidths.outputs
        unit = jnp.sum(jnp.log(self.scaling.scale))

        def step(key: jax.Array, i: Any, points: Points) -> Points:
            return update(points, uniforms(key, rho), log_odds(i, rho.dtype), rho)

        def observe(points: Points) -> dict[str, jax.Array]:
            lower = points.lower[:, 0] if points.lower.shape[1] == 1 else points.lower
            return {"density": jnp.exp(points.log_pdf[:, -1] - unit), "cdf": lower}

        options = {"num_forward": num_forward, "num_samples": num_samples,
                   "num_records": num_records, "batch_size": batch_size}  # fmt: skip
        return resampled(
            "CopulaDensity.resample", key, "CopulaDensity", self.num_data, start, step, observe,
            options,
        )  # fmt: skip

    def _points(self, y: Any, owner: str) -> Points:
        width = self.scaling.loc.shape[0]
        rows = checked_matrix(f"CopulaDensity.{owner}", "y", y, width).astype(
            self.scaling.loc.dtype
        )
        return points_of(self.orders, self.scaling(rows), None)


def uniforms(key: jax.Array, like: jax.Array) -> Uniforms:
    """An observation from the predictive, whatever it is."""
    lower = jax.random.uniform(key, like.shape, like.dtype)
    return Uniforms(lower, 1 - lower)


def varied_or_given(owner: str, name: str, y: Any, bandwidths: Any) -> jax.Array:
    """Observations, of which there may be none if bandwidths are given.

    Raises:
        ValueError: wrong shapes, NaN, constant columns; none, without bandwidths.
    """
    rows = varied(owner, name, checked_matrix(owner, name, y))
    if rows.shape[0] < 2 and bandwidths is None:
        raise ValueError(
            f"{owner}: {name} must have at least 2 rows to find bandwidths, got {rows.shape[0]}; "
            "give bandwidths="
        )
    return rows


@compiled
def _orders(bandwidths: CopulaBandwidths, z: Any, orders: Any) -> Orders:
    return in_orders(bandwidths, z, None, orders)


def _loss(bandwidths: CopulaBandwidths, z: Any, orders: Any) -> jax.Array:
    return -jnp.mean(in_orders(bandwidths, z, None, orders).log_prob[..., -1])
