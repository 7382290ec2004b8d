"""Discrepancies of two processes, estimated from draws of their functions at the same inputs."""

from __future__ import annotations

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._core import check_flag, check_key, checked_finite, number_array, safe_sqrt, whole_number
from .._arguments import positive
from ._critic import CriticTraining


class AbstractDiscrepancy(eqx.Module):
    """Abstract base class of discrepancies between samples of functions."""

    @abc.abstractmethod
    def __call__(
        self, key: jax.Array, f: Float[Array, "s m"], g: Float[Array, "s m"]
    ) -> Float[Array, ""]:
        """An estimate that is differentiable in the draws, scalar.

        Args:
            key: PRNG key.
            f: values of `s` functions at `m` inputs.
            g: those of the other process.
        """


class Wasserstein(AbstractDiscrepancy):
    r"""Wasserstein-1 distance $\sup_\phi E \phi(f) - E \phi(g)$ over functions of slope at most 1.

    The critic $\phi$ is a perceptron, started anew and trained each time on one half of the draws;
    its mean difference on the other half is the estimate, so that what it learned by heart does not
    count. It is a bound from below, as far as the slope is kept, and of more noise than bias.

    Args:
        width: of the two hidden layers of the critic.
        max_steps: most steps of Adagrad of the critic.
        learning_rate: of the critic. Where the estimate rises while the prior is trained, the
            critic lags behind: take more steps or longer ones.
        penalty: weight of the mean squared deviation of the critic's slope from 1.
        one_sided: whether only slopes above 1 are penalised.
        tol: norm of the critic's gradient below which its training ends.

    Raises:
        ValueError: options out of range.

    References:
        Tran, Rossi, Milios and Filippone (2022), "All you need is a good functional prior for
        Bayesian deep learning", JMLR 23, section 4.1, equations 12 to 14.
    """

    critic: CriticTraining

    def __init__(
        self,
        width: int = 200,
        max_steps: int = 50,
        learning_rate: float = 0.05,
        penalty: float = 10.0,
        *,
        one_sided: bool = False,
        tol: float = 0.01,
    ):
        owner = "Wasserstein"
        check_flag(f"{owner}: one_sided", one_sided)
        self.critic = CriticTraining(
            whole_number(f"{owner}: width", width),
            whole_number(f"{owner}: max_steps", max_steps),
            _number(owner, "learning_rate", learning_rate),
            _number(owner, "penalty", penalty),
            one_sided,
            _number(owner, "tol", tol, zero=True),
        )

    def __call__(
        self, key: jax.Array, f: Float[Array, "s m"], g: Float[Array, "s m"]
    ) -> Float[Array, ""]:
        half = len(f) // 2
        known = jax.lax.stop_gradient((f[:half], g[:half]))
        critic = jax.lax.stop_gradient(self.critic(key, *known)[0])
        return jnp.mean(critic(f[half:])) - jnp.mean(critic(g[half:]))


class SlicedWasserstein(AbstractDiscrepancy):
    """Mean Wasserstein-1 distance of the draws in random directions, without a critic.

    Its estimate is positive also for the same process, falling as the inverse square root of the
    number of draws, and favours slightly smaller scales: by about 4 % at 128 draws.

    Args:
        num_projections: how many directions.

    Raises:
        ValueError: no such number.

    References:
        Bonneel, Rabin, Peyré and Pfister (2015), "Sliced and Radon Wasserstein barycenters of
        measures", Journal of Mathematical Imaging and Vision 51, section 3.
    """

    num_projections: int = eqx.field(static=True)

    def __init__(self, num_projections: int = 128):
        self.num_projections = whole_number("SlicedWasserstein: num_projections", num_projections)

    def __call__(
        self, key: jax.Array, f: Float[Array, "s m"], g: Float[Array, "s m"]
    ) -> Float[Array, ""]:
        directions = jax.random.normal(key, (f.shape[1], self.num_projections), f.dtype)
        directions /= jnp.linalg.norm(directions, axis=0)
        ordered = [jnp.sort(rows @ directions, axis=0) for rows in (f, g)]
        return jnp.mean(jnp.abs(ordered[0] - ordered[1]))


