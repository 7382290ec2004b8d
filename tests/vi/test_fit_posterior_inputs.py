"""What people hand to `fit_posterior` besides arrays, heavy tails, and what it cannot take."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats

from bayesjx import vi
from bayesjx.vi._posterior._normal_mixture import NormalMixture

sample = numpyro.sample


class Table:
    """An argument without a hash that is no array, as data frames are."""

    __hash__ = None

    def __init__(self, values):
        self.values = values

    def to_numpy(self):
        return np.asarray(self.values)


def model(table, count, *, kind, num):
    """A Gaussian mean, an empty site, and Beta(1, 51): tails that no Gaussian covers."""
    assert kind == "normal"
    mean = sample("mean", dist.Normal(0.0, 10.0))
    none = sample("none", dist.Normal(0.0, 1.0).expand([num - 3]).to_event(1))
    share = sample("share", dist.Uniform(0.0, 1.0))
    sample("count", dist.Binomial(50, share), obs=count)
    sample("y", dist.Normal(mean + none.sum(), 1.0), obs=jnp.asarray(table.to_numpy()))


def test_tables_words_numbers_empty_sites_and_tails_that_are_no_gaussians():
    y = [0.3, 1.2, 0.9]
    fit = vi.fit_posterior(
        jax.random.PRNGKey(0), model, Table(y), np.asarray(0), kind="normal", num=3
    )
    assert fit.reliable and fit.k_hat < 0.6, repr(fit)
    draws = fit.sample(jax.random.key(1), 3000)
    assert draws["none"].shape == (3000, 0) and draws["none"].dtype == draws["mean"].dtype
    right = {"mean": stats.norm(sum(y) / 3.01, 3.01**-0.5), "share": stats.beta(1, 51)}
    for name, posterior in right.items():
        values = np.asarray(draws[name])
        assert abs(values.mean() - posterior.mean()) < 0.1 * posterior.std()
        assert abs(values.std() / posterior.std() - 1) < 0.1


def test_heavy_tails_are_a_density_and_its_draws():
    tril = jnp.array([[[2.0, 0.0], [1.5, 0.5]]])
    mixture = NormalMixture(jnp.zeros(1), jnp.array([[1.0, -1.0]]), tril)
    axis = np.sinh(np.linspace(-9, 9, 401))
    points = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    weights = np.outer(np.gradient(axis), np.gradient(axis)).reshape(-1)
    weights = weights * np.exp(np.asarray(mixture.log_prob(jnp.asarray(points))))
    assert abs(weights.sum() - 1) < 2e-3
    draws = np.asarray(mixture.sample(jax.random.key(0), 20_000))
    regions = [
        lambda x: abs(x[:, 0]) > 9,
        lambda x: abs(x[:, 1]) > 8,
        lambda x: x[:, 0] - x[:, 1] > 5,
        lambda x: x[:, 0] > 1.3,
    ]
    for region in regions:
        share = weights @ region(points)
        assert abs(region(draws).mean() - share) < 5 * (share / 20_000) ** 0.5 + 0.03 * share


@pytest.mark.errors
def test_what_is_no_problem_of_the_fit_is_said_by_name():
    key = jax.random.key(0)

    def mean_of(y):
        mean = sample("mean", dist.Normal(0.0, 1.0))
        sample("y", dist.Normal(mean, 1.0), obs=y)

    with pytest.raises(ValueError, match=r"site 'y' \(Normal\) \(1 of 2 data are NaN\)"):
        vi.fit_posterior(key, mean_of, jnp.array([0.3, jnp.nan]))
    with pytest.raises(ValueError, match="call it outside"):
        jax.jit(lambda y: vi.fit_posterior(key, mean_of, y).k_hat)(jnp.zeros(2))
    words = np.array([0.3, 1.2], object)
    with pytest.raises(ValueError, match="'y': the observed value is of type ndarray, .*to_numpy"):
        vi.fit_posterior(key, mean_of, words)
    with pytest.raises(ValueError, match="arguments of type ndarray, .*to_numpy"):
        vi.fit_posterior(key, lambda x: mean_of(x * sample("slope", dist.Normal())), words)
