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
from jaxtyping import Array, Float, Num
from numpyro import handlers
from numpyro.distributions import Distribution
from numpyro.primitives import _PYRO_STACK, Messenger

from .._estimator import (
    AbstractPathwise,
    activate,
    BiasedGradientWarning,
    check_programs,
    Context,
    elementwise_family,
    map_sites,
    peek,
)
from .._programs import (
    join_supports,
    latent_sites,
    register_params,
    simulate,
)
from ._inference import (
    AbstractEvidenceEstimator,
    Exact,
    sir,
    Target,
    Values,
)


class ProgramDistribution(Distribution):
    """A NumPyro distribution over sites of a program, with a stochastic log density.

    Made by `marginal` and `normalize`. One kept site keeps its shape as the event shape; several
    are flattened into one vector, which `unpack` takes apart.

    Attributes:
        names: the sites that a value consists of.
    """

    pytree_data_fields = ("args", "kwargs", "params", "key", "algorithm", "supports")
    pytree_aux_fields = ("program", "names", "layout", "normalised")
    has_rsample = True
    holds_plates = True  # those of the program are axes of its event

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
        latent = latent_sites(program, args, kwargs)
        self.names = tuple(latent) if keep is None else tuple(keep)
        if unknown := sorted(set(self.names) - set(latent)):
            raise ValueError(
                f"marginal cannot keep {unknown}: the latent sites are {sorted(latent)}"
            )
        self.params = {}
        if _PYRO_STACK:
            proposal = getattr(algorithm, "proposal", None)
            self.params = register_params(program, keep, proposal, args, kwargs, key)
        self.layout = tuple((name, *latent[name][:2]) for name in self.names)
        self.supports = tuple(latent[name].support for name in self.names)
        shapes = [shape for _, shape, _ in self.layout]
        event = shapes[0] if len(shapes) == 1 else (sum(math.prod(shape) for shape in shapes),)
        super().__init__((), event, validate_args=False)

    @property
    def support(self) -> Any:
        if len(self.names) == 1:
            return self.supports[0]
        return join_supports(self.supports, [math.prod(shape) for _, shape, _ in self.layout])

    @property
    def is_exact(self) -> bool:
        """Whether the log density is exact, sampled or evaluated."""
        return isinstance(self.algorithm, Exact)

    def unpack(self, value: Num[Array, ...]) -> Values:
        """The value of each site, from a value of the distribution (leading axes allowed)."""
        lead = value.shape[: value.ndim - self.event_dim]
        if len(self.names) == 1:
            return {self.names[0]: value}
        parts, start = {}, 0
        for name, shape, dtype in self.layout:
            size = math.prod(shape)
            part = value[..., start : start + size].reshape(lead + shape)
            parts[name] = part if jnp.issubdtype(dtype, jnp.floating) else part.astype(dtype)
            start += size
        return parts

    def pack(self, values: Values) -> Num[Array, ...]:
        """The inverse of `unpack`, without leading axes."""
        if len(self.names) == 1:
            return jnp.asarray(values[self.names[0]])
        parts = [jnp.ravel(values[name]) for name in self.names]
        floating = [part for part in parts if jnp.issubdtype(part.dtype, jnp.floating)]
        dtype = jnp.result_type(*floating) if floating else jnp.result_type(float)
        return jnp.concatenate([part.astype(dtype) for part in parts])

    def sample(self, key: jax.Array | None, sample_shape: tuple[int, ...] = ()) -> Num[Array, ...]:
        return self.sample_with_intermediates(key, sample_shape)[0]

    def sample_with_intermediates(
        self, key: jax.Array | None, sample_shape: tuple[int, ...] = ()
    ) -> tuple[Num[Array, ...], list[Float[Array, ...]]]:
        """A draw and, in a list, the log density estimate that belongs to it."""
        count = math.prod(sample_shape)
        lanes = jnp.zeros((count,)) if sample_shape else None
        value, log_prob = self._run(key, lambda _: self._draw(), lanes)
        return (
            value.reshape(sample_shape + self.event_shape),
            [log_prob.reshape(sample_shape)],
        )

    def log_prob(self, value: Any, intermediates: list[Any] | None = None) -> Float[Array, ...]:
        """Estimate of the log density: the one made while sampling if it is handed in, else one
        from below, with the distribution's own key where no objective is running."""
        if intermediates:
            return intermediates[0]
        value = jnp.asarray(value)
        lead = value.shape[: max(value.ndim - self.event_dim, 0)]
        if value.shape[len(lead) :] != self.event_shape:
            raise ValueError(
                f"value must have the shape {self.event_shape} of the kept sites {self.names} "
                f"(leading axes allowed), got {value.shape}"
            )
        flat = value.reshape((-1,) + self.event_shape) if lead else None
        if flat is None:
            return self._run(self.key, lambda _: self._evaluate(value), None)
        return self._run(self.key, self._evaluate, flat).reshape(lead)

    def _target(self, given: Values) -> Target:
        return Target(self.program, given, self.args, self.kwargs, self.params)

    def _draw(self) -> tuple[jax.Array, jax.Array]:
        if self.normalised:
            values, log_joint, log_evidence = self.algorithm.resample(self._target({}))
            possible = log_evidence > -jnp.inf
            log_prob = log_joint - jnp.where(possible, log_evidence, 0.0)
            return self.pack(values), jnp.where(possible, log_prob, jnp.inf)
        # The density of the run that drew the value is kept, not evaluated anew: where the
        # program contains marginals the two are estimates of different directions.
        trace, density = simulate(self._target({}).conditioned, *self.args, **self.kwargs)
        if len(density.terms) > len(trace):
            raise ValueError(
                "marginal: the program has observed sites, so its draws do not come from the "
                "normalised marginal; use normalize, or evaluate the marginal only"
            )
        kept = {name: trace[name] for name in self.names}
        free = {name: value for name, value in trace.values.items() if name not in kept}
        return self.pack(kept), self.algorithm.log_evidence_given(self._target(kept), free, density)

    def _evaluate(self, value: jax.Array) -> jax.Array:
        values = self.unpack(value)
        if not self.normalised:
            return self.algorithm.log_evidence(self._target(values))
        target = self._target({})
        density = target.density(values)
        log_joint = density.total
        log_evidence = self.algorithm.log_evidence_given(target, values, density)
        possible = (log_joint > -jnp.inf) & (log_evidence > -jnp.inf)
        log_prob = log_joint - jnp.where(possible, log_evidence, 0.0)
        return jnp.where(possible, log_prob, -jnp.inf)

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
    Give them to the program's sites; the marginal itself takes none.

    Args:
        program: NumPyro program over kept and auxiliary sites.
        keep: the site or sites to keep.
        algorithm: estimates the sum over the other sites; `vi.sir(1)` by default.

    Returns:
        `(*args, key=None, **kwargs) -> ProgramDistribution`, the arguments being the program's.
        The key serves evaluations outside objectives and stays the same between them.

    Raises:
        ValueError: nothing to keep; when the distribution is made, a kept site does not exist;
            when it is sampled, the program has observed sites (see `normalize`).

    References:
        Becker et al. (2024), section 4; Lew, Cusumano-Towner and Mansinghka (2022), "Recursive
        Monte Carlo and variational inference with auxiliary variables".
    """
    check_programs(program=program)
    names = (keep,) if isinstance(keep, str) else keep
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"keep must be the name of a site, or several names, got {keep!r}")
    names = tuple(names)
    if not names:
        raise ValueError("keep is empty: marginal needs at least one site to keep")
    if len(set(names)) < len(names):
        raise ValueError(f"marginal: keep names a site twice, {list(names)}")
    engine = _checked(sir(1) if algorithm is None else algorithm)

    def make(*args: Any, key: jax.Array | None = None, **kwargs: Any) -> ProgramDistribution:
        return ProgramDistribution(program, names, engine, args, kwargs, key)

    return make


def normalize(
    program: Callable[..., Any], algorithm: AbstractEvidenceEstimator
) -> Callable[..., ProgramDistribution]:
    """The posterior of a program with observations, approximated by resampling.

    Draws are resampled among the algorithm's particles; the log density is that of the resampled
    draw, estimated from above where it was sampled and from below where it is evaluated. If no
    particle has a positive weight, these are inf and −inf.

    Args:
        program: NumPyro program with observed sites.
        algorithm: `vi.sir(n, proposal)`, `vi.smc(...)` or `vi.exact()`.

    Returns:
        `(*args, key=None, **kwargs) -> ProgramDistribution` over all latent sites.

    References:
        Becker et al. (2024), section 4; Andrieu, Doucet and Holenstein (2010), "Particle Markov
        chain Monte Carlo methods", for the conditional estimate.
    """
    check_programs(program=program)
    _checked(algorithm)

    def make(*args: Any, key: jax.Array | None = None, **kwargs: Any) -> ProgramDistribution:
        return ProgramDistribution(program, None, algorithm, args, kwargs, key)

    return make


def _checked(algorithm: Any) -> AbstractEvidenceEstimator:
    if not isinstance(algorithm, AbstractEvidenceEstimator):
        raise TypeError(
            "algorithm must be vi.sir(n), vi.smc(n), vi.exact() or another evidence estimator, "
            f"got {algorithm!r}"
        )
    return algorithm


def exact_densities(program: Callable[..., Any], user: str, remedy: str) -> Callable[..., Any]:
    """`program`, refusing sites whose log density is an estimate.

    Args:
        program: NumPyro program.
        user: what needs exact densities, for the error text.
        remedy: what to use instead.
    """

    def run(*args: Any, **kwargs: Any) -> Any:
        with _RefuseEstimates(user, remedy):
            return program(*args, **kwargs)

    return run


class _RefuseEstimates(Messenger):
    def __init__(self, user: str, remedy: str):
        super().__init__()
        self.user, self.remedy = user, remedy

    def process_message(self, msg: Any) -> None:
        if msg["type"] != "sample":
            return
        family = elementwise_family(msg["fn"])
        if isinstance(family, ProgramDistribution) and not family.is_exact:
            raise ValueError(
                f"{self.user} needs exact densities, but that of site {msg['name']!r} is an "
                f"estimate, another one at each evaluation; {self.remedy}, or sum exactly by "
                "vi.exact()"
            )
