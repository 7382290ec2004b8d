from typing import NamedTuple

import core_problems as problems
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesjx._core import Algorithm, fit, NonFiniteError

KEY = jax.random.key(1)


class State(NamedTuple):
    params: dict
    best: jax.Array


def breaking(at, breaks, diagnose=None):
    """Counts in `loc`; at step `at`, `breaks` changes the new state or the objective."""

    def step(key, state, scale, i):
        params = {"loc": state.params["loc"] + scale, "scale": state.params["scale"]}
        new, objective = State(params, state.best), jnp.sum(params["loc"])
        bad_state, bad_objective = breaks(new, objective)
        pick = lambda x, y: jnp.where(i == at, x, y)  # noqa: E731
        objective = pick(bad_objective, objective)
        return jax.tree.map(pick, bad_state, new), problems.Info(objective, params["loc"])

    return Algorithm(lambda: None, step, diagnose)


def start(dtype=jnp.float32):
    params = {"loc": jnp.zeros(3, dtype), "scale": jnp.ones(2, dtype)}
    return State(params, jnp.asarray(jnp.inf, dtype))


def run(algorithm, num_steps=40, dtype=jnp.float32, **options):
    scale = jnp.ones((), dtype)
    count = lambda i: (np.int32(i),)  # noqa: E731
    return fit(KEY, algorithm, start(dtype), num_steps, data=(scale,), batches=count, **options)


def nan_scale(state, objective):
    scale = state.params["scale"].at[1].set(jnp.nan)
    return State({**state.params, "scale": scale}, state.best), objective


def nan_objective(state, objective):
    return state, objective * jnp.nan


@pytest.mark.parametrize("at", [0, 1, 16, 22, 39])
@pytest.mark.parametrize("breaks", [nan_scale, nan_objective])
def test_keeps_the_state_before_the_first_bad_step(dtype, at, breaks):
    result = run(breaking(at, breaks), dtype=dtype, chunk_size=16, throw=False)
    assert not result.ok and result.num_steps == at
    np.testing.assert_array_equal(result.state.params["loc"], at)
    np.testing.assert_array_equal(result.state.params["scale"], 1)
    assert len(result.info.objective) == at
    np.testing.assert_array_equal(result.info.objective, 3 * np.arange(1, at + 1))
    assert result.message.startswith(f"not finite at step {at} ")
    assert repr(result).startswith("FitResult not finite\n")


def test_is_the_state_of_a_fit_that_stops_in_time(dtype):
    x, y = problems.rows(dtype)
    y[11] = np.nan  # some step draws this row with its key
    data, state = (x, y), problems.start(dtype)
    bad = fit(KEY, problems.regression(), state, 100, data=data, chunk_size=64, throw=False)
    assert 0 < bad.num_steps < 100 and f"step {bad.num_steps} " in bad.message
    assert "the objective is nan; the step makes params['offset'] nan (and 5 more)" in bad.message
    good = fit(KEY, problems.regression(), state, bad.num_steps, data=data, chunk_size=64)
    problems.assert_same((bad.state, bad.info), (good.state, good.info))


@pytest.mark.errors
def test_raises_with_the_leaf_named():
    with pytest.raises(NonFiniteError) as caught:
        run(breaking(22, nan_scale))
    text = str(caught.value)
    assert "not finite at step 22 (counted from 0)" in text
    assert "params['scale'] nan in 1 of 2 entries" in text and "params['loc']" not in text
    assert "objective of the step is still finite, 69" in text
    assert "after 22 steps" in text and "learning rate" in text
    assert caught.value.result.num_steps == 22 and caught.value.result.message == text


@pytest.mark.errors
def test_a_bad_first_step_points_at_the_start():
    with pytest.raises(NonFiniteError, match="the objective is nan\n(.*\n)*.*initial values"):
        run(breaking(0, nan_objective))


@pytest.mark.errors
def test_diagnose_gets_the_arguments_of_the_bad_step():
    calls = []

    def diagnose(key, state, scale, i):
        calls.append((key, state, scale, i))
        return "site 'scale' has log density nan"

    result = run(breaking(22, nan_scale, diagnose), throw=False)
    assert "site 'scale' has log density nan" in result.message.splitlines()
    ((key, state, scale, i),) = calls
    assert key == jax.random.fold_in(KEY, 22) and i == 22 and scale == 1
    problems.assert_same(state, result.state)


@pytest.mark.errors
def test_a_diagnose_that_fails_does_not_hide_the_message():
    def diagnose(*args):
        raise KeyError("site")

    result = run(breaking(22, nan_scale, diagnose), throw=False)
    assert "diagnose failed: KeyError: 'site'" in result.message
    assert "params['scale']" in result.message


def test_what_is_infinite_from_the_start_is_left_alone():
    result = run(breaking(99, nan_scale))
    assert result.ok and result.state.best == np.inf


def test_what_is_looked_at_can_be_chosen():
    assert run(breaking(22, nan_scale), check_finite="objective").ok
    assert run(breaking(22, nan_objective), check_finite="none").ok
    with pytest.raises(NonFiniteError):
        run(breaking(22, nan_objective), check_finite="objective")


def test_state_is_watched_where_info_has_no_objective():
    step = lambda key, s: (s - 1.0, {"log": jnp.log(s)})  # noqa: E731
    assert fit(KEY, Algorithm(len, step), jnp.asarray(3.0), 9).ok  # info is not watched
    root = lambda key, s: (jnp.sqrt(s - 1.0), None)  # noqa: E731
    result = fit(KEY, Algorithm(len, root), jnp.asarray(3.0), 9, throw=False)
    assert result.message.startswith("not finite at step 2 (counted from 0): the step makes state")


def test_a_saved_failure_fails_again_at_the_same_step(tmp_path):
    algorithm, path = breaking(22, nan_scale), tmp_path / "fit"
    first = run(algorithm, checkpoint=path, chunk_size=16, throw=False)
    second = run(algorithm, checkpoint=path, chunk_size=16, throw=False)
    assert second.resumed_from == 22 and second.message == first.message
    problems.assert_same((first.state, first.info), (second.state, second.info))
