"""Distribution transformers: a conjugate variance, mixtures with linear observations; peers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks._declare import Benchmark, Figure, Target
from benchmarks._report import Report

# Shape and rate of an inverse-gamma prior of a variance, uniform in between.
META = {"narrow": (4.0, 6.0, 4.0, 6.0), "wide": (1.5, 20.0, 0.2, 20.0)}
OBSERVED, COMPONENTS = 10, 5
STEPS, QUICK_STEPS, MIXTURE_STEPS = 3000, 400, 6000
BATCH, MIXTURE_BATCH, RATE = 128, 256, 1.5e-3
TESTS, FEW, CHAINS = 1000, 200, 5  # problems, also those of SVI and of NUTS
GRID = 512
SIZES: dict[str, Any] = {"width": 64, "depth": 2}

TARGETS = (
    Target("kl_narrow", "<=", 0.005, quick=0.03, unit="nats", meaning="variance, narrow priors"),
    Target("kl_wide", "<=", 0.005, quick=None, unit="nats", meaning="variance, wide priors"),
    Target("pfn_over_dt", ">=", 10.0, quick=None, unit="×", meaning="KL of a PFN, wide priors"),
    Target("svi_over_dt", ">=", 1000.0, quick=None, unit="×", meaning="time a problem, batched"),
    Target("excess", "<=", 0.02, quick=None, unit="nats", meaning="over the exact mixture update"),
)


def run(quick: bool, report: Report) -> Mapping[str, Any]:
    """Single precision; all networks have one recipe but for the number of steps."""
    figures: dict[str, Any] = {}
    rows = []
    for name in ("narrow",) if quick else META:
        network, seconds = _variance_network(name, QUICK_STEPS if quick else STEPS)
        divergence, problems = _divergence(name, network)
        figures[f"kl_{name}"] = divergence
        rows.append([name, "distribution transformer", divergence.value, divergence.high, seconds])
        if quick:
            continue
        single, batch = _milliseconds(network, problems)
        figures |= {f"ms_{name}": Figure(single, unit="ms")}
        pfn, pfn_seconds = _pfn(name, problems)
        rows.append([name, "PFN, prior unknown", pfn.value, pfn.high, pfn_seconds])
        svi, svi_ms = _svi(problems)
        rows.append([name, "SVI, AutoNormal, 1000 steps", svi.value, svi.high, 0.0])
        if name == "wide":
            figures["pfn_over_dt"] = pfn.value / divergence.value
            figures["svi_over_dt"] = svi_ms / batch
            figures["ms_nuts"] = Figure(_nuts(problems), unit="ms")
            figures["ms_svi"], figures["ms_batched"] = svi_ms, batch
            _other_priors(network, report)
    header = ["meta-prior", "", "KL, nats", "upper end", "training, CPU s"]
    report.table(f"Variance from {OBSERVED} observations, {TESTS} problems", header, rows)
    if not quick:
        figures |= _mixtures(report)
    return figures


def _optimizer(steps: int) -> Any:
    import optax

    schedule = optax.warmup_cosine_decay_schedule(0.0, RATE, steps // 10, steps)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))


def _trained(network: Any, make: Callable[..., Any], steps: int) -> tuple[Any, float]:
    """The network after training, and CPU seconds without compilation."""
    import jax

    import bayesjx

    algorithm = make(network, _optimizer(steps))
    start = time.process_time()
    result = bayesjx.fit(jax.random.key(1), algorithm, algorithm.init(), steps)
    seconds = time.process_time() - start
    return bayesjx.trained(network, result.state), seconds


def _variance(name: str) -> tuple[Callable[..., Any], ...]:
    """Meta-prior, prior and simulator of a variance; parameters are logarithms."""
    import jax
    import jax.numpy as jnp
    import numpyro.distributions as dist

    low, high, least, most = META[name]

    def meta_prior(key: Any) -> Any:
        shape, rate = jax.random.uniform(key, (2,))
        return jnp.log(jnp.stack([low + (high - low) * shape, least + (most - least) * rate]))

    def prior(phi: Any) -> Any:
        return dist.InverseGamma(*jnp.exp(phi))

    def simulator(key: Any, x: Any) -> Any:
        return jnp.sqrt(x) * jax.random.normal(key, (OBSERVED, 1))

    return meta_prior, prior, simulator


def _variance_network(name: str, steps: int) -> tuple[Any, float]:
    import jax
    from numpyro.distributions import constraints

    from bayesjx import amortized

    meta_prior, prior, simulator = _variance(name)
    network = amortized.DistributionTransformer.for_meta_prior(
        jax.random.key(0), meta_prior, simulator, prior=prior, num_components=COMPONENTS,
        support=constraints.positive, encoder_depth=1, **SIZES,
    )  # fmt: skip

    def make(network: Any, optimizer: Any) -> Any:
        return amortized.transformer_training(
            network, meta_prior, simulator, optimizer, prior=prior, batch_size=BATCH
        )

    return _trained(network, make, steps)


def _exact(phi: Any, z: Any) -> tuple[Any, Any]:
    """Grids of the log variance around each posterior, and its log density there."""
    import jax.numpy as jnp
    from jax.scipy.special import gammaln

    a, b = jnp.exp(phi).T
    a, b = a + 0.5 * z.shape[1], b + 0.5 * jnp.sum(z[..., 0] ** 2, axis=1)
    grid = jnp.log(b / a)[:, None] + jnp.linspace(-9, 9, GRID) / jnp.sqrt(a)[:, None]
    a, b = a[:, None], b[:, None]
    return grid, a * jnp.log(b) - gammaln(a) - a * grid - b * jnp.exp(-grid)


def _mean_divergence(problems: Any, log_density: Any) -> Figure:
    """Kullback-Leibler divergence of the exact posteriors from others, by quadrature."""
    import numpy as np

    grid, want = (np.asarray(part, np.float64) for part in _exact(*problems))
    step = grid[:, 1] - grid[:, 0]
    values = np.sum(np.exp(want) * (want - np.asarray(log_density, np.float64)), axis=1) * step
    half = 1.96 * values.std() / math.sqrt(len(values))
    return Figure(values.mean(), values.mean() - half, values.mean() + half, "nats")


def _divergence(name: str, network: Any) -> tuple[Figure, Any]:
    import equinox as eqx
    import jax

    meta_prior, prior, simulator = _variance(name)

    def problem(key: Any) -> Any:
        keys = jax.random.split(key, 3)
        phi = meta_prior(keys[0])
        return phi, simulator(keys[2], prior(phi).sample(keys[1]))

    problems = jax.jit(jax.vmap(problem))(jax.random.split(jax.random.key(7), TESTS))

    @eqx.filter_jit
    def log_density(network: Any, phi: Any, z: Any) -> Any:
        posterior = network.posterior(phi, z)
        each = jax.tree.map(lambda leaf: leaf[:, None], posterior)
        return each.log_prob(_exact(phi, z)[0][..., None])

    return _mean_divergence(problems, log_density(network, *problems)), problems


def _milliseconds(network: Any, problems: Any) -> tuple[float, float]:
    """Of one problem alone, and of one among all; medians."""
    import equinox as eqx
    import jax
    import numpy as np

    update = eqx.filter_jit(lambda network, phi, z: network.posterior(phi, z))
    times = []
    for phi, z in ((problems[0][:1], problems[1][:1]), problems):
        jax.block_until_ready(update(network, phi, z))
        each = []
        for _ in range(11):
            start = time.perf_counter()
            jax.block_until_ready(update(network, phi, z))
            each.append(1e3 * (time.perf_counter() - start) / len(phi))
        times.append(float(np.median(each)))
    return times[0], times[1]


def _pfn(name: str, problems: Any) -> tuple[Figure, float]:
    """A prior-data fitted network of 100 bars, trained as long, which is not told the prior."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import numpy as np

    from bayesjx import amortized, distributions

    meta_prior, prior, simulator = _variance(name)
    marks = jnp.zeros((OBSERVED + 1, 1)).at[-1].set(1.0)  # the last row asks for the log variance

    def tasks(key: Any) -> Any:
        keys = jax.random.split(key, 3)
        x = prior(meta_prior(keys[0])).sample(keys[1])
        return amortized.Task(marks, jnp.append(simulator(keys[2], x)[:, 0], jnp.log(x)))

    many = jax.jit(jax.vmap(lambda key: tasks(key).y[-1]))
    values = np.asarray(many(jax.random.split(jax.random.key(3), 20_000)))
    head = amortized.BarHead(distributions.equal_mass_borders(values, 100))
    network = amortized.PFN(1, head, key=jax.random.key(0), width=64, depth=3)

    def make(network: Any, optimizer: Any) -> Any:
        return amortized.pfn_training(
            network, tasks, optimizer, batch_size=BATCH, num_queries=1, min_context=OBSERVED
        )

    network, seconds = _trained(network, make, STEPS)

    @eqx.filter_jit
    def log_density(network: Any, phi: Any, z: Any) -> Any:
        x = jnp.broadcast_to(marks, (len(z), *marks.shape))
        mask = jnp.ones((len(z), OBSERVED), bool)
        outputs = network.outputs(x[:, :-1], z[..., 0], x[:, -1:], mask)
        grid = _exact(phi, z)[0]
        return network.head.distribution(outputs).log_prob(grid)

    return _mean_divergence(problems, log_density(network, *problems)), seconds


