"""Draw the pictures of the pages into docs/_static: `python docs/_figures.py [NAME ...]`."""

import sys
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from jax.scipy.stats import norm
from numpyro.infer import MCMC, NUTS
from sklearn.datasets import load_digits

import bayesjx
from bayesjx import (
    amortized,
    bnn,
    datasets,
    diagnostics,
    gp,
    kernels,
    likelihoods,
    ops,
    sbl,
    ssm,
    vi,
)

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch

STATIC = Path(__file__).parent / "_static"
BLUE, ORANGE, GREEN, GREY = "#2b6cb0", "#dd6b20", "#2f855a", "#a0aec0"
STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "legend.frameon": False,
    "svg.hashsalt": "bayesjx",
}


def programmable_vi():
    """Programs, the four verbs, and what comes out."""
    figure, axes = plt.subplots(figsize=(8.6, 3.3))
    axes.set(xlim=(0, 17.2), ylim=(0, 6.6))
    axes.axis("off")

    def box(x, y, width, height, title, text, colour):
        patch = FancyBboxPatch(
            (x, y),
            width,
            height,
            boxstyle="round,pad=0.02,rounding_size=0.18",
            facecolor=colour + "18",
            edgecolor=colour,
            linewidth=1.2,
        )
        axes.add_patch(patch)
        middle = x + width / 2
        axes.text(middle, y + height - 0.42, title, ha="center", va="center", weight="bold")
        axes.text(middle, y + (height - 0.6) / 2, text, ha="center", va="center", fontsize=9)

    def arrow(start, end, text="", above=0.25):
        axes.annotate(
            "", end, start, arrowprops={"arrowstyle": "-|>", "color": "#4a5568", "linewidth": 1.2}
        )
        x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
        axes.text(x, y + above, text, ha="center", va="center", fontsize=9, color="#4a5568")

    axes.add_patch(
        FancyBboxPatch(
            (4.15, 0.3),
            7.0,
            6.0,
            boxstyle="round,pad=0.02,rounding_size=0.2",
            facecolor="none",
            edgecolor=GREY,
            linestyle="--",
        )
    )
    axes.text(7.65, 0.62, "your objective, a function", ha="center", fontsize=9, color="#4a5568")
    box(0.1, 4.2, 3.2, 1.7, "guide", "NumPyro program,\na strategy per site", ORANGE)
    box(0.1, 1.2, 3.2, 1.7, "model", "NumPyro program", BLUE)
    box(4.5, 4.2, 3.1, 1.7, "simulate", "runs forward", ORANGE)
    box(4.5, 1.2, 3.1, 1.7, "log_density", "at given values", BLUE)
    box(8.7, 2.7, 2.2, 1.7, "Cost", "log p − log q,\nterm by term", GREY)
    box(12.1, 2.7, 2.5, 1.7, "expectation", "strategies and\ncost combined", GREEN)
    arrow((3.35, 5.05), (4.45, 5.05))
    arrow((3.35, 2.05), (4.45, 2.05))
    arrow((6.05, 4.15), (6.05, 2.95))
    axes.text(6.2, 3.55, "trace", fontsize=9, color="#4a5568", va="center")
    arrow((7.65, 4.75), (8.65, 3.95), "log q", 0.45)
    arrow((7.65, 2.35), (8.65, 3.1), "log p", -0.45)
    arrow((10.95, 3.55), (12.05, 3.55))
    arrow((14.65, 3.9), (15.5, 4.6))
    arrow((14.65, 3.2), (15.5, 2.5))
    axes.text(15.6, 4.75, "value", va="center", fontsize=10)
    axes.text(15.6, 2.3, "unbiased\ngradient", va="center", fontsize=10)
    return figure


READINGS = jnp.array(np.random.default_rng(3).normal(0, 1.2, 8))
AT = jnp.array([0.2, -0.3, 0.6])
STRATEGIES = {
    "reinforce, total cost": vi.reinforce,
    "reinforce": vi.reinforce,
    "reinforce, EMA baseline": lambda d: vi.reinforce(d, baseline=vi.EMA()),
    "importance": lambda d: vi.importance(d, dist.Bernoulli(0.5)),
    "rloo(2)": vi.rloo,
    "rloo(4)": lambda d: vi.rloo(d, 4),
    "disarm": vi.disarm,
    "mvd": vi.mvd,
    "leg": vi.leg,
    "enum": vi.enum,
    "gumbel_softmax(0.5)": vi.gumbel_softmax,
    "straight_through": vi.straight_through,
}


def gradient_variance():
    """Variance and time of the gradient, one bar per strategy of the discrete site."""

    def model(params):
        level = numpyro.sample("level", dist.Normal(0.0, 1.0))
        with numpyro.plate("reading", len(READINGS)):
            group = numpyro.sample("group", dist.Bernoulli(0.4))
            numpyro.sample("y", dist.Normal(level + 2 * group - 1, 0.8), obs=READINGS)

    def guide_with(strategy):
        def guide(params):
            level = numpyro.sample("level", dist.Normal(params[0], 0.5))
            with numpyro.plate("reading", len(READINGS)):
                logits = params[1] + params[2] * (READINGS - level)
                numpyro.sample("group", strategy(dist.Bernoulli(logits=logits)))

        return guide

    def gradients(name, num_draws):
        guide = guide_with(STRATEGIES[name])

        @vi.expectation
        def elbo(params):
            trace, log_q = vi.simulate(guide, params)
            cost = vi.log_density(model, trace, params) - log_q
            return cost.total if "total" in name else cost

        def value(params, key, states):
            return elbo.surrogate_with_records(key, states, params)

        def one(key, states):
            return jax.grad(value, has_aux=True)(AT, key, states)

        keys = jax.random.split(jax.random.key(0), num_draws)
        _, (_, records) = jax.vmap(lambda key: one(key, None))(keys)
        states = jax.tree.map(lambda record: record.mean(0), records) or None  # a warm EMA
        run = jax.jit(jax.vmap(lambda key: one(key, states)[0]))
        draws = jax.block_until_ready(run(keys))
        seconds = []
        for _ in range(15):
            start = time.perf_counter()
            jax.block_until_ready(run(keys))
            seconds.append(time.perf_counter() - start)
        return np.asarray(draws), float(np.min(seconds)) / num_draws

    rows = {name: gradients(name, 4000) for name in STRATEGIES}
    variance = [draws.var(axis=0).sum() for draws, _ in rows.values()]
    cost = [seconds for _, seconds in rows.values()]
    cost = np.array(cost) / cost[1]
    biased = [name.startswith(("gumbel", "straight")) for name in rows]
    colours = [
        ORANGE if b else GREY if "total" in n else BLUE for n, b in zip(rows, biased, strict=True)
    ]
    figure, axes = plt.subplots(1, 2, figsize=(8.6, 3.9), sharey=True, width_ratios=(3, 2))
    places = np.arange(len(rows))[::-1]
    for panel, values, form in ((axes[0], variance, "{:,.0f}"), (axes[1], cost, "{:.1f}")):
        panel.barh(places, values, color=colours, height=0.7)
        for place, value in zip(places, values, strict=True):
            panel.text(value, place, " " + form.format(value), va="center", fontsize=8)
    axes[0].set(xscale="log", yticks=places, title="Variance of the gradient", xlabel="one draw")
    axes[0].set_yticklabels(rows)
    axes[0].set_xlim(min(variance) / 2, max(variance) * 3)
    axes[1].set(title="Time", xlabel="relative to reinforce", xlim=(0, max(cost) * 1.2))
    handles = [plt.Rectangle((0, 0), 1, 1, color=c) for c in (BLUE, GREY, ORANGE)]
    axes[0].legend(
        handles, ["unbiased", "unbiased, cost unstructured", "biased"], loc="lower right"
    )
    return figure


