# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Posterior collapse, predicted and seen
#
# A variational autoencoder often leaves some of its latent dimensions unused: their posterior is
# the prior, whatever the data. For linear maps there is a theory of when this happens, in closed
# form (Dang, Tran, Nguyen and Ho, 2024). Here we draw its predictions for the handwritten digits,
# train linear autoencoders to check them to the percent, and see how far they carry over to
# networks.

# %%
import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from sklearn.datasets import load_digits

import bayesjx
from bayesjx import vi

FAST = os.environ.get("BAYESJX_FAST") == "1"  # small sizes, for continuous integration
STEPS, NETWORK_STEPS = (300, 200) if FAST else (4000, 2000)
BETAS = (0.5, 2.0) if FAST else (0.2, 0.5, 1.0, 2.0, 5.0)  # of the networks
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})
BLUE, ORANGE, GREY = "#2b6cb0", "#dd6b20", "#a0aec0"

# %% [markdown]
# ## What the data offer
#
# The images have 8 by 8 pixels; we centre them, since our maps have no biases. Prior and decoder
# have unit noise, so dimension $i$ of a linear autoencoder survives if the variance $\theta_i^2$
# of the data along principal axis $i$ exceeds $\beta$, the weight of the divergence.

# %%
images = load_digits().data / 5
images = jnp.asarray(images - images.mean(axis=0), jnp.float32)
LATENT = 20

theory = vi.linear_vae_collapse(images, beta=1.0)
shown = range(1, 33)
fig, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
ax.bar(shown, theory.theta[:32] ** 2, color=[GREY if c else BLUE for c in theory.collapsed[:32]])
for beta in (0.2, 1.0, 5.0):
    ax.axhline(beta, color=ORANGE, lw=1, ls="--")
    used = int((theory.critical_beta > beta).sum())
    ax.text(32.6, beta, f"β = {beta:g}: {used} used", color=ORANGE, ha="right", va="bottom")
ax.set(yscale="log", xlabel="principal axis", ylabel=r"variance $\theta_i^2$", xlim=(0.2, 32.8))
ax.set_title("What is above the line survives (blue: at β = 1)", loc="left")
plt.show()

# %% [markdown]
# ## Training one
#
# Model and guide are ordinary programs; the weight of the divergence goes on the terms of the
# site `z`, which stay apart in a structured cost.

# %%


def model(params, x):
    with numpyro.plate("image", len(x)):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([LATENT]).to_event(1))
        numpyro.sample("x", dist.Normal(z @ params["decoder"].T, 1.0).to_event(1), obs=x)


def guide(params, x):
    with numpyro.plate("image", len(x)):
        loc = x @ params["encoder"].T
        numpyro.sample("z", dist.Normal(loc, jnp.exp(params["log_scale"])).to_event(1))


@vi.expectation
def weighted_bound(params, beta, x):
    trace, log_q = vi.simulate(guide, params, x)
    bound = vi.log_density(model, trace, params, x) - log_q
    return bound.weight_sites({"z": beta}) / len(x)


keys = jax.random.split(jax.random.key(0), 2)
start = {
    "decoder": 0.1 * jax.random.normal(keys[0], (64, LATENT)),
    "encoder": 0.1 * jax.random.normal(keys[1], (LATENT, 64)),
    "log_scale": jnp.zeros(LATENT),
}
adam = optax.adam(optax.cosine_decay_schedule(0.1, STEPS, alpha=0.01))
algorithm = vi.optimise(weighted_bound, start, adam)
trained = {}
for beta in (0.5, 2.0):
    data = (jnp.float32(beta), images)
    result = bayesjx.fit(jax.random.key(1), algorithm, algorithm.init(), STEPS, data=data)
    trained[beta] = result.state.params

# %% [markdown]
# Its singular values lie on the line of the theory, and what is predicted to collapse is zero.

