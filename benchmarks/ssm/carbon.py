"""NUTS over the hyper-parameters of forty years of carbon dioxide, beside the same in tinygp."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks._declare import Benchmark, Target
from benchmarks._report import Report

HARMONICS = 6
CHAINS, WARMUP, DRAWS = 4, 300, 800
QUICK_WEEKS, QUICK_HARMONICS = 208, 2
PAIRED, FEW_PAIRED = 20, 2  # draws on the same trajectories, for the times: adapted, or not
STEP, DEPTH = 0.05, 4  # of the trajectories where no chain is adapted
FUSE = "--xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold=100000"
PRIOR = {  # medians and log scales
    "trend": (30.0, 0.7),
    "trend_years": (30.0, 0.5),
    "season": (3.0, 0.5),
    "smoothness": (1.2, 0.3),
    "drift_years": (60.0, 0.7),
    "rough": (0.5, 0.5),
    "rough_years": (0.3, 0.7),
    "noise": (0.3, 0.5),
}

TARGETS = (
    Target("rhat", "<=", 1.01, quick=None, meaning="largest R-hat, four chains"),
    Target("ratio", ">=", 2, quick=1.2, unit="×", meaning="effective draws a second ÷ tinygp"),
    Target("agreement", "<=", 1e-8, meaning="relative difference of the two log densities"),
)


def run(quick: bool, report: Report) -> Mapping[str, Any]:
    """Chains of ours; tinygp goes along some of the same trajectories, timed in turn."""
    from benchmarks._process import in_fresh_process

    weeks = f"the last {QUICK_WEEKS}" if quick else "2284"
    harmonics = QUICK_HARMONICS if quick else HARMONICS
    report.note(
        f"Weekly CO2 of Mauna Loa, {weeks} weeks, some of them missing (tinygp leaves them out): "
        f"Matérn-5/2 trend, Matérn-3/2 times periodic with {harmonics} harmonics, Matérn-3/2; "
        f"{7 + 4 * harmonics} states, 8 parameters, NumPyro's NUTS with a dense mass matrix. From "
        f"the state and the adapted kernel of a chain of ours both make {PAIRED} draws with the "
        f"same key, on the same trajectories ({FEW_PAIRED}, from the prior's medians, where no "
        "chains are run); so effective draws are the same and their rates have the ratio "
        "of the times. Default: no options of XLA. Fused: XLA_FLAGS=" + FUSE + "."
    )
    figures: dict[str, Any] = {}
    ratios, agreements = [], []
    settings = (("default", ""), ("fused", FUSE))
    for setting, flags in settings[:1] if quick else settings:
        long = setting == "default" and not quick
        fresh = in_fresh_process(f"{__name__}:measure", flags, quick, long, timeout=7200)
        found = fresh.result
        rows = [
            [
                library,
                found["seconds"][library],
                found["leapfrogs"][library] / found["seconds"][library],
            ]
            for library in ("bayesjx", "tinygp")
        ]
        report.table(f"The same draws, {setting}", ["", "s", "leapfrog steps a second"], rows)
        ratios.append(found["ratio"])
        agreements.append(found["agreement"])
        if long:
            names = list(found["summary"])
            cells = [[name, *found["summary"][name]] for name in names]
            report.table("Posterior", ["", "mean", "sd", "effective", "R-hat"], cells)
            figures["rhat"] = max(row[4] for row in cells)
            effective = min(row[3] for row in cells)
            rate = effective / found["total"]
            report.note(
                f"{CHAINS} chains of {DRAWS} draws after {WARMUP}: {found['total']:.0f} s, at "
                f"least {effective:.0f} effective draws, {rate:.2f} a second with warm-up; "
                f"{found['divergences']} divergences"
            )
    return {**figures, "ratio": min(ratios), "agreement": max(agreements)}


def measure(flags: str, quick: bool, long: bool) -> dict[str, Any]:
    """One setting of XLA's options, in a process of its own."""
    import os

    os.environ["XLA_FLAGS"] = flags
    import jax

    jax.config.update("jax_enable_x64", True)
    years, y, mask = _series(QUICK_WEEKS if quick else None)
    harmonics = QUICK_HARMONICS if quick else HARMONICS
    densities = {
        "bayesjx": _bayesjx(years, y, mask, harmonics),
        "tinygp": _tinygp(years, y, mask, harmonics),
    }
    start = {name: median for name, (median, _) in PRIOR.items()}
    values = {library: float(jax.jit(f)(start)) for library, f in densities.items()}
    agreement = abs(values["tinygp"] / values["bayesjx"] - 1)
    chains = _chains(densities["bayesjx"], start) if long else {}
    draws = PAIRED if long else FEW_PAIRED
    again = _again(densities, start, chains.pop("state", None), draws)
    return {"agreement": agreement, **again, **chains}


