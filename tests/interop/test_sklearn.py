"""The estimator of scikit-learn: what it learns, and scikit-learn's own checks of it."""

import subprocess
import sys

import numpy as np
import pytest

from bayesjx import sbl

pytest.importorskip("sklearn")


def problem():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(41, 7)) * 10.0 ** np.arange(-3, 4) + 3
    x[:, 6] = 5  # a constant feature
    weights = np.array([0, 0, 30.0, 0, 0.2, 0, 0])
    return x, x @ weights + 7 + 0.1 * rng.normal(size=41), weights


def test_it_is_the_learner_with_an_intercept():
    from bayesjx.interop import SBLRegressor

    x, y, weights = problem()
    model = SBLRegressor(noise_var=0.01).fit(x, y)
    centred = x - x.mean(axis=0)
    centred[:, 6] = 0
    want = sbl.sbl(centred, y - y.mean(), noise_var=0.01)
    np.testing.assert_allclose(model.coef_, want.mean, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(model.coef_[[2, 4]], weights[[2, 4]], rtol=0.1)
    assert model.converged_ and model.active_[[2, 4]].all() and not model.active_[6]
    mean, std = model.predict(x[:5], return_std=True)
    np.testing.assert_allclose(mean, centred[:5] @ model.coef_ + y.mean(), rtol=1e-9)
    variance = want.predict(centred[:5]).variance + 0.01 / 41  # that of the intercept too
    np.testing.assert_allclose(std, np.sqrt(variance), rtol=1e-6)
    assert model.score(x, y) > 0.99


def test_responses_that_are_constant_have_no_weights():
    from bayesjx.interop import SBLRegressor

    model = SBLRegressor().fit(problem()[0], np.full(41, 0.1))
    assert np.all(model.coef_ == 0)
    np.testing.assert_allclose(model.predict(problem()[0]), 0.1, rtol=1e-12)


@pytest.mark.errors
@pytest.mark.parametrize("wrong", [{"noise_var": -1.0}, {"prune": 0.7}, {"fit_intercept": "no"}])
def test_options_are_checked_whatever_the_responses_are(wrong):
    from bayesjx.interop import SBLRegressor

    for y in (np.ones(41), problem()[1]):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            SBLRegressor(**wrong).fit(problem()[0], y)


def test_scikit_learn_is_imported_only_when_asked_for():
    code = "import sys, bayesjx.interop as i; assert 'sklearn' not in sys.modules; i.SBLRegressor"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.nightly
def test_all_of_scikit_learns_checks():
    from sklearn.utils.estimator_checks import check_estimator

    from bayesjx.interop import SBLRegressor

    results = check_estimator(SBLRegressor(), on_fail=None, on_skip=None)
    assert len(results) > 40
    failed = [r["check_name"] for r in results if r["status"] not in ("passed", "skipped")]
    assert not failed


@pytest.mark.parametrize(
    "check",
    ["check_regressors_train", "check_supervised_y_2d", "check_fit2d_1sample"],
)
def test_some_of_scikit_learns_checks(check):
    from sklearn.utils import estimator_checks

    from bayesjx.interop import SBLRegressor

    getattr(estimator_checks, check)("SBLRegressor", SBLRegressor(max_iter=20))
