"""An automatic guide for discrete latents, which NumPyro lacks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.distributions import constraints
from numpyro.infer.autoguide import AutoGuide

from .._estimator import (
    AbstractStrategy,
    check_programs,
    elementwise,
    elementwise_family,
    unmasked,
    visible,
)
from .._programs import (
    filled,
    Fixed,
    inspect_latents,
    refuse_foreign,
)
from .._strategies import (
    enum,
    with_strategy,
)


class AutoDiscrete(AutoGuide):
    """Mean-field guide over the discrete sites of a model, in the plates that they have there.

    Each element of each discrete site gets free logits: Bernoulli for Bernoulli sites,
    Categorical for all other sites with a finite support. Combine it with NumPyro's guides for
    continuous sites by `numpyro.infer.autoguide.AutoGuideList`, or use it alone.

    Elements that an array masks in the model are drawn from their prior, and neither the model nor
    the guide scores them; the mask may depend on the data and on the guide's other sites. A site
    under `mask=False` has a flat prior.

    Args:
        model: NumPyro model with discrete latent sites of finite support.
        strategy: gradient strategy, a function of a distribution such as `vi.enum`, `vi.mvd`,
            `vi.disarm`, `vi.reinforce` (or a strategy instance such as `vi.enum()`).
        prefix: of the names of the guide's parameters.
        init_scale: standard deviation of the initial logits.
        create_plates: function of the model's arguments that makes the plates which are
            subsampled, as for other AutoGuides.

    Raises:
        ValueError: at the first call, if the model has no discrete latent site, or one whose
            support is infinite or not known.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        strategy: Any = enum,
        prefix: str = "auto",
        init_scale: float = 0.1,
        create_plates: Callable[..., Any] | None = None,
    ):
        check_programs(model=model)
        if not callable(strategy) and not isinstance(strategy, AbstractStrategy):
            raise TypeError(
                "strategy must be a function of a distribution, such as vi.enum, or the instance "
                f"of a strategy, such as vi.enum(); got {strategy!r}"
            )
        if not (isinstance(init_scale, int | float | np.floating) and init_scale >= 0):
            raise ValueError(
                f"init_scale must be a number that is not negative, got {init_scale!r}"
            )
        self.strategy = strategy
        self.init_scale = init_scale
        super().__init__(model, prefix=prefix, create_plates=create_plates)

    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:
        # AutoGuide's own set-up initialises continuous sites only; one trace is all we need.
        with handlers.block():
            trace = handlers.trace(filled(self.model, jax.random.key(0))).get_trace(*args, **kwargs)
        self.prototype_trace = trace
        masked = inspect_latents(self.model, args, kwargs)
        self._masked = {name for name, latent in masked.items() if latent.masked}
        self._prototype_frames = {}
        self._prototype_frame_full_sizes = {}
        for name, site in trace.items():
            if site["type"] == "plate":
                self._prototype_frame_full_sizes[name] = site["args"][0]
            elif site["type"] == "sample" and not site["is_observed"] and _is_discrete(site):
                for frame in site["cond_indep_stack"]:
                    self._prototype_frames[frame.name] = frame
        if not self._discrete_sites():
            raise ValueError("AutoDiscrete: the model has no discrete latent site")
        if self._masked & set(self._discrete_sites()):
            own = list(self._discrete_sites())
            refuse_foreign("AutoDiscrete", self.model, trace, own, args, kwargs)

    def _discrete_sites(self) -> dict[str, Any]:
        return {
            name: site
            for name, site in (self.prototype_trace or {}).items()
            if site["type"] == "sample" and not site["is_observed"] and _is_discrete(site)
        }

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, jax.Array]:
        if self.prototype_trace is None:
            self._setup_prototype(*args, **kwargs)
        plates = self._create_plates(*args, **kwargs)
        values: dict[str, jax.Array] = {}
        for name, site in self._discrete_sites().items():
            conditional = None
            if name in self._masked:
                conditional = self._conditional(name, values, plates, args, kwargs)
            with ExitStack() as stack:
                for frame in site["cond_indep_stack"]:
                    stack.enter_context(plates[frame.name])
                values[name] = self._sample(name, site, conditional)
        return values

    def _conditional(
        self, name: str, values: dict[str, Any], plates: dict[str, Any], args: Any, kwargs: Any
    ) -> Any:
        """The distribution that the model gives a site, other sites and minibatches as drawn."""
        indices: Any = {plate: p._indices for plate, p in plates.items()}
        key: Any = numpyro.prng_key()
        model = Fixed(filled(self.model, key), values, observed=False)
        shown = handlers.block(hide_fn=lambda msg: msg["type"] != "param")
        with shown, handlers.substitute(data=indices), handlers.trace() as trace:
            model(*args, **kwargs)
        return trace[name]["fn"]

    def _sample(self, name: str, site: dict[str, Any], conditional: Any) -> Any:
        distribution, size = _support_of(name, site)
        bernoulli = size == 0
        # Parameters cover the full plates, also where the model sees a subsample of them.
        batch = list(site["fn"].batch_shape)
        for frame in site["cond_indep_stack"]:
            batch[frame.dim] = self._prototype_frame_full_sizes[frame.name]
        event = distribution.event_shape
        shape = tuple(batch) + event + (() if bernoulli else (size,))
        logits: Any = numpyro.param(
            f"{name}_{self.prefix}_logits",
            lambda key: self.init_scale * jax.random.normal(key, shape),
            constraint=constraints.real,
            event_dim=len(event) + (0 if bernoulli else 1),
        )
        if conditional is not None:
            seen = visible(conditional)
            prior = _prior_logits(conditional, size)
            logits = jnp.where(seen if bernoulli else seen[..., None], logits, prior)
        family = dist.Bernoulli(logits=logits) if bernoulli else dist.Categorical(logits=logits)
        family = family if conditional is None else family.mask(seen)
        d = family.to_event(len(event)) if event else family
        given = self.strategy
        d = with_strategy(d, given) if isinstance(given, AbstractStrategy) else given(d)
        return numpyro.sample(name, d)

    def sample_posterior(
        self,
        rng_key: jax.Array,
        params: dict[str, Any],
        *args: Any,
        sample_shape: tuple[int, ...] = (),
        **kwargs: Any,
    ) -> dict[str, jax.Array]:
        """Draws from the fitted guide.

        Args:
            rng_key: randomness.
            params: trained parameters by name.
            *args: the model's arguments, as are **kwargs**.
            sample_shape: leading shape of the draws.

        Returns:
            per discrete site, draws of shape `sample_shape` + the site's shape.
        """

        def one(key: jax.Array) -> dict[str, jax.Array]:
            with handlers.block(), handlers.seed(rng_seed=key):
                return handlers.substitute(self, data=params)(*args, **kwargs)

        if not sample_shape:
            return one(rng_key)
        keys = jax.random.split(rng_key, sample_shape)
        flat = keys.reshape(-1) if jnp.issubdtype(keys.dtype, jax.dtypes.prng_key) else keys
        flat = flat.reshape((-1,) + keys.shape[len(sample_shape) :])
        draws = jax.vmap(one)(flat)
        return jax.tree.map(lambda x: x.reshape(sample_shape + x.shape[1:]), draws)


