"""Gaussian processes of time as NumPyro distributions, in linear time."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped
from numpyro.distributions import constraints, Distribution

from .._core import refuse_where
from ..kernels import AbstractKernel
from ..likelihoods import Gaussian, held, Likelihood
from . import _process as process, _steady_state as steady_state, _unrolled as unrolled
from ._approximate import approximate, check_prior
from ._backend import is_brief, Plan, plan
from ._inputs import draws as draws_of, numbers
from ._posterior import MarkovPosterior
from ._prior_mean import mean_slopes_at, means_at
from ._process import Series
from ._spaces import AbstractStateSpace, check_noise, SumSpace
from ._state_space import HARMONICS, state_space
from ._times import sorted_times

UNMASKED = (
    "value holds NaN or infinite values where the mask says that it was observed; pass mask= for "
    "missing ones"
)


class MarkovGP(Distribution):
    r"""Noisy observations of $f \sim GP(m, k)$ at some times, in linear time.

    In a model, `numpyro.sample("y", MarkovGP(kernel, times, noise_var=v), obs=y)` is the marginal
    likelihood, equal to that of the dense normal distribution; value and gradient come from a
    Kalman filter and its adjoint smoother. Times may be irregular and may coincide. The density is
    NaN where parameters that are known only at run time are negative, and where something was
    observed before the process begins, as before the origin of `Wiener`.

    With `mixing` there are several outputs, $f_j = \sum_q W_{jq} g_q$ of independent processes
    $g_q$, a linear model of coregionalisation.

    Args:
        kernel: of one coordinate, with a state space of finite size, see `state_space`; or a state
            space. With `mixing`, a sequence of `q` of them.
        times: shape `(n,)`. If they are not in order they are sorted inside, with a warning;
            under `jit` as arguments they must be in order.
        mean: of the process: a number, or of several outputs `(p,)`; a function from a time, a
            scalar, to such (an Equinox module keeps its parameters trainable); or an array of the
            shape of the data, whose posterior then has no mean at other times.
        noise_var: variance of the observations about the function, not their standard deviation,
            not negative, scalar or `(n,)`; of several outputs also `(p,)` or `(n, p)`.
        mask: booleans `(n,)`, or `(n, p)`, which values are observed; others may be anything, NaN
            too. By default all. Where nothing at all is observed the log density is 0.
        mixing: the matrix $W$, shape `(p, q)`.
        slopes: booleans `(n,)`, which observations are of the derivative of the function, of one
            output; by default none. An array `mean`, and `noise_var`, are the derivative's there.
        backend: "sequential", one step after another; "chunked", parts side by side;
            "associative", a scan that takes a logarithmic number of steps, for accelerators;
            "square-root", which carries roots of covariances; "steady", for equally spaced times,
            which takes the steady-state gain (its error is that of the gain after 512 observations;
            NaN if that has not settled by then, and conditioning is exact);
            "auto" chooses by the size, the machine and `configure_cpu`.
        harmonics: of `Periodic` kernels, see `state_space`.

    Raises:
        ValueError: wrong shapes, no times, dates as times, NaN in times or noise, negative noise,
            an unknown backend or one that does not fit, single-precision times that cannot resolve
            their steps, a mixing that is not finite, slopes of a process that has none, a state
            space of one's own whose process noise is not positive semi-definite; from `log_prob`,
            known observations that are NaN where no mask hides them.

    References:
        Hartikainen and Särkkä (2010), "Kalman filtering and smoothing solutions to temporal
        Gaussian process regression models", MLSP; Särkkä and Solin (2019), "Applied stochastic
        differential equations", chapter 12; Särkkä and García-Fernández (2021), "Temporal
        parallelization of Bayesian smoothers", IEEE Transactions on Automatic Control.
    """

    has_rsample = True
    pytree_data_fields = (
        "space",
        "before",
        "steps",
        "noise_var",
        "new_noise_var",
        "loc",
        "mean_function",
        "observed",
        "order",
        "readout",
    )
    pytree_aux_fields = ("origin", "backend", "noisy", "complete")

    def __init__(
        self,
        kernel: Any,
        times: Any,
        mean: Any | Callable[[jax.Array], jax.Array] = 0.0,
        *,
        noise_var: Any = 0.0,
        mask: Any = None,
        mixing: Any = None,
        slopes: Any = None,
        backend: str = "auto",
        harmonics: int = HARMONICS,
    ):
        self.origin, self.before, self.steps, self.order = sorted_times(times)
        n, dtype = len(self.steps), self.steps.dtype
        space = _space(kernel, mixing, harmonics).since(self.origin)
        self.space = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), space)
        self.readout = None
        if mixing is not None:
            _refuse_known(
                numbers("mixing", mixing),
                lambda w: ~np.isfinite(w),
                f"mixing must be finite: {mixing}",
            )
            self.readout = mixed(self.space, jnp.asarray(mixing, dtype))
        of_slope = None
        if slopes is not None:
            if mixing is not None:
                raise ValueError("slopes are for one output, without mixing")
            of_slope = _observed(slopes, (n,), dtype, "slopes") > 0
            rows = rows_of(self.space, dtype)
            self.readout = jnp.where(self.in_order(of_slope)[:, None, None], rows[1], rows[0])
        if isinstance(kernel, AbstractStateSpace):
            check_noise(self.space, self.before, self.steps)
        shape = (n,) if mixing is None else (n, len(mixing))
        numbers("noise_var", noise_var)
        text = f"noise_var must not be negative or NaN: {noise_var}"
        _refuse_known(noise_var, lambda v: ~(v >= 0), text)
        self.noisy = _is_traced(noise_var) or bool(np.any(np.asarray(noise_var) > 0))
        # A negative one could pass for less noise.
        known = _nonnegative(_each("noise_var", noise_var, shape, dtype), noise_var)
        self.noise_var = self.in_order(known)
        same = np.shape(noise_var) in ((), shape[1:])
        self.new_noise_var = (
            _nonnegative(jnp.asarray(noise_var, dtype), noise_var) if same else None
        )
        self.mean_function, self.loc = self._means(mean, times, of_slope, shape, dtype)
        self.observed = self.in_order(_observed(mask, shape, dtype))
        self.complete = mask is None
        self.backend = backend
        super().__init__((), shape, validate_args=False)
        if self.plan.steady:
            if self.readout is not None:
                raise ValueError('backend="steady" is for one output, without slopes')
            steady_state.check(self.space, times, noise_var, mask)

    def _means(
        self, mean: Any, times: Any, of_slope: Any, shape: tuple[int, ...], dtype: Any
    ) -> tuple[Any, jax.Array]:
        """The mean as a function of time, or None, and at the observations."""
        if not callable(mean):
            _refuse_known(numbers("mean", mean), lambda m: ~np.isfinite(m), f"mean is NaN: {mean}")
            constant = np.shape(mean) in ((), shape[1:])
            values = _each("mean", mean, shape, dtype)
            if of_slope is not None and constant:
                values = jnp.where(of_slope, 0.0, values)
            return jnp.asarray(mean, dtype) if constant else None, values
        at = jnp.asarray(times, dtype)
        values = means_at(held(mean), at, shape[1:], dtype)
        if of_slope is not None:
            values = jnp.where(of_slope, mean_slopes_at(held(mean), at, dtype), values)
        return held(mean), values

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> Any:
        """All vectors, or all matrices."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def log_prob(self, value: Any, intermediates: Any = None) -> Float[Array, ...]:
        event, shape = self.event_shape, np.shape(numbers("value", value))
        if shape[len(shape) - len(event) :] != event:
            wanted = ", ".join(map(str, event))
            raise ValueError(f"MarkovGP: value must have shape (..., {wanted}), got {shape}")
        self.refuse_gaps(value)
        one = lambda y: process.log_density(  # noqa: E731
            self.plan, self.space, self.series(y), self.readout
        )
        flat = jnp.asarray(value).reshape(-1, *event)
        totals = one(flat[0]) if len(flat) == 1 else jax.vmap(one)(flat)
        return jnp.reshape(totals, shape[: len(shape) - len(event)])

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Float[Array, ...]:
        draws_of(key, "sample_shape", sample_shape)
        in_path, in_noise = jax.random.split(key)
        path = process.prior_paths(
            in_path, self.space, self.before, self.steps, sample_shape, self.readout
        ).reshape(*sample_shape, *self.event_shape)
        draws = jax.random.normal(in_noise, path.shape, path.dtype)
        path = self.where_defined(path)
        return self.loc + self.as_given(path + jnp.sqrt(self.noise_var) * draws)

    def where_defined(self, array: Float[Array, "... n *p"]) -> Float[Array, "... n *p"]:
        """An array of the shape of the data, in the order of time, NaN where no process is."""
        defined = self.space.defined(self.before + self.steps)
        defined = defined if len(self.event_shape) == 1 else defined[:, None]
        return jnp.where(defined, array, jnp.nan)

    @property
    def plan(self) -> Plan:
        """How a series of this length is filtered."""
        n, dtype = self.event_shape[0], self.steps.dtype
        arrays = self.readout is not None
        return plan(self.backend, n, self.space.size, dtype, arrays, is_brief(self.space))

    @property
    def mean(self) -> Float[Array, " n *p"]:
        return self.loc

    @property
    def variance(self) -> Float[Array, " n *p"]:
        n, dtype = len(self.steps), self.steps.dtype
        marginal = unrolled.stacked(self.space.marginal(self.before + self.steps), (n,), dtype)
        rows = jnp.asarray([self.space.readout], dtype) if self.readout is None else self.readout
        rows = jnp.broadcast_to(rows, (n, *rows.shape[-2:]))
        prior = jnp.einsum("npi,nij,npj->np", rows, marginal, rows)
        prior = self.where_defined(prior.reshape(self.event_shape))
        return self.as_given(prior + self.noise_var)

    def condition(
        self, y: Any, likelihood: Likelihood | None = None, *, mask: Any = None, **options: Any
    ) -> Any:
        """The posterior of the function given observations.

        Args:
            y: what was observed, shape `(n,)` or `(n, p)`.
            likelihood: from values of the function to a NumPyro distribution, of a prior without
                noise; by default, and with `likelihoods.Gaussian`, the posterior is exact.
            mask: which of them are observed, besides the mask that the distribution has.
            options: with a likelihood that is not normal, those of `approximate`.

        Returns:
            A `MarkovPosterior`, or, with a likelihood that is not normal, a `MarkovApproximation`.

        Raises:
            ValueError: a wrong shape, NaN that no mask hides, times that coincide without noise, a
                likelihood beside noise, options without a likelihood that needs them.
            RuntimeError: under `jit`, NaN that no mask hides.
        """
        prior = self if mask is None else self.masked(mask)
        if likelihood is not None:
            check_prior(prior)
            if not isinstance(likelihood, Gaussian):
                return approximate(prior, y, likelihood, **options)
            prior = prior.replaced_noise(likelihood.noise_var)
        if options:
            raise ValueError(f"condition: {', '.join(options)} is for a likelihood, approximated")
        return prior._conditioned(y)

    def _conditioned(self, y: Any) -> MarkovPosterior:
        if np.shape(numbers("y", y)) != self.event_shape:
            raise ValueError(f"y must have shape {self.event_shape}, got {np.shape(y)}")
        self.refuse_coincident()
        observed = self.as_given(self.observed)
        hidden = jnp.where(observed > 0, jnp.asarray(y, self.steps.dtype), 0.0)
        refuse_where(
            hidden,
            lambda v: ~np.isfinite(v) if isinstance(v, np.ndarray) else ~jnp.isfinite(v),
            UNMASKED,
        )
        return MarkovPosterior(
            self.space,
            self.series(hidden),
            self.loc,
            self.mean_function,
            self.new_noise_var,
            self.order,
            self.readout,
            self.origin,
            self.backend,
        )

    def masked(self, mask: Any) -> MarkovGP:
        """The same with fewer observations."""
        more = self.in_order(_observed(mask, self.event_shape, self.steps.dtype))
        return replaced(self, observed=self.observed * more, complete=False)

    def replaced_noise(self, noise_var: Float[Array, ""]) -> MarkovGP:
        """The same with other noise, a scalar."""
        noise_var = jnp.asarray(noise_var, self.steps.dtype)
        whole = jnp.broadcast_to(noise_var, self.event_shape)
        return replaced(self, noise_var=whole, new_noise_var=noise_var, noisy=True)

    def refuse_gaps(self, value: Any) -> None:
        """Refuse known observations that are not finite where no known mask hides them.

        Raises:
            ValueError: some are not finite.
        """
        value = value if hasattr(value, "dtype") else jnp.asarray(value)
        if _is_traced(value) or np.all(finite := np.isfinite(np.asarray(value))):
            return
        observed = 1.0 if self.complete else self.as_given(self.observed)
        if not _is_traced(observed) and np.any(~finite & (np.asarray(observed) > 0)):
            raise ValueError(UNMASKED)

    def refuse_coincident(self) -> None:
        """Refuse known observations without noise of one output at one time.

        Raises:
            ValueError: there are some.
        """
        if any(map(_is_traced, (self.steps, self.noise_var, self.observed, self.readout))):
            return
        n = len(self.steps)
        exact = np.asarray((self.noise_var == 0) & (self.observed > 0)).reshape(n, -1)
        group = np.cumsum(np.asarray(self.steps) > 0)
        if self.readout is not None and self.readout.ndim == 3:  # values, and slopes
            _, kind = np.unique(np.asarray(self.readout), axis=0, return_inverse=True)
            group = 2 * group + kind.reshape(-1)
        counts = np.zeros((2 * n + 2, exact.shape[1]))
        np.add.at(counts, group, exact)
        if np.any(counts > 1):
            raise ValueError(
                "times coincide where observations have no noise, whose covariance is singular: "
                "leave all but one of these out by mask=, or give a positive noise_var"
            )

    def series(self, value: Any) -> Series:
        """Observations less their mean, in the order of time."""
        centred = self.in_order(jnp.asarray(value, self.steps.dtype) - self.loc)
        # Missing ones may be NaN, which must not get into any product.
        centred = jnp.where(self.observed > 0, self.where_defined(centred), 0.0)
        return Series(self.before, self.steps, centred, self.noise_var, self.observed)

    def in_order(self, array: Shaped[Array, ...]) -> Shaped[Array, ...]:
        """An array of the shape of the data, in the order of time."""
        return array if self.order is None else self._taken(array, self.order[0])

    def as_given(self, array: Shaped[Array, ...]) -> Shaped[Array, ...]:
        """The inverse of `in_order`."""
        return array if self.order is None else self._taken(array, self.order[1])

    def _taken(self, array: jax.Array, order: jax.Array) -> jax.Array:
        return jnp.take(array, order, axis=-1 if process.outputs(self.readout) is None else -2)


