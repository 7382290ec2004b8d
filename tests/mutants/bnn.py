"""Mistakes planted in `bayesjx.bnn`."""

from mutant import Mutant

PACKAGE = "bnn"
MUTANTS: list[Mutant] = []
