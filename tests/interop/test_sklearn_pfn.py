"""Networks of tables as estimators of scikit-learn: the network's numbers, tables, saving."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesjx import amortized

pytest.importorskip("sklearn")

MOST = 4  # columns of the networks here


def perturbed(network, scale=0.3):
    """Weights away from zero, at which what a network returns would not depend on its inputs."""
    leaves, tree = jax.tree.flatten(network)
    rng = np.random.default_rng(0)
    borders = getattr(network.head, "borders", None)
    return tree.unflatten(
        [
            leaf if leaf is borders else leaf + scale * rng.normal(size=leaf.shape).astype("f4")
            for leaf in leaves
        ]
    )


@pytest.fixture(scope="module")
def classes():
    head = amortized.CategoricalHead(5)
    return perturbed(
        amortized.TablePFN(
            MOST, head, key=jax.random.key(0), width=8, depth=1, heads=2, max_context=40
        )
    )


@pytest.fixture(scope="module")
def values():
    head = amortized.BarHead(np.linspace(-3, 3, 8, dtype=np.float32))
    return perturbed(
        amortized.TablePFN(
            MOST, head, key=jax.random.key(1), width=8, depth=1, heads=2, max_context=40
        )
    )


def table(n=29, d=3):
    rng = np.random.default_rng(1)
    return rng.normal(size=(n, d)) * [1e-3, 1, 1e5][:d] + 7, rng


def as_seen(x, given):
    return ((given - x.mean(axis=0)) / x.std(axis=0)).astype(np.float32)


def test_probabilities_are_those_of_the_network_over_orders(classes):
    from bayesjx.interop import PFNClassifier

    x, rng = table()
    y = np.array(["c", "a", "b"])[rng.integers(3, size=29)]
    model = PFNClassifier(classes, n_estimators=1).fit(x, y)
    codes = np.searchsorted(["a", "b", "c"], y)
    lacking = np.full((29, 1), np.nan, np.float32)
    seen = np.hstack([as_seen(x, x), lacking])
    want = classes(seen, codes, seen).probs[:, :3]
    want = want / want.sum(axis=1, keepdims=True)
    got = model.predict_proba(x)
    np.testing.assert_allclose(got, want, rtol=2e-4)
    np.testing.assert_allclose(got.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_array_equal(model.predict(x), model.classes_[got.argmax(axis=1)])
    # Over several orders: the mean of logarithms that each order of columns and classes gives.
    several = PFNClassifier(classes, n_estimators=3, random_state=2).fit(x, y)
    orders = several._context.orders
    assert len(orders) == 3
    mean = np.zeros((29, 3))
    for order, recoded in orders:
        seen = np.hstack([as_seen(x, x)[:, list(order)], lacking])
        each = np.asarray(classes(seen, np.asarray(recoded)[codes], seen).probs)
        mean += np.log(each[:, list(recoded)]) / 3
    want = np.exp(mean / 0.9)
    want = want / want.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(several.predict_proba(x), want, rtol=2e-4)


def test_distributions_are_those_of_the_network_in_the_targets_units(values):
    from bayesjx.interop import PFNRegressor

    x, rng = table()
    y = 1e4 + 50 * rng.normal(size=29)
    model = PFNRegressor(values, n_estimators=1).fit(x, y)
    seen = np.hstack([as_seen(x, x), np.full((29, 1), np.nan, np.float32)])
    want = values(seen, ((y - y.mean()) / y.std()).astype(np.float32), seen)
    mean, std = model.predict(x, return_std=True)
    np.testing.assert_allclose((mean - y.mean()) / y.std(), want.mean, rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(std / y.std(), want.variance**0.5, rtol=2e-3)
    levels = model.predict(x, quantiles=[0.05, 0.5])
    assert levels.shape == (29, 2) and np.all(levels[:, 0] < levels[:, 1])
    new = model.predict_distribution(x)
    np.testing.assert_allclose(new.cdf(jnp.asarray(levels[:, 1])), 0.5, atol=2e-3)


def test_any_number_of_queries_shares_one_program(values):
    from bayesjx.interop import PFNRegressor

    x, rng = table(n=150)
    model = PFNRegressor(values, n_estimators=1).fit(x[:29], rng.normal(size=29))
    whole = model.predict(x)
    np.testing.assert_array_equal(model.predict(x[130:131]), whole[130:131])
    np.testing.assert_array_equal(model.predict(x[60:70]), whole[60:70])


def test_saved_it_is_the_table_and_predicts_the_same(classes):
    from sklearn.base import clone

    from bayesjx.interop import PFNClassifier

    x, rng = table()
    model = PFNClassifier(classes, n_estimators=2).fit(x, rng.integers(2, size=29))
    before = model.predict_proba(x)
    state = pickle.dumps(model)
    # The network was given as an object, and is saved once; its keys and values are not.
    assert len(state) < len(pickle.dumps(classes)) + 29 * (3 * 4 + 4) + 4000
    np.testing.assert_array_equal(pickle.loads(state).predict_proba(x), before)
    assert not hasattr(clone(model), "classes_")


def test_columns_of_words_and_missing_values(classes):
    pd = pytest.importorskip("pandas")
    from bayesjx.interop import PFNClassifier

    x, rng = table()
    words = np.array(["red", "blue", "green"])[rng.integers(3, size=29)]
    y = rng.integers(2, size=29)
    x[3, 0] = np.nan
    frame = pd.DataFrame({"size": x[:, 0], "colour": pd.Categorical(words), "open": x[:, 1] > 7})
    frame.loc[5, "colour"] = np.nan
    codes = np.searchsorted(["blue", "green", "red"], words).astype(float)
    codes[5] = np.nan
    numbers = np.stack([x[:, 0], codes, x[:, 1] > 7], axis=1)
    model = PFNClassifier(classes, n_estimators=2).fit(frame, y)
    plain = PFNClassifier(classes, n_estimators=2).fit(numbers, y)
    np.testing.assert_allclose(model.predict_proba(frame), plain.predict_proba(numbers))
    assert list(model.feature_names_in_) == ["size", "colour", "open"]
    new = frame.iloc[:2].assign(colour="violet")  # not among those it knows: missing
    numbers = numbers[:2].copy()
    numbers[:, 1] = np.nan
    np.testing.assert_allclose(model.predict_proba(new), plain.predict_proba(numbers))


@pytest.mark.parametrize("scale", [1e-200, 1e30, 1e150])
def test_units_do_not_matter(values, scale):
    from bayesjx.interop import PFNRegressor

    x, rng = table()
    y = rng.normal(size=29)
    one = PFNRegressor(values, n_estimators=1).fit(x, y).predict(x)
    other = PFNRegressor(values, n_estimators=1).fit(x * scale, y * scale + 1e8 * scale)
    got = other.predict(x * scale) / scale - 1e8  # as times in seconds are
    np.testing.assert_allclose(got, one, rtol=1e-4, atol=1e-4)


def test_it_warns_beyond_what_the_network_was_trained_with(classes, values):
    from bayesjx.interop import PFNClassifier, PFNRegressor

    rng = np.random.default_rng(0)
    with pytest.warns(UserWarning, match="41 rows, more than the 40"):
        PFNRegressor(values).fit(rng.normal(size=(41, 2)), rng.normal(size=41))
    with pytest.warns(UserWarning, match="5 columns, more than the 4"):
        PFNClassifier(classes).fit(rng.normal(size=(20, 5)), rng.integers(2, size=20))
    with pytest.warns(UserWarning, match="all targets are equal"):
        PFNRegressor(values).fit(rng.normal(size=(20, 2)), np.full(20, 0.1))


@pytest.mark.errors
def test_wrong_input_is_refused(classes, values):
    from bayesjx.interop import PFNClassifier, PFNRegressor

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 2)), np.arange(12) % 6
    with pytest.raises(ValueError, match="y has 6 classes, the network at most 5"):
        PFNClassifier(classes).fit(x, y)
    with pytest.raises(ValueError, match="not one of classes"):
        PFNClassifier(values).fit(x, y % 2)
    with pytest.raises(ValueError, match="not one of real targets"):
        PFNRegressor(classes).fit(x, x[:, 0])
    with pytest.raises(ValueError, match="network must be a name"):
        PFNRegressor(3).fit(x, x[:, 0])
    with pytest.raises(ValueError, match="n_estimators"):
        PFNRegressor(values, n_estimators=0).fit(x, x[:, 0])
    with pytest.raises(ValueError, match="infinity"):
        PFNRegressor(values).fit(np.where(x > 0, x, np.inf), x[:, 0])


CHECKS = ["check_estimators_unfitted", "check_dict_unchanged", "check_fit2d_1feature"]


@pytest.mark.parametrize("check", CHECKS)
def test_some_of_scikit_learns_checks(classes, check):
    from sklearn.utils import estimator_checks

    from bayesjx.interop import PFNClassifier

    getattr(estimator_checks, check)("PFNClassifier", PFNClassifier(classes, n_estimators=1))


@pytest.mark.nightly
@pytest.mark.timeout(3000)
@pytest.mark.compiles(4000, "a table of another size for nearly every check")
@pytest.mark.filterwarnings("ignore:.*more than the (96|10) that the network was trained with")
@pytest.mark.parametrize("kind", ["PFNClassifier", "PFNRegressor"])
def test_it_passes_scikit_learns_checks(kind):
    from sklearn.utils.estimator_checks import check_estimator

    from bayesjx import interop

    # Its 100 rows are more than the networks were trained with, and it allows no warning.
    expected = {"check_positive_only_tag_during_fit": "warns of the number of rows"}
    results = check_estimator(
        getattr(interop, kind)(), on_fail=None, on_skip=None, expected_failed_checks=expected
    )
    failed = {r["check_name"]: r["exception"] for r in results if r["status"] == "failed"}
    assert not failed
    assert sum(r["status"] == "passed" for r in results) > 40


@pytest.mark.nightly
def test_the_network_of_values_is_about_as_good_as_least_squares_where_that_is_exact():
    from bayesjx.interop import PFNRegressor

    rng = np.random.default_rng(5)
    x = rng.normal(size=(400, 8))
    y = 7 + 3 * x @ rng.normal(size=8) + rng.normal(size=400)
    model = PFNRegressor().fit(x[:80], y[:80])
    design = np.column_stack([x, np.ones(400)])
    best = design[80:] @ np.linalg.lstsq(design[:80], y[:80], rcond=None)[0]
    mean, (low, high) = model.predict(x[80:]), model.predict(x[80:], quantiles=[0.05, 0.95]).T
    errors = [np.sqrt(np.mean((m - y[80:]) ** 2)) for m in (mean, best)]
    assert errors[0] < 2 * errors[1]  # far ones too, beyond the bars; those of the targets are 10
    near = np.abs(best - y[:80].mean()) < 2 * y[:80].std()
    errors = [np.sqrt(np.mean((m - y[80:])[near] ** 2)) for m in (mean, best)]
    assert errors[0] < 1.2 * errors[1]
    assert 0.8 < np.mean((low < y[80:]) & (y[80:] < high)) < 0.97
