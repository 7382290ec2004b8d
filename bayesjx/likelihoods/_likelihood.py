"""Likelihoods of latent functions, and their expectations under normal distributions."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro import distributions as dist
from numpyro.distributions import constraints

from .._core import check_key, constrained_field, refuse_where, traced, TracedFunction
from ..distributions import repaired
from ._quadrature import adaptive_nodes, gauss_hermite

NODES = {1: 20, 2: 10}  # of Gauss-Hermite quadrature along each latent, by their number


class AbstractLikelihood(eqx.Module):
    """Abstract base class of likelihoods whose expected log density has a closed form.

    Any other function from `f` to a NumPyro distribution is a likelihood too; its expectation is
    then taken by quadrature.
    """

    @abc.abstractmethod
    def __call__(self, f: jax.Array) -> dist.Distribution:
        """The distribution of observations where the function is `f`."""

    @abc.abstractmethod
    def expected_log_prob(
        self, y: jax.Array, mean: jax.Array, variance: jax.Array
    ) -> Float[Array, ...]:
        """Expected log density where `f` is normal with these moments, all of shape `(n,)`."""


class Gaussian(AbstractLikelihood):
    """Observations of the function with normal noise.

    Args:
        noise_var: variance of the noise, positive, scalar.

    Raises:
        ValueError: `noise_var` is not a scalar, or known and not positive.
    """

    noise_var: Float[Array, ""] = constrained_field(constraints.positive)

    def __init__(self, noise_var: Any):
        if not isinstance(noise_var, (int, float, np.generic, np.ndarray, jax.Array)):
            raise ValueError(f"noise_var must be a number, got {noise_var!r}")
        if jnp.ndim(noise_var) != 0:
            raise ValueError(f"noise_var must be a scalar, got shape {jnp.shape(noise_var)}")
        if not isinstance(noise_var, jax.core.Tracer):
            text = f"noise_var must be positive, got {noise_var}"
            refuse_where(noise_var, lambda v: ~(v > 0), text)
        exact = jnp.issubdtype(jnp.result_type(noise_var), jnp.inexact)
        self.noise_var = jnp.asarray(noise_var) if exact else jnp.asarray(noise_var, float)

    def __call__(self, f: jax.Array) -> dist.Normal:
        return dist.Normal(f, jnp.sqrt(self.noise_var.astype(f.dtype)))

    def expected_log_prob(
        self, y: jax.Array, mean: jax.Array, variance: jax.Array
    ) -> Float[Array, ...]:
        noise_var = self.noise_var.astype(mean.dtype)
        square = (y - mean) ** 2 + variance
        return -0.5 * (square / noise_var + jnp.log(2 * jnp.pi * noise_var))


class PoissonExp(AbstractLikelihood):
    """Poisson counts whose rate is the exponential of the function."""

    def __call__(self, f: jax.Array) -> dist.Poisson:
        return dist.Poisson(jnp.exp(f))

    def expected_log_prob(
        self, y: jax.Array, mean: jax.Array, variance: jax.Array
    ) -> Float[Array, ...]:
        # The rate is log-normal. Only the count's factorial is left for the distribution to say.
        log_factorial = jax.scipy.special.gammaln(y.astype(mean.dtype) + 1)
        return y * mean - jnp.exp(mean + 0.5 * variance) - log_factorial


Likelihood = Callable[[jax.Array], Any]


def expected_log_prob(
    likelihood: Likelihood,
    y: Any,
    mean: Any,
    variance: Any,
    *,
    key: jax.Array | None = None,
    num_samples: int = 16,
) -> Float[Array, " n"]:
    r"""$E_{f \sim N(\mu, v)}[\log p(y \mid f)]$ of each observation.

    In closed form for `Gaussian` and `PoissonExp`. For any other function it is Gauss-Hermite
    quadrature, 20 nodes of one latent function and 10 x 10 of two; of more it is the mean over
    random draws, whose derivatives are unbiased too.

    Args:
        likelihood: from `f` to a NumPyro distribution of the observations, such as
            `lambda f: dist.Bernoulli(logits=f)`; an Equinox module keeps its parameters trainable.
            `f` has the shape of `mean` after further leading axes, so that several latents are
            `f[..., 0]` and `f[..., 1]`, or all of them in `dist.Categorical(logits=f)`.
        y: observations, shape `(n,)`, or `(n, ...)` for distributions of vectors.
        mean: of the function, shape `(n,)`, or `(n, l)` for several independent latents.
        variance: of the same shape, not negative.
        key: for three and more latents.
        num_samples: draws for three and more latents.

    Returns:
        Shape `(n,)`.

    Raises:
        ValueError: shapes that disagree; moments that are not floating-point numbers; a mean that
            is not finite, a variance that is negative or not finite, or `y` outside of the support,
            where they are known; three latents without a key, or no draws.
        TypeError: the likelihood does not return a NumPyro distribution.
        RuntimeError: under `jit`, such values.

    References:
        Hensman, Matthews and Ghahramani (2015), "Scalable variational Gaussian process
        classification", AISTATS, section 4 (quadrature).
    """
    y, mean, variance, guard = _checked("expected_log_prob", likelihood, y, mean, variance)
    _check_draws("expected_log_prob", mean, key, num_samples)
    return guard * expectation(likelihood, y, mean, variance, key, num_samples)


def expectation(
    likelihood: Likelihood,
    y: jax.Array,
    mean: jax.Array,
    variance: jax.Array,
    key: jax.Array | None = None,
    num_samples: int = 16,
) -> Float[Array, " n"]:
    """`expected_log_prob` of arguments that have been checked."""
    if isinstance(likelihood, AbstractLikelihood):
        return likelihood.expected_log_prob(y, mean, variance)
    f, weights = _nodes(mean, variance, key, num_samples)
    return jnp.tensordot(weights, log_likelihood(likelihood, f, y), axes=1)


def log_likelihood(likelihood: Likelihood, f: jax.Array, y: jax.Array) -> jax.Array:
    """The log density of each observation where the function is `f`, in the precision of `f`.

    All densities of likelihoods are taken here, with NumPyro's derivatives mended.
    """
    log_prob = jnp.asarray(repaired(likelihood(f)).log_prob(y))
    return log_prob.astype(f.dtype)  # plain numbers make NumPyro use float64


def log_predictive_prob(
    likelihood: Likelihood,
    y: Any,
    mean: Any,
    variance: Any,
    *,
    key: jax.Array | None = None,
    num_samples: int = 256,
) -> Float[Array, " n"]:
    r"""$\log E_{f \sim N(\mu, v)}[p(y \mid f)]$ of each observation: its log predictive density.

    Exact for `Gaussian`. Of one latent function it is quadrature with nodes where likelihood and
    normal distribution have their mass together, however narrow one of them is; of more it is that
    of `expected_log_prob`, whose arguments and errors it shares. Shape `(n,)`.
    """
    y, mean, variance, guard = _checked("log_predictive_prob", likelihood, y, mean, variance)
    _check_draws("log_predictive_prob", mean, key, num_samples)
    return guard * log_expectation(likelihood, y, mean, variance, key, num_samples)


def log_expectation(
    likelihood: Likelihood,
    y: jax.Array,
    mean: jax.Array,
    variance: jax.Array,
    key: jax.Array | None = None,
    num_samples: int = 256,
) -> Float[Array, " n"]:
    """`log_predictive_prob` of arguments that have been checked."""
    if isinstance(likelihood, Gaussian):
        noise_var = likelihood.noise_var.astype(mean.dtype)
        return dist.Normal(mean, jnp.sqrt(variance + noise_var)).log_prob(y)
    if mean.ndim == 1:
        density = traced(lambda f, y: log_likelihood(likelihood, f, y), mean, y)
        return _log_expected(density, y, mean, variance)
    f, weights = _nodes(mean, variance, key, num_samples)
    log_prob = log_likelihood(likelihood, f, y)
    return jax.nn.logsumexp(log_prob, axis=0, b=weights[:, None])


@jax.jit
def _log_expected(
    density: TracedFunction, y: jax.Array, mean: jax.Array, variance: jax.Array
) -> jax.Array:
    fixed = jax.lax.stop_gradient(density)
    x, log_weights = adaptive_nodes(lambda f: fixed(f, y), mean, variance)
    f = mean + _scale(variance) * x
    return jax.nn.logsumexp(jax.vmap(lambda f: density(f, y))(f) + log_weights, axis=0)


def _scale(variance: jax.Array) -> jax.Array:
    # A variance of 0 would make the derivative of the root infinite.
    return jnp.sqrt(jnp.maximum(variance, jnp.finfo(variance.dtype).tiny))


def _nodes(
    mean: jax.Array, variance: jax.Array, key: jax.Array | None, num_samples: int
) -> tuple[jax.Array, jax.Array]:
    """Values of the function, shape `(q, *mean.shape)`, and their weights `(q,)`."""
    scale = _scale(variance)
    latents = 1 if mean.ndim == 1 else mean.shape[1]
    if latents in NODES:
        nodes, weights = gauss_hermite(NODES[latents], latents)
        nodes = jnp.asarray(nodes, mean.dtype)
        nodes = nodes[:, :1] if mean.ndim == 1 else nodes[:, None, :]
        return mean + scale * nodes, jnp.asarray(weights, mean.dtype)
    if key is None:
        raise ValueError(f"expected_log_prob: {latents} latents need a key, as draws are taken")
    noise = jax.random.normal(key, (num_samples, *mean.shape), mean.dtype)
    return mean + scale * noise, jnp.full(num_samples, 1 / num_samples, mean.dtype)


def _checked(
    name: str, likelihood: Likelihood, y: Any, mean: Any, variance: Any
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    mean = jnp.asarray(mean)
    if mean.ndim not in (1, 2) or jnp.shape(variance) != mean.shape or mean.size == 0:
        raise ValueError(
            f"{name}: mean and variance must both be (n,), or (n, l) for l latents; got "
            f"{mean.shape} and {jnp.shape(variance)}"
        )
    for argument, value in (("mean", mean), ("variance", variance)):
        if jnp.issubdtype(jnp.result_type(value), jnp.complexfloating):
            raise ValueError(f"{name}: {argument} must be real, got {jnp.result_type(value)}")
    mean = mean if jnp.issubdtype(mean.dtype, jnp.floating) else mean.astype(float)
    mean = refuse_where(mean, _not_finite, f"{name}: mean must be finite, got NaN or infinity")
    variance = refuse_where(
        jnp.asarray(variance, mean.dtype),
        lambda v: ~((v >= 0) & (v < np.inf)),
        f"{name}: variance must be finite and not negative",
    )
    y, guard = in_support(likelihood, y, mean, jnp.ones((), mean.dtype))
    return y, mean, variance, guard


def _not_finite(x: Any) -> Any:
    return ~(abs(x) < np.inf)


def _check_draws(name: str, mean: jax.Array, key: Any, num_samples: Any) -> None:
    latents = 1 if mean.ndim == 1 else mean.shape[1]
    if latents in NODES:
        return
    if key is None:
        raise ValueError(f"{name}: {latents} latents need a key, as draws are taken")
    check_key(key)
    if isinstance(num_samples, bool) or not isinstance(num_samples, (int, np.integer)):
        raise ValueError(f"{name}: num_samples must be an integer, got {num_samples!r}")
    if num_samples < 1:
        raise ValueError(f"{name}: num_samples must be at least 1, got {num_samples}")


def in_support(
    likelihood: Likelihood, y: Any, mean: jax.Array, guard: jax.Array, each_output: bool = False
) -> tuple[jax.Array, jax.Array]:
    """The observations, if the likelihood allows them where the function is `mean`.

    Args:
        likelihood: from the function to a distribution.
        y: observations.
        mean: values of the function, `(n,)` or `(n, l)`.
        guard: a scalar, which a check that can only be made at run time is tied to. Were it tied to
            the observations, all of them would move to one device when they are sharded over many.
        each_output: whether there may be an observation of each value of `(n, l)`, too.

    Returns:
        observations, those that are floating-point of the type of `mean`, and the guard.

    Raises:
        ValueError: shapes that disagree; a likelihood that fails; a value that is known to be
            outside of the support.
        TypeError: the likelihood does not return a NumPyro distribution.
        RuntimeError: under `jit`, a value outside.
    """
    if isinstance(likelihood, dist.Distribution) or not callable(likelihood):
        raise TypeError(
            "the likelihood must be a function from values of the latent function to a NumPyro "
            f"distribution, such as lambda f: dist.Bernoulli(logits=f); got {likelihood!r:.80}"
        )
    try:
        observed = likelihood(mean)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"the likelihood failed at values of shape {mean.shape}; if it carries data of the "
            f"observations, these must be of that shape, without what a mask leaves out: {error}"
        ) from error
    if not isinstance(observed, dist.Distribution):
        raise TypeError(
            f"the likelihood must return a NumPyro distribution, got {type(observed).__name__}"
        )
    batch = mean.shape if each_output and observed.batch_shape == mean.shape else mean.shape[:1]
    wanted = (*batch, *observed.event_shape)
    if observed.batch_shape != batch or jnp.shape(y) != wanted:
        raise ValueError(
            f"the likelihood makes distributions of shape {observed.batch_shape} of values of "
            f"shape {observed.event_shape} from a function of shape {mean.shape}, and y has shape "
            f"{jnp.shape(y)}; one for each of the {len(mean)} observations is needed"
        )
    return inside(observed, y, mean.dtype, guard)


def inside(observed: Any, y: Any, dtype: Any, guard: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Observations of that type, if they are in the support of a distribution, and the guard.

    Raises:
        ValueError: a value that is known to be outside; under `jit` a `RuntimeError` when it runs.
    """
    name = type(observed).__name__
    message = f"y holds values outside of the support of {name}, {observed.support}"
    if not isinstance(y, jax.core.Tracer):
        with jax.ensure_compile_time_eval():
            allowed = observed.support(np.asarray(y))
        if not isinstance(allowed, jax.core.Tracer):  # as the bounds of a support may be
            if not np.all(allowed):
                raise ValueError(message)
            return _as_type(observed, y, dtype), guard
    guard = eqx.error_if(guard, ~jnp.all(observed.support(y)), message)
    return _as_type(observed, y, dtype), guard


def _as_type(observed: Any, y: Any, dtype: Any) -> jax.Array:
    """Numbers of that type; counts and labels stay what they are, and labels index classes."""
    y = jnp.asarray(y)
    if not jnp.issubdtype(y.dtype, jnp.floating):
        return y
    while isinstance(observed, dist.Independent | dist.ExpandedDistribution):
        observed = observed.base_dist
    labels = isinstance(observed, dist.CategoricalLogits | dist.CategoricalProbs)
    return y.astype(int if labels else dtype)
