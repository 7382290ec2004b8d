"""Orthogonal matching pursuit."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Inexact, Int, Num

from .._core import compiled, first_of, is_successful, RESULTS, whole_number
from ..ops import AbstractOperator
from ._arguments import checked_problem, checked_variance, real_of
from ._design import dense, solve_tril, square


class Pursuit(NamedTuple):
    """Result of `orthogonal_matching_pursuit`.

    Attributes:
        mean: coefficients, shape `(m,)` or `(m, L)`, 0 outside of the support.
        active: the support, booleans, shape `(m,)`.
        order: the columns as they were chosen, shape `(num_nonzero,)`, -1 from `num_steps` on.
        residual_norms: norm of the residual after each step, shape `(num_nonzero,)`, NaN from
            `num_steps` on.
        num_steps: number of columns that were chosen, scalar.
        result: `stagnation` where all other columns are combinations of those chosen, before
            either rule stopped it; `max_steps_reached` where the residual is still above the noise.
    """

    mean: Inexact[Array, "m ..."]
    active: Bool[Array, " m"]
    order: Int[Array, " k"]
    residual_norms: Float[Array, " k"]
    num_steps: Int[Array, ""]
    result: RESULTS

    @property
    def converged(self) -> Bool[Array, ""]:
        """Whether `result` is successful."""
        return is_successful(self.result)


class _State(NamedTuple):
    basis: jax.Array  # of the columns chosen, orthonormal, (n, k)
    chosen: jax.Array  # (n, k)
    order: jax.Array
    residual: jax.Array
    norms: jax.Array
    steps: jax.Array
    stuck: jax.Array


def orthogonal_matching_pursuit(
    design: Num[Array | np.ndarray, "n m"] | AbstractOperator,
    y: Num[Array | np.ndarray, " _n *L"],
    *,
    num_nonzero: int | None = None,
    noise_var: Any = None,
) -> Pursuit:
    r"""Orthogonal matching pursuit (OMP): greedy least squares on a growing support.

    Each step adds the column, of unit length, that has the largest product with the residual, and
    fits all chosen ones by least squares. With `L` measurement vectors it is the simultaneous OMP,
    with a common support. It stops at `num_nonzero` columns, or once $\|R\|_F^2 \le n L \sigma^2$
    for the residual $R$, which is the rule to take where the noise is known. It takes
    $O(k n (m + k))$ for `k` columns.

    Args:
        design: $\Phi$, shape `(n, m)`, real or complex; an operator is made dense.
        y: measurements, shape `(n,)` or `(n, L)`.
        num_nonzero: largest number of columns, known when traced; by default `min(n, m)` with
            `noise_var`.
        noise_var: $\sigma^2 > 0$, scalar, in squared units of `y`.

    Raises:
        ValueError: neither `num_nonzero` nor `noise_var`, shapes that disagree, empty or NaN data,
            two precisions, numbers out of range.
        RuntimeError: under `jit`, values that are not finite or out of range.

    References:
        Pati, Rezaiifar and Krishnaprasad (1993), "Orthogonal matching pursuit", Asilomar; Tropp,
        Gilbert and Strauss (2006), "Algorithms for simultaneous sparse approximation, part I",
        Signal Processing 86.
    """
    owner = "orthogonal_matching_pursuit"
    if num_nonzero is None and noise_var is None:
        raise ValueError(
            f"{owner}: give num_nonzero, noise_var, or both: one of them has to stop it"
        )
    design, y = checked_problem(owner, design, y)
    most = min(design.shape)
    count = (
        most if num_nonzero is None else whole_number(f"{owner}: num_nonzero", num_nonzero, 1, most)
    )
    if noise_var is not None:
        noise_var = checked_variance(owner, "noise_var", noise_var, real_of(y.dtype))
    return _pursued(dense(design), y, noise_var, count)


@compiled
def _pursued(design: jax.Array, y: jax.Array, noise_var: Any, count: int) -> Pursuit:
    columns = y[:, None] if y.ndim == 1 else y
    (n, num), m, real = columns.shape, design.shape[1], real_of(y.dtype)
    largest = jnp.max(jnp.abs(design), axis=0)
    scaled = design / jnp.where(largest > 0, largest, 1)
    length = jnp.sqrt(jnp.sum(square(scaled), axis=0))
    unit = scaled / jnp.where(length > 0, length, 1)
    size = jnp.max(jnp.abs(columns))
    size = jnp.where(size > 0, size, 1)
    target = columns / size
    enough = 0 if noise_var is None else n * num * (noise_var / size) / size
    # A column of which less is left than this is a combination of those that were chosen.
    least = 10 * n * jnp.finfo(real).eps

    def too_far(residual: jax.Array) -> jax.Array:
        return jnp.sum(square(residual)) > enough

    def go_on(state: _State) -> jax.Array:
        return (state.steps < count) & ~state.stuck & too_far(state.residual)

    def step(state: _State) -> _State:
        # What is left of each column decides whether it is of any use; the products choose.
        gain = jnp.sum(square(unit.mT.conj() @ state.residual), axis=1)
        used = jnp.zeros(m, bool).at[state.order].set(True, mode="drop")
        best = jnp.argmax(jnp.where(used, -1, gain))
        column = unit[:, best]
        left = column
        for _ in range(2):  # twice is enough
            left = left - state.basis @ (state.basis.mT.conj() @ left)
        norm = jnp.sqrt(jnp.sum(square(left)))
        stuck = ~(norm > least) | ~(gain[best] > least**2 * jnp.sum(square(target)))
        new = left / jnp.where(norm > 0, norm, 1)
        residual = state.residual - new[:, None] * (new.conj() @ state.residual)
        after = _State(
            state.basis.at[:, state.steps].set(new),
            state.chosen.at[:, state.steps].set(column),
            state.order.at[state.steps].set(best),
            residual,
            state.norms.at[state.steps].set(jnp.sqrt(jnp.sum(square(residual)))),
            state.steps + 1,
            stuck,
        )
        before = state._replace(stuck=stuck)
        return jax.tree.map(lambda a, b: jnp.where(stuck, a, b), before, after)

    empty = jnp.zeros((n, count), y.dtype)
    first = _State(
        empty, empty, jnp.full(count, m), target, jnp.full(count, jnp.nan, real), jnp.asarray(0),
        jnp.asarray(False),
    )  # fmt: skip
    last = jax.lax.while_loop(go_on, step, first)
    # The chosen columns are the basis times this upper triangle, with ones in unused places.
    free = jnp.arange(count) >= last.steps
    upper = last.basis.mT.conj() @ last.chosen + jnp.diag(free).astype(y.dtype)
    flipped = jnp.triu(upper)[::-1, ::-1]
    right = (last.basis.mT.conj() @ target)[::-1]
    own = solve_tril(flipped, right)[::-1]
    full = jnp.zeros((m, num), y.dtype).at[last.order].set(own, mode="drop")
    divisor = jnp.where(length > 0, length, 1) * jnp.where(largest > 0, largest, 1)
    mean = full / divisor[:, None] * size
    active = jnp.zeros(m, bool).at[last.order].set(True, mode="drop")
    result = first_of(
        (last.stuck, RESULTS.stagnation),
        (too_far(last.residual) & (noise_var is not None), RESULTS.max_steps_reached),
        otherwise=RESULTS.successful,
    )
    order = jnp.where(free, -1, last.order)
    mean = mean[:, 0] if y.ndim == 1 else mean
    return Pursuit(mean, active, order, last.norms * size, last.steps, result)
