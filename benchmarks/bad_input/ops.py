"""What users pass to `bayesjx.ops` by mistake."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np

from bayesjx import ops as _ops
from benchmarks.bad_input._case import Case, COUNT

ops: Any = _ops  # what is passed is of a wrong type on purpose


def _spd(n: int, dtype: Any = jnp.float64) -> jax.Array:
    return jnp.asarray(0.5 ** np.abs(np.subtract.outer(range(n), range(n))), dtype)


def _kron() -> Any:
    return ops.Kron(_spd(2), _spd(3), tags=ops.psd)


def _noisy() -> Any:
    return _kron() + ops.ScaledIdentity(0.5)


def _dense() -> Any:
    return ops.Dense(_spd(4), ops.psd)


def _key() -> jax.Array:
    return jax.random.key(0)


def _grouped(index: Any = ((0, 2), (1, 3)), **options: Any) -> Any:
    return ops.grouped_product(jnp.ones((2, 2, 3)), np.asarray(index), jnp.ones((5, 4)), **options)


def _moments(var: Any = None, index: Any = ((0, 2), (1, 3)), x: Any = None) -> Any:
    mean = jnp.ones((2, 2, 3))
    x = jnp.ones((5, 4)) if x is None else x
    return ops.grouped_moments(mean, mean if var is None else var, np.asarray(index), x)


def _blocks(rows: Any = (0, 1), cols: Any = (1, 0), num_cols: Any = 6, x: Any = None) -> Any:
    x = jnp.ones((4, 5)) if x is None else x
    return ops.block_product(jnp.ones((2, 2, 3)), np.array(rows), np.array(cols), x, num_cols)


def _entries(index: Any = ((0, 1, 2), (3, 3, 0)), x: Any = None) -> Any:
    x = jnp.ones((4, 5)) if x is None else x
    return ops.entry_product(jnp.ones((2, 3)), np.asarray(index), x)


def _layout() -> Any:
    return ops.GroupedColumns.from_indices((5, 6), [[0, 2], [1, 3]], jnp.ones((2, 2, 3)))


def _jitted(function: Callable[..., Any], *args: Any) -> Any:
    return jax.block_until_ready(eqx.filter_jit(function)(*args))


_MASK = np.array([True, True, False, True, True, True])
_BLOCKS = jnp.stack([2 * _spd(2)] * 3)
_BELOW = jnp.zeros((2, 2, 2))

_MATRICES = (
    Case("ops.Dense", "matrix", lambda: ops.Dense(jnp.ones(3)), "two axes"),
    Case("ops.Dense", "matrix", lambda: ops.Dense(jnp.eye(3, dtype=int)), "floating-point"),
    Case("ops.Dense", "matrix", lambda: ops.Dense([[1.0, 2.0], [3.0]]), "must be an array"),
    Case("ops.Dense", "tags", lambda: ops.Dense(_spd(3), "psd"), "ops.psd"),
    Case("ops.Dense", "tags", lambda: ops.Dense(_spd(3), None), "ops.psd"),
    Case("ops.Dense", "tags", lambda: ops.Dense(_spd(3), True), "ops.psd"),
    Case("ops.Dense", "matrix", lambda: ops.Dense(-_spd(3), ops.psd).logdet(), "positive definite"),
    Case("ops.Dense", "jitter", lambda: ops.Dense(_spd(3), ops.psd, "much"), "scalar"),
    Case("ops.Diag", "entries", lambda: ops.Diag(jnp.eye(3)), "one axis"),
    Case("ops.Diag", "entries", lambda: ops.Diag(jnp.arange(3)), "floating-point"),
    Case("ops.Diag", "entries", lambda: ops.Diag(0.3), "one axis"),
    Case("ops.ScaledIdentity", "scale", lambda: ops.ScaledIdentity(jnp.ones(3)), "scalar"),
    Case("ops.ScaledIdentity", "scale", lambda: ops.ScaledIdentity(1), "floating-point"),
    Case("ops.ScaledIdentity", "scale", lambda: ops.ScaledIdentity("a"), "must be an array"),
    Case("ops.ScaledIdentity", "size", lambda: ops.ScaledIdentity(0.1, -2), "at least 0"),
    Case("ops.ScaledIdentity", "size", lambda: ops.ScaledIdentity(0.1, 2.5), "integer"),
    Case("ops.ScaledIdentity", "size", lambda: ops.ScaledIdentity(0.1).logdet(), "open"),
    Case("ops.ScaledIdentity", "size", lambda: ops.ScaledIdentity(0.1).mv(jnp.ones(3)), "open"),
    Case("ops.ScaledIdentity", "size", lambda: ops.ScaledIdentity(0.1).sample(_key()), "open"),
    Case("ops.LowRank", "left", lambda: ops.LowRank(jnp.ones(3)), r"\(n, r\)"),
    Case("ops.LowRank", "right", lambda: ops.LowRank(jnp.ones((3, 2)), jnp.ones((2, 3))), "r"),
    Case("ops.LowRank", "logdet", lambda: ops.LowRank(jnp.ones((3, 2))).logdet(), "has no logdet"),
    Case(
        "ops.LowRankPlusDiag",
        "diagonal",
        lambda: ops.LowRankPlusDiag(jnp.ones((3, 2)), jnp.ones(2)),
        r"\(n,\)",
    ),
    Case(
        "ops.LowRankPlusDiag",
        "diagonal",
        lambda: ops.LowRankPlusDiag(jnp.ones((3, 2)), jnp.array([1.0, 0.0, 1.0])),
        r"\[1\] is not positive",
    ),
    Case(
        "ops.LowRankPlusDiag",
        "factor",
        lambda: ops.LowRankPlusDiag(jnp.ones((3, 2), jnp.float32), jnp.ones(3)),
        "one type",
    ),
    Case("ops.Toeplitz", "column", lambda: ops.Toeplitz(_spd(3)), r"\(n,\)"),
    Case("ops.Toeplitz", "column", lambda: ops.Toeplitz(jnp.zeros(0)), "n > 0"),
    Case(
        "ops.Toeplitz", "column", lambda: ops.Toeplitz(jnp.array([1.0, 2.0])), "positive definite"
    ),
    Case("ops.Toeplitz", "column", lambda: ops.Toeplitz(jnp.arange(3)), "floating-point"),
    Case(
        "ops.Toeplitz",
        "tag",
        lambda: ops.Toeplitz(jnp.array([1.0, 2.0]), ops.symmetric).solve(jnp.ones(2)),
        "ops.psd",
    ),
    Case("ops.BlockDiag", "blocks", lambda: ops.BlockDiag(_spd(3)), r"\(T, m, n\)"),
    Case("ops.BlockDiag", "blocks", lambda: ops.BlockDiag([_spd(3), _spd(2)]), "ops.Dense"),
    Case("ops.BlockDiag", "blocks", lambda: ops.BlockDiag(()), "operators"),
    Case("ops.BlockDiag", "tags", lambda: ops.BlockDiag((_dense(),), ops.psd), "operators"),
    Case(
        "ops.BlockDiag",
        "parts",
        lambda: ops.BlockDiag((_dense(), ops.Diag(jnp.ones(2, jnp.float32)))),
        "one type",
    ),
    Case("ops.BlockTridiag", "lower", lambda: ops.BlockTridiag(_BLOCKS, _BLOCKS), r"\(T - 1"),
    Case("ops.BlockTridiag", "diagonal", lambda: ops.BlockTridiag(_spd(3), _BELOW), r"\(T, b, b\)"),
    Case("ops.BlockTridiag", "block", lambda: ops.BlockTridiag(-_BLOCKS, _BELOW), "block 0"),
    Case(
        "ops.BlockTridiag",
        "lower",
        lambda: ops.BlockTridiag(_BLOCKS, _BELOW.astype(jnp.float32)),
        "one type",
    ),
    Case("ops.BlockTridiag", "parallel", lambda: ops.BlockTridiag(_BLOCKS, _BELOW, "yes"), "bool"),
    Case("ops.BlockBidiag", "lower", lambda: ops.BlockBidiag(_BLOCKS, _BLOCKS), r"\(T - 1"),
)

_GRIDS = (
    Case("ops.Kron", "factor", lambda: ops.Kron(), "at least one"),
    Case("ops.Kron", "factor 1", lambda: ops.Kron(_spd(2), jnp.ones(3)), "must be a matrix"),
    Case("ops.Kron", "factor 1", lambda: ops.Kron(_spd(2), _spd(3, jnp.float32)), "one type"),
    Case("ops.Kron", "factor 0", lambda: ops.Kron(jnp.ones((2, 3)), tags=ops.psd), "square"),
    Case("ops.Kron", "factor 0", lambda: ops.Kron([_spd(2), _spd(3)]), "must be an array"),
    Case("ops.Kron", "size", lambda: ops.Kron(_spd(2), ops.ScaledIdentity(0.1)), "open"),
    Case(
        "ops.Kron",
        "tags",
        lambda: ops.Kron(_spd(2), _spd(3), tags=lx.tridiagonal_tag),
        "tridiagonal",
    ),
    Case("ops.Kron.eigh", "tags", lambda: ops.Kron(_spd(2), _spd(3)).eigh(), "ops.psd"),
    Case("ops.Kron.root", "tags", lambda: ops.Kron(_spd(2), _spd(3)).root(), "ops.psd"),
    Case("ops.Kron.trace", "trace", lambda: ops.Kron(jnp.ones((2, 3))).trace(), "square"),
    Case("ops.KronSum", "factor 0", lambda: ops.KronSum(jnp.ones((2, 3))), "square"),
    Case("ops.KronSum", "factor 1", lambda: ops.KronSum(_spd(2), jnp.eye(3, k=1)), "symmetric"),
    Case("ops.KronSum", "factor", lambda: ops.KronSum(), "at least one"),
    Case("ops.KronSum", "factor 1", lambda: ops.KronSum(_spd(2), _spd(3, jnp.float32)), "one type"),
    Case(
        "ops.KhatriRao",
        "factors",
        lambda: ops.KhatriRao(jnp.ones((2, 3)), jnp.ones((3, 3))),
        "rows",
    ),
    Case("ops.KhatriRao", "factors", lambda: ops.KhatriRao(), "matrices"),
    Case("ops.HStack", "parts", lambda: ops.HStack(), "at least one"),
    Case("ops.HStack", "parts", lambda: ops.HStack(_dense(), _spd(4)), "ops.Dense"),
    Case("ops.HStack", "parts", lambda: ops.HStack(_dense(), _kron()), "number of rows"),
    Case("ops.VStack", "parts", lambda: ops.VStack(_dense(), _kron()), "number of columns"),
    Case(
        "ops.VStack",
        "parts",
        lambda: ops.VStack(_dense(), ops.Dense(_spd(4, jnp.float32))),
        "one type",
    ),
    Case(
        "ops.KronPlusNoise",
        "tags",
        lambda: ops.Kron(_spd(2), _spd(3)) + ops.ScaledIdentity(0.1),
        "ops.psd",
    ),
    Case(
        "ops.KronPlusNoise",
        "noise",
        lambda: ops.KronPlusNoise(_kron(), jnp.float64(0.1)),
        "ScaledIdentity",
    ),
    Case("ops.KronPlusNoise", "signal", lambda: ops.KronPlusNoise(_dense(), _dense()), "Kron"),
    Case("ops.KronPlusDiag", "noise", lambda: ops.KronPlusDiag(_kron(), jnp.ones(5)), r"\(6,\)"),
    Case(
        "ops.KronPlusDiag", "variances", lambda: ops.KronPlusDiag(_kron(), -jnp.ones(6)), "positive"
    ),
    Case(
        "ops.KronPlusDiag",
        "rtol",
        lambda: ops.KronPlusDiag(_kron(), jnp.ones(6), rtol=-1.0),
        "positive",
    ),
    Case(
        "ops.KronPlusDiag",
        "max_steps",
        lambda: ops.KronPlusDiag(_kron(), jnp.ones(6), max_steps=0),
        COUNT,
    ),
    Case(
        "ops.KronPlusDiag.logdet",
        "stochastic_logdet",
        lambda: ops.KronPlusDiag(_kron(), jnp.ones(6)).logdet(),
        "estimate",
    ),
    Case("ops.Masked", "full", lambda: ops.Masked(_dense(), np.ones(4, bool)), "Kron plus noise"),
    Case("ops.Masked", "mask", lambda: ops.Masked(_noisy(), np.ones(5, bool)), r"\(6,\)"),
    Case("ops.Masked", "mask", lambda: ops.Masked(_noisy(), np.ones(6)), "booleans"),
    Case("ops.Masked", "mask", lambda: ops.Masked(_noisy(), np.zeros(6, bool)), "all false"),
    Case("ops.Masked", "solver", lambda: ops.Masked(_noisy(), _MASK, solver="exact"), "schur"),
    Case("ops.Masked", "logdet", lambda: ops.Masked(_noisy(), _MASK, logdet="slq"), "lanczos"),
    Case("ops.Masked", "key", lambda: ops.Masked(_noisy(), _MASK, logdet="lanczos"), "probes"),
    Case("ops.Masked", "rtol", lambda: ops.Masked(_noisy(), _MASK, rtol=0.0), "positive"),
    Case("ops.Masked", "max_steps", lambda: ops.Masked(_noisy(), _MASK, max_steps=2.5), "integer"),
    Case(
        "ops.Masked",
        "mask",
        lambda: _jitted(lambda mask: ops.Masked(_noisy(), mask).logdet(), _MASK),
        "known when traced",
    ),
    Case(
        "ops.Masked.marginal_variance",
        "prior",
        lambda: ops.Masked(_noisy(), _MASK).marginal_variance(_kron(), jnp.ones(5)),
        r"\(6,\)",
    ),
    Case(
        "ops.KronPlusNoise.marginal_variance",
        "prior",
        lambda: _noisy().marginal_variance(_kron(), jnp.ones(1)),
        r"\(6,\)",
    ),
    Case(
        "ops.KronPlusNoise.marginal_variance",
        "cross",
        lambda: _noisy().marginal_variance(
            ops.Kron(jnp.ones((2, 3)), jnp.ones((3, 2))), jnp.ones(6)
        ),
        r"\(2, 3\)",
    ),
    Case(
        "ops.KronPlusNoise.marginal_variance",
        "cross",
        lambda: _noisy().marginal_variance(jnp.ones((6, 6)), jnp.ones(6)),
        "Kron",
    ),
)

_METHODS = (
    Case("ops.AbstractOperator.mv", "vector", lambda: _dense().mv(jnp.ones(3)), r"\(4,\)"),
    Case("ops.AbstractOperator.mv", "vector", lambda: _dense().mv(jnp.ones(4, int)), "int"),
    Case("ops.AbstractOperator.mv", "vector", lambda: _dense().mv("abcd"), r"\(4,\)"),
    Case("ops.AbstractOperator.mm", "x", lambda: _dense().mm(jnp.ones(4)), r"\(4, k\)"),
    Case("ops.AbstractOperator.mm", "x", lambda: _dense() @ jnp.ones((4, 2, 2)), r"\(4, k\)"),
    Case("ops.AbstractOperator.mm", "x", lambda: jnp.ones((2, 3)) @ _dense(), r"\(\.\.\., 4\)"),
    Case("ops.AbstractOperator.mm", "x", lambda: 2.0 @ _dense(), r"\(\.\.\., 4\)"),
    Case(
        "ops.AbstractOperator.solve", "b", lambda: _dense().solve(jnp.ones((4, 2, 2))), r"\(4, k\)"
    ),
    Case("ops.AbstractOperator.solve", "b", lambda: _dense().solve(jnp.ones(4, "f4")), "float32"),
    Case(
        "ops.AbstractOperator.solve", "solver", lambda: _dense().solve(jnp.ones(4), "cg"), "lineax"
    ),
    Case(
        "ops.AbstractOperator.solve",
        "solve",
        lambda: ops.Dense(jnp.ones((2, 3))).solve(jnp.ones(2)),
        "square",
    ),
    Case("ops.AbstractOperator.diag", "diag", lambda: ops.Kron(jnp.ones((2, 3))).diag(), "square"),
    Case("ops.AbstractOperator.sample", "shape", lambda: _dense().sample(_key(), 3), "tuple"),
    Case(
        "ops.AbstractOperator.sample", "shape", lambda: _dense().sample(_key(), (-1,)), "integers"
    ),
    Case(
        "ops.AbstractOperator.sample", "shape", lambda: _dense().sample(_key(), (2.5,)), "integers"
    ),
    Case("ops.AbstractOperator.sample", "key", lambda: _dense().sample(0), "jax.random.key"),
    Case("ops.AbstractOperator.sample", "key", lambda: _dense().sample(None), "jax.random.key"),
    Case(
        "ops.AbstractOperator.sample",
        "key",
        lambda: _dense().sample(jax.random.split(_key(), 2)),
        "jax.random.key",
    ),
    Case(
        "ops.AbstractOperator.sample_inverse",
        "tags",
        lambda: ops.Dense(_spd(3)).sample_inverse(_key()),
        "ops.psd",
    ),
    Case(
        "ops.AbstractOperator.inv_quad_logdet",
        "y",
        lambda: _dense().inv_quad_logdet(jnp.ones(3)),
        r"\(4,\)",
    ),
    Case(
        "ops.AbstractOperator.inv_quad_logdet",
        "tags",
        lambda: (-_dense()).inv_quad_logdet(jnp.ones(4)),
        "ops.psd",
    ),
    Case("A + B", "sizes", lambda: _dense() + ops.Diag(jnp.ones(3)), r"\(4, 4\).*\(3, 3\)"),
    Case("A + B", "sizes", lambda: ops.Diag(jnp.ones(3)) + ops.ScaledIdentity(0.1, 5), r"\(5, 5\)"),
    Case("A + B", "types", lambda: _dense() + ops.Diag(jnp.ones(4, "f4")), "float64 and float32"),
    Case("A + B", "Dense", lambda: _dense() + _spd(4), "ops.Dense"),
    Case("A + B", "Dense", lambda: _dense() + 0.1, "ops.ScaledIdentity"),
    Case("A - B", "Dense", lambda: _dense() - 0.1, "ops.ScaledIdentity"),
    Case("A @ B", "columns", lambda: _dense() @ _kron(), "rows differ"),
    Case("c * A", "scalar", lambda: jnp.ones(2) * _dense(), "real number"),
    Case("c * A", "scalar", lambda: _dense() * 1j, "real number"),
    Case("c * A", "scalar", lambda: _dense() * _dense(), "@"),
    Case("c * A", "scalar", lambda: _dense() * jnp.float32(2.0), "types differ"),
    Case("A / c", "scalar", lambda: _dense() / 0, "by zero"),
    Case(
        "ops.stochastic_logdet",
        "num_probes",
        lambda: ops.stochastic_logdet(_key(), _dense(), 1),
        "2",
    ),
    Case(
        "ops.stochastic_logdet",
        "num_probes",
        lambda: ops.stochastic_logdet(_key(), _dense(), 2.5),
        "integer",
    ),
    Case(
        "ops.stochastic_logdet",
        "num_steps",
        lambda: ops.stochastic_logdet(_key(), _dense(), 3, 0),
        "1",
    ),
    Case(
        "ops.stochastic_logdet",
        "key",
        lambda: ops.stochastic_logdet(None, _dense()),
        "jax.random.key",
    ),
    Case(
        "ops.stochastic_logdet",
        "operator",
        lambda: ops.stochastic_logdet(_key(), _spd(4)),
        "ops.Dense",
    ),
    Case(
        "ops.stochastic_logdet",
        "tags",
        lambda: ops.stochastic_logdet(_key(), ops.Dense(_spd(4))),
        "ops.psd",
    ),
    Case(
        "ops.stochastic_logdet",
        "preconditioner",
        lambda: ops.stochastic_logdet(_key(), _dense(), preconditioner=_kron()),
        r"\(4, 4\)",
    ),
)

_SPARSE = (
    Case("ops.block_product", "rows", lambda: _blocks(rows=(0, 2)), r"\[0, 2\)"),
    Case("ops.block_product", "cols", lambda: _blocks(cols=(-1, 0)), r"\[0, 2\)"),
    Case("ops.block_product", "cols", lambda: _blocks(cols=(0.0, 1.0)), "integers"),
    Case("ops.block_product", "rows", lambda: _blocks(rows=(0, 1, 1)), r"\(S,\)"),
    Case("ops.block_product", "shape", lambda: _blocks(num_cols=7), "whole number"),
    Case("ops.block_product", "num_cols", lambda: _blocks(num_cols=0), COUNT),
    Case("ops.block_product", "x", lambda: _blocks(x=jnp.ones(4)), r"\(K, M\)"),
    Case("ops.block_product", "x", lambda: _blocks(x=jnp.ones((4, 5), "f4")), "one type"),
    Case(
        "ops.block_product",
        "rows",
        lambda: _jitted(
            lambda rows, x: ops.block_product(jnp.ones((2, 2, 3)), rows, np.array([0, 1]), x, 6),
            jnp.array([0, 2]),
            jnp.ones((4, 5)),
        ),
        r"\[0, 2\)",
    ),
    Case("ops.entry_product", "index", lambda: _entries(index=((0, 1, 2), (3, 4, 0))), r"\[0, 4\)"),
    Case(
        "ops.entry_product", "index", lambda: _entries(index=((0, 1, -1), (3, 3, 0))), r"\[0, 4\)"
    ),
    Case("ops.entry_product", "index", lambda: _entries(index=((0, 1, 2),)), r"\(E, N\)"),
    Case("ops.entry_product", "x", lambda: _entries(x=jnp.ones(4)), r"\(K, M\)"),
    Case("ops.grouped_product", "index", lambda: _grouped(((0, 2), (1, 5))), r"\[0, 5\)"),
    Case("ops.grouped_product", "index", lambda: _grouped(((0.0, 2), (1, 3))), "integers"),
    Case("ops.grouped_product", "kernels", lambda: _grouped(kernels="cuda"), "auto"),
    Case("ops.grouped_moments", "index", lambda: _moments(index=((0, -2), (1, 3))), r"\[0, 5\)"),
    Case("ops.grouped_moments", "var", lambda: _moments(var=jnp.ones((2, 2, 2))), r"\(2, 2, 3\)"),
    Case("ops.grouped_moments", "x", lambda: _moments(x=jnp.ones((5, 4), "f4")), "one type"),
    Case(
        "ops.GroupedColumns.mean_and_var",
        "x",
        lambda: _layout().mean_and_var(jnp.ones((2, 2, 3)), jnp.ones((3, 4))),
        r"\(\.\.\., 5\)",
    ),
    Case(
        "ops.GroupedColumns.mean_and_var",
        "mean_and_var",
        lambda: _layout().T.mean_and_var(jnp.ones((2, 2, 3)), jnp.ones((3, 6))),
        "transpose",
    ),
    Case(
        "ops.GroupedColumns",
        "index",
        lambda: ops.GroupedColumns(jnp.ones((2, 2, 3)), np.array([[0, 5], [1, 2]]), (5, 6)),
        r"\[0, 5\)",
    ),
    Case(
        "ops.GroupedColumns",
        "values",
        lambda: ops.GroupedColumns(jnp.ones((2, 2)), np.array([[0, 1], [1, 2]]), (5, 6)),
        r"\(groups, k, g\)",
    ),
    Case(
        "ops.GroupedColumns.from_indices",
        "group",
        lambda: ops.GroupedColumns.from_indices((5, 6), [[0, 0], [1, 3]], jnp.ones((2, 2, 3))),
        "twice",
    ),
    Case(
        "ops.GroupedColumns.from_indices",
        "shape",
        lambda: ops.GroupedColumns.from_indices((5, 6.5), [[0, 1]], jnp.ones((1, 2, 3))),
        "positive integers",
    ),
    Case(
        "ops.BlockSparse",
        "rows",
        lambda: ops.BlockSparse(jnp.ones((1, 2, 3)), np.array([2]), np.array([0]), (4, 6)),
        r"\[0, 2\)",
    ),
    Case(
        "ops.BlockSparse.from_indices",
        "cols",
        lambda: ops.BlockSparse.from_indices((4, 6), [0], [2], jnp.ones((1, 2, 3))),
        r"\[0, 2\)",
    ),
    Case(
        "ops.BlockSparse.from_indices",
        "column",
        lambda: ops.BlockSparse.from_indices((4, 6), [0, 0], [1, 1], jnp.ones((2, 2, 3))),
        "same row and column",
    ),
    Case(
        "ops.EntrySparse",
        "index",
        lambda: ops.EntrySparse(jnp.ones((1, 3)), np.array([[0, 4, 1]]), None, (4, 3)),
        r"\[0, 4\)",
    ),
    Case(
        "ops.EntrySparse",
        "active",
        lambda: ops.EntrySparse(jnp.ones((1, 3)), np.array([[0, 2, 1]]), jnp.ones(3), (4, 3)),
        "booleans",
    ),
    Case(
        "ops.EntrySparse.from_indices",
        "rows",
        lambda: ops.EntrySparse.from_indices((4, 3), [0, 4], [0, 1], jnp.ones(2)),
        r"\[0, 4\)",
    ),
    Case(
        "ops.EntrySparse.from_indices",
        "values",
        lambda: ops.EntrySparse.from_indices((4, 3), [0, 1], [0, 1], jnp.ones(3)),
        "one shape",
    ),
    Case(
        "ops.EntrySparse.from_columns",
        "index",
        lambda: ops.EntrySparse.from_columns((4, 3), [[0, 1]], jnp.ones((1, 3))),
        r"\(E, 3\)",
    ),
    Case("ops.kron_pair", "x", lambda: ops.kron_pair(_spd(2), _spd(3), jnp.ones(6)), "n_a, n_b"),
    Case(
        "ops.kron_pair", "x", lambda: ops.kron_pair(_spd(2), _spd(3), jnp.ones((3, 2))), "exchanged"
    ),
    Case(
        "ops.kron_pair",
        "b",
        lambda: ops.kron_pair(_spd(2), _spd(3, "f4"), jnp.ones((2, 3))),
        "one type",
    ),
    Case("ops.kernel_mode", "kernels", lambda: ops.kernel_mode("pallas"), "one of auto"),
    Case(
        "ops.SubspaceLinear",
        "active",
        lambda: ops.SubspaceLinear(None, jnp.ones((5, 6))),
        "GroupedColumns",
    ),
    Case(
        "ops.SubspaceLinear",
        "base",
        lambda: ops.SubspaceLinear(jnp.ones((6, 5)), _layout()),
        r"\(5, 6\)",
    ),
    Case(
        "ops.SubspaceLinear",
        "x",
        lambda: ops.SubspaceLinear(None, _layout())(jnp.ones(6)),
        r"\(\.\.\., 5\)",
    ),
)

CASES: tuple[Case, ...] = _MATRICES + _GRIDS + _METHODS + _SPARSE
