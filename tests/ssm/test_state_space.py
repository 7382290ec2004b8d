"""State spaces have the covariance of the kernels that they stand for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesjx import kernels, ssm
from bayesjx.ssm import _unrolled as unrolled

KERNELS = {
    "matern12": kernels.Matern12(0.7, 1.3),
    "matern32": kernels.Matern32(0.7, 1.3),
    "matern52": kernels.Matern52(0.7, 1.3),
    "matern72": kernels.Matern72(0.7, 1.3),
    "cosine": kernels.Cosine(0.9, 1.2),
    "periodic": kernels.Periodic(1.5, 0.8, 1.4),
    "sho, underdamped": kernels.SHO(0.8, 3.0, 1.2),
    "sho, critical": kernels.SHO(0.8, 0.5, 1.2),
    "sho, overdamped": kernels.SHO(0.8, 0.1, 1.2),
    "sho, of high quality": kernels.SHO(0.8, 3e4, 1.2),
    "constant": kernels.Constant(0.6),
    "linear": kernels.Linear(0.8, -1.0),
    "wiener": kernels.Wiener(0.8, -2.0),
    "integrated wiener": kernels.IntegratedWiener(0.8, -2.0),
    "scaled": 2.5 * kernels.Matern32(0.7),
    "on a dimension": kernels.Matern32(0.7).on(0),
    "sum": kernels.Matern32(0.7) + kernels.Linear(0.3, -1.0) + kernels.Cosine(0.9),
    "product": kernels.Matern32(0.7, 1.3) * kernels.SHO(0.8, 3.0),
    "product with a trend": kernels.Matern52(0.7) * kernels.Wiener(0.5, -2.0),
    "quasi-periodic": kernels.Periodic(1.5, 0.8) * kernels.Matern32(5.0),
}


def dense(matrix):
    return np.asarray(unrolled.stacked(matrix, (), jnp.float64))


@pytest.mark.parametrize("name", KERNELS)
def test_covariances_are_those_of_the_kernel(name):
    kernel = KERNELS[name]
    space = ssm.state_space(kernel, harmonics=12) if "eriodic" in name else ssm.state_space(kernel)
    h = np.array(space.readout, float)
    for time, step in ((0.0, 0.0), (0.3, 1e-3), (-0.4, 0.35), (1.2, 3.1)):
        a, before = dense(space.transition(jnp.array(step))), dense(space.marginal(jnp.array(time)))
        want = kernel(time, time + step)
        np.testing.assert_allclose(h @ a @ before @ h, want, rtol=1e-10, atol=1e-11)
        after = dense(space.marginal(jnp.array(time + step)))
        added = dense(space.noise(jnp.array(time), jnp.array(step)))
        np.testing.assert_allclose(added, after - a @ before @ a.T, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", KERNELS)
def test_noise_of_two_steps_is_that_of_one(name, dtype):
    """Which holds to relative accuracy, however short the steps are."""
    space = jax.tree.map(lambda x: x.astype(dtype), ssm.state_space(KERNELS[name], harmonics=4))
    entries = jax.jit(lambda t, s: unrolled.stacked(space.noise(t, s), (), dtype))
    turn = jax.jit(lambda s: unrolled.stacked(space.transition(s), (), dtype))
    for step in (2e-6, 1e-4, 0.02, 0.3, 1.7):
        time, step = dtype(-0.4), dtype(step)
        once, twice = entries(time, step), entries(time, 2 * step)
        a = turn(step)
        if "product" in name or "quasi" in name:  # whose noise depends on the time before
            once_more = entries(time + step, step)
        else:
            once_more = once
        want = np.asarray(a @ once @ a.T + once_more, float)
        scale = np.sqrt(np.outer(np.diag(want), np.diag(want)))
        off = np.abs(np.asarray(twice - want))
        assert np.all(off <= (1e-5 if dtype == jnp.float32 else 5e-13) * scale + 1e-35)


@pytest.mark.parametrize("name", ["matern12", "matern52", "matern72", "sho, overdamped"])
def test_noise_of_a_long_step_is_the_prior(name):
    space = jax.tree.map(jnp.float32, ssm.state_space(KERNELS[name]))
    entries = jax.jit(lambda s: unrolled.stacked(space.noise(0.0, s), (), jnp.float32))
    want = unrolled.stacked(space.marginal(0.0), (), jnp.float32)
    np.testing.assert_allclose(entries(jnp.float32(1e9)), want, rtol=1e-6, atol=1e-6)


def test_periodic_shares_are_bessel_functions():
    from scipy.special import ive

    for lengthscale in (0.15, 0.6, 1.0, 3.0, 50.0):
        found = ssm._state_space.periodic_shares(jnp.array(lengthscale), 8)
        z = lengthscale**-2.0
        want = ive(np.arange(9), z) * np.where(np.arange(9) == 0, 1, 2)
        np.testing.assert_allclose(found, want, rtol=1e-12, atol=1e-300)


def test_gradients_are_finite_where_times_coincide():
    def total(lengthscale, step):
        space = ssm.state_space(kernels.Matern52(lengthscale))
        return sum(jnp.sum(dense_of(m, step)) for m in (space.transition, noise_of(space)))

    def noise_of(space):
        return lambda step: space.noise(jnp.zeros(()), step)

    def dense_of(matrix, step):
        return unrolled.stacked(matrix(step), (), step.dtype)

    slopes = jax.grad(total, (0, 1))(jnp.array(0.5), jnp.array(0.0))
    assert np.all(np.isfinite(slopes))


@pytest.mark.errors
def test_kernels_without_a_state_space_are_named():
    with pytest.raises(ValueError, match="RBF has no state space.*Matern72 is the smoothest"):
        ssm.state_space(kernels.RBF(1.0))
    with pytest.raises(ValueError, match="White has no .*noise of the observations"):
        ssm.state_space(kernels.Matern32(1.0) + kernels.White(0.1))
    with pytest.raises(ValueError, match="lengthscale of a kernel of time must be a scalar"):
        ssm.state_space(kernels.Matern32(jnp.ones(2)))
    with pytest.raises(ValueError, match="a kernel of time has one coordinate, 0"):
        ssm.state_space(kernels.Matern32(1.0).on(1))
    with pytest.raises(ValueError, match="harmonics must be a positive integer"):
        ssm.state_space(kernels.Periodic(1.0), harmonics=0)


def test_harmonics_that_are_missed_are_said():
    with pytest.warns(UserWarning, match="harmonics leave out .* of the variance"):
        ssm.state_space(kernels.Periodic(0.3), harmonics=3)


class Backwards(ssm.AbstractElementarySpace):
    """A random walk whose noise has the wrong sign."""

    @property
    def readout(self):
        return (1,)

    @property
    def slope(self):
        raise ValueError("no derivative")

    def transition(self, step):
        return ((1,),)

    def marginal(self, time):
        return ((1.0 - 0.1 * time,),)

    def noise(self, time, step):
        return ((-0.1 * step,),)


def test_process_noise_that_is_no_covariance_is_named():
    times = np.arange(4.0)
    message = "process noise of a step of 1 has the eigenvalue -0.1"
    with pytest.raises(ValueError, match=message):
        ssm.MarkovGP(Backwards(), times, 0.1)
    space = ssm.state_space(kernels.Matern72(50.0) * kernels.Cosine(3.0))
    ssm.MarkovGP(space, np.linspace(0, 1e-3, 50), 0.1)
