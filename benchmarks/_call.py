"""`python -m benchmarks._call module:function`: one call in a process, see `in_fresh_process`."""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import time


def main() -> None:
    """Read JSON arguments from stdin, call, write the outcome as the last line of stdout."""
    module, _, name = sys.argv[1].partition(":")
    args = json.load(sys.stdin)
    function = getattr(importlib.import_module(module), name)
    before = max_rss_bytes()
    start, cpu = time.perf_counter(), time.process_time()
    result = function(*args)
    outcome = {
        "result": result,
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu,
        "max_rss_bytes": max_rss_bytes(),
        "start_rss_bytes": before,
    }
    print("\n" + json.dumps(outcome), flush=True)
    os._exit(0)  # nothing to tidy up, and libraries can take long over it


def max_rss_bytes() -> int:
    """Peak resident memory of this process.

    Linux carries the parent's peak over into `ru_maxrss` when a process is forked, so its own
    account is read there.
    """
    try:
        with open("/proc/self/status", encoding="utf-8") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return 1024 * int(line.split()[1])
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


if __name__ == "__main__":
    main()
