"""Ways to fit a process to a regression set, ours and GPJax's, from the same start."""

from __future__ import annotations

import importlib
import time
from typing import Any, NamedTuple

SVGP_BATCH = 512


class Fit(NamedTuple):
    """How a fitted process predicts.

    Attributes:
        rmse: root mean squared error of the test rows, in standard deviations of the training ones.
        density: mean log density of the test rows.
        bound: evidence or bound of the training rows, nats a row.
        noise: standard deviation of the noise.
        seconds: fit and prediction, compilation included.
        params: what was fitted.
    """

    rmse: float
    density: float
    bound: float
    noise: float
    seconds: float
    params: Any


def start(columns: int) -> Any:
    """The process that every fit begins with."""
    import jax.numpy as jnp

    from bayesjx import gp, kernels

    return gp.GP(kernels.RBF(jnp.full(columns, columns**0.5)), noise_var=0.1)


def exact(split: Any, steps: int, rows: int) -> Fit:
    """Maximum of the evidence, on at most so many random rows."""
    from bayesjx import gp

    begin = time.perf_counter()
    x, y = _some(split, rows)
    best = gp.minimise(_evidence, start(x.shape[1]), x, y, max_steps=steps)
    predictive = gp.condition(best.params, x, y).predict(split.test_x)
    noise = float(best.params.noise_var) ** 0.5
    return _fit(split, predictive, -float(best.objective), noise, begin, best.params)


def _evidence(prior: Any, x: Any, y: Any) -> Any:
    return -prior(x).log_prob(y) / len(y)


def _tightened(params: Any, x: Any, y: Any) -> Any:
    from bayesjx import gp

    prior, points = params
    return -gp.sgpr(prior, x, inducing_points=points).log_prob(y) / len(y)


def _titsias(params: Any, x: Any, y: Any) -> Any:
    from bayesjx import gp

    prior, points = params
    return -gp.sgpr(prior, x, inducing_points=points, tight=False).log_prob(y) / len(y)


def collapsed(split: Any, points: Any, steps: int, tight: bool) -> Fit:
    """Maximum of a collapsed bound, in inducing points too."""
    import equinox as eqx

    from bayesjx import gp

    begin = time.perf_counter()
    params = (start(points.shape[1]), points)
    # Functions with a name of their own: folds of one size share what is compiled.
    objective = _tightened if tight else _titsias
    best = gp.minimise(objective, params, split.train_x, split.train_y, max_steps=steps)
    prior, moved = best.params
    posterior = eqx.filter_jit(gp.sparse_posterior)(
        prior, split.train_x, split.train_y, inducing_points=moved
    )
    noise = float(prior.noise_var) ** 0.5
    predictive = posterior.predict(split.test_x)
    return _fit(split, predictive, -float(best.objective), noise, begin, best.params)


