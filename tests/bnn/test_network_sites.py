"""Networks in NumPyro models and guides: sites, densities, and posteriors of their draws."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro.contrib.module import random_eqx_module
from numpyro.handlers import seed, trace
from numpyro.infer import MCMC, NUTS, SVI
from numpyro.infer.autoguide import AutoNormal
from numpyro.infer.util import log_density
from scipy import stats

from bayesjx import bnn, likelihoods, vi

KEY = jax.random.key(13)
RNG = np.random.default_rng(1)
X, Y = jnp.asarray(RNG.normal(size=(11, 3))), jnp.asarray(RNG.normal(size=11))
NETWORK = eqx.nn.MLP(3, "scalar", 4, 1, key=KEY)
PRIOR = bnn.FanIn(2.0, 0.5)


def model(x, y=None, network=NETWORK, prior=PRIOR):
    net = bnn.random_network("net", network, prior)
    numpyro.sample("y", dist.Normal(jax.vmap(net)(x), 0.3), obs=y)


def test_densities_are_those_of_weights_and_data():
    sites = trace(seed(model, KEY)).get_trace(X, Y)
    drawn = {name: site["value"] for name, site in sites.items() if name != "y"}
    names = "net/layers[0].weight net/layers[0].bias net/layers[1].weight net/layers[1].bias"
    assert list(drawn) == names.split()
    found, _ = log_density(model, (X, Y), {}, drawn)
    network = bnn.random_leaves("", NETWORK).put(NETWORK, list(drawn.values()))
    joint = bnn.log_joint(network, likelihoods.Gaussian(0.09), X, Y, prior=PRIOR)
    want = sum(
        stats.norm(0, 0.5 if name.endswith("bias") else 2 / np.sqrt(np.shape(v)[1])).logpdf(v).sum()
        for name, v in drawn.items()
    )
    want += stats.norm(np.asarray(jax.vmap(network)(X)), 0.3).logpdf(Y).sum()
    np.testing.assert_allclose([found, joint], want, rtol=1e-10)
    half = bnn.log_joint(network, likelihoods.Gaussian(0.09), X[:4], Y[:4], 12)
    f = np.asarray(jax.vmap(network)(X[:4]))
    np.testing.assert_allclose(half, 3 * stats.norm(f, 0.3).logpdf(Y[:4]).sum(), rtol=1e-10)


def test_sites_are_those_of_numpyros_module():
    theirs = lambda: random_eqx_module("net", NETWORK, dist.Normal())  # noqa: E731
    names = [n for n, s in trace(seed(theirs, KEY)).get_trace().items() if s["type"] == "sample"]
    assert names == [name for name in trace(seed(model, KEY)).get_trace(X, Y) if name != "y"]


def test_types_choice_and_other_priors():
    single = jax.tree.map(
        lambda a: a.astype(jnp.float32) if eqx.is_inexact_array(a) else a, NETWORK
    )
    rate = lambda name, shape: dist.Gamma(2.0, jnp.ones(shape[-1]))  # noqa: E731
    draw = lambda: bnn.random_network("net", single, rate, where=lambda m: m.layers[1])  # noqa: E731
    found = trace(seed(draw, KEY)).get_trace()
    assert list(found) == ["net/layers[1].weight", "net/layers[1].bias"]
    network = seed(draw, KEY)()
    assert network.layers[1].weight.dtype == jnp.float32 and np.all(network.layers[1].weight > 0)
    assert network.layers[0] is not None
    np.testing.assert_array_equal(network.layers[0].weight, single.layers[0].weight)


def test_guides_draw_from_a_mean_field():
    """The bound of this library's programs is that of the distribution, in expectation."""
    q = bnn.mean_field(
        NETWORK, likelihoods.Gaussian(0.09), prior=PRIOR, init_scale=0.1, estimator="weights"
    )
    guide = lambda q, x, y: bnn.random_network("net", q)  # noqa: E731
    objective = vi.elbo(lambda q, x, y: model(x, y), guide)

    @jax.jit
    def bounds(keys):
        programs = jax.vmap(lambda key: objective.estimate(key, q, X, Y))(keys)
        return programs, jax.vmap(lambda key: q.elbo(X, Y, key=key))(keys)

    programs, own = bounds(jax.random.split(KEY, 500))
    error = np.sqrt((np.var(programs) + np.var(own)) / 500)
    assert abs(np.mean(programs) - np.mean(own)) < 5 * error
    result = vi.fit(KEY, objective, q, optax.adam(0.02), 200, data=(X, Y))
    first, last = np.split(np.asarray(result.info.objective), 10)[::9]
    assert np.mean(last) - np.mean(first) > 5 * np.std(last) / np.sqrt(20)


def test_numpyros_inference_runs_and_its_draws_are_a_posterior():
    svi = SVI(model, AutoNormal(model), optax.adam(0.01), vi.SVILoss())
    assert np.isfinite(jax.eval_shape(svi.init, KEY, X, Y) is not None)
    mcmc = MCMC(NUTS(model, max_tree_depth=3), num_warmup=5, num_samples=4, progress_bar=False)
    mcmc.run(KEY, X, Y)
    draws = mcmc.get_samples()
    posterior = bnn.from_sites("net", draws, NETWORK, likelihoods.Gaussian(0.09))
    network = posterior.network(1)
    np.testing.assert_array_equal(network.layers[0].weight, draws["net/layers[0].weight"][1])
    np.testing.assert_allclose(posterior.values(X)[1], jax.vmap(network)(X), rtol=1e-12)
    assert posterior.num_samples == 4


@pytest.mark.errors
def test_bad_names_and_draws_are_named():
    raises = lambda match: pytest.raises(ValueError, match=match)  # noqa: E731
    with raises("name must be a text"):
        bnn.random_network(None, NETWORK)
    with raises("network must be a callable"):
        bnn.random_network("net", 3.0)
    with raises("prior must be a standard deviation"):
        seed(bnn.random_network, KEY)("net", NETWORK, prior=None)
    with raises("must hold draws of the site 'net/layers.0..weight'"):
        bnn.from_sites("net", {"other": jnp.ones(3)}, NETWORK)
    leaves = bnn.random_leaves("", NETWORK)
    draws = {
        f"net/{name}": jnp.ones((2, 3, *leaf.shape))
        for name, leaf in zip(leaves.names, leaves.of(NETWORK), strict=True)
    }
    with raises("grouped by chain"):
        bnn.from_sites("net", draws, NETWORK)
