"""Mistakes in calls of the Kronecker-structured learners of `bayesjx.sbl` and their simulators."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from bayesjx import datasets, ops, sbl
from benchmarks.bad_input._case import Case, COUNT

ROWS, COLUMNS = (3, 4), (5, 4)
NAN = float("nan")
SPARSE, IRS = "datasets.kron_sparse", "datasets.irs_mimo"
PURSUIT = "sbl.kron_orthogonal_matching_pursuit"


def _factors() -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    return tuple(rng.normal(size=size) for size in zip(ROWS, COLUMNS, strict=True))


def _y() -> np.ndarray:
    return np.random.default_rng(1).normal(size=ROWS)


def _fit(factors: Any = None, y: Any = None, **options: Any) -> Any:
    options = {"update": "svd", "max_steps": 1, **options}
    factors = _factors() if factors is None else factors
    return sbl.kron_sbl(factors, _y() if y is None else y, **options)


def _pursue(y: Any = None, noise_var: Any = 0.1, **options: Any) -> Any:
    y = _y() if y is None else y
    return sbl.kron_orthogonal_matching_pursuit(_factors(), y, noise_var=noise_var, **options)


def _masks() -> tuple[np.ndarray, ...]:
    return tuple(np.arange(n) < 2 for n in COLUMNS)


def _marginal(prior: Any = None, noise_var: Any = 0.1, **options: Any) -> Any:
    prior = tuple(np.ones(n) for n in COLUMNS) if prior is None else prior
    return sbl.KroMarginal(_factors(), prior, noise_var, **options)


def _key() -> jax.Array:
    return jax.random.key(0)


def _sparse(**options: Any) -> Any:
    return datasets.kron_sparse(_key(), **options)


def _irs(**options: Any) -> Any:
    return datasets.irs_mimo(_key(), **options)


def _draw(key: Any = None, sample_shape: Any = ()) -> Any:
    return _fit().sample(_key() if key is None else key, sample_shape)


def _wrong(value: object) -> Any:
    """A value of another type than the annotations allow."""
    return value


CASES: tuple[Case, ...] = (
    # The learner
    Case("sbl.kron_sbl", "y", lambda: _fit(y=_y().ravel()), "reshape"),
    Case("sbl.kron_sbl", "y", lambda: _fit(y=_y().T), "\\(3, 4\\)"),
    Case("sbl.kron_sbl", "y", lambda: _fit(y=0 * _y()), "zero everywhere"),
    Case("sbl.kron_sbl", "y", lambda: _fit(y=np.where(_y() > 0, _y(), NAN)), "NaN"),
    Case("sbl.kron_sbl", "y", lambda: _fit(y=np.full(ROWS, "a")), "numbers"),
    Case("sbl.kron_sbl", "y", lambda: _fit(y=_y().astype(np.float32)), "one precision"),
    Case("sbl.kron_sbl", "y", lambda: _fit(y=np.zeros((*ROWS, 0))), "empty"),
    Case("sbl.kron_sbl", "factors", lambda: _fit(factors=()), "at least one"),
    Case("sbl.kron_sbl", "factors", lambda: _fit((np.ones(3), np.ones((4, 4)))), "matrix"),
    Case("sbl.kron_sbl", "factors", lambda: _fit((0 * _factors()[0], _factors()[1])), "zero"),
    Case("sbl.kron_sbl", "factors", lambda: _fit((NAN * _factors()[0], _factors()[1])), "NaN"),
    Case("sbl.kron_sbl", "update", lambda: _fit(update="em"), "one of"),
    Case("sbl.kron_sbl", "noise_var", lambda: _fit(noise_var=0.0), "positive"),
    Case("sbl.kron_sbl", "noise_var", lambda: _fit(noise_var=np.ones(3)), "scalar"),
    Case("sbl.kron_sbl", "noise_var", lambda: _fit(noise_var="loud"), "number"),
    Case("sbl.kron_sbl", "coupling", lambda: _fit(coupling=(0.8,)), "2 elements"),
    Case("sbl.kron_sbl", "coupling", lambda: _fit(coupling=1.5), "\\[0, 1\\)"),
    Case("sbl.kron_sbl", "max_steps", lambda: _fit(max_steps=-1), "at least 0"),
    Case("sbl.kron_sbl", "rtol", lambda: _fit(rtol=-1e-3), "\\[0, 1\\)"),
    Case("sbl.kron_sbl", "prune", lambda: _fit(prune=1.0), "\\[0, 1\\)"),
    Case("sbl.kron_sbl", "kron_sbl", lambda: _fit(max_steps=0, throw=True), "raise max_steps"),
    Case("sbl.KroPosterior.moments", "factors", lambda: _fit().moments(_factors()[:1]), "columns"),
    Case(
        "sbl.KroPosterior.predict", "factors", lambda: _fit().predict(_factors()[::-1]), "columns"
    ),
    Case("sbl.KroPosterior.sample", "key", lambda: _draw(key=0), "jax.random.key"),
    Case("sbl.KroPosterior.sample", "sample_shape", lambda: _draw(sample_shape=3), "tuple"),
    # The marginal distribution
    Case("sbl.KroMarginal", "prior_factors", lambda: _marginal((np.ones(5),)), "\\(4,\\)"),
    Case(
        "sbl.KroMarginal", "prior_factors", lambda: _marginal((1j * np.ones(5), np.ones(4))), "real"
    ),
    Case("sbl.KroMarginal", "noise_var", lambda: _marginal(noise_var=np.ones(12)), "scalar"),
    Case(
        "sbl.KroMarginal",
        "noise_var",
        lambda: _marginal(noise_var=-1.0, validate_args=True),
        "invalid",
    ),
    Case("sbl.KroMarginal.log_prob", "value", lambda: _marginal().log_prob(_y()), "12"),
    Case(
        "sbl.KroMarginal.log_prob", "value", lambda: _marginal().log_prob(1j * _y().ravel()), "real"
    ),
    # Pursuit and oracle
    Case(
        PURSUIT,
        "noise_var",
        lambda: _pursue(noise_var=0),
        "positive",
    ),
    Case(PURSUIT, "y", lambda: _pursue(y=0 * _y()), "zero"),
    Case(
        PURSUIT,
        "max_steps",
        lambda: _pursue(max_steps=-1),
        "least 0",
    ),
    Case(
        "sbl.oracle_least_squares",
        "support",
        lambda: sbl.oracle_least_squares(_factors(), _y(), _masks()[:1]),
        "one mask for each",
    ),
    Case(
        "sbl.oracle_least_squares",
        "support",
        lambda: sbl.oracle_least_squares(ops.Kron(*_factors()), _y(), ([0, 1], [0, 1])),
        "booleans",
    ),
    # Simulators
    Case(SPARSE, "key", lambda: datasets.kron_sparse(_wrong(0)), "jax.random.key"),
    Case(
        SPARSE,
        "rows",
        lambda: _sparse(rows=(0, 3, 2)),
        COUNT,
    ),
    Case(
        SPARSE,
        "columns",
        lambda: _sparse(columns=(9,)),
        "each",
    ),
    Case(
        SPARSE,
        "num_active",
        lambda: _sparse(num_active=16),
        "more",
    ),
    Case(SPARSE, "dtype", lambda: _sparse(dtype=int), "floating"),
    Case(IRS, "dtype", lambda: _irs(dtype=float), "complex"),
    Case(IRS, "angular_spread", lambda: _irs(angular_spread=99), "num_angles"),
    Case(
        IRS,
        "num_pilots",
        lambda: _irs(num_pilots=0),
        COUNT,
    ),
)
