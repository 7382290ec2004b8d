# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Gradient strategies, measured
#
# Two species of iris, one hundred flowers, and we only know how long their petals are. One
# continuous latent, the middle between the two species, and one discrete latent per flower, its
# species. That is small enough for the exact bound and its exact gradient, and large enough for
# the strategies to differ by orders of magnitude. We measure the variance, the bias and the time
# of each, look at what they do to a fit, and then at the continuous site.

# %%
import os
import time
import warnings

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from sklearn.datasets import load_iris

from bayesjx import vi

FAST = os.environ.get("BAYESJX_FAST") == "1"  # small sizes, for continuous integration
DRAWS, STEPS = (2000, 300) if FAST else (10_000, 1000)
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})
BLUE, ORANGE, GREY = "#2b6cb0", "#dd6b20", "#a0aec0"
warnings.simplefilter("ignore", vi.BiasedGradientWarning)  # we will see it in the numbers

# %% [markdown]
# ## The model and a guide for each strategy
#
# The guide draws the middle, and then the species of each flower by a logistic function of where
# its petal is from that middle. The discrete site hangs on the continuous one, so their gradients
# meet.

# %%
iris = load_iris()
petal = jnp.array(iris.data[50:, 2] - iris.data[50:, 2].mean())  # versicolor and virginica, centred
GAP, SPREAD = 0.65, 0.5  # half the distance between the species, and the spread of each


def model(params):
    middle = numpyro.sample("middle", dist.Normal(0.0, 1.0))
    with numpyro.plate("flower", len(petal)):
        species = numpyro.sample("species", dist.Bernoulli(0.5))
        loc = middle + GAP * (2 * species - 1)
        numpyro.sample("petal", dist.Normal(loc, SPREAD), obs=petal)


def make_elbo(strategy, middle_strategy=vi.reparam, structured=True):
    def guide(params):
        normal = dist.Normal(params["loc"], jnp.exp(params["log_scale"]))
        middle = numpyro.sample("middle", middle_strategy(normal))
        with numpyro.plate("flower", len(petal)):
            logits = params["bias"] + params["slope"] * (petal - middle)
            numpyro.sample("species", strategy(dist.Bernoulli(logits=logits)))

    @vi.expectation
    def elbo(params):
        trace, log_q = vi.simulate(guide, params)
        cost = vi.log_density(model, trace, params) - log_q
        return cost if structured else cost.total

    return elbo


params = {
    "loc": jnp.array(0.1),
    "log_scale": jnp.array(-2.5),
    "bias": jnp.array(0.3),
    "slope": jnp.array(1.0),
}

# %% [markdown]
# ## The exact bound
#
# Given the middle, the flowers are independent, so the sum over all $2^{100}$ assignments is a
# product; Gauss–Hermite quadrature does the rest.

# %%
nodes, weights = np.polynomial.hermite_e.hermegauss(40)
nodes, weights = jnp.array(nodes), jnp.array(weights / weights.sum())


def exact(params):
    scale = jnp.exp(params["log_scale"])
    middle = params["loc"] + scale * nodes[:, None]
    logits = params["bias"] + params["slope"] * (petal - middle)
    bound = jnp.zeros_like(nodes)
    for species in (0, 1):
        log_q = -jax.nn.softplus(-logits if species else logits)
        log_p = dist.Bernoulli(0.5).log_prob(species)
        log_p += dist.Normal(middle + GAP * (2 * species - 1), SPREAD).log_prob(petal)
        bound += (jnp.exp(log_q) * (log_p - log_q)).sum(axis=1)
    bound += dist.Normal(0.0, 1.0).log_prob(middle[:, 0])
    bound -= dist.Normal(params["loc"], scale).log_prob(middle[:, 0])
    return weights @ bound


true_gradient = jax.grad(exact)(params)
print(f"exact bound {exact(params):.3f}")

# %% [markdown]
# ## Variance, bias and time
#
# Each strategy gives many independent gradients at the same parameters. We look at the two
# parameters of the discrete site. The bias is the distance between the mean of the draws and the
# exact gradient, in standard errors of the mean: below four or so for what is unbiased. Moving-
# average baselines have a state, which is warmed up first.

