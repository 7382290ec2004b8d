import hashlib
import inspect
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import core_problems as problems
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from test_fit import exotic

from bayesjx._core import (
    CheckpointError,
    CheckpointWriteError,
    describe_checkpoint,
    fit,
    load_checkpoint,
)
from bayesjx._core._checkpoint import _MAGIC

KEY = jax.random.key(2)
SCRIPT = Path(__file__).with_name("killed_fit.py")


def run(num_steps=60, dtype="float32", **options):
    options = {"key": KEY, "algorithm": problems.regression(), **options}
    options = {"data": problems.rows(dtype), "state": problems.start(dtype), **options}
    return fit(num_steps=num_steps, **{"chunk_size": 7, **options})


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The content of a checkpoint of 30 steps."""
    path = tmp_path_factory.mktemp("saved") / "fit.ckpt"
    run(30, checkpoint=path)
    return path.read_bytes()


@pytest.fixture
def path(tmp_path, saved):
    """A checkpoint of 30 steps."""
    path = tmp_path / "fit.ckpt"
    path.write_bytes(saved)
    return path


# Resuming -----------------------------------------------------------------------------------------


def test_a_killed_fit_goes_on_as_if_nothing_had_happened(dtype, tmp_path):
    path, dtype = tmp_path / "fit.ckpt", jnp.dtype(dtype).name
    command = [sys.executable, str(SCRIPT), str(path), dtype, "3000"]
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "JAX_ENABLE_X64": "1", "PYTHONPATH": root}
    environment["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # as in `conftest.py`
    child = subprocess.Popen(command, env=environment)
    try:
        deadline = time.monotonic() + 120
        while not path.exists() or describe_checkpoint(path)["step"] < 30:
            assert child.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    killed_at = describe_checkpoint(path)["step"]
    assert 30 <= killed_at < 3000
    resumed = run(3000, dtype, checkpoint=path)
    assert resumed.resumed_from == killed_at
    whole = run(3000, dtype)
    problems.assert_same((resumed.state, resumed.info), (whole.state, whole.info))
    assert resumed.message == whole.message == "completed 3000 steps"


def test_states_with_keys_and_small_types_survive(tmp_path):
    algorithm, state = exotic()
    common = {"state": state, "algorithm": algorithm, "data": ()}
    run(10, checkpoint=tmp_path / "fit", **common)
    resumed = run(20, checkpoint=tmp_path / "fit", **common)
    whole = run(20, **common)
    problems.assert_same((resumed.state, resumed.info), (whole.state, whole.info))
    saved, history, step = load_checkpoint(tmp_path / "fit", jax.eval_shape(algorithm.init))
    problems.assert_same(saved, whole.state)
    assert step == 20 and history["objective"].dtype == jnp.bfloat16


def test_a_finished_fit_returns_at_once_and_can_be_continued(path):
    before = path.stat().st_mtime_ns
    calls = []
    again = run(30, checkpoint=path, callback=calls.append)
    problems.assert_same((again.state, again.info), (run(30).state, run(30).info))
    assert again.resumed_from == 30 and again.message == "completed 30 steps"
    more = run(60, checkpoint=path)
    problems.assert_same((more.state, more.info), (run(60).state, run(60).info))
    assert path.stat().st_mtime_ns > before and describe_checkpoint(path)["step"] == 60


def test_with_batches(tmp_path):
    common = {"data": (), "batches": lambda step: problems.batch("float32", step)}
    run(30, checkpoint=tmp_path / "fit", **common)
    resumed = run(60, checkpoint=tmp_path / "fit", **common)
    whole = run(60, **common)
    problems.assert_same((resumed.state, resumed.info), (whole.state, whole.info))


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_interrupted_fit_is_saved(tmp_path, error):
    path, seen = tmp_path / "fit", []

    def interrupt(info):
        if info.step == 28:
            raise error

    with pytest.raises(error):
        run(checkpoint=path, callback=interrupt)
    assert describe_checkpoint(path)["step"] == 28
    resumed = run(checkpoint=path, callback=lambda info: seen.append(info.step))
    whole = run()
    problems.assert_same((resumed.state, resumed.info), (whole.state, whole.info))
    assert seen == [28, 35, 42, 49, 56, 60]  # the call that failed is made again


def test_a_stopped_fit_stays_stopped_until_more_is_asked_for(tmp_path):
    def stop(info):
        return info.step == 21 and "enough"

    first = run(checkpoint=tmp_path / "fit", callback=stop)
    again = run(checkpoint=tmp_path / "fit", callback=stop)
    assert again.message == first.message == "stopped after 21 steps: enough"
    problems.assert_same((again.state, again.info), (first.state, first.info))
    assert run(70, checkpoint=tmp_path / "fit", callback=stop).num_steps == 70


def test_is_saved_every_so_often(tmp_path, monkeypatch):
    path, steps = tmp_path / "fit", []
    replace = os.replace

    def counting(source, target):
        replace(source, target)
        steps.append(describe_checkpoint(target)["step"])

    monkeypatch.setattr(os, "replace", counting)
    run(checkpoint=path, checkpoint_every=0.0)
    assert steps[-1] == 60 and len(steps) >= 60 // 7 and steps == sorted(set(steps))
    steps.clear()
    path.unlink()
    run(checkpoint=path, checkpoint_every=1e6)
    assert steps == [60]


def test_a_place_that_is_full_leaves_the_old_file(path, monkeypatch):
    old = path.read_bytes()

    def full(descriptor):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        run(60, checkpoint=path)
    assert path.read_bytes() == old
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.errors
def test_a_place_that_cannot_be_written_is_known_before_the_first_step(tmp_path):
    (tmp_path / "file").write_text("text")
    steps = []
    for checkpoint, text in (
        (tmp_path, "is a folder"),
        (tmp_path / "file" / "fit", "cannot be written"),
        (tmp_path / ("long" * 99), "cannot be written"),
    ):
        with pytest.raises(CheckpointWriteError, match=f"checkpoint .*{text}") as caught:
            run(checkpoint=checkpoint, callback=steps.append)
        assert caught.value.result is None and not steps
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.errors
def test_the_result_of_a_fit_whose_last_save_fails_is_kept(tmp_path, monkeypatch):
    def lose(info):
        if info.step == 60:
            monkeypatch.setattr(os, "replace", full)

    def full(source, target):
        raise OSError("no space left on device")

    with pytest.raises(
        CheckpointWriteError, match="completed 60 steps.*no space.*`result`"
    ) as lost:
        run(checkpoint=tmp_path / "fit", callback=lose)
    want = run()
    assert lost.value.result.ok and isinstance(lost.value, OSError)
    problems.assert_same((lost.value.result.state, lost.value.result.info), (want.state, want.info))
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    with pytest.warns(UserWarning, match="no space"):
        kept = run(checkpoint=tmp_path / "fit", callback=lose, throw=False)
    problems.assert_same((kept.state, kept.info), (want.state, want.info))


@pytest.mark.errors
def test_a_save_in_between_that_fails_is_made_up_for(tmp_path, monkeypatch):
    def lose(info):
        if info.step == 28:
            monkeypatch.setattr(os, "replace", full)
        if info.step == 42:
            monkeypatch.undo()

    def full(source, target):
        raise OSError("no space left on device")

    with pytest.warns(UserWarning, match="could not be written at step .*no space"):
        run(checkpoint=tmp_path / "fit", checkpoint_every=0.0, callback=lose)
    assert describe_checkpoint(tmp_path / "fit")["step"] == 60


def test_a_folder_that_is_removed_is_made_again(tmp_path):
    def remove(info):
        if info.step == 28:
            shutil.rmtree(tmp_path / "fits")

    run(checkpoint=tmp_path / "fits" / "fit", callback=remove)
    assert describe_checkpoint(tmp_path / "fits" / "fit")["step"] == 60


@pytest.mark.errors
def test_two_fits_do_not_share_a_file(tmp_path):
    path = tmp_path / "fit"
    steps = []

    def second(info):
        with pytest.raises(CheckpointError, match="is in use: another fit is writing"):
            run(checkpoint=path, num_steps=60 + len(steps))
        steps.append(info.step)

    first = run(checkpoint=path, callback=second)
    assert len(steps) == 9 and first.num_steps == 60
    assert run(checkpoint=path).resumed_from == 60
    assert [p.name for p in tmp_path.iterdir()] == ["fit"]


def test_what_killed_fits_leave_behind_harms_nobody(tmp_path):
    (tmp_path / "fit.lock").touch()
    (tmp_path / "fit.0123.tmp").write_bytes(b"half of it")
    run(checkpoint=tmp_path / "fit")
    assert [p.name for p in tmp_path.iterdir()] == ["fit"]


def test_a_symbolic_link_stays_one(tmp_path):
    (tmp_path / "disk").mkdir()
    link, target = tmp_path / "fit", tmp_path / "disk" / "real"
    link.symlink_to(target)
    run(30, checkpoint=link)
    assert run(60, checkpoint=link).resumed_from == 30
    assert link.is_symlink() and describe_checkpoint(target)["step"] == 60


@pytest.mark.parametrize("first, second", [("raw", "typed"), ("typed", "raw")])
def test_a_raw_key_and_the_typed_one_of_equal_bits_are_the_same(tmp_path, first, second):
    keys = {"raw": jax.random.PRNGKey(2), "typed": KEY}
    run(30, checkpoint=tmp_path / "fit", key=keys[first])
    resumed, whole = run(checkpoint=tmp_path / "fit", key=keys[second]), run()
    assert resumed.resumed_from == 30
    problems.assert_same((resumed.state, resumed.info), (whole.state, whole.info))


def test_addresses_of_functions_are_not_part_of_the_program(tmp_path):
    def make():
        @jax.custom_vjp
        def double(x):
            return 2 * x

        double.defvjp(lambda x: (2 * x, None), lambda _, g: (2 * g,))
        halve = lambda x: np.asarray(x) / np.float32(2)  # noqa: E731
        step = lambda key, s: (jax.pure_callback(halve, s, double(s)), None)  # noqa: E731
        return problems.Algorithm(len, step)

    common = {"state": jnp.ones(2, "float32"), "data": (), "checkpoint": tmp_path / "fit"}
    first, second = make(), make()  # both alive: at different addresses
    run(7, algorithm=first, **common)
    assert run(14, algorithm=second, **common).resumed_from == 7


def test_directories_are_made(tmp_path):
    run(7, checkpoint=str(tmp_path / "a" / "b" / "fit"))
    assert (tmp_path / "a" / "b" / "fit").exists()


def test_describe_and_load(path):
    header = describe_checkpoint(path)
    assert header["step"] == 30 and header["versions"]["jax"] == jax.__version__
    assert header["state"][1] == {
        "path": "params['slope']",
        "dtype": "float32",
        "shape": [3],
        "bytes": 12,
    }
    state, history, step = load_checkpoint(path, problems.start("float32"))
    want = run(30)
    problems.assert_same(state, want.state)
    assert step == 30 and list(history) == ["objective", "slope"]
    np.testing.assert_array_equal(history["slope"], want.info.slope)


# Refusing -----------------------------------------------------------------------------------------


def other_data():
    x, y = problems.rows("float32")
    y[3] += 1e-6
    return {"data": (x, y)}


def other_start():
    state = problems.start("float32")
    return {"state": state._replace(params={**state.params, "slope": jnp.ones(3, "float32")})}


def more_leaves():
    state = problems.start("float32")
    return {"state": state._replace(opt_state=(*state.opt_state, jnp.zeros(())))}


@pytest.mark.errors
@pytest.mark.parametrize(
    "options, text",
    [
        (lambda: {"key": jax.random.key(3)}, "fit with another key"),
        (lambda: {"key": jax.random.PRNGKey(3)}, "fit with another key"),
        (lambda: {"key": jax.random.key(2, impl="rbg")}, "fit with another key"),
        (other_data, r"other data: data\[1\] \(other values\)"),
        (lambda: {"data": problems.rows("float32", 18)}, r"data\[0\] \(was float32\[17,3\], is"),
        (other_start, r"another initial state: params\['slope'\]"),
        (lambda: {"algorithm": problems.make_regression(0.06)}, "another program.*learning rate"),
        (lambda: {"algorithm": problems.make_regression(scale=jnp.ones(()))}, "another program"),
        (
            lambda: {"state": problems.start("float64")},
            r"params\['offset'\] as float32\[\].*float64",
        ),
        (lambda: {"num_steps": 29}, "holds 30 steps already; num_steps=29"),
    ],
)
def test_a_checkpoint_of_another_fit_is_refused(path, options, text):
    old = path.read_bytes()
    with pytest.raises(CheckpointError, match=text) as caught:
        run(**{"checkpoint": path, **options()})
    assert str(path) in str(caught.value) and isinstance(caught.value, ValueError)
    assert path.read_bytes() == old


@pytest.mark.errors
def test_arrays_that_the_step_closes_over_are_part_of_the_program(tmp_path):
    def fitted(value, nested):
        scale = jnp.full(2, value, jnp.float32)  # not a scalar: a constant beside the jaxpr
        loss = lambda s: s * scale  # noqa: E731
        inner = jax.jit(loss) if nested else loss
        algorithm = problems.Algorithm(len, lambda key, s: (inner(s), None))
        path = tmp_path / f"fit{nested}"
        return run(7, state=jnp.ones(2, "float32"), data=(), algorithm=algorithm, checkpoint=path)

    for nested in (False, True):
        fitted(0.5, nested)
        assert fitted(0.5, nested).resumed_from == 7  # another function, the same program
        with pytest.raises(CheckpointError, match="another program"):
            fitted(0.25, nested)


@pytest.mark.errors
def test_other_batches_are_refused(tmp_path):
    make = lambda shift: lambda step: problems.batch("float32", step + shift)  # noqa: E731
    run(7, checkpoint=tmp_path / "fit", data=(), batches=make(0))
    with pytest.raises(CheckpointError, match=r"other batches: batches\(0\)\[0\]"):
        run(7, checkpoint=tmp_path / "fit", data=(), batches=make(1))
    with pytest.raises(CheckpointError, match="other data: other names"):
        run(7, checkpoint=tmp_path / "fit")


@pytest.mark.errors
@pytest.mark.parametrize("like, text", [(more_leaves, r"lacks opt_state\[2\]")])
def test_load_names_the_first_leaf_that_differs(path, like, text):
    with pytest.raises(CheckpointError, match=text):
        load_checkpoint(path, like()["state"])
    with pytest.raises(CheckpointError, match=r"it has params\['offset'\]"):
        load_checkpoint(path, {"slope": jnp.zeros(3)})
    wide = problems.start("float32")._replace(params={"offset": jnp.zeros(4), "slope": jnp.ones(3)})
    with pytest.raises(CheckpointError, match=r"holds params\['offset'\] as float32\[\]; expected"):
        load_checkpoint(path, wide)


def header_length(content):
    start = len(_MAGIC)
    return int.from_bytes(content[start : start + 8], "little")


@pytest.mark.errors
@pytest.mark.parametrize("keep", [0, 5, 19, 40, 400, -200, -1])
def test_a_truncated_file_is_refused(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    for use in (describe_checkpoint, lambda p: run(checkpoint=p)):
        if keep < 0 and use is describe_checkpoint:
            continue  # it reads the header only
        with pytest.raises(CheckpointError, match="is truncated"):
            use(path)


@pytest.mark.errors
def test_a_corrupted_file_is_refused(path):
    content = path.read_bytes()
    begin = len(_MAGIC) + 40
    payload = begin + header_length(content)
    for place in (begin, begin + 99, payload - 1, payload, payload + 33, len(content) - 1):
        damaged = bytearray(content)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        part = "header" if place < payload else "arrays"
        with pytest.raises(CheckpointError, match=f"is corrupted.*{part}"):
            run(checkpoint=path)
    path.write_bytes(content + b"more")
    with pytest.raises(CheckpointError, match="is corrupted"):
        run(checkpoint=path)
    path.write_bytes(content)
    assert run(checkpoint=path).resumed_from == 30


@pytest.mark.errors
def test_other_files_are_refused(tmp_path):
    (tmp_path / "fit").write_text("loss,step\n" * 9)
    with pytest.raises(CheckpointError, match="not a checkpoint of bayesjx"):
        run(checkpoint=tmp_path / "fit")
    with pytest.raises(FileNotFoundError):
        load_checkpoint(tmp_path / "none", None)


def edit_header(path, change):
    content, start = path.read_bytes(), len(_MAGIC)
    length = header_length(content)
    header = json.loads(content[start + 40 : start + 40 + length])
    change(header)
    text = json.dumps(header).encode()
    digest = hashlib.sha256(text).digest()
    parts = _MAGIC, len(text).to_bytes(8, "little"), digest, text, content[start + 40 + length :]
    path.write_bytes(b"".join(parts))


@pytest.mark.errors
def test_a_newer_format_is_refused(path):
    edit_header(path, lambda header: header.update(format=3))
    with pytest.raises(CheckpointError, match="format 3.*reads up to 2"):
        run(checkpoint=path)


FORGERIES = {
    "no format": lambda h: h.pop("format"),
    "format of text": lambda h: h.update(format="1"),
    "no step": lambda h: h.pop("step"),
    "negative step": lambda h: h.update(step=-3),
    "step of text": lambda h: h.update(step="30"),
    "fewer steps than rows": lambda h: h.update(step=20),
    "told later": lambda h: h.update(told=31),
    "stopped by a number": lambda h: h.update(stopped=3),
    "versions as a list": lambda h: h.update(versions=[]),
    "no leaves": lambda h: h.pop("state"),
    "leaves as a dictionary": lambda h: h.update(state={}),
    "a leaf as text": lambda h: h["state"].__setitem__(0, "leaf"),
    "unknown dtype": lambda h: h["state"][1].update(dtype="float33"),
    "objects": lambda h: h["state"][1].update(dtype="O"),
    "other size of a dtype": lambda h: h["state"][1].update(dtype="float64"),
    "negative length": lambda h: h["state"][1].update(shape=[-3]),
    "a long leaf": lambda h: h["state"][1].update(shape=[2**70], bytes=2**72),
    "a shape of text": lambda h: h["state"][1].update(shape="3"),
    "negative bytes": lambda h: h["state"][1].update(bytes=-12),
    "an unknown generator": lambda h: h["state"][1].update(impl="dice"),
    "payload of text": lambda h: h.update(payload_bytes="99"),
    "a fit as text": lambda h: h.update(fit="mine"),
    "no key": lambda h: h["fit"].pop("key"),
    "contents without text": lambda h: h["fit"]["initial"][0].__setitem__(1, ""),
    "contents of one": lambda h: h["fit"].update(data=[["data[0]"]]),
    "a program as a number": lambda h: h["fit"].update(program=1),
}


@pytest.mark.errors
@pytest.mark.parametrize("change", FORGERIES.values(), ids=FORGERIES)
def test_a_forged_header_is_refused(saved, tmp_path, change):
    path = tmp_path / "fit"
    path.write_bytes(saved)
    edit_header(path, change)
    for use in (
        describe_checkpoint,
        lambda p: load_checkpoint(p, problems.start("float32")),
        lambda p: run(checkpoint=p),
    ):
        with pytest.raises(CheckpointError, match=str(path)):
            use(path)


@pytest.mark.errors
@pytest.mark.parametrize("text", [b"", b"[]", b"3", b"{", b"[" * 99999, b"\xff", b'{"format": 1}'])
def test_a_header_that_is_none_is_refused(tmp_path, text):
    digest = hashlib.sha256(text).digest()
    content = b"".join((_MAGIC, len(text).to_bytes(8, "little"), digest, text))
    (tmp_path / "fit").write_bytes(content)
    with pytest.raises(CheckpointError, match="not valid"):
        describe_checkpoint(tmp_path / "fit")


@pytest.mark.errors
def test_another_jax_only_warns(path):
    edit_header(path, lambda header: header["versions"].update(jax="0.9.9"))
    with pytest.warns(UserWarning, match="jax 0.9.9"):
        result = run(checkpoint=path, algorithm=problems.make_regression(0.06))
    assert result.resumed_from == 30 and result.num_steps == 60


@pytest.mark.errors
def test_another_device_only_warns(path, monkeypatch):
    edit_header(path, lambda header: header["fit"].update(platform="abacus"))
    warned = []

    def warn(message, *_, stacklevel=1):
        files = [frame.filename for frame in inspect.stack()[1:]]
        ours = [file for file in files if file != jaxtyping.__file__]  # which adds frames
        warned.append((message, ours[stacklevel - 1]))

    monkeypatch.setattr(warnings, "warn", warn)
    run(checkpoint=path)
    ((message, file),) = warned
    assert "written on abacus" in message and file == __file__  # points at the caller of fit
