"""A small operator of every kind, made of NumPy's numbers, with the dense matrix it stands for."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import lineax as lx
import numpy as np
from scipy import linalg

from bayesjx import ops

COLUMN = np.array([2.0, 0.7, 0.3, 0.1, 0.05, 0.02])
MASK = np.array([True, True, False, True, True, True])
PLACES = np.array([[0, 2, 4], [1, 3, 5]]), np.array([[0, 3, 1, 5, 2, 4], [4, 1, 2, 0, 5, 3]])


class Kind(NamedTuple):
    """How to make an operator in a precision, and its dense matrix.

    Attributes:
        make: from a dtype.
        dense: the matrix, float64.
        solves: whether it has `solve` and `logdet` of its own.
        definite: whether it is tagged as positive semi-definite.
    """

    make: Callable[[Any], Any]
    dense: np.ndarray
    solves: bool = True
    definite: bool = True


def spd(seed: int, n: int) -> np.ndarray:
    """A well-conditioned positive definite matrix."""
    a = np.random.default_rng(seed).normal(size=(n, n))
    return a @ a.T / n + np.eye(n)


def normal(seed: int, *shape: int) -> np.ndarray:
    """Numbers without structure."""
    return np.random.default_rng(seed).normal(size=shape)


A, B, C = spd(0, 2), spd(1, 3), spd(2, 6)
BLOCKS, LOWER = np.stack([spd(i, 2) + np.eye(2) for i in range(3)]), 0.2 * normal(3, 2, 2, 2)
THIN, WIDE, ENTRIES = normal(4, 6, 2), normal(5, 6, 2), np.arange(1.0, 7.0)
ORDER = np.array([3, 0, 5, 1, 4, 2])
SHARES = np.array([[0.2, 0.3, 0.5], [0.7, 0.2, 0.1]])
LAPLACIAN = np.diag([-2.0] * 3) + np.diag([1.0] * 2, 1) + np.diag([1.0] * 2, -1)


def kron_sum(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The dense Kronecker sum."""
    return np.kron(a, np.eye(len(b))) + np.kron(np.eye(len(a)), b)


