"""The bar (Riemann) distribution: a histogram between borders, with half-normal tails."""

from __future__ import annotations

from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr
from numpyro.distributions import constraints, Distribution
from numpyro.distributions.util import validate_sample

from .._core import number_array, refuse_where
from ._bars import at, Bars


class _BarLogits(constraints.ParameterFreeConstraint):
    """Vectors of unnormalised log probabilities: -inf is an empty bar, not all may be empty."""

    event_dim = 1

    def __call__(self, x: Any) -> jax.Array:
        return jnp.all(x < jnp.inf, axis=-1) & jnp.any(x > -jnp.inf, axis=-1)

    def feasible_like(self, prototype: jax.Array) -> jax.Array:
        return jnp.zeros_like(prototype)

    def tree_flatten(self) -> Any:
        return (), ((), {})


class BarDistribution(Distribution):
    r"""Distribution with a constant density on bars and half-normal tails.

    Bar $i$ of $k$ has the probability $p_i$, the softmax of the logits, and is uniform
    between the borders $b_i$ and $b_{i+1}$; the first and the last bar are half-normal
    distributions that fall off outwards from $b_1$ and $b_{k-1}$, with the scales
    $(b_1 - b_0) / \Phi^{-1}(3/4)$ and $(b_k - b_{k-1}) / \Phi^{-1}(3/4)$: half of their probability
    lies inside of $(b_0, b_1)$ and $(b_{k-1}, b_k)$. The support is the real line. On a border the
    density is that of the bar to its right.

    A network that predicts logits makes of any regression a classification whose loss is
    `-log_prob`; `equal_mass_borders` chooses borders. Draws are differentiable: they are quantiles
    `icdf` of uniform variables, hence reparametrised in borders and logits.

    Bars with a logit of -inf are empty, and no quantile lies in one. Results have the type of the
    parameters, whatever that of the values. A row costs $O(k)$, a further value $O(\log k)$, but
    `expected_improvement` $O(k)$.

    Args:
        borders: increasing, shape `(..., k + 1)` with $k \ge 2$, in the units of the values; a
            batch may have borders of its own in each row.
        logits: unnormalised log probabilities, shape `(..., k)`; kept normalised.
        validate_args: whether arguments and values are checked, as elsewhere in NumPyro.

    Raises:
        ValueError: shapes that do not fit, fewer than two bars, or borders that are known to be
            NaN, infinite, or not increasing.

    References:
        Müller, Hollmann, Pineda Arango, Grabocka and Hutter (2022), "Transformers can do Bayesian
        inference", ICLR: section 4, the Riemann distribution, and appendix E for its full support.
    """

    arg_constraints = {"borders": constraints.ordered_vector, "logits": _BarLogits()}
    reparametrized_params = ["borders", "logits"]
    support = constraints.real
    pytree_data_fields = ("borders", "logits")

    def __init__(self, borders: Any, logits: Any, *, validate_args: bool | None = None):
        borders = number_array("BarDistribution: borders", borders)
        logits = number_array("BarDistribution: logits", logits)
        shapes = jnp.shape(borders), jnp.shape(logits)
        batch_shape = _check_shapes(*shapes)
        dtype = jnp.promote_types(jnp.result_type(borders), jnp.result_type(logits))
        dtype = dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.result_type(float)
        ndim = max(map(len, shapes))
        borders, logits = (
            jnp.reshape(jnp.asarray(x, dtype), (1,) * (ndim - len(shape)) + shape)
            for x, shape in zip((borders, logits), shapes, strict=True)
        )
        _check_borders(borders)
        self.borders = borders
        self.logits = jax.nn.log_softmax(logits, axis=-1)
        super().__init__(batch_shape, validate_args=validate_args)

    @classmethod
    def from_log_probs(cls, borders: Any, log_probs: Any) -> BarDistribution:
        """The distribution with these logarithms of probabilities, which are kept bit for bit."""
        made = cls(borders, log_probs)
        made.logits = log_probs
        return made

    @property
    def num_bars(self) -> int:
        """The number of bars, $k$."""
        return jnp.shape(self.logits)[-1]

    @property
    def probs(self) -> jax.Array:
        """Probabilities of the bars, shape `(..., k)`."""
        return jnp.exp(self.logits)

    @property
    def _bars(self) -> Bars:
        return Bars(self.borders, self.logits)

    def _numbers(self, value: Any) -> jax.Array:
        return jnp.asarray(value, self.logits.dtype)

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        """Draws, shape `sample_shape + batch_shape`, differentiable in borders and logits.

        The uniform variables are fine enough near 0 and 1 for tails also in float32.
        """
        shape = tuple(sample_shape) + self._bars.batch_shape
        coarse, fine = jax.random.split(key)
        bits = jax.random.bits(coarse, shape, jnp.uint32)
        dtype = self.logits.dtype
        uniform = jnp.maximum(jax.random.uniform(fine, shape, dtype), 2.0**-25)
        tail = ((bits >> 20).astype(dtype) + uniform) * 2.0**-13  # in (0, 1/2)
        return self._bars.quantile(tail, (bits & 1) == 1)

    @validate_sample
    def log_prob(self, value: Any, intermediates: Any = None) -> jax.Array:
        """Log density, shape of `value` and `batch_shape` broadcast."""
        return self._bars.log_density(self._numbers(value))

    def cdf(self, value: Any) -> jax.Array:
        """Probability of at most `value`; of small ones, relative accuracy."""
        return self._bars.cdf(self._numbers(value))

    def icdf(self, q: Any) -> jax.Array:
        """Quantile of probabilities in (0, 1), shape of `q` and `batch_shape` broadcast.

        At 0 and 1 it is infinite, unless that tail is empty.
        """
        q = self._numbers(q)
        return self._bars.quantile(jnp.minimum(q, 1 - q), q > 0.5)

    @property
    def mean(self) -> jax.Array:
        bars = self._bars
        return jnp.sum(bars.probs * bars.means, axis=-1)

    @property
    def variance(self) -> jax.Array:
        bars = self._bars
        shift = bars.means - self.mean[..., None]
        return jnp.sum(bars.probs * (bars.variances + shift**2), axis=-1)

    @property
    def mode(self) -> jax.Array:
        """The point of largest density: the middle of a bar, or the inner border of a tail.

        That of the first bar is less than its border by a rounding error, so that `log_prob` of the
        mode is the largest there is.
        """
        bars = self._bars
        peaks = bars.log_probs + bars.log_peaks
        return at(bars.peaks, jnp.argmax(peaks, axis=-1))

    def entropy(self) -> jax.Array:
        """Differential entropy in nats, shape `batch_shape`."""
        bars = self._bars
        some = bars.probs > 0
        inside = bars.entropies - jnp.where(some, bars.log_probs, 0)
        return jnp.sum(jnp.where(some, bars.probs * inside, 0), axis=-1)

    def probability_of_improvement(self, best: Any) -> jax.Array:
        """Probability of more than `best`, accurate relative to itself also where it is small."""
        return self._bars.mirrored().cdf(-self._numbers(best))

    def expected_improvement(self, best: Any) -> jax.Array:
        r"""$E[\max(y - f, 0)]$ over the incumbent $f$ = `best`.

        Shape of `best` and `batch_shape` broadcast; the incumbent of a maximisation.
        """
        return self._bars.excess(self._numbers(best))

    def upper_confidence_bound(self, beta: Any) -> jax.Array:
        r"""The quantile of $\Phi(\beta)$, which for a normal distribution is mean + beta scale.

        Also accurate where $\Phi(\beta)$ rounds to 1; negative `beta` gives a lower bound.
        """
        beta = self._numbers(beta)
        return self._bars.quantile(ndtr(-jnp.abs(beta)), beta > 0)

    def crps(self, y: Any) -> jax.Array:
        r"""Continuous ranked probability score $\int (F(x) - 1\{x \ge y\})^2 dx$, in closed form.

        In the units of `y`; less is better. Shape of `y` and `batch_shape` broadcast.

        References:
            Gneiting and Raftery (2007), "Strictly proper scoring rules, prediction, and
            estimation", JASA 102: equation 20.
        """
        y = self._numbers(y)
        return self._bars.squared_cdf_integral(y) + self._bars.mirrored().squared_cdf_integral(-y)

    def affine(self, loc: Any, scale: Any) -> BarDistribution:
        """The distribution of `loc + scale * y`: that with the borders moved.

        Args:
            loc: shift, a shape that broadcasts with `batch_shape`.
            scale: positive factor, likewise.

        Raises:
            ValueError: a `loc` or `scale` that is not finite, or a `scale` that is not positive; a
                `RuntimeError` when a compiled program runs.
        """
        message = "affine: scale must be positive and finite"
        scale = refuse_where(scale, lambda x: ~((x > 0) & (x < np.inf)), message)
        loc = refuse_where(loc, lambda x: ~(abs(x) < np.inf), "affine: loc must be finite")
        loc, scale = self._numbers(loc)[..., None], self._numbers(scale)[..., None]
        return BarDistribution(loc + scale * self.borders, self.logits)


