# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Structured linear algebra
#
# Gaussian models of real data, each too large or too slow for dense matrices, or simply nicer
# without them: weekly carbon dioxide as a grid of years and weeks with gaps, by optimised and by
# sampled hyper-parameters; the same series as a Markov chain; a photograph with holes, of a quarter
# of a million pixels; digits by factor analysis; and a grid of a million cells. Every covariance
# and precision is an operator of `bayesjx.ops`, which keeps its structure.

# %%
import os
import time

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from numpyro.infer import init_to_value, MCMC, NUTS
from sklearn.datasets import load_digits, load_sample_image
from sklearn.decomposition import FactorAnalysis
from statsmodels.datasets import co2

from bayesjx import distributions, ops

jax.config.update("jax_enable_x64", True)  # covariances of smooth functions are ill-conditioned
FAST = os.environ.get("BAYESJX_FAST") == "1"  # small sizes, for continuous integration
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})
BLUE, ORANGE, GREEN, GREY = "#2b6cb0", "#dd6b20", "#2f855a", "#a0aec0"


def minimise(function, params, steps):
    """L-BFGS, all steps in one compiled loop: the last parameters and all values."""
    # This line search takes values only, so that less is to be compiled.
    solver = optax.lbfgs(linesearch=optax.scale_by_backtracking_linesearch(20))

    def step(carry, _):
        params, state = carry
        value, grad = jax.value_and_grad(function)(params)
        change, state = solver.update(
            grad, state, params, value=value, grad=grad, value_fn=function
        )
        return (optax.apply_updates(params, change), state), value

    def run(params):
        return jax.lax.scan(step, (params, solver.init(params)), None, length=steps)

    # With its default scheduler, XLA of jax 0.10 may wait forever on the CPU in long loops of small
    # factorisations, as those of the Markov chain below are.
    run = jax.jit(run, compiler_options={"xla_cpu_enable_concurrency_optimized_scheduler": False})
    (params, _), values = run(params)
    return params, values


def rms(errors):
    return float(np.sqrt(np.mean(np.square(errors))))


# %% [markdown]
# ## A grid with gaps
#
# Weekly carbon dioxide at Mauna Loa, 1958 to 2001, on a grid of 44 years × 52 weeks. Some weeks
# were never measured. We hide 12 stretches of 10 weeks more, to see how well they are filled in,
# and take off a cubic trend.