# %%
fig, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
axis = np.arange(1, LATENT + 1)
for (beta, params), colour in zip(trained.items(), (BLUE, ORANGE), strict=True):
    predicted = vi.linear_vae_collapse(images, beta, latent_dim=LATENT)
    found = np.linalg.svd(params["decoder"], compute_uv=False)
    ax.plot(axis, predicted.decoder, color=colour, lw=1, label=f"theory, β = {beta:g}")
    ax.plot(axis, found, "o", color=colour, ms=5, mfc="white", label=f"trained, β = {beta:g}")
    used = ~predicted.collapsed
    error = np.linalg.norm((found - predicted.decoder)[used]) / np.linalg.norm(predicted.decoder)
    print(f"β = {beta:g}: {used.sum()} dimensions used; spectra differ by {error:.2%}")
ax.set(xlabel="dimension", ylabel="singular value of the decoder", xticks=axis[::3])
ax.legend()
plt.show()

# %% [markdown]
# The columns of the decoder are what each dimension paints. At the larger weight most of them paint
# nothing.

# %%
fig, axes = plt.subplots(2, 10, figsize=(9, 2.4), layout="constrained")
for row, (beta, params) in zip(axes, trained.items(), strict=True):
    norms = np.linalg.norm(params["decoder"], axis=0)
    limit = norms.max() / 3
    for ax, i in zip(row, np.argsort(-norms)[::2], strict=True):
        picture = np.asarray(params["decoder"][:, i]).reshape(8, 8)
        ax.imshow(picture, cmap="RdBu_r", vmin=-limit, vmax=limit)
        ax.set(xticks=[], yticks=[])
        for side in ax.spines.values():
            side.set_visible(True)
            side.set_color(GREY)
    row[0].set_ylabel(f"β = {beta:g}", rotation=0, ha="right", va="center")
plt.show()

# %% [markdown]
# `latent_usage` looks at any guide and needs no theory: how much the posterior mean moves with the
# data, how far the posterior is from the prior, and what the latent tells about the image.

# %%
usage = vi.latent_usage(jax.random.key(2), model, guide, trained[2.0], images)
print(usage)

# %% [markdown]
# ## Given part of the image
#
# A conditional autoencoder is told some rows of pixels and has to fill in the others. Only what the
# known rows do not predict is left for the latents: the more is known, the more of them collapse.

# %%
betas = jnp.geomspace(0.05, 5.0, 60)
counts = []
for rows in range(1, 8):
    x, y = images[:, : 8 * rows], images[:, 8 * rows :]
    collapse = jax.vmap(lambda b, x=x, y=y: vi.linear_cvae_collapse(x, y, b).collapsed)(betas)
    counts.append((~collapse).sum(axis=1))
fig, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
colours = plt.get_cmap("viridis")(np.linspace(0, 0.9, 7))
for rows, count, colour in zip(range(1, 8), counts, colours, strict=True):
    ax.step(betas, count, color=colour, where="post", label=f"{rows}")
ax.set(xscale="log", xlabel="β", ylabel="dimensions used")
ax.legend(title="rows known", ncols=2)
plt.show()

# %% [markdown]
# ## Two levels
#
# With latents upon latents, it is the upper ones that go first. Theory says where in the plane of
# the two weights: the count of used dimensions of $z_2$ falls along lines $\beta_2 \propto
# \sqrt{\beta_1}$, or, where the noise of the first level is large by itself, along $\beta_2 \propto
# \beta_1$, all at once. There $z_2$ does survive, but spends some of its dimensions on noise.

# %%
grid = jnp.linspace(0.1, 3.0, 30 if FAST else 90)


def used(beta1, beta2, sigma1):
    result = vi.linear_hvae_collapse(images, sigma1, beta1, beta2, latent_dim=10)
    return (~result.collapsed).sum(), (~result.lower_collapsed).sum()


