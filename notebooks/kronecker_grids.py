# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Gaussian processes on grids
#
# Data that lie on a grid, of years and months or of rows and columns, make the covariance of a
# product kernel a Kronecker product, and Gaussian processes on a million points exact. Here: sixty
# years of sea temperatures with months hidden, filled in by optimised and by sampled
# hyper-parameters, and a photograph taken in so little light that pixels are counts of photons,
# some of them dead.

# %%
import os
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import init_to_value, MCMC, NUTS
from sklearn.datasets import load_sample_image
from statsmodels.datasets import elnino

from bayesjx import gp, kernels, likelihoods

jax.config.update("jax_enable_x64", True)
FAST = os.environ.get("BAYESJX_FAST") == "1"  # small sizes, for continuous integration
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})
BLUE, ORANGE, GREY = "#2b6cb0", "#dd6b20", "#a0aec0"


def rms(errors):
    return float(np.sqrt(np.mean(np.square(np.asarray(errors)))))


# %% [markdown]
# ## Months that are missing
#
# Monthly temperatures of the Pacific off Peru, 1950 to 2010: a grid of 61 years and 12 months. We
# hide ten stretches of six months and one in ten of the others.

# %%
table = elnino.load_pandas().data
measured = table.iloc[:, 1:].to_numpy()
centre = measured.mean()
y = measured - centre
rng = np.random.default_rng(0)
mask = rng.random(y.size) > 0.1
for start in rng.choice(np.arange(24, y.size - 12), 10, replace=False):
    mask[start : start + 6] = False
mask = mask.reshape(y.shape)
grid = gp.Grid(np.arange(61.0), np.arange(12.0) / 12)
print(f"{mask.sum()} months given, {(~mask).sum()} hidden")

# %% [markdown]
# The season comes back every year and years differ: a sum of kernels of the years times a sum of
# kernels of the months. A kernel of one coordinate may be anything; that they are multiplied is
# what makes the covariance of all 732 months a Kronecker product of 61 × 61 and 12 × 12.


# %%
def prior_of(drift, years, season, weight, noise):
    between_years = 1.0 + drift * kernels.Matern32(years)
    between_months = weight + kernels.Periodic(season, 1.0, 4.0)
    return gp.GP(between_years.on(0) * between_months.on(1), noise_var=noise)


prior = prior_of(0.3, 1.0, 1.0, 0.5, 0.3)
print(type(gp.covariance(prior.kernel, grid)).__name__)

# %% [markdown]
# `prior(grid, mask)` is a NumPyro distribution of the months that are given, whose density is the
# marginal likelihood. `minimise` finds the kernel and the noise that maximise it.

# %%
given = jnp.array(y[mask])


def negative_log_density(prior):
    return -prior(grid, mask).log_prob(given)


begin = time.perf_counter()
fit = gp.minimise(negative_log_density, prior, max_steps=6 if FAST else 60)
print(
    f"log evidence {-eqx.filter_jit(negative_log_density)(prior):.0f} to {-fit.objective:.0f}, "
    f"{time.perf_counter() - begin:.0f} s"
)

# %% [markdown]
# `grid_posterior` conditions on the months given; its answers keep the structure. `sample` draws
# whole grids.

# %%


@eqx.filter_jit
def answers(prior, y, key):
    posterior = gp.grid_posterior(prior, grid, y, mask)
    predicted = posterior.predict(grid)
    return predicted.mean, predicted.variance**0.5, posterior.sample(key, grid, (100,))


mean, scale, draws = answers(fit.params, jnp.array(np.where(mask, y, np.nan)), jax.random.key(0))
mean, scale = mean.reshape(y.shape), scale.reshape(y.shape)
usual = np.nanmean(np.where(mask, y, np.nan), axis=0)
straight = np.interp(np.arange(y.size), np.flatnonzero(mask), y[mask]).reshape(y.shape)
hidden = ~mask
print(
    f"error at hidden months: grid {rms((mean - y)[hidden]):.2f} °C, the usual month "
    f"{rms((usual - y)[hidden]):.2f}, a straight line {rms((straight - y)[hidden]):.2f}"
)
inside = np.abs(mean - y)[hidden] < 1.645 * scale[hidden]
print(f"{inside.mean():.0%} of them in their 90 % interval")

