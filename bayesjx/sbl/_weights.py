"""Gaussian weights of a linear model: posterior, evidence, leave-one-out and draws."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from jaxtyping import Array, Float, Inexact, Num
from numpyro import distributions as dist

from .._core import check_key, compiled, inverse_tril, refuse_where, safe_cholesky, whole_number
from ..distributions import ComplexNormal
from ..ops import AbstractOperator
from ._arguments import checked_problem, checked_variance, real_of
from ._design import adjoint_times, dense, gram, outer, solve_adjoint, solve_tril, square, times
from ._weight_space import blocks, Moments, moments, positive_definite, root, system_tril


class DataSpace(eqx.Module):
    r"""The $n \times n$ system of a posterior: the covariance of the measurements.

    Attributes:
        tril: lower Cholesky factor of $C = \sigma^2 I + \Phi D \Phi^H$, shape `(n, n)`.
        jitter: what had to be added to its diagonal to factorise it, scalar; 0 if nothing.
    """

    tril: Inexact[Array, "n n"]
    jitter: Float[Array, ""]


class WeightSpace(eqx.Module):
    r"""The $m \times m$ system of a posterior: the covariance of the weights.

    Attributes:
        tril: lower Cholesky factor of $I + D^{1/2} \Phi^H \Phi D^{1/2} / \sigma^2$, shape `(m, m)`.
        covariance: of the weights given the data, shape `(m, m)`.
        jitter: part by which the diagonal of $\Phi^H \Phi$ had to be raised to factorise it,
            scalar; 0 if nothing.
    """

    tril: Inexact[Array, "m m"]
    covariance: Inexact[Array, "m m"]
    jitter: Float[Array, ""]

    def covariance_of(self, rows: jax.Array) -> jax.Array:
        r"""Covariances $A \Sigma A^H$ of combinations of the weights, shape `(..., k, k)`."""
        return (rows @ self.covariance) @ rows.mT.conj()

    def deviations(self, prior_var: jax.Array, white: jax.Array) -> jax.Array:
        """Draws of the weights less their means, from white noise, shape `(m, k)` both."""
        return root(prior_var)[:, None] * solve_adjoint(self.tril, white)


class WeightPosterior(eqx.Module):
    r"""Posterior of the weights of $y = \Phi w + \epsilon$ with $w_j \sim N(0, g_j)$.

    It is made by `condition`. With `L` measurement vectors, columns of `y` with weights of their
    own, the prior and the covariance are those of each. All of it has derivatives of any order
    with respect to the noise variance and the prior variances, also where one of these is 0; those
    of draws are 0 there.

    Attributes:
        design: $\Phi$, shape `(n, m)`, an array or an operator.
        y: measurements, shape `(n,)` or `(n, L)`.
        noise_var: $\sigma^2$, scalar.
        prior_var: $g$, shape `(m,)`.
        mean: posterior means, shape `(m,)` or `(m, L)`.
        variance: posterior variances, shape `(m,)`.
        effective_dof: effective degrees of freedom $\sum_j (1 - \Sigma_{jj} / g_j)$, the number of
            weights that the data determine, scalar.
        residual: $y - \Phi \mu$, of the shape of `y`.
        quadratic: $y^H C^{-1} y$ for the covariance $C$ of the measurements, scalar or `(L,)`.
        logdet: $\log\det C$, scalar.
        system: the factorisation, of the smaller of the two systems.
    """

    design: Inexact[Array, "n m"] | AbstractOperator
    y: Inexact[Array, "n ..."]
    noise_var: Float[Array, ""]
    prior_var: Float[Array, " m"]
    mean: Inexact[Array, "m ..."]
    variance: Float[Array, " m"]
    effective_dof: Float[Array, ""]
    residual: Inexact[Array, "n ..."]
    quadratic: Float[Array, ...]
    logdet: Float[Array, ""]
    system: DataSpace | WeightSpace

    def log_evidence(self) -> Float[Array, ""]:
        """Log marginal likelihood of the measurements, with all weights integrated out, scalar."""
        return jnp.sum(normal_log_prob(self.quadratic, self.logdet, self.y))

    def covariance(self) -> Inexact[Array, "m m"]:
        """Posterior covariance of the weights, shape `(m, m)`."""
        if isinstance(self.system, WeightSpace):
            return self.system.covariance
        half = solve_tril(self.system.tril, dense(self.design) * self.prior_var)
        return jnp.diag(self.prior_var).astype(half.dtype) - half.mT.conj() @ half

    def covariance_of(
        self, design: Inexact[Array | np.ndarray, "*batch k m"]
    ) -> Inexact[Array, "*batch k k"]:
        r"""Posterior covariances $A \Sigma A^H$ of combinations of the weights, batch by batch.

        With fewer measurements than weights nothing of size `m x m` is formed.

        Args:
            design: the combinations $A$, shape `(..., k, m)`.

        Raises:
            ValueError: `design` has another number of columns.
        """
        size = len(self.mean)
        rows = combinations(design, size)
        if isinstance(self.system, WeightSpace):
            return self.system.covariance_of(rows)
        before = rows * root(self.prior_var)
        flat = rows.reshape(-1, size)
        cross = times(self.design, self.prior_var[:, None] * flat.mT.conj())
        half = solve_tril(self.system.tril, cross).mT.conj().reshape(*rows.shape[:-1], -1)
        return before @ before.mT.conj() - half @ half.mT.conj()

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
        design = self._checked_rows(design)
        mean = self._as_columns(times(design, _columns(self.mean)))
        variance = self._spread(design) + self.noise_var
        return self._normal(mean, variance)

    def leave_one_out(self) -> dist.Normal | ComplexNormal:
        """The predictive distribution of each measurement given all others, of the shape of `y`.

        Its `log_prob(y)` summed is the leave-one-out log predictive density of the data.

        References:
            Rasmussen and Williams (2006), "Gaussian processes for machine learning", equations
            5.12 (after Sundararajan and Keerthi, 2001).
        """
        if isinstance(self.system, DataSpace):
            # The diagonal of the inverse of C; the residual is the noise variance times C⁻¹ y.
            free = self.noise_var * jnp.sum(square(inverse_tril(self.system.tril)), axis=0)
        else:
            leverage = self._spread(self.design) / self.noise_var
            free = jnp.maximum(1 - leverage, jnp.finfo(leverage.dtype).eps)
        mean = self.y - self.residual / (free if self.y.ndim == 1 else free[:, None])
        return self._normal(mean, self.noise_var / free)

    def sample(
        self, key: jax.Array, sample_shape: tuple[int, ...] = ()
    ) -> Inexact[Array, "*sample m *L"]:
        r"""Joint draws of the weights, shape `(*sample_shape, m)` or `(*sample_shape, m, L)`.

        Memory is $O(n m)$ and that of the draws: the smaller system is all that is factorised, and
        with fewer measurements than weights draws of the prior are updated by Matheron's rule.

        Raises:
            ValueError: no key, or a shape that is no tuple of integers.
        """

        def deviations(key: jax.Array, num: int) -> jax.Array:
            from_prior, from_noise = random.split(key)
            white = random.normal(from_prior, (len(self.mean), num), self.mean.dtype)
            tril = self.system.tril
            if isinstance(self.system, WeightSpace):
                return self.system.deviations(self.prior_var, white)
            noise = random.normal(from_noise, (len(self.y), num), white.dtype)
            prior = root(self.prior_var)[:, None] * white
            seen = times(self.design, prior) + jnp.sqrt(self.noise_var) * noise
            solved = solve_adjoint(tril, solve_tril(tril, seen))
            return prior - self.prior_var[:, None] * adjoint_times(self.design, solved)

        return draws_around(self.mean, key, sample_shape, deviations)

    def _spread(self, design: Any) -> jax.Array:
        """Variances of combinations of the weights, one for each row of a design."""
        rows = dense(design)
        if isinstance(self.system, WeightSpace):
            products = jnp.real(rows.conj() * (rows @ self.system.covariance))
            return jnp.maximum(jnp.sum(products, axis=1), 0)
        before = square(rows) @ self.prior_var
        cross = times(self.design, self.prior_var[:, None] * rows.mT.conj())
        after = before - jnp.sum(square(solve_tril(self.system.tril, cross)), axis=0)
        return jnp.maximum(after, jnp.finfo(after.dtype).eps * before)

    def _as_columns(self, x: jax.Array) -> jax.Array:
        return x[:, 0] if self.y.ndim == 1 else x

    def _normal(self, mean: jax.Array, variance: jax.Array) -> dist.Normal | ComplexNormal:
        scale = jnp.sqrt(variance)
        scale = scale if self.y.ndim == 1 else scale[:, None]
        return (ComplexNormal if jnp.iscomplexobj(mean) else dist.Normal)(mean, scale)

    def _checked_rows(self, design: Any) -> Any:
        size, dtype = len(self.mean), self.mean.dtype
        design = design if isinstance(design, AbstractOperator) else jnp.asarray(design)
        if len(design.shape) != 2 or design.shape[1] != size:
            raise ValueError(
                f"predict: design must have shape (k, {size}), a row for each new measurement; got "
                f"{design.shape}"
            )
        complex_rows = jnp.issubdtype(design.dtype, jnp.complexfloating)
        if complex_rows and not jnp.iscomplexobj(self.mean):
            raise ValueError("predict: design is complex and the weights are real")
        return design if isinstance(design, AbstractOperator) else design.astype(dtype)


def condition(
    design: Num[Array | np.ndarray, "n m"] | AbstractOperator,
    y: Num[Array | np.ndarray, " _n *L"],
    *,
    noise_var: Any,
    prior_var: Any = None,
    prior_precision: Any = None,
) -> WeightPosterior:
    r"""The posterior of Gaussian weights of a linear model: Bayesian linear regression.

    $y = \Phi w + \epsilon$ with $w_j \sim N(0, g_j)$ and $\epsilon \sim N(0, \sigma^2 I)$, or all
    circular complex normals. It takes the smaller of the systems $n \times n$ and $m \times m$:
    $O(n m \min(n, m))$ time and $O(n m)$ memory. No prior variance is divided by, so that it may
    be 0. With an operator as design the mean and predictions cost its products; the system is
    formed from those, too.

    Args:
        design: $\Phi$, shape `(n, m)`, real or complex.
        y: measurements, shape `(n,)`, or `(n, L)`: `L` vectors with weights of their own and
            common variances. Centred, as there is no intercept; a column of ones is one.
        noise_var: $\sigma^2 > 0$, scalar, in squared units of `y`.
        prior_var: $g \ge 0$, scalar or shape `(m,)`.
        prior_precision: $1 / g > 0$, given in its place; infinite for weights that are 0.

    Raises:
        ValueError: shapes that disagree, empty or NaN data, two precisions, both or none of
            `prior_var` and `prior_precision`, a variance that is known to be out of range.
        RuntimeError: under `jit`, values that are not finite or out of range; the covariance of the
            measurements has no Cholesky factor even with jitter.

    References:
        Tipping (2001), "Sparse Bayesian learning and the relevance vector machine", JMLR 1;
        Rasmussen and Williams (2006), "Gaussian processes for machine learning", section 2.1 and
        appendix A.3.
    """
    if (prior_var is None) == (prior_precision is None):
        raise ValueError("condition: give one of prior_var and prior_precision, not both or none")
    design, y = checked_problem("condition", design, y)
    real, size = real_of(y.dtype), design.shape[1]
    noise_var = checked_variance("condition", "noise_var", noise_var, real)
    if prior_precision is not None:
        precision = refuse_where(
            jnp.asarray(prior_precision, real),
            lambda value: ~(value > 0),
            "condition: prior_precision must be positive",
        )
        if jnp.shape(precision) not in ((), (size,)):
            raise ValueError(
                f"condition: prior_precision must be a scalar or have shape ({size},), got "
                f"{jnp.shape(precision)}"
            )
        prior_var = 1 / precision
    prior_var = checked_variance("condition", "prior_var", prior_var, real, size, zero=True)
    posterior = conditioned(design, y, noise_var, prior_var)
    mean = eqx.error_if(
        posterior.mean,
        ~jnp.all(jnp.isfinite(posterior.logdet)),
        "condition: the covariance of the measurements has no Cholesky factor even with jitter; "
        "noise_var is too small beside prior_var for this precision",
    )
    return eqx.tree_at(lambda p: p.mean, posterior, mean)


@compiled
def conditioned(
    design: Any, y: jax.Array, noise_var: jax.Array, prior_var: jax.Array
) -> WeightPosterior:
    """`condition` without checks."""
    columns = _columns(y)
    by_data = design.shape[0] <= design.shape[1]
    found = (_in_data_space if by_data else _in_weight_space)(design, columns, noise_var, prior_var)
    mean, variance, dof, residual, quadratic, logdet, system = found
    if y.ndim == 1:
        mean, residual, quadratic = mean[:, 0], residual[:, 0], quadratic[0]
    return WeightPosterior(
        design, y, noise_var, prior_var, mean, variance, dof, residual, quadratic, logdet, system
    )


def _in_data_space(design: Any, y: jax.Array, noise_var: jax.Array, prior_var: jax.Array) -> Any:
    eye = jnp.eye(len(y), dtype=y.dtype)
    factor = safe_cholesky(outer(design, prior_var) + noise_var * eye)
    tril = factor.tril
    white = solve_tril(tril, y)
    solved = solve_adjoint(tril, white)
    mean = prior_var[:, None] * adjoint_times(design, solved)
    known = prior_var * jnp.sum(square(solve_tril(tril, dense(design))), axis=0)
    variance = jnp.maximum(prior_var * (1 - known), 0)
    logdet = 2 * jnp.sum(jnp.log(jnp.real(jnp.diag(tril))))
    system = DataSpace(tril, jnp.real(factor.jitter))
    quadratic = jnp.sum(square(white), axis=0)
    # This residual keeps its digits where the noise is small beside what the weights explain.
    return mean, variance, jnp.sum(known), noise_var * solved, quadratic, logdet, system


def _in_weight_space(design: Any, y: jax.Array, noise_var: jax.Array, prior_var: jax.Array) -> Any:
    found, system, dof = from_products(gram(design), adjoint_times(design, y), noise_var, prior_var)
    residual = y - times(design, found.mean)
    quadratic = jnp.sum(square(residual), axis=0) / noise_var
    quadratic += jnp.sum(jnp.real(found.mean.conj() * found.score), axis=0)
    logdet = found.logdet + len(y) * jnp.log(noise_var)
    variance = jnp.real(jnp.diag(system.covariance))
    return found.mean, variance, dof, residual, quadratic, logdet, system


def from_products(
    products: jax.Array, rhs: jax.Array, noise_var: jax.Array, prior_var: jax.Array
) -> tuple[Moments, WeightSpace, jax.Array]:
    r"""Moments, factorisation and effective degrees of freedom, from $\Phi^H \Phi, \Phi^H y$."""
    precision, raised = positive_definite(products / noise_var, prior_var)
    found = moments(precision, prior_var, rhs / noise_var)
    covariance = blocks(precision, prior_var).covariance
    dof = jnp.sum(jnp.real(covariance.mT * precision))
    return found, WeightSpace(system_tril(precision, prior_var), covariance, raised), dof


def combinations(design: Any, size: int) -> jax.Array:
    """Combinations of `size` weights, whose covariances are taken, shape `(..., k, size)`.

    Raises:
        ValueError: they have another number of columns.
    """
    rows = jnp.asarray(design)
    if rows.ndim < 2 or rows.shape[-1] != size:
        raise ValueError(
            f"covariance_of: design must have shape (..., k, {size}), got {rows.shape}"
        )
    return rows


def draws_around(
    mean: jax.Array,
    key: jax.Array,
    sample_shape: tuple[int, ...],
    deviations: Callable[[jax.Array, int], jax.Array],
) -> jax.Array:
    """Draws of weights, shape `(*sample_shape, m)` or `(*sample_shape, m, L)`.

    Args:
        mean: of the weights, shape `(m,)` or `(m, L)`.
        key: for the draws.
        sample_shape: of them.
        deviations: from a key and a number `k` to what is added to the mean, shape `(m, k)`.

    Raises:
        ValueError: no key, or a shape that is no tuple of integers.
    """
    check_key(key)
    if not isinstance(sample_shape, tuple):
        raise ValueError(f"sample: sample_shape must be a tuple, got {sample_shape!r}")
    for size in sample_shape:
        whole_number("sample: each size of sample_shape", size, 0)
    shape = (*mean.shape, math.prod(sample_shape))
    draws = mean[..., None] + deviations(key, math.prod(shape[1:])).reshape(shape)
    return jnp.moveaxis(draws, -1, 0).reshape(*sample_shape, *mean.shape)


def normal_log_prob(quadratic: jax.Array, logdet: jax.Array, y: jax.Array) -> jax.Array:
    """Log density of vectors of measurements with mean 0, real, or circular complex ones.

    Args:
        quadratic: their quadratic forms, any shape.
        logdet: log-determinant of their covariance, scalar.
        y: the measurements, of length `n`, for their number and type.
    """
    if jnp.iscomplexobj(y):
        return -(len(y) * math.log(math.pi) + logdet + quadratic)
    return -0.5 * (len(y) * math.log(2 * math.pi) + logdet + quadratic)


def _columns(x: jax.Array) -> jax.Array:
    return x[:, None] if x.ndim == 1 else x
