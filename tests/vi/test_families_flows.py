"""Normalising flows as distributions and guides."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from family_problems import covariance, D, gaussian, MEAN
from numpyro.infer import SVI
from numpyro.infer.autoguide import AutoBNAFNormal, AutoIAFNormal

from bayesjx import vi

flows = pytest.importorskip("flowjax.flows")
distributions = pytest.importorskip("flowjax.distributions")
paramax = pytest.importorskip("paramax")


def affine(dtype=jnp.float64):
    tril = jnp.linalg.cholesky(covariance()).astype(dtype)
    flow = distributions.MultivariateNormal(
        MEAN, tril @ tril.T
    )  # float64 under x64, whatever comes in
    return jax.tree.map(lambda x: x.astype(dtype) if eqx.is_inexact_array(x) else x, flow)


def autoregressive(key, d):
    base = distributions.Normal(jnp.zeros(d))
    return flows.masked_autoregressive_flow(
        key, base_dist=base, invert=True, flow_layers=2, nn_width=8, nn_depth=1
    )


def test_it_is_a_pytree_and_takes_old_keys():
    d = vi.FlowJAXDistribution(autoregressive(jax.random.key(0), 3))
    leaves, treedef = jax.tree.flatten(d)
    assert all(eqx.is_array(leaf) for leaf in leaves)
    again = jax.tree.unflatten(treedef, leaves)
    x = jnp.arange(3.0)
    np.testing.assert_allclose(again.log_prob(x), d.log_prob(x))
    assert d.expand((2,)).sample(jax.random.PRNGKey(0), (4,)).shape == (4, 2, 3)
    assert d.expand((2,)).log_prob(jnp.zeros((2, 3))).shape == (2,)


def test_conditional_flows_have_batches():
    flow = flows.masked_autoregressive_flow(
        jax.random.key(0), base_dist=distributions.Normal(jnp.zeros(3)), cond_dim=2, nn_width=8
    )
    condition = jnp.arange(8.0).reshape(4, 2)
    d = vi.FlowJAXDistribution(flow, condition)
    assert (d.batch_shape, d.event_shape) == ((4,), (3,))
    assert d.sample(jax.random.key(0), (5,)).shape == (5, 4, 3)
    values = d.sample(jax.random.key(0))
    np.testing.assert_allclose(d.log_prob(values)[2], flow.log_prob(values[2], condition[2]))


def test_marked_leaves_stay():
    flow = affine()
    fixed = eqx.tree_at(lambda f: f.bijection.loc, flow, replace_fn=paramax.non_trainable)
    guide = vi.FlowGuide(gaussian, fixed)
    problem = vi.functional(jax.random.key(0), gaussian, guide)
    whole = vi.functional(jax.random.key(0), gaussian, vi.FlowGuide(gaussian, flow))
    assert len(whole.params["auto_flow"]) == len(problem.params["auto_flow"]) + 1
    # Unpartitioned, they get no gradient.
    log_prob = lambda f: vi.FlowJAXDistribution(f).log_prob(jnp.zeros(D))  # noqa: E731
    slope = eqx.filter_grad(log_prob)(fixed)
    assert not slope.bijection.loc.tree.any()


@pytest.mark.parametrize("guide", [AutoIAFNormal, AutoBNAFNormal])
def test_flow_guides_of_numpyro_work(guide):
    svi = SVI(gaussian, guide(gaussian, num_flows=1), optax.adam(0.01), vi.SVILoss())
    result = svi.run(jax.random.key(0), 300, progress_bar=False)
    assert result.losses[-50:].mean() < result.losses[:50].mean()


@pytest.mark.errors
def test_bad_input_is_named():
    with pytest.raises(ValueError, match="must be a FlowJAX distribution"):
        vi.FlowJAXDistribution(flow=3)
    with pytest.raises(ValueError, match=r"shape \(d,\)"):
        vi.FlowJAXDistribution(distributions.Normal(jnp.zeros((2, 2))))
    with pytest.raises(ValueError, match="takes no condition"):
        vi.FlowJAXDistribution(affine(), jnp.zeros(2))
    with pytest.raises(ValueError, match="5 dimensions"):
        flow = distributions.Normal(jnp.zeros(3))
        vi.functional(jax.random.key(0), gaussian, vi.FlowGuide(gaussian, flow))
    guide = AutoBNAFNormal(gaussian, num_flows=1)
    problem = vi.functional(jax.random.key(0), gaussian, guide)
    with pytest.raises(ValueError, match='entropy="mc"'):
        vi.elbo(problem.model, problem.guide, entropy="stl").estimate(
            jax.random.key(0), problem.params
        )


def test_it_is_the_flow(dtype, tol):
    d = vi.FlowJAXDistribution(affine(dtype))
    assert (d.batch_shape, d.event_shape) == ((), (D,))
    draws, [log_prob] = jax.jit(lambda d, k: d.sample_with_intermediates(k, (4000,)))(
        d, jax.random.key(0)
    )
    assert draws.dtype == log_prob.dtype == dtype
    np.testing.assert_allclose(draws, d.sample(jax.random.key(0), (4000,)), **tol)
    again = jax.jit(lambda d, x: d.log_prob(x))(d, draws[:7])
    np.testing.assert_allclose(log_prob[:7], again, **(tol | {"rtol": 1e-3}))
    np.testing.assert_allclose(d.log_prob(draws[:7], [log_prob[:7]]), log_prob[:7])
    np.testing.assert_allclose(again, d.flow.log_prob(draws[:7]), rtol=1e-3)
    sem = draws.std(0) / len(draws) ** 0.5
    assert (jnp.abs(draws.mean(0) - MEAN) < 5 * sem).all()
    spread = jnp.sqrt(jnp.diag(covariance()))
    error = (jnp.cov(draws.T) - covariance()) / jnp.outer(spread, spread)
    assert jnp.abs(error).max() < 5 * np.sqrt(2 / len(draws))
