"""Sums and multiples of operators of every kind: structure, values, types, tags, copies, export."""

import copy
import itertools
import operator
import pickle
import re

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
from dense_twin import columns, jit
from every_operator import A, B, COLUMN, KINDS, spd
from scipy import linalg

from bayesjx import ops
from bayesjx.distributions import StructuredNormal

CATEGORICAL = ("CategoricalCovariance", "CategoricalCovariance, root")
OTHERS = (
    "ToeplitzRoot",
    "KhatriRao, transposed",
    *CATEGORICAL,
)  # whose multiples are of another class
SHIFTS = ("Dense, indefinite", "KronSum, negative")  # and all that are definite, but for one:
NO_SHIFT = "Kron + Kron"


@pytest.mark.parametrize("name", KINDS)
def test_multiples_and_sums_with_noise_are_those_of_the_dense_matrix(name):
    kind, types = KINDS[name], []
    shifted = name in SHIFTS or (kind.definite and name != NO_SHIFT)
    noise = 0.3 * np.eye(len(kind.dense)) if shifted else 0
    want = [kind.dense / 0.4, -kind.dense, kind.dense + noise][: 2 + shifted]

    @jit
    def run(c):
        made, size = kind.make(jnp.float64), len(kind.dense)
        found, alike = [made / c, -made], [made, 2.5 * made, c * made]
        if shifted:
            found.append(made + ops.ScaledIdentity(0.3))
            same = [ops.ScaledIdentity(c) + made, made + ops.ScaledIdentity(0.3, size)]
            same.append(made + lx.IdentityLinearOperator(made.in_structure()))
            assert {type(total) for total in same} == {type(found[2])}
        types.extend(map(type, [*alike, *found]))
        return [answers(each) for each in found]

    for i, (found, matrix) in enumerate(zip(run(0.4), want, strict=True)):
        x = np.sin(np.arange(1, matrix.shape[1] + 1))[:, None]
        np.testing.assert_allclose(found["mm"], matrix @ x, rtol=1e-12, atol=1e-12)
        assert not kind.solves or {"solve", "logdet"} <= set(found)
        assert name != "LowRank" or i < 2 or "logdet" in found
        if "solve" in found:
            np.testing.assert_allclose(found["solve"], x, rtol=1e-10, atol=1e-10)
        if "logdet" in found:
            logdet = np.linalg.slogdet(matrix)[1]
            np.testing.assert_allclose(found["logdet"], logdet, rtol=1e-10, atol=1e-10)
    assert all(issubclass(found, ops.AbstractOperator) for found in types)
    assert name in OTHERS or types[:4] == types[:1] * 4


@pytest.mark.parametrize("name", KINDS)
def test_derivatives_can_be_taken_of_a_compiled_function(name):
    # so that no rule of a derivative holds what was made while the function was traced
    kind = KINDS[name]

    @jax.jit
    def value(c):
        made = c * kind.make(jnp.float64)
        return sum(jnp.sum(found) for found in answers(made).values())

    lowered = jax.jit(jax.value_and_grad(value)).lower(jnp.asarray(0.4))
    assert lowered.out_info[1].shape == ()


def answers(each):
    """A product and, where the structure has them, a solution and the log-determinant."""
    x = columns(each, 1)
    found = {"mm": each.mm(x)}
    for what in ("solve", "logdet"):
        try:
            found[what] = each.solve(found["mm"]) if what == "solve" else each.logdet()
        except ValueError as error:
            assert any(why in str(error) for why in ("of its own", "needs a square", "not known"))
    return found


