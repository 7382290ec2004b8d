"""Curvature of a network's likelihood in its weights: Gauss-Newton and Fisher matrices."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import random

from .. import ops
from .._core import check_key, whole_number
from ..likelihoods import (
    fisher_information,
    Gaussian,
    in_support,
    Likelihood,
    observed_information,
    scores,
)
from ._arguments import inputs
from ._function import network_function, NetworkFunction
from ._leaves import Leaves, random_leaves, Where
from ._network import check_network, network_values

KINDS = ("ggn", "fisher", "empirical")
ELEMENTS = 2**22  # of Jacobians that are held at a time, by default


class Problem(NamedTuple):
    """A network, its data, and its values there.

    Attributes:
        function: of its random leaves.
        x: inputs, shape `(n, ...)`.
        f: values, shape `(n,)` or `(n, p)`.
        y: observations, or None.
        likelihood: of these.
        chunk_size: how many data are treated at a time.
    """

    function: NetworkFunction
    x: jax.Array
    f: jax.Array
    y: Any
    likelihood: Any
    chunk_size: int


class Whitened(eqx.Module):
    r"""$R_i^\top f(x_i)$: values of a network by the root of a datum's weight."""

    function: NetworkFunction

    def __call__(self, vector: jax.Array, datum: Any) -> jax.Array:
        x, root = datum
        return ops.times_root(root, self.function(vector, x).reshape(-1))


def gauss_newton(
    network: Any,
    x: Any,
    y: Any,
    likelihood: Likelihood,
    *,
    where: Where = None,
    chunk_size: int | None = None,
) -> ops.GaussNewton:
    r"""The generalised Gauss-Newton matrix $\sum_i J_i^\top W_i J_i$ of a network, matrix-free.

    $J_i$ is the Jacobian of the network's value at $x_i$ in its random leaves, flattened and
    joined in the order of the network's leaves; $W_i$ is minus the Hessian of the log likelihood of
    $y_i$ in that value, see `likelihoods.observed_information`. Of a likelihood of an exponential
    family in its natural parameter it is the Fisher information.

    Args:
        network: a callable Equinox module of one input, with values of shape `()` or `(p,)`; its
            dropout is off.
        x: inputs, shape `(n, ...)`.
        y: observations, shape `(n,)`, or `(n, ...)`.
        likelihood: from values of the network `(n,)` or `(n, p)` to a NumPyro distribution.
        where: which leaves are random, see `mean_field`.
        chunk_size: how many data are treated at a time; by default all.

    Raises:
        ValueError: no such network or leaves, leaves of several types, shapes that disagree, NaN
            in `x`, `y` outside of the likelihood's support, a likelihood without a Hessian.
        TypeError: the likelihood does not return a NumPyro distribution.
        RuntimeError: under `jit`, such values.
    """
    found = problem("gauss_newton", network, x, y, likelihood, where, chunk_size)
    return matrix_of(found, weight_roots("gauss_newton", found, "ggn"), chunk_size)


def fisher(
    network: Any,
    x: Any,
    likelihood: Likelihood,
    *,
    where: Where = None,
    key: jax.Array | None = None,
    num_samples: int = 100,
    chunk_size: int | None = None,
) -> ops.GaussNewton:
    r"""The Fisher information of a network's random leaves at inputs, matrix-free.

    $\sum_i J_i^\top F_i J_i$, where $F_i$ is the expectation under the likelihood's own
    distribution of observations at $x_i$, see `likelihoods.fisher_information`: no observations
    are needed. `empirical_fisher` is another matrix.

    Args:
        network: see `gauss_newton`.
        x: inputs, shape `(n, ...)`.
        likelihood: see `gauss_newton`.
        where: which leaves are random, see `mean_field`.
        key: for likelihoods whose Fisher information has no closed form.
        num_samples: draws of each observation for these.
        chunk_size: how many data are treated at a time; by default all.

    Raises:
        ValueError: see `gauss_newton`; no closed form and no key.
    """
    found = problem("fisher", network, x, None, likelihood, where, chunk_size)
    roots = weight_roots("fisher", found, "fisher", key, num_samples)
    return matrix_of(found, roots, chunk_size)


def empirical_fisher(
    network: Any,
    x: Any,
    y: Any,
    likelihood: Likelihood,
    *,
    where: Where = None,
    chunk_size: int | None = None,
) -> ops.GaussNewton:
    r"""The empirical Fisher matrix, the sum of outer products of each datum's gradient.

    $\sum_i g_i g_i^\top$ with $g_i = \nabla_\theta \log p(y_i \mid f(x_i; \theta))$ at the
    observations that there are. It is no Fisher information, whose expectation is under the
    model, and no approximation of the Hessian away from a well-specified optimum.

    Args:
        network: see `gauss_newton`, also for the other arguments.
        x: inputs, shape `(n, ...)`.
        y: observations, shape `(n,)`, or `(n, ...)`.
        likelihood: from values of the network to a NumPyro distribution.
        where: which leaves are random, see `mean_field`.
        chunk_size: how many data are treated at a time; by default all.

    Raises:
        ValueError: see `gauss_newton`.

    References:
        Kunstner, Balles and Hennig (2019), "Limitations of the empirical Fisher approximation for
        natural gradient descent", NeurIPS.
    """
    found = problem("empirical_fisher", network, x, y, likelihood, where, chunk_size)
    roots = weight_roots("empirical_fisher", found, "empirical")
    return matrix_of(found, roots, chunk_size)