def iris():
    """The mixture of the getting-started page."""
    from sklearn.datasets import load_iris

    data = load_iris()
    petal = jnp.array(data.data[:, 2])

    def model(params, petal):
        centres = numpyro.sample("centres", dist.Normal(4.0, 2.0).expand([3]).to_event(1))
        log_spread = numpyro.sample("log_spread", dist.Normal(-1.0, 1.0))
        with numpyro.plate("flower", len(petal)):
            kind = numpyro.sample("kind", dist.Categorical(jnp.full(3, 1 / 3)))
            numpyro.sample("petal", dist.Normal(centres[kind], jnp.exp(log_spread)), obs=petal)

    def guide(params, petal):
        centres = dist.Normal(params["centres"], jnp.exp(params["log_scales"]))
        numpyro.sample("centres", vi.reparam(centres.to_event(1)))
        log_spread = dist.Normal(params["log_spread"], jnp.exp(params["log_width"]))
        numpyro.sample("log_spread", vi.mvd(log_spread))
        with numpyro.plate("flower", len(petal)):
            numpyro.sample("kind", vi.enum(dist.Categorical(logits=params["kinds"])))

    start = jnp.array([1.5, 4.0, 5.5])
    params = {
        "centres": start,
        "log_scales": jnp.full(3, -2.0),
        "log_spread": jnp.array(-1.0),
        "log_width": jnp.array(-2.0),
        "kinds": -((petal[:, None] - start) ** 2),
    }
    result = vi.fit(
        jax.random.key(1), vi.elbo(model, guide), params, optax.adam(0.02), 2000, data=(petal,)
    )
    grid = np.linspace(0.5, 7.5, 300)
    spread = float(jnp.exp(result.params["log_spread"]))
    figure, axes = plt.subplots(1, 2, figsize=(8.6, 3.0), width_ratios=(3, 2))
    bins = np.arange(0.9, 7.2, 0.2)
    for colour, name, k in zip((BLUE, ORANGE, GREEN), data.target_names, range(3), strict=True):
        axes[0].hist(petal[data.target == k], bins, color=colour, alpha=0.35, label=name)
        density = norm.pdf(grid, float(result.params["centres"][k]), spread)
        axes[0].plot(grid, 150 / 3 * 0.2 * density, color=colour)
    axes[0].set(xlabel="petal length (cm)", ylabel="flowers", title="Three kinds, found unlabelled")
    axes[0].legend(title="species")
    objective = result.info.objective
    axes[1].plot(objective, color=GREY, linewidth=0.5, label="one draw", rasterized=True)
    smooth = np.convolve(objective, np.ones(50) / 50, "valid")
    axes[1].plot(np.arange(len(smooth)) + 49, smooth, color=BLUE, label="mean of 50 steps")
    axes[1].set(xlabel="step", title="ELBO", ylim=(np.quantile(objective, 0.02), None))
    axes[1].legend(loc="lower right")
    return figure


