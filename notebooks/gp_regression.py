# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Gaussian process regression
#
# Real data, a few lines each: the flow of the Nile by an exact process, its hyper-parameters
# maximised and sampled; food and income, where the noise grows; ten covariates by an exact and by
# sparse processes; tumours, a classification with minibatches; and three economic series that
# help to fill each other's gaps. Every prior is a NumPyro distribution, so every model could stand
# in a larger one.

# %%
import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from numpyro.infer import init_to_value, MCMC, NUTS
from sklearn.datasets import load_breast_cancer, load_diabetes
from statsmodels.datasets import engel, macrodata, nile

import bayesjx
from bayesjx import gp, kernels

jax.config.update("jax_enable_x64", True)  # covariances of smooth functions are ill-conditioned
FAST = os.environ.get("BAYESJX_FAST") == "1"  # small sizes, for continuous integration
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})
BLUE, ORANGE, GREEN, GREY = "#2b6cb0", "#dd6b20", "#2f855a", "#a0aec0"


def evidence(prior, x, y):
    """What `minimise` lowers: the negative log marginal likelihood."""
    return -prior(x).log_prob(y)


def band(axes, x, predicted, colour=BLUE, width=1.96, **options):
    """A mean and a central interval."""
    mean, half = np.asarray(predicted.mean), width * np.sqrt(np.asarray(predicted.variance))
    axes.fill_between(x, mean - half, mean + half, color=colour, alpha=0.15, linewidth=0)
    axes.plot(x, mean, color=colour, **options)


# %% [markdown]
# ## The Nile
#
# Yearly volume at Aswan, 1871 to 1970. A Matérn kernel, a constant and noise; the hyper-parameters
# maximise the marginal likelihood by L-BFGS, on a logarithmic scale as the kernel's fields are
# declared positive. `condition` gives the posterior, which answers everything from one Cholesky
# factor, and says how much jitter it needed: none.

# %%
record = nile.load_pandas().data
year, volume = record["year"].to_numpy(float), record["volume"].to_numpy(float)
when, level = (year - 1920) / 50, (volume - volume.mean()) / volume.std()

start = gp.GP(kernels.Matern32(lengthscale=0.3), noise_var=0.5)
best = gp.minimise(evidence, start, when, level)
posterior = gp.condition(best.params, when, level)
print(
    f"log evidence {-best.objective:.2f} after {best.num_steps} steps, "
    f"jitter {posterior.jitter:.0e}"
)
print(
    f"lengthscale {50 * best.params.kernel.lengthscale:.0f} years, variance "
    f"{best.params.kernel.variance:.2f}, noise {best.params.noise_var:.2f}"
)
left_out = posterior.leave_one_out()
print(f"leave-one-out log density {left_out.log_prob(level).sum():.2f}")
print("least expected years:", year[np.argsort(left_out.log_prob(level))[:3]].astype(int))

# %% [markdown]
# Draws of the posterior are functions (Matheron's rule): they can be evaluated anywhere, later,
# and differentiated. Here the year of the steepest fall in each draw: the dam at Aswan was begun in
# 1898.

# %%
draws = gp.pathwise(jax.random.key(0), posterior, num_samples=300)
fine = np.linspace(when[0], when[-1], 400)
slopes = jax.vmap(jax.jacfwd(lambda t: draws(t[None])[:, 0]))(fine)
steepest = 1920 + 50 * fine[np.argmin(slopes, axis=0)]

figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.2), width_ratios=(2, 1))
axes[0].plot(year, volume, ".", color=GREY)
to_volume = lambda z: volume.mean() + volume.std() * np.asarray(z)  # noqa: E731
flow = posterior.marginal(fine)
years = 1920 + 50 * fine
low, high = (to_volume(flow.mean + s * jnp.sqrt(flow.variance)) for s in (-1.96, 1.96))
axes[0].fill_between(years, low, high, color=BLUE, alpha=0.15, linewidth=0)
axes[0].plot(years, to_volume(flow.mean), color=BLUE)
axes[0].plot(years, to_volume(draws(fine)[:3]).T, color=ORANGE, linewidth=0.6)
axes[0].set(title="flow and three draws", xlabel="year", ylabel="10⁸ m³")
axes[1].hist(steepest, bins=30, color=ORANGE)
axes[1].set(title="steepest fall of 300 draws", xlabel="year")
figure.tight_layout()

# %% [markdown]
# ### In a NumPyro model
#
# The same prior with distributions on its hyper-parameters: the likelihood is one `sample`
# statement with the distribution of the observations, and NUTS takes the gradient from the inverse
# of the covariance, without differentiating its factor.


