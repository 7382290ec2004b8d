# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Sparse Bayesian networks
#
# Two ways to a small network with a posterior. Sparse subspace variational inference (SSVI) has few
# weights from the first step on, and moves them to where they are needed; turbo variational
# inference starts from a trained network and prunes it in runs. Then a fine-tuned, smaller network,
# and what each of them knows of images that are no digits.

# %%
import os

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro.distributions as dist
import optax

import bayesjx
from bayesjx import bnn, datasets, diagnostics

FAST = os.environ.get("BAYESJX_FAST") == "1"  # small sizes, for continuous integration
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})
BLUE, ORANGE, GREEN, GREY = "#2b6cb0", "#dd6b20", "#2f855a", "#a0aec0"

digits = datasets.digits(jax.random.key(0))  # 8 × 8 pixels
x, y, x_test, y_test = (jnp.asarray(part) for part in digits)
WIDTH = 64 if FAST else 256
model = eqx.nn.MLP(64, 10, WIDTH, 2, key=jax.random.key(1))


def likelihood(f):
    return dist.Categorical(logits=f)


def accuracy(network):
    return float(jnp.mean(jnp.argmax(jax.vmap(network)(x_test), axis=1) == y_test))


# %% [markdown]
# ## Weights that move
#
# `sparsify` replaces the dense layers: one weight in twenty is active, in groups of 8 units that
# read the same inputs, at random. Each is a normal distribution. Every 50 steps of `ssvi` the least
# important leave, and others come where the gradient is largest; time and memory are those of the
# active ones. The divergence counts a tenth: a cold posterior, and not that of Bayes' rule.

# %%
STEPS, PARTS = (200, 4) if FAST else (1600, 8)
network = bnn.sparsify(jax.random.key(2), model, 0.05, group=8)
q = bnn.sparse_mean_field(network, likelihood, prior_scale=0.3)
rate = optax.cosine_decay_schedule(3e-3, STEPS)
options = {"num_data": len(x), "num_steps": STEPS, "kl_weight": 0.1}
moving = bnn.ssvi(q, optax.adam(rate), move_every=50, **options)
static = bnn.ssvi(q, optax.adam(rate), move_every=None, **options)

state, masks, moved = moving.init(), [q.weights[0].mask()], []
for part in range(PARTS):
    fit = bayesjx.fit(
        jax.random.key(3 + part), moving, state, STEPS // PARTS, data=(x, y), batch_size=128
    )
    state = fit.state
    masks.append(q.trained(state).weights[0].mask())
    moved.append(int(fit.info.num_changed.sum()))
fixed = bayesjx.fit(
    jax.random.key(3), static, static.init(), STEPS, data=(x, y), batch_size=128
).state
print(f"units moved in each of {PARTS} parts of the training: {moved}")

# %% [markdown]
# How many units of the first layer read each pixel, at the start and then: the rim of the images is
# nearly always blank, and loses its weights.

