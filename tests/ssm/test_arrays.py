"""Several outputs, the steady-state gain, and the parts of what filters arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dense_series import covariance

from bayesjx import kernels, ssm
from bayesjx.ssm import _dynamics, _square_root
from bayesjx.ssm._algebra import UNROLLED
from bayesjx.ssm._dense_algebra import DENSE

SEASON = kernels.Matern52(3.0, 1.5) + kernels.Matern12(2.0) * kernels.Periodic(1.3, 1.5, 0.8)
PAIR = (kernels.Matern32(0.7, 1.2), kernels.Matern12(1.5) * kernels.Cosine(0.9))
MIXING = np.array([[1.0, 0.3], [-0.5, 0.8], [0.2, -1.1]])


def test_draws_of_several_outputs_have_their_moments(getkey):
    times, mean = np.array([0.0, 0.4, 0.4, 1.5]), np.array([1.0, 2.0, 3.0])
    prior = ssm.MarkovGP(PAIR, times, mean, noise_var=0.1, mixing=MIXING)
    draws = prior.sample(getkey(), (40_000,))
    cov = covariance(PAIR, MIXING, times) + 0.1 * jnp.eye(12)
    flat = draws.reshape(-1, 12)
    error = np.sqrt((np.outer(np.diag(cov), np.diag(cov)) + cov**2) / len(flat))
    assert np.max(np.abs(np.cov(flat, rowvar=False) - cov) / error) < 5
    centred = flat.mean(0) - np.tile(mean, 4)
    assert np.max(np.abs(centred) / np.sqrt(np.diag(cov) / len(flat))) < 4.5
    np.testing.assert_allclose(prior.variance.reshape(-1), np.diag(cov), rtol=1e-12)
    some = np.where(np.arange(12).reshape(4, 3) % 4 == 0, np.nan, 1.0)
    seen = ~np.isnan(some)
    posterior = prior.condition(some, mask=seen)
    draws = posterior.sample(getkey(), sample_shape=(20_000,))
    mean, variance = posterior.moments()
    assert np.max(np.abs(draws.mean(0) - mean) / np.sqrt(variance / len(draws))) < 4.5
    assert np.max(np.abs(draws.var(0) / variance - 1)) < 5 * np.sqrt(2 / len(draws))


def test_order_of_the_times_does_not_matter_for_outputs():
    rng = np.random.default_rng(1)
    times, mixed = np.sort(rng.uniform(0, 3, 9)), rng.permutation(9)
    y, mask = rng.normal(size=(9, 3)), rng.random((9, 3)) > 0.15
    prior = ssm.MarkovGP(PAIR, times, noise_var=0.1, mask=mask, mixing=MIXING)
    with pytest.warns(UserWarning, match="not in order"):
        other = ssm.MarkovGP(PAIR, times[mixed], noise_var=0.1, mask=mask[mixed], mixing=MIXING)
    np.testing.assert_allclose(other.log_prob(y[mixed]), prior.log_prob(y), rtol=1e-12)
    straight, shuffled = prior.condition(y), other.condition(y[mixed])
    np.testing.assert_allclose(shuffled.mean(), straight.mean()[mixed], rtol=1e-9, atol=1e-12)
    want = straight.covariance().reshape(9, 3, 9, 3)[mixed][:, :, mixed].reshape(27, 27)
    np.testing.assert_allclose(shuffled.covariance(), want, atol=1e-11)


@pytest.mark.parametrize("kernel", [kernels.Matern32(3.0, 1.3), SEASON], ids=["few", "many"])
def test_the_steady_state_gain_is_nearly_exact(kernel):
    times = np.linspace(0, 160, 1500)
    y = np.sin(times) + 0.3 * np.random.default_rng(0).normal(size=1500)

    def density(kernel, noise, backend):
        return ssm.MarkovGP(kernel, times, noise_var=noise, backend=backend).log_prob(y)

    both = jax.jit(jax.value_and_grad(density, (0, 1)), static_argnums=2)
    value, slopes = both(kernel, jnp.array(0.1), "steady")
    want, wanted = both(kernel, jnp.array(0.1), "auto")
    np.testing.assert_allclose(value, want, rtol=1e-9)
    for slope, expected in zip(jax.tree.leaves(slopes), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(slope, expected, rtol=1e-6, atol=1e-6)


def test_a_gain_that_has_not_settled_has_no_density():
    times = np.linspace(0, 1, 2000)
    prior = ssm.MarkovGP(kernels.Wiener(1e-3, -1.0), times, noise_var=1e3, backend="steady")
    assert np.isnan(prior.log_prob(np.sin(times)))


@pytest.mark.parametrize(
    ("kernel", "times", "options", "message"),
    [
        (kernels.Matern32(1.0), np.array([0.0, 1, 2, 4]), {}, "equally spaced"),
        (kernels.Matern32(1.0), np.arange(4.0), {"mask": np.arange(4) > 0}, "missing"),
        (kernels.Matern32(1.0), np.arange(4.0), {"noise_var": np.arange(4.0)}, "does not change"),
        (kernels.Constant() + kernels.Matern32(), np.arange(4.0), {}, "no process noise"),
        (PAIR, np.arange(4.0), {"mixing": MIXING}, "one output"),
    ],
    ids=["steps", "mask", "noise", "constant", "outputs"],
)
def test_series_without_a_steady_state_are_refused(kernel, times, options, message):
    with pytest.raises(ValueError, match=message):
        ssm.MarkovGP(kernel, times, **{"noise_var": 0.1, **options}, backend="steady")


def test_bad_outputs_are_named():
    times = np.arange(4.0)
    with pytest.raises(ValueError, match="sequence of q kernels"):
        ssm.MarkovGP(PAIR[0], times, mixing=MIXING)
    with pytest.raises(ValueError, match="sequence of q kernels"):
        ssm.MarkovGP(PAIR, times, mixing=MIXING.T)
    with pytest.raises(ValueError, match=r"noise_var must be a scalar or have shape \(4, 3\)"):
        ssm.MarkovGP(PAIR, times, noise_var=np.ones(2), mixing=MIXING)
    with pytest.raises(ValueError, match=r"mask must hold booleans of shape \(4, 3\)"):
        ssm.MarkovGP(PAIR, times, mask=np.ones((3, 4), bool), mixing=MIXING)
    with pytest.raises(ValueError, match="mixing must be finite"):
        ssm.MarkovGP(PAIR, times, mixing=np.where(MIXING == MIXING[0, 0], np.nan, MIXING))
    prior = ssm.MarkovGP(PAIR, times, mixing=MIXING)
    with pytest.raises(ValueError, match=r"value must have shape \(..., 4, 3\)"):
        prior.log_prob(np.zeros(4))
    with pytest.raises(ValueError, match="a kernel or a state space"):
        ssm.MarkovGP("matern", times)


@pytest.mark.parametrize("size", [4, 12])
def test_precisions_of_low_rank_are_conditioned_on(size, getkey):
    """By both algebras where they have the same numbers; with the largest pivots last."""
    rows = jax.random.normal(getkey(), (3, size)) * jnp.logspace(-4, 0, size)
    root = jax.random.normal(getkey(), (size, size))
    cov, precision = root @ root.T, rows.T @ rows
    inside = jnp.eye(size) + cov @ precision
    want = jnp.linalg.solve(inside, cov)
    answers = [DENSE.condition_on_precision(cov, precision)]
    if size == 4:
        entries = [tuple(map(tuple, matrix)) for matrix in (cov, precision)]
        written_out, log_det = UNROLLED.condition_on_precision(*entries)
        answers.append((jnp.asarray(written_out), log_det))
    for answer, log_det in answers:
        np.testing.assert_allclose(log_det, jnp.linalg.slogdet(inside)[1], rtol=1e-9)
        np.testing.assert_allclose(answer, want, rtol=1e-7, atol=1e-8)


def test_roots_of_blocks_and_triangles(getkey):
    wide = jax.random.normal(getkey(), (5, 8)).at[2].set(0.0)
    lower = _square_root.triangular(wide)
    np.testing.assert_allclose(lower @ lower.T, wide @ wide.T, atol=1e-12)
    np.testing.assert_allclose(jnp.triu(lower, 1), 0.0, atol=1e-12)
    half = jax.random.normal(getkey(), (3, 4, 2))
    blocks = half @ jnp.swapaxes(half, 1, 2)
    root = _square_root.block_cholesky(blocks)
    np.testing.assert_allclose(root @ jnp.swapaxes(root, 1, 2), blocks, atol=1e-7)


def test_small_blocks_share_bins():
    count, k, positions = _dynamics.bins([3, 1, 2, 2, 2])
    assert count * k == 10
    used = sorted(which * k + first for which, first in positions)
    assert len(set(used)) == 5
