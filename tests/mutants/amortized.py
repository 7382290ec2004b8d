"""Mistakes planted in `bayesjx.amortized`."""

import distribution_transformer
import martingale
import neural_process
import niw
import prior_fitted
import table_baselines
import table_prior

PACKAGE = "amortized"
MUTANTS = [
    *prior_fitted.MUTANTS,
    *table_prior.MUTANTS,
    *table_baselines.MUTANTS,
    *distribution_transformer.MUTANTS,
    *neural_process.MUTANTS,
    *martingale.MUTANTS,
    *niw.MUTANTS,
]
