"""Linearised Laplace approximation against dense algebra, Bayesian linear regression and draws."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from numpyro import distributions as dist
from scipy import stats

from bayesjx import bnn, likelihoods, RESULTS

RNG = np.random.default_rng(0)
N, D, H, P = 11, 2, 4, 3
X = RNG.normal(size=(N, D))
NEW = RNG.normal(size=(5, D))
LABELS = RNG.integers(P, size=N)
TARGETS = RNG.normal(size=(N, P))
PRECISIONS = np.array([0.7, 1.9])
NOISE = 0.4
KEPT = 6  # weights of the subnetwork


def classes(f):
    return dist.Categorical(logits=f)


def network(dtype=jnp.float64, out=P):
    made = eqx.nn.MLP(D, out, H, 1, activation=jnp.tanh, key=jax.random.key(0))
    return jax.tree.map(lambda a: a.astype(dtype) if eqx.is_array(a) else a, made)


def dense_pieces(net, x):
    """Values, and the Jacobian of each row, of all leaves in order."""
    arrays, rest = eqx.partition(net, eqx.is_array)
    vector, back = ravel_pytree(arrays)
    of = lambda v: jax.vmap(eqx.combine(back(v), rest))(jnp.asarray(x))  # noqa: E731
    jacobian = np.asarray(jax.jacobian(of)(vector))
    return np.asarray(vector), np.asarray(of(vector)), jacobian.reshape(len(x), -1, vector.size)


def softmax(f):
    e = np.exp(f - f.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def weights_of(name, f):
    if name == "classes":
        p = softmax(f)
        return p[..., None] * np.eye(P) - p[:, :, None] * p[:, None]
    return np.broadcast_to(np.eye(P) / NOISE, (N, P, P))


def kron_dense(net, weight):
    """KFAC of a network with one hidden layer of tanh, by hand."""
    w1, b1, w2 = (
        np.asarray(a) for a in (net.layers[0].weight, net.layers[0].bias, net.layers[1].weight)
    )
    hidden = np.tanh(X @ w1.T + b1)
    ones = np.ones((N, 1))
    inputs = np.hstack([X, ones]), np.hstack([hidden, ones])
    to_first = w2 * (1 - hidden**2)[:, None]  # (n, p, h)
    outputs = np.einsum("nph,npq,nqk->hk", to_first, weight, to_first), weight.sum(0)
    blocks = []
    for a, b in zip(inputs, outputs, strict=True):
        block = np.kron(b, a.T @ a / N)
        o, i = len(b), a.shape[1]
        places = np.arange(o * i).reshape(o, i)
        order = np.concatenate([places[:, :-1].reshape(-1), places[:, -1]])
        blocks.append(block[np.ix_(order, order)])
    return blocks


def oracle(structure, name):
    """Moments of the function at new inputs, covariances and the evidence; NumPy alone."""
    net = network()
    vector, f, jacobian = dense_pieces(net, X)
    _, mean, rows = dense_pieces(net, NEW)
    weight = weights_of(name, f)
    full = np.einsum("npi,npq,nqj->ij", jacobian, weight, jacobian)
    first = H * (D + 1)
    each = np.repeat(PRECISIONS, [first, vector.size - first])
    kept = np.arange(vector.size)
    if structure == "diag":
        full = np.diag(np.diag(full))
    elif structure == "kron":
        full = np.zeros_like(full)
        one, two = kron_dense(net, weight)
        full[:first, :first], full[first:, first:] = one, two
    elif structure == "last_layer":
        kept = kept[first:]
    elif structure == "subnetwork":
        kept = np.sort(np.argsort(np.diag(full) + each, kind="stable")[:KEPT])
    cut = np.ix_(kept, kept)
    precision = full[cut] + np.diag(each[kept])
    rows = rows[..., kept]
    covariance = np.einsum("mpi,ij,nqj->mpnq", rows, np.linalg.inv(precision), rows)
    if name == "classes":
        fit = np.log(softmax(f)[np.arange(N), LABELS]).sum()
    else:
        fit = stats.norm(f, np.sqrt(NOISE)).logpdf(TARGETS).sum()
    prior = 0.5 * (np.log(each[kept]).sum() - each[kept] @ vector[kept] ** 2)
    evidence = fit + prior - 0.5 * np.linalg.slogdet(precision)[1]
    return mean, covariance, evidence


STRUCTURES = ["full", "last_layer", "kron", "diag", "subnetwork"]
CASES = [(s, "classes") for s in STRUCTURES] + [("full", "normal"), ("kron", "normal")]


@pytest.mark.parametrize("structure, name", CASES)
def test_it_is_the_dense_gaussian(structure, name):
    mean, covariance, evidence = oracle(structure, name)
    y = LABELS if name == "classes" else TARGETS
    options = {"subnetwork": KEPT} if structure == "subnetwork" else {}
    precisions = PRECISIONS[1:] if structure == "last_layer" else PRECISIONS
    precisions_too = [(jnp.float32, 2e-3)] if structure in ("full", "kron") else []
    for dtype, rtol in ((jnp.float64, 1e-9), *precisions_too):
        net = network(dtype)
        target = jnp.asarray(y) if name == "classes" else jnp.asarray(y, dtype)
        likelihood = (
            classes if name == "classes" else likelihoods.Gaussian(jnp.asarray(NOISE, dtype))
        )

        def run(precision, net=net, target=target, likelihood=likelihood, dtype=dtype):
            found = bnn.laplace(
                net, jnp.asarray(X, dtype), target, likelihood, structure=structure,
                prior_precision=precision, chunk_size=4, **options,
            )  # fmt: skip
            new = jnp.asarray(NEW, dtype)
            return found.log_evidence(), (found.output_moments(new), found.covariance(new))

        @jax.jit
        def both(precision, run=run, dtype=dtype):
            if dtype == jnp.float32:
                return run(precision), precision
            return jax.value_and_grad(run, has_aux=True)(precision)

        (value, (moments, between)), slope = both(jnp.asarray(precisions, dtype))
        scale = np.abs(covariance).max()
        same = np.einsum("mpmq->mpq", covariance)
        np.testing.assert_allclose(moments[0], mean, rtol=rtol, atol=rtol)
        np.testing.assert_allclose(moments[1], same, atol=rtol * scale)
        want = np.einsum("mpnp->pmn", covariance)
        np.testing.assert_allclose(between, want, atol=rtol * scale)
        np.testing.assert_allclose(value, evidence, rtol=rtol)
        assert moments[1].dtype == value.dtype == dtype
        if dtype == jnp.float64:
            step = 1e-5 * precisions
            several = jax.jit(jax.vmap(lambda p: run(p)[0]))
            ends = several(jnp.stack([precisions + step, precisions - step]))
            np.testing.assert_allclose(slope @ step, (ends[0] - ends[1]) / 2, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("structure, rows", [("full", 20), ("full", 3), ("last_layer", 20)])
def test_a_linear_network_is_bayesian_linear_regression(structure, rows):
    # away from the mode, with the mean of the linear model
    x, y, new = RNG.normal(size=(rows, 3)), RNG.normal(size=rows), RNG.normal(size=(4, 3))
    design, test = (np.hstack([a, np.ones((len(a), 1))]) for a in (x, new))
    precision = design.T @ design / NOISE + 2 * np.eye(4)
    weights = np.linalg.solve(precision, design.T @ y / NOISE)
    covariance = test @ np.linalg.inv(precision) @ test.T
    marginal = NOISE * np.eye(rows) + design @ design.T / 2
    evidence = stats.multivariate_normal(np.zeros(rows), marginal).logpdf(y)
    linear = eqx.nn.Linear(3, "scalar", key=jax.random.key(0))

    @jax.jit
    def run(x, y, new):
        found = bnn.laplace(
            linear, x, y, likelihoods.Gaussian(NOISE), structure=structure, prior_precision=2.0,
            mean="linear",
        )  # fmt: skip
        observed = found.predict(new)
        draws = found.sample(jax.random.key(0), new, (4000,))
        answers = found.moments(new), found.covariance(new), found.log_evidence()
        return answers, observed, draws, (found.mode_distance, found.result)

    (moments, between, value), observed, draws, (distance, result) = run(x, y, new)
    np.testing.assert_allclose(moments[0], test @ weights, atol=1e-10)
    np.testing.assert_allclose(moments[1], np.diag(covariance), rtol=1e-10)
    np.testing.assert_allclose(between, covariance, atol=1e-10)
    np.testing.assert_allclose(value, evidence, rtol=1e-10)
    np.testing.assert_allclose(observed.variance, np.diag(covariance) + NOISE, rtol=1e-10)
    spread = np.asarray(draws).var(axis=0) / np.diag(covariance)
    assert np.all(np.abs(spread - 1) < 5 * np.sqrt(2 / 4000))
    assert distance > 0.1 and result != RESULTS.successful


@pytest.mark.parametrize("per_layer", [False, True])
@pytest.mark.parametrize("structure, rows", [("full", 30), ("full", 6), ("kron", 30), ("diag", 30)])
def test_tuning_finds_the_largest_evidence(structure, rows, per_layer):
    x, y = RNG.normal(size=(rows, D)), RNG.normal(size=rows)
    net = network(out="scalar")
    found = bnn.laplace(net, x, y, likelihoods.Gaussian(NOISE), structure=structure)
    tuned = bnn.tune_laplace(found, per_layer=per_layer, rtol=1e-8)
    best = tuned.posterior
    assert tuned.minimum.converged
    np.testing.assert_allclose(best.log_evidence(), -tuned.minimum.objective, rtol=1e-9)
    if not per_layer:
        assert best.prior_precision[0] == best.prior_precision[1]

    @jax.jit
    def slopes(logs):
        def evidence(logs):
            precision, noise_var = jnp.exp(logs[:-1]), jnp.exp(logs[-1])
            return best.at(prior_precision=precision, noise_var=noise_var).log_evidence()

        return jax.grad(evidence)(logs)

    noise_var = best.likelihood.noise_var
    logs = jnp.log(jnp.append(best.prior_precision, noise_var))
    slope = np.asarray(slopes(logs))
    slope = slope if per_layer else np.array([slope[:-1].sum(), slope[-1]])
    assert np.abs(slope).max() < 1e-3 * (1 + abs(float(best.log_evidence())))


@pytest.mark.parametrize("mean", ["network", "linear"])
def test_calibration_takes_the_factor_of_the_largest_held_out_density(mean):
    # of a linear network, whose predictive distributions are known for every prior
    x, y = RNG.normal(size=(13, 3)), RNG.normal(size=13)
    new, wanted = RNG.normal(size=(7, 3)), 2 * RNG.normal(size=7)
    design, test = (np.hstack([a, np.ones((len(a), 1))]) for a in (x, new))
    linear = eqx.nn.Linear(3, "scalar", key=jax.random.key(0))
    start = np.append(np.asarray(linear.weight)[0], np.asarray(linear.bias))
    factors, scores = np.logspace(-3, 3, 11), []
    for factor in factors:
        precision = design.T @ design / NOISE + 0.7 * factor * np.eye(4)
        weights = np.linalg.solve(precision, design.T @ y / NOISE) if mean == "linear" else start
        variance = np.einsum("ni,ij,nj->n", test, np.linalg.inv(precision), test) + NOISE
        scores.append(stats.norm(test @ weights, np.sqrt(variance)).logpdf(wanted).mean())
    likelihood = likelihoods.Gaussian(NOISE)
    found = bnn.laplace(linear, x, y, likelihood, prior_precision=0.7, mean=mean)
    for run in (bnn.calibrate_laplace, jax.jit(bnn.calibrate_laplace)):
        best = run(found, new, wanted, factors=factors)
        np.testing.assert_allclose(best.log_predictive_prob, scores, rtol=1e-9)
        precision = best.posterior.prior_precision
        np.testing.assert_allclose(precision, 0.7 * factors[np.argmax(scores)], rtol=1e-12)
        density = best.posterior.log_predictive_prob(new, wanted)
        np.testing.assert_allclose(np.mean(density), max(scores), rtol=1e-9)


def test_calibration_of_classes_is_no_worse_than_the_network():
    net, dtype = network(jnp.float32), jnp.float32
    found = bnn.laplace(net, jnp.asarray(X, dtype), LABELS, classes, structure="kron")
    new = jnp.asarray(NEW, dtype)
    best = bnn.calibrate_laplace(found, new, LABELS[:5])
    alone = np.log(softmax(np.asarray(jax.vmap(net)(new), float)))[np.arange(5), LABELS[:5]].mean()
    assert best.log_predictive_prob.max() > alone - 1e-5
    np.testing.assert_allclose(best.log_predictive_prob[-1], alone, rtol=1e-4)
    assert best.log_predictive_prob.dtype == best.factors.dtype == dtype


def test_predictions_of_classes_are_averages_over_draws():
    found = bnn.laplace(network(), X, LABELS, classes, structure="kron", prior_precision=0.5)

    @jax.jit
    def run(found, new):
        draws = found.sample(jax.random.key(0), new, (20_000,))
        observed = found.predict(new)
        probs = [observed.probs, found.predict(new, method="probit").probs]
        scores = found.log_predictive_prob(new, jnp.zeros(len(new), int))
        return probs, jax.nn.softmax(draws), scores

    (nodes, probit), draws, scores = run(found, jnp.asarray(NEW))
    want, error = np.mean(draws, axis=0), np.std(draws, axis=0) / 20_000**0.5
    np.testing.assert_allclose(np.sum(nodes, axis=1), 1, rtol=1e-9)
    # The nodes' own error is that of 256 points spread evenly in three dimensions.
    assert np.all(np.abs(nodes - want) < 5 * error + 5e-3)
    assert np.all(np.abs(probit - want) < 0.05)
    np.testing.assert_allclose(scores, np.log(nodes[:, 0]), rtol=1e-9)


def test_networks_drawn_have_the_weights_of_the_gaussian():
    found = bnn.laplace(network(), X, LABELS, classes, structure="subnetwork", subnetwork=[1, 4])
    drawn = found.sample_networks(jax.random.key(0), 2000)
    weights = drawn.members.tree.layers[0].weight.reshape(2000, -1)
    spread = np.asarray(weights).var(axis=0)
    want = np.diag(found.weights.core.covariance())
    assert np.all(np.abs(spread[[1, 4]] / want - 1) < 5 * (2 / 2000) ** 0.5)
    assert np.all(spread[[0, 2, 3]] < 1e-20)
    assert drawn.predict(NEW).batch_shape == (5,)


@pytest.mark.errors
def test_bad_input_is_named():
    net = network()
    call = lambda **o: bnn.laplace(net, X, o.pop("y", LABELS), o.pop("of", classes), **o)  # noqa: E731
    with pytest.raises(ValueError, match='structure must be one of "full", "last_layer"'):
        call(structure="block")
    with pytest.raises(ValueError, match='mean must be one of "network", "linear"'):
        call(mean="mode")
    with pytest.raises(ValueError, match="prior_precision must be positive and finite"):
        call(prior_precision=0.0)
    with pytest.raises(ValueError, match=r"one for each of the layers layers\[0\], layers\[1\]"):
        call(prior_precision=np.ones(3))
    with pytest.raises(ValueError, match="laplace: y holds values outside of the support"):
        call(y=LABELS + P)
    with pytest.raises(ValueError, match="x holds NaN"):
        bnn.laplace(net, np.nan * X, LABELS, classes)
    with pytest.raises(ValueError, match="no second derivatives.*fisher"):
        call(y=TARGETS, of=lambda f: dist.Laplace(f, 1.0))
    with pytest.raises(ValueError, match="float32 or float64, got bfloat16.*cast it"):
        bnn.laplace(network(jnp.bfloat16), X, LABELS, classes, structure="kron")
    with pytest.raises(ValueError, match='structure="subnetwork" needs subnetwork='):
        call(structure="subnetwork")
    with pytest.raises(ValueError, match="more than the 27 random weights"):
        call(structure="subnetwork", subnetwork=28)
    with pytest.raises(ValueError, match="distinct places"):
        call(structure="subnetwork", subnetwork=[1, 1])
    with pytest.raises(ValueError, match='subnetwork is for structure="subnetwork"'):
        call(subnetwork=3)
    with pytest.raises(ValueError, match="has no eqx.nn.Linear with random leaves"):
        bnn.laplace(eqx.nn.LayerNorm(D), X, X, likelihoods.Gaussian(1.0), structure="last_layer")
    with pytest.raises(RuntimeError, match="laplace: not converged"):
        call(throw=True)
    with pytest.raises(ValueError, match='method must be "nodes" or "probit"'):
        call().predict(NEW, method="draws")
    with pytest.raises(ValueError, match="noise_var is known for likelihoods.Gaussian only"):
        call().at(noise_var=1.0)
    with pytest.raises(ValueError, match="calibrate_laplace: takes a LaplacePosterior, got int"):
        bnn.calibrate_laplace(3, X, LABELS)
    with pytest.raises(ValueError, match="factors must be positive and finite"):
        bnn.calibrate_laplace(call(), X, LABELS, factors=[0.0, 1.0])
    with pytest.raises(ValueError, match="y holds values outside of the support"):
        bnn.calibrate_laplace(call(), X, LABELS + P)
