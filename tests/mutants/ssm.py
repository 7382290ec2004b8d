"""Mistakes planted in `bayesjx.ssm`."""

from mutant import Mutant

PACKAGE = "ssm"
SPACES = "tests/ssm/test_state_space.py"
MUTANTS = [
    Mutant(
        "power of 2 in the spectral density of a Matérn process",
        "ssm/_elementary_spaces.py",
        "2 ** (2 * order + 1)",
        "2 ** (2 * order)",
        SPACES,
    ),
    Mutant(
        "sign of the damping in the transition of an oscillator",
        "ssm/_elementary_spaces.py",
        "(-x * odd, even - damping * x * odd)",
        "(-x * odd, even + damping * x * odd)",
        SPACES,
    ),
    Mutant(
        "a wave that turns the other way",
        "ssm/_elementary_spaces.py",
        "((cos, -sin), (sin, cos))",
        "((cos, sin), (-sin, cos))",
        "tests/ssm/test_slopes.py",
    ),
    Mutant(
        "variance of an integrated Wiener process",
        "ssm/_elementary_spaces.py",
        "((step**3 / 3, half), (half, step))",
        "((step**3 / 6, half), (half, step))",
        SPACES,
    ),
    Mutant(
        "weights of eigenvectors not squared in a variance",
        "ssm/_space_time_posterior.py",
        "variance @ (weights**2).T",
        "variance @ jnp.abs(weights).T",
        "tests/ssm/test_space_time.py",
    ),
    Mutant(
        "missing cells cost as much as observed ones",
        "ssm/_space_time.py",
        "0.5 * jnp.sum(inside.observed * left / noise_var)",
        "0.5 * jnp.sum(left / noise_var)",
        "tests/ssm/test_space_time.py",
    ),
    Mutant(
        "derivatives of sites without the implicit function theorem",
        "ssm/_site_updates.py",
        "change = jax.lax.custom_linear_solve(lacking, direct, solve, solve)",
        "change = direct",
        "tests/ssm/test_site_updates.py -k derivatives_of_any_order",
    ),
    Mutant(
        "filter elements combined without what the second says of the state before",
        "ssm/_steps.py",
        "kept = alg.subtract_square(first.matrix, reached)",
        "kept = first.matrix",
        "tests/ssm/test_kalman.py -k associative",
    ),
    Mutant(
        "sign of the Kalman gain in the smoother's step back",
        "ssm/_adjoint_steps.py",
        "error = step.scaled - alg.dot(gain, later.gradient)",
        "error = step.scaled + alg.dot(gain, later.gradient)",
        "tests/ssm/test_kalman.py -k few",
    ),
    Mutant(
        "sign of the Kalman update of a covariance",
        "ssm/_steps.py",
        "cov = alg.add_rank_one(state.cov, cross, -step.precision)",
        "cov = alg.add_rank_one(state.cov, cross, step.precision)",
        "tests/ssm/test_kalman.py -k states_are_dense",
    ),
    Mutant(
        "Joseph's form without the noise",
        "ssm/_steps.py",
        "cov = alg.add_rank_one(cov, cross, step.noise_precision)",
        "cov = cov",
        "tests/ssm/test_arrays.py tests/ssm/test_markov_gp.py -k 'f32 or single or precise'",
    ),
    Mutant(
        "missing observations enter the density",
        "ssm/_steps.py",
        "precision = now.observed / total",
        "precision = 1 / total",
        "tests/ssm/test_kalman.py -k states_are_dense",
    ),
    Mutant(
        "filter elements combined without the first one's density",
        "ssm/_steps.py",
        "log_density = first.log_density + log_density",
        "log_density = log_density",
        "tests/ssm/test_kalman.py -k states_are_dense",
    ),
    Mutant(
        "constant of a density for missing observations too",
        "ssm/_steps.py",
        "constant = LOG_2PI * jnp.sum(observations.observed, axis=axes)",
        "constant = LOG_2PI * jnp.sum(jnp.ones_like(observations.observed), axis=axes)",
        "tests/ssm/test_kalman.py -k states_are_dense",
    ),
    Mutant(
        "prior covariances with the times exchanged",
        "ssm/_prior_covariance.py",
        '"mpi,mnji,nqj->mpnq"',
        '"mpi,mnij,nqj->mpnq"',
        "tests/ssm/test_slopes.py -k posterior_are_dense",
    ),
    Mutant(
        "answers about the function without its prior mean",
        "ssm/_posterior.py",
        "self._prior_mean(x, slope) + mean",
        "mean",
        "tests/ssm/test_markov_gp.py -k posterior_is_dense",
    ),
]