# %%
def river(x, y):
    lengthscale = numpyro.sample("lengthscale", dist.InverseGamma(2.0, 0.5))
    variance = numpyro.sample("variance", dist.HalfNormal(2.0))
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    prior = gp.GP(kernels.Matern32(lengthscale, variance), noise_var=noise)
    numpyro.sample("y", prior(x), obs=y)


optimum = {"lengthscale": best.params.kernel.lengthscale, "noise": best.params.noise_var}


def sample(key):
    start, depth = init_to_value(values=optimum), 4 if FAST else 10
    warmup, num = (50, 50) if FAST else (500, 1000)
    nuts = NUTS(river, init_strategy=start, max_tree_depth=depth)
    mcmc = MCMC(nuts, num_warmup=warmup, num_samples=num, progress_bar=False)
    mcmc.run(key, when, level)
    return mcmc.get_samples()


sampled = (jax.jit(sample) if FAST else sample)(jax.random.key(1))  # one program, or many small
for name, at_best in optimum.items():
    values = np.asarray(sampled[name])
    print(
        f"{name}: maximum {at_best:.2f}, posterior {values.mean():.2f} ± {values.std():.2f}, "
        f"{np.quantile(values, 0.05):.2f} to {np.quantile(values, 0.95):.2f}"
    )

# %% [markdown]
# ## Food and income: noise that grows
#
# Engel's households of 1857. The share of income spent on food varies, and the richer the household
# the less certain the amount. A second process for the logarithm of the noise's variance
# (Lázaro-Gredilla and Titsias, 2011) is fitted along with the first, by a bound in which the
# function is integrated out.

# %%
food = engel.load_pandas().data.sort_values("income")
income = np.log(food["income"].to_numpy(float))
spent = food["foodexp"].to_numpy(float)
if FAST:
    income, spent = income[::2], spent[::2]
income, spent = (income - income.mean()) / income.std(), (spent - spent.mean()) / spent.std()
held = np.arange(len(income)) % 4 == 2
x, y = income[~held], spent[~held]

constant = gp.minimise(evidence, gp.GP(kernels.RBF(1.0), noise_var=0.2), x, y).params
constant = gp.condition(constant, x, y)
guess = (gp.GP(kernels.RBF(1.0)), gp.GP(kernels.RBF(2.0), mean=-2.0), jnp.full(len(x), np.log(0.5)))


def free_bound(params):
    return -gp.heteroscedastic_bound(*params, x, y)


varying = gp.minimise(free_bound, guess, max_steps=15 if FAST else 150)
varying = gp.heteroscedastic_posterior(*varying.params, x, y)
grid = np.linspace(income.min(), income.max(), 200)
figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.2), sharey=True)
fits = {"one noise": constant, "noise of its own": varying}
for panel, (name, fitted) in zip(axes, fits.items(), strict=True):
    density = fitted.predict(income[held]).log_prob(spent[held])
    panel.plot(income, spent, ".", color=GREY)
    band(panel, grid, fitted.predict(grid))
    panel.set(title=f"{name}: held out {float(density.mean()):.2f} nats", xlabel="log income")
axes[0].set_ylabel("food")
figure.tight_layout()

# %% [markdown]
# ## Ten covariates: relevance, and bounds of the evidence
#
# Progression of diabetes in 442 patients. A lengthscale for each covariate tells which matter. Then
# the same process through a few inducing points: the tightened bound (the default of `sgpr`) is
# above that of Titsias (2009) at the same cost, and both approach the evidence. The points are
# chosen greedily, where the remaining variance is largest.

# %%
diabetes = load_diabetes()
covariates = diabetes.data / diabetes.data.std(axis=0)
target = (diabetes.target - diabetes.target.mean()) / diabetes.target.std()
if FAST:
    covariates, target = covariates[::2], target[::2]
start = gp.GP(kernels.RBF(jnp.full(10, 5.0)) + kernels.Linear(0.1), noise_var=0.5)
ard = gp.minimise(evidence, start, covariates, target, max_steps=15 if FAST else 100)
prior = ard.params
relevance = 1 / np.asarray(prior.kernel.terms[0].lengthscale)
print({n: round(r, 2) for n, r in zip(diabetes.feature_names, relevance.tolist(), strict=True)})

sizes = (10, 80) if FAST else (10, 20, 40, 80, 160)
points = gp.greedy_points(prior.kernel, covariates, sizes[-1]).points
kinds = {"blocks": {"blocks": 10}, "tightened": {}, "Titsias (2009)": {"tight": False}}


def log_bounds(points):
    bounds = [gp.sgpr(prior, covariates, inducing_points=points, **kind) for kind in kinds.values()]
    return [bound.log_prob(target) for bound in bounds]


table = np.array([jax.jit(log_bounds)(points[:m]) for m in sizes])
bounds = dict(zip(kinds, table.T, strict=True))
figure, axes = plt.subplots(figsize=(5.5, 3.2))
for (name, values), colour in zip(bounds.items(), (GREEN, BLUE, ORANGE), strict=True):
    axes.plot(sizes, values, "o-", color=colour, label=name)
