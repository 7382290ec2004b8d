"""Classification and regression of small tables."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bayesjx import amortized
from bayesjx.amortized import TablePrior
from bayesjx.distributions import equal_mass_borders

ROWS, QUERIES, COLUMNS, CLASSES = 128, 32, 10, 10
SIZE = {"width": 48, "depth": 4, "heads": 2, "group": 2}

CLASSIFIER = (
    "Classification of tables of 1 to 10 columns, numbers or ordered codes of categories, some "
    "with missing values, into 2 to 10 classes."
)
REGRESSOR = (
    "Regression on tables of 1 to 10 columns, numbers or ordered codes of categories, some with "
    "missing values."
)


def make_classifier(key):
    """The prior and the network before training."""
    prior = TablePrior(ROWS, COLUMNS, CLASSES)
    head = amortized.CategoricalHead(CLASSES)
    return prior, _network(key, head)


def make_regressor(key):
    """The prior and the network before training."""
    prior = TablePrior(ROWS, COLUMNS)
    key_tasks, key_network = jax.random.split(key)
    y = jax.jit(jax.vmap(lambda k: prior(k).y))(jax.random.split(key_tasks, 2000))
    loc, scale = jnp.mean(y, axis=1, keepdims=True), jnp.std(y, axis=1, keepdims=True)
    targets = np.asarray((y - loc) / jnp.where(scale > 0, scale, 1)).ravel()
    network = _network(key_network, amortized.BarHead(equal_mass_borders(targets, 100)))
    # Attention that was learned on classes: far fewer steps than from nothing.
    return prior, eqx.tree_at(_shared, network, _shared(amortized.pretrained("table-classes")))


def _shared(network):
    """What networks of classes and of values have in common."""
    return network.cells, network.places, network.directions, network.layers


def _network(key, head):
    sizes = {"max_context": ROWS - QUERIES, "baselines": True, **SIZE}
    return amortized.TablePFN(COLUMNS, head, key=key, **sizes)
