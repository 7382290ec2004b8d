"""A Gaussian process as a prior over functions and over noisy observations of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from .. import ops
from .._core import checked_finite, constrained_field, nan_if_negative, refuse_where
from ..distributions import StructuredNormal
from ..kernels import AbstractKernel
from ..ssm import MarkovGP
from ._arguments import check_kernel, checked_jitter, real_array
from ._inputs import all_points, as_points, covariance, Grid, Times


class MeanOfTime(eqx.Module):
    """The prior mean as a function of a time, where it is one of a point `(1,)`."""

    mean: Any

    def __call__(self, time: jax.Array) -> jax.Array:
        mean = jnp.asarray(self.mean(time[None]))
        return mean.reshape(()) if mean.size == 1 else mean


class GP(eqx.Module):
    r"""$f \sim GP(m, k)$ and observations $y = f(x) + \epsilon$.

    `prior(x)` is the joint distribution of the observations at `x`, a NumPyro distribution whose
    covariance keeps the structure that the kernel has at these points: in a model,
    `numpyro.sample("y", GP(kernel, noise_var=0.1)(x), obs=y)` is the marginal likelihood. Where
    lengthscales or variances that are known only at run time are negative, its density is NaN.

    Args:
        kernel: the covariance function.
        mean: a number, or a function from a point `(d,)` to one; an Equinox module keeps its
            parameters trainable.
        noise_var: variance of $\epsilon$, in squared units of `y`: a scalar, one for each
            observation, shape `(n,)`, or an operator tagged `ops.psd` for correlated noise. 0 says
            that the function itself is observed. `minimise` learns a scalar, and leaves the others,
            which are known, as they are.

    Raises:
        ValueError: `noise_var` is known and negative or NaN, or has more than one axis; `kernel` is
            no covariance function, or `mean` neither a number nor a function.
    """

    kernel: AbstractKernel
    mean: Any
    # One variance for each observation, or their covariance, comes from whoever measured them.
    noise_var: Any = constrained_field(
        constraints.nonnegative,
        known=lambda noise_var: not isinstance(noise_var, jax.Array) or noise_var.ndim > 0,
    )

    def __init__(
        self,
        kernel: AbstractKernel,
        mean: Any | Callable[[jax.Array], jax.Array] = 0.0,
        *,
        noise_var: Any = 0.0,
    ):
        check_kernel(kernel)
        self.kernel = kernel
        self.mean = mean if callable(mean) else _known_mean(mean)
        if not isinstance(noise_var, ops.AbstractOperator):
            noise_var = real_array("noise_var", noise_var)
            if jnp.ndim(noise_var) > 1:
                got = jnp.shape(noise_var)
                raise ValueError(f"noise_var must be a scalar or (n,), got shape {got}")
            if not isinstance(noise_var, jax.core.Tracer):
                text = f"noise_var must not be negative: {noise_var}"
                refuse_where(noise_var, lambda v: ~(v >= 0), text)
            noise_var = jnp.asarray(noise_var, _floating(noise_var))
        self.noise_var = noise_var

    def __call__(self, x: Any, mask: Any = None, **solver: Any) -> StructuredNormal | MarkovGP:
        """The joint distribution of the observations at `x`.

        Args:
            x: points, shape `(n, d)` or `(n,)`, a `Grid`, or `Times`, where it is an
                `ssm.MarkovGP` with densities in linear time.
            mask: on a grid, which cells are observed, booleans of its shape, known when traced;
                the distribution is then of those cells only, in the order of the grid. At times,
                which values are observed; the others may be anything.
            solver: with a mask, options of `ops.Masked` such as `solver="cg"`.

        Raises:
            ValueError: `x` has the wrong rank, is empty or holds NaN; a mask or options of a
                solver without a grid; a kernel without Kronecker structure on a grid, or without a
                state space at times.
        """
        if solver and (mask is None or not isinstance(x, Grid)):
            raise ValueError(f"options of a solver, {list(solver)}, are for a grid with a mask")
        if isinstance(x, Times):
            return self.in_time(x, mask)
        x = x if isinstance(x, Grid) else as_points(x)
        loc, total = self.mean_at(x), self.observed_covariance(x)
        if mask is None:
            return StructuredNormal(loc, total)
        if not isinstance(x, Grid):
            raise ValueError("mask is for a Grid; of other points pass those that are observed")
        masked = ops.Masked(total, mask, **solver)
        return StructuredNormal(loc[masked.observed], masked)

    def in_time(self, x: Times, mask: Any = None, *, noisy: bool = True) -> MarkovGP:
        """The joint distribution of the observations at times, by a state space.

        Args:
            x: the times.
            mask: which values are observed.
            noisy: whether they have noise; else they are values of the function.
        """
        if not isinstance(self.noise_var, jax.Array):
            raise ValueError("at Times noise_var must be a scalar or (n,), not an operator")
        return MarkovGP(
            self.kernel,
            x.times,
            MeanOfTime(self.mean) if callable(self.mean) else self.mean,
            noise_var=self.noise_var if noisy else 0.0,
            mask=mask,
            backend=x.backend,
            harmonics=x.harmonics,
        )

    def latent(self, x: Any, jitter: float | None = None) -> StructuredNormal:
        """The joint distribution of the function's values at `x`, without noise.

        Covariances of smooth functions are singular to rounding and have no density. So a jitter is
        added from the start, which keeps the density smooth in all parameters: a site of it can be
        sampled by NUTS, together with those. Draws have it too.

        Args:
            x: as for `__call__`.
            jitter: added to the diagonal, relative to the mean variance of the prior; by default
                1e-6 in float64 and 1e-4 in float32. With 0 it is exact; its density is NaN
                where the covariance is singular to rounding.

        Returns:
            A distribution whose `covariance` reports what was added, as its `jitter`, or, on a
            `Grid`, as its `noise.scale`.

        Raises:
            ValueError: `x` is wrong, see `__call__`, or `jitter` is negative.
        """
        x = x if isinstance(x, Grid) else as_points(x)
        jitter = checked_jitter(jitter, _dtype(x))
        loc, plain = self.mean_at(x), self.covariance(x)
        if not jitter:
            return StructuredNormal(loc, plain)
        added = jitter * jnp.mean(jax.lax.stop_gradient(plain.diag()))
        covariance = plain + ops.ScaledIdentity(added, plain.shape[0])
        if isinstance(covariance, ops.Dense):
            covariance = ops.Dense(covariance.matrix, covariance.tags, added)
        return StructuredNormal(loc, covariance)

    def mean_at(self, x: Any) -> Float[Array, " n"]:
        """The prior mean at points or on a grid (flat), shape `(n,)`."""
        if not callable(self.mean):
            size = x.size if isinstance(x, Grid) else len(x)
            return jnp.full(size, self.mean, _dtype(x))
        mean, size = jax.vmap(self.mean)(all_points(x)), x.size if isinstance(x, Grid) else len(x)
        if mean.shape not in ((size,), (size, 1)):
            raise ValueError(
                f"mean must be a function from a point to one number, this gives {mean.shape[1:]}"
            )
        return mean.reshape(-1).astype(_dtype(x))

    def covariance(self, x: Any) -> ops.AbstractOperator:
        """The prior covariance of the function at `x`: `ops.Kron` on a grid, else `ops.Dense`."""
        return covariance(self.kernel, x if isinstance(x, Grid) else all_points(x))

    def observed_covariance(self, x: Any) -> ops.AbstractOperator:
        """The prior covariance of the observations at `x`."""
        return self.covariance(x) + self.noise_operator(x)

    def noise_operator(self, x: Any) -> ops.AbstractOperator:
        """The covariance of the noise at `x`.

        Raises:
            ValueError: the noise is of another number of observations.
        """
        size = x.size if isinstance(x, Grid) else len(x)
        if isinstance(self.noise_var, ops.AbstractOperator):
            if self.noise_var.shape != (size, size):
                got = self.noise_var.shape
                raise ValueError(f"noise_var is {got} and there are {size} observations")
            return self.noise_var
        noise_var = nan_if_negative(self.noise_var).astype(_dtype(x))
        if noise_var.ndim == 0:
            return ops.ScaledIdentity(noise_var, size)
        if noise_var.shape != (size,):
            raise ValueError(
                f"noise_var must be a scalar or have shape ({size},), one for each observation, "
                f"got {noise_var.shape}"
            )
        return ops.Diag(noise_var, ops.psd)


def observations(prior: GP, x: Any, y: Any) -> tuple[Any, Float[Array, " n"]]:
    """Inputs and responses, checked.

    Returns:
        `x` as `(n, d)` or as it is if a `Grid`, and `y` as `(n,)` of the same type.

    Raises:
        ValueError: they disagree in length, are empty, or hold NaN.
    """
    check_prior(prior)
    x = x if isinstance(x, Grid) else all_points(x)
    size = x.size if isinstance(x, Grid) else len(x)
    shapes = ((size,), x.shape) if isinstance(x, Grid) else ((size,),)
    if jnp.shape(y) not in shapes:
        wanted = " or ".join(str(shape) for shape in shapes)
        raise ValueError(f"y must have shape {wanted}, as x has {size} points; got {jnp.shape(y)}")
    y = checked_finite(
        "y", jnp.asarray(real_array("y", y)), "; leave unobserved cells out by a mask"
    )
    return x, y.reshape(-1).astype(_dtype(x))


def _dtype(x: Any) -> Any:
    dtype = x.dtype if isinstance(x, Grid | Times) else jnp.result_type(x)
    return dtype if jnp.issubdtype(dtype, jnp.inexact) else jnp.result_type(float)


def check_prior(prior: Any, name: str = "prior") -> None:
    """Refuses what is no process.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(prior, GP):
        hint = "; gp.GP(kernel) makes one" if isinstance(prior, AbstractKernel) else ""
        raise ValueError(f"{name} must be a gp.GP, got {type(prior).__name__}{hint}")


def _known_mean(mean: Any) -> jax.Array:
    mean = real_array("mean", mean)
    if jnp.ndim(mean) != 0:
        raise ValueError(f"mean must be a number or a function, got shape {jnp.shape(mean)}")
    if not isinstance(mean, jax.core.Tracer):
        refuse_where(mean, lambda v: ~np.isfinite(v), f"mean must be finite, got {mean}")
    return jnp.asarray(mean, _floating(mean))


def _floating(value: Any) -> Any:
    dtype = jnp.result_type(value)
    return dtype if jnp.issubdtype(dtype, jnp.inexact) else jnp.result_type(float)


def known_mask(mask: Any) -> np.ndarray:
    """A mask as a NumPy array of booleans.

    Raises:
        ValueError: it is traced, or holds something else.
    """
    if isinstance(mask, jax.core.Tracer) or np.asarray(mask).dtype != bool:
        raise ValueError("mask must hold booleans that are known when traced, such as NumPy's")
    return np.asarray(mask)
