"""Mean-field networks against NumPy: divergences, the three estimators and the bound."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax
from scipy.stats import norm

from bayesjx import bnn, likelihoods

nn = eqx.nn
KEY = jax.random.key(5)

# Layers that are linear in their weights, and the shape of an input.
LAYERS = {
    "linear": (lambda k: nn.Linear(5, 3, key=k), (5,)),
    "scalars": (lambda k: nn.Linear("scalar", "scalar", use_bias=False, key=k), ()),
    "convolution": (
        lambda k: nn.Conv2d(4, 6, 2, stride=(1, 2), padding=(0, 1), groups=2, key=k),
        (4, 2, 3),
    ),
    "transposed": (lambda k: nn.ConvTranspose1d(3, 2, 3, stride=2, key=k), (3, 3)),
}


class Flat(eqx.Module):
    """A layer with a vector of outputs."""

    layer: eqx.Module

    def __call__(self, x):
        return jnp.ravel(self.layer(x))


def normal(*shape, seed=3):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def cast(tree, dtype):
    return jax.tree.map(lambda a: a.astype(dtype) if eqx.is_inexact_array(a) else a, tree)


def with_scales(q):
    """With other standard deviations, of all sizes."""
    rng = np.random.default_rng(4)
    scales = [jnp.asarray(rng.uniform(0.2, 1.5, s.shape), s.dtype) for s in q.scales]
    return eqx.tree_at(lambda q: q.scales, q, tuple(scales))


def covariance_of_outputs(network, scales, x):
    """Of all outputs at all inputs, `(n p, n p)`, of one network with random weights."""
    leaves, structure = jax.tree.flatten(eqx.filter(network, eqx.is_array))
    of_leaves = lambda leaves: jax.vmap(  # noqa: E731
        eqx.combine(jax.tree.unflatten(structure, leaves), network)
    )(x).ravel()
    slopes = jax.jacobian(of_leaves)(leaves)  # exact, as the layer is linear in them
    slopes = np.concatenate([np.reshape(j, (len(j), -1)) for j in slopes], axis=1)
    variances = np.concatenate([np.ravel(s) ** 2 for s in scales])
    return (slopes * variances) @ slopes.T


@pytest.mark.parametrize("name", LAYERS)
def test_estimators_have_the_moments_of_random_weights(name):
    make, shape = LAYERS[name]
    num_draws = 2000 if name in ("linear", "scalars") else 300  # convolutions cost more
    network = Flat(make(KEY))
    x = normal(2, *shape)
    start = with_scales(bnn.mean_field(network))
    qs = [
        eqx.tree_at(lambda q: q.scales, bnn.mean_field(network, estimator=e), start.scales)
        for e in ("weights", "flipout", "local")
    ]

    @jax.jit
    def draws(keys):
        return [jax.vmap(lambda key, q=q: q.values(key, x))(keys) for q in qs]

    mean = np.ravel(jax.vmap(network)(x))
    full = covariance_of_outputs(network, start.scales, x)
    half = len(full) // 2
    of_one = np.kron(np.eye(2), np.ones((half, half)))  # inputs have weights of their own
    wants = full, full * of_one, np.diag(np.diag(full))
    spread = np.sqrt(np.outer(np.diag(full), np.diag(full)) / num_draws)
    for f, want in zip(draws(jax.random.split(KEY, num_draws)), wants, strict=True):
        f = np.reshape(f, (num_draws, -1))
        assert np.all(np.abs(f.mean(axis=0) - mean) < 5 * np.sqrt(np.diag(full) / num_draws))
        # A product of two normals has at most thrice the variance of independent ones.
        assert np.all(np.abs(np.cov(f.T) - want) < 5 * np.sqrt(3) * spread)


class Reading(eqx.Module):
    """What a grouped convolution gives less what its weights give, when they are read."""

    layer: nn.Conv1d

    def __call__(self, x):
        weight, bias, groups = self.layer.weight, self.layer.bias, self.layer.groups
        again = lax.conv_general_dilated(
            x[None], weight, (1,), [(0, 0)], feature_group_count=groups
        )
        return jnp.stack([jnp.max(jnp.abs(self.layer(x) - (again[0] + bias))), jnp.sum(weight)])


def test_networks_read_the_weights_that_flipout_applies():
    q = with_scales(bnn.mean_field(Reading(nn.Conv1d(4, 6, 2, groups=2, key=KEY))))
    off, sums = jax.jit(lambda x: q.values(KEY, x))(normal(3, 4, 5)).T
    assert np.all(off < 1e-13) and np.all(np.abs(np.diff(sums)) > 1e-3)


class Once(eqx.Module):
    """Layers of three kinds, of which one has no estimator of its own."""

    first: nn.Linear
    norm: nn.LayerNorm
    cell: nn.GRUCell

    def __init__(self):
        self.first = nn.Linear(3, 4, key=KEY)
        self.norm, self.cell = nn.LayerNorm(4), nn.GRUCell(4, 2, key=KEY)

    def __call__(self, x):
        return self.cell(self.norm(self.first(x)), jnp.ones(2))


@pytest.mark.parametrize("sizes", [(3, 5), (131, 67)])
def test_noise_of_layers_is_that_of_each_key(sizes):
    from bayesjx.bnn._noise import layer_noise

    count, size = sizes  # below and above what is drawn in two turns
    keys = jax.random.split(KEY, count)

    @jax.jit
    def both(keys):
        plain = jax.vmap(lambda key: jax.random.normal(key, (1, size), jnp.float32))(keys)
        slope = lambda s, key: jnp.sum(s * layer_noise(key, (1, size), jnp.float32))  # noqa: E731
        ours = jax.vmap(lambda key: layer_noise(key, (1, size), jnp.float32))(keys)
        return plain, ours, jax.vmap(jax.grad(slope), in_axes=(None, 0))(2.0, keys)

    plain, ours, slopes = both(keys)
    np.testing.assert_array_equal(ours, plain)
    np.testing.assert_allclose(slopes, plain.sum((1, 2)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("estimator", ["flipout", "local"])
def test_other_leaves_are_drawn_once_and_may_be_chosen(estimator):
    chosen = lambda n: [n.cell.weight_ih, n.norm, n.first]  # noqa: E731
    q = bnn.mean_field(Once(), where=chosen, init_scale=0.5, estimator=estimator)
    names = "first.weight first.bias norm.weight norm.bias cell.weight_ih".split()
    assert list(q.leaves.names) == names
    spec = jax.tree.map(eqx.is_inexact_array, Once())
    assert len(bnn.mean_field(Once(), where=spec).means) == sum(
        map(eqx.is_inexact_array, jax.tree.leaves(Once()))
    )
    f = q.values(KEY, jnp.zeros((5, 3)))
    assert f.shape == (5, 2) and np.all(np.ptp(f, axis=0) > 1e-4)
    only = bnn.mean_field(Once(), where=lambda n: n.cell.weight_ih, estimator="weights")
    assert np.all(np.ptp(only.values(KEY, jnp.zeros((5, 3))), axis=0) == 0)
    network = only.sample(KEY)
    assert not np.any(network.cell.weight_ih == Once().cell.weight_ih)
    np.testing.assert_array_equal(network.first.weight, Once().first.weight)
    mean = only.mean_network()
    assert eqx.tree_equal(mean, Once()) and not eqx.tree_equal(network, Once())


PRIORS = {
    "one scale": (lambda t: t(0.7), lambda n, s: (0.0, 0.7)),
    "fan in": (lambda t: bnn.FanIn(t(2.0), t(0.5)), lambda n, s: (0, 0.5 if n == "b" else 1.0)),
    "distribution": (lambda t: dist.Normal(t(0.3), t(np.full(4, 1.3))), lambda n, s: (0.3, 1.3)),
    "mapping": (
        lambda t: {"weight": dist.Normal(t(np.arange(3.0))[:, None], t(2.0)), "bias": 0.1},
        lambda n, s: (np.arange(3.0)[:, None], 2.0) if n == "w" else (0.0, 0.1),
    ),
}


@pytest.mark.parametrize("name", PRIORS)
def test_divergence_is_the_sum_over_weights(name, dtype, tol):
    make, parameters = PRIORS[name]
    t = lambda x: jnp.asarray(x, dtype)  # noqa: E731
    layer = cast(nn.Linear(4, 3, use_bias=name != "distribution", key=KEY), dtype)
    q = with_scales(bnn.mean_field(layer, prior=make(t)))

    @jax.jit
    def answers(q):
        return q.kl(), jax.grad(lambda q: q.kl())(eqx.filter(q, eqx.is_inexact_array))

    found, slopes = answers(q)
    want = 0.0
    for leaf, mean, scale, d_mean in zip("wb", q.means, q.scales, slopes.means, strict=False):
        mean, scale = np.asarray(mean, float), np.asarray(scale, float)
        loc, width = parameters(leaf, mean.shape)
        kl = np.log(width / scale) + (scale**2 + (mean - loc) ** 2) / (2 * width**2) - 0.5
        want += np.sum(kl)
        np.testing.assert_allclose(d_mean, (mean - loc) / width**2 * np.ones_like(mean), **tol)
    np.testing.assert_allclose(found, want, rtol=10 * tol["rtol"])
    assert found.dtype == dtype


def test_divergence_from_other_priors_is_unbiased():
    """From a Laplace distribution, whose divergence is known; and from one of whole rows."""
    q = with_scales(bnn.mean_field(nn.Linear(4, 3, use_bias=False, key=KEY)))
    wide = dist.MultivariateNormal(jnp.zeros(4), 2.0 * jnp.eye(4))

    @jax.jit
    def draws(keys):
        each = lambda prior: jax.vmap(lambda key: q.kl(prior, key=key))(keys)  # noqa: E731
        return each(dist.Laplace(0.0, 0.8)), each(wide)

    mean, scale = np.asarray(q.means[0]), np.asarray(q.scales[0])
    absolute = scale * np.sqrt(2 / np.pi) * np.exp(-(mean**2) / (2 * scale**2))
    absolute += mean * (1 - 2 * norm.cdf(-mean / scale))
    want = np.log(1.6) + absolute / 0.8 - 0.5 * np.log(2 * np.pi * np.e * scale**2)
    normal = np.log(np.sqrt(2) / scale) + (scale**2 + mean**2) / 4 - 0.5
    for found, one in zip(draws(jax.random.split(KEY, 1000)), (want, normal), strict=True):
        off = np.abs(np.mean(found) - np.sum(one))
        assert off < 5 * np.std(found) / np.sqrt(len(found))


@pytest.mark.parametrize("estimator", ["weights", "flipout", "local"])
def test_bound_of_a_linear_model_and_its_gradient_are_unbiased(estimator, dtype):
    n, d, num_data, noise_var, tempered = 7, 3, 21, 0.4, 0.3
    x, y = normal(n, d).astype(dtype), normal(n, seed=5).astype(dtype)
    layer = cast(nn.Linear(d, "scalar", key=KEY), dtype)
    noise = likelihoods.Gaussian(jnp.asarray(noise_var, dtype))
    q = with_scales(bnn.mean_field(layer, noise, prior=0.9, estimator=estimator))

    def exact(q):
        mean = x @ q.means[0][0] + q.means[1]
        variance = x**2 @ q.scales[0][0] ** 2 + q.scales[1] ** 2
        log_prob = (y - mean) ** 2 + variance
        log_prob = -0.5 * (log_prob / noise_var + jnp.log(2 * jnp.pi * q.likelihood.noise_var))
        return num_data / n * jnp.sum(log_prob) - tempered * q.kl()

    def bound(q, key):
        return q.elbo(x, y, num_data, key=key, kl_weight=tempered, num_samples=2)

    @jax.jit
    def answers(q, keys):
        of_means = lambda f, *args: jax.value_and_grad(  # noqa: E731
            lambda p: f(eqx.tree_at(lambda q: (q.means, q.scales), q, p), *args)
        )((q.means, q.scales))
        return of_means(exact), jax.vmap(lambda key: of_means(bound, key))(keys)

    want, found = answers(q, jax.random.split(KEY, 1000))
    for one, many in zip(jax.tree.leaves(want), jax.tree.leaves(found), strict=True):
        error = np.std(many, axis=0) / np.sqrt(len(many))
        rounding = 100 * np.finfo(dtype).eps * np.abs(one).max()
        assert np.all(np.abs(np.mean(many, axis=0) - one) < 5 * error + rounding)
        assert many.dtype == dtype


def test_flipout_and_local_noise_have_less_variance():
    x = normal(31, 3)
    network = nn.MLP(3, "scalar", 7, 1, key=KEY)

    def spread(estimator):
        q = bnn.mean_field(network, likelihoods.Gaussian(0.1), init_scale=0.1, estimator=estimator)
        slope = jax.grad(
            lambda m, key: eqx.tree_at(lambda q: q.means, q, m).elbo(x, x[:, 0], key=key)
        )
        slopes = jax.vmap(lambda key: slope(q.means, key))(jax.random.split(KEY, 200))
        return sum(jnp.sum(jnp.var(s, axis=0)) for s in slopes)

    weights, flipout, local = jax.jit(
        lambda: [spread(e) for e in ("weights", "flipout", "local")]
    )()
    assert flipout < 0.5 * weights and local < 0.5 * weights


class Recurrent(eqx.Module):
    """A layer that an input passes several times, in one of four ways."""

    layer: nn.Linear
    how: str = eqx.field(static=True)

    def __call__(self, x):
        if self.how == "twice":
            return self.layer(self.layer(x))
        if self.how == "scan":
            return lax.scan(lambda h, _: (self.layer(h), None), x, None, length=3)[0]
        if self.how == "vmap":
            return jnp.sum(jax.vmap(self.layer)(jnp.stack([x, -x])), axis=0)
        return self.layer.weight @ x


@pytest.mark.errors
@pytest.mark.parametrize("how", ["twice", "scan", "vmap", "read"])
def test_outputs_are_drawn_of_layers_that_are_applied_once(how):
    network = Recurrent(nn.Linear(3, 3, key=KEY), how)
    x = jnp.ones((2, 3))
    local = bnn.mean_field(network, estimator="local")
    match = "cannot be read" if how == "read" else "layer is applied several times"
    with pytest.raises(ValueError, match=match):
        jax.eval_shape(local.values, KEY, x)
    assert jax.eval_shape(bnn.mean_field(network).values, KEY, x).shape == (2, 3)


def test_integers_and_lower_precisions_are_converted():
    pixels = np.full((2, 1, 3, 3), 200, np.uint8)  # whose squares have no room in their type
    conv = cast(nn.Sequential([nn.Conv2d(1, 2, 3, key=KEY), nn.Lambda(jnp.ravel)]), jnp.float32)
    q = bnn.mean_field(conv, estimator="local", init_scale=1.0)
    f = jax.jit(lambda x: jax.vmap(lambda k: q.values(k, x))(jax.random.split(KEY, 500)))(pixels)
    assert f.dtype == jnp.float32
    assert np.all(np.abs(np.std(f, axis=0) / np.sqrt(9 * 200.0**2 + 1) - 1) < 5 / np.sqrt(1000))
    assert q.values(KEY, np.ones((2, 1, 3, 3))).dtype == jnp.float32


@pytest.mark.errors
def test_bad_networks_leaves_and_options_are_named():
    mlp = nn.MLP(3, 1, 5, 1, key=KEY)
    x, y = jnp.ones((4, 3)), jnp.ones(4)
    raises = lambda match: pytest.raises(ValueError, match=match)  # noqa: E731
    with raises("network must be a callable"):
        bnn.mean_field(jnp.ones(3))
    with raises("BatchNorm"):
        bnn.mean_field(nn.Sequential([nn.BatchNorm(3, "batch", mode="ema")]))
    with raises("where must return a node of the network"):
        bnn.mean_field(mlp, where=lambda m: m.layers[7])
    with raises("where must be a function"):
        bnn.mean_field(mlp, where=3)
    with raises("where must choose"):
        bnn.mean_field(mlp, where=lambda m: m.activation)
    with raises("network has none"):
        bnn.mean_field(nn.Lambda(jax.nn.relu))
    with raises("GRUCell.*estimator='weights'"):
        bnn.mean_field(Once(), where=lambda n: n.cell)
    with raises("estimator must be"):
        bnn.mean_field(mlp, estimator="lrt")
    with raises("prior must be positive"):
        bnn.mean_field(mlp, prior=-1.0)
    with raises("prior of layers.0..weight must be a distribution of all real"):
        bnn.mean_field(mlp, prior=dist.HalfNormal(1.0))
    with raises("must broadcast to its shape .5, 3."):
        bnn.mean_field(mlp, prior=dist.Normal(jnp.zeros(2), 1.0))
    with raises("prior must have an entry for each"):
        bnn.mean_field(mlp, prior={"weight": 1.0})
    with raises("init_scale must be positive"):
        bnn.mean_field(mlp, init_scale=0.0)
    q = bnn.mean_field(mlp, likelihoods.Gaussian(0.1))
    with raises("out_size='scalar'"):
        q.elbo(x, y, key=KEY)
    with raises("fails at an input of shape .2,."):
        q.elbo(x[:, :2], y, key=KEY)
    with raises("x holds NaN"):
        q.elbo(x.at[0, 0].set(jnp.nan), y, key=KEY)
    with raises("kl_weight must be finite and not negative"):
        bnn.mean_field(nn.MLP(3, "scalar", 5, 1, key=KEY), likelihoods.Gaussian(0.1)).elbo(
            x, y, key=KEY, kl_weight=-1.0
        )
    classes = bnn.mean_field(mlp, lambda f: dist.Categorical(logits=f))
    with raises("y holds values outside of the support"):
        classes.elbo(x, jnp.ones(4, int), key=KEY)
    with raises("prior of layers.0..weight is not normal"):
        q.kl(dist.Laplace(0.0, 1.0))
    with raises("num_data is 2, less than the 4"):
        classes.elbo(x, jnp.zeros(4, int), 2, key=KEY)
    complex_layer = eqx.tree_at(lambda m: m.weight, nn.Linear(2, 2, key=KEY), jnp.ones((2, 2)) * 1j)
    with raises("weight of the network holds complex"):
        bnn.mean_field(complex_layer)
