"""Food expenditure of Belgian households: a network whose noise is learned with its function.

A small network has two outputs, the mean expenditure and the logarithm of its scatter, both
functions of income. Its weights are sampled by NUTS; mean-field inference and Laplace's
approximation of one trained network are compared with that by their function, as the weights of
hidden units can change places. Every second household is kept back and predicted.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from statsmodels.datasets import engel

from bayesjx import bnn, to_datatree, vi

from ._study import against, Choice, Problem, quality, Report, Row, run_all, Strategies, Study
from .processes import judged

HIDDEN = 5
NETWORK = eqx.nn.MLP("scalar", 2, HIDDEN, 1, activation=jnp.tanh, key=jax.random.key(0))
LEAVES = bnn.random_leaves("demo", NETWORK)
NUM_CURVES = 50  # draws of the function that predict


@dataclasses.dataclass(frozen=True)
class Households:
    """Incomes and expenditures, standardised by the households given.

    Attributes:
        x: incomes, from the smallest on.
        y: expenditures on food.
        given: which households the fits see.
    """

    x: np.ndarray
    y: np.ndarray
    given: np.ndarray


@functools.cache
def load() -> Households:
    """Of 235 households, with every second one kept back."""
    table = engel.load_pandas().data.sort_values("income")
    income, food = (table[name].to_numpy(float) for name in ("income", "foodexp"))
    given = np.arange(len(income)) % 2 == 0
    x, y = ((v - v[given].mean()) / v[given].std() for v in (income, food))
    return Households(x, y, given)


def likelihood(f: jax.Array) -> dist.Normal:
    """Expenditure, given its mean and the logarithm of its scatter."""
    return dist.Normal(f[..., 0], jnp.exp(f[..., 1]))


def model(params: Any, x: jax.Array, y: jax.Array, everyone: jax.Array) -> None:
    """Independent normal weights; the function at all households beside."""
    network = bnn.random_network("net", NETWORK, 1.0)
    numpyro.deterministic("function", jax.vmap(network)(everyone))
    numpyro.sample("y", likelihood(jax.vmap(network)(x)), obs=y)


def guide(strategies: Strategies) -> Callable[..., None]:
    """A Normal for each weight."""

    def program(params: Any, x: jax.Array, y: jax.Array, everyone: jax.Array) -> None:
        drawn = []
        for name in LEAVES.names:
            loc, scale = params[name]["loc"], jnp.exp(params[name]["log_scale"])
            normal = dist.Normal(loc, scale).to_event(loc.ndim)
            site = f"net/{name}"
            drawn.append(numpyro.sample(site, strategies.get(site, vi.reparam)(normal)))
        network = LEAVES.put(NETWORK, drawn)
        numpyro.deterministic("function", jax.vmap(network)(everyone))

    return program


CHOICES = [Choice("ELBO", "mean field", vi.elbo, {})]


@functools.cache
def problem() -> Problem:
    """The data and programs of this part; the guide begins at the trained network."""
    homes = load()
    weights = zip(LEAVES.names, LEAVES.of(trained()), strict=True)
    params = {
        name: {"loc": value, "log_scale": jnp.full(value.shape, -3.0)} for name, value in weights
    }
    given = tuple(jnp.asarray(part[homes.given]) for part in (homes.x, homes.y))
    return Problem(
        name="networks",
        title="Food of 235 households: a network with noise that grows with income",
        model=model,
        reference=model,
        guide=guide,
        params=params,
        data=(*given, jnp.asarray(homes.x)),
        dims={},
        coords={},
        tree_depth=6,
    )


@functools.cache
def trained() -> eqx.nn.MLP:
    """A mode of the log posterior density, by Adam."""
    homes = load()
    x, y = (jnp.asarray(part[homes.given]) for part in (homes.x, homes.y))
    adam, steps = optax.adam(optax.cosine_decay_schedule(0.03, 3000)), 3000

    def loss(values: tuple[jax.Array, ...]) -> jax.Array:
        log_prob = likelihood(jax.vmap(LEAVES.put(NETWORK, values))(x)).log_prob(y)
        return 0.5 * sum(jnp.sum(v**2) for v in values) - jnp.sum(log_prob)

    @jax.jit
    def train(values: Any) -> Any:
        def step(carry: Any, _: None) -> Any:
            values, state = carry
            updates, state = adam.update(jax.grad(loss)(values), state)
            return (optax.apply_updates(values, updates), state), None

        return jax.lax.scan(step, (values, adam.init(values)), None, steps)[0][0]

    return LEAVES.put(NETWORK, train(LEAVES.of(NETWORK)))


def laplace(study: Study) -> Row:
    """The trained network linearised, with the Fisher information of all weights."""
    start = time.perf_counter()
    x, y, everyone = problem().data
    posterior = bnn.laplace(trained(), x, y, likelihood, curvature="fisher")
    draws = posterior.sample(jax.random.key(2), everyone, (study.posterior_draws,))
    tree = to_datatree({"function": jax.block_until_ready(draws)})
    return Row("Laplace", "Fisher, full", tree, seconds=time.perf_counter() - start)


def predict(row: Row) -> tuple[np.ndarray, np.ndarray]:
    """Mean and scatter of every household's expenditure, for some draws of the function."""
    draws = functions(row)
    draws = draws[np.linspace(0, len(draws) - 1, NUM_CURVES).astype(int)]
    return draws[..., 0], np.exp(draws[..., 1])


def functions(row: Row) -> np.ndarray:
    """Draws of the function, chains joined, shape `(draws, households, 2)`."""
    values = row.tree["posterior"]["function"].values
    return values.reshape(-1, *values.shape[2:])


def run(study: Study) -> Report:
    """NUTS, mean-field inference and Laplace's approximation, judged by those kept back."""
    this = problem()
    tasks: list[Any] = [("NUTS", lambda: study.nuts(this))]
    for choice in study.select(CHOICES):
        label = f"{choice.objective}, {choice.strategy}"
        tasks.append((label, functools.partial(study.fit, this, choice)))
    tasks.append(("Laplace", lambda: laplace(study)))
    reference, *fits = (judged(row, load(), predict) for row in run_all(tasks))
    rows = [reference, *(against(row, reference, ["function"]) for row in fits)]
    return Report(this, rows, [quality(reference, ["function"]), remark()])


def remark() -> str:
    """What the two columns of `judged` are."""
    number = int(np.sum(~load().given))
    return (
        f"held out: mean log density of {number} households by {NUM_CURVES} draws of the function; "
        "in 90 %: share of them in that interval; errors are those of the function's values"
    )
