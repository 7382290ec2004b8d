"""Sparsity priors of weights as sites of NumPyro models: horseshoes, ARD, spike and slab."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import numpyro
from jaxtyping import Array, Float
from numpyro import distributions as dist

from .._core import is_array, refuse_where, whole_number


def horseshoe(
    name: str,
    num_weights: int,
    *,
    global_scale: Any = None,
    num_nonzero: Any = None,
    num_data: Any = None,
    noise_scale: Any = None,
) -> Float[Array, "... m"]:
    r"""Horseshoe prior of `m` weights, as sites of a NumPyro model.

    $w_j = \tau \lambda_j z_j$ with $z_j \sim N(0, 1)$, $\lambda_j \sim C^+(0, 1)$ and
    $\tau \sim C^+(0, \tau_0)$. Non-centred, and each half-Cauchy variable is the product of a
    half-normal one and the root of an inverse gamma one, whose tails a sampler follows more easily.
    Run NUTS with `target_accept_prob=0.95` or more, in float64.

    Sites are called after `name`: `name_base`, `name_local_normal`, `name_local_var`,
    `name_global_normal` and `name_global_var` are sampled; `name_global_scale` ($\tau$),
    `name_scale` (the standard deviation of each weight, which `shrinkage` reads) and `name` itself
    are deterministic. In a plate every element has weights and a global scale of its own.

    Args:
        name: of the weights.
        num_weights: `m`.
        global_scale: $\tau_0 > 0$, by default 1; or let the three that follow determine it as
            $\frac{p_0}{m - p_0} \frac{\sigma}{\sqrt n}$, for columns of unit variance.
        num_nonzero: $p_0$, how many weights are expected to matter, between 0 and `m`.
        num_data: `n`.
        noise_scale: $\sigma$, the standard deviation of the noise, which may be a sampled value.

    Returns:
        The weights, shape `(m,)`, or `(*batch, m)` in plates; in the type of the scales.

    Raises:
        ValueError: sizes or scales out of range, or only some of the three, or both.

    References:
        Carvalho, Polson and Scott (2010), "The horseshoe estimator for sparse signals"; Piironen
        and Vehtari (2017), "Sparsity information and regularization in the horseshoe and other
        shrinkage priors", equation 3.12 for the global scale, appendix C.2 for half-Cauchy
        variables as products.
    """
    size = _checked_size("horseshoe", name, num_weights)
    least = _global_scale("horseshoe", size, global_scale, num_nonzero, num_data, noise_scale)
    tau, local = _global_and_local(name, size, least)
    return _weights(name, size, tau[..., None] * local, least.dtype)


def regularized_horseshoe(
    name: str,
    num_weights: int,
    *,
    global_scale: Any = None,
    num_nonzero: Any = None,
    num_data: Any = None,
    noise_scale: Any = None,
    slab_scale: Any = 2.0,
    slab_df: Any = 4.0,
) -> Float[Array, "... m"]:
    r"""Regularised horseshoe prior (the Finnish horseshoe) of `m` weights, as sites of a model.

    As `horseshoe`, with $\tilde\lambda_j^2 = c^2 \lambda_j^2 / (c^2 + \tau^2 \lambda_j^2)$ in place
    of $\lambda_j^2$: weights that are far from zero have a Student t distribution and not the tails
    of a Cauchy one, which likelihoods that are flat far out (logistic regression of separable
    classes) need, and samplers like. One more site is sampled, `name_slab_var` ($c^2$).

    Args:
        name: of the weights.
        num_weights: `m`.
        global_scale: as of `horseshoe`.
        num_nonzero: as of `horseshoe`.
        num_data: as of `horseshoe`.
        noise_scale: as of `horseshoe`.
        slab_scale: scale of the Student t distribution of large weights, for responses of unit
            variance.
        slab_df: its degrees of freedom.

    Returns:
        The weights, shape `(m,)`, or `(*batch, m)` in plates; in the type of the scales.

    Raises:
        ValueError: sizes or scales out of range, or only some of the three that determine the
            global scale, or both.

    References:
        Piironen and Vehtari (2017), "Sparsity information and regularization in the horseshoe and
        other shrinkage priors", equations 2.8 to 2.10.
    """
    owner = "regularized_horseshoe"
    size = _checked_size(owner, name, num_weights)
    least = _global_scale(owner, size, global_scale, num_nonzero, num_data, noise_scale)
    slab_scale = _positive(owner, "slab_scale", slab_scale)
    half_df = jnp.asarray(0.5 * _positive(owner, "slab_df", slab_df), least.dtype)
    tau, local = _global_and_local(name, size, least)
    slab = dist.InverseGamma(half_df, half_df * jnp.asarray(slab_scale, least.dtype) ** 2)
    slab_var = _site(f"{name}_slab_var", slab)[..., None]
    free = tau[..., None] * local
    # No square of what may be as large as the tails of Cauchy variables are.
    scale = free / jnp.hypot(jnp.ones((), free.dtype), free / jnp.sqrt(slab_var))
    return _weights(name, size, scale, least.dtype)


def ard_weights(
    name: str, num_weights: int, *, concentration: Any = 0.5, rate: Any = 0.5
) -> Float[Array, "... m"]:
    r"""Weights with automatic relevance determination, as sites of a NumPyro model.

    $w_j \sim N(0, 1 / \alpha_j)$ with $\alpha_j \sim \mathrm{Gamma}(a, b)$, non-centred: each
    weight has a Student t distribution of $2a$ degrees of freedom and scale $\sqrt{b/a}$. Sampled
    are `name_base` and `name_precision` ($\alpha$); `name_scale` and `name` are deterministic.

    Args:
        name: of the weights.
        num_weights: `m`.
        concentration: $a > 0$, a scalar or one for each weight.
        rate: $b > 0$, likewise.

    Returns:
        The weights, shape `(m,)`, or `(*batch, m)` in plates.

    Raises:
        ValueError: a size or parameter out of range.

    References:
        Tipping (2001), "Sparse Bayesian learning and the relevance vector machine", equation 5.
    """
    size = _checked_size("ard_weights", name, num_weights)
    shape = _each("ard_weights", "concentration", concentration, size)
    rate = _each("ard_weights", "rate", rate, size)
    dtype = jnp.result_type(shape, rate)
    gamma = dist.Gamma(shape.astype(dtype), rate.astype(dtype)).to_event(1)
    precision = _site(f"{name}_precision", gamma)
    return _weights(name, size, 1 / jnp.sqrt(precision), dtype)


def spike_and_slab_weights(
    name: str, num_weights: int, *, prior_prob: Any = 0.5, slab_scale: Any = 1.0
) -> Float[Array, "... m"]:
    r"""Spike-and-slab prior of `m` weights, as sites of a NumPyro model.

    $w_j = s_j v_j$ with $s_j \sim \mathrm{Bernoulli}(\pi_j)$ and $v_j \sim N(0, \text{scale}_j^2)$.
    Sampled are `name_active` ($s$, which is discrete: `numpyro.infer.DiscreteHMCGibbs`, or a
    strategy of `bayesjx.vi`), in a plate `name_columns` of the columns, and `name_base`;
    `name_scale` and `name` are deterministic. For linear regression `spike_and_slab` integrates the
    weights out, and mixes far better.

    Args:
        name: of the weights.
        num_weights: `m`.
        prior_prob: probability that a weight is not zero, a scalar or one for each weight.
        slab_scale: standard deviation of weights that are not zero, likewise.

    Returns:
        The weights, shape `(m,)`, or `(*batch, m)` in plates.

    Raises:
        ValueError: a size, probability or scale out of range.

    References:
        Mitchell and Beauchamp (1988), "Bayesian variable selection in linear regression".
    """
    size = _checked_size("spike_and_slab_weights", name, num_weights)
    slab_scale = _each("spike_and_slab_weights", "slab_scale", slab_scale, size)
    prior_prob = _each("spike_and_slab_weights", "prior_prob", prior_prob, size, 1.0)
    dtype = jnp.result_type(slab_scale, prior_prob)
    # Elements of a plate can be enumerated one by one, those of an event cannot.
    plate = numpyro.plate(f"{name}_columns", size)
    axis = plate.dim if plate.dim is not None else -1
    with plate:
        prior_prob = prior_prob.reshape(size, *(1,) * (-axis - 1))
        active = _site(f"{name}_active", dist.BernoulliProbs(prior_prob))
    active = jnp.moveaxis(active, axis, -1).astype(dtype)
    return _weights(name, size, active * slab_scale.astype(dtype), dtype)


class Shrinkage(NamedTuple):
    r"""How much each weight is shrunk, result of `shrinkage`.

    Attributes:
        kappa: shrinkage factors, shape `(*draws, m)`: 0 where data alone decide about a weight,
            1 where the prior keeps it at zero.
        num_nonzero: effective number of weights that are not zero, the sum of $1 - \kappa_j$, shape
            `(*draws,)`.
    """

    kappa: Float[Array, "... m"]
    num_nonzero: Float[Array, ...]


def shrinkage(
    posterior: Mapping[str, Any],
    name: str = "w",
    *,
    num_data: Any = 1,
    noise_scale: Any = 1.0,
    design_scale: Any = 1.0,
) -> Shrinkage:
    r"""Shrinkage factors $\kappa_j = 1 / (1 + n \sigma^{-2} s_j^2 \text{scale}_j^2)$ of weights.

    With orthogonal columns, $(1 - \kappa_j)$ times the least squares estimate is the posterior mean
    of a weight given the scales. By default $n = \sigma = s_j = 1$, so that
    $\kappa_j = 1 / (1 + \tau^2 \lambda_j^2)$.

    Args:
        posterior: draws by the name of the site, as `MCMC.get_samples` or `Predictive` gives, of a
            model with any of the priors of this package: `name_scale` of shape `(*draws, m)` is
            read.
        name: of the weights.
        num_data: `n`.
        noise_scale: $\sigma$, a number, or draws of it of shape `(*draws,)`.
        design_scale: $s_j$, standard deviation of the columns, a number or `(m,)`.

    Raises:
        ValueError: there are no such draws, or arguments do not fit or are not positive.

    References:
        Piironen and Vehtari (2017), "Sparsity information and regularization in the horseshoe and
        other shrinkage priors", equations 2.4 and 3.1.
    """
    if not isinstance(posterior, Mapping):
        raise ValueError(
            "shrinkage: posterior must be a dictionary of draws, as MCMC.get_samples() gives, got "
            f"{type(posterior).__name__}"
        )
    scale = posterior.get(f"{name}_scale")
    if scale is None:
        raise ValueError(
            f"shrinkage: posterior has no {name}_scale, which the priors of bayesjx.sbl record; it "
            f"has {', '.join(map(str, posterior)) or 'nothing'}. Are its weights called {name!r}?"
        )
    scale = jnp.asarray(scale)
    if scale.ndim < 1 or not jnp.issubdtype(scale.dtype, jnp.floating):
        raise ValueError(
            f"shrinkage: posterior[{name + '_scale'!r}] must be real, of shape (*draws, m), got "
            f"{scale.dtype} of shape {scale.shape}"
        )
    noise = jnp.asarray(_positive("shrinkage", "noise_scale", noise_scale), scale.dtype)
    if noise.ndim and noise.shape != scale.shape[:-1]:
        raise ValueError(
            f"shrinkage: noise_scale must be a number or draws of shape {scale.shape[:-1]}, got "
            f"shape {noise.shape}"
        )
    columns = _each("shrinkage", "design_scale", design_scale, scale.shape[-1])
    count = jnp.asarray(_positive("shrinkage", "num_data", num_data), scale.dtype)
    signal = scale * columns.astype(scale.dtype) * jnp.sqrt(count) / noise[..., None]
    kappa = 1 / (1 + signal**2)
    return Shrinkage(kappa, jnp.sum(signal * (signal * kappa), axis=-1))


def _global_and_local(name: str, size: int, least: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The global scale, recorded, and the local ones."""
    tau = least * _half_cauchy(f"{name}_global", (), least.dtype)
    numpyro.deterministic(f"{name}_global_scale", tau)
    return tau, _half_cauchy(f"{name}_local", (size,), least.dtype)


