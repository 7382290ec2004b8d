"""Fourier features against the Gram matrices that their products estimate."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesjx import gp, kernels

N, D, DRAWS = 5, 3, 1000
X = jax.random.normal(jax.random.key(0), (N, D))
ELL = jnp.array([0.7, 1.3, 2.0])
WEIGHTS, RATES, FREQUENCIES = jnp.array([1.0, 0.5]), jnp.array([0.3, 1.0]), jnp.array([0.1, 0.8])
FACTOR, OWN = jnp.array([[1.0, 0.2], [-0.5, 0.7], [0.3, 0.0]]), jnp.array([0.4, 0.2, 1.1])
# With the last coordinate the number of an output.
INDEXED = X.at[:, 2].set(jnp.array([0.0, 2.0, 1.0, 2.0, 0.0]))

RANDOM = {
    "RBF": kernels.RBF(ELL, 1.7),
    "Matern12": kernels.Matern12(ELL, 1.7),
    "Matern32": kernels.Matern32(0.8, 1.7),
    "Matern52": kernels.Matern52(ELL, 1.7),
    "Matern72": kernels.Matern72(ELL, 1.7),
    "RationalQuadratic": kernels.RationalQuadratic(ELL, 0.7, 1.7),
    "SpectralMixture": kernels.SpectralMixture(WEIGHTS, RATES, FREQUENCIES).on(1),
    "StudentMixture": kernels.StudentMixture(WEIGHTS, RATES, FREQUENCIES).on(1),
    "Periodic": kernels.Periodic(ELL, jnp.array([1.0, 2.0, 0.7]), 1.7),
    "Periodic, few": kernels.Periodic(0.6, 1.4).on(-1),
    "ArcCosine0": kernels.ArcCosine(0, ELL, 0.6, 1.7),
    "ArcCosine1": kernels.ArcCosine(1, ELL, 0.6, 1.7),
    "ArcCosine2": kernels.ArcCosine(2, ELL, 0.6, 1.7),
    "sum": 2.0 * kernels.RBF(1.0).on(0) + kernels.Linear(0.3) + 0.4,
    "product": kernels.RBF(1.0).on([2, 0]) * (kernels.Matern32(0.9) + 0.3) * 1.5,
    "product of waves": kernels.Cosine(2.0).on(0)
    * kernels.Cosine(3.0).on(0)
    * kernels.Periodic(0.8, 1.5).on(0)
    * kernels.SpectralMixture(WEIGHTS, RATES, FREQUENCIES).on(0),
    "product with a sum": (1.5 * (kernels.Linear(0.4) + kernels.RBF(0.9))).on([0, 1])
    * kernels.Matern52(1.2)
    * kernels.Linear().on(2),
    "product with a linear one": kernels.RBF(1.0).on(0) * kernels.Linear(0.5, 0.1).on([1, 2]),
    "transformed": kernels.RBF(1.0).transform(eqx.nn.MLP(D, 2, 8, 1, key=jax.random.key(5))),
}
INDEX = {
    "icm": gp.icm(kernels.Matern52(1.0), FACTOR, OWN),
    "lcm": gp.lcm(
        [kernels.RBF(1.0), kernels.Matern32(0.5)], [FACTOR, FACTOR[:, :1]], [OWN, OWN[::-1]]
    ),
}
EXACT = {
    "Constant": kernels.Constant(1.7),
    "Linear": kernels.Linear(ELL, jnp.array([0.1, 0.2, -0.3])),
    "Cosine": kernels.Cosine(ELL, 1.7),
    "Periodic, one": kernels.Periodic(0.4, 1.4, 1.7).on(1),
    "Periodic, short": kernels.Periodic(0.04, 1.4, 1.7).on(1),
    "sum": 2.0 * kernels.Cosine(1.5).on(0) + kernels.Linear() * kernels.Linear() + 0.3,
}


@eqx.filter_jit
def products(kernel, x, num):
    """Inner products of many independent draws of features, one for each leading index."""

    def one(key):
        phi = gp.fourier_features(key, kernel, num, x.shape[1])(x)
        return phi @ phi.T

    return jax.vmap(one)(jax.random.split(jax.random.key(1), DRAWS))


gram = eqx.filter_jit(lambda kernel, x: kernel.gram(x))


@pytest.mark.parametrize("name", [*RANDOM, *INDEX])
def test_inner_products_are_the_kernel_on_average(name):
    kernel, x = (RANDOM | INDEX)[name], INDEXED if name in INDEX else X
    # Enough of them to tell the spectra of neighbouring kernels apart.
    num = 12 if "Periodic" in name or "waves" in name else 120
    found = np.asarray(products(kernel, x, num))
    error = found.std(0) / DRAWS**0.5
    assert np.all(np.abs(found.mean(0) - gram(kernel, x)) < 5 * error + 1e-10)


@pytest.mark.parametrize("name", EXACT)
def test_finite_kernels_are_exact(name, dtype, tol):
    kernel, x = EXACT[name], X.astype(dtype)

    @jax.jit
    def both(x):
        phi = gp.fourier_features(jax.random.key(2), kernel, 600, D)(x)
        return phi @ phi.T, kernel.gram(x)

    found, want = both(x)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, want, **tol)


def test_pairs_have_no_error_on_the_diagonal_and_less_beside_it():
    kernel, num = kernels.RBF(1.0), 50
    x = jnp.array([[0.0], [0.5]])
    found = products(kernel, x, num)
    np.testing.assert_allclose(found[:, 0, 0], 1, rtol=1e-12)
    k, k2 = float(kernel.gram(x)[0, 1]), np.exp(-0.5)
    phases = (1 + k2 / 2 - k**2) / num  # variance with random phases and as many features
    assert found[:, 0, 1].var() < 0.5 * phases
    # One of two steps with opposite weights is always on.
    steps = kernels.ArcCosine(0, 1.0, 0.6, 1.7)
    found = np.asarray(products(steps, x, num))[:, [0, 1], [0, 1]]
    np.testing.assert_allclose(found, np.broadcast_to(steps.diag(x), found.shape), rtol=1e-12)


@pytest.mark.parametrize("name", [*RANDOM, *INDEX])
def test_size_and_type_and_single_precision(name):
    kernel, x = (RANDOM | INDEX)[name], INDEXED if name in INDEX else X

    @eqx.filter_jit
    def answers(kernel, x):
        features = gp.fourier_features(jax.random.key(3), kernel, 12, D)
        one_by_one = jax.vmap(lambda point: features(point[None])[0])(x)
        return features.size, features(x), features(x.astype(jnp.float32)), one_by_one

    size, phi, single, one_by_one = answers(kernel, x)
    assert phi.shape == (N, size)
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, phi, atol=1e-3, rtol=1e-3)
    np.testing.assert_allclose(one_by_one, phi, rtol=1e-9, atol=1e-12)


SMOOTH = {
    name: kernel
    for name, kernel in (RANDOM | INDEX | EXACT).items()
    if name
    not in ("ArcCosine0", "Periodic", "Periodic, few", "product of waves")  # see the docstring
}


@pytest.mark.parametrize("name", SMOOTH)
def test_features_are_smooth_in_the_parameters(name):
    """With the key fixed, derivatives are those of differences."""
    params, static = eqx.partition(SMOOTH[name], eqx.is_inexact_array)
    if name == "RationalQuadratic":  # its sampler of gamma numbers jumps in alpha
        params = eqx.tree_at(lambda p: p.alpha, params, None)
        static = eqx.tree_at(lambda s: s.alpha, static, jnp.array(0.7), is_leaf=lambda v: v is None)
    x = INDEXED if name in INDEX else X

    @jax.jit
    def total(params):
        features = gp.fourier_features(
            jax.random.key(4), eqx.combine(params, static), 600 if name in EXACT else 12, D
        )
        return jnp.sum(jnp.sin(features(x)))

    params = jax.tree.map(np.asarray, params)
    direction = jax.tree.map(lambda p: np.cos(np.arange(p.size)).reshape(p.shape), params)

    def moved(step):
        return total(jax.tree.map(lambda p, d: p + step * d, params, direction))

    found, step = jax.jit(jax.grad(total))(params), 1e-6
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(direction), strict=True)
    along = sum(np.sum(slope * part) for slope, part in pairs)
    np.testing.assert_allclose(
        along, (moved(step) - moved(-step)) / (2 * step), rtol=1e-5, atol=1e-6
    )


def test_gradients_through_drawn_harmonics_are_right_on_average():
    x = X[:, :2]

    def mean_product(ell, key):
        phi = gp.fourier_features(key, kernels.Periodic(ell, 1.3), 12, 2)(x)
        return phi[0] @ phi[1]

    keys = jax.random.split(jax.random.key(6), 4000)
    found = jax.jit(jax.vmap(jax.grad(mean_product), (None, 0)))(0.8, keys)
    want = jax.grad(lambda ell: kernels.Periodic(ell, 1.3).gram(x)[0, 1])(0.8)
    assert abs(found.mean() - want) < 5 * found.std() / len(keys) ** 0.5


@pytest.mark.errors
def test_bad_input_is_named():
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="White is not the covariance of a function"):
        gp.fourier_features(key, kernels.RBF() + kernels.White(), 10, 1)
    with pytest.raises(ValueError, match="no random features of Polynomial are known"):
        gp.fourier_features(key, kernels.Polynomial(), 10, 1)
    with pytest.raises(ValueError, match="this one has a factor ArcCosine"):
        gp.fourier_features(key, kernels.RBF() * kernels.ArcCosine().on(0), 10, 1)
    with pytest.raises(
        ValueError, match="num_features must be at least 2 and dim at least 1, got 1 and 3"
    ):
        gp.fourier_features(key, kernels.RBF(), 1, 3)
    with pytest.raises(ValueError, match="2 components needs at least 4 features"):
        gp.fourier_features(key, kernels.SpectralMixture(WEIGHTS, RATES, FREQUENCIES), 2, 1)
    with pytest.raises(ValueError, match="sum of 2 kernels needs at least 4"):
        gp.fourier_features(key, (kernels.RBF() + 1.0) * kernels.RBF(), 2, 1)
    with pytest.raises(ValueError, match="SpectralMixture is of one coordinate and points have 3"):
        gp.fourier_features(key, kernels.SpectralMixture(WEIGHTS, RATES, FREQUENCIES), 8, 3)
    with pytest.raises(ValueError, match=r"coordinates \(5,\) and points have 3"):
        gp.fourier_features(key, kernels.RBF().on(5), 8, 3)
    with pytest.raises(ValueError, match="the features are of 3 coordinates"):
        gp.fourier_features(key, kernels.RBF(), 8, 3)(X[:, :2])
    with pytest.raises(RuntimeError, match="lengthscale of Periodic is below 0.03"):
        gp.fourier_features(key, kernels.Periodic(0.01), 600, 1)
