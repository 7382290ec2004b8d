"""Sparse linear problems, drawn and real, and what scikit-learn makes of them."""

from __future__ import annotations

import contextlib
import signal
import time
import warnings
from collections.abc import Generator
from typing import Any, NamedTuple

import numpy as np

NUM_FEATURES = 200  # random cosines of the real inputs
TRAIN_ROWS = 150
LARGE_SIZE = 1_000_000  # entries of a design, below which scikit-learn is sooner in one thread
UCI = ("yacht", "housing", "energy", "concrete", "airfoil", "wine")


class Problem(NamedTuple):
    """A regression whose responses are centred.

    Attributes:
        design: shape `(n, m)`, float64 as all.
        y: shape `(n,)`.
        new: further rows, shape `(k, m)`; of a drawn problem the identity.
        truth: what their products with the weights should be, shape `(k,)`: responses, or weights.
    """

    design: np.ndarray
    y: np.ndarray
    new: np.ndarray
    truth: np.ndarray

    def error(self, weights: Any) -> float:
        """Squared error relative to the square of the truth: the NMSE."""
        found = self.new @ np.asarray(weights, float)
        return float(np.sum((found - self.truth) ** 2) / np.sum(self.truth**2))


class Fit(NamedTuple):
    """Weights, their prior variances, the noise variance, and the seconds that they took."""

    weights: np.ndarray
    prior_var: np.ndarray
    noise_var: float
    seconds: float


def drawn(seed: int, n: int, m: int, k: int, decibels: float = 20.0) -> Problem:
    """A Gaussian design with `k` normal weights."""
    rng = np.random.default_rng(seed)
    design, weights = rng.normal(size=(n, m)), np.zeros(m)
    weights[rng.choice(m, k, replace=False)] = rng.normal(size=k)
    signal = design @ weights
    noise = np.sqrt(np.mean(signal**2) * 10 ** (-decibels / 10))
    return Problem(design, signal + noise * rng.normal(size=n), np.eye(m), weights)


def real_sets() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Inputs and responses by name: scikit-learn's diabetes, and UCI's where they are at hand."""
    from sklearn.datasets import load_diabetes

    from benchmarks.gp._uci import stored

    found = {"diabetes": load_diabetes(return_X_y=True)}
    for name in UCI:
        try:
            x, y, _ = stored(name)
        except FileNotFoundError:
            continue
        found[name] = (x, y)
    return found


def expanded(x: np.ndarray, y: np.ndarray, seed: int) -> Problem:
    """Random rows of a real set in random cosines of its inputs, centred by the training rows."""
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(x))
    x = (x - x.mean(axis=0)) / np.where(x.std(axis=0) > 0, x.std(axis=0), 1)
    frequencies = rng.normal(size=(x.shape[1], NUM_FEATURES)) / np.sqrt(x.shape[1])
    features = np.cos(x @ frequencies + rng.uniform(0, 2 * np.pi, NUM_FEATURES))
    train, test = rows[:TRAIN_ROWS], rows[TRAIN_ROWS:]
    shift, mean = features[train].mean(axis=0), y[train].mean()
    features, y = features - shift, (y - mean) / y[train].std()
    return Problem(features[train], y[train], features[test], y[test])


def evidence(problem: Problem, fit: Fit) -> float:
    """Log marginal likelihood at the variances of a fit, in double precision."""
    n = len(problem.y)
    cov = fit.noise_var * np.eye(n) + (problem.design * fit.prior_var) @ problem.design.T
    quad = problem.y @ np.linalg.solve(cov, problem.y)
    return float(-0.5 * (n * np.log(2 * np.pi) + np.linalg.slogdet(cov)[1] + quad))


def ard(problem: Problem, dtype: Any = np.float64, within: float = np.inf) -> Fit:
    """`sklearn.linear_model.ARDRegression` as it comes, without intercept.

    Args:
        problem: to fit.
        dtype: of its numbers.
        within: seconds after which it is stopped.

    Raises:
        TimeoutError: it was stopped.
    """
    from sklearn.linear_model import ARDRegression

    model = ARDRegression(fit_intercept=False)
    with _limited(within):
        fitted, seconds = _fitted(model, problem, dtype)
    kept = fitted.coef_ != 0
    prior_var = np.where(kept, 1 / fitted.lambda_.astype(float), 0)
    return Fit(fitted.coef_, prior_var, 1 / float(fitted.alpha_), seconds)


@contextlib.contextmanager
def _limited(seconds: float) -> Generator[None]:
    """Raises TimeoutError in a body of Python that takes longer."""

    def stop(*_: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    if np.isfinite(seconds):
        signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def others(problem: Problem, num_nonzero: int) -> dict[str, Fit]:
    """Cross-validated lasso, and orthogonal matching pursuit that is told the number of weights."""
    from sklearn.linear_model import LassoCV, OrthogonalMatchingPursuit

    models = {
        "LassoCV": LassoCV(fit_intercept=False),
        "OMP, number given": OrthogonalMatchingPursuit(
            n_nonzero_coefs=num_nonzero, fit_intercept=False
        ),
    }
    nothing = np.zeros(problem.design.shape[1])
    fits = {}
    for name, model in models.items():
        fitted, seconds = _fitted(model, problem, np.float64)
        fits[name] = Fit(fitted.coef_, nothing, np.nan, seconds)
    return fits


def _fitted(model: Any, problem: Problem, dtype: Any) -> tuple[Any, float]:
    from threadpoolctl import threadpool_limits

    design, y = problem.design.astype(dtype), problem.y.astype(dtype)
    threads = 1 if design.size < LARGE_SIZE else None
    with warnings.catch_warnings(), threadpool_limits(threads):
        warnings.simplefilter("ignore")
        begun = time.perf_counter()
        fitted = model.fit(design, y)
        return fitted, time.perf_counter() - begun


def ours(problem: Problem, **options: Any) -> Fit:
    """`sbl.sbl` as it comes, compiled before, in the precision of JAX."""
    import jax
    import jax.numpy as jnp

    from bayesjx import sbl

    design, y = jnp.asarray(problem.design), jnp.asarray(problem.y)
    jax.block_until_ready(sbl.sbl(design, y, **options).mean)
    begun = time.perf_counter()
    posterior = sbl.sbl(design, y, **options)
    jax.block_until_ready(posterior)
    seconds = time.perf_counter() - begun
    prior_var = np.asarray(posterior.prior_var, float)
    return Fit(np.asarray(posterior.mean, float), prior_var, float(posterior.noise_var), seconds)
