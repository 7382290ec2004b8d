"""Curvature of likelihoods in the latent function: observed and Fisher information."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import random
from jax.scipy.special import polygamma

from .. import ops
from .._core import check_key, refuse_where
from ._likelihood import Gaussian, in_support, Likelihood, log_likelihood


def observed_information(likelihood: Likelihood, f: Any, y: Any) -> ops.AbstractOperator:
    r"""Minus the Hessian of the log density of all observations in the latent function.

    Block-diagonal, as an observation depends on its own latent values only: a multiple of the
    identity for `Gaussian`, an `ops.CategoricalCovariance` for `dist.Categorical(logits=f)`, where
    no block of classes by classes is formed; for all else by automatic differentiation, an
    `ops.Diag` of one latent value each and an `ops.BlockDiag` of several. Where a likelihood is not
    log-concave it has negative eigenvalues; `ops.gauss_newton` takes them for 0.

    Args:
        likelihood: from `f` to a NumPyro distribution of batch shape `(n,)`, or of the shape of
            `f`.
        f: values of the function, shape `(n,)`, or `(n, p)` of several latents.
        y: observations, of the distribution's shape.

    Returns:
        An operator of shape `(n, n)` or `(n p, n p)`.

    Raises:
        ValueError: shapes that disagree, `y` outside of the support; a log density without second
            derivatives: they are NaN, or 0 at all observations, as those of a Laplace or a uniform
            distribution, where they are known; under `jit` a `RuntimeError` when it runs.
        TypeError: the likelihood does not return a NumPyro distribution.
    """
    f = _checked("observed_information", f)
    y, guard = in_support(likelihood, y, f, jnp.ones((), f.dtype), each_output=True)
    f = guard * f
    known = _canonical(likelihood, f)
    if known is not None:
        return known

    def slope(f: jax.Array) -> jax.Array:
        return jax.grad(lambda f: jnp.sum(log_likelihood(likelihood, f, y)))(f)

    blocks = -_jacobians(slope, f)
    return _operator(_with_curvature(blocks), f, ops.symmetric)


def fisher_information(
    likelihood: Likelihood, f: Any, *, key: jax.Array | None = None, num_samples: int = 100
) -> ops.AbstractOperator:
    r"""Expected information $E_{y \sim p(y \mid f)}[s s^\top]$, $s = \nabla_f \log p(y \mid f)$.

    The expectation is under the likelihood's own distribution of observations, none of which are
    needed; it is never negative. In closed form, by the distribution's parameters and their
    derivatives in `f`, for normal, log-normal, Laplace, Cauchy, Poisson, exponential, gamma, beta,
    Bernoulli, binomial and categorical distributions; else the mean over random draws.

    Args:
        likelihood: see `observed_information`.
        f: values of the function, shape `(n,)`, or `(n, p)` of several latents.
        key: for distributions without a closed form.
        num_samples: draws of each observation for those.

    Returns:
        An operator as of `observed_information`, which for an exponential family whose natural
        parameter is linear in `f` it equals.

    Raises:
        ValueError: shapes that disagree; no closed form and no key.
        TypeError: the likelihood does not return a NumPyro distribution.

    References:
        Kunstner, Balles and Hennig (2019), "Limitations of the empirical Fisher approximation for
        natural gradient descent", NeurIPS, for the difference to outer products of the gradients
        of the observations.
    """
    f = _checked("fisher_information", f)
    known = _canonical(likelihood, f)
    if known is not None:
        return known
    observed = _distribution(likelihood, f)
    blocks = _closed_form(likelihood, observed, f)
    if blocks is None:
        if key is None:
            raise ValueError(
                f"fisher_information: {type(observed).__name__} has no closed form here, so that a "
                "key is needed for draws"
            )
        check_key(key)
        if isinstance(num_samples, bool) or not isinstance(num_samples, int | np.integer):
            raise ValueError(
                f"fisher_information: num_samples must be an integer, got {num_samples!r}"
            )
        if num_samples < 1:
            raise ValueError(
                f"fisher_information: num_samples must be at least 1, got {num_samples}"
            )
        blocks = _by_draws(likelihood, f, key, int(num_samples))
    return _operator(_with_curvature(blocks), f, ops.psd)


def scores(likelihood: Likelihood, f: Any, y: Any) -> jax.Array:
    """Scores: derivatives of each observation's log density in the function, of the shape of `f`.

    Args:
        likelihood: see `observed_information`.
        f: values of the function, shape `(n,)`, or `(n, p)` of several latents.
        y: observations, of the distribution's shape.

    Raises:
        ValueError: shapes that disagree, `f` that is known not to be finite, `y` that is known to
            be outside of the support.
        TypeError: the likelihood does not return a NumPyro distribution.
    """
    if not isinstance(f, jax.core.Tracer):
        f = _checked("scores", f)
    if isinstance(y, jax.core.Tracer):
        observed = _distribution(likelihood, f)
        if y.shape != observed.shape():
            raise ValueError(f"scores: y must have shape {observed.shape()}, got {y.shape}")
    else:
        y, _ = in_support(likelihood, y, f, jnp.ones((), f.dtype), each_output=True)
    return jax.grad(lambda f: jnp.sum(log_likelihood(likelihood, f, y)))(f)


def _canonical(likelihood: Likelihood, f: jax.Array) -> ops.AbstractOperator | None:
    """The information where it is that of all observations, whatever they are."""
    if isinstance(likelihood, Gaussian):
        return ops.ScaledIdentity(1 / likelihood.noise_var.astype(f.dtype), f.size)
    if f.ndim == 2 and _is_softmax(likelihood, f):
        return ops.CategoricalCovariance(jax.nn.softmax(f))
    return None


def _is_softmax(likelihood: Likelihood, f: jax.Array) -> bool:
    """Whether the function's values themselves are the logits of a categorical distribution."""
    if type(_distribution(likelihood, f)) is not dist.CategoricalLogits:
        return False
    jaxpr = jax.make_jaxpr(lambda f: likelihood(f).logits)(f).jaxpr
    return jaxpr.outvars[0] is jaxpr.invars[0]