# %%
STRATEGIES = {
    "reinforce": vi.reinforce,
    "reinforce, EMA": lambda d: vi.reinforce(d, baseline=vi.EMA()),
    "importance": lambda d: vi.importance(d, dist.Bernoulli(0.5)),
    "rloo(2)": lambda d: vi.rloo(d, 2),
    "rloo(4)": lambda d: vi.rloo(d, 4),
    "disarm": vi.disarm,
    "mvd": vi.mvd,
    "leg": vi.leg,
    "enum": vi.enum,
    "gumbel_softmax(1.0)": lambda d: vi.gumbel_softmax(d, 1.0),
    "gumbel_softmax(0.3)": lambda d: vi.gumbel_softmax(d, 0.3),
    "straight_through": vi.straight_through,
}


def measure(elbo, names=("bias", "slope"), has_state=False):
    """Variance and bias of the gradient in some of the parameters, and the time of a draw."""

    def flat(tree):
        return np.stack([np.asarray(tree[name], np.float64) for name in names], axis=-1)

    def gradient(key, states):
        def value(p):
            return elbo.surrogate_with_records(key, states, p)

        gradient, (_, records) = jax.grad(value, has_aux=True)(params)
        return gradient, records

    keys, states = jax.random.split(jax.random.key(0), DRAWS), None
    if has_state:
        _, records = jax.jit(jax.vmap(lambda key: gradient(key, None)))(keys[:500])
        states = jax.tree.map(lambda record: record.mean(axis=0), records)
    run = jax.jit(jax.vmap(lambda key: gradient(key, states)[0]))
    draws = flat(jax.block_until_ready(run(keys)))
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready(run(keys))
        seconds.append(time.perf_counter() - start)
    error = draws.std(axis=0) / np.sqrt(DRAWS)
    bias = np.abs((draws.mean(axis=0) - flat(true_gradient)) / error).max()
    return {
        "variance": draws.var(axis=0).sum(),
        "bias": bias,
        "time": np.median(seconds) / DRAWS * 1e6,
    }


elbos = {"reinforce, no structure": make_elbo(vi.reinforce, structured=False)}
elbos |= {name: make_elbo(strategy) for name, strategy in STRATEGIES.items()}
rows = {name: measure(elbo, has_state="EMA" in name) for name, elbo in elbos.items()}

print(f"{'strategy':<24}{'variance':>10}{'bias (z)':>10}{'µs/draw':>9}{'var × µs':>11}")
for name, row in rows.items():
    product = row["variance"] * row["time"]
    print(
        f"{name:<24}{row['variance']:>10.4g}{row['bias']:>10.1f}{row['time']:>9.1f}{product:>11.4g}"
    )

# %%
biased = {name for name in rows if name.startswith(("gumbel", "straight"))}
figure, axes = plt.subplots(1, 2, figsize=(10.5, 4.2), width_ratios=(1, 1.25))
places = np.arange(len(rows))[::-1]
colours = [ORANGE if name in biased else BLUE for name in rows]
colours[0] = GREY
axes[0].barh(places, [row["variance"] for row in rows.values()], color=colours, height=0.7)
axes[0].set(
    xscale="log", yticks=places, xlabel="variance of one draw, bias and slope", title="Variance"
)
axes[0].set_yticklabels(rows)
for (name, row), colour in list(zip(rows.items(), colours, strict=True))[1:]:
    axes[1].scatter(row["time"], row["variance"], color=colour, s=30)
    axes[1].annotate(
        name, (row["time"], row["variance"]), (5, 3), textcoords="offset points", fontsize=8
    )
axes[1].set(xscale="log", yscale="log", xlabel="µs per draw", title="Variance against time")
low, high = axes[1].get_xlim()
axes[1].set_xlim(low, high * 2.5)
handles = [plt.Rectangle((0, 0), 1, 1, color=c) for c in (BLUE, GREY, ORANGE)]
axes[0].legend(handles, ["unbiased", "unbiased, no structure", "biased"], fontsize=8)
figure.tight_layout()

