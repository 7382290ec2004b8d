"""Likelihoods of latent functions, and the base class of posteriors of such functions."""

from ._information import (
    fisher_information as fisher_information,
    observed_information as observed_information,
    scores as scores,
)
from ._likelihood import (
    AbstractLikelihood as AbstractLikelihood,
    expectation as expectation,
    expected_log_prob as expected_log_prob,
    Gaussian as Gaussian,
    in_support as in_support,
    Likelihood as Likelihood,
    log_likelihood as log_likelihood,
    log_predictive_prob as log_predictive_prob,
    PoissonExp as PoissonExp,
)
from ._posterior import AbstractPosterior as AbstractPosterior
from ._predictive import held as held, Predictive as Predictive, predictive as predictive
from ._quadrature import adaptive_nodes as adaptive_nodes, gauss_hermite as gauss_hermite
