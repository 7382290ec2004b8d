"""Supports in Markov chains, turbo variational inference, and networks without idle units."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
from scipy.special import expit, gammaln, logsumexp

import bayesjx
from bayesjx import bnn, likelihoods


def by_enumeration(p01, p10, evidence):
    """Log of the sum over all supports, and marginal probabilities."""
    n = len(evidence)
    states = np.array(list(itertools.product((0, 1), repeat=n)))
    chain = np.log([[1 - p01, p01], [p10, 1 - p10]])
    logs = np.log(np.array([p10, p01]) / (p01 + p10))[states[:, 0]] + states @ evidence
    for i in range(n - 1):
        logs = logs + chain[states[:, i], states[:, i + 1]]
    total = logsumexp(logs)
    return total, np.exp(logs - total) @ states


@pytest.mark.parametrize("n", [1, 2, 7])
def test_messages_are_marginals_by_enumeration(n, dtype, tol):
    evidence = np.random.default_rng(n).normal(size=(3, n)) * 3

    @jax.jit
    def both(p01, evidence):
        support = bnn.MarkovSupport(p01, 0.3)
        (extrinsic, total), slope = support.messages(evidence), jax.grad(
            lambda e: support.messages(e)[1].sum()
        )(evidence)  # fmt: skip
        return extrinsic, total, support.marginals(evidence), slope

    extrinsic, total, marginals, slope = both(jnp.asarray(0.1, dtype), evidence.astype(dtype))
    want = [by_enumeration(0.1, 0.3, row) for row in evidence]
    probs = np.stack([w[1] for w in want])
    np.testing.assert_allclose(total, [w[0] for w in want], **tol)
    np.testing.assert_allclose(marginals, probs, **tol)
    np.testing.assert_allclose(slope, probs, **tol)  # the total generates the marginals
    np.testing.assert_allclose(expit(extrinsic + evidence), probs, **tol)
    assert total.dtype == dtype


def cluster(n=20, m=60, size=8, seed=3, noise=0.1):
    rng = np.random.default_rng(seed)
    design, weights = rng.normal(size=(n, m)), np.zeros(m)
    first = rng.integers(0, m - size)
    weights[first : first + size] = rng.normal(size=size) + 1.5
    return design, design @ weights + noise * rng.normal(size=n), weights


def test_a_chain_finds_a_run_that_independent_indicators_miss():
    data = [cluster(seed=seed) for seed in range(16)]
    designs, ys, weights = (np.stack(part) for part in zip(*data, strict=True))

    @jax.jit
    def learn(p01, p10):
        support = bnn.MarkovSupport(p01, p10)
        one = lambda x, y: bnn.turbo_vbi(x, y, support=support, noise_var=0.01)  # noqa: E731
        return jax.vmap(one)(designs, ys)

    exact, bounds = {}, {}
    for name, pair in {"chain": (0.02, 0.125), "independent": (8 / 60, 52 / 60)}.items():
        posterior = learn(*pair)
        exact[name] = np.mean(np.all(np.asarray(posterior.active) == (weights != 0), axis=1))
        bounds[name] = np.asarray(posterior.bound_trace)
    assert exact["chain"] >= exact["independent"] + 0.25, exact
    # The spike's rate stands still in the last quarter, where no step lowers the bound.
    for trace in bounds.values():
        steady = trace[:, 122:]
        assert np.all(np.diff(steady, axis=1) >= -1e-9 * np.abs(steady[:, 1:]))


def test_it_ends_at_the_fixed_point_of_both_modules():
    design, y, _ = cluster(n=31, m=23, size=5)
    design[:, 3] *= 1e3
    support = bnn.MarkovSupport(0.1, 0.3)
    posterior = bnn.turbo_vbi(design, y, support=support, noise_var=0.01, num_steps=400)
    length, size = np.sqrt(np.mean(design**2, axis=0)), np.sqrt(np.mean(y**2))
    x, target, noise = design / length, y / size, 0.01 / size**2
    rho = np.asarray(posterior.precision) * (size / length) ** 2
    cov = np.linalg.inv(x.T @ x / noise + np.diag(rho))
    mean = cov @ x.T @ target / noise
    square = mean**2 + np.diag(cov)
    rate = 1e-6

    def gap(a, b):
        return a * np.log(b) - gammaln(a) + gammaln(a + 0.5) - (a + 0.5) * np.log(b + square / 2)

    said = np.clip(gap(1, 1) - gap(1, rate), -30, 30)
    _, prob = by_enumeration_of_long_chains(0.1, 0.3, said)
    own = prob * 1.5 / (1 + square / 2) + (1 - prob) * 1.5 / (rate + square / 2)
    np.testing.assert_allclose(posterior.inclusion_prob, prob, atol=1e-4)
    np.testing.assert_allclose(rho, own, rtol=1e-3)
    np.testing.assert_allclose(posterior.mean * length / size, mean, atol=1e-6)
    assert posterior.result == bayesjx.RESULTS.successful
    scaled = bnn.turbo_vbi(design * 1e-3, y * 1e4, support=support, noise_var=1e6, num_steps=400)
    np.testing.assert_allclose(scaled.mean, posterior.mean * 1e7, rtol=1e-6, atol=1e-3)


def by_enumeration_of_long_chains(p01, p10, evidence):
    """Forward and backward in plain NumPy, for chains too long to enumerate."""
    n, chain = len(evidence), np.log([[1 - p01, p01], [p10, 1 - p10]])
    local = np.stack([np.zeros(n), evidence], axis=1)
    alpha = [np.log(np.array([p10, p01]) / (p01 + p10)) + local[0]]
    for i in range(1, n):
        alpha.append(logsumexp(alpha[-1][:, None] + chain, axis=0) + local[i])
    beta = [np.zeros(2)]
    for i in range(n - 1, 0, -1):
        beta.insert(0, logsumexp(chain + local[i] + beta[0], axis=1))
    both = np.stack(alpha) + np.stack(beta)
    total = logsumexp(both[0])
    return total, np.exp(both - total)[:, 1]


def test_noise_is_learned_and_predictions_hold():
    design, y, weights = cluster(n=83, m=37, size=6, seed=1, noise=0.3)
    posterior = bnn.turbo_vbi(
        design.astype("float32"), y.astype("float32"), support=bnn.MarkovSupport(0.05, 0.2)
    )
    # The relative standard error of a variance with 77 degrees of freedom is .16.
    assert abs(float(posterior.noise_var) / 0.09 - 1) < 5 * 0.16
    assert np.array_equal(posterior.active, weights != 0)
    off = (posterior.predict(design.astype("float32")).mean - design @ weights) / 0.3
    assert np.sqrt(np.mean(off**2)) < 5 * np.sqrt(6 / 83)


def test_grids_of_independent_chains_are_no_grid():
    from bayesjx.bnn._turbo_network import grid_messages

    said = jnp.asarray(np.random.default_rng(0).normal(size=(5, 7)))
    alone = bnn.MarkovSupport.independent(0.2)
    for axis in ("inputs", "outputs", "both"):
        np.testing.assert_allclose(grid_messages(alone, said, axis), np.log(0.25), rtol=1e-10)
    support = bnn.MarkovSupport(0.1, 0.3)
    rows, columns = (grid_messages(support, said, axis) for axis in ("inputs", "outputs"))
    np.testing.assert_allclose(rows[2], support.messages(said[2])[0], rtol=1e-10)
    np.testing.assert_allclose(columns[:, 4], support.messages(said[:, 4])[0], rtol=1e-10)
    # One row only: the chains along columns are of one member, which says the density alone.
    both = grid_messages(support, said[:1], "both")
    np.testing.assert_allclose(both, support.messages(said[:1])[0], rtol=1e-10)


def trained_network():
    """A network of 11 inputs in runs, of which three matter, by turbo variational inference."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(211, 11))
    y = np.tanh(x[:, 3] + x[:, 4] - x[:, 5]) + 0.1 * rng.normal(size=211)
    network = eqx.nn.MLP(11, 1, 13, 1, activation=jnp.tanh, key=jax.random.key(0))
    q = bnn.mean_field(
        network,
        lambda f: likelihoods.Gaussian(0.01)(f[..., 0]),
        where=lambda network: [layer.weight for layer in network.layers],
        init_scale=0.05,
    )
    algorithm = bnn.turbo_mean_field_vi(
        q, optax.adam(1e-2), num_data=211, support=bnn.MarkovSupport(0.1, 0.3), num_steps=2000
    )
    fit = bayesjx.fit(
        jax.random.key(1), algorithm, algorithm.init(), 2000, data=(jnp.asarray(x), jnp.asarray(y)),
        batch_size=53,
    )  # fmt: skip
    return q, fit.state, x, y