def bidiagonal(diagonal: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """The dense matrix of blocks on and below the diagonal."""
    dense = linalg.block_diag(*diagonal)
    for i, block in enumerate(lower):
        dense[2 * i + 2 : 2 * i + 4, 2 * i : 2 * i + 2] = block
    return dense


def _of(cls: Any, *arrays: Any, **options: Any) -> Callable[[Any], Any]:
    def make(dtype: Any) -> Any:
        return cls(*(jax.numpy.asarray(a, dtype) for a in arrays), **options)

    return make


def _sparse(cls: Any, *index: Any, shape: tuple[int, ...]) -> Callable[[Any], Any]:
    values = normal(6, *shape)
    if cls is ops.EntrySparse:
        return lambda dtype: cls(jax.numpy.asarray(values, dtype), *index, None, (6, 6))
    return lambda dtype: cls(jax.numpy.asarray(values, dtype), *index, (6, 6))


def _sparse_dense(name: str) -> np.ndarray:
    dense = np.zeros((6, 6))
    if name == "BlockSparse":
        for (r, c), block in zip([(0, 1), (2, 2)], normal(6, 2, 2, 2), strict=True):
            dense[2 * r : 2 * r + 2, 2 * c : 2 * c + 2] = block
    elif name == "GroupedColumns":
        for g, rows in enumerate(PLACES[0]):
            dense[rows, 3 * g : 3 * g + 3] = normal(6, 2, 3, 3)[g]
    else:
        for rows, values in zip(PLACES[1], normal(6, 2, 6), strict=True):
            dense[rows, np.arange(6)] += values
    return dense


def _kinds() -> dict[str, Kind]:
    kron = _of(ops.Kron, A, B, tags=ops.psd)
    total = np.kron(A, B) + 0.5 * np.eye(6)

    def noisy(dtype: Any) -> Any:
        return kron(dtype) + ops.ScaledIdentity(0.5)

    cells = np.ix_(MASK, MASK)
    tril = np.tril(C)
    chain = bidiagonal(BLOCKS, LOWER)
    khatri_rao = np.einsum("ja,jb->jab", normal(7, 6, 2), normal(8, 6, 3)).reshape(6, 6)
    rectangular = functools.partial(Kind, solves=False, definite=False)
    return {
        "Dense": Kind(_of(ops.Dense, C, tags=ops.psd), C),
        "Dense, indefinite": Kind(
            _of(ops.Dense, C - 2 * np.eye(6), tags=ops.symmetric),
            C - 2 * np.eye(6),
            definite=False,
        ),
        "Reordered": Kind(
            lambda d: ops.Reordered(_of(ops.Dense, C, tags=ops.psd)(d), ORDER),
            C[np.ix_(np.argsort(ORDER), np.argsort(ORDER))],
        ),
        "CategoricalCovariance": Kind(
            _of(ops.CategoricalCovariance, SHARES),
            linalg.block_diag(*(np.diag(p) - np.outer(p, p) for p in SHARES)),
            solves=False,
        ),
        "CategoricalCovariance, root": rectangular(
            lambda d: _of(ops.CategoricalCovariance, SHARES)(d).root(),
            linalg.block_diag(*(np.diag(np.sqrt(p)) - np.outer(p, np.sqrt(p)) for p in SHARES)),
        ),
        "Diag": Kind(_of(ops.Diag, ENTRIES, tags=ops.psd), np.diag(ENTRIES)),
        "ScaledIdentity": Kind(_of(ops.ScaledIdentity, 0.7, size=6), 0.7 * np.eye(6)),
        "Kron": Kind(kron, np.kron(A, B)),
        "KronSum": Kind(_of(ops.KronSum, A, B, tags=ops.psd), kron_sum(A, B)),
        "KronSum, negative": Kind(
            _of(ops.KronSum, LAPLACIAN[:2, :2], LAPLACIAN),
            kron_sum(LAPLACIAN[:2, :2], LAPLACIAN),
            definite=False,
        ),
        "Kron + noise": Kind(noisy, total),
        "Kron + Kron": Kind(
            lambda d: kron(d) + _of(ops.Kron, B[:2, :2], spd(9, 3), tags=ops.psd)(d),
            np.kron(A, B) + np.kron(B[:2, :2], spd(9, 3)),
        ),
        "Kron + Diag": Kind(
            lambda d: kron(d) + _of(ops.Diag, ENTRIES, tags=ops.psd)(d),
            np.kron(A, B) + np.diag(ENTRIES),
            solves=False,  # no log-determinant
        ),
        "Masked": Kind(lambda d: ops.Masked(noisy(d), MASK), total[cells]),
        "Toeplitz": Kind(_of(ops.Toeplitz, COLUMN), linalg.toeplitz(COLUMN)),
        "LowRankPlusDiag": Kind(
            _of(ops.LowRankPlusDiag, THIN, ENTRIES), THIN @ THIN.T + np.diag(ENTRIES)
        ),
        "LowRank": Kind(_of(ops.LowRank, THIN), THIN @ THIN.T, solves=False),
        "LowRank of two": rectangular(_of(ops.LowRank, THIN, WIDE), THIN @ WIDE.T),
        "BlockDiag": Kind(_of(ops.BlockDiag, BLOCKS, tags=ops.psd), linalg.block_diag(*BLOCKS)),
        "BlockDiag of operators": Kind(
            lambda d: ops.BlockDiag(
                (_of(ops.Toeplitz, COLUMN[:2])(d), _of(ops.Diag, ENTRIES[:4], tags=ops.psd)(d))
            ),
            linalg.block_diag(linalg.toeplitz(COLUMN[:2]), np.diag(ENTRIES[:4])),
        ),
        "BlockTridiag": Kind(
            _of(ops.BlockTridiag, BLOCKS, LOWER),
            chain + bidiagonal(0 * BLOCKS, LOWER).T,
        ),
        "BlockBidiag": Kind(
            _of(ops.BlockBidiag, np.tril(BLOCKS), LOWER),
            bidiagonal(np.tril(BLOCKS), LOWER),
            definite=False,
        ),
        "triangular": Kind(
            _of(ops.Dense, tril, tags=lx.lower_triangular_tag), tril, definite=False
        ),
        "HStack": rectangular(
            lambda d: ops.HStack(_of(ops.Diag, ENTRIES)(d), _of(ops.Dense, THIN)(d)),
            np.hstack([np.diag(ENTRIES), THIN]),
        ),
        "VStack": rectangular(
            lambda d: ops.VStack(_of(ops.Diag, ENTRIES)(d), _of(ops.Dense, THIN.T)(d)),
            np.vstack([np.diag(ENTRIES), THIN.T]),
        ),
        "KhatriRao": rectangular(_of(ops.KhatriRao, normal(7, 6, 2), normal(8, 6, 3)), khatri_rao),
        "KhatriRao, transposed": rectangular(
            lambda d: _of(ops.KhatriRao, normal(7, 6, 2), normal(8, 6, 3))(d).T, khatri_rao.T
        ),
        "BlockSparse": rectangular(
            _sparse(ops.BlockSparse, np.array([0, 2]), np.array([1, 2]), shape=(2, 2, 2)),
            _sparse_dense("BlockSparse"),
        ),
        "GroupedColumns": rectangular(
            _sparse(ops.GroupedColumns, PLACES[0], shape=(2, 3, 3)),
            _sparse_dense("GroupedColumns"),
        ),
        "EntrySparse": rectangular(
            _sparse(ops.EntrySparse, PLACES[1], shape=(2, 6)), _sparse_dense("EntrySparse")
        ),
        "ToeplitzRoot": Kind(
            lambda d: _of(ops.Toeplitz, COLUMN)(d).root(),
            np.linalg.cholesky(linalg.toeplitz(COLUMN)),
            definite=False,
        ),
    }


KINDS = _kinds()
