"""Networks of tables as estimators of scikit-learn, which this module needs."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.preprocessing import OrdinalEncoder
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from .._core import whole_number
from ..amortized import BarHead, PFNPosterior, pretrained, TablePFN
from ..distributions import bar_mixture, BarDistribution
from ._sklearn import without_rounding

QUERIES = 64  # at a time, so that any number of them shares a compiled program
# Means over orders are too even by this; of 0.8 to 1, new draws of the prior like it best.
TEMPERATURE = 0.9


class _PFNEstimator(BaseEstimator):
    """What both estimators share: the table that the network conditions on."""

    def __init__(self, network: Any, n_estimators: Any, random_state: Any):
        # Of any type, as estimators are made first and checked by `fit`.
        self.network = network
        self.n_estimators = n_estimators
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def _keep(self, X: np.ndarray, y: np.ndarray, num_classes: int | None) -> None:
        """Keeps the table in several orders of its columns and classes."""
        owner, columns = type(self).__name__, X.shape[1]
        network = _checked_network(owner, self.network, num_classes)
        count = whole_number(f"{owner}: n_estimators", self.n_estimators)
        self._warn_beyond(network, *X.shape)
        self._loc, self._scale = _moments(X)
        rng, classes = check_random_state(self.random_state), num_classes or 0
        orders = {(tuple(range(columns)), tuple(range(classes))): None}
        most = math.factorial(min(columns, 20)) * math.factorial(classes)
        while len(orders) < min(count, most):
            orders[tuple(rng.permutation(columns)), tuple(rng.permutation(classes))] = None
        self._context = _Context(self.network, network, self._cells(X), y, list(orders))

    def _cells(self, X: np.ndarray) -> np.ndarray:
        """What the network is given, which is in single precision."""
        return ((X - self._loc) / self._scale).astype(np.float32)

    def _predictions(self, X: Any) -> Iterator[tuple[int, list[Any]]]:
        """For each chunk of queries, how many they are and the distribution for each order."""
        check_is_fitted(self)
        rows, context = self._cells(_numbers(self, X, reset=False)), self._context
        for start in range(0, len(rows), QUERIES):
            chunk = rows[start : start + QUERIES]
            padded = np.pad(chunk, ((0, QUERIES - len(chunk)), (0, 0)))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # `fit` has said it
                new = [
                    posterior.predict(context.padded(padded, order), batch_size=QUERIES)
                    for posterior, (order, _) in zip(
                        context.posteriors, context.orders, strict=True
                    )
                ]
            yield len(chunk), new

    def _warn_beyond(self, network: TablePFN, rows: int, columns: int) -> None:
        for what, count, most in (
            ("rows", rows, network.max_context),
            ("columns", columns, network.num_inputs),
        ):
            if most is not None and count > most:
                warnings.warn(
                    f"{type(self).__name__}: {count} {what}, more than the {most} that the network "
                    "was trained with; its predictions there are not checked",
                    stacklevel=4,
                )


class PFNClassifier(ClassifierMixin, _PFNEstimator):
    """A network that comes with the package as a classifier of scikit-learn.

    Nothing is fitted: `fit` keeps the table, and the network predicts given its rows. Values may
    be missing (NaN); columns of a data frame that are categories or text become codes. Saved, it
    is as large as the table.

    Args:
        network: name of a network of `amortized.pretrained`, or a `TablePFN` with a
            `CategoricalHead`.
        n_estimators: orders of columns and classes whose log probabilities are averaged; the mean
            of several is divided by 0.9, as means are too even.
        random_state: seed of those orders.

    Attributes:
        classes_: the classes, shape `(n_classes,)`.
        n_features_in_: number of columns.

    Raises:
        ValueError: in `fit`, what scikit-learn refuses, or more classes than the network has.

    Warns:
        UserWarning: in `fit`, more rows or columns than the network was trained with.
    """

    def __init__(
        self, network: Any = "table-classes", *, n_estimators: Any = 8, random_state: Any = 0
    ):
        super().__init__(network, n_estimators, random_state)

    def fit(self, X: Any, y: Any) -> PFNClassifier:
        """Keep a table, shape `(n_samples, n_features)`, and its classes, `(n_samples,)`."""
        X, y = _numbers(self, X, y)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        self._keep(X, codes.astype(np.int32), len(self.classes_))
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the classes, shape `(n_samples, n_classes)`."""
        check_is_fitted(self)
        codes = [list(codes) for _, codes in self._context.orders]
        chunks = []
        for count, new in self._predictions(X):
            logits = [np.log(np.asarray(one.probs, float)) for one in new]
            chunks.append(sum(p[:count, c] for p, c in zip(logits, codes, strict=True)))
        power = 1 / len(codes) if len(codes) == 1 else 1 / (TEMPERATURE * len(codes))
        mean = power * np.concatenate(chunks)
        probs = np.exp(mean - mean.max(axis=1, keepdims=True))
        return probs / probs.sum(axis=1, keepdims=True)

    def predict(self, X: Any) -> np.ndarray:
        """The most probable classes, shape `(n_samples,)`."""
        best = self.predict_proba(X).argmax(axis=1)
        return self.classes_[best]