def test_a_network_loses_inputs_that_do_not_matter():
    q, state, x, y = trained_network()
    network = bnn.pruned(q, state)
    smaller = bnn.compact(network)
    values = jax.vmap(network)(x)
    np.testing.assert_allclose(jax.vmap(smaller.network)(x), values, rtol=1e-8, atol=1e-8)
    used = np.any(np.asarray(network.layers[0].weight) != 0, axis=0)
    assert {3, 4, 5} <= set(np.flatnonzero(used)) <= {2, 3, 4, 5, 6}  # neighbours may come along
    assert smaller.widths[1] < 13 and smaller.num_weights < 13 * 12 / 3
    # Noise of 0.1, whose mean square has a relative standard error of sqrt(2 / 211).
    assert np.mean((values[:, 0] - y) ** 2) < 0.01 * (1 + 5 * np.sqrt(2 / 211)) + 0.002


@pytest.mark.parametrize("prior", [None, 0.5])
def test_fine_tuning_is_least_squares_on_the_weights_that_are_left(prior):
    rng = np.random.default_rng(4)
    x, kept = rng.normal(size=(31, 7)), np.array([0, 1, 1, 0, 0, 1, 0], bool)
    y = x @ rng.normal(size=7) + 0.3 * rng.normal(size=31) + 2
    network = eqx.nn.Linear(7, "scalar", key=jax.random.key(0))
    start = [0.1 * kept[None], np.zeros(1)]  # biases of 0 are trained
    network = eqx.tree_at(lambda n: [n.weight, n.bias], network, start)
    noise = lambda f: dist.Normal(f, 0.3)  # noqa: E731
    adam = optax.adam(optax.cosine_decay_schedule(0.1, 500))
    tuning = bnn.fine_tune(network, noise, adam, num_data=31, prior=prior, where=lambda n: n.weight)

    @jax.jit
    def run(state):  # all data at each step
        steps = lambda state, _: tuning.step(jax.random.key(1), state, x, y)  # noqa: E731
        return jax.lax.scan(steps, state, length=500)

    state, info = run(tuning.init())
    tuned, _ = bayesjx.trained((network, noise), state)
    design = np.column_stack([x[:, kept], np.ones(31)])
    ridge = 0.0 if prior is None else 0.3**2 / prior**2
    gram = design.T @ design + ridge * np.diag([1, 1, 1, 0])
    want = np.linalg.solve(gram, design.T @ y)
    np.testing.assert_array_equal(tuned.weight[0, ~kept], 0)
    np.testing.assert_allclose(np.append(tuned.weight[0, kept], tuned.bias), want, rtol=1e-4)
    value = bnn.log_joint(tuned, noise, x, y, prior=prior, where=lambda n: n.weight)
    np.testing.assert_allclose(info.objective[-1], value, rtol=1e-6)