def replaced(distribution: Any, **fields: Any) -> Any:
    """A copy with other fields."""
    other = copy.copy(distribution)
    for name, value in fields.items():
        setattr(other, name, value)
    return other


def _space(kernel: Any, mixing: Any, harmonics: int) -> AbstractStateSpace:
    if mixing is not None:
        if not isinstance(kernel, tuple | list) or np.shape(mixing)[1:] != (len(kernel),):
            raise ValueError(
                "with mixing of shape (p, q), kernel must be a sequence of q kernels; got "
                f"{np.shape(mixing)} and {kernel}"
            )
        return SumSpace(tuple(_space(one, None, harmonics) for one in kernel))
    if isinstance(kernel, AbstractStateSpace):
        return kernel
    if not isinstance(kernel, AbstractKernel):
        raise ValueError(f"kernel must be a kernel or a state space, got {type(kernel).__name__}")
    return state_space(kernel, harmonics)


def _refuse_known(value: Any, bad: Callable[[Any], Any], message: str) -> None:
    # What is known only when a program runs shows in its densities, which are NaN then.
    if not _is_traced(value):
        refuse_where(value, bad, message)


def _is_traced(value: Any) -> bool:
    return isinstance(value, jax.core.Tracer)


def _nonnegative(array: jax.Array, given: Any) -> jax.Array:
    """NaN where a value that is known at run time only is negative."""
    return jnp.where(array >= 0, array, jnp.nan) if _is_traced(given) else array


