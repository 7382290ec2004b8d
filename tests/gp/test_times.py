"""Times as inputs give what points give, by state spaces."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesjx import gp, kernels, ops, ssm

N = 40
RNG = np.random.default_rng(0)
TIMES = np.sort(RNG.uniform(0, 5, N))
Y = np.sin(2 * TIMES) + 0.1 * TIMES + 0.2 * RNG.normal(size=N)
MASK = RNG.random(N) > 0.2
NEW = np.array([-0.5, 1.3, 6.0])


def prior(lengthscale=0.7):
    kernel = kernels.Matern52(lengthscale, 1.2) + kernels.Matern12(2.0) * kernels.Cosine(0.9)
    return gp.GP(kernel, mean=lambda point: 0.1 * point[0], noise_var=0.05)


def test_density_and_gradient():
    def value(lengthscale, x):
        return prior(lengthscale)(x).log_prob(Y)

    assert isinstance(prior()(gp.Times(TIMES)), ssm.MarkovGP)
    both = [jax.value_and_grad(value)(0.7, x) for x in (gp.Times(TIMES), jnp.asarray(TIMES))]
    np.testing.assert_allclose(both[0], both[1], rtol=1e-9)


def test_posterior_is_that_of_points():
    holes = np.where(MASK, Y, np.nan)
    ours = gp.condition(prior(), gp.Times(TIMES), holes, mask=MASK)
    theirs = gp.condition(prior(), jnp.asarray(TIMES), holes, mask=MASK)
    assert isinstance(ours, gp.TimesPosterior)

    @eqx.filter_jit  # as the prior mean is a function
    def answers(post):
        one = post.leave_one_out()
        of_points = (NEW, NEW[:, None])
        moments = [post.moments(x) for x in of_points]
        questions = post.covariance(NEW), post.log_evidence(), post.predict(NEW).variance
        return moments, questions, (one.mean, one.variance)

    (moments, questions, left_out), (right, wanted, others) = answers(ours), answers(theirs)
    for mine, want in zip(moments, right, strict=True):
        np.testing.assert_allclose(mine, want, rtol=1e-8)
    np.testing.assert_allclose(ours.moments(gp.Times(NEW)), right[0], rtol=1e-8)
    for mine, want in zip(questions, wanted, strict=True):
        np.testing.assert_allclose(mine, want, rtol=1e-8, atol=1e-10)
    for mine, want in zip(left_out, others, strict=True):
        np.testing.assert_allclose(mine[MASK], want, rtol=1e-8)


def test_order_of_times_does_not_matter(getkey):
    mixed = RNG.permutation(N)
    straight = gp.condition(prior(), gp.Times(TIMES), Y)
    with pytest.warns(UserWarning, match="not in order"):
        shuffled = gp.condition(prior(), gp.Times(TIMES[mixed]), Y[mixed])
    np.testing.assert_allclose(shuffled.moments(NEW), straight.moments(NEW), rtol=1e-9)
    np.testing.assert_allclose(shuffled.covariance(NEW), straight.covariance(NEW), atol=1e-10)
    assert shuffled.sample(getkey(), NEW, (2,)).shape == (2, 3)


def test_bad_times_are_named():
    with pytest.raises(ValueError, match="Times: shape"):
        gp.Times(np.ones((3, 1)))
    with pytest.raises(ValueError, match="no state space"):
        gp.GP(kernels.RBF(1.0), noise_var=0.1)(gp.Times(TIMES))
    with pytest.raises(ValueError, match="not an operator"):
        gp.GP(kernels.Matern32(1.0), noise_var=ops.ScaledIdentity(0.1, N))(gp.Times(TIMES))
    with pytest.raises(ValueError, match="are for a grid with a mask"):
        prior()(gp.Times(TIMES), solver="cg")
    with pytest.raises(ValueError, match="mask must hold booleans"):
        gp.condition(prior(), gp.Times(TIMES), Y, mask=np.ones(3, bool))
    with pytest.raises(ValueError, match="NaN"):
        gp.condition(prior(), gp.Times(TIMES), np.where(MASK, Y, np.nan))
