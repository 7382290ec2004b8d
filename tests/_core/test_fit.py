import gc
import weakref
from pathlib import Path
from typing import NamedTuple

import core_problems as problems
import devices
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesjx._core import Algorithm, CallbackInfo, check_key, fit, tree_paths
from bayesjx._core._loop import Loop

KEY = jax.random.key(1)


def run(dtype, num_steps=30, **options):
    options = {"data": problems.rows(dtype), **options}
    return fit(KEY, problems.regression(), problems.start(dtype), num_steps, **options)


def test_equals_a_loop_over_step(dtype, tol):
    step, state, data = (
        jax.jit(problems.regression().step),
        problems.start(dtype),
        problems.rows(dtype),
    )
    infos = []
    for i in range(30):
        state, info = step(jax.random.fold_in(KEY, i), state, *data)
        infos.append(info)
    result = run(dtype)
    for x, y in zip(jax.tree.leaves(result.state), jax.tree.leaves(state), strict=True):
        np.testing.assert_allclose(x, y, **tol)
        assert x.dtype == y.dtype
    want = jax.tree.map(lambda *x: np.stack(x), *infos)
    np.testing.assert_allclose(result.info.objective, want.objective, **tol)
    np.testing.assert_allclose(result.info.slope, want.slope, **tol)
    assert isinstance(result.info, problems.Info) and isinstance(result.info.slope, np.ndarray)
    assert result.info.slope.shape == (30, 3) and result.info.slope.dtype == dtype
    assert result.ok and result.num_steps == 30 and result.message == "completed 30 steps"


def test_does_not_depend_on_chunks(dtype):
    want = run(dtype)
    for chunk_size in (1, 7, 30, 1000):
        got = run(dtype, chunk_size=chunk_size)
        problems.assert_same((got.state, got.info), (want.state, want.info))


def test_batches_reach_their_step_and_do_not_depend_on_chunks(dtype, tol):
    make = lambda step: problems.batch(dtype, step)  # noqa: E731
    want = run(dtype, data=(), batches=make)
    got = run(dtype, data=(), batches=make, chunk_size=11)
    problems.assert_same((got.state, got.info), (want.state, want.info))
    state = problems.start(dtype)
    for i in range(30):
        key = jax.random.fold_in(KEY, i)
        state, _ = jax.jit(problems.regression().step)(key, state, *make(i))
    np.testing.assert_allclose(got.state.params["slope"], state.params["slope"], **tol)


def half(state):
    return {"half": state.params["slope"] / 2}


def test_kept_states_do_not_depend_on_chunks(dtype):
    whole = run(dtype, keep=half)
    assert whole.kept["half"].shape == (30, 3) and whole.kept["half"].dtype == dtype
    np.testing.assert_array_equal(whole.kept["half"], whole.info.slope / 2)
    for chunk_size, thin in ((1, 4), (7, 4), (7, 30)):
        got = run(dtype, chunk_size=chunk_size, keep=half, thin=thin)
        problems.assert_same(got.kept["half"], whole.kept["half"][thin - 1 :: thin])
    assert run(dtype).kept is None


def test_what_is_kept_of_a_fit_that_goes_bad_ends_before():
    step = lambda key, s: (s + jnp.where(s > 9, jnp.nan, 1.0), None)  # noqa: E731
    algorithm = Algorithm(lambda: None, step)
    got = fit(KEY, algorithm, jnp.zeros(()), 20, keep=lambda s: s, thin=3, throw=False)
    assert not got.ok and got.num_steps == 10
    np.testing.assert_array_equal(got.kept, [3.0, 6.0, 9.0])


def test_rows_are_drawn_on_the_device_and_do_not_depend_on_chunks(dtype):
    """Each equally often, the same of all arrays, with a key of their own."""

    def step(key, state, x, both):
        same = jnp.all(x == both["x"][:, 0]) & (x.shape == (5,))
        counts = state[0].at[x.astype(int)].add(1)
        return (counts, state[1] & same, jax.random.normal(key, (), dtype)), None

    x = jnp.arange(7, dtype=dtype)
    data = x, {"x": jnp.stack([x, -x], axis=1)}
    start = jnp.zeros(7, int), jnp.array(True), jnp.zeros((), dtype)
    algorithm = Algorithm(lambda: None, step)
    whole = fit(KEY, algorithm, start, 2000, data=data, batch_size=5)
    for chunk_size in (1999, 700):
        got = fit(KEY, algorithm, start, 2000, data=data, batch_size=5, chunk_size=chunk_size)
        problems.assert_same(got.state, whole.state)
    counts, same, _ = whole.state
    assert same and counts.sum() == 10_000
    assert np.sum((counts - 10_000 / 7) ** 2) / (10_000 / 7) < 27.9  # χ² of 6, one in 10 000


