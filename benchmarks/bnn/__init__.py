"""Benchmarks of `bayesjx.bnn`."""
