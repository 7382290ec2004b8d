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


def kinks_and_modes():
    """Laplace's kink, without any curvature, beside modes that no start comes near."""
    x = sample("x", dist.Laplace(0.0, 1.0))
    z = sample("z", dist.ImproperUniform(dist.constraints.real, (), ()))
    parts = dist.Normal(jnp.array([-10.0, 0.0, 12.0]), jnp.array([1.0, 0.5, 2.0])).log_prob(z - x)
    numpyro.factor("f", jax.scipy.special.logsumexp(jnp.log(jnp.array([0.2, 0.5, 0.3])) + parts))


def test_kinks_and_modes_far_from_all_starts():
    fit = vi.fit_posterior(jax.random.key(0), kinks_and_modes)
    assert fit.reliable and abs(fit.log_evidence) < 0.05, repr(fit)
    draws = {name: np.asarray(x) for name, x in fit.sample(jax.random.key(1), 3000).items()}
    y = draws["z"] - draws["x"]
    for part, share in (y < -5, 0.2), (abs(y) < 3, 0.5), (y > 4, 0.3):
        assert abs(part.mean() - share) < 5 * (share / 3000) ** 0.5
    assert abs(draws["x"].mean()) < 0.15 and abs(draws["x"].std() / 2**0.5 - 1) < 0.1


def trend(year, y):
    level, slope = sample("level", dist.Normal(0.0, 100.0)), sample("slope", dist.Normal(0.0, 1.0))
    sample("y", dist.Normal(level + slope * year, 0.1).to_event(1), obs=y)


def test_raw_years_in_single_precision():
    year = np.arange(1990.0, 2020.0)
    y = 0.02 * (year - 2000) + 0.1 * np.random.default_rng(0).normal(size=30)
    design = np.stack([np.ones(30), year], axis=1)
    cov = np.linalg.inv(np.diag([1e-4, 1.0]) + design.T @ design / 0.01)
    mean, sd = cov @ design.T @ y / 0.01, np.sqrt(np.diag(cov))
    with jax.enable_x64(False):
        fit = vi.fit_posterior(jax.random.key(0), trend, year, y)
        draws = fit.sample(jax.random.key(1), 2000)
    assert fit.reliable, repr(fit)
    for i, name in enumerate(["level", "slope"]):
        values = np.asarray(draws[name])
        assert values.dtype == np.float32
        # Rounding moves a curvature of 1e-5 beside 1 by some per cent.
        assert abs(values.mean() - mean[i]) < 0.1 * sd[i] and abs(values.std() / sd[i] - 1) < 0.15


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
