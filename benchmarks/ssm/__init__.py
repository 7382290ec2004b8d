"""Benchmarks of `bayesjx.ssm`."""
