"""Distribution transformer: a prior and observations in, the posterior out."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.core
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import constraints

from .._core import check_flag, check_key, whole_number
from ._attention import Dense, Layer, MLP
from ._gaussian_mixture import GaussianMixture, propagate_mixture
from ._meta_priors import check_meta_prior, sample_updates, scalings_of
from ._mixture_supports import checked_support, Support
from ._mixture_tokens import feature_names, MixtureTokens, num_features, Scaling
from ._transformer_forward import (
    known_features,
    tokens_of_mixture,
    tokens_of_parameters,
    updated,
)
from ._transformer_inputs import checked_observed, checked_parameters, checked_prior
from ._update_layer import UpdateLayer


class DistributionTransformer(eqx.Module):
    r"""A network from a prior and a set of observations to the posterior, a mixture of Gaussians.

    It learns $p(x \mid z, \phi)$ for all priors $p(x \mid \phi)$ of a meta-prior $p(\phi)$, so that
    another prior needs no new training. The prior is a mixture of Gaussians on the unconstrained
    scale, each component a token; or, with `prior_inputs`, a distribution of any family that is
    given by so many parameters, which a network turns into a mixture. Tokens attend to each other
    and to observations. Neither the order of components nor that of observations matters.

    By default each component is changed, relative to itself: $\mu' = \mu + L \delta$, $L' = L T$.
    An untrained network leaves a mixture as it is, and no network changes it where there is no
    observation. The posterior can be the prior of the next observations: `filter`.

    Trained by `transformer_training`; `DistributionTransformer.for_meta_prior` chooses what follows
    from the meta-prior. What a likelihood is told beside an observation, such as its noise
    variance, is part of the vector that stands for the observation.

    Args:
        num_latents: number of latent variables, `s`.
        num_observed: size of an observation, `d`.
        num_components: `k`, of the posterior, and the most that a prior may have.
        key: PRNG key of the initial weights.
        width: size of a token.
        depth: number of layers that components pass.
        encoder_depth: number of layers that observations pass, by default `depth`.
        heads: number of heads of attention, which divides `width`.
        hidden: width of the layers' own networks, by default twice `width`.
        support: a NumPyro constraint, `real`, `positive`, `unit_interval`, `interval(a, b)` or
            `greater_than(a)`, or one for each latent variable.
        prior_inputs: number of parameters of a prior, or None for mixtures of Gaussians.
        residual: whether components are changed relative to themselves; else the network says what
            they are.
        scalings: see `for_meta_prior`.

    Raises:
        ValueError: sizes that are no positive integers or do not divide, a wrong support, no key.

    References:
        Whittle, Ziomek, Rawling and Osborne (2025), "Distribution transformers: fast approximate
        Bayesian inference with on-the-fly prior adaptation", arXiv 2502.02463.
    """

    components: MLP
    observations: tuple[MLP, Dense]
    parameters: MLP | None
    encoder: tuple[Layer, ...]
    layers: tuple[UpdateLayer, ...]
    norm: eqx.nn.LayerNorm
    change: MLP | None
    whole: MLP | None
    scalings: dict[str, Scaling]
    support: Support = eqx.field(static=True)
    num_components: int = eqx.field(static=True)

    def __init__(
        self,
        num_latents: int,
        num_observed: int,
        num_components: int,
        *,
        key: jax.Array,
        width: int = 64,
        depth: int = 3,
        encoder_depth: int | None = None,
        heads: int = 4,
        hidden: int | None = None,
        support: Any = constraints.real,
        prior_inputs: int | None = None,
        residual: bool = True,
        scalings: dict[str, Scaling] | None = None,
    ):
        owner = "DistributionTransformer"
        check_key(key)
        check_flag(f"{owner}: residual", residual)
        s, d, k, width, depth, heads = (
            whole_number(f"{owner}: {name}", value)
            for name, value in (
                ("num_latents", num_latents),
                ("num_observed", num_observed),
                ("num_components", num_components),
                ("width", width),
                ("depth", depth),
                ("heads", heads),
            )
        )
        encoder_depth = depth if encoder_depth is None else encoder_depth
        encoder_depth = whole_number(f"{owner}: encoder_depth", encoder_depth, 0)
        hidden = 2 * width if hidden is None else whole_number(f"{owner}: hidden", hidden)
        if width % heads:
            raise ValueError(f"{owner}: heads must divide width, got {heads} and {width}")
        p = None if prior_inputs is None else whole_number(f"{owner}: prior_inputs", prior_inputs)
        self.support = checked_support(owner, support, s)
        self.num_components = k
        size, total = num_features(s), encoder_depth + depth
        keys = jax.random.split(key, total + 6)
        self.components = MLP(size, hidden, width, key=keys[0])
        self.observations = (
            MLP(2 * d, hidden, hidden, key=keys[1]),
            Dense(hidden, width, key=keys[2]),
        )
        self.parameters = None if p is None else MLP(p, hidden, k * width, key=keys[3])
        self.change = MLP(width, hidden, size, key=keys[4], zero=True) if residual else None
        kept = residual and p is None
        self.whole = None if kept else MLP(width, hidden, size, key=keys[5])
        self.encoder = tuple(
            Layer(width, heads, hidden, key=one) for one in keys[6 : 6 + encoder_depth]
        )
        self.layers = tuple(
            UpdateLayer(width, heads, hidden, key=one) for one in keys[6 + encoder_depth :]
        )
        self.norm = eqx.nn.LayerNorm(width)
        self.scalings = scalings or {
            "latents": Scaling.none(s),
            "observed": Scaling.none(d),
            "prior": Scaling.none(p or size),
            "components": Scaling.none(size),
        }

    @property
    def num_latents(self) -> int:
        """Number of latent variables."""
        return len(self.support)

    @property
    def num_observed(self) -> int:
        """Size of an observation."""
        return len(self.scalings["observed"].loc)

    @property
    def prior_inputs(self) -> int | None:
        """Number of parameters of a prior; None where it is a mixture of Gaussians."""
        return None if self.parameters is None else len(self.scalings["prior"].loc)

    @property
    def dtype(self) -> Any:
        """Type of the parameters, in which everything is computed."""
        return self.norm.weight.dtype  # ty: ignore

    def embed(self, prior: Any) -> MixtureTokens:
        """The tokens of a prior; `decode` gives it back.

        Args:
            prior: a `GaussianMixture` on the unconstrained scale, or a NumPyro distribution on the
                support, with the batch shape `(*batch,)`; with `prior_inputs` its parameters,
                shape `(*batch, p)`. A mixture with fewer components than the network has gets
                copies of them, which add up to the same.

        Raises:
            ValueError: no mixture of Gaussians, too many components, or wrong shapes.
        """
        if self.parameters is not None and not isinstance(
            prior, GaussianMixture | dist.Distribution
        ):
            phi = checked_parameters(prior, len(self.scalings["prior"].loc), self.dtype)
            return tokens_of_parameters(self, phi)
        mixture = checked_prior(prior, self.support, self.num_components, self.dtype)
        return tokens_of_mixture(self, mixture)

    def update(self, tokens: MixtureTokens, z: Any, *, mask: Any = None) -> MixtureTokens:
        """The tokens of the posterior.

        Args:
            tokens: of the prior, from `embed` or an earlier `update`.
            z: observations, shape `(*batch, n, d)`; `n` may be 0. Their order does not matter.
            mask: which of them count, booleans, shape `(*batch, n)`; the others may be NaN. Where
                none does, tokens stay as they are.

        Raises:
            ValueError: wrong shapes, NaN.
        """
        z, mask = checked_observed(z, mask, self.num_observed, self.dtype)
        if not z.shape[-2]:
            return tokens
        return updated(self, tokens, z, mask)

    def decode(self, tokens: MixtureTokens) -> dist.Distribution:
        """The distribution of latent variables, on their support.

        Args:
            tokens: of `embed` or `update`.
        """
        return tokens.mixture.distribution(self.support)

    def __call__(self, prior: Any, z: Any, *, mask: Any = None) -> dist.Distribution:
        """The posterior.

        Args:
            prior: see `embed`.
            z: see `update`.
            mask: see `update`.

        Returns:
            A NumPyro distribution with the batch shape `(*batch,)` and the event shape `(s,)`: a
            `MixtureSameFamily` of `MultivariateNormal`, transformed to the support.

        Raises:
            ValueError: see `embed` and `update`.

        Warns:
            UserWarning: the prior is unlike those of the training; see `check`.
        """
        self._warn_outside(prior)
        return self.decode(self.update(self.embed(prior), z, mask=mask))

    def posterior(self, prior: Any, z: Any, *, mask: Any = None) -> GaussianMixture:
        """The posterior as arrays, on the unconstrained scale, for `jax.vmap` and `jax.lax.scan`.

        Args:
            prior: see `embed`.
            z: see `update`.
            mask: see `update`.
        """
        return self.update(self.embed(prior), z, mask=mask).mixture

    def filter(
        self, prior: Any, z: Any, transition: Any, noise_cov: Any, *, mask: Any = None
    ) -> GaussianMixture:
        r"""Filtering distributions of a state with linear-Gaussian dynamics, observed in any way.

        $x_1$ has the prior and $x_{t+1} = F x_t + \epsilon_t$ with $\epsilon_t \sim N(0, Q)$, which
        is exact for mixtures; observations enter by `update`.

        Args:
            prior: of $x_1$, see `embed`; batch shape `(*batch,)`.
            z: observations at each time, shape `(t, *batch, n, d)`.
            transition: $F$, shape `(s, s)`.
            noise_cov: $Q$, shape `(s, s)`.
            mask: which of them count, shape `(t, *batch, n)`.

        Returns:
            Mixtures of $x_t$ given observations up to $t$, with a leading axis of `t`.

        Raises:
            ValueError: wrong shapes, NaN, latent variables with a bounded support.
        """
        if any(bounds != (-np.inf, np.inf) for bounds in self.support):
            raise ValueError("filter: support must be real for linear-Gaussian dynamics")
        z, mask = checked_observed(z, mask, self.num_observed, self.dtype)
        first = self.embed(prior)

        def step(tokens: MixtureTokens, seen: Any) -> tuple[MixtureTokens, GaussianMixture]:
            after = self.update(tokens, seen[0], mask=seen[1]).mixture
            return self.embed(propagate_mixture(after, transition, noise_cov)), after

        return jax.lax.scan(step, first, (z, mask))[1]

    def check(self, prior: Any) -> list[str]:
        """What of a prior lies outside of those that the network was trained with, in words.

        Args:
            prior: see `embed`; arrays that are known.

        Returns:
            An empty list if nothing does, or if the range is not known.
        """
        scaling = self.scalings["prior"]
        if self.parameters is not None and not isinstance(
            prior, GaussianMixture | dist.Distribution
        ):
            values = checked_parameters(prior, len(self.scalings["prior"].loc), self.dtype)
            names = [f"parameter {i}" for i in range(len(scaling.loc))]
        else:
            values = known_features(
                checked_prior(prior, self.support, self.num_components, self.dtype)
            )
            names = feature_names(self.num_latents)
            if self.parameters is not None:
                scaling = self.scalings["components"]
        return [
            f"{name} (trained between {float(low):.3g} and {float(high):.3g})"
            for name, low, high, bad in zip(
                names, scaling.low, scaling.high, scaling.outside(values), strict=True
            )
            if bad
        ]

    @staticmethod
    def for_meta_prior(
        key: jax.Array,
        meta_prior: Callable[[jax.Array], Any],
        simulator: Callable[..., Any],
        *,
        prior: Callable[[Any], dist.Distribution] | None = None,
        num_components: int | None = None,
        support: Any = constraints.real,
        num_tasks: int = 1000,
        **options: Any,
    ) -> DistributionTransformer:
        """A network with the sizes, and scales of what it is given, that suit a meta-prior.

        Args:
            key: PRNG key, of draws and of the initial weights.
            meta_prior: see `transformer_training`.
            simulator: see there.
            prior: see there.
            num_components: by default those of the meta-prior's mixtures, or 5.
            support: see `DistributionTransformer`.
            num_tasks: priors that are drawn.
            **options: of `DistributionTransformer`.

        Raises:
            ValueError: see `transformer_training`.
        """
        check_key(key)
        owner = "for_meta_prior"
        shapes = check_meta_prior(owner, meta_prior, simulator, prior, support)
        num_tasks = whole_number(f"{owner}: num_tasks", num_tasks, 2)
        key_draws, key_weights = jax.random.split(key)
        s, d = shapes.x.shape[-1], shapes.z.shape[-1]
        bounds = checked_support(owner, support, s)
        draw = jax.jit(lambda k: sample_updates(k, meta_prior, simulator, prior, bounds, num_tasks))
        drawn = draw(key_draws)
        mixtures = isinstance(drawn.phi, GaussianMixture)
        if num_components is None:
            num_components = drawn.phi.num_components if mixtures else 5
        return DistributionTransformer(
            s,
            d,
            num_components,
            key=key_weights,
            support=support,
            prior_inputs=None if mixtures else drawn.phi.shape[-1],
            scalings=scalings_of(drawn),
            **options,
        )

    def _warn_outside(self, prior: Any) -> None:
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(prior)):
            return
        found = self.check(prior)
        if found:
            warnings.warn(
                "the prior lies outside of those that the network was trained with, where its "
                f"posterior is not checked: {', '.join(found)}",
                stacklevel=3,
            )
