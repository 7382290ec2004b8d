"""The distribution of measurements whose Kronecker-sparse coefficients are integrated out."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import random
from numpyro.distributions import constraints

from ..distributions import AbstractVectorNormal
from ..ops import contract_grid, grid_gram, kron_mm, outer_grid
from ._design import square
from ._kron_arguments import kron_factors, of_one_type
from ._kron_moments import decompose
from ._weights import normal_log_prob


class _NonNegativeVectors(constraints.ParameterFreeConstraint):
    """Tuples of vectors without negative elements."""

    def __call__(self, x: Any) -> jax.Array:
        return jnp.all(jnp.stack([jnp.all(jnp.asarray(vector) >= 0) for vector in x]))

    def tree_flatten(self) -> Any:
        return (), ((), {})


class KroMarginal(AbstractVectorNormal):
    r"""Normal distribution of $y = (\otimes_i H_i) x + \epsilon$ with $x$ integrated out.

    Its mean is 0 and its covariance $\otimes_i H_i \mathrm{diag}(g_i) H_i^H + \sigma^2 I$, which is
    never formed: densities and gradients take an eigendecomposition of `(m_i, m_i)` for each axis.
    As a site of a NumPyro model with `obs`, `g_i`, `noise_var` and parameters of the designs can be
    sampled by NUTS. Circular complex if a factor is, and then `obs` must be complex.

    A value is a vector, the grid of measurements in C order: `y.reshape(-1)`. Snapshots are draws,
    in leading axes.

    The gradient, in all arguments, is right where eigenvalues coincide, as they do as a rule. There
    are no second derivatives in factors and variances.

    Args:
        factors: $H_i$, shape `(m_i, n_i)` each, or one matrix.
        prior_factors: $g_i$, variances, not negative, shape `(n_i,)` each, or one vector.
        noise_var: $\sigma^2$, positive scalar; of both parts together if it is complex.
        validate_args: whether values are checked, as elsewhere in NumPyro.

    Raises:
        ValueError: shapes that disagree, integers, or mixed precisions.
    """

    arg_constraints = {
        "factors": constraints.dependent,
        "prior_factors": _NonNegativeVectors(),
        "noise_var": constraints.positive,
    }
    pytree_data_fields = ("factors", "prior_factors", "noise_var", "loc")

    def __init__(
        self,
        factors: Any,
        prior_factors: Any,
        noise_var: Any,
        *,
        validate_args: bool | None = False,
    ):
        self.factors = kron_factors("KroMarginal", factors)
        self.prior_factors, self.noise_var = _parameters(self.factors, prior_factors, noise_var)
        size = math.prod(f.shape[0] for f in self.factors)
        self.loc = jnp.zeros(size, self.factors[0].dtype)
        super().__init__((), (size,), validate_args=validate_args)

    @property
    def _mapped_ndim(self) -> int:
        return jnp.ndim(self.noise_var)

    def log_prob(self, value: Any, intermediates: Any = None) -> jax.Array:
        return self._batched_log_prob(value)

    def _log_prob(self, value: jax.Array) -> jax.Array:
        if jnp.iscomplexobj(value) != jnp.iscomplexobj(self.loc):
            kind = "complex" if jnp.iscomplexobj(self.loc) else "real"
            raise ValueError(
                f"KroMarginal: value must be {kind}, as the factors are, got {value.dtype}"
            )
        columns = value.reshape(-1, value.shape[-1]).T.astype(self.loc.dtype)
        quad, logdet = _quad_logdet(self.factors, self.prior_factors, self.noise_var, columns)
        return normal_log_prob(quad, logdet, self.loc).reshape(value.shape[:-1])

    def _sample(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        for_prior, for_noise = random.split(key)
        num, dtype = math.prod(shape), self.loc.dtype
        root = outer_grid([jnp.sqrt(g) for g in self.prior_factors]).reshape(-1, 1)
        drawn = root * random.normal(for_prior, (root.size, num), dtype)
        noise = random.normal(for_noise, (self.loc.size, num), dtype)
        measured = kron_mm(self.factors, drawn) + jnp.sqrt(self.noise_var) * noise
        return measured.T.reshape(*shape, -1)

    def _entropy(self) -> jax.Array:
        columns = self.loc[:, None]
        _, logdet = _quad_logdet(self.factors, self.prior_factors, self.noise_var, columns)
        return -normal_log_prob(jnp.full_like(logdet, self.loc.size), logdet, self.loc)

    def _variance(self) -> jax.Array:
        pairs = zip(self.factors, self.prior_factors, strict=True)
        return outer_grid([square(f) @ g for f, g in pairs]).reshape(-1) + self.noise_var

    def _covariance_matrix(self) -> jax.Array:
        pairs = zip(self.factors, self.prior_factors, strict=True)
        dense = functools.reduce(jnp.kron, [(f * g) @ f.conj().T for f, g in pairs])
        return dense + self.noise_var * jnp.eye(self.loc.size, dtype=dense.dtype)


def _parameters(
    factors: tuple[jax.Array, ...], prior_factors: Any, noise_var: Any
) -> tuple[tuple[jax.Array, ...], jax.Array]:
    """Variances and noise in the precision of the factors."""
    if not isinstance(prior_factors, tuple | list):
        prior_factors = (prior_factors,)
    wanted = [(f.shape[1],) for f in factors]
    shapes = [jnp.shape(g) for g in prior_factors]
    if shapes != wanted:
        raise ValueError(
            f"KroMarginal: prior_factors must have shapes {wanted}, one for each factor's columns, "
            f"got {shapes}"
        )
    if jnp.shape(noise_var) != ():
        raise ValueError(
            f"KroMarginal: noise_var must be a scalar, got shape {jnp.shape(noise_var)}"
        )
    named = {f"prior_factors[{d}]": jnp.asarray(g) for d, g in enumerate(prior_factors)}
    for name, array in named.items():
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise ValueError(f"KroMarginal: {name} must hold real numbers, got {array.dtype}")
    of_one_type("KroMarginal", {"factors[0]": factors[0], **named})
    return tuple(named.values()), jnp.asarray(noise_var, jnp.finfo(factors[0].dtype).dtype)


@jax.custom_jvp
def _quad_logdet(
    factors: tuple[jax.Array, ...],
    variances: tuple[jax.Array, ...],
    noise_var: jax.Array,
    y: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    r"""$y^H C^{-1} y$ of each column, and $\log \det C$; NaN where a variance is not positive."""
    return _evaluated(factors, variances, noise_var, y)[0]


def _evaluated(
    factors: tuple[jax.Array, ...],
    variances: tuple[jax.Array, ...],
    noise_var: jax.Array,
    y: jax.Array,
) -> Any:
    spectrum = decompose(factors, variances)
    total = noise_var + outer_grid(list(spectrum.values))
    rotated = kron_mm(tuple(u.conj().T for u in spectrum.vectors), y)
    scaled = rotated / total.reshape(-1, 1)
    quad = jnp.sum(square(rotated) / total.reshape(-1, 1), axis=0)
    valid = noise_var > 0
    for variance in variances:
        valid &= jnp.all(variance >= 0)
    logdet = jnp.where(valid, jnp.sum(jnp.log(total)), jnp.nan)
    return (quad, logdet), (spectrum, total, scaled)


@_quad_logdet.defjvp
def _(primals: Any, tangents: Any) -> Any:
    # With C = U diag(total) U^H, changes of log det C and y^H C⁻¹ y are tr(C⁻¹ dC) and
    # -(C⁻¹ y)^H dC (C⁻¹ y): no eigenvector changes.
    factors, variances, noise_var, y = primals
    d_factors, d_variances, d_noise, d_y = tangents
    value, (spectrum, total, scaled) = _evaluated(factors, variances, noise_var, y)
    inverse, grid = 1 / total, (*total.shape, -1)
    d_logdet = d_noise * jnp.sum(inverse)
    d_quad = -d_noise * jnp.sum(square(scaled), axis=0)
    columns = jnp.moveaxis(scaled.reshape(grid), -1, 0)
    for axis, (f, g, u) in enumerate(zip(factors, variances, spectrum.vectors, strict=True)):
        turned, d_turned = u.conj().T @ f, u.conj().T @ d_factors[axis]
        half = (d_turned * g + turned * d_variances[axis] / 2) @ turned.conj().T
        moved = half + half.conj().T  # U^H dK U
        values = spectrum.values
        d_logdet += contract_grid(inverse, values, axis) @ jnp.diag(moved).real
        along = [jnp.ones_like(v) if d == axis else v for d, v in enumerate(values)]
        weights = outer_grid(along)
        grams = jax.vmap(lambda c, w=weights, axis=axis: grid_gram(c.conj(), c * w, axis))(columns)
        d_quad -= jnp.sum((grams * moved).real, axis=(1, 2))
    solved = kron_mm(spectrum.vectors, scaled)
    d_quad += 2 * jnp.sum((solved.conj() * d_y).real, axis=0)
    return value, (d_quad, d_logdet)
