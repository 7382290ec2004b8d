"""The posterior of a linearised network's function."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from numpyro import distributions as dist

from .. import ops
from .._core import (
    first_of,
    is_successful,
    refuse_where,
    RESULTS,
    run_traced,
    thrown,
    traced,
    whole_number,
)
from ..likelihoods import AbstractPosterior, Gaussian, predictive
from ._arguments import check_draws, inputs
from ._function import NetworkFunction
from ._laplace_evidence import Hyper, log_joint, noise_of
from ._laplace_predict import joint_predictive
from ._layer_structures import covariances_of_views, KronStructure, LayerStructure
from ._samples import NetworkSamples
from ._structures import (
    AbstractStructure,
    AbstractWeights,
    covariances_of_rows,
)
from ._taps import find_layers, seen, with_calls

FAR = 0.1  # posterior standard deviations of each weight, on average, that a mode is away at most


class About(NamedTuple):
    """What Laplace's approximation takes from a network and its data.

    Attributes:
        function: the network, of its random leaves.
        likelihood: of the observations.
        structure: curvature of the log likelihood; of normal noise, at a variance of 1.
        slope: derivatives of the log likelihood in the weights, there likewise, shape `(m,)`.
        fit: the log likelihood; of normal noise the sum of squared residuals.
        f: values of the network at the data.
    """

    function: NetworkFunction
    likelihood: Any
    structure: AbstractStructure
    slope: jax.Array
    fit: jax.Array
    f: jax.Array


class LaplacePosterior(AbstractPosterior):
    r"""Posterior of a linearised network's function, Gaussian at all inputs; made by `laplace`.

    Values of a network with `p` outputs have shape `(m, p)`, and so have moments. The network is
    at a mode where `result` is successful: if not, train it further with this prior, or take
    `mean="linear"`; tuning the prior moves the mode, too.

    Attributes:
        layers: names of the modules that hold the random leaves.
        prior_precision: of the weights of each of them, shape `(L,)`.
        gradient_norm: length of the gradient of the log posterior density at the network, scalar.
        mode_distance: how far the mode of the linear model is from the network, in posterior
            standard deviations of its weights, root mean square, scalar.
        result: whether that is at most a tenth.
        about: the network, its curvature and fit.
        weights: the Gaussian of the weights around the network's.
        shift: from there to the weights at which the function has its mean, shape `(m,)`.
    """

    about: About
    layers: tuple[str, ...] = eqx.field(static=True)
    prior_precision: Float[Array, " L"]
    weights: AbstractWeights
    gradient_norm: Float[Array, ""]
    mode_distance: Float[Array, ""]
    result: RESULTS
    shift: Float[Array, " m"] | None
    noise_power: int = eqx.field(static=True)
    chunk_size: int = eqx.field(static=True)

    @property
    def likelihood(self) -> Any:
        """That of the observations."""
        return self.about.likelihood

    @property
    def at_mode(self) -> jax.Array:
        """Whether `result` is successful."""
        return is_successful(self.result)

    @property
    def message(self) -> str:
        """Where the network is, with what to do if that is no mode."""
        where = (
            f"the network is {float(self.mode_distance):.2g} posterior standard deviations from a "
            f"mode, with a gradient of length {float(self.gradient_norm):.2g}"
        )
        if self.at_mode:
            return where
        return f'{where}: train it further with this prior, or take mean="linear"'

    def mean(self, x: Any) -> Float[Array, "m ..."]:
        """Means of the function, shape `(m,)` or `(m, p)`."""
        x, guard = self._inputs("mean", x)
        return guard * self._mean(x)

    def moments(self, x: Any) -> tuple[Float[Array, "m ..."], Float[Array, "m ..."]]:
        """Mean and variance of the function at each input, shape `(m,)` or `(m, p)` both."""
        mean, covariance = self.output_moments(x)
        variance = jnp.maximum(jnp.diagonal(covariance, axis1=1, axis2=2), 0)
        return mean, variance.reshape(mean.shape)

    def output_moments(self, x: Any) -> tuple[Float[Array, "m ..."], Float[Array, "m p p"]]:
        """Mean of the function at each input, and covariances of its outputs there."""
        x, guard = self._inputs("output_moments", x)
        return guard * self._mean(x), self._covariances(x)

    def covariance(self, x: Any) -> Float[Array, ...]:
        """Covariances of the function between inputs, `(m, m)`, or `(p, m, m)` of each output."""
        x, guard = self._inputs("covariance", x)
        rows = self._jacobian(x).dense()
        rows = guard * jnp.moveaxis(rows.reshape(len(x), -1, rows.shape[-1]), 1, 0)
        found = self.weights.covariance_of(rows)
        found = 0.5 * (found + found.mT)
        return found[0] if self.about.f.ndim == 1 else found

    def predict(self, x: Any, *, method: str = "nodes", num_nodes: int = 256) -> dist.Distribution:
        r"""Predictive distribution of a new observation at each input, batch shape `(m,)`.

        Normal with normal noise, of several outputs a multivariate normal; `likelihoods.predictive`
        for one output. Else the likelihood's distributions are averaged over the outputs of an
        input, jointly, at fixed nodes of equal weight, images of a Sobol sequence: a Bernoulli or
        categorical distribution for classes, else a `NetworkMixture`. No draw is made.

        Args:
            x: inputs, shape `(m, ...)`.
            method: `"nodes"`, or `"probit"` for the cheaper probit approximation of classes, which
                divides the logits by $\sqrt{1 + \pi v / 8}$ of their variances.
            num_nodes: of several outputs; memory is linear in them. A power of two.

        Raises:
            ValueError: the likelihood holds data of each observation; the method is unknown, or
                `"probit"` and the observations are no classes.

        References:
            MacKay (1992), "The evidence framework applied to classification networks"; Daxberger
            et al. (2021), "Laplace redux", section 2, for several classes.
        """
        if method not in ("nodes", "probit"):
            raise ValueError(f'predict: method must be "nodes" or "probit", got {method!r}')
        number = whole_number("predict: num_nodes", num_nodes)
        return self._predictive(*self.output_moments(x), method, number)

    def _predictive(
        self,
        mean: Float[Array, "m ..."],
        covariance: Float[Array, "m p p"],
        method: str,
        num_nodes: int,
    ) -> dist.Distribution:
        """That of `predict`, of moments of the function."""
        if mean.ndim == 1 and method == "nodes":
            return predictive(self.likelihood, mean, jnp.maximum(covariance[:, 0, 0], 0))
        return joint_predictive(self.likelihood, mean, covariance, method, num_nodes)

    def sample(
        self, key: jax.Array, x: Any, sample_shape: tuple[int, ...] = ()
    ) -> Float[Array, ...]:
        """Joint draws of the linearised function, `(*sample_shape, m)` or `(*sample_shape, m, p)`.

        By draws of the weights and products with the Jacobian, which is not formed.
        """
        check_draws("sample", key, sample_shape)
        x, guard = self._inputs("sample", x)
        draws = self.weights.sample(key, math.prod(sample_shape))
        moved = self._jacobian(x).mm(draws.T).T
        mean = guard * self._mean(x)
        return mean + moved.reshape(*sample_shape, *mean.shape)

    def sample_networks(self, key: jax.Array, num_samples: int) -> NetworkSamples:
        """Networks with weights drawn from the Gaussian, not linearised.

        Their predictions are worse than those of the linearised function as a rule, as the
        curvature is that of the latter.

        Raises:
            ValueError: no key, or no samples.
        """
        num = whole_number("sample_networks: num_samples", num_samples)
        check_draws("sample_networks", key, (num,))
        function = self.about.function
        vectors = function.vector + self._shift() + self.weights.sample(key, num)
        whole = function.held.tree
        values = jax.vmap(lambda v: function.leaves.of(function.network(v)))(vectors)
        stacked = function.leaves.only(eqx.filter(whole, eqx.is_array), values)
        return NetworkSamples(stacked, self.likelihood, shared=whole)

    def log_evidence(self) -> Float[Array, ""]:
        r"""Laplace's approximation of the log marginal likelihood of the data, scalar.

        $\log p(y \mid \theta_*) + \log p(\theta_*) + \frac m2 \log 2\pi - \frac12 \log\det(H +
        \Delta)$; with `mean="linear"` it is that of the linear model, which adds half of the
        squared `mode_distance` of all weights together. Exact for linear networks with normal
        noise, at a mode, and with that option elsewhere, too. Of likelihoods that are not
        log-concave, such as Student's, negative curvature counts as none in `H`.
        """
        hyper = Hyper(self.prior_precision, noise_of(self.likelihood))
        value = log_joint(hyper, self.about.fit, self._squares(), self._sizes(), self.about.f.size)
        value -= 0.5 * self.weights.logdet()
        if self.shift is None:
            return value
        return value + 0.5 * self.mode_distance**2 * self.about.slope.size

    def at(self, *, prior_precision: Any = None, noise_var: Any = None) -> LaplacePosterior:
        """The same with another prior or noise; the curvature is not computed anew.

        Args:
            prior_precision: positive, scalar or shape `(L,)`; by default as it is.
            noise_var: of a Gaussian likelihood, positive, scalar; by default as it is.

        Raises:
            ValueError: values that are known to be out of range, other shapes, or a noise variance
                of another likelihood.
        """
        precision = self.prior_precision
        if prior_precision is not None:
            given = jnp.asarray(prior_precision, precision.dtype)
            if given.shape not in ((), (1,), precision.shape):
                raise ValueError(
                    f"at: prior_precision must be a scalar or have shape {precision.shape}, got "
                    f"{given.shape}"
                )
            text = "at: prior_precision must be positive and finite"
            given = refuse_where(given, lambda v: ~((v > 0) & (v < np.inf)), text)
            precision = jnp.broadcast_to(jnp.asarray(given), precision.shape)
        about = self.about
        if noise_var is not None:
            if noise_of(self.likelihood) is None:
                raise ValueError("at: noise_var is known for likelihoods.Gaussian only")
            about = about._replace(likelihood=Gaussian(noise_var))
        mean = "network" if self.shift is None else "linear"
        return conditioned(about, self.layers, precision, mean, self.noise_power, self.chunk_size)

    def _inputs(self, owner: str, x: Any) -> tuple[jax.Array, jax.Array]:
        x, guard = inputs(owner, x, self.about.f.dtype)
        return x, guard.astype(self.about.f.dtype)

    def _shift(self) -> jax.Array:
        return jnp.zeros_like(self.about.slope) if self.shift is None else self.shift

    def _mean(self, x: jax.Array) -> jax.Array:
        jacobian = self._jacobian(x)
        f = jacobian.value()
        f = f if self.shift is None else f + jacobian.mv(self.shift)
        return f.reshape(len(x), *self.about.f.shape[1:])

    def _jacobian(self, x: jax.Array) -> ops.Jacobian:
        function = self.about.function
        return ops.Jacobian(function, function.vector, x, chunk=self.chunk_size)

    def _covariances(self, x: jax.Array) -> jax.Array:
        function, vector = self.about.function, self.about.function.vector
        first = jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
        if isinstance(self.about.structure, KronStructure | LayerStructure):
            layers = find_layers("predict", function.held.tree, function.leaves)
            layers = with_calls("predict", function, layers, first)
            if not any(layer.repeated for layer in layers):
                eye = jnp.eye(math.prod(self.about.f.shape[1:]), dtype=vector.dtype)
                look = traced(lambda v, x: seen(function, layers, v, x, eye), vector, first)
                args = self.weights, look, vector, x, self.chunk_size
                return run_traced(covariances_of_views, look, *args)

        def of_one(vector: jax.Array, x: jax.Array) -> jax.Array:
            return jax.jacrev(lambda v: function(v, x).reshape(-1))(vector)

        rows = traced(of_one, vector, first)
        return run_traced(covariances_of_rows, rows, self.weights, rows, vector, x, self.chunk_size)

    def _squares(self) -> Float[Array, " L"]:
        """Sums of squared weights of each layer."""
        vector = self.about.function.vector
        return jnp.zeros_like(self.prior_precision).at[self._layer].add(vector**2)

    def _sizes(self) -> Float[Array, " L"]:
        return jnp.zeros_like(self.prior_precision).at[self._layer].add(1.0)

    @property
    def _layer(self) -> Int[Array, " m"]:
        return self.about.structure.layer


def conditioned(
    about: About,
    layers: tuple[str, ...],
    precision: jax.Array,
    mean: str,
    noise_power: int,
    chunk_size: int,
) -> LaplacePosterior:
    """The posterior with a prior precision for each layer and the noise of the likelihood."""
    noise_var = noise_of(about.likelihood)
    one = jnp.ones((), precision.dtype)
    noise_var = one if noise_var is None else noise_var.astype(precision.dtype)
    weights = about.structure.weights(precision, noise_var**-noise_power)
    vector = about.function.vector
    gradient = about.slope / noise_var - precision[about.structure.layer] * vector
    step = weights.solve(gradient)
    distance = jnp.sqrt(jnp.maximum(gradient @ step, 0) / vector.size)
    result = first_of(
        (distance <= FAR, RESULTS.successful),
        (~jnp.isfinite(distance), RESULTS.nonfinite),
        otherwise=RESULTS.max_steps_reached,
    )
    return LaplacePosterior(
        about, layers, precision, weights, jnp.linalg.norm(gradient), distance, result,
        step if mean == "linear" else None, noise_power, chunk_size,
    )  # fmt: skip


def settled(posterior: LaplacePosterior, throw: bool) -> LaplacePosterior:
    """The posterior, or an error where the network is not at a mode."""
    if not throw:
        return posterior
    norm = thrown("laplace", posterior.result, posterior.gradient_norm)
    return eqx.tree_at(lambda p: p.gradient_norm, posterior, norm)
