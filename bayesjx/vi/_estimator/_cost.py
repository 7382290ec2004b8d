"""The structured cost: a sum of terms that remember the plates they live in."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Num
from numpyro.primitives import CondIndepStackFrame as Frame

Frames = frozenset[Frame]
_NOT_FOR_NUMPY = "NumPy cannot take a Cost: use jnp functions, or its `total`"
_REFLECTED = {np.add: "__radd__", np.subtract: "__rsub__", np.multiply: "__rmul__"}
PARTICLES = "particles "  # prefix of the names of particle frames


class Term(eqx.Module):
    """One summand of a `Cost`: an array of log probabilities and where it belongs.

    Attributes:
        value: contributions, already multiplied by `scale`; the axes of the plates in `frames`
            sit at the plates' (negative) dims, all other axes are summed freely.
        signals: per particle frame, what a score site inside that particle should be
            multiplied with in place of `value`; set by `log_mean_exp`.
        frames: the plates of the term.
        label: where the term came from, as `"call/site"`.
        scale: the plates' subsampling scale that `value` contains.
        detached: the term is the log density of a sampled score-function or replay site.
            Its gradient has mean zero wherever the cost is used linearly and is dropped there.
        weak: nothing but Python numbers and integers went in, so that the term takes the dtype of
            the others that it is summed with, as JAX's weakly typed arrays do.
    """

    value: Num[Array, ...]
    signals: dict[Frame, jax.Array] = eqx.field(default_factory=dict)
    frames: Frames = eqx.field(static=True, default=frozenset())
    label: str = eqx.field(static=True, default="")
    scale: float = eqx.field(static=True, default=1.0)
    detached: bool = eqx.field(static=True, default=False)
    weak: bool = eqx.field(static=True, default=False)

    def times(self, weight: Any) -> Term:
        """The term multiplied by a scalar. A traced weight ends the special treatment above,
        since it may depend on the sampled value."""
        constant = isinstance(weight, (int, float, np.ndarray, np.generic))
        return Term(
            self.value * weight,
            {frame: signal * weight for frame, signal in self.signals.items()},
            self.frames,
            self.label,
            self.scale,
            self.detached and constant,
            self.weak,
        )

    def linear(self) -> Term:
        """The term with the gradient that it needs in a linear objective."""
        if not self.detached:
            return self
        value = jax.lax.stop_gradient(self.value)
        return dataclasses.replace(self, value=value, detached=False)


class Cost(eqx.Module):
    """A sum of `Term`s, closed under `+`, `-` and multiplication by scalars.

    Anything else goes through `total`, a scalar that no longer knows its plates: gradients stay
    unbiased and score-function sites become noisier. `jnp` functions accept a `Cost` and see
    its `total`, unless it has particles, which they would sum: they refuse it then, in favour of
    `log_mean_exp`.
    """

    terms: tuple[Term, ...] = ()
    records: dict[str, jax.Array] = eqx.field(default_factory=dict)

    def __add__(self, other: Any) -> Cost:
        other = as_cost(other)
        return Cost(one_dtype(self.terms + other.terms), {**self.records, **other.records})

    __radd__ = __add__

    def __neg__(self) -> Cost:
        return self * -1.0

    def __sub__(self, other: Any) -> Cost:
        return self + as_cost(other) * -1.0

    def __rsub__(self, other: Any) -> Cost:
        return as_cost(other) - self

    def __mul__(self, weight: Any) -> Cost:
        if isinstance(weight, Cost):
            raise TypeError(
                "a Cost is a sum and can only be multiplied by a scalar; "
                "use `.total` for a product of two costs"
            )
        if jnp.ndim(weight) != 0:
            raise ValueError(f"a Cost is multiplied by scalars only, got shape {jnp.shape(weight)}")
        return Cost(tuple(term.times(weight) for term in self.terms), self.records)

    __rmul__ = __mul__

    def __truediv__(self, weight: Any) -> Cost:
        return self * (1.0 / weight)

    @property
    def total(self) -> Num[Array, ""]:
        """The scalar sum, safe to use in any expression."""
        return sum_all(term.value for term in self.terms)

    def __jax_array__(self) -> jax.Array:
        if any(frame.name.startswith(PARTICLES) for term in self.terms for frame in term.frames):
            raise TypeError(
                "a jnp function (or an array to the left of an operator) would sum the particles "
                "of this Cost; use vi.log_mean_exp(cost) for the log of their mean weight, "
                "`cost / num_particles` for the mean, which goes on as a Cost, or `cost.total` "
                "where their sum is meant"
            )
        return self.total

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(_NOT_FOR_NUMPY)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if ufunc not in _REFLECTED or inputs[0] is self:
            raise TypeError(_NOT_FOR_NUMPY)
        return getattr(self, _REFLECTED[ufunc])(inputs[0])  # an operator after a number of NumPy

    def weight_sites(self, weights: Mapping[str, Any]) -> Cost:
        """Multiplies the terms of the named sites, e.g. `{"z": beta}` for a beta-ELBO.

        Raises:
            ValueError: a name fits no term of the cost.
        """
        names = {site_name(term.label) for term in self.terms}
        if unknown := sorted(set(weights) - names):
            raise ValueError(
                f"weight_sites: no term of the cost belongs to {unknown}; it has {sorted(names)}"
            )
        return Cost(
            tuple(
                term.times(weights[name]) if (name := site_name(term.label)) in weights else term
                for term in self.terms
            ),
            self.records,
        )

    def by_site(self) -> dict[str, Num[Array, ""]]:
        """The sum of each label's terms, for printing and for finding a non-finite one."""
        sums: dict[str, jax.Array] = {}
        for term in self.terms:
            sums[term.label] = sums.get(term.label, 0.0) + jnp.sum(term.value)
        return sums

    def linear(self) -> Cost:
        """The cost with the gradients that a linear objective needs (see `Term.detached`)."""
        return Cost(tuple(term.linear() for term in self.terms), self.records)


