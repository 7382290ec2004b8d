"""Copies and pickles of what the library returns are the same to JAX, tags included."""

import copy
import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from bayesjx import bnn, distributions, gp, kernels, ops, ssm, vi

X, Y = jnp.linspace(0.0, 1.0, 5), jnp.sin(jnp.arange(5.0))
KERNEL, MARKOV = kernels.RBF(1.0, 1.0), kernels.Matern32(1.0, 1.0)
PLANE = KERNEL.on(0) * KERNEL.on(slice(1, 2))
MASK = np.arange(25).reshape(5, 5) > 3


def bernoulli(f):
    return dist.Bernoulli(probs=jax.nn.sigmoid(f))


def prior(kernel=KERNEL, noise=0.1):
    return gp.GP(kernel, noise_var=noise)


def covariance():
    return ops.Kron(jnp.eye(2), jnp.eye(3), tags=ops.psd) + ops.ScaledIdentity(0.1)


MAKERS = {
    "kernel": lambda: PLANE + 2.0 * kernels.White(0.1),
    "prior": prior,
    "prior at x": lambda: prior()(X),
    "latent": lambda: prior().latent(X),
    "exact": lambda: gp.condition(prior(), X, Y),
    "predictive": lambda: gp.condition(prior(), X, Y).predict(X),
    "grid": lambda: gp.condition(prior(PLANE), gp.Grid(X, X), jnp.zeros((5, 5)), mask=MASK),
    "times": lambda: gp.condition(prior(MARKOV), gp.Times(X), Y),
    "laplace": lambda: gp.laplace(gp.GP(KERNEL), bernoulli, X, jnp.ones(5, int)),
    "SVGP": lambda: gp.SVGP(gp.GP(KERNEL), bernoulli, inducing_points=X[:2]),
    "chain": lambda: ssm.MarkovGP(MARKOV, X).condition(Y),
    "by covariance": lambda: distributions.StructuredNormal(jnp.zeros(6), covariance()),
    "by precision": lambda: distributions.StructuredNormal(
        jnp.zeros(2), precision=ops.Diag(jnp.ones(2), ops.psd)
    ),
    "distribution": lambda: distributions.BernoulliLogits(jnp.zeros(3)),
    "strategies": lambda: [
        vi.reinforce(),
        vi.enum(),
        vi.mvd(),
        vi.reparam(),
        vi.rloo(),
        vi.disarm(),
    ],
    "networks": lambda: bnn.NetworkSamples([eqx.nn.Linear(2, 1, key=jax.random.key(0))] * 2),
    "mean field": lambda: bnn.mean_field(eqx.nn.Linear(2, 1, key=jax.random.key(0))),
    "layer": lambda: ops.SubspaceLinear(
        None, ops.GroupedColumns.from_indices((5, 6), [[0, 2], [1, 3]], jnp.ones((2, 2, 3)))
    ),
}


@pytest.mark.parametrize("name", MAKERS)
def test_copies_have_the_same_structure_and_leaves(name):
    shapes = eqx.filter_eval_shape(MAKERS[name])  # nothing is computed
    fill = lambda leaf: np.ones(leaf.shape, leaf.dtype)  # noqa: E731
    made = jax.tree.map(lambda leaf: fill(leaf) if hasattr(leaf, "shape") else leaf, shapes)
    for copied in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert jax.tree.structure(copied) == jax.tree.structure(made)
        assert hash(jax.tree.structure(copied)) == hash(jax.tree.structure(made))
        assert eqx.tree_equal(copied, made)
