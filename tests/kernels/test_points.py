"""Points that are equal, far from the origin, or of another dimension than the parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from bayesjx import gp, kernels

# Of shift-invariant kernels; lengthscales and periods are chosen so that all values matter.
INVARIANT = {
    "RBF": kernels.RBF(3.0),
    "Matern12": kernels.Matern12(3.0),
    "RationalQuadratic": kernels.RationalQuadratic(3.0),
    "Periodic": kernels.Periodic(1.1, 7.5),
    "Cosine": kernels.Cosine(7.5),
}


def grams(x, z, copy):
    return {name: (k.gram(x), k.gram(x, copy), k.gram(x, z)) for name, k in INVARIANT.items()}


@pytest.mark.parametrize("dim", [1, 5])
@pytest.mark.parametrize("offset", [5e6, -5e6])
def test_an_offset_in_common_costs_no_digits(dim, offset, dtype):
    """Metres of a map: steps of 1/2 are exact at 5e6, also in single precision."""
    steps = np.random.default_rng(0).integers(-12, 12, (2, 7, dim)) / 2
    want = jax.jit(grams)(*(jnp.asarray(s) for s in (steps[0], steps[1], steps[0])))
    x, z = (jnp.asarray(offset + s, dtype) for s in steps)
    found = jax.jit(grams)(x, z, x + 0)
    for name in INVARIANT:
        for i, value in enumerate(found[name]):
            assert value.dtype == dtype
            # Expanded squares round to a few units of the largest squared norm, and Matern12 takes
            # the root of those between equal points.
            expanded = name == "Matern12" and dim > 3 and dtype == jnp.float64 and i
            atol = 1e-6 if expanded else 200 * float(jnp.finfo(dtype).eps)
            np.testing.assert_allclose(value, want[name][i], rtol=0, atol=atol, err_msg=name)


def test_clusters_are_found_far_from_the_origin():
    centres = 5e6 + np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 3.0]])
    x = np.repeat(centres, 5, 0) + 0.1 * np.random.default_rng(1).normal(size=(15, 2))
    found = gp.kmeans_points(jax.random.key(0), x, 3)
    want = x.reshape(3, 5, 2).mean(1)
    near = np.abs(np.asarray(found)[:, None] - want).max(-1)
    np.testing.assert_allclose(near.min(0), 0, atol=1e-8)


@pytest.mark.parametrize("lengthscale", [1e-8, 0.3])
def test_periodic_waves_have_their_variance_at_any_time(lengthscale, dtype, tol):
    """With a short lengthscale, and at times where a period is a few units in the last place."""
    times = np.array([0.0, 0.25, 7.0, 1e6, 1e6 + 0.5, 1e6 + 1.25])  # exact in both precisions
    x = jnp.asarray(times, dtype)
    kernel, wave = kernels.Periodic(lengthscale, 1.5, 1.7), kernels.Cosine(1.5, 1.7)
    found, copied, waves = jax.jit(
        lambda x, copy: (kernel.gram(x), kernel.gram(x, copy), wave.gram(x, copy))
    )(x, x + 0)
    angle = np.pi * (np.subtract.outer(times, times) % 1.5) / 1.5
    want = 1.7 * np.exp(-2 * (np.sin(angle) / lengthscale) ** 2)
    same = np.isclose(np.sin(angle), 0)
    want = np.where(same, 1.7, want)
    np.testing.assert_array_equal(np.diag(found), np.full(6, 1.7, dtype))
    if lengthscale > 1e-3:
        np.testing.assert_allclose(found, want, **tol)
        np.testing.assert_allclose(copied, want, **tol)
    else:
        np.testing.assert_allclose(np.diag(copied), 1.7, rtol=1e-6)
    np.testing.assert_allclose(waves, 1.7 * np.cos(2 * angle), rtol=tol["rtol"], atol=tol["atol"])


REPEATED, SEEN = np.array([0.0, 0.0, 1.0, 2.5, 2.5]), np.array([1.0, 1.2, 0.0, -0.7, -0.4])


def test_white_noise_is_a_function_that_is_new_at_every_point():
    """Equal points share a value however they are passed, and the posterior knows it."""
    white = kernels.RBF(1.0, 0.01) + 0.5 * kernels.White(2.0)

    @jax.jit
    def found(x, y):
        copy, two = x + 0, jnp.stack([x, x], 1)
        matrices = white.gram(x), white.gram(x, copy), white.on(0).gram(two), white.gram(two[:, :1])
        posterior = gp.condition(gp.GP(white, noise_var=0.01), x, y)
        return matrices, posterior.moments(x), gp.GP(white, noise_var=0.01)(x).log_prob(y)

    matrices, (mean, variance), evidence = found(REPEATED, SEEN)
    equal = (REPEATED[:, None] == REPEATED).astype(float)
    want = 0.01 * np.exp(-(np.subtract.outer(REPEATED, REPEATED) ** 2) / 2) + equal
    for matrix in matrices:
        np.testing.assert_allclose(matrix, want, rtol=1e-12)
    total = want + 0.01 * np.eye(5)
    np.testing.assert_allclose(mean, want @ np.linalg.solve(total, SEEN), rtol=1e-10)
    left = np.diag(want - want @ np.linalg.solve(total, want))
    np.testing.assert_allclose(variance, left, rtol=1e-8)
    np.testing.assert_allclose(evidence, multivariate_normal(np.zeros(5), total).logpdf(SEEN))


@pytest.mark.parametrize("options", [{}, {"tight": False}, {"blocks": 2}], ids=str)
def test_bounds_with_white_noise_are_below_the_evidence(options):
    prior = gp.GP(kernels.RBF(1.0, 0.01) + kernels.White(1.0), noise_var=0.01)
    evidence = float(prior(REPEATED).log_prob(SEEN))

    @jax.jit
    def bound(points):
        return gp.sgpr(prior, REPEATED, inducing_points=points, jitter=1e-12, **options).log_prob(
            SEEN
        )

    assert bound(np.array([0.0, 0.4, 1.0])) < evidence - 1e-3
    np.testing.assert_allclose(bound(np.unique(REPEATED)), evidence, rtol=1e-6)


def test_white_noise_is_a_product_over_the_axes_of_a_grid():
    grid = gp.Grid(jnp.array([0.0, 1.0, 0.0]), jnp.array([2.0, 2.0]))
    found = gp.GP(kernels.White(1.7)).covariance(grid).as_matrix()
    np.testing.assert_allclose(found, kernels.White(1.7).gram(grid.points()))


PER_COORDINATE = {
    "RBF": ("lengthscale", kernels.RBF(jnp.ones(2))),
    "Matern52": ("lengthscale", kernels.Matern52(jnp.ones(2))),
    "RationalQuadratic": ("lengthscale", kernels.RationalQuadratic(jnp.ones(2))),
    "Periodic": ("lengthscale", kernels.Periodic(jnp.ones(2))),
    "Periodic, period": ("period", kernels.Periodic(1.0, jnp.ones(2))),
    "Cosine": ("period", kernels.Cosine(jnp.ones(2))),
    "ArcCosine": ("lengthscale", kernels.ArcCosine(1, jnp.ones(2))),
    "Linear": ("variance", kernels.Linear(jnp.ones(2))),
    "Linear, centre": ("centre", kernels.Linear(1.0, jnp.ones(2))),
}


@pytest.mark.errors
@pytest.mark.parametrize("name", PER_COORDINATE)
def test_parameters_of_another_number_of_coordinates_are_named(name):
    argument, kernel = PER_COORDINATE[name]
    said = rf"{argument} has shape \(2,\), a value for each coordinate, and points have "
    for x, dim in ((np.ones(4), 1), (np.ones((4, 3)), 3)):
        with pytest.raises(ValueError, match=said + str(dim)):
            kernel.gram(x)
        with pytest.raises(ValueError, match=said + str(dim)):
            kernel.diag(x)
        with pytest.raises(ValueError, match=said + str(dim)):
            gp.fourier_features(jax.random.key(0), kernel, 20, dim)
    if name in ("RBF", "Periodic"):
        with pytest.raises(ValueError, match=said + "3"):
            gp.GP(kernel)(gp.Grid(np.ones(2), np.ones(2), np.ones(2)))


@pytest.mark.errors
@pytest.mark.parametrize("dims", [slice(5, 7), slice(0, 4), slice(2, 2), 3, -4, (0, 3), (0, -3)])
def test_coordinates_that_points_do_not_have_are_named(dims):
    kernel = kernels.RBF(1.0).on(dims)
    for call in (kernel.gram, kernel.diag):
        with pytest.raises(ValueError, match=r"dims: the kernel is \.on coordinates .*points hav"):
            call(np.ones((4, 3)))
    with pytest.raises(ValueError, match=r"\.on coordinates"):
        gp.fourier_features(jax.random.key(0), kernel, 20, 3)
