"""Sparse Bayesian learning as an estimator of scikit-learn, which this module needs."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from ..sbl import sbl, SBLPosterior


class SBLRegressor(RegressorMixin, BaseEstimator):
    r"""Sparse Bayesian learning (relevance determination) as an estimator of scikit-learn.

    `bayesjx.sbl.sbl` with an intercept, for pipelines and searches over parameters: what
    `sklearn.linear_model.ARDRegression` does, indifferent to the scales of features, and saying
    which ones it kept and whether it has converged. It computes in the precision of JAX, float32
    unless `jax_enable_x64` is set.

    Args:
        update: of `bayesjx.sbl.sbl`.
        max_iter: its `max_steps`.
        tol: its `rtol`.
        prune: of `bayesjx.sbl.sbl`.
        noise_var: the noise variance, learned if None.
        fit_intercept: whether features and responses are centred. The intercept has a flat prior.

    Attributes:
        coef_: posterior means, shape `(n_features,)`.
        intercept_: scalar.
        active_: which features are in use, booleans, shape `(n_features,)`.
        alpha_: precision of the noise.
        lambda_: prior precisions of the weights, shape `(n_features,)`, infinite where not in use.
        scores_: log evidence after each step, shape `(n_iter_,)`.
        n_iter_: number of updates.
        converged_: whether it has converged.
        posterior_: an `sbl.SBLPosterior` of centred data; None if all responses were the same.

    Raises:
        ValueError: in `fit`, what scikit-learn refuses, or options out of range.
    """

    def __init__(
        self,
        *,
        update: Any = "fixed-point",
        max_iter: Any = 500,
        tol: Any = 1e-4,
        prune: Any = 1e-2,
        noise_var: Any = None,
        fit_intercept: Any = True,
    ):
        # Of any type, as estimators are made first and checked by `fit`.
        self.update = update
        self.max_iter = max_iter
        self.tol = tol
        self.prune = prune
        self.noise_var = noise_var
        self.fit_intercept = fit_intercept

    def fit(self, X: Any, y: Any) -> SBLRegressor:
        """Learn from features, shape `(n_samples, n_features)`, and responses, `(n_samples,)`."""
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True)
        y = y.astype(np.float64)
        if not isinstance(self.fit_intercept, bool | np.bool_):
            raise ValueError(
                f"SBLRegressor: fit_intercept must be True or False, got {self.fit_intercept!r}"
            )
        centred = self.fit_intercept
        self.X_offset_ = X.mean(axis=0) if centred else np.zeros(X.shape[1])
        y_offset = y.mean() if centred else 0.0
        # What centring leaves of features or responses that are constant is rounding.
        rows = without_rounding(X - self.X_offset_, np.abs(X).max(axis=0))
        rest = without_rounding(y - y_offset, np.abs(y).max())
        self.num_samples_ = len(y)
        learn = functools.partial(
            sbl,
            jnp.asarray(rows),
            noise_var=self.noise_var,
            update=self.update,
            max_steps=self.max_iter,
            rtol=self.tol,
            prune=self.prune,
        )
        if rest.any():
            self._set_learned(learn(jnp.asarray(rest)))
        else:
            jax.eval_shape(learn, jnp.asarray(rest))  # options are checked all the same
            self._set_constant(X.shape[1])
        self.intercept_ = float(y_offset - self.X_offset_ @ self.coef_)
        return self

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Predictive means, and with `return_std` standard deviations, of new responses.

        Args:
            X: features, shape `(n_samples, n_features)`.
            return_std: whether to return the pair.
        """
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        mean = X @ self.coef_ + self.intercept_
        if not return_std:
            return mean
        noise = 1 / self.alpha_
        if self.posterior_ is None:
            variance = np.full(len(X), noise)
        else:
            scale = self.posterior_.predict(jnp.asarray(X - self.X_offset_)).scale
            variance = np.asarray(scale, np.float64) ** 2
        if self.fit_intercept:
            variance = variance + noise / self.num_samples_
        return mean, np.sqrt(variance)

    def _set_learned(self, posterior: SBLPosterior) -> None:
        self.posterior_ = posterior
        self.coef_ = np.asarray(posterior.mean, np.float64)
        self.active_ = np.asarray(posterior.active)
        self.alpha_ = float(1 / posterior.noise_var)
        with np.errstate(divide="ignore"):
            self.lambda_ = 1 / np.asarray(posterior.prior_var, np.float64)
        self.n_iter_ = int(posterior.num_steps)
        self.scores_ = np.asarray(posterior.evidence_trace)[: self.n_iter_]
        self.converged_ = bool(posterior.converged)

    def _set_constant(self, size: int) -> None:
        """Responses that are all the same, of which an intercept is the whole explanation."""
        self.posterior_ = None
        self.coef_, self.active_ = np.zeros(size), np.zeros(size, bool)
        self.alpha_ = np.inf if self.noise_var is None else 1 / self.noise_var
        self.lambda_ = np.full(size, np.inf)
        self.n_iter_, self.scores_, self.converged_ = 1, np.zeros(0), True


def without_rounding(x: np.ndarray, size: Any) -> np.ndarray:
    """Zeros in place of what centring leaves of columns that are constant, of values `size`."""
    constant = np.abs(x).max(axis=0) <= 10 * len(x) * np.finfo(x.dtype).eps * size
    return np.where(constant, 0, x)
