"""A peer in a process of its own, measured in turn with ours.

The parent starts `Worker(script, python="3.12", requirements=["genjax==1.0.14"])`; the script ends
in `serve(handlers, candidates)`. They exchange one line of JSON per request. While one measures,
the other waits for its line, so both see the same machine in the same second.
"""

from __future__ import annotations

import collections
import json
import os
import queue
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks._environment import versions
from benchmarks._process import child_environment, interpreter, ROOT, Unavailable as Unavailable
from benchmarks._timing import as_candidate, Local


class WorkerError(RuntimeError):
    """The worker raised, died or did not answer in time."""


class Worker:
    """A running worker script; a context manager.

    Raises:
        Unavailable: there is no such Python, or the requirements cannot be installed. Catch it to
            give `Figure.not_measured(str(error))`.
    """

    def __init__(
        self,
        script: str | Path,
        *,
        python: str | None = None,
        requirements: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        timeout: float = 600.0,
    ) -> None:
        """
        Args:
            script: path of the worker script, absolute or from the repository's root.
            python: version wanted, as `"3.12"`; None for the running interpreter.
            requirements: what pip shall install for it.
            environment: variables that differ from ours.
            timeout: seconds that an answer may take.
        """
        self._timeout, self._name = timeout, Path(script).name
        self._process = subprocess.Popen(
            [interpreter(python, requirements), str(ROOT / script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=child_environment() | dict(environment or {}),
        )
        self._answers: queue.Queue[str | None] = queue.Queue()
        self._complaints: collections.deque[str] = collections.deque(maxlen=40)
        readers = (self._read_answers, self._read_complaints)
        self._readers = [threading.Thread(target=reader, daemon=True) for reader in readers]
        for reader in self._readers:
            reader.start()

    def ask(self, request: str, **arguments: Any) -> Any:
        """Call the script's handler of that name with JSON arguments; returns its JSON answer."""
        line = json.dumps({"request": request, "arguments": arguments})
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
            answer = self._answers.get(timeout=self._timeout)
        except queue.Empty:
            self.close()
            raise WorkerError(
                f"{self._name} did not answer {request!r} within {self._timeout:g} s"
            ) from None
        except BrokenPipeError:
            answer = None
        if answer is None:
            self._join_readers()
            raise WorkerError(f"{self._name} ended during {request!r}:\n" + self._last_words())
        reply = json.loads(answer)
        if "error" in reply:
            raise WorkerError(f"{self._name} failed in {request!r}:\n{reply['error']}")
        return reply["answer"]

    def candidate(self, name: str) -> RemoteCandidate:
        """The script's candidate of that name, for `compare` and `compare_compilation`."""
        return RemoteCandidate(self, name)

    def versions(self, *packages: str) -> dict[str, str]:
        """Versions of the worker's Python and packages."""
        return self.ask("versions", packages=packages)

    def close(self) -> None:
        """End the worker."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
            self._process.wait(2)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        self._join_readers()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read_answers(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as answers:
            for line in answers:
                self._answers.put(line)
        self._answers.put(None)

    def _read_complaints(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as complaints:
            for line in complaints:
                self._complaints.append(line.rstrip())

    def _join_readers(self) -> None:
        for reader in self._readers:
            reader.join(5)

    def _last_words(self) -> str:
        return "\n".join(self._complaints) or f"(exit status {self._process.poll()})"


class RemoteCandidate:
    """A candidate that is timed in its worker, by the worker's own clock."""

    def __init__(self, worker: Worker, name: str) -> None:
        self._worker, self._name = worker, name

    def prepare(self, sample_seconds: float) -> None:
        self._worker.ask("prepare", name=self._name, sample_seconds=sample_seconds)

    def sample(self) -> float:
        return self._worker.ask("sample", name=self._name)

    def compile_once(self) -> Mapping[str, float]:
        return self._worker.ask("compile_once", name=self._name)


def run_worker(
    script: str | Path,
    request: str,
    payload: Mapping[str, Any] | None = None,
    *,
    python: str | None = None,
    requirements: Sequence[str] = (),
    timeout: float = 600.0,
) -> Any:
    """One question to a worker that then ends; see `Worker`."""
    with Worker(script, python=python, requirements=requirements, timeout=timeout) as worker:
        return worker.ask(request, **(payload or {}))


def serve(
    handlers: Mapping[str, Callable[..., Any]],
    candidates: MutableMapping[str, Any] | None = None,
) -> None:
    """The worker script's main loop: answer requests until the parent closes the pipe.

    Args:
        handlers: functions by request; they take and return JSON data.
        candidates: what the parent may time: functions or `(function, args)` pairs by name. A
            handler may fill it in.
    """
    known = {**handlers, **_timing_handlers({} if candidates is None else candidates)}
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints goes to stderr
    for line in sys.stdin:
        message = json.loads(line)
        try:
            reply = {"answer": known[message["request"]](**message["arguments"])}
            text = json.dumps(reply)
        except Exception:
            text = json.dumps({"error": traceback.format_exc()})
        channel.write(text + "\n")
        channel.flush()
    channel.close()


def _timing_handlers(candidates: MutableMapping[str, Any]) -> dict[str, Callable[..., Any]]:
    def local(name: str) -> Local:
        candidate = as_candidate(candidates[name])
        candidates[name] = candidate  # keeps the number of calls that `prepare` settled
        assert isinstance(candidate, Local)
        return candidate

    return {
        "prepare": lambda name, sample_seconds: local(name).prepare(sample_seconds),
        "sample": lambda name: local(name).sample(),
        "compile_once": lambda name: dict(local(name).compile_once()),
        "versions": lambda packages: versions(tuple(packages)),
    }
