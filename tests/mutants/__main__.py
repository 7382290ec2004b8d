"""`python tests/mutants [PACKAGE ...]`: which planted mistakes do the tests not find?

Each mistake is made in a copy of the repository, never in the working tree; then the tests that
should notice it run there. It is found if one of them fails. The exit status is 1 if a mistake
survives, does not fit the sources any more, or has no tests to run.
"""

import argparse
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import amortized
import bnn
import core
import diagnostics
import distributions
import gp
import interop
import kernels
import likelihoods
import ops
import sbl
import ssm
import vi
from mutant import Mutant
from trial import attempt, fits, FOUND, prepare, SURVIVES, Verdict

MODULES = (
    core,
    ops,
    distributions,
    kernels,
    likelihoods,
    vi,
    ssm,
    gp,
    sbl,
    bnn,
    amortized,
    diagnostics,
    interop,
)
PACKAGES = {module.PACKAGE: module.MUTANTS for module in MODULES}
LEAST = 5  # mistakes for each package


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


def shown(check: Callable[[Mutant], Verdict], package: str, mutant: Mutant) -> Verdict:
    """The verdict, printed as it comes."""
    verdict = check(mutant)
    print(f"{verdict.text:<9} {verdict.seconds:4.0f} s  {package}: {mutant.name}", flush=True)
    return verdict


if __name__ == "__main__":
    prepare()
    sys.exit(main())