def marginal():
    """The ring of the page on marginals, and both estimates of a log density."""
    radius, width = np.sqrt(5), np.exp(-0.5)

    def cone():
        xy = numpyro.sample("xy", dist.Normal(0, 10).expand([2]).to_event(1))
        squared = jnp.sum(xy**2)
        numpyro.sample("z", dist.Normal(squared, 0.1 + squared / 100), obs=5.0)

    def ring(log_scale):
        angle = 2 * jnp.pi * numpyro.sample("u", dist.Uniform(0, 1))
        numpyro.sample("x", dist.Normal(radius * jnp.cos(angle), jnp.exp(log_scale)))
        numpyro.sample("y", dist.Normal(radius * jnp.sin(angle), jnp.exp(log_scale)))

    figure, axes = plt.subplots(1, 2, figsize=(8.6, 3.5), width_ratios=(4, 5))
    grid = jnp.linspace(-2.8, 2.8, 280)
    points = jnp.stack(jnp.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    joint = vi.expectation(lambda xy: vi.log_density(cone, {"xy": xy}))
    log_p = jax.vmap(lambda xy: joint.estimate(jax.random.key(0), xy))(points)
    mass = np.asarray(jnp.exp(log_p - log_p.max())).reshape(280, 280)
    axes[0].imshow(mass, extent=(-2.8, 2.8, -2.8, 2.8), origin="lower", cmap="Blues")
    draws = vi.marginal(ring, ("x", "y"), vi.sir(1))(-3.0, key=jax.random.key(0)).sample(
        jax.random.key(1), (150,)
    )
    axes[0].plot(*draws.T, ".", color=ORANGE, markersize=4)
    axes[0].set(title="The posterior and a guide", xlabel="x", ylabel="y", aspect="equal")
    axes[0].text(0, 0.25, "posterior", color=BLUE, ha="center", va="center")
    axes[0].text(0, -0.25, "draws of the guide", color=ORANGE, ha="center", va="center")

    # At one point on the ring: auxiliary draws from the prior, and for the sampled estimate one of
    # them from the posterior of the auxiliary site, as if it had made the point.
    rng, repeats, counts = np.random.default_rng(0), 4000, np.array([1, 2, 5, 10, 20, 50, 100])

    def density(u):
        x, y = radius * np.cos(2 * np.pi * u), radius * np.sin(2 * np.pi * u)
        return norm.pdf(radius, x, width) * norm.pdf(0.0, y, width)

    fine = (np.arange(20_000) + 0.5) / 20_000
    truth = np.log(density(fine).mean())
    prior = density(rng.random((repeats, counts[-1])))
    shares = density(fine) / density(fine).sum()
    made = density(rng.choice(fine, size=repeats, p=shares))
    for name, colour in (("sampled", ORANGE), ("evaluated", BLUE)):
        if name == "sampled":
            prior = np.concatenate([made[:, None], prior[:, 1:]], axis=1)
        logs = np.log(np.cumsum(prior, axis=1)[:, counts - 1] / counts)
        axes[1].fill_between(
            counts, *np.quantile(logs, [0.1, 0.9], axis=0), color=colour, alpha=0.2, linewidth=0
        )
        axes[1].plot(counts, logs.mean(axis=0), "o-", color=colour, markersize=4, label=name)
        prior = density(rng.random((repeats, counts[-1])))
    axes[1].axhline(truth, color="black", linestyle="--", linewidth=1, label="exact")
    axes[1].set(xscale="log", xticks=counts, ylim=(truth - 9, truth + 6))
    axes[1].set_xticklabels(counts)
    axes[1].minorticks_off()
    axes[1].set(title="Estimates of log q at one point", xlabel="auxiliary draws n of vi.sir(n)")
    axes[1].legend(title="mean, and 80 % of the estimates", loc="upper right", ncols=3)
    figure.tight_layout()
    return figure


def families():
    """Correlations of the eight-schools latents in four Gaussian families."""
    y = jnp.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
    errors = jnp.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])

    def schools():
        mean = numpyro.sample("mean", dist.Normal(0.0, 5.0))
        spread = numpyro.sample("spread", dist.LogNormal(1.0, 0.5))
        with numpyro.plate("schools", len(y)):
            effect = numpyro.sample("effect", dist.Normal(mean, spread))
            numpyro.sample("y", dist.Normal(effect, errors), obs=y)

    names = ["mean", "log spread", *(f"school {i}" for i in range(1, 9))]
    figure, axes = plt.subplots(1, 4, figsize=(8.6, 2.9), sharey=True, layout="constrained")
    for panel, scale in zip(axes, ("meanfield", "lowrank", "structured", "fullrank"), strict=True):
        guide = vi.GaussianGuide(schools, scale=scale)
        start = vi.init_from_pathfinder(jax.random.key(0), guide)
        program = vi.functional(jax.random.key(1), schools, guide, init_params=start)
        bound = vi.elbo(program.model, program.guide, entropy="stl")
        rate = optax.exponential_decay(0.01, 1500, 0.05)
        fitted = vi.fit(jax.random.key(2), bound, program.params, optax.adam(rate), 1500)
        posterior = guide.get_posterior(program.constrain(fitted.params))
        draws = np.asarray(posterior.sample(jax.random.key(3), (20_000,)))
        image = panel.imshow(np.corrcoef(draws.T), cmap="RdBu_r", vmin=-0.8, vmax=0.8)
        panel.axhline(1.5, color="black", linewidth=0.6)
        panel.axvline(1.5, color="black", linewidth=0.6)
        panel.set(title=scale, xticks=[0.5, 5.5], yticks=range(10))
        panel.set_xticklabels(["above", "schools"])
        panel.set_yticklabels(names)
        panel.tick_params(length=0)
    figure.colorbar(image, ax=axes, label="correlation", shrink=0.7, pad=0.01)
    return figure


def objectives():
    """Bounds over the number of particles, and what objectives make of two modes."""

    def model(params, y):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(z, 0.7), obs=y)

    def guide(params, y):
        numpyro.sample("z", dist.Normal(params[0], jnp.exp(params[1])))

    figure, axes = plt.subplots(1, 2, figsize=(8.6, 3.3))
    params, y = jnp.array([0.5, -0.3]), 1.3
    counts = np.array([2, 4, 8, 16, 32, 64, 128])
    keys = jax.random.split(jax.random.key(0), 4000)
    makers = {
        "chi_square": (vi.chi_square, ORANGE),
        "iwelbo": (vi.iwelbo, BLUE),
        "renyi(alpha=0.5)": (vi.renyi, GREEN),
        "elbo": (None, GREY),
    }
    for name, (make, colour) in makers.items():
        values = []
        for count in counts if make else [1]:
            bound = make(model, guide, num_particles=int(count)) if make else vi.elbo(model, guide)
            estimate = jax.jit(jax.vmap(lambda key, b=bound: b.estimate(key, params, y)))
            values.append(float(estimate(keys).mean()))
        values = np.resize(values, len(counts))
        axes[0].plot(counts, values, "o-", markersize=3.5, color=colour)
        place = ("top", -0.008) if make is vi.iwelbo else ("bottom", 0.008)
        text = {"color": colour, "ha": "right", "va": place[0], "fontsize": 9}
        axes[0].text(counts[-1], values[-1] + place[1], name, **text)
    evidence = float(dist.Normal(0.0, (1 + 0.49) ** 0.5).log_prob(y))
    axes[0].axhline(evidence, color="black", linestyle="--", linewidth=1)
    axes[0].text(counts[-1], evidence + 0.008, "log evidence", ha="right", va="bottom", fontsize=9)
    axes[0].set(xscale="log", xticks=counts, xlabel="particles", title="Bounds of the evidence")
    axes[0].set_xticklabels(counts)
    axes[0].minorticks_off()

    def square(params):
        z = numpyro.sample("z", dist.Normal(0.0, 3.0))
        numpyro.sample("y", dist.Normal(z**2, 0.8), obs=4.0)

    def single(params):
        numpyro.sample("z", dist.Normal(params[0], jnp.exp(params[1])))

    grid = np.linspace(-5, 5, 400)
    posterior = np.exp(norm.logpdf(grid, 0, 3) + norm.logpdf(4.0, grid**2, 0.8))
    posterior /= posterior.sum() * (grid[1] - grid[0])
    axes[1].fill_between(grid, posterior, color=GREY, alpha=0.4, linewidth=0, label="posterior")
    fits = {
        "elbo": (vi.elbo(square, single), BLUE, "-"),
        "renyi(alpha=0.5)": (vi.renyi(square, single, num_particles=32), GREEN, "-"),
        "forward_kl": (vi.forward_kl(square, single, num_particles=32), ORANGE, "--"),
    }
    for name, (objective, colour, line) in fits.items():
        rate = optax.cosine_decay_schedule(0.05, 1500)
        start = jnp.array([0.5, 0.0])
        at = vi.fit(jax.random.key(1), objective, start, optax.adam(rate), 1500, num_draws=8).params
        print(name, at)
        axes[1].plot(
            grid,
            norm.pdf(grid, at[0], np.exp(at[1])),
            line,
            color=colour,
            linewidth=1.8,
            label=name,
        )
    axes[1].set(yticks=[], ylim=(0, None), xlabel="z", title="A posterior with two modes")
    axes[1].spines["left"].set_visible(False)
    axes[1].legend(loc="upper left", fontsize=9)
    figure.tight_layout()
    return figure