def test_data_come_before_batches():
    def step(key, state, x, y):
        return state + 10 * x + y, None

    count = lambda i: (np.asarray(i, np.float32),)  # noqa: E731
    state = jnp.zeros((), jnp.float32)
    data = (jnp.ones((), jnp.float32),)
    result = fit(KEY, Algorithm(lambda: None, step), state, 4, data=data, batches=count)
    assert result.state == 4 * 10 + 0 + 1 + 2 + 3
    assert result.info is None


def test_raw_keys_and_typed_keys_give_the_same():
    data, state = problems.rows(jnp.float32), problems.start(jnp.float32)
    raw = fit(jax.random.PRNGKey(1), problems.regression(), state, 30, data=data)
    problems.assert_same(raw.state, run(jnp.float32).state)


class Exotic(NamedTuple):
    half: jax.Array
    key: jax.Array
    count: jax.Array
    empty: jax.Array


def exotic():
    """A state with an unusual key, bfloat16, integers, nothing, and a weakly typed result."""

    def step(key, state):
        key, subkey = jax.random.split(state.key)
        half = state.half + jax.random.normal(subkey, (3,), jnp.bfloat16)
        count = jnp.where(state.count > 3, 0, 1) + state.count
        return Exotic(half, key, count.astype(jnp.int8), state.empty), problems.Info(
            half.sum(), half
        )

    state = Exotic(
        jnp.zeros(3, jnp.bfloat16),
        jax.random.key(9, impl="rbg"),
        jnp.int8(0),
        jnp.zeros((0, 2), jnp.float32),
    )
    return Algorithm(lambda: state, step), state


def test_states_with_keys_and_small_types():
    algorithm, state = exotic()
    result = fit(KEY, algorithm, state, 10, chunk_size=4)
    want = state
    for _ in range(10):
        want, _ = algorithm.step(None, want)
    problems.assert_same(result.state.key, want.key)
    assert result.state.half.dtype == jnp.bfloat16 and result.state.count.dtype == jnp.int8
    assert result.info.slope.dtype == jnp.bfloat16


def test_the_given_state_stays_valid_and_may_repeat_a_leaf():
    x = jnp.ones(3)
    state = {"a": x, "b": x}
    step = lambda key, s: ({"a": s["a"] + s["b"], "b": s["b"]}, None)  # noqa: E731
    result = fit(KEY, Algorithm(lambda: state, step), state, 5)
    np.testing.assert_array_equal(result.state["a"], 6.0)
    np.testing.assert_array_equal(x, 1.0)


def test_one_trace_and_one_compilation_for_all_calls():
    traces, algorithm = [], problems.make_regression()

    def step(*args):
        traces.append(1)
        return algorithm.step(*args)

    counted = algorithm._replace(step=step)
    state = problems.start(jnp.float32, counted)
    for num_steps, shift in ((103, 0), (103, 1), (128, 0)):
        x, y = problems.rows(jnp.float32)
        result = fit(KEY, counted, state, num_steps, data=(x, y + np.float32(shift)))
        assert (result.compile_seconds > 0) == (num_steps == 103 and shift == 0)
    assert len(traces) == 1


def test_compiled_programs_die_with_their_algorithm():
    algorithm = problems.make_regression()
    fit(KEY, algorithm, problems.start("float32", algorithm), 2, data=problems.rows("float32"))
    step = weakref.ref(algorithm.step)
    del algorithm
    gc.collect()
    assert step() is None


class Drift(eqx.Module):
    """A module with arrays: its methods have no hash."""

    by: jax.Array

    def step(self, key, state):
        return state + self.by, None


def test_a_method_of_a_module_can_be_the_step():
    algorithm = Algorithm(len, Drift(jnp.ones(2)).step)
    for _ in range(2):
        np.testing.assert_array_equal(fit(KEY, algorithm, jnp.zeros(2), 3).state, 3)


def test_data_spread_over_two_devices():
    script = Path(__file__).with_name("two_devices.py")
    assert devices.printed(script, 2) == ["2", "resumed", "15"]


# Callbacks and progress ---------------------------------------------------------------------------


