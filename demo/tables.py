"""Cells of breast tumours: a network that comes with the package, beside scikit-learn's estimators.

Of 569 tumours, 60 are labelled, and the others are predicted from the ten columns of means; five
such samples are taken. The network was trained on tables that were drawn from a prior, never on
these, and is not fitted: it reads the 60 rows. What is judged is the log density of the right
class, and whether probabilities are what they say.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.gaussian_process.kernels import ConstantKernel, RBF
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bayesjx import diagnostics, to_datatree
from bayesjx.interop import PFNClassifier

from . import _plots
from ._study import Headline, Report, Row, run_all, Study

LABELLED, SAMPLES, COLUMNS, BINS = 60, 5, 10, 10

MAKERS: dict[str, Callable[[], Any]] = {
    "network": PFNClassifier,
    "logistic regression": lambda: make_pipeline(
        StandardScaler(),
        LogisticRegressionCV(
            scoring="neg_log_loss",
            max_iter=500,
            l1_ratios=(0,),
            use_legacy_attributes=False,
        ),
    ),
    "Gaussian process": lambda: make_pipeline(
        StandardScaler(), GaussianProcessClassifier(ConstantKernel() * RBF(2.0), random_state=0)
    ),
    "gradient boosting": lambda: HistGradientBoostingClassifier(
        min_samples_leaf=5, max_iter=50, early_stopping=False
    ),
}


@dataclasses.dataclass(frozen=True)
class Sample:
    """Labelled tumours, and those to predict; 1 is benign."""

    x: np.ndarray
    y: np.ndarray
    new_x: np.ndarray
    new_y: np.ndarray


@functools.cache
def load() -> list[Sample]:
    """Samples with the shares of both classes in all of them."""
    x, y = load_breast_cancer(return_X_y=True)
    samples = []
    for seed in range(SAMPLES):
        x_in, x_out, y_in, y_out = train_test_split(
            x[:, :COLUMNS], y, train_size=LABELLED, stratify=y, random_state=seed
        )
        samples.append(Sample(x_in, y_in, x_out, y_out))
    return samples


def judged(name: str) -> Row:
    """What one estimator predicts of all samples, and how good that is."""
    start = time.perf_counter()
    probs = [
        MAKERS[name]().fit(sample.x, sample.y).predict_proba(sample.new_x) for sample in load()
    ]
    seconds = time.perf_counter() - start
    every = np.clip(np.concatenate(probs), 1e-6, 1)
    every = every / every.sum(axis=1, keepdims=True)
    extra = {
        "log loss": float(diagnostics.log_score(every, truth())),
        "accuracy": float(np.mean(every.argmax(axis=1) == truth())),
        "ECE": float(diagnostics.calibration_error(every, truth(), BINS)),
    }
    how = "read, not fitted" if name == "network" else "fitted"
    tree = to_datatree({"prob": every[None]}, dims={"prob": ["tumour", "class"]})
    return Row(name, how, tree, seconds=seconds, extra=extra)


def truth() -> np.ndarray:
    """Classes of what is predicted, of all samples."""
    return np.concatenate([sample.new_y for sample in load()])


def reliability(row: Row) -> diagnostics.Reliability:
    """How often each confidence was right."""
    probs = row.tree["posterior"]["prob"].values
    return diagnostics.reliability(probs.reshape(-1, 2), truth(), BINS)


def run(study: Study) -> Report:
    """The network, then the others, all in a few seconds whatever the study's sizes are."""
    rows = run_all([(name, functools.partial(judged, name)) for name in MAKERS])
    title = f"Breast tumours: {LABELLED} labelled, {len(load()[0].new_y)} predicted"
    return Report(Headline("tables", title), rows, [remark()])


def remark() -> str:
    """What the columns are."""
    return (
        "log loss: minus the mean log probability of the right class, held out; ECE: expected "
        f"calibration error in {BINS} bins; steps: {SAMPLES} fits with their predictions, the "
        "network's compilation too"
    )


def picture(report: Report, folder: Path) -> list[Path]:
    """Log densities, and how often each confidence is right."""
    with plt.rc_context(_plots.STYLE):
        figure, axes = plt.subplots(
            1, 1 + len(report.rows), figsize=(13, 3.4), layout="constrained"
        )
        for place, row in enumerate(report.rows):
            colour, bins = _plots.COLOURS[place], reliability(row)
            axes[0].barh(place, row.extra["log loss"], color=colour)
            some, panel = np.asarray(bins.count) > 0, axes[1 + place]
            panel.plot([0.5, 1], [0.5, 1], color=_plots.GREY, lw=0.8)
            panel.plot(bins.confidence[some], bins.accuracy[some], "o-", color=colour, ms=4)
            panel.set(title=f"{row.objective},\nECE {row.extra['ECE']:.3f}", xlabel="confidence")
            panel.set(xlim=(0.48, 1.02), ylim=(0.4, 1.02))
        axes[0].set_yticks(range(len(report.rows)), [row.objective for row in report.rows])
        axes[0].invert_yaxis()
        axes[0].set_title("Log loss, nats")
        axes[1].set_ylabel("share that is right")
        figure.suptitle(report.problem.title, fontsize=11)
        return [_plots.save(figure, folder / "tables.png")]
