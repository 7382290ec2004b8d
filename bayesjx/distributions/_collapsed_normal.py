"""A structured normal distribution with the correction of a collapsed variational bound."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from numpyro.distributions import constraints

from ..ops import AbstractOperator
from ._structured_normal import AbstractStructuredNormal


class CollapsedNormal(AbstractStructuredNormal):
    r"""Normal distribution with an approximate covariance and a correction of its log density.

    Collapsed variational bounds of Gaussian processes have this form, with a covariance of low rank
    plus a diagonal. `log_prob` is then the bound: as a site of a model with `obs` it stands for the
    marginal likelihood, and where the correction is a bound's, posteriors over hyper-parameters are
    those of a lower bound. As a density of data it integrates to $e^{\text{correction}}$, not to 1;
    draws, mean, variance, entropy and `condition` are those without the correction.

    Args:
        loc: mean, shape `(n,)`, of the operator's type.
        covariance: operator tagged `ops.psd`, shape `(n, n)`.
        correction: what is added to the log density, scalar.

    Raises:
        ValueError: as `StructuredNormal`, or a correction that is not a scalar.
    """

    arg_constraints = {**AbstractStructuredNormal.arg_constraints, "correction": constraints.real}
    pytree_data_fields = ("correction",)

    def __init__(
        self,
        loc: Any,
        covariance: AbstractOperator,
        correction: Any = 0.0,
        *,
        validate_args: bool | None = False,
    ):
        if jnp.ndim(correction) != 0:
            raise ValueError(
                f"CollapsedNormal: correction must be a scalar, got shape {jnp.shape(correction)}"
            )
        self.correction = jnp.asarray(correction, jnp.result_type(loc))
        super().__init__(loc, covariance, validate_args=validate_args)

    def log_prob(self, value: Any, intermediates: Any = None) -> jax.Array:
        return self._batched_log_prob(value)

    def _log_prob(self, value: jax.Array) -> jax.Array:
        return self._normal_log_prob(value) + self.correction
