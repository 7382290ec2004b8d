"""Scores of class probabilities against NumPy and scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from bayesjx import diagnostics

N, C, S = 211, 4, 3
RNG = np.random.default_rng(0)
PROBS = RNG.dirichlet(np.ones(C) * 0.7, size=(S, N))
LABELS = np.array([RNG.choice(C, p=p) for p in PROBS[0]])


def test_scores_are_those_of_numpy(dtype, tol):
    metrics = pytest.importorskip("sklearn.metrics")

    @jax.jit
    def answers(probs, labels):
        scores = diagnostics.log_score, diagnostics.brier_score, diagnostics.calibration_error
        all_scores = [jax.vmap(score, in_axes=(0, None))(probs, labels) for score in scores]
        bins = diagnostics.reliability(probs[0], labels, 10)
        slope = jax.grad(lambda p: diagnostics.log_score(p, labels))(probs[0])
        uncertain = diagnostics.predictive_entropy(probs), diagnostics.mutual_information(probs)
        area = diagnostics.auroc(uncertain[0][0], labels == jnp.argmin(probs[0], axis=1))
        return all_scores, bins, slope, uncertain, area

    found, bins, slope, (entropy, mutual), area = answers(jnp.asarray(PROBS, dtype), LABELS)
    p = np.asarray(jnp.asarray(PROBS, dtype), float)
    one_hot = np.eye(C)[LABELS]
    np.testing.assert_allclose(found[0][0], -np.log(p[0][one_hot == 1]).mean(), **tol)
    np.testing.assert_allclose(found[1], ((p - one_hot) ** 2).sum(-1).mean(-1), **tol)
    errors = [expected_error(q, 15)[0] for q in p]
    np.testing.assert_allclose(found[2], errors, atol=10 * tol["atol"])
    _, confidence, accuracy, count = expected_error(p[0], 10)
    np.testing.assert_allclose(bins.confidence, confidence, **tol)
    np.testing.assert_allclose(bins.accuracy, accuracy, **tol)
    np.testing.assert_array_equal(bins.count, count)
    np.testing.assert_allclose(slope, -one_hot / p[0] / N, rtol=10 * tol["rtol"])
    np.testing.assert_allclose(entropy, stats.entropy(p, axis=-1), rtol=10 * tol["rtol"])
    gap = stats.entropy(p.mean(0), axis=-1) - stats.entropy(p, axis=-1).mean(0)
    np.testing.assert_allclose(mutual, gap, atol=10 * tol["atol"])
    rare = LABELS == p[0].argmin(axis=1)
    want = metrics.roc_auc_score(rare, np.asarray(entropy)[0])
    np.testing.assert_allclose(area, want, rtol=10 * tol["rtol"])
    for value in (*found, bins.confidence, entropy, mutual, area):
        assert value.dtype == dtype


def expected_error(probs, num_bins):
    """The error and its bins, one prediction at a time."""
    confidence, right = probs.max(axis=1), probs.argmax(axis=1) == LABELS
    edges = np.arange(num_bins + 1) / num_bins
    rows = []
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        inside = (confidence > low) & (confidence <= high)
        means = [v[inside].mean() if inside.any() else d
                 for v, d in ((confidence, (low + high) / 2), (right, 0))]  # fmt: skip
        rows.append((*means, inside.sum()))
    mean, accuracy, count = map(np.array, zip(*rows, strict=True))
    return np.sum(count / len(probs) * np.abs(accuracy - mean)), mean, accuracy, count


def test_area_with_ties_and_without_one_kind():
    scores = np.array([0.0, 1.0, 1.0, 1.0, 2.0, np.inf])
    positive = np.array([False, True, False, True, False, True])
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[positive] for b in scores[~positive]]
    np.testing.assert_allclose(diagnostics.auroc(scores, positive), np.mean(pairs))
    assert diagnostics.auroc(-scores, positive) == pytest.approx(1 - np.mean(pairs))
    assert diagnostics.auroc([1, 2], [False, True]) == 1
    assert np.isnan(diagnostics.auroc(scores, np.ones(6, bool)))


def test_certain_predictions():
    certain = np.eye(3)
    assert diagnostics.calibration_error(certain, [0, 1, 2]) == 0
    assert diagnostics.calibration_error(certain, [1, 2, 0]) == 1
    assert diagnostics.log_score(certain, [0, 1, 2]) == 0
    assert np.isinf(diagnostics.log_score(certain, [1, 1, 2]))
    assert np.all(diagnostics.predictive_entropy(certain) == 0)
    np.testing.assert_allclose(diagnostics.mutual_information(certain), np.log(3))
    assert diagnostics.brier_score(certain, [1, 2, 0]) == 2


@pytest.mark.errors
def test_bad_probabilities_and_labels_are_named():
    raises = lambda match: pytest.raises(ValueError, match=match)  # noqa: E731
    p = np.full((5, 2), 0.5)
    for score in (diagnostics.log_score, diagnostics.brier_score, diagnostics.calibration_error):
        with raises("labels must be in 0, ..., 1"):
            score(p, np.arange(5))
        with raises("are these logits"):
            score(p - 1, np.zeros(5, int))
        with raises("labels must be integers"):
            score(p, np.zeros(5))
        with raises("probs must have shape .n, c. and labels"):
            score(p, np.zeros(4, int))
    with raises("num_bins must be at least 1"):
        diagnostics.reliability(p, np.zeros(5, int), 0)
    with raises("positive must hold booleans"):
        diagnostics.auroc(np.ones(5), np.ones(5, int))
    with raises("must both have shape .n,."):
        diagnostics.auroc(np.ones(5), np.ones(4, bool))
    with raises("scores must not be NaN"):
        diagnostics.auroc(np.full(2, np.nan), np.ones(2, bool))
    with raises("probs must have shape .s, ..., c."):
        diagnostics.mutual_information(np.ones(1))
    with raises("last axis of classes"):
        diagnostics.predictive_entropy(0.5)
