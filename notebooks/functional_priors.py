# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Priors of networks by their functions
#
# Nobody knows what standard deviation the weights of a network should have. What one often does
# know is how a function may look: its size, how fast it varies. A Gaussian process says so
# directly. Here the prior of the weights is trained until random networks look like draws of the
# process (Tran, Rossi, Milios and Filippone, 2022), and then NUTS samples the posterior of the
# network under it, and under the usual $N(0, 1)$ for comparison.

# %%
import os

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.handlers import seed
from numpyro.infer import MCMC, NUTS

from bayesjx import bnn, gp, kernels, likelihoods

FAST = os.environ.get("BAYESJX_FAST") == "1"  # small sizes, for continuous integration
STEPS, WARMUP, DRAWS, DEPTH = (20, 20, 20, 4) if FAST else (200, 400, 400, 7)
SAMPLES = 64 if FAST else 256  # functions in a step
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})
BLUE, ORANGE, GREY = "#2b6cb0", "#dd6b20", "#a0aec0"
keys = jax.random.split(jax.random.key(0), 8)

# %% [markdown]
# ## What the weights say of the function
#
# A network of one hidden layer with $N(0, 1)$ weights, beside the process that we mean: functions
# of size one which vary over about one unit of $x$.

# %%
network = eqx.nn.MLP(1, "scalar", 50, 1, activation=jnp.tanh, key=keys[0])
process = gp.GP(kernels.RBF(lengthscale=0.9))
grid = jnp.linspace(-4, 4, 101)[:, None]


def functions(key, prior, num=12):
    """Values of random networks on the grid, by the sites of a NumPyro program."""

    def one(key):
        return jax.vmap(seed(bnn.random_network, key)("net", network, prior))(grid)

    return jax.vmap(one)(jax.random.split(key, num))


def panel(ax, curves, title, colour):
    ax.plot(grid[:, 0], np.asarray(curves).T, color=colour, lw=0.9, alpha=0.8)
    ax.set_title(title, loc="left")


fig, axes = plt.subplots(1, 2, figsize=(8, 2.8), sharex=True, layout="constrained")
panel(axes[0], functions(keys[1], 1.0), "networks with N(0, 1) weights", ORANGE)
panel(axes[1], process.latent(grid).sample(keys[1], (12,)), "the process", GREY)
plt.show()

# %% [markdown]
# ## Three families, matched
#
# `normal_prior` has a standard deviation for each leaf to be learned, `hierarchical_prior` a random
# one, and `flow_prior` a normalising flow on the weights of each layer. `match_prior` draws
# networks and functions of the process at random inputs, and descends a discrepancy between them.
# Which inputs matter is the measurement set: rows of the data and points of the box around them.
# The Wasserstein distance by a critic is the method of the paper; the sliced one needs no critic.

# %%
inputs = jnp.linspace(-3, 3, 40)[:, None]
starts = {
    "normal": bnn.normal_prior(network),
    "hierarchical": bnn.hierarchical_prior(network),
    "flow": bnn.flow_prior(keys[2], network),
}
if FAST:
    del starts["flow"]
matched = {}
for name, start in starts.items():
    matched[name] = bnn.match_prior(
        keys[3],
        start,
        process,
        bnn.MeasurementSet(inputs, 40),
        discrepancy=bnn.SlicedWasserstein(),
        max_steps=STEPS,
        num_samples=SAMPLES,
    )
    m = matched[name]
    print(f"{name}: distance {m.before:.2f} before, {m.after:.2f} after, floor {m.floor:.2f}")

# %% [markdown]
# The distances are of functions that were not used in training, and the floor is that of the
# process from itself at this number of draws. What is above the floor, the family cannot say.

# %%
fig, axes = plt.subplots(1, 4, figsize=(10, 2.6), sharey=True, layout="constrained")
for ax, (name, m) in zip(axes, matched.items(), strict=False):
    panel(ax, functions(keys[4], m.prior), name, BLUE)
