"""Trains a network that comes with the package: `python -m training NAME --steps 10000`.

Writes `bayesjx/amortized/networks/NAME.network` and the learning curve, `training/NAME.log`. What
was interrupted goes on from its checkpoint.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

import bayesjx
from bayesjx import amortized
from training import gp, tables

ROOT = Path(__file__).resolve().parents[1]


class Recipe(NamedTuple):
    """How a network is trained.

    Attributes:
        make: from a key to a prior and a network.
        num_queries: rows of a data set that are predicted.
        batch_size: data sets of a step.
        learning_rate: of Adam, at its highest.
        about: what the network was trained for.
        origin: what is trained already of the network that `make` returns, and on how many data
            sets; an empty text and 0 for nothing.
    """

    make: Callable[[jax.Array], tuple[Any, Any]]
    num_queries: int
    batch_size: int
    learning_rate: float
    about: str
    origin: Callable[[], tuple[str, int]] = lambda: ("", 0)


RECIPES = {
    "gp": Recipe(gp.make, gp.QUERIES, 32, 1e-3, gp.ABOUT),
    "table-classes": Recipe(
        tables.make_classifier, tables.QUERIES, 16, 1e-3, tables.CLASSIFIER, tables.origin
    ),
    "table-values": Recipe(
        tables.make_regressor, tables.QUERIES, 16, 1e-3, tables.REGRESSOR, tables.origin
    ),
}


def train(name: str, steps: int, seed: int, cache: Path, start: Path | None = None) -> None:
    """Trains, with checkpoints, and writes the network and its log."""
    recipe = RECIPES[name]
    key_make, key_fit = jax.random.split(jax.random.key(seed))
    prior, network = recipe.make(key_make)
    origin = recipe.origin()
    if start is not None:
        network = amortized.load_network(start, like=network)
        origin = "an earlier run", amortized.about_network(start)["about"]["data_sets"]
    schedule = optax.warmup_cosine_decay_schedule(0, recipe.learning_rate, steps // 10, steps)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule, b2=0.98))
    algorithm = amortized.pfn_training(
        network,
        prior,
        optimizer,
        batch_size=recipe.batch_size,
        num_queries=recipe.num_queries,
    )
    cache.mkdir(parents=True, exist_ok=True)
    started = time.process_time()
    result = bayesjx.fit(
        key_fit,
        algorithm,
        algorithm.init(),
        steps,
        progress=True,
        chunk_size=min(100, steps),
        checkpoint=cache / f"{name}-{steps}.fit",
    )
    curve = np.asarray(result.info.objective, np.float64)
    blocks = np.array_split(curve, min(40, len(curve)))
    lines = [
        f"{name}: {recipe.about}",
        f"steps {steps}, batch size {recipe.batch_size}, seed {seed}, parameters "
        f"{num_parameters(network)}, CPU seconds of the last run "
        f"{time.process_time() - started:.0f}",
    ]
    if origin[1]:
        lines.append(f"goes on from {origin[0]}, trained on {origin[1]} data sets before")
    lines += ["", "step  mean log score of queries, nats"]
    done = 0
    for block in blocks:
        done += len(block)
        lines.append(f"{done:6d}  {block.mean():.4f}")
    (ROOT / "training" / f"{name}.log").write_text("\n".join(lines) + "\n")
    about = {
        "trained_for": recipe.about,
        "steps": steps,
        "data_sets": steps * recipe.batch_size + origin[1],
        "seed": seed,
        "log_score": round(float(blocks[-1].mean()), 4),
    }
    path = ROOT / "bayesjx" / "amortized" / "networks" / f"{name}.network"
    amortized.save_network(path, bayesjx.trained(network, result.state), about)
    print(f"{path}: {path.stat().st_size} bytes")


def num_parameters(network: Any) -> int:
    """Number of numbers in a network."""
    return sum(leaf.size for leaf in jax.tree.leaves(network) if hasattr(leaf, "size"))


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("name", choices=sorted(RECIPES))
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=Path, help="a network of an earlier run to go on from")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "training")
    options = parser.parse_args()
    train(options.name, options.steps, options.seed, options.cache, options.start)


if __name__ == "__main__":
    main()
