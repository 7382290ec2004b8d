"""`expectation`: turns an objective into an estimator with unbiased gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, overload

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from jaxtyping import Array, Float
from numpyro.distributions.distribution import validation_enabled

from ..._core import whole_number
from ._context import (
    activate,
    Context,
    DrawKey,
    map_draws,
)
from ._cost import (
    as_cost,
    Cost,
    site_name,
    sum_all,
    Term,
)
from ._diagnose import (
    gradient_problem,
)
from ._distributions import (
    elementwise_family,
)
from ._options import (
    check_argnums,
)
from ._surrogate import (
    Settings,
    surrogate_cost,
)


class SiteInfo(NamedTuple):
    """One row of `Objective.describe`."""

    name: str
    address: str
    distribution: str
    shape: tuple[int, ...]
    plates: tuple[str, ...]
    strategy: str
    unbiased: bool


class Objective(eqx.Module):
    """An objective of programs as an estimator of its value and gradient; made by `expectation`.

    Every method takes a key and the objective's arguments, is pure, and works under `jax.jit`,
    `jax.vmap` and `jax.grad`.
    """

    fn: Callable[..., Any] = eqx.field(static=True)
    has_aux: bool = eqx.field(static=True, default=False)
    maximise: bool = eqx.field(static=True, default=True)

    def estimate(self, key: jax.Array, *args: Any, **kwargs: Any) -> Any:
        """An unbiased value, scalar; with `has_aux`, the pair of value and auxiliary output.

        Differentiate `surrogate`, not this: at score and replay sites its gradient is not that
        of the expectation.
        """
        cost, aux = self._run(Context(key), args, kwargs)
        value = _total(cost)
        return (value, aux) if self.has_aux else value

    def surrogate(self, key: jax.Array | DrawKey, *args: Any, **kwargs: Any) -> Any:
        """A scalar whose value is an estimate and whose `jax.grad` is an unbiased gradient.

        With `has_aux`, the pair of scalar and auxiliary output.

        Raises:
            ValueError: the objective returns something other than a `Cost` or a real scalar, or
                a site cannot have its strategy.
        """
        value, (aux, _) = self.surrogate_with_records(key, None, *args, **kwargs)
        return (value, aux) if self.has_aux else value

    def surrogate_with_records(
        self,
        key: jax.Array | DrawKey,
        states: dict[str, jax.Array] | None,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[Float[Array, ""], tuple[Any, dict[str, jax.Array]]]:
        """Like `surrogate`, for loops that keep the states of moving-average baselines.

        Args:
            key: randomness.
            states: the records of the previous step, or None at the first.
            *args: the objective's arguments, as are **kwargs**.

        Returns:
            `(surrogate, (aux, records))`.
        """
        settings = Settings(states=states, maximise=self.maximise)

        def objective() -> Any:
            output = self.fn(*args, **kwargs)
            return _first(output) if self.has_aux else output

        cost = surrogate_cost(objective, key, settings)
        aux = self._run(Context(key), args, kwargs)[1] if self.has_aux else None
        return _total(cost), (aux, cost.records)

    def value_and_grad(
        self,
        key: jax.Array,
        *args: Any,
        argnums: int | tuple[int, ...] = 0,
        num_draws: int = 1,
        **kwargs: Any,
    ) -> tuple[Any, Any]:
        """Estimate and unbiased gradient, averaged over `num_draws` independent draws.

        Args:
            key: randomness.
            *args: the objective's arguments; all inexact arrays in those of `argnums`
                (Equinox modules and other pytrees included) are differentiated.
            argnums: which arguments to differentiate.
            num_draws: number of draws, run by `jax.vmap`.

        Returns:
            `(value, gradient)`, or `((value, aux), gradient)` with `has_aux` (then `aux` gets a
            leading axis if `num_draws > 1`).

        Raises:
            ValueError: `num_draws` is not a positive integer, or `argnums` are no positions of
                different arguments.
        """
        whole_number("num_draws", num_draws)
        chosen = check_argnums(argnums, args)

        def loss(wanted: tuple[Any, ...], key: jax.Array | DrawKey) -> Any:
            full = list(args)
            for position, value in zip(chosen, wanted, strict=True):
                full[position] = value
            return self.surrogate(key, *full, **kwargs)

        def mean_loss(wanted: tuple[Any, ...]) -> Any:
            if num_draws == 1:
                return loss(wanted, key)
            output = map_draws(lambda k: loss(wanted, k), key, num_draws)
            value = output[0] if self.has_aux else output
            return (jnp.mean(value), output[1]) if self.has_aux else jnp.mean(value)

        wanted = tuple(
            jnp.asarray(args[i]) if isinstance(args[i], float) else args[i] for i in chosen
        )
        if not any(eqx.is_inexact_array(leaf) for leaf in jax.tree.leaves(wanted)):
            raise ValueError(
                f"argnums={argnums!r}: the arguments hold no floating-point array to differentiate"
            )
        value, gradient = eqx.filter_value_and_grad(mean_loss, has_aux=self.has_aux)(wanted)
        return value, gradient[0] if isinstance(argnums, int) else gradient

    def describe(self, *args: Any, **kwargs: Any) -> list[SiteInfo]:
        """Lists the latent sites of one run with their strategies; nothing is computed."""
        rows: list[SiteInfo] = []

        def run() -> jax.Array:
            context = Context(random.key(0))
            cost, _ = self._run(context, args, kwargs)
            for site in context.sites:
                rows.append(
                    SiteInfo(
                        site.name,
                        site.address,
                        type(elementwise_family(site.distribution)).__name__,
                        np.shape(site.stacked_value),
                        tuple(sorted(frame.name for frame in site.frames)),
                        site.strategy.name,
                        site.strategy.unbiased,
                    )
                )
            return _total(cost)

        jax.eval_shape(run)
        return rows

    def is_unbiased(self, *args: Any, **kwargs: Any) -> bool:
        """Whether the strategies of all sites are unbiased."""
        return all(row.unbiased for row in self.describe(*args, **kwargs))

    def diagnose(self, key: jax.Array | DrawKey, *args: Any, **kwargs: Any) -> str | None:
        """Names the first site that is not finite: a parameter, draw, log density or gradient.

        A value outside the support of the distribution that scores it counts, too. Runs the
        objective on the host; not for use under `jax.jit`. Gradients are those in the first
        argument, along the path of the draws.

        Returns:
            a sentence, or None if everything is finite.
        """
        context = Context(key)
        context.scored = []
        with validation_enabled(False):  # which would refuse bad parameters without naming the site
            cost, _ = self._run(context, args, kwargs)
            for site in context.scored:
                if site.is_concrete() and (problem := site.problem() or site.outside()):
                    return problem
            for term in cost.terms:
                if not np.isfinite(term.value).all():
                    return f"site {site_name(term.label)!r}: its log density is {term.value}"
            if not args:
                return None

            def terms(params: Any) -> tuple[Term, ...]:
                return self._run(Context(key), (params, *args[1:]), kwargs)[0].terms

            return gradient_problem(terms, args[0], "params")

    def _run(self, context: Context, args: Any, kwargs: Any) -> tuple[Cost, Any]:
        with activate(context):
            output = self.fn(*args, **kwargs)
            aux = None
            if self.has_aux:
                output, aux = _first(output), output[1]
            return as_cost(output, "objective"), aux


@overload
def expectation(
    fn: Callable[..., Any], *, has_aux: bool = ..., maximise: bool = ...
) -> Objective: ...
@overload
def expectation(
    *, has_aux: bool = ..., maximise: bool = ...
) -> Callable[[Callable[..., Any]], Objective]: ...
def expectation(fn=None, *, has_aux: bool = False, maximise: bool = True):
    """Turns an objective into an estimator of its expectation with unbiased gradients.

    Use as a decorator, `@vi.expectation` or `@vi.expectation(maximise=False)`.

    Args:
        fn: function of any arguments that calls `vi.simulate` and `vi.log_density` and returns
            a sum or difference of their costs, or any scalar.
        has_aux: `fn` returns `(objective, aux)`.
        maximise: whether optimisers climb (bounds) or descend (losses) the objective.

    Returns:
        the `Objective`. Its estimate is unbiased for the expectation of what `fn` returns, and
        its gradient for the gradient of that: of a nonlinear function of an average it estimates
        the mean of the function, not the function of the mean.

    Raises:
        TypeError: `fn` is not callable.

    References:
        Becker, Lew, Wang, Ghavami, Huot, Rinard and Mansinghka (2024), "Probabilistic
        programming with programmable variational inference", PLDI; Lew, Huot, Staton and
        Mansinghka (2023), "ADEV: sound automatic differentiation of expected values", POPL.
    """
    if fn is None:
        return lambda fn: _make(fn, has_aux, maximise)
    return _make(fn, has_aux, maximise)


def _make(fn: Any, has_aux: bool, maximise: bool) -> Objective:
    if not callable(fn):
        raise TypeError(f"expectation takes a function, got {type(fn).__name__}")
    return Objective(fn, has_aux, maximise)


def _first(output: Any) -> Any:
    if not isinstance(output, tuple) or len(output) != 2:
        raise ValueError("an objective with has_aux=True must return the pair (objective, aux)")
    return output[0]


def _total(cost: Cost) -> jax.Array:
    """The sum of all terms, those included that users may only use linearly."""
    if not cost.terms:
        raise ValueError("the objective has no terms: neither a program's sites nor a scalar")
    return sum_all(term.value for term in cost.terms)