axes.axhline(-float(ard.objective), color="black", linewidth=0.8, label="evidence")
axes.set(xscale="log", xticks=sizes, xticklabels=sizes, xlabel="inducing points", ylabel="nats")
axes.legend()
figure.tight_layout()
assert np.all(np.diff(table, axis=1) <= 0)

# %% [markdown]
# ## Tumours: another likelihood, in minibatches
#
# Any function from the process to a NumPyro distribution is a likelihood. Natural gradients move
# the distribution of the inducing variables, Adam the kernel and the points; `bayesjx.fit` drives
# both, with minibatches, a progress bar and checkpoints if wanted. `predict` gives a Bernoulli for
# each new patient.

# %%
cancer = load_breast_cancer()
features = (cancer.data - cancer.data.mean(axis=0)) / cancer.data.std(axis=0)
benign = cancer.target
train = np.random.default_rng(0).random(len(benign)) < 0.7
train_x, train_y = features[train], benign[train]

svgp = gp.SVGP(
    gp.GP(kernels.RBF(jnp.full(30, 8.0), 4.0)),
    lambda f: dist.Bernoulli(logits=f),
    inducing_points=gp.kmeans_points(jax.random.key(0), train_x, 30),
)
schedule = optax.linear_schedule(1e-3, 0.1, 20)
algorithm = gp.svgp_natgrad(svgp, optax.adam(1e-2), schedule, num_data=len(train_y))


def batches(step):
    rows = np.random.default_rng(step).choice(len(train_y), 100, replace=False)
    return train_x[rows], train_y[rows]


result = bayesjx.fit(
    jax.random.key(0), algorithm, algorithm.init(), 100 if FAST else 600, batches=batches
)
tumour = svgp.trained(result.state).posterior()
certain = tumour.log_predictive_prob(features[~train], benign[~train])
correct = np.mean((tumour.predict(features[~train]).mean > 0.5) == benign[~train])
print(f"test accuracy {correct:.3f}, log density {certain.mean():.3f}")
assert correct > 0.93

# %% [markdown]
# ## Three series at once
#
# Gross domestic product, consumption and disposable income of the USA, by quarters, without their
# trends. Six years of the first are hidden. A process of its own knows nothing about them; with the
# intrinsic coregionalisation model, whose outputs vary together, the other two series help.

# %%
macro = macrodata.load_pandas().data[:: 4 if FAST else 1]
quarter = (macro["year"] + (macro["quarter"] - 1) / 4).to_numpy(float)
names = ("realgdp", "realcons", "realdpi")
series = np.log(np.stack([macro[name].to_numpy(float) for name in names], axis=1))
trend = np.polynomial.polynomial.polyfit(quarter - 1985, series, 3)
series = series - np.polynomial.polynomial.polyval(quarter - 1985, trend).T
series = (series - series.mean(axis=0)) / series.std(axis=0)
hidden = (quarter >= 1976) & (quarter < 1982)
decade = (quarter - 1985) / 10
seen = [~hidden, np.ones_like(hidden), np.ones_like(hidden)]
x, y = gp.stack_outputs([decade[s] for s in seen], [series[s, i] for i, s in enumerate(seen)])
loading = 0.5 * jax.random.normal(jax.random.key(3), (3, 2))
shared = gp.GP(gp.icm(kernels.Matern32(0.5), loading, jnp.full(3, 0.3)), noise_var=0.1)
shared = gp.minimise(evidence, shared, x, y, max_steps=15 if FAST else 100).params
together = gp.condition(shared, x, y)
alone = gp.minimise(
    evidence, gp.GP(kernels.Matern32(0.5), noise_var=0.1), decade[~hidden], series[~hidden, 0]
).params
alone = gp.condition(alone, decade[~hidden], series[~hidden, 0])

figure, axes = plt.subplots(figsize=(8, 3.2))
axes.plot(quarter, series[:, 0], ".", color=GREY)
band(axes, quarter, alone.marginal(decade), ORANGE, label="alone")
band(axes, quarter, together.marginal(gp.at_output(decade, 0)), BLUE, label="with the others")
axes.set(title="gross domestic product, of which six years are hidden", xlabel="year")
axes.legend()
figure.tight_layout()
errors = {
    "alone": np.asarray(alone.mean(decade[hidden])),
    "together": np.asarray(together.mean(gp.at_output(decade[hidden], 0))),
}
print(
    {k: round(float(np.sqrt(np.mean((v - series[hidden, 0]) ** 2))), 2) for k, v in errors.items()}
)
assert together.mean(gp.at_output(decade, 0)).shape == quarter.shape