def test_callback_sees_each_chunk_and_all_that_came_before(dtype):
    seen = []
    result = run(dtype, chunk_size=11, callback=seen.append)
    assert [info.step for info in seen] == [11, 22, 30]
    assert [len(info.info.objective) for info in seen] == [11, 11, 8]
    assert [len(info.history.objective) for info in seen] == [11, 22, 30]
    chunks = np.concatenate([info.info.objective for info in seen])
    np.testing.assert_array_equal(chunks, result.info.objective)
    early = run(dtype, num_steps=11, chunk_size=11)
    problems.assert_same(seen[0].state, early.state)  # still valid after the fit
    assert isinstance(seen[0], CallbackInfo) and seen[0].num_steps == 30
    assert 0 < seen[0].seconds < seen[1].seconds


@pytest.mark.parametrize("answer, text", [(True, "callback"), ("it is Friday", "it is Friday")])
def test_callback_stops(answer, text):
    result = run(jnp.float32, chunk_size=7, callback=lambda info: info.step >= 14 and answer)
    assert result.ok and result.num_steps == 14 == len(result.info.objective)
    assert result.message.startswith("stopped after 14 steps") and text in result.message
    problems.assert_same(result.state, run(jnp.float32, num_steps=14, chunk_size=7).state)


def test_an_error_in_the_callback_passes_through():
    def callback(info):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        run(jnp.float32, callback=callback)


def test_progress_bar_adds_dispatches_per_second_not_per_step(monkeypatch, capsys):
    dispatches, seen = [], []
    advance = Loop.advance

    def counting(self, count):
        dispatches.append(count)
        return advance(self, count)

    monkeypatch.setattr(Loop, "advance", counting)
    quiet = run(jnp.float32, num_steps=20_000)
    assert len(dispatches) == 20
    dispatches.clear()
    shown = run(jnp.float32, num_steps=20_000, progress=True, callback=seen.append)
    assert sum(dispatches) == 20_000 and len(dispatches) < 200
    assert len(seen) == 20  # callbacks come per chunk, however the bar cuts it
    problems.assert_same((quiet.state, quiet.info), (shown.state, shown.info))
    text = capsys.readouterr().err
    assert "20000/20000" in text and f"objective {shown.info.objective[-2000:].mean():.3g}" in text


def test_no_progress_bar_unless_asked(capsys):
    run(jnp.float32)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


# Results ------------------------------------------------------------------------------------------


def test_result_prints_in_aligned_lines():
    result = run(jnp.float32)
    lines = repr(result).splitlines()
    assert lines[0] == "FitResult ok"
    assert [line.split()[0] for line in lines[1:]] == [
        "status",
        "steps",
        "objective",
        "time",
        "compile",
    ]
    assert all(line[:2] == "  " and line[12] == " " and line[13] != " " for line in lines[1:])
    assert "completed 30 steps" in lines[1] and "±" in lines[3] and "last 3 steps" in lines[3]
    assert "per step" in lines[4]
    assert "cached" in repr(run(jnp.float32)).splitlines()[5]


# Bad input ----------------------------------------------------------------------------------------


def bad_step(change):
    def step(key, state):
        return change(state)

    return Algorithm(lambda: None, step)


STATE = {"loc": jnp.zeros(3, jnp.float32), "scale": jnp.ones((), jnp.float32)}


@pytest.mark.errors
@pytest.mark.parametrize(
    "change, text",
    [
        (
            lambda s: ({**s, "loc": s["loc"][:2]}, None),
            r"state\['loc'\].*float32\[3\].*float32\[2\]",
        ),
        (lambda s: ({**s, "scale": 1}, None), r"state\['scale'\] from float32\[\] to int"),
        (lambda s: ({"loc": s["loc"]}, None), r"state\['scale'\] is gone"),
        (lambda s: ({**s, "more": 1.0}, None), r"state\['more'\] is new"),
        (lambda s: ((s["loc"], s["scale"]), None), "is gone"),
        (lambda s: s, "pair"),
        (lambda s: (s, problems.Info(s["loc"], s["loc"])), r"objective.*scalar.*float32\[3\]"),
        (lambda s: (s, problems.Info({"a": 1.0}, 1.0)), "objective.*scalar"),
        (lambda s: (s, problems.Info(1.0, jax.random.key(0))), "slope is a PRNG key"),
    ],
)
def test_bad_steps_are_found_before_they_run(change, text):
    with pytest.raises(ValueError, match=text):
        fit(KEY, bad_step(change), STATE, 3)


