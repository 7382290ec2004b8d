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
# # Posteriors from predictions
#
# With all the data there would be no uncertainty about a coefficient or a curve. A martingale
# posterior draws the data that are missing from a rule that predicts the next observation, and
# computes the functional of everything, again and again. Bayesian models are such rules, and then
# it is their posterior; urns, copulas and networks are others, which need no likelihood. All data
# here are real: the progression of diabetes in 442 patients, and 569 breast tumours.

# %%
import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
from numpyro.infer import MCMC, NUTS
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.linear_model import BayesianRidge

from bayesjx import amortized

FAST = os.environ.get("BAYESJX_FAST") == "1"
KEYS = jax.random.split(jax.random.key(0), 8)

# %% [markdown]
# ## Coefficients of a regression, by three rules
#
# A linear model with normal noise by NUTS; its own predictive as the rule; and Pólya's urn with
# infinitely many draws, the Bayesian bootstrap, which takes neither line nor noise for granted.

# %%
table, progression = load_diabetes(return_X_y=True, as_frame=True)
columns = ["bmi", "bp", "s3", "s5"]
x = jnp.asarray(((table - table.mean()) / table.std())[columns].to_numpy())
y = jnp.asarray(((progression - progression.mean()) / progression.std()).to_numpy())


def line(x, y=None):
    base = numpyro.sample("base", dist.Normal(0.0, 1.0))
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0).expand([x.shape[1]]).to_event(1))
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    with numpyro.plate("rows", len(x)):
        numpyro.sample("y", dist.Normal(base + x @ slope, scale), obs=y)


def by_nuts(model, *data, draws=200 if FAST else 2000):
    mcmc = MCMC(NUTS(model), num_warmup=200 if FAST else 500, num_samples=draws, progress_bar=False)
    mcmc.run(KEYS[0], *data)
    return mcmc.get_samples()


draws = by_nuts(line, x, y)
rule = amortized.PosteriorPredictive(line, draws)
ahead = amortized.predictive_resample(
    KEYS[1],
    rule,
    (x, y),
    amortized.least_squares,
    num_forward=300 if FAST else 5000,
    num_samples=20 if FAST else 300,
    correct=True,
)
urn = amortized.bayesian_bootstrap(
    KEYS[2], (x, y), amortized.least_squares, num_samples=100 if FAST else 4000
)
found = {
    "NUTS": draws["slope"],
    "its predictive": ahead.samples[:, 1:],
    "bootstrap": urn.samples[:, 1:],
}
pd.DataFrame(
    {
        (name, what): getattr(np, what)(v, axis=0)
        for name, v in found.items()
        for what in ("mean", "std")
    },
    index=columns,
).round(3)

# %% [markdown]
# The first two agree up to the number of draws. The bootstrap differs where the model is wrong:
# the scatter about the line is not the same for all patients.
#
# What the result says of itself:

# %%
print(ahead)

# %% [markdown]
# The effective sample size falls as rows are added, as it must: the functional settles on one draw
# of the posterior. Drift of a coefficient, which is not linear in the distribution of rows, would
# be no reason to worry; that of a mean would be.
#
# ## A loss instead of a likelihood
#
# Tumours by two columns: logistic regression as a minimiser of a loss, with random weights, beside
# NUTS with a normal prior.

# %%
cells, benign = load_breast_cancer(return_X_y=True, as_frame=True)
cells = ((cells - cells.mean()) / cells.std())[["mean radius", "mean texture"]].to_numpy()
rows = np.random.default_rng(0).permutation(len(cells))
train, test = rows[:100], rows[100:]
z, label = jnp.asarray(cells[train]), jnp.asarray(benign.to_numpy()[train], float)


def loss(w, row):
    logit = w[0] + row[0] @ w[1:]
    return jnp.logaddexp(0.0, logit) - row[1] * logit


def logistic(z, label=None):
    w = numpyro.sample("w", dist.Normal(0.0, 5.0).expand([3]).to_event(1))
    with numpyro.plate("rows", len(z)):
        numpyro.sample("label", dist.Bernoulli(logits=w[0] + z @ w[1:]), obs=label)


minimiser = amortized.m_estimator(loss, jnp.zeros(3))
weights = amortized.bayesian_bootstrap(
    KEYS[3], (z, label), minimiser, num_samples=50 if FAST else 1000
)
pd.DataFrame(
    {
        (name, what): getattr(np, "nan" + what)(v, axis=0)
        for name, v in {
            "bootstrap": weights.samples,
            "NUTS": by_nuts(logistic, z, label)["w"],
        }.items()
        for what in ("mean", "std")
    },
    index=["base", "radius", "texture"],
).round(2)

