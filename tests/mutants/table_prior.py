"""Mistakes planted in priors over tables of `bayesjx.amortized`."""

from mutant import Mutant

TESTS = "tests/amortized/test_table_priors.py"
MUTANTS = [
    Mutant(
        "all leaves of a tree the same",
        "amortized/_table_priors.py",
        "leaf = jnp.sum(sides.reshape(-1, TREES, SPLITS) * bits, axis=-1)",
        "leaf = jnp.max(sides.reshape(-1, TREES, SPLITS) * bits, axis=-1)",
        f"{TESTS} -k trees",
    ),
    Mutant(
        "columns drawn without their relevance",
        "amortized/_table_priors.py",
        "shares = jnp.cumsum(relevance**2)",
        "shares = jnp.cumsum(jnp.ones_like(relevance))",
        f"{TESTS} -k trees",
    ),
    Mutant(
        "classes in the order of the score",
        "amortized/_table_priors.py",
        'order = jnp.argsort(jnp.where(present, u["order"], 2 + u["order"]))',
        "order = jnp.arange(len(present))",
        f"{TESTS} -k 'labels or classes'",
    ),
    Mutant(
        "intervals of unequal classes",
        "amortized/_table_priors.py",
        "edges = jnp.cumsum(jax.nn.softmax(sizes))",
        "edges = jnp.cumsum(jax.nn.softmax(2 * present))",
        f"{TESTS} -k labels",
    ),
    Mutant(
        "targets that keep their mean",
        "amortized/_table_priors.py",
        "return standardise(jnp.where(s[8] < 0.2, -y, y)[:, None])[:, 0]",
        "return jnp.where(s[8] < 0.2, -y, y) + 0.1",
        f"{TESTS} -k regressions",
    ),
    Mutant(
        "columns that a table does not use are left in",
        "amortized/_table_columns.py",
        "return jnp.where(lacking | ~used, jnp.nan, warped)",
        "return jnp.where(lacking, jnp.nan, warped)",
        f"{TESTS} -k 'record or regressions'",
    ),
    Mutant(
        "codes of intervals that coincide",
        "amortized/_table_columns.py",
        "return (jnp.round(1.5 * x) + 21) * factor % count",
        "return (jnp.round(0.5 * x) + 21) * factor % count",
        f"{TESTS} -k record",
    ),
    Mutant(
        "low bits that are the high ones",
        "amortized/_table_columns.py",
        "return u * factor % 1",
        "return u",
        f"{TESTS} -k independent",
    ),
]
