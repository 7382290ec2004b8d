"""Kronecker products plus noise that differs between cells."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact

from .._core import on_failure
from ._checks import checked_arrays
from ._diagonal import Diag, ScaledIdentity
from ._iterative import (
    cg_solve,
    CGSolve,
    check_cg,
    converged_value,
    Inverse,
)
from ._kron import Kron
from ._kron_noise import KronPlusNoise
from ._operator import AbstractOperator
from ._stacks import HStack
from ._tags import psd


class KronPlusDiag(AbstractOperator):
    r"""Kronecker product plus a diagonal, $K_1 \otimes \dots \otimes K_D + \mathrm{diag}(d)$.

    Every cell of the grid has its own noise.

    Made by adding `Kron + Diag`. Solved by conjugate gradients, preconditioned by the sum with the
    geometric mean of the noises. The log-determinant is estimated by `ops.stochastic_logdet`.

    Args:
        signal: tagged `ops.psd`.
        noise: variances, shape `(n,)`, positive.
        rtol: of conjugate gradients.
        max_steps: of conjugate gradients.

    Raises:
        ValueError: sizes or types differ, or `signal` is not tagged as positive semi-definite.
        RuntimeError: a variance is not positive, or conjugate gradients did not converge.
    """

    signal: Kron
    noise: Inexact[Array, " n"]
    rtol: float = eqx.field(static=True)
    max_steps: int = eqx.field(static=True)
    tags: frozenset[object] = eqx.field(static=True)

    def __init__(self, signal: Kron, noise: Any, *, rtol: float = 1e-8, max_steps: int = 1000):
        if not isinstance(signal, Kron):
            raise ValueError(f"Kron + Diag: signal must be a Kron, got {type(signal).__name__}")
        if psd not in signal.tags:
            raise ValueError("Kron + noise needs positive semi-definite factors: tags=ops.psd")
        if jnp.shape(noise) != (signal.shape[0],):
            raise ValueError(
                f"Kron {signal.shape} + Diag: the noise must have shape ({signal.shape[0]},), got "
                f"{jnp.shape(noise)}"
            )
        _, noise = checked_arrays("Kron + Diag", {"factors": signal.factors[0], "noise": noise})
        check_cg("Kron + Diag", rtol, max_steps)
        self.signal = signal
        self.noise = eqx.error_if(
            noise,
            jnp.any(noise <= 0),
            "Kron + Diag: the variances must be positive",
            on_error=on_failure(),
        )
        self.rtol = rtol
        self.max_steps = max_steps
        self.tags = frozenset([psd])

    @property
    def shape(self) -> tuple[int, int]:
        return self.signal.shape

    @property
    def dtype(self) -> Any:
        return self.signal.dtype

    def transpose(self) -> KronPlusDiag:
        return self

    def solve_cg(self, b: Inexact[Array, "n k"]) -> CGSolve:
        """The solution by conjugate gradients with the steps that it took; never raises.

        Args:
            b: shape `(n, k)`.
        """
        typical = jnp.exp(jnp.mean(jnp.log(self.noise)))
        nearly = KronPlusNoise(self.signal, ScaledIdentity(typical, self.shape[0]))
        return cg_solve(self, b, Inverse(nearly), self.rtol, self.max_steps)

    def _mm(self, x: jax.Array) -> jax.Array:
        return self.signal._mm(x) + self.noise[:, None] * x

    def _solve(self, b: jax.Array) -> jax.Array:
        return converged_value(self.solve_cg(b), "Kron + Diag")

    def _logdet(self) -> jax.Array:
        raise ValueError(
            "Kron + Diag: the log-determinant is not known exactly; estimate it by "
            "ops.stochastic_logdet(key, operator)"
        )

    def _diag(self) -> jax.Array:
        return self.signal._diag() + self.noise

    def _root(self) -> HStack:
        return HStack(self.signal._root(), Diag(jnp.sqrt(self.noise)))

    def replaced(self, signal: Kron, noise: jax.Array) -> KronPlusDiag:
        """The same with another product and other variances of the cells."""
        return KronPlusDiag(signal, noise, rtol=self.rtol, max_steps=self.max_steps)
