# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A network from a NumPyro program
#
# A clinic sees a short series of a patient's measurements, with an occasional gross error, and
# wants the next one with an honest interval, at once. The model is a NumPyro program; NUTS takes
# seconds for each patient. A network that is trained on patients drawn from the program takes one
# pass.

# %%
import os
import time

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pandas as pd
from numpyro.infer import MCMC, NUTS, Predictive

import bayesjx
from bayesjx import amortized, diagnostics

FAST = os.environ.get("BAYESJX_FAST") == "1"
ROWS, QUERIES = 20, 8

# %% [markdown]
# ## The program
#
# A line with an unknown scatter, and Student noise: measurements far off are ignored, as they
# should be. That has no closed form. Times of measurements are uniform.


# %%
def patient(x, y=None):
    level = numpyro.sample("level", dist.Normal(0.0, 1.0))
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    scale = numpyro.sample("scale", dist.LogNormal(-1.5, 0.5))
    with numpyro.plate("rows", x.shape[0]):
        numpyro.sample("y", dist.StudentT(3.0, level + slope * x[:, 0], scale), obs=y)


def times(key):
    return jax.random.uniform(key, (ROWS + QUERIES, 1), minval=-1.0, maxval=1.0)


prior = amortized.from_numpyro(patient, inputs=times)
prior(jax.random.key(0)).y.round(2)

# %% [markdown]
# ## Training
#
# `PFN.for_prior` chooses the head, here a bar distribution of bars with equal mass under the
# prior, and the scales of inputs. A step draws new data sets, so that the score is an honest one
# at any time.

# %%
steps = 150 if FAST else 6000
keys = jax.random.split(jax.random.key(1), 4)
size = {"width": 16, "depth": 1, "heads": 2} if FAST else {"width": 48, "depth": 3}
network = amortized.PFN.for_prior(keys[0], prior, num_queries=QUERIES, **size)
schedule = optax.warmup_cosine_decay_schedule(0.0, 2e-3, steps // 10, steps)
optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))
training = amortized.pfn_training(network, prior, optimizer, num_queries=QUERIES)
fit = bayesjx.fit(keys[1], training, training.init(), steps, progress=not FAST)
network = bayesjx.trained(network, fit.state)

curve = pd.Series(np.asarray(fit.info.objective)).rolling(steps // 20).mean()
axes = curve.plot(figsize=(6, 2.5), xlabel="step", ylabel="log score of a query, nats")

# %% [markdown]
# ## Beside NUTS
#
# The same patients by NUTS over level, slope and scatter, with predictive densities averaged over
# its draws. The difference of mean log scores estimates the divergence of the network's
# predictions from the posterior's.


# %%
def by_nuts(x, y, x_new, y_new, draws):
    mcmc = MCMC(NUTS(patient), num_warmup=draws, num_samples=draws, progress_bar=False)
    mcmc.run(jax.random.key(0), x, y)
    s = mcmc.get_samples()
    centre = s["level"][:, None] + s["slope"][:, None] * x_new[:, 0]
    terms = dist.StudentT(3.0, centre, s["scale"][:, None]).log_prob(y_new)
    return jax.scipy.special.logsumexp(terms, axis=0) - jnp.log(len(terms)), s


patients = jax.vmap(prior)(jax.random.split(keys[2], 4 if FAST else 40))
rows = []
for n in (3, 10, 20):
    seconds = {"network": 0.0, "NUTS": 0.0}
    scores = {"network": [], "NUTS": []}
    for x, y in zip(patients.x, patients.y, strict=True):
        context, query = (x[:n], y[:n]), (x[ROWS:], y[ROWS:])
        started = time.perf_counter()
        scores["network"].append(network.condition(*context).log_predictive_prob(*query).mean())
        seconds["network"] += time.perf_counter() - started
        started = time.perf_counter()
        scores["NUTS"].append(by_nuts(*context, *query, 50 if FAST else 500)[0].mean())
        seconds["NUTS"] += time.perf_counter() - started
    gap = np.asarray(scores["NUTS"]) - np.asarray(scores["network"])
    rows.append(
        [n, gap.mean(), gap.std() / len(gap) ** 0.5, *np.array(list(seconds.values())) / len(gap)]
    )
columns = ["measurements", "nats above NUTS", "standard error", "network, s", "NUTS, s"]
pd.DataFrame(rows, columns=columns).round(4)

# %% [markdown]
# One patient, with a gross error among the measurements:

# %%
x = jnp.linspace(-0.9, 0.6, 9)[:, None]
y = 0.3 + 0.8 * x[:, 0] + 0.1 * jax.random.normal(jax.random.key(5), (9,))
y = y.at[6].set(-2.0)
grid = jnp.linspace(-1.0, 1.0, 81)[:, None]
posterior = network.condition(x, y).predict(grid)
_, draws = by_nuts(x, y, x, y, 50 if FAST else 500)
nuts = Predictive(patient, draws)(jax.random.key(1), grid)["y"]

figure, axes = plt.subplots(figsize=(6, 3))
axes.fill_between(
    grid[:, 0], posterior.icdf(0.05), posterior.icdf(0.95), alpha=0.3, label="network, 90 %"
)
axes.plot(grid[:, 0], posterior.icdf(0.5))
for q in (0.05, 0.5, 0.95):
    axes.plot(grid[:, 0], jnp.quantile(nuts, q, axis=0), color="C1", lw=1)
axes.plot([], [], color="C1", label="NUTS")
axes.plot(x[:, 0], y, "k.")
axes.set(ylim=(-3, 3), xlabel="time", ylabel="measurement")
legend = axes.legend()

# %% [markdown]
# ## Whether to trust it
#
# The probability integral transforms of new measurements are uniform if the predictive
# distributions are right. That asks for nothing but draws of the prior.

# %%
fresh = jax.vmap(prior)(jax.random.split(keys[3], 50 if FAST else 1000))


@jax.jit
def transform(x, y):
    return network.condition(x[:10], y[:10]).predict(x[ROWS : ROWS + 1]).cdf(y[ROWS])[0]


values = jax.vmap(transform)(fresh.x, fresh.y)
check = diagnostics.uniformity(values)
print(f"p-value of uniformity: {check.p_value:.2f}")

# %% [markdown]
# `amortized.save_network("patients.network", network)` keeps it in a file of some hundred
# kilobytes.
