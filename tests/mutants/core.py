"""Mistakes planted in `bayesjx._core`."""

from mutant import Mutant

PACKAGE = "_core"
MUTANTS = [
    Mutant(
        "jitter that is not relative to the diagonal",
        "_core/_cholesky.py",
        "return _factor(matrix, jitter * mean)",
        "return _factor(matrix, jitter * jnp.ones_like(mean))",
        "tests/_core/test_cholesky.py",
    ),
    Mutant(
        "jitter that grows in other steps",
        "_core/_cholesky.py",
        "added = _search(matrix, step, 10, RUNGS)",
        "added = _search(matrix, step, 100, RUNGS)",
        "tests/_core/test_cholesky.py",
    ),
    Mutant(
        "indices swapped in the unrolled Cholesky factor",
        "_core/_batched.py",
        "rest = rest - entries[i, k] * entries[j, k]",
        "rest = rest - entries[i, k] * entries[i, k]",
        "tests/_core/test_batched.py -k factors_and_solves",
    ),
    Mutant(
        "whole diagonal in the derivative of the Cholesky factor",
        "_core/_batched.py",
        "+ 0.5 * inside * jnp.eye(",
        "+ inside * jnp.eye(",
        "tests/_core/test_batched.py -k test_derivatives",
    ),
    Mutant(
        "sign of the gaps in the derivative of eigenvectors",
        "_core/_batched.py",
        "gaps = values - values[:, None]",
        "gaps = values[:, None] - values",
        "tests/_core/test_batched.py -k under_transformations",
    ),
    Mutant(
        "one key for all steps",
        "_core/_program.py",
        "now = jax.random.fold_in(key, first + i)",
        "now = jax.random.fold_in(key, first)",
        "tests/_core/test_fit.py -k equals_a_loop",
    ),
    Mutant(
        "what is kept moves on with the chunk and not with the blocks",
        "_core/_program.py",
        "block = (first + i) // thin - first // thin",
        "block = i // thin",
        "tests/_core/test_fit.py -k kept_states",
    ),
    Mutant(
        "random rows are drawn with the key of the step",
        "_core/_program.py",
        "key, row_key = jax.random.split(key)",
        "row_key = jax.random.key(0)",
        "tests/_core/test_fit.py -k rows_are_drawn",
    ),
    Mutant(
        "a program is known by the shapes alone",
        "_core/_program.py",
        "return Identity(self._static, *trees,",
        "return Identity(*trees,",
        "tests/_core/test_gradient.py",
    ),
    Mutant(
        "programs keep the functions that they were made of",
        "_core/_identity.py",
        "self._number, self.ref = id(value), weakref.ref(value)",
        "self._number, self.ref = id(value), lambda: value",
        "tests/_core/test_gradient.py -k die",
    ),
    Mutant(
        "average of the parameters before the step",
        "_core/_gradient.py",
        "average * a + (1 - average) * p, mean, params)",
        "average * a + (1 - average) * p, mean, state.params)",
        "tests/_core/test_gradient.py -k loop",
    ),
    Mutant(
        "what is known moves",
        "_core/_parameters.py",
        "    if bad.all():\n        return None\n",
        "    if bad.all():\n        return jnp.zeros_like(leaf)\n",
        "tests/_core/test_gradient.py -k compile_nothing",
    ),
    Mutant(
        "the first bad step is reported one too late",
        "_core/_nonfinite.py",
        "return BadStep(first + low,",
        "return BadStep(first + high,",
        "tests/_core/test_nonfinite.py -k keeps_the_state",
    ),
    Mutant(
        "standard error of correlated steps as if they were independent",
        "_core/_callbacks.py",
        "float(np.std(means, ddof=1) / math.sqrt(num_batches))",
        "float(np.std(tail, ddof=1) / math.sqrt(len(tail)))",
        "tests/_core/test_callbacks.py",
    ),
    Mutant(
        "a program compiled under another way to fail is used again",
        "_core/_eager.py",
        "return run(on_failure(), args, options)",
        'return run("raise", args, options)',
        "tests/_core/test_eager.py",
    ),
]