def _model(phi: Any, z: Any) -> None:
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    variance = numpyro.sample("variance", dist.InverseGamma(*jnp.exp(phi)))
    numpyro.sample("z", dist.Normal(0.0, jnp.sqrt(variance)).expand([OBSERVED]), obs=z[:, 0])


def _svi(problems: Any) -> tuple[Figure, float]:
    """NumPyro's, of all problems at a time; milliseconds of a problem."""
    import jax
    import jax.numpy as jnp
    import numpyro.distributions as dist
    from numpyro.infer import SVI, Trace_ELBO
    from numpyro.infer.autoguide import AutoNormal
    from numpyro.optim import Adam

    few = jax.tree.map(lambda leaf: leaf[:FEW], problems)
    svi = SVI(_model, AutoNormal(_model), Adam(0.02), Trace_ELBO())

    def one(key: Any, phi: Any, z: Any) -> Any:
        def step(state: Any, _: Any) -> Any:
            return svi.update(state, phi, z)[0], None

        state = jax.lax.scan(step, svi.init(key, phi, z), length=1000)[0]
        params = svi.get_params(state)
        return params["variance_auto_loc"], params["variance_auto_scale"]

    fit = jax.jit(jax.vmap(one))
    keys = jax.random.split(jax.random.key(5), FEW)
    jax.block_until_ready(fit(keys, *few))
    start = time.perf_counter()
    loc, scale = jax.block_until_ready(fit(keys, *few))
    milliseconds = 1e3 * (time.perf_counter() - start) / FEW
    grid = _exact(*few)[0]
    log_density = dist.Normal(loc[:, None], scale[:, None]).log_prob(grid)
    return _mean_divergence(few, jnp.asarray(log_density)), milliseconds


