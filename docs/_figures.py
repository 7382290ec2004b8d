"""Draw the pictures of the pages into docs/_static: `python docs/_figures.py [NAME ...]`."""

import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from jax.scipy.stats import norm

from bayesjx import vi

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


FIGURES = {
    "programmable-vi": programmable_vi,
    "gradient-variance": gradient_variance,
    "iris": iris,
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
