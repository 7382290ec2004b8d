"""Gaussian sparse coding: spike-and-slab causes that add up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from numpyro.distributions import constraints

from ..._core import constrained_field
from ._model import AbstractSparseCoding, Joint
from ._parts import (
    chosen,
    decoded,
    dictionary,
    floored_noise,
    of_candidates,
    over_causes,
    pairs_of_candidates,
    PRIOR_FLOOR,
    residual,
    split_states,
    sum_of_pairs,
    times,
)
from ._start import check_parameters, parameter, start, weight_matrix
from ._states import pair_number, pairs, several_active, subsets, truncation

SLAB_FLOOR = 1e-6  # least variance of a slab, relative to its second moment


class SlabStatistics(NamedTuple):
    r"""Sums of expected sufficient statistics, with $z$ the code of a cause that is active.

    Attributes:
        count: weights of the data.
        square: $\sum \| y \|^2$.
        code: $\sum \langle s z \rangle y^\top$.
        outer: $\sum \langle s z (s z)^\top \rangle$.
        active: $\sum \langle s \rangle$.
        slab: $\sum \langle s z \rangle$.
    """

    count: Float[Array, ""]
    square: Float[Array, ""]
    code: Float[Array, "h d"]
    outer: Float[Array, "h h"]
    active: Float[Array, " h"]
    slab: Float[Array, " h"]


class Slabs(NamedTuple):
    """Normal posteriors of the slabs, for all states with so many active causes.

    Attributes:
        mean: element by element, shapes `(k, n)`.
        cov: lower triangles of covariances, row by row, shapes `(k, n)`.
    """

    mean: list[Float[Array, "k n"]]
    cov: list[list[Float[Array, "k n"]]]


class GSC(AbstractSparseCoding):
    r"""Gaussian sparse coding: causes of spike-and-slab distributions that add up.

    $y \sim N((s \odot z) W, \sigma^2 I)$ with $s_h \in \{0, 1\}$ of probability $\pi_h$ and
    $z_h \sim N(\mu_h, \psi_h)$. Slabs are integrated out.

    Args:
        weights: $W$, shape `(h, d)`.
        noise_var: $\sigma^2$.
        prior_prob: $\pi$, scalar or shape `(h,)`.
        slab_mean: $\mu$, scalar or shape `(h,)`.
        slab_var: $\psi$, scalar or shape `(h,)`.
        num_candidates: causes for each datum that may be active together, by default 7.
        max_active: of them at once, by default 5.

    Raises:
        ValueError: wrong shapes, values out of range, more active causes than states allow.

    References:
        Sheikh, Shelton and Lücke (2014), "A truncated EM approach for spike-and-slab sparse
        coding", JMLR 15.
    """

    num_candidates: int = eqx.field(static=True)
    max_active: int = eqx.field(static=True)
    weights: Float[Array, "h d"]
    slab_mean: Float[Array, " h"] = constrained_field(constraints.real)
    noise_var: Float[Array, ""] = constrained_field(constraints.positive)
    prior_prob: Float[Array, " h"] = constrained_field(constraints.open_interval(0, 1))
    slab_var: Float[Array, " h"] = constrained_field(constraints.positive)

    def __init__(
        self,
        weights: Any,
        noise_var: Any,
        prior_prob: Any,
        slab_mean: Any = 0.0,
        slab_var: Any = 1.0,
        *,
        num_candidates: int | None = None,
        max_active: int | None = None,
    ):
        self.weights = weight_matrix(weights)
        shape = self.weights.shape[:1]
        self.noise_var = parameter("noise_var", noise_var, self.weights)
        self.prior_prob = parameter("prior_prob", prior_prob, self.weights, shape)
        self.slab_mean = parameter("slab_mean", slab_mean, self.weights, shape)
        self.slab_var = parameter("slab_var", slab_var, self.weights, shape)
        sizes = truncation(len(self.weights), 1, num_candidates, max_active)
        self.num_candidates, self.max_active = sizes
        check_parameters(self)

    @classmethod
    def at_data(
        cls,
        key: jax.Array,
        y: Any,
        num_causes: int,
        *,
        num_candidates: int | None = None,
        max_active: int | None = None,
    ) -> GSC:
        weights, noise, prob = start(key, y, num_causes)
        options = {"num_candidates": num_candidates, "max_active": max_active}
        return cls(weights, noise, prob, **options)

    @property
    def values(self) -> tuple[float, ...]:
        """What tells that a cause is active, 1."""
        return (1.0,)

    def joint(self, y: Float[Array, "n d"]) -> Joint:
        r"""The joint distribution of data and the states that are kept of each, without slabs.

        With $D = \psi_s^{1/2}$, $B = I + D W_s W_s^\top D / \sigma^2$ and
        $b = D W_s (y - \mu_s W_s) / \sigma^2$ the slabs of a state have the posterior
        $N(\mu_s + D B^{-1} b, D B^{-1} D)$, and the log likelihood gains
        $(b^\top B^{-1} b - \log \det B) / 2$ over that of slabs at their means.
        """
        gram = times(self.weights, self.weights.T) / self.noise_var
        inner = times(self.weights, y.T) / self.noise_var
        alone, slabs = self._posterior(
            [self.slab_mean[:, None]],
            [jnp.sqrt(self.slab_var)[:, None]],
            [[jnp.diag(gram)[:, None]]],
            [inner],
        )
        log_odds = (jnp.log(self.prior_prob) - jnp.log1p(-self.prior_prob))[:, None]
        candidates = chosen(alone + log_odds, self.num_candidates)
        ratios, inside = [jnp.zeros((1, len(y)), y.dtype), alone], [slabs]
        for ratio, slabs in self._several(gram, inner, candidates):
            ratios.append(ratio)
            inside.append(slabs)
        odds = of_candidates(jnp.broadcast_to(log_odds, inner.shape), candidates)
        several = several_active(self.num_candidates, self.max_active, (1.0,))
        log_prior = [jnp.zeros((1, len(y)), y.dtype), jnp.broadcast_to(log_odds, inner.shape)]
        log_prior = jnp.concatenate([*log_prior, times(several, odds)])
        size = jnp.sum(y**2, axis=1) / self.noise_var
        log_null = -0.5 * (size + y.shape[1] * jnp.log(2 * jnp.pi * self.noise_var))
        none = jnp.sum(jnp.log1p(-self.prior_prob))
        return Joint(candidates, none + log_prior, jnp.concatenate(ratios), log_null, inside)

    def expectations(
        self,
        y: Float[Array, "n d"],
        joint: Joint,
        probs: Float[Array, "k n"],
        mass: Float[Array, " n"],
        temperature: Any,
    ) -> SlabStatistics:
        del temperature
        mean, active = self.code_moments(joint, probs)
        alone, several = split_states(probs, self.num_causes, 1)
        first = joint.inside[0]
        squares = alone[0] * (first.cov[0][0] + first.mean[0] ** 2)
        outer = jnp.diag(jnp.sum(squares, axis=1))
        if len(several):
            seconds = self._seconds(joint.inside[1:], several)
            outer = outer + sum_of_pairs(seconds, joint.candidates, self.num_causes)
        return SlabStatistics(
            jnp.sum(mass),
            jnp.sum(mass * jnp.sum(y**2, axis=1)),
            times(mean, y),
            outer,
            jnp.sum(active, axis=1),
            jnp.sum(mean, axis=1),
        )

    def maximised(self, statistics: SlabStatistics) -> GSC:
        count, square, code, outer, active, slab = statistics
        weights = dictionary(outer, code, self.weights)
        size = count * self.weights.shape[1]
        noise = floored_noise(residual(square, outer, code, weights) / size, square / size)
        pull = 4 * jnp.finfo(active.dtype).eps * count  # what no datum has stays as it was
        mean = (slab + pull * self.slab_mean) / (active + pull)
        old = self.slab_var + self.slab_mean**2
        second = (jnp.diag(outer) + pull * old) / (active + pull)
        variance = jnp.maximum(second - mean**2, SLAB_FLOOR * second)
        prob = jnp.clip(active / count, PRIOR_FLOOR, 1 - PRIOR_FLOOR)
        names = "weights noise_var prior_prob slab_mean slab_var".split()
        new = (weights, noise, prob, mean, variance)
        return eqx.tree_at(lambda m: [getattr(m, name) for name in names], self, new)

    def code_moments(
        self, joint: Joint, probs: Float[Array, "k n"]
    ) -> tuple[Float[Array, "h n"], Float[Array, "h n"]]:
        alone, several = split_states(probs, self.num_causes, 1)
        states = several_active(self.num_candidates, self.max_active, (1.0,))
        mean, active = alone[0] * joint.inside[0].mean[0], alone[0]
        if len(states):
            first = self._firsts(joint.inside[1:], several)
            mean = mean + over_causes(first, joint.candidates, self.num_causes)
            more = times(states.T, several)
            active = active + over_causes(more, joint.candidates, self.num_causes)
        return mean, active

    def codes(self, joint: Joint, index: Int[Array, "t n"]) -> Float[Array, "t n h"]:
        """The mean of the codes given which causes are active, of states by their numbers."""
        states = several_active(self.num_candidates, self.max_active, (1.0,))
        kind = self.weights.dtype
        active = decoded(index, states, (1.0,), joint.candidates, self.num_causes, kind)
        means = self._means_by_candidate(joint.inside[1:], index.shape[1])
        alone = index - 1
        number = jnp.clip(alone - self.num_causes, 0, max(len(states) - 1, 0))
        single = joint.inside[0].mean[0].T[None]  # (1, n, h)
        total = jnp.where((alone < self.num_causes)[..., None], active * single, 0)
        for i, cause in enumerate(joint.candidates if len(states) else ()):
            value = jnp.take_along_axis(means[i], number, axis=0)[..., None]
            here = cause[:, None] == jnp.arange(self.num_causes)
            several = (alone >= self.num_causes)[..., None] & here
            total = total + jnp.where(several, active * value, 0)
        return total

    def feasible(self, weights: Float[Array, "h d"]) -> Float[Array, "h d"]:
        return weights

    def expected(self, joint: Joint, probs: Float[Array, "k n"]) -> Float[Array, "n d"]:
        return self.superpose(self.code_moments(joint, probs)[0].T)

    def superpose(self, codes: Float[Array, "... h"]) -> Float[Array, "... d"]:
        return times(codes, self.weights)

    def sample_codes(self, key: jax.Array, shape: tuple[int, ...]) -> Float[Array, "... h"]:
        active_key, slab_key = jax.random.split(key)
        shape, kind = (*shape, self.num_causes), self.weights.dtype
        active = jax.random.uniform(active_key, shape, kind) < self.prior_prob
        slab = jax.random.normal(slab_key, shape, kind)
        return jnp.where(active, self.slab_mean + jnp.sqrt(self.slab_var) * slab, 0)

    def with_prior_of(self, other: Any) -> AbstractSparseCoding:
        return eqx.tree_at(lambda m: m.prior_prob, self, other.prior_prob)

    def with_cause(self, number: Any, weights: Float[Array, " d"]) -> AbstractSparseCoding:
        names = "weights prior_prob slab_mean slab_var".split()
        values = (weights, jnp.mean(self.prior_prob), 0.0, 1.0)
        new = [getattr(self, n).at[number].set(v) for n, v in zip(names, values, strict=True)]
        return eqx.tree_at(lambda m: [getattr(m, name) for name in names], self, new)

    def beyond(self) -> None:
        """None: as causes have probabilities of their own, no data are cut."""

    def _several(
        self, gram: jax.Array, inner: jax.Array, candidates: jax.Array
    ) -> Iterator[tuple[jax.Array, Slabs]]:
        """Log likelihood ratios and slabs of the states with 2, 3, ... active candidates."""
        near = pairs_of_candidates(gram, candidates)
        fields = (self.slab_mean, jnp.sqrt(self.slab_var))
        mean, scale = (x[candidates] for x in fields)
        inner, number = of_candidates(inner, candidates), pair_number(self.num_candidates)
        for size in range(2, self.max_active + 1):
            columns = subsets(self.num_candidates, size).T
            yield self._posterior(
                [mean[i] for i in columns],
                [scale[i] for i in columns],
                [[near[number[i, j]] for j in columns[: k + 1]] for k, i in enumerate(columns)],
                [inner[i] for i in columns],
            )

    @staticmethod
    def _posterior(mean: list, scale: list, gram: list, inner: list) -> tuple[jax.Array, Slabs]:
        """Log likelihood ratio and slabs of states with so many active causes, see `joint`.

        Args:
            mean: of the slabs, a list over the active causes.
            scale: their standard deviations.
            gram: inner products of weights, a lower triangle row by row, divided by the noise.
            inner: those of weights and data.
        """
        size = range(len(mean))
        full = [[gram[max(i, j)][min(i, j)] for j in size] for i in size]
        drift = [sum(full[i][j] * mean[j] for j in size) for i in size]
        shift = [scale[i] * (inner[i] - drift[i]) for i in size]
        ratio = sum(mean[i] * (inner[i] - 0.5 * drift[i]) for i in size)
        scaled = [[scale[i] * gram[i][j] * scale[j] for j in range(i + 1)] for i in size]
        for i in size:
            scaled[i][i] = scaled[i][i] + 1
        inverse, half_logdet = inverse_factor(scaled)
        white = [sum(inverse[i][j] * shift[j] for j in range(i + 1)) for i in size]
        ratio = ratio + 0.5 * sum(x**2 for x in white) - half_logdet
        solved = [sum(inverse[k][i] * white[k] for k in size[i:]) for i in size]
        means = [mean[i] + scale[i] * solved[i] for i in size]
        cov = [
            [
                scale[i] * scale[j] * sum(inverse[k][i] * inverse[k][j] for k in size[i:])
                for j in range(i + 1)
            ]
            for i in size
        ]
        return ratio, Slabs(means, cov)

    def _firsts(self, groups: list[Slabs], probs: Float[Array, "k n"]) -> Float[Array, "c n"]:
        """First moments of the codes of candidates."""
        rows, columns = [], []
        for slabs, part, subset in self._groups(groups, probs):
            for i, mean in enumerate(slabs.mean):
                rows.append(part * mean)
                columns.append(subset[:, i])
        return _collected(rows, columns, self.num_candidates)

    def _seconds(self, groups: list[Slabs], probs: Float[Array, "k n"]) -> Float[Array, "p n"]:
        """Second moments of the codes of pairs of candidates."""
        rows, columns, number = [], [], pair_number(self.num_candidates)
        for slabs, part, subset in self._groups(groups, probs):
            for i, row in enumerate(slabs.cov):
                for j, cov in enumerate(row):
                    rows.append(part * (cov + slabs.mean[i] * slabs.mean[j]))
                    columns.append(number[subset[:, i], subset[:, j]])
        return _collected(rows, columns, len(pairs(self.num_candidates)[0]))

    def _groups(self, groups: list[Slabs], array: Any) -> Iterator[tuple[Slabs, Any, np.ndarray]]:
        """Slabs, rows of an array and subsets of the states of each size from 2 on."""
        begin = 0
        for size, slabs in enumerate(groups, start=2):
            subset = subsets(self.num_candidates, size)
            yield slabs, array[begin : begin + len(subset)], subset
            begin += len(subset)

    def _means_by_candidate(self, groups: list[Slabs], n: int) -> list[jax.Array]:
        """Means of the slab of each candidate in all states with several, `(k, n)`."""
        means: list[list[jax.Array]] = [[] for _ in range(self.num_candidates)]
        for size, slabs in enumerate(groups, start=2):
            subset = subsets(self.num_candidates, size)
            for i in range(self.num_candidates):
                found = jnp.zeros((len(subset), n), self.weights.dtype)
                for position, mean in enumerate(slabs.mean):
                    here = jnp.asarray(subset[:, position] == i)[:, None]
                    found = jnp.where(here, mean, found)
                means[i].append(found)
        return [jnp.concatenate(parts) if parts else jnp.zeros((1, n)) for parts in means]


def inverse_factor(matrix: list[list[Any]]) -> tuple[list[list[Any]], Any]:
    """Inverse of a lower Cholesky factor and half the log determinant, of many small matrices.

    Args:
        matrix: lower triangle row by row; an element is an array over the matrices.
    """
    size = range(len(matrix))
    tril: list[list[Any]] = [[None] * len(matrix) for _ in size]
    inverse: list[list[Any]] = [[None] * len(matrix) for _ in size]
    for j in size:
        for i in size[j:]:
            rest = matrix[i][j] - sum(tril[i][k] * tril[j][k] for k in range(j))
            if i == j:
                tril[j][j] = jnp.sqrt(rest)
                inverse[j][j] = 1 / tril[j][j]
            else:
                tril[i][j] = rest * inverse[j][j]
    for j in size:
        for i in size[j + 1 :]:
            rest = sum(tril[i][k] * inverse[k][j] for k in range(j, i))
            inverse[i][j] = -rest * inverse[i][i]
    return inverse, sum(jnp.log(tril[i][i]) for i in size)


def _collected(rows: list[Any], columns: list[np.ndarray], number: int) -> jax.Array:
    """Rows added up by the column that each belongs to, as a product of matrices."""
    column = np.concatenate(columns)
    places = np.arange(number)[:, None] == column
    return times(places, jnp.concatenate(rows))
