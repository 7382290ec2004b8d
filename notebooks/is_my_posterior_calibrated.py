# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Is my posterior calibrated?
#
# Does blood cholesterol tell how diabetes will progress? Two of its measurements, total and
# low-density, go together so closely that their effects are hard to tell apart: the posterior of
# the two effects is a narrow ridge. A sampler follows it; a guide that holds the effects to be
# independent does not. Here both are asked whether they are calibrated, which takes no knowledge of
# the right answer.

# %%
import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from sklearn.datasets import load_diabetes

from bayesjx import diagnostics

FAST = os.environ.get("BAYESJX_FAST") == "1"  # small sizes, for continuous integration
NUM_DATASETS, STEPS, WARMUP = (60, 300, 60) if FAST else (300, 1500, 300)
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})

# %%
table = load_diabetes()
columns = [table.feature_names.index(name) for name in ("bmi", "s1", "s2")]
rows = np.random.default_rng(0).permutation(len(table.data))[:80]
features = table.data[rows][:, columns] / table.data[:, columns].std(axis=0)
target = (table.target[rows] - table.target.mean()) / table.target.std()
x, y = jnp.array(features), jnp.array(target)
print(f"correlation of both measurements: {np.corrcoef(features[:, 1:].T)[0, 1]:.2f}")


def model(x, y=None):
    effect = numpyro.sample("effect", dist.Normal(0.0, 0.5).expand([3]).to_event(1))
    noise = numpyro.sample("noise", dist.LogNormal(-0.3, 0.3))
    with numpyro.plate("patient", len(x)):
        numpyro.sample("y", dist.Normal(x @ effect, noise), obs=y)


# %% [markdown]
# `model_problem` takes the program apart: parameters are drawn from the prior, data given them, and
# the program is conditioned on the data for whatever inference is to be checked. The log likelihood
# goes along as one more quantity, because ranks of parameters alone would not notice a posterior
# that has learnt nothing.

# %%
problem = diagnostics.model_problem(model, x, observed=["y"])


def check(posterior):
    """Posterior draws for many simulated data sets, and what they say."""
    runs = diagnostics.simulate(
        jax.random.key(0),
        problem.prior,
        problem.simulator,
        posterior,
        num_datasets=NUM_DATASETS,
        test_quantities={"log likelihood": problem.log_likelihood},
    )
    return diagnostics.calibration_report(jax.random.key(1), *runs)


sampled = check(problem.nuts(num_warmup=WARMUP, thinning=2))
print(sampled)

# %% [markdown]
# The no-U-turn sampler passes. Now stochastic variational inference with a guide that holds all
# parameters to be independent, and then with one that does not:

# %%


def variational(family):
    def posterior(key, data):
        conditioned = problem.conditioned(data)
        guide = family(conditioned, init_scale=0.05)
        svi = SVI(
            conditioned,
            guide,
            optax.adam(optax.cosine_decay_schedule(0.03, STEPS)),
            Trace_ELBO(num_particles=4),
        )
        fit_key, draw_key = jax.random.split(key)
        fitted = svi.run(fit_key, STEPS, progress_bar=False, stable_update=False)
        draws = guide.sample_posterior(draw_key, fitted.params, sample_shape=(99,))
        return {name: draws[name] for name in problem.latents}

    return posterior


independent = check(variational(AutoNormal))
print(independent)

# %% [markdown]
# It is not calibrated, and the report says of which effects the standard deviations are too small,
# and by how much: those of the two measurements that go together.

# %%
figure = independent.plot()

# %%
if not FAST:
    joint = check(variational(AutoMultivariateNormal))
    print(joint)

# %% [markdown]
# What was checked is the inference. Whether the model fits these patients is another question, to
# which real data answer: predictions of patients that were left out.

# %%
other = np.setdiff1d(np.arange(len(table.data)), rows)
x_new = jnp.array(table.data[other][:, columns] / table.data[:, columns].std(axis=0))
y_new = jnp.array((table.target[other] - table.target.mean()) / table.target.std())
draws = problem.nuts(num_samples=400, num_warmup=WARMUP, thinning=1)(jax.random.key(2), {"y": y})
predictive = draws["effect"] @ x_new.T
predictive += draws["noise"][:, None] * jax.random.normal(jax.random.key(3), predictive.shape)
print(diagnostics.calibration_report(jax.random.key(4), predictive, y_new, names=["progression"]))
score = diagnostics.crps(predictive, y_new)
alone = diagnostics.crps(dist.Normal(jnp.mean(y), jnp.std(y)), y_new)
gain = diagnostics.compare_scores(score, alone)
print(f"score less that of the mean alone: {gain.mean:.3f} ± {gain.standard_error:.3f}")
