import numpy as np
import pytest
from core_problems import Info

from bayesjx._core import CallbackInfo, stop_when_flat
from bayesjx._core._callbacks import window_mean


def ask(rule, objective):
    history = Info(np.asarray(objective), None)
    return rule(CallbackInfo(len(objective), 10**6, None, history, history, 0.0))


def test_standard_error_is_that_of_the_mean():
    rng = np.random.default_rng(3)
    series = rng.normal(size=(500, 400))
    squared = np.array([window_mean(x, 400)[1] ** 2 for x in series])
    spread = squared.std() / np.sqrt(len(squared))
    assert abs(squared.mean() - 1 / 400) < 5 * spread


def test_standard_error_allows_for_correlation():
    rng, rho = np.random.default_rng(4), 0.7
    noise, series = rng.normal(size=(300, 2500)), np.zeros((300, 2500))
    for t in range(1, 2500):
        series[:, t] = rho * series[:, t - 1] + noise[:, t]
    naive = series.std(axis=1) / 50
    ours = np.array([window_mean(x, 2500)[1] for x in series])
    truth = series.mean(axis=1).std()
    assert naive.mean() < 0.6 * truth < 0.9 * truth < ours.mean() < 1.1 * truth


def test_window_mean_uses_the_end_only():
    assert window_mean([100.0, 1.0, 3.0], 2)[0] == 2.0
    assert window_mean([5.0], 3) == (5.0, 0.0)


def test_noise_stops_and_drift_does_not():
    rng = np.random.default_rng(5)
    rule = stop_when_flat(window=100, rtol=1e-6)
    flat = [ask(rule, 7 + rng.normal(size=200)) for _ in range(100)]
    stops = np.mean([text is not None for text in flat])
    assert 0.5 < stops < 0.85  # |difference| below one standard error: 68 %
    assert all("is flat" in text for text in flat if text)
    assert ask(rule, np.linspace(10, 5, 200)) is None
    assert ask(rule, 10 * np.exp(-np.arange(200) / 30)) is None
    assert ask(rule, np.linspace(10, 5, 200) + 0.1 * rng.normal(size=200)) is None


def test_relative_tolerance_and_patience():
    slow = 1 + 1e-5 * np.linspace(1, 0, 200)
    assert ask(stop_when_flat(window=100, rtol=1e-4), slow)
    assert ask(stop_when_flat(window=100, rtol=1e-7), slow) is None
    assert ask(stop_when_flat(window=101), np.ones(200)) is None


@pytest.mark.errors
def test_stop_rule_names_what_it_needs():
    with pytest.raises(ValueError, match="window >= 2"):
        stop_when_flat(window=1)
    with pytest.raises(ValueError, match="`objective`"):
        stop_when_flat()(CallbackInfo(1, 1, None, None, None, 0.0))
