"""Distribution of the measurements of a sparse linear model, with its weights integrated out."""

from __future__ import annotations

from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax import random
from numpyro.distributions import biject_to, constraints

from ..distributions import AbstractVectorNormal
from ..ops import AbstractOperator
from ._arguments import real_of
from ._design import dense, square, times
from ._weights import conditioned, normal_log_prob


class _Design(constraints.ParameterFreeConstraint):
    """Matrices, real or complex, and operators."""

    event_dim = 2

    def __call__(self, x: Any) -> Any:
        return True

    def tree_flatten(self) -> Any:
        return (), ((), {})


class _ComplexVector(constraints.ParameterFreeConstraint):
    """Vectors of complex numbers."""

    event_dim = 1

    def __call__(self, x: Any) -> jax.Array:
        return jnp.all(jnp.isfinite(jnp.real(x)) & jnp.isfinite(jnp.imag(x)), axis=-1)

    def feasible_like(self, prototype: jax.Array) -> jax.Array:
        return jnp.zeros_like(prototype)

    def tree_flatten(self) -> Any:
        return (), ((), {})


@biject_to.register(_ComplexVector)
def _(constraint: _ComplexVector) -> Any:
    raise NotImplementedError(
        "SBLMarginal: with a complex design it is a distribution of complex measurements, and "
        "samplers such as NUTS, and guides, take real sites only; give the measurements by obs="
    )


class SBLMarginal(AbstractVectorNormal):
    r"""Evidence of sparse Bayesian learning: measurements $y = \Phi w + \epsilon$ without weights.

    $y \sim N(0, \sigma^2 I + \Phi\,\mathrm{diag}(g)\,\Phi^H)$, circular complex with a complex
    design. In a model, `numpyro.sample("y", SBLMarginal(design, log_prior_var, log_noise_var),
    obs=y)` is the evidence, so that NUTS runs over the variances only, and
    `sbl.condition` gives the weights at any draw of those. Value and gradient take
    $O(n m \min(n, m))$; the gradient with respect to $g_j$ is, of real data,
    $\frac12 (Q_j^2 - S_j)$ with $S_j = \Phi_j^H C^{-1} \Phi_j$ and $Q_j = \Phi_j^H C^{-1} y$.
    Values with leading axes are measurement vectors that share the variances, at the cost of one
    factorisation.

    Args:
        design: $\Phi$, shape `(n, m)`, an array or an operator.
        log_prior_var: $\log g$, shape `(m,)` or scalar; minus infinity for weights that are 0.
        log_noise_var: $\log \sigma^2$, scalar.
        validate_args: whether arguments and values are checked, as elsewhere in NumPyro.

    Raises:
        ValueError: shapes that disagree, a design that is not of floating-point numbers.

    References:
        Tipping (2001), "Sparse Bayesian learning and the relevance vector machine", JMLR 1.
    """

    arg_constraints = {
        "design": _Design(),
        "log_prior_var": constraints.real_vector,
        "log_noise_var": constraints.real,
    }
    pytree_data_fields = ("design", "log_prior_var", "log_noise_var", "loc")

    def __init__(
        self,
        design: Any,
        log_prior_var: Any,
        log_noise_var: Any,
        *,
        validate_args: bool | None = False,
    ):
        if not isinstance(design, AbstractOperator):
            design = jnp.asarray(design)
        if len(design.shape) != 2 or not jnp.issubdtype(design.dtype, jnp.inexact):
            raise ValueError(
                "SBLMarginal: design must be a matrix of floating-point numbers, (n, m); got "
                f"{design.dtype} of shape {design.shape}"
            )
        n, m = design.shape
        for name, value, shapes in (
            ("log_prior_var", log_prior_var, ((), (m,))),
            ("log_noise_var", log_noise_var, ((),)),
        ):
            if jnp.shape(value) not in shapes:
                wanted = f"a scalar or have shape ({m},)" if m in shapes[-1] else "a scalar"
                raise ValueError(
                    f"SBLMarginal: {name} must be {wanted}, as design is {design.shape}; got shape "
                    f"{jnp.shape(value)}"
                )
        real = real_of(design.dtype)
        self.design = design
        self.log_prior_var = jnp.broadcast_to(jnp.asarray(log_prior_var, real), (m,))
        self.log_noise_var = jnp.asarray(log_noise_var, real)
        self.loc = jnp.zeros(n, design.dtype)
        super().__init__((), (n,), validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=1)
    def support(self) -> Any:
        """Real vectors, or complex ones with a complex design."""
        return _ComplexVector() if jnp.iscomplexobj(self.loc) else constraints.real_vector

    @property
    def _mapped_ndim(self) -> int:
        return jnp.ndim(self.log_noise_var)

    def log_prob(self, value: Any, intermediates: Any = None) -> jax.Array:
        return self._batched_log_prob(value)

    def _variances(self) -> tuple[jax.Array, jax.Array]:
        return jnp.exp(self.log_noise_var), jnp.exp(self.log_prior_var)

    def _log_prob(self, value: jax.Array) -> jax.Array:
        if jnp.iscomplexobj(value) and not jnp.iscomplexobj(self.loc):
            raise ValueError(
                f"SBLMarginal: value must be real, as the design is, got {value.dtype}"
            )
        columns = value.reshape(-1, value.shape[-1]).T.astype(self.loc.dtype)
        found = conditioned(self.design, columns, *self._variances())
        log_prob = normal_log_prob(found.quadratic, found.logdet, columns)
        return log_prob.reshape(value.shape[:-1])

    def _sample(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        noise_var, prior_var = self._variances()
        from_prior, from_noise = random.split(key)
        num = int(np.prod(shape))
        n, m = self.design.shape
        scale = jnp.sqrt(prior_var)[:, None]
        weights = scale * random.normal(from_prior, (m, num), self.loc.dtype)
        noise = jnp.sqrt(noise_var) * random.normal(from_noise, (n, num), self.loc.dtype)
        return (times(self.design, weights) + noise).T.reshape(*shape, n)

    def _entropy(self) -> jax.Array:
        zero = jnp.zeros((len(self.loc), 1), self.loc.dtype)
        logdet = conditioned(self.design, zero, *self._variances()).logdet
        quadratic = jnp.asarray(len(self.loc), logdet.dtype)  # its mean; half of it if real
        return -normal_log_prob(quadratic, logdet, zero)

    def _variance(self) -> jax.Array:
        noise_var, prior_var = self._variances()
        return square(dense(self.design)) @ prior_var + noise_var

    def _covariance_matrix(self) -> jax.Array:
        noise_var, prior_var = self._variances()
        rows = dense(self.design)
        return (rows * prior_var) @ rows.mT.conj() + noise_var * jnp.eye(
            len(rows), dtype=rows.dtype
        )
