"""What classic sparse Bayesian learning returns."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Inexact, Int, Num
from numpyro import distributions as dist

from .._core import is_successful, RESULTS
from ..distributions import ComplexNormal
from ..ops import AbstractOperator
from ._design import dense
from ._weights import WeightPosterior


class SBLPosterior(eqx.Module):
    r"""Posterior of the weights at learned prior variances: which are in use, and what they are.

    It is made by `sbl.sbl`. Derivatives of what it computes hold the prior variances and the noise
    variance fixed; that of the evidence, which is stationary in those, is then the whole one.

    Attributes:
        weights: the posterior of the weights that are in use, and of some that are 0.
        columns: which columns of the design those belong to, shape `(k,)`.
        mean: posterior means of all weights, shape `(m,)` or `(m, L)`, 0 where not in use.
        variance: posterior variances, shape `(m,)`.
        prior_var: learned prior variances $g$, shape `(m,)`.
        active: which weights are in use, booleans, shape `(m,)`.
        evidence_trace: log evidence after each step, shape `(max_steps,)`, NaN from `num_steps` on.
        num_steps: number of updates, scalar.
        result: how it ended.
    """

    weights: WeightPosterior
    columns: Int[Array, " k"]
    mean: Inexact[Array, "m ..."]
    variance: Float[Array, " m"]
    prior_var: Float[Array, " m"]
    active: Bool[Array, " m"]
    evidence_trace: Float[Array, " t"]
    num_steps: Int[Array, ""]
    result: RESULTS

    @property
    def converged(self) -> Bool[Array, ""]:
        """Whether `result` is successful."""
        return is_successful(self.result)

    @property
    def noise_var(self) -> Float[Array, ""]:
        """The noise variance, learned or given, scalar."""
        return self.weights.noise_var

    @property
    def effective_dof(self) -> Float[Array, ""]:
        """Effective degrees of freedom, the number of weights that data determine, scalar."""
        return self.weights.effective_dof

    def log_evidence(self) -> Float[Array, ""]:
        """Log marginal likelihood of the measurements at the learned variances, scalar."""
        return self.weights.log_evidence()

    def covariance(self) -> Inexact[Array, "m m"]:
        """Posterior covariance of all weights, shape `(m, m)`."""
        size = len(self.prior_var)
        own = self.weights.covariance()
        rows, columns = self.columns[:, None], self.columns
        return jnp.zeros((size, size), own.dtype).at[rows, columns].set(own)

    def predict(
        self, design: Num[Array | np.ndarray, "k m"] | AbstractOperator
    ) -> dist.Normal | ComplexNormal:
        r"""Predictive distributions of new measurements, each by itself.

        Args:
            design: their rows of $\Phi$, shape `(k, m)`.

        Returns:
            Normal distributions of shape `(k,)` or `(k, L)`, circular ones of complex data.

        Raises:
            ValueError: `design` has another number of columns or another type.
        """
        rows, size = dense(design), len(self.prior_var)
        if rows.ndim != 2 or rows.shape[1] != size:
            raise ValueError(
                f"predict: design must have shape (k, {size}), a row for each new measurement; got "
                f"{rows.shape}"
            )
        return self.weights.predict(rows[:, self.columns])

    def leave_one_out(self) -> dist.Normal | ComplexNormal:
        """The predictive distribution of each measurement given all others, of the shape of `y`.

        With the prior variances that all of them gave.
        """
        return self.weights.leave_one_out()

    def sample(
        self, key: jax.Array, sample_shape: tuple[int, ...] = ()
    ) -> Inexact[Array, "*sample m *L"]:
        """Joint draws of all weights, shape `(*sample_shape, m)` or `(*sample_shape, m, L)`."""
        draws = self.weights.sample(key, sample_shape)
        lead = len(sample_shape)
        rest = draws.ndim - lead - 1
        full = jnp.zeros((*sample_shape, *self.mean.shape), draws.dtype)
        at = (*(slice(None),) * lead, self.columns, *(slice(None),) * rest)
        return full.at[at].set(draws)