def structures():
    """One small matrix of every structure of the page on structured linear algebra."""

    def smooth(n, length):
        at = jnp.arange(n)
        return jnp.exp(-0.5 * ((at[:, None] - at) / length) ** 2)

    rng = np.random.default_rng(1)
    normal = lambda *shape: jnp.array(rng.normal(size=shape), jnp.float32)  # noqa: E731
    noise, product = ops.ScaledIdentity(0.5), ops.Kron(smooth(4, 2.0), smooth(6, 1.5), tags=ops.psd)
    seen = np.ones((4, 6), bool)
    seen[1, 2:5] = seen[3, :2] = False
    walk = jnp.array([[1.5, 0.6], [0.6, 1.0]])
    blocks = normal(6, 4, 4)
    of_blocks = (np.array([0, 1, 1, 3, 4, 5]), np.array([1, 0, 4, 3, 2, 5]))
    groups = np.sort(np.array([rng.choice(24, 6, replace=False) for _ in range(3)]), axis=1)
    entries = np.array([rng.choice(24, 3, replace=False) for _ in range(24)]).T
    shown = {
        "Kron": product,
        "Kron + ScaledIdentity": product + noise,
        "Kron + Diag": product + ops.Diag(jnp.linspace(0.1, 2.5, 24)),
        "Masked": ops.Masked(product + noise, seen),
        "KronSum": ops.KronSum(smooth(4, 2.0), smooth(6, 1.5), tags=ops.psd),
        "LowRankPlusDiag": ops.LowRankPlusDiag(normal(24, 2), jnp.full(24, 3.0)),
        "BlockDiag": ops.BlockDiag(2 * jnp.eye(4) + blocks @ blocks.mT / 4),
        "BlockTridiag": ops.BlockTridiag(
            jnp.tile(2 * walk, (12, 1, 1)), jnp.tile(-0.9 * walk, (11, 1, 1))
        ),
        "Toeplitz": ops.Toeplitz(jnp.exp(-jnp.arange(24) / 12) * jnp.cos(jnp.arange(24) / 2.5)),
        "BlockSparse": ops.BlockSparse.from_indices((24, 24), *of_blocks, blocks),
        "GroupedColumns": ops.GroupedColumns.from_indices((24, 24), groups, normal(3, 6, 8)),
        "EntrySparse": ops.EntrySparse.from_columns((24, 24), entries, normal(3, 24)),
    }
    figure, axes = plt.subplots(3, 4, figsize=(8.6, 6.9), layout="constrained")
    for panel, (name, operator) in zip(axes.flat, shown.items(), strict=True):
        matrix = np.asarray(operator.as_matrix())
        if name == "Masked":  # with its holes, so that it compares with the whole
            cells = np.flatnonzero(seen)
            whole = np.full((24, 24), np.nan)
            whole[np.ix_(cells, cells)] = matrix
            matrix = whole
        matrix = matrix / np.nanmax(np.abs(matrix))
        panel.set_facecolor("#cbd5e0")
        image = panel.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1)
        panel.set(title=name, xticks=[], yticks=[])
        for side in panel.spines.values():
            side.set(visible=True, color=GREY)
    colours = figure.colorbar(image, ax=axes, shrink=0.4, pad=0.01, ticks=[-1, 0, 1])
    colours.set_label("entry, over the largest")
    return figure


def draws_of_kernels():
    """Two draws from the process of each of nine kernels."""
    with jax.enable_x64(True):  # smooth kernels need no visible jitter then
        return _draws_of_kernels()


def _draws_of_kernels():
    x = jnp.linspace(0.0, 4.0, 200)
    lines = kernels.Linear(0.3, 2.0)
    shown = {
        "RBF": kernels.RBF(0.5),
        "Matern12": kernels.Matern12(0.5),
        "Matern52": kernels.Matern52(0.5),
        "RationalQuadratic": kernels.RationalQuadratic(0.3, 0.3),
        "Periodic": kernels.Periodic(0.7, 1.0),
        "SpectralMixture": kernels.SpectralMixture(
            jnp.array([0.7, 0.3]), jnp.array([0.1, 2.0]), jnp.array([0.4, 2.5])
        ),
        "ArcCosine(1)": kernels.ArcCosine(1, 0.5, 1.0, 0.05),
        "Linear + Periodic": lines + 0.3 * kernels.Periodic(1.0, 1.0),
        "Periodic * Matern32": kernels.Periodic(0.7, 1.0) * kernels.Matern32(1.0),
    }
    figure, axes = plt.subplots(3, 3, figsize=(8.6, 5.2), sharex=True, layout="constrained")
    for panel, (name, kernel) in zip(axes.flat, shown.items(), strict=True):
        root = ops.Dense(kernel.gram(x), ops.psd).root()
        for key, colour in ((0, BLUE), (1, ORANGE)):
            draw = root @ np.random.default_rng(key).normal(size=x.size)
            panel.plot(x, draw, color=colour)
        panel.set_title(name)
        panel.set_yticks([])
    return figure


def gaussian_processes():
    """A posterior, bounds over inducing points, and a grid with gaps."""
    with jax.enable_x64(True):
        return _gaussian_processes()