def test_units_that_are_constant_or_not_read_go():
    rng = np.random.default_rng(2)
    network = eqx.nn.MLP(5, 3, 7, 2, activation=jax.nn.softplus, key=jax.random.key(0))
    weights = [np.array(layer.weight) for layer in network.layers]
    weights[0][[1, 4]] = 0  # these units are constants, and not 0
    weights[1][:, 2] = 0  # this one is not read
    weights[1][3] = 0
    weights[2][:, 3] = 0
    weights[1] *= rng.random((7, 7)) < 0.7
    network = eqx.tree_at(lambda n: [layer.weight for layer in n.layers], network, weights)
    smaller = bnn.compact(network)
    x = rng.normal(size=(11, 5))
    np.testing.assert_allclose(jax.vmap(smaller.network)(x), jax.vmap(network)(x), rtol=1e-10)
    assert smaller.widths[0] == 5 and smaller.widths[-1] == 3
    assert smaller.widths[1] <= 4 and smaller.widths[2] <= 6 and smaller.flops_ratio > 1
    again = bnn.compact(smaller.network)
    assert again.widths == smaller.widths and again.num_weights == smaller.num_weights


def test_scalars_stay_scalars():
    network = eqx.nn.MLP("scalar", "scalar", 5, 1, key=jax.random.key(0))
    network = eqx.tree_at(lambda n: n.layers[1].weight, network, jnp.eye(1, 5))
    smaller = bnn.compact(network)
    assert smaller.widths == (1, 1, 1)
    np.testing.assert_allclose(smaller.network(jnp.ones(())), network(jnp.ones(())), rtol=1e-10)


def test_a_network_that_is_constant_keeps_one_unit():
    network = eqx.nn.MLP(5, 3, 7, 1, key=jax.random.key(0))
    network = eqx.tree_at(lambda n: n.layers[0].weight, network, jnp.zeros((7, 5)))
    smaller = bnn.compact(network)
    assert smaller.widths == (5, 1, 3) and smaller.num_weights == 0
    x = np.ones((2, 5))
    np.testing.assert_allclose(jax.vmap(smaller.network)(x), jax.vmap(network)(x), rtol=1e-10)


@pytest.mark.errors
def test_mistakes_are_named():
    design, y, _ = cluster()
    support = bnn.MarkovSupport(0.1, 0.3)
    with pytest.raises(ValueError, match="transposed"):
        bnn.turbo_vbi(design.T, y, support=support)
    with pytest.raises(ValueError, match="inside of"):
        bnn.MarkovSupport(0.0, 0.3)
    with pytest.raises(ValueError, match="likelihood must be a function"):
        bnn.fine_tune(eqx.nn.Identity(), None, optax.adam(1e-3), num_data=3)
    with pytest.raises(ValueError, match="Conv"):
        conv = eqx.nn.Conv2d(1, 2, 3, key=jax.random.key(0))
        bnn.compact(eqx.nn.Sequential([conv]))
    first, last = (eqx.nn.Linear(*size, key=jax.random.key(0)) for size in ((3, 4), (4, 2)))
    for mixing in (jax.nn.softmax, jnp.sort, jax.lax.cummax):
        with pytest.raises(ValueError, match="elementwise"):
            bnn.compact(eqx.nn.Sequential([first, eqx.nn.Lambda(mixing), last]))
