"""Priors over small tables: what every table obeys, and the pieces against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from bayesjx.amortized import Task
from bayesjx.amortized._table_columns import (
    activate,
    again,
    Needs,
    pick,
    random_stages,
    recorded,
    Stage,
    standardise,
)
from bayesjx.amortized._table_priors import (
    _labels,
    _num_classes,
    _num_used,
    _tree_scores,
    SPLITS,
    TablePrior,
    TREES,
)

ROWS, COLUMNS, CLASSES, TABLES = 61, 7, 5, 128
RNG = np.random.default_rng(0)


def tables(prior, seed=0):
    """Many tables, and the first of them drawn by itself, from one program."""
    keys = jax.random.split(jax.random.key(seed), TABLES)
    many, one = jax.jit(lambda keys: (jax.vmap(prior)(keys), prior(keys[0])))(keys)
    assert isinstance(one, Task)
    np.testing.assert_allclose(many.x[0], one.x, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(many.y[0], one.y, rtol=1e-3, atol=1e-3)
    x, y = np.asarray(many.x), np.asarray(many.y)
    assert x.shape == (TABLES, ROWS, COLUMNS) and y.shape == (TABLES, ROWS)
    assert x.dtype == prior.dtype and not np.isinf(x).any()
    # Columns that a table does not use are its last ones.
    used = np.asarray(~np.isnan(x).all(axis=1))
    assert used[:, 0].all() and (np.sort(used, axis=1)[:, ::-1] == used).all()
    assert np.unique(used.sum(axis=1)).size == COLUMNS
    lacking = np.array([np.isnan(table[:, use]).any() for table, use in zip(x, used, strict=True)])
    assert 0.02 < lacking.mean() < 0.3
    return x, y, used


def explained(x, y):
    """Share of the variance of `y` that a linear function of a table's columns explains."""
    shares = []
    for table, targets in zip(x, y, strict=True):
        columns = np.nan_to_num(table[:, ~np.isnan(table).all(axis=0)])
        design = np.c_[np.ones(ROWS), columns]
        rest = targets - design @ np.linalg.lstsq(design, targets, rcond=None)[0]
        shares.append(1 - rest.var() / max(targets.var(), 1e-9))
    return np.array(shares)


