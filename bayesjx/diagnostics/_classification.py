"""How good probabilities of classes are: calibration, scores, and detection of outliers."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._core import number_array, refuse_where, whole_number


class Reliability(NamedTuple):
    """Predictions by how confident they are: the bins of a reliability diagram.

    Attributes:
        confidence: mean probability of the predicted class in each bin, shape `(k,)`; the middle
            of a bin that is empty.
        accuracy: share of the predictions that are right, shape `(k,)`; 0 in a bin that is empty.
        count: number of predictions in each bin, shape `(k,)`.
    """

    confidence: Float[Array, " k"]
    accuracy: Float[Array, " k"]
    count: Int[Array, " k"]


def reliability(probs: Any, labels: Any, num_bins: int = 15) -> Reliability:
    """Confidence and accuracy of predicted classes in bins of the same width.

    Args:
        probs: probabilities of `c` classes, shape `(n, c)`.
        labels: the right classes from 0 on, integers of shape `(n,)`.
        num_bins: `k`, number of bins between 0 and 1, each without its lower end.

    Raises:
        ValueError: shapes that disagree, no data, probabilities that are negative or do not sum to
            1, labels out of range, as far as that is known.
        RuntimeError: under `jit`, such values.

    References:
        Naeini, Cooper and Hauskrecht (2015), "Obtaining well calibrated probabilities using
        Bayesian binning", AAAI; Guo, Pleiss, Sun and Weinberger (2017), "On calibration of modern
        neural networks", ICML, section 2.
    """
    probs, labels = _checked("reliability", probs, labels)
    num_bins = whole_number("reliability: num_bins", num_bins)
    confidence = jnp.max(probs, axis=1)
    right = (jnp.argmax(probs, axis=1) == labels).astype(probs.dtype)
    place = jnp.clip(jnp.ceil(confidence * num_bins).astype(jnp.int32) - 1, 0, num_bins - 1)
    zeros = jnp.zeros(num_bins, probs.dtype)
    count = zeros.astype(jnp.int32).at[place].add(1)
    per_bin = jnp.maximum(count, 1).astype(probs.dtype)
    middles = (jnp.arange(num_bins, dtype=probs.dtype) + 0.5) / num_bins
    mean = jnp.where(count > 0, zeros.at[place].add(confidence) / per_bin, middles)
    return Reliability(mean, zeros.at[place].add(right) / per_bin, count)


def calibration_error(probs: Any, labels: Any, num_bins: int = 15) -> Float[Array, ""]:
    r"""Expected calibration error: how far confidence and accuracy are apart, from 0 to 1.

    $\sum_b \frac{n_b}{n} \lvert \mathrm{acc}_b - \mathrm{conf}_b \rvert$ over the bins of
    `reliability`, whose arguments and errors it shares.
    """
    bins = reliability(probs, labels, num_bins)
    share = bins.count.astype(bins.confidence.dtype) / jnp.sum(bins.count)
    return jnp.sum(share * jnp.abs(bins.accuracy - bins.confidence))


def log_score(probs: Any, labels: Any) -> Float[Array, ""]:
    """Negative log probability of the right classes, their mean: the logarithmic score.

    Infinite where a right class has probability 0.

    Args:
        probs: probabilities of `c` classes, shape `(n, c)`.
        labels: the right classes from 0 on, integers of shape `(n,)`.

    Raises:
        ValueError: as of `reliability`.
        RuntimeError: under `jit`, such values.

    References:
        Gneiting and Raftery (2007), "Strictly proper scoring rules, prediction, and estimation",
        JASA 102.
    """
    probs, labels = _checked("log_score", probs, labels)
    return -jnp.mean(jnp.log(_of_labels(probs, labels)))


def brier_score(probs: Any, labels: Any) -> Float[Array, ""]:
    """Squared distance of probabilities from the right classes, summed over classes, their mean.

    From 0 to 2. Arguments and errors are those of `log_score`.

    References:
        Brier (1950), "Verification of forecasts expressed in terms of probability", Monthly Weather
        Review 78.
    """
    probs, labels = _checked("brier_score", probs, labels)
    return jnp.mean(jnp.sum(probs**2, axis=1) - 2 * _of_labels(probs, labels) + 1)


def auroc(scores: Any, positive: Any) -> Float[Array, ""]:
    """Area under the receiver operating characteristic curve.

    The probability that a positive has a higher score than a negative, where ties count half: how
    well outliers, say, are told from other data by the entropy of predictions. NaN if all are
    positive, or none.

    Args:
        scores: shape `(n,)`, higher where a positive is more likely.
        positive: which are positive, booleans of shape `(n,)`.

    Raises:
        ValueError: shapes that disagree, no data, scores that are known to be NaN.
        RuntimeError: under `jit`, such scores.

    References:
        Hanley and McNeil (1982), "The meaning and use of the area under a receiver operating
        characteristic (ROC) curve", Radiology 143; Hendrycks and Gimpel (2017), "A baseline for
        detecting misclassified and out-of-distribution examples in neural networks", ICLR.
    """
    scores = _floats("auroc", "scores", scores)
    positive = number_array("auroc: positive", positive)
    if positive.dtype != bool:
        raise ValueError(f"auroc: positive must hold booleans, got {positive.dtype}")
    if scores.ndim != 1 or scores.shape != positive.shape or scores.size == 0:
        raise ValueError(
            "auroc: scores and positive must both have shape (n,) with n of at least 1, got "
            f"{scores.shape} and {positive.shape}"
        )
    scores = refuse_where(scores, lambda s: s != s, "auroc: scores must not be NaN")
    ordered = jnp.sort(scores)
    # The rank of each among all, the middle of those it is tied with, from 0.
    first, last = (jnp.searchsorted(ordered, scores, side=side) for side in ("left", "right"))
    rank = 0.5 * (first + last - 1).astype(scores.dtype)
    ones = jnp.asarray(positive).astype(scores.dtype)
    number = jnp.sum(ones)
    above = jnp.sum(jnp.where(positive, rank, 0)) - 0.5 * number * (number - 1)
    return above / (number * (scores.size - number))


def predictive_entropy(probs: Any) -> Float[Array, ...]:
    """Entropy of class probabilities in nats, a score of outliers: total uncertainty.

    Args:
        probs: probabilities of `c` classes, shape `(..., c)`.

    Returns:
        Shape `(...)`.

    Raises:
        ValueError: no classes, probabilities that are negative or do not sum to 1.
        RuntimeError: under `jit`, such values.
    """
    probs = _checked_probs("predictive_entropy", probs)
    return jnp.sum(jax.scipy.special.entr(probs), axis=-1)


def mutual_information(probs: Any) -> Float[Array, ...]:
    """Mutual information of the class and the network in nats: what the networks disagree about.

    The entropy of the mean of their probabilities less the mean of their entropies, and 0 or more.

    Args:
        probs: probabilities of `c` classes by `s` networks or draws, shape `(s, ..., c)`.

    Returns:
        Shape `(...)`.

    Raises:
        ValueError: no classes or draws, probabilities that are negative or do not sum to 1.
        RuntimeError: under `jit`, such values.

    References:
        Houlsby, Huszár, Ghahramani and Lengyel (2011), "Bayesian active learning for classification
        and preference learning", equation 2.
    """
    probs = _checked_probs("mutual_information", probs)
    if probs.ndim < 2 or len(probs) == 0:
        raise ValueError(
            f"mutual_information: probs must have shape (s, ..., c) of s draws, got {probs.shape}"
        )
    # As the mean divergence from the average, of which no term is negative.
    average = jnp.mean(probs, axis=0)
    return jnp.mean(jnp.sum(jax.scipy.special.rel_entr(probs, average), axis=-1), axis=0)


def _of_labels(probs: jax.Array, labels: jax.Array) -> jax.Array:
    return jnp.take_along_axis(probs, labels[:, None], axis=1)[:, 0]


def _checked(owner: str, probs: Any, labels: Any) -> tuple[jax.Array, jax.Array]:
    probs = _checked_probs(owner, probs)
    labels = number_array(f"{owner}: labels", labels)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f"{owner}: labels must be integers from 0 on, got {labels.dtype}")
    if probs.ndim != 2 or labels.shape != probs.shape[:1] or len(probs) == 0:
        raise ValueError(
            f"{owner}: probs must have shape (n, c) and labels (n,), got {probs.shape} and "
            f"{labels.shape}"
        )
    classes = probs.shape[1]
    labels = refuse_where(
        labels,
        lambda y: (y < 0) | (y >= classes),
        f"{owner}: labels must be in 0, ..., {classes - 1}, as probs has {classes} classes",
    )
    return probs, jnp.asarray(labels)


def _checked_probs(owner: str, probs: Any) -> jax.Array:
    probs = _floats(owner, "probs", probs)
    if probs.ndim == 0 or probs.shape[-1] == 0:
        raise ValueError(
            f"{owner}: probs must have a last axis of classes, got shape {probs.shape}"
        )
    # Of a sum of c rounded numbers; probabilities of lower precision were rounded more.
    slack = 1e-2

    def bad(p: Any) -> Any:
        total = p.sum(axis=-1, keepdims=True)
        return ~((p >= 0) & (abs(total - 1) <= slack))

    text = f"{owner}: probs must be probabilities that are not negative and sum to 1 over classes"
    return refuse_where(probs, bad, text + "; are these logits?")


def _floats(owner: str, name: str, value: Any) -> jax.Array:
    array = number_array(f"{owner}: {name}", value)
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise ValueError(f"{owner}: {name} must hold real numbers, got {array.dtype}")
    array = jnp.asarray(array)
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(float)