def _gaussian_processes():
    figure, axes = plt.subplots(1, 3, figsize=(10.4, 3), width_ratios=(1.25, 1, 1))
    rng = np.random.default_rng(4)
    x = np.sort(np.concatenate([rng.uniform(0, 1.6, 22), rng.uniform(2.6, 4, 18)]))
    y = np.sin(3 * x) + 0.15 * rng.normal(size=x.size)
    start = gp.GP(kernels.Matern52(1.0), noise_var=0.1)
    best = gp.minimise(lambda p: -p(x).log_prob(y), start)
    posterior, at = gp.condition(best.params, x, y), np.linspace(-0.2, 4.4, 300)
    function = posterior.marginal(at)
    half = 1.96 * function.scale
    low, high = function.mean - half, function.mean + half
    axes[0].fill_between(at, low, high, color=BLUE, alpha=0.15, linewidth=0)
    draws = gp.pathwise(jax.random.key(0), posterior, 4)
    axes[0].plot(at, draws(at).T, color=ORANGE, linewidth=0.7)
    axes[0].plot(at, function.mean, color=BLUE)
    axes[0].plot(x, y, ".", color="black", markersize=4)
    axes[0].set_title("condition, pathwise")
    sizes = np.arange(3, 19)
    points = gp.greedy_points(best.params.kernel, x, int(sizes[-1])).points
    for options, colour, name in (
        ({"blocks": 4}, GREEN, "blocks"),
        ({}, BLUE, "tightened"),
        ({"tight": False}, ORANGE, "Titsias 2009"),
    ):
        bounds = [
            gp.sgpr(best.params, x, inducing_points=points[:m], **options).log_prob(y)
            for m in sizes
        ]
        axes[1].plot(sizes, bounds, color=colour, label=name)
    axes[1].axhline(-best.objective, color="black", linewidth=0.8, label="evidence")
    axes[1].set(title="sgpr", xlabel="inducing points", ylabel="nats", ylim=(-60, None))
    axes[1].legend(loc="lower right", fontsize=8)
    grid = gp.Grid(np.linspace(0, 1, 60), np.linspace(0, 1, 50))
    process = gp.GP(kernels.Matern52(0.25).on(0) * kernels.Matern52(0.35).on(1), noise_var=0.01)
    surface = process(grid).sample(jax.random.key(3)).reshape(grid.shape)
    seen = np.ones(grid.shape, bool)
    seen[12:26, 10:30] = seen[35:52, 28:44] = False
    filled = gp.condition(process, grid, surface, mask=seen).mean(grid).reshape(grid.shape)
    both = np.concatenate([np.where(seen, surface, np.nan), filled], axis=1)
    axes[2].imshow(both, cmap="viridis", aspect="auto")
    axes[2].axvline(49.5, color="white", linewidth=2)
    axes[2].set(title="a grid and its gaps filled", xticks=[], yticks=[])
    figure.tight_layout()
    return figure


def state_space():
    """A long series with a gap: forecast, parts of the sum, and what the filter costs."""
    with jax.enable_x64(True):
        return _state_space()


def _state_space():
    figure, axes = plt.subplots(1, 2, figsize=(10.4, 3), width_ratios=(1.6, 1))
    rng = np.random.default_rng(2)
    times = np.sort(rng.uniform(0, 12, 260))
    times = times[(times < 4.5) | (times > 6)]
    truth = 0.25 * times + np.sin(2 * np.pi * times) * np.exp(-0.05 * times)
    y = truth + 0.25 * rng.normal(size=times.size)
    trend, season = kernels.Matern32(6.0, 2.0), kernels.SHO(1.0, 20.0, 0.6)
    post = ssm.MarkovGP(trend + season, times, noise_var=0.06).condition(y)
    at = np.linspace(0, 14, 700)
    f, slow = post.marginal(at), post.moments(at, term=0)[0]
    low, high = f.mean - 1.96 * f.scale, f.mean + 1.96 * f.scale
    axes[0].fill_between(at, low, high, color=BLUE, alpha=0.15, linewidth=0)
    axes[0].plot(at, f.mean, color=BLUE, linewidth=1, label="all")
    axes[0].plot(at, slow, color=ORANGE, label="term 0, the trend")
    axes[0].plot(times, y, ".", color="black", markersize=2.5)
    axes[0].set_title("condition, marginal")
    axes[0].legend(loc="upper left", fontsize=8)
    draws = post.sample(jax.random.key(1), at, (3,))
    axes[1].plot(at, draws.T, linewidth=0.7, color=GREEN)
    axes[1].plot(times, y, ".", color="black", markersize=2.5)
    axes[1].set(title="sample: the gap and the forecast", xlim=(3.5, 14))
    figure.tight_layout()
    return figure


def sparse():
    """Support recovery over the number of measurements, a field, and a horseshoe's intervals."""
    with jax.enable_x64(True):
        return _sparse()


def _sparse():
    figure, axes = plt.subplots(1, 3, figsize=(10.4, 3), width_ratios=(1.1, 1.2, 1))
    sizes = (8, 11, 14, 17, 20, 24, 28)
    for (name, recovered), colour in zip(
        _recovered(sizes).items(), (BLUE, ORANGE, GREEN), strict=True
    ):
        axes[0].plot(sizes, recovered, ".-", color=colour, label=name)
    axes[0].set(title="support found", xlabel="measurements of 60 unknowns", ylim=(0, 1.02))
    axes[0].legend(loc="lower right", fontsize=8)
    rng = np.random.default_rng(5)
    field = np.zeros((30, 24))
    field[np.ix_([4, 5, 6, 19, 20], [3, 4, 14, 15, 16])] = rng.normal(size=(5, 5)) + 2
    factors = rng.normal(size=(18, 30)), rng.normal(size=(14, 24))
    measured = factors[0] @ field @ factors[1].T + 2.0 * rng.normal(size=(18, 14))
    found = sbl.kron_sbl(factors, measured).mean
    both = np.concatenate([field, found], axis=1)
    axes[1].imshow(both, cmap="RdBu_r", vmin=-4, vmax=4, aspect="auto")
    axes[1].axvline(23.5, color="black", linewidth=1)
    axes[1].set(title="720 unknowns, 252 measurements", xticks=[], yticks=[])
    truth = np.array([1.5, -1.0, 0.5, 0, 0, 0, 0, 0, 0, 0])
    design = rng.normal(size=(30, 10))
    y = design @ truth + 0.5 * rng.normal(size=30)

    def model():
        noise = numpyro.sample("noise", dist.HalfNormal(1.0))
        w = sbl.regularized_horseshoe("w", 10, num_nonzero=3, num_data=30, noise_scale=noise)
        numpyro.sample("y", dist.Normal(design @ w, noise), obs=y)

    kernel = NUTS(model, target_accept_prob=0.95)
    mcmc = MCMC(kernel, num_warmup=500, num_samples=1000, progress_bar=False)
    mcmc.run(jax.random.key(0))
    low, high = np.quantile(mcmc.get_samples()["w"], [0.05, 0.95], axis=0)
    least, scale = np.linalg.lstsq(design, y)[0], np.sqrt(np.diag(np.linalg.inv(design.T @ design)))
    at = np.arange(10)
    axes[2].vlines(at - 0.15, least - 0.82 * scale, least + 0.82 * scale, color=GREY, linewidth=3)
    axes[2].vlines(at + 0.15, low, high, color=BLUE, linewidth=3)
    axes[2].plot(at, truth, "_", color="black", markersize=12)
    axes[2].set(title="horseshoe, least squares (grey)", xlabel="weight", xticks=at)
    figure.tight_layout()
    return figure


