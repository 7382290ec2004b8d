# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A trained network, calibrated
#
# A small network learns handwritten digits from 200 of them until it knows them by heart; its
# probabilities are then too sure. Laplace's approximation makes the trained network Bayesian
# afterwards: `laplace` takes the curvature at its weights, `calibrate_laplace` the prior precision
# by rows that were held out. Nothing is trained again.

# %%
import os

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro.distributions as dist
import optax
from sklearn.datasets import load_digits

from bayesjx import bnn, diagnostics

FAST = os.environ.get("BAYESJX_FAST") == "1"  # small sizes, for continuous integration
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})
BLUE, ORANGE, GREEN, GREY = "#2b6cb0", "#dd6b20", "#2f855a", "#a0aec0"

# %% [markdown]
# ## The network
#
# 64 pixels, a hidden layer, ten classes; Adam with next to no weight decay, as it is often done.

# %%
digits = load_digits()
order = np.random.default_rng(0).permutation(len(digits.target))
images = jnp.asarray(digits.data[order] / 16.0, jnp.float32)
labels = jnp.asarray(digits.target[order])
x, y = images[:200], labels[:200]
held_x, held_y = images[200:300], labels[200:300]
test_x, test_y = images[300:], labels[300:]

PRECISION = 1e-4  # of the prior, the weight decay
WIDTH, STEPS = (10, 300) if FAST else (32, 2000)
network = eqx.nn.MLP(64, 10, WIDTH, 1, activation=jnp.tanh, key=jax.random.key(0))


def loss(network):
    fit = optax.softmax_cross_entropy_with_integer_labels(jax.vmap(network)(x), y).sum()
    weights = jax.tree.leaves(eqx.filter(network, eqx.is_array))
    return fit + 0.5 * PRECISION * sum(jnp.sum(w**2) for w in weights)


@eqx.filter_jit
def train(network):
    arrays, rest = eqx.partition(network, eqx.is_array)
    adam = optax.adam(optax.cosine_decay_schedule(0.01, STEPS))

    def step(carry, _):
        arrays, state = carry
        slopes = jax.grad(lambda arrays: loss(eqx.combine(arrays, rest)))(arrays)
        updates, state = adam.update(slopes, state)
        return (optax.apply_updates(arrays, updates), state), None

    (arrays, _), _ = jax.lax.scan(step, (arrays, adam.init(arrays)), None, length=STEPS)
    return eqx.combine(arrays, rest)


network = train(network)
before = jax.nn.softmax(jax.vmap(network)(test_x))


def report(name, probs):
    score = diagnostics.log_score(probs, test_y)
    error = diagnostics.calibration_error(probs, test_y)
    print(f"{name:24} log score {score:.4f}, calibration error {error:.3f}")


report("network", before)

# %% [markdown]
# ## Calibrated
#
# Kronecker factors of each layer's curvature (KFAC) are a few small matrices, of which all prior
# precisions follow by their eigenvalues. `predict` averages class probabilities over the Gaussian
# of the linearised network's values.


# %%
def categorical(f):
    return dist.Categorical(logits=f)


posterior = bnn.laplace(network, x, y, categorical, structure="kron", prior_precision=PRECISION)
calibrated = bnn.calibrate_laplace(posterior, held_x, held_y)
after = calibrated.posterior.predict(test_x).probs
report("kron, calibrated", after)
print("prior precision:", calibrated.posterior.prior_precision)

figure, panels = plt.subplots(1, 3, figsize=(10, 3.2))
for panel, (title, probs) in zip(panels, (("before", before), ("after", after)), strict=False):
    bins = diagnostics.reliability(probs, test_y, num_bins=10)
    panel.plot([0, 1], [0, 1], color=GREY, linewidth=0.8)
    panel.bar(np.arange(10) / 10 + 0.05, bins.accuracy, 0.09, color=BLUE, alpha=0.3)
    some = bins.count >= 5
    panel.plot(bins.confidence[some], bins.accuracy[some], "o", color=BLUE)
    panel.set(title=title, xlabel="confidence", ylabel="accuracy")
panels[2].semilogx(
    PRECISION * calibrated.factors, calibrated.log_predictive_prob, ".-", color=ORANGE
)
panels[2].axvline(calibrated.posterior.prior_precision[0], color=GREY, linewidth=0.8)
panels[2].set(title="held out, nats a row", xlabel="prior precision", ylim=(-0.8, 0))
figure.tight_layout()

# %% [markdown]
# Why not the prior precision of the largest evidence? Where a network is sure of its classes, its
# likelihood is flat: the curvature is next to nothing, and the linearised function is nearly that
# of the prior. That is so with the whole Gauss-Newton matrix, too, not with Kronecker factors
# alone. For normal noise, whose curvature is the same everywhere, `tune_laplace` is right.

# %%
tuned = bnn.tune_laplace(posterior).posterior
report("kron, largest evidence", tuned.predict(test_x).probs)

# %% [markdown]
# ## Which structure
#
# The last layer alone is the cheapest, whatever lies before it. A subnetwork has the full matrix of
# the weights that are known worst.

# %%
options = {
    "last_layer": {},
    "subnetwork": {"subnetwork": 300},
    "diag": {},
}
for structure, extra in () if FAST else options.items():
    found = bnn.laplace(
        network, x, y, categorical, structure=structure, prior_precision=PRECISION, **extra
    )
    best = bnn.calibrate_laplace(found, held_x, held_y).posterior
    report(f"{structure}, calibrated", best.predict(test_x).probs)

# %% [markdown]
# ## Images that are no digits
#
# Pixels in random order: how sure are both that they see a digit?

# %%
shuffled = test_x[:, np.random.default_rng(1).permutation(64)]
scores = {
    "network": (before, jax.nn.softmax(jax.vmap(network)(shuffled))),
    "calibrated": (after, calibrated.posterior.predict(shuffled).probs),
}
figure, axes = plt.subplots(figsize=(5, 3.2))
for (name, (known, strange)), colour in zip(scores.items(), (GREY, BLUE), strict=True):
    entropies = [diagnostics.predictive_entropy(probs) for probs in (known, strange)]
    which = np.repeat([False, True], len(known))
    area = diagnostics.auroc(jnp.concatenate(entropies), which)
    axes.hist(entropies[1], bins=25, range=(0, 2.4), histtype="step", color=colour, label=name)
    print(f"{name}: mean confidence {strange.max(axis=1).mean():.2f}, area {area:.3f}")
axes.set(xlabel="entropy of predictions for shuffled pixels", ylabel="images")
axes.legend()
figure.tight_layout()