def test_logarithms_of_determinants_of_any_sign():
    second = np.diag([-2.0] * 4) + np.diag([1.0] * 3, 1) + np.diag([1.0] * 3, -1)
    indefinite = np.diag([1.5, -0.5, 0.25])
    eye4, eye3 = np.eye(4), np.eye(3)

    @jit
    def run(L, M):
        total, product = ops.KronSum(L, L), ops.Kron(L, M, tags=ops.symmetric)
        shift = ops.ScaledIdentity(-0.3, tags=())
        found = [total, ops.KronSum(L, M), total + shift, product + shift, product]
        found += [ops.ScaledIdentity(-2.0, 12), ops.Diag(jnp.diag(M)), ops.Dense(M, ops.symmetric)]
        found += [ops.BlockDiag((ops.Dense(L), ops.Dense(M))), ops.BlockDiag(jnp.stack([L, -L]))]
        psd = ops.Kron(-L, -L, tags=ops.psd)
        found += [psd - ops.ScaledIdentity(0.3), -ops.Toeplitz(jnp.asarray(COLUMN))]
        grads = jax.grad(lambda L: (ops.KronSum(L, L) + shift).logdet())(L)
        return [(A.logdet(), A.solve(columns(A, 1))) for A in found], grads

    total = np.kron(second, eye4) + np.kron(eye4, second)
    product = np.kron(second, indefinite)
    dense = [total, np.kron(second, eye3) + np.kron(eye4, indefinite)]
    dense += [total - 0.3 * np.eye(16), product - 0.3 * np.eye(12), product, -2 * np.eye(12)]
    dense += [indefinite, indefinite, linalg.block_diag(second, indefinite)]
    dense += [linalg.block_diag(second, -second), np.kron(second, second) - 0.3 * np.eye(16)]
    dense += [-linalg.toeplitz(COLUMN)]
    found, gradient = run(second, indefinite)
    for (logdet, solved), matrix in zip(found, dense, strict=True):
        x = np.sin(np.arange(1, len(matrix) + 1))[:, None]
        np.testing.assert_allclose(logdet, np.linalg.slogdet(matrix)[1], rtol=1e-10)
        np.testing.assert_allclose(solved, np.linalg.solve(matrix, x), rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(found[0][0], 20.13909, atol=1e-4)
    inverse = np.linalg.inv(total - 0.3 * np.eye(16)).reshape(4, 4, 4, 4)
    want = np.einsum("ikjk->ij", inverse) + np.einsum("kikj->ij", inverse)
    np.testing.assert_allclose(gradient, want, rtol=1e-9)


def test_a_density_of_what_is_not_definite_is_nan():
    @jit
    def run(bad):
        y = jnp.ones(6)
        kron = ops.Kron(jnp.asarray(A), jnp.asarray(B), tags=ops.psd)
        covariances = [ops.Diag(bad, ops.psd), ops.ScaledIdentity(bad[0], 6)]
        covariances += [kron + ops.ScaledIdentity(bad[0]), bad[0] * kron + ops.ScaledIdentity(0.1)]
        distributions = [StructuredNormal(0 * y, precision=precision) for precision in covariances]
        densities = [
            part
            for distribution in distributions
            for part in (distribution.log_prob(y), distribution.entropy())
        ]
        return densities + [sum(covariance.inv_quad_logdet(y)) for covariance in covariances]

    assert np.isnan(run(np.array([-3.0, 1, 1, 1, 1, 1]))).all()
    assert np.isfinite(run(np.ones(6))).all()


def test_sums_that_have_a_structure_of_their_own():
    """By kind of both terms: the class of the sum, and the dense sum."""
    both = {
        "LowRank + Diag": (ops.LowRankPlusDiag, "LowRank", "Diag"),
        "LowRank + LowRank": (ops.LowRank, "LowRank", "LowRank of two"),
        "LowRankPlusDiag + LowRank": (ops.LowRankPlusDiag, "LowRank", "LowRankPlusDiag"),
        "LowRankPlusDiag twice": (ops.LowRankPlusDiag, "LowRankPlusDiag", "LowRankPlusDiag"),
        "BlockTridiag + Diag": (ops.BlockTridiag, "Diag", "BlockTridiag"),
        "BlockTridiag + BlockDiag": (ops.BlockTridiag, "BlockDiag", "BlockTridiag"),
        "BlockTridiag twice": (ops.BlockTridiag, "BlockTridiag", "BlockTridiag"),
        "BlockDiag + Diag": (ops.BlockDiag, "BlockDiag", "Diag"),
        "BlockDiag twice": (ops.BlockDiag, "BlockDiag", "BlockDiag"),
        "KronSum twice": (ops.KronSum, "KronSum", "KronSum, negative"),
        "Toeplitz twice": (ops.Toeplitz, "Toeplitz", "Toeplitz"),
        "Kron + noise + Diag": (ops.KronPlusDiag, "Kron + noise", "Diag"),
        "Kron + Diag + Diag": (ops.KronPlusDiag, "Kron + Diag", "Diag"),
        "Dense + Toeplitz": (ops.Dense, "Dense, indefinite", "Toeplitz"),
        "Dense + sparse": (ops.Dense, "BlockSparse", "Dense"),
        "Diag + ScaledIdentity": (ops.Diag, "ScaledIdentity", "Diag"),
        "no structure": (lx.AddLinearOperator, "Toeplitz", "BlockTridiag"),
    }

    @jit
    def run():
        found = {}
        for name, (cls, *names) in both.items():
            total = KINDS[names[0]].make(jnp.float64) + KINDS[names[1]].make(jnp.float64)
            assert type(total) is cls, name
            assert lx.is_symmetric(total) or "of two" in names[1] or names[0] == "BlockSparse"
            found[name] = total.mv(jnp.arange(6.0))
        return found

    for name, found in run().items():
        want = KINDS[both[name][1]].dense + KINDS[both[name][2]].dense
        np.testing.assert_allclose(found, want @ np.arange(6.0), rtol=1e-12, atol=1e-12)


def refusal(function, *args):
    """What the error says; nothing if there is none."""
    try:
        function(*args)
    except ValueError as error:
        return str(error)
    return ""


SIZES = "sizes differ|columns and rows differ|same number|rows; they must"
TYPES = "differ|one type|same number|rows; they must"
COMBINE = (operator.add, operator.sub, operator.matmul, ops.HStack, ops.VStack)
JOIN = (ops.Kron, ops.KronSum, lambda *parts: ops.BlockDiag(parts))


@pytest.mark.errors
def test_sizes_and_types_of_all_pairs_in_all_combinations():
    def run():
        made = [kind.make(jnp.float64) for kind in KINDS.values()]
        single = [kind.make(jnp.float32) for kind in KINDS.values()]
        smaller = [ops.Diag(jnp.ones(3)), ops.ScaledIdentity(0.1, 3), ops.KronSum(jnp.eye(2))]
        for pair in itertools.product(made, single):
            for function in COMBINE if any(pair[1] is one for one in single[:5]) else COMBINE[:1]:
                assert re.search(TYPES, refusal(function, *pair))
        for a, b in itertools.product(made, smaller):
            for function in COMBINE:
                assert re.search(SIZES, refusal(function, a, b))
                assert re.search(SIZES, refusal(function, b, a))
        for a, b in itertools.product((made[0], made[-1]), (single[2], single[5])):
            for function in JOIN:
                assert re.search("one type|square", refusal(function, a, b))
        for a in made:
            for bad in (jnp.float32(2.0), np.ones(2), "2", 1j, None, a, True):
                assert re.search("scalar", refusal(operator.mul, a, bad))
                assert re.search("scalar", refusal(operator.truediv, a, bad))
            for bad in (np.eye(6), jnp.eye(6), 1.0, None):
                for function in (operator.add, operator.sub):
                    assert re.search("only an operator can be", refusal(function, a, bad))
                    assert re.search("only an operator can be", refusal(function, bad, a))
            assert re.search("division by zero", refusal(operator.truediv, a, 0))
        return 0

    jax.eval_shape(run)


def test_a_number_takes_the_type_of_the_operator():
    def run():
        made = {name: kind.make(jnp.float32) for name, kind in KINDS.items()}
        noise = 2 * ops.ScaledIdentity(0.1)
        shifted = [kind + noise for name, kind in made.items() if KINDS[name].definite]
        return [*[2 * a / 3 for a in made.values()], *shifted]

    for found in jax.eval_shape(run):
        for leaf in jax.tree.leaves(found):
            assert leaf.dtype in (jnp.float32, jnp.int32, jnp.bool_), found


def test_tags_of_multiples_and_sums():
    psd, negative = ops.Diag(jnp.ones(3), ops.psd), lx.negative_semidefinite_tag
    assert ops.psd in (2 * psd).tags and ops.psd in (psd / 2).tags
    assert (-psd).tags == (psd * -2.0).tags == psd.tags - {ops.psd} | {negative, ops.symmetric}
    turned = -psd
    assert (-turned).tags >= psd.tags
    unit = ops.Dense(jnp.eye(3), lx.unit_diagonal_tag)
    assert lx.has_unit_diagonal(unit) and not lx.has_unit_diagonal(2 * unit)
    shift = ops.ScaledIdentity(-1.0, tags=())
    assert ops.psd not in (psd + shift).tags
    kron = jax.eval_shape(lambda: ops.Kron(jnp.eye(2), tags=ops.psd) + shift)
    assert lx.is_symmetric(kron) and not lx.is_positive_semidefinite(kron)
    assert lx.is_symmetric(ops.Dense(jnp.eye(3), ops.psd) + ops.Dense(jnp.eye(3), ops.symmetric))
    even = ops.Kron(-jnp.eye(2), -jnp.eye(3), tags=negative)
    assert lx.is_symmetric(even) and not lx.is_negative_semidefinite(even)
    stack = jax.jit(lambda c: (c * ops.HStack(psd)).as_matrix())(-2.0)
    np.testing.assert_array_equal(stack, -2 * np.eye(3))  # no tag, so any sign
    with pytest.raises(ValueError, match="tridiagonal"):
        ops.Kron(jnp.eye(3), jnp.eye(3), tags=lx.tridiagonal_tag)


def test_lineax_solves_with_every_tag_that_it_knows():
    tril, x = np.tril(spd(0, 5)), np.sin(np.arange(1.0, 6.0))
    banded = np.triu(np.tril(spd(1, 5), 1), -1)
    matrices = {
        lx.symmetric_tag: spd(2, 5) - 1.2 * np.eye(5),
        lx.diagonal_tag: np.diag(np.arange(1.0, 6.0)),
        lx.tridiagonal_tag: banded,
        lx.unit_diagonal_tag: spd(3, 5) / np.sqrt(np.outer(*[np.diag(spd(3, 5))] * 2)),
        lx.lower_triangular_tag: tril,
        lx.upper_triangular_tag: tril.T,
        lx.positive_semidefinite_tag: spd(4, 5),
        lx.negative_semidefinite_tag: -spd(5, 5),
    }
    assert set(matrices) == {getattr(lx, name) for name in dir(lx) if name.endswith("_tag")}
    blocks = ops.BlockDiag((ops.Dense(banded[:3, :3], lx.tridiagonal_tag), ops.Diag(jnp.ones(2))))

    @jit
    def run(matrices, x):
        found = {tag: ops.Dense(matrices[str(tag)], tag) for tag in tags}
        found["blocks"] = blocks
        found["unit"] = ops.Dense(
            tril / np.diag(tril), [lx.lower_triangular_tag, lx.unit_diagonal_tag]
        )
        solved = {str(k): lx.linear_solve(A, A.mv(x)).value for k, A in found.items()}
        solved["own"] = [A.solve(A.mv(x)) for A in found.values()]
        by_cg = lx.CG(1e-12, 1e-12)
        solved["cg"] = [lx.linear_solve(found[t], found[t].mv(x), by_cg).value for t in definite]
        return solved

    tags, definite = list(matrices), [lx.positive_semidefinite_tag, lx.negative_semidefinite_tag]
    solved = run({str(tag): matrix for tag, matrix in matrices.items()}, x)
    for name, found in solved.items():
        for value in found if isinstance(found, list) else [found]:
            np.testing.assert_allclose(value, x, rtol=1e-9, atol=1e-9, err_msg=name)
    for found in map(np.asarray, lx.tridiagonal(ops.Dense(banded, lx.tridiagonal_tag))):
        offset = {5: 0}.get(found.size, -1 if found[0] == banded[1, 0] else 1)
        np.testing.assert_array_equal(found, np.diag(banded, offset))


def test_copies_and_pickles_are_the_same_operator():
    for name, structure in kinds().items():
        made = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), structure)
        for copied in (copy.deepcopy(made), copy.copy(made), pickle.loads(pickle.dumps(made))):
            assert jax.tree.structure(copied) == jax.tree.structure(made), name
            assert all(tag in made.tags for tag in copied.tags)
            assert lx.is_positive_semidefinite(copied) == KINDS[name].definite
            jax.tree.map(np.testing.assert_array_equal, copied, made)
    lazy = lx.TaggedLinearOperator(lx.MatrixLinearOperator(jnp.eye(2)), ops.psd)
    assert lx.is_positive_semidefinite(copy.deepcopy(lazy))
    own = type(ops.psd)("my own tag")  # not one of Lineax's
    assert str(copy.deepcopy(own)) == "my own tag" and copy.deepcopy(own) is not own


