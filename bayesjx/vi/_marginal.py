r"""Programs as distributions: marginals over some of their sites, and their normalised posteriors.

A log density computed where the value was sampled comes from an estimate whose reciprocal is
unbiased, so it lies above the true one in mean; evaluated at a given value it comes from an
unbiased estimate and lies below. In $\log p - \log q$ with $p$ evaluated and $q$ sampled both
errors point down, and lower bounds stay lower bounds.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
from jax import random
from jax.flatten_util import ravel_pytree
from numpyro import handlers
from numpyro.distributions import constraints, Distribution
from numpyro.primitives import _PYRO_STACK

from ._context import activate, BiasedGradientWarning, Context, peek
from ._inference import AbstractEvidenceEstimator, sir, Target, Values
from ._particles import map_sites
from ._programs import simulate
from ._strategy import AbstractPathwise


class ProgramDistribution(Distribution):
    """A NumPyro distribution over sites of a program, with a stochastic log density.

    Made by `marginal` and `normalize`. One kept site keeps its shape as the event shape; several
    are flattened into one vector, which `unpack` takes apart.

    Attributes:
        names: the sites that a value consists of.
    """

    pytree_data_fields = ("args", "kwargs", "key", "algorithm")
    pytree_aux_fields = ("program", "names", "layout", "normalised", "site_support")
    has_rsample = True

    def __init__(
        self,
        program: Callable[..., Any],
        keep: Sequence[str] | None,
        algorithm: AbstractEvidenceEstimator,
        args: tuple,
        kwargs: dict[str, Any],
        key: jax.Array | None,
    ):
        self.program, self.algorithm = program, algorithm
        self.args, self.kwargs = args, kwargs
        self.normalised = keep is None
        if key is None and _PYRO_STACK:
            key = numpyro.prng_key()
        self.key = key
        latent = _latent_sites(program, args, kwargs)
        self.names = tuple(latent) if keep is None else tuple(keep)
        if unknown := sorted(set(self.names) - set(latent)):
            raise ValueError(
                f"marginal cannot keep {unknown}: the latent sites are {sorted(latent)}"
            )
        self.layout = tuple((name, *latent[name][:2]) for name in self.names)
        shapes = [shape for _, shape, _ in self.layout]
        single = len(shapes) == 1
        self.site_support = latent[self.names[0]][2] if single else constraints.real_vector
        event = shapes[0] if single else (sum(math.prod(shape) for shape in shapes),)
        super().__init__((), event, validate_args=False)

    @property
    def support(self) -> Any:
        return self.site_support

    def unpack(self, value: jax.Array) -> Values:
        """The value of each site, from a value of the distribution (leading axes allowed)."""
        lead = value.shape[: value.ndim - self.event_dim]
        if len(self.names) == 1:
            return {self.names[0]: value}
        parts, start = {}, 0
        for name, shape, dtype in self.layout:
            size = math.prod(shape)
            part = value[..., start : start + size].reshape(lead + shape)
            parts[name] = part.astype(dtype)
            start += size
        return parts

    def pack(self, values: Values) -> jax.Array:
        """The inverse of `unpack`, without leading axes."""
        if len(self.names) == 1:
            return jnp.asarray(values[self.names[0]])
        return ravel_pytree([jnp.asarray(values[name], float) for name in self.names])[0]

    def sample(self, key: jax.Array | None, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        return self.sample_with_intermediates(key, sample_shape)[0]

    def sample_with_intermediates(
        self, key: jax.Array | None, sample_shape: tuple[int, ...] = ()
    ) -> tuple[jax.Array, list[jax.Array]]:
        """A draw and, in a list, the log density estimate that belongs to it."""
        count = math.prod(sample_shape)
        lanes = jnp.zeros((count,)) if sample_shape else None
        value, log_prob = self._run(key, lambda _: self._draw(), lanes)
        return (
            value.reshape(sample_shape + self.event_shape),
            [log_prob.reshape(sample_shape)],
        )

    def log_prob(self, value: Any, intermediates: list[Any] | None = None) -> jax.Array:
        """Estimate of the log density: the one made while sampling if it is handed in, else one
        from below, with the distribution's own key where no objective is running."""
        if intermediates:
            return intermediates[0]
        value = jnp.asarray(value)
        lead = value.shape[: value.ndim - self.event_dim]
        flat = value.reshape((-1,) + self.event_shape) if lead else None
        if flat is None:
            return self._run(self.key, lambda _: self._evaluate(value), None)
        return self._run(self.key, self._evaluate, flat).reshape(lead)

    def _draw(self) -> tuple[jax.Array, jax.Array]:
        if self.normalised:
            target = Target(self.program, {}, self.args, self.kwargs)
            values, log_evidence = self.algorithm.resample(target)
            return self.pack(values), target.log_joint(values) - log_evidence
        trace, _ = simulate(self.program, *self.args, **self.kwargs)
        kept = {name: trace[name] for name in self.names}
        free = {name: value for name, value in trace.values.items() if name not in kept}
        target = Target(self.program, kept, self.args, self.kwargs)
        return self.pack(kept), self.algorithm.log_evidence_given(target, free)

    def _evaluate(self, value: jax.Array) -> jax.Array:
        values = self.unpack(value)
        if self.normalised:
            target = Target(self.program, {}, self.args, self.kwargs)
            log_evidence = self.algorithm.log_evidence_given(target, values)
            return target.log_joint(values) - log_evidence
        return self.algorithm.log_evidence(Target(self.program, values, self.args, self.kwargs))

    def _run(self, key: jax.Array | None, fn: Callable[[Any], Any], lanes: Any) -> Any:
        """Runs `fn` in the running objective, or in a plain forward run of its own."""
        if peek() is not None:
            return fn(None) if lanes is None else map_sites(fn, lanes)
        if key is None:
            raise ValueError(
                "a marginal's density is random and needs a key: make it inside a NumPyro program "
                "under a seed handler, or pass key= when making it"
            )
        if lanes is None:
            return self._plain(key, fn, None)
        keys = random.split(key, lanes.shape[0])
        return jax.vmap(lambda key, lane: self._plain(key, fn, lane))(keys, lanes)

    def _plain(self, key: jax.Array, fn: Callable[[Any], Any], lane: Any) -> Any:
        context = Context(key)
        with handlers.block(), activate(context):
            output = fn(lane)
        for site in context.sites:
            if not isinstance(site.strategy, AbstractPathwise):
                warnings.warn(
                    f"site {site.name!r} inside a marginal or normalised program has strategy "
                    f"{site.strategy.name}, which plain NumPyro does not apply: gradients through "
                    "it are biased. Use vi.SVILoss or vi.expectation",
                    BiasedGradientWarning,
                    stacklevel=2,
                )
                break
        return output


