"""Versions and machine, as kept with every result."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("jax", "jaxlib", "numpyro", "equinox", "optax", "lineax", "numpy")


def environment() -> dict[str, Any]:
    """Versions, commit, machine, load and date; neither host name nor path."""
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "versions": {"bayesjx": _own_version(), **versions(PACKAGES)},
        "commit": _commit(),
        "machine": machine(),
    }


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Versions of Python and of those of the packages that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Processor, cores, memory, platform, load; the JAX devices if jax has been imported."""
    found: dict[str, Any] = {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "logical_cpus": os.cpu_count(),
        "memory_gib": _memory_gib(),
        "platform": f"{platform.system()} {platform.machine()}",
        "load_average": [round(x, 2) for x in os.getloadavg()]
        if hasattr(os, "getloadavg")
        else None,
    }
    jax = sys.modules.get("jax")
    if jax is not None:
        found["devices"] = [f"{d.platform}: {d.device_kind}" for d in jax.devices()]
        found["x64"] = bool(jax.config.jax_enable_x64)
    return found


def summary(environment: dict[str, Any]) -> str:
    """The environment in one or two lines of text."""
    spot, names = environment["machine"], environment["versions"]
    load = spot.get("load_average") or ["?"]
    return (
        f"{spot['cpu']}, {spot['cores']} cores, {spot['memory_gib']} GiB, {spot['platform']}, "
        f"load {load[0]}; " + ", ".join(f"{name} {version}" for name, version in names.items())
    )


def _own_version() -> str:
    try:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        return project["version"]
    except (OSError, KeyError, tomllib.TOMLDecodeError):
        return versions(("bayesjx",)).get("bayesjx", "unknown")


def _commit() -> str | None:
    """Commit of the working tree, with `+` when the library's own sources differ from it."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        return head + "+" * bool(_git("status", "--porcelain", "--", "bayesjx", "benchmarks/*.py"))
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*args: str) -> str:
    done = subprocess.run(
        ["git", *args], cwd=ROOT, capture_output=True, text=True, check=True, timeout=20
    )
    return done.stdout.strip()


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, OSError, ValueError):
        return None
