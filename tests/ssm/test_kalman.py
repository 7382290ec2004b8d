"""Filtered and smoothed states are those of the dense joint normal distribution, in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesjx import kernels, ssm
from bayesjx.ssm import _backend, _unrolled as unrolled

pytestmark = pytest.mark.filterwarnings("ignore:filtering one step after another is slow")
N, P = 23, 3
RNG = np.random.default_rng(0)
TIMES = np.sort(RNG.uniform(0, 6, N))
TIMES[10] = TIMES[9]
MASK = RNG.random((N, P)) > 0.2
Y = np.where(MASK, np.sin(2 * TIMES[:, None] + np.arange(P)), np.nan)
NOISE = RNG.uniform(0.05, 0.2, (N, P))
MIXING = np.array([[1.0, 0.3], [-0.5, 0.8], [0.2, -1.1]])
FEW = kernels.Matern32(0.7, 1.3) + kernels.Cosine(0.9, 0.5)  # without process noise of its own
MANY = kernels.Matern52(3.0, 1.5) + kernels.Matern12(2.0) * kernels.Periodic(4.0, 1.5)
ROWS = {
    "few, sequential": (FEW, None, "sequential"),
    "few, chunked": (FEW, None, "chunked"),
    "few, associative": (FEW, None, "associative"),
    "few, square-root": (FEW, None, "square-root"),
    "many, sequential": (MANY, None, "sequential"),
    "many, chunked": (MANY, None, "chunked"),
    "outputs, sequential": ([FEW, kernels.Matern12(1.5)], MIXING, "sequential"),
    "outputs, associative": ([FEW, kernels.Matern12(1.5)], MIXING, "associative"),
}


def joint(kernel, mixing):
    """Covariance of all states `(n d, n d)`, and what reads the outputs from them."""
    every = [ssm.state_space(k, 2) for k in (kernel if mixing is not None else [kernel])]
    d, outputs = sum(space.size for space in every), P if mixing is not None else 1
    early = np.minimum(TIMES[:, None], TIMES)
    lag = jnp.asarray(np.abs(TIMES[:, None] - TIMES))
    cov, readout, first = np.zeros((N, d, N, d)), np.zeros((outputs, d)), 0
    for q, space in enumerate(every):
        at = slice(first, first + space.size)
        column = np.ones(1) if mixing is None else mixing[:, q]
        readout[:, at] = np.outer(column, space.readout)
        matrices = (space.transition(lag), space.marginal(jnp.asarray(early)))
        a, marginal = (np.asarray(unrolled.stacked(m, (N, N), jnp.float64)) for m in matrices)
        later = a @ marginal  # of the later state and the earlier one
        upper = np.triu(np.ones((N, N), bool))[:, :, None, None]
        both = np.where(upper, np.swapaxes(later, 2, 3), later)
        cov[:, at, :, at] = np.transpose(both, (0, 2, 1, 3))
        first += space.size
    return cov.reshape(N * d, -1), np.kron(np.eye(N), readout), d


def given(cov, readout, noise, y, seen):
    """Mean and covariance of all states given what was seen, and the log density of that."""
    rows = readout[seen]
    data = rows @ cov @ rows.T + np.diag(noise[seen])
    gain = np.linalg.solve(data, rows @ cov).T
    quadratic = y[seen] @ np.linalg.solve(data, y[seen])
    log_prob = -0.5 * (quadratic + np.linalg.slogdet(data)[1] + len(seen) * np.log(2 * np.pi))
    return gain @ y[seen], cov - gain @ rows @ cov, log_prob


@pytest.mark.parametrize("row", ROWS)
def test_states_are_dense(row, monkeypatch):
    monkeypatch.setattr(_backend, "FEW", 5)
    monkeypatch.setattr(_backend, "ARRAY_LANES", 4)  # of 6 times, the last one of 5
    kernel, mixing, backend = ROWS[row]
    y, mask, noise = (a if mixing is not None else a[:, 0] for a in (Y, MASK, NOISE))
    options = {"noise_var": noise, "mixing": mixing, "backend": backend, "harmonics": 2}

    @jax.jit
    def both(y):
        questions = (ssm.kalman_filter, ssm.rts_smoother)
        return [question(kernel, TIMES, y, mask, **options) for question in questions]

    filtered, smoothed = both(y)
    cov, readout, d = joint(kernel, mixing)
    flat = [a.reshape(-1) for a in (y, mask, noise)]
    mean, whole, log_prob = given(cov, readout, flat[2], flat[0], np.flatnonzero(flat[1]))
    np.testing.assert_allclose(smoothed.means, mean.reshape(N, d), atol=1e-11)
    diagonal = np.einsum("iajb,ij->iab", whole.reshape(N, d, N, d), np.eye(N))
    np.testing.assert_allclose(smoothed.covs, diagonal, atol=1e-11)
    outputs = len(flat[0]) // N
    for k in (0, 9, 10, 11, 22):
        seen = np.flatnonzero(flat[1] & (np.arange(len(flat[1])) < outputs * (k + 1)))
        mean, whole, _ = given(cov, readout, flat[2], flat[0], seen)
        np.testing.assert_allclose(filtered.means[k], mean.reshape(N, d)[k], atol=1e-11)
        at = slice(k * d, (k + 1) * d)
        np.testing.assert_allclose(filtered.covs[k], whole[at, at], atol=1e-11)
    np.testing.assert_allclose([filtered.log_prob, smoothed.log_prob], log_prob, rtol=1e-11)


def test_order_and_derivatives():
    """Times out of order, and the smoothed states' derivative in a parameter."""
    mixed = np.random.default_rng(1).permutation(N)
    y = np.where(MASK[:, 0], Y[:, 0], 0.0)

    def smoothed(lengthscale, order=slice(None)):
        kernel = kernels.Matern32(lengthscale, 1.3)
        return ssm.rts_smoother(kernel, TIMES[order], y[order], MASK[order, 0], noise_var=0.1)

    straight = smoothed(0.7)
    with pytest.warns(UserWarning, match="not in order"):
        crooked = smoothed(0.7, mixed)
    np.testing.assert_allclose(crooked.covs, straight.covs[mixed], rtol=1e-9, atol=1e-12)
    total = jax.jit(lambda a: jnp.sum(smoothed(a).means ** 2) + jnp.sum(smoothed(a).covs))
    slope, step = jax.jit(jax.grad(total))(0.7), 1e-5
    want = (total(0.7 + step) - total(0.7 - step)) / (2 * step)
    np.testing.assert_allclose(slope, want, rtol=1e-7)


