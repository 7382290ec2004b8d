"""What the bar distribution of the package `pfns` gets wrong, beside ours.

Observed with pfns 0.4.2. A test of a defect is skipped, with a reason, once the defect is mended.
"""

import warnings

import numpy as np
import pytest
import scipy.stats

from bayesjx.distributions import BarDistribution

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch = pytest.importorskip("torch")
    model = pytest.importorskip("pfns.model.bar_distribution")

BORDERS = np.array([-2.0, -1.0, 0.0, 0.5, 1.5, 3.0])
LOGITS = np.log([0.1, 0.3, 0.2, 0.25, 0.15])
SCALES = np.diff(BORDERS)[[0, -1]] / scipy.stats.norm.ppf(0.75)


@pytest.fixture
def pair():
    peer = model.FullSupportBarDistribution(torch.tensor(BORDERS))
    return peer, torch.tensor(LOGITS)[None], BarDistribution(BORDERS, LOGITS)


def mended(theirs, right, what):
    if np.allclose(theirs, right, rtol=1e-4):
        pytest.skip(
            f"pfns has mended {what}: drop this test, and what the documentation says of it"
        )


def test_what_is_right_is_the_same(pair):
    """Loss, moments, entropy, mode and inner quantiles: the two mean the same distribution."""
    peer, logits, ours = pair
    for y in (-3.0, -0.4, 0.2, 1.0, 4.0):
        loss = float(peer(logits, torch.tensor([y], dtype=logits.dtype))[0])
        np.testing.assert_allclose(ours.log_prob(y), -loss, rtol=1e-6)
    np.testing.assert_allclose(ours.mean, peer.mean(logits)[0], rtol=1e-6)
    np.testing.assert_allclose(ours.variance, peer.variance(logits)[0], rtol=1e-6)
    np.testing.assert_allclose(ours.entropy(), peer.entropy(logits)[0], rtol=1e-6)
    np.testing.assert_allclose(ours.icdf(0.5), peer.icdf(logits, 0.5)[0], rtol=1e-6)
    np.testing.assert_allclose(ours.expected_improvement(2.0), peer.ei(logits, 2.0)[0], rtol=1e-6)


def test_density_is_that_of_the_loss_with_the_wrong_sign(pair):
    peer, logits, ours = pair
    theirs = float(peer.pdf(logits, torch.tensor([0.2], dtype=logits.dtype))[0])
    right = np.exp(ours.log_prob(0.2))
    mended(theirs, right, "the density")
    np.testing.assert_allclose(right, 0.2 / 0.5, rtol=1e-12)
    np.testing.assert_allclose(theirs, 1 / right, rtol=1e-6)


def test_distribution_function_calls_itself(pair):
    peer, logits, ours = pair
    try:
        theirs = float(peer.cdf(logits, torch.tensor([[0.2]], dtype=logits.dtype)))
    except RecursionError:
        theirs = np.nan
    np.testing.assert_allclose(ours.cdf(0.2), 0.4 + 0.2 * 0.4, rtol=1e-12)
    mended(theirs, ours.cdf(0.2), "the distribution function")
    assert np.isnan(theirs)


@pytest.mark.parametrize("level", [0.03, 0.97])
def test_quantiles_of_the_end_bars_are_uniform(pair, level):
    peer, logits, ours = pair
    theirs, right = float(peer.icdf(logits, level)[0]), float(ours.icdf(level))
    half = scipy.stats.halfnorm
    want = {0.03: -1 - SCALES[0] * half.isf(0.3), 0.97: 1.5 + SCALES[1] * half.isf(0.2)}[level]
    np.testing.assert_allclose(right, want, rtol=1e-9)
    mended(theirs, right, "the quantiles of the end bars")
    uniform = {0.03: -2 + 0.3, 0.97: 1.5 + 1.5 * 0.8}[level]
    np.testing.assert_allclose(theirs, uniform, rtol=1e-6)


@pytest.mark.parametrize("best", [-1.5, 0.2])
def test_expected_improvement_is_wrong_in_both_tails(pair, best):
    """The last bar forgets the way up to its start; the first gives what the incumbent keeps."""
    peer, logits, ours = pair
    theirs, right = float(peer.ei(logits, best)[0]), float(ours.expected_improvement(best))
    x = np.linspace(best, 40, 400_001)
    density = np.exp(ours.log_prob(x))
    np.testing.assert_allclose(right, np.trapezoid((x - best) * density, x), rtol=1e-4)
    mended(theirs, right, "expected improvement")
    t = np.linspace(0, max(-1 - best, 0), 10_001)
    kept = np.trapezoid(scipy.stats.halfnorm.sf(t, scale=SCALES[0]), t)
    wrong = right - 0.15 * (1.5 - best) + 0.1 * (kept - (t[-1] - kept))
    np.testing.assert_allclose(theirs, wrong, rtol=1e-6)
