"""Approximate posteriors of counts, choices and outliers beside long runs of NUTS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks._declare import Benchmark, Target
from benchmarks._report import Report

SIZE, QUICK_SIZE = 120, 60
CHAINS, WARMUP, DRAWS = 4, 1000, 10_000
QUICK_WARMUP, QUICK_DRAWS = 300, 1000
TIMED, QUICK_TIMED = 1000, 200
WITHIN = 4.5  # standard errors of NUTS that are not counted as differences
METHODS = {"VI": ("vi", 1.0), "EP": ("ep", 1.0), "power EP, 1/2": ("ep", 0.5), "PL": ("pl", 1.0)}
NEAR = 0.3  # nats below the variational bound at which a sparse process counts as converged

TARGETS = (
    Target("mean_ep", "<=", 0.05, quick=0.2, meaning="EP: worst mean, in sd beyond 4.5 MC errors"),
    Target("sd_ep", "<=", 0.05, quick=0.2, meaning="EP: worst sd, relative, beyond 4.5 MC errors"),
    Target("mean_vi", "<=", 0.1, quick=0.2, meaning="VI: worst mean, in sd"),
    Target("sd_vi", "<=", 0.1, quick=0.2, meaning="VI: worst sd, relative"),
    Target("mean_pl", "<=", 0.2, quick=0.3, meaning="PL, Bernoulli and Poisson: worst mean, in sd"),
    Target("sd_pl", "<=", 0.2, quick=0.3, meaning="PL, Bernoulli and Poisson: worst sd, relative"),
)


def run(quick: bool, report: Report) -> Mapping[str, Any]:
    """Marginals of the function at every observation; hyper-parameters are fixed."""
    import jax
    import numpy as np

    jax.config.update("jax_enable_x64", True)
    n = QUICK_SIZE if quick else SIZE
    report.note(
        f"{n} irregular times, Matérn-5/2 with lengthscale 1.5 and variance 1.5. NUTS: "
        f"{CHAINS} chains of {QUICK_DRAWS if quick else DRAWS} draws of the whitened function. "
        f"Differences count beyond {WITHIN} standard errors of NUTS. To posterior linearisation a "
        "Student-t likelihood is a normal one, so it is shown there and not judged."
    )
    rows, worst = (
        [],
        dict.fromkeys(
            [f"{what}_{kind}" for what in ("mean", "sd") for kind in ("ep", "vi", "pl")], 0.0
        ),
    )
    for name in ("Bernoulli", "Poisson", "Student-t"):
        times, y, likelihood = problem(name, n)
        lengths = (QUICK_WARMUP, QUICK_DRAWS) if quick else (WARMUP, DRAWS)
        mean, sd, effective = _long_run(times, y, likelihood, *lengths)
        for method, (kind, power) in METHODS.items():
            posterior = approximated(times, y, likelihood, kind, power)
            centre, width = posterior.state.mean, np.sqrt(posterior.state.variance)
            off = np.abs(centre - mean) / sd - WITHIN / np.sqrt(effective)
            wide = np.abs(width / sd - 1) - WITHIN / np.sqrt(2 * effective)
            pair = [max(float(np.max(a)), 0.0) for a in (off, wide)]
            rows.append(
                [name, method, *pair, float(posterior.log_evidence()), int(posterior.num_steps)]
            )
            if kind == "pl" and name == "Student-t" or power != 1.0:
                continue
            for what, value in zip(("mean", "sd"), pair, strict=True):
                worst[f"{what}_{kind}"] = max(worst[f"{what}_{kind}"], value)
    header = ["likelihood", "", "mean, sd", "sd, relative", "log evidence", "updates"]
    report.table("Worst difference from NUTS, beyond its error", header, rows)
    _times(QUICK_TIMED if quick else TIMED, report)
    return worst


def problem(name: str, n: int) -> tuple[Any, Any, Any]:
    """Times, observations, and the likelihood."""
    import jax.numpy as jnp
    import numpy as np
    from numpyro import distributions as dist

    rng = np.random.default_rng(0)
    times = np.sort(rng.uniform(0, n / 8, n))
    f = 1.2 * np.sin(times)
    if name == "Bernoulli":
        return times, (rng.random(n) < 1 / (1 + np.exp(-2 * f))).astype(int), (
            lambda f: dist.Bernoulli(logits=2 * f)
        )  # fmt: skip
    if name == "Poisson":
        return times, rng.poisson(np.exp(f)), lambda f: dist.Poisson(jnp.exp(f))
    y = f + 0.3 * rng.standard_t(3, n)
    return times, y, lambda f: dist.StudentT(3.0, f, 0.3, validate_args=False)


def kernel() -> Any:
    """The kernel of all."""
    import jax.numpy as jnp

    from bayesjx import kernels

    return kernels.Matern52(jnp.array(1.5), jnp.array(1.5))


def approximated(times: Any, y: Any, likelihood: Any, method: str, power: float) -> Any:
    """The approximation, converged."""
    from bayesjx import ssm

    prior = ssm.MarkovGP(kernel(), times)
    posterior = ssm.approximate(prior, y, likelihood, method, power=power, max_steps=300)
    assert posterior.converged
    return posterior


def _long_run(times: Any, y: Any, likelihood: Any, warmup: int, draws: int) -> tuple[Any, Any, Any]:
    import jax
    import jax.numpy as jnp
    import numpy as np
    import numpyro
    from numpyro import distributions as dist
    from numpyro.diagnostics import effective_sample_size
    from numpyro.infer import MCMC, NUTS

    cov = np.asarray(kernel().gram(jnp.asarray(times)))
    root = jnp.asarray(np.linalg.cholesky(cov + 1e-10 * np.eye(len(times))))

    def model() -> None:
        white = numpyro.sample("white", dist.Normal(0, 1).expand([len(times)]).to_event(1))
        f = numpyro.deterministic("f", root @ white)
        numpyro.sample("y", likelihood(f).to_event(1), obs=y)

    mcmc = MCMC(
        NUTS(model), num_warmup=warmup, num_samples=draws, num_chains=CHAINS,
        chain_method="vectorized", progress_bar=False,
    )  # fmt: skip
    mcmc.run(jax.random.key(0))
    f = np.asarray(mcmc.get_samples(group_by_chain=True)["f"])
    # Moments have the smaller effective size of the draws and of their squares.
    effective = np.minimum(
        effective_sample_size(f), effective_sample_size((f - f.mean((0, 1))) ** 2)
    )
    return f.mean((0, 1)), f.std((0, 1)), effective


def _times(n: int, report: Report) -> None:
    """Seconds to convergence beside a sparse process by natural gradients, counts."""
    import time

    import jax
    import jax.numpy as jnp

    from bayesjx import gp, ssm

    times, y, likelihood = problem("Poisson", n)
    rows = []
    target = float(approximated(times, y, likelihood, "vi", 1.0).log_evidence())
    for method, (kind, power) in METHODS.items():
        prior = ssm.MarkovGP(kernel(), times)

        def solve(y: Any, prior: Any = prior, kind: str = kind, power: float = power) -> Any:
            posterior = ssm.approximate(prior, y, likelihood, kind, power=power, atol=1e-6)
            return posterior.num_steps, posterior.log_evidence()

        compiled = jax.jit(solve)
        steps, _ = jax.block_until_ready(compiled(y))
        begin = time.perf_counter()
        for _ in range(5):
            jax.block_until_ready(compiled(y))
        rows.append([method, int(steps), 1e3 * (time.perf_counter() - begin) / 5, "yes"])
    points = jnp.asarray(times[::3])
    svgp = gp.SVGP(gp.GP(kernel()), likelihood, inducing_points=points)
    algorithm = gp.svgp_natgrad(svgp, None, 0.5, num_data=n)
    x, data = jnp.asarray(times), jnp.asarray(y)
    step = jax.jit(lambda state: algorithm.step(jax.random.key(0), state, x, data))
    state = algorithm.init()
    jax.block_until_ready(step(state))
    bounds = []
    begin = time.perf_counter()
    for _ in range(200):
        state, info = step(state)
        bounds.append(abs(float(info.objective)))
        if abs(bounds[-1] - abs(target)) < NEAR:
            break
    seconds = time.perf_counter() - begin
    close = "yes" if abs(bounds[-1] - abs(target)) < NEAR else f"{bounds[-1] - abs(target):.2f} off"
    rows.append([f"SVGP, {len(points)} points", len(bounds), 1e3 * seconds, close])
    header = ["", "updates", "ms", f"within {NEAR} nats of the bound"]
    report.table(f"To convergence, {n} counts, compilation apart", header, rows)


BENCHMARK = Benchmark(
    name="ssm-approx",
    claim="approximate posteriors of long series are those of long Markov chains",
    source="Wilkinson, Särkkä and Solin 2023; our bounds",
    targets=TARGETS,
    run=run,
)
