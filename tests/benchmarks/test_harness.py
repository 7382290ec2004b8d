"""The benchmark harness: judging, ratios, reports and worker processes. Nothing here is timed."""

import json
import math
import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import (
    Benchmark,
    compare,
    compare_compilation,
    compiled_memory,
    Figure,
    in_fresh_process,
    in_turn,
    MODULES,
    paired_ratio,
    Report,
    run_worker,
    Target,
    Unavailable,
    Worker,
    WorkerError,
)
from benchmarks.__main__ import main
from benchmarks._declare import holds, judge, last_line
from benchmarks._process import find_python
from benchmarks._report import record, scrub_text
from benchmarks._stats import median

ROOT = Path(__file__).resolve().parents[2]


def benchmark(*targets):
    return Benchmark("name", "claim", "source", targets, lambda quick, report: {})


def verdict(targets, figures, quick=False):
    lines = judge(benchmark(*targets), figures, quick)
    return holds(lines), last_line("name", lines, quick)


# Medians and ratios


def test_paired_ratio_is_not_moved_by_a_machine_that_drifts():
    drift = np.exp(np.linspace(0, 2, 31))  # the machine becomes seven times slower
    noise = 1 + 0.01 * np.sin(np.arange(31))
    ratio = paired_ratio(1.2 * drift * noise, drift)
    assert ratio.low <= ratio.value <= ratio.high
    assert abs(ratio.value - 1.2) < 0.02 and ratio.high - ratio.low < 0.02


def test_median_ignores_a_minority_of_stalls_and_its_interval_has_the_right_size():
    samples = np.random.default_rng(1).normal(10.0, 1.0, size=400)
    samples[:40] = 1000.0
    middle = median(samples)
    standard_error = 1.2533 / np.sqrt(samples.size)
    assert abs(middle.value - 10.0) < 0.3
    assert 2 * standard_error < middle.high - middle.low < 8 * standard_error


def test_samples_that_are_not_finite_make_the_figure_nan():
    assert math.isnan(median([1.0, math.nan]).value)
    assert math.isnan(median([]).value)


def test_ratio_of_different_rounds_is_refused():
    with pytest.raises(ValueError, match="same rounds"):
        paired_ratio([1.0, 2.0], [1.0])


def test_every_round_has_every_candidate_once():
    calls = []
    samplers = {name: lambda name=name: calls.append(name) or 1.0 for name in "abc"}
    samples = in_turn(samplers, rounds=8, min_rounds=8)
    rounds = [tuple(calls[i : i + 3]) for i in range(0, len(calls), 3)]
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds)
    assert len(set(rounds)) > 1  # the order changes
    assert {name: len(values) for name, values in samples.items()} == dict.fromkeys("abc", 8)


def test_time_limit_ends_the_rounds_but_not_before_the_least_number():
    assert len(in_turn({"a": lambda: 1.0}, rounds=50, min_rounds=4, seconds=0.0)["a"]) == 4


# Judging


@pytest.mark.parametrize(
    ("comparison", "bound", "good", "bad"),
    [
        ("<=", 2, 2.0, 2.1),
        (">=", 2, 2.0, 1.9),
        ("<", 2, 1.9, 2.0),
        (">", 2, 2.1, 2.0),
        ("==", 2, 2, 3),
        ("between", (1, 2), 1.0, 2.5),
    ],
)
def test_comparisons(comparison, bound, good, bad):
    target = Target("x", comparison, bound)
    assert verdict([target], {"x": good})[0]
    assert verdict([target], {"x": Figure(good, 0.0, 9.0)})[0]
    assert not verdict([target], {"x": bad})[0]
    assert not verdict([target], {"x": math.nan})[0]


def test_last_line_names_figures_and_missed_targets():
    targets = [Target("x", "<=", 1.05), Target("y", "between", (1, 2)), Target("z", ">=", 3)]
    assert verdict(targets, {"x": 1, "y": 1.5, "z": 4}) == (True, "name: ok x=1 y=1.5 z=4")
    assert verdict(targets, {"x": 1.1, "y": np.nan, "extra": 7}) == (
        False,
        "name: short x=1.1(<=1.05) y=nan(1..2) z=missing(>=3)",
    )


