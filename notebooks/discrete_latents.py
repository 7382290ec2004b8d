# ---
# jupyter:
#   jupytext:
#     text_representation:
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # Discrete latents: counting digits
#
# A discrete latent variable has no pathwise gradient. What to use instead is a choice of
# *strategy*, made per site by wrapping its distribution: `vi.enum(dist.Bernoulli(p))` sums over its
# values, `vi.mvd` takes measure-valued derivatives, `vi.reinforce` the score function. Model,
# objective and training loop stay as they are.
#
# The example is *attend, infer, repeat* (Eslami et al. 2016): a guide that looks at a picture, says
# whether there is an object, where it is and what it looks like, and then looks again. Here a
# picture holds up to two handwritten digits. Nobody tells the guide how many there are.

# %%
import os

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from sklearn.datasets import load_digits

from bayesjx import vi

FAST = os.environ.get("BAYESJX_FAST") == "1"  # small sizes, for continuous integration
NUM_IMAGES, NUM_STEPS = (1024, 300) if FAST else (4096, 1200)
BATCH = 64
CANVAS, WINDOW, OBJECTS, WHAT, HIDDEN = 16, 8, 2, 8, 64

# %% [markdown]
# ## Pictures
#
# Digits of 8×8 pixels at random places of a 16×16 canvas, far enough apart not to cover each other.


# %%
def scenes(rng, n, digits):
    counts = rng.integers(OBJECTS + 1, size=n)
    images = np.zeros((n, CANVAS, CANVAS), np.float32)
    for image, count in zip(images, counts, strict=True):
        places = rng.integers(CANVAS - WINDOW + 1, size=(count, 2))
        while count == 2 and np.max(np.abs(places[0] - places[1])) < 6:
            places = rng.integers(CANVAS - WINDOW + 1, size=(count, 2))
        for row, column in places:
            image[row : row + WINDOW, column : column + WINDOW] += digits[rng.integers(len(digits))]
    return images.clip(0, 1), counts


digits = load_digits().images / 16
rng = np.random.default_rng(0)
images, _ = scenes(rng, NUM_IMAGES, digits[:1297])
test_images, test_counts = scenes(rng, 500, digits[1297:])

figure, axes = plt.subplots(1, 8, figsize=(10, 1.6))
for axis, image, count in zip(axes, test_images, test_counts, strict=False):
    axis.imshow(image, cmap="gray_r")
    axis.set(title=f"{count}", xticks=[], yticks=[])

# %% [markdown]
# ## Model
#
# At most two objects. Whether there is a first one is a coin; a second one needs a first. Each has
# a place and a code of eight numbers, which a network turns into a small picture that is shifted to
# its place. Latents of an object that is not there are masked out.


# %%
def placement(where):
    """Matrices that put the rows and columns of a window at a place, with interpolation."""
    corner = (CANVAS - WINDOW) / 2 + 2.5 * where
    target = corner[:, :, None, None] + jnp.arange(WINDOW)
    near = jax.nn.relu(1 - jnp.abs(jnp.arange(CANVAS)[:, None] - target))
    return near[:, 0], near[:, 1]


def chance(prob, before):
    """A further object, only if there was one before; chances stay away from 0 and 1."""
    return dist.Bernoulli(probs=(1e-4 + prob * before) / (1 + 2e-4))


def normal(loc, scale, present):
    return dist.Normal(loc, scale).to_event(1).mask(present > 0)


def model(nets, x):
    n = len(x)
    with numpyro.plate("images", n):
        present, mean = jnp.ones(n), jnp.zeros(x.shape)
        for t in range(OBJECTS):
            present = numpyro.sample(f"present{t}", chance((0.05, 0.001)[t], present))
            where = numpyro.sample(f"where{t}", normal(jnp.zeros((n, 2)), 1.0, present))
            what = numpyro.sample(f"what{t}", normal(jnp.zeros((n, WHAT)), 1.0, present))
            mean += present[:, None, None] * nets.draw(where, what)
        numpyro.sample("x", dist.Normal(mean, 0.3).to_event(2), obs=x)


