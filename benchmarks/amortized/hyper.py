"""The shipped network of Gaussian processes beside MLE-II and NUTS on data sets of its prior."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from benchmarks._declare import Benchmark, Figure, Target
from benchmarks._report import Report

CONTEXT, QUERIES, INPUTS = 30, 32, 1
SETS = {"full": 50, "quick": 4}
SHORT = {"full": (256, 256), "quick": (64, 64)}  # warm-up and draws of NUTS beside
LONG = {"full": (1000, 4000), "quick": (200, 400)}  # of the reference
PROCESS_SETS = 1000  # data sets on which the network alone is timed

TARGETS = (
    Target("below_mle", "<=", 0.0, quick=0.5, unit="nats", meaning="network less MLE-II"),
    Target("above_nuts", "<=", 0.02, quick=0.5, unit="nats", meaning="network less long NUTS"),
    Target("faster", ">=", 1000, quick=100, unit="×", meaning="a data set: short NUTS ÷ network"),
)


def run(quick: bool, report: Report) -> Mapping[str, Any]:
    """Negative log predictive densities of the same queries; double precision for the peers."""
    import jax
    import numpy as np

    from bayesjx import amortized
    from training import gp

    size = "quick" if quick else "full"
    sets = SETS[size]
    network = amortized.pretrained("gp")
    tasks = _tasks(jax.random.key(7), sets)
    posterior = jax.jit(_predict)
    own = np.asarray(posterior(network, tasks))
    seconds = {"network": _seconds(posterior, network)}
    with jax.enable_x64(True):
        doubles = jax.tree.map(lambda v: np.asarray(v, np.float64), (tasks.x, tasks.y))
        scores = {"network": own}
        for name, call in (
            ("MLE-II", _maximum), ("NUTS", _nuts(*SHORT[size])), ("long NUTS", _nuts(*LONG[size]))
        ):  # fmt: skip
            scores[name], seconds[name] = call(*doubles)
    means = {name: value.mean(axis=1) for name, value in scores.items()}
    rows = [
        [name, -float(value.mean()), float(value.std() / sets**0.5), seconds[name]]
        for name, value in means.items()
    ]
    report.table(
        f"{sets} data sets of {CONTEXT} rows, {INPUTS} input, {QUERIES} queries",
        ["", "nats", "standard error", "seconds a data set"],
        rows,
    )
    about = amortized.about_network("gp")["about"]
    report.note(f"the network: {gp.ABOUT} {about['data_sets']} data sets of training.")
    figures = {
        "below_mle": _difference(means["MLE-II"] - means["network"]),
        "above_nuts": _difference(means["long NUTS"] - means["network"]),
        "faster": Figure(seconds["NUTS"] / seconds["network"]),
        "short_nuts": _difference(means["NUTS"] - means["network"]),
    }
    return figures


def _difference(each: Any) -> Figure:
    half = 1.96 * each.std() / len(each) ** 0.5
    return Figure(float(each.mean()), float(each.mean() - half), float(each.mean() + half))


def _tasks(key: Any, sets: int) -> Any:
    """Data sets of the network's prior with one input."""
    import jax

    from bayesjx import amortized
    from training import gp

    def inputs(key: Any) -> Any:
        x = jax.random.uniform(key, (CONTEXT + QUERIES, gp.INPUTS))
        return jax.numpy.where(jax.numpy.arange(gp.INPUTS) < INPUTS, x, gp.ABSENT)

    prior = amortized.from_numpyro(gp.model, inputs=inputs)
    return jax.jit(jax.vmap(prior))(jax.random.split(key, sets))


def _predict(network: Any, tasks: Any) -> Any:
    """Log densities of queries, shape `(sets, queries)`."""
    import jax

    def one(task: Any) -> Any:
        posterior = network.condition(task.x[:CONTEXT], task.y[:CONTEXT])
        return posterior.log_predictive_prob(task.x[CONTEXT:], task.y[CONTEXT:])

    return jax.lax.map(one, tasks, batch_size=50)


def _seconds(posterior: Any, network: Any) -> float:
    """Of the network, a data set, all at once as the peers' are run one by one."""
    import jax

    tasks = _tasks(jax.random.key(8), PROCESS_SETS)
    jax.block_until_ready(posterior(network, tasks))
    started = time.perf_counter()
    jax.block_until_ready(posterior(network, tasks))
    return (time.perf_counter() - started) / PROCESS_SETS