def _chains(density: Any, start: dict[str, float]) -> dict[str, Any]:
    """Four chains of ours, one after another."""
    import time

    import jax
    import numpy as np
    from numpyro.diagnostics import summary
    from numpyro.infer import init_to_value, MCMC, NUTS

    kernel = NUTS(
        _model(density), dense_mass=True, init_strategy=init_to_value(values=start),
        max_tree_depth=(5, 10),  # trajectories before the mass matrix is known would be long
    )  # fmt: skip
    mcmc = MCMC(
        kernel, num_warmup=WARMUP, num_samples=DRAWS, num_chains=CHAINS,
        chain_method="sequential", progress_bar=False,
    )  # fmt: skip
    begin = time.perf_counter()
    mcmc.run(jax.random.key(0), extra_fields=("diverging",))
    table = summary(mcmc.get_samples(group_by_chain=True))
    shown = ("mean", "std", "n_eff", "r_hat")
    return {
        "total": time.perf_counter() - begin,
        "divergences": int(np.sum(mcmc.get_extra_fields()["diverging"])),
        "summary": {name: [float(row[key]) for key in shown] for name, row in table.items()},
        "state": jax.tree.map(lambda leaf: leaf[0], mcmc.last_state),
    }


def _again(
    densities: dict[str, Any], start: dict[str, float], state: Any, draws: int
) -> dict[str, Any]:
    """Seconds of the draws that follow a state, compiled before; the libraries in turn."""
    import jax
    import numpy as np
    from numpyro.infer import init_to_value, NUTS

    from benchmarks._timing import compare

    depth = DEPTH if state is None else 10
    programs: dict[str, Any] = {}
    for library, density in densities.items():
        kernel = NUTS(
            _model(density), step_size=STEP, adapt_step_size=False, adapt_mass_matrix=False,
            dense_mass=True, init_strategy=init_to_value(values=start),
            max_tree_depth=depth,
        )  # fmt: skip
        first = kernel.init(jax.random.key(0), 0)
        state = first if state is None else state

        def following(state: Any, kernel: Any = kernel) -> Any:
            def step(state: Any, _: None) -> tuple[Any, Any]:
                state = kernel.sample(state, (), {})
                return state, (state.num_steps, state.z)

            return jax.lax.scan(step, state, length=draws)[1]

        programs[library] = jax.jit(following).lower(state).compile()
    times = compare({name: (program, (state,)) for name, program in programs.items()}, rounds=7)
    steps = {name: int(np.sum(program(state)[0])) for name, program in programs.items()}
    # The same unless rounding has turned a trajectory.
    longer = steps["tinygp"] / steps["bayesjx"]
    return {
        "seconds": {name: float(times.median(name).value) for name in programs},
        "ratio": float(times.ratio("tinygp", "bayesjx").value) / longer,
        "leapfrogs": steps,
    }


def _series(weeks: int | None) -> tuple[Any, Any, Any]:
    import numpy as np
    from statsmodels.datasets import co2

    table = co2.load_pandas().data["co2"]
    years = np.asarray((table.index - table.index[0]).days) / 365.25
    y = table.to_numpy()
    if weeks:
        years, y = years[-weeks:] - years[-weeks], y[-weeks:]
    mask = ~np.isnan(y)
    return years, np.where(mask, y - np.mean(y[mask]), 0.0), mask


def _model(density: Any) -> Any:
    import jax.numpy as jnp
    import numpyro
    from numpyro import distributions as dist

    def model() -> None:
        theta = {
            name: numpyro.sample(name, dist.LogNormal(jnp.log(median), scale))
            for name, (median, scale) in PRIOR.items()
        }
        numpyro.factor("density", density(theta))

    return model


def _bayesjx(years: Any, y: Any, mask: Any, harmonics: int) -> Any:
    from bayesjx import kernels, ssm

    def density(t: dict[str, Any]) -> Any:
        kernel = (
            kernels.Matern52(t["trend_years"], t["trend"] ** 2)
            + kernels.Matern32(t["drift_years"])
            * kernels.Periodic(t["smoothness"], 1.0, t["season"] ** 2)
            + kernels.Matern32(t["rough_years"], t["rough"] ** 2)
        )
        series = ssm.MarkovGP(
            kernel, years, noise_var=t["noise"] ** 2, mask=mask, harmonics=harmonics
        )
        return series.log_prob(y)

    return density


def _tinygp(years: Any, y: Any, mask: Any, harmonics: int) -> Any:
    """Its quasiseparable kernels have no periodic one: the same sum of waves is put together."""
    import jax.numpy as jnp
    import tinygp

    from bayesjx.ssm._state_space import periodic_shares

    times, data = jnp.asarray(years[mask]), jnp.asarray(y[mask])
    parts = tinygp.kernels.quasisep

    def density(t: dict[str, Any]) -> Any:
        shares = t["season"] ** 2 * periodic_shares(t["smoothness"], harmonics)
        kernel = parts.Matern52(scale=t["trend_years"], sigma=t["trend"])
        kernel = kernel + parts.Matern32(scale=t["rough_years"], sigma=t["rough"])
        for j in range(harmonics + 1):
            term = parts.Matern32(scale=t["drift_years"], sigma=jnp.sqrt(shares[j]))
            kernel = kernel + (term if j == 0 else term * parts.Cosine(scale=1 / j))
        process = tinygp.GaussianProcess(kernel, times, diag=t["noise"] ** 2, assume_sorted=True)
        return process.log_probability(data)

    return density


BENCHMARK = Benchmark(
    name="ssm-nuts",
    claim="NUTS over the hyper-parameters of a seasonal series takes half the time",
    source="Hartikainen and Särkkä 2010; tinygp",
    targets=TARGETS,
    run=run,
)