class MMD(AbstractDiscrepancy):
    r"""Squared maximum mean discrepancy of the draws, unbiased, of a kernel that needs no tuning.

    `"energy"` has the kernel $-\lVert f - g \rVert$, whose discrepancy is the energy distance;
    `"rbf"` has $\exp(-\lVert f - g \rVert^2 / 2 h^2)$ with the median $h$ of the distances between
    the two samples. As an unbiased estimate of something not negative it may be negative.

    Args:
        kernel: `"energy"` or `"rbf"`.

    Raises:
        ValueError: another kernel.

    References:
        Gretton, Borgwardt, Rasch, Schölkopf and Smola (2012), "A kernel two-sample test", JMLR 13,
        equation 3; Székely and Rizzo (2013), "Energy statistics", Journal of Statistical Planning
        and Inference 143.
    """

    kernel: str = eqx.field(static=True)

    def __init__(self, kernel: str = "energy"):
        if kernel not in ("energy", "rbf"):
            raise ValueError(f"MMD: kernel must be 'energy' or 'rbf', got {kernel!r:.80}")
        self.kernel = kernel

    def __call__(
        self, key: jax.Array, f: Float[Array, "s m"], g: Float[Array, "s m"]
    ) -> Float[Array, ""]:
        del key
        between = _squares(f, g)
        bandwidth = jnp.median(jax.lax.stop_gradient(between))

        def similarity(squares: jax.Array) -> jax.Array:
            if self.kernel == "energy":
                return -safe_sqrt(squares)
            return jnp.exp(-squares / (2 * bandwidth))

        within = [_mean_of_pairs(similarity(_squares(rows, rows))) for rows in (f, g)]
        return within[0] + within[1] - 2 * jnp.mean(similarity(between))


def functions_distance(
    key: jax.Array, f: Any, g: Any, num_projections: int = 256
) -> Float[Array, ""]:
    """Sliced Wasserstein-1 distance of two samples of functions, in the units of their values.

    Args:
        key: PRNG key, of the directions.
        f: values of `s` functions at the same inputs, shape `(s, m)` or `(s, m, p)`.
        g: as many of another process at these inputs.
        num_projections: how many directions.

    Returns:
        Scalar. For two samples of one process it is not 0, but falls with the number of draws.

    Raises:
        ValueError: no key or number; shapes that disagree, empty or NaN.
    """
    check_key(key)
    sliced = SlicedWasserstein(whole_number("functions_distance: num_projections", num_projections))
    arrays = []
    for name, value in (("f", f), ("g", g)):
        array = jnp.asarray(number_array(f"functions_distance: {name}", value))
        if array.ndim not in (2, 3) or not jnp.issubdtype(array.dtype, jnp.floating):
            raise ValueError(
                f"functions_distance: {name} must hold values of functions, shape (s, m) or "
                f"(s, m, p), got {array.dtype} of shape {array.shape}"
            )
        arrays.append(checked_finite(f"functions_distance: {name}", array))
    if arrays[0].shape != arrays[1].shape:
        raise ValueError(
            "functions_distance: g must have the shape of f, as many functions at as many inputs; "
            f"got {arrays[1].shape} and {arrays[0].shape}"
        )
    dtype = jnp.result_type(*[array.dtype for array in arrays])
    return sliced(key, *(flat(array).astype(dtype) for array in arrays))


def flat(f: jax.Array) -> jax.Array:
    """Values of functions with all outputs in one row, shape `(s, m)` or `(s, m * p)`."""
    return f.reshape(len(f), -1)


def _squares(f: jax.Array, g: jax.Array) -> jax.Array:
    """Squared distances between rows, by inner products about a point in their midst."""
    centre = jax.lax.stop_gradient(jnp.mean(g, 0))
    f, g = f - centre, g - centre
    return jnp.maximum(jnp.sum(f**2, -1)[:, None] + jnp.sum(g**2, -1) - 2 * f @ g.T, 0)


def _mean_of_pairs(values: jax.Array) -> jax.Array:
    """The mean of a square matrix off its diagonal."""
    size = len(values)
    return (jnp.sum(values) - jnp.trace(values)) / (size * (size - 1))


def _number(owner: str, name: str, value: Any, *, zero: bool = False) -> float:
    return float(positive(owner, name, value, jnp.result_type(float), zero=zero))
