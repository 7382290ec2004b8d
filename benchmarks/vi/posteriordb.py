"""Ten posteriors with reference draws, as NumPyro models.

The data are those of the public posterior database of the Stan project; `load` reads them from a
folder `posteriordb` below the directory that the environment variable `BAYESJX_DATA` names.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints

sample: Callable[..., Any] = numpyro.sample
HOW_TO_GET = (
    "set BAYESJX_DATA to a folder with posteriordb/NAME.json, where each file has the keys `data` "
    "and `reference` of a posterior of https://github.com/stan-dev/posteriordb"
)


class Posterior(NamedTuple):
    """A model with its data and the moments of its reference draws.

    Attributes:
        name: as in the database.
        model: NumPyro program without arguments.
        quantities: from one draw of the latent sites to the parameters of the reference, by name.
        means: reference means by parameter.
        sds: reference standard deviations.
    """

    name: str
    model: Callable[[], None]
    quantities: Callable[[dict[str, jax.Array]], dict[str, jax.Array]]
    means: dict[str, float]
    sds: dict[str, float]


def load(name: str, units: tuple[float, ...] = ()) -> Posterior:
    """The posterior of that name.

    Args:
        name: as in the database.
        units: factors by which the columns of a regression are multiplied, in turn. The slopes are
            divided by them, priors included, so that the quantities keep their reference.

    Raises:
        FileNotFoundError: the data are not there; the text says where they are looked for.
    """
    root = os.environ.get("BAYESJX_DATA")
    path = Path(root or ".") / "posteriordb" / f"{name}.json"
    if not root or not path.exists():
        raise FileNotFoundError(f"no {path.name}: {HOW_TO_GET}")
    stored = json.loads(path.read_text(encoding="utf-8"))
    data = {key: np.asarray(value) for key, value in stored["data"].items()}
    if units and name not in REGRESSIONS:
        raise ValueError(f"units are for {REGRESSIONS}, not for {name}")
    model, quantities = MODELS[name](data | {"units": np.asarray(units)})
    reference = stored["reference"]
    return Posterior(
        name,
        model,
        quantities,
        {key: value["mean"] for key, value in reference.items()},
        {key: value["sd"] for key, value in reference.items()},
    )


Built = tuple[Callable[[], None], Callable[[dict[str, jax.Array]], dict[str, jax.Array]]]


def _flat(name: str, shape: tuple[int, ...] = (), support: Any = constraints.real) -> jax.Array:
    """A parameter with an improper flat prior."""
    event = constraints.independent(support, len(shape)) if shape else support
    return sample(name, dist.ImproperUniform(event, (), event_shape=shape))


def _numbered(name: str, values: jax.Array) -> dict[str, jax.Array]:
    return {f"{name}[{i + 1}]": values[i] for i in range(values.shape[0])}


def _named(*scalars: str, vectors: tuple[str, ...] = ()) -> Callable[..., Any]:
    def quantities(draw: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        found = {name: draw[name] for name in scalars}
        for name in vectors:
            found |= _numbered(name, draw[name])
        return found

    return quantities


def eight_schools(data: dict[str, np.ndarray]) -> Built:
    def model() -> None:
        mu = sample("mu", dist.Normal(0, 5))
        tau = sample("tau", dist.HalfCauchy(5.0))
        with numpyro.plate("schools", len(data["y"])):
            z = sample("z", dist.Normal(0, 1))
            sample("y", dist.Normal(mu + tau * z, data["sigma"]), obs=data["y"])

    def quantities(draw: dict[str, jax.Array]) -> dict[str, jax.Array]:
        theta = draw["mu"] + draw["tau"] * draw["z"]
        return {"mu": draw["mu"], "tau": draw["tau"], **_numbered("theta", theta)}

    return model, quantities


def _regression(
    design: np.ndarray,
    response: np.ndarray,
    scale: Any,
    data: dict[str, np.ndarray],
    prior: float | None = None,
) -> Built:
    """Linear regression with the given priors (None: flat) of slopes and noise."""
    factors = np.resize(data["units"], design.shape[1]) if len(data["units"]) else 1.0
    factors = np.broadcast_to(factors, design.shape[1:])
    design = design * factors

    def model() -> None:
        if prior is None:
            beta = _flat("beta", factors.shape)
        else:
            beta = sample("beta", dist.Normal(0, prior / factors).to_event(1))
        if scale is None:
            sigma = _flat("sigma", support=constraints.positive)
        else:
            sigma = sample("sigma", scale)
        sample("y", dist.Normal(design @ beta, sigma).to_event(1), obs=response)

    def quantities(draw: dict[str, jax.Array]) -> dict[str, jax.Array]:
        return {"sigma": draw["sigma"], **_numbered("beta", draw["beta"] * factors)}

    return model, quantities


def kidscore(data: dict[str, np.ndarray]) -> Built:
    columns = [np.ones(len(data["mom_iq"])), data["mom_hs"], data["mom_iq"]]
    design = np.stack(columns, axis=1)
    return _regression(design, data["kid_score"], dist.HalfCauchy(2.5), data)


def autoregression(data: dict[str, np.ndarray]) -> Built:
    lags, y = int(data["K"]), data["y"]
    past = np.stack([y[lags - k - 1 : len(y) - k - 1] for k in range(lags)], axis=1)

    def model() -> None:
        alpha = sample("alpha", dist.Normal(0, 10))
        beta = sample("beta", dist.Normal(0, 10).expand((lags,)).to_event(1))
        sigma = sample("sigma", dist.HalfCauchy(2.5))
        distribution = dist.Normal(alpha + past @ beta, sigma)
        sample("y", distribution.to_event(1), obs=y[lags:])

    return model, _named("alpha", "sigma", vectors=("beta",))


def garch(data: dict[str, np.ndarray]) -> Built:
    y, first = data["y"], float(data["sigma1"])

    def model() -> None:
        mu = _flat("mu")
        alpha0 = _flat("alpha0", support=constraints.positive)
        alpha1 = _flat("alpha1", support=constraints.unit_interval)
        share = _flat("share", support=constraints.unit_interval)
        beta1 = share * (1 - alpha1)
        numpyro.factor("jacobian", jnp.log1p(-alpha1))  # flat in beta1, not in its share

        def step(variance: jax.Array, previous: jax.Array) -> tuple[jax.Array, jax.Array]:
            variance = alpha0 + alpha1 * (previous - mu) ** 2 + beta1 * variance
            return variance, variance

        start = jnp.full((), first**2, alpha0.dtype)
        rest = jax.lax.scan(step, start, jnp.asarray(y[:-1], start.dtype))[1]
        scale = jnp.sqrt(jnp.concatenate([start[None], rest]))
        sample("y", dist.Normal(mu, scale).to_event(1), obs=y)

    def quantities(draw: dict[str, jax.Array]) -> dict[str, jax.Array]:
        found = {name: draw[name] for name in ("mu", "alpha0", "alpha1")}
        return {**found, "beta1": draw["share"] * (1 - draw["alpha1"])}

    return model, quantities


def nes(data: dict[str, np.ndarray]) -> Built:
    age = data["age_discrete"]
    columns = [np.ones(len(age)), data["real_ideo"], data["race_adj"]]
    columns += [age == group for group in (2, 3, 4)]
    columns += [data["educ1"], data["gender"], data["income"]]
    design = np.stack(columns, axis=1).astype(float)
    return _regression(design, data["partyid7"], None, data)


def gp_regression(data: dict[str, np.ndarray]) -> Built:
    squares = (data["x"][:, None] - data["x"][None, :]) ** 2.0

    def model() -> None:
        rho = sample("rho", dist.Gamma(25.0, 4.0))
        alpha = sample("alpha", dist.HalfNormal(2.0))
        sigma = sample("sigma", dist.HalfNormal(1.0))
        kernel = alpha**2 * jnp.exp(-squares / (2 * rho**2)) + sigma * jnp.eye(len(squares))
        sample("y", dist.MultivariateNormal(0.0, kernel), obs=data["y"])

    return model, _named("rho", "alpha", "sigma")


def gaussian_mixture(data: dict[str, np.ndarray]) -> Built:
    def model() -> None:
        ordered = constraints.ordered_vector
        mu = sample("mu", dist.ImproperUniform(ordered, (), event_shape=(2,)))
        numpyro.factor("mu_prior", jnp.sum(dist.Normal(0, 2).log_prob(mu)))
        sigma = sample("sigma", dist.HalfNormal(2.0).expand((2,)).to_event(1))
        theta = sample("theta", dist.Beta(5.0, 5.0))
        log_share = jnp.stack([jnp.log(theta), jnp.log1p(-theta)])
        parts = log_share + dist.Normal(mu, sigma).log_prob(data["y"][:, None])
        numpyro.factor("y", jnp.sum(jax.nn.logsumexp(parts, axis=-1)))

    return model, _named("theta", vectors=("mu", "sigma"))


STEPS_A_YEAR = 20  # of Runge and Kutta: the solution is then right to about six digits


def lotka_volterra(data: dict[str, np.ndarray]) -> Built:
    times, y = data["ts"], data["y"]
    if not np.array_equal(times, np.arange(1, len(times) + 1)):
        raise ValueError("expected one reading a year")

    def slope(state: jax.Array, theta: jax.Array) -> jax.Array:
        prey, predator = state
        return jnp.stack(
            [
                (theta[0] - theta[1] * predator) * prey,
                (-theta[2] + theta[3] * prey) * predator,
            ]
        )

    def solve(state: jax.Array, theta: jax.Array) -> jax.Array:
        width = 1 / STEPS_A_YEAR

        def step(state: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
            k1 = slope(state, theta)
            k2 = slope(state + 0.5 * width * k1, theta)
            k3 = slope(state + 0.5 * width * k2, theta)
            k4 = slope(state + width * k3, theta)
            state = state + width / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
            # A step that is too long for extreme parameters can leave the positive quadrant.
            state = jnp.maximum(state, 1e-6)
            return state, state

        path = jax.lax.scan(step, state, length=STEPS_A_YEAR * len(times))[1]
        return path[STEPS_A_YEAR - 1 :: STEPS_A_YEAR]

    def model() -> None:
        loc = jnp.array([1.0, 0.05, 1.0, 0.05])
        scale = jnp.array([0.5, 0.05, 0.5, 0.05])
        theta = sample("theta", dist.TruncatedNormal(loc, scale, low=0.0).to_event(1))
        sigma = sample("sigma", dist.LogNormal(-1.0, 1.0).expand((2,)).to_event(1))
        start = dist.LogNormal(jnp.log(10.0), 1.0).expand((2,)).to_event(1)
        z_init = sample("z_init", start)
        first = dist.LogNormal(jnp.log(z_init), sigma).to_event(1)
        sample("y_init", first, obs=data["y_init"])
        path = jnp.log(solve(z_init, theta))
        sample("y", dist.LogNormal(path, sigma).to_event(2), obs=y)

    return model, _named(vectors=("theta", "sigma", "z_init"))


def logmesquite(data: dict[str, np.ndarray]) -> Built:
    sizes = ("diam1", "diam2", "canopy_height", "total_height", "density")
    columns = [np.ones(len(data["weight"])), *(np.log(data[name]) for name in sizes)]
    design = np.stack([*columns, data["group"]], axis=1)
    return _regression(design, np.log(data["weight"]), None, data)


def blr(data: dict[str, np.ndarray]) -> Built:
    return _regression(data["X"], data["y"], dist.HalfNormal(10.0), data, prior=10.0)


MODELS: dict[str, Callable[[dict[str, np.ndarray]], Built]] = {
    "arK-arK": autoregression,
    "eight_schools-eight_schools_noncentered": eight_schools,
    "garch-garch11": garch,
    "gp_pois_regr-gp_regr": gp_regression,
    "hudson_lynx_hare-lotka_volterra": lotka_volterra,
    "kidiq-kidscore_momhsiq": kidscore,
    "low_dim_gauss_mix-low_dim_gauss_mix": gaussian_mixture,
    "mesquite-logmesquite": logmesquite,
    "nes1980-nes": nes,
    "sblrc-blr": blr,
}
REGRESSIONS = ("kidiq-kidscore_momhsiq", "mesquite-logmesquite", "nes1980-nes", "sblrc-blr")
