"""What the guides over continuous latents share: supports and masks as each call has them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.scipy.stats import norm
from numpyro import handlers
from numpyro.distributions import constraints
from numpyro.distributions.transforms import biject_to
from numpyro.distributions.util import sum_rightmost
from numpyro.infer.autoguide import AutoContinuous
from numpyro.infer.util import helpful_support_errors
from numpyro.primitives import Messenger

from .._estimator import (
    draw,
    elementwise,
    hides,
    Staged,
    tag,
    unmasked,
    visible,
)
from .._programs import (
    check_continuous,
    GivenInLoops,
    is_from_loop,
    log_density,
    refuse_foreign,
)


class ContinuousGuide(AutoContinuous):
    """Abstract base of the library's guides over the flat vector of unconstrained latents.

    Where the support of a latent depends on other latents or on the data, it is that of the values
    at hand. Elements that an array masks in the model are drawn from their prior, and neither the
    model nor the guide scores them. A latent under `mask=False` has an improper prior, flat over
    its support; if nothing else depends on it, it is left out as well.
    """

    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:
        latents = check_continuous(type(self).__name__, self.model, args, kwargs)
        super()._setup_prototype(*args, **kwargs)
        self._moves = any(latent.moves for latent in latents.values())
        self._without_effect = frozenset[str]()
        if silenced := [name for name, latent in latents.items() if latent.silenced]:
            self._moves = True
            self._without_effect = self._unused(silenced, args, kwargs)
        if any(latent.moves for latent in latents.values()):
            trace, own = self.prototype_trace, list(self._init_locs)
            refuse_foreign(type(self).__name__, self.model, trace or {}, own, args, kwargs)
        self._setup_arguments = (args, kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        if self.prototype_trace is None:
            self._setup_prototype(*args, **kwargs)
        if not self._moves:
            return super().__call__(*args, **kwargs)
        latent = self._sample_latent(*args, **kwargs)
        placed = self._place(latent, args, kwargs)
        scored = numpyro.get_mask() is not False
        result: dict[str, Any] = {}
        for name, site in placed.sites.items():
            distribution = dist.Delta(
                site.value, site.log_density if scored else 0.0, site.event_dim
            )
            result[name] = numpyro.sample(name, distribution)
        return result

    def log_joint(self, args: Any, kwargs: Any) -> Callable[[jax.Array], jax.Array]:
        """The model's log density over the flat unconstrained latents, with its Jacobian.

        Args:
            args: positional arguments of the model.
            kwargs: keyword arguments of the model.
        """
        if not self._moves:
            potential = self._potential_fn_gen(*args, **kwargs)
            return lambda latent: -potential(self._unpack_latent(latent))

        def moving(latent: jax.Array) -> jax.Array:
            with handlers.block(), handlers.seed(rng_seed=0):
                sites = self._place(latent, args, kwargs, self._with_params({})).sites
            values = {name: site.value for name, site in sites.items()}
            seeded = handlers.seed(self._with_params({}), rng_seed=0)
            joint = log_density(seeded, values, *args, **kwargs).total
            return joint - sum(jnp.sum(site.log_density) for site in sites.values())

        return moving

    def _unpack_and_constrain(self, latent_sample: jax.Array, params: dict[str, Any]) -> Any:
        if not self._moves:
            return super()._unpack_and_constrain(latent_sample, params)
        args, kwargs = self._setup_arguments

        def one(latent: jax.Array) -> dict[str, jax.Array]:
            with handlers.block(), handlers.seed(rng_seed=0):
                placed = self._place(latent, args, kwargs, self._with_params(params))
            values = {name: site.value for name, site in placed.sites.items()}
            return {**values, **placed.deterministic}

        lead = jnp.shape(latent_sample)[:-1]
        if not lead:
            return one(latent_sample)
        flat = jax.lax.map(one, latent_sample.reshape(-1, latent_sample.shape[-1]))
        return jax.tree.map(lambda x: x.reshape(lead + x.shape[1:]), flat)

    def _with_params(self, params: dict[str, Any]) -> Callable[..., Any]:
        """The model with given parameters, and those of the set-up for the rest."""
        trace: Any = self.prototype_trace
        known = {k: site["value"] for k, site in trace.items() if site["type"] == "param"}
        known |= {k: v for k, v in params.items() if k in known}
        return handlers.substitute(self.model, data=known)

    def _place(
        self, latent: jax.Array, args: Any, kwargs: Any, model: Callable[..., Any] | None = None
    ) -> Placed:
        """Takes the latents to their supports, in a run of the model.

        The parameters of the model are announced to the handlers around, all else is hidden.
        """
        unconstrained: Any = self._unpack_latent(latent)
        placing = _Placing(unconstrained, self._without_effect)
        key = numpyro.prng_key()
        hidden = handlers.block(hide_fn=lambda msg: msg["type"] != "param")
        with hidden, handlers.seed(rng_seed=key), placing:
            (self.model if model is None else model)(*args, **kwargs)
        # In the order of the flat vector, which is that of the sites.
        sites = {name: placing.sites[name] for name in self._init_locs}
        return Placed(sites, placing.deterministic)

    def _unused(self, names: Iterable[str], args: Any, kwargs: Any) -> frozenset[str]:
        """Of some sites, those that no term of the model's log density depends on."""
        names = tuple(names)
        values = {}

        def find(latent: jax.Array) -> None:
            with handlers.block(), handlers.seed(rng_seed=0):
                sites = self._place(latent, args, kwargs, self._with_params({})).sites
            values.update({name: jax.eval_shape(lambda x: x, s.value) for name, s in sites.items()})

        jax.eval_shape(find, self._init_latent)

        def joint(values: dict[str, jax.Array]) -> jax.Array:
            tagged = {name: tag(value, name) for name, value in values.items()}
            seeded = handlers.seed(self._with_params({}), rng_seed=0)
            return log_density(seeded, tagged, *args, **kwargs).total

        return frozenset(names) - Staged(joint, values).depends()