over_both = jax.jit(jax.vmap(jax.vmap(used, (0, None, None)), (None, 0, None)))
fig, axes = plt.subplots(1, 3, figsize=(9.5, 3.2), sharey=True, layout="constrained")
for ax, sigma1 in zip(axes, (0.3, 0.6, 1.0), strict=True):
    upper, _ = over_both(grid, grid, sigma1)
    picture = ax.pcolormesh(grid, grid, upper, cmap="Blues", vmin=0, vmax=10, rasterized=True)
    ax.plot(grid, np.minimum(grid * sigma1**2, 3), color=ORANGE, lw=1, ls="--")
    ax.set(xlabel=r"$\beta_1$", title=rf"$\sigma_1 = {sigma1}$")
axes[0].set_ylabel(r"$\beta_2$")
fig.colorbar(picture, ax=axes, label="dimensions of $z_2$ used")
plt.show()

# %% [markdown]
# Below the dashed line, $\beta_2 = \beta_1 \sigma_1^2$, nothing of $z_2$ collapses.
#
# ## Networks
#
# With ReLU layers the theory is a guess. We train one network per weight and count its active
# units.

# %%


def layers(key, *sizes):
    keys = jax.random.split(key, len(sizes) - 1)
    return [
        (jax.random.normal(k, (i, o)) / np.sqrt(i), jnp.zeros(o))
        for k, i, o in zip(keys, sizes, sizes[1:], strict=False)
    ]


def network(weights, x):
    for weight, bias in weights[:-1]:
        x = jax.nn.relu(x @ weight + bias)
    return x @ weights[-1][0] + weights[-1][1]


def programs(batch):
    def model(params, x):
        with numpyro.plate("image", len(x), subsample_size=batch) as i:
            z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([LATENT]).to_event(1))
            mean = network(params["decoder"], z)
            numpyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x[i])

    def guide(params, x):
        with numpyro.plate("image", len(x), subsample_size=batch) as i:
            loc, log_scale = jnp.split(network(params["encoder"], x[i]), 2, axis=1)
            numpyro.sample("z", dist.Normal(loc, jnp.exp(log_scale)).to_event(1))

    return model, guide


minibatch_model, minibatch_guide = programs(256)


@vi.expectation
def minibatch_bound(params, beta, x):
    trace, log_q = vi.simulate(minibatch_guide, params, x)
    bound = vi.log_density(minibatch_model, trace, params, x) - log_q
    return bound.weight_sites({"z": beta}) / len(x)


keys = jax.random.split(jax.random.key(3), 2)
start = {
    "encoder": layers(keys[0], 64, 128, 2 * LATENT),
    "decoder": layers(keys[1], LATENT, 128, 64),
}
adam = optax.adam(optax.cosine_decay_schedule(3e-3, NETWORK_STEPS, alpha=0.01))
algorithm = vi.optimise(minibatch_bound, start, adam)
active = []
for beta in BETAS:
    data = (jnp.float32(beta), images)
    result = bayesjx.fit(jax.random.key(4), algorithm, algorithm.init(), NETWORK_STEPS, data=data)
    usage = vi.latent_usage(jax.random.key(5), *programs(None), result.state.params, images)
    active.append(int(usage.num_active))

# %%
fig, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
betas = jnp.geomspace(0.1, 8, 200)
line = jax.vmap(lambda b: (~vi.linear_vae_collapse(images, b, latent_dim=LATENT).collapsed).sum())
ax.step(betas, line(betas), where="post", color=GREY, label="linear theory")
ax.plot(BETAS, active, "o-", color=BLUE, label="ReLU network, trained")
ax.set(xscale="log", xlabel="β", ylabel="dimensions used")
ax.legend()
plt.show()

# %% [markdown]
# The network needs fewer dimensions than the linear map, and gives them up in the same order of
# weights. What to do if too many collapse: lower $\beta$ or the decoder's noise. If that noise is
# learned, it is learned to be the residual's, and the threshold moves with it.
