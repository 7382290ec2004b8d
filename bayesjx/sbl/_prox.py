"""Penalties that make weights sparse, by their values and proximal maps."""

from __future__ import annotations

import abc
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact

from .._core import is_array, refuse_where

NEWTON = 8  # iterations: they start at most half too far, and double their digits


class AbstractPenalty(eqx.Module):
    r"""Abstract base class of penalties that are sums over weights, of their magnitudes.

    Complex weights have proximal maps, too, which keep their phases.
    """

    @abc.abstractmethod
    def each(self, x: Inexact[Array, " m"]) -> Float[Array, " m"]:
        """The penalty of each weight, shape `(m,)`."""

    @abc.abstractmethod
    def prox(self, z: Inexact[Array, " m"], step: Any = 1.0) -> Inexact[Array, " m"]:
        r"""The proximal map, the minimiser of half the squared distance and step times penalty.

        It is $\arg\min_x \frac12 \lvert x - z \rvert^2 + t\, p(x)$ of penalty $p$ and step $t$.
        Where zero and another value are as good, it is zero.

        Args:
            z: shape `(m,)`.
            step: positive, scalar.
        """

    def __call__(self, x: Inexact[Array, " m"]) -> Float[Array, ""]:
        """The penalty, scalar."""
        return jnp.sum(self.each(x))


class L1(AbstractPenalty):
    r"""The penalty $\lambda \sum_j \lvert x_j \rvert$ of the lasso.

    Its proximal map is the soft threshold at $\lambda$.

    Args:
        strength: $\lambda \ge 0$, a scalar or `(m,)`.

    Raises:
        ValueError: `strength` is negative.
    """

    strength: Float[Array, ...]

    def __init__(self, strength: Any):
        self.strength = _strength("L1", strength)

    def each(self, x: Inexact[Array, " m"]) -> Float[Array, " m"]:
        return _like(self.strength, x) * jnp.abs(x)

    def prox(self, z: Inexact[Array, " m"], step: Any = 1.0) -> Inexact[Array, " m"]:
        size = jnp.abs(z)
        return _resized(z, jnp.maximum(size - _stepped(self.strength, step, z), 0))


class L0(AbstractPenalty):
    r"""The penalty of $\lambda$ times the number of weights that are not zero.

    Its proximal map is the hard threshold at $\sqrt{2 \lambda}$.

    Args:
        strength: $\lambda \ge 0$, a scalar or `(m,)`.

    Raises:
        ValueError: `strength` is negative.

    References:
        Blumensath and Davies (2008), "Iterative thresholding for sparse approximations".
    """

    strength: Float[Array, ...]

    def __init__(self, strength: Any):
        self.strength = _strength("L0", strength)

    def each(self, x: Inexact[Array, " m"]) -> Float[Array, " m"]:
        return _like(self.strength, x) * (x != 0)

    def prox(self, z: Inexact[Array, " m"], step: Any = 1.0) -> Inexact[Array, " m"]:
        return jnp.where(jnp.abs(z) > jnp.sqrt(2 * _stepped(self.strength, step, z)), z, 0)


class Lq(AbstractPenalty):
    r"""The penalty $\lambda \sum_j \lvert x_j \rvert^q$ with $0 < q < 1$.

    With $s = (2 \lambda (1 - q))^{1 / (2 - q)}$ the proximal map of a number of magnitude $a$ is
    zero for $a \le s (2 - q) / (2 - 2q)$, else the larger root of $x + \lambda q x^{q-1} = a$: in
    closed form for $q = 1/2$, by Newton's method otherwise, which converges monotonically from $a$.

    Args:
        strength: $\lambda \ge 0$, a scalar or `(m,)`.
        q: between 0 and 1; for these ends there are `L0` and `L1`.

    Raises:
        ValueError: `strength` is negative, or `q` out of range.

    References:
        Marjanovic and Solo (2012), "On l_q optimization and matrix completion"; Xu, Chang, Xu and
        Zhang (2012), "L1/2 regularization: a thresholding representation theory and a fast solver".
    """

    strength: Float[Array, ...]
    q: float = eqx.field(static=True)

    def __init__(self, strength: Any, q: float = 0.5):
        self.strength = _strength("Lq", strength)
        if not isinstance(q, float | np.floating) or not 0 < q < 1:
            raise ValueError(
                f"Lq: q must be a number between 0 and 1, got {q!r}; for those use L0 and L1"
            )
        self.q = float(q)

    def each(self, x: Inexact[Array, " m"]) -> Float[Array, " m"]:
        size = jnp.abs(x)
        power = jnp.where(size > 0, size, 1) ** self.q
        return _like(self.strength, x) * jnp.where(size > 0, power, 0)

    def prox(self, z: Inexact[Array, " m"], step: Any = 1.0) -> Inexact[Array, " m"]:
        q, size, strength = self.q, jnp.abs(z), _stepped(self.strength, step, z)
        positive = strength > 0
        scale = (2 * (1 - q) * jnp.where(positive, strength, 1)) ** (1 / (2 - q))
        least = (2 - q) / (2 - 2 * q)
        in_units = size / scale
        kept = in_units > least
        # Roots where there is one; its derivative stays finite where there is none.
        root = scale * _larger_root(jnp.where(kept, in_units, 2 * least), q)
        return _resized(z, jnp.where(positive, jnp.where(kept, root, 0), size))