class Placed(NamedTuple):
    """Latents at their places in a run of the model.

    Attributes:
        sites: per site its value, and the log density of a Delta that stands for it.
        deterministic: values of the model's deterministic sites.
    """

    sites: dict[str, Any]
    deterministic: dict[str, jax.Array]


class _Site(NamedTuple):
    value: jax.Array
    log_density: jax.Array
    event_dim: int


class _Placing(Messenger):
    """Gives each latent site the image of its unconstrained value, and remembers it.

    A hidden element has a standard normal as its density over the unconstrained values, in the
    place of the prior that the model silences: what the guide gains in entropy there, it loses.
    """

    def __init__(self, unconstrained: dict[str, jax.Array], without_effect: frozenset[str]):
        super().__init__()
        self.unconstrained, self.without_effect = unconstrained, without_effect
        self.sites: dict[str, _Site] = {}
        self.deterministic: dict[str, jax.Array] = {}

    def process_message(self, msg: Any) -> None:
        if msg["type"] == "control_flow":
            GivenInLoops(self.unconstrained, place=self.value).enter(msg, self)
        elif msg["type"] == "sample" and msg.get("name") in self.unconstrained:
            if not msg["is_observed"] and not is_from_loop(msg):
                msg["value"] = self.value(msg, self.unconstrained[msg["name"]])

    def postprocess_message(self, msg: Any) -> None:
        name = msg.get("name")
        if msg["type"] == "deterministic":
            self.deterministic[name] = msg["value"]
        elif msg["type"] == "sample" and name in self.unconstrained and not msg["is_observed"]:
            distribution, free = msg["fn"], self.unconstrained[name]
            rank = jnp.ndim(seen := self._seen(name, distribution))
            support = distribution.support
            while isinstance(support, constraints.independent):
                support = support.base_constraint
            transform = biject_to(support)
            slope = transform.log_abs_det_jacobian(free, transform(free))
            slope = sum_rightmost(slope, jnp.ndim(slope) - rank)
            reference = sum_rightmost(norm.logpdf(free), jnp.ndim(free) - rank)
            density = -jnp.where(seen, slope, reference)
            density = sum_rightmost(density, rank - len(distribution.batch_shape))
            self.sites[name] = _Site(msg["value"], density, distribution.event_dim)

    def value(self, msg: Any, free: jax.Array) -> jax.Array:
        """The image of `free` in the support; a draw from the prior where a mask hides it."""
        name, distribution = msg["name"], msg["fn"]
        with helpful_support_errors(msg):
            value = biject_to(distribution.support)(free)
        if name not in self.without_effect and not hides(distribution):
            return value
        seen = self._seen(name, distribution)
        try:
            key: Any = numpyro.prng_key()
            prior = draw(unmasked(distribution), key)[0].astype(value.dtype)
        except NotImplementedError:  # an improper prior
            return value
        return jnp.where(seen.reshape(seen.shape + (1,) * (value.ndim - seen.ndim)), value, prior)

    def _seen(self, name: str, distribution: Any) -> jax.Array:
        if name in self.without_effect:
            return jnp.zeros(elementwise(unmasked(distribution)).batch_shape, bool)
        return visible(distribution)