def test_states_before_the_process_begins():
    """There are none, and those at later times are what they are without these times."""
    kernel, seen, y = kernels.Wiener(0.7, 1.0), TIMES > 1.0, np.sin(TIMES)
    for question in (ssm.kalman_filter, ssm.rts_smoother):
        found = question(kernel, TIMES, y, seen, noise_var=0.1)
        wanted = question(kernel, TIMES[seen], y[seen], noise_var=0.1)
        for a, b in zip(found[:2], wanted[:2], strict=True):
            assert np.isnan(a[~seen]).all()
            np.testing.assert_allclose(a[seen], b, rtol=1e-12)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="y must have shape"):
        ssm.kalman_filter(FEW, TIMES, Y, noise_var=0.1)
    with pytest.raises(ValueError, match="steady"):
        ssm.rts_smoother(FEW, np.arange(4.0), np.zeros(4), noise_var=0.1, backend="steady")
    with pytest.raises(ValueError, match="NaN .* pass mask="):
        ssm.kalman_filter(FEW, TIMES, Y[:, 0], noise_var=0.1)
    with pytest.raises(ValueError, match="NaN .* pass mask="):
        ssm.rts_smoother(FEW, TIMES, Y[:, 0], np.ones(N, bool), noise_var=0.1)
    y = np.where(MASK, Y, 0.0)
    once = np.arange(N) != 10  # of two observations at one time
    with pytest.raises(ValueError, match="times coincide where observations have no noise"):
        ssm.kalman_filter(FEW, TIMES, y[:, 0], noise_var=0.0)
    with pytest.raises(ValueError, match="times coincide where observations have no noise"):
        ssm.kalman_filter([FEW], TIMES, y, noise_var=[0.1, 0.0, 0.1], mixing=MIXING[:, :1])
    assert np.isfinite(ssm.kalman_filter(FEW, TIMES, y[:, 0], once, noise_var=0.0).log_prob)
    prior = ssm.MarkovGP(FEW, TIMES, noise_var=np.where(once, 0.0, 0.1))
    assert np.isfinite(prior.condition(y[:, 0]).log_evidence())
    assert np.all(prior.condition(y[:, 0]).marginal().scale > 0)
    of_slope = ssm.MarkovGP(kernels.Matern52(), [0.0, 1.0, 1.0], slopes=[False, False, True])
    assert np.isfinite(of_slope.condition([0.0, 0.5, 0.3]).log_evidence())
    with pytest.raises(ValueError, match="times coincide"):
        ssm.MarkovGP(FEW, TIMES).condition(y[:, 0])


@pytest.mark.errors
def test_shapes_of_draws_are_named():
    prior = ssm.MarkovGP(FEW, TIMES, noise_var=0.1)
    for shape in ((2.5,), ("a",), (-1,), 3):
        with pytest.raises(ValueError, match="sample_shape must be a tuple of sizes"):
            prior.sample(jax.random.key(0), shape)
