"""Discrete latent sites summed out exactly, by variable elimination over the plates."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from jax.scipy.special import logsumexp

from .._estimator import (
    Cost,
    elementwise_family,
    Frame,
    Frames,
    reduce_to,
    unmasked,
)

_MOST_VALUES = 1024  # joint values of the elements of one site that no plate separates
_MOST_RUNS = 4096  # of the model in one evaluation of its density
_MOST_TABLE = 2**16  # numbers in a table of several sites

Values = Mapping[str, jax.Array]


class FiniteSite(NamedTuple):
    """A discrete latent site as a run of the model shows it.

    Attributes:
        name: of the site.
        support: values of each element, shape `(k,)` + that of the site's value.
        batch: number of batch axes, those of plates among them.
        event: number of trailing axes that belong to one element.
        frames: the plates around it.
        scale: what its log density is multiplied with, of subsampled plates.
    """

    name: str
    support: np.ndarray
    batch: int
    event: int
    frames: Frames
    scale: float


class Variable(NamedTuple):
    """A discrete site in the elimination.

    Attributes:
        name: of the site.
        number: of its joint values.
        frames: the plates that separate its elements.
        colour: sites of one colour are in no term together, and take their values side by side.
        scale: see `FiniteSite`.
        batch: see `FiniteSite`.
    """

    name: str
    number: int
    frames: Frames
    colour: int
    scale: float
    batch: int

    @property
    def dims(self) -> frozenset[int]:
        """Dims of the plates, negative."""
        return frozenset(frame.dim for frame in self.frames)


class Factor(NamedTuple):
    """A table of log densities over the values of some sites.

    Attributes:
        sites: numbers of the sites, one leading axis of the table for each.
        table: the other axes are those of the plates.
    """

    sites: tuple[int, ...]
    table: jax.Array


class Discrete(eqx.Module):
    """The discrete latent sites of a model, and how to sum over them.

    References:
        Obermeyer, Bingham, Jankowiak, Pradhan, Chiu, Rush and Goodman (2019), "Tensor variable
        elimination for plated factor graphs", ICML.
    """

    supports: dict[str, jax.Array]  # joint values of each site along the first axis
    variables: tuple[Variable, ...] = eqx.field(static=True)
    terms: tuple[tuple[int, ...], ...] = eqx.field(static=True)  # sites in each term, by colour
    kept: tuple[Frames, ...] = eqx.field(static=True)  # plates of each term that its sites are in
    order: tuple[int, ...] = eqx.field(static=True)  # of elimination
    depth: int = eqx.field(static=True)  # number of axes for plates

    def first(self) -> dict[str, jax.Array]:
        """One value for each site."""
        return {name: support[0] for name, support in self.supports.items()}

    def log_sum(self, cost_of: Callable[[Values], Cost]) -> jax.Array:
        """Log of the sum of a density over all values of the discrete sites.

        Args:
            cost_of: the log density of the model at values of the discrete sites.
        """
        return self._eliminate(cost_of)[0]

    def draw(self, key: jax.Array, cost_of: Callable[[Values], Cost]) -> dict[str, jax.Array]:
        """A draw of all discrete sites from their exact conditional distribution."""
        chosen: dict[int, jax.Array] = {}
        for number, factor in reversed(self._eliminate(cost_of)[1]):
            table = factor.table
            for axis in range(len(factor.sites) - 1, 0, -1):
                table = _at(table, axis, chosen[factor.sites[axis]], self.depth)
            key, own = random.split(key)
            noise = random.gumbel(own, table.shape, table.dtype)
            chosen[number] = jnp.argmax(table + noise, axis=0)
        return self.values(chosen)

    def values(self, chosen: Mapping[int, jax.Array]) -> dict[str, jax.Array]:
        """Values by site from the numbers of joint values, of the shape of the plates."""
        out = {}
        for number, index in chosen.items():
            variable = self.variables[number]
            support = self.supports[variable.name]
            lead = max(variable.batch - self.depth, 0)
            shape = (1,) * lead + index.shape[max(self.depth - variable.batch, 0) :]
            index = index.reshape(shape + (1,) * (support.ndim - 1 - variable.batch))
            index = jnp.broadcast_to(index, support.shape[1:])
            out[variable.name] = jnp.take_along_axis(support, index[None], axis=0)[0]
        return out

    def random_choice(self, key: jax.Array) -> dict[int, jax.Array]:
        """Numbers of joint values, uniform, for each element of the plates."""
        chosen = {}
        for number, variable in enumerate(self.variables):
            sizes = {frame.dim: frame.size for frame in variable.frames}
            shape = tuple(sizes.get(dim, 1) for dim in range(-self.depth, 0))
            own = random.fold_in(key, number)
            chosen[number] = random.randint(own, shape, 0, variable.number)
        return chosen

    def disagreement(
        self, chosen: Mapping[int, jax.Array], cost_of: Callable[[Values], Cost]
    ) -> jax.Array:
        """Of the tables from the density at chosen values, relative to the size of its terms.

        Elements of a plate that take part in each other's terms show here.
        """
        total, size = [], []
        for factor in self._tables(cost_of):
            table = factor.table
            for axis in range(len(factor.sites) - 1, -1, -1):
                table = _at(table, axis, chosen[factor.sites[axis]], self.depth)
            total.append(jnp.sum(table))
            size.append(jnp.sum(jnp.abs(table)))
        direct = cost_of(self.values(chosen)).total
        gap = jnp.abs(sum(total[1:], total[0]) - direct) / (1 + sum(size[1:], size[0]))
        return jnp.where(jnp.isfinite(gap), gap, 0.0)

    def _tables(self, cost_of: Callable[[Values], Cost]) -> list[Factor]:
        colours = 1 + max(variable.colour for variable in self.variables)

        def at(*digits: jax.Array) -> list[jax.Array]:
            values = {
                v.name: self.supports[v.name][jnp.minimum(digits[v.colour], v.number - 1)]
                for v in self.variables
            }
            terms = cost_of(values).terms
            reduced = [
                reduce_to(term.value, keep) for term, keep in zip(terms, self.kept, strict=True)
            ]
            return [x.reshape((1,) * (self.depth - x.ndim) + x.shape) for x in reduced]

        sizes = [max(v.number for v in self.variables if v.colour == c) for c in range(colours)]
        for colour in reversed(range(colours)):
            axes = [0 if c == colour else None for c in range(colours)]
            at = jax.vmap(at, in_axes=axes)
        tables = at(*(jnp.arange(size) for size in sizes))
        factors = []
        for sites, table in zip(self.terms, tables, strict=True):
            used = {self.variables[site].colour: self.variables[site].number for site in sites}
            where = tuple(slice(used[c]) if c in used else 0 for c in range(colours))
            factors.append(Factor(sites, table[where]))
        return factors

    def _eliminate(
        self, cost_of: Callable[[Values], Cost]
    ) -> tuple[jax.Array, list[tuple[int, Factor]]]:
        """The log of the sum, and the table of each site with those that are summed later."""
        left, steps = self._tables(cost_of), []
        for number in self.order:
            variable = self.variables[number]
            mine = [factor for factor in left if number in factor.sites]
            left = [factor for factor in left if number not in factor.sites]
            others = sorted({site for factor in mine for site in factor.sites} - {number})
            sites = (number, *others)
            drop = tuple(d for d in range(-self.depth, 0) if d not in variable.dims)
            tables = [_aligned(factor, sites, drop) for factor in mine]
            table = sum(tables[1:], tables[0])
            scaled = table / variable.scale
            steps.append((number, Factor(sites, scaled)))
            left.append(Factor(tuple(others), variable.scale * logsumexp(scaled, axis=0)))
        sums = [jnp.sum(factor.table) for factor in left]
        return sum(sums[1:], sums[0]), steps


def _aligned(factor: Factor, sites: Sequence[int], drop: tuple[int, ...]) -> jax.Array:
    """The table with an axis for each of `sites`, summed over the plates in `drop`."""
    table = jnp.sum(factor.table, axis=drop, keepdims=True) if drop else factor.table
    present = [site for site in sites if site in factor.sites]
    table = jnp.moveaxis(table, [factor.sites.index(s) for s in present], range(len(present)))
    missing = [axis for axis, site in enumerate(sites) if site not in factor.sites]
    return jnp.expand_dims(table, missing)


def _at(table: jax.Array, axis: int, index: jax.Array, depth: int) -> jax.Array:
    """The table at given values along an axis; `index` has the axes of the plates."""
    plates = jnp.broadcast_shapes(table.shape[table.ndim - depth :], index.shape)
    table = jnp.broadcast_to(table, table.shape[: table.ndim - depth] + plates)
    index = jnp.broadcast_to(index, plates)
    index = index.reshape((1,) * (table.ndim - depth) + plates)
    return jnp.take_along_axis(table, index, axis=axis).squeeze(axis)


def finite_site(caller: str, name: str, message: Any) -> FiniteSite:
    """What is to be known of a discrete site, from NumPyro's message.

    Raises:
        ValueError: its support is not finite, or larger than can be summed over.
    """
    fn, shape = unmasked(message["fn"]), jnp.shape(message["value"])
    family = elementwise_family(fn)
    event = len(family.event_shape)
    try:
        if not family.has_enumerate_support:
            raise NotImplementedError
        with jax.ensure_compile_time_eval():
            values = np.asarray(family.enumerate_support(expand=False))
    except (NotImplementedError, jax.errors.JAXTypeError):
        raise ValueError(
            f"{caller}: the discrete site {name!r} ({type(family).__name__}) has no finite support "
            "that is known beforehand. Sum it out in the model (a Poisson of a Gamma is a "
            "NegativeBinomial, say), or give it a guide of its own: vi.reinforce or vi.mvd with "
            "vi.fit"
        ) from None
    values = values.reshape((len(values),) + values.shape[values.ndim - event :])
    ones = (1,) * (len(shape) - event)
    values = values.reshape(values.shape[:1] + ones + values.shape[1:])
    support = np.broadcast_to(values, values.shape[:1] + shape).astype(message["value"].dtype)
    undone = fn.event_dim - event
    scale = 1.0 if message["scale"] is None else message["scale"]
    if not isinstance(scale, int | float):
        raise ValueError(
            f"{caller}: the discrete site {name!r} is scaled by an array; scale by a number"
        )
    frames = frozenset(message["cond_indep_stack"])
    return FiniteSite(name, support, len(shape) - event - undone, event, frames, float(scale))


def plan(
    caller: str, sites: Sequence[FiniteSite], terms: Sequence[tuple[Frames, frozenset[str]]]
) -> Discrete:
    """How to sum over the sites, given the plates of each term and the sites that it depends on.

    Raises:
        ValueError: the values are too many; names the sites.
    """
    separated: dict[str, Frames] = {}
    for site in sites:
        frames = site.frames
        for plates, names in terms:
            frames = frames & plates if site.name in names else frames
        separated[site.name] = frozenset(frames)
    while True:
        joint = {site.name: _joint(caller, site, separated[site.name]) for site in sites}
        variables = _coloured(caller, sites, separated, joint, terms)
        order = _order(caller, variables, terms)
        if not isinstance(order, str):
            break
        # Two sites in different plates whose product a term is in: one goes without its plates.
        separated[order] = frozenset()
    numbers = {variable.name: i for i, variable in enumerate(variables)}
    in_terms, kept = [], []
    for plates, names in terms:
        inside = sorted((numbers[name] for name in names), key=lambda i: variables[i].colour)
        in_terms.append(tuple(inside))
        own = [separated[name] for name in names]
        kept.append(frozenset(plates & frozenset[Frame]().union(*own)))
    return Discrete(
        {name: jnp.asarray(values) for name, values in joint.items()},
        variables, tuple(in_terms), tuple(kept), order, _depth(kept),
    )  # fmt: skip


def _depth(kept: Sequence[Frames]) -> int:
    return max((-frame.dim for frames in kept for frame in frames), default=0)


def _joint(caller: str, site: FiniteSite, separated: Frames) -> np.ndarray:
    """The joint values of the elements that no plate separates, along the first axis."""
    k, shape = len(site.support), site.support.shape[1:]
    grid = shape[: len(shape) - site.event]
    own = {site.batch + frame.dim for frame in separated}
    lanes = tuple(1 if axis in own else size for axis, size in enumerate(grid))
    elements = math.prod(lanes)
    if elements * math.log(max(k, 1)) > math.log(_MOST_VALUES) + 1e-9:
        many = f"{k} values" if elements == 1 else f"{k}^{elements} joint values"
        remedy = (
            "coarsen it"
            if elements == 1
            else "elements that are independent given the rest belong in a numpyro.plate, with "
            "what depends on them; a chain can be a Python loop of sites, each of a name of its own"
        )
        raise ValueError(
            f"{caller}: the discrete site {site.name!r} has {many}, too many to sum over: "
            f"{remedy}. Or sum it out in the model (a forward algorithm in a numpyro.factor), or "
            "give it a guide of its own: vi.AutoDiscrete with vi.fit"
        )
    digits = np.stack(np.unravel_index(np.arange(k**elements), (k,) * elements), axis=1)
    index = digits.reshape((-1, *lanes) + (1,) * site.event)
    return np.take_along_axis(site.support, np.broadcast_to(index, index.shape[:1] + shape), axis=0)


def _coloured(
    caller: str,
    sites: Sequence[FiniteSite],
    separated: Mapping[str, Frames],
    joint: Mapping[str, np.ndarray],
    terms: Sequence[tuple[Frames, frozenset[str]]],
) -> tuple[Variable, ...]:
    """The sites, coloured so that no two of one colour are in a term together."""
    colours: dict[str, int] = {}
    for site in sites:
        near = {other for _, names in terms if site.name in names for other in names}
        taken = {colours[other] for other in near if other in colours}
        colours[site.name] = min(set(range(len(sites))) - taken)
    sizes = dict.fromkeys(colours.values(), 1)
    for name, colour in colours.items():
        sizes[colour] = max(sizes[colour], len(joint[name]))
    if math.prod(sizes.values()) > _MOST_RUNS:
        raise ValueError(
            f"{caller}: the discrete sites {sorted(colours)} have "
            f"{' × '.join(map(str, sizes.values()))} values together, too many to sum over. Sum "
            "some of them out in the model, or give them a guide: vi.AutoDiscrete with vi.fit"
        )
    return tuple(
        Variable(
            site.name, len(joint[site.name]), separated[site.name],
            colours[site.name], site.scale, site.batch,
        )
        for site in sites
    )  # fmt: skip


def _order(
    caller: str,
    variables: Sequence[Variable],
    terms: Sequence[tuple[Frames, frozenset[str]]],
) -> tuple[int, ...] | str:
    """An order of elimination, sites in the most plates first; or a site that spoils it."""
    numbers = {variable.name: i for i, variable in enumerate(variables)}
    groups = [frozenset(numbers[name] for name in names) for _, names in terms]
    left, order = set(range(len(variables))), []
    while left:
        deepest = max(len(variables[i].frames) for i in left)
        tables = {
            i: frozenset({i}).union(*(group for group in groups if i in group))
            for i in left
            if len(variables[i].frames) == deepest
        }
        size, number = min(
            (math.prod(variables[j].number for j in sites), i) for i, sites in tables.items()
        )
        if size > _MOST_TABLE:
            raise ValueError(
                f"{caller}: summing over the discrete site {variables[number].name!r} needs a "
                f"table of {size} numbers, as it stands in terms with many others. Sum some of "
                "them out in the model, or give them a guide: vi.AutoDiscrete with vi.fit"
            )
        mine = [group for group in groups if number in group]
        others = frozenset[int]().union(*mine) - {number}
        own = variables[number].frames
        if not all(variables[j].frames <= own for j in others):
            return variables[number].name
        groups = [group for group in groups if number not in group] + [others]
        left.remove(number)
        order.append(number)
    return tuple(order)


__all__ = ["Discrete", "finite_site", "FiniteSite", "plan"]
