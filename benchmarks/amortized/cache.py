"""Queries with kept keys and values: their time, their bits, and the public package beside."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from benchmarks._declare import Benchmark, Figure, Target
from benchmarks._report import Report
from benchmarks._timing import compare, compiled_memory

ROWS = {"full": 1000, "quick": 500}
BARS = 100
NETWORK: dict[str, Any] = {"width": 64, "depth": 4, "heads": 4}
MANY = 200  # queries of which any subset must give the same bits
PEER_SIZES = ((1, 20, 20), (1, 500, 500))  # data sets, rows of context, queries

TARGETS = (
    Target("one_query", ">=", 50, quick=10, unit="×", meaning="joint pass ÷ kept keys, one query"),
    Target("bits", "==", 0, meaning="queries whose bits depend on the others asked"),
    Target("agree", "<=", 1e-5, meaning="largest difference of log probabilities, kept and joint"),
    Target(
        "peer", ">=", 2, unit="×", meaning="forward pass: pfns ÷ ours, the worse", optional=True
    ),
)


def run(quick: bool, report: Report) -> Mapping[str, Any]:
    """Float32, as the networks are."""
    import jax
    import numpy as np

    n = ROWS["quick" if quick else "full"]
    rng = np.random.default_rng(0)
    network = _network()
    x, y, x_new = (rng.uniform(size=shape) for shape in ((n, 1), n, (MANY, 1)))
    x, y, x_new = (jax.numpy.asarray(v, np.float32) for v in (x, y, x_new))
    posterior = network.condition(x, y)

    @jax.jit
    def joint(network: Any, x: Any, y: Any, x_new: Any) -> Any:
        return jax.nn.log_softmax(network.outputs(x, y, x_new, jax.numpy.ones(len(y), bool)))

    @jax.jit
    def kept(posterior: Any, x_new: Any) -> Any:
        return posterior.predict(x_new).logits

    different = np.asarray(joint(network, x, y, x_new)) - jax.nn.log_softmax(kept(posterior, x_new))
    figures: dict[str, Any] = {
        "agree": float(np.max(np.abs(different))),
        "bits": _dependent(posterior, x_new),
    }
    for count in (1, 10, MANY):
        rows = x_new[:count]
        times = compare(
            {"joint": (joint, (network, x, y, rows)), "kept": (kept, (posterior, rows))},
            rounds=5 if quick else 15,
        )
        report.times(f"{count} queries at {n} rows", times, "joint")
        if count == 1:
            figures["one_query"] = times.ratio("joint", "kept")
    memory = compiled_memory(joint, network, x, y, x_new[:1])
    report.note(
        f"kept of {n} rows: {posterior.nbytes / 1e6:.2f} MB; working memory of a joint pass: "
        f"{memory['temp'] / 1e6:.1f} MB" if "temp" in memory else
        f"kept of {n} rows: {posterior.nbytes / 1e6:.2f} MB"
    )  # fmt: skip
    figures["peer"] = _peer(report)
    return figures


def _network() -> Any:
    """Random weights, also in the maps that start at zero."""
    import jax
    import jax.numpy as jnp

    from bayesjx import amortized

    head = amortized.BarHead(jnp.linspace(-3.0, 3.0, BARS + 1))
    network = amortized.PFN(1, head, key=jax.random.key(0), **NETWORK)
    leaves, structure = jax.tree.flatten(network)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [
        leaf + 0.05 * jax.random.normal(key, leaf.shape)
        if leaf.ndim and leaf.shape != (BARS + 1,) else leaf
        for leaf, key in zip(leaves, keys, strict=True)
    ]  # fmt: skip
    return jax.tree.unflatten(structure, moved)


def _dependent(posterior: Any, x_new: Any) -> int:
    """How many queries have other bits in a smaller set of queries."""
    import numpy as np

    together = np.asarray(posterior.predict(x_new).logits)
    count = 0
    for start, size in ((0, 1), (3, 1), (30, 5), (31, 64), (100, 100), (199, 1)):
        part = slice(start, start + size)
        alone = np.asarray(posterior.predict(x_new[part]).logits)
        count += int(np.sum(np.any(alone != together[part], axis=1)))
    return count


def _peer(report: Report) -> Figure:
    """Forward passes of the public package in this process, with as many threads as serve it."""
    import importlib.util

    if any(importlib.util.find_spec(name) is None for name in ("torch", "pfns", "einops")):
        return Figure.not_measured("the packages pfns, torch and einops are not installed here")
    import jax
    import numpy as np

    network = _network()
    forward = jax.jit(lambda x, y, new: network.outputs(x, y, new, np.ones(y.shape, bool)))
    ratios = []
    for sets, rows, queries in PEER_SIZES:
        rng = np.random.default_rng(1)
        shapes = ((sets, rows, 1), (sets, rows), (sets, queries, 1))
        arrays = [rng.uniform(size=shape).astype(np.float32) for shape in shapes]
        candidates: dict[str, Any] = {"ours": (forward, tuple(map(jax.numpy.asarray, arrays)))}
        for threads in (1, os.cpu_count() or 1):
            candidates[f"pfns, {threads} threads"] = _of_peer(arrays, threads)
        times = compare(candidates, rounds=7)
        report.times(f"forward pass: {sets} x ({rows} + {queries}) rows", times, "ours")
        peers = [times.ratio(name, "ours") for name in candidates if name != "ours"]
        ratios.append(min(peers, key=lambda ratio: ratio.value))
    return min(ratios, key=lambda ratio: ratio.value)


def _of_peer(arrays: Any, threads: int) -> Any:
    """A forward pass of an equal network of the public package."""
    import torch  # ty: ignore
    from pfns.model.transformer import TableTransformer  # ty: ignore

    model = TableTransformer(
        ninp=NETWORK["width"],
        nhead=NETWORK["heads"],
        nhid=2 * NETWORK["width"],
        nlayers=NETWORK["depth"],
        decoder_dict={"standard": (None, BARS)},
        attention_between_features=False,
    ).eval()
    x, y, new = (torch.from_numpy(array) for array in arrays)

    def call() -> Any:
        torch.set_num_threads(threads)
        with torch.no_grad():
            return model(x, y, test_x=new).numpy()

    return call


BENCHMARK = Benchmark(
    name="am-pfn-cache",
    claim="queries with kept keys and values cost a fraction of a joint pass and do not interact",
    source="Müller et al. (2022), ICLR; own thresholds",
    targets=TARGETS,
    run=run,
)
