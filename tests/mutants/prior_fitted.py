"""Mistakes planted in prior-data fitted networks of `bayesjx.amortized`."""

from mutant import Mutant

PFN, TABLES = "tests/amortized/test_pfn.py", "tests/amortized/test_table_network.py"
TRAINING = "tests/amortized/test_training.py"
MUTANTS = [
    Mutant(
        "attention without its learned key in the sum",
        "amortized/_attention.py",
        "total = jnp.sum(weights, axis=-1, keepdims=True) + rest",
        "total = jnp.sum(weights, axis=-1, keepdims=True)",
        f"{PFN} -k 'written_out and f64'",
    ),
    Mutant(
        "a causal context in which all rows see each other",
        "amortized/_pfn.py",
        "allowed = allowed & jnp.tril(jnp.ones((n, n), bool))",
        "allowed = allowed & jnp.ones((n, n), bool)",
        f"{PFN} -k causal_context",
    ),
    Mutant(
        "appended rows in the place of the style",
        "amortized/_pfn.py",
        "place = size if self.no_style is None else size + 1",
        "place = size",
        f"{PFN} -k 'appended and True'",
    ),
    Mutant(
        "standard deviations of rows that do not count",
        "amortized/_pfn_posterior.py",
        "rest = jnp.where(mask, y - loc[..., None], 0)",
        "rest = y - loc[..., None]",
        f"{PFN} -k units_of_targets",
    ),
    Mutant(
        "bars of standardised targets in units of the data",
        "amortized/_heads.py",
        "borders = loc + scale * self.borders.astype(parameters.dtype)",
        "borders = loc + self.borders.astype(parameters.dtype)",
        f"{PFN} -k units_of_targets",
    ),
    Mutant(
        "one row of context too many in training",
        "amortized/_pfn_training.py",
        "mask = jnp.broadcast_to(jnp.arange(context) < size, y.shape)",
        "mask = jnp.broadcast_to(jnp.arange(context) <= size, y.shape)",
        f"{TRAINING} -k 'mean_log_score and 0.0'",
    ),
    Mutant(
        "a network that is always told the style",
        "amortized/_pfn.py",
        "first = given if told is None else jnp.where(told[..., None], given, first)",
        "first = given",
        f"{TRAINING} -k 'mean_log_score and 1.0'",
    ),
    Mutant(
        "observed sites of a program that keep their data",
        "amortized/_tasks.py",
        "drawn = handlers.uncondition(handlers.seed(self.model, key_model))",
        "drawn = handlers.seed(self.model, key_model)",
        f"{TRAINING} -k becomes_a_prior",
    ),
    Mutant(
        "files whose checksum nobody reads",
        "amortized/_saving.py",
        'if hashlib.sha256(payload).hexdigest() != header["sha256"]:',
        "if False:",
        f"{TRAINING} -k damaged",
    ),
    Mutant(
        "ranks of equal values at their lower end",
        "amortized/_table_network.py",
        'for side in ("left", "right")',
        'for side in ("left", "left")',
        f"{TABLES} -k ranked",
    ),
    Mutant(
        "constant columns that count as values",
        "amortized/_table_network.py",
        "missing = jnp.isnan(x) | ~columns.used[..., None, :]",
        "missing = jnp.isnan(x)",
        f"{TABLES} -k constants",
    ),
    Mutant(
        "tables whose rows do not see columns",
        "amortized/_table_network.py",
        "by_row = by_row + self.columns(normal, pairs, used[..., None, None, :])",
        "by_row = by_row + 0 * self.columns(normal, pairs, used[..., None, None, :])",
        f"{TABLES} -k makes_a_difference",
    ),
]
