"""Recursive copula predictives of densities."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..gp import Minimum
from ._copula import log_odds, Points, scores, update
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
    varied,
    warn_of_ties,
)
from ._copula_predictive import AbstractCopulaPredictive, Forward


class CopulaDensity(AbstractCopulaPredictive):
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
        orders, by L-BFGS over all coordinates at once. Of rounded data, many of which are equal,
        the likelihood has no maximum: bandwidths near 1 warn. A step takes time $O(k n^2 d)$ for
        `k` orders. Use float64 for more than a thousand rows, over which rounding adds up.

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
        warn_of_ties(owner, best, minimum)
        return CopulaDensity(
            orders=orders_of(best, z, None, orders), scaling=scaling, minimum=minimum
        )

    def prequential_log_prob(self) -> Float[Array, ""]:
        """Sum of the log densities of each observation given those before, averaged over orders."""
        return prequential(self.orders.log_prob[..., -1], self.scaling.scale)

    def log_prob(self, y: Any) -> Float[Array, " m"]:
        """Log predictive densities, shape `(m,)`.

        Args:
            y: where, shape `(m, d)`, or `(m,)` for one coordinate.

        Raises:
            ValueError: wrong shapes, NaN.
        """
        unit = jnp.sum(jnp.log(self.scaling.scale))
        return self._points("CopulaDensity.log_prob", y).log_pdf[:, -1] - unit

    def cdf(self, y: Any) -> Float[Array, "m ..."]:
        """Distribution function, `(m,)`; of several coordinates that of each given those before.

        Args:
            y: where, shape `(m, d)`, or `(m,)` for one coordinate.

        Raises:
            ValueError: wrong shapes, NaN.
        """
        lower = self._points("CopulaDensity.cdf", y).lower
        return lower[:, 0] if lower.shape[1] == 1 else lower

    @property
    def _names(self) -> tuple[str, ...]:
        return ("y",)

    def _forward(self, owner: str, num_forward: int, *at: Any) -> Forward:
        rho = self.bandwidths.outputs
        unit = jnp.sum(jnp.log(self.scaling.scale))

        def step(key: jax.Array, i: Any, points: Points) -> Points:
            seen = jax.random.normal(key, rho.shape, rho.dtype)
            return update(points, scores(points), seen, log_odds(i, rho.dtype), rho)

        def observe(points: Points) -> dict[str, jax.Array]:
            lower = points.lower[:, 0] if points.lower.shape[1] == 1 else points.lower
            return {"density": jnp.exp(points.log_pdf[:, -1] - unit), "cdf": lower}

        return Forward(self._points(owner, *at), step, observe)

    def _points(self, owner: str, y: Any) -> Points:
        loc = self.scaling.loc
        rows = checked_matrix(owner, "y", y, loc.shape[0]).astype(loc.dtype)
        return points_of(self.orders, self.scaling(rows), None)


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


def _loss(bandwidths: CopulaBandwidths, z: Any, orders: Any) -> jax.Array:
    return -jnp.mean(in_orders(bandwidths, z, None, orders).log_prob[..., -1])