class PFNRegressor(RegressorMixin, _PFNEstimator):
    """A network that comes with the package as a regressor of scikit-learn.

    Nothing is fitted: `fit` keeps the table, and the network predicts given its rows. Values may
    be missing (NaN); columns of a data frame that are categories or text become codes. Saved, it
    is as large as the table.

    Args:
        network: name of a network of `amortized.pretrained`, or a `TablePFN` with a `BarHead`, such
            as `amortized.pfn_training` trains on draws of a `TablePrior`.
        n_estimators: orders of columns whose distributions are averaged.
        random_state: seed of those orders.

    Attributes:
        n_features_in_: number of columns.

    Raises:
        ValueError: in `fit`, what scikit-learn refuses.

    Warns:
        UserWarning: in `fit`, more rows or columns than the network was trained with.
    """

    def __init__(
        self, network: Any = "table-values", *, n_estimators: Any = 8, random_state: Any = 0
    ):
        super().__init__(network, n_estimators, random_state)

    def fit(self, X: Any, y: Any) -> PFNRegressor:
        """Keep a table, shape `(n_samples, n_features)`, and its targets, `(n_samples,)`."""
        X, y = _numbers(self, X, y, y_numeric=True)
        y = np.asarray(y, np.float64)
        (self._y_loc,), (self._y_scale,) = _moments(y[:, None])
        rest = without_rounding(y - self._y_loc, np.abs(y).max())
        if not rest.any():
            self._y_scale = 1.0
            warnings.warn(
                "PFNRegressor: all targets are equal, so that nothing is known of their scale: how "
                "wide predictions are means nothing",
                stacklevel=2,
            )
        self._keep(X, (rest / self._y_scale).astype(np.float32), None)
        return self

    def predict_distribution(self, X: Any) -> BarDistribution:
        """Distributions of new targets, a NumPyro distribution of batch shape `(n_samples,)`.

        Args:
            X: a table, shape `(n_samples, n_features)`.

        Raises:
            ValueError: targets vary by so little, so far from 0, that JAX's precision cannot hold
                bars of them; `predict` can.
        """
        new = self._standard(X)
        return BarDistribution(self._y_loc + self._y_scale * new.borders, new.logits)

    def predict(self, X: Any, return_std: bool = False, quantiles: Sequence | None = None) -> Any:
        """Means of new targets, shape `(n_samples,)`, and more if asked.

        Args:
            X: a table, shape `(n_samples, n_features)`.
            return_std: whether to return standard deviations too.
            quantiles: probabilities; their quantiles are returned in place of means, shape
                `(n_samples, len(quantiles))`.
        """
        new = self._standard(X)
        if quantiles is not None:
            levels = jnp.asarray(quantiles, new.logits.dtype)
            return self._y_loc + self._y_scale * np.asarray(new.icdf(levels[:, None]).T, float)
        mean = self._y_loc + self._y_scale * np.asarray(new.mean, float)
        if not return_std:
            return mean
        return mean, self._y_scale * np.sqrt(np.asarray(new.variance, float))

    def _standard(self, X: Any) -> BarDistribution:
        """Distributions of targets of mean 0 and variance 1 in the table."""
        check_is_fitted(self)
        parts = [(n, bar_mixture(new)) for n, new in self._predictions(X)]
        borders = jnp.concatenate([one.borders[:n] for n, one in parts])
        return BarDistribution(borders, jnp.concatenate([one.logits[:n] for n, one in parts]))