# %% [markdown]
# Keeping the cost structured is worth more than any baseline: each flower's score meets the cost
# of that flower only. Among the unbiased, what looks at more than one value of each flower wins.
# `mvd`, `leg` and `enum` agree to the last digit, since for a Bernoulli whose cost is local the
# difference of two costs is all there is to know; what is left is the noise of the continuous
# site. And the biased ones are not even less noisy.
#
# ## What it does to a fit
#
# The same optimiser, the same steps, one draw per step. Since we have the exact bound, we can
# follow the true progress. The best value that this guide can reach is the dashed line.

# %%
RACE = {
    "reinforce, no structure": "#e2a9a9",
    "reinforce": GREY,
    "reinforce, EMA": "#4a5568",
    "rloo(2)": "#2f855a",
    "disarm": "#6b46c1",
    "enum": BLUE,
    "straight_through": ORANGE,
}
optimiser = optax.adam(0.03)


def race(elbo):
    """The exact bound along a fit."""
    algorithm = vi.optimise(elbo, params, optimiser, data=())

    def step(state, key):
        state, _ = algorithm.step(key, state)
        return state, exact(state.params)

    keys = jax.random.split(jax.random.key(1), STEPS)
    return jax.jit(lambda state: jax.lax.scan(step, state, keys)[1])(algorithm.init())


@jax.jit
def best_bound():
    """By climbing the exact bound."""

    def step(carry, _):
        at, state = carry
        update, state = optimiser.update(jax.grad(lambda p: -exact(p))(at), state)
        return (optax.apply_updates(at, update), state), None

    return exact(jax.lax.scan(step, (params, optimiser.init(params)), length=3000)[0][0])


best = float(best_bound())
figure, axes = plt.subplots(figsize=(7.5, 3.8))
for name, colour in RACE.items():
    gap = best - np.asarray(race(elbos[name]))
    axes.plot(np.maximum(gap, 1e-4), color=colour, label=name, linewidth=1.2)
axes.set(yscale="log", xlabel="step", ylabel="nats below the best", title="Distance to the optimum")
axes.legend(ncols=2, fontsize=9)
figure.tight_layout()

# %% [markdown]
# Without structure, the score function gets nowhere at this learning rate. The others follow each
# other closely at first, where the way is plain, and part where the noise decides how near the
# optimum a fit settles. The straight-through gradient goes down as fast as they do, and then stops
# where its bias wants it to.
#
# ## The continuous site
#
# With the species enumerated, we compare what the site of the middle can do.

# %%
print(f"{'strategy':<12}{'variance':>10}{'bias (z)':>10}{'µs/draw':>9}")
for strategy in (vi.reparam, vi.mvd, vi.rloo, vi.reinforce):
    row = measure(make_elbo(vi.enum, strategy), ("loc", "log_scale"))
    print(f"{strategy.__name__:<12}{row['variance']:>10.4g}{row['bias']:>10.1f}{row['time']:>9.1f}")

# %% [markdown]
# The bound is smooth in the middle, and `reparam` uses the slope of the cost. That is why it is
# the default. But it needs a slope. What is the probability that a draw exceeds a threshold, and
# how does it change with the location? The step function is flat where it does not jump, so the
# pathwise gradient is zero, and nothing says so.

# %%
print("exact derivative", f"{float(jnp.exp(dist.Normal(0.0, 1.0).log_prob(0.5))):.4f}")
for strategy in (vi.reparam, vi.reinforce, vi.rloo, vi.mvd):

    @vi.expectation
    def exceeds(loc, strategy=strategy):
        trace, _ = vi.simulate(lambda: numpyro.sample("z", strategy(dist.Normal(loc, 1.0))))
        return jnp.where(trace["z"] > 0.5, 1.0, 0.0)

    keys = jax.random.split(jax.random.key(2), DRAWS)
    draws = jax.jit(jax.vmap(lambda key: jax.grad(exceeds.surrogate, argnums=1)(key, 0.0)))(keys)
    error = draws.std() / np.sqrt(DRAWS)
    print(f"{strategy.__name__:<16} {draws.mean():.4f} ± {error:.4f}")
