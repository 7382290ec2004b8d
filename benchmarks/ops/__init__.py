"""Benchmarks of `bayesjx.ops`."""