def kinds():
    """All operators as shapes, without a compilation."""
    return jax.eval_shape(lambda: {name: kind.make(jnp.float64) for name, kind in KINDS.items()})


def test_operators_are_exported_for_accelerators():
    names = ("Toeplitz", "Kron + noise", "BlockTridiag", "LowRankPlusDiag", "BlockDiag", "Dense")

    def run(x):
        made = [KINDS[name].make(jnp.float32) for name in names]
        return [(A.solve(A.mv(x)), A.logdet()) for A in made]

    x = jax.ShapeDtypeStruct((6,), jnp.float32)
    with ops.failures_are_nan():
        exported = jax.export.export(jax.jit(run), platforms=("cuda", "tpu"))(x)
    assert exported.platforms == ("cuda", "tpu")


def test_dense_matrices_are_returned_and_inverses_answered_by_their_base():
    matrix = jnp.asarray(A)
    assert ops.Dense(matrix).as_matrix() is matrix

    @jit
    def run(b):
        inverse = ops.Inverse(KINDS["Dense"].make(jnp.float64))
        return (
            inverse.mm(b),
            inverse.solve(b),
            inverse.logdet(),
            inverse.psd_logdet(),
            inverse.diag(),
        )

    dense, b = KINDS["Dense"].dense, np.sin(np.arange(1.0, 13.0)).reshape(6, 2)
    want = np.linalg.inv(dense)
    logdet = -np.linalg.slogdet(dense)[1]
    for found, value in zip(
        run(b), (want @ b, dense @ b, logdet, logdet, np.diag(want)), strict=True
    ):
        np.testing.assert_allclose(found, value, rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match="psd_logdet needs a positive semi-definite Dense"):
        ops.Dense(matrix).psd_logdet()
