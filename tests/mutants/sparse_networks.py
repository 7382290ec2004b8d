"""Mistakes planted in `bayesjx.bnn._sparse`."""

from mutant import Mutant

MUTANTS = [
    Mutant(
        "sparse networks: the variance of outputs by scales that are not squared",
        "bnn/_sparse/_weight.py",
        "x, var = self._checked(x), self._scale() ** 2",
        "x, var = self._checked(x), self._scale()",
        "tests/bnn/test_sparse_layers.py -k 'dense_one and groups and float64'",
    ),
    Mutant(
        "sparse networks: a divergence that counts what lies outside of the matrix",
        "bnn/_sparse/_weight.py",
        "return jnp.sum(self.masked(each))",
        "return jnp.sum(each)",
        "tests/bnn/test_sparse_layers.py -k 'divergence and groups'",
    ),
    Mutant(
        "sparse networks: patches without dilation",
        "bnn/_sparse/_layers.py",
        "first = [o * d for o, d in zip(offset, self.dilation, strict=True)]",
        "first = list(offset)",
        "tests/bnn/test_sparse_layers.py -k 'convolution_is and kernel1'",
    ),
    Mutant(
        "sparse networks: the mean of |w| without its excess over |mean|",
        "bnn/_sparse/_criteria.py",
        "return 2 * jnp.maximum(norm.pdf(ratio) - ratio * norm.cdf(-ratio), 0)",
        "return jnp.zeros_like(ratio)",
        "tests/bnn/test_ssvi.py -k 'criteria and snr_mean_abs'",
    ),
    Mutant(
        "sparse networks: the second moment of an exponential at half its rate",
        "bnn/_sparse/_criteria.py",
        "_log_sides(mean, scale, 2 * rate) - 2 * _log_sides(mean, scale, rate)",
        "_log_sides(mean, scale, rate) - 2 * _log_sides(mean, scale, rate)",
        "tests/bnn/test_ssvi.py -k 'criteria and snr_exp'",
    ),
    Mutant(
        "sparse networks: units that were removed cannot come back",
        "bnn/_sparse/_moves.py",
        "kept = jnp.zeros(growth.shape, bool).at[group, index].set(~removed)",
        "kept = active",
        "tests/bnn/test_ssvi.py -k 'removes and groups'",
    ),
    Mutant(
        "sparse networks: units that come back lose their values",
        "bnn/_sparse/_moves.py",
        "free = removed & ~back[group, index]",
        "free = removed",
        "tests/bnn/test_ssvi.py -k 'removes and groups'",
    ),
    Mutant(
        "sparse networks: moments of the units that have left",
        "bnn/_sparse/_ssvi.py",
        "forget = lambda moment, c: jnp.where(c, jnp.zeros_like(moment), moment)",
        "forget = lambda moment, c: moment",
        "tests/bnn/test_ssvi.py -k forgets",
    ),
    Mutant(
        "sparse networks: gradients of inputs in place of those of missing weights",
        "bnn/_sparse/_evaluate.py",
        "return out + self.layer.shaped(columns @ self.probe, x)",
        "return out + self.layer.shaped(columns**2 @ self.probe, x)",
        "tests/bnn/test_ssvi.py -k forgets",
    ),
    Mutant(
        "sparse networks: means of units that a reallocation adds",
        "bnn/_sparse/_reallocate.py",
        "mean = np.concatenate([mean, np.zeros(shape, mean.dtype)], 1)",
        "mean = np.concatenate([mean, np.ones(shape, mean.dtype)], 1)",
        "tests/bnn/test_ssvi.py -k reallocation",
    ),
]