def _nuts(problems: Any) -> float:
    """Milliseconds of a problem with NumPyro's NUTS, 300 and 1000 steps, after compilation."""
    import jax
    import numpy as np
    from numpyro.infer import MCMC, NUTS

    mcmc = MCMC(NUTS(_model), num_warmup=300, num_samples=1000, progress_bar=False)
    times = []
    for i in range(CHAINS + 1):
        start = time.perf_counter()
        mcmc.run(jax.random.key(i), problems[0][i], problems[1][i])
        jax.block_until_ready(mcmc.get_samples())
        times.append(1e3 * (time.perf_counter() - start))
    return float(np.median(times[1:]))


def _other_priors(network: Any, report: Report) -> None:
    """One data set under three priors: nothing is trained anew."""
    import jax
    import numpy as np

    z = 1.2 * jax.random.normal(jax.random.key(11), (OBSERVED, 1))
    rows = []
    for a, b in ((2.0, 1.0), (10.0, 10.0), (18.0, 3.0)):
        posterior = network(np.log([a, b]), z)
        exact = (b + 0.5 * float((z**2).sum())) / (a + 0.5 * OBSERVED - 1)
        rows.append([f"inverse gamma ({a:g}, {b:g})", float(posterior.mean[0]), exact])
    report.table(
        "One data set, other priors, no new training", ["prior", "mean", "exact mean"], rows
    )


