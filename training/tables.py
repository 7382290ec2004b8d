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
FIRST = "table-classes"
TAIL = 2.0  # scale of the tails, in standard deviations of the targets
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
    return prior, _network(key, amortized.CategoricalHead(CLASSES))


def make_regressor(key):
    """The prior and the network before training."""
    prior = TablePrior(ROWS, COLUMNS)
    key_tasks, key_network = jax.random.split(key)
    y = jax.jit(jax.vmap(lambda k: prior(k).y))(jax.random.split(key_tasks, 2000))
    loc, scale = jnp.mean(y, axis=1, keepdims=True), jnp.std(y, axis=1, keepdims=True)
    targets = np.asarray((y - loc) / jnp.where(scale > 0, scale, 1)).ravel()
    borders = np.array(equal_mass_borders(targets, 100))
    # Not as wide as the farthest of these targets, which would be the unit of all beyond the rest.
    half = TAIL * 0.6745  # of a half-normal distribution lies inside
    borders[[0, -1]] = borders[1] - half, borders[-2] + half
    return prior, _network(key_network, amortized.BarHead(borders))


def _network(key, head):
    """A network with the attention of the one of classes that is there, if there is one.

    The first of classes had no regressions to go on from and was trained from nothing; with what
    its attention had learned, others need far fewer steps.
    """
    sizes = {"max_context": ROWS - QUERIES, "baselines": True, **SIZE}
    network = amortized.TablePFN(COLUMNS, head, key=key, **sizes)
    if FIRST not in amortized.pretrained_names():
        return network
    return eqx.tree_at(_shared, network, _shared(amortized.pretrained(FIRST)))


def origin():
    """What of these networks is trained already, and on how many data sets."""
    if FIRST not in amortized.pretrained_names():
        return "", 0
    return f"attention of {FIRST}", amortized.about_network(FIRST)["about"]["data_sets"]


def _shared(network):
    """What networks of classes and of values have in common."""
    return network.cells, network.places, network.directions, network.layers