panel(axes[3], process.latent(grid).sample(keys[4], (12,)), "the process", GREY)
axes[0].set_ylim(-4, 4)
plt.show()

# %% [markdown]
# ## The critic
#
# The same with the critic, which is trained anew at each step. The estimate in the trace comes from
# functions that this critic has not seen: if it rises, the critic learns too slowly.

# %%
by_critic = bnn.match_prior(
    keys[5],
    starts["normal"],
    process,
    bnn.MeasurementSet(inputs, 40),
    discrepancy=bnn.Wasserstein(50, 30),
    max_steps=STEPS // 2,
    num_samples=SAMPLES,
)
print(f"by the critic: {by_critic.before:.2f} before, {by_critic.after:.2f} after")
fig, ax = plt.subplots(figsize=(6, 2.6), layout="constrained")
ax.plot(by_critic.discrepancy, color=BLUE, lw=1)
ax.set(xlabel="step", ylabel="Wasserstein distance")
plt.show()

# %% [markdown]
# ## A posterior under each prior
#
# The matched prior goes into a NumPyro program as any other. Nothing is observed between -1 and 1.

# %%
rng = np.random.default_rng(1)
truth = lambda x: np.sin(2 * x) + 0.3 * x  # noqa: E731
x = np.concatenate([rng.uniform(-3, -1, 20), rng.uniform(1, 3, 20)])[:, None]
y = truth(x[:, 0]) + 0.1 * rng.normal(size=40)
noise = likelihoods.Gaussian(0.01)


def model(prior, x, y):
    net = bnn.random_network("net", network, prior)
    numpyro.sample("y", dist.Normal(jax.vmap(net)(x), 0.1), obs=y)


posteriors = {}
for name, prior in (("N(0, 1)", 1.0), ("matched", matched["normal"].prior)):
    nuts = NUTS(lambda x, y, prior=prior: model(prior, x, y), max_tree_depth=DEPTH)
    mcmc = MCMC(nuts, num_warmup=WARMUP, num_samples=DRAWS, progress_bar=False)
    mcmc.run(keys[6], jnp.asarray(x), jnp.asarray(y))
    posteriors[name] = bnn.from_sites("net", mcmc.get_samples(), network, noise)

# %%
fig, axes = plt.subplots(1, 2, figsize=(9, 3), sharey=True, layout="constrained")
new = jnp.linspace(-3, 3, 60)[:, None]
for ax, (name, posterior) in zip(axes, posteriors.items(), strict=True):
    mean, variance = posterior.moments(grid)
    sd = np.sqrt(variance)
    ax.fill_between(grid[:, 0], mean - 2 * sd, mean + 2 * sd, color=BLUE, alpha=0.2, lw=0)
    ax.plot(grid[:, 0], mean, color=BLUE)
    ax.plot(grid[:, 0], truth(grid[:, 0]), color=GREY, ls="--", lw=1)
    ax.plot(x[:, 0], y, ".", color="black", ms=4)
    score = float(np.mean(posterior.predict(new).log_prob(truth(new[:, 0]))))
    ax.set_title(f"{name}: log score {score:.2f}", loc="left")
axes[0].set_ylim(-3, 3)
plt.show()

# %% [markdown]
# ## Processes with hyper-priors
#
# The target may be any function that draws: here processes whose lengthscale is random too. A
# hierarchical prior can follow it, since its scales are random as well.

# %%


def any_lengthscale(key, x):
    lengthscale = jnp.exp(0.5 * jax.random.normal(key))
    return gp.GP(kernels.RBF(lengthscale=lengthscale)).latent(x)


random_scales = bnn.match_prior(
    keys[7],
    starts["hierarchical"],
    any_lengthscale,
    bnn.MeasurementSet(inputs, 40),
    discrepancy=bnn.MMD(),
    max_steps=STEPS,
    num_samples=SAMPLES,
)
r = random_scales
print(f"random lengthscales: {r.before:.2f} before, {r.after:.2f} after, floor {r.floor:.2f}")
