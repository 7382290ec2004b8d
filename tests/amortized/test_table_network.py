"""Networks of tables: what they see of columns, and what makes no difference to them."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from bayesjx.amortized import (
    BarHead,
    CategoricalHead,
    load_network,
    NormalHead,
    save_network,
    TablePFN,
)
from bayesjx.amortized._table_network import cell_values, column_statistics

RNG = np.random.default_rng(0)
N, M, D = 11, 5, 3
X, X_NEW = RNG.normal(size=(N, D)), RNG.normal(size=(M, D))
X[2, 1] = X_NEW[1, 0] = np.nan
Y = RNG.integers(0, 3, N)


def network(head=None, **options):
    with jax.enable_x64(True):
        head = CategoricalHead(4) if head is None else head
        sizes = {"width": 8, "depth": 2, "heads": 2, "group": 2, "key": jax.random.key(0)}
        net = TablePFN(5, head, **(sizes | options))
    leaves, structure = jax.tree.flatten(net)
    heads = {id(leaf) for leaf in jax.tree.leaves(net.head)}
    rng = np.random.default_rng(1)
    drawn = [v if id(v) in heads else v + 0.3 * rng.normal(size=v.shape) for v in leaves]
    return jax.tree.unflatten(structure, drawn)


@functools.lru_cache(2)
def classifier(baselines=False):
    return network(baselines=True, depth=1) if baselines else network()


def columns_of(x, mask):
    return column_statistics(jnp.asarray(x), jnp.asarray(mask))


def test_columns_are_standardised_and_ranked_by_the_context():
    mask = np.arange(N) < 8
    columns = columns_of(X, mask)
    rows = X[:8]
    np.testing.assert_allclose(columns.loc, np.nanmean(rows, axis=0), rtol=1e-12)
    np.testing.assert_allclose(columns.scale, np.nanstd(rows, axis=0), rtol=1e-12)
    x_new = np.vstack([X_NEW, rows[:2], [[50.0, -50.0, 3e9]]])
    cells = np.asarray(cell_values(jnp.asarray(x_new), columns))
    z = (x_new - np.nanmean(rows, axis=0)) / np.nanstd(rows, axis=0)
    beyond = np.sign(z) * (3 + np.log(np.maximum(np.abs(z), 3) - 2))
    np.testing.assert_allclose(cells[..., 0], np.nan_to_num(np.where(abs(z) > 3, beyond, z)))
    for i, j in np.argwhere(~np.isnan(x_new)):
        column = rows[~np.isnan(rows[:, j]), j]
        share = scipy.stats.percentileofscore(column, x_new[i, j], kind="mean") / 100
        np.testing.assert_allclose(cells[i, j, 1], (share - 0.5) * 12**0.5, atol=1e-12)
    np.testing.assert_array_equal(cells[..., 2], np.isnan(x_new))


def test_constants_and_columns_without_values_are_not_used():
    x = np.column_stack([X[:, 0], np.full(N, 1e8 + 0.1), np.full(N, np.nan)])
    x[1:, 2] = 4.0
    x[2:, 2] = np.nan
    columns = columns_of(x.astype(np.float32), np.ones(N, bool))
    np.testing.assert_array_equal(columns.used, [True, False, False])
    cells = np.asarray(cell_values(jnp.asarray(x), columns))
    np.testing.assert_array_equal(cells[:, 1:, 2], 1)
    np.testing.assert_array_equal(cells[:, 1:, :2], 0)


@pytest.mark.parametrize("baselines", [False, True])
def test_what_makes_no_difference_to_predictions(baselines):
    net = classifier(baselines)
    want = net(X, Y, X_NEW).probs
    np.testing.assert_allclose(np.sum(want, axis=1), 1, rtol=1e-12)
    order = RNG.permutation(N)
    same = {
        "order of rows": net(X[order], Y[order], X_NEW),
        "units": net(X * [10, 1e3, 1e-3] + [7, 0, -1], Y, X_NEW * [10, 1e3, 1e-3] + [7, 0, -1]),
        "a constant column": net(
            np.column_stack([X, np.ones(N)]), Y, np.column_stack([X_NEW, np.full(M, 9.0)])
        ),
        "columns without values": net(
            np.column_stack([X, np.full((N, 2), np.nan)]), Y, np.column_stack([X_NEW, X_NEW[:, :2]])
        ),
        "rows that do not count": net.condition(
            np.vstack([X, 100 * X]), np.tile(Y, 2), mask=np.arange(2 * N) < N
        ).predict(X_NEW),
        "kept keys and values": jax.jit(lambda x: net.condition(X, Y).predict(x))(X_NEW),
    }
    for name, got in same.items():
        np.testing.assert_allclose(got.probs, want, rtol=1e-8, err_msg=name)
    apart = np.concatenate([net(X, Y, X_NEW[i : i + 1]).probs for i in range(M)])
    np.testing.assert_array_equal(apart, want)


def test_what_makes_a_difference_to_predictions():
    net = classifier()
    want = net(X, Y, X_NEW).probs
    x_missing = X.copy()
    x_missing[0, 0] = np.nan
    for name, got in {
        "a target": net(X, np.where(np.arange(N) == 3, 3, Y), X_NEW),
        "a missing value": net(x_missing, Y, X_NEW),
        "a value": net(np.where(np.arange(N)[:, None] == 3, -X, X), Y, X_NEW),
        "another column": net(np.column_stack([X, X[:, 0] ** 2]), Y,
                              np.column_stack([X_NEW, X_NEW[:, 0] ** 2])),
    }.items():  # fmt: skip
        assert np.max(np.abs(got.probs - want)) > 1e-4, name


def test_many_tables_at_once_are_each_table():
    net = network(BarHead(np.linspace(-2, 2, 8)), baselines=True)
    tables = [np.stack([v, v[::-1]]) for v in (X, X.sum(axis=1), X_NEW)]
    tables[1] = np.nan_to_num(tables[1])
    mask = jnp.stack([jnp.arange(N) < 6, jnp.ones(N, bool)])
    y = jnp.asarray(tables[1])
    run = eqx.filter_jit(type(net).outputs)
    outputs = run(net, jnp.asarray(tables[0]), y, jnp.asarray(tables[2]), mask)
    for i in (0, 1):
        rows = np.asarray(mask[i])
        alone = run(
            net,
            jnp.asarray(tables[0][i][rows]), y[i][rows], jnp.asarray(tables[2][i]),
            jnp.ones(rows.sum(), bool),
        )  # fmt: skip
        np.testing.assert_allclose(outputs[i], alone, rtol=1e-9)


def test_untrained_networks_are_their_regressions(tmp_path):
    """Of two classes that a column tells apart, or does not; of values that are a line."""
    with jax.enable_x64(True):
        sizes = {"width": 8, "depth": 1, "heads": 2, "key": jax.random.key(3), "baselines": True}
        x, x_new = np.linspace(0.2, 2, 12)[:, None] ** 4, np.array([[0.5], [14.0]])
        of_classes = TablePFN(1, CategoricalHead(4), **sizes)
        of_values = TablePFN(1, BarHead(np.linspace(-6, 6, 97)), **sizes)
    save_network(tmp_path / "values", of_values)
    probs = of_classes(x, (x[:, 0] > 1.5) * 2, x_new).probs
    np.testing.assert_allclose(probs[:, [0, 2]], np.eye(2), atol=0.2)
    probs = of_classes(x, (np.arange(12) % 4 == 1) * 2, x_new).probs
    np.testing.assert_allclose(probs[:, [0, 2]], [[0.75, 0.25]] * 2, atol=0.12)
    new = load_network(tmp_path / "values")(x, 3 * x[:, 0] + 50, np.array([[5.0], [10.0]]))
    np.testing.assert_allclose(new.mean, [65, 80], atol=1.5)  # whose standard deviation is 15
    assert np.all(np.sqrt(new.variance) < 3)


@pytest.mark.errors
def test_bad_tables_are_named():
    net = classifier()
    posterior = net.condition(X, Y)
    for call, words in (
        (lambda: net.condition(np.zeros((N, 0)), Y), "1 to 128 columns"),
        (lambda: net.condition(np.full((N, D), np.inf), Y), "NaN means missing"),
        (lambda: posterior.predict(X_NEW[:, :2]), r"3 columns, got shape \(5, 2\)"),
        (lambda: net.condition(X, Y + 9), "classes 0"),
        (lambda: network(width=10, heads=5), "4 must divide width"),
        (lambda: network(baselines=2), "baselines must be True or False, got 2"),
        (lambda: network(NormalHead(), baselines=True), "baselines need a BarHead or"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    with pytest.warns(UserWarning, match="6 columns, more than the 5"):
        net.condition(np.column_stack([X, X]), Y)