def site_name(label: str) -> str:
    """`"b"` from the label `"0/b"`."""
    return label.partition("/")[2]


def as_cost(value: Any, label: str = "value") -> Cost:
    """Wraps a scalar as a frame-free `Cost`; a `Cost` passes through.

    Raises:
        TypeError: `value` is neither a `Cost` nor a real number or array.
        ValueError: `value` is an array that is not a scalar.
    """
    if isinstance(value, Cost):
        return value
    expected = "objective: expected" if label == "objective" else "expected"
    try:
        array = jnp.asarray(value)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{expected} a Cost or a real scalar, got {type(value).__name__}; an objective returns "
            "the sum or difference of vi.simulate and vi.log_density costs, or a scalar array"
        ) from error
    if array.ndim != 0:
        raise ValueError(
            f"{expected} a Cost or a scalar, got an array of shape {array.shape}; "
            "did you forget to sum over it?"
        )
    if jnp.issubdtype(array.dtype, jnp.complexfloating) or array.dtype == bool:
        raise TypeError(f"{expected} a Cost or a real scalar, got dtype {array.dtype}")
    if not jnp.issubdtype(array.dtype, jnp.inexact):
        array = array.astype(jnp.result_type(float))
    return Cost((Term(array, label=label),))


def one_dtype(terms: tuple[Term, ...]) -> tuple[Term, ...]:
    """The terms, the weak ones in the dtype of the others."""
    strong = {term.value.dtype for term in terms if not term.weak}
    if not strong or not any(term.weak for term in terms):
        return terms
    dtype = jnp.result_type(*strong)
    return tuple(
        dataclasses.replace(term, value=term.value.astype(dtype), weak=False) if term.weak else term
        for term in terms
    )


def reduce_to(value: jax.Array, keep: Iterable[Frame]) -> Num[Array, ...]:
    """Sums `value` over every axis that is not the axis of a plate in `keep`.

    Axes that belong to no plate at all, such as the time axis of a scan, are summed too; plates
    keep their dim, so results broadcast against each other.
    """
    dims = {frame.dim for frame in keep}
    axes = tuple(axis for axis in range(value.ndim) if axis - value.ndim not in dims)
    value = jnp.sum(value, axis=axes, keepdims=True) if axes else value
    lead = value.ndim - max((-dim for dim in dims), default=0)
    return value.reshape(value.shape[lead:]) if lead > 0 else value


def local_costs(cost: Cost, frames: Frames, keep: Iterable[bool]) -> dict[Frames, jax.Array]:
    """The costs that a score-function site in the plates `frames` is multiplied with.

    Sums the kept terms element by element of the plates that the term shares with the site.
    Terms that lack some of the site's plates are kept apart, since broadcasting them into those
    plates would count them once per element.

    Particles that share a term's frame get the mean of the other particles as a baseline.

    Returns:
        per set of shared plates, the sum of the terms that share just these; gradients stopped.
    """
    groups: dict[Frames, jax.Array] = {}
    for term, kept in zip(cost.terms, keep, strict=True):
        if not kept:
            continue
        value, plates = term.value, term.frames
        for frame, signal in term.signals.items():
            if frame in frames:
                value, plates = signal, plates | {frame}
        shared = frozenset(frames & plates)
        value = jax.lax.stop_gradient(reduce_to(value, shared))
        for frame in shared & term.frames:
            if frame.name.startswith(PARTICLES):
                value = _minus_others(value, frame)
        groups[shared] = groups[shared] + value if shared in groups else value
    return groups


def _minus_others(value: jax.Array, frame: Frame) -> jax.Array:
    """Subtracts from each particle the mean of the others: the leave-one-out baseline."""
    n = frame.size
    if n == 1:
        return value
    return (value - jnp.mean(value, axis=frame.dim, keepdims=True)) * (n / (n - 1))


def sum_all(values: Iterable[jax.Array]) -> jax.Array:
    """The scalar sum of all elements of all arrays; arrays of one shape are reduced together."""
    by_shape: dict[tuple[int, ...], jax.Array] = {}
    for value in values:
        shape = jnp.shape(value)
        by_shape[shape] = by_shape[shape] + value if shape in by_shape else value
    sums = [jnp.sum(value) for value in by_shape.values()]
    return sum(sums[1:], sums[0]) if sums else jnp.zeros(())