def stochastic(split: Any, points: Any, orthogonal: Any, epochs: int, least: int) -> Fit:
    """Natural gradients and Adam on at least so many minibatches; with more points, decoupled."""
    import equinox as eqx
    import jax
    import numpy as np
    import optax

    import bayesjx
    from bayesjx import gp

    begin = time.perf_counter()
    n, prior = len(split.train_y), start(points.shape[1])
    if orthogonal is None:
        svgp: Any = gp.SVGP(prior, inducing_points=points)
    else:
        svgp = gp.DecoupledSVGP(prior, inducing_points=points, orthogonal_points=orthogonal)
    size = min(SVGP_BATCH, n)
    num_steps = max(least, epochs * n // size)
    rate = optax.cosine_decay_schedule(1e-2, num_steps, alpha=0.01)
    algorithm = gp.svgp_natgrad(svgp, optax.adam(rate), 0.1, num_data=n)
    x, y = np.asarray(split.train_x), np.asarray(split.train_y)

    def batches(step: int) -> tuple:
        rows = np.random.default_rng(step).choice(n, size, replace=False)
        return x[rows], y[rows]

    result = bayesjx.fit(jax.random.key(0), algorithm, algorithm.init(), num_steps, batches=batches)
    svgp = svgp.trained(result.state)
    predictive = svgp.posterior().predict(split.test_x)
    bound = float(_whole_bound(eqx.filter_jit(_part), svgp, x, y)) / n
    return _fit(split, predictive, bound, float(svgp.prior.noise_var) ** 0.5, begin, svgp)


def _part(svgp: Any, x: Any, y: Any) -> tuple[Any, Any]:
    """The part of the bound that some rows bring, and the divergence that all share."""
    divergence = sum(block.divergence() for block in svgp.blocks)
    return svgp.elbo(x, y, None) + divergence, divergence


def _whole_bound(part: Any, svgp: Any, x: Any, y: Any, chunk: int = 4096) -> Any:
    total, divergence = 0.0, 0.0
    for first in range(0, len(x), chunk):
        rows = slice(first, first + chunk)
        own, divergence = part(svgp, x[rows], y[rows])
        total += own
    return total - divergence


def gpjax_collapsed(split: Any, points: Any, steps: int) -> Fit:
    """GPJax's collapsed bound by its own L-BFGS.

    Raises:
        ImportError: it is not installed.
    """
    import jax.numpy as jnp
    from numpyro import distributions as dist

    gpjax: Any = importlib.import_module("gpjax")
    begin = time.perf_counter()
    data = gpjax.Dataset(jnp.asarray(split.train_x), jnp.asarray(split.train_y)[:, None])
    columns = points.shape[1]
    kernel = gpjax.kernels.RBF(lengthscale=jnp.full(columns, columns**0.5))
    prior = gpjax.gps.Prior(mean_function=gpjax.mean_functions.Constant(), kernel=kernel)
    model = prior * gpjax.likelihoods.Gaussian(obs_stddev=jnp.asarray(0.1**0.5))
    family = gpjax.variational_families.CollapsedVariationalGaussian(model, points)
    family, loss = gpjax.fit_lbfgs(
        model=family,
        objective=lambda q, data: -gpjax.objectives.collapsed_elbo(q, data) / data.n,
        train_data=data,
        max_iters=steps,
    )
    latent = family.condition(data)
    predict = lambda x: latent(x, covariance="diagonal")  # noqa: E731
    parts = [predict(jnp.asarray(p)) for p in jnp.array_split(split.test_x, _parts(split))]
    mean = jnp.concatenate([part.mean for part in parts])
    variance = jnp.concatenate([part.variance for part in parts])
    noise = float(gpjax.parameters.val(family.model.likelihood.obs_stddev))
    predictive = dist.Normal(mean, jnp.sqrt(variance + noise**2))
    return _fit(split, predictive, -float(loss), noise, begin, family)


def ordered(fit: Fit, split: Any, rows: int) -> bool:
    """Whether exact, blocks, tightened and Titsias' bound come in that order, same parameters."""
    import jax

    from bayesjx import gp

    x, y = _some(split, rows)
    prior, points = fit.params

    @jax.jit
    def bounds(prior: Any, points: Any, x: Any, y: Any) -> list[Any]:
        kinds: tuple[dict[str, Any], ...] = ({"blocks": 10}, {}, {"tight": False})
        sparse = [gp.sgpr(prior, x, inducing_points=points, **kind).log_prob(y) for kind in kinds]
        return [prior(x).log_prob(y), *sparse]

    values = [float(value) for value in bounds(prior, points, x, y)]
    return all(a >= b - 1e-6 * abs(b) for a, b in zip(values[:-1], values[1:], strict=True))


def _some(split: Any, rows: int) -> tuple[Any, Any]:
    import numpy as np

    chosen = np.random.default_rng(1).permutation(len(split.train_y))[:rows]
    return split.train_x[chosen], split.train_y[chosen]


def _parts(split: Any) -> int:
    return 1 + len(split.test_y) // 2000


def _fit(split: Any, predictive: Any, bound: float, noise: float, begin: float, params: Any) -> Fit:
    import jax.numpy as jnp

    rmse = float(jnp.sqrt(jnp.mean((predictive.mean - split.test_y) ** 2)))
    density = float(jnp.mean(predictive.log_prob(split.test_y)))
    return Fit(rmse, density, bound, noise, time.perf_counter() - begin, params)