def _distribution(likelihood: Likelihood, f: jax.Array) -> Any:
    observed = likelihood(f) if callable(likelihood) else None
    if not isinstance(observed, dist.Distribution):
        raise TypeError(
            "the likelihood must be a function from values of the latent function to a NumPyro "
            f"distribution, such as lambda f: dist.Bernoulli(logits=f); got {likelihood!r:.80}"
        )
    if observed.batch_shape not in (f.shape, f.shape[:1]):
        raise ValueError(
            f"the likelihood makes distributions of shape {observed.batch_shape} from a function "
            f"of shape {f.shape}; one for each of the {len(f)} observations, or for each value, is "
            "needed"
        )
    return observed


def _closed_form(likelihood: Likelihood, observed: Any, f: jax.Array) -> jax.Array | None:
    r"""$D^\top I D$ with the information $I$ in the distribution's parameters, $D$ in `f`."""
    family = _FAMILIES.get(type(observed))
    if family is None:
        return None
    names, information = family
    rows = lambda value: _as_rows(value, observed.batch_shape, f.dtype)  # noqa: E731
    slopes = {
        name: _jacobians(lambda f, name=name: rows(getattr(likelihood(f), name)), f)
        for name in names
    }
    size = f.size // len(f)
    blocks = jnp.zeros((len(f), size, size), f.dtype)
    for (a, b), value in information(observed).items():
        part = jnp.einsum("npo,no,nqo->npq", slopes[a], rows(value), slopes[b])
        blocks += part if a == b else part + part.mT
    return blocks


def _normal(d: Any) -> dict[tuple[str, str], Any]:
    return {("loc", "loc"): d.scale**-2.0, ("scale", "scale"): 2 * d.scale**-2.0}


def _laplace(d: Any) -> dict[tuple[str, str], Any]:
    return {("loc", "loc"): d.scale**-2.0, ("scale", "scale"): d.scale**-2.0}


def _cauchy(d: Any) -> dict[tuple[str, str], Any]:
    return {("loc", "loc"): 0.5 * d.scale**-2.0, ("scale", "scale"): 0.5 * d.scale**-2.0}


def _logits(d: Any) -> dict[tuple[str, str], Any]:
    count = getattr(d, "total_count", 1)
    probs = jax.nn.sigmoid(d.logits)
    return {("logits", "logits"): count * probs * jax.nn.sigmoid(-d.logits)}


def _probs(d: Any) -> dict[tuple[str, str], Any]:
    return {("probs", "probs"): getattr(d, "total_count", 1) / (d.probs * (1 - d.probs))}


def _gamma(d: Any) -> dict[tuple[str, str], Any]:
    return {
        ("concentration", "concentration"): polygamma(1, d.concentration),
        ("concentration", "rate"): -1 / d.rate,
        ("rate", "rate"): d.concentration / d.rate**2,
    }


