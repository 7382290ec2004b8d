# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Sparse recovery
#
# Few of many unknowns are not zero, and there are fewer measurements than unknowns. How many
# measurements does each method need? Then a field whose support is a product, from a third of its
# cells; what spike and slab says about columns that are nearly the same; and horseshoes and
# marginal likelihoods inside NumPyro models, on real data.

# %%
import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS
from sklearn.datasets import load_diabetes

from bayesjx import sbl

jax.config.update("jax_enable_x64", True)
FAST = os.environ.get("BAYESJX_FAST") == "1"  # small sizes, for continuous integration
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})
BLUE, ORANGE, GREEN, GREY = "#2b6cb0", "#dd6b20", "#2f855a", "#a0aec0"

# %% [markdown]
# ## Support recovery
#
# 80 unknowns, 6 of them not zero, normal designs, noise of 1 % of a typical measurement. A method
# succeeds if the six largest of its weights are the right ones; matching pursuit is told how many
# there are. Each is a pure function, so that all problems of a size are one program, by `jax.vmap`.

# %%
UNKNOWNS, NONZERO, NOISE = 80, 6, 0.02
PROBLEMS = 10 if FAST else 100
SIZES = (12, 20) if FAST else (10, 13, 16, 19, 22, 26, 30, 36)
METHODS = {
    "sbl": lambda x, y: sbl.sbl(x, y, noise_var=NOISE**2).mean,
    "sbl, noise learned": lambda x, y: sbl.sbl(x, y).mean,
    "lasso": lambda x, y: sbl.fista(x, y, sbl.L1(0.02 * jnp.abs(x.T @ y).max())).weights,
    "matching pursuit": lambda x, y: sbl.orthogonal_matching_pursuit(x, y, num_nonzero=6).mean,
}
rng = np.random.default_rng(0)
truth = np.zeros((PROBLEMS, UNKNOWNS))
for row in truth:
    values = rng.choice([-1, 1], NONZERO) * rng.uniform(0.5, 1.5, NONZERO)
    row[rng.choice(UNKNOWNS, NONZERO, replace=False)] = values

found: dict[str, list] = {name: [] for name in METHODS}
for size in SIZES:
    designs = rng.normal(size=(PROBLEMS, size, UNKNOWNS)) / np.sqrt(size)
    y = np.einsum("bnm,bm->bn", designs, truth) + NOISE * rng.normal(size=(PROBLEMS, size))
    for name, method in METHODS.items():
        weights = jax.jit(jax.vmap(method))(designs, y)
        largest = np.argsort(-np.abs(weights), axis=1)[:, :NONZERO]
        right = np.all(np.take_along_axis(truth, largest, axis=1) != 0, axis=1)
        found[name].append(right.mean())

figure, axes = plt.subplots(figsize=(6, 3.4))
for (name, share), colour in zip(found.items(), (BLUE, GREY, ORANGE, GREEN), strict=True):
    axes.plot(SIZES, share, ".-", color=colour, label=name)
axes.set(xlabel=f"measurements of {UNKNOWNS} unknowns", ylabel="support found", ylim=(0, 1.02))
axes.legend()
figure.tight_layout()

# %% [markdown]
# ## A field whose support is a product
#
# Rows and columns of a grid are in use or not, and measurements are a Kronecker product of two
# designs. `kron_sbl` learns one variance for each row and each column; classic sparse Bayesian
# learning has one for each cell, and a matrix of all measurements times all cells.

# %%
shape, measured_shape = ((12, 10), (8, 7)) if FAST else ((40, 30), (24, 17))
used = (2, 2) if FAST else (5, 4)
rows, columns = (rng.choice(n, k, replace=False) for n, k in zip(shape, used, strict=True))
field = np.zeros(shape)
field[np.ix_(rows, columns)] = rng.normal(size=used) + 1.5
factors = [rng.normal(size=(n, m)) for n, m in zip(measured_shape, shape, strict=True)]
clean = factors[0] @ field @ factors[1].T
measured = clean + 0.1 * clean.std() * rng.normal(size=measured_shape)
noise_var = (0.1 * clean.std()) ** 2

by_product = sbl.kron_sbl(factors, measured)
by_cell = sbl.sbl(np.kron(*factors), measured.reshape(-1), noise_var=noise_var)
guesses = {
    "truth": field,
    "kron_sbl": np.asarray(by_product.mean),
    "sbl": np.asarray(by_cell.mean).reshape(shape),
}
figure, panels = plt.subplots(1, 3, figsize=(9, 3.4))
for panel, (name, guess) in zip(panels, guesses.items(), strict=True):
    panel.imshow(guess, cmap="RdBu_r", vmin=-3, vmax=3, aspect="auto")
    panel.set(title=name, xticks=[], yticks=[])
    error = np.sum((guess - field) ** 2) / np.sum(field**2)
    print(f"{name}: normalised square error {error:.1e}")
figure.tight_layout()

# %% [markdown]
# ## Columns that are nearly the same
#
# Two of eight columns have a correlation of 0.99, and one of them matters. The lasso and sparse
# Bayesian learning choose one, or share the weight; spike and slab says that data do not tell. With
# up to 15 columns that is a sum over all sets of them; the Gibbs sampler, which serves any number,
# exchanges columns for each other and gives the same.

