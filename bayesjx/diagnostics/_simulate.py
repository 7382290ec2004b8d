"""Data sets from a prior, and posterior draws given each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._core import check_flag, check_key, whole_number


class Simulation(NamedTuple):
    """Result of `simulate`: `sbc(key, *simulation)`, and so `tarp`, `calibration_report`.

    Attributes:
        draws: pytree of arrays `(s, n, ...)`: posterior draws, then data sets.
        truths: pytree of arrays `(n, ...)`: the parameters that the data sets were made with.
    """

    draws: Any
    truths: Any


def simulate(
    key: jax.Array,
    prior: Callable[[jax.Array], Any],
    simulator: Callable[[jax.Array, Any], Any],
    posterior: Callable[[jax.Array, Any], Any],
    *,
    num_datasets: int = 500,
    test_quantities: Mapping[str, Callable[[Any, Any], Any]] | None = None,
    batch_size: int | None = None,
    compile: bool = True,
) -> Simulation:
    """Draws parameters and data from a model, and from the posterior given each data set.

    For a NumPyro program `model_problem` makes `prior` and `simulator`, and can make `posterior`.

    Args:
        key: randomness; that of a data set does not depend on how many there are in a batch.
        prior: from a key to parameters: an array or a pytree.
        simulator: from a key and parameters to data: an array or a pytree.
        posterior: from a key and data to draws: what `prior` returns, with a leading axis. Draws
            should be independent; thin chains.
        num_datasets: `n`. A hundred show gross mistakes; a standard deviation that is wrong by a
            fifth takes three hundred and more.
        test_quantities: functions of parameters and data whose values are kept too, such as the log
            likelihood, by name; then parameters must be a dictionary, or get the name
            `parameters`.
        batch_size: how many data sets at a time; all by default.
        compile: if false, data sets are taken one after another in Python, for a `posterior` that
            JAX cannot trace, such as `vi.fit_posterior`.

    Raises:
        ValueError: arguments that are not functions, numbers below 1, draws whose structure or
            shapes are not those of the parameters.
    """
    check_key(key)
    functions = {"prior": prior, "simulator": simulator, "posterior": posterior}
    quantities = dict(test_quantities or {})
    for name, function in (functions | quantities).items():
        if not callable(function):
            raise ValueError(f"simulate: {name} must be callable, got {type(function).__name__}")
    for name, number in (("num_datasets", num_datasets), ("batch_size", batch_size or 1)):
        whole_number(f"simulate: {name}", number)
    check_flag("simulate: compile", compile)

    def one(key: jax.Array) -> tuple[Any, Any]:
        key_prior, key_data, key_posterior = jax.random.split(key, 3)
        truth = prior(key_prior)
        data = simulator(key_data, truth)
        draws = posterior(key_posterior, data)
        _check_draws(draws, truth)
        if not quantities:
            return draws, truth
        kept = {name: jax.vmap(lambda p, f=f: f(p, data))(draws) for name, f in quantities.items()}
        known = {name: jnp.asarray(f(truth, data)) for name, f in quantities.items()}
        return _named(draws) | kept, _named(truth) | known

    keys = jax.random.split(key, num_datasets)
    if not compile:
        each = [one(key) for key in keys]
        draws, truths = zip(*each, strict=True)
        stacked = jax.tree.map(lambda *xs: jnp.stack(xs, axis=1), *draws)
        return Simulation(stacked, jax.tree.map(lambda *xs: jnp.stack(xs), *truths))
    if batch_size is None or batch_size >= num_datasets:
        return Simulation(*jax.jit(jax.vmap(one, out_axes=(1, 0)))(keys))
    mapped = jax.jit(lambda keys: jax.lax.map(one, keys, batch_size=batch_size))
    draws, truths = mapped(keys)
    return Simulation(jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), draws), truths)


def _named(parameters: Any) -> dict[str, Any]:
    return dict(parameters) if isinstance(parameters, Mapping) else {"parameters": parameters}


def _check_draws(draws: Any, truth: Any) -> None:
    shapes = jax.tree.map(np.shape, (draws, truth), is_leaf=lambda x: hasattr(x, "shape"))
    drawn, wanted = (jax.tree.leaves(tree) for tree in (draws, truth))
    same = jax.tree.structure(draws) == jax.tree.structure(truth)
    if not same or any(np.shape(d)[1:] != np.shape(t) or not np.ndim(d) for d, t in zip(
        drawn, wanted, strict=True
    )):  # fmt: skip
        raise ValueError(
            "simulate: posterior must return what prior returns with a leading axis of draws; "
            f"shapes of draws are {shapes[0]}, of parameters {shapes[1]}"
        )
