"""Priors from NumPyro programs, networks trained on them, and networks in files."""

import json
import re
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
import scipy.special
import scipy.stats

import bayesjx
from bayesjx import amortized
from bayesjx.amortized import BarHead, CategoricalHead, from_numpyro, NormalHead, PFN, Task

KEY = jax.random.key(0)


def line(x, noise_scale=0.5, y=None):
    slope = numpyro.sample("slope", dist.Normal(1.0, 2.0))
    centre = numpyro.deterministic("centre", slope * x[:, 0])
    with numpyro.plate("rows", len(x)):
        numpyro.sample("y", dist.Normal(centre, noise_scale), obs=y)


def coin(n, y=None):
    probability = numpyro.sample("probability", dist.Beta(2.0, 3.0))
    with numpyro.plate("rows", n):
        numpyro.sample("y", dist.Bernoulli(probability), obs=y)


def uniform(key):
    return jax.random.uniform(key, (11, 1))


def test_a_program_becomes_a_prior():
    prior = from_numpyro(line, 0.5, inputs=uniform, style=("slope",), theta=("centre",))
    tasks = jax.jit(jax.vmap(prior))(jax.random.split(KEY, 4000))
    assert tasks.x.shape == (4000, 11, 1) and tasks.y.shape == (4000, 11)
    slope = np.asarray(tasks.style[:, 0])
    assert scipy.stats.kstest(slope, "norm", (1, 2)).pvalue > 1e-3
    residual = np.asarray(tasks.y - tasks.theta["centre"]).ravel()
    assert scipy.stats.kstest(residual, "norm", (0, 0.5)).pvalue > 1e-3
    assert scipy.stats.kstest(np.asarray(tasks.x).ravel(), "uniform").pvalue > 1e-3
    # What is said of observed sites is replaced; inputs may be a site, or none.
    given = from_numpyro(line, inputs=uniform, y="y", noise_scale=0.5, style=())(KEY)
    fixed = from_numpyro(lambda x: line(x, y=jnp.zeros(11)), inputs=uniform)(KEY)
    np.testing.assert_array_equal(given.y, fixed.y)
    assert np.std(fixed.y) > 0
    own = from_numpyro(lambda: line(numpyro.sample("x", dist.Normal().expand([5, 2]))), x="x")
    assert own(KEY).x.shape == (5, 2)
    assert from_numpyro(coin, 7)(KEY).x.shape == (7, 0)


def test_a_network_learns_the_beta_bernoulli_model():
    """Excess log loss over the exact predictive, and its sufficient statistics."""
    n, queries = 7, 5
    prior = from_numpyro(coin, n + queries)
    sizes = {"width": 8, "depth": 1, "heads": 1, "hidden": 16}
    network = PFN.for_prior(KEY, prior, num_queries=queries, num_tasks=100, **sizes)
    assert isinstance(network.head, CategoricalHead) and network.max_context == n
    schedule = optax.cosine_decay_schedule(0.02, 500)
    algorithm = amortized.pfn_training(
        network, prior, optax.adam(schedule), num_queries=queries, batch_size=32
    )
    result = bayesjx.fit(jax.random.key(1), algorithm, algorithm.init(), 500)
    network = bayesjx.trained(network, result.state)
    excess, count = [], np.arange(n + 1)
    for size in (0, 3, 7):
        ones = count[: size + 1]
        y = (np.arange(n)[None] < ones[:, None]).astype(np.int32)
        probability = jax.vmap(lambda row, size=size: _predicted(network, row, size))(y)
        exact = (2 + ones) / (5 + size)
        weight = scipy.stats.betabinom.pmf(ones, size, 2, 3)
        divergence = scipy.special.rel_entr(exact, probability)
        divergence += scipy.special.rel_entr(1 - exact, 1 - probability)
        excess.append(weight @ divergence)
    assert np.max(excess) < 0.005, excess
    score = np.mean(result.info.objective[-200:])
    assert -0.66 < score < -0.58  # an exact network: about -0.63, a coin of 2/5: -0.67
    shuffled = np.array([1, 0, 1, 1, 0, 0, 1])
    orders = [network.condition(np.zeros((7, 0)), y) for y in (shuffled, np.sort(shuffled))]
    probs = [posterior.predict(np.zeros((1, 0))).probs for posterior in orders]
    np.testing.assert_allclose(*probs, atol=1e-6)


def _predicted(network, row, size):
    mask = jnp.arange(len(row)) < size
    posterior = network.condition(jnp.zeros((len(row), 0)), row, mask=mask)
    return posterior.predict(jnp.zeros((1, 0))).probs[0, 1]