@pytest.mark.errors
@pytest.mark.parametrize(
    "options, text",
    [
        ({"num_steps": 0}, "num_steps must be from 1"),
        ({"num_steps": True}, "num_steps must be an int"),
        ({"chunk_size": -1}, "chunk_size must be from 1"),
        ({"data": (jnp.ones((0, 3)),)}, r"data\[0\] is empty.*\(0, 3\)"),
        ({"data": ({"x": "text"},)}, r"data\[0\]\['x'\] must be an array; got str"),
        ({"state": {"loc": 1.0}}, r"state\['loc'\] must be an array; got float"),
        ({"state": problems.State({"f": len}, ())}, r"params\['f'\] must be an array; got builtin"),
        ({"key": 3}, "key must be one PRNG key.*got int"),
        ({"key": jax.random.split(KEY, 3)}, "split"),
        ({"checkpoint_every": -1.0}, "checkpoint_every"),
        ({"thin": 0}, "thin must be from 1"),
        ({"thin": 2}, "thin=2 says which states are kept; pass keep"),
        ({"thin": 5, "keep": lambda s: s}, "thin=5 keeps no state of num_steps=3"),
        ({"keep": lambda s: jax.random.key(0)}, "kept is a PRNG key"),
        ({"keep": lambda s: {"z": "a"}}, r"kept\['z'\] must be an array; keep gave a str"),
        ({"batch_size": 0}, "batch_size must be from 1"),
        ({"batch_size": 2}, "batch_size draws rows of data, which must be arrays"),
        ({"batch_size": 2, "data": (jnp.ones(3), jnp.ones(4))}, "differ in number"),
        ({"batches": lambda step: np.ones(3)}, r"batches\(0\) must return a tuple"),
        ({"batches": lambda step: (1.0,)}, r"batches\(0\)\[0\] must be an array"),
        ({"batches": lambda step: (np.ones((0,)),)}, r"batches\(0\)\[0\] is empty"),
    ],
)
def test_bad_options_are_named(options, text):
    good = {"key": KEY, "algorithm": bad_step(lambda s: (s, None)), "state": STATE, "num_steps": 3}
    with pytest.raises(ValueError, match=text):
        fit(**{**good, **options})


@pytest.mark.errors
@pytest.mark.parametrize(
    "options, text",
    [
        ({"num_steps": 2.5}, "num_steps must be an int"),
        ({"data": jnp.ones(3)}, r"data=\(x,\)"),
        ({"check_finite": "all"}, "check_finite"),
    ],
)
def test_options_of_a_wrong_type_are_named(options, text):
    test_bad_options_are_named(options, text)


@pytest.mark.errors
def test_a_batch_of_another_shape_names_its_step():
    def batches(step):
        return problems.batch("float32", step) if step != 17 else (np.ones((4, 3)), np.ones(4))

    with pytest.raises(ValueError, match=r"batches\(17\).*float64\[4,3\].*float32\[5,3\].*pad"):
        run(jnp.float32, data=(), batches=batches)


@pytest.mark.errors
def test_check_key():
    check_key(jax.random.key(0))
    check_key(jax.random.PRNGKey(0))
    for bad in (0, None, jax.random.split(KEY), jnp.zeros(2)):
        with pytest.raises(ValueError, match="PRNG key"):
            check_key(bad)


def test_tree_paths_read_like_code():
    state = problems.start(jnp.float32)
    assert tree_paths(state)[:3] == ["params['offset']", "params['slope']", "opt_state[0].count"]
    assert tree_paths({"a": 1}, root="info") == ["info['a']"]
    assert tree_paths(jnp.ones(())) == ["state"]


def test_rows_without_columns_are_data():
    from bayesjx._core._fit import _check_not_empty

    assert _check_not_empty((jnp.ones((3, 0)), jnp.array(2.0))) is None
    with pytest.raises(ValueError, match=r"data\[0\] is empty"):
        _check_not_empty((jnp.ones((0, 3)),))


@pytest.mark.errors
def test_a_failed_check_of_a_step_raises_its_sentence_alone(caplog):
    def step(key, state, y):
        return eqx.error_if(state, jnp.any(y > 2), "y holds a label above 2"), None

    labels = np.array([0, 1, 3])
    with pytest.raises(RuntimeError, match=r"\Ay holds a label above 2\Z"):
        fit(KEY, Algorithm(lambda: 0.0, step), jnp.zeros(2), 3, data=(labels,))
    assert not caplog.records


def test_a_step_may_hold_numpy_scalars():
    scale = np.float64(0.5)  # as 1 / np.sqrt(4) is

    def step(key, state, scale):
        return state * scale, None

    algorithm = Algorithm(lambda: jnp.ones(()), eqx.Partial(step, scale=scale))
    assert fit(KEY, algorithm, jnp.ones(()), 3).state == 0.125