def test_tables_of_regressions_are_standardised_and_can_be_learnt():
    x, y, used = tables(TablePrior(ROWS, COLUMNS, dtype=jnp.float32))
    assert y.dtype == np.float32
    np.testing.assert_allclose(y.mean(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(y.std(axis=1), 1, atol=1e-3)
    shares, chance = explained(x, y), used.sum(axis=1) / (ROWS - 1)
    assert np.mean(shares > 3 * chance) > 0.4  # columns say something of most targets
    assert np.mean(shares > 0.98) < 0.3 and shares.min() < 0.2  # never all of them, nor always


def test_tables_of_classes_have_all_of_them_and_can_be_learnt():
    x, y, used = tables(TablePrior(ROWS, COLUMNS, CLASSES, dtype=jnp.float64))
    assert y.dtype == np.int32 and y.min() == 0 and y.max() == CLASSES - 1
    counts = np.array([np.unique(labels).size for labels in y])
    assert (counts > 1).mean() > 0.95 and set(counts) >= {2, 3, 4, 5}
    assert 0.5 < (y.max(axis=1) == 1).mean() < 0.8
    shares, chance = explained(x, (y == 0).astype(float)), used.sum(axis=1) / (ROWS - 1)
    assert np.mean(shares > 2 * chance) > 0.4
    # No class is another: of two, each is the more common one as often.
    of_two = y[y.max(axis=1) == 1]
    assert stats.binomtest(int((of_two.mean(axis=1) > 0.5).sum()), len(of_two)).pvalue > 1e-4


def test_random_numbers_of_stages_are_independent_and_of_their_distributions():
    needs = (
        Needs({"a": (301, 2), "b": (3, 100)}, {"c": (500,)}),
        Needs({"d": (400,)}, {"e": (7, 41)}),
    )
    make = jax.jit(lambda key: random_stages(key, needs, jnp.float64))
    first, second = make(jax.random.key(3))
    a, b, d = first.uniform["a"], first.uniform["b"], second.uniform["d"]
    c, e = first.normal["c"], second.normal["e"]
    shapes = [value.shape for value in (a, b, c, d, e)]
    assert shapes == [(301, 2), (3, 100), (500,), (400,), (7, 41)]
    uniform = np.concatenate([np.ravel(a), np.ravel(b), np.ravel(d)])
    normal = np.concatenate([np.ravel(c), np.ravel(e)])
    assert np.unique(uniform).size > 0.97 * uniform.size
    assert stats.kstest(uniform, "uniform").pvalue > 1e-4
    assert stats.kstest(normal, "norm").pvalue > 1e-4
    low = again(jnp.asarray(uniform))
    assert stats.kstest(np.asarray(low), "uniform").pvalue > 1e-4
    assert abs(np.corrcoef(uniform, low)[0, 1]) < 5 / np.sqrt(uniform.size)


def test_pieces_are_numpys(dtype, tol):
    x = (3 * RNG.normal(size=(11, 7))).astype(dtype)
    got = activate(jnp.asarray(x), jnp.arange(7))
    want = x.copy()
    want[:, 1], want[:, 2] = np.tanh(x[:, 1]), np.maximum(x[:, 2], 0)
    want[:, 4], want[:, 5], want[:, 6] = x[:, 4] ** 2, np.abs(x[:, 5]), np.sign(x[:, 6])
    np.testing.assert_allclose(np.delete(got, 3, axis=1), np.delete(want, 3, axis=1), **tol)
    np.testing.assert_allclose(got[:, 3], np.sin(x[:, 3]), atol=0.06)
    assert got.dtype == dtype
    unit = standardise(jnp.asarray(np.c_[x, np.ones(11, dtype)]))
    np.testing.assert_allclose(unit[:, :7], (x - x.mean(0)) / x.std(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(unit[:, 7], 0, atol=1e-6)
    grid = jnp.asarray((np.arange(1000) + 0.5) / 1000, dtype)
    assert np.bincount(pick(grid, (0.3, 0.5, 0.2))).tolist() == [300, 500, 200]


def test_sizes_of_tables():
    grid = jnp.asarray((np.arange(1000) + 0.5) / 1000)
    assert set(np.unique(_num_classes(grid, 4))) == {2, 3, 4}
    assert set(np.unique(_num_classes(grid, 2))) == {2}
    few = np.asarray(_num_used(grid, 0.5, COLUMNS))
    assert few.min() == 2 and few.max() == COLUMNS
    assert set(np.unique(_num_used(grid, 0.05, COLUMNS))) == {COLUMNS}
    assert np.asarray(_num_used(grid, 0.15, COLUMNS)).min() == 1
    assert set(np.unique(_num_used(grid, 0.5, 1))) <= {1, 2}


def tree_stage(num_scores, depth, trees, interactions):
    """Numbers of `_tree_scores` that ask for so many trees of this depth."""
    uniform = np.zeros(12)
    low = 128 if interactions else 0  # of 256: half the strength, whose square is taken
    uniform[9] = (np.floor(256 * ((depth - 0.5) / SPLITS) ** (2 / 3)) + low / 256) / 256
    uniform[10] = np.log(trees - 0.5) / np.log(TREES + 1) if trees > 1 else 0.0
    normal = {
        "thresholds": RNG.normal(size=TREES * SPLITS),
        "effects": RNG.normal(size=(TREES, SPLITS, num_scores)),
        "leaves": RNG.normal(size=(TREES, 2**SPLITS, num_scores)),
    }
    return Stage(
        {"scalars": jnp.asarray(uniform), "split": jnp.asarray(RNG.uniform(size=TREES * SPLITS))},
        jax.tree.map(jnp.asarray, normal),
    )


@pytest.mark.parametrize(("depth", "trees"), [(1, 1), (3, 2), (4, 8)])
def test_trees_are_those_of_a_loop(depth, trees):
    x, relevance = RNG.normal(size=(13, 5)), np.array([0.6, 0, 0.8, 0, 0])
    stage = tree_stage(3, depth, trees, interactions=True)
    got = _tree_scores(stage, jnp.asarray(x), jnp.asarray(relevance))
    split = np.where(np.asarray(stage.uniform["split"]) < 0.36, 0, 2)
    cut = 0.8 * np.asarray(stage.normal["thresholds"])
    want = np.zeros((13, 3))
    for row in range(13):
        for tree in range(trees):
            nodes = range(tree * SPLITS, tree * SPLITS + depth)
            sides = [bool(x[row, split[node]] > cut[node]) for node in nodes]
            sides += [False] * (SPLITS - depth)
            leaf = sum(2**index for index, side in enumerate(sides) if side)
            signs = np.where(sides, 0.5, -0.5)
            want[row] += signs @ np.asarray(stage.normal["effects"][tree])
            want[row] += 0.25 * np.asarray(stage.normal["leaves"][tree, leaf])
    np.testing.assert_allclose(got, want, atol=1e-10)


def label_stage(n, most, intervals, noise=0.0, flips=0.0):
    """Numbers of `_labels` of equal classes; `noise` from 0 (little) to 1."""
    scalars = np.array([0, noise, 0.9 if intervals else 0.1, 0.1 if flips else 0.9, flips, 0.9])
    uniform = {
        "scalars": scalars,
        "order": np.array([0.7, 0.2, 0.4, 0.1, 0.9])[:most],
        "flip": RNG.uniform(size=n),
        "other": RNG.uniform(size=n),
        "noise": RNG.uniform(size=(n, most)),
    }
    return Stage(jax.tree.map(jnp.asarray, uniform), {"sizes": jnp.asarray(RNG.normal(size=most))})


def test_labels_are_intervals_or_the_largest_score():
    n, most = 61, 5
    scores = RNG.permuted(np.linspace(-2, 2, n))[:, None] + np.zeros((n, most))
    labels = np.asarray(_labels(label_stage(n, most, True), jnp.asarray(scores), 3, -1))
    order = np.argsort(scores[:, 0])
    assert np.bincount(labels).tolist() == [20, 21, 20]
    changes = np.flatnonzero(np.diff(labels[order]))
    assert np.abs(np.median(changes[changes < 30]) - 20) <= 2  # but for a little noise
    assert labels[order[0]] == 1 and labels[order[30]] == 2 and labels[order[-1]] == 0

    scores = 5 * RNG.normal(size=(n, most))
    labels = np.asarray(_labels(label_stage(n, most, False), jnp.asarray(scores), 3, -1))
    names = np.array([1, 2, 0])
    assert np.mean(labels == names[scores[:, :3].argmax(axis=1)]) > 0.95

    known = RNG.integers(3, size=n)
    labels = np.asarray(_labels(label_stage(n, most, False), jnp.asarray(scores), 3, known))
    np.testing.assert_array_equal(labels, names[known])
    flipped = np.asarray(_labels(label_stage(n, most, False, flips=1.0), scores, 3, known))
    assert 0 < np.mean(flipped != names[known]) < 0.4


def test_tables_record_missing_values_where_they_may():
    n, d = 200, 4
    x, rounded = RNG.normal(size=(n, d)), np.array([False, False, True, False])
    used = np.array([True, True, True, False])
    names = ("warp", "curve", "side", "code", "missing")
    columns = {name: jnp.full(d, 0.5) for name in names}
    columns |= {"missing": jnp.asarray([0.1, 0.9, 0.9, 0.1]), "warp": jnp.full(d, 0.99)}
    scalars = jnp.asarray([0, 0.9, 0.5, 0.9, 0.8, 0.5, 0.5, 0.2])  # rate 0.2 where missing < 0.5
    uniform = {"scalars": scalars, "lacking": jnp.asarray(RNG.uniform(size=(n, d))), **columns}
    arrays = [jnp.asarray(array) for array in (x, rounded, used)]
    record = jax.jit(lambda *a: [recorded(Stage(uniform, {}), *a, prob) for prob in (0.5, 0.1)])
    got, full = (np.asarray(table) for table in record(*arrays))
    assert np.isnan(got[:, 3]).all() and np.isnan(full[:, 3]).all()
    assert not np.isnan(full[:, :3]).any() and not np.isnan(got[:, 1:3]).any()
    assert abs(np.isnan(got[:, 0]).mean() - 0.2) < 5 * np.sqrt(0.2 * 0.8 / n)
    np.testing.assert_allclose(full[:, 1], x[:, 1])  # neither warped nor coded
    # Codes are few, and a one-to-one map of intervals while there are fewer intervals than codes.
    codes = full[:, 2]
    intervals = len(np.unique(np.round(1.5 * x[:, 2])))
    assert set(codes) <= set(range(7)) and len(set(codes)) == min(intervals, 7)
    for interval in np.unique(np.round(1.5 * x[:, 2])):
        assert len(set(codes[np.round(1.5 * x[:, 2]) == interval])) == 1


@pytest.mark.errors
@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"num_rows": 1}, "num_rows"),
        ({"num_features": 0}, "num_features"),
        ({"num_features": 2.5}, "num_features"),
        ({"num_classes": 1}, "num_classes"),
        ({"num_classes": 11}, "num_classes"),
        ({"missing_prob": 1.5}, "missing_prob"),
        ({"missing_prob": "few"}, "missing_prob"),
        ({"dtype": jnp.int32}, "dtype"),
    ],
)
def test_bad_options_are_named(options, text):
    with pytest.raises(ValueError, match=text):
        TablePrior(**({"num_rows": 7, "num_features": 3} | options))


@pytest.mark.errors
def test_bad_keys_are_named():
    with pytest.raises(ValueError, match="key"):
        TablePrior(7, 3)(0)  # ty: ignore[invalid-argument-type]