def test_heads_follow_from_the_prior():
    prior = from_numpyro(line, inputs=uniform, style=("slope",))
    options = {"num_queries": 3, "num_tasks": 500, "num_bars": 20, "width": 8, "heads": 2}
    network = PFN.for_prior(KEY, prior, **options)
    assert network.num_styles == 1 and network.max_context == 8
    assert isinstance(network.head, BarHead) and network.head.size == 20
    np.testing.assert_allclose(network.input_loc, 0.5, atol=0.05)
    np.testing.assert_allclose(network.input_scale, 12**-0.5, rtol=0.1)
    # Bars of equal mass: a twentieth of targets in each.
    tasks = jax.vmap(prior)(jax.random.split(jax.random.key(3), 2000))
    shares = np.histogram(np.asarray(tasks.y), np.asarray(network.head.borders))[0] / tasks.y.size
    assert np.max(np.abs(shares - 0.05)) < 0.025
    scaled = PFN.for_prior(KEY, prior, standardise=True, **options)
    assert -6 < scaled.head.borders[1] < -1.2 and 1.2 < scaled.head.borders[-2] < 6


@pytest.mark.parametrize("dropout", [0.0, 1.0])
def test_the_loss_is_the_mean_log_score_of_queries(dropout):
    prior = from_numpyro(line, inputs=uniform, style=("slope",))
    network = PFN.for_prior(KEY, prior, num_queries=3, num_tasks=50, width=8, heads=2, depth=1)
    rng = np.random.default_rng(0)  # maps of heads start at zero
    moved = jax.tree.map(lambda v: v + 0.5 * rng.normal(size=v.shape), network.layers)
    network = eqx.tree_at(lambda n: n.layers, network, moved)
    algorithm = amortized.pfn_training(
        network, prior, optax.sgd(0.0), num_queries=3, batch_size=5, style_dropout=dropout
    )
    key = jax.random.key(6)
    _, info = jax.jit(algorithm.step)(key, algorithm.init())
    key_tasks, key_size, _ = jax.random.split(key, 3)
    size = jax.random.randint(key_size, (), 0, 9)
    assert 0 < size < 8
    tasks = jax.vmap(prior)(jax.random.split(key_tasks, 5))
    scores = [
        network.condition(x[:size], y[:size], style=None if dropout else style)
        .log_predictive_prob(x[8:], y[8:])
        for x, y, style in zip(tasks.x, tasks.y, tasks.style, strict=True)
    ]  # fmt: skip
    np.testing.assert_allclose(info.objective, np.mean(scores), rtol=1e-6)


@pytest.mark.parametrize("kind", ["PFN", "TablePFN"])
def test_networks_come_back_from_files(tmp_path, kind):
    options = {"width": 8, "heads": 2, "depth": 1, "key": KEY}
    head = BarHead(np.linspace(-1, 1, 6)) if kind == "PFN" else CategoricalHead(3)
    network = getattr(amortized, kind)(2, head, **options)
    path = tmp_path / "a.network"
    amortized.save_network(path, network, {"steps": 3})
    back = amortized.load_network(path, like=network)
    assert jax.tree.structure(back) == jax.tree.structure(network)
    for old, new in zip(jax.tree.leaves(network), jax.tree.leaves(back), strict=True):
        np.testing.assert_array_equal(old, new)
        assert old.dtype == new.dtype
    about = amortized.about_network(path)
    assert about["kind"] == kind and about["about"] == {"steps": 3}


@pytest.mark.parametrize("name", amortized.pretrained_names())
def test_networks_of_the_package_are_small_and_documented(name):
    folder = Path(amortized.__file__).parent / "networks"
    assert (folder / f"{name}.network").stat().st_size < 2e6
    about = amortized.about_network(name)["about"]
    training = Path(__file__).resolve().parents[2] / "training"
    header = (training / f"{name}.log").read_text().partition("\n\n")[0]
    log = re.match(r".*\nsteps (\d+), batch size (\d+), ", header)
    assert about["trained_for"] and log is not None
    before = sum(map(int, re.findall(r"(\d+) data sets", header)))
    assert about["data_sets"] == int(log[1]) * int(log[2]) + before
    assert about["steps"] == int(log[1])
    for kind in (".log", "-report.txt"):
        assert (training / f"{name}{kind}").read_text().startswith(f"{name}: ")
    assert f"`{name}`" in (training.parent / "docs" / "amortized.md").read_text()


