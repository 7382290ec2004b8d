# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Discrete latents in NumPyro's SVI
#
# Two models with discrete latents, fitted by `numpyro.infer.SVI` with `vi.SVILoss` in place of
# NumPyro's losses. The first is a mixture with its latents in a plate, guided automatically. The
# second is a state-space model with its latents in a `scan`, guided automatically and by hand.
# Both are small enough to sum the discrete latents out by hand, so NUTS on what remains can tell
# us how good the answers are.

# %%
import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from jax.scipy.special import logsumexp
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.infer import init_to_value, MCMC, NUTS, SVI
from numpyro.infer.autoguide import AutoGuideList, AutoMultivariateNormal
from sklearn.datasets import load_wine
from statsmodels.datasets import nile

from bayesjx import vi

FAST = os.environ.get("BAYESJX_FAST") == "1"  # small sizes, for continuous integration
STEPS, SAMPLES = (1000, 200) if FAST else (4000, 1000)
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})
BLUE, ORANGE, GREEN, GREY = "#2b6cb0", "#dd6b20", "#2f855a", "#a0aec0"
COLOURS = (BLUE, ORANGE, GREEN)


def nuts(model, start, *args):
    """Draws of NUTS, started at given values."""
    kernel = NUTS(model, init_strategy=init_to_value(values=start))
    mcmc = MCMC(kernel, num_warmup=SAMPLES // 2, num_samples=SAMPLES, progress_bar=False)
    mcmc.run(jax.random.key(10), *args)
    return mcmc.get_samples()


# %% [markdown]
# ## A mixture, in a plate
#
# 178 Italian wines, of which we look at two measurements: flavanoids and the intensity of the
# colour. They come from three cultivars, which the model is not told.

# %%
wine = load_wine()
columns = [wine.feature_names.index(name) for name in ("flavanoids", "color_intensity")]
wines = np.log(wine.data[:, columns])
x = jnp.array((wines - wines.mean(axis=0)) / wines.std(axis=0))
CENTRES = jnp.array([[0.8, 0.4], [0.0, -1.0], [-1.3, 0.9]])  # where we expect them; fixes labels


def components():
    weights = numpyro.sample("weights", dist.Dirichlet(5.0 * jnp.ones(3)))
    with numpyro.plate("kind", 3):
        centre = numpyro.sample("centre", dist.Normal(CENTRES, 0.5).to_event(1))
        spread = numpyro.sample("spread", dist.LogNormal(-0.7, 0.5).expand([2]).to_event(1))
    return weights, centre, spread


def mixture(x):
    weights, centre, spread = components()
    with numpyro.plate("wine", len(x)):
        kind = numpyro.sample("kind_of", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(centre[kind], spread[kind]).to_event(1), obs=x)


# %% [markdown]
# NumPyro's guides take care of the continuous latents, if the discrete one is blocked from them;
# `vi.AutoDiscrete` takes care of the discrete one, here by summing over the three kinds of each
# wine. Mixtures have many local optima under guides which hold the wines to be independent of the
# centres, so we start where the prior expects the kinds.

# %%
START = {"weights": jnp.full(3, 1 / 3), "centre": CENTRES, "spread": jnp.full((3, 2), 0.5)}
continuous = handlers.block(handlers.seed(mixture, jax.random.key(0)), hide=["kind_of"])
auto = AutoGuideList(continuous)
auto.append(AutoMultivariateNormal(continuous, init_loc_fn=init_to_value(values=START)))
auto.append(vi.AutoDiscrete(mixture, strategy=vi.enum))

svi = SVI(mixture, auto, optax.adam(optax.cosine_decay_schedule(0.02, STEPS)), vi.SVILoss())
nearest = dist.Normal(CENTRES, 0.5).to_event(1).log_prob(x[:, None])
fitted = svi.run(
    jax.random.key(1), STEPS, x, progress_bar=False, init_params={"kind_of_auto_logits": nearest}
)
draws = auto.sample_posterior(jax.random.key(2), fitted.params, x, sample_shape=(SAMPLES,))
print(f"bound {-fitted.losses[-200:].mean():.1f}")

# %% [markdown]
# For NUTS, the kinds have to be summed out, which for a mixture is easy:

# %%


def summed_mixture(x):
    weights, centre, spread = components()
    logits = jnp.log(weights) + dist.Normal(centre, spread).to_event(1).log_prob(x[:, None])
    numpyro.factor("x", logsumexp(logits, axis=1).sum())


exact = nuts(summed_mixture, START, x)

# %%
shares = np.stack([(draws["kind_of"] == k).mean(axis=0) for k in range(3)], axis=1)
found = shares.argmax(axis=1)
figure, axes = plt.subplots(1, 2, figsize=(10.5, 4.2), width_ratios=(1.2, 1))
markers = ("o", "s", "^")
for k in range(3):
    rows = wine.target == k
    colours = np.array([COLOURS[i] for i in found[rows]])
    axes[0].scatter(*x[rows].T, c=colours, marker=markers[k], s=22, alpha=0.75)
    axes[0].scatter([], [], color=GREY, marker=markers[k], label=f"cultivar {k}")
    centre, spread = draws["centre"][:, k].mean(axis=0), draws["spread"][:, k].mean(axis=0)
    turn = np.linspace(0, 2 * np.pi, 100)
    for size in (1, 2):
        axes[0].plot(
            centre[0] + size * spread[0] * np.cos(turn),
            centre[1] + size * spread[1] * np.sin(turn),
            color=COLOURS[k],
            linewidth=1,
        )
axes[0].set(
    xlabel="log flavanoids, standardised",
    ylabel="log colour intensity, standardised",
    title=f"Kinds found (colours): {(found == wine.target).mean():.0%} agree",
)
axes[0].legend(fontsize=8)
names = [f"{name} {k}{axis}" for name in ("centre", "spread") for k in range(3) for axis in "xy"]
names += [f"weight {k}" for k in range(3)]
places = np.arange(len(names))[::-1]
for offset, values, colour, label in ((0.16, draws, BLUE, "SVI"), (-0.16, exact, ORANGE, "NUTS")):
    table = np.concatenate(
        [np.reshape(values[name], (SAMPLES, -1)) for name in ("centre", "spread", "weights")],
        axis=1,
    )
    low, middle, high = np.quantile(table, [0.025, 0.5, 0.975], axis=0)
    axes[1].errorbar(
        middle,
        places + offset,
        xerr=np.array([middle - low, high - middle]),
        fmt="o",
        markersize=3.5,
        color=colour,
        label=label,
    )
axes[1].set(yticks=places, title="Median and 95 % interval")
axes[1].set_yticklabels(names, fontsize=8)
axes[1].legend()
figure.tight_layout()

# %% [markdown]
# ## A state-space model, in a scan
#
# The flow of the Nile at Aswan, 1871 to 1970. Did it change level, and when? The river is in one
# of two states, and stays in it with a probability that is to be found. Nothing in the model says
# that it changes once only.

# %%
table = nile.load_pandas().data
years = np.array(table["year"])
flow = jnp.array(table["volume"] / 100.0)


def levels():
    high = numpyro.sample("high", dist.Normal(11.0, 2.0))
    drop = numpyro.sample("drop", dist.LogNormal(0.5, 0.7))
    noise = numpyro.sample("noise", dist.LogNormal(0.0, 0.5))
    stay = numpyro.sample("stay", dist.Beta(9.0, 1.0))
    return high, drop, noise, stay


def river(flow):
    high, drop, noise, stay = levels()

    def step(state, flow_t):
        state = numpyro.sample("low", dist.Bernoulli(jnp.where(state, stay, 1 - stay)))
        numpyro.sample("flow", dist.Normal(high - drop * state, noise), obs=flow_t)
        return state, None

    scan(step, jnp.array(0), flow)


# %% [markdown]
# The automatic guide gives every year a probability of its own. The years are coupled by the
# model, so they cannot be set all at once; `vi.disarm` compares two joint draws of all hundred.

# %%
continuous = handlers.block(handlers.seed(river, jax.random.key(0)), hide=["low"])
BEGIN = {"high": 11.0, "drop": 2.5, "noise": 1.3, "stay": 0.95}


def with_normal(discrete):
    """A multivariate normal for the levels, and a guide of the states."""
    guide = AutoGuideList(continuous)
    start = init_to_value(values=BEGIN)
    guide.append(AutoMultivariateNormal(continuous, prefix="river", init_loc_fn=start))
    guide.append(discrete)
    return guide


automatic = with_normal(vi.AutoDiscrete(river, strategy=vi.disarm))


def fit(guide, **start):
    optimiser = optax.adam(optax.cosine_decay_schedule(0.03, STEPS))
    svi = SVI(river, guide, optimiser, vi.SVILoss(num_particles=4))
    return svi.run(jax.random.key(3), STEPS, flow, progress_bar=False, init_params=start)


free = fit(automatic, low_auto_logits=2.0 * (9.5 - flow))

# %% [markdown]
# A guide by hand may have a `scan` of its own, and remember the state of the year before: given
# the levels, the posterior of the states is a chain, too, and this family contains it. The
# strategy wraps the distribution; `lanes=True` sets one year at a time. `AutoGuideList` wants the
# values of its parts, so the function returns them.

# %%


def path(flow):
    own = numpyro.param("own", 2.0 * (9.5 - flow))
    memory = numpyro.param("memory", jnp.full_like(flow, 0.5))

    def step(state, weights):
        logit = weights[0] + weights[1] * (2 * state - 1)
        state = numpyro.sample("low", vi.enum(dist.Bernoulli(logits=logit), lanes=True))
        return state, state

    return {"low": scan(step, jnp.array(0), (own, memory))[1]}


by_hand = with_normal(path)
chained = fit(by_hand)
for name, result in (("automatic", free), ("by hand", chained)):
    print(f"{name:<10} bound {-result.losses[-300:].mean():.2f}")

# %% [markdown]
# The reference: the states summed out by the forward recursion, NUTS for the rest, and for each of
# its draws the probabilities of the states given all flows.

# %%


def transition(stay):
    return jnp.log(jnp.array([[stay, 1 - stay], [1 - stay, stay]]))


def emission(high, drop, noise):
    return dist.Normal(high - drop * jnp.arange(2), noise).log_prob(flow[:, None])


def forward(high, drop, noise, stay):
    matrix = transition(stay)

    def step(alpha, log_p):
        alpha = logsumexp(alpha[:, None] + matrix, axis=0) + log_p
        return alpha, alpha

    return jax.lax.scan(step, jnp.array([0.0, -jnp.inf]), emission(high, drop, noise))[1]


def summed_river(flow):
    numpyro.factor("flow", logsumexp(forward(*levels())[-1]))


def smooth(high, drop, noise, stay):
    """Probability of the low state in each year, given all flows."""
    matrix = transition(stay)

    def step(beta, log_p):
        return logsumexp(matrix + beta + log_p, axis=1), beta

    beta = jax.lax.scan(step, jnp.zeros(2), emission(high, drop, noise), reverse=True)[1]
    return jax.nn.softmax(forward(high, drop, noise, stay) + beta, axis=1)[:, 1]


exact = nuts(summed_river, BEGIN, flow)
exact["low"] = jax.vmap(smooth)(exact["high"], exact["drop"], exact["noise"], exact["stay"])

# %%


def draws_of(guide, result):
    fitted = handlers.substitute(guide, data=result.params)
    return vi.sample(jax.random.key(4), fitted, flow, num_samples=SAMPLES)


columns = {
    "automatic guide": draws_of(automatic, free),
    "guide by hand": draws_of(by_hand, chained),
    "NUTS, summed out": exact,
}
colours = (BLUE, GREEN, ORANGE)

figure, axes = plt.subplots(2, 1, figsize=(8, 4.8), sharex=True, height_ratios=(3, 2))
axes[0].plot(years, flow, ".-", color=GREY, linewidth=0.7, label="flow")
for (name, values), colour in zip(columns.items(), colours, strict=True):
    low = values["low"].mean(axis=0)
    level = (values["high"][:, None] - values["drop"][:, None] * values["low"]).mean(axis=0)
    axes[0].plot(years, level, color=colour, label=f"level, {name}")
    axes[1].plot(years, low, color=colour, label=name)
axes[0].set(ylabel="10$^{10}$ m³ a year", title="The Nile at Aswan")
axes[0].legend(fontsize=8, ncols=2)
axes[1].set(ylabel="P(low state)", xlabel="year")
figure.tight_layout()

# %%
figure, axes = plt.subplots(1, 4, figsize=(10.5, 1.8), sharey=True)
for panel, name in zip(axes, ("high", "drop", "noise", "stay"), strict=True):
    for place, (values, colour) in enumerate(zip(columns.values(), colours, strict=True)):
        low, middle, high = np.quantile(values[name], [0.025, 0.5, 0.975])
        bars = [[middle - low], [high - middle]]
        panel.errorbar(middle, -place, xerr=bars, fmt="o", color=colour, markersize=5)
    panel.set(xlabel=name, ylim=(-2.5, 0.5))
axes[0].set(yticks=(0, -1, -2))
axes[0].set_yticklabels(columns)
figure.suptitle("Median and 95 % interval")
figure.tight_layout()

# %%
for name in ("high", "drop", "noise", "stay"):
    texts = [f"{label} {v[name].mean():.2f} ± {v[name].std():.2f}" for label, v in columns.items()]
    print(f"{name:<6}", "   ".join(texts))

# %% [markdown]
# The level dropped in 1899, when the first dam at Aswan was being built. Both guides find it, and
# the levels before and after. The automatic guide has to make up its mind about each year on its
# own, so it calls some wet years of the low state high, and believes that the river changes more
# often than it does. The guide with a memory has the higher bound and comes close to NUTS.
