"""Derivatives of kernels where points coincide, which are covariances of derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesjx import kernels

OMEGA = 2 * np.pi / 1.3  # of waves with period 1.3
LAGS = np.array([0.0, 1e-7, 1e-3, 0.4])
INFINITE = np.inf  # must come out large: such derivatives do not exist


def mixture(decay_2, decay_4, weights=(1.0, 0.5), rates=(0.3, 1.1), frequencies=(0.1, 0.8)):
    """Second and fourth moments of the spectrum, of bands with moments around their frequencies."""
    w, a, f = (np.array(v) for v in (weights, rates, frequencies))
    omega, m2, m4 = 2 * np.pi * f, decay_2 * a, decay_4 * a**2
    return np.sum(w * (m2 + omega**2)), np.sum(w * (m4 + 6 * m2 * omega**2 + omega**4))


def parts():
    return jnp.array([1.0, 0.5]), jnp.array([0.3, 1.1]), jnp.array([0.1, 0.8])


# Kernel of variance 1.7 unless it says otherwise, d²k/dx dx' and d⁴k/dx² dx'² at x = x' = 0.7.
COINCIDENT = {
    "RBF": (kernels.RBF(0.8, 1.7), 1.7 / 0.64, 3 * 1.7 / 0.64**2),
    "RationalQuadratic": (
        kernels.RationalQuadratic(0.8, 1.5, 1.7),
        1.7 / 0.64,
        3 * 1.7 * (1 + 1 / 1.5) / 0.64**2,
    ),
    "Matern12": (kernels.Matern12(0.8, 1.7), INFINITE, None),
    "Matern32": (kernels.Matern32(0.8, 1.7), 3 * 1.7 / 0.64, INFINITE),
    "Periodic": (
        kernels.Periodic(0.8, 1.3, 1.7),
        1.7 * OMEGA**2 / 0.64,
        1.7 * OMEGA**4 * (3 / 0.64**2 + 1 / 0.64),
    ),
    "Cosine": (kernels.Cosine(1.3, 1.7), 1.7 * OMEGA**2, 1.7 * OMEGA**4),
    "SHO, waves": (kernels.SHO(1.3, 0.9, 1.7), 1.7 * OMEGA**2, INFINITE),
    "SHO, overdamped": (kernels.SHO(1.3, 0.3, 1.7), 1.7 * OMEGA**2, INFINITE),
    "SpectralMixture": (kernels.SpectralMixture(*parts()), *mixture(2.0, 12.0)),
    "StudentMixture": (
        kernels.StudentMixture(parts()[0], parts()[1] ** 0.5, parts()[2]),
        *mixture(5 / 3, 25.0),
    ),
    "Linear": (kernels.Linear(1.7, 0.3), 1.7, None),
    "Polynomial": (
        kernels.Polynomial(4, 0.5, 0.7),
        2 * (0.245 + 0.7) ** 3 + 12 * 0.25 * 0.49 * 0.945**2,
        None,
    ),
    "ArcCosine0": (kernels.ArcCosine(0, 0.8, 0.6, 1.7), INFINITE, None),
    "ArcCosine1": (kernels.ArcCosine(1, 0.8, 0.6, 1.7), 1.7 / 0.64, INFINITE),
    "ArcCosine2": (
        kernels.ArcCosine(2, 0.8, 0.6, 1.7),
        4 * 1.7 * (0.36 + 3 * 0.49 / 0.64) / 0.64,
        12 * 1.7 / 0.64**2,
    ),
    "Wiener": (kernels.Wiener(1.7, -0.2), INFINITE, None),
    "IntegratedWiener": (kernels.IntegratedWiener(1.7, -0.2), 1.7 * 0.9, INFINITE),
    "sum of products": (
        kernels.RBF(0.8, 1.7) * kernels.Cosine(1.3) + 2 * kernels.Matern32(0.8),
        1.7 * (1 / 0.64 + OMEGA**2) + 6 / 0.64,
        None,
    ),
    "transformed": (kernels.RBF(0.8, 1.7).transform(lambda x: x**2), 1.7 * 1.4**2 / 0.64, None),
}


def twice(function, x, y):
    return jax.grad(jax.grad(function, 0), 1)(x, y)


def both(kernel, x, y):
    """The covariances of first and of second derivatives."""

    def of_slopes(x, y):
        return twice(kernel, x, y)

    return of_slopes(x, y), jax.jvp(
        lambda y: jax.jvp(lambda x: of_slopes(x, y), (x,), (jnp.ones_like(x),))[1],
        (y,),
        (jnp.ones_like(y),),
    )[1]


def forward(function, argument):
    """The derivative in one of two numbers, by forward mode, which makes the smaller programs."""

    def slope(x, y):
        if argument == 0:
            return jax.jvp(lambda x: function(x, y), (x,), (1.0,))[1]
        return jax.jvp(lambda y: function(x, y), (y,), (1.0,))[1]

    return slope


def test_where_points_coincide_derivatives_are_those_of_the_formula():
    """Also those of a product of a kernel with others, and of kernels that are not stationary."""

    def values(x, y):
        found = {}
        for name, (kernel, _, fourth) in COINCIDENT.items():
            second = forward(forward(kernel, 0), 1)
            found[name] = second(x, y), fourth and forward(forward(second, 0), 1)(x, y)
        return found

    found = jax.jit(values)(0.7, 0.7)
    for name, (_, *wanted) in COINCIDENT.items():
        for value, want in zip(found[name], wanted, strict=True):
            if want is INFINITE:
                assert value > 1e6, name
            elif want:
                np.testing.assert_allclose(value, want, rtol=1e-9, atol=1e-12, err_msg=name)


def matern_derivatives(order, s):
    """-k'' and k'''' of Matérn kernels, for unit rate."""
    decay = np.exp(-s)
    second = (1 - s, (1 + s - s**2) / 3, (3 + 3 * s - s**3) / 15)[order - 1] * decay
    fourth = (None, (3 - 5 * s + s**2) / 3, (3 + 3 * s - 6 * s**2 + s**3) / 15)[order - 1]
    return second, fourth if fourth is None else fourth * decay


@pytest.mark.parametrize("order", [1, 2, 3])
def test_matern_kernels_near_and_at_coincidence_with_the_slope_in_the_lengthscale(
    order, dtype, tol
):
    kind = (kernels.Matern32, kernels.Matern52, kernels.Matern72)[order - 1]

    @jax.jit
    def at(lengthscale, lags):
        def values(lengthscale):
            return jax.vmap(lambda lag: both(kind(lengthscale), lag, jnp.zeros_like(lag)))(lags)

        return jax.jvp(values, (lengthscale,), (jnp.ones_like(lengthscale),))

    found, slopes = at(jnp.asarray(0.8, dtype), jnp.asarray(LAGS, dtype))
    rate, step = (2 * order + 1) ** 0.5, 1e-6

    def want(lengthscale):
        second, fourth = matern_derivatives(order, rate * LAGS / lengthscale)
        scale = rate / lengthscale
        return scale**2 * second, None if fourth is None else scale**4 * fourth

    for i in range(1 if order == 1 else 2):
        value = want(0.8)[i]
        # The kink of order 1/2 is smoothed over distances of about the root of the precision.
        blur = 30 * float(jnp.finfo(dtype).eps) ** 0.5
        np.testing.assert_allclose(
            found[i], value, rtol=10 * tol["rtol"], atol=blur * abs(value).max()
        )
        slope = (want(0.8 + step)[i] - want(0.8 - step)[i]) / (2 * step)
        np.testing.assert_allclose(
            slopes[i], slope, rtol=1e-6 + 10 * tol["rtol"], atol=blur * abs(slope).max()
        )
        np.testing.assert_allclose(found[i][0], value[0], rtol=tol["rtol"])


@pytest.mark.parametrize("dim", [2, 5])
def test_gradients_of_several_coordinates_have_the_moments_of_the_spectrum(dim):
    """Below and above the number of dimensions where squared distances are expanded."""
    scale = np.linspace(0.7, 1.6, dim)
    x = jnp.asarray(np.linspace(-0.4, 1.1, dim))
    second = jnp.eye(dim)[1]
    moments = {kernels.RBF: np.inf, kernels.Matern32: 1.5, kernels.Matern52: 2.5}

    @jax.jit
    def all_of(x, y):
        found = {}
        for kind in moments:
            kernel = kind(jnp.asarray(scale), 1.7)
            slopes = jax.jacfwd(jax.jacrev(kernel, 0), 1)
            crossed = jax.jvp(  # d⁴k / dx_0 dx_1 dy_0 dy_1
                lambda y, s=slopes: jax.jvp(lambda x: s(x, y)[0, 0], (x,), (second,))[1],
                (y,),
                (second,),
            )[1]
            found[kind.__name__] = slopes(x, y), crossed
        return found

    found = all_of(x, x)
    for kind, nu in moments.items():
        slopes, crossed = found[kind.__name__]
        ratio = 1.0 if nu == np.inf else nu / (nu - 1)
        np.testing.assert_allclose(slopes, np.diag(1.7 * ratio / scale**2), rtol=1e-12, atol=1e-12)
        fourth = 1.0 if nu == np.inf else nu**2 / ((nu - 1) * (nu - 2))
        if kind is not kernels.Matern32:  # whose second derivatives are infinite
            want = 1.7 * fourth / (scale[0] * scale[1]) ** 2
            np.testing.assert_allclose(crossed, want, rtol=1e-9)
