"""`python tests/mutants [PACKAGE ...]`: which planted mistakes do the tests not find?

Each mistake is made in a copy of the repository, never in the working tree; then the tests that
should notice it run there. It is found if one of them fails. The exit status is 1 if a mistake
survives, does not fit the sources any more, or has no tests to run.
"""

import argparse
import dataclasses
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import core
import diagnostics
import distributions
import gp
import interop
import kernels
import likelihoods
import ops
import ssm
import vi
from mutant import Mutant

ROOT = Path(__file__).resolve().parents[2]
MODULES = (core, ops, distributions, kernels, likelihoods, vi, ssm, gp, diagnostics, interop)
PACKAGES = {module.PACKAGE: module.MUTANTS for module in MODULES}
LEAST = 5  # mistakes for each package
SECONDS = 600  # for the tests of one
FOUND, SURVIVES = "found", "SURVIVES"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What came of a mutant: `found`, `SURVIVES`, or what is wrong with the table."""

    text: str
    seconds: float
    output: str = ""


def main() -> int:
    """Try the mutants of the packages that the command line names, all of them by default."""
    parser = argparse.ArgumentParser(prog="python tests/mutants", description=__doc__)
    parser.add_argument("packages", nargs="*", metavar="PACKAGE", help=f"of {', '.join(PACKAGES)}")
    parser.add_argument("-n", type=int, default=os.cpu_count() or 1, help="so many at a time")
    parser.add_argument("-k", default="", metavar="WORD", help="only those whose name has it")
    parser.add_argument("--fits", action="store_true", help="only whether the table fits")
    parser.add_argument("-v", action="store_true", help="print what pytest says of survivors")
    options = parser.parse_args()
    if unknown := sorted(set(options.packages) - set(PACKAGES)):
        parser.error(f"there is no package {unknown[0]!r}; there are {', '.join(PACKAGES)}")
    jobs = [
        (package, mutant)
        for package in options.packages or PACKAGES
        for mutant in PACKAGES[package]
        if options.k in mutant.name
    ]
    check = fits if options.fits else attempt
    with ThreadPoolExecutor(options.n) as pool:
        verdicts = list(pool.map(lambda job: shown(check, *job), jobs))
    survivors = sum(verdict.text == SURVIVES for verdict in verdicts)
    broken = sum(verdict.text not in (FOUND, SURVIVES) for verdict in verdicts)
    few = [name for name, mutants in PACKAGES.items() if len(mutants) < LEAST]
    if options.v:
        print(*(verdict.output for verdict in verdicts if verdict.text != FOUND), sep="\n")
    if few:
        print(f"fewer than {LEAST} mutants: {', '.join(few)}")
    found = len(verdicts) - survivors - broken
    print(f"mutants: {found} found, {survivors} survive, {broken} do not fit")
    return bool(survivors or broken or few)


def shown(check, package: str, mutant: Mutant) -> Verdict:
    """The verdict, printed as it comes."""
    verdict = check(mutant)
    print(f"{verdict.text:<9} {verdict.seconds:4.0f} s  {package}: {mutant.name}", flush=True)
    return verdict


def fits(mutant: Mutant) -> Verdict:
    """Whether the text to be replaced is there."""
    try:
        where(mutant, ROOT)
    except LookupError as error:
        return Verdict(str(error), 0.0)
    return Verdict(FOUND, 0.0)


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


def attempt(mutant: Mutant) -> Verdict:
    """Make the mistake in a copy and run the tests."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        root = Path(folder)
        for part in ("bayesjx", "tests", "benchmarks", "demo"):
            shutil.copytree(ROOT / part, root / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", root)
        try:
            path = where(mutant, root)
        except LookupError as error:
            return Verdict(str(error), 0.0)
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
        environment = os.environ | {
            "PYTHONPATH": folder,
            "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "jax"),
        }
        try:
            run = subprocess.run(
                [*command, *shlex.split(mutant.tests)],
                cwd=root,
                env=environment,
                capture_output=True,
                text=True,
                timeout=SECONDS,
            )
        except subprocess.TimeoutExpired:  # a loop that does not end is noticed
            return Verdict(FOUND, SECONDS)
    # pytest: 0 all passed, 1 some failed, 5 none was selected, others it did not run
    codes = {0: SURVIVES, 1: FOUND, 5: "NO TESTS"}
    text = codes.get(run.returncode, "DOES NOT RUN")
    return Verdict(text, time.perf_counter() - start, f"== {mutant.name}\n{run.stdout[-3000:]}")


if __name__ == "__main__":
    sys.exit(main())
