"""Mistakes planted in `bayesjx.amortized`."""

import distribution_transformer
import martingale
import prior_fitted

PACKAGE = "amortized"
MUTANTS = [*prior_fitted.MUTANTS, *distribution_transformer.MUTANTS, *martingale.MUTANTS]
