"""Mistakes planted in the regressions that networks of tables of `bayesjx.amortized` go on from."""

from mutant import Mutant

TESTS = "tests/amortized/test_table_baselines.py"
NETWORK = "tests/amortized/test_table_network.py"
FILE = "amortized/_table_baselines.py"
MUTANTS = [
    Mutant(
        "variances reduced by rows that do not count",
        FILE,
        "lower = jnp.where(mask[..., None, None, None, :], reduced[..., None, None] * lower, 0)",
        "lower = reduced[..., None, None] * lower",
        f"{TESTS} -k dense",
    ),
    Mutant(
        "noise of rows that do not count in the evidence",
        FILE,
        "log_det = log_det - (y.shape[-2] - rows) * jnp.log(share)",
        "log_det = log_det",
        f"{TESTS} -k dense",
    ),
    Mutant(
        "rows predicted from themselves",
        FILE,
        "loo_mean = y[..., None, None, :, :] - solved / diagonal[..., None]",
        "loo_mean = y[..., None, None, :, :] - share[:, None, None] * solved",
        f"{TESTS} -k dense",
    ),
    Mutant(
        "columns that are not used in the additive kernel",
        FILE,
        "jnp.where(counts[..., None, None], jnp.exp(-0.5 * apart**2), 0), None",
        "jnp.exp(-0.5 * apart**2), None",
        f"{TESTS} -k dense",
    ),
    Mutant(
        "noise averaged without the evidence",
        FILE,
        "given = jax.nn.softmax(evidence, axis=-1)",
        "given = jax.nn.softmax(0 * evidence, axis=-1)",
        f"{TESTS} -k dense",
    ),
    Mutant(
        "outer bars without their tails",
        FILE,
        "ends = jnp.full(1, jnp.inf, mean.dtype)",
        "ends = jnp.abs(borders[:1])",
        f"{TESTS} -k masses",
    ),
    Mutant(
        "ranks in the linear kernel",
        "amortized/_table_network.py",
        "z, rank, seen = _wide(",
        "rank, z, seen = _wide(",
        f"{NETWORK} -k 'regressions'",
    ),
    Mutant(
        "shares of classes forgotten",
        "amortized/_table_network.py",
        'probs = shares + jnp.einsum("...f,...mft->...mt", jnp.exp(weights), mean)',
        'probs = jnp.einsum("...f,...mft->...mt", jnp.exp(weights), mean)',
        f"{NETWORK} -k regressions",
    ),
]
