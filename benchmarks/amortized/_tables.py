"""Small tables for classification and regression, their splits, and scikit-learn's baselines."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

MOST_TESTED = 500
UCI = ("concrete", "energy", "yacht", "housing", "wine", "airfoil")

Table = tuple[np.ndarray, np.ndarray]
Predict = Callable[[np.ndarray, np.ndarray, np.ndarray], Any]


def uci_tables() -> dict[str, Table]:
    """Those of `BAYESJX_DATA`, if it is set."""
    root = os.environ.get("BAYESJX_DATA")
    tables = {}
    for name in UCI if root else ():
        path = Path(root or "") / "uci" / f"{name}.npz"
        if path.exists():
            with np.load(path) as file:
                tables[f"uci {name}"] = (file["X"].astype(float), file["y"].astype(float).ravel())
    return tables


def class_tables() -> dict[str, Table]:
    """Two to three classes; real targets are cut at their median."""
    from sklearn import datasets

    cancer, wine, iris, diabetes = (
        load(return_X_y=True)
        for load in (
            datasets.load_breast_cancer,
            datasets.load_wine,
            datasets.load_iris,
            datasets.load_diabetes,
        )
    )
    real = {"diabetes": diabetes, **uci_tables()}
    return {
        "breast cancer": cancer,
        "wine, 1 or not": (wine[0], (wine[1] == 1).astype(int)),
        "iris, 1 or not": (iris[0], (iris[1] == 1).astype(int)),
        "moons": datasets.make_moons(600, noise=0.25, random_state=0),
        "circles": datasets.make_circles(600, noise=0.12, factor=0.5, random_state=0),
        "wine": wine,
        "iris": iris,
        **{name: (x, (y > np.median(y)).astype(int)) for name, (x, y) in real.items()},
    }


def value_tables() -> dict[str, Table]:
    """Real targets in units of their standard deviation."""
    from sklearn import datasets

    tables = {"diabetes": datasets.load_diabetes(return_X_y=True), **uci_tables()}
    return {name: (x, (y - y.mean()) / y.std()) for name, (x, y) in tables.items()}


def splits(table: Table, rows: int, count: int, classes: bool) -> Iterator[tuple]:
    """Training and test parts; of each class its share is in the training part."""
    from sklearn.model_selection import train_test_split

    x, y = table
    for seed in range(count):
        order = y if classes else None
        x_in, x_out, y_in, y_out = train_test_split(
            x, y, train_size=rows, stratify=order, random_state=seed
        )
        yield x_in, y_in, x_out[:MOST_TESTED], y_out[:MOST_TESTED]


def classifiers() -> dict[str, Callable[[int], Any]]:
    """Baselines, made from the smallest number of rows of a class; columns are standardised."""
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.gaussian_process import GaussianProcessClassifier
    from sklearn.gaussian_process.kernels import ConstantKernel, RBF
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.model_selection import GridSearchCV
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def folds(fewest: int) -> int:
        return max(2, min(5, fewest))

    def logistic(fewest: int) -> Any:
        model = LogisticRegressionCV(
            Cs=10,
            cv=folds(fewest),
            scoring="neg_log_loss",
            max_iter=500,
            l1_ratios=(0,),
            use_legacy_attributes=False,
        )
        return make_pipeline(StandardScaler(), model)

    def neighbours(fewest: int) -> Any:
        return GridSearchCV(
            make_pipeline(StandardScaler(), KNeighborsClassifier()),
            {"kneighborsclassifier__n_neighbors": (3, 5, 9, 15)},
            cv=folds(fewest),
            scoring="accuracy",
        )

    process = ConstantKernel(1.0) * RBF(2.0**0.5)
    return {
        "logistic": logistic,
        "GP": lambda _: make_pipeline(
            StandardScaler(), GaussianProcessClassifier(process, random_state=0)
        ),
        "neighbours": neighbours,
        "boosting": lambda _: HistGradientBoostingClassifier(
            min_samples_leaf=5, max_iter=50, early_stopping=False
        ),
        "forest": lambda _: RandomForestClassifier(200, min_samples_leaf=2, random_state=0),
    }


def regressors() -> dict[str, Predict]:
    """Baselines that return means and standard deviations of new targets."""
    from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, RBF, WhiteKernel
    from sklearn.linear_model import BayesianRidge
    from sklearn.model_selection import cross_val_predict, KFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def bayesian(make: Callable[[int], Any]) -> Predict:
        def predict(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> Any:
            model = make_pipeline(StandardScaler(), make(x.shape[1])).fit(x, y)
            return model.predict(new, return_std=True)

        return predict

    def with_residuals(make: Callable[[], Any]) -> Predict:
        """A standard deviation from the residuals of cross-validation."""

        def predict(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> Any:
            held_out = cross_val_predict(make(), x, y, cv=KFold(5, shuffle=True, random_state=0))
            return make().fit(x, y).predict(new), np.sqrt(np.mean((y - held_out) ** 2))

        return predict

    def process(columns: int) -> Any:
        kernel = ConstantKernel(1.0) * RBF(np.full(columns, 2.0), (0.1, 1e3))
        kernel = kernel + WhiteKernel(0.1, (1e-4, 10))
        return GaussianProcessRegressor(kernel, normalize_y=True, random_state=0)

    return {
        "ridge": bayesian(lambda _: BayesianRidge()),
        "GP": bayesian(process),
        "boosting": with_residuals(
            lambda: HistGradientBoostingRegressor(
                min_samples_leaf=5, max_iter=100, early_stopping=False
            )
        ),
        "forest": with_residuals(
            lambda: RandomForestRegressor(100, min_samples_leaf=2, random_state=0)
        ),
    }


def calibration_error(probs: np.ndarray, y: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error of the most probable class, bins of equal width."""
    confidence, right = probs.max(axis=1), probs.argmax(axis=1) == y
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(place, right - confidence, bins)
    return float(np.abs(gaps).sum() / len(y))
