"""What a guide has to know of the latents of a model before it is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
from numpyro import handlers
from numpyro.infer.initialization import init_to_uniform
from numpyro.util import not_jax_tracer as is_concrete

from .._estimator import (
    hides,
    is_silenced,
    Staged,
    visible,
)
from ._loops import (
    Fixed,
    is_from_loop,
)

_NOT_TRACEABLE = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerBoolConversionError,
    jax.errors.TracerIntegerConversionError,
)


class Latent(NamedTuple):
    """Properties of a latent site that decide how a guide treats it.

    Attributes:
        discrete: whether its values are.
        moves: its support is computed, from other latents or from data, or an array masks it.
        masked: an array masks it.
        silenced: the whole site stands under `mask=False`.
        subsampled: the subsampled plate that it is in, if it is in one.
    """

    discrete: bool
    moves: bool
    masked: bool
    silenced: bool
    subsampled: str | None


def inspect_latents(model: Callable[..., Any], args: Any, kwargs: Any) -> dict[str, Latent]:
    """The latent sites of a model, by an abstract run."""
    latents: dict[str, Latent] = {}
    arrays, rest = eqx.partition((args, kwargs), eqx.is_array)

    def run(key: jax.Array, arrays: Any) -> None:
        args, kwargs = eqx.combine(arrays, rest)
        latents.clear()
        with handlers.block():
            trace = handlers.trace(filled(model, key)).get_trace(*args, **kwargs)
        for name, site in trace.items():
            if site["type"] == "sample" and not site["is_observed"]:
                fn = site["fn"]
                masked = hides(fn)
                moves = masked or not all(is_concrete(x) for x in jax.tree.leaves(fn.support))
                small = [
                    frame.name
                    for frame in site["cond_indep_stack"]
                    if trace.get(frame.name, {"args": (frame.size,)})["args"][0] != frame.size
                ]
                latents[name] = Latent(
                    bool(fn.is_discrete), moves, masked, is_silenced(fn), *(small[:1] or [None])
                )

    try:
        jax.eval_shape(run, jax.random.key(0), arrays)  # nothing is computed
    except _NOT_TRACEABLE:  # the model needs concrete data
        jax.eval_shape(lambda key: run(key, arrays), jax.random.key(0))
    return latents


def check_continuous(
    caller: str, model: Callable[..., Any], args: Any, kwargs: Any
) -> dict[str, Latent]:
    """Refuses models that a guide over continuous latents cannot serve.

    Raises:
        ValueError: there is no latent site, a discrete one, or one in a subsampled plate.
    """
    latents = inspect_latents(model, args, kwargs)
    discrete = sorted(name for name, latent in latents.items() if latent.discrete)
    if not latents:
        raise ValueError(f"{caller}: the model has no latent site, so it needs no guide")
    if len(discrete) == len(latents):
        raise ValueError(
            f"{caller} is for continuous latents and all of {discrete} are discrete; use "
            "vi.AutoDiscrete"
        )
    if discrete:
        raise ValueError(
            f"{caller} is for continuous latents and {discrete} are discrete; hide them by "
            "numpyro.handlers.block and add vi.AutoDiscrete in an AutoGuideList"
        )
    for name, latent in latents.items():
        if latent.subsampled is not None:
            raise ValueError(
                f"{caller} does not support local latent variables: site {name!r} is in the "
                f"subsampled plate {latent.subsampled!r}, and the guide holds all latents in one "
                "vector; pass minibatches as arguments, or write the guide of that site by hand"
            )
    return latents


def refuse_foreign(
    caller: str,
    model: Callable[..., Any],
    trace: Mapping[str, Any],
    own: Any,
    args: Any,
    kwargs: Any,
) -> None:
    """Refuses masks and supports that depend on latents which a guide does not draw itself.

    Sites in loops are left out: there all is seen to depend on the key that the loop carries.

    Args:
        caller: the guide.
        model: NumPyro model.
        trace: of a run of the model.
        own: names of the sites that the guide draws.
        args: positional arguments of the model.
        kwargs: keyword arguments of the model.

    Raises:
        ValueError: there is one.
    """
    values = {name: trace[name]["value"] for name in own}
    plates: Any = {k: site["value"] for k, site in trace.items() if site["type"] == "plate"}

    def computed(key: jax.Array) -> dict[str, Any]:
        run = Fixed(filled(model, key), values, observed=False)
        with handlers.block(), handlers.substitute(data=plates):
            sites = handlers.trace(run).get_trace(*args, **kwargs)
        distributions = {name: sites[name]["fn"] for name in own if not is_from_loop(sites[name])}
        return {
            name: (visible(fn), jax.tree.leaves(fn.support)) for name, fn in distributions.items()
        }

    for name, sources in Staged(computed, jax.random.key(0)).depends().items():
        if any(jax.tree.leaves(sources, is_leaf=lambda x: isinstance(x, frozenset))):
            raise ValueError(
                f"{caller}: the mask or the support of site {name!r} depends on a latent that this "
                "guide does not draw; draw both in one guide, which masks its distributions as the "
                "model does"
            )


def filled(model: Callable[..., Any], key: Any) -> Callable[..., Any]:
    """The model under a seed; improper priors cannot be sampled and get initial values."""

    def start(site: Any) -> Any:
        if site["type"] != "sample" or site["value"] is not None:
            return None
        try:
            return init_to_uniform(site)
        except NotImplementedError:  # no bijection onto the support: drawn, if that can be
            return None

    return handlers.substitute(handlers.seed(model, key), substitute_fn=start)
