"""Mistakes planted in `bayesjx.amortized`."""

import distribution_transformer

PACKAGE = "amortized"
MUTANTS = [*distribution_transformer.MUTANTS]
