"""Abstract base class of recursive copula predictives, and how they draw ahead."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
from jaxtyping import Array, Float

from .._core import check_key, whole_number
from ..gp import Minimum
from ._chains import batch_of, Horizon, horizon_of, run_chains, run_segments
from ._copula_fit import CopulaBandwidths
from ._martingale_posterior import diagnosed, MartingalePosterior


class Forward(NamedTuple):
    """How a predictive goes on from one observation to the next.

    Attributes:
        start: what changes, a pytree of arrays.
        step: `step(key, i, carry)`, `i` the number of the observation from 1 on.
        observe: from a carry to arrays by name, of which diagnostics compare the densities or
            the probabilities.
    """

    start: Any
    step: Callable[[jax.Array, Any, Any], Any]
    observe: Callable[[Any], dict[str, jax.Array]]


class AbstractCopulaPredictive(eqx.Module):
    r"""Abstract base class of predictives that recursive Gaussian copula updates make.

    Attributes:
        orders: the data in several orders, with what they were predicted to be.
        minimum: how the bandwidths were found, where they were; its `message` says how well.
    """

    orders: eqx.AbstractVar[Any]
    minimum: eqx.AbstractVar[Minimum | None]

    @property
    def bandwidths(self) -> CopulaBandwidths:
        """Correlations of the copulas."""
        return self.orders.bandwidths

    @property
    def num_data(self) -> int:
        """How many observations there are."""
        return self.orders.log_prob.shape[1]

    @abc.abstractmethod
    def prequential_log_prob(self) -> Float[Array, ""]:
        """Sum of log predictions of each observation given those before, averaged over orders."""

    @property
    @abc.abstractmethod
    def _names(self) -> tuple[str, ...]:
        """Names of the arrays that `resample` takes."""

    @abc.abstractmethod
    def _forward(self, owner: str, num_forward: int, *at: Any) -> Forward:
        """How to draw ahead for what is wanted at points."""

    def resample(
        self,
        key: jax.Array,
        *at: Any,
        num_forward: int = 5000,
        num_samples: int = 1000,
        num_records: int = 5,
        batch_size: int | None = None,
    ) -> MartingalePosterior:
        """Draws of the predictive distribution at points, by drawing observations ahead.

        An observation counts only by its normal score under the predictive before it, which is
        standard normal: no observation is drawn, and of densities time does not depend on the
        number of data. Where there are inputs, they are those of one of the rows so far, drawn ones
        included; of classes, the class there is drawn.

        Args:
            key: PRNG key.
            *at: where it is wanted: `y` of `CopulaDensity`, shape `(m, d)` or `(m,)`; inputs `x`,
                shape `(m, p)` or `(m,)`, and responses `y`, shape `(m,)`, of `CopulaRegression`
                (for a curve, repeat a row of `x`); inputs `x` of `CopulaClassifier`.
            num_forward: observations drawn.
            num_samples: draws.
            num_records: at how many times diagnostics are taken.
            batch_size: draws at a time; by default what fits in about 100 MB.

        Returns:
            Samples `"density"` and `"cdf"`, shape `(s, m)`, or `(s, m, d)` as `cdf` has it; of
            classes `"probability"` of class 1, `(s, m)`. Densities and probabilities are a
            martingale, of which the drift should be 0, but for the ratios of the joint kind.

        Raises:
            ValueError: wrong shapes or numbers; no data to draw inputs from.
        """
        source = type(self).__name__
        owner = f"{source}.resample"
        check_key(key)
        if len(at) != len(self._names):
            raise ValueError(
                f"{owner}: after the key come {' and '.join(self._names)}, got {len(at)} arrays"
            )
        horizon = horizon_of(owner, self.num_data, num_forward, num_records)
        num_samples = whole_number(f"{owner}: num_samples", num_samples)
        forward = self._forward(owner, horizon.num_forward, *at)
        room = 16 * sum(x.size for x in jax.tree.leaves(forward.start))
        batch_size = batch_of(owner, batch_size, num_samples, room)

        def one(key: jax.Array, start: Any) -> Any:
            return _chain(key, start, forward, horizon)

        paths = run_chains(one, jax.random.split(key, num_samples), forward.start, batch_size)
        initial = forward.observe(forward.start)
        name = "density" if "density" in initial else "probability"
        samples, found = diagnosed(
            paths, initial, horizon.num_rows, None, paths[name], initial[name]
        )
        return MartingalePosterior(
            samples, found, initial, source, self.num_data, horizon.num_forward
        )


def _chain(key: jax.Array, start: Any, forward: Forward, horizon: Horizon) -> dict[str, jax.Array]:
    """What is observed after each segment of steps."""

    def step(t: Any, carry: Any) -> Any:
        return forward.step(jax.random.fold_in(key, t), horizon.num_data + t + 1, carry)

    return run_segments(horizon, start, step, forward.observe)[1]