# %%
design = rng.normal(size=(50, 8))
design[:, 1] = design[:, 0] + 0.14 * rng.normal(size=50)
response = design[:, 0] - 0.7 * design[:, 4] + 0.5 * rng.normal(size=50)
options = {"noise_var": dist.InverseGamma(2.0, 0.3), "slab_var": 2.0, "prior_prob": 0.25}
exact = sbl.spike_and_slab(design, response, **options)
gibbs = sbl.spike_and_slab(
    design,
    response,
    **options,
    method="gibbs",
    key=jax.random.key(0),
    num_samples=100 if FAST else 2000,
)
lasso = sbl.fista(design, response, sbl.L1(5.0)).weights
print("P(not zero), exact:", np.round(exact.inclusion_prob, 3))
print("P(not zero), Gibbs:", np.round(gibbs.inclusion_prob, 3))
print(f"R-hat of Gibbs up to {gibbs.rhat.max():.3f}")
print("lasso:             ", np.round(lasso, 3))
print(f"log evidence {exact.log_evidence:.2f}, noise variance {exact.noise_var:.3f}")

# %% [markdown]
# ## A horseshoe in a model
#
# Diabetes of 442 patients: ten covariates and twelve columns of noise beside them. The regularised
# horseshoe is a call inside the model; it is told to expect five columns that matter. `shrinkage`
# turns its draws into shrinkage factors, 1 where a weight is held at zero.

# %%
table = load_diabetes()
covariates = (table.data - table.data.mean(0)) / table.data.std(0)
progression = (table.target - table.target.mean()) / table.target.std()
count = 100 if FAST else len(progression)
noise_columns = np.random.default_rng(1).normal(size=(len(progression), 12))
columns = np.concatenate([covariates, noise_columns], axis=1)[:count]
outcome = progression[:count]


def regression(x, y):
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    w = sbl.regularized_horseshoe(
        "w", x.shape[1], num_nonzero=5, num_data=len(x), noise_scale=noise
    )
    numpyro.sample("y", dist.Normal(x @ w, noise), obs=y)


def sample(model, key, *args, accept=0.8):
    kernel = NUTS(model, target_accept_prob=accept, max_tree_depth=4 if FAST else 10)
    warmup, num = (30, 30) if FAST else (500, 1000)
    mcmc = MCMC(kernel, num_warmup=warmup, num_samples=num, progress_bar=False)
    mcmc.run(key, *args)
    return mcmc.get_samples()


draws = sample(regression, jax.random.key(2), columns, outcome, accept=0.95)
shrunk = sbl.shrinkage(draws, num_data=count, noise_scale=draws["noise"])
low, middle, high = np.quantile(draws["w"], [0.05, 0.5, 0.95], axis=0)
names = [*table.feature_names, *(f"noise {i}" for i in range(12))]

figure, panels = plt.subplots(1, 2, figsize=(9, 4.2), sharey=True, width_ratios=(2, 1))
at = np.arange(len(names))
panels[0].hlines(at, low, high, color=BLUE, linewidth=2)
panels[0].plot(middle, at, "o", color=BLUE, markersize=4)
panels[0].axvline(0, color=GREY, linewidth=0.8)
panels[0].set(yticks=at, yticklabels=names, xlabel="weight, 90 % interval")
panels[1].barh(at, shrunk.kappa.mean(axis=0), color=ORANGE)
panels[1].set(xlabel="shrinkage factor", xlim=(0, 1))
panels[0].invert_yaxis()
figure.tight_layout()
print(f"effective number of weights: {shrunk.num_nonzero.mean():.1f} of {len(names)}")

# %% [markdown]
# ## Weights integrated out
#
# Given their variances the weights are normal, so that NUTS need not see them: `SBLMarginal` is the
# distribution of the outcome with the weights integrated out. Two groups of columns, a variance
# each; their posterior says that the second group is noise. The weights of a draw follow exactly.


# %%
groups = np.repeat([0, 1], [10, 12])


def grouped(x, y):
    log_var = numpyro.sample("log_var", dist.Normal(-3.0, 3.0).expand([2]).to_event(1))
    log_noise = numpyro.sample("log_noise", dist.Normal(0.0, 1.0))
    numpyro.sample("y", sbl.SBLMarginal(x, log_var[groups], log_noise), obs=y)


variances = sample(grouped, jax.random.key(3), columns, outcome)
for group, title in enumerate(("covariates", "noise")):
    lower, upper = np.exp(np.quantile(variances["log_var"][:, group] / 2, [0.05, 0.95]))
    print(f"{title}: standard deviation of weights {lower:.4f} to {upper:.4f}")


def given(log_var, log_noise):
    options = {"noise_var": jnp.exp(log_noise), "prior_var": jnp.exp(log_var)[groups]}
    return sbl.condition(columns, outcome, **options).mean


means = jax.jit(jax.vmap(given))(variances["log_var"], variances["log_noise"])
print(f"posterior mean of bmi: {means[:, 2].mean():.3f} ± {means[:, 2].std():.3f}")

# %% [markdown]
# `KroMarginal` does the same for grids: here the noise and the overall variance of the field above,
# given which rows and columns `kron_sbl` has found.

# %%
shares = [np.asarray(part) for part in by_product.prior_factors]


def on_grid(y):
    log_scale = numpyro.sample("log_scale", dist.Normal(0.0, 2.0))
    noise = numpyro.sample("noise", dist.LogNormal(np.log(clean.std()) - 2, 1.0))
    factors_of_prior = (jnp.exp(log_scale) * shares[0], shares[1])
    numpyro.sample("y", sbl.KroMarginal(factors, factors_of_prior, noise**2), obs=y)


levels = sample(on_grid, jax.random.key(4), measured.reshape(-1))
lower, upper = np.quantile(levels["noise"], [0.05, 0.95])
print(f"noise {lower:.2f} to {upper:.2f}, in truth {np.sqrt(noise_var):.2f}")