def _half_cauchy(name: str, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Standard half-Cauchy variables as a half-normal one times the root of an inverse gamma."""
    half = jnp.full(shape, 0.5, dtype)
    normal = _site(f"{name}_normal", dist.HalfNormal(2 * half).to_event(len(shape)))
    mixing = dist.InverseGamma(half, half).to_event(len(shape))
    return normal * jnp.sqrt(_site(f"{name}_var", mixing))


def _weights(name: str, size: int, scale: jax.Array, dtype: Any) -> jax.Array:
    """The weights of given standard deviations: a standard normal site, and what is recorded."""
    normal = dist.Normal(jnp.zeros(size, dtype), jnp.ones(size, dtype)).to_event(1)
    base, scale = _site(f"{name}_base", normal), scale.astype(dtype)
    numpyro.deterministic(f"{name}_scale", scale)
    weights = (base * scale).astype(dtype)
    numpyro.deterministic(name, weights)
    return weights


def _site(name: str, d: dist.Distribution) -> jax.Array:
    return jnp.asarray(numpyro.sample(name, d))


def _checked_size(owner: str, name: Any, size: Any) -> int:
    if not isinstance(name, str) or not name:
        raise ValueError(f"{owner}: name must be a text, the name of the weights, got {name!r:.40}")
    return whole_number(f"{owner}: num_weights", size)


def _global_scale(
    owner: str, size: int, scale: Any, num_nonzero: Any, num_data: Any, noise_scale: Any
) -> jax.Array:
    """What the half-Cauchy distribution of the global scale is scaled by."""
    names = ("num_nonzero", "num_data", "noise_scale")
    values = (num_nonzero, num_data, noise_scale)
    missing = [name for name, value in zip(names, values, strict=True) if value is None]
    if 0 < len(missing) < 3:
        raise ValueError(
            f"{owner}: num_nonzero, num_data and noise_scale determine the global scale together; "
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
        )
    if missing:
        return _floating(_positive(owner, "global_scale", 1.0 if scale is None else scale))
    if scale is not None:
        raise ValueError(
            f"{owner}: global_scale is given, and num_nonzero, num_data and noise_scale, which "
            "determine it; leave out one or the others"
        )
    noise = _floating(_positive(owner, "noise_scale", noise_scale))
    count = jnp.asarray(_positive(owner, "num_data", num_data), noise.dtype)
    nonzero = _positive(owner, "num_nonzero", num_nonzero)
    text = f"{owner}: num_nonzero must be between 0 and num_weights = {size}, got {nonzero!r:.40}"
    nonzero = jnp.asarray(refuse_where(nonzero, lambda x: x >= size, text), noise.dtype)
    return nonzero / (size - nonzero) * noise / jnp.sqrt(count)


def _positive(owner: str, name: str, value: Any) -> Any:
    """A number or array that is positive as far as is known; a density of a traced one is NaN."""
    if isinstance(value, list | tuple):
        value = np.asarray(value)
    if not (is_array(value) or isinstance(value, int | float)) or isinstance(value, bool):
        raise ValueError(f"{owner}: {name} must be a positive number, got {value!r:.40}")
    if isinstance(value, jax.core.Tracer):
        return jnp.where(value > 0, value, jnp.nan)
    text = f"{owner}: {name} must be positive and finite, got {value!r:.40}"
    return refuse_where(value, lambda x: ~((x > 0) & np.isfinite(x)), text)


def _each(owner: str, name: str, value: Any, size: int, most: float = np.inf) -> jax.Array:
    """A positive number for each weight."""
    value = _floating(_positive(owner, name, value))
    if not isinstance(value, jax.core.Tracer):
        refuse_where(value, lambda x: x > most, f"{owner}: {name} must be at most {most:g}")
    if value.shape not in ((), (size,)):
        raise ValueError(
            f"{owner}: {name} must be a scalar or have shape ({size},), got {value.shape}"
        )
    return jnp.broadcast_to(value, (size,))


def _floating(value: Any) -> jax.Array:
    value = jnp.asarray(value)
    return value if jnp.issubdtype(value.dtype, jnp.floating) else value.astype(float)
