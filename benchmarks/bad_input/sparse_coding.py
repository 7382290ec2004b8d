"""Mistakes in calls of the sparse coding models of `bayesjx.sbl`, and of the bars they learn."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import numpy as np

from bayesjx import datasets, sbl
from benchmarks.bad_input._case import Case

N, D, H = 11, 5, 3
NAN = float("nan")
KEY = jax.random.key(0)


def _y(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape or (N, D))


def _weights(*shape: int) -> np.ndarray:
    return np.abs(_y(*(shape or (H, D))))


def _bsc(**options: Any) -> sbl.BSC:
    return sbl.BSC(_weights(), 1.0, 0.2, **options)


def _holes() -> np.ndarray:
    return np.where(np.arange(N)[:, None] == 2, NAN, _y())


def _step(y: Any, **options: Any) -> Any:
    algorithm = sbl.truncated_em(_bsc(), **options)
    return jax.block_until_ready(eqx.filter_jit(algorithm.step)(KEY, algorithm.init(), y))


def _learn(y: Any = None, num_causes: Any = H, **options: Any) -> Any:
    return sbl.learn_dictionary(KEY, sbl.BSC, _y() if y is None else y, num_causes, **options)


def _of_each(argument: str, call: Any, expected: str) -> list[Case]:
    kinds = (sbl.BSC, sbl.TSC, sbl.DSC, sbl.MCA, sbl.MMCA, sbl.GSC)
    return [
        Case(f"sbl.{kind.__name__}", argument, lambda kind=kind: call(kind), expected)
        for kind in kinds
    ]


CASES: tuple[Case, ...] = (
    *_of_each("weights", lambda kind: kind(_weights()[0], 1.0, 0.1), "\\(h, d\\)"),
    *_of_each("weights", lambda kind: kind(_weights() * NAN, 1.0, 0.1), "NaN"),
    *_of_each("noise_var", lambda kind: kind(_weights(), 0.0, 0.1), "positive"),
    *_of_each("noise_var", lambda kind: kind(_weights(), _y(2), 0.1), "scalar"),
    *_of_each("max_active", lambda kind: kind(_weights(), 1.0, 0.1, max_active=4), "at most 3"),
    *_of_each(
        "num_candidates", lambda kind: kind(_weights(), 1.0, 0.1, num_candidates=4), "3 causes"
    ),
    *_of_each(
        "num_candidates",
        lambda kind: kind(_weights(40, 2), 1.0, 0.1, num_candidates=40, max_active=9),
        "take fewer",
    ),
    *_of_each("y", lambda kind: kind.at_data(KEY, _y(N), H), "\\(n, d\\)"),
    *_of_each("y", lambda kind: kind.at_data(KEY, _holes(), H), "NaN"),
    *_of_each("num_causes", lambda kind: kind.at_data(KEY, _y(), 0), "at least 1"),
    *_of_each("key", lambda kind: kind.at_data(0, _y(), H), "PRNG key"),
    *_of_each("y", lambda kind: kind(_weights(), 1.0, 0.1).posterior(_y(D, N)), "transposed"),
    Case("sbl.BSC", "prior_prob", lambda: sbl.BSC(_weights(), 1.0, 1.0), "open|between|constraint"),
    Case("sbl.BSC", "prior_prob", lambda: sbl.BSC(_weights(), 1.0, [0.1, 0.2]), "scalar"),
    Case("sbl.GSC", "prior_prob", lambda: sbl.GSC(_weights(), 1.0, _y(2)), "\\(3,\\)"),
    Case("sbl.GSC", "slab_var", lambda: sbl.GSC(_weights(), 1.0, 0.1, 0.0, -1.0), "positive"),
    Case("sbl.MCA", "weights", lambda: sbl.MCA(-_weights(), 1.0, 0.1), "negative"),
    Case("sbl.DSC", "prior_probs", lambda: sbl.DSC(_weights(), 1.0, [0.6, 0.5]), "sum"),
    Case("sbl.DSC", "values", lambda: sbl.DSC(_weights(), 1.0, 0.1, values=(0.0, 1.0)), "0"),
    Case("sbl.DSC", "values", lambda: sbl.DSC(_weights(), 1.0, 0.1, values=("a",)), "numbers"),
    Case("sbl.BSC.log_evidence", "y", lambda: _bsc().log_evidence(_y(0, D)), "empty"),
    Case("sbl.BSC.log_evidence", "y", lambda: _bsc().log_evidence(_y() + 1j), "real"),
    Case("sbl.BSC.log_evidence", "y", lambda: _bsc().log_evidence([["a"] * D]), "array of numbers"),
    Case("sbl.BSC.reconstruct", "y", lambda: _bsc().reconstruct(_holes()), "NaN"),
    Case("sbl.BSC.reconstruct", "y", lambda: eqx.filter_jit(_bsc().reconstruct)(_holes()), "NaN"),
    Case("sbl.BSC.posterior", "top_k", lambda: _bsc().posterior(_y(), 0), "at least 1"),
    Case("sbl.BSC.posterior", "top_k", lambda: _bsc().posterior(_y(), 9), "8 states"),
    Case("sbl.BSC.sample", "sample_shape", lambda: _bsc().sample(KEY, 3), "tuple"),
    Case("sbl.BSC.sample", "key", lambda: _bsc().sample(3), "PRNG key"),
    Case("sbl.truncated_em", "model", lambda: sbl.truncated_em(sbl.BSC), "such as sbl.BSC"),
    Case("sbl.truncated_em", "temperature", lambda: _step(_y(), temperature=0.0), "from 1"),
    Case("sbl.truncated_em", "cut", lambda: _step(_y(), cut=-1.0), "from 0 to 1"),
    Case("sbl.truncated_em", "jitter", lambda: _step(_y(), jitter=-1.0), "from 0"),
    Case("sbl.truncated_em", "step_size", lambda: _step(_y(), step_size=2.0), "from 0 to 1"),
    Case("sbl.truncated_em", "chunk_size", lambda: _step(_y(), chunk_size=0), "at least 1"),
    Case("sbl.truncated_em", "y", lambda: _step(_y(N, 2)), "\\(n, 5\\)"),
    Case("sbl.truncated_em", "y", lambda: _step(_y(0, D)), "empty"),
    Case("sbl.truncated_em", "y", lambda: _step(_holes()), "NaN"),
    Case(
        "sbl.learn_dictionary", "kind", lambda: sbl.learn_dictionary(KEY, _bsc(), _y(), 3), "class"
    ),
    Case("sbl.learn_dictionary", "y", lambda: _learn(_y(0, D)), "empty"),
    Case("sbl.learn_dictionary", "y", lambda: _learn(_holes()), "NaN"),
    Case("sbl.learn_dictionary", "num_causes", lambda: _learn(num_causes=2.5), "integer"),
    Case("sbl.learn_dictionary", "temperature", lambda: _learn(temperature=0.0), "from 1"),
    Case("sbl.learn_dictionary", "jitter", lambda: _learn(jitter=-1.0), "from 0"),
    Case("sbl.learn_dictionary", "max_steps", lambda: _learn(max_steps=0), "at least 1"),
    Case("sbl.learn_dictionary", "anneal_steps", lambda: _learn(anneal_steps=0), "at least 1"),
    Case("sbl.learn_dictionary", "rtol", lambda: _learn(rtol=NAN), "from 0"),
    Case("sbl.learn_dictionary", "reseeds", lambda: _learn(reseeds=-1), "at least 0"),
    Case("datasets.bars", "num_data", lambda: datasets.bars(KEY, 0), "at least 1"),
    Case("datasets.bars", "key", lambda: datasets.bars(0, 5), "PRNG key"),
    Case("datasets.bars", "prior_prob", lambda: datasets.bars(KEY, 5, prior_prob=1.5), "between"),
    Case("datasets.bars", "noise_var", lambda: datasets.bars(KEY, 5, noise_var=-1.0), "negative"),
    Case("datasets.bars", "values", lambda: datasets.bars(KEY, 5, values=()), "numbers"),
)
