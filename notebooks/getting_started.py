# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A hierarchical model, from data to posterior
#
# Does smoking go with lung cancer? In eight Chinese cities, patients with and without lung cancer
# were asked whether they smoke. Each city gives a table of two by two counts and an odds ratio.
# Cities differ, but not without limit: a hierarchical model lets each have a log odds ratio of its
# own and learns from all of them together how much they vary.
#
# This notebook fits the model by one call, then writes guides for it by hand, improves them,
# compares all with NUTS, and saves the result with labels.

# %%
import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from numpyro import handlers
from numpyro.infer import MCMC, NUTS
from numpyro.infer.reparam import LocScaleReparam
from statsmodels.datasets import china_smoking

from bayesjx import vi

FAST = os.environ.get("BAYESJX_FAST") == "1"  # small sizes, for continuous integration
STEPS, NUM_DRAWS = (1500, 500) if FAST else (4000, 2000)
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})
BLUE, ORANGE, GREY = "#2b6cb0", "#dd6b20", "#a0aec0"

# %% [markdown]
# ## The data

# %%
table = china_smoking.load_pandas().data
table

# %%
cities = list(table.index.str.replace("Nanjng", "Nanjing"))
smokers = jnp.array(table[["smoking_yes_cancer_no", "smoking_yes_cancer_yes"]], jnp.float32)
others = jnp.array(table[["smoking_no_cancer_no", "smoking_no_cancer_yes"]], jnp.float32)
asked = smokers + others  # columns: patients without and with lung cancer

# %% [markdown]
# ## The model
#
# In city $i$, a patient without lung cancer smokes with log odds $a_i$, one with lung cancer with
# log odds $a_i + e_i$. The effects $e_i$ scatter around a mean effect.

# %%


def model(params, smokers, asked):
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    log_scatter = numpyro.sample("log_scatter", dist.Normal(-1.0, 1.0))
    with numpyro.plate("city", len(asked)):
        base = numpyro.sample("base", dist.Normal(0.0, 2.0))
        effect = numpyro.sample("effect", dist.Normal(mean, jnp.exp(log_scatter)))
        for group, logits in enumerate((base, base + effect)):
            smoking = dist.Binomial(asked[:, group], logits=logits)
            numpyro.sample(f"smokers_{group}", smoking, obs=smokers[:, group])


# %% [markdown]
# ## One call
#
# `vi.fit_posterior` has no options, and prints whether to trust what it found. The effects are
# drawn around their mean with a scatter that may be very small. There, such a density is a funnel
# that no Gaussian covers well, and the fit would ask for the usual remedy: draw standardised
# effects, and shift and scale them, which takes one line. (The model's first argument, `params`, is
# for guides with parameters, which come next; here it is `None`.)

# %%
noncentred = handlers.reparam(model, config={"effect": LocScaleReparam(0)})
fit = vi.fit_posterior(jax.random.key(0), noncentred, None, smokers, asked)
fit

# %% [markdown]
# If that is all you need, `fit.sample(key, 1000)` gives draws by site. The rest of this notebook is
# for those who want to know what a variational fit does, or have a model that needs more: discrete
# latents, an encoder, another objective.
#
# ## A first guide
#
# All latents are continuous, so the gradient can go through the draws, which is the default. The
# guide below takes all of them to be independent. Its parameters are a plain dictionary.

# %%


def independent(params, smokers, asked):
    for name in ("mean", "log_scatter"):
        numpyro.sample(name, dist.Normal(params[name][0], jnp.exp(params[name][1])))
    with numpyro.plate("city", len(asked)):
        for name in ("base", "effect"):
            numpyro.sample(name, dist.Normal(params[name][:, 0], jnp.exp(params[name][:, 1])))


start = {
    "mean": jnp.array([0.0, -1.0]),
    "log_scatter": jnp.array([-1.0, -1.0]),
    "base": jnp.tile(jnp.array([0.0, -1.0]), (8, 1)),
    "effect": jnp.tile(jnp.array([0.0, -1.0]), (8, 1)),
}


@vi.expectation
def elbo(params, smokers, asked):
    trace, log_q = vi.simulate(independent, params, smokers, asked)
    return vi.log_density(model, trace, params, smokers, asked) - log_q


optimiser = optax.adam(optax.cosine_decay_schedule(0.05, STEPS))
first = vi.fit(jax.random.key(0), elbo, start, optimiser, STEPS, data=(smokers, asked), num_draws=4)
first

# %% [markdown]
# ## A better one
#
# Are the latents independent? The effects hang on their mean: if it is higher, so are they. In the
# second guide, each effect is drawn around a line in the mean, and is uncertain by itself. That is
# a sequence of sites like any other, and the objective, `vi.elbo`, is what we have just written.

# %%


def structured(params, smokers, asked):
    mean = numpyro.sample("mean", dist.Normal(params["mean"][0], jnp.exp(params["mean"][1])))
    loc = params["log_scatter"][0] + params["log_scatter"][2] * (mean - params["mean"][0])
    log_scatter = numpyro.sample("log_scatter", dist.Normal(loc, jnp.exp(params["log_scatter"][1])))
    shift = mean - params["mean"][0], log_scatter - params["log_scatter"][0]
    with numpyro.plate("city", len(asked)):
        p = params["effect"]
        loc = p[:, 0] + p[:, 2] * shift[0] + p[:, 3] * shift[1]
        effect = numpyro.sample("effect", dist.Normal(loc, jnp.exp(p[:, 1] + p[:, 4] * shift[1])))
        p = params["base"]
        loc = p[:, 0] + p[:, 2] * (effect - params["effect"][:, 0])
        numpyro.sample("base", dist.Normal(loc, jnp.exp(p[:, 1])))


