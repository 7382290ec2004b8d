"""Fits with data that change and shapes that do not; models and optimisers are made anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import blackjax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax

import bayesjx
from bayesjx import bnn, gp, interop, kernels, likelihoods, vi

N, STEPS = 31, 20
GRID = gp.Grid(np.linspace(0, 1, 5), np.linspace(0, 1, 7))


def entries() -> dict[str, Callable[[int], Any]]:
    """The fits by name."""
    return {
        "vi.fit": _vi,
        "svgp_adam": lambda i: _sparse(i, gp.svgp_adam),
        "svgp_natgrad": lambda i: _sparse(i, gp.svgp_natgrad),
        "kron_vi": _grid,
        "gp.minimise": _minimise,
        "interop.sample": _chains,
        "bnn.laplace": _laplace,
        "bnn.mean_field_vi": _mean_field,
        "gp.condition": lambda i: _arrays(gp.condition(_prior(i), *_data(i))),
    }


def _data(i: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(i)
    return np.sort(rng.normal(size=N)), rng.normal(size=N)


def _counts(i: int, size: int) -> np.ndarray:
    return np.random.default_rng(i).poisson(2.0, size)


def _arrays(tree: Any) -> Any:
    return eqx.filter(tree, eqx.is_array)


def _prior(i: int) -> gp.GP:
    return gp.GP(kernels.RBF(jnp.asarray(1.0 + 0.001 * i)), noise_var=0.1)


def _poisson(f: jax.Array) -> dist.Poisson:
    return dist.Poisson(jnp.exp(f))


def _model(params: Any, y: jax.Array) -> None:
    z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(z, 1.0).expand([N]).to_event(1), obs=y)


def _guide(params: Any, y: jax.Array) -> None:
    numpyro.sample("z", dist.Normal(params["loc"], jnp.exp(params["log_scale"])))


def _vi(i: int) -> Any:
    params = {"loc": jnp.asarray(0.001 * i), "log_scale": jnp.zeros(())}
    y = jnp.asarray(_data(i)[1])
    bound, adam = vi.elbo(_model, _guide), optax.adam(0.1)
    return vi.fit(jax.random.key(i), bound, params, adam, STEPS, data=(y,)).params


def _sparse(i: int, make: Any) -> Any:
    svgp = gp.SVGP(
        gp.GP(kernels.RBF(jnp.asarray(1.0 + 0.001 * i))),
        _poisson,
        inducing_points=np.linspace(-2, 2, 11),
    )
    algorithm = make(svgp, optax.adam(0.01), num_data=N)
    data = _data(i)[0], _counts(i, N)
    result = bayesjx.fit(jax.random.key(i), algorithm, algorithm.init(), STEPS, data=data)
    return _arrays(svgp.trained(result.state))


def _grid(i: int) -> Any:
    q = gp.KronVariational(gp.GP(kernels.RBF(jnp.ones(2) + 0.001 * i)), _poisson, GRID)
    algorithm = gp.kron_vi(q, optax.adam(0.01))
    data = np.arange(35), _counts(i, 35)
    result = bayesjx.fit(jax.random.key(i), algorithm, algorithm.init(), STEPS, data=data)
    return _arrays(q.trained(result.state))


def _log_density(position: jax.Array) -> jax.Array:
    return jnp.sum(dist.Normal(1.0, 2.0).log_prob(position))


_SAMPLER = blackjax.hmc(_log_density, 0.5, np.ones(2), 3)


def _chains(i: int) -> Any:
    start = jnp.full((4, 2), 0.001 * i)
    found = interop.sample(jax.random.key(i), _SAMPLER, start, 20, num_chains=4, thin=2)
    return found.draws


def _loss(prior: gp.GP, x: Any, y: Any) -> Any:
    return -prior(x).log_prob(y)


def _minimise(i: int) -> Any:
    return _arrays(gp.minimise(_loss, _prior(i), *_data(i), max_steps=5).params)


def _network(i: int) -> Any:
    return eqx.nn.MLP(2, "scalar", 5, 1, activation=jnp.tanh, key=jax.random.key(i))


def _rows(i: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(i)
    return rng.normal(size=(N, 2)), rng.normal(size=N)


def _laplace(i: int) -> Any:
    likelihood = likelihoods.Gaussian(0.1 + 0.001 * i)
    found = bnn.laplace(_network(i), *_rows(i), likelihood, structure="kron")
    tuned = bnn.tune_laplace(found, max_steps=5).posterior
    return tuned.predict(_rows(i + 1)[0]).variance


def _mean_field(i: int) -> Any:
    q = bnn.mean_field(_network(i), likelihoods.Gaussian(0.1 + 0.001 * i))
    algorithm = bnn.mean_field_vi(q, optax.adam(0.01), num_data=N)
    result = bayesjx.fit(jax.random.key(i), algorithm, algorithm.init(), STEPS, data=_rows(i))
    return q.trained(result.state).means
