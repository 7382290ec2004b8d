"""Benchmarks of `bayesjx.gp`."""
