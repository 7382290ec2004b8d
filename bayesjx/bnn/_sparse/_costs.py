"""What training of a sparse network costs: operations, bytes and seconds."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from ..._core import FitResult
from .._arguments import inputs
from ._evaluate import layer_shapes, weights_of
from ._mean_field import SparseMeanField
from ._ssvi import Moves


class Costs(NamedTuple):
    """What `training_costs` counts.

    Operations are those of the products of sparse layers, where a multiplication and an addition
    are two; those of dense mean-field inference of the same network are counted likewise.

    Attributes:
        active: share of the weights of these layers that is active.
        forward_flops: of one input, mean and variance.
        step_flops: of a step with one minibatch, the moves' share included.
        dense_step_flops: of a step of dense mean-field inference.
        parameter_bytes: of what is trained.
        index_bytes: of the indices of active weights.
        optimizer_bytes: of the state of the optimiser.
        temporary_bytes: XLA's working memory of a compiled step, arguments and results not counted.
        step_seconds: wall time of a step, NaN without the result of a fit.
        compile_seconds: of that fit.
    """

    active: float
    forward_flops: int
    step_flops: float
    dense_step_flops: int
    parameter_bytes: int
    index_bytes: int
    optimizer_bytes: int
    temporary_bytes: int
    step_seconds: float
    compile_seconds: float


def training_costs(
    distribution: SparseMeanField,
    algorithm: Any,
    state: Any,
    x: Any,
    y: Any,
    *,
    result: FitResult | None = None,
) -> Costs:
    """Counts operations, bytes and seconds of training by `ssvi`.

    Compiles a step, the memory of which is what XLA says of it.

    Args:
        distribution: that `algorithm` was made from.
        algorithm: of `ssvi`.
        state: of it.
        x: inputs of one minibatch, along the first axis.
        y: its observations.
        result: of `bayesjx.fit`, for the seconds.

    Raises:
        ValueError: an algorithm that is not of `ssvi`, or a result that is not of `fit`.
    """
    parts: Any = getattr(getattr(algorithm, "step", None), "parts", None)
    if not parts or not isinstance(parts[-1], Moves):
        raise ValueError("training_costs: algorithm must be one that bnn.ssvi has made")
    if result is not None and not isinstance(result, FitResult):
        raise ValueError(
            f"training_costs: result must be of bayesjx.fit, got {type(result).__name__}"
        )
    moves, network = parts[-1], distribution.trained(state).network()
    weights = weights_of(network)
    x, y = inputs("training_costs", x, weights[0].dtype)[0], jnp.asarray(y)
    calls = layer_shapes(network, jax.ShapeDtypeStruct(x.shape[1:], x.dtype))
    forward = sum(4 * weights[i].mean.size * rows for i, rows in calls)
    dense = sum(4 * math.prod(weights[i].size) * rows for i, rows in calls)
    step = jax.jit(algorithm.step).lower(jax.random.key(0), state, x, y).compile()
    memory: Any = step.memory_analysis()
    batch, share = len(x), moves.num_batches / moves.every if moves.every else 0.0
    # Backward takes twice what forward does; a move adds the dense product of the means and its
    # gradient, and has no gradient of the weights that are active.
    step_flops = batch * ((1 - share) * 3 * forward + share * (2 * forward + dense))
    seconds = (math.nan, math.nan)
    if result is not None:
        seconds = result.seconds / result.num_steps, result.compile_seconds
    return Costs(
        sum(w.mean.size for w in weights) / sum(math.prod(w.size) for w in weights),
        forward,
        step_flops,
        3 * dense * batch,
        tree_bytes(state.params),
        tree_bytes(state.natural.indices),
        tree_bytes(state.opt_state),
        int(memory.temp_size_in_bytes),
        *seconds,
    )


def tree_bytes(tree: Any) -> int:
    """Bytes of the arrays in a pytree."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(eqx.filter(tree, eqx.is_array)))