# %% [markdown]
# Where random weights leave classes that a plane separates there is no minimum, and the sample is
# NaN; with few rows that happens, and is counted:

# %%
lost = int(np.isnan(weights.samples).any(axis=1).sum())
print(f"samples without a minimum: {lost} of {weights.num_samples}")

# %% [markdown]
# ## Densities and probabilities without a model
#
# Copula predictives start from a normal distribution, and each observation moves the density
# towards itself. Bandwidths maximise the prequential likelihood.

# %%
half = 60 if FAST else 221
regression = amortized.CopulaRegression.fit(
    KEYS[4], x[:half, 0], y[:half], num_permutations=2 if FAST else 10
)
score = regression.log_prob(x[half:, 0], y[half:]).mean()
mean, deviation = BayesianRidge().fit(x[:half, :1], y[:half]).predict(x[half:, :1], return_std=True)
ridge = dist.Normal(mean, deviation).log_prob(y[half:]).mean()
print(f"log score of the other patients, nats: copula {score:.3f}, Bayesian ridge {ridge:.3f}")

grid = np.linspace(-2.5, 3.5, 60)
places = (-1.2, 0.0, 1.8)
curves = regression.resample(
    KEYS[5],
    np.repeat(places, 60),
    np.tile(grid, 3),
    num_forward=100 if FAST else 2000,
    num_samples=20 if FAST else 200,
)
densities = np.asarray(curves.samples["density"]).reshape(-1, 3, 60)
figure, axes = plt.subplots(figsize=(6, 2.8))
for j, place in enumerate(places):
    low, high = np.quantile(densities[:, j], [0.05, 0.95], axis=0)
    axes.fill_between(grid, low, high, alpha=0.3, lw=0, label=f"{place:+.1f}")
    axes.plot(grid, densities[:, j].mean(axis=0))
axes.set(xlabel="progression, standardised", ylabel="density, 90 % interval")
legend = axes.legend(title="body mass index")

# %% [markdown]
# The same for classes: the probability that a tumour is benign, with an interval. It is wide where
# there were no such tumours.

# %%
classifier = amortized.CopulaClassifier.fit(
    KEYS[6], z, label.astype(int), num_permutations=2 if FAST else 10
)
at = np.array([[-0.5, -0.5], [0.3, 0.0], [0.3, 2.5], [2.0, 0.5]])
chances = classifier.resample(
    KEYS[7], at, num_forward=100 if FAST else 2000, num_samples=50 if FAST else 500
)
low, high = np.quantile(chances.samples["probability"], [0.05, 0.95], axis=0)
pd.DataFrame(
    {"radius": at[:, 0], "texture": at[:, 1], "probability": classifier.predict(at).probs,
     "5 %": low, "95 %": high}
).round(2)  # fmt: skip

# %%
truth = benign.to_numpy()[test]
print(f"log score of other tumours: {classifier.log_prob(cells[test], truth).mean():.3f} nats")

# %% [markdown]
# ## A rule that is no martingale
#
# A mean of few rows predicts better when it is shrunk towards 0. To draw from, that is no rule:
# observations that are drawn lower the mean, and so that of the next. The drift of the mean finds
# it; that of the urn is 0 up to chance. (A normal prior shrinks too, but less as rows are added:
# `NormalNormal` is a martingale.)


# %%
class Shrunk(amortized.AbstractPredictiveRule):
    has_inputs = has_cdf = False
    has_density = True

    def init(self, data, num_forward=0):
        return jnp.array([len(data), data.sum(), (data**2).sum()])

    def normal(self, state):
        size, total, squares = state
        mean = total / size
        return dist.Normal(0.9 * mean, jnp.sqrt(squares / size - mean**2))

    def sample(self, key, state, x=None):
        return self.normal(state).sample(key)

    def absorb(self, state, y, x=None):
        return state + jnp.stack([jnp.ones_like(y), y, y**2])

    def log_prob(self, state, y, x=None):
        return self.normal(state).log_prob(y)

    def cdf(self, state, y, x=None):
        raise NotImplementedError

    def report(self, state) -> dict[str, jax.Array]:
        return {"loc": self.normal(state).loc}


few = jnp.asarray(progression.to_numpy()[:8] / 100)
for rule in (Shrunk(), amortized.PolyaUrn()):
    drawn = amortized.predictive_resample(
        KEYS[0], rule, few, jnp.mean, num_forward=160, num_samples=400 if FAST else 4000
    )
    print(drawn)

# %% [markdown]
# What the diagnostics cannot see is a rule that is coherent and wrong. Log scores of held-out data
# and `prequential_log_prob` judge that.