def problem(
    owner: str,
    network: Any,
    x: Any,
    y: Any,
    likelihood: Likelihood,
    where: Where | Leaves,
    chunk_size: int | None,
) -> Problem:
    """The checked arguments of a function of this package; without `y` for None.

    Args:
        owner: function whose arguments these are.
        network: see `gauss_newton`, also for the other arguments.
        x: inputs.
        y: observations, or None.
        likelihood: from values to a distribution.
        where: which leaves are random, or these.
        chunk_size: how many data are treated at a time; None for as many as have some 4 million
            elements of their Jacobians.

    Raises:
        ValueError: see `gauss_newton`.
        TypeError: the likelihood does not return a NumPyro distribution.
    """
    check_network(owner, network)
    leaves = where if isinstance(where, Leaves) else random_leaves(owner, network, where)
    types = {str(value.dtype) for value in leaves.of(network)}
    if len(types) > 1:
        raise ValueError(
            f"{owner}: the random leaves must have one type, they have {', '.join(sorted(types))}; "
            "convert the network, or choose some by where"
        )
    function = network_function(network, leaves)
    x, guard = inputs(owner, x, function.values[0].dtype)
    f = jax.eval_shape(lambda x: network_values(owner, function.held.tree, x, None), x)
    if f.dtype != function.values[0].dtype:
        raise ValueError(
            f"{owner}: the network returns {f.dtype} and its random leaves are {types.pop()}; "
            "convert it to one type"
        )
    vector = function.vector
    if chunk_size is None:
        chunk_size = max(1, ELEMENTS // (f.size // len(x) * vector.size))
    chunk_size = whole_number(f"{owner}: chunk_size", chunk_size)
    guard = guard.astype(f.dtype)
    f = ops.Jacobian(function, vector, x, chunk=chunk_size).value().reshape(f.shape)
    if y is not None:
        try:
            y, guard = in_support(likelihood, y, f, guard, each_output=True)
        except ValueError as error:
            hint = ""
            if f.shape[1:] == (1,):
                hint = "; the network has one output in a vector: is out_size='scalar' meant?"
            raise ValueError(f"{owner}: {error}{hint}") from error
    return Problem(function, x, guard * f, y, likelihood, chunk_size)


def weight_roots(
    owner: str,
    found: Problem,
    kind: str,
    key: jax.Array | None = None,
    num_samples: int | None = None,
    unit_noise: bool = False,
) -> Any:
    """Roots of the weight of each datum, as `ops.times_root` takes them.

    Args:
        owner: function whose arguments these are.
        found: of that function.
        kind: `"ggn"`, `"fisher"` or `"empirical"`.
        key: for draws, where they are needed, or asked for by `num_samples`.
        num_samples: how many.
        unit_noise: whether normal noise has the variance 1, for one that is known later.

    Raises:
        ValueError: another kind; no Hessian, or no closed form and no key.
    """
    if kind not in KINDS:
        raise ValueError(
            f'{owner}: curvature must be one of "ggn", "fisher", "empirical"; got {kind!r}'
        )
    likelihood, num = with_noise(found, unit_noise), len(found.f)
    f = jax.lax.stop_gradient(found.f)
    if kind == "empirical":
        return scores(likelihood, f, found.y).reshape(num, -1, 1)
    if kind == "ggn":
        return ops.weight_roots(observed_information(likelihood, f, found.y), num)
    count = 100 if num_samples is None else whole_number(f"{owner}: num_samples", num_samples)
    return ops.weight_roots(fisher_information(likelihood, f, key=key, num_samples=count), num)


def with_noise(found: Problem, unit: bool) -> Any:
    """The likelihood, with a noise variance of 1 where `unit` says so and noise is normal."""
    if unit and isinstance(found.likelihood, Gaussian):
        return Gaussian(jnp.ones((), found.f.dtype))
    return found.likelihood


def drawn_roots(
    owner: str, found: Problem, key: jax.Array, num_samples: int, unit_noise: bool = False
) -> Any:
    """Scores at draws of the likelihood's own observations, columns over the root of their number.

    Args:
        owner: function whose arguments these are.
        found: of that function.
        key: for the draws.
        num_samples: of each observation.
        unit_noise: whether normal noise has the variance 1.

    Raises:
        ValueError: no key, or no draws.
    """
    check_key(key)
    num = whole_number(f"{owner}: num_samples", num_samples)
    f = jax.lax.stop_gradient(found.f)
    likelihood = with_noise(found, unit_noise)

    def one(key: jax.Array) -> jax.Array:
        y = jax.lax.stop_gradient(likelihood(f).sample(key))
        return scores(likelihood, f, y).reshape(len(f), -1)

    return jax.vmap(one, out_axes=-1)(random.split(key, num)) / num**0.5


def matrix_of(found: Problem, roots: Any, chunk_size: int | None) -> ops.GaussNewton:
    """The matrix of a network whose data have weights with these roots."""
    function = Whitened(found.function)
    data = (found.x, roots)
    return ops.GaussNewton(ops.Jacobian(function, found.function.vector, data, chunk=chunk_size))