# %% [markdown]
# ## Guide
#
# A recurrent network looks at the whole picture and at what it found before; a second network looks
# through a window at the place where the object is. Networks are Equinox modules and travel as
# ordinary arguments. The guide takes the strategy of its presences as an option.


# %%
class Networks(eqx.Module):
    look: eqx.nn.MLP
    cell: eqx.nn.GRUCell
    head: eqx.nn.MLP
    window: eqx.nn.MLP
    decoder: eqx.nn.MLP

    def __init__(self, key):
        keys = jax.random.split(key, 5)
        self.look = eqx.nn.MLP(CANVAS**2, HIDDEN, 2 * HIDDEN, 1, key=keys[0])
        self.cell = eqx.nn.GRUCell(HIDDEN + 3 + WHAT, HIDDEN, key=keys[1])
        self.head = eqx.nn.MLP(HIDDEN, 5, HIDDEN, 1, key=keys[2])
        self.window = eqx.nn.MLP(WINDOW**2, 2 * WHAT, 2 * HIDDEN, 1, key=keys[3])
        self.decoder = eqx.nn.MLP(WHAT, WINDOW**2, 2 * HIDDEN, 1, key=keys[4])

    def draw(self, where, what):
        window = jax.nn.sigmoid(jax.vmap(self.decoder)(what) - 2)
        rows, columns = placement(where)
        window = window.reshape(-1, WINDOW, WINDOW)
        return jnp.einsum("nyi,nij,nxj->nyx", rows, window, columns)

    def describe(self, x, where):
        rows, columns = placement(where)
        window = jnp.einsum("nyi,nyx,nxj->nij", rows, x, columns)
        out = jax.vmap(self.window)(window.reshape(len(x), -1))
        return out[:, :WHAT], jax.nn.softplus(out[:, WHAT:]) + 1e-3


def guide_with(strategy):
    def guide(nets, x):
        n = len(x)
        with numpyro.plate("images", n):
            seen, state = jax.vmap(nets.look)(x.reshape(n, -1)), jnp.zeros((n, HIDDEN))
            present, where, what = jnp.ones(n), jnp.zeros((n, 2)), jnp.zeros((n, WHAT))
            for t in range(OBJECTS):
                found = jnp.concatenate([seen, present[:, None], where, what], axis=-1)
                state = jax.vmap(nets.cell)(found, state)
                out = jax.vmap(nets.head)(state)
                coin = chance(jax.nn.sigmoid(out[:, 0]), present)
                present = numpyro.sample(f"present{t}", strategy(coin))
                scale = 0.5 * jax.nn.softplus(out[:, 3:])
                where = numpyro.sample(f"where{t}", normal(out[:, 1:3], scale, present))
                what = numpyro.sample(f"what{t}", normal(*nets.describe(x, where), present))

    return guide


# %% [markdown]
# ## Training with three strategies
#
# Everything but the wrapper is the same: networks, seed, learning rate, number of steps. `enum`
# compares both values of the coin of each picture, at the price of running twice what comes after
# the coin. `mvd` compares the drawn value with the other one. `reinforce` has the drawn value only.

# %%
STRATEGIES = {"enum": vi.enum, "mvd": vi.mvd, "reinforce": vi.reinforce}
if FAST:
    del STRATEGIES["mvd"]  # compiling takes longer than training
initial = Networks(jax.random.key(0))
params, static = eqx.partition(initial, eqx.is_inexact_array)


@jax.jit
def looked_at(params, key):
    """One draw of the guide for each test picture."""
    nets = eqx.combine(params, static)
    return vi.sample(key, guide_with(vi.reinforce), nets, test_images)


def accuracy(params):
    drawn = looked_at(params, jax.random.key(9))
    return float(jnp.mean(drawn["present0"] + drawn["present1"] == test_counts))


def batches(step):
    some = np.random.default_rng(step).integers(len(images), size=BATCH)
    return (images[some],)


