"""The posterior predictive of a fitted NumPyro program as a predictive rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro import handlers

from .._core import check_flag
from ._predictive_rule import (
    AbstractPredictiveRule,
    checked_pairs,
    checked_rows,
    not_finite,
    num_rows,
    refuse,
)


class DrawsState(NamedTuple):
    """Weights of posterior draws.

    Attributes:
        log_weights: normalised, shape `(s,)`.
    """

    log_weights: Float[Array, " s"]


class PosteriorPredictive(AbstractPredictiveRule):
    r"""Posterior predictive of a NumPyro program: the mixture over posterior draws.

    $p_i(y) = \sum_s w_s p(y \mid \theta_s)$, whose weights become $w_s p(y \mid \theta_s)$,
    normalised, with each observation that is absorbed. This is exact for the prior that has the
    draws as its atoms, so that the rule is a martingale; as rows are added the weights gather on
    one draw, that of the functional. `effective_sample_size`, $1 / \sum_s w_s^2$, is recorded: as
    long as it is large the mixture stands for the posterior; that it falls to 1 as the number of
    rows grows is as it must be, and then the functional can be no finer than the draws are.

    Args:
        model: program of rows, `model(x, *args, **kwargs)` with `x` one row of the inputs of the
            data, shape `(1, d)`, or `(1,)` where theirs is `(n,)`; or without `inputs`
            `model(*args, **kwargs)`, which then has one row. Observed sites may be given
            or not: the site `y` is replaced.
        draws: posterior draws by the names of latent sites, arrays with a leading axis of the same
            length, as `MCMC.get_samples()` returns them. Those of deterministic sites are not used.
        *args: further arguments of the program.
        y: name of the site of observations, with one row, independent of other rows given the
            draws.
        inputs: whether the program has inputs, which are its first argument.
        absorb_data: whether data that the rule starts from are to change the weights, as they must
            where draws are of the prior; false for draws of the posterior given these data.
        **kwargs: arguments of the program by keyword.

    Raises:
        ValueError: no draws, of different numbers or not finite; a program without the site, or
            with more than one row of it; latent sites without draws.

    References:
        Fong, Holmes and Walker (2023), "Martingale posterior distributions", JRSS-B 85: section 2,
        for Doob's theorem.
    """

    model: Callable[..., Any] = eqx.field(static=True)
    draws: dict[str, Array]
    site: str = eqx.field(static=True)
    inputs: bool = eqx.field(static=True)
    absorb_data: bool = eqx.field(static=True)
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def __init__(
        self,
        model: Callable[..., Any],
        draws: dict[str, Any],
        /,
        *args: Any,
        y: str = "y",
        inputs: bool = True,
        absorb_data: bool = False,
        **kwargs: Any,
    ):
        if not callable(model):
            raise ValueError(
                f"PosteriorPredictive: model must be callable, got {type(model).__name__}"
            )
        check_flag("PosteriorPredictive: inputs", inputs)
        check_flag("PosteriorPredictive: absorb_data", absorb_data)
        if not isinstance(draws, dict):
            raise ValueError(
                "PosteriorPredictive: draws must be a dictionary of arrays by site, got "
                f"{type(draws).__name__}"
            )
        self.model, self.site, self.inputs = model, y, inputs
        self.draws, self.absorb_data = _checked_draws(draws), absorb_data
        self.args, self.kwargs = args, dict(kwargs)

    @property
    def has_inputs(self) -> bool:
        return self.inputs

    @property
    def has_density(self) -> bool:
        return True

    @property
    def has_cdf(self) -> bool:
        return False

    def init(self, data: Any, num_forward: int = 0) -> DrawsState:
        owner = "PosteriorPredictive"
        data = checked_pairs(owner, data) if self.inputs else checked_rows(owner, data)
        number = num_rows(self.draws)
        dtype = jnp.result_type(*(v for v in self.draws.values() if _is_floating(v)), jnp.float32)
        state = DrawsState(jnp.full(number, -jnp.log(number), dtype))
        rows = data if self.inputs else (None, data)
        self._check_site(jax.tree.map(lambda v: v[0], rows) if num_rows(data) else None)
        if not self.absorb_data or not num_rows(data):
            return state
        each = jax.lax.map(lambda row: self._log_likelihoods(row[1], row[0]), rows)
        return DrawsState(jax.nn.log_softmax(state.log_weights + jnp.sum(each, axis=0)))

    def sample(self, key: jax.Array, state: DrawsState, x: Any = None) -> Any:
        key_which, key_y = jax.random.split(key)
        which = jax.random.categorical(key_which, state.log_weights)
        draw = jax.tree.map(lambda v: v[which], self.draws)
        return _one_row(jnp.asarray(self._distribution(draw, x).sample(key_y)))

    def absorb(self, state: DrawsState, y: Any, x: Any = None) -> DrawsState:
        log_weights = state.log_weights + self._log_likelihoods(y, x)
        return DrawsState(jax.nn.log_softmax(log_weights).astype(state.log_weights.dtype))

    def log_prob(self, state: DrawsState, y: Any, x: Any = None) -> Float[Array, ""]:
        return jax.nn.logsumexp(state.log_weights + self._log_likelihoods(y, x))

    def cdf(self, state: DrawsState, y: Any, x: Any = None) -> Float[Array, ""]:
        raise refuse(self, "cdf", "not all distributions of NumPyro have one; use log_prob")

    def report(self, state: DrawsState) -> dict[str, Array]:
        return {"effective_sample_size": jnp.exp(-jax.nn.logsumexp(2 * state.log_weights))}

    def _distribution(self, draw: dict[str, Array], x: Any) -> dist.Distribution:
        """That of the observation given a draw."""
        return self._trace(draw, x)[self.site]["fn"]

    def _trace(self, draw: dict[str, Array], x: Any) -> Any:
        program = handlers.uncondition(handlers.seed(self.model, jax.random.key(0)))
        # Deterministic sites of a fit to all data do not have the values of one row.
        random = lambda s: draw.get(s["name"]) if s["type"] != "deterministic" else None  # noqa: E731
        program = handlers.substitute(program, substitute_fn=random)
        args = (jnp.asarray(x)[None], *self.args) if self.inputs else self.args
        return handlers.trace(program).get_trace(*args, **self.kwargs)

    def _log_likelihoods(self, y: Any, x: Any) -> Float[Array, " s"]:
        def one(draw: dict[str, Array]) -> jax.Array:
            return jnp.sum(self._distribution(draw, x).log_prob(y))

        return jax.vmap(one)(self.draws)

    def _check_site(self, row: Any) -> None:
        """Raises `ValueError` where the program has no site of one row, or sites without draws."""
        draw = jax.tree.map(lambda v: v[0], self.draws)
        if row is None:
            return
        trace = self._trace(draw, row[0])
        sampled = {n: s for n, s in trace.items() if s["type"] == "sample"}
        if self.site not in sampled:
            raise ValueError(
                f"PosteriorPredictive: y names the site {self.site!r}; the program draws "
                f"{', '.join(map(repr, sampled)) or 'none'}"
            )
        factors = {n for n, s in sampled.items() if isinstance(s["fn"], dist.Unit)}
        without = [n for n in sampled if n not in {*self.draws, *factors, self.site}]
        if without:
            raise ValueError(
                f"PosteriorPredictive: draws must hold all latent sites; {without} have none"
            )
        site = sampled[self.site]["fn"]
        if isinstance(site, dist.Delta) or site.batch_shape not in ((), (1,)):
            raise ValueError(
                "PosteriorPredictive: the site y must be a density or the probability of one row, "
                f"with batch shape () or (1,); got {type(site).__name__} {site.batch_shape}"
            )


def _one_row(y: jax.Array) -> jax.Array:
    return y[0] if jnp.ndim(y) and y.shape[0] == 1 else y


def _is_floating(value: Any) -> bool:
    return jnp.issubdtype(value.dtype, jnp.floating)


def _checked_draws(draws: dict[str, Any]) -> dict[str, Array]:
    arrays = {name: jnp.asarray(value) for name, value in draws.items()}
    lengths = {value.shape[0] if value.ndim else None for value in arrays.values()}
    if len(lengths) != 1 or None in lengths or 0 in lengths:
        raise ValueError(
            "PosteriorPredictive: draws must be arrays with a leading axis of the same length, got "
            f"shapes {sorted((name, value.shape) for name, value in arrays.items())}"
        )
    for name, value in arrays.items():
        if not isinstance(value, jax.core.Tracer) and bool(jnp.any(not_finite(value))):
            raise ValueError(f"PosteriorPredictive: draws[{name!r}] holds NaN or infinite values")
    return arrays