def _recovered(sizes):
    """How often the five columns with the largest weights are the right ones, in 60 problems."""
    rng = np.random.default_rng(1)
    truth = np.zeros((60, 60))
    for row in truth:
        row[rng.choice(60, 5, replace=False)] = rng.choice([-1, 1], 5) * rng.uniform(0.5, 1.5, 5)
    methods = {
        "sbl": lambda x, y: sbl.sbl(x, y, noise_var=1e-3).mean,
        "lasso": lambda x, y: sbl.fista(x, y, sbl.L1(0.1)).weights,
        "matching pursuit": lambda x, y: sbl.orthogonal_matching_pursuit(x, y, num_nonzero=5).mean,
    }
    found = {name: [] for name in methods}
    for n in sizes:
        design = rng.normal(size=(60, n, 60))
        y = np.einsum("bnm,bm->bn", design, truth) + 0.03 * rng.normal(size=(60, n))
        for name, method in methods.items():
            mean = jax.jit(jax.vmap(method))(design, y)
            order = np.argsort(-np.abs(mean), axis=1)[:, :5]
            found[name].append(np.mean(np.all(np.take_along_axis(truth, order, 1) != 0, axis=1)))
    return found


def calibration():
    """The report's pictures for an exact posterior and for one that is too narrow."""
    figure, axes = plt.subplots(2, 3, figsize=(8.6, 4.6), layout="constrained")
    rng = np.random.default_rng(0)
    covariance = np.linalg.inv([[49.0, 72.0], [72.0, 151.0]])
    mean = rng.normal(size=(500, 2))
    truths = mean + rng.multivariate_normal(np.zeros(2), covariance, 500)
    exact = mean + rng.multivariate_normal(np.zeros(2), covariance, (99, 500))
    narrow = mean + rng.normal(size=(99, 500, 2)) / np.sqrt([49.0, 151.0])
    for row, draws, colour in ((axes[0], exact, BLUE), (axes[1], narrow, ORANGE)):
        report = diagnostics.calibration_report(
            jax.random.key(0), draws, truths, names=["base", "slope"]
        )
        tests, joint = report.sbc.uniformity, report.tarp
        assert joint is not None
        for axis, name, ecdf in zip(row[:2], report.findings, tests.ecdf, strict=True):
            ends = tests.lower - tests.points, tests.upper - tests.points
            axis.fill_between(tests.points, *ends, color=GREY, alpha=0.4, linewidth=0)
            axis.step(tests.points, ecdf - tests.points, color=colour)
            title = f"{name}: {report.findings[name].split(':')[0]}"
            axis.set(title=title, xlabel="rank of the truth", ylim=(-0.2, 0.2))
        row[2].fill_between(joint.levels, joint.lower, joint.upper, color=colour, alpha=0.25)
        row[2].plot(joint.levels, joint.coverage, color=colour)
        row[2].plot([0, 1], [0, 1], color="black", linewidth=0.8)
        row[2].set(title="expected coverage", xlabel="credibility level")
        row[0].set_ylabel("ECDF less uniform")
    return figure


def functional_priors():
    """Random networks before and after their prior is matched to a process, and the process."""
    network = eqx.nn.MLP(1, "scalar", 50, 1, activation=jnp.tanh, key=jax.random.key(0))
    inputs, grid = jnp.linspace(-3, 3, 40)[:, None], jnp.linspace(-3, 3, 121)[:, None]
    process = gp.GP(kernels.RBF(lengthscale=0.9))
    start = bnn.normal_prior(network)
    unit = [jnp.sqrt(value[0].size if value.ndim > 1 else 1.0) for value in start.like]
    unit = eqx.tree_at(lambda prior: prior.scales, start, tuple(unit))  # N(0, 1) of all weights
    measure, sliced = bnn.MeasurementSet(inputs, 40), bnn.SlicedWasserstein()
    matched = bnn.match_prior(jax.random.key(1), start, process, measure, discrepancy=sliced)
    key = jax.random.key(2)
    panels = {
        "N(0, 1) weights": (unit.sample_functions(key, grid, 14), ORANGE),
        "matched prior": (matched.prior.sample_functions(key, grid, 14), BLUE),
        "the process": (process.latent(grid).sample(key, (14,)), GREY),
    }
    figure, axes = plt.subplots(1, 3, figsize=(8.6, 2.5), layout="constrained")
    for ax, (title, (curves, colour)) in zip(axes, panels.items(), strict=True):
        ax.plot(grid[:, 0], np.asarray(curves).T, color=colour, linewidth=0.9, alpha=0.85)
        ax.set_title(title, loc="left")
        ax.set_xlabel("x")
    for ax in axes[1:]:
        ax.set_ylim(-3.5, 3.5)
    axes[0].set_ylabel("function")
    return figure


