"""Normalising flows of FlowJAX as distributions and as guides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
from numpyro.distributions import constraints, Distribution
from numpyro.infer.initialization import init_to_uniform

from .._estimator import (
    check_programs,
)
from ._continuous import (
    ContinuousGuide,
)


class FlowJAXDistribution(Distribution):
    """A FlowJAX distribution over vectors as a NumPyro distribution with one event dimension.

    A draw keeps its log density as an intermediate, so scoring a guide's own draws never inverts
    the flow. Leaves that FlowJAX marks as non-trainable get no gradient.

    Args:
        flow: FlowJAX distribution of shape `(d,)`.
        condition: for a conditional flow, an array of shape `batch + flow.cond_shape`; its batch
            shape is that of the distribution.

    Raises:
        ImportError: FlowJAX is not installed.
        ValueError: `flow` is no distribution over vectors, or `condition` does not fit it.
    """

    support = constraints.real_vector
    has_rsample = True
    pytree_data_fields = ("arrays", "condition")
    pytree_aux_fields = ("static",)

    def __init__(self, flow: Any, condition: Any = None):
        flowjax = _flowjax()
        if not isinstance(flow, flowjax.AbstractDistribution):
            raise ValueError(
                f"flow must be a FlowJAX distribution, got {type(flow).__name__}; a bijection "
                "becomes one by flowjax.distributions.Transformed"
            )
        if len(flow.shape) != 1:
            raise ValueError(f"flow must have a shape (d,), got {flow.shape}")
        batch: tuple[int, ...] = ()
        if (flow.cond_shape is None) != (condition is None):
            needs = "no condition" if flow.cond_shape is None else "a condition"
            raise ValueError(f"flow takes {needs}, but condition is {condition!r}")
        if flow.cond_shape is not None:
            shape, rank = jnp.shape(condition), len(flow.cond_shape)
            batch = shape[: len(shape) - rank]
            if shape[len(batch) :] != flow.cond_shape:
                raise ValueError(f"condition has shape {shape}, the flow takes {flow.cond_shape}")
        self.arrays, self.static = eqx.partition(flow, eqx.is_array)
        self.condition = condition
        super().__init__(batch, flow.shape, validate_args=False)

    @property
    def flow(self) -> Any:
        """The FlowJAX distribution."""
        return eqx.combine(self.arrays, self.static)

    @property
    def _dtype(self) -> Any:
        floats = [x for x in jax.tree.leaves(self.arrays) if eqx.is_inexact_array(x)]
        return jnp.result_type(*floats) if floats else jnp.result_type(float)

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        return self.flow.sample(_typed(key), sample_shape, self.condition).astype(self._dtype)

    def sample_with_intermediates(
        self, key: Any, sample_shape: tuple[int, ...] = ()
    ) -> tuple[jax.Array, list[jax.Array]]:
        value, log_prob = self.flow.sample_and_log_prob(_typed(key), sample_shape, self.condition)
        return value.astype(self._dtype), [log_prob.astype(self._dtype)]

    def log_prob(self, value: Any, intermediates: Any = None) -> jax.Array:
        if intermediates:
            return intermediates[0]
        return self.flow.log_prob(value, self.condition).astype(jnp.result_type(value))


class FlowGuide(ContinuousGuide):
    """A FlowJAX flow over the unconstrained latents; a NumPyro AutoGuide.

    The flow's trainable arrays are one `numpyro.param`, `{prefix}_flow`, a pytree. Flows that are
    cheap to sample (inverse autoregressive ones, FlowJAX's `invert=True`, and coupling flows) suit
    the ELBO; sticking the landing and wake-phase objectives also need the other direction.

    Args:
        model: NumPyro model with continuous latent sites.
        flow: FlowJAX distribution of shape `(d,)`, or a function `(key, d) -> flow` that makes one
            when the dimension $d$ of the latents is known.
        prefix: of the parameter's name.
        init_loc_fn: NumPyro's initialisation, which fixes the shapes of the latents only.

    Raises:
        ImportError: FlowJAX is not installed.
        ValueError: at the first call, if the flow's shape is not `(d,)`, or the model has
            discrete latents or none.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        flow: Any,
        *,
        prefix: str = "auto",
        init_loc_fn: Callable[..., Any] = init_to_uniform,
    ):
        check_programs(model=model)
        self._is_distribution = isinstance(flow, _flowjax().AbstractDistribution)
        if not self._is_distribution and not callable(flow):
            raise ValueError(f"flow must be a FlowJAX distribution, got {type(flow).__name__}")
        self.flow = flow
        super().__init__(model, prefix=prefix, init_loc_fn=init_loc_fn)

    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:
        super()._setup_prototype(*args, **kwargs)
        flow = self.flow
        if not self._is_distribution:
            flow = flow(_typed(numpyro.prng_key()), self.latent_dim)
        if FlowJAXDistribution(flow).event_shape != (self.latent_dim,):
            raise ValueError(
                f"the flow has shape {flow.shape} and the latents of the model have "
                f"{self.latent_dim} dimensions; pass a function (key, d) -> flow"
            )
        self._trainable, self._rest = trainable(flow)

    def _get_posterior(self) -> FlowJAXDistribution:
        leaves, treedef = jax.tree.flatten(self._trainable)
        leaves: Any = numpyro.param(f"{self.prefix}_flow", tuple(leaves))  # ty: ignore
        return FlowJAXDistribution(eqx.combine(jax.tree.unflatten(treedef, leaves), self._rest))

    def get_posterior(self, params: dict[str, Any]) -> FlowJAXDistribution:
        """The flow over the flat unconstrained latents.

        Args:
            params: trained parameters by name.
        """
        with numpyro.handlers.block():
            return numpyro.handlers.substitute(self._get_posterior, data=params)()


def trainable(flow: Any) -> tuple[Any, Any]:
    """Splits a flow into its trainable arrays and the rest, as `equinox.partition` does."""
    import paramax

    return eqx.partition(
        flow, eqx.is_inexact_array, is_leaf=lambda leaf: isinstance(leaf, paramax.NonTrainable)
    )


def _flowjax() -> Any:
    try:
        import flowjax.distributions
    except ImportError as error:
        raise ImportError("this needs FlowJAX: pip install 'bayesjx[flows]'") from error
    return flowjax.distributions


def _typed(key: Any) -> Any:
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    return key if typed else jax.random.wrap_key_data(key)
