"""Bayesian neural networks: any Equinox model, by naming the leaves that are random."""