# %%
series = co2.load_pandas().data["co2"]
rows = series.index.year.values - 1958
columns = np.minimum((series.index.day_of_year.values - 1) // 7, 51)
measured = ~np.isnan(series.values)
totals, counts = np.zeros((44, 52)), np.zeros((44, 52))
np.add.at(totals, (rows[measured], columns[measured]), series.values[measured])
np.add.at(counts, (rows[measured], columns[measured]), 1)
known = counts > 0
when = np.arange(1958, 2002)[:, None] + (np.arange(52) + 0.5) / 52
level = np.where(known, totals / np.maximum(counts, 1), np.nan)
trend = np.polynomial.Polynomial.fit(when[known], level[known], 3)
y = level - trend(when)

hidden = np.zeros(y.size, bool)
for start in np.random.default_rng(0).choice(np.arange(60, y.size - 20), 12, replace=False):
    hidden[start : start + 10] = True
hidden = hidden.reshape(y.shape) & known
mask = known & ~hidden
print(f"{mask.sum()} weeks given, {hidden.sum()} hidden, {(~known).sum()} never measured")

# %% [markdown]
# The season has nearly the same shape every year, with a size and a level that drift: a product of
# a covariance between years and one between weeks. With noise and gaps it is three lines of
# operators. The evidence is exact, `Masked` by its Schur complement.

# %%
YEARS, WEEKS = jnp.arange(44.0), jnp.arange(52.0) / 52


def matern(at, length):
    scaled = jnp.sqrt(3.0) * jnp.abs(at[:, None] - at) / length
    return (1 + scaled) * jnp.exp(-scaled)


def periodic(at, length):
    return jnp.exp(-2 * jnp.sin(jnp.pi * (at[:, None] - at)) ** 2 / length**2)


def signal(p, years=YEARS):
    between_years = 1 + p["drift"] ** 2 * matern(years, p["years"])
    between_weeks = p["offset"] ** 2 + p["season"] ** 2 * periodic(WEEKS, p["weeks"])
    return ops.Kron(between_years, between_weeks, tags=ops.psd)


given = jnp.array(y[mask])


def covariance(p):
    return ops.Masked(signal(p) + ops.ScaledIdentity(p["noise"] ** 2), mask)


def negative_evidence(log_p):
    inv_quad, logdet = covariance(jax.tree.map(jnp.exp, log_p)).inv_quad_logdet(given)
    return 0.5 * (inv_quad + logdet + given.size * jnp.log(2 * jnp.pi)) / given.size


START = {"season": 2.0, "offset": 1.0, "drift": 0.3, "years": 3.0, "weeks": 1.0, "noise": 0.5}
begin = time.perf_counter()
log_p, values = minimise(negative_evidence, jax.tree.map(jnp.log, START), 25)
best = jax.tree.map(jnp.exp, log_p)
print(
    f"log evidence {-values[0] * given.size:.1f} to {-values[-1] * given.size:.1f} in 25 steps, "
    f"{time.perf_counter() - begin:.0f} s"
)
print({name: round(float(value), 2) for name, value in best.items()})

# %% [markdown]
# The posterior mean of all cells is the signal's covariance times $A_{oo}^{-1} y$. A draw corrects
# one of the prior by the same solve of its residual (Matheron's rule).

# %%
SEEN = np.flatnonzero(mask)


def conditioned(p, residuals):
    """The signal that belongs to the columns of `residuals`, `(cells given, k)`: rows of a grid."""
    weights = (
        jnp.zeros((mask.size, residuals.shape[1])).at[SEEN].set(covariance(p).solve(residuals))
    )
    return (signal(p) @ weights).T.reshape(-1, *mask.shape)


@jax.jit
def posterior_draws(key, p):
    keys = jax.random.split(key)
    prior = signal(p).sample(keys[0], (50,))
    errors = p["noise"] * jax.random.normal(keys[1], (50, SEEN.size))
    columns = jnp.concatenate([given[None], given - prior[:, SEEN] - errors]).T
    mean, *changes = conditioned(p, columns)
    return mean, prior.reshape(-1, *mask.shape) + jnp.stack(changes)


filled, draws = posterior_draws(jax.random.key(0), best)
interpolated = np.interp(np.arange(y.size), SEEN, y.reshape(-1)[SEEN]).reshape(y.shape)
usual = np.nanmean(np.where(mask, y, np.nan), axis=0)
print(
    f"error at hidden weeks (ppm): grid {rms((filled - y)[hidden]):.2f}, usual week "
    f"{rms((usual - y)[hidden]):.2f}, line across the gap {rms((interpolated - y)[hidden]):.2f}"
)

# %%
figure, axes = plt.subplots(1, 2, figsize=(10.5, 4.2), width_ratios=(3, 4), layout="constrained")
image = axes[0].imshow(
    np.where(mask, y, np.nan),
    cmap="RdBu_r",
    vmin=-5,
    vmax=5,
    aspect="auto",
    extent=(0, 52, 2002, 1958),
)
axes[0].set(facecolor="#4a5568", xlabel="week", ylabel="year", title="Given (gaps are dark)")
figure.colorbar(image, ax=axes[0], label="ppm above the trend")
row = int(np.argmax(hidden.sum(axis=1)))
span = slice((row - 1) * 52, (row + 2) * 52)
at = when.reshape(-1)[span]
low, high = np.quantile(draws.reshape(50, -1)[:, span], [0.05, 0.95], axis=0)
axes[1].fill_between(at, low, high, color=BLUE, alpha=0.25, linewidth=0, label="90 % of draws")
axes[1].plot(at, draws[0].reshape(-1)[span], color=BLUE, linewidth=0.8, label="one draw")
for cells, colour, label in ((mask, GREY, "given"), (hidden, ORANGE, "hidden")):
    values = np.where(cells, y, np.nan).reshape(-1)[span]
    axes[1].plot(at, values, ".", color=colour, markersize=5, label=label)
axes[1].set(xlabel="year", ylabel="ppm above the trend", title="Around a gap")
axes[1].legend(fontsize=8)

# %% [markdown]
# ## The same model under NUTS
#
# In NumPyro, the likelihood is one line: a `StructuredNormal` with the covariance as it is written
# on paper, and the hyper-parameters of both factors are sampled. We give it the 16 years without
# gaps, 832 weeks; an evaluation decomposes matrices of 16 and 52 rows.

# %%
whole = slice(1986 - 1958, 44)
complete = jnp.array(y[whole]).reshape(-1)
PRIORS = {name: dist.LogNormal(jnp.log(value), 1.0) for name, value in START.items()}


def separable(data):
    p = {name: numpyro.sample(name, prior) for name, prior in PRIORS.items()}
    total = signal(p, YEARS[whole]) + ops.ScaledIdentity(p["noise"] ** 2)
    normal = distributions.StructuredNormal(jnp.zeros(data.size), total)
    numpyro.sample("data", normal, obs=data)


SAMPLES = 50 if FAST else 500
begin = time.perf_counter()
kernel = NUTS(separable, init_strategy=init_to_value(values=START))
mcmc = MCMC(kernel, num_warmup=50 if FAST else 300, num_samples=SAMPLES, progress_bar=False)
mcmc.run(jax.random.key(1), complete)
posterior = mcmc.get_samples()
diverging = int(mcmc.get_extra_fields()["diverging"].sum())
print(f"{time.perf_counter() - begin:.0f} s, {diverging} divergent")

# %%
figure, axes = plt.subplots(1, 6, figsize=(10.5, 2.0), layout="constrained")
for panel, (name, values) in zip(axes, posterior.items(), strict=True):
    panel.hist(values, 30, color=BLUE, alpha=0.5)
    panel.axvline(best[name], color=ORANGE)
    panel.set(title=name, yticks=[])
    panel.spines["left"].set_visible(False)
figure.suptitle("Posterior from 16 years; orange: highest evidence of all 44", fontsize=10)

# %% [markdown]
# Every draw of the hyper-parameters fills the gaps of all years. What the draws disagree about is
# what the optimised hyper-parameters could not know.

# %%
some = jax.tree.map(lambda values: values[:: SAMPLES // 25], posterior)
averaged = jax.lax.map(lambda p: conditioned(p, given[:, None])[0], some)
print(
    f"error at hidden weeks: {rms((averaged.mean(axis=0) - y)[hidden]):.2f} ppm; the means of the "
    f"draws differ by {rms(averaged.std(axis=0)[hidden]):.2f} ppm"
)

# %% [markdown]
# ## A Markov chain
#
# The same series without a grid, 2284 weeks in a row: a level with a slope, and two harmonics of
# the year, all of which do random walks. The states are a Markov chain of vectors with 6 elements,
# so their joint precision is block-tridiagonal, also after the data have been added to its
# diagonal.

# %%
carbon = series.values - np.nanmean(series.values)
in_gap = hidden[rows, columns]
use = measured & ~in_gap
weeks = np.where(use, carbon, 0.0)
turn = 2 * np.pi / 52.1775
READ = jnp.array([1.0, 0.0, 1.0, 0.0, 1.0, 0.0])  # what a measurement sees of a state
MOVE = np.zeros((6, 6))
MOVE[:2, :2] = [[1, 1], [0, 1]]
for k, i in ((1, 2), (2, 4)):
    c, s = np.cos(k * turn), np.sin(k * turn)
    MOVE[i : i + 2, i : i + 2] = [[c, s], [-s, c]]
WIDE = jnp.array([30.0, 0.1, 5.0, 5.0, 5.0, 5.0]) ** -2  # precision of the first state


def chain(p):
    """The prior precision of the states."""
    steps = jnp.stack([p["level"], p["slope"], *[p["season"]] * 4]) ** -2
    move = jnp.array(MOVE)
    inner = jnp.diag(steps) + move.T @ (steps[:, None] * move)
    diagonal = jnp.broadcast_to(inner, (carbon.size, 6, 6))
    diagonal = diagonal.at[0].add(jnp.diag(WIDE - steps)).at[-1].set(jnp.diag(steps))
    lower = jnp.broadcast_to(-steps[:, None] * move, (carbon.size - 1, 6, 6))
    return ops.BlockTridiag(diagonal, lower)


def smoother(p):
    """Prior, posterior precision of the states, and the information vector of the data."""
    prior = chain(p)
    seen = jnp.array(use, float)[:, None, None] * READ[:, None] * READ / p["noise"] ** 2
    information = (jnp.array(weeks)[:, None] * READ / p["noise"] ** 2).reshape(-1)
    return prior, ops.BlockTridiag(prior.diagonal + seen, prior.lower), information


def negative_chain_evidence(log_p):
    p = jax.tree.map(jnp.exp, log_p)
    prior, after, information = smoother(p)
    explained, logdet = after.inv_quad_logdet(information)
    squares = (weeks @ weeks) / p["noise"] ** 2
    noise = use.sum() * jnp.log(2 * jnp.pi * p["noise"] ** 2)
    return 0.5 * (noise + squares - explained + logdet - prior.logdet()) / use.sum()


begin = time.perf_counter()
steps = {"level": 0.1, "slope": 1e-3, "season": 0.02, "noise": 0.3}
log_steps, values = minimise(
    negative_chain_evidence, jax.tree.map(jnp.log, steps), 8 if FAST else 20
)
steps = jax.tree.map(jnp.exp, log_steps)
print(f"log evidence {-values[-1] * use.sum():.1f}, {time.perf_counter() - begin:.0f} s")
print({name: f"{float(value):.2g}" for name, value in steps.items()})

# %% [markdown]
# The selected inverse gives the covariance of every state, without the rest of the inverse, which
# is full.

# %%


@jax.jit
def smooth(p):
    _, after, information = smoother(p)
    states = after.solve(information).reshape(-1, 6)
    variances = jnp.einsum("i,tij,j->t", READ, after.selected_inverse().diagonal, READ)
    return states, jnp.sqrt(variances)


states, scale = smooth(steps)
mean = states @ READ
check = measured & in_gap
print(f"error at hidden weeks: {rms((mean - carbon)[check]):.2f} ppm")
covered = np.abs(mean - carbon)[check] < 1.64 * np.hypot(scale, float(steps["noise"]))[check]
print(f"{covered.mean():.0%} of them in their 90 % interval")

# %%
figure, axes = plt.subplots(1, 2, figsize=(10.5, 3.4), width_ratios=(3, 4), layout="constrained")
date = series.index.year.values + series.index.day_of_year.values / 365.25
axes[0].plot(date, carbon, ".", color=GREY, markersize=1.5, label="weeks")
axes[0].plot(date, states[:, 0], color=BLUE, label="level")
axes[0].set(xlabel="year", ylabel="ppm above the mean", title="The level of 2284 weeks")
axes[0].legend()
near = np.abs(date - (1958 + row + 0.5)) < 1.5
axes[1].fill_between(
    date[near],
    (mean - 1.64 * scale)[near],
    (mean + 1.64 * scale)[near],
    color=BLUE,
    alpha=0.25,
    linewidth=0,
    label="90 % interval",
)
axes[1].plot(date[near], mean[near], color=BLUE)
for cells, colour, label in ((use, GREY, "given"), (check, ORANGE, "hidden")):
    axes[1].plot(date[near & cells], carbon[near & cells], ".", color=colour, label=label)
axes[1].set(xlabel="year", title="Around the same gap")
axes[1].legend(fontsize=8)

# %% [markdown]
# A draw of the whole path comes from the precision, by `sample_inverse`; `StructuredNormal` with
# `precision=` is the same as a distribution.

# %%


@jax.jit
def draw_paths(key):
    _, after, information = smoother(steps)
    normal = distributions.StructuredNormal(after.solve(information), precision=after)
    return normal.sample(key, (20,)).reshape(20, -1, 6)


growth = 52.1775 * draw_paths(jax.random.key(2))[:, -1, 1]
print(f"growth at the end: {growth.mean():.2f} ± {growth.std():.2f} ppm a year")

# %% [markdown]
# ## A photograph with holes
#
# A grey photograph of 427 × 640 pixels. One in ten is lost, and so are eight patches. The dense
# covariance would have 7.5 × 10¹⁰ entries. The covariances along the axes are fitted by the
# evidence of a window without losses.

# %%
photo = load_sample_image("china.jpg").mean(axis=2) / 255
photo = photo[::3, ::3] if FAST else photo
height, width = photo.shape
rng = np.random.default_rng(1)
observed = rng.random(photo.shape) > 0.1
for i, j in zip(rng.integers(0, height - 12, 8), rng.integers(0, width - 12, 8), strict=True):
    observed[i : i + 12, j : j + 12] = False
corner = slice(height // 4, height // 4 + 80), slice(width // 4, width // 4 + 100)
observed[corner] = True
middle = photo[observed].mean()
window = jnp.array(photo[corner] - middle)


def rough(p, shape):
    axes = [
        jnp.exp(-jnp.abs(jnp.arange(n)[:, None] - jnp.arange(n)) / p[name])
        for name, n in zip(("rows", "columns"), shape, strict=True)
    ]
    return ops.Kron(p["scale"] ** 2 * axes[0], axes[1], tags=ops.psd)


def pixels(log_p):
    p = jax.tree.map(jnp.exp, log_p)
    total = rough(p, window.shape) + ops.ScaledIdentity(p["noise"] ** 2)
    normal = distributions.StructuredNormal(jnp.zeros(window.size), total)
    return -normal.log_prob(window.reshape(-1)) / window.size


begin = time.perf_counter()
log_p, _ = minimise(
    pixels,
    jax.tree.map(jnp.log, {"rows": 10.0, "columns": 10.0, "scale": 0.2, "noise": 0.03}),
    8 if FAST else 15,
)
p = jax.tree.map(jnp.exp, log_p)
print({name: round(float(value), 3) for name, value in p.items()})
print(f"{time.perf_counter() - begin:.0f} s")

# %% [markdown]
# More than 2000 cells are missing, so `Masked` takes conjugate gradients, preconditioned by the
# inverse on the full grid. `solve_cg` says how many steps it took.

# %%
begin = time.perf_counter()


@jax.jit
def restore(p, data):
    prior = rough(p, photo.shape)
    lossy = ops.Masked(prior + ops.ScaledIdentity(p["noise"] ** 2), observed, rtol=1e-4)
    solved = lossy.solve_cg(data[:, None])
    weights = jnp.zeros(photo.size).at[np.flatnonzero(observed)].set(solved.value[:, 0])
    return (prior @ weights).reshape(photo.shape), solved.num_steps[0], solved.converged[0]


restored, num_steps, converged = restore(p, jnp.array(photo[observed] - middle))
restored = np.where(observed, photo, restored + middle)
print(
    f"{observed.sum()} of {photo.size} pixels given: {num_steps} steps, converged {converged}, "
    f"{time.perf_counter() - begin:.0f} s"
)
print(
    f"error at lost pixels: {rms((restored - photo)[~observed]):.3f} of a range of 1; "
    f"of their mean {rms((photo - middle)[~observed]):.3f}"
)

# %%
figure, axes = plt.subplots(1, 3, figsize=(10.5, 2.7), layout="constrained")
for panel, picture, title in (
    (axes[0], photo, "Photograph"),
    (axes[1], np.where(observed, photo, np.nan), "Given (lost pixels are orange)"),
    (axes[2], restored, "Restored"),
):
    panel.imshow(picture, cmap="gray", vmin=0, vmax=1)
    panel.set(title=title, xticks=[], yticks=[], facecolor=ORANGE)

# %% [markdown]
# ## Factor analysis
#
# Digits of 8 × 8 pixels: ten common factors and an independent error of each pixel are a covariance
# of low rank plus a diagonal. Conditioning on the upper half keeps that structure. The pixels have
# 17 levels; uniform noise within a level makes them continuous.

# %%
levels = load_digits().data
digits = jnp.array((levels + np.random.default_rng(2).random(levels.shape)) / 17)
centre, rank = digits.mean(axis=0), 10


def normal_of(q):
    covariance = ops.LowRankPlusDiag(q["factor"], jnp.exp(q["log_error"]))
    return distributions.StructuredNormal(centre, covariance)


sizes, directions = jnp.linalg.eigh(jnp.cov(digits.T))  # principal components to start from
factor = directions[:, -rank:] * jnp.sqrt(sizes[-rank:])
left_over = digits.var(axis=0) - jnp.sum(factor**2, axis=1)
start = {"factor": factor, "log_error": jnp.log(jnp.maximum(left_over, 1e-4))}
q, values = minimise(lambda q: -normal_of(q).log_prob(digits).mean(), start, 30 if FAST else 300)
peer = FactorAnalysis(rank, max_iter=30 if FAST else 300, svd_method="lapack")
peer.fit(np.asarray(digits))
print(f"log likelihood of a digit {-values[-1]:.2f}; scikit-learn, by EM: {peer.score(digits):.2f}")

# %%
normal, upper = normal_of(q), np.arange(32)
half = jax.jit(lambda digit: normal.condition(upper, digit[upper]))
completed = jnp.stack([half(digit).mean for digit in digits[:10]])
kept = half(digits[0]).covariance
print(type(kept).__name__, kept.shape, "of rank", kept.factor.shape[1])

figure, axes = plt.subplots(2, 10, figsize=(10.5, 2.4), layout="constrained")
for i in range(10):
    guess = jnp.concatenate([digits[i, :32], completed[i]])
    for panel, picture in zip(axes[:, i], (digits[i], guess), strict=True):
        panel.imshow(picture.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
        panel.set(xticks=[], yticks=[])
    axes[1, i].axhline(3.5, color=ORANGE, linewidth=1)
axes[0, 0].set_ylabel("digit")
axes[1, 0].set_ylabel("lower half\nfilled in")

# %% [markdown]
# ## A million cells
#
# A grid of 100 × 100 × 100 with a covariance whose dense form takes 8 TB. A draw of it is the data,
# and the evidence with its gradient comes from three matrices of 100 × 100.

# %%
side = 100
axis = jnp.arange(float(side))


def cube(length, noise):
    return ops.Kron(*[matern(axis, length)] * 3, tags=ops.psd) + ops.ScaledIdentity(noise**2)


@jax.jit
@jax.value_and_grad
def evidence(length, data):
    normal = distributions.StructuredNormal(jnp.zeros(side**3), cube(length, 0.3))
    return normal.log_prob(data)


data = jax.jit(lambda key: cube(12.0, 0.3).sample(key))(jax.random.key(4))
plan = evidence.lower(12.0, data).compile().memory_analysis()
lengths = (10.0, 11.0, 12.0, 13.0, 14.0)
jax.block_until_ready(evidence(lengths[0], data))
begin = time.perf_counter()
profile = [jax.block_until_ready(evidence(length, data)) for length in lengths]
seconds = (time.perf_counter() - begin) / len(lengths)
print(
    f"evidence and gradient: {seconds:.2f} s, {plan.temp_size_in_bytes / 1e6:.0f} MB beside the "
    f"{data.nbytes / 1e6:.0f} MB of data; dense: {8 * data.size**2 / 1e12:.0f} TB"
)
for length, (value, slope) in zip(lengths, profile, strict=True):
    print(f"length {length:4.1f}: log evidence {value:12.1f}, slope {slope:9.1f}")

# %% [markdown]
# The data were drawn with a length of 12, where the slope changes its sign. How time and memory
# grow, and what plain matrix multiplications of the same size take, is on the page of
# [benchmarks](../benchmarks.md).
