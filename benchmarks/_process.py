"""Fresh processes: peak memory of a function, and finding and equipping another Python."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks._environment import ROOT

VENVS = ROOT / ".cache" / "bench-venvs"
_RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"


class Unavailable(Exception):
    """A peer cannot be had on this machine; the message says what is missing."""


@dataclasses.dataclass(frozen=True)
class Fresh:
    """Outcome of a function run in a process of its own.

    Attributes:
        result: what the function returned.
        seconds: wall time of the call, without the start of the process and the import.
        cpu_seconds: processor time of the call.
        max_rss_bytes: peak resident memory of the whole process, Python and libraries included.
        start_rss_bytes: peak resident memory before the call; what the libraries take.
    """

    result: Any
    seconds: float
    cpu_seconds: float
    max_rss_bytes: int
    start_rss_bytes: int


def in_fresh_process(function: str, *args: Any, timeout: float = 600.0) -> Fresh:
    """Run `"package.module:function"` with JSON arguments in a new process of this Python.

    The function returns plain JSON data. JAX arrays should be waited for before it returns.
    """
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks._call", function],
        input=json.dumps(args),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=child_environment(),
        timeout=timeout,
    )
    if done.returncode:
        raise RuntimeError(f"{function} failed in its process:\n{tail(done.stderr)}")
    return Fresh(**json.loads(done.stdout.splitlines()[-1]))


def child_environment() -> dict[str, str]:
    """Our environment, with this repository first on the path and no user site."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path, "PYTHONNOUSERSITE": "1"}


def interpreter(version: str | None, requirements: Sequence[str] = ()) -> str:
    """A Python of that version with the requirements installed.

    Args:
        version: as `"3.12"`; None for the running one.
        requirements: what pip shall install, as `"genjax==1.0.14"`. With requirements a virtual
            environment is made below `.cache/bench-venvs/`, once for each set.
    Raises:
        Unavailable: no such Python is found, or pip cannot install the requirements.
    """
    python = sys.executable if version is None else find_python(version)
    if not requirements:
        return python
    version = version or _RUNNING
    digest = hashlib.sha256("\n".join(sorted(requirements)).encode()).hexdigest()[:12]
    home = VENVS / f"py{version}-{digest}"
    ready = home / "ready"
    VENVS.mkdir(parents=True, exist_ok=True)
    with _locked(VENVS / f"{home.name}.lock"):
        if not ready.exists():
            _make_venv(python, home, requirements)
            ready.write_text("\n".join(requirements) + "\n", encoding="utf-8")
    return str(home / "bin" / "python")


def find_python(version: str) -> str:
    """A Python interpreter of that version that can make virtual environments.

    The environment variable `BAYESJX_PYTHON312` (for 3.12) comes first, then `python3.12` wherever
    the path has one, then the versions that pyenv and uv keep. Each is tried by running it: pyenv's
    shims are on the path also when they refuse to run.
    """
    for candidate in _candidates(version):
        if _works(candidate, version):
            return candidate
    raise Unavailable(
        f"no Python {version} found; install one, or set {_variable(version)} to its interpreter"
    )


def tail(text: str, lines: int = 15) -> str:
    """The last lines of an output."""
    return "\n".join(text.strip().splitlines()[-lines:])


def _candidates(version: str) -> Iterator[str]:
    if named := os.environ.get(_variable(version)):
        yield named
    if version == _RUNNING:
        yield sys.executable
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        if found := shutil.which(f"python{version}", path=folder):
            yield found
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser() / "versions"
    uv = Path("~/.local/share/uv/python").expanduser()
    for folder in (*pyenv.glob(f"{version}*"), *uv.glob(f"cpython-{version}*")):
        yield str(folder / "bin" / f"python{version}")


def _variable(version: str) -> str:
    return "BAYESJX_PYTHON" + version.replace(".", "")


def _works(python: str, version: str) -> bool:
    code = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0 and done.stdout.strip() == version


def _make_venv(python: str, home: Path, requirements: Sequence[str]) -> None:
    print(f"making an environment for {', '.join(requirements)} …", file=sys.stderr, flush=True)
    pip = [str(home / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install"]
    for command in ([python, "-m", "venv", "--clear", str(home)], [*pip, "-q", *requirements]):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            shutil.rmtree(home, ignore_errors=True)
            raise Unavailable(
                f"cannot install {', '.join(requirements)} for the benchmark:\n"
                + tail(done.stderr, 5)
            )


@contextlib.contextmanager
def _locked(path: Path) -> Generator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