def _check_shapes(borders: tuple[int, ...], logits: tuple[int, ...]) -> tuple[int, ...]:
    """The batch shape, where the two shapes fit."""
    if not borders or not logits or borders[-1] != logits[-1] + 1:
        raise ValueError(
            "BarDistribution: borders must have shape (..., k + 1) for logits of shape (..., k); "
            f"got {borders} and {logits}"
        )
    if logits[-1] < 2:
        raise ValueError(
            "BarDistribution: logits must be those of at least 2 bars, whose common border the "
            f"tails start from; got shape {logits}"
        )
    try:
        return jnp.broadcast_shapes(borders[:-1], logits[:-1])
    except ValueError as error:
        raise ValueError(
            "BarDistribution: the batch shapes of borders and logits must broadcast; got shapes "
            f"{borders} and {logits}"
        ) from error


def _check_borders(borders: jax.Array) -> None:
    if isinstance(borders, jax.core.Tracer):
        return
    table = np.asarray(borders)
    if not np.all(np.isfinite(table)) or not np.all(np.diff(table) > 0):
        raise ValueError(
            f"BarDistribution: borders must be finite and increase in {table.dtype}; "
            "equal_mass_borders makes such from draws of the targets, and targets that vary by "
            "little, far from 0, have to be centred first"
        )