def _beta(d: Any) -> dict[tuple[str, str], Any]:
    first, second = "concentration1", "concentration0"
    both = polygamma(1, d.concentration1 + d.concentration0)
    return {
        (first, first): polygamma(1, d.concentration1) - both,
        (first, second): -both,
        (second, second): polygamma(1, d.concentration0) - both,
    }


# Of the parameters of one distribution, elements of pairs of them; categorical ones by row below.
_FAMILIES: dict[type, tuple[tuple[str, ...], Callable[[Any], dict[tuple[str, str], Any]]]] = {
    dist.Normal: (("loc", "scale"), _normal),
    dist.LogNormal: (("loc", "scale"), _normal),
    dist.Laplace: (("loc", "scale"), _laplace),
    dist.Cauchy: (("loc", "scale"), _cauchy),
    dist.BernoulliLogits: (("logits",), _logits),
    dist.BernoulliProbs: (("probs",), _probs),
    dist.BinomialLogits: (("logits",), _logits),
    dist.BinomialProbs: (("probs",), _probs),
    dist.Poisson: (("rate",), lambda d: {("rate", "rate"): 1 / d.rate}),
    dist.Exponential: (("rate",), lambda d: {("rate", "rate"): d.rate**-2.0}),
    dist.Gamma: (("concentration", "rate"), _gamma),
    dist.Beta: (("concentration1", "concentration0"), _beta),
    dist.CategoricalLogits: (("probs",), lambda d: {("probs", "probs"): 1 / d.probs}),
    dist.CategoricalProbs: (("probs",), lambda d: {("probs", "probs"): 1 / d.probs}),
}


def _by_draws(likelihood: Likelihood, f: jax.Array, key: jax.Array, num: int) -> jax.Array:
    def one(key: jax.Array) -> jax.Array:
        y = jax.lax.stop_gradient(likelihood(f).sample(key))
        score = scores(likelihood, f, y).reshape(len(f), -1)
        return score[:, :, None] * score[:, None, :]

    draws = jax.vmap(one)(random.split(key, num))
    return jnp.mean(draws, axis=0)


def _jacobians(function: Callable[[jax.Array], jax.Array], f: jax.Array) -> jax.Array:
    """Derivatives of rows `(n, ...)` in those of `f`, shape `(n, p, o)`; each row's are flat."""
    flat = f.reshape(len(f), -1)

    def along(direction: jax.Array) -> jax.Array:
        tangent = jnp.broadcast_to(direction, flat.shape).reshape(f.shape)
        return jax.jvp(function, (f,), (tangent,))[1]

    found = jax.vmap(along, out_axes=1)(jnp.eye(flat.shape[1], dtype=f.dtype))
    return found.reshape(len(f), flat.shape[1], -1)


def _as_rows(value: Any, batch: tuple[int, ...], dtype: Any) -> jax.Array:
    """A parameter as rows `(n, o)`, one for each observation, also if it is one for all."""
    value = jnp.asarray(value).astype(dtype)
    value = jnp.broadcast_to(value, (*batch, *value.shape[len(batch) :]))
    return value.reshape(batch[0], -1)


def _with_curvature(blocks: jax.Array) -> jax.Array:
    text = (
        "the likelihood's log density has no second derivatives in the function where it is: they "
        "are NaN, or 0 at all observations"
    )
    hint = "; fisher_information may know it, as of a Laplace distribution"
    blocks = refuse_where(blocks, lambda b: ~(abs(b) < np.inf), text)
    return refuse_where(blocks, lambda b: ~(b != 0).any(), text + hint)


def _operator(blocks: jax.Array, f: jax.Array, tag: Any) -> ops.AbstractOperator:
    if f.ndim == 1 or f.shape[1] == 1:
        entries = blocks.reshape(-1)
        return ops.Diag(entries, tag)
    return ops.BlockDiag(0.5 * (blocks + blocks.mT), tag)


def _checked(owner: str, f: Any) -> jax.Array:
    f = jnp.asarray(f)
    if f.ndim not in (1, 2) or f.size == 0 or not jnp.issubdtype(f.dtype, jnp.floating):
        raise ValueError(
            f"{owner}: f must be real floating-point numbers of shape (n,), or (n, p) of p "
            f"latents; got {f.dtype} of shape {f.shape}"
        )
    return refuse_where(f, lambda v: ~(abs(v) < np.inf), f"{owner}: f must be finite")