def _mixtures(report: Report) -> dict[str, Any]:
    """Mixtures of three Gaussians in the plane, seen through a random row with noise."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import numpy as np

    from bayesjx import amortized

    def meta_prior(key: Any) -> Any:
        u = jax.random.normal(key, (3, 6))
        first, second = jnp.exp(0.4 * u[:, 3]), jnp.exp(0.4 * u[:, 4])
        rows = [jnp.stack([first, 0 * first], -1), jnp.stack([0.6 * u[:, 5], second], -1)]
        return amortized.GaussianMixture(u[:, 0], 1.5 * u[:, 1:3], 0.6 * jnp.stack(rows, -2))

    def simulator(key: Any, x: Any) -> Any:
        # The likelihood is told: its row and the logarithm of its noise scale.
        u = jax.random.normal(key, (4,))
        log_scale = math.log(0.5) + 0.5 * u[2]
        z = u[:2] @ x + jnp.exp(log_scale) * u[3]
        return jnp.stack([z, u[0], u[1], log_scale])[None]

    network = amortized.DistributionTransformer.for_meta_prior(
        jax.random.key(0), meta_prior, simulator, encoder_depth=0, **SIZES
    )

    def make(network: Any, optimizer: Any) -> Any:
        return amortized.transformer_training(
            network, meta_prior, simulator, optimizer, batch_size=MIXTURE_BATCH
        )

    network, seconds = _trained(network, make, MIXTURE_STEPS)

    @eqx.filter_jit
    def excess(network: Any, key: Any) -> Any:
        keys = jax.random.split(key, 3)
        each = jax.random.split(keys[0], TESTS)
        prior = jax.vmap(meta_prior)(each)
        z = jax.vmap(simulator)(each, prior.sample(keys[1]))
        noise = jnp.exp(2 * z[:, :, 3:])
        exact, _ = amortized.condition_mixture(prior, z[:, 0, :1], z[:, :, 1:3], noise)
        found = network.posterior(prior, z)
        draws = jax.vmap(exact.sample)(jax.random.split(keys[2], 64))
        return jnp.mean(jax.vmap(exact.log_prob)(draws) - jax.vmap(found.log_prob)(draws), axis=0)

    values = np.asarray(excess(network, jax.random.key(9)))
    half = 1.96 * values.std() / math.sqrt(TESTS)
    report.note(
        f"mixtures: {seconds:.0f} CPU s of training, excess {values.mean():.4f} nats, 90 % of "
        f"problems below {np.quantile(values, 0.9):.4f}"
    )
    return {"excess": Figure(values.mean(), values.mean() - half, values.mean() + half, "nats")}


BENCHMARK = Benchmark(
    name="am-dt",
    claim="one network gives the posterior under any prior of a family, next to the exact one",
    source="Whittle, Ziomek, Rawling and Osborne (2025), arXiv 2502.02463; section 5",
    targets=TARGETS,
    run=run,
)