def test_shown_value_does_not_contradict_the_verdict():
    assert verdict([Target("x", "<=", 1.05)], {"x": 1.05001}) == (
        False,
        "name: short x=1.05001(<=1.05)",
    )


def test_quick_run_has_its_own_targets():
    targets = [Target("x", "<=", 1, quick=2), Target("y", "<=", 1, quick=None)]
    targets.append(Target("z", "<=", None, quick=5))
    assert verdict(targets, {"x": 1.5, "z": 1}, quick=True) == (True, "name: ok x=1.5 z=1")
    assert not verdict(targets, {"x": 1.5, "y": 1})[0]


def test_only_an_optional_figure_may_be_unmeasured_and_none_may_be_forgotten():
    absent = Figure.not_measured("no Python 3.12")
    must, may = Target("x", "<=", 1), Target("y", "<=", 1, optional=True)
    assert verdict([must, may], {"x": 1, "y": absent}) == (True, "name: ok x=1 y=not-measured")
    assert not verdict([must, may], {"x": absent, "y": 1})[0]
    assert not verdict([must, may], {"x": 1, "y": math.nan})[0]
    assert not verdict([must, may], {"x": 1, "y": 2})[0]
    assert not verdict([must, may], {"x": 1})[0]
    assert not verdict([may], {"y": absent})[0]  # nothing was measured at all


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Target("x", "=<", 1), "comparison must be one of"),
        (lambda: Target("x y", "<=", 1), "one word"),
        (lambda: Target("x", "between", 1), "takes a pair"),
        (lambda: Target("x", "<=", 1, quick=(1, 2)), "takes a pair"),
        (lambda: benchmark(Target("x", "<=", 1), Target("x", ">=", 0)), "two targets"),
        (lambda: benchmark(Target("x", "<=", 1, quick=None)), "no target for the quick run"),
    ],
)
def test_declarations_that_cannot_be_judged_are_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()


# Measuring


def test_each_compilation_traces_again_and_is_measured_by_stage():
    traced = []

    def function(x):
        traced.append(x.shape)
        return jnp.sum(x**2)

    jitted, args = jax.jit(function), (jnp.ones(7),)
    jax.block_until_ready(jitted(*args))
    before = len(traced)
    stages = compare_compilation({"ours": (jitted, args), "plain": (function, args)}, rounds=2)
    assert len(traced) - before == 6  # two candidates, two rounds and the one thrown away
    lower, compiled = (stages[s].samples["ours"] for s in ("lower", "compile"))
    assert lower.shape == (2,) and np.all(lower > 0) and np.all(compiled > 0)
    np.testing.assert_allclose(stages["total"].samples["ours"], lower + compiled)


def test_compare_takes_functions_and_pairs_and_refuses_the_rest():
    x = jnp.ones(5)
    jitted = jax.jit(lambda x: x + 1)
    limits = {"rounds": 3, "min_rounds": 3, "sample_seconds": 1e-5}
    times = compare({"pair": (jitted, (x,)), "closure": lambda: jitted(x)}, **limits)
    assert {name: len(v) for name, v in times.samples.items()} == {"pair": 3, "closure": 3}
    assert times.ratio("pair", "pair").value == 1.0
    both = times.ratio_of_ratios(("pair", "closure"), ("pair", "closure"))
    assert both.value == 1.0
    with pytest.raises(TypeError, match="a candidate is"):
        compare({"array": x})


def test_planned_memory_shows_the_temporary():
    n = 100

    def outer(x):
        return jnp.linalg.cholesky(jnp.outer(x, x) + jnp.eye(n, dtype=x.dtype))[-1, -1]

    plan = compiled_memory(outer, jnp.ones(n, jnp.float32))
    assert plan["argument"] == 4 * n and plan["output"] == 4 and plan["temp"] >= 4 * n * n


