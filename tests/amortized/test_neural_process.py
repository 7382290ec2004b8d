"""Neural processes: symmetries, densities and objectives against others written out."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
import scipy.stats
from scipy.special import logsumexp

import bayesjx
from bayesjx import amortized
from bayesjx._core import from_real, unconstrained
from bayesjx.amortized import BarHead, CategoricalHead, NormalHead, Task
from bayesjx.amortized._bootstrap_process import _resampled

D, N, C, M, S = 2, 7, 5, 3, 3  # inputs, rows, those of the context, queries, draws
KEY = jax.random.key(5)
SIZES = {"CNP": {}, "NP": {}, "BNP": {}, "ConvCNP": {"points_per_unit": 4, "span": 3.0}}
# Every part of a network once, in one precision or the other.
SINGLE, DOUBLE = ("ANP", "BNP", "TNPA"), ("CNP", "ConvCNP", "MPANP", "TNPD", "TNPND")


def built(name, seed=1, **options):
    """A small network with random weights everywhere, also in maps that start at zero."""
    own = SIZES.get(name, {"heads": 2}) | ({"num_layers": 1} if name.endswith("ANP") else {})
    own |= {"num_pseudo": 3} if name.startswith("MP") else {}
    sizes = {"width": 4, "depth": 2, "key": jax.random.key(1)} | own | options
    made = getattr(amortized, name)(1 if name == "ConvCNP" else D, **sizes)
    return moved(made, 0.4, seed)


def moved(net, step, seed=1):
    rng = np.random.default_rng(seed)
    free = jax.tree.map(lambda v: v + step * rng.normal(size=v.shape), unconstrained(net))
    return eqx.combine(from_real(free), net)


def data(name="", seed=0):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, size=(N, 1 if name == "ConvCNP" else D))
    return x, rng.normal(size=N), rng.uniform(-1, 1, size=(M, x.shape[1])), rng.normal(size=M)


def normal_parts(outputs):
    outputs = np.asarray(outputs)
    return outputs[..., 0], 0.1 + np.log1p(np.exp(outputs[..., 1]))


def predictions(net, x, y, mask, x_new, y_new):
    """Of many data sets with the same noise: marginal means and log densities, joint ones."""

    def one(x, y, mask, x_new, y_new):
        cache = net.encode(KEY, x, y, mask, S)
        each = net.marginals(x_new, cache)
        counted = jnp.arange(M) < jnp.array([[M], [1]])
        joint, first = (net.log_prob(x_new, y_new, m, cache) for m in counted)
        outputs = net.outputs(x_new, cache) if hasattr(net, "outputs") else x_new[0]
        return each.mean, each.log_prob(y_new), joint, first, outputs

    return jax.vmap(one)(x, y, mask, x_new, y_new)


@pytest.mark.parametrize("name", [*SINGLE, *DOUBLE])
def test_predictions_see_the_context_and_nothing_else(name):
    net, dtype = built(name), jnp.float32 if name in SINGLE else jnp.float64
    net = jax.tree.map(lambda v: v.astype(dtype), net)
    x, y, x_new, y_new = (v.astype(dtype) for v in data(name))
    mask = np.arange(N) < C
    base = (x, y, mask, x_new, y_new)
    order = np.array([2, 4, 0, 3, 1, 5, 6])
    rows = [
        base,
        (x[order], y[order], mask, x_new, y_new),
        (np.where(mask[:, None], x, -0.9), np.where(mask, y, 1e2), mask, x_new, y_new),
        (x, y, mask & False, x_new, y_new),
        (x, y + 5, mask & False, x_new, y_new),
        (x, y, mask, x_new, np.where(np.arange(M) < 1, y_new, 1e2)),
        (x, y, mask, np.where(np.arange(M)[:, None] < 1, x_new, -1.4), y_new),
    ]
    batch = [jnp.asarray(np.stack(part), part[0].dtype) for part in zip(*rows, strict=True)]
    mean, each, joint, first, outputs = eqx.filter_jit(predictions)(net, *batch)
    single = {"rtol": 1e-3, "atol": 1e-4}
    tol = single if name in SINGLE else {"rtol": 1e-8, "atol": 1e-9}
    assert {v.dtype for v in (mean, each, joint, first, outputs)} == {jnp.dtype(dtype)}
    if not name.startswith("B"):  # a bootstrap draws other rows
        np.testing.assert_allclose(mean[1], mean[0], **tol)
        np.testing.assert_allclose(joint[1], joint[0], **tol)
    np.testing.assert_allclose(mean[2], mean[0], **tol)  # targets are rows that do not count
    np.testing.assert_allclose(joint[2], joint[0], **tol)
    assert np.all(np.isfinite(mean)) and np.all(np.isfinite(joint))
    np.testing.assert_allclose(mean[4], mean[3], **tol)
    assert np.max(np.abs(mean[3] - mean[0])) > 1e-3
    np.testing.assert_allclose(mean[5], mean[0], **tol)
    np.testing.assert_allclose(first[5], first[0], **tol)
    np.testing.assert_allclose(mean[6, 0], mean[0, 0], **tol)
    np.testing.assert_allclose(first, each[:, 0], **tol)
    if outputs.ndim == 4:  # a mixture over draws, of all targets at once
        log_density = scipy.stats.norm.logpdf(batch[4][:, None], *normal_parts(outputs))
        log_draws = np.log(outputs.shape[1])
        np.testing.assert_allclose(each, logsumexp(log_density, 1) - log_draws, **tol)
        np.testing.assert_allclose(joint, logsumexp(log_density.sum(-1), 1) - log_draws, **tol)
        np.testing.assert_allclose(mean, normal_parts(outputs)[0].mean(axis=1), **tol)
        assert net.stochastic == (outputs.shape[1] == S)


@pytest.mark.parametrize("name", ["CNP", "CANP"])
def test_the_context_reaches_predictions_before_training(name):
    """Else training starts on a plateau, on which short ones end."""
    net = getattr(amortized, name)(D, key=jax.random.key(1))
    rng = np.random.default_rng(0)
    y, x_new = rng.normal(size=(40, N)), rng.uniform(-1, 1, size=(M, D))

    @eqx.filter_jit
    def run(net, x, y, x_new):
        mask = jnp.ones(N, bool)
        return jax.vmap(lambda v: net.outputs(x_new, net.encode(None, x, v, mask, 1)))(y)

    outputs = run(net, rng.uniform(-1, 1, size=(N, D)), y, x_new)
    assert np.all(np.std(outputs, axis=0) > 0.02) and np.all(np.std(outputs, axis=0) < 2)


def objective_of(net, x, y, context, ramp):
    targets = jnp.ones(N, bool)
    return net.objective(KEY, x, y, jnp.arange(N) < context, targets, S, ramp)


@pytest.mark.parametrize("name", ["ConvCNP", "MPANP", "TNPND"])
def test_gradients_of_objectives_are_those_of_differences(name):
    net = built(name)
    x, y, _, _ = data(name)
    loss = eqx.filter_jit(eqx.filter_value_and_grad(objective_of))
    ends = [loss(moved(net, step), x, y, C, jnp.asarray(0.3)) for step in (0, 1e-5, -1e-5)]
    rng = np.random.default_rng(1)
    way = jax.tree.map(lambda v: rng.normal(size=v.shape), unconstrained(net))
    gradient = ends[0][1]
    if name == "ConvCNP":  # its length scales move as logarithms
        gradient = eqx.tree_at(
            lambda n: n.lengthscales, gradient, gradient.lengthscales * net.lengthscales
        )
    parts = jax.tree.map(
        lambda d, g: 0 if d is None else jnp.sum(d * g), way, gradient, is_leaf=lambda d: d is None
    )
    slope = sum(jax.tree.leaves(parts))
    np.testing.assert_allclose(slope, (ends[1][0] - ends[2][0]) / 2e-5, rtol=1e-5)


def affine(layer, x):
    return x @ np.asarray(layer.linear.weight).T + np.asarray(layer.linear.bias)


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def deep(net, x):
    for layer in net.layers[:-1]:
        x = gelu(affine(layer, x))
    return affine(net.layers[-1], x)


def decoded(net, x, read, shift=0.0):
    read = np.broadcast_to(read, (len(x), len(read)))
    return deep(net.rest, gelu(affine(net.first, np.hstack([x, read])) + shift))


def norm(layer, x):
    centred = x - x.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
    return scaled * np.asarray(layer.weight) + np.asarray(layer.bias)


def attention(layer, tokens, to):
    """One query and one head at a time, the learned key and value in front of the others."""
    width, heads = tokens.shape[1], layer.heads
    keys, values = np.split(affine(layer.pair, to), 2, axis=1)
    queries, out = affine(layer.query, tokens), np.zeros(tokens.shape)
    for h in range(heads):
        part = slice(h * (width // heads), (h + 1) * (width // heads))
        keys_h = np.vstack([np.asarray(layer.empty)[0, h], keys[:, part]])
        values_h = np.vstack([np.asarray(layer.empty)[1, h], values[:, part]])
        for i in range(len(tokens)):
            score = keys_h @ queries[i, part] / np.sqrt(width // heads)
            weight = np.exp(score - score.max())
            out[i, part] = weight / weight.sum() @ values_h
    return affine(layer.output, out)


def block(net, tokens, to):
    tokens = norm(net.norms[0], tokens + attention(net.attention, tokens, to))
    return norm(net.norms[1], tokens + np.maximum(affine(net.feed, tokens), 0))


def log_density(outputs, y):
    return scipy.stats.norm.logpdf(y, *normal_parts(outputs)).sum()


def test_the_three_losses_of_a_martingale_process_are_those_of_a_loop():
    net = built("MPNP")
    x, y, _, _ = data()
    got = eqx.filter_jit(objective_of)(net, x, y, C, jnp.asarray(0.3))
    rows = deep(net.path.encoder, np.column_stack([x, y])[:C])
    points = np.asarray(jax.random.normal(KEY, (S, 3, rows.shape[1])))
    marginal, pseudo = [], []
    for k in range(S):
        spread = block(net.generator.context_block, rows, points[k])
        made = block(net.generator.points_block, points[k], spread)
        both = np.vstack([rows, made]).mean(axis=0)
        marginal.append(log_density(decoded(net.decoder, x, both), y))
        pseudo.append(log_density(decoded(net.decoder, x, made.mean(axis=0)), y))
    amortised = log_density(decoded(net.decoder, x, rows.mean(axis=0)), y)
    want = logsumexp(marginal) - np.log(S) + amortised + 0.3 * np.mean(pseudo)
    np.testing.assert_allclose(got, want / N, rtol=1e-9)


def test_bootstraps_are_those_of_a_loop_and_that_of_one_row_is_itself():
    net = built("BNP")
    x, y, x_new, _ = data()
    mask = jnp.array([True, False, True, True, False, True, True])

    @eqx.filter_jit
    def run(net, x, y, x_new):
        keys = jax.random.split(KEY)
        rows, residuals = (_resampled(k, mask, S) for k in keys)
        many = _resampled(KEY, mask, 2000)
        one = net.encode(KEY, x, y, jnp.arange(N) == 3, S)
        same = net.encode_with(jnp.broadcast_to(y, (S, N)), x, y, mask)
        pairs = [(net.outputs(x_new, c), net.base(x_new, c)) for c in (one, same)]
        return rows, residuals, many, net.bootstrap(KEY, x, y, mask, S), pairs

    rows, residuals, many, targets, pairs = run(net, x, y, x_new)
    counted = np.flatnonzero(mask)
    for k in range(S):
        paired = np.column_stack([x, y])[np.asarray(rows[k])[counted]]
        mean = deep(net.path.encoder, paired).mean(axis=0)
        loc, scale = normal_parts(decoded(net.decoder, x, mean))
        rest = ((y - loc) / scale)[np.asarray(residuals[k])]
        np.testing.assert_allclose(targets[k, counted], (loc + scale * rest)[counted], rtol=1e-9)
    shares = np.bincount(np.asarray(many).ravel(), minlength=N) / many.size
    want = np.asarray(mask) / len(counted)
    assert np.all(np.abs(shares - want) <= 5 * np.sqrt(want / many.size))
    for outputs, base in pairs:
        np.testing.assert_allclose(outputs, np.broadcast_to(base, outputs.shape), rtol=1e-9)


def test_a_latent_process_has_its_bound_and_a_deterministic_twin():
    net = built("NP", latent_scales=(0.0, 1e-10))
    wide = built("NP")
    x, y, x_new, _ = data()
    context = jnp.arange(N) < C

    @eqx.filter_jit
    def run(net, wide, x, y, x_new):
        loc, _ = net.latent(x, y, context)
        weight = net.decoder.first.linear.weight
        size = weight.shape[1] - loc.shape[0]
        twin = amortized.CNP(D, key=KEY, width=4, depth=2)
        twin = eqx.tree_at(lambda t: (t.path, t.decoder), twin, (net.path, net.decoder))
        first = lambda t: (t.decoder.first.linear.weight, t.decoder.first.linear.bias)  # noqa: E731
        bias = net.decoder.first.linear.bias + weight[:, size:] @ loc
        twin = eqx.tree_at(first, twin, (weight[:, :size], bias))
        pair = [n.outputs(x_new, n.encode(KEY, x, y, context, S)) for n in (net, twin)]
        posterior, prior = wide.latent(x, y, context | True), wide.latent(x, y, context)
        noise = jax.random.normal(KEY, (S, len(loc)))
        z = posterior[0] + posterior[1] * noise
        outputs = wide.outputs(x, (wide.path.tokens(x, y, context), context, z))
        bound = objective_of(wide, x, y, C, 1.0)
        return pair, posterior, prior, outputs, bound

    (drawn, twin), posterior, prior, outputs, bound = run(net, wide, x, y, x_new)
    np.testing.assert_allclose(drawn, np.broadcast_to(twin, drawn.shape), rtol=1e-7)
    divergence = dist.kl_divergence(dist.Normal(*posterior), dist.Normal(*prior)).sum()
    expected = np.mean([log_density(row, y) for row in outputs])
    np.testing.assert_allclose(bound, (expected - divergence) / N, rtol=1e-9)
    assert np.all(posterior[1] > 0.1) and np.all(posterior[1] < 1)


def test_a_convolutional_process_shifts_with_its_data():
    net = built("ConvCNP", depth=3)
    x, y, x_new, _ = data("ConvCNP")
    mask = np.arange(N) < C

    @eqx.filter_jit
    def run(net, shifts, x, y, x_new):
        each = lambda s, new: net.outputs(new + s, (x + s, y, jnp.asarray(mask)))[0]  # noqa: E731
        return jax.vmap(each)(shifts, x_new)

    # The last row has a query far from all others, which moves the window.
    news = np.stack([x_new, x_new, x_new, np.vstack([x_new[:2], [[-1.7]]])])
    outputs = run(net, jnp.array([0.0, 3 / 4, -50.0, 0.0]), x, y, news)
    np.testing.assert_allclose(outputs[1], outputs[0], rtol=1e-8)
    np.testing.assert_allclose(outputs[2], outputs[0], rtol=1e-8)
    np.testing.assert_allclose(outputs[3, :2], outputs[0, :2], rtol=1e-8)


def test_joint_densities_of_transformers():
    """Causal ones see targets before a target; normal ones are marginally consistent."""
    causal, normal = built("TNPA"), built("TNPND", rank=2)
    x, y, x_new, y_new = data()
    other = np.array([y_new[0], y_new[1] + 1, y_new[2]])

    @eqx.filter_jit
    def run(causal, normal, x, y, x_new, y_new, other):
        cache = causal.encode(None, x, y, jnp.ones(N, bool), 1)
        chains = [causal.chain(x_new, v, jnp.ones(M, bool), cache) for v in (y_new, other)]
        dense = causal.log_prob(x_new, y_new, jnp.ones(M, bool), cache)
        cache = normal.encode(None, x, y, jnp.ones(N, bool), 1)
        masks = jnp.array([[True, True, True], [True, False, True]])
        scores = [normal.log_prob(x_new, y_new, m, cache) for m in masks]
        joint = normal.joint(x_new, cache)
        each = normal.marginals(x_new, cache)
        return chains, dense, scores, (joint.mean, joint.covariance_matrix), each.variance

    (before, after), dense, scores, (mean, cov), variance = run(
        causal, normal, x, y, x_new, y_new, other
    )
    np.testing.assert_allclose(after[:2], before[:2], rtol=1e-12)
    assert np.max(np.abs(after[2] - before[2])) > 1e-3
    joint = causal.condition(x, y).joint(x_new)
    np.testing.assert_allclose(joint.log_prob(y_new), dense, rtol=1e-9)
    mean, cov = np.asarray(mean), np.asarray(cov)
    np.testing.assert_allclose(np.diag(cov), variance, rtol=1e-10)
    assert np.max(np.abs(cov - np.diag(np.diag(cov)))) > 1e-3
    for keep, score in zip(([0, 1, 2], [0, 2]), scores, strict=True):
        want = scipy.stats.multivariate_normal.logpdf(
            y_new[keep], mean[keep], cov[np.ix_(keep, keep)]
        )
        np.testing.assert_allclose(score, want, rtol=1e-9)


def test_targets_are_fed_back_in_as_context():
    net = built("CNP", head=NormalHead(0.3))
    x, y, x_new, y_new = data()
    joint = amortized.autoregressive(net, x, y, x_new)
    want = 0.0
    for i in range(M):
        rows = np.vstack([x, x_new[:i]]), np.concatenate([y, y_new[:i]])
        mean = deep(net.path.encoder, np.column_stack(rows)).mean(axis=0)
        out = decoded(net.decoder, x_new[i : i + 1], mean)[0]
        want += scipy.stats.norm.logpdf(y_new[i], out[0], 0.3 + np.log1p(np.exp(out[1])))
    np.testing.assert_allclose(joint.log_prob(np.stack([y_new, y_new])), [want] * 2, rtol=1e-9)
    draws = joint.sample(jax.random.key(2), (40, 20))
    assert draws.shape == (40, 20, M) and draws.dtype == jnp.float64

    @jax.jit
    def scaled(joint, draws):
        def one(y):
            each = [joint.conditional(i, y) for i in range(M)]
            return jnp.stack([((y[i] - d.mean) / d.scale)[0] for i, d in enumerate(each)])

        return jax.vmap(one)(draws)

    residuals = np.asarray(scaled(joint, draws.reshape(-1, M)))
    assert scipy.stats.kstest(residuals.ravel(), "norm").pvalue > 1e-3


def test_mixtures_are_numpyro_distributions():
    net = built("NP", head=BarHead(np.linspace(-3, 3, 6)))
    x, y, x_new, y_new = data()
    posterior = net.condition(x, y, key=KEY, num_samples=S)

    @jax.jit
    def run(posterior, x_new, y_new):
        each, joint = posterior.predict(x_new), posterior.joint(x_new)
        assert isinstance(each, dist.MixtureSameFamily) and each.batch_shape == (M,)
        assert joint.event_shape == (M,) and joint.batch_shape == ()
        scores = each.log_prob(y_new), posterior.log_predictive_prob(x_new, y_new)
        dense = posterior.network.log_prob(x_new, y_new, jnp.ones(M, bool), posterior.cache)
        draws = posterior.sample(KEY, x_new, (2000,))
        return draws, each.mean, scores, joint.log_prob(y_new), dense

    draws, mean, scores, joint, dense = run(posterior, x_new, y_new)
    error = 5 * np.std(draws, axis=0) / np.sqrt(len(draws))
    assert np.all(np.abs(np.mean(draws, axis=0) - mean) < error)
    np.testing.assert_allclose(*scores, rtol=1e-12)
    np.testing.assert_allclose(joint, dense, rtol=1e-9)


LENGTHSCALE, NOISE = 0.5, 0.3


def covariance(x):
    gram = jnp.exp(-0.5 * ((x - jnp.swapaxes(x, -1, -2)) / LENGTHSCALE) ** 2)
    return gram + NOISE**2 * jnp.eye(x.shape[-2], dtype=x.dtype)


def gaussian_process(key):
    keys = jax.random.split(key)
    x = jax.random.uniform(keys[0], (11, 1), minval=-1.0)
    noise = jax.random.normal(keys[1], (11,))
    return Task(x, jnp.linalg.cholesky(covariance(x)) @ noise)


def test_nobody_exceeds_the_exact_gaussian_process():
    net = amortized.CNP(1, key=KEY, width=16, depth=2)
    tasks = jax.jit(jax.vmap(gaussian_process))(jax.random.split(jax.random.key(9), 300))
    count = np.arange(300) % 6 + 2
    whole = np.asarray(covariance(tasks.x))
    exact = np.zeros(300)
    for i, c in enumerate(count):
        joint, part = scipy.stats.multivariate_normal, whole[i, :c, :c]
        y = np.asarray(tasks.y[i])
        exact[i] = joint.logpdf(y, cov=whole[i]) - joint.logpdf(y[:c], cov=part)
    exact /= 11 - count
    algorithm = amortized.neural_process_training(
        net, gaussian_process, optax.adam(5e-3), batch_size=16, min_context=1, min_targets=1
    )
    fit = bayesjx.fit(jax.random.key(1), algorithm, algorithm.init(), 200)
    assert int(fit.state.natural) == 200
    excess = []
    for one in (net, bayesjx.trained(net, fit.state)):
        scores = amortized.log_likelihoods(KEY, one, tasks, num_context=count)
        excess.append(exact - np.asarray(scores.target))
        error = np.std(excess[-1], ddof=1) / np.sqrt(300)
        assert np.mean(excess[-1]) > 3 * error  # it factorises: worse, not only not better
        np.testing.assert_allclose(scores.mean.target, np.mean(scores.target), rtol=1e-12)
        np.testing.assert_allclose(
            scores.standard_error.target, scipy.stats.sem(scores.target), rtol=1e-9
        )
    assert np.mean(excess[1]) < np.mean(excess[0]) - 0.1
    # By hand, from predictions of single targets.
    x, y, c = tasks.x[0], tasks.y[0], count[0]
    posterior = bayesjx.trained(net, fit.state).condition(x[:c], y[:c])
    each = posterior.predict(x).log_prob(y)
    np.testing.assert_allclose(scores.context[0], np.mean(each[:c]), rtol=1e-9)
    np.testing.assert_allclose(scores.target[0], np.mean(each[c:]), rtol=1e-9)


def noise(key):
    return Task(jax.random.uniform(key, (11, 1)), jax.random.normal(key, (11,)))


@pytest.mark.parametrize("include", [True, False])
def test_steps_maximise_the_objective_of_the_network(include):
    """The pseudo term is let in; rows of the context are targets, or not."""
    net = moved(amortized.MPNP(1, key=KEY, width=4, depth=2, heads=2, num_pseudo=2), 0.4)
    algorithm = amortized.neural_process_training(
        net, noise, optax.sgd(0.0), batch_size=5, include_context=include, num_samples=S,
        ramp_steps=2,
    )  # fmt: skip
    loss, key = algorithm.step.parts[0], jax.random.key(3)
    keys = jax.random.split(key, 3)
    size = int(jax.random.randint(keys[1], (), 3, 9))

    @jax.jit
    def run(net):
        found = jax.vmap(lambda count: loss(key, net, count))(jnp.arange(4))
        tasks = jax.vmap(noise)(jax.random.split(keys[0], 5))
        context = jnp.broadcast_to(jnp.arange(11) < size, (5, 11))
        targets = context | True if include else ~context
        parts = tasks.x, tasks.y, context, targets, S
        ramps = jnp.array([0.0, 0.5, 1.0, 1.0])
        return found, jax.vmap(lambda r: jnp.mean(net.objective(keys[2], *parts, r)))(ramps)

    (value, objective, count), want = run(net)
    np.testing.assert_allclose(objective, want, rtol=1e-9)
    np.testing.assert_array_equal(value, -objective)
    np.testing.assert_array_equal(count, [1, 2, 3, 4])
    assert abs(want[1] - want[0]) > 1e-3


def labelled(key):
    return Task(jnp.zeros((9, D)), jax.random.randint(key, (9,), 0, 2))


@pytest.mark.errors
def test_bad_input_is_named():
    net, latent, conv = built("CNP"), built("NP"), built("ConvCNP")
    x, y, x_new, _ = data()
    adam, train = optax.adam(1e-3), amortized.neural_process_training
    far = np.array([[-1.0], [2.5]])
    tasks = Task(np.zeros((2, 5, D)), np.zeros((2, 5)))
    likelihoods = amortized.log_likelihoods
    for call, words in (
        (lambda: net.condition(np.hstack([x, x]), y), r"x must have shape \(n, d\) with 2 columns"),
        (lambda: net.condition(x, y[:3]), r"y must have shape \(7,\)"),
        (lambda: net.condition(x, y * np.nan), "y holds NaN"),
        (lambda: latent.condition(x, y), "key must be a PRNG key.* NP are mixtures"),
        (lambda: latent.condition(x, y, key=KEY, num_samples=0), "num_samples must be at least 1"),
        (lambda: net.condition(x, y).predict(x_new[:0]), "x has no rows"),
        (lambda: net.condition(x, y).predict(x_new[:, :1]), "2 columns"),
        (lambda: amortized.CNP(D, key=KEY, head=CategoricalHead(3)), "head must be of real"),
        (lambda: amortized.CNP(0, key=KEY), "num_inputs must be at least 1"),
        (lambda: amortized.CANP(D, key=KEY, width=6, heads=4), "heads must divide width"),
        (lambda: amortized.ANP(D, key=KEY, latent_scales=(1, 0.1)), "two increasing numbers"),
        (lambda: amortized.ConvCNP(2, key=KEY), "num_inputs must be 1"),
        (lambda: amortized.ConvCNP(key=KEY, span=-1.0), "span must be a positive"),
        (lambda: amortized.ConvCNP(key=KEY, taps=4), "taps must be odd"),
        (lambda: conv.condition(far[:1], y[:1]).predict(far[1:]), "span = 3"),
        (lambda: amortized.MPNP(D, key=KEY, num_pseudo=0), "num_pseudo must be at least 1"),
        (lambda: amortized.TNPND(D, key=KEY, rank=0), "rank must be at least 1"),
        (lambda: train(net, gaussian_process, adam), "1 inputs, the network 2"),
        (lambda: train(net, labelled, adam), "targets of the prior are int.*labels"),
        (lambda: train("net", labelled, adam), "network must be a neural process"),
        (lambda: train(conv, gaussian_process, adam, min_context=9), "at most the 11 rows"),
        (lambda: train(conv, gaussian_process, adam, num_samples=0), "num_samples must be at"),
        (lambda: train(conv, gaussian_process, adam, include_context=1), "True or False"),
        (lambda: likelihoods(KEY, net, tasks, num_context=5), "in 0, ..., 4"),
        (lambda: likelihoods(KEY, net, tasks, num_context=0.5), "num_context must be an integer"),
        (lambda: likelihoods(None, latent, tasks, num_context=2), "key must be a PRNG key"),
        (lambda: likelihoods(KEY, conv, tasks, num_context=2), r"\(b, n, 1\)"),
        (lambda: amortized.autoregressive(net, x, y, x_new[:0]), "x_new has no rows"),
        (lambda: amortized.autoregressive(latent, x, y, x_new), "key must be a PRNG key"),
        (
            lambda: amortized.autoregressive(latent, x, y, x_new, key=KEY, num_samples=0),
            "num_samples must be at least 1",
        ),
        (
            lambda: amortized.autoregressive(net, x, y, x_new).log_prob(y),
            r"value must have shape \(\*batch, 3\)",
        ),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            call()


@pytest.mark.parametrize("name", [*SINGLE, *DOUBLE, "NP", "MPNP"])
def test_networks_come_back_from_files(name, tmp_path):
    net = built(name, **({"head": BarHead(np.linspace(-3, 3, 6))} if name == "CNP" else {}))
    amortized.save_network(tmp_path / "x.network", net, {"steps": 3})
    found = amortized.load_network(tmp_path / "x.network", like=net)
    assert eqx.tree_equal(found, net)
    assert amortized.about_network(tmp_path / "x.network")["kind"] == name
    deeper = built(name, depth=3)
    with pytest.raises(amortized.NetworkError, match=f"holds a {name} of"):
        amortized.load_network(tmp_path / "x.network", like=deeper)


@pytest.mark.parametrize("name", ["MPNP", "TNPND"])
def test_predictions_of_a_rule_are_those_given_all_rows(name):
    net = built(name)
    x, y, x_new, y_new = data()
    key = KEY if net.stochastic else None
    rule = amortized.NeuralProcessPredictive(net, key=key, num_samples=S)

    @jax.jit
    def run(rule, x, y, x_new, y_new):
        state = rule.absorb(rule.init((x, y), 3), y_new[0], x_new[0])
        score, below = (f(state, y_new[1], x_new[1]) for f in (rule.log_prob, rule.cdf))
        draws = jax.vmap(lambda k: rule.sample(k, state, x_new[1]))(jax.random.split(KEY, 500))
        cache = net.encode(KEY, *state.rows, jnp.arange(N + 3) < N + 1, S)
        return score, below, draws, net.marginals(x_new[1:2], cache)

    score, below, draws, exact = run(rule, x, y, x_new, y_new)
    np.testing.assert_allclose(score, exact.log_prob(y_new[1])[0], rtol=1e-9)
    np.testing.assert_allclose(below, exact.cdf(y_new[1])[0], rtol=1e-9)
    assert scipy.stats.kstest(np.asarray(exact.cdf(draws)), "uniform").pvalue > 1e-3
    rows = np.vstack([x, x_new[:1]]), np.append(y, y_new[0])
    if not net.stochastic:  # others draw with the noise of another size
        same = net.condition(*rows).predict(x_new[1:2]).log_prob(y_new[1:2])
        np.testing.assert_allclose(score, same[0], rtol=1e-9)
    found = amortized.predictive_resample(
        KEY, rule, (x, y), amortized.least_squares, num_forward=5, num_samples=4
    )
    assert found.samples.shape == (4, D + 1) and np.all(np.isfinite(found.samples))
