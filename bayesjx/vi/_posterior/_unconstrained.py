"""A model's continuous latent sites as one flat vector of real numbers, with its log density.

Discrete latent sites are summed out.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax import random
from numpyro import handlers
from numpyro.distributions import biject_to, constraints
from numpyro.infer.initialization import init_to_uniform
from numpyro.primitives import Messenger

from .._estimator import (
    activate,
    Context,
    Cost,
)
from .._programs import (
    is_discrete,
    log_density,
)
from ._arguments import (
    hold,
    is_table,
    released,
    TO_NUMPY,
)
from ._discrete_latents import (
    Discrete,
    finite_site,
    FiniteSite,
)


class LatentSite(NamedTuple):
    """A latent site of the model and where its numbers stand in the flat vector.

    Attributes:
        name: of the site.
        shape: of its value.
        flat: shape of its unconstrained value.
        start: of its first number in the flat vector.
        support: the constraint, where it is a constant; None where other sites decide it.
        is_scale: whether its support is the positive numbers.
    """

    name: str
    shape: tuple[int, ...]
    flat: tuple[int, ...]
    start: int
    support: Any
    is_scale: bool

    @property
    def size(self) -> int:
        return int(np.prod(self.flat))


class Unconstrained(eqx.Module):
    """The log density of a model with its data, of one vector of real numbers.

    Attributes:
        model: NumPyro program.
        sites: the continuous latent sites.
        dtype: of the vector.
        subsampled: names of subsampled plates.
        discrete: how to sum over the discrete latent sites; None if there are none.
        local: discrete sites in subsampled plates and deterministic sites computed from them, of
            which there are no draws.
        held: positional and keyword arguments of the model, what cannot be hashed held by identity.
    """

    model: Callable[..., Any] = eqx.field(static=True)
    sites: tuple[LatentSite, ...] = eqx.field(static=True)
    dtype: Any = eqx.field(static=True)
    subsampled: tuple[str, ...] = eqx.field(static=True)
    local: tuple[str, ...] = eqx.field(static=True)
    discrete: Discrete | None
    held: tuple[tuple, dict[str, Any]]

    @property
    def inputs(self) -> tuple[tuple, dict[str, Any]]:
        """Positional and keyword arguments of the model."""
        return jax.tree.map(released, self.held)

    @property
    def dim(self) -> int:
        return sum(site.size for site in self.sites)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the values of all latent sites."""
        shapes = {site.name: site.shape for site in self.sites}
        for name, support in self.discrete.supports.items() if self.discrete else ():
            shapes[name] = support.shape[1:]
        return shapes

    def __call__(self, vector: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Log joint density of the model and of the map to its supports.

        Args:
            vector: shape `(dim,)`.
            key: randomness of subsampled plates.
        """
        values, _, log_jacobian = self.constrain(vector)
        total = self.log_density(values, key) + log_jacobian
        return jnp.asarray(total, vector.dtype)

    def log_density(self, values: Mapping[str, Any], key: jax.Array | None = None) -> jax.Array:
        """Log density at values of the continuous sites, the discrete ones summed out."""
        if self.discrete is None:
            return self.cost(values, key).total
        return self.discrete.log_sum(lambda others: self.cost({**values, **others}, key))

    def cost(self, values: Mapping[str, Any], key: jax.Array | None = None) -> Cost:
        """The log density of the model at values of all its latent sites, by site."""
        args, kwargs = self.inputs
        if key is None:
            return log_density(self.model, values, *args, **kwargs)
        with activate(Context(key)):
            return log_density(self.model, values, *args, **kwargs)

    def not_finite(self, vector: jax.Array) -> list[str]:
        """The sites whose own log density is not finite, in words."""
        context = Context(random.key(0))
        context.scored = []
        values = {**self.constrain(vector)[0], **self._others(None)}
        args, kwargs = self.inputs
        with activate(context):
            log_density(self.model, values, *args, **kwargs)
        texts = []
        for site in context.scored:
            if bool(jnp.all(jnp.isfinite(site.log_prob))):
                continue
            missing = int(np.sum(np.isnan(np.asarray(site.value, float))))
            count = f" ({missing} of {np.size(site.value)} data are NaN)" if missing else ""
            texts.append(f"{'observed ' if site.observed else ''}{site.title}{count}")
        return texts

    def constrain(
        self, vector: jax.Array, others: Mapping[str, Any] | None = None
    ) -> tuple[dict, dict, jax.Array]:
        """Values by site, the deterministic sites, and the log determinant of the map.

        Args:
            vector: shape `(dim,)`.
            others: values of the discrete sites.
        """
        handler = _Constrain(self.split(vector), self.sites, self._others(others))
        args, kwargs = self.inputs
        with handlers.block(), handlers.seed(rng_seed=0), handler:
            self.model(*args, **kwargs)
        return handler.values, handler.deterministic, handler.log_jacobian

    def draw(self, vector: jax.Array, key: jax.Array) -> dict[str, jax.Array]:
        """Values of all sites: discrete ones drawn given the others, deterministic ones too."""
        values, deterministic, _ = self.constrain(vector)
        if self.discrete is not None:
            plates = random.key(0) if self.subsampled else None
            cost_of = lambda others: self.cost({**values, **others}, plates)  # noqa: E731
            others = self.discrete.draw(key, cost_of)
            _, deterministic, _ = self.constrain(vector, others)
            values = {**values, **others}
        both = {**values, **deterministic}
        return {name: value for name, value in both.items() if name not in self.local}

    def unconstrain(self, values: Mapping[str, Any]) -> tuple[jax.Array, jax.Array]:
        """The vector of given values by site, and the log determinant of the map back."""
        handler = _Unconstrain(values, {site.name for site in self.sites})
        args, kwargs = self.inputs
        with handlers.block(), handlers.seed(rng_seed=0), handler:
            self.model(*args, **kwargs)
        parts = [handler.parts[site.name].reshape(-1) for site in self.sites]
        vector = jnp.concatenate(parts) if parts else jnp.zeros(0)
        return vector.astype(self.dtype), handler.log_jacobian

    def _others(self, others: Mapping[str, Any] | None) -> Mapping[str, Any]:
        if others is not None or self.discrete is None:
            return others or {}
        return self.discrete.first()

    def split(self, vector: jax.Array) -> dict[str, jax.Array]:
        return {
            site.name: vector[site.start : site.start + site.size].reshape(site.flat)
            for site in self.sites
        }

    def name_of(self, index: int) -> str:
        """The site that a number of the flat vector belongs to."""
        return next(s.name for s in self.sites if s.start <= index < s.start + s.size)

    def starts(self, key: jax.Array, number: int) -> jax.Array:
        """Uniform in (-2, 2), as in Stan and NumPyro; the first one at zero."""
        shape = (number - 1, self.dim)
        others = random.uniform(key, shape, self.dtype, -2.0, 2.0)
        return jnp.concatenate([jnp.zeros((1, self.dim), self.dtype), others])


def unconstrained(
    caller: str, model: Callable[..., Any], args: tuple, kwargs: dict[str, Any]
) -> tuple[Unconstrained, tuple[FiniteSite, ...]]:
    """Looks at a model without computing anything; discrete sites are left to be summed out.

    Raises:
        ValueError: the model has no latent, one inside of a subsampled plate, one in a loop whose
            support is no constant, or a discrete one that cannot be summed out.
    """
    if not callable(model):
        raise ValueError(f"{caller}: model must be a NumPyro program, got {type(model).__name__}")
    try:
        inspect.signature(model).bind(*args, **kwargs)
    except TypeError as error:
        raise ValueError(f"{caller}: model does not take these arguments: {error}") from None
    except ValueError:  # a callable without a signature
        pass
    seen: list[Any] = []

    def run() -> None:
        # Improper priors cannot be sampled, so the sites get NumPyro's initial values.
        seeded = handlers.seed(model, rng_seed=0)
        filled = handlers.substitute(seeded, substitute_fn=init_to_uniform)
        with handlers.block():
            try:
                trace = handlers.trace(filled).get_trace(*args, **kwargs)
            except AssertionError as error:  # NumPyro's, of two sites with one name
                raise ValueError(f"{caller}: {error}") from error
        seen.append(_look(caller, trace))

    try:
        jax.eval_shape(run)
    except TypeError as error:  # also of a conversion of a tracer
        kinds = {type(leaf).__name__ for leaf in jax.tree.leaves((args, kwargs)) if is_table(leaf)}
        if not kinds:
            raise
        raise ValueError(
            f"{caller}: the model fails on arguments of type {', '.join(sorted(kinds))}, which are "
            f"no arrays of numbers; {TO_NUMPY}"
        ) from error
    sites, finite, dtype, plates = seen[-1]
    held = jax.tree.map(hold, (args, kwargs))
    return Unconstrained(model, sites, dtype, plates, (), None, held), finite


def _look(caller: str, trace: dict[str, Any]) -> tuple[tuple, tuple, Any, tuple]:
    """The latent sites of a trace, discrete ones apart, their dtype, and the subsampled plates."""
    latent = {
        name: site
        for name, site in trace.items()
        if site["type"] == "sample" and not site["is_observed"]
    }
    if not latent:
        raise ValueError(f"{caller}: the model has no latent site, so there is nothing to fit")
    for name, site in trace.items():
        if site["type"] == "sample" and is_table(site["value"]):
            raise ValueError(
                f"{caller}: site {name!r}: the observed value is of type "
                f"{type(site['value']).__name__}, no array of numbers; {TO_NUMPY}"
            )
    plates = tuple(
        name
        for name, site in trace.items()
        if site["type"] == "plate" and len(site["value"]) != site["args"][0]
    )
    finite = tuple(
        finite_site(caller, name, latent.pop(name))
        for name in sorted(latent)
        if is_discrete(latent[name]["fn"])
    )
    sites: list[LatentSite] = []
    for name in sorted(latent):
        _refuse_local(caller, name, latent[name], plates)
        start = sites[-1].start + sites[-1].size if sites else 0
        sites.append(_site(caller, name, latent[name], start))
    dtypes = [site["value"].dtype for site in latent.values()] or [float]
    return tuple(sites), finite, jnp.result_type(*dtypes), plates


def _site(caller: str, name: str, message: Any, start: int) -> LatentSite:
    support = message["fn"].support
    shape = jnp.shape(message["value"])
    flat = tuple(biject_to(support).inverse_shape(shape))
    constant = _is_constant(support)
    if message.get("_control_flow_done") and not constant:
        raise ValueError(
            f"{caller}: site {name!r} in a scan or cond has a support that changes; give it a "
            "constant one, or sample outside of the loop"
        )
    base = support
    while isinstance(base, type(constraints.real_vector)):
        base = base.base_constraint
    is_scale = base is constraints.positive or base is constraints.nonnegative
    return LatentSite(name, shape, flat, start, support if constant else None, is_scale)


def _is_constant(support: Any) -> bool:
    """Whether no bound of a constraint is computed from what the model computes."""
    held = [*jax.tree.leaves(support), *getattr(support, "__dict__", {}).values()]
    return all(
        not isinstance(x, jax.core.Tracer)
        and (x is support or not isinstance(x, constraints.Constraint) or _is_constant(x))
        for x in held
    )


def _refuse_local(caller: str, name: str, message: Any, plates: tuple[str, ...]) -> None:
    for frame in message["cond_indep_stack"]:
        if frame.name in plates:
            raise ValueError(
                f"{caller}: site {name!r} lies in the subsampled plate {frame.name!r}: it has a "
                "posterior for each element, of which a batch sees few. Leave out subsample_size, "
                "or write a guide that reads the batch (an encoder) for vi.fit"
            )


class _Constrain(Messenger):
    """Gives latent sites the images of real numbers in their supports."""

    def __init__(
        self,
        parts: dict[str, jax.Array],
        sites: tuple[LatentSite, ...],
        others: Mapping[str, Any],
    ):
        super().__init__()
        self.parts, self.others = parts, others
        self.supports = {site.name: site.support for site in sites}
        self.values: dict[str, jax.Array] = {}
        self.deterministic: dict[str, jax.Array] = {}
        self.log_jacobian: Any = 0.0

    def process_message(self, msg: Any) -> None:
        if msg["type"] == "control_flow":
            msg["kwargs"]["substitute_stack"].append(("substitute", self._of_loops()))
            if msg["kwargs"]["rng_key"] is None:
                msg["kwargs"]["rng_key"] = random.key(0)
        elif msg["type"] == "sample" and not msg["is_observed"] and msg["value"] is None:
            if msg["name"] in self.others:
                msg["value"] = self.others[msg["name"]]
            else:
                msg["value"] = self._value(msg["name"], msg["fn"].support)

    def postprocess_message(self, msg: Any) -> None:
        if msg["type"] == "deterministic":
            self.deterministic[msg["name"]] = msg["value"]
        elif msg["type"] == "sample" and not msg["is_observed"]:
            if msg["name"] not in self.values and msg["name"] not in self.others:  # of a loop
                self._value(msg["name"], self.supports[msg["name"]])

    def _value(self, name: str, support: Any) -> jax.Array:
        transform, part = biject_to(support), self.parts[name]
        value = transform(part)
        self.log_jacobian += jnp.sum(transform.log_abs_det_jacobian(part, value))
        self.values[name] = value
        return value

    def _of_loops(self) -> dict[str, jax.Array]:
        own = {
            name: biject_to(support)(self.parts[name])
            for name, support in self.supports.items()
            if support is not None and name not in self.values
        }
        return {**own, **self.others}


class _Unconstrain(Messenger):
    """Gives latent sites known values and collects their coordinates."""

    def __init__(self, values: Mapping[str, Any], continuous: set[str]):
        super().__init__()
        self.given, self.continuous = values, continuous
        self.parts: dict[str, jax.Array] = {}
        self.log_jacobian: Any = 0.0

    def process_message(self, msg: Any) -> None:
        if msg["type"] == "control_flow":
            msg["kwargs"]["substitute_stack"].append(("substitute", dict(self.given)))
            if msg["kwargs"]["rng_key"] is None:
                msg["kwargs"]["rng_key"] = random.key(0)
        elif msg["type"] == "sample" and not msg["is_observed"] and msg["value"] is None:
            msg["value"] = jnp.asarray(self.given[msg["name"]])

    def postprocess_message(self, msg: Any) -> None:
        if msg["type"] == "sample" and msg["name"] in self.continuous:
            transform = biject_to(msg["fn"].support)
            value = jnp.asarray(self.given[msg["name"]])
            part = self.parts[msg["name"]] = transform.inv(value)
            self.log_jacobian += jnp.sum(transform.log_abs_det_jacobian(part, value))
