"""Mistakes with the fit loop, its checkpoints and labelled results."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import bayesjx
from bayesjx import interop
from benchmarks.bad_input._case import Case


class _Info(NamedTuple):
    objective: Any


def _step(key, state, *data):
    del key, data
    return state * 0.5, _Info(jnp.sum(state))


def _fit(**changes):
    arguments = {
        "key": jax.random.key(0),
        "algorithm": bayesjx.Algorithm(lambda: jnp.ones(3), _step),
        "state": jnp.ones(3),
        "num_steps": 4,
        **changes,
    }
    return bayesjx.fit(**arguments)


def _stepping(step):
    return lambda: _fit(algorithm=bayesjx.Algorithm(lambda: jnp.ones(3), step))


def _file(content: bytes = b"") -> Path:
    path = Path(tempfile.mkdtemp()) / "fit"
    path.write_bytes(content)
    return path


def _saved() -> Path:
    path = Path(tempfile.mkdtemp()) / "fit"
    _fit(checkpoint=path)
    return path


def _truncated() -> Path:
    path = _saved()
    path.write_bytes(path.read_bytes()[:-3])
    return path


def _tree(posterior=None, **options):
    return lambda: bayesjx.to_datatree(posterior, **options)


_DRAWS = {"a": np.zeros((6, 2))}
_SHRINKING = lambda step: (np.zeros(3 + step),)  # noqa: E731

CASES = (
    Case("fit", "throw", lambda: _fit(throw="no"), "True or False"),
    Case("fit", "num_steps", lambda: _fit(num_steps=0), "from 1 to"),
    Case("fit", "num_steps", lambda: _fit(num_steps=-5), "from 1 to"),
    Case("fit", "num_steps", lambda: _fit(num_steps=2.5), "must be an int"),
    Case("fit", "num_steps", lambda: _fit(num_steps=True), "must be an int"),
    Case("fit", "num_steps", lambda: _fit(num_steps="100"), "must be an int"),
    Case("fit", "num_steps", lambda: _fit(num_steps=2**40), "from 1 to"),
    Case("fit", "key", lambda: _fit(key=0), "PRNG key"),
    Case("fit", "key", lambda: _fit(key=jax.random.split(jax.random.key(0))), "split"),
    Case("fit", "key", lambda: _fit(key=jnp.zeros(2)), "PRNG key"),
    Case("fit", "key", lambda: _fit(key=None), "PRNG key"),
    Case("fit", "state", lambda: _fit(state={"a": "text"}), r"state\['a'\] must be an array"),
    Case("fit", "state", lambda: _fit(state={"a": 1.0}), r"jnp.asarray"),
    Case("fit", "state", _stepping(lambda key, s: (s[:2], None)), r"changes state from .*\[3\]"),
    Case("fit", "state", _stepping(lambda key, s: (s.astype("float32"), None)), "float32"),
    Case("fit", "state", _stepping(lambda key, s: ((s, s), None)), "structure of the state"),
    Case("fit", "step", _stepping(lambda key, s: s), "state, info"),
    Case("fit", "step", _stepping(lambda key, s: (s, s, s)), "state, info"),
    Case("fit", "objective", _stepping(lambda key, s: (s, _Info(s))), "must be a scalar"),
    Case("fit", "objective", _stepping(lambda key, s: (s, _Info(s[0] / 0.0))), "not finite|is inf"),
    Case("fit", "state", _stepping(lambda key, s: (s * jnp.nan, None)), "nan in 3"),
    Case("fit", "algorithm", lambda: _fit(algorithm=_step), "Algorithm"),
    Case("fit", "algorithm", lambda: _fit(algorithm=None), "Algorithm"),
    Case("fit", "data", lambda: _fit(data=jnp.ones(3)), "must be a tuple"),
    Case("fit", "data", lambda: _fit(data=[jnp.ones(3)]), "must be a tuple"),
    Case("fit", "data", lambda: _fit(data=("text",)), r"data\[0\] must be an array"),
    Case("fit", "data", lambda: _fit(data=(jnp.ones((0, 3)),)), r"data\[0\] is empty"),
    Case("fit", "batches", lambda: _fit(batches=lambda step: np.ones(3)), "must return a tuple"),
    Case("fit", "batches", lambda: _fit(batches=lambda step: ("text",)), "must be an array"),
    Case("fit", "batches", lambda: _fit(batches=lambda step: (np.ones(0),)), "is empty"),
    Case("fit", "batches", lambda: _fit(batches=_SHRINKING), "need the same shapes"),
    Case("fit", "batches", lambda: _fit(batches=(np.ones(3),)), "function of the step"),
    Case("fit", "chunk_size", lambda: _fit(chunk_size=0), "from 1 to"),
    Case("fit", "chunk_size", lambda: _fit(chunk_size=1.5), "must be an int"),
    Case("fit", "check_finite", lambda: _fit(check_finite="all"), "'state', 'objective'"),
    Case("fit", "check_finite", lambda: _fit(check_finite=True), "'state', 'objective'"),
    Case("fit", "callback", lambda: _fit(callback="stop"), "callable"),
    Case("fit", "checkpoint_every", lambda: _fit(checkpoint_every=-1.0), "at least 0 seconds"),
    Case("fit", "checkpoint_every", lambda: _fit(checkpoint_every="1 min"), "at least 0 seconds"),
    Case("fit", "checkpoint", lambda: _fit(checkpoint=tempfile.mkdtemp()), "is a folder"),
    Case("fit", "checkpoint", lambda: _fit(checkpoint=_file() / "fit"), "cannot be written"),
    Case("fit", "checkpoint", lambda: _fit(checkpoint=3), "name of a file"),
    Case("fit", "checkpoint", lambda: _fit(checkpoint=_file(b"a,b\n" * 9)), "not a checkpoint"),
    Case("fit", "key", lambda: _fit(checkpoint=_saved(), key=jax.random.key(1)), "another key"),
    Case("fit", "state", lambda: _fit(checkpoint=_saved(), state=jnp.zeros(3)), "initial state"),
    Case("fit", "data", lambda: _fit(checkpoint=_saved(), data=(jnp.ones(2),)), "other data"),
    Case("fit", "num_steps", lambda: _fit(checkpoint=_saved(), num_steps=2), "4 steps already"),
    Case(
        "interop.load_checkpoint",
        "state",
        lambda: interop.load_checkpoint(_saved(), jnp.ones(2)),
        r"expected float64\[2\]",
    ),
    Case(
        "interop.load_checkpoint",
        "state",
        lambda: interop.load_checkpoint(_saved(), {"a": 1.0}),
        "structure",
    ),
    Case(
        "interop.load_checkpoint",
        "fit",
        lambda: interop.load_checkpoint(_truncated(), None),
        "truncated",
    ),
    Case(
        "interop.describe_checkpoint",
        "fit",
        lambda: interop.describe_checkpoint(_file(b"x")),
        "not a checkpoint",
    ),
    Case("stop_when_flat", "window", lambda: bayesjx.stop_when_flat(1), "window >= 2"),
    Case("stop_when_flat", "window", lambda: bayesjx.stop_when_flat(2.5), "int window"),
    Case("stop_when_flat", "rtol", lambda: bayesjx.stop_when_flat(rtol=-1.0), "rtol >= 0"),
    Case("stop_when_flat", "rtol", lambda: bayesjx.stop_when_flat(rtol=np.nan), "rtol >= 0"),
    Case(
        "stop_when_flat",
        "objective",
        lambda: _fit(
            algorithm=bayesjx.Algorithm(len, lambda key, s: (s, None)),
            callback=bayesjx.stop_when_flat(2),
        ),
        "field `objective`",
    ),
    Case(
        "configure_cpu",
        "configure_cpu",
        lambda: (jnp.ones(3) + 1, bayesjx.configure_cpu()),
        "before the first computation",
    ),
    Case("to_datatree", "posterior", _tree(np.zeros((6, 2))), "by site name"),
    Case("to_datatree", "posterior", _tree({"a": np.float64(3.0)}), "must have draws"),
    Case("to_datatree", "posterior", _tree({"a": "text"}), "array of numbers"),
    Case("to_datatree", "b", _tree({"a": np.zeros((6, 2)), "b": np.zeros(5)}), "length"),
    Case("to_datatree", "num_chains", _tree(_DRAWS, num_chains=4), "cannot be divided"),
    Case("to_datatree", "num_chains", _tree(_DRAWS, num_chains=0), "num_chains"),
    Case("to_datatree", "num_chains", _tree(_DRAWS, num_chains=2, chain_axis=0), "not both"),
    Case("to_datatree", "chain_axis", _tree(_DRAWS, chain_axis=2), "0 or 1"),
    Case("to_datatree", "dims", _tree(_DRAWS, dims={"b": ["x"]}), "variables are"),
    Case("to_datatree", "dims", _tree(_DRAWS, dims={"a": ["x", "y"]}), "names 2 dimensions"),
    Case("to_datatree", "dims", _tree(_DRAWS, dims={"a": "x2"}), "list of names"),
    Case("to_datatree", "coords", _tree(_DRAWS, dims={"a": ["x"]}, coords={"x": [1]}), "1 labels"),
    Case("to_datatree", "coords", _tree(_DRAWS, coords={"y": [1]}), "dimensions are"),
    Case("to_datatree", "a/b", _tree({"a/b": np.zeros(6)}), "rename the variable"),
    Case("to_datatree", "fit", _tree(_DRAWS, fit=3), "FitResult"),
)
