"""Covariance functions against formulas in NumPy, quadrature and Monte Carlo; their algebra."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import integrate

from bayesjx import kernels

N, M, D = 7, 5, 3
X = jax.random.normal(jax.random.key(0), (N, D))
Z = jax.random.normal(jax.random.key(1), (M, D))
ELL = np.array([0.7, 1.3, 2.0])


def scaled(x, z, ell=ELL):
    return np.sqrt(np.sum(((np.asarray(x)[:, None] - np.asarray(z)) / ell) ** 2, axis=-1))


def poly(r, *coefficients):
    return sum(c * r**i for i, c in enumerate(coefficients)) * np.exp(-r)


# Constructor, the formula of a matrix of scaled distances.
STATIONARY = {
    "RBF": (kernels.RBF, lambda r: np.exp(-(r**2) / 2)),
    "Matern12": (kernels.Matern12, lambda r: np.exp(-r)),
    "Matern32": (kernels.Matern32, lambda r: poly(3**0.5 * r, 1, 1)),
    "Matern52": (kernels.Matern52, lambda r: poly(5**0.5 * r, 1, 1, 1 / 3)),
    "Matern72": (kernels.Matern72, lambda r: poly(7**0.5 * r, 1, 1, 2 / 5, 1 / 15)),
    "RationalQuadratic": (
        lambda ell, var: kernels.RationalQuadratic(ell, 1.5, var),
        lambda r: (1 + r**2 / 3) ** -1.5,
    ),
}
OTHERS = {
    "Periodic": kernels.Periodic(jnp.array(ELL), jnp.array([1.0, 2.0, 0.7]), 1.7),
    "Cosine": kernels.Cosine(jnp.array(ELL), 1.7),
    "Linear": kernels.Linear(jnp.array(ELL), jnp.array([0.1, 0.2, -0.3])),
    "Polynomial": kernels.Polynomial(3, 0.5, 0.7),
    "Constant": kernels.Constant(1.7),
    "White": kernels.White(1.7),
    "ArcCosine0": kernels.ArcCosine(0, jnp.array(ELL), 0.6, 1.7),
    "ArcCosine1": kernels.ArcCosine(1, jnp.array(ELL), 0.6, 1.7),
    "ArcCosine2": kernels.ArcCosine(2, jnp.array(ELL), 0.6, 1.7),
    "SpectralMixture": kernels.SpectralMixture(
        jnp.array([1.0, 0.5]), jnp.array([0.3, 1.0]), jnp.array([0.1, 0.8])
    ).on(1),
    "StudentMixture": kernels.StudentMixture(
        jnp.array([1.0, 0.5]), jnp.array([0.3, 1.0]), jnp.array([0.1, 0.8])
    ).on(1),
    "SHO": kernels.SHO(1.3, 0.9, 1.7).on(1),
    "Wiener": kernels.Wiener(1.7, -4.0).on(0),
    "IntegratedWiener": kernels.IntegratedWiener(1.7, -4.0).on(2),
    "sum of products": 2.0 * kernels.RBF(1.0).on(0) * kernels.Matern32(0.5).on([1, 2]) + 0.3,
    "transformed": kernels.RBF(1.0).transform(eqx.nn.MLP(D, 2, 8, 1, key=jax.random.key(5))),
}
ALL = {name: make(jnp.array(ELL), 1.7) for name, (make, _) in STATIONARY.items()} | OTHERS


@pytest.mark.parametrize("name", STATIONARY)
def test_stationary_kernels_are_their_formulas(name, dtype, tol):
    make, formula = STATIONARY[name]
    kernel = make(jnp.asarray(ELL, dtype), jnp.asarray(1.7, dtype))
    x, z = X.astype(dtype), Z.astype(dtype)
    found = jax.jit(lambda k, x, z: (k.gram(x, z), k.gram(x)))(kernel, x, z)
    assert found[0].dtype == found[1].dtype == dtype
    np.testing.assert_allclose(found[0], 1.7 * formula(scaled(x, z)), **tol)
    np.testing.assert_allclose(found[1], 1.7 * formula(scaled(x, x)), **tol)


def test_periodic_and_cosine_are_their_formulas():
    lag = np.asarray(X)[:, None] - np.asarray(Z)
    wave = np.sin(np.pi * lag / np.array([1.0, 2.0, 0.7])) ** 2 / ELL**2
    np.testing.assert_allclose(OTHERS["Periodic"].gram(X, Z), 1.7 * np.exp(-2 * wave.sum(-1)))
    angle = 2 * np.pi * np.sum(lag / ELL, -1)
    np.testing.assert_allclose(OTHERS["Cosine"].gram(X, Z), 1.7 * np.cos(angle), atol=1e-13)


def test_inner_product_kernels_are_their_formulas():
    x, z = np.asarray(X), np.asarray(Z)
    centre = np.array([0.1, 0.2, -0.3])
    want = (x - centre) @ np.diag(ELL) @ (z - centre).T
    np.testing.assert_allclose(OTHERS["Linear"].gram(X, Z), want, rtol=1e-12)
    np.testing.assert_allclose(OTHERS["Polynomial"].gram(X, Z), (0.5 * x @ z.T + 0.7) ** 3)


@pytest.mark.parametrize("order", [0, 1, 2])
def test_arc_cosine_is_the_covariance_of_random_units(order):
    n = 400_000
    weights = jax.random.normal(jax.random.key(3), (n, D + 1))
    bar = jnp.concatenate([jnp.stack([X[0], Z[0]]) / ELL, jnp.full((2, 1), 0.6)], 1)
    fields = bar @ weights.T
    units = jnp.where(fields > 0, fields**order, 0.0)
    products = 2 * 1.7 * units[0] * units[1]
    found = OTHERS[f"ArcCosine{order}"](X[0], Z[0])
    assert abs(products.mean() - found) < 5 * products.std() / n**0.5


@pytest.mark.parametrize("name", ["SpectralMixture", "StudentMixture"])
def test_spectral_kernels_have_their_spectrum(name):
    """Integrated against a wave, a component has the density of its band."""
    kernel = getattr(kernels, name)(jnp.ones(1), jnp.array([0.6]), jnp.zeros(1))
    frequency, value = 0.35, jax.jit(lambda t: kernel(0.0, t))

    def wave(t):
        return float(value(t)) * np.cos(2 * np.pi * frequency * t)

    found = 2 * integrate.quad(wave, 0, 40, limit=400)[0]
    if name == "SpectralMixture":  # of exp(-a t²)
        want = np.sqrt(np.pi / 0.6) * np.exp(-((np.pi * frequency) ** 2) / 0.6)
    else:  # of a Matérn process with ν = 5/2, ℓ = 1 / 0.6: a t density with five degrees of freedom
        rate = 5**0.5 * 0.6
        omega = 2 * np.pi * frequency
        want = 16 / 3 * rate**5 / (rate**2 + omega**2) ** 3
    np.testing.assert_allclose(found, want, rtol=1e-8)


@pytest.mark.parametrize("name", ALL)
def test_every_kernel(name):
    """Symmetric, positive semi-definite, with the diagonal that it says; jit and vmap agree."""
    kernel = ALL[name]

    @eqx.filter_jit
    def all_of(kernel, x, z):
        one_by_one = jax.vmap(lambda a: jax.vmap(lambda b: kernel(a, b))(z))(x)
        return kernel.gram(x), kernel.gram(x, z), kernel.diag(x), one_by_one

    gram, cross, diag, one_by_one = all_of(kernel, X, Z)
    np.testing.assert_allclose(gram, gram.T, atol=1e-13)
    assert np.linalg.eigvalsh(gram).min() > -1e-10 * np.trace(gram)
    np.testing.assert_allclose(np.diag(gram), diag, rtol=1e-12)
    np.testing.assert_allclose(cross, one_by_one, rtol=1e-9, atol=1e-12)
    both = jnp.concatenate([X, Z])
    np.testing.assert_allclose(kernel.gram(both)[:N, N:], cross, rtol=1e-9, atol=1e-11)
    single = eqx.filter_eval_shape(all_of, kernel, X.astype("float32"), Z.astype("float32"))
    if name != "transformed":  # whose function says of what type its points are
        assert {x.dtype for x in jax.tree.leaves(single)} == {jnp.dtype("float32")}
    copied = jax.tree.unflatten(*jax.tree.flatten(kernel)[::-1])
    np.testing.assert_array_equal(copied.gram(X, Z), kernel.gram(X, Z))


@pytest.mark.parametrize("name", [n for n in ALL if n not in ("ArcCosine0", "White")])
def test_gradients_are_those_of_differences_and_finite_at_equal_points(name):
    params, static = eqx.partition(ALL[name], eqx.is_inexact_array)

    def total(params, x):
        kernel = eqx.combine(params, static)
        return jnp.sum(jnp.sin(kernel.gram(x, Z))) + jnp.sum(jnp.cos(kernel.gram(x)))

    check_grads(jax.jit(total), (params, X), order=1, modes=("rev",), eps=1e-6, rtol=1e-5)
    repeated = jnp.concatenate([X, X[:2]])
    gradient = jax.jit(jax.grad(total, (0, 1)))(params, repeated)
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(gradient))


def test_many_dimensions_take_the_expanded_square_without_loss():
    x = 100 + jax.random.normal(jax.random.key(2), (20, 8))
    z = x[:3] + 1e-3
    want = np.sum((np.asarray(x)[:, None] - np.asarray(z)) ** 2, -1)
    found = kernels.RBF(1.0).gram(x, z)
    np.testing.assert_allclose(found, np.exp(-want / 2), rtol=1e-11)
    assert np.all(np.diag(kernels.Matern32(1.0).gram(x)) == 1)


def test_algebra():
    a, b, c = kernels.RBF(1.0), kernels.Matern32(2.0), kernels.Linear()
    total = a + b + c
    assert isinstance(total, kernels.Sum) and len(total.terms) == 3
    product = a * b * c
    assert isinstance(product, kernels.Product) and len(product.terms) == 3
    np.testing.assert_allclose(total.gram(X), a.gram(X) + b.gram(X) + c.gram(X))
    np.testing.assert_allclose(product.gram(X), a.gram(X) * b.gram(X) * c.gram(X))
    np.testing.assert_allclose((3 * a).diag(X), 3 * np.ones(N))
    np.testing.assert_allclose((1 + a).gram(X), 1 + a.gram(X))
    np.testing.assert_allclose(a.on(slice(0, 2)).gram(X), a.gram(X[:, :2]))
    np.testing.assert_allclose(a(0.3, 0.5), np.exp(-0.02))
    grown = jax.grad(lambda v: (v * a).gram(X).sum())(2.0)
    np.testing.assert_allclose(grown, a.gram(X).sum())


@pytest.mark.errors
def test_bad_input_is_named():
    with pytest.raises(ValueError, match="lengthscale must be positive, got -1"):
        kernels.RBF(-1.0)
    with pytest.raises(ValueError, match="lengthscale must be positive"):
        kernels.RBF(jnp.array([1.0, 0.0]))
    with pytest.raises(ValueError, match="variance must not be negative, got nan"):
        kernels.RBF(1.0, jnp.nan)
    with pytest.raises(ValueError, match="weights must not be negative"):
        kernels.SpectralMixture(-jnp.ones(2), jnp.ones(2), jnp.ones(2))
    with pytest.raises(ValueError, match="lengthscale must be positive, got 0"):
        kernels.Matern32(0.0)
    with pytest.raises(ValueError, match="period must be positive, got 0"):
        kernels.Cosine(0)
    with pytest.raises(ValueError, match=r"lengthscale must be a scalar or have shape \(d,\)"):
        kernels.RBF(jnp.ones((2, 2)))
    with pytest.raises(ValueError, match="variance must be a scalar"):
        kernels.RBF(1.0, jnp.ones(2))
    with pytest.raises(ValueError, match=r"x must have shape \(n, d\) or \(n,\)"):
        kernels.RBF().gram(jnp.ones((2, 2, 2)))
    with pytest.raises(ValueError, match="same dimension, got 3 and 2"):
        kernels.RBF().gram(X, Z[:, :2])
    with pytest.raises(ValueError, match="order must be"):
        kernels.ArcCosine(3)
    with pytest.raises(ValueError, match="degree"):
        kernels.Polynomial(0)
    with pytest.raises(ValueError, match=r"coordinates \(5,\) and points have 3"):
        kernels.RBF().on(5).gram(X)
    with pytest.raises(ValueError, match="of one coordinate"):
        kernels.SpectralMixture(jnp.ones(1), jnp.ones(1), jnp.ones(1)).gram(X)
    with pytest.raises(ValueError, match=r"weights \(2,\), rates \(1,\)"):
        kernels.SpectralMixture(jnp.ones(2), jnp.ones(1), jnp.ones(1))


@jax.jit
@functools.partial(jax.vmap, in_axes=(0, None))
def oscillator(lag, quality):
    """A value with its first and second derivative in the lag."""

    def value(t):
        return kernels.SHO(1.1, quality, 1.7)(0.0, t)

    return value(lag), jax.grad(value)(lag), jax.grad(jax.grad(value))(lag)


@pytest.mark.parametrize("quality", [0.1, 0.4999, 0.5, 0.5001, 3.0])
def test_oscillator_solves_its_equation(quality):
    """On both sides of critical damping, a quality of 1/2."""
    lag, omega = np.linspace(0.01, 3, 40), 2 * np.pi / 1.1

    value, first, second = oscillator(jnp.append(lag, 1e-9), quality)
    rest = second / omega**2 + first / (omega * quality) + value
    np.testing.assert_allclose(rest[:-1], 0, atol=1e-10)
    np.testing.assert_allclose(value[-1], 1.7, rtol=1e-12)
    np.testing.assert_allclose(first[-1], 0, atol=1e-6)


def test_oscillator_is_smooth_across_critical_damping():
    lag = np.linspace(0.01, 3, 40)
    critical = kernels.Matern32(3**0.5 * 1.1 / (2 * np.pi), 1.7)
    found = kernels.SHO(1.1, 0.5, 1.7).gram(lag)
    np.testing.assert_allclose(found, critical.gram(lag), rtol=1e-10)
    slopes = jax.grad(lambda q: kernels.SHO(1.1, q).gram(lag).sum())
    np.testing.assert_allclose(slopes(0.4999999), slopes(0.5000001), rtol=1e-5)


def test_wiener_processes_are_sums_of_white_noise():
    """Covariances of sums of small steps, and of their sums."""
    steps, origin = 4000, -0.5
    times = origin + np.array([0.5, 1.0, 1.75, 2.0])
    grid = origin + 2.0 * (np.arange(steps) + 0.5) / steps
    brownian = (grid <= times[:, None]).astype(float)
    integrated = np.maximum(times[:, None] - grid, 0)
    for kernel, weights in (
        (kernels.Wiener(1.3, origin), brownian),
        (kernels.IntegratedWiener(1.3, origin), integrated),
    ):
        want = 1.3 * weights @ weights.T * 2.0 / steps
        np.testing.assert_allclose(kernel.gram(times), want, rtol=1e-6)
        np.testing.assert_allclose(kernel.diag(times), np.diag(want), rtol=1e-6)
        assert np.isnan(kernel(origin - 0.1, 1.0))


@pytest.mark.errors
def test_kernels_of_time_refuse_several_coordinates():
    for kernel in (kernels.SHO(), kernels.Wiener(), kernels.IntegratedWiener()):
        with pytest.raises(ValueError, match="is a kernel of time: points must have one coord"):
            kernel.gram(X)
