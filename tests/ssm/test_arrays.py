"""States that are arrays: many of them, several outputs, and the back ends that need them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro import distributions as dist

from bayesjx import kernels, ssm
from bayesjx.ssm import _dynamics, _square_root
from bayesjx.ssm._algebra import DENSE

N = 60
SEASON = kernels.Matern52(3.0, 1.5) + kernels.Matern12(2.0) * kernels.Periodic(1.3, 1.5, 0.8)
PAIR = (kernels.Matern32(0.7, 1.2), kernels.Matern12(1.5) * kernels.Cosine(0.9))
MIXING = np.array([[1.0, 0.3], [-0.5, 0.8], [0.2, -1.1]])


def problem(outputs=(), seed=0):
    """Irregular times, two of which coincide, and some missing values, NaN."""
    rng = np.random.default_rng(seed)
    times = np.sort(rng.uniform(0, 6, N))
    times[10] = times[9]
    phase = np.arange(3)[: outputs[0]] if outputs else 0.0
    y = np.sin(2 * np.expand_dims(times, 1) + phase) + 0.3 * rng.normal(
        size=(N, *(outputs or (1,)))
    )
    y = y.reshape(N, *outputs)
    mask = rng.random(y.shape) > 0.15
    return times, np.where(mask, y, np.nan), mask


def dense_outputs(mixing, lengthscale, times):
    """The covariance of all outputs at all times, times first."""
    first, second = kernels.Matern32(lengthscale, 1.2), PAIR[1]
    total = 0.0
    for q, kernel in enumerate((first, second)):
        total = total + jnp.einsum("st,i,j->sitj", kernel.gram(times), mixing[:, q], mixing[:, q])
    return total.reshape(len(times) * len(mixing), -1)


def log_prob(cov, noise, y, mask):
    seen = np.flatnonzero(mask)
    cov = (cov + jnp.diag(noise))[seen][:, seen]
    return dist.MultivariateNormal(jnp.zeros(len(seen)), cov).log_prob(jnp.asarray(y)[seen])


@pytest.mark.parametrize("backend", ["sequential", "chunked", "square-root"])
def test_many_states_are_dense(backend):
    times, y, mask = problem()

    def ours(kernel, noise):
        law = ssm.MarkovGP(kernel, times, noise, mask=mask, backend=backend, harmonics=9)
        return law.log_prob(y)

    def theirs(kernel, noise):
        return log_prob(kernel.gram(jnp.asarray(times)), noise, y, mask)

    at = SEASON, jnp.linspace(0.05, 0.2, N)
    value, slopes = jax.jit(jax.value_and_grad(ours, (0, 1)))(*at)
    want, wanted = jax.jit(jax.value_and_grad(theirs, (0, 1)))(*at)
    np.testing.assert_allclose(value, want, rtol=1e-10)
    for slope, expected in zip(jax.tree.leaves(slopes), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(slope, expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("backend", ["associative", "square-root"])
def test_few_states_are_dense(backend):
    times, y, mask = problem()

    def ours(kernel, noise):
        return ssm.MarkovGP(kernel, times, noise, mask=mask, backend=backend).log_prob(y)

    def theirs(kernel, noise):
        return log_prob(kernel.gram(jnp.asarray(times)), jnp.full(N, noise), y, mask)

    at = kernels.Matern32(0.7, 1.3), jnp.array(0.1)
    value, slopes = jax.jit(jax.value_and_grad(ours, (0, 1)))(*at)
    want, wanted = jax.jit(jax.value_and_grad(theirs, (0, 1)))(*at)
    np.testing.assert_allclose(value, want, rtol=1e-11)
    for slope, expected in zip(jax.tree.leaves(slopes), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(slope, expected, rtol=1e-9)


@pytest.mark.parametrize("backend", ["auto", "chunked"])
def test_several_outputs_are_dense(backend):
    times, y, mask = problem((3,))
    noise = jnp.array([0.05, 0.1, 0.2])

    def ours(mixing, lengthscale, noise):
        pair = (kernels.Matern32(lengthscale, 1.2), PAIR[1])
        law = ssm.MarkovGP(pair, times, noise, mask=mask, mixing=mixing, backend=backend)
        return law.log_prob(y)

    def theirs(mixing, lengthscale, noise):
        cov = dense_outputs(mixing, lengthscale, jnp.asarray(times))
        return log_prob(cov, jnp.tile(noise, N), y.reshape(-1), mask.reshape(-1))

    at = jnp.asarray(MIXING), jnp.array(0.7), noise
    value, slopes = jax.jit(jax.value_and_grad(ours, (0, 1, 2)))(*at)
    want, wanted = jax.jit(jax.value_and_grad(theirs, (0, 1, 2)))(*at)
    np.testing.assert_allclose(value, want, rtol=1e-11)
    for slope, expected in zip(slopes, wanted, strict=True):
        np.testing.assert_allclose(slope, expected, rtol=1e-8, atol=1e-8)


def test_posterior_of_several_outputs_is_dense():
    times, y, mask = problem((3,))
    new = np.array([-0.5, 1.0, 7.0])
    law = ssm.MarkovGP(PAIR, times, 0.1, mask=mask, mixing=MIXING)
    posterior = law.condition(y)
    mean, variance = posterior.moments(new)
    every = jnp.concatenate([jnp.asarray(times), new])
    cov = dense_outputs(jnp.asarray(MIXING), 0.7, every)
    seen, wanted = np.flatnonzero(mask.reshape(-1)), N * 3 + np.arange(9)
    data = cov[seen][:, seen] + 0.1 * jnp.eye(len(seen))
    gain = jnp.linalg.solve(data, cov[seen][:, wanted]).T
    np.testing.assert_allclose(mean.reshape(-1), gain @ y.reshape(-1)[seen], rtol=1e-9, atol=1e-10)
    left = cov[wanted][:, wanted] - gain @ cov[seen][:, wanted]
    np.testing.assert_allclose(variance.reshape(-1), jnp.diag(left), rtol=1e-9)
    assert posterior.moments(new, term=1)[0].shape == (3,)
    one = posterior.leave_one_out()
    others = np.delete(seen, 7)
    gain = jnp.linalg.solve(
        cov[others][:, others] + 0.1 * jnp.eye(len(others)), cov[others, seen[7]]
    )
    i, j = divmod(seen[7], 3)
    np.testing.assert_allclose(one.mean[i, j], gain @ y.reshape(-1)[others], rtol=1e-9)
    left = cov[seen[7], seen[7]] + 0.1 - gain @ cov[others, seen[7]]
    np.testing.assert_allclose(one.variance[i, j], left, rtol=1e-9)


def test_draws_of_several_outputs_have_their_law(getkey):
    times = np.array([0.0, 0.4, 0.4, 1.5])
    law = ssm.MarkovGP(PAIR, times, 0.1, mean=jnp.array([1.0, 2.0, 3.0]), mixing=MIXING)
    draws = law.sample(getkey(), (40_000,))
    cov = dense_outputs(jnp.asarray(MIXING), 0.7, jnp.asarray(times)) + 0.1 * jnp.eye(12)
    flat = draws.reshape(-1, 12)
    error = np.sqrt((np.outer(np.diag(cov), np.diag(cov)) + cov**2) / len(flat))
    assert np.max(np.abs(np.cov(flat, rowvar=False) - cov) / error) < 5
    centred = flat.mean(0) - np.tile([1.0, 2.0, 3.0], 4)
    assert np.max(np.abs(centred) / np.sqrt(np.diag(cov) / len(flat))) < 4.5
    np.testing.assert_allclose(law.variance.reshape(-1), np.diag(cov), rtol=1e-12)
    some = np.where(np.arange(12).reshape(4, 3) % 4 == 0, np.nan, 1.0)
    seen = ~np.isnan(some)
    posterior = ssm.MarkovGP(PAIR, times, 0.1, mask=seen, mixing=MIXING).condition(some)
    draws = posterior.sample(getkey(), shape=(20_000,))
    mean, variance = posterior.moments()
    assert np.max(np.abs(draws.mean(0) - mean) / np.sqrt(variance / len(draws))) < 4.5
    assert np.max(np.abs(draws.var(0) / variance - 1)) < 5 * np.sqrt(2 / len(draws))


def test_order_of_the_times_does_not_matter_for_outputs():
    times, y, mask = problem((3,))
    mixed = np.random.default_rng(1).permutation(N)
    law = ssm.MarkovGP(PAIR, times, 0.1, mask=mask, mixing=MIXING)
    with pytest.warns(UserWarning, match="not in order"):
        other = ssm.MarkovGP(PAIR, times[mixed], 0.1, mask=mask[mixed], mixing=MIXING)
    np.testing.assert_allclose(other.log_prob(y[mixed]), law.log_prob(y), rtol=1e-12)
    straight, shuffled = law.condition(y).moments()[0], other.condition(y[mixed]).moments()[0]
    np.testing.assert_allclose(shuffled[9:], straight[mixed][9:], rtol=1e-9)


@pytest.mark.parametrize("kernel", [kernels.Matern32(3.0, 1.3), SEASON], ids=["few", "many"])
def test_a_settled_gain_is_nearly_exact(kernel):
    times = np.linspace(0, 160, 1500)
    y = np.sin(times) + 0.3 * np.random.default_rng(0).normal(size=1500)

    def density(kernel, noise, backend):
        return ssm.MarkovGP(kernel, times, noise, backend=backend).log_prob(y)

    both = jax.jit(jax.value_and_grad(density, (0, 1)), static_argnums=2)
    value, slopes = both(kernel, jnp.array(0.1), "steady")
    want, wanted = both(kernel, jnp.array(0.1), "auto")
    np.testing.assert_allclose(value, want, rtol=1e-9)
    for slope, expected in zip(jax.tree.leaves(slopes), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(slope, expected, rtol=1e-6, atol=1e-6)


def test_a_gain_that_has_not_settled_is_said():
    times = np.linspace(0, 1, 2000)
    law = ssm.MarkovGP(kernels.Wiener(1e-3, -1.0), times, 1e3, backend="steady")
    assert np.isnan(law.log_prob(np.sin(times)))


@pytest.mark.parametrize(
    ("kernel", "times", "options", "message"),
    [
        (kernels.Matern32(1.0), np.array([0.0, 1, 2, 4]), {}, "equally spaced"),
        (kernels.Matern32(1.0), np.arange(4.0), {"mask": np.arange(4) > 0}, "missing"),
        (kernels.Matern32(1.0), np.arange(4.0), {"noise": np.arange(4.0)}, "does not change"),
        (kernels.Constant() + kernels.Matern32(), np.arange(4.0), {}, "no process noise"),
        (PAIR, np.arange(4.0), {"mixing": MIXING}, "one output"),
    ],
    ids=["steps", "mask", "noise", "constant", "outputs"],
)
def test_series_without_a_settled_gain_are_refused(kernel, times, options, message):
    with pytest.raises(ValueError, match=message):
        ssm.MarkovGP(kernel, times, **{"noise": 0.1, **options}, backend="steady")


def test_bad_outputs_are_named():
    times = np.arange(4.0)
    with pytest.raises(ValueError, match="sequence of q kernels"):
        ssm.MarkovGP(PAIR[0], times, 0.1, mixing=MIXING)
    with pytest.raises(ValueError, match="sequence of q kernels"):
        ssm.MarkovGP(PAIR, times, 0.1, mixing=MIXING.T)
    with pytest.raises(ValueError, match=r"noise must be a scalar or have shape \(4, 3\)"):
        ssm.MarkovGP(PAIR, times, np.ones(2), mixing=MIXING)
    with pytest.raises(ValueError, match=r"mask must hold booleans of shape \(4, 3\)"):
        ssm.MarkovGP(PAIR, times, 0.1, mask=np.ones((3, 4), bool), mixing=MIXING)
    with pytest.raises(ValueError, match="mixing must be finite"):
        ssm.MarkovGP(PAIR, times, 0.1, mixing=np.where(MIXING == MIXING[0, 0], np.nan, MIXING))
    law = ssm.MarkovGP(PAIR, times, 0.1, mixing=MIXING)
    with pytest.raises(ValueError, match=r"value must have shape \(..., 4, 3\)"):
        law.log_prob(np.zeros(4))
    with pytest.raises(ValueError, match="a kernel or a state space"):
        ssm.MarkovGP("matern", times)


def test_matrices_of_low_rank_are_absorbed(getkey):
    # Of rank 3, with the largest pivots last.
    rows = jax.random.normal(getkey(), (3, 12)) * jnp.logspace(-4, 0, 12)
    root = jax.random.normal(getkey(), (12, 12))
    cov, precision = root @ root.T, rows.T @ rows
    found, log_det = DENSE.condition_on_precision(cov, precision)
    inside = jnp.eye(12) + cov @ precision
    np.testing.assert_allclose(log_det, jnp.linalg.slogdet(inside)[1], rtol=1e-9)
    np.testing.assert_allclose(found, jnp.linalg.solve(inside, cov), rtol=1e-7, atol=1e-8)


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
    count, k, places = _dynamics.bins([3, 1, 2, 2, 2])
    assert count * k == 10
    used = sorted(which * k + first for which, first in places)
    assert len(set(used)) == 5
