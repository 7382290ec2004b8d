"""Gaussian guides over the unconstrained continuous latents of a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Num
from numpyro import handlers
from numpyro.distributions import constraints
from numpyro.distributions.transforms import LowerCholeskyAffine
from numpyro.distributions.util import tri_logabsdet
from numpyro.infer.initialization import init_to_uniform

from ..._core import whole_number
from ...distributions import NestedLayout, NestedNormal, noise_log_prob
from .._estimator import (
    check_positive,
    check_programs,
)
from ._continuous import (
    ContinuousGuide,
)
from ._layout import (
    nested_layout,
)

SCALES = ("meanfield", "fullrank", "lowrank", "structured")
CONDITIONERS = {
    "softplus": constraints.softplus_positive,
    "exp": constraints.positive,
    "linear": constraints.real,
}


class GaussianGuide(ContinuousGuide):
    r"""Gaussian guide $z = m + C u$ over the unconstrained latents; a NumPyro AutoGuide.

    Works in `numpyro.infer.SVI` with `vi.SVILoss` or NumPyro's ELBOs, and in `vi.fit` through
    `vi.functional`. Sites are transformed to their supports with the Jacobian accounted for; a
    support may depend on other latents. Elements that an array masks are left out of the bound.

    - `"meanfield"`: $C$ diagonal; parameters $2d$; cost of a draw $d$
    - `"lowrank"`: covariance $D^2 + U U^\top$ with `rank` columns; parameters $d (r + 2)$; cost
      of a draw $d r^2$
    - `"structured"`: $C$ lower triangular, as sparse as the plates; parameters
      $g^2 + n k (g + k)$; cost of a draw the same
    - `"fullrank"`: $C$ lower triangular; parameters $d (d + 3) / 2$; cost of a draw $d^2$

    Structured: the latents outside all plates get a full covariance; the latents of one element of
    a plate get a full covariance among themselves and depend linearly on those outside (and on
    those of the plates around it); elements of a plate are independent given these. The noise of
    gradients grows with $d$ for `"fullrank"` and hardly for the others.

    Args:
        model: NumPyro model with continuous latent sites; hide discrete ones by
            `numpyro.handlers.block` and add `vi.AutoDiscrete` in an `AutoGuideList`.
        scale: see the list.
        rank: number of columns of $U$, `"lowrank"` only; by default the root of the dimension.
        conditioner: from free parameters to the positive diagonal: `"softplus"`, `"exp"`, or
            `"linear"` for the proximal step `vi.prox_scale` (the diagonal is then the absolute
            value).
        prefix: of the names of the parameters: `{prefix}_loc`, `{prefix}_scale`,
            `{prefix}_lower` and so on.
        init_loc_fn: NumPyro's initialisation of the location.
        init_scale: initial standard deviation, positive.

    Raises:
        ValueError: unknown `scale` or `conditioner`, `rank` out of range or where it has no
            meaning, a model without continuous latents or with discrete ones, or one whose latents
            sit in a subsampled plate, or whose masks depend on what another guide draws (the last
            four at the first call).

    References:
        Kucukelbir et al. (2017), "Automatic differentiation variational inference"; Ong, Nott and
        Smith (2018), "Gaussian variational approximation with a factor covariance structure"; Kim,
        Oh, Wu, Ma and Gardner (2023), "On the convergence of black-box variational inference".
    """

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        scale: str = "meanfield",
        rank: int | None = None,
        conditioner: str = "softplus",
        prefix: str = "auto",
        init_loc_fn: Callable[..., Any] = init_to_uniform,
        init_scale: float = 0.1,
    ):
        check_programs(model=model)
        if scale not in SCALES:
            raise ValueError(f"scale must be one of {SCALES}, got {scale!r}")
        if conditioner not in CONDITIONERS:
            raise ValueError(
                f"conditioner must be one of {tuple(CONDITIONERS)}, got {conditioner!r}"
            )
        if rank is not None and scale != "lowrank":
            raise ValueError(f'rank belongs to scale="lowrank", not to scale={scale!r}')
        rank = None if rank is None else whole_number("rank", rank)
        check_positive("init_scale", init_scale)
        self.scale = scale
        self.rank = rank
        self.conditioner = conditioner
        self.init_scale = init_scale
        self.layout: NestedLayout | None = None
        super().__init__(model, prefix=prefix, init_loc_fn=init_loc_fn)

    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:
        super()._setup_prototype(*args, **kwargs)
        if self.scale == "lowrank":
            if self.rank is None:
                self.rank = max(1, round(self.latent_dim**0.5))
            if self.rank > self.latent_dim:
                raise ValueError(
                    f"rank {self.rank} exceeds the {self.latent_dim} dimensions of the latents; "
                    'use scale="fullrank"'
                )
        if self.scale == "structured":
            trace: Any = self.prototype_trace
            sites = {name: trace[name] for name in self._init_locs}
            self.layout = nested_layout(sites, self._init_locs)

    def _get_posterior(self) -> Any:
        d, init = self.latent_dim, self.init_scale
        loc = self._param("loc", self._init_latent)
        raw = self._param("scale", jnp.full_like(loc, init), CONDITIONERS[self.conditioner])
        scale = _bounded_below(raw)
        if self.scale == "meanfield":
            return dist.Normal(loc, scale).to_event(1)
        if self.scale == "fullrank":
            lower = self._param("lower", jnp.zeros((d, d), loc.dtype))
            return _FullRankNormal(loc, scale_tril=jnp.tril(lower, -1) + jnp.diag(scale))
        if self.scale == "lowrank":
            # Not zero, where the gradient's mean is zero as well.
            def start(key: jax.Array) -> jax.Array:
                noise = jax.random.normal(key, (d, self.rank or 1), loc.dtype)
                return 0.1 * init * noise

            factor = self._param("factor", start)
            return dist.LowRankMultivariateNormal(loc, factor, scale**2)
        assert self.layout is not None
        lowers, links = [], []
        for i, group in enumerate(self.layout.groups):
            shape, k = group.index.shape[:-1], group.size
            lowers.append(self._param(f"lower_{i}", jnp.zeros((*shape, k, k), loc.dtype)))
            links.append(
                [
                    self._param(
                        f"link_{i}_{p}",
                        jnp.zeros((*shape, k, self.layout.groups[p].size), loc.dtype),
                    )
                    for p in group.parents
                ]
            )
        return NestedNormal(loc, scale, lowers, links, self.layout)

    def _param(self, name: str, init: Any, constraint: Any = constraints.real) -> Any:
        return numpyro.param(f"{self.prefix}_{name}", init, constraint=constraint)

    def _sample_latent(self, *args: Any, **kwargs: Any) -> Any:
        posterior = self._get_posterior()
        sample_shape = kwargs.pop("sample_shape", ())
        log_scale = self.conditioner == "linear" and self.scale != "lowrank"
        return numpyro.sample(
            f"_{self.prefix}_latent",
            posterior.expand_by(sample_shape),
            infer={"is_auxiliary": True, "entropy_is_log_scale": log_scale},
        )

    def get_base_dist(self) -> Any:
        """Standard normal over the flat unconstrained latents, shape `(d,)`."""
        return dist.Normal(jnp.zeros(self.latent_dim), 1).to_event(1)

    def get_posterior(self, params: dict[str, Any]) -> Any:
        """The Gaussian over the flat unconstrained latents.

        Args:
            params: trained parameters by name, as `SVI.get_params` gives them.
        """
        with handlers.block(), handlers.seed(rng_seed=0):
            return handlers.substitute(self._get_posterior, data=params)()

    def get_transform(self, params: dict[str, Any]) -> LowerCholeskyAffine:
        """The affine map from `get_base_dist` to the posterior, with a dense triangular matrix.

        Args:
            params: trained parameters by name.
        """
        posterior = self.get_posterior(params)
        if self.scale == "meanfield":
            tril = jnp.diag(posterior.base_dist.scale)
        elif self.scale == "structured":
            tril = jnp.linalg.cholesky(posterior.covariance_matrix)
        else:
            tril = posterior.scale_tril
        return LowerCholeskyAffine(posterior.mean, tril)

    def median(self, params: dict[str, Any]) -> dict[str, Num[Array, ...]]:
        """The median of each latent site (of its coordinates, for sites with a vector support).

        Args:
            params: trained parameters by name.
        """
        return self._unpack_and_constrain(self.get_posterior(params).mean, params)

    def quantiles(self, params: dict[str, Any], quantiles: Any) -> dict[str, Num[Array, ...]]:
        """Quantiles of each latent site, with a leading axis for several.

        Args:
            params: trained parameters by name.
            quantiles: in (0, 1), a number or a list.
        """
        posterior = self.get_posterior(params)
        marginal = dist.Normal(posterior.mean, jnp.sqrt(posterior.variance))
        latent = marginal.icdf(jnp.asarray(quantiles)[..., None])
        return self._unpack_and_constrain(latent, params)


class _FullRankNormal(dist.MultivariateNormal):
    """Scores its own draws by their noise: a solve has an error of any size as scales collapse."""

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        return self.sample_with_intermediates(key, sample_shape)[0]

    def sample_with_intermediates(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        shape = (*sample_shape, *self.batch_shape, *self.event_shape)
        noise = jax.random.normal(key, shape, self.loc.dtype)
        return self.loc + jnp.einsum("...ij,...j->...i", self.scale_tril, noise), [noise]

    def log_prob(self, value: Any, intermediates: Any = None) -> Any:
        if not intermediates:
            return super().log_prob(value)
        return noise_log_prob(intermediates[0]) - tri_logabsdet(self.scale_tril)


def _bounded_below(scale: jax.Array) -> jax.Array:
    """The absolute value, kept away from zero without losing the gradient."""
    size = jnp.where(scale < 0, -scale, scale)
    floor = jnp.finfo(scale.dtype).eps
    return size + jax.lax.stop_gradient(jnp.maximum(size, floor) - size)
