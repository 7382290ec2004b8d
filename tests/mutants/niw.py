"""Mistakes planted in NIW-Meta of `bayesjx.amortized`."""

from mutant import Mutant

TESTS = "tests/amortized/test_niw_meta.py"
MUTANTS = [
    Mutant(
        "multivariate digamma with whole steps",
        "amortized/_niw_terms.py",
        "return 0.5 * (self.excess + (self.loc.size + 1 - j))",
        "return 0.5 * (self.excess + (self.loc.size + 1)) - j / 4",
        f"{TESTS} -k 'draws and f64'",
    ),
    Mutant(
        "a divergence without the strength of the mean",
        "amortized/_niw_terms.py",
        "- 1 + 1 / q.strength",
        "- 1",
        f"{TESTS} -k 'draws and f64'",
    ),
    Mutant(
        "degrees of freedom of the other distribution",
        "amortized/_niw_terms.py",
        "q.degrees * (p.scale / q.scale - 1)",
        "p.degrees * (p.scale / q.scale - 1)",
        f"{TESTS} -k 'draws and f64'",
    ),
    Mutant(
        "a posterior mean that is not pulled to that of all tasks",
        "amortized/_niw_episode.py",
        "right = of_task.linear + precision * loc",
        "right = of_task.linear",
        f"{TESTS} -k 'minimises'",
    ),
    Mutant(
        "a quadratic without the gradient where it is taken",
        "amortized/_niw_episode.py",
        "linear = root @ (root.T @ here) - jax.grad(episode.loss)(here)",
        "linear = root @ (root.T @ here)",
        f"{TESTS} -k 'exact_posterior and f64'",
    ),
    Mutant(
        "rows that do not count in the curvature only",
        "amortized/_niw_episode.py",
        "return jnp.where(counts, self.values(weights, x), 0)",
        "return self.values(weights, x)",
        f"{TESTS} -k 'exact_posterior and f64'",
    ),
    Mutant(
        "draws with half of the noise of the data",
        "amortized/_niw_episode.py",
        "inside = (outer @ scaled + inner) @ self.whiten.T @ self.whiten",
        "inside = (outer @ scaled) @ self.whiten.T @ self.whiten",
        f"{TESTS} -k 'exact_posterior and f64'",
    ),
    Mutant(
        "variances of the prior",
        "amortized/_niw_episode.py",
        "return (1 - jnp.sum(half**2, axis=0)) / self.precision",
        "return (1 - 0 * jnp.sum(half**2, axis=0)) / self.precision",
        f"{TESTS} -k 'minimises'",
    ),
    Mutant(
        "Gauss-Newton steps that do not move",
        "amortized/_niw_episode.py",
        "return (tried[best], found), None",
        "return (here, found), None",
        f"{TESTS} -k frozen_body",
    ),
    Mutant(
        "derivatives through the inner steps",
        "amortized/_niw_episode.py",
        "return jax.lax.stop_gradient(found)",
        "return found",
        f"{TESTS} -k 'derivatives'",
    ),
    Mutant(
        "variances of iterates around zero",
        "amortized/_niw_episode.py",
        "return (here, mean, square + off * (here - mean)), None",
        "return (here, mean, square + here**2), None",
        f"{TESTS} -k diagonal",
    ),
    Mutant(
        "the prior's share of each task instead of a number of them",
        "amortized/_niw_training.py",
        "return bound - kl(q, prior) / num_tasks",
        "return bound - kl(q, prior)",
        f"{TESTS} -k number_of_tasks",
    ),
    Mutant(
        "mean logits instead of mean probabilities",
        "amortized/_niw_posterior.py",
        "jax.nn.logsumexp(jnp.stack(each, axis=-1), axis=1)",
        "jnp.mean(jnp.stack(each, axis=-1), axis=1)",
        f"{TESTS} -k frozen_body",
    ),
    Mutant(
        "rows that do not count are looked at",
        "amortized/_niw_checks.py",
        "return library.where(keep, rows, rows[library.argmax(mask)])",
        "return rows",
        f"{TESTS} -k 'exact_posterior or number_of_tasks'",
    ),
]
