"""Sparsity priors: Gibbs beside sums over all sets, NUTS on horseshoes, ranks of `SBLMarginal`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from benchmarks._declare import Benchmark, Target
from benchmarks._report import Report

SWEEPS, QUICK_SWEEPS, BATCHES = 100_000, 20_000, 50
SETS, QUICK_SETS = 240, 40  # simulated, for intervals and ranks
DRAWS, QUICK_DRAWS = 400, 96  # of each chain on a simulated set, after as many for warm-up
LONG, QUICK_LONG = 2000, 400  # of each of four chains on one data set
LEVEL = 0.9
BINS = 8
TARGETS = (
    Target("gibbs_z", "<=", 4.5, meaning="largest z-score of Gibbs against all sets, 24 of them"),
    Target("rhat", "<=", 1.01, quick=1.05, meaning="largest R-hat of the weights, four chains"),
    Target("coverage", "between", (0.87, 0.93), quick=(0.83, 0.96), meaning="by 90 % intervals"),
    Target("sbc_p", ">=", 0.01, meaning="smallest p-value of ranks times their number"),
)


def run(quick: bool, report: Report) -> Mapping[str, Any]:
    """Float64 throughout."""
    import jax

    with jax.enable_x64(True):
        figures = _gibbs(quick, report)
        figures |= _horseshoe(quick, report)
        figures |= _coverage(quick, report)
        return figures | _ranks(quick, report)


def _gibbs(quick: bool, report: Report) -> dict[str, Any]:
    """Means over sweeps against sums over the 256 sets of eight columns, two of them alike."""
    import jax
    import numpy as np
    import numpyro.distributions as dist

    import bayesjx
    from bayesjx import sbl

    rng = np.random.default_rng(0)
    design = rng.normal(size=(30, 8))
    design[:, 3] = design[:, 2] + 0.3 * rng.normal(size=30)
    y = design @ np.array([1.0, 0, 0.7, 0, 0, -0.4, 0.2, 0]) + rng.normal(size=30)
    sweeps = QUICK_SWEEPS if quick else SWEEPS
    largest, rows = 0.0, []
    for name, noise in (("known", 1.0), ("unknown", dist.InverseGamma(2.0, 1.0))):
        options: dict[str, Any] = {"noise_var": noise, "slab_var": 1.0, "prior_prob": 0.3}
        exact = sbl.spike_and_slab(design, y, **options)
        algorithm = sbl.spike_and_slab_gibbs(design, y, **options)
        found = bayesjx.fit(jax.random.key(0), algorithm, algorithm.init(), sweeps)
        pairs = {
            "conditional probabilities": (found.info.inclusion_prob, exact.inclusion_prob),
            "indicators": (found.info.variance > 0, exact.inclusion_prob),
            "weights": (found.info.mean, exact.mean),
        }
        for what, (values, want) in pairs.items():
            each = np.asarray(values, float).reshape(BATCHES, -1, 8).mean(axis=1)
            error = each.std(axis=0, ddof=1) / np.sqrt(BATCHES)
            z = np.abs(each.mean(axis=0) - np.asarray(want)) / error
            largest = max(largest, float(z.max()))
            rows.append([name, what, float(error.max()), float(z.max())])
        rows[-1].append(found.seconds / sweeps * 1e6)
    header = ["noise", "mean over sweeps of", "largest standard error", "largest z", "µs a sweep"]
    rows = [[*row, *[""] * (len(header) - len(row))] for row in rows]
    report.table(f"Gibbs, {sweeps} sweeps, against all 256 sets", header, rows)
    return {"gibbs_z": largest}


def _model(design: Any, y: Any = None) -> None:
    """Regression with a regularised horseshoe and unknown noise."""
    import numpyro
    import numpyro.distributions as dist

    from bayesjx import sbl

    n, m = design.shape
    noise = numpyro.sample("noise", dist.LogNormal(-0.7, 0.3))
    w = sbl.regularized_horseshoe("w", m, num_nonzero=3, num_data=n, noise_scale=noise)
    numpyro.sample("y", dist.Normal(design @ w, noise), obs=y)


def _horseshoe(quick: bool, report: Report) -> dict[str, Any]:
    """Four long chains on one sparse regression."""
    import jax
    import numpy as np
    from numpyro.diagnostics import split_gelman_rubin, summary
    from numpyro.infer import MCMC, NUTS

    from bayesjx import sbl

    rng = np.random.default_rng(1)
    truth = np.zeros(20)
    truth[:3] = 1.5, -1.0, 0.5
    design = rng.normal(size=(50, 20))
    y = design @ truth + 0.5 * rng.normal(size=50)
    draws = QUICK_LONG if quick else LONG
    kernel = NUTS(_model, target_accept_prob=0.95)
    mcmc = MCMC(
        kernel, num_warmup=draws // 2, num_samples=draws, num_chains=4, progress_bar=False,
        chain_method="vectorized",
    )  # fmt: skip
    begun = time.perf_counter()
    mcmc.run(jax.random.key(0), design, y, extra_fields=("diverging",))
    samples = mcmc.get_samples(group_by_chain=True)
    rhat = float(np.max(split_gelman_rubin(np.asarray(samples["w"]))))
    seconds = time.perf_counter() - begun
    table = summary({"w": samples["w"]}, prob=LEVEL)["w"]
    low, high = (table[key] for key in ("5.0%", "95.0%"))
    shrunk = sbl.shrinkage(samples, num_data=50, noise_scale=samples["noise"])
    rows = [
        [f"w[{j}]", truth[j], table["mean"][j], low[j], high[j], float(shrunk.kappa[..., j].mean())]
        for j in (0, 1, 2, 3, 4)
    ]
    header = ["weight", "truth", "mean", "5 %", "95 %", "shrinkage"]
    report.table("Regularised horseshoe, n = 50, m = 20, 3 weights not zero", header, rows)
    report.note(
        f"4 chains of {draws} draws at once in {seconds:.0f} s with compilation; at least "
        f"{float(np.min(table['n_eff'])):.0f} effective draws; "
        f"{int(np.sum(mcmc.get_extra_fields()['diverging']))} divergences; effective number of "
        f"non-zero weights {float(shrunk.num_nonzero.mean()):.2f}"
    )
    return {"rhat": rhat}


def _coverage(quick: bool, report: Report) -> dict[str, Any]:
    """Intervals of weights that come from the prior, which must cover as often as they say."""
    import jax
    import numpy as np
    from numpyro.infer import Predictive

    sets, draws = (QUICK_SETS, QUICK_DRAWS) if quick else (SETS, DRAWS)
    design = np.random.default_rng(2).normal(size=(25, 8))
    simulated = Predictive(_model, num_samples=sets)(jax.random.key(1), design)
    begun = time.perf_counter()
    found = _chains(lambda y: _model(design, y), simulated["y"], draws, 0.95)
    seconds = time.perf_counter() - begun
    low, high = np.quantile(np.asarray(found["w"]), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=1)
    truth = np.asarray(simulated["w"])
    inside = (low <= truth) & (truth <= high)
    large = np.abs(truth) > np.asarray(simulated["noise"])[:, None]
    error = inside.mean(axis=1).std(ddof=1) / np.sqrt(sets)
    report.note(
        f"Intervals: {sets} sets of n = 25, m = 8 from the prior, a chain of {draws} draws on each "
        f"at once in {seconds:.0f} s with compilation; {inside.mean():.3f} ± {error:.3f} of all "
        f"weights and {inside[large].mean():.3f} of the {large.sum()} that are larger than the "
        f"noise are inside of {LEVEL:.0%} intervals"
    )
    return {"coverage": float(inside.mean())}


def _ranks(quick: bool, report: Report) -> dict[str, Any]:
    """Simulation-based calibration of hyper-parameters whose weights are integrated out."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import numpyro
    import numpyro.distributions as dist
    from numpyro.infer import Predictive
    from scipy.stats import chisquare

    from bayesjx import sbl

    sets, draws = (QUICK_SETS, QUICK_DRAWS) if quick else (SETS, DRAWS)
    design = np.random.default_rng(3).normal(size=(20, 6))
    groups = jnp.array([0, 0, 0, 1, 1, 1])

    def model(y: Any = None) -> None:
        by_group = dist.Normal(0.0, 1.5).expand([2]).to_event(1)
        log_var = jnp.asarray(numpyro.sample("log_var", by_group))
        log_noise = numpyro.sample("log_noise", dist.Normal(-1.0, 0.5))
        numpyro.sample("y", sbl.SBLMarginal(design, log_var[groups], log_noise), obs=y)

    simulated = Predictive(model, num_samples=sets)(jax.random.key(2))
    begun = time.perf_counter()
    found = _chains(model, simulated["y"], draws, 0.8)
    seconds = time.perf_counter() - begun
    pvalues, rows = [], []
    kept = BINS * (draws // (4 * BINS)) - 1  # so that ranks fall into bins of one size
    for name in ("log_var", "log_noise"):
        truth = np.asarray(simulated[name]).reshape(sets, -1)
        chains = np.asarray(found[name]).reshape(sets, draws, -1)
        chains = chains[:, np.linspace(0, draws - 1, kept).astype(int)]
        ranks = np.sum(chains < truth[:, None], axis=1)
        for j in range(truth.shape[1]):
            counts = np.bincount(ranks[:, j] * BINS // (kept + 1), minlength=BINS)
            pvalues.append(float(chisquare(counts).pvalue))
            rows.append([f"{name}[{j}]", pvalues[-1], *counts.tolist()])
    header = ["", "p", *(f"bin {b}" for b in range(BINS))]
    report.table(f"Ranks among {kept} draws, {sets} sets, {seconds:.0f} s", header, rows)
    return {"sbc_p": min(1.0, min(pvalues) * len(pvalues))}


def _chains(model: Any, observed: Any, draws: int, accept: float) -> dict[str, Any]:
    """Draws for each data set, by as many chains at once."""
    import jax
    from numpyro.infer import MCMC, NUTS

    kernel = NUTS(model, target_accept_prob=accept, max_tree_depth=8)

    def chain(key: Any, y: Any) -> Any:
        mcmc = MCMC(kernel, num_warmup=draws, num_samples=draws, progress_bar=False)
        mcmc.run(key, y)
        return mcmc.get_samples()

    keys = jax.random.split(jax.random.key(3), len(observed))
    return jax.block_until_ready(jax.jit(jax.vmap(chain))(keys, observed))


BENCHMARK = Benchmark(
    name="sbl-priors",
    claim="sparsity priors have the posteriors that they say, by Gibbs sampling and by NUTS",
    source="George and McCulloch 1997; Piironen and Vehtari 2017; Talts et al. 2018; own bounds",
    targets=TARGETS,
    run=run,
)