class CEL0(AbstractPenalty):
    r"""The continuous exact relaxation of $\lambda \|x\|_0$ for least squares.

    It is $\lambda - \frac12 (\sqrt{2 \lambda} - a_j \lvert x_j \rvert)^2$ of a weight up to
    $\sqrt{2 \lambda} / a_j$, and $\lambda$ beyond, with $a_j$ the norm of column $j$ of the design:
    it has the global minimisers of the penalty `L0`, and only some of its local ones.

    Args:
        strength: $\lambda \ge 0$, a scalar or `(m,)`.
        column_norms: $a_j$, shape `(m,)` or a scalar: `jnp.linalg.norm(design, axis=0)`.

    Raises:
        ValueError: `strength` or a norm is negative.

    References:
        Soubies, Blanc-Féraud and Aubert (2015), "A continuous exact l0 penalty (CEL0) for least
        squares regularized problem", equations 2.9 and 4.4.
    """

    strength: Float[Array, ...]
    column_norms: Float[Array, ...]

    def __init__(self, strength: Any, column_norms: Any):
        self.strength = _strength("CEL0", strength)
        self.column_norms = _strength("CEL0", column_norms, "column_norms")

    def each(self, x: Inexact[Array, " m"]) -> Float[Array, " m"]:
        strength, norms = _like(self.strength, x), _like(self.column_norms, x)
        short = jnp.maximum(jnp.sqrt(2 * strength) - norms * jnp.abs(x), 0)
        return strength - 0.5 * short**2

    def prox(self, z: Inexact[Array, " m"], step: Any = 1.0) -> Inexact[Array, " m"]:
        strength, norms = _like(self.strength, z), _like(self.column_norms, z)
        size, step = jnp.abs(z), _like(step, z)
        left = 1 - norms**2 * step
        convex = left > 0
        soft = jnp.maximum(size - jnp.sqrt(2 * strength) * step * norms, 0)
        soft = jnp.minimum(size, soft / jnp.where(convex, left, 1))
        hard = jnp.where(size > jnp.sqrt(2 * step * strength), size, 0)
        return _resized(z, jnp.where(convex, soft, hard))


def _larger_root(z: jax.Array, q: float) -> jax.Array:
    r"""The larger root of $x + \frac{q}{2 - 2q} x^{q-1} = z$."""
    if q == 0.5:
        return 2 / 3 * z * (1 + jnp.cos(2 / 3 * (jnp.pi - jnp.arccos((z / 3) ** -1.5 / 4))))
    factor = q / (2 - 2 * q)

    def newton(_: Any, x: jax.Array) -> jax.Array:
        value = x + factor * x ** (q - 1) - z
        return x - value / (1 + factor * (q - 1) * x ** (q - 2))

    # The last iteration alone carries the derivative, which is that of the root.
    almost = jax.lax.fori_loop(0, NEWTON, newton, z)
    return newton(0, jax.lax.stop_gradient(almost))


def _resized(z: jax.Array, size: jax.Array) -> jax.Array:
    """Numbers with the signs or phases of `z`, and other magnitudes."""
    if not jnp.issubdtype(z.dtype, jnp.complexfloating):
        return jnp.sign(z) * size
    old = jnp.abs(z)
    return z * (size / jnp.where(old > 0, old, 1))


def _like(value: Any, x: jax.Array) -> jax.Array:
    """Real numbers in the precision of `x`."""
    return jnp.asarray(value, jnp.finfo(x.dtype).dtype)


def _stepped(strength: jax.Array, step: Any, x: jax.Array) -> jax.Array:
    return _like(step, x) * _like(strength, x)


def _strength(owner: str, value: Any, name: str = "strength") -> jax.Array:
    if isinstance(value, list | tuple):
        value = np.asarray(value)
    numeric = is_array(value) or isinstance(value, int | float)
    if not numeric or isinstance(value, bool) or jnp.iscomplexobj(value) or jnp.ndim(value) > 1:
        raise ValueError(f"{owner}: {name} must be a number or have shape (m,), got {value!r:.60}")
    text = f"{owner}: {name} must be 0 or more, and finite"
    value = jnp.asarray(refuse_where(value, lambda x: ~((x >= 0) & (x < np.inf)), text))
    return value if jnp.issubdtype(value.dtype, jnp.floating) else value.astype(float)
