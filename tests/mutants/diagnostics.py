"""Mistakes planted in `bayesjx.diagnostics`."""

import calibration
from mutant import Mutant

PACKAGE = "diagnostics"
TESTS = "tests/diagnostics/test_psis.py"
MUTANTS = [
    Mutant(
        "correlated draws make the tail shorter",
        "diagnostics/_psis.py",
        "math.sqrt(num_draws / relative_efficiency)",
        "math.sqrt(num_draws * relative_efficiency)",
        TESTS,
    ),
    Mutant(
        "no prior on the shape",
        "diagnostics/_psis.py",
        "(count * shape + _PRIOR_WEIGHT * _PRIOR_SHAPE) / (count + _PRIOR_WEIGHT)",
        "shape",
        TESTS,
    ),
    Mutant(
        "quantiles at the ends of their intervals",
        "diagnostics/_psis.py",
        "- (tail - number) + 0.5",
        "- (tail - number)",
        TESTS,
    ),
    Mutant(
        "the quartile of one draw further on",
        "diagnostics/_psis.py",
        "jnp.floor(count / 4 + 0.5).astype(int) - 1]",
        "jnp.floor(count / 4 + 0.5).astype(int)]",
        TESTS,
    ),
    Mutant(
        "cutoff forgotten in the smoothed weights",
        "diagnostics/_psis.py",
        "jnp.log(quantile + (jnp.exp(cutoff) + raised))",
        "jnp.log(quantile + raised)",
        TESTS,
    ),
    Mutant(
        "effective sample size of weights, not of their squares",
        "diagnostics/_psis.py",
        "ess = jnp.exp(-logsumexp(2 * log_weights))",
        "ess = jnp.exp(-logsumexp(1.5 * log_weights))",
        TESTS,
    ),
    Mutant(
        "ties at the cutoff are excesses of zero",
        "diagnostics/_psis.py",
        "tied = jnp.sum(log_weights == cutoff) > 1",
        "tied = jnp.sum(log_weights == cutoff) > log_weights.size",
        TESTS,
    ),
    Mutant(
        "a threshold that does not know the number of draws",
        "diagnostics/_psis.py",
        "return min(1 - 1 / math.log10(num_draws), 0.7) if num_draws > 10 else 0.0",
        "return 0.7",
        TESTS,
    ),
    Mutant(
        "ties that count fully",
        "diagnostics/_classification.py",
        "rank = 0.5 * (first + last - 1).astype(scores.dtype)",
        "rank = (last - 1).astype(scores.dtype)",
        "tests/diagnostics/test_classification.py -k ties",
    ),
    Mutant(
        "a calibration error of bins that all weigh the same",
        "diagnostics/_classification.py",
        "share = bins.count.astype(bins.confidence.dtype) / jnp.sum(bins.count)",
        "share = (bins.count > 0) / num_bins",
        "tests/diagnostics/test_classification.py -k numpy",
    ),
    Mutant(
        "a Brier score without the right class",
        "diagnostics/_classification.py",
        "jnp.sum(probs**2, axis=1) - 2 * _of_labels(probs, labels) + 1",
        "jnp.sum(probs**2, axis=1) - _of_labels(probs, labels) + 1",
        "tests/diagnostics/test_classification.py -k numpy",
    ),
    *calibration.MUTANTS,
]
