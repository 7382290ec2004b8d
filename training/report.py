"""Is a network that comes with the package calibrated? `python -m training.report NAME`.

Draws data sets that the network has not seen from the prior that it was trained on, and writes
`training/NAME-report.txt`, for each of some sizes of the context. One query of each data set is
judged, so that values are independent.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayesjx import amortized, diagnostics
from training.__main__ import RECIPES

ROOT = Path(__file__).resolve().parents[1]
SETS = 2000


def judged(name: str, seed: int = 1000) -> str:
    """The report as a text."""
    network, recipe = amortized.pretrained(name), RECIPES[name]
    prior, _ = recipe.make(jax.random.key(0))
    tasks = jax.jit(jax.vmap(prior))(jax.random.split(jax.random.key(seed), SETS))
    context = tasks.y.shape[1] - recipe.num_queries
    sizes = [n for n in (0, 1, 3, 10, 30, 64, 96) if n <= context]
    if name.startswith("table"):
        sizes = [n for n in sizes if n >= 10]
    about = amortized.about_network(name)["about"]
    real = network.head.num_classes is None
    rows = [_real(network, tasks, context, n) if real else _classes(network, tasks, context, n)
            for n in sizes]  # fmt: skip
    header = (
        ("rows", "log score", "CRPS", "50 %", "90 %", "shift", "scale", "p-value")
        if real
        else ("rows", "log score", "accuracy", "ECE", "confidence")
    )
    lines = [
        f"{name}: {about['trained_for']}",
        f"{about['data_sets']} data sets of training; {SETS} new ones here, a query of each.",
        "",
        "  ".join(f"{word:>10}" for word in header),
        *("  ".join(f"{value:>10.4g}" for value in row) for row in rows),
        "",
    ]
    if real:
        lines += [
            "shift: by how many of its standard deviations predictions are too low; scale: by what",
            "they should be multiplied; p-value: of uniform probability integral transforms.",
        ]
    return "\n".join(lines) + "\n"


def _predictions(network: Any, tasks: Any, context: int, size: int) -> tuple[Any, Any]:
    """What is judged of the first query of each data set, and its target."""
    found = _found(network, tasks.x[:, : context + 1], tasks.y[:, : context + 1], size)
    return np.asarray(found), np.asarray(tasks.y[:, context])


@jax.jit
def _found(network: Any, x: Any, y: Any, size: Any) -> Any:
    def one(x: Any, y: Any) -> Any:
        mask = jnp.arange(len(y) - 1) < size
        d = network.condition(x[:-1], y[:-1], mask=mask).predict(x[-1:])
        if network.head.num_classes is not None:
            return d.probs[0]
        quantiles = d.icdf(jnp.array([[0.05], [0.25], [0.75], [0.95]]))[:, 0]
        return jnp.concatenate([d.log_prob(y[-1]), d.cdf(y[-1]), d.crps(y[-1]), quantiles])

    return jax.lax.map(lambda task: one(*task), (x, y), batch_size=50)


def _real(network: Any, tasks: Any, context: int, size: int) -> list[float]:
    found, y = _predictions(network, tasks, context, size)
    log_score, transform, crps, low, lower, upper, high = found.T
    check = diagnostics.uniformity(transform)
    return [
        size, log_score.mean(), crps.mean(), np.mean((lower < y) & (y < upper)),
        np.mean((low < y) & (y < high)), float(check.score_mean), float(check.score_scale),
        float(check.p_value),
    ]  # fmt: skip


def _classes(network: Any, tasks: Any, context: int, size: int) -> list[float]:
    probs, y = _predictions(network, tasks, context, size)
    probs = probs / probs.sum(axis=1, keepdims=True)
    return [
        size,
        float(np.mean(np.log(probs[np.arange(len(y)), y]))),
        float(np.mean(probs.argmax(axis=1) == y)),
        float(diagnostics.calibration_error(probs, y)),
        float(probs.max(axis=1).mean()),
    ]


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="python -m training.report", description=__doc__)
    parser.add_argument("name", choices=sorted(RECIPES))
    name = parser.parse_args().name
    text = judged(name)
    (ROOT / "training" / f"{name}-report.txt").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
