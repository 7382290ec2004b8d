"""A worker for the tests of the harness; also holds what they run in a fresh process."""

import os
import sys
import time

import numpy as np

from benchmarks import serve

candidates = {}
calls = []


def start(values):
    print("a library that talks on stdout")
    candidates["sum"] = (np.sum, (np.asarray(values),))
    return {"sum": int(np.sum(values))}


def count():
    calls.append(1)
    return len(calls)


def fail():
    return 1 / 0


def die():
    print("last words", file=sys.stderr, flush=True)
    os._exit(3)


def fill(mebibytes):
    return int(np.ones(mebibytes * 2**20, np.uint8).sum(dtype=np.int64))


if __name__ == "__main__":
    handlers = {"start": start, "count": count, "fail": fail, "die": die}
    serve({**handlers, "sleep": lambda: time.sleep(30)}, candidates)