# %%
shown = [0, 1, PARTS // 2, PARTS]
figure, panels = plt.subplots(1, len(shown) + 1, figsize=(9, 2.2))
for panel, part in zip(panels, shown, strict=False):
    readers = np.asarray(masks[part]).sum(axis=1).reshape(8, 8)
    panel.imshow(readers, cmap="Blues", vmin=0, vmax=np.asarray(masks[-1]).sum(axis=1).max())
    panel.set(title=f"step {part * STEPS // PARTS}", xticks=[], yticks=[])
panels[-1].imshow(np.asarray(x).std(axis=0).reshape(8, 8), cmap="Greys")
panels[-1].set(title="pixels vary", xticks=[], yticks=[])
figure.tight_layout()

# %% [markdown]
# Test images, and the same images with their pixels in random order, which are no digits: entropy
# of the predictions should tell the two apart.

# %%
rng = np.random.default_rng(0)
other = jnp.asarray(rng.permuted(np.asarray(x_test), axis=1))


def describe(name, predict):
    inside, outside = predict(x_test), predict(other)
    entropy = [diagnostics.predictive_entropy(probs) for probs in (inside, outside)]
    known = np.repeat([False, True], [len(x_test), len(other)])
    print(
        f"{name:24} accuracy {jnp.mean(jnp.argmax(inside, 1) == y_test):.3f}  "
        f"NLL {diagnostics.log_score(inside, y_test):.3f}  "
        f"ECE {diagnostics.calibration_error(inside, y_test):.3f}  "
        f"AUROC of no digits {diagnostics.auroc(np.concatenate(entropy), known):.3f}"
    )
    return entropy


entropies = {}
for name, end in (("SSVI, 5 %", state), ("static mask, 5 %", fixed)):
    posterior = q.trained(end).posterior(jax.random.key(4), 10)
    entropies[name] = describe(name, lambda x, p=posterior: p.predict(x).probs)
costs = bnn.training_costs(q, moving, state, x[:128], y[:128])
print(f"{costs.active:.1%} of the weights, {costs.step_flops / costs.dense_step_flops:.1%} FLOPs")

# %% [markdown]
# ## A trained network made small
#
# A dense network, trained by maximum likelihood: `fine_tune` of a network without zeros. Turbo
# variational inference then learns for each weight how likely it is not to be zero, with a Markov
# chain along the inputs of each unit, so that zeros and non-zeros come in runs. `pruned` sets to
# zero what is more likely zero, `fine_tune` trains what is left, and `compact` drops the units that
# nothing depends on.


# %%
def trained(key, network, steps, rate):
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, steps))
    tuning = bnn.fine_tune(network, likelihood, optimizer, num_data=len(x))
    fit = bayesjx.fit(key, tuning, tuning.init(), steps, data=(x, y), batch_size=128)
    return bayesjx.trained((network, likelihood), fit.state)[0]


LONG, FINE = (200, 100) if FAST else (2000, 500)
dense = trained(jax.random.key(5), model, LONG // 2, 1e-3)
field = bnn.mean_field(
    dense,
    likelihood,
    where=lambda network: [layer.weight for layer in network.layers],
    init_scale=0.01,
    estimator="local",
)
turbo = bnn.turbo_mean_field_vi(
    field,
    optax.adam(optax.cosine_decay_schedule(1e-2, LONG)),
    num_data=len(x),
    support=bnn.MarkovSupport(0.01, 0.2),
    num_steps=LONG,
    kl_weight=0.1,
)
fit = bayesjx.fit(jax.random.key(6), turbo, turbo.init(), LONG, data=(x, y), batch_size=128)
pruned = bnn.pruned(field, fit.state)
smaller = bnn.compact(trained(jax.random.key(7), pruned, FINE, 3e-4))

total = sum(layer.weight.size for layer in dense.layers)
print(f"dense:   accuracy {accuracy(dense):.3f}, {total} weights")
print(f"pruned:  accuracy {accuracy(pruned):.3f}")
print(f"smaller: accuracy {accuracy(smaller.network):.3f}, {smaller.num_weights} weights")
print(f"widths {smaller.widths}, runs of {smaller.run_length:.1f} weights on average")

# %%
figure, panels = plt.subplots(1, 3, figsize=(9, 3), width_ratios=(2, 2, 3))
matrix = np.asarray(pruned.layers[0].weight)
rows = np.argsort(-np.count_nonzero(matrix, axis=1))[:40]
panels[0].imshow(matrix[rows] != 0, cmap="Blues", aspect="auto")
panels[0].set(title="turbo: not zero", xlabel="pixel", ylabel="unit")
panels[1].imshow(np.asarray(masks[-1]).T[:40], cmap="Blues", aspect="auto")
panels[1].set(title="SSVI: active", xlabel="pixel")
for value, colour, label in zip(
    entropies["SSVI, 5 %"], (BLUE, ORANGE), ("digits", "no digits"), strict=True
):
    panels[2].hist(np.asarray(value), 30, color=colour, alpha=0.6, label=label, density=True)
panels[2].set(title="SSVI: entropy of predictions", yticks=[])
panels[2].legend()
figure.tight_layout()

# %% [markdown]
# The smaller network is an ordinary one. Laplace's approximation of its last layer gives it a
# posterior again.

# %%
laplace = bnn.laplace(smaller.network, x, y, likelihood, structure="last_layer")
describe("smaller, Laplace", lambda x: laplace.predict(x).probs)
describe("smaller", lambda x: jax.nn.softmax(jax.vmap(smaller.network)(x)))
