"""A mistake is made in a copy of the repository, and the tests that should notice it run there.

The tests run in a process that has the dependencies imported already, a fork of one that has done
nothing else; the library itself is imported from the copy.
"""

import dataclasses
import multiprocessing
import os
import shlex
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

from mutant import Mutant

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("bayesjx", "tests", "benchmarks", "demo")  # what the tests need
IMPORTED = ["jax", "numpyro.infer.autoguide", "lineax", "optax", "xarray", "scipy.stats", "pytest"]
SECONDS = 600  # for the tests of one mistake
NOT_RUN = 3  # as pytest says of an internal error
FOUND, SURVIVES = "found", "SURVIVES"
# pytest: 0 all passed, 1 some failed, 5 none was selected; all else means that it could not run
VERDICTS = {0: SURVIVES, 1: FOUND, 5: "NO TESTS"}


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What came of a mutant: `found`, `SURVIVES`, or what is wrong with the table."""

    text: str
    seconds: float = 0.0
    output: str = ""


def where(mutant: Mutant, root: Path) -> Path:
    """The file that holds the text once, the mutant's own if possible.

    Raises:
        LookupError: there is none, or several.
    """
    own = root / "bayesjx" / mutant.file
    if own.is_file() and own.read_text(encoding="utf-8").count(mutant.old) == 1:
        return own
    counts = {
        path: path.read_text(encoding="utf-8").count(mutant.old)
        for path in (root / "bayesjx").rglob("*.py")
    }
    total = sum(counts.values())
    if total != 1:
        raise LookupError(f"DOES NOT FIT (its text stands {total} times)")
    return next(path for path, count in counts.items() if count)


def fits(mutant: Mutant) -> Verdict:
    """Whether the text to be replaced is there."""
    try:
        where(mutant, ROOT)
    except LookupError as error:
        return Verdict(str(error))
    return Verdict(FOUND)


def prepare() -> None:
    """Settings that JAX reads when it is imported, and what processes shall have imported."""
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    _CONTEXT.set_forkserver_preload(IMPORTED)


def attempt(mutant: Mutant) -> Verdict:
    """Make the mistake in a copy and run the tests."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        root = Path(folder)
        for part in PARTS:
            shutil.copytree(ROOT / part, root / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", root)
        try:
            path = where(mutant, root)
        except LookupError as error:
            return Verdict(str(error))
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
        process = _CONTEXT.Process(target=_run, args=(folder, mutant.tests))
        process.start()
        process.join(SECONDS)
        seconds = time.perf_counter() - start
        if process.is_alive():  # a loop that does not end is noticed
            process.kill()
            process.join()
            return Verdict(FOUND, seconds)
        output = (root / "output.txt").read_text(encoding="utf-8")
    verdict = VERDICTS.get(process.exitcode, "DOES NOT RUN")
    return Verdict(verdict, seconds, f"== {mutant.name}\n{output[-3000:]}")


def _run(folder: str, tests: str) -> None:
    """Run pytest in the copy; the status of the process is that of pytest."""
    os.chdir(folder)
    with open("output.txt", "wb") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    os.environ["PYTHONPATH"] = folder  # of subprocesses, too
    sys.path.insert(0, folder)
    status = NOT_RUN
    try:
        import pytest

        status = pytest.main(
            ["-x", "-q", "--assert=plain", "-p", "no:cacheprovider", *shlex.split(tests)]
        )
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


_CONTEXT = multiprocessing.get_context("forkserver")