def test_the_network_of_gaussian_processes_knows_where_it_knows():
    network = amortized.pretrained("gp")
    assert network.dtype == jnp.float32
    x = np.array([0.0, 0.1, 0.2, 0.3, 0.35])
    y = np.sin(6 * x)
    new = network.condition(x, y).predict(np.array([0.15, 0.25, 0.9]))
    near = np.abs(np.asarray(new.mean[:2]) - np.sin(6 * np.array([0.15, 0.25])))
    assert np.all(near < 0.15)
    scale = np.sqrt(np.asarray(new.variance))
    assert np.all(scale[:2] < 0.3) and scale[2] > 0.6
    # A second input that does not vary is none, and three inputs are taken too.
    same = network.condition(np.column_stack([x, np.full(5, 0.5)]), y)
    same = same.predict(np.array([[0.15, 0.5], [0.25, 0.5], [0.9, 0.5]]))
    np.testing.assert_allclose(same.mean, new.mean, rtol=1e-5)


@pytest.mark.errors
def test_damaged_and_other_files_are_named(tmp_path):
    network = PFN(2, NormalHead(), key=KEY, width=8, heads=2, depth=1)
    path = tmp_path / "a.network"
    amortized.save_network(path, network)
    data = path.read_bytes()
    other = PFN(2, NormalHead(), key=KEY, width=8, heads=2, depth=2)
    with pytest.raises(amortized.NetworkError, match="'depth': 1.*'depth': 2"):
        amortized.load_network(path, like=other)
    header, _, payload = data.partition(b"\n")
    flipped = payload[:-5] + bytes([payload[-5] ^ 1]) + payload[-4:]
    unknown = json.dumps(json.loads(header) | {"kind": "Other"}).encode()
    for contents, words in (
        (header + b"\n" + flipped, "another checksum"),
        (data[:-9], "another checksum"),
        (b"weights", "no network that save_network wrote"),
        (b"", "no network that save_network wrote"),
        (unknown + b"\n" + payload, "holds a Other, which is not known"),
    ):
        path.write_bytes(contents)
        with pytest.raises(amortized.NetworkError, match=words):
            amortized.load_network(path)
    with pytest.raises(amortized.NetworkError, match="cannot read"):
        amortized.load_network(tmp_path / "none")
    with pytest.raises(ValueError, match="name must be one of"):
        amortized.pretrained("none")
    with pytest.raises(ValueError, match="about must be plain data"):
        amortized.save_network(path, network, {1, 2})


def _random_length(x):
    n = numpyro.sample("n", dist.Poisson(3.0))
    numpyro.sample("y", dist.Normal(jnp.zeros(int(n)), 1.0))


def _branching(x):
    if numpyro.sample("n", dist.Normal()) > 0:
        numpyro.sample("y", dist.Normal(jnp.zeros(11), 1.0))


@pytest.mark.errors
def test_programs_that_are_no_priors_are_named():
    prior = from_numpyro(line, inputs=uniform)
    network = PFN(1, NormalHead(), key=KEY, width=8, heads=2, depth=1)
    adam = optax.adam(1e-3)
    for call, words in (
        (lambda: from_numpyro(_random_length, inputs=uniform), "do not depend on random values"),
        (lambda: from_numpyro(_branching, inputs=uniform), "do not depend on random values"),
        (lambda: from_numpyro(line, inputs=uniform, y="z"), "'z'; the program has 'slope'"),
        (lambda: from_numpyro(line, inputs=uniform, style=("a",)), "style names the site 'a'"),
        (lambda: from_numpyro(line, inputs=uniform, style="slope"), "tuple of names"),
        (lambda: from_numpyro(line, inputs=uniform, x="x"), "without x"),
        (lambda: from_numpyro(line, inputs=uniform, y="slope"), r"got \(11, 1\) and \(\)"),
        (lambda: from_numpyro("line"), "model must be callable"),
        (lambda: PFN.for_prior(KEY, lambda key: key), "must return an amortized.Task"),
        (lambda: PFN.for_prior(KEY, prior, num_queries=11), "more than num_queries"),
        (lambda: amortized.pfn_training(network, 3, adam), "prior must be callable"),
        (lambda: amortized.pfn_training("net", prior, adam), "must be an amortized.PFN"),
        (lambda: amortized.pfn_training(network, prior, adam, num_queries=0), "at least 1"),
        (
            lambda: amortized.pfn_training(
                network, prior, adam, num_queries=3, style_dropout=2
            ),
            "style_dropout must be in",
        ),
        (
            lambda: amortized.pfn_training(
                network, lambda key: Task(jnp.zeros((9, 1)), jnp.zeros(9, int)), adam, num_queries=3
            ),
            "not what NormalHead is for",
        ),
        (
            lambda: amortized.pfn_training(
                network, lambda key: Task(jnp.zeros((9, 2)), jnp.zeros(9)), adam, num_queries=3
            ),
            "2 inputs, the network 1",
        ),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            call()
