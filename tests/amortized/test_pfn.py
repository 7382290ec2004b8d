"""Prior-data fitted networks: what is predicted does not depend on how it is computed."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesjx import amortized
from bayesjx.amortized import BarHead, CategoricalHead, NormalHead, PFN

RNG = np.random.default_rng(0)
N, M, D = 7, 5, 3
X, X_NEW = RNG.normal(size=(N, D)), RNG.normal(size=(M, D))
Y = RNG.normal(size=N)
BORDERS = np.linspace(-3, 3, 9)


def with_weights(network, seed=0, scale=0.3):
    """The network with random weights everywhere, also in the maps that start at zero."""
    leaves, structure = jax.tree.flatten(network)
    rng = np.random.default_rng(seed)
    kept = {id(leaf) for leaf in (network.input_loc, network.input_scale, network.input_range)}
    kept |= {id(leaf) for leaf in jax.tree.leaves(network.head)}
    drawn = [
        leaf if id(leaf) in kept else leaf + scale * rng.normal(size=leaf.shape).astype(leaf.dtype)
        for leaf in leaves
    ]
    return jax.tree.unflatten(structure, drawn)


def network(head=None, dtype=np.float64, **options):
    with jax.enable_x64(dtype == np.float64):
        head = NormalHead() if head is None else head
        sizes = {"width": 8, "depth": 2, "heads": 2, "key": jax.random.key(1)} | options
        made = with_weights(PFN(D, head, **sizes))
    assert made.dtype == dtype
    return made


def log_softmax(logits):
    return np.asarray(logits) - np.log(np.sum(np.exp(logits), axis=-1, keepdims=True))


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def affine(layer, x):
    return x @ np.asarray(layer.linear.weight).T + np.asarray(layer.linear.bias)


def mlp(net, x):
    return affine(net.second, gelu(affine(net.first, x)))


def norm(layer, x):
    centred = x - x.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
    return scaled * np.asarray(layer.weight) + np.asarray(layer.bias)


def attention(layer, tokens, to, allowed):
    """One query and one head at a time, the learned key and value in front of the others."""
    width, heads = tokens.shape[1], layer.heads
    size = width // heads
    keys, values = np.split(affine(layer.pair, to), 2, axis=1)
    queries, out = affine(layer.query, tokens), np.zeros(tokens.shape)
    for h in range(heads):
        part = slice(h * size, (h + 1) * size)
        all_keys = np.vstack([np.asarray(layer.empty)[0, h], keys[:, part]])
        all_values = np.vstack([np.asarray(layer.empty)[1, h], values[:, part]])
        for i in range(len(tokens)):
            seen = np.concatenate([[True], allowed[i]])
            score = all_keys[seen] @ queries[i, part] / np.sqrt(size)
            weight = np.exp(score - score.max())
            out[i, part] = weight / weight.sum() @ all_values[seen]
    return affine(layer.output, out)


def reference(net, x, y, x_new, allowed=None):
    """Outputs at `x_new` token by token, in NumPy."""
    loc, scale = np.asarray(net.input_loc), np.asarray(net.input_scale)
    tokens = mlp(net.inputs, (x - loc) / scale) + affine(net.targets, y)
    queries = mlp(net.inputs, (x_new - loc) / scale)
    allowed = np.ones((len(x), len(x)), bool) if allowed is None else allowed
    everything = np.ones((len(x_new), len(x)), bool)
    for layer in net.layers:
        to = norm(layer.norms[0], tokens)
        at = norm(layer.norms[0], queries)
        queries = queries + attention(layer.attention, at, to, everything)
        queries = queries + mlp(layer.feed, norm(layer.norms[1], queries))
        tokens = tokens + attention(layer.attention, to, to, allowed)
        tokens = tokens + mlp(layer.feed, norm(layer.norms[1], tokens))
    return mlp(net.decoder, norm(net.norm, queries))


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
def test_predictions_are_those_of_a_transformer_written_out(dtype):
    net = network(dtype=dtype, input_loc=0.3, input_scale=2.0)
    out = reference(net, X, Y[:, None], X_NEW)
    tol = {"rtol": 2e-4, "atol": 2e-5} if dtype == np.float32 else {"rtol": 1e-10, "atol": 1e-12}
    predicted = net.condition(X, Y).predict(X_NEW)
    np.testing.assert_allclose(predicted.mean, out[:, 0], **tol)
    np.testing.assert_allclose(predicted.scale, 1e-3 + np.log1p(np.exp(out[:, 1])), **tol)
    assert predicted.mean.dtype == dtype
    # With kept keys and values, all at once, and of many data sets at once.
    half = np.array([True] * 4 + [False] * 3)
    stacked = jax.vmap(lambda m: net.condition(X, Y, mask=m).predict(X_NEW).mean)(
        jnp.stack([jnp.ones(N, bool), jnp.asarray(half)])
    )
    np.testing.assert_allclose(stacked[0], out[:, 0], **tol)
    fewer = reference(net, X[half], Y[half, None], X_NEW)
    holes = [np.where(half, v.T, np.nan).T for v in (X, Y)]  # rows that do not count may be NaN
    masked = net.condition(*holes, mask=half).predict(X_NEW)
    np.testing.assert_allclose(masked.mean, fewer[:, 0], **tol)
    np.testing.assert_allclose(stacked[1], fewer[:, 0], **tol)
    both = [jnp.asarray(np.stack([v, v[::-1]]), dtype) for v in (X, Y, X_NEW)]
    batch = eqx.filter_jit(PFN.outputs)(net, *both, jnp.ones((1, N), bool))
    np.testing.assert_allclose(batch[0], out, **tol)
    np.testing.assert_allclose(batch[1], out[::-1], **tol)


def test_classes_are_seen_as_indicators():
    net = network(CategoricalHead(4))
    y = RNG.integers(0, 4, N)
    out = reference(net, X, np.eye(4)[y], X_NEW)
    want = np.exp(out) / np.exp(out).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(net(X, y, X_NEW).probs, want, rtol=1e-9)


def test_rows_of_a_causal_context_see_those_before_them():
    net = network(causal=True)
    out = reference(net, X, Y[:, None], X_NEW, np.tril(np.ones((N, N), bool)))
    np.testing.assert_allclose(net(X, Y, X_NEW).mean, out[:, 0], rtol=1e-9)


def test_bits_of_a_query_do_not_depend_on_the_others():
    net = network(BarHead(np.linspace(-3, 3, 14, dtype=np.float32)), dtype=np.float32)
    x_new = RNG.normal(size=(71, D))
    posterior = net.condition(X, Y)
    together = posterior.predict(x_new).logits
    for part in (slice(0, 1), slice(31, 33), slice(64, 71)):
        assert np.array_equal(posterior.predict(x_new[part]).logits, together[part])


@pytest.mark.parametrize("causal", [False, True])
def test_rows_are_appended(causal):
    net = network(BarHead(BORDERS), causal=causal, num_styles=2)
    told = RNG.normal(size=2)
    whole = net.condition(X, Y, style=told).predict(X_NEW).logits
    grown = net.condition(X[:-2], Y[:-2], style=told, capacity=N - 1)
    for i in (N - 2, N - 1):  # the last has no room
        grown = grown.append(X[i], Y[i])
    np.testing.assert_allclose(grown.predict(X_NEW).logits, whole, rtol=1e-8)
    untold = net.condition(X, Y).predict(X_NEW).logits
    assert np.max(np.abs(untold - whole)) > 0.01
    scanned = jax.jit(lambda p: jax.lax.fori_loop(0, 2, lambda i, p: p.append(
        jnp.asarray(X)[N - 2 + i], jnp.asarray(Y)[N - 2 + i]), p))  # fmt: skip
    start = net.condition(X[:-2], Y[:-2], style=told, capacity=N)
    np.testing.assert_allclose(scanned(start).predict(X_NEW).logits, whole, rtol=1e-8)


def test_units_of_targets_are_those_of_the_data():
    net = network(BarHead(BORDERS), standardise=True)
    plain = net.condition(X, Y).predict(X_NEW)
    moved = net.condition(X, 10 * Y - 70).predict(X_NEW)
    np.testing.assert_allclose(moved.mean, 10 * plain.mean - 70, rtol=1e-8)
    np.testing.assert_allclose(moved.variance, 100 * plain.variance, rtol=1e-8)
    out = reference(net, X, ((Y - Y.mean()) / Y.std())[:, None], X_NEW)
    np.testing.assert_allclose(log_softmax(plain.logits), log_softmax(out), rtol=1e-8)
    # One target, and equal ones, have no scale of their own.
    for y in (Y[:1], np.full(3, 5.0)):
        out = reference(net, X[: len(y)], (y - y)[:, None], X_NEW)
        alike = net.condition(X[: len(y)], y).predict(X_NEW)
        np.testing.assert_allclose(log_softmax(alike.logits), log_softmax(out), rtol=1e-8)
        np.testing.assert_allclose(
            alike.borders, np.broadcast_to(BORDERS + y[0], alike.borders.shape)
        )


def test_a_context_may_be_empty_and_columns_may_be_absent():
    net = network(absent=0.5)
    empty = net.condition(np.zeros((0, D)), np.zeros(0)).predict(X_NEW)
    np.testing.assert_allclose(empty.mean, reference(net, X[:0], Y[:0, None], X_NEW)[:, 0])
    one = net.condition(X[:, :1], Y).predict(X_NEW[:, 0])
    filled = [np.column_stack([x[:, 0], np.full((len(x), 2), 0.5)]) for x in (X, X_NEW)]
    np.testing.assert_allclose(one.mean, net(filled[0], Y, filled[1]).mean, rtol=1e-12)


def test_gradients_in_the_context_are_those_of_differences():
    net = network(BarHead(BORDERS))

    def value(x, y):
        posterior = net.condition(x, y)
        return jnp.sum(posterior.log_predictive_prob(jnp.asarray(X_NEW), jnp.linspace(-2, 2, M)))

    slopes = jax.jit(jax.grad(value, (0, 1)))(jnp.asarray(X), jnp.asarray(Y))
    f = jax.jit(value)
    for slope, inputs in zip(slopes, (True, False), strict=True):
        way = RNG.normal(size=slope.shape)
        ends = [f(X + s * way, Y) if inputs else f(X, Y + s * way) for s in (1e-5, -1e-5)]
        np.testing.assert_allclose(np.sum(slope * way), (ends[0] - ends[1]) / 2e-5, rtol=1e-5)


@pytest.mark.errors
def test_bad_input_is_named():
    net = network(BarHead(BORDERS))
    posterior = net.condition(X, Y)
    classes = network(CategoricalHead(3))
    for call, words in (
        (lambda: net.condition(X[:, :2], Y), r"x must have shape .* 3 columns, got shape \(7, 2\)"),
        (lambda: net.condition(X, Y[:3]), r"y must have shape \(7,\), got \(3,\)"),
        (lambda: net.condition(X, np.full(N, np.nan)), "y holds NaN"),
        (lambda: net.condition(X + np.nan, Y), "x holds NaN"),
        (lambda: net.condition(X, Y, style=[1.0]), "num_styles = 0"),
        (lambda: net.condition(X, Y, mask=np.ones(N)), "mask must be booleans"),
        (lambda: net.condition(X, Y, capacity=3), "capacity must be at least 7"),
        (lambda: posterior.predict(X[:, :2]), "x must have shape"),
        (lambda: posterior.predict(X, batch_size=0), "batch_size must be at least 1"),
        (lambda: classes.condition(X, np.full(N, 3)), r"classes 0, \.\.\., 2"),
        (lambda: classes.condition(X, np.full(N, 0.5)), r"classes 0, \.\.\., 2"),
        (lambda: PFN(D, NormalHead(), key=jax.random.key(0), width=9, heads=2), "divide width"),
        (lambda: PFN(D, "bar", key=jax.random.key(0)), "head must be a BarHead"),
        (lambda: PFN(-1, NormalHead(), key=jax.random.key(0)), "num_inputs must be at least 0"),
        (
            lambda: PFN(D, NormalHead(), key=jax.random.key(0), standardise=True, causal=True),
            "not for causal networks",
        ),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    net = network(max_context=5, input_range=[[-9.0], [9.0]])
    with pytest.warns(UserWarning, match="7 rows of context, more than the 5"):
        net.condition(X, Y)
    with pytest.warns(UserWarning, match="outside of the range"):
        net.condition(X[:5] * 100, Y[:5])


@pytest.mark.errors
def test_rows_beyond_the_room_are_an_error_under_jit():
    net = network()
    full = net.condition(X, Y, capacity=N)
    with pytest.raises(RuntimeError, match="no room"):
        jax.jit(lambda p: p.append(jnp.zeros(D), jnp.zeros(())).x)(full).block_until_ready()


def test_a_posterior_says_how_large_it_is():
    posterior = network(dtype=np.float32).condition(X, Y, capacity=N)
    assert posterior.nbytes == 2 * 2 * N * 8 * 4 + N  # layers, keys and values, and the mask
    assert isinstance(posterior, amortized.PFNPosterior)
