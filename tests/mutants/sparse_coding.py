"""Mistakes planted in `bayesjx.sbl._sparse_coding`."""

from mutant import Mutant

STEP = "tests/sbl/test_sparse_coding.py -k 'enumerated and {}'"
MUTANTS = [
    Mutant(
        "sparse coding: pairs of candidates counted once in the energy",
        "sbl/_sparse_coding/_linear.py",
        "np.where(first == second, -0.5, -1.0)",
        "np.where(first == second, -0.5, -0.5)",
        STEP.format("BSC"),
    ),
    Mutant(
        "sparse coding: the prior tempered along with the likelihood",
        "sbl/_sparse_coding/_model.py",
        "joint.log_prior + (log_ratio if is_one else log_ratio / temperature)",
        "(joint.log_prior + log_ratio) / (1 if is_one else temperature)",
        STEP.format("TSC"),
    ),
    Mutant(
        "sparse coding: the bound at a temperature without its energy",
        "sbl/_sparse_coding/_model.py",
        "bound + (1 - 1 / temperature) * jnp.sum(probs * log_ratio, axis=0)",
        "bound",
        STEP.format("BSC"),
    ),
    Mutant(
        "sparse coding: data that were cut forgotten in the probability of a cause",
        "sbl/_sparse_coding/_parts.py",
        "new = prob * mean_active * kept / mean",
        "new = mean_active / num_causes",
        STEP.format("truncated"),
    ),
    Mutant(
        "spike and slab: half of the log determinant",
        "sbl/_sparse_coding/_gsc.py",
        "0.5 * sum(x**2 for x in white) - half_logdet",
        "0.5 * sum(x**2 for x in white) - 2 * half_logdet",
        STEP.format("GSC"),
    ),
    Mutant(
        "spike and slab: the covariance of slabs left out of second moments",
        "sbl/_sparse_coding/_gsc.py",
        "rows.append(part * (cov + slabs.mean[i] * slabs.mean[j]))",
        "rows.append(part * (slabs.mean[i] * slabs.mean[j]))",
        STEP.format("GSC"),
    ),
    Mutant(
        "maximal causes: the smaller of two signs",
        "sbl/_sparse_coding/_maximal.py",
        "return jnp.where(top >= -bottom, top, bottom)\n\n    def scores",
        "return jnp.where(top <= -bottom, top, bottom)\n\n    def scores",
        STEP.format("MMCA"),
    ),
    Mutant(
        "stepwise EM: statistics of all batches instead of a running mean",
        "sbl/_sparse_coding/_em.py",
        "old + rate * (new - old)",
        "old + rate * new",
        "tests/sbl/test_sparse_coding.py -k 'one_pass and BSC'",
    ),
    Mutant(
        "chunks: the last one is filled with data that count",
        "sbl/_sparse_coding/_chunks.py",
        "jnp.pad(x, padding)",
        "jnp.pad(x, padding, mode='edge')",
        STEP.format("BSC"),
    ),
]
