# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Long time series
#
# A Gaussian process of time whose kernel is Matérn, periodic, or made of these is a linear
# stochastic differential equation, and its marginal likelihood a Kalman filter: exact, and linear
# in the number of observations. Here: forty years of carbon dioxide, taken apart into trend and
# season, forecast, and sampled over its hyper-parameters by NUTS; counts of events by
# expectation propagation; and a million observations.

# %%
import os
import time

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import init_to_value, MCMC, NUTS
from statsmodels.datasets import co2

import bayesjx
from bayesjx import kernels, ssm

jax.config.update("jax_enable_x64", True)
FAST = os.environ.get("BAYESJX_FAST") == "1"  # small sizes, for continuous integration
bayesjx.configure_cpu()  # before the first computation
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})
BLUE, ORANGE, GREY = "#2b6cb0", "#dd6b20", "#a0aec0"

# %% [markdown]
# ## Carbon dioxide on Mauna Loa
#
# Weekly means from 1958 to 2001, in parts per million; 59 weeks are missing. The last years are
# kept back. Nothing has to be filled in: `mask` says which weeks there are.

# %%
table = co2.load_pandas().data["co2"]
measured = table.to_numpy()
years = np.asarray((table.index - table.index[0]).days) / 365.25
AHEAD = 2 if FAST else 8  # years
if FAST:
    years, measured = years[-500:] - years[-500], measured[-500:]
present = ~np.isnan(measured)
given = present & (years < years[-1] - AHEAD)
centre = measured[given].mean()
y = measured - centre
print(f"{len(years)} weeks, {(~present).sum()} missing, {given.sum()} given")

# %% [markdown]
# Trend, season and weather: a smooth process, a periodic one whose shape drifts, and a rough one.
# The product of a Matérn and a periodic kernel has 26 states here, the sum 31; transitions are
# block-diagonal, which the filter makes use of.


# %%
def kernel_of(trend, trend_years, season, smoothness, drift_years, rough, rough_years):
    periodic = kernels.Periodic(smoothness, 1.0, season**2)
    return (
        kernels.Matern52(trend_years, trend**2)
        + kernels.Matern32(drift_years) * periodic
        + kernels.Matern32(rough_years, rough**2)
    )


START = {
    "trend": 30.0,
    "trend_years": 30.0,
    "season": 3.0,
    "smoothness": 1.2,
    "drift_years": 60.0,
    "rough": 0.5,
    "rough_years": 0.3,
    "noise": 0.3,
}


def model(times, y, mask):
    theta = {
        "trend": numpyro.sample("trend", dist.LogNormal(np.log(30.0), 0.7)),
        "trend_years": numpyro.sample("trend_years", dist.LogNormal(np.log(30.0), 0.5)),
        "season": numpyro.sample("season", dist.LogNormal(np.log(3.0), 0.5)),
        "smoothness": numpyro.sample("smoothness", dist.LogNormal(np.log(1.2), 0.3)),
        "drift_years": numpyro.sample("drift_years", dist.LogNormal(np.log(60.0), 0.7)),
        "rough": numpyro.sample("rough", dist.LogNormal(np.log(0.5), 0.5)),
        "rough_years": numpyro.sample("rough_years", dist.LogNormal(np.log(0.3), 0.7)),
    }
    noise = numpyro.sample("noise", dist.LogNormal(np.log(0.3), 0.5))
    series = ssm.MarkovGP(kernel_of(**theta), times, noise_var=noise**2, mask=mask)
    numpyro.sample("y", series, obs=y)


# %%
WARMUP, DRAWS, DEPTH = (8, 8, 3) if FAST else (200, 200, 6)
start = init_to_value(values=START)
kernel = NUTS(model, dense_mass=True, init_strategy=start, max_tree_depth=DEPTH)
mcmc = MCMC(kernel, num_warmup=WARMUP, num_samples=DRAWS, progress_bar=False)
begin = time.perf_counter()
mcmc.run(jax.random.key(0), years, np.where(given, y, 0.0), given)
print(f"{WARMUP + DRAWS} iterations in {time.perf_counter() - begin:.0f} s")
mcmc.print_summary(exclude_deterministic=False)

# %% [markdown]
# ## What it is made of
#
# The posterior of each term of the kernel, at the mean of the hyper-parameters, and the forecast of
# the years that were kept back. `term` picks one process of the sum.