def test_peak_memory_of_a_fresh_process():
    fresh = in_fresh_process("tests.benchmarks.worker_script:fill", 200)
    assert fresh.result == 200 * 2**20
    grown = fresh.max_rss_bytes - fresh.start_rss_bytes
    assert 150 * 2**20 < grown < 260 * 2**20


# Workers


SCRIPT = "tests/benchmarks/worker_script.py"


def test_worker_answers_stays_alive_and_is_timed_in_turn():
    with Worker(SCRIPT) as worker:
        assert worker.ask("start", values=[1, 2, 3]) == {"sum": 6}
        assert worker.ask("count") == 1
        assert worker.ask("count") == 2
        assert worker.versions("numpy")["numpy"] == np.__version__
        candidates = {"here": lambda: jnp.zeros(3), "there": worker.candidate("sum")}
        times = compare(candidates, rounds=3, min_rounds=3, sample_seconds=1e-4)
        assert np.all(times.samples["there"] > 0)


def test_worker_errors_reach_the_parent():
    with Worker(SCRIPT) as worker:
        with pytest.raises(WorkerError, match="ZeroDivisionError"):
            worker.ask("fail")
        assert worker.ask("count") == 1  # and it lives on
        with pytest.raises(WorkerError, match="last words"):
            worker.ask("die")
    with Worker(SCRIPT, timeout=0.5) as worker, pytest.raises(WorkerError, match="did not answer"):
        worker.ask("sleep")


def test_one_question_to_a_worker():
    assert run_worker(SCRIPT, "start", {"values": [4]}) == {"sum": 4}


def test_absent_interpreter_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setenv("BAYESJX_PYTHON299", "/nowhere/python2.99")
    with pytest.raises(Unavailable, match="BAYESJX_PYTHON299"):
        find_python("2.99")


def test_an_interpreter_is_tried_before_it_is_taken(tmp_path, monkeypatch):
    shim = tmp_path / "python2.99"  # as pyenv's shims do for a version that is not selected
    shim.write_text("#!/bin/sh\necho 'pyenv: python2.99: command not found' >&2\nexit 127\n")
    shim.chmod(0o755)
    good = tmp_path / "good" / "python2.99"
    good.parent.mkdir()
    good.write_text("#!/bin/sh\necho 2.99\n")
    good.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{good.parent}{os.pathsep}/bin:/usr/bin")
    assert find_python("2.99") == str(good)


# What is printed and kept


def test_record_is_json_without_nan_paths_or_host_name():
    here, host = str(ROOT / "benchmarks" / "x.py"), socket.gethostname()
    report = Report(echo=False)
    report.note(f"read {here} on {host}")
    report.lines("t", "n", "s", {"ours": ([1, 2], [np.float32(3), math.inf])}, log="xy")
    declared = benchmark(Target("x", "<=", 1))
    lines = judge(declared, {"x": math.nan}, False)
    kept = record(declared, lines, report, False, {"date": "today"})
    text = json.dumps(kept, allow_nan=False)
    assert str(ROOT) not in text and kept["report"][0]["text"].startswith("read …/x.py on")
    assert kept["figures"][0]["value"] is None and kept["verdict"] == "short"
    assert kept["report"][1]["series"]["ours"] == [[1, 2], [3, None]]


@pytest.mark.parametrize("text", ["a/b/c per step", "https://arxiv.org/abs/1234.5678", "1/2 / 3"])
def test_what_is_no_path_stays(text):
    assert scrub_text(text) == text


def test_kept_results_are_of_full_runs_and_name_no_machine():
    for path in (ROOT / "benchmarks" / "results").glob("*.json"):
        text = path.read_text(encoding="utf-8")
        kept = json.loads(text)
        assert kept["name"] == path.stem and path.stem in MODULES
        assert not kept["quick"] and not kept["error"]
        assert kept["environment"]["versions"]["jax"]
        assert scrub_text(text) == text, f"{path.name} names a path or a host"


