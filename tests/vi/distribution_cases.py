"""Named constructors of distributions of batch shape (3,), with a twin and values to score."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from bayesjx import vi
from bayesjx.distributions import BernoulliLogits, Normal, OneHotCategorical

LOGITS = np.array([-0.7, 0.0, 1.3])


def sigmoid_bernoulli(p):
    return dist.Bernoulli(probs=jax.nn.sigmoid(p))


def counts(p):
    return jnp.exp(p)[:, None] * jnp.ones(4, p.dtype)


def four_way(p):
    return p[:, None] * jnp.arange(4, dtype=p.dtype)


class Formula:
    """A categorical over one-hot vectors, written out."""

    def __init__(self, p):
        self.log_probs = jax.nn.log_softmax(four_way(p))
        self.mean = jnp.exp(self.log_probs)

    def log_prob(self, value):
        return jnp.sum(value * self.log_probs, axis=-1)


ONE_HOT = np.eye(4)[[0, 3, 1]]
TABLE = {
    "enum Bernoulli": (lambda p: vi.enum(dist.Bernoulli(logits=p)), sigmoid_bernoulli, [0, 1, 1]),
    "reinforce Normal": (
        lambda p: vi.reinforce(dist.Normal(p, jnp.exp(p))),
        lambda p: dist.Normal(p, jnp.exp(p)),
        [0.3, -1.0, 2.0],
    ),
    "reparam Gamma": (
        lambda p: vi.reparam(dist.Gamma(jnp.exp(p), 2.0)),
        lambda p: dist.Gamma(jnp.exp(p), 2.0),
        [0.3, 1.0, 2.0],
    ),
    "reinforce Dirichlet": (
        lambda p: vi.reinforce(dist.Dirichlet(counts(p))),
        lambda p: dist.Dirichlet(counts(p)),
        [[0.1, 0.2, 0.3, 0.4]] * 3,
    ),
    "mvd Poisson": (
        lambda p: vi.mvd(dist.Poisson(jnp.exp(p))),
        lambda p: dist.Poisson(jnp.exp(p)),
        [0, 1, 4],
    ),
    "one-hot": (lambda p: OneHotCategorical(logits=four_way(p)), Formula, ONE_HOT),
    "enum one-hot": (lambda p: vi.enum(OneHotCategorical(logits=four_way(p))), Formula, ONE_HOT),
    "repaired Bernoulli": (BernoulliLogits, sigmoid_bernoulli, [0, 1, 1]),
    "repaired Normal": (
        lambda p: Normal(p, jnp.exp(p)),
        lambda p: dist.Normal(p, jnp.exp(p)),
        [0.3, -1.0, 2.0],
    ),
}


def case(name, dtype=jnp.float64):
    build, twin, value = TABLE[name]
    value = np.asarray(value)
    value = value.astype(dtype) if value.dtype == float else value
    return build, twin, jnp.asarray(value), jnp.asarray(LOGITS, dtype)
