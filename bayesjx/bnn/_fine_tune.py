"""Training of networks whose zeros stay, as pruning leaves them."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import GetAttrKey, Partial

from .._core import Algorithm, gradient_algorithm, whole_number
from ..likelihoods import Likelihood
from ._arguments import check_optimizer
from ._leaves import Leaves, random_leaves, Where
from ._network import check_network, log_joint_of_leaves
from ._priors import leaf_priors, WeightPrior

BIAS = GetAttrKey("bias")  # those of convolutions have several axes


def fine_tune(
    network: Any,
    likelihood: Likelihood,
    optimizer: optax.GradientTransformation,
    *,
    num_data: int,
    prior: WeightPrior | None = None,
    where: Where = None,
) -> Algorithm:
    """Training of the weights that pruning has left, for `bayesjx.fit`.

    Weights, which are the arrays of two and more axes but for those called `bias`, stay zero where
    they are; all other arrays are trained. Without a prior the likelihood is maximised, else the
    posterior density.

    ```python
    network = bnn.pruned(field, fit.state)
    tuning = bnn.fine_tune(network, likelihood, optax.adam(1e-3), num_data=len(x))
    fit = bayesjx.fit(key, tuning, tuning.init(), 500, data=(x, y), batch_size=128)
    network, likelihood = bayesjx.trained((network, likelihood), fit.state)
    smaller = bnn.compact(network)
    ```

    Args:
        network: with zeros among its weights, of `pruned` or any other; a callable Equinox module
            of one input with values of shape `()` or `(p,)`.
        likelihood: from these values to a NumPyro distribution of observations, whose parameters
            are trained too.
        optimizer: Optax gradient transformation. One that moves weights without a gradient, by
            noise, does not keep zeros.
        num_data: number of all data, of which minibatches are drawn.
        prior: of the random leaves, see `mean_field`; None for none.
        where: which leaves have it, see `mean_field`; by default all.

    Returns:
        `init() -> GradientState` and `step(key, state, x, y) -> (GradientState, GradientInfo)`,
        whose objective is the log density. `bayesjx.trained((network, likelihood), state)` is the
        result.

    Raises:
        ValueError: no such network, likelihood, prior or option; when traced, what `log_joint`
            raises.
    """
    check_network("fine_tune", network)
    if not callable(likelihood):
        raise ValueError(
            "fine_tune: likelihood must be a function from f to a NumPyro distribution, got "
            f"{likelihood!r:.80}"
        )
    check_optimizer("fine_tune", optimizer)
    as_jax = lambda leaf: jnp.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf  # noqa: E731
    network = jax.tree.map(as_jax, network)
    leaves = None
    if prior is not None:
        leaves = random_leaves("fine_tune", network, where)
        leaf_priors("fine_tune", prior, leaves, leaves.of(network))
    loss = Partial(
        _loss, whole_number("fine_tune: num_data", num_data), _kept(network), prior, leaves
    )
    return gradient_algorithm(loss, (network, likelihood), optimizer, natural={})


def _kept(network: Any) -> Any:
    """Which weights are not zero, None for what is no array of weights."""

    def mask(path: Any, leaf: Any) -> Any:
        is_weight = eqx.is_inexact_array(leaf) and leaf.ndim > 1
        return leaf != 0 if is_weight and path[-1:] != (BIAS,) else None

    return jax.tree_util.tree_map_with_path(mask, network)


def _loss(
    num_data: int,
    kept: Any,
    prior: WeightPrior | None,
    leaves: Leaves | None,
    key: jax.Array,
    params: tuple[Any, Any],
    natural: dict[str, Any],
    x: Any,
    y: Any,
) -> tuple[jax.Array, jax.Array, dict[str, Any]]:
    """The negative log density of one observation, so that steps do not grow with their number."""
    network, likelihood = params
    put = lambda mask, leaf: leaf if mask is None else jnp.where(mask, leaf, 0)  # noqa: E731
    network = jax.tree.map(put, kept, network, is_leaf=lambda mask: mask is None)
    value = log_joint_of_leaves(network, likelihood, x, y, num_data, prior, leaves, key)
    return -value / num_data, value, natural