def networks():
    """Which pixels the active weights of a sparse network read, over its training."""
    of = datasets.digits(jax.random.key(0))
    model = eqx.nn.MLP(64, 10, 256, 2, key=jax.random.key(1))
    network = bnn.sparsify(jax.random.key(2), model, 0.05, group=8)
    q = bnn.sparse_mean_field(network, lambda f: dist.Categorical(logits=f), prior_scale=0.3)
    steps, shown = 1600, (0, 200, 600, 1600)
    adam = optax.adam(optax.cosine_decay_schedule(3e-3, steps))
    kinds = {"moves": 50, "static": None}
    correct, readers = {}, []
    for name, every in kinds.items():
        algorithm = bnn.ssvi(
            q, adam, num_data=len(of.x), num_steps=steps, kl_weight=0.1, move_every=every
        )
        state, correct[name] = algorithm.init(), []
        for part in range(17):
            if part:
                state = bayesjx.fit(
                    jax.random.key(part), algorithm, state, 100, data=(of.x, of.y), batch_size=128
                ).state
            end = q.trained(state)
            guess = jax.vmap(end.mean_network())(of.x_test)
            correct[name].append(float(np.mean(np.argmax(guess, 1) == of.y_test)))
            if name == "moves" and 100 * part in shown:
                readers.append(np.asarray(end.weights[0].mask()).sum(axis=1).reshape(8, 8))
    figure, axes = plt.subplots(1, 5, figsize=(8.6, 2.1), width_ratios=(1, 1, 1, 1, 2))
    for panel, step, count in zip(axes[:4], shown, readers, strict=True):
        panel.imshow(count, cmap="Blues", vmin=0, vmax=readers[-1].max())
        panel.set(title=f"step {step}", xticks=[], yticks=[])
    for (name, each), colour in zip(correct.items(), (BLUE, GREY), strict=True):
        axes[4].plot(100 * np.arange(17), each, color=colour, label=name)
    axes[4].set(title="test accuracy", xlabel="step", ylim=(min(correct["moves"][2:]) - 0.05, 1))
    axes[4].legend(loc="lower right")
    return figure


def laplace():
    """Reliability of a network trained on 200 digits, and calibrated; scores over the prior."""
    figure, axes = plt.subplots(1, 3, figsize=(10.4, 3), width_ratios=(1, 1, 1.3))
    digits, order = load_digits(), np.random.default_rng(0).permutation(1797)
    x = jnp.asarray(digits.data[order] / 16.0, jnp.float32)
    y = jnp.asarray(digits.target[order])
    network = _trained_on_digits(x[:200], y[:200])
    likelihood = lambda f: dist.Categorical(logits=f)  # noqa: E731
    best = {}
    for (name, colour), label in zip(
        (("kron", BLUE), ("last_layer", ORANGE)), ("Kronecker", "last layer"), strict=True
    ):
        found = bnn.laplace(
            network, x[:200], y[:200], likelihood, structure=name, prior_precision=1e-4
        )
        best[name] = bnn.calibrate_laplace(found, x[200:300], y[200:300])
        precisions = 1e-4 * best[name].factors
        axes[2].semilogx(
            precisions, best[name].log_predictive_prob, ".-", color=colour, label=label
        )
    alone = jax.nn.softmax(jax.vmap(network)(x[200:]))
    axes[2].axhline(
        -diagnostics.log_score(alone[:100], y[200:300]), color=GREY, linewidth=1, label="network"
    )
    axes[2].set(title="held-out nats a digit", xlabel="prior precision", ylim=(-0.8, 0))
    axes[2].legend(loc="lower right", fontsize=8)
    both = alone[100:], best["kron"].posterior.predict(x[300:]).probs
    for panel, name, probs in zip(axes, ("the network", "calibrated"), both, strict=False):
        bins = diagnostics.reliability(probs, y[300:], num_bins=10)
        error = diagnostics.calibration_error(probs, y[300:])
        panel.plot([0, 1], [0, 1], color=GREY, linewidth=0.8)
        panel.bar(np.arange(10) / 10 + 0.05, bins.accuracy, 0.09, color=BLUE, alpha=0.25)
        some = bins.count >= 5
        panel.plot(bins.confidence[some], bins.accuracy[some], "o", color=BLUE, markersize=4)
        score = diagnostics.log_score(probs, y[300:])
        panel.set(
            title=f"{name}: {score:.3f} nats, error {error:.3f}",
            xlabel="confidence",
            ylabel="accuracy",
        )
    figure.tight_layout()
    return figure


def _trained_on_digits(x, y):
    """A hidden layer of 32 units, by Adam with a weight decay of 1e-4."""
    network = eqx.nn.MLP(64, 10, 32, 1, activation=jnp.tanh, key=jax.random.key(0))
    arrays, rest = eqx.partition(network, eqx.is_array)
    adam = optax.adam(optax.cosine_decay_schedule(0.01, 2000))

    def loss(arrays):
        logits = jax.vmap(eqx.combine(arrays, rest))(x)
        fit = optax.softmax_cross_entropy_with_integer_labels(logits, y).sum()
        return fit + 0.5e-4 * sum(jnp.sum(a**2) for a in jax.tree.leaves(arrays))

    def step(carry, _):
        arrays, state = carry
        updates, state = adam.update(jax.grad(loss)(arrays), state)
        return (optax.apply_updates(arrays, updates), state), None

    run = jax.jit(lambda arrays: jax.lax.scan(step, (arrays, adam.init(arrays)), None, 2000)[0][0])
    return eqx.combine(run(arrays), rest)


def amortised():
    """The shipped network of Gaussian processes beside NUTS over the same hyper-parameters."""
    network = amortized.pretrained("gp")
    grid = np.linspace(0, 1, 121)[:, None]
    rng = np.random.default_rng(4)
    figure, axes = plt.subplots(1, 3, figsize=(8.6, 2.7), sharey=True)
    x = np.concatenate([rng.uniform(0, 0.35, 7), rng.uniform(0.6, 1, 7)])
    order = rng.permutation(14)
    y = np.sin(9 * x) + 0.1 * rng.normal(size=14)
    for ax, n in zip(axes, (2, 6, 14), strict=True):
        rows = order[:n]
        posterior = network.condition(x[rows], y[rows]).predict(grid[:, 0])
        low, middle, high = (np.asarray(posterior.icdf(q)) for q in (0.05, 0.5, 0.95))
        ax.fill_between(grid[:, 0], low, high, color=BLUE, alpha=0.25, lw=0, label="network, 90 %")
        ax.plot(grid[:, 0], middle, color=BLUE)
        draws = _predicted_by_nuts(x[rows, None], y[rows], grid)
        for q in (0.05, 0.5, 0.95):
            label = "NUTS" if q == 0.5 else None
            ax.plot(grid[:, 0], np.quantile(draws, q, axis=0), color=ORANGE, lw=1, label=label)
        ax.plot(x[rows], y[rows], ".", color="black", ms=6)
        ax.set(title=f"{n} observations", xlabel="x", ylim=(-2.6, 2.6))
    axes[0].legend(loc="lower left", fontsize=8)
    return figure