def _prior_logits(distribution: Any, size: int) -> jax.Array:
    """Of a Bernoulli (`size` 0) or of `size` categories along a new axis; elements kept apart."""
    one = elementwise(unmasked(distribution))
    values = jnp.arange(size or 2)

    def log_prob(value: jax.Array) -> jax.Array:
        return jnp.asarray(one.log_prob(jnp.broadcast_to(value, one.batch_shape)))

    log_probs = jnp.maximum(jax.vmap(log_prob, out_axes=-1)(values), -1e4)
    return log_probs if size else log_probs[..., 1] - log_probs[..., 0]


def _is_discrete(site: dict[str, Any]) -> bool:
    return elementwise_family(site["fn"]).is_discrete


def _support_of(name: str, site: dict[str, Any]) -> tuple[Any, int]:
    """The site's distribution, and the number of its values (0 for Bernoulli)."""
    distribution = unmasked(site["fn"])
    family = elementwise_family(distribution)
    if isinstance(family, (dist.BernoulliLogits, dist.BernoulliProbs)):
        return distribution, 0
    if isinstance(family, (dist.CategoricalLogits, dist.CategoricalProbs)):
        values = jax.eval_shape(lambda: family.enumerate_support(expand=False))
        return distribution, values.shape[0]
    if not family.has_enumerate_support or family.event_dim:
        raise ValueError(
            f"AutoDiscrete: site {name!r} is {type(family).__name__}, whose support is not "
            "finite; write a guide for it by hand, e.g. with vi.reinforce"
        )
    with jax.ensure_compile_time_eval():
        values = np.asarray(family.enumerate_support(expand=False)).reshape(-1)
    if (values != np.arange(len(values))).any():
        raise ValueError(
            f"AutoDiscrete: the support of site {name!r} ({type(family).__name__}) does not start "
            "at 0; write a guide for it by hand"
        )
    return distribution, len(values)