def _normal(log_params: Any, x: Any, y: Any, x_new: Any, y_new: Any) -> tuple[Any, Any]:
    """Log evidence, and log predictive densities, given logarithms of the hyper-parameters."""
    import jax
    import jax.numpy as jnp
    import numpyro.distributions as dist

    from bayesjx import kernels

    lengthscales, variance, noise_scale = (
        jnp.exp(log_params[:INPUTS]), jnp.exp(log_params[INPUTS]), jnp.exp(log_params[INPUTS + 1])
    )  # fmt: skip
    rows = jnp.concatenate([x, x_new])[:, :INPUTS] / lengthscales
    gram = variance * kernels.Matern52().gram(rows)
    noise_var = noise_scale**2 + 1e-5
    n = len(y)
    tril = jnp.linalg.cholesky(gram[:n, :n] + noise_var * jnp.eye(n))
    half = jax.scipy.linalg.solve_triangular(tril, gram[:n, n:], lower=True)
    white = jax.scipy.linalg.solve_triangular(tril, y, lower=True)
    evidence = (
        -0.5 * white @ white - jnp.sum(jnp.log(jnp.diag(tril))) - 0.5 * n * jnp.log(2 * jnp.pi)
    )
    scale = jnp.sqrt(variance + noise_var - jnp.sum(half**2, axis=0))
    return evidence, dist.Normal(half.T @ white, scale).log_prob(y_new)


def _maximum(x: Any, y: Any) -> tuple[Any, float]:
    """Maximum marginal likelihood by BFGS, the best of four starts."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.scipy.optimize import minimize

    def fit(start: Any, x: Any, y: Any) -> Any:
        def loss(params: Any) -> Any:
            return -_normal(params, x[:CONTEXT], y[:CONTEXT], x[:1], y[:1])[0]

        found = minimize(loss, start, method="BFGS", options={"maxiter": 200})
        return jnp.where(jnp.isfinite(found.fun), found.fun, jnp.inf), found.x

    starts = jnp.asarray(
        [[np.log(scale)] * INPUTS + [0.0, np.log(noise)] for scale in (0.2, 0.7)
         for noise in (0.05, 0.3)]
    )  # fmt: skip

    @jax.jit
    def one(x: Any, y: Any) -> Any:
        values, params = jax.vmap(fit, (0, None, None))(starts, x, y)
        best = params[jnp.argmin(values)]
        return _normal(best, x[:CONTEXT], y[:CONTEXT], x[CONTEXT:], y[CONTEXT:])[1]

    one(x[0], y[0]).block_until_ready()
    started = time.perf_counter()
    scores = np.stack([np.asarray(one(*task)) for task in zip(x, y, strict=True)])
    return scores, (time.perf_counter() - started) / len(x)


def _nuts(warmup: int, draws: int) -> Any:
    """NumPyro's no-U-turn sampler on one data set after another, the program compiled once."""

    def call(x: Any, y: Any) -> tuple[Any, float]:
        import jax
        import jax.numpy as jnp
        import numpy as np
        import numpyro
        import numpyro.distributions as dist
        from numpyro.infer import MCMC, NUTS

        def model(x: Any, y: Any) -> None:
            lengthscales = numpyro.sample(
                "lengthscales", dist.Gamma(3.0, 6.0).expand([INPUTS]).to_event()
            )
            variance = numpyro.sample("variance", dist.Gamma(2.0, 2.0))
            noise_scale = numpyro.sample("noise_scale", dist.LogNormal(jnp.log(0.1), 0.5))
            parts = [jnp.atleast_1d(v) for v in (lengthscales, variance, noise_scale)]
            params = jnp.log(jnp.concatenate(parts))
            numpyro.factor("evidence", _normal(params, x, y, x[:1], y[:1])[0])

        mcmc = MCMC(NUTS(model), num_warmup=warmup, num_samples=draws, progress_bar=False)

        @jax.jit
        def predict(samples: Any, x: Any, y: Any) -> Any:
            def one(draw: Any) -> Any:
                params = jnp.log(
                    jnp.concatenate(
                        [draw["lengthscales"], draw["variance"][None], draw["noise_scale"][None]]
                    )
                )
                return _normal(params, x[:CONTEXT], y[:CONTEXT], x[CONTEXT:], y[CONTEXT:])[1]

            each = jax.lax.map(one, samples, batch_size=64)
            return jax.scipy.special.logsumexp(each, axis=0) - jnp.log(draws)

        def score(i: int) -> Any:
            mcmc.run(jax.random.key(i), jnp.asarray(x[i, :CONTEXT]), jnp.asarray(y[i, :CONTEXT]))
            return np.asarray(predict(mcmc.get_samples(), x[i], y[i]))

        score(0)
        started = time.perf_counter()
        scores = np.stack([score(i) for i in range(len(x))])
        return scores, (time.perf_counter() - started) / len(x)

    return call


BENCHMARK = Benchmark(
    name="am-pfn-hyper",
    claim="the shipped network predicts as well as NUTS over hyper-parameters, in a thousandth",
    source="Müller et al. (2022), ICLR, figure 4b",
    targets=TARGETS,
    run=run,
)
