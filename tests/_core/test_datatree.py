import sys

import core_problems as problems
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesjx._core import fit, to_datatree

DRAWS = {"w": np.arange(12.0).reshape(6, 2), "s": np.arange(6.0)}


def test_draws_get_a_chain_and_named_dimensions():
    tree = to_datatree(DRAWS, dims={"w": ["feature"]}, coords={"feature": ["age", "dose"]})
    w = tree["posterior"]["w"]
    assert w.dims == ("chain", "draw", "feature") and w.shape == (1, 6, 2)
    assert float(w.sel(chain=0, draw=4, feature="dose")) == 9.0
    assert tree["posterior"]["s"].dims == ("chain", "draw")
    assert w.dtype == np.float64


def test_unnamed_dimensions_follow_arviz():
    w = to_datatree({"w": jnp.zeros((5, 3, 2), jnp.float32)})["posterior"]["w"]
    assert w.dims == ("chain", "draw", "w_dim_0", "w_dim_1")
    assert w.dtype == np.float32 and list(w["w_dim_0"].values) == [0, 1, 2]


def test_chains_by_number_or_by_axis():
    flat = to_datatree(DRAWS, num_chains=2)["posterior"]["w"]
    np.testing.assert_array_equal(flat.values, DRAWS["w"].reshape(2, 3, 2))
    chains_first = DRAWS["w"].reshape(2, 3, 2)
    first = to_datatree({"w": chains_first}, chain_axis=0)["posterior"]["w"]
    second = to_datatree({"w": chains_first.swapaxes(0, 1)}, chain_axis=1)["posterior"]["w"]
    for w in (first, second):
        assert w.dims[:2] == ("chain", "draw")
        np.testing.assert_array_equal(w.values, chains_first)


def test_all_groups_and_attributes():
    y = np.zeros(4)
    tree = to_datatree(
        DRAWS,
        sample_stats={"lp": np.zeros(6)},
        log_likelihood={"y": np.zeros((6, 4))},
        posterior_predictive={"y": np.zeros((6, 4))},
        prior={"s": np.zeros(9)},
        prior_predictive={"y": np.zeros((9, 4))},
        observed_data={"y": y},
        constant_data={"x": y},
        dims={"y": ["city"]},
        coords={"city": list("abcd")},
        attrs={"model": "schools"},
    )
    assert set(tree.children) == {
        "posterior",
        "sample_stats",
        "log_likelihood",
        "posterior_predictive",
        "prior",
        "prior_predictive",
        "observed_data",
        "constant_data",
    }
    assert tree["observed_data"]["y"].dims == ("city",)
    assert tree["log_likelihood"]["y"].dims == ("chain", "draw", "city")
    assert tree["prior"].sizes["draw"] == 9
    assert tree.attrs["model"] == "schools"
    for node in (tree, tree["posterior"]):
        assert node.attrs["inference_library"] == "bayesjx" and "created_at" in node.attrs
        assert node.attrs["creation_library_language"] == "Python"


def test_history_of_a_fit(dtype):
    data, state = problems.rows(dtype), problems.start(dtype)
    result = fit(jax.random.key(0), problems.regression(), state, 30, data=data)
    tree = result.to_datatree(
        DRAWS, observed_data={"y": data[1]}, dims={"slope": ["feature"]}, attrs={"run": 7}
    )
    history = tree["fit_history"]
    assert history["objective"].dims == ("step",) and history["objective"].dtype == dtype
    assert history["slope"].dims == ("step", "feature")
    np.testing.assert_array_equal(history["slope"].values, result.info.slope)
    assert tree.attrs["fit_message"] == "completed 30 steps" and tree.attrs["run"] == 7
    assert set(result.to_datatree().children) == {"fit_history"}


def test_bfloat16_becomes_float32():
    tree = to_datatree({"w": jnp.ones(3, jnp.bfloat16)})
    assert tree["posterior"]["w"].dtype == np.float32


@pytest.mark.errors
@pytest.mark.parametrize(
    "options, text",
    [
        ({"dims": {"w": ["a", "b"]}}, r"dims\['w'\] names 2 dimensions.*has 1.*\(1, 6, 2\)"),
        ({"dims": {"v": ["a"]}}, r"dims names 'v', but the variables are \['s', 'w'\]"),
        ({"dims": {"w": ["a"]}, "coords": {"a": [1]}}, r"'w' has length 2 along 'a'.*1 labels"),
        ({"num_chains": 4}, "posterior 'w' has 6 draws.*num_chains=4"),
        ({"num_chains": 2, "chain_axis": 0}, "not both"),
        ({"chain_axis": 2}, "0 or 1"),
        ({"chain_axis": 0}, r"posterior 's' must have chains and draws.*\(6,\)"),
        ({"sample_stats": {"lp": 1.0}}, r"sample_stats 'lp' must have draws.*\(\)"),
        ({"prior": {"a": np.ones(3), "b": np.ones(4)}}, "'b' has length 4 along 'draw', but 'a'"),
        ({"observed_data": {"scope/y": np.ones(3)}}, "'scope/y' has a '/'"),
    ],
)
def test_mismatches_name_the_variable(options, text):
    with pytest.raises(ValueError, match=text):
        to_datatree(DRAWS, **options)


@pytest.mark.errors
def test_missing_xarray_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(ImportError, match=r"pip install bayesjx\[xarray\]"):
        to_datatree(DRAWS)
