"""The same programs under NumPyro's own objectives, where these are known to be biased."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from numpyro.infer import RenyiELBO, TraceGraph_ELBO

from bayesjx import vi

from . import _loops, _particles, _plates
from ._cell import Cell, Draw


class Defect(NamedTuple):
    """A bias of NumPyro 0.22.

    Attributes:
        what: where the bias comes from.
        cell: the program under our estimator.
        peer: a draw of value and gradient by NumPyro.
    """

    what: str
    cell: Cell
    peer: Draw


def _draw_by(objective: Any, model: Callable[..., Any], guide: Callable[..., Any]) -> Draw:
    def draw(key: jax.Array, point: jax.Array) -> tuple[jax.Array, jax.Array]:
        def bound(p: jax.Array) -> jax.Array:
            return -objective.loss(key, {}, model, guide, p)

        return jax.value_and_grad(bound)(point)

    return draw


def defects() -> list[Defect]:
    """Every known one. Needs float64."""
    rf = vi.reinforce()
    subsampled = Cell(
        "plate of 8, 2 at a time",
        "reinforce",
        _plates.objective(rf, _plates.B),
        _plates.exact,
        jnp.array(_plates.POINT),
    )
    hmm = Cell(
        "hidden Markov model in scan",
        "reinforce",
        _loops.hmm_objective(rf),
        _loops.hmm_exact,
        jnp.array([-1.0, 2.5, 1.5]),
    )
    bound = Cell(
        "importance bound of 2",
        "reinforce",
        _particles.bound_objective(rf, 2),
        _particles.bound_exact(2),
        jnp.array(_particles.POINT),
    )
    at_zero = Cell(
        "flag with logit 0",
        "reinforce",
        vi.elbo(_particles.model, lambda p: _particles.guide(p, rf)),
        _particles.bound_exact(1),
        jnp.zeros(1),
    )
    graph = TraceGraph_ELBO()
    return [
        Defect(
            "TraceGraph_ELBO: score and cost both scaled in a subsampled plate",
            subsampled,
            _draw_by(
                graph,
                lambda p: _plates.model(p, _plates.B),
                lambda p: _plates.guide(p, None, _plates.B),
            ),
        ),
        Defect(
            "TraceGraph_ELBO: score of a scan's step meets that step's cost only",
            hmm,
            _draw_by(graph, _loops.hmm_model, lambda p: _loops.hmm_guide(p, None)),
        ),
        Defect(
            "RenyiELBO(alpha=0): no score term",
            bound,
            _draw_by(
                RenyiELBO(alpha=0.0, num_particles=2),
                _particles.model,
                lambda p: _particles.guide(p, None),
            ),
        ),
        Defect(
            "BernoulliLogits.log_prob: derivative 0 or 1 at logits of exactly 0",
            at_zero,
            _draw_by(graph, _particles.model, lambda p: _particles.guide(p, None)),
        ),
    ]
