"""Formulas of the bar distribution, those of one direction: the other is the mirror image."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import erf, erfc, ndtri

UPPER_QUARTILE = 0.6744897501960817  # of the standard normal distribution


class Bars(NamedTuple):
    """Borders and normalised log probabilities of bars, whose batch axes broadcast.

    Values have any shape that broadcasts with the batch: tables of a row are looked up in place, so
    that a thousand draws make no thousand copies of them.
    """

    borders: jax.Array  # (..., k + 1)
    log_probs: jax.Array  # (..., k)

    def mirrored(self) -> Bars:
        """The bars of minus the variable."""
        return Bars(-self.borders[..., ::-1], self.log_probs[..., ::-1])

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return jnp.broadcast_shapes(self.borders.shape[:-1], self.log_probs.shape[:-1])

    @property
    def last(self) -> int:
        return self.log_probs.shape[-1] - 1

    @property
    def probs(self) -> jax.Array:
        return jnp.exp(self.log_probs)

    @property
    def widths(self) -> jax.Array:
        return jnp.diff(self.borders, axis=-1)

    @property
    def inner(self) -> jax.Array:
        return self.borders[..., 1:-1]

    @property
    def left_scale(self) -> jax.Array:
        return self.widths[..., 0] / UPPER_QUARTILE

    @property
    def right_scale(self) -> jax.Array:
        return self.widths[..., -1] / UPPER_QUARTILE

    def ends(self, first: Any, inside: jax.Array, last: Any) -> jax.Array:
        """Numbers of all bars, shape `(..., k)`; of the uniform ones, those in `inside`."""
        return jnp.concatenate([first[..., None], inside[..., 1:-1], last[..., None]], axis=-1)

    @property
    def means(self) -> jax.Array:
        middle = self.borders[..., :-1] + 0.5 * self.widths
        far = math.sqrt(2 / math.pi)
        return self.ends(
            self.borders[..., 1] - far * self.left_scale,
            middle,
            self.borders[..., -2] + far * self.right_scale,
        )

    @property
    def variances(self) -> jax.Array:
        share = 1 - 2 / math.pi
        return self.ends(
            share * self.left_scale**2, self.widths**2 / 12, share * self.right_scale**2
        )

    @property
    def entropies(self) -> jax.Array:
        constant = 0.5 + 0.5 * math.log(math.pi / 2)
        return self.ends(
            constant + jnp.log(self.left_scale),
            jnp.log(self.widths),
            constant + jnp.log(self.right_scale),
        )

    @property
    def log_peaks(self) -> jax.Array:
        """Logarithms of the largest densities of the bars, each of them of probability one."""
        constant = 0.5 * math.log(2 / math.pi)
        return self.ends(
            constant - jnp.log(self.left_scale),
            -jnp.log(self.widths),
            constant - jnp.log(self.right_scale),
        )

    @property
    def peaks(self) -> jax.Array:
        """Where each bar has its largest density; the middle of those where it is constant."""
        middle = self.borders[..., :-1] + 0.5 * self.widths
        first = self.borders[..., 1]
        return self.ends(first - slack(first, self.widths[..., 0]), middle, self.borders[..., -2])

    @property
    def cumulative(self) -> jax.Array:
        """Probabilities to the left of the inner borders, shape `(..., k - 1)`."""
        return jnp.cumsum(self.probs[..., :-1], axis=-1)

    @property
    def below(self) -> jax.Array:
        """Probabilities to the left of the bars, shape `(..., k)`."""
        first = [(0, 0)] * (self.log_probs.ndim - 1) + [(1, 0)]
        return jnp.pad(self.cumulative, first)

    def bar_of(self, value: jax.Array) -> jax.Array:
        """The bar in which a value lies; a border belongs to the bar on its right."""
        return count_at_most(self.inner, value)

    def from_anchor(self, bar: jax.Array, value: jax.Array) -> jax.Array:
        """Distance outwards from where a tail starts, in its scale; zero outside of tails."""
        left = (self.borders[..., 1] - value) / self.left_scale
        right = (value - self.borders[..., -2]) / self.right_scale
        return jnp.where(bar == 0, left, jnp.where(bar == self.last, right, 0))

    def fraction(self, bar: jax.Array, value: jax.Array) -> jax.Array:
        """The part of a uniform bar that lies to the left of the value; 0 in a tail."""
        low = at(self.borders, bar)
        value = jnp.where((bar == 0) | (bar == self.last), low, value)
        return (value - low) / at(self.widths, bar)

    @jax.jit
    def log_density(self, value: jax.Array) -> jax.Array:
        bar = self.bar_of(value)
        log_height = at(self.log_probs + self.log_peaks, bar)
        return log_height - 0.5 * self.from_anchor(bar, value) ** 2

    @jax.jit
    def cdf(self, value: jax.Array) -> jax.Array:
        bar = self.bar_of(value)
        prob = at(self.probs, bar)
        beyond = prob * erfc(self.from_anchor(bar, value) * math.sqrt(0.5))
        inside = at(self.below, bar) + prob * self.fraction(bar, value)
        result = jnp.where(bar == 0, beyond, jnp.where(bar == self.last, 1 - beyond, inside))
        return held(result, 0, 1)

    @jax.jit
    def quantile(self, tail: jax.Array, upper: jax.Array) -> jax.Array:
        """The point with the probability `tail`, at most 1/2, to its left or, if `upper`, right."""
        mirror = self.mirrored()
        up, down = (
            self.last - count_at_most(mirror.cumulative, tail),
            count_at_most(self.cumulative, tail),
        )
        bar = jnp.where(upper, up, down)
        before = jnp.where(upper, at(mirror.below, self.last - bar), at(self.below, bar))
        low, high = at(self.borders, bar), at(self.borders, bar + 1)
        width, log_prob = high - low, at(self.log_probs, bar)
        some = log_prob > -jnp.inf
        share = (tail - before) / jnp.where(some, jnp.exp(jnp.where(some, log_prob, 0)), 1)
        inside = jnp.where(upper, high - width * share, low + width * share)
        # In a tail, from the probability beyond the point, given that tail.
        left, right = bar == 0, bar == self.last
        outer = jnp.where(upper == right, tail, 1 - tail)
        log_outer = jnp.log(jnp.where(left | right, outer, 0.5))
        log_ratio = held(log_outer - jnp.where((left | right) & some, log_prob, 0), -jnp.inf, 0)
        z = -normal_quantile(log_ratio - math.log(2))
        ends = high - self.left_scale * z, low + self.right_scale * z
        result = jnp.where(left, ends[0], jnp.where(right, ends[1], inside))
        least = jnp.where(left, -jnp.inf, low + slack(low, width))
        most = jnp.where(right, jnp.inf, high - slack(high, width))
        return held(result, least, most)

    @jax.jit
    def excess(self, threshold: jax.Array) -> jax.Array:
        r"""$E[\max(y - f, 0)]$ over thresholds $f$."""
        f = threshold[..., None]
        low, high = self.borders[..., :-1], self.borders[..., 1:]
        start = jnp.clip(f, low, high)
        inside = (high - start) * ((high - f) + (start - f)) / (2 * self.widths)
        above = threshold - self.borders[..., -2]
        beyond = jnp.maximum(above, 0) / self.right_scale
        right = self.right_scale * half_normal_excess(beyond) + jnp.maximum(-above, 0)
        room = jnp.maximum(self.borders[..., 1] - threshold, 0)
        z = room / self.left_scale
        drop = math.sqrt(2 / math.pi) * self.left_scale * jnp.expm1(-0.5 * z**2)
        left = room * erf(z * math.sqrt(0.5)) + drop
        inner = jnp.sum((self.probs * inside)[..., 1:-1], axis=-1)
        return inner + self.probs[..., 0] * left + self.probs[..., -1] * right

    @jax.jit
    def squared_cdf_integral(self, value: jax.Array) -> jax.Array:
        r"""$\int_{-\infty}^y F(x)^2 dx$, of a piecewise linear function and two tails."""
        bar = self.bar_of(value)
        prob, fraction = at(self.probs, bar), self.fraction(bar, value)
        z = self.from_anchor(bar, value)
        start, stop = self.cumulative[..., :-1], self.cumulative[..., 1:]
        areas = self.widths[..., 1:-1] * (start**2 + start * stop + stop**2) / 3
        areas = jnp.broadcast_to(areas, (*self.batch_shape, areas.shape[-1]))
        tail = self.probs[..., 0] ** 2 * self.left_scale * _SQUARED_TAIL
        tail = jnp.broadcast_to(tail, self.batch_shape)[..., None]
        before = at(jnp.cumsum(jnp.concatenate([0 * tail, tail, areas], -1), axis=-1), bar)
        begin = at(self.below, bar)
        end = begin + prob * fraction
        part = fraction * at(self.widths, bar) * (begin**2 + begin * end + end**2) / 3
        squared = prob**2 * squared_tail_integral(z)
        once = 2 * prob * (half_normal_excess(z) - math.sqrt(2 / math.pi))
        beyond = self.right_scale * (z + once + prob**2 * _SQUARED_TAIL - squared)
        result = before + jnp.where(bar == self.last, beyond, part)
        return jnp.where(bar == 0, self.left_scale * squared, result)


def at(table: jax.Array, index: jax.Array) -> jax.Array:
    """Elements of the last axis of a table; its other axes broadcast with those of the index."""
    *batch, size = table.shape
    rows = jnp.arange(math.prod(batch)).reshape(batch)
    return table.reshape(-1)[rows * size + index]


def count_at_most(table: jax.Array, value: jax.Array) -> jax.Array:
    """How many elements of the last axis, in increasing order, are at most the value."""
    table, value = jax.lax.stop_gradient((table, value))
    size = table.shape[-1]
    shape = jnp.broadcast_shapes(table.shape[:-1], value.shape)
    bits = size.bit_length()

    def halve(i: Any, count: jax.Array) -> jax.Array:
        more = count + (1 << (bits - 1 - i))
        fits = (more <= size) & (at(table, jnp.minimum(more, size) - 1) <= value)
        return jnp.where(fits, more, count)

    return jax.lax.fori_loop(0, bits, halve, jnp.zeros(shape, int))


def held(value: jax.Array, low: Any, high: Any) -> jax.Array:
    """The value moved by a rounding error into an interval, with the derivative of one in it."""
    fixed = jax.lax.stop_gradient(value)
    clipped = jnp.clip(fixed, low, high)
    return jnp.where(clipped == fixed, value, clipped + (value - fixed))


def slack(border: jax.Array, width: jax.Array) -> jax.Array:
    """The smallest step off a border that is one after rounding."""
    return jnp.finfo(border.dtype).eps * jnp.maximum(jnp.abs(border), width)


@jax.custom_jvp
def normal_quantile(log_prob: jax.Array) -> jax.Array:
    """Standard normal quantile of a log probability; its derivative stays finite in the tail."""
    return ndtri(jnp.exp(log_prob))


@normal_quantile.defjvp
def _(primals: Any, tangents: Any) -> Any:
    (log_prob,), (change,) = primals, tangents
    z = normal_quantile(log_prob)
    return z, math.sqrt(2 * math.pi) * jnp.exp(log_prob + 0.5 * z**2) * change


def normal_density(z: jax.Array) -> jax.Array:
    """Density of the standard normal distribution."""
    return jnp.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)


def half_normal_excess(z: jax.Array) -> jax.Array:
    r"""$E[\max(R - z, 0)] = \int_z^\infty 2 \Phi(-t) dt$ of a half-normal $R$, for $z \ge 0$."""
    return 2 * normal_density(z) - z * erfc(z * math.sqrt(0.5))


def squared_tail_integral(z: jax.Array) -> jax.Array:
    r"""$\int_z^\infty (2 \Phi(-t))^2 dt$ for $z \ge 0$, by parts."""
    tail = erfc(z * math.sqrt(0.5))
    return (4 * normal_density(z) - z * tail) * tail - 2 / math.sqrt(math.pi) * erfc(z)


_SQUARED_TAIL = (math.sqrt(2) - 1) * 2 / math.sqrt(math.pi)  # that of 0