def _predicted_by_nuts(x, y, grid):
    """Draws of new observations of a Gaussian process with the priors of the shipped network."""

    def model():
        lengthscale = numpyro.sample("lengthscale", dist.Gamma(3.0, 6.0))
        variance = numpyro.sample("variance", dist.Gamma(2.0, 2.0))
        noise_scale = numpyro.sample("noise_scale", dist.LogNormal(jnp.log(0.1), 0.5))
        kernel = kernels.Matern52(lengthscale, variance)
        numpyro.sample("y", gp.GP(kernel, noise_var=noise_scale**2)(x), obs=y)

    mcmc = MCMC(NUTS(model), num_warmup=300, num_samples=400, progress_bar=False)
    mcmc.run(jax.random.key(0))

    def draw(key, s):
        kernel = kernels.Matern52(s["lengthscale"], s["variance"])
        posterior = gp.condition(gp.GP(kernel, noise_var=s["noise_scale"] ** 2), x, y)
        return posterior.predict(grid).sample(key)

    keys = jax.random.split(jax.random.key(1), 400)
    return np.asarray(jax.vmap(draw)(keys, mcmc.get_samples()))


def few_shot():
    """One sinusoid from five observations, by NIW-Meta and by MAML, trained on more tasks."""
    steps, shots = 3000, 5

    def task(key, rows=2 * shots):
        keys = jax.random.split(key, 3)
        amplitude = jax.random.uniform(keys[0], minval=0.1, maxval=5.0)
        phase = jax.random.uniform(keys[1], maxval=jnp.pi)
        x = jax.random.uniform(keys[2], (rows, 1), minval=-5.0, maxval=5.0)
        return x, amplitude * jnp.sin(x[:, 0] - phase)

    network = eqx.nn.MLP(1, "scalar", 40, 2, activation=jnp.tanh, key=jax.random.key(0))
    adam = optax.adam(optax.cosine_decay_schedule(1e-2, steps))
    start = amortized.NIWMeta(network, likelihoods.Gaussian(0.1))
    training = amortized.niw_meta(start, adam, task)
    fit = bayesjx.fit(jax.random.key(1), training, training.init(), steps)
    meta = bayesjx.trained(start, fit.state)
    maml, scale = _maml(network, task, shots, 4 * steps)
    grid = np.linspace(-5, 5, 201)[:, None]
    x, y = task(jax.random.key(6), shots)
    figure, axes = plt.subplots(1, 2, figsize=(8.6, 2.8), sharey=True, layout="constrained")
    curve = meta.adapt(jax.random.key(2), x, y, num_samples=200)
    mean, deviation = (
        np.asarray(v) for v in (curve.mean(grid), curve.predict(grid).variance ** 0.5)
    )
    by_maml = np.asarray(jax.vmap(maml(x, y))(grid))
    for ax, name, centre, wide, colour in (
        (axes[0], "NIW-Meta, 90 %", mean, deviation, BLUE),
        (axes[1], "MAML, 90 % by its mean error", by_maml, scale, ORANGE),
    ):
        ax.fill_between(
            grid[:, 0], centre - 1.645 * wide, centre + 1.645 * wide, color=colour, alpha=0.25, lw=0
        )
        ax.plot(grid[:, 0], centre, color=colour)
        amplitude, phase = _sinusoid_of(jax.random.key(6))
        ax.plot(grid[:, 0], amplitude * np.sin(grid[:, 0] - phase), "--", color=GREY)
        ax.plot(x[:, 0], y, "o", color="black", ms=4)
        ax.set(title=name, xlabel="x")
    return figure


def _sinusoid_of(key):
    keys = jax.random.split(key, 3)
    amplitude = jax.random.uniform(keys[0], minval=0.1, maxval=5.0)
    return float(amplitude), float(jax.random.uniform(keys[1], maxval=jnp.pi))


def _maml(network, task, shots, steps, inner_steps=5, inner_lr=0.02):
    """From a support set to a network, and the deviation of its errors on new tasks."""
    start, rest = eqx.partition(network, eqx.is_inexact_array)
    adam = optax.adam(optax.cosine_decay_schedule(2e-3, steps))

    def adapted(arrays, x, y):
        loss = lambda a: jnp.mean((jax.vmap(eqx.combine(a, rest))(x) - y) ** 2)  # noqa: E731
        for _ in range(inner_steps):
            slope = jax.grad(loss)(arrays)
            arrays = jax.tree.map(lambda a, g: a - inner_lr * g, arrays, slope)
        return eqx.combine(arrays, rest)

    def error(arrays, key):
        x, y = task(key)
        made = adapted(arrays, x[:shots], y[:shots])
        return jnp.mean((jax.vmap(made)(x[shots:]) - y[shots:]) ** 2)

    def total(arrays, key):
        return jnp.mean(jax.vmap(lambda key: error(arrays, key))(jax.random.split(key, 16)))

    def step(carry, key):
        arrays, state = carry
        value, slope = jax.value_and_grad(total)(arrays, key)
        updates, state = adam.update(slope, state)
        return (optax.apply_updates(arrays, updates), state), value

    keys = jax.random.split(jax.random.key(1), steps)
    run = jax.jit(lambda a: jax.lax.scan(step, (a, adam.init(a)), keys))
    (arrays, _), errors = run(start)
    return lambda x, y: adapted(arrays, x, y), float(np.mean(errors[-200:])) ** 0.5


FIGURES = {
    "programmable-vi": programmable_vi,
    "gradient-variance": gradient_variance,
    "iris": iris,
    "marginal": marginal,
    "families": families,
    "objectives": objectives,
    "structures": structures,
    "kernels": draws_of_kernels,
    "gaussian-processes": gaussian_processes,
    "state-space": state_space,
    "sparse": sparse,
    "calibration": calibration,
    "functional-priors": functional_priors,
    "networks": networks,
    "laplace": laplace,
    "amortized": amortised,
    "few-shot": few_shot,
}


def main(names: list[str]) -> None:
    STATIC.mkdir(exist_ok=True)
    with plt.rc_context(STYLE):
        for name in names or FIGURES:
            figure = FIGURES[name]()
            figure.savefig(
                STATIC / f"{name}.svg",
                bbox_inches="tight",
                facecolor="white",
                metadata={"Date": None},
            )
            plt.close(figure)
            print(name)


if __name__ == "__main__":
    main(sys.argv[1:])
