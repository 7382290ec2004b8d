"""Benchmarks of `bayesjx.diagnostics`."""