# %%
figure, axes = plt.subplots(1, 2, figsize=(10.5, 4.2), width_ratios=(2, 5), layout="constrained")
image = axes[0].imshow(
    np.where(mask, y, np.nan), cmap="RdBu_r", vmin=-4, vmax=4, aspect="auto",
    extent=(0.5, 12.5, 2011, 1950),
)  # fmt: skip
axes[0].set(facecolor="#4a5568", xlabel="month", ylabel="year", title="Given (hidden is dark)")
figure.colorbar(image, ax=axes[0], label="°C from the mean")
row = int(np.argmax(hidden.sum(axis=1)))
span = slice(max(row - 2, 0) * 12, (row + 3) * 12)
when = 1950 + np.arange(y.size)[span] / 12
low, high = np.quantile(draws[:, span], [0.05, 0.95], axis=0)
axes[1].fill_between(when, low, high, color=BLUE, alpha=0.25, linewidth=0, label="90 % of draws")
axes[1].plot(when, draws[:3, span].T, color=BLUE, linewidth=0.7)
for cells, colour, label in ((mask, GREY, "given"), (hidden, ORANGE, "hidden")):
    axes[1].plot(when, np.where(cells, y, np.nan).reshape(-1)[span], ".", color=colour, label=label)
axes[1].set(xlabel="year", ylabel="°C from the mean", title="Around a gap, with three draws")
axes[1].legend(fontsize=8)

# %% [markdown]
# ## The same in a NumPyro model
#
# It is a distribution, so any sampler of NumPyro takes it with priors on what it depends on.


# %%
def model():
    def positive(name, typical):
        return numpyro.sample(name, dist.LogNormal(jnp.log(typical), 0.7))

    values = [positive(*pair) for pair in START.items()]
    numpyro.sample("y", prior_of(*values)(grid, mask), obs=given)


START = {"drift": 0.3, "years": 1.0, "season": 1.0, "weight": 0.5, "noise": 0.3}


def sample(key):
    start, depth = init_to_value(values=START), 2 if FAST else 8
    warmup, num = (5, 10) if FAST else (300, 500)
    nuts = NUTS(model, init_strategy=start, max_tree_depth=depth)
    mcmc = MCMC(nuts, num_warmup=warmup, num_samples=num, progress_bar=False)
    mcmc.run(key)
    return mcmc.get_samples()


begin = time.perf_counter()
samples = (jax.jit(sample) if FAST else sample)(jax.random.key(1))  # one program, or many small
print(f"{time.perf_counter() - begin:.0f} s")

figure, axes = plt.subplots(1, 5, figsize=(10.5, 2.0), layout="constrained")
for panel, (name, values) in zip(axes, samples.items(), strict=True):
    panel.hist(values, 30, color=BLUE, alpha=0.5)
    panel.set(title=name, yticks=[])
    panel.spines["left"].set_visible(False)

# %% [markdown]
# Every draw of the hyper-parameters fills the gaps in its own way; the differences between those
# are what one optimum leaves out.

