"""Inducing points: their whitened features, and how to choose them."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
from jax import random
from jaxtyping import Array, Float, Int

from .. import ops
from .._core import check_key, refuse_where, safe_cholesky, solve_triangular, whole_number
from ..kernels import AbstractKernel
from ._arguments import checked_jitter
from ._inputs import all_points
from ._process import check_prior, GP


class InducingFeatures(eqx.Module):
    r"""$\phi(x) = L_u^{-1} k_u(x)$ with $K_{uu} = L_u L_u^\top$.

    Attributes:
        kernel: the covariance function.
        inducing_points: shape `(m, d)`.
        tril: $L_u$, shape `(m, m)`.
        jitter: what was added to the diagonal of $K_{uu}$, scalar. The inducing variables are
            then values of the function with a noise of that variance: bounds stay bounds.
    """

    kernel: AbstractKernel
    inducing_points: Float[Array, "m d"]
    tril: Float[Array, "m m"]
    jitter: Float[Array, ""]

    def __call__(self, x: Float[Array, "n d"]) -> Float[Array, "m n"]:
        """Features of points `(n, d)`, shape `(m, n)`."""
        return solve_triangular(self.tril, self.kernel.gram(self.inducing_points, x), lower=True)

    def residual(self, x: Float[Array, "n d"], features: Float[Array, "m n"]) -> Float[Array, " n"]:
        r"""$k(x, x) - \|\phi(x)\|^2$, the variance that the inducing points leave, shape `(n,)`."""
        return jnp.maximum(self.kernel.diag(x) - jnp.sum(features**2, axis=0), 0)


def inducing_features(
    kernel: AbstractKernel, inducing_points: Any, jitter: float | None = None
) -> InducingFeatures:
    """Features of some inducing points.

    Args:
        kernel: the covariance function.
        inducing_points: shape `(m, d)` or `(m,)`.
        jitter: added to the diagonal, relative to its mean; by default 1e-6 in float64 and 1e-4
            in float32. It is added from the start, so that bounds are smooth in all parameters,
            and grows by `safe_cholesky` only where it does not suffice.

    Raises:
        ValueError: points of the wrong rank, none, or NaN; a negative `jitter`.
        RuntimeError: no jitter helped, or lengthscales or variances are not positive.
    """
    points = all_points(inducing_points, "inducing_points")
    jitter = checked_jitter(jitter, points.dtype)
    matrix = kernel.gram(points)
    start = jitter * jax.lax.stop_gradient(jnp.mean(jnp.diag(matrix)))
    factor = safe_cholesky(matrix + start * jnp.eye(len(points), dtype=points.dtype))
    return InducingFeatures(kernel, points, factor.tril, start + factor.jitter)


def features_at(
    prior: GP, x: Float[Array, "n d"], inducing_points: Any, jitter: float | None
) -> tuple[InducingFeatures, Float[Array, "m n"]]:
    """The features of inducing points, and what they are at the data, shape `(m, n)`.

    Raises:
        ValueError: points of the wrong rank or dimension, none, NaN, or more of them than data.
    """
    points = all_points(inducing_points, "inducing_points").astype(x.dtype)
    if points.shape[1] != x.shape[1]:
        raise ValueError(
            "inducing_points and x must have the same dimension, got "
            f"{points.shape[1]} and {x.shape[1]}"
        )
    if len(points) > len(x):
        raise ValueError(
            f"inducing_points: {len(points)} are more than {len(x)} data; the exact "
            "posterior, from condition, costs less"
        )
    features = inducing_features(prior.kernel, points, jitter)
    return features, features(x)


def diagonal_noise(prior: GP, x: Float[Array, "n d"]) -> Float[Array, " n"]:
    """The variances of the noise, shape `(n,)`; NaN where known only at run time and not positive.

    Raises:
        ValueError: it is correlated, of another number of observations, or known and not positive.
    """
    check_prior(prior)
    operator = prior.noise_operator(x)
    if not isinstance(operator, ops.Diag | ops.ScaledIdentity):
        raise ValueError(
            "noise_var must be a scalar or (n,) for a sparse approximation, got "
            f"{type(operator).__name__}"
        )
    if not isinstance(prior.noise_var, jax.core.Tracer | ops.AbstractOperator):
        text = f"noise_var must be positive, got {prior.noise_var}"
        refuse_where(prior.noise_var, lambda v: ~(v > 0), text)
    noise = operator.diag().astype(x.dtype)
    return jnp.where(noise > 0, noise, jnp.nan)  # densities are then NaN, which samplers avoid


LARGEST = 10_000  # points that k-means looks at
LLOYD_STEPS = 20


class GreedyPoints(NamedTuple):
    """Result of `greedy_points`: the chosen inputs.

    Attributes:
        points: in the order in which they were chosen, shape `(num, d)`.
        index: their indices among the inputs, shape `(num,)`.
        remaining: variances of the process at all inputs given its values at the points, shape
            `(n,)`.
    """

    points: Float[Array, "num d"]
    index: Int[Array, " num"]
    remaining: Float[Array, " n"]


def greedy_points(kernel: AbstractKernel, x: Any, num: int) -> GreedyPoints:
    """Inputs chosen one by one where the process is least known given those before.

    That is the order of pivots of a pivoted Cholesky factorisation, in $O(n m^2)$ time and
    $O(n m)$ memory for `m = num`. Better than `kmeans_points` for `sgpr`, since it knows the
    lengthscales; the sum of `remaining` says whether the points are enough. The order changes with
    the kernel, so that after a fit points may be chosen anew.

    Args:
        kernel: the covariance function.
        x: inputs, shape `(n, d)` or `(n,)`.
        num: how many.

    Raises:
        ValueError: `num` is not in 1 to `n`; NaN in `x`, or its rank is wrong.

    References:
        Fine and Scheinberg (2001), "Efficient SVM training using low-rank kernel representations",
        JMLR 2; Burt, Rasmussen and van der Wilk (2020), "Convergence of sparse variational
        inference in Gaussian processes regression", JMLR 21, for inducing points.
    """
    x = _checked("greedy_points", x, num)
    return _greedy(kernel, x, num)


def kmeans_points(key: jax.Array, x: Any, num: int) -> Float[Array, "num d"]:
    """Centres of clusters of the inputs, by k-means from a random start far apart.

    Distances are those of `x` as it is: standardise its columns. Of more than 10 000 inputs a
    random part of that size is used. For few points, or before the kernel is known; see
    `greedy_points`.

    Args:
        key: for the start.
        x: inputs, shape `(n, d)` or `(n,)`.
        num: how many centres.

    Returns:
        Shape `(num, d)`.

    Raises:
        ValueError: `num` is not in 1 to `n`; NaN in `x`, or its rank is wrong.

    References:
        Arthur and Vassilvitskii (2007), "k-means++: the advantages of careful seeding", SODA;
        Lloyd (1982), "Least squares quantization in PCM".
    """
    check_key(key)
    x = _checked("kmeans_points", x, num)
    part, key = random.split(key)
    if len(x) > max(LARGEST, num):
        x = random.choice(part, x, (max(LARGEST, num),), replace=False)
    return _kmeans(key, x, num)


@eqx.filter_jit
def _greedy(kernel: AbstractKernel, x: jax.Array, num: int) -> GreedyPoints:
    variance = kernel.diag(x)
    # What rounding leaves of a variance: dividing by it would make new directions of noise.
    floor = len(x) * jnp.finfo(x.dtype).eps * variance

    def choose(i: Any, carry: Any) -> Any:
        rows, remaining, free, index = carry
        at = jnp.argmax(jnp.where(free, remaining, -1.0))
        column = kernel.gram(x, x[at][None])[:, 0] - rows.T @ rows[:, at]
        known = remaining[at] <= floor[at]
        row = jnp.where(known, 0.0, column / jnp.sqrt(jnp.where(known, 1.0, remaining[at])))
        remaining = jnp.maximum(remaining - row**2, 0.0)
        free = free.at[at].set(False)
        remaining = jnp.where(free, remaining, 0.0)
        return rows.at[i].set(row), remaining, free, index.at[i].set(at)

    rows = jnp.zeros((num, len(x)), x.dtype)
    start = rows, variance, jnp.ones(len(x), bool), jnp.zeros(num, int)
    _, remaining, _, index = jax.lax.fori_loop(0, num, choose, start)
    return GreedyPoints(x[index], index, remaining)


@functools.partial(jax.jit, static_argnames="num")
def _kmeans(key: jax.Array, x: jax.Array, num: int) -> jax.Array:
    first, rest = random.split(key)
    middle = jnp.mean(x, axis=0)
    x = x - middle  # an offset in common would cost digits of the distances below
    start = x[random.randint(first, (), 0, len(x))]

    def seed(nearest: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        chosen = x[random.categorical(key, jnp.log(nearest))]
        return jnp.minimum(nearest, jnp.sum((x - chosen) ** 2, axis=1)), chosen

    nearest = jnp.sum((x - start) ** 2, axis=1)
    _, others = jax.lax.scan(seed, nearest, random.split(rest, num - 1))
    centres = jnp.concatenate([start[None], others])

    def lloyd(_: Any, centres: jax.Array) -> jax.Array:
        # |x|² is the same for all centres and left out.
        distance = jnp.sum(centres**2, axis=1) - 2 * x @ centres.T
        member = jax.nn.one_hot(jnp.argmin(distance, axis=1), num, dtype=x.dtype)
        count = jnp.sum(member, axis=0)[:, None]
        mean = member.T @ x / jnp.maximum(count, 1)
        return jnp.where(count > 0, mean, centres)  # one without members stays

    return jax.lax.fori_loop(0, LLOYD_STEPS, lloyd, centres) + middle


def _checked(name: str, x: Any, num: int) -> jax.Array:
    x = all_points(x)
    whole_number(f"{name}: num", num, 1, len(x))
    return x
