"""NumPyro programs as priors, simulators and posteriors for calibration."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.infer import MCMC, NUTS

from .._core import whole_number


@dataclasses.dataclass(frozen=True)
class ModelProblem:
    """A NumPyro program taken apart: what is drawn from the prior, and what is data.

    Attributes:
        model: the program.
        args: its arguments.
        kwargs: its arguments by keyword.
        latents: names of the sites that are parameters.
        observed: names of the sites that are data.
    """

    model: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    latents: tuple[str, ...]
    observed: tuple[str, ...]

    def prior(self, key: jax.Array) -> dict[str, Any]:
        """One draw of the parameters, by site."""
        return {name: self._values(key, {})[name] for name in self.latents}

    def simulator(self, key: jax.Array, params: dict[str, Any]) -> dict[str, Any]:
        """One data set given parameters, by site."""
        values = self._values(key, params)
        return {name: values[name] for name in self.observed}

    def conditioned(self, data: dict[str, Any]) -> Callable[[], Any]:
        """The program without arguments, with these data observed: for any inference of NumPyro."""

        def conditioned() -> Any:
            return handlers.condition(self.model, data=data)(*self.args, **self.kwargs)

        return conditioned

    def log_likelihood(self, params: dict[str, Any], data: dict[str, Any]) -> jax.Array:
        """Log density of data given parameters, a test quantity that belongs in every check."""
        given = handlers.substitute(handlers.condition(self.model, data=data), data=params)
        trace = handlers.trace(given).get_trace(*self.args, **self.kwargs)
        total = jnp.zeros(())
        for name in self.observed:
            terms = trace[name]["fn"].log_prob(trace[name]["value"])
            scale = trace[name].get("scale")
            total = total + jnp.sum(terms if scale is None else scale * terms)
        return total

    def nuts(
        self, *, num_samples: int = 99, num_warmup: int = 300, thinning: int = 4
    ) -> Callable[[jax.Array, dict[str, Any]], dict[str, Any]]:
        """Posterior draws by the no-U-turn sampler, for `simulate`.

        Args:
            num_samples: draws of each data set that are kept.
            num_warmup: steps of adaptation.
            thinning: steps for each draw, so that draws are nearly independent.
        """
        whole_number("nuts: num_samples", num_samples)
        whole_number("nuts: num_warmup", num_warmup)
        whole_number("nuts: thinning", thinning)

        def posterior(key: jax.Array, data: dict[str, Any]) -> dict[str, Any]:
            mcmc = MCMC(
                NUTS(self.conditioned(data)),
                num_warmup=num_warmup,
                num_samples=num_samples * thinning,
                thinning=thinning,
                progress_bar=False,
            )
            mcmc.run(key)
            draws = mcmc.get_samples()
            return {name: draws[name] for name in self.latents}

        return posterior

    def _values(self, key: jax.Array, params: dict[str, Any]) -> dict[str, Any]:
        free = handlers.substitute(handlers.uncondition(self.model), data=params)
        trace = handlers.trace(handlers.seed(free, key)).get_trace(*self.args, **self.kwargs)
        return {name: trace[name]["value"] for name in (*self.latents, *self.observed)}


def model_problem(
    model: Callable[..., Any],
    /,
    *args: Any,
    observed: Sequence[str] | None = None,
    **kwargs: Any,
) -> ModelProblem:
    """Takes a NumPyro program apart for `simulate`: prior, simulator and posterior.

    Args:
        model: the program.
        *args: its arguments; what they say of observed sites is replaced by simulated data.
        observed: names of the sites that are data; by default those with `obs=`. Needed where the
            program makes them latent when it gets no data, as with `y=None`.
        **kwargs: its arguments by keyword.

    Raises:
        ValueError: the program is not callable, has no data or no parameters, sites that
            `observed` names do not exist, a `numpyro.factor`, which has nothing to draw, or a
            subsampled plate.
    """
    if not callable(model):
        raise ValueError(f"model_problem: model must be callable, got {type(model).__name__}")
    if isinstance(observed, str):
        raise ValueError(f"model_problem: observed must be a list of names, got {observed!r}")
    seeded = handlers.seed(model, jax.random.key(0))
    trace = handlers.trace(seeded).get_trace(*args, **kwargs)
    sampled = {name: site for name, site in trace.items() if site["type"] == "sample"}
    for name, site in trace.items():
        if site["type"] == "sample" and isinstance(site["fn"], dist.Unit):
            raise ValueError(
                f"model_problem: model has the factor {name!r}, from which no data can be drawn; "
                "write it as numpyro.sample with a distribution"
            )
        if site["type"] == "plate" and site["args"][1] not in (None, site["args"][0]):
            raise ValueError(
                f"model_problem: model has the subsampled plate {name!r}; simulate it whole"
            )
    if observed is None:
        observed = [name for name, site in sampled.items() if site["is_observed"]]
        if not observed:
            raise ValueError(
                "model_problem: observed must name the sites that are data, as none of "
                f"{', '.join(sampled) or '(no site)'} has obs="
            )
    if missing := sorted(set(observed) - set(sampled)):
        raise ValueError(
            f"model_problem: observed names {missing[0]!r}, but the sites are {', '.join(sampled)}"
        )
    latents = tuple(name for name in sampled if name not in set(observed))
    if not latents:
        raise ValueError("model_problem: model has no parameters: all of its sites are observed")
    return ModelProblem(model, args, kwargs, latents, tuple(observed))
