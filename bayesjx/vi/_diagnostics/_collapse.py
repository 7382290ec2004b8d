r"""When linear VAEs collapse: global minima of their losses in closed form.

All maps are linear. The losses are negative ELBOs whose divergences are weighted by $\beta$; one
latent dimension after the other falls back to the prior as $\beta$ or the decoder's noise grows.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from ..._core import whole_number


class LinearCollapse(NamedTuple):
    """Global minimum of a linear VAE's loss; every field has one entry per latent dimension.

    Attributes:
        theta: what the data offer the dimension, in falling order; see the function.
        decoder: singular values of the decoder's weight on the latents.
        encoder: singular values of the encoder's mean as a function of white inputs: the
            standard deviations of the posterior mean over the data.
        posterior_scale: standard deviations of the posterior.
        collapsed: whether the dimension carries no information, so its weights are zero.
        critical_beta: the largest beta at which so many dimensions are still in use; entry
            `r - 1` is the supremum of those with at least `r` in use.
    """

    theta: Float[Array, " k"]
    decoder: Float[Array, " k"]
    encoder: Float[Array, " k"]
    posterior_scale: Float[Array, " k"]
    collapsed: Bool[Array, " k"]
    critical_beta: Float[Array, " k"]


class HierarchicalCollapse(NamedTuple):
    """Global minimum of a linear two-level VAE's loss; one entry per latent dimension.

    Attributes:
        theta: standard deviations of the data along their principal axes, in falling order.
        encoder: singular values of the mean of z1 as a function of white data.
        decoder: singular values of the map from z1 to the data.
        upper_decoder: singular values of the map from z2 to z1.
        lower_collapsed: whether the dimension of z1 ignores the data.
        collapsed: whether the dimension of z2 carries no information.
        critical_beta2: the supremum of the values of beta2 at which `r` dimensions of z2 are in
            use, entry `r - 1`, all else equal.
    """

    theta: Float[Array, " k"]
    encoder: Float[Array, " k"]
    decoder: Float[Array, " k"]
    upper_decoder: Float[Array, " k"]
    lower_collapsed: Bool[Array, " k"]
    collapsed: Bool[Array, " k"]
    critical_beta2: Float[Array, " k"]


def linear_vae_collapse(
    x: ArrayLike,
    beta: ArrayLike = 1.0,
    eta_dec: ArrayLike = 1.0,
    eta_enc: ArrayLike = 1.0,
    *,
    latent_dim: int | None = None,
    target: ArrayLike | None = None,
    encoder_scale: ArrayLike | None = None,
    centre: bool = True,
    floor: float | None = None,
) -> LinearCollapse:
    r"""Collapsed dimensions of a linear VAE, and the spectra of its global minimum.

    $q(z|x) = N(Wx, \Sigma)$ with $\Sigma$ diagonal, $p(y|z) = N(Uz, \eta_{dec}^2 I)$ with
    $y = x$ unless there is a `target`, $p(z) = N(0, \eta_{enc}^2 I)$, divergence times $\beta$.
    `theta` are the singular values of $E[y \tilde x^T]$, where $\tilde x$ is $x$ whitened; of an
    autoencoder, the standard deviations along the principal axes. A dimension collapses if
    $\theta_i^2 \le \beta \eta_{dec}^2$. If the decoder's noise is learned too, this holds with
    the $\eta_{dec}$ that the training ends at.

    Args:
        x: data, shape `(n, d)`.
        beta: weight of the divergence, positive.
        eta_dec: standard deviation of the decoder's noise, positive.
        eta_enc: standard deviation of the prior, positive.
        latent_dim: number of latent dimensions; by default that of the output.
        target: what is decoded, shape `(n, p)`; by default `x`.
        encoder_scale: fixed posterior standard deviations, a scalar or shape `(latent_dim,)`;
            None if they are learned. The largest `theta` takes the smallest of them. A dimension
            then collapses if $\theta_i \le \sqrt\beta \sigma_i \eta_{dec} / \eta_{enc}$: its
            mean does, while the posterior is the prior only if $\sigma_i = \eta_{enc}$.
        centre: subtract the means first, as is right for maps with biases; False for maps
            without, on data that are not centred.
        floor: singular values of `x` below this part of the largest are taken for zero in
            whitening; by default $\sqrt{10^{-9}}$, or rounding if that is coarser.

    Returns:
        a `LinearCollapse`. Works under `jit` and `vmap`, over `beta` for instance.

    Raises:
        ValueError: a shape is wrong, or there are no data.
        RuntimeError: the data have NaN or infinities, or a scale or beta is not positive.

    References:
        Dang, Tran, Nguyen and Ho (2024), "Beyond vanilla variational autoencoders: detecting
        posterior collapse in conditional and hierarchical variational autoencoders", ICLR,
        theorem 1; Lucas, Tucker, Grosse and Norouzi (2019), "Don't blame the ELBO!".
    """
    x = _as_data(x, "x", centre)
    if target is None:
        theta = jnp.linalg.svd(x, compute_uv=False)
    else:
        y = _paired(_as_data(target, "target", centre), x, "target")
        theta = jnp.linalg.svd(y.T @ _left_vectors(x, floor), compute_uv=False)
    theta = _first_dimensions(theta, latent_dim, x.shape[1] if target is None else y.shape[1])
    beta, eta_dec, eta_enc = _positive(theta, beta=beta, eta_dec=eta_dec, eta_enc=eta_enc)
    if encoder_scale is None:
        return _learned_scale(theta, theta**2, beta, eta_dec, eta_enc)
    (scale,) = _positive(theta, scalar=False, encoder_scale=encoder_scale)
    if scale.shape not in ((), theta.shape):
        raise ValueError(
            f"encoder_scale must be a scalar or of shape {theta.shape}, got {scale.shape}"
        )
    scale = jnp.sort(jnp.broadcast_to(scale, theta.shape))
    ratio = jnp.sqrt(beta) * eta_dec / eta_enc
    excess = jnp.maximum(theta - ratio * scale, 0)
    return LinearCollapse(
        theta,
        _root(ratio * excess / scale),
        _root(scale * excess / ratio),
        scale,
        excess == 0,
        (theta * eta_enc / (eta_dec * scale)) ** 2,
    )


def linear_cvae_collapse(
    x: ArrayLike,
    y: ArrayLike,
    beta: ArrayLike = 1.0,
    eta_dec: ArrayLike = 1.0,
    eta_enc: ArrayLike = 1.0,
    *,
    latent_dim: int | None = None,
    centre: bool = True,
    floor: float | None = None,
) -> LinearCollapse:
    r"""Collapsed dimensions of a linear conditional VAE, and the spectra of its minimum.

    $q(z|x, y) = N(W_1 x + W_2 y, \Sigma)$ with $\Sigma$ diagonal and learned,
    $p(y|z, x) = N(U_1 z + U_2 x, \eta_{dec}^2 I)$, $p(z) = N(0, \eta_{enc}^2 I)$, divergence times
    $\beta$. `theta` are the eigenvalues of the covariance of $y$ given $x$, that of the residuals
    of a linear regression: variances, unlike those of `linear_vae_collapse`. A dimension
    collapses if $\theta_i \le \beta \eta_{dec}^2$, so the better $x$ predicts $y$, the more do.
    The fields `decoder` and `encoder` belong to $U_1$ and to $W_2$ acting on white residuals.

    Args:
        x: conditions, shape `(n, d)`.
        y: outputs, shape `(n, p)`.
        beta: weight of the divergence, positive.
        eta_dec: standard deviation of the decoder's noise, positive.
        eta_enc: standard deviation of the prior, positive.
        latent_dim: number of latent dimensions; by default that of `y`.
        centre: subtract the means first, as is right for maps with biases.
        floor: see `linear_vae_collapse`.

    Returns:
        a `LinearCollapse`. Works under `jit` and `vmap`, over `beta` for instance.

    Raises:
        ValueError: a shape is wrong, or there are no data.
        RuntimeError: the data have NaN or infinities, or a scale or beta is not positive.

    References:
        Dang, Tran, Nguyen and Ho (2024), theorem 2. Their code compares theta with
        $\sqrt\beta \eta_{dec}$ where the posterior scale is chosen; the minimum has
        $\beta \eta_{dec}^2$.
    """
    x = _as_data(x, "x", centre)
    y = _paired(_as_data(y, "y", centre), x, "y")
    left = _left_vectors(x, floor)
    root = jnp.linalg.svd(y - left @ (left.T @ y), compute_uv=False)
    root = _first_dimensions(root, latent_dim, y.shape[1])
    beta, eta_dec, eta_enc = _positive(root, beta=beta, eta_dec=eta_dec, eta_enc=eta_enc)
    return _learned_scale(root**2, root**2, beta, eta_dec, eta_enc)


def _learned_scale(
    theta: jax.Array, variance: jax.Array, beta: jax.Array, eta_dec: jax.Array, eta_enc: jax.Array
) -> LinearCollapse:
    noise = beta * eta_dec**2
    used = variance > noise
    safe = jnp.where(used, variance, 1.0)
    gain = _root(variance - noise)
    return LinearCollapse(
        theta,
        gain / eta_enc,
        eta_enc * gain / jnp.sqrt(safe),
        jnp.where(used, jnp.sqrt(noise / safe), 1.0) * eta_enc,
        ~used,
        variance / eta_dec**2,
    )


def linear_hvae_collapse(
    x: ArrayLike,
    sigma1: ArrayLike,
    beta1: ArrayLike = 1.0,
    beta2: ArrayLike = 1.0,
    eta_dec: ArrayLike = 1.0,
    eta_enc: ArrayLike = 1.0,
    *,
    sigma2: ArrayLike | None = None,
    latent_dim: int | None = None,
    centre: bool = True,
) -> HierarchicalCollapse:
    r"""Collapsed dimensions of a linear two-level VAE, and the spectra of its minimum.

    $q(z_1|x) = N(W_1 x, \sigma_1^2 I)$, $q(z_2|z_1) = N(W_2 z_1, \Sigma_2)$;
    $p(z_2) = N(0, \eta_{enc}^2 I)$, $p(z_1|z_2) = N(U_2 z_2, \eta_{dec}^2 I)$,
    $p(x|z_1) = N(U_1 z_1, \eta_{dec}^2 I)$; the divergences of $z_1$ and $z_2$ are weighted by
    $\beta_1$ and $\beta_2$. The scale $\sigma_1$ is fixed. Small $\beta_2$ or $\eta_{dec}$ and
    large $\beta_1$ or $\sigma_1$ keep $z_2$ from collapsing.

    Everything follows from $v_i$, the variance of $z_1$ along axis $i$. Let $u_i = \sigma_1
    \theta_i / \sqrt{\beta_1}$ and let $t = \eta_{dec}^2 \beta_2 / \beta_1$ if $\Sigma_2$ is
    learned, or $t = \eta_{dec}^2 \beta_2 \sigma_2^2 / (\eta_{enc}^2 \beta_1)$ if it is
    $\sigma_2^2 I$. Below $t$, $z_2$ is not used. Then $v_i$ is the larger of $\sigma_1^2$ and:
    $u_i$ if $u_i < t$, else $u_i^2 / t$ or $(u_i^2 / \sqrt t)^{2/3}$ in turn.

    Args:
        x: data, shape `(n, d)`.
        sigma1: $\sigma_1$, positive.
        beta1: weight of the divergence of $z_1$, positive.
        beta2: weight of the divergence of $z_2$, positive.
        eta_dec: standard deviation of both decoders' noise, positive.
        eta_enc: standard deviation of the prior of $z_2$, positive.
        sigma2: $\sigma_2$, positive; None if $\Sigma_2$ is diagonal and learned.
        latent_dim: dimension of $z_1$ and of $z_2$; by default that of `x`.
        centre: subtract the mean first, as is right for maps with biases.

    Returns:
        a `HierarchicalCollapse`. Works under `jit` and `vmap`, over `beta2` for instance.

    Raises:
        ValueError: a shape is wrong, or there are no data.
        RuntimeError: the data have NaN or infinities, or a scale or beta is not positive.

    References:
        Dang, Tran, Nguyen and Ho (2024), theorem 3 and its variant with two fixed scales. Their
        code multiplies by $\sqrt{\beta_1}$ in the condition of the latter; the minimum divides.
    """
    x = _as_data(x, "x", centre)
    theta = _first_dimensions(jnp.linalg.svd(x, compute_uv=False), latent_dim, x.shape[1])
    sigma1, beta1, beta2, eta_dec, eta_enc = _positive(
        theta, sigma1=sigma1, beta1=beta1, beta2=beta2, eta_dec=eta_dec, eta_enc=eta_enc
    )
    alone = sigma1 * theta / jnp.sqrt(beta1)
    if sigma2 is None:
        unit = eta_dec**2
        threshold = unit * beta2 / beta1
        variance = jnp.where(alone < threshold, alone, alone**2 / threshold)
    else:
        (sigma2,) = _positive(theta, sigma2=sigma2)
        unit = (sigma2 * eta_dec / eta_enc) ** 2
        threshold = unit * beta2 / beta1
        variance = (alone**2 / jnp.sqrt(threshold)) ** (2 / 3)
        variance = jnp.where(alone < threshold, alone, variance)
    variance = jnp.maximum(variance, sigma1**2)
    encoder = _root(variance - sigma1**2)
    above = jnp.maximum(variance - threshold, 0)
    if sigma2 is None:
        upper = _root(above) / eta_enc
    else:
        above = jnp.maximum(jnp.sqrt(variance) - jnp.sqrt(threshold), 0)
        upper = _root(jnp.sqrt(threshold) * above) / sigma2
    base = jnp.sqrt(beta1) * sigma1
    return HierarchicalCollapse(
        theta,
        encoder,
        theta * encoder / variance,
        upper,
        encoder == 0,
        above == 0,
        base * jnp.maximum(base, theta) / unit,
    )


def _as_data(x: Any, name: str, centre: bool) -> jax.Array:
    r"""The data over $\sqrt n$, so that singular values are standard deviations; checked."""
    x = jnp.asarray(x)
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(
            f"{name} must have shape (n, d) with at least one row and column, got {x.shape}"
        )
    if centre and x.shape[0] < 2:
        raise ValueError(
            f"{name} has one row, which centring makes zero; give more, or centre=False"
        )
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        raise ValueError(f"{name} must be real, got dtype {x.dtype}")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        x = x.astype(jnp.result_type(float))
    x = eqx.error_if(x, ~jnp.all(jnp.isfinite(x)), f"{name} has NaN or infinite entries")
    return (x - jnp.mean(x, axis=0) if centre else x) / jnp.sqrt(x.shape[0]).astype(x.dtype)


def _positive(like: jax.Array, scalar: bool = True, **values: Any) -> list[jax.Array]:
    """The values as arrays in the dtype of `like`, checked."""
    out = []
    for name, value in values.items():
        value = jnp.asarray(value, like.dtype)
        if scalar and value.ndim:
            raise ValueError(f"{name} must be a scalar, got shape {value.shape}; use jax.vmap")
        valid = jnp.all((value > 0) & jnp.isfinite(value))
        out.append(eqx.error_if(value, ~valid, f"{name} must be positive and finite"))
    return out


def _first_dimensions(theta: jax.Array, latent_dim: int | None, default: int) -> jax.Array:
    """The `latent_dim` largest of falling values; zeros if there are more dimensions than data."""
    size = default if latent_dim is None else latent_dim
    whole_number("latent_dim", size)
    return jnp.pad(theta[:size], (0, max(0, size - theta.shape[0])))


def _root(x: jax.Array) -> jax.Array:
    """Square root, zero and without gradient where `x` is not positive."""
    return jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1.0)), 0.0)


def _paired(y: jax.Array, x: jax.Array, name: str) -> jax.Array:
    if y.shape[0] != x.shape[0]:
        raise ValueError(f"x has {x.shape[0]} rows and {name} has {y.shape[0]}; they are pairs")
    return y.astype(jnp.result_type(x, y))


def _left_vectors(x: jax.Array, floor: float | None) -> jax.Array:
    r"""White inputs over $\sqrt n$: the left singular vectors that are above the floor."""
    left, scale, _ = jnp.linalg.svd(x, full_matrices=False)
    rounding = max(x.shape) * float(jnp.finfo(x.dtype).eps)
    if floor is not None and not 0 <= floor < 1:
        raise ValueError(f"floor is a part of the largest singular value, in [0, 1), got {floor}")
    floor = max(1e-9**0.5, rounding) if floor is None else floor
    return jnp.where(scale > floor * scale[0], left, 0.0)


__all__ = [
    "HierarchicalCollapse",
    "LinearCollapse",
    "linear_cvae_collapse",
    "linear_hvae_collapse",
    "linear_vae_collapse",
]
