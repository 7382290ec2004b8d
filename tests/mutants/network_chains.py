"""Mistakes planted in the samplers of networks of `bayesjx.bnn`."""

from mutant import Mutant

PACKAGE = "bnn"
TESTS = "tests/bnn/test_network_chains.py"
MUTANTS = [
    Mutant(
        "chains: noise of batches is not left out",
        "bnn/_mcmc/_sghmc.py",
        "added = friction * (2 - friction) - (1 - friction / 2) ** 2 * share",
        "added = friction * (2 - friction)",
        f"{TESTS} -k 'noise_of_batches and 5'",
    ),
    Mutant(
        "chains: the mean square is taken for the noise of batches",
        "bnn/_mcmc/_sghmc.py",
        "share = step * memory.noise / hot  # of the batches' noise",
        "share = step * memory.square / hot",
        f"{TESTS} -k 'noise_of_batches and None'",
    ),
    Mutant(
        "chains: positions move by the new momentum only",
        "bnn/_mcmc/_sghmc.py",
        "position = _moved(state.position, (before + after) / 2)",
        "position = _moved(state.position, after)",
        f"{TESTS} -k 'linear_regression and f64'",
    ),
    Mutant(
        "chains: temperature left out of momenta",
        "bnn/_mcmc/_sghmc.py",
        "noise = jnp.sqrt(hot * step * added)",
        "noise = jnp.sqrt(step * added)",
        f"{TESTS} -k 'noise_of_batches and None'",
    ),
    Mutant(
        "chains: scales adapt for ever",
        "bnn/_mcmc/_sghmc.py",
        "burning = state.count < options.burn_in",
        "burning = state.count >= 0",
        f"{TESTS} -k adaptation_ends",
    ),
    Mutant(
        "chains: first differences have twice the noise, not six times",
        "bnn/_mcmc/_sghmc.py",
        "(change - memory.change) ** 2 / 6",
        "(change - memory.change) ** 2 / 2",
        f"{TESTS} -k 'noise_of_batches and 5'",
    ),
    Mutant(
        "chains: draws of burn-in are kept",
        "bnn/_mcmc/_draws.py",
        "parts = jax.tree.map(lambda a: np.asarray(a)[good], parts)",
        "parts = jax.tree.map(np.asarray, parts)",
        f"{TESTS} -k diagnostics",
    ),
    Mutant(
        "chains: draws and chains exchanged",
        "bnn/_mcmc/_draws.py",
        "return parts if chain_axis == 0 else",
        "return parts if chain_axis == 1 else",
        f"{TESTS} -k diagnostics",
    ),
    Mutant(
        "chains: parameters of the likelihood without the change of variables",
        "bnn/_mcmc/_chains.py",
        "repaired(prior).log_prob(value) + jnp.log(jnp.abs(slope))",
        "repaired(prior).log_prob(value)",
        f"{TESTS} -k noise_variance",
    ),
    Mutant(
        "chains: all chains start at one point",
        "bnn/_mcmc/_chains.py",
        "weights = jax.vmap(draw)(jax.random.split(key, number))",
        "weights = jax.vmap(draw)(jnp.stack([key] * number))",
        f"{TESTS} -k starts",
    ),
    Mutant(
        "chains: noise while a cycle explores",
        "bnn/_mcmc/_langevin.py",
        "jnp.where(sampling, temperature, 0)",
        "temperature",
        f"{TESTS} -k cycles",
    ),
    Mutant(
        "chains: a cycle's step size is half a cosine's period late",
        "bnn/_mcmc/_langevin.py",
        "(jnp.cos(math.pi * phase) + 1)",
        "(jnp.cos(2 * math.pi * phase) + 1)",
        f"{TESTS} -k cycles",
    ),
    Mutant(
        "chains: scales are drawn from their prior in Gibbs steps",
        "bnn/_mcmc/_moves.py",
        "self.chains.prior.precisions(key, self.chains.network(p))",
        "self.chains.prior.precisions(key)",
        f"{TESTS} -k 'scales_of_hierarchical and 3'",
    ),
    Mutant(
        "chains: inverse precisions in place of scales",
        "bnn/_mcmc/_moves.py",
        "scales = tuple(1 / jnp.sqrt(precision) for precision in precisions)",
        "scales = tuple(1 / precision for precision in precisions)",
        f"{TESTS} -k 'scales_of_hierarchical and 3'",
    ),
]
