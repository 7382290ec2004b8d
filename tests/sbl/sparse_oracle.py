"""One EM step of sparse coding models by enumeration of their states, in NumPy."""

import itertools

import numpy as np
from scipy.special import comb, logsumexp
from scipy.stats import multivariate_normal


def all_states(num_causes, values):
    """All codes, shape `(k, h)`."""
    return np.array(list(itertools.product((0.0, *values), repeat=num_causes)))


def kept(states, scores, num_candidates, max_active):
    """Which states a datum keeps, given the scores `(n, h)` of causes, shape `(n, k)`."""
    order = np.argsort(-scores, axis=1)[:, :num_candidates]
    candidate = np.zeros(scores.shape, bool)
    np.put_along_axis(candidate, order, True, axis=1)
    size = np.sum(states != 0, axis=1)
    outside = (states != 0).astype(float) @ ~candidate.T
    return ((size <= 1) | ((size <= max_active) & (outside.T == 0))).astype(bool)


def superposed(states, weights, kind):
    """Data without noise, shape `(k, d)`."""
    if kind == "linear":
        return states @ weights
    each = states[:, :, None] * weights
    strongest = np.argmax(np.abs(each), axis=1)[:, None]
    return np.take_along_axis(each, strongest, axis=1)[:, 0]


def log_normal(y, mean, noise_var):
    """Log densities of data at the mean of each state, shape `(n, k)`."""
    squares = np.sum((y[:, None] - mean) ** 2, axis=2)
    return -0.5 * (squares / noise_var + y.shape[1] * np.log(2 * np.pi * noise_var))


def posterior(log_prior, log_lik, mask, temperature=1.0):
    """Probabilities `(n, k)` and bounds `(n,)`."""
    tempered = np.where(mask, log_prior + log_lik / temperature, -np.inf)
    log_q = tempered - logsumexp(tempered, axis=1, keepdims=True)
    q = np.exp(log_q)
    joint = np.where(mask, log_prior + log_lik - np.where(mask, log_q, 0), 0)
    return q, np.sum(q * joint, axis=1)


def corrected(prob, mean_active, num_causes, max_active):
    """The activity after a step that takes data with more active causes for lost."""
    g = np.arange(max_active + 1)
    terms = comb(num_causes, g) * prob**g * (1 - prob) ** (num_causes - g)
    return prob * mean_active * terms.sum() / (g @ terms)


def discrete_step(model, y, kind, temperature=1.0):
    """Fields of the model after one step, bounds `(n,)` and mean codes `(n, h)`."""
    y, weights, noise_var = (np.asarray(x, float) for x in (y, model.weights, model.noise_var))
    values, value_probs = model.values, np.asarray(model.value_probs(), float)
    states = all_states(len(weights), values)
    clean = superposed(states, weights, kind)
    log_odds = np.log(value_probs / (1 - value_probs.sum()))
    counts = np.stack([np.sum(states == value, axis=1) for value in values], axis=1)
    log_prior = len(weights) * np.log(1 - value_probs.sum()) + counts @ log_odds
    scores = {
        "max": lambda: -np.sum(np.maximum(weights - y[:, None], 0), axis=2),
        "magnitude": lambda: -np.sum((weights - y[:, None]) ** 2, axis=2),
    }.get(kind, lambda: _linear_scores(y, weights, noise_var, values, log_odds))()
    mask = kept(states, scores, model.num_candidates, model.max_active)
    q, bound = posterior(log_prior, log_normal(y, clean, noise_var), mask, temperature)
    mean = q @ states
    if kind == "linear":
        outer = np.einsum("nk,kh,kg->hg", q, states, states)
        new = np.linalg.solve(outer, mean.T @ y)
        squares = np.sum((y[:, None] - states @ new) ** 2, axis=2)
    else:
        exponent = 1 / (1 - 1 / max(temperature, 1.05))
        power = np.abs(weights) ** exponent * (states[:, :, None] != 0)
        share = power / np.maximum(np.sum(power, axis=1, keepdims=True), 1e-300)
        total = np.einsum("nk,khd->hd", q, share)
        new = np.einsum("nk,khd,nd->hd", q, share, y) / total
        new = np.maximum(new, 0) if kind == "max" else new
        squares = np.sum((y[:, None] - clean) ** 2, axis=2)
    each = np.mean(q @ counts, axis=0)
    active = corrected(value_probs.sum(), each.sum(), len(weights), model.max_active)
    found = {"weights": new, "noise_var": np.sum(q * squares) / y.size}
    if len(values) == 1 or values == (1.0, -1.0):
        return {**found, "prior_prob": active}, bound, mean
    return {**found, "prior_probs": active * each / each.sum()}, bound, mean


def _linear_scores(y, weights, noise_var, values, log_odds):
    if len(values) == 1:
        return y @ weights.T / np.linalg.norm(weights, axis=1)
    each = [
        value * y @ weights.T / noise_var
        - 0.5 * value**2 * np.sum(weights**2, 1) / noise_var
        + odds
        for value, odds in zip(values, log_odds, strict=True)
    ]
    return np.max(each, axis=0)


def slab_step(model, y, temperature=1.0):
    """Fields of the spike-and-slab model after one step, bounds and mean codes."""
    names = ("weights", "noise_var", "prior_prob", "slab_mean", "slab_var")
    fields = (np.asarray(getattr(model, name), float) for name in names)
    weights, noise_var, prior_prob, slab_mean, slab_var = fields
    y, (num_causes, d) = np.asarray(y, float), weights.shape
    states = all_states(num_causes, (1.0,)).astype(bool)
    log_prior = states @ np.log(prior_prob) + ~states @ np.log(1 - prior_prob)
    log_lik, firsts, seconds = [], [], []
    for state in states:
        active = weights[state]
        cov = noise_var * np.eye(d) + (active.T * slab_var[state]) @ active
        mean = slab_mean[state] @ active
        log_lik.append(multivariate_normal(mean, cov).logpdf(y))
        gain = np.linalg.solve(cov, active.T * slab_var[state]).T
        first = np.zeros((len(y), num_causes))
        first[:, state] = slab_mean[state] + (y - mean) @ gain.T
        second = np.zeros((num_causes, num_causes))
        left = np.diag(slab_var[state]) - gain @ (active.T * slab_var[state])
        second[np.ix_(state, state)] = left
        firsts.append(first)
        seconds.append(second + first[:, :, None] * first[:, None])
    log_lik = np.array(log_lik).T
    single = [
        np.flatnonzero((states.sum(axis=1) == 1) & states[:, h])[0] for h in range(num_causes)
    ]
    scores = (log_prior + log_lik)[:, single]
    mask = kept(states.astype(float), scores, model.num_candidates, model.max_active)
    q, bound = posterior(log_prior, log_lik, mask, temperature)
    mean = np.einsum("nk,knh->nh", q, np.array(firsts))
    outer = np.einsum("nk,knhg->hg", q, np.array(seconds))
    new = np.linalg.solve(outer, mean.T @ y)
    noise = (np.sum(y**2) - 2 * np.sum(new * (mean.T @ y)) + np.sum((new @ new.T) * outer)) / y.size
    active = np.sum(q @ states, axis=0)
    slab = mean.sum(axis=0) / active
    values = (new, noise, active / len(y), slab, np.diag(outer) / active - slab**2)
    return dict(zip(names, values, strict=True)), bound, mean