def mixed(space: Any, mixing: Float[Array, "p q"]) -> Float[Array, "p d"]:
    """The readout `(p, d)` of outputs that mix the processes of a sum."""
    rows = [jnp.asarray(part.readout, mixing.dtype) for part in space.spaces]
    return jnp.concatenate([mixing[:, [q]] * row for q, row in enumerate(rows)], axis=1)


def rows_of(space: AbstractStateSpace, dtype: Any) -> Float[Array, "2 1 d"]:
    """Readouts of the function and of its derivative, `(2, 1, d)`."""
    rows = (space.readout, space.slope)
    return jnp.stack([unrolled.stacked(row, (), dtype)[None] for row in rows])


def _each(name: str, value: Any, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    n, given = shape[0], np.shape(value)
    if given not in ((), (n,), shape[1:], shape):
        raise ValueError(f"{name} must be a scalar or have shape {shape}, got {given}")
    value = jnp.asarray(value, dtype)
    # As many outputs as times: a vector then is one number for each output.
    by_time = len(shape) == 2 and given == (n,) and given != shape[1:]
    return jnp.broadcast_to(value[:, None] if by_time else value, shape)


def _observed(mask: Any, shape: tuple[int, ...], dtype: Any, name: str = "mask") -> jax.Array:
    if mask is None:
        return jnp.ones(shape, dtype)
    dtype_given = mask.dtype if hasattr(mask, "dtype") else np.asarray(mask).dtype
    if np.shape(mask) not in (shape, shape[:1]) or dtype_given != np.bool_:
        raise ValueError(
            f"{name} must hold booleans of shape {shape}, got {dtype_given} of shape "
            f"{np.shape(mask)}"
        )
    mask = jnp.asarray(mask).astype(dtype)
    return jnp.broadcast_to(mask[:, None] if mask.ndim < len(shape) else mask, shape)