wider = {
    name: jnp.concatenate([value, jnp.zeros(value.shape[:-1] + (more,))], axis=-1)
    for (name, value), more in zip(start.items(), (0, 1, 1, 3), strict=True)
}
bound = vi.elbo(model, structured)
second = vi.fit(
    jax.random.key(0), bound, wider, optimiser, STEPS, data=(smokers, asked), num_draws=4
)
second

# %% [markdown]
# The bound has risen, so the second guide is closer to the posterior. How much is left? With more
# and more particles, the importance-weighted bound approaches the log evidence from below:

# %%


def bounds(guide, params, num_particles):
    objective = vi.iwelbo(model, guide, num_particles)
    keys = jax.random.split(jax.random.key(1), 500 if FAST else 2000)
    values = jax.jit(jax.vmap(lambda key: objective.estimate(key, params, smokers, asked)))(keys)
    return float(values.mean()), float(values.std() / jnp.sqrt(len(keys)))


particles = [1, 4, 16, 64]
figure, axes = plt.subplots(figsize=(5, 3))
for guide, result, colour in ((independent, first, ORANGE), (structured, second, BLUE)):
    values, errors = np.array([bounds(guide, result.params, k) for k in particles]).T
    axes.errorbar(
        particles, values, 2 * errors, color=colour, marker="o", markersize=4, label=guide.__name__
    )
axes.set(xscale="log", xticks=particles, xlabel="particles", ylabel="bound on the log evidence")
axes.set_xticklabels(particles)
axes.minorticks_off()
axes.legend(title="guide")
# %% [markdown]
# ## Against NUTS
#
# This model is small enough to be sampled, so we can look at what the guides get wrong.
# `vi.sample` draws from them.

# %%
key, data = jax.random.key(2), (smokers, asked)
draws = vi.sample(key, structured, second.params, *data, num_samples=NUM_DRAWS)
default = fit.sample(key, NUM_DRAWS)
simple = vi.sample(key, independent, first.params, *data, num_samples=NUM_DRAWS)
mcmc = MCMC(
    NUTS(model, target_accept_prob=0.95),
    num_warmup=NUM_DRAWS // 2,
    num_samples=NUM_DRAWS,
    progress_bar=False,
)
mcmc.run(jax.random.key(3), None, smokers, asked)
exact = mcmc.get_samples()

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), width_ratios=(3, 2))
rows = np.arange(len(cities))[::-1]
raw = jnp.log(smokers[:, 1] * others[:, 0] / (smokers[:, 0] * others[:, 1]))
error = jnp.sqrt((1 / smokers + 1 / others).sum(axis=1))
axes[0].errorbar(
    raw, rows + 0.22, xerr=1.96 * error, fmt="o", color=GREY, markersize=4, label="city on its own"
)
for offset, values, colour, label in (
    (0.0, draws["effect"], BLUE, "hierarchical, VI"),
    (-0.22, exact["effect"], ORANGE, "hierarchical, NUTS"),
):
    low, middle, high = np.quantile(values, [0.025, 0.5, 0.975], axis=0)
    bars = np.array([middle - low, high - middle])
    axes[0].errorbar(
        middle, rows + offset, xerr=bars, fmt="o", color=colour, markersize=4, label=label
    )
axes[0].axvline(0, color="black", linewidth=0.5)
axes[0].set(yticks=rows, ylim=(-0.6, 9.2), title="Effect of smoking by city")
axes[0].set_xlabel("log odds ratio, 95 % interval")
axes[0].set_yticklabels(cities)
axes[0].legend(fontsize=8)
for values, colour, label in (
    (simple, GREY, "independent guide"),
    (draws, BLUE, "structured guide"),
    (exact, ORANGE, "NUTS"),
):
    axes[1].hist(
        values["mean"],
        40,
        range=(0.4, 1.2),
        density=True,
        histtype="step",
        color=colour,
        label=label,
    )
axes[1].set(xlabel="mean effect", yticks=[], title="Mean over cities")
axes[1].legend(fontsize=8)
figure.tight_layout()

# %% [markdown]
# Smoking multiplies the odds by about two in every city. The cities with little data are drawn
# towards the others. And the structured guide is as wide as NUTS where the independent one is too
# narrow, which is the usual fault of independent guides.

# %%
for name in ("mean", "log_scatter"):
    compared = {"one call": default, "independent": simple, "structured": draws, "NUTS": exact}
    texts = [f"{k} {v[name].mean():.2f} ± {v[name].std():.2f}" for k, v in compared.items()]
    print(f"{name:<12}", "   ".join(texts))

# %% [markdown]
# ## Labels
#
# `to_datatree` puts draws, data and the history of the fit into an xarray `DataTree` in ArviZ's
# schema.

# %%
tree = second.to_datatree(
    draws,
    observed_data={"smokers": smokers},
    constant_data={"asked": asked},
    dims={
        "base": ["city"],
        "effect": ["city"],
        "smokers": ["city", "group"],
        "asked": ["city", "group"],
    },
    coords={"city": cities, "group": ["without cancer", "with cancer"]},
)
np.exp(tree["posterior/effect"]).quantile(
    [0.025, 0.5, 0.975], ["chain", "draw"]
).to_pandas().T.round(2)
