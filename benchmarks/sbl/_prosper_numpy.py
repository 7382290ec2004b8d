"""Truncated EM in NumPy, vectorised over data: what the published algorithms do for each datum.

For every datum of a chunk the mean of every state is written out, `(n, k, d)`, and compared with
the datum; for maximal causes the responsibilities of causes for pixels are too, `(n, k, c, d)`.
Nothing loops over data, states or pixels. `CHUNK` rows at a time keep these arrays within the
caches, which made it fastest.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np

CHUNK = 32


class Sizes(NamedTuple):
    """Truncation: candidates for each datum and how many are active at most."""

    num_candidates: int
    max_active: int


def states_of(sizes: Sizes, values: tuple[float, ...]) -> np.ndarray:
    """States with two and more active candidates, shape `(k, c)`."""
    rows = []
    for size in range(2, sizes.max_active + 1):
        for active in itertools.combinations(range(sizes.num_candidates), size):
            for chosen in itertools.product(values, repeat=size):
                row = np.zeros(sizes.num_candidates)
                row[list(active)] = chosen
                rows.append(row)
    return np.array(rows)


def linear_step(
    y: np.ndarray,
    weights: np.ndarray,
    noise_var: float,
    value_probs: np.ndarray,
    values: tuple[float, ...],
    sizes: Sizes,
) -> tuple[np.ndarray, float]:
    """Weights and noise after a step of binary, ternary or discrete sparse coding."""
    kind = y.dtype
    states = states_of(sizes, values).astype(kind)
    odds = np.log(value_probs / (1 - value_probs.sum())).astype(kind)
    log_prior = sum((states == v).sum(axis=1) * o for v, o in zip(values, odds, strict=True))
    alone = np.array(values, kind)[:, None, None] * weights
    if len(values) == 1:
        scores = y @ weights.T / np.linalg.norm(weights, axis=1)
    else:
        inner, norms = y @ weights.T, np.sum(weights**2, axis=1)
        each = [v * inner - 0.5 * v**2 * norms for v in values]
        scores = np.max([e / noise_var + o for e, o in zip(each, odds, strict=True)], axis=0)
    order = np.argsort(-scores, axis=1)[:, : sizes.num_candidates]
    h = len(weights)
    outer, code, first = np.zeros((h, h), kind), np.zeros_like(weights), np.arange(len(y))
    for rows in np.split(first, range(CHUNK, len(y), CHUNK)):
        data, near = y[rows], order[rows]
        mean = states @ weights[near]  # (n, k, d)
        several = -0.5 / noise_var * np.sum((data[:, None] - mean) ** 2, axis=2) + log_prior
        distance = np.sum((data[:, None, None] - alone) ** 2, axis=3)
        single = (-0.5 / noise_var * distance + odds[:, None]).reshape(len(rows), -1)
        none = -0.5 / noise_var * np.sum(data**2, axis=1, keepdims=True)
        probs = _softmax(np.concatenate([none, single, several], axis=1))
        single = probs[:, 1 : 1 + single.shape[1]].reshape(len(rows), len(values), h)
        several = probs[:, 1 + len(values) * h :]
        dense = np.einsum("v,nvh->nh", np.array(values, kind), single)
        np.add.at(dense, (np.arange(len(rows))[:, None], near), several @ states)
        pairs = np.einsum("nk,kp->np", several, _products(states)).reshape(
            len(rows), *2 * near.shape[1:]
        )
        np.add.at(outer, (near[:, :, None], near[:, None, :]), pairs)
        outer[np.arange(h), np.arange(h)] += np.einsum(
            "v,nvh->h", np.array(values, kind) ** 2, single
        )
        code += dense.T @ data
    new = np.linalg.lstsq(outer, code, rcond=None)[0]
    total = np.sum(y**2) - 2 * np.sum(new * code) + np.sum((new @ new.T) * outer)
    return new, float(total / y.size)


def maximal_step(
    y: np.ndarray,
    weights: np.ndarray,
    noise_var: float,
    prior_prob: float,
    signed: bool,
    sizes: Sizes,
) -> tuple[np.ndarray, float]:
    """Weights and noise after a step of maximal causes, of positive or of either sign."""
    kind, exponent = y.dtype, 21.0
    states = states_of(sizes, (1.0,)).astype(kind)
    odds = kind.type(np.log(prior_prob / (1 - prior_prob)))
    if signed:
        scores = y @ weights.T - 0.5 * np.sum(weights**2, axis=1)
    else:
        scores = -np.sum(np.maximum(weights - y[:, None], 0), axis=2)
    order = np.argsort(-scores, axis=1)[:, : sizes.num_candidates]
    h, first = len(weights), np.arange(len(y))
    share, target, squares = np.zeros_like(weights), np.zeros_like(weights), 0.0
    for rows in np.split(first, range(CHUNK, len(y), CHUNK)):
        data, near = y[rows], order[rows]
        close = weights[near]  # (n, c, d)
        mean = _strongest(states, close, signed)  # (n, k, d)
        distance = np.sum((data[:, None] - mean) ** 2, axis=2)
        one = np.sum((data[:, None] - weights) ** 2, axis=2)
        none = np.sum(data**2, axis=1, keepdims=True)
        distances = np.concatenate([none, one, distance], axis=1)
        active = np.concatenate([[0], np.ones(h), states.sum(axis=1)]).astype(kind)
        probs = _softmax(-0.5 / noise_var * distances + odds * active)
        squares += np.sum(probs * distances)
        single, several = probs[:, 1 : 1 + h], probs[:, 1 + h :]
        size = np.abs(close)
        ratio = size / np.maximum(size.max(axis=1, keepdims=True), np.finfo(kind).tiny)
        power = np.maximum(ratio, np.exp(-60 / exponent)) ** exponent
        each = states[:, :, None] * power[:, None]  # (n, k, c, d)
        each /= each.sum(axis=2, keepdims=True)
        belongs = np.einsum("nk,nkcd->ncd", several, each)
        np.add.at(share, near, belongs)
        np.add.at(target, near, belongs * data[:, None])
        share += single.sum(axis=0)[:, None]
        target += single.T @ data
    new = target / share
    return new if signed else np.maximum(new, 0), float(squares / y.size)


def slab_step(
    y: np.ndarray,
    weights: np.ndarray,
    noise_var: float,
    prior_prob: np.ndarray,
    slab_mean: np.ndarray,
    slab_var: np.ndarray,
    sizes: Sizes,
) -> tuple[np.ndarray, float]:
    """Weights and noise after a step of Gaussian sparse coding."""
    kind, h = y.dtype, len(weights)
    odds = np.log(prior_prob / (1 - prior_prob)).astype(kind)
    gram, inner = weights @ weights.T / noise_var, y @ weights.T / noise_var
    everyone = np.broadcast_to(np.arange(h)[:, None], (len(y), h, 1))
    single = _slabs(gram, inner, slab_mean, slab_var, everyone)
    order = np.argsort(-(single[0] + odds), axis=1)[:, : sizes.num_candidates]
    logs, parts = [np.zeros((len(y), 1), kind), single[0] + odds], [(everyone, *single[1:])]
    for size in range(2, sizes.max_active + 1):
        subsets = np.array(list(itertools.combinations(range(sizes.num_candidates), size)))
        causes = order[:, subsets]  # (n, k, g)
        log_ratio, mean, cov = _slabs(gram, inner, slab_mean, slab_var, causes)
        logs.append(log_ratio + odds[causes].sum(axis=2))
        parts.append((causes, mean, cov))
    probs = _softmax(np.concatenate(logs, axis=1))
    outer, dense, begin = np.zeros((h, h), kind), np.zeros((len(y), h), kind), 1
    for causes, mean, cov in parts:
        part = probs[:, begin : begin + causes.shape[1], None]
        begin += causes.shape[1]
        np.add.at(dense, (np.arange(len(y))[:, None, None], causes), part * mean)
        second = part[..., None] * (cov + mean[..., :, None] * mean[..., None, :])
        np.add.at(outer, (causes[..., :, None], causes[..., None, :]), second)
    code = dense.T @ y
    new = np.linalg.lstsq(outer, code, rcond=None)[0]
    total = np.sum(y**2) - 2 * np.sum(new * code) + np.sum((new @ new.T) * outer)
    return new, float(total / y.size)


def _slabs(
    gram: np.ndarray, inner: np.ndarray, slab_mean: np.ndarray, slab_var: np.ndarray, causes: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log likelihood ratios, means and covariances of slabs for states `(n, k, g)`."""
    near = gram[causes[..., :, None], causes[..., None, :]]  # (n, k, g, g)
    mean, variance = slab_mean[causes], slab_var[causes]
    precision = near + (1 / variance)[..., None] * np.eye(causes.shape[2], dtype=gram.dtype)
    data = np.take_along_axis(inner[:, None], causes, axis=2)
    drift = np.einsum("nkij,nkj->nki", near, mean)
    cov = np.linalg.inv(precision)
    shift = np.einsum("nkij,nkj->nki", cov, data - drift)
    log_ratio = np.sum(mean * (data - 0.5 * drift), axis=2) + 0.5 * np.sum(
        (data - drift) * shift, axis=2
    )
    log_ratio -= 0.5 * (np.linalg.slogdet(precision)[1] + np.sum(np.log(variance), axis=2))
    return log_ratio, mean + shift, cov


def _strongest(states: np.ndarray, close: np.ndarray, signed: bool) -> np.ndarray:
    top = np.zeros((len(close), len(states), close.shape[2]), close.dtype)
    bottom = np.zeros_like(top) if signed else top
    for i in range(states.shape[1]):
        here = states[:, i, None] * close[:, None, i]
        np.maximum(top, here, out=top)
        if signed:
            np.minimum(bottom, here, out=bottom)
    return np.where(top >= -bottom, top, bottom) if signed else top


def _products(states: np.ndarray) -> np.ndarray:
    return (states[:, :, None] * states[:, None, :]).reshape(len(states), -1)


def _softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)
