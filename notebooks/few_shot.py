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
# # A network that learns from five images
#
# Three new characters, five scans of each: too few to train a network, and enough for one that has
# seen other characters. NIW-Meta learns how the weights of a network vary from task to task, and
# gives the posterior of the weights of a new task in closed form. Its class probabilities are
# averaged over that posterior.

# %%
import functools
import os

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro.distributions as dist
import optax
import pandas as pd
from sklearn.datasets import load_digits

import bayesjx
from bayesjx import amortized, diagnostics

FAST = os.environ.get("BAYESJX_FAST") == "1"
WAYS, SHOTS, QUERIES = 3, 5, 10

# %% [markdown]
# ## Tasks
#
# A task is a pair of arrays, drawn from a key. The digits 0 to 6 make the tasks of training; 7, 8
# and 9 are held out. Labels of a task are 0, 1 and 2, whatever the digits.

# %%
digits = load_digits()
by_digit = [digits.data[digits.target == d][:170] / 16 for d in range(10)]
images = jnp.asarray(np.stack(by_digit), jnp.float32)  # (10, 170, 64)


def task(key, chosen, shots=SHOTS):
    keys = jax.random.split(key, WAYS + 1)
    which = jax.random.permutation(keys[0], jnp.asarray(chosen))[:WAYS]
    rows = jax.vmap(lambda key: jax.random.permutation(key, 170)[: shots + QUERIES])(keys[1:])
    x = jnp.moveaxis(images[which[:, None], rows], 0, 1)  # one of each class in turn
    return x.reshape(-1, 64), jnp.tile(jnp.arange(WAYS), shots + QUERIES)


x, y = task(jax.random.key(0), range(7))
figure, axes = plt.subplots(1, 9, figsize=(8, 1.2))
for ax, image, label in zip(axes, x, y, strict=False):
    ax.imshow(image.reshape(8, 8), cmap="Greys")
    ax.set(title=f"class {label}", xticks=[], yticks=[])

# %% [markdown]
# ## Training
#
# `NIWMeta` takes any Equinox network and a likelihood. A step of `niw_meta` draws four tasks, finds
# the posterior of each one's weights, and climbs the evidence lower bound with them. Of the
# Gauss-Newton steps that lead to the posterior nothing is kept.

# %%
steps = 60 if FAST else 1000
network = eqx.nn.MLP(64, WAYS, 40, 2, key=jax.random.key(1))
start = amortized.NIWMeta(network, lambda f: dist.Categorical(logits=f))
optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, steps))
training = amortized.niw_meta(start, optimizer, functools.partial(task, chosen=range(7)))
fit = bayesjx.fit(jax.random.key(2), training, training.init(), steps, progress=not FAST)
meta = bayesjx.trained(start, fit.state)

curve = pd.Series(np.asarray(fit.info.objective)).rolling(steps // 20).mean()
axes = curve.plot(figsize=(6, 2.5), xlabel="step", ylabel="bound of a task, nats")

# %% [markdown]
# ## Digits that it has not seen
#
# Accuracy, log loss and calibration error over held-out tasks, with more and more images of each
# class. Beside it stands the same network before training: what Bayes does without other tasks.


# %%
def held_out(meta, shots, number):
    @jax.jit
    def of_task(key):
        x, y = task(key, range(7, 10), shots)
        size = WAYS * shots
        posterior = meta.adapt(key, x[:size], y[:size])
        return posterior.predict(x[size:]).probs, y[size:]

    keys = jax.random.split(jax.random.key(3), number)
    probs, labels = jax.lax.map(of_task, keys, batch_size=10)
    return probs.reshape(-1, WAYS), labels.reshape(-1)


rows = []
for name, of in (("trained", meta), ("not trained", start)):
    for shots in (1, 5, 10):
        probs, labels = held_out(of, shots, 10 if FAST else 100)
        rows.append(
            [
                name,
                shots,
                np.mean(np.argmax(probs, 1) == labels),
                diagnostics.log_score(probs, labels),
                diagnostics.calibration_error(probs, labels),
            ]
        )
columns = ["network", "images of each", "accuracy", "log loss", "calibration error"]
pd.DataFrame(rows, columns=columns).astype({c: float for c in columns[2:]}).round(3)

# %% [markdown]
# ## Reliability
#
# How often a digit is what the network says, by how sure it says to be.

# %%
probs, labels = held_out(meta, SHOTS, 10 if FAST else 200)
bins = diagnostics.reliability(probs, labels, num_bins=10)
some = bins.count > 10
figure, ax = plt.subplots(figsize=(3.4, 3))
ax.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
ax.plot(bins.confidence[some], bins.accuracy[some], "o-")
ax.set(xlabel="confidence", ylabel="accuracy", xlim=(0.3, 1.02), ylim=(0.3, 1.02))
figure.tight_layout()

# %% [markdown]
# ## A frozen body
#
# Of a large network the last layers alone may vary: `where` names them, and the others stay as they
# are. The posterior is then that of a Bayesian linear classifier on the body's features, which here
# come from the network that was just trained.

# %%
body = meta.network(meta.loc)
last = amortized.NIWMeta(
    body, lambda f: dist.Categorical(logits=f), where=lambda net: net.layers[-1], task_scale=1.0
)
probs, labels = held_out(last, SHOTS, 10 if FAST else 100)
print(f"{last.loc.size} random weights of {meta.loc.size}")
print(f"accuracy {np.mean(np.argmax(probs, 1) == labels):.3f}")
