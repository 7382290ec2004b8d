"""Catalogue of bad input: what a user passes by mistake, and what the error must say."""

from benchmarks.bad_input._case import Case as Case, fault as fault
