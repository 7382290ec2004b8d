# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Dictionary learning
#
# Images that a few causes make, and the causes found from the images alone. First bars that add
# up, by binary sparse coding; then bars of which the brighter one covers the other, where the
# nonlinear model, maximal causes analysis, explains what the linear one cannot; then patches of a
# photograph, by spike-and-slab codes in minibatches. All by truncated EM: posteriors run over the
# states of the few causes that may be active in a datum.

# %%
import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_image

import bayesjx
from bayesjx import datasets, sbl

FAST = os.environ.get("BAYESJX_FAST") == "1"  # small sizes, for continuous integration
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})
BLUE, ORANGE, GREY = "#2b6cb0", "#dd6b20", "#a0aec0"


def tiles(axes, images, title, columns=10, limit=None):
    """Square images side by side in one grey scale, zero in the middle if some are negative."""
    images = np.asarray(images)
    size = int(images.shape[1] ** 0.5)
    rows = -(-len(images) // columns)
    canvas = np.full((rows * (size + 1) - 1, columns * (size + 1) - 1), np.nan)
    for i, image in enumerate(images):
        top, left = i // columns * (size + 1), i % columns * (size + 1)
        canvas[top : top + size, left : left + size] = image.reshape(size, size)
    limit = np.nanmax(np.abs(canvas)) if limit is None else limit
    low = -limit if np.nanmin(canvas) < -0.2 * limit else 0
    axes.imshow(canvas, cmap="gray", vmin=low, vmax=limit, interpolation="nearest")
    axes.set(title=title, xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


# %% [markdown]
# ## Bars that add up
#
# Images of five by five pixels. Each of ten bars is there with probability 0.2, and noise with a
# standard deviation of 2 is added to their height of 10. `learn_dictionary` takes a class of
# models, the data and the number of causes, anneals, and gives the model that it found.

# %%
truth = datasets.bars(jax.random.key(0), 300 if FAST else 1000)
fit = sbl.learn_dictionary(jax.random.key(1), sbl.BSC, truth.y, num_causes=10)
print(f"{fit.num_steps} steps, converged: {fit.converged}")
print(
    f"noise variance {fit.noise_var:.2f} (4), probability of a bar {fit.model.prior_prob:.3f} (0.2)"
)

figure, axes = plt.subplots(1, 3, figsize=(10, 2.2), width_ratios=(2, 2, 1.2))
tiles(axes[0], truth.y[:20], "data")
tiles(axes[1], fit.weights, "dictionary", columns=5)
steps = np.arange(int(fit.num_steps))
axes[2].plot(steps, fit.evidence_trace[: len(steps)] / len(truth.y), color=BLUE)
axes[2].set(title="bound, nats an image", xlabel="step")
figure.tight_layout()
apart = np.mean(np.abs(fit.weights[:, None] - truth.weights), axis=2)
assert apart.min(axis=0).max() < 1

# %% [markdown]
# The model answers what the data say about their causes: the posterior probability of each bar, the
# most probable combinations, and the image without its noise.

# %%
images = truth.y[:6]
posterior = fit.model.posterior(images, top_k=3)
clean = truth.codes[:6] @ truth.weights
figure, axes = plt.subplots(3, 1, figsize=(6, 3.6))
tiles(axes[0], images, "data", columns=6, limit=25)
tiles(axes[1], fit.model.reconstruct(images), "posterior mean", columns=6, limit=25)
tiles(axes[2], clean, "truth", columns=6, limit=25)
figure.tight_layout()
for i in range(3):
    sets = [np.flatnonzero(code).tolist() for code in np.asarray(posterior.codes[i])]
    probs = np.round(np.asarray(posterior.probs[i]), 3).tolist()
    print(f"image {i}: causes {sets} with probabilities {probs}")

# %% [markdown]
# ## Bars that cover each other
#
# Where two bars cross, the pixel has the brighter one's value, not the sum. Both models are learnt
# from the same images and compared by their evidence, of which the truncated one is a lower bound.

# %%
covered = datasets.bars(jax.random.key(2), 300 if FAST else 1000, superposition="max")
fits = {
    kind.__name__: sbl.learn_dictionary(jax.random.key(3), kind, covered.y, num_causes=10)
    for kind in (sbl.BSC, sbl.MCA)
}
figure, axes = plt.subplots(1, 3, figsize=(10, 2.2))
tiles(axes[0], covered.y[:10], "data", columns=5)
for panel, (name, learnt) in zip(axes[1:], fits.items(), strict=True):
    tiles(panel, learnt.weights, f"{name}, noise {learnt.noise_var:.1f}", columns=5)
figure.tight_layout()
for name, learnt in fits.items():
    print(f"{name}: bound of the log evidence {learnt.log_evidence / len(covered.y):.2f} an image")
assert fits["MCA"].log_evidence > fits["BSC"].log_evidence

# %% [markdown]
# ## Patches of a photograph
#
# Patches of eight by eight pixels, whitened. Their causes have a strength that varies, of either
# sign: spike-and-slab codes (GSC), whose slabs are integrated out. Statistics are running means
# over minibatches (stepwise EM), so that the data may be as many as one likes; `bayesjx.fit` drives
# the steps.

# %%
photograph = load_sample_image("china.jpg").mean(axis=2) / 255
windows = np.lib.stride_tricks.sliding_window_view(photograph, (8, 8))
draw, number = np.random.default_rng(0), 3000 if FAST else 20_000
patches = windows[
    draw.integers(0, len(windows), number), draw.integers(0, windows.shape[1], number)
]
patches = patches.reshape(number, -1) - patches.mean()
values, vectors = np.linalg.eigh(np.cov(patches.T))
patches = patches @ (vectors / np.sqrt(values + 1e-3 * values.mean())) @ vectors.T
patches = jnp.asarray(patches, jnp.float32)

start = sbl.GSC.at_data(jax.random.key(4), patches, num_causes=32 if FAST else 64)
algorithm = sbl.truncated_em(start, step_size=lambda count: (count + 2.0) ** -0.6)
result = bayesjx.fit(
    jax.random.key(5),
    algorithm,
    algorithm.init(),
    40 if FAST else 400,
    data=(patches,),
    batch_size=500 if FAST else 1000,
)
gsc = result.state.model
print(f"{gsc.num_states} states a patch, noise {gsc.noise_var**0.5:.2f} of a standard deviation")

strength = gsc.prior_prob * (gsc.slab_mean**2 + gsc.slab_var)
order = np.argsort(-strength * np.sum(gsc.weights**2, axis=1))
atoms = np.asarray(gsc.weights)[order]
figure, axes = plt.subplots(1, 2, figsize=(9, 4), width_ratios=(2, 1))
tiles(axes[0], atoms / np.abs(atoms).max(axis=1, keepdims=True), "dictionary", columns=16)
axes[1].plot(result.info.objective, color=GREY, linewidth=0.6)
window = 5 if FAST else 20
smooth = np.convolve(result.info.objective, np.ones(window) / window, mode="valid")
axes[1].plot(np.arange(len(smooth)) + window - 1, smooth, color=BLUE)
axes[1].set(title="bound, nats a patch", xlabel="step", ylim=(smooth[0], smooth.max() + 2))
figure.tight_layout()

# %% [markdown]
# The codes are sparse: most patches need few of the causes, and the truncated posterior says which.

# %%
codes = gsc.posterior(patches[:1000])
active = np.asarray(codes.active_prob.sum(axis=1))
figure, axes = plt.subplots(figsize=(5, 2.6))
axes.hist(active, bins=30, color=ORANGE)
axes.set(xlabel="expected number of active causes", ylabel="patches")
figure.tight_layout()
print(f"mean number of active causes {active.mean():.2f} of {gsc.num_causes}")
assert smooth[-1] > smooth[0] and np.all(np.isfinite(codes.log_evidence))
