"""Benchmarks of `bayesjx.sbl`."""
