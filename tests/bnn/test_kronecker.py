"""Curvature of networks: matrices against per-datum gradients, Kronecker factors where exact."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from numpyro import distributions as dist

from bayesjx import bnn, likelihoods

RNG = np.random.default_rng(0)
N = 5
KEYS = jax.random.split(jax.random.key(0), 3)
LINEAR = eqx.nn.Linear(3, 2, key=KEYS[0])
CONV = eqx.nn.Conv2d(2, 3, (3, 2), stride=2, padding=1, dilation=(1, 2), key=KEYS[1])
ROWS = RNG.normal(size=(N, 4, 3))  # four positions of three features
IMAGES = RNG.normal(size=(N, 2, 5, 6))
GAUSSIAN = likelihoods.Gaussian(0.5)


def classes(f):
    return dist.Categorical(logits=f)


class Applied(eqx.Module):
    """A layer, and what is done with it."""

    layer: eqx.Module
    how: str = eqx.field(static=True)

    def __call__(self, x):
        if self.how == "mapped":
            return jax.vmap(self.layer)(x).reshape(-1)
        if self.how == "in turn":
            return jax.lax.map(self.layer, x).reshape(-1)
        if self.how == "called often":
            return jnp.concatenate([self.layer(row) for row in x])
        if self.how == "averaged":
            return jnp.mean(jax.vmap(self.layer)(x), axis=0)
        if self.how == "pooled":
            return jnp.mean(self.layer(x), axis=(1, 2))
        if self.how == "reads the weight":
            return self.layer.weight @ x
        return self.layer(x).reshape(-1)


def bias(network):
    return network.layer.bias


def weight(network):
    return network.layer.weight


CASES = {
    "linear": (Applied(LINEAR, "plain"), ROWS[:, 0], "expand", None),
    "its bias": (Applied(LINEAR, "plain"), ROWS[:, 0], "expand", bias),
    "its weight": (Applied(LINEAR, "plain"), ROWS[:, 0], "reduce", weight),
    "mapped": (Applied(LINEAR, "mapped"), ROWS, "expand", None),
    "bias mapped": (Applied(LINEAR, "mapped"), ROWS, "expand", bias),
    "in turn": (Applied(LINEAR, "in turn"), ROWS, "expand", None),
    "called often": (Applied(LINEAR, "called often"), ROWS, "expand", None),
    "averaged": (Applied(LINEAR, "averaged"), ROWS, "reduce", None),
    "convolution": (Applied(CONV, "plain"), IMAGES, "expand", None),
    "pooled": (Applied(CONV, "pooled"), IMAGES, "reduce", None),
}


@pytest.mark.parametrize("name", CASES)
def test_factors_of_one_layer_are_exact(name):
    network, x, sharing, where = CASES[name]
    options = {"where": where, "chunk_size": 2}

    @jax.jit
    def run(x):
        y = jnp.zeros_like(jax.vmap(network)(x))
        whole = bnn.gauss_newton(network, x, y, GAUSSIAN, **options)
        found = bnn.kronecker_factors(network, x, y, GAUSSIAN, sharing=sharing, **options)
        return whole.as_matrix(), found.as_matrix(), found.mv(jnp.ones(found.shape[0]))

    want, found, product = run(jnp.asarray(x))
    scale = np.abs(want).max()
    np.testing.assert_allclose(found, want, atol=1e-12 * scale)
    np.testing.assert_allclose(product, want.sum(axis=1), atol=1e-10 * scale)


def test_matrices_are_those_of_the_gradients():
    network = eqx.nn.MLP(3, 4, 3, 1, activation=jnp.tanh, key=KEYS[2])
    arrays, rest = eqx.partition(network, eqx.is_array)
    vector, back = ravel_pytree(arrays)
    x, y = ROWS[:, 0], np.array([0, 3, 1, 2, 1])

    @jax.jit
    def run(x, y):
        def log_prob(v, x, y):
            return jax.nn.log_softmax(eqx.combine(back(v), rest)(x))[y]

        scores = jax.vmap(jax.grad(log_prob), (None, 0, 0))
        of_data = scores(vector, x, y)
        probs = jax.nn.softmax(jax.vmap(network)(x))
        of_classes = jax.vmap(lambda c: scores(vector, x, jnp.full(len(x), c)))(jnp.arange(4))
        want = jnp.einsum("cni,nc,cnj->ij", of_classes, probs, of_classes), of_data.T @ of_data
        found = [
            bnn.gauss_newton(network, x, y, classes),
            bnn.fisher(network, x, classes, chunk_size=2),
            bnn.empirical_fisher(network, x, y, classes),
        ]
        factors = [
            bnn.kronecker_factors(network, x, None, classes, curvature="fisher"),
            bnn.kronecker_factors(
                network, x, None, classes, curvature="fisher", key=KEYS[0], num_samples=2000
            ),
            bnn.kronecker_factors(network, x, y, classes, curvature="empirical"),
        ]
        return want, [f.as_matrix() for f in found], [f.as_matrix() for f in factors]

    (fisher, empirical), found, (closed, drawn, of_data) = run(jnp.asarray(x), y)
    for matrix, want in zip(found, (fisher, fisher, empirical), strict=True):
        np.testing.assert_allclose(matrix, want, atol=1e-12)
    # 2000 draws of each of the data: by far more than ten standard errors.
    np.testing.assert_allclose(drawn, closed, atol=0.2 * np.abs(closed).max())
    np.testing.assert_allclose(np.trace(of_data), np.trace(of_data.T))
    assert np.abs(of_data - closed).max() > 0.1 * np.abs(closed).max()


@pytest.mark.errors
def test_bad_input_is_named():
    x, y = jnp.asarray(ROWS[:, 0]), jnp.zeros((N, 2))
    call = lambda network, **o: bnn.kronecker_factors(network, x, y, GAUSSIAN, **o)  # noqa: E731
    mixed = eqx.nn.Sequential([LINEAR, eqx.nn.LayerNorm(2)])
    with pytest.raises(ValueError, match=r"not for layers\[1\].weight of a LayerNorm, layers\[1\]"):
        call(mixed)
    with pytest.raises(ValueError, match="does more with a layer than to call it"):
        call(Applied(LINEAR, "reads the weight"))
    grouped = Applied(eqx.nn.Conv1d(4, 2, 1, groups=2, key=KEYS[0]), "plain")
    with pytest.raises(ValueError, match="weight of a Conv1d of 2 groups"):
        bnn.kronecker_factors(grouped, jnp.ones((N, 4, 1)), y, GAUSSIAN)
    scanned = eqx.nn.MLP(3, 2, 3, 3, scan=True, key=KEYS[0])
    with pytest.raises(ValueError, match="several Linear in one"):
        call(scanned)
    with pytest.raises(ValueError, match='sharing must be "expand" or "reduce"'):
        call(LINEAR, sharing="both")
    with pytest.raises(ValueError, match='curvature must be one of "ggn"'):
        call(LINEAR, curvature="hessian")
    with pytest.raises(ValueError, match="kronecker_factors: y holds values outside|shape"):
        bnn.kronecker_factors(LINEAR, x, y[:3], GAUSSIAN)
    with pytest.raises(ValueError, match="no leaf of the Linear is random"):
        call(LINEAR, where=lambda network: [])
    with pytest.raises(ValueError, match="must have one type"):
        odd = eqx.tree_at(lambda m: m.bias, LINEAR, jnp.ones(2, jnp.float32))
        call(odd)