def marginal(
    program: Callable[..., Any],
    keep: str | Sequence[str],
    algorithm: AbstractEvidenceEstimator | None = None,
) -> Callable[..., ProgramDistribution]:
    """The marginal distribution of some sites of a program, as a maker of distributions.

    `q = marginal(program, "x")` and then `numpyro.sample("x", q(*args))` in a guide or model.
    Sampled, its log density is an estimate from above; evaluated, from below; bounds built from
    the two stay bounds. Strategies of the summed-out sites take part in the running objective.

    Args:
        program: NumPyro program over kept and auxiliary sites.
        keep: the site or sites to keep.
        algorithm: estimates the sum over the other sites; `vi.sir(1)` by default.

    Returns:
        `(*args, key=None, **kwargs) -> ProgramDistribution`, the arguments being the program's.
        The key serves evaluations outside objectives and stays the same between them.

    Raises:
        ValueError: a kept site does not exist, when the distribution is made.

    References:
        Becker et al. (2024), section 4; Lew, Cusumano-Towner and Mansinghka (2022), "Recursive
        Monte Carlo and variational inference with auxiliary variables".
    """
    names = (keep,) if isinstance(keep, str) else tuple(keep)
    if not names:
        raise ValueError("marginal needs at least one site to keep")
    engine = algorithm if algorithm is not None else sir(1)

    def make(*args: Any, key: jax.Array | None = None, **kwargs: Any) -> ProgramDistribution:
        return ProgramDistribution(program, names, engine, args, kwargs, key)

    return make


def normalize(
    program: Callable[..., Any], algorithm: AbstractEvidenceEstimator
) -> Callable[..., ProgramDistribution]:
    """The posterior of a program with observations, approximated by resampling.

    Draws are resampled among the algorithm's particles; the log density is that of the resampled
    draw, estimated from above where it was sampled and from below where it is evaluated.

    Args:
        program: NumPyro program with observed sites.
        algorithm: `vi.sir(n, proposal)`, `vi.smc(...)` or `vi.exact()`.

    Returns:
        `(*args, key=None, **kwargs) -> ProgramDistribution` over all latent sites.

    References:
        Becker et al. (2024), section 4; Andrieu, Doucet and Holenstein (2010), "Particle Markov
        chain Monte Carlo methods", for the conditional estimate.
    """

    def make(*args: Any, key: jax.Array | None = None, **kwargs: Any) -> ProgramDistribution:
        return ProgramDistribution(program, None, algorithm, args, kwargs, key)

    return make


def _latent_sites(
    program: Callable[..., Any], args: tuple, kwargs: dict[str, Any]
) -> dict[str, tuple[tuple[int, ...], Any, Any]]:
    """Shape, dtype and support of the latent sites, by an abstract run."""
    found: dict[str, tuple[tuple[int, ...], Any, Any]] = {}

    def look() -> jax.Array:
        with handlers.block():
            seeded = handlers.seed(program, random.key(0))
            trace = handlers.trace(seeded).get_trace(*args, **kwargs)
        for name, site in trace.items():
            if site["type"] == "sample" and not site["is_observed"]:
                value = jnp.asarray(site["value"])
                extra = value.ndim - site["fn"].event_dim
                support = constraints.independent(site["fn"].support, extra)
                found[name] = (value.shape, value.dtype, support if extra else site["fn"].support)
        return jnp.zeros(())

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Inside an objective the abstract run must not register sites.
        with activate(Context(random.key(0))):
            jax.eval_shape(look)
    if not found:
        raise ValueError("the program has no latent site")
    return found