# %%
some = jax.tree.map(lambda values: values[:: max(1, len(values) // 20)], samples)


def filled(values):
    return gp.grid_posterior(prior_of(**values), grid, given, mask).mean(grid)


means = jax.jit(lambda some: jax.lax.map(filled, some))(some)
print(
    f"error of their average {rms((means.mean(axis=0).reshape(y.shape) - y)[hidden]):.2f} °C; they "
    f"differ by {rms(means.std(axis=0).reshape(y.shape)[hidden]):.2f}"
)

# %% [markdown]
# ## A photograph of few photons
#
# The pixels of a photograph as rates of a camera in the dark: each counts about four photons, and
# one in five is dead. Laplace's approximation takes any likelihood, here Poisson's with an
# exponential, and nothing but Kronecker products: Newton's method with conjugate gradients.

# %%
photo = load_sample_image("china.jpg").mean(axis=2)[::10, ::10] / 255
photo = photo[:20, :24] if FAST else photo
rate = 8 * photo / photo.mean() / 2 + 0.2
counts = rng.poisson(rate)
alive = rng.random(rate.shape) > 0.2
pixels = gp.Grid(*(np.arange(float(n)) for n in rate.shape))
print(f"{pixels.size} pixels, {alive.sum()} alive, {counts[alive].mean():.1f} photons each")

# %% [markdown]
# Lengthscales, variance and mean maximise the approximate evidence of a window, where its
# determinant is exact. For the whole it would be estimated (`log_evidence(key)`) or bounded
# (`evidence_bounds()`).


# %%
def rough(row, column, variance, mean):
    kernel = kernels.Matern12(row, variance).on(0) * kernels.Matern12(column).on(1)
    return gp.GP(kernel, mean)


window = slice(0, 12), slice(0, 14)
patch = gp.Grid(*(np.arange(float(n)) for n in counts[window].shape))


def negative_evidence(prior):
    posterior = gp.laplace(
        prior, likelihoods.PoissonExp(), patch, counts[window], alive[window], solver="dense"
    )
    return -posterior.log_evidence()


begin = time.perf_counter()
tuned = gp.minimise(
    negative_evidence,
    rough(8.0, 8.0, 0.5, 1.2),
    trainable=lambda p: [*jax.tree.leaves(p.kernel), p.mean],
    max_steps=3 if FAST else 15,
)
print(f"evidence {-tuned.objective:.1f}, {time.perf_counter() - begin:.0f} s")


# %%
@eqx.filter_jit
def developed(prior, counts, key):
    posterior = gp.laplace(
        prior, likelihoods.PoissonExp(), pixels, counts, alive, solver="cg", cg_rtol=1e-6
    )
    draws = posterior.sample(key, pixels, (40,))
    return posterior.mean(pixels), draws, posterior.num_steps, posterior.converged


begin = time.perf_counter()
log_rate, draws, steps, converged = developed(tuned.params, jnp.array(counts), jax.random.key(2))
print(f"{steps} steps, converged: {converged}, {time.perf_counter() - begin:.0f} s")

# %% [markdown]
# A variational posterior with a Kronecker covariance is the alternative: its evidence is a bound,
# and `minimise` finds it.

# %%
begin = time.perf_counter()
cells, seen = gp.observed_cells(pixels, counts, alive)
bound = gp.minimise(
    lambda q: -q.elbo(cells, seen),
    gp.KronVariational(tuned.params, likelihoods.PoissonExp(), pixels),
    trainable=lambda q: [q.whitened_mean, *q.factors],
    max_steps=8 if FAST else 150,
)
variational, variance = bound.params.cell_moments()
print(f"bound {-bound.objective:.0f}, {bound.num_steps} steps, {time.perf_counter() - begin:.0f} s")

# %%
dark, scale = ~alive, draws.std(axis=0)
neighbours = counts[alive].mean()
for name, guess in (
    ("Laplace, rate at the mode", np.exp(log_rate)),
    ("variational mean of the rate", np.exp(variational + variance / 2)),
):
    errors = guess.reshape(rate.shape) - rate
    print(f"{name}: error {rms(errors[alive]):.2f} at live pixels, {rms(errors[dark]):.2f} at dead")
print(f"the counts: error {rms((counts - rate)[alive]):.2f}; the mean {rms(rate - neighbours):.2f}")

figure, axes = plt.subplots(1, 4, figsize=(10.5, 2.4), layout="constrained")
for panel, picture, title in (
    (axes[0], rate, "The rate"),
    (axes[1], np.where(alive, counts, np.nan), "Photons (dead is orange)"),
    (axes[2], np.exp(log_rate).reshape(rate.shape), "Laplace"),
):
    panel.imshow(picture, cmap="gray", vmin=0, vmax=rate.max())
    panel.set(title=title, xticks=[], yticks=[], facecolor=ORANGE)
axes[3].imshow(scale.reshape(rate.shape), cmap="viridis")
axes[3].set(title="Uncertainty of log rate", xticks=[], yticks=[])

# %% [markdown]
# How large grids may be, and what they take beside sparse approximations, is on the page of
# [benchmarks](../benchmarks.md).