# %%
at = {name: float(np.mean(draws)) for name, draws in mcmc.get_samples().items()}
noise = at.pop("noise")
series = ssm.MarkovGP(kernel_of(**at), years, noise_var=noise**2, mask=given)
post = series.condition(np.where(given, y, 0))
parts = {name: post.moments(term=i) for i, name in enumerate(("trend", "season", "weather"))}
figure, axes = plt.subplots(3, 1, figsize=(9, 7), layout="constrained")
axes[0].plot(years, measured, ".", ms=1.5, color=GREY, label="measured")
mean, variance = parts["trend"]
axes[0].plot(years, centre + mean, color=BLUE, label="trend")
recent = years > years[-1] - 11
axes[1].plot(years[recent], parts["season"][0][recent], color=BLUE, label="season")
axes[1].plot(years[recent], parts["weather"][0][recent], color=ORANGE, label="weather")
future = post.predict(years)
low, high = future.mean - 1.64 * future.variance**0.5, future.mean + 1.64 * future.variance**0.5
axes[2].fill_between(
    years[recent], centre + low[recent], centre + high[recent], color=BLUE, alpha=0.3, lw=0
)
axes[2].plot(years[recent], measured[recent], ".", ms=2.5, color=ORANGE)
axes[2].axvline(years[given][-1], color=GREY, lw=1)
for ax, text in zip(axes, ("", "ppm, by term", "ppm, 90 % of forecasts"), strict=True):
    ax.set_ylabel(text or "ppm")
    if ax is not axes[2]:
        ax.legend()
axes[2].set_xlabel("years")
plt.show()

# %%
kept = present & ~given
inside = (y > low) & (y < high)
error = np.sqrt(np.mean((y - future.mean)[kept] ** 2))
naive = np.sqrt(np.mean((y[kept] - y[given][-1]) ** 2))
print(f"{AHEAD} years ahead: error {error:.2f} ppm (last value: {naive:.2f}), ")
print(f"{100 * inside[kept].mean():.0f} % of weeks inside of the 90 % intervals")

# %% [markdown]
# Each week given all others, without refitting: leave-one-out, here as the calibration of the model
# inside of the series.

# %%
one = post.leave_one_out()
score = (y - one.mean) / one.variance**0.5
print(f"standardised leave-one-out errors: mean {score[given].mean():.3f}, ", end="")
print(f"standard deviation {score[given].std():.3f}")

# %% [markdown]
# ## Counts
#
# Events of a process whose rate moves, counted in bins. Power EP replaces the Poisson likelihood of
# each bin by a normal factor; its estimate of the evidence has exact derivatives, so NUTS can run
# over the hyper-parameters with the rate integrated out.

# %%
BINS = 60 if FAST else 600
rng = np.random.default_rng(0)
bins = np.arange(BINS) / 10.0
truth = np.exp(1.0 + 0.8 * np.sin(bins / 2.5) + 0.3 * np.sin(bins * 1.7))
counts = rng.poisson(truth)


def poisson(f):
    return dist.Poisson(jnp.exp(f))


def rate(counts):
    lengthscale = numpyro.sample("lengthscale", dist.LogNormal(0.5, 0.7))
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.5))
    level = numpyro.sample("level", dist.Normal(1.0, 1.0))
    prior = ssm.MarkovGP(kernels.Matern52(lengthscale, scale**2), bins, mean=level)
    posterior = prior.condition(counts, poisson, method="ep", atol=1e-6)
    numpyro.factor("evidence", posterior.log_evidence())


mcmc = MCMC(
    NUTS(rate), num_warmup=20 if FAST else 150, num_samples=20 if FAST else 150, progress_bar=False
)
mcmc.run(jax.random.key(1), counts)
draws = {name: float(values.mean()) for name, values in mcmc.get_samples().items()}
print(draws)

# %%
prior = ssm.MarkovGP(
    kernels.Matern52(draws["lengthscale"], draws["scale"] ** 2), bins, mean=draws["level"]
)
mean, variance = prior.condition(counts, poisson, method="ep").moments()
low, high = (np.exp(mean + z * variance**0.5) for z in (-1.64, 1.64))
figure, ax = plt.subplots(figsize=(9, 2.8), layout="constrained")
ax.vlines(bins, 0, counts, color=GREY, lw=1)
ax.fill_between(bins, low, high, color=BLUE, alpha=0.3, lw=0)
ax.plot(bins, truth, color=ORANGE, label="true rate")
ax.set(xlabel="time", ylabel="events in a bin")
ax.legend()
plt.show()
print(f"{np.mean((truth > low) & (truth < high)):.0%} of the true rate inside of 90 % intervals")

# %% [markdown]
# ## A million observations

# %%
SIZE = 20_000 if FAST else 1_000_000
times = np.sort(rng.uniform(0, SIZE / 20, SIZE))
wave = np.sin(times) + 0.3 * rng.normal(size=SIZE)


def density(theta):
    kernel = kernels.Matern32(theta[0], theta[1])
    return ssm.MarkovGP(kernel, times, noise_var=theta[2]).log_prob(wave)


both = jax.jit(jax.value_and_grad(density))
theta = jnp.array([2.0, 1.0, 0.1])
jax.block_until_ready(both(theta))
begin = time.perf_counter()
value, slope = jax.block_until_ready(both(theta))
print(f"{SIZE} observations: {1e3 * (time.perf_counter() - begin):.0f} ms, gradient {slope}")
