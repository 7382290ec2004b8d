"""Processes in the units of the data beside the same for standardised data."""

import equinox as eqx
import jax
import numpy as np
import pytest

from bayesjx import gp, kernels, ops

N = 11
RNG = np.random.default_rng(5)
X = RNG.normal(size=(N, 2)) * [300.0, 0.02] + [5e3, -1.0]
Y = RNG.normal(size=N) * 40 + 700
ARD = np.array([0.7, 1.9])
KERNELS = {
    "stationary": kernels.Matern32(ARD, variance=1.3),
    "rational": kernels.RationalQuadratic(ARD, alpha=0.6),
    "sum and product": kernels.RBF(ARD) * kernels.Matern12(ARD) + 0.3 * kernels.Constant(0.2),
    "on": kernels.RBF(0.5).on(0)
    + kernels.Periodic(0.8, 1.7, 0.4).on(1) * kernels.Cosine(0.9).on(1),
    "linear": kernels.Linear(ARD, centre=0.3) + kernels.White(0.2) + kernels.SHO(1.1, 2.0).on(1),
}


@pytest.mark.parametrize("name", KERNELS)
def test_density_is_that_of_standardised_data(name):
    prior = gp.GP(KERNELS[name], mean=0.2, noise_var=0.4)

    @jax.jit
    def both(x, y):
        standard = (x - x.mean(0)) / x.std(0), (y - y.mean()) / y.std()
        raw = gp.in_units_of(prior, x, y)(x).log_prob(y)
        return raw, prior(standard[0]).log_prob(standard[1]) - N * jax.numpy.log(y.std())

    found, want = both(X, Y)
    # The quadratic form is as large as N, and the offset takes digits: 1e4 standard deviations.
    np.testing.assert_allclose(found, want, rtol=0, atol=N * 1e4 * 1e4 * np.finfo(float).eps)


def test_what_is_known_and_shared_stays():
    noise = ops.Diag(np.full(N, 2.0), ops.psd)
    raw = gp.in_units_of(
        gp.GP(kernels.RBF(2.0), mean=lambda point: point[0], noise_var=noise), X, Y
    )
    assert eqx.tree_equal(raw.noise_var, noise) and callable(raw.mean)
    shared = 2 * np.sqrt(X[:, 0].std() * X[:, 1].std())
    np.testing.assert_allclose(raw.kernel.lengthscale, shared, rtol=1e-12)
    still = np.column_stack([X[:, 0], np.ones(N)])
    assert gp.in_units_of(gp.GP(kernels.RBF(ARD)), still, Y).kernel.lengthscale[1] == ARD[1]


@pytest.mark.errors
def test_bad_input_is_named():
    prior = gp.GP(kernels.RBF(1.0))
    with pytest.raises(ValueError, match="y must have one response for each of 11 x, got 10"):
        gp.in_units_of(prior, X, Y[1:])
    with pytest.raises(ValueError, match="y must not be constant"):
        gp.in_units_of(prior, X, np.ones(N))
    with pytest.raises(ValueError, match="y holds NaN"):
        gp.in_units_of(prior, X, np.where(Y > 700, Y, np.nan))
    with pytest.raises(ValueError, match="units of SpectralMixture are not known"):
        gp.in_units_of(gp.GP(kernels.SpectralMixture([1.0], [1.0], [1.0])), X[:, 0], Y)