class _Context:
    """A table, and what a network keeps of it in each order, which is not saved."""

    def __init__(self, network: Any, loaded: TablePFN, x: Any, y: Any, orders: list):
        self.network, self.x, self.y, self.orders = network, x, y, orders
        self.loaded = loaded  # in place of the cached one

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("loaded", "posteriors")}

    @functools.cached_property
    def loaded(self) -> Any:
        """The network."""
        return pretrained(self.network) if isinstance(self.network, str) else self.network

    @functools.cached_property
    def posteriors(self) -> list[PFNPosterior]:
        """Predictive distributions given the table, for each order."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return [
                self.loaded.condition(
                    self.padded(self.x, order), np.asarray(codes)[self.y] if codes else self.y
                )
                for order, codes in self.orders
            ]

    def padded(self, x: np.ndarray, order: Any) -> np.ndarray:
        """Columns in this order, then missing ones, so that tables share compiled programs."""
        lacking = max(self.loaded.num_inputs - x.shape[1], 0)
        return np.pad(x[:, np.asarray(order)], ((0, 0), (0, lacking)), constant_values=np.nan)


def _checked_network(owner: str, network: Any, num_classes: int | None) -> TablePFN:
    network = pretrained(network) if isinstance(network, str) else network
    if not isinstance(network, TablePFN):
        raise ValueError(
            f"{owner}: network must be a name of amortized.pretrained or an amortized.TablePFN, "
            f"got {type(network).__name__}"
        )
    most = network.head.num_classes
    if (most is None) != (num_classes is None):
        wanted = "classes" if num_classes is not None else "real targets"
        raise ValueError(f"{owner}: network is not one of {wanted}")
    if num_classes is None and not isinstance(network.head, BarHead):
        raise ValueError(f"{owner}: network must have a BarHead, got {type(network.head).__name__}")
    if most is not None and num_classes is not None and num_classes > most:
        raise ValueError(f"{owner}: y has {num_classes} classes, the network at most {most}")
    return network


def _numbers(estimator: Any, X: Any, y: Any = "no_validation", **options: Any) -> Any:
    """A table of floating-point numbers that scikit-learn finds valid, and targets if given."""
    if options.get("reset", True):
        estimator._coder = _fitted_coder(X) if hasattr(X, "iloc") else None
    if estimator._coder is not None and hasattr(X, "iloc"):
        X = estimator._coder.transform(X)[list(X.columns)]
    checked = {"dtype": np.float64, "ensure_all_finite": "allow-nan", **options}
    return validate_data(estimator, X, y, **checked)


def _fitted_coder(X: Any) -> Any:
    """From a data frame to one of numbers, in which categories and texts are codes, or None."""
    named = make_column_selector(dtype_exclude=["number", "bool"])(X)
    if not named:
        return None
    coder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan)
    frames = make_column_transformer(
        (coder, named), remainder="passthrough", verbose_feature_names_out=False
    )
    return frames.set_output(transform="pandas").fit(X)


def _moments(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard deviations of the columns; 0 and 1 where there is nothing to tell."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a column may have no values
        size = np.nanmax(np.abs(X), axis=0)
        unit = np.where(size > 0, size, 1)  # whose squares neither over- nor underflow
        loc, scale = np.nanmean(X / unit, axis=0) * unit, np.nanstd(X / unit, axis=0) * unit
    return np.where(np.isfinite(loc), loc, 0), np.where(scale > 0, scale, 1)