fits, curves = {}, {}
for name, strategy in STRATEGIES.items():
    curve = curves[name] = []
    fits[name] = vi.fit(
        jax.random.key(1),
        vi.elbo(model, guide_with(strategy)),
        initial,
        optax.adam(1e-3),
        NUM_STEPS,
        batches=batches,
        callback=lambda info, curve=curve: curve.append((info.step, accuracy(info.state.params))),
    )
    print(
        f"{name:9}  counts right: {curve[-1][1]:.0%}, "
        f"bound per picture {np.mean(fits[name].info.objective[-50:]) / BATCH:6.1f}, "
        f"{1e3 * fits[name].seconds / NUM_STEPS:.1f} ms a step"
    )

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3))
for name, curve in curves.items():
    left.plot(*zip(*curve, strict=True), label=name)
    objective = np.asarray(fits[name].info.objective) / BATCH
    right.plot(objective.reshape(-1, 20).mean(axis=1).repeat(20), label=name)
left.set(xlabel="step", ylabel="counts right", ylim=(0, 1.02))
right.set(xlabel="step", ylabel="bound per picture", ylim=(-20, None))
left.legend()

# %% [markdown]
# All of them soon tell empty pictures from others, and then stay for a while at two thirds of the
# counts: whatever is there is described by the same number of objects, whether it is one digit or
# two. Only a decoder that draws digits well makes the difference worth the price of one object more
# or less, and only a guide that tries both gets such a decoder.
#
# `enum` is the first to get away, in about half as many steps as `reinforce` (300 steps, the
# size of the fast mode, end on the plateau). A step costs more with it, so in seconds the gain
# is smaller. How long the plateau lasts is a matter of luck. Of three starts of this notebook
# with 1200 steps, `enum` and `mvd` got away in all, `enum` never after the others. `reinforce`
# got away in two; in the third it was still at 67 % at the end.
#
# ## Where the noise is
#
# What does the strategy change? `vi.gradient_report` takes the gradient many times under each
# strategy, at the same parameters. Here are those that training starts from:

# %%
report = vi.gradient_report(
    jax.random.key(2),
    vi.elbo(model, guide_with(vi.reinforce)),
    initial,
    jnp.asarray(images[:BATCH]),
    num_draws=20 if FAST else 100,
    sites=["present0"],
    alternatives=(vi.enum(),) if FAST else (vi.mvd(), vi.enum()),
)
print(str(report).split("\n\n")[0])

# %% [markdown]
# At the start most of the noise comes from this coin: the score function multiplies the errors
# of 256 pixels into its gradient. After two hundred steps the guide knows which pictures are
# empty, and the same report finds nothing to gain at this coin any more. A good strategy matters
# where a decision is still open.

# %% [markdown]
# ## What the guide sees
#
# Test pictures, with a frame around every object that one draw of the guide finds, and below what
# the model draws in their place.

# %%
drawn = looked_at(eqx.filter(fits["enum"].params, eqx.is_inexact_array), jax.random.key(9))
nets = fits["enum"].params
canvas = sum(
    drawn[f"present{t}"][:, None, None] * nets.draw(drawn[f"where{t}"], drawn[f"what{t}"])
    for t in range(OBJECTS)
)
figure, axes = plt.subplots(2, 8, figsize=(10, 2.9))
for i, (top, bottom) in enumerate(axes.T):
    top.imshow(test_images[i], cmap="gray_r", vmin=0, vmax=1)
    bottom.imshow(canvas[i], cmap="gray_r", vmin=0, vmax=1)
    for t, colour in enumerate(("tab:red", "tab:blue")):
        if drawn[f"present{t}"][i]:
            row, column = (CANVAS - WINDOW) / 2 + 2.5 * drawn[f"where{t}"][i]
            frame = plt.Rectangle(
                (column - 0.5, row - 0.5), WINDOW, WINDOW, fill=False, color=colour
            )
            top.add_patch(frame)
    found = int(drawn["present0"][i] + drawn["present1"][i])
    top.set(title=f"{found} of {test_counts[i]}")
    for axis in (top, bottom):
        axis.set(xticks=[], yticks=[])

# %% [markdown]
# How often each count is given for each true one:

# %%
found = np.asarray(drawn["present0"] + drawn["present1"])
print("true \\ found" + "".join(f"{k:6}" for k in range(OBJECTS + 1)))
for count in range(OBJECTS + 1):
    row = [np.mean(found[test_counts == count] == k) for k in range(OBJECTS + 1)]
    print(f"{count:12}" + "".join(f"{share:6.0%}" for share in row))