def test_page_shows_each_kept_result_and_draws_it(tmp_path, monkeypatch, fake):
    from benchmarks import _page

    monkeypatch.setattr(_page, "MODULES", {"all-import": MODULES["all-import"]})
    kept = tmp_path / "results" / "all-import.json"
    fake("ok", "--json", str(kept))
    kept.write_text(kept.read_text(encoding="utf-8").replace('"fake"', '"all-import"'))
    pages = [_page.write_page(tmp_path / to, tmp_path / "results") for to in ("a", "b")]
    text = pages[0].read_text(encoding="utf-8")
    assert "## all-import" in text and "targets have changed" in text
    assert "| `ratio` | 1 × |" in text and "a \\| b | 1.235 |" in text
    assert "](_generated/benchmarks-all-import-1.svg)" in text
    for file in ("benchmarks.md", "_generated/benchmarks-all-import-1.svg"):
        first, again = ((tmp_path / to / file).read_bytes() for to in ("a", "b"))
        assert first == again  # the same results give the same files


# The command line, in a process of its own where that makes a difference

FAKE = textwrap.dedent(
    """
    import os

    from benchmarks import Benchmark, Figure, Target

    def run(quick, report):
        report.table("Table", ["x", "y"], [["a | b", 1.23456]])
        report.bars("Times", "ms", {"ours": Figure(1.0, 0.9, 1.1), "hand": 2.0})
        if os.environ["FAKE"] == "raise":
            raise RuntimeError("two\\nlines")
        return {"ratio": 1.0 if os.environ["FAKE"] == "ok" else 1.2, "other": 3}

    targets = (Target("ratio", "<=", 1.1, quick=1.3, unit="×", meaning="a ratio"),)
    BENCHMARK = Benchmark("fake", "it is fast", "nowhere", targets, run)
    """
)


@pytest.fixture
def fake(tmp_path, capsys, monkeypatch):
    """Runs the fake benchmark: its exit status, the lines it prints, and what it says of errors."""
    path = tmp_path / "fake.py"
    path.write_text(FAKE)

    def run(mode, *arguments):
        monkeypatch.setenv("FAKE", mode)
        status = main(["run", str(path), *arguments])
        out, err = capsys.readouterr()
        return status, out.rstrip("\n").split("\n"), err

    run.path = path
    return run


def test_run_ends_with_the_verdict_and_its_exit_status(fake):
    status, out, _ = fake("ok")
    assert (status, out[-1]) == (0, "fake: ok ratio=1")
    assert sum(line.startswith("fake: ") for line in out) == 2  # the claim and the verdict
    command = [sys.executable, "-m", "benchmarks", "run", fake.path]
    environment = {**os.environ, "FAKE": "short"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 1
    assert done.stdout.endswith("fake: short ratio=1.2(<=1.1)\n")
    assert fake("short", "--quick")[0] == 0


def test_exception_is_printed_and_ends_short(tmp_path, fake):
    kept = tmp_path / "kept.json"
    status, out, err = fake("raise", "--json", str(kept))
    assert (status, out[-1]) == (1, "fake: short error=RuntimeError: two lines")
    assert "Traceback" in err
    assert json.loads(kept.read_text(encoding="utf-8"))["error"] == "RuntimeError: two lines"


def test_unknown_name_gives_near_ones_and_status_2(capsys):
    assert main(["run", "all-imports"]) == 2
    out, err = capsys.readouterr()
    assert "all-import" in err and not out
    assert main(["run", "no/such/file.py"]) == 2
    with pytest.raises(SystemExit) as ended:
        main(["run"])
    assert ended.value.code == 2


def test_list_names_all_and_imports_no_jax():
    code = (
        "import sys; from benchmarks.__main__ import main; status = main(['list'])\n"
        "sys.exit('jax is imported' if 'jax' in sys.modules else status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(f"{name}\n" in done.stdout for name in MODULES)
    assert "<=1.15" in done.stdout
