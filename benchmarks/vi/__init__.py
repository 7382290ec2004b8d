"""Benchmarks of programmable variational inference."""
