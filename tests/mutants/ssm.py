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
        "ssm/_space_time.py",
        "variance @ (weights**2).T",
        "variance @ jnp.abs(weights).T",
        "tests/ssm/test_space_time.py",
    ),
    Mutant(
        "missing cells cost as much as observed ones",
        "ssm/_space_time.py",
        "0.5 * jnp.sum(law.seen * self.time_variance()",
        "0.5 * jnp.sum(self.time_variance()",
        "tests/ssm/test_space_time.py",
    ),
    Mutant(
        "derivatives of sites without the implicit function theorem",
        "ssm/_site_updates.py",
        "change = jax.lax.custom_linear_solve(lacking, direct, solve, solve)",
        "change = direct",
        "tests/ssm/test_site_updates.py -k derivatives_of_any_order",
    ),
]
