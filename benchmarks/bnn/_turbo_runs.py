"""A network made small by turbo variational inference, and by other ways, one recipe for each."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

WIDTHS = (300, 100)  # LeNet-300-100
BATCH = 128
RATE, SPARSE_RATE, FINE_RATE = 1e-3, 1e-2, 3e-4  # of Adam in each phase, falling as cosines
DENSITY, RUN = 0.05, 5.0  # of the prior of supports: share of non-zeros, mean length of their runs
KL_WEIGHT = 0.1  # tempered, as is usual for networks of many more weights than data
GROUP_LASSO = 2e-3  # weight of the norm of a group, times the root of its size
LOG_ALPHA = 3.0  # from which on variational dropout drops a weight


class Steps(NamedTuple):
    """Steps of each phase, which all ways have."""

    dense: int
    sparse: int
    fine: int


class Score(NamedTuple):
    """A network after training.

    Attributes:
        accuracy: share of the test labels that are the likeliest ones.
        compression: weights of the dense network over those that are not zero.
        flops: multiplications of the dense network over those of the compact one, which reads no
            input that nothing depends on.
        run_length: mean length of runs of non-zeros along inputs.
        units: numbers of inputs and units that are left.
    """

    accuracy: float
    compression: float
    flops: float
    run_length: float
    units: tuple[int, ...]


def likelihood(f: Any) -> Any:
    """Labels of images."""
    import numpyro.distributions as dist

    return dist.Categorical(logits=f)


def lenet(seed: int, of: Any) -> Any:
    """The network at its start."""
    import equinox as eqx
    import jax

    keys = jax.random.split(jax.random.key(seed), len(WIDTHS) + 1)
    sizes = (of.x.shape[1], *WIDTHS, 10)
    parts: list[Any] = []
    for n, m, key in zip(sizes[:-1], sizes[1:], keys, strict=True):
        parts += [eqx.nn.Linear(n, m, key=key), eqx.nn.Lambda(jax.nn.relu)]
    return eqx.nn.Sequential(parts[:-1])


def weights(network: Any) -> list[Any]:
    """The weight matrices of a network, `(outputs, inputs)`."""
    return [layer.weight for layer in network.layers[::2]]


def score(network: Any, of: Any) -> Score:
    """What is measured of a network with zeros among its weights."""
    import jax

    from bayesjx import bnn

    smaller = bnn.compact(network)
    logits = jax.jit(jax.vmap(smaller.network))(of.x_test)
    read = np.any(np.asarray(weights(smaller.network)[0]) != 0, axis=0).sum()
    units = (int(read), *smaller.widths[1:])
    products = sum(a * b for a, b in zip(units[:-1], units[1:], strict=True))
    total = sum(w.size for w in weights(network))
    return Score(
        float(np.mean(np.argmax(logits, axis=1) == of.y_test)),
        total / max(smaller.num_weights, 1),
        total / max(products, 1),
        smaller.run_length,
        units,
    )


def schedule(rate: float, num_steps: int) -> Any:
    """Of all phases and ways."""
    import optax

    return optax.cosine_decay_schedule(rate, num_steps)


def tuned(key: Any, network: Any, of: Any, num_steps: int, rate: float, *after: Any) -> Any:
    """The network after steps of Adam, with transformations after it; its zeros stay."""
    import optax

    import bayesjx
    from bayesjx import bnn

    optimizer = optax.chain(optax.adam(schedule(rate, num_steps)), *after)
    tuning = bnn.fine_tune(network, likelihood, optimizer, num_data=len(of.x))
    fit = bayesjx.fit(key, tuning, tuning.init(), num_steps, data=(of.x, of.y), batch_size=BATCH)
    return bayesjx.trained((network, likelihood), fit.state)[0]


def turbo(key: Any, dense: Any, of: Any, num_steps: int, chain: bool) -> Any:
    """The dense network pruned by turbo variational inference, or with independent supports."""
    import optax

    import bayesjx
    from bayesjx import bnn

    field = bnn.mean_field(dense, likelihood, where=weights, init_scale=0.01, estimator="local")
    p10 = 1 / RUN
    runs = bnn.MarkovSupport(p10 * DENSITY / (1 - DENSITY), p10)
    support = runs if chain else bnn.MarkovSupport.independent(DENSITY)
    algorithm = bnn.turbo_mean_field_vi(
        field,
        optax.adam(schedule(SPARSE_RATE, num_steps)),
        num_data=len(of.x),
        support=support,
        num_steps=num_steps,
        kl_weight=KL_WEIGHT,
    )
    fit = bayesjx.fit(
        key, algorithm, algorithm.init(), num_steps, data=(of.x, of.y), batch_size=BATCH
    )
    return bnn.pruned(field, fit.state)


def magnitude(dense: Any, counts: list[int]) -> Any:
    """The dense network with the largest weights of each layer, so many of them.

    One threshold for all layers cuts a network in two at these sparsities.
    """
    import equinox as eqx

    matrices = [np.asarray(w) for w in weights(dense)]
    kept = []
    for w, count in zip(matrices, counts, strict=True):
        least = np.sort(abs(w).ravel())[-count] if count else np.inf
        kept.append(np.where(abs(w) >= least, w, 0))
    return eqx.tree_at(weights, dense, kept)


def group_lasso(key: Any, dense: Any, of: Any, num_steps: int) -> Any:
    """The dense network after proximal steps: weights that read a unit are zero together.

    Scardapane, Comminiello, Hussain and Uncini (2017), "Group sparse regularization for deep neural
    networks", Neurocomputing 241.
    """
    rate = schedule(SPARSE_RATE, num_steps)
    return tuned(key, dense, of, num_steps, SPARSE_RATE, _shrink(rate))


def _shrink(rate: Any) -> Any:
    """The proximal operator of the norms of groups, after a step of an optimiser."""
    import jax
    import jax.numpy as jnp
    import optax

    def one(update: Any, value: Any, step_size: Any) -> Any:
        if value.ndim < 2:
            return update
        new = value + update
        norm = jnp.linalg.norm(new, axis=0, keepdims=True)
        limit = step_size * GROUP_LASSO * math.sqrt(value.shape[0])
        return new * jnp.maximum(1 - limit / jnp.maximum(norm, 1e-30), 0) - value

    def init(params: Any) -> Any:
        del params
        return jnp.zeros((), jnp.int32)

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        del extra
        step_size = rate(state)
        return jax.tree.map(lambda u, p: one(u, p, step_size), updates, params), state + 1

    return optax.GradientTransformation(init, update)


def variational_dropout(key: Any, dense: Any, of: Any, num_steps: int) -> Any:
    """The dense network pruned by sparse variational dropout.

    Molchanov, Ashukha and Vetrov (2017), "Variational dropout sparsifies deep neural networks",
    ICML: equations 14 and 15, additive noise, the divergence's weight rising in the first half.
    """
    import equinox as eqx
    import jax.numpy as jnp
    import optax

    import bayesjx

    biases = [layer.bias for layer in dense.layers[::2]]
    start = {
        "mean": weights(dense),
        "log_var": [jnp.full_like(w, -8.0) for w in weights(dense)],
        "bias": biases,
    }
    algorithm = bayesjx.gradient_algorithm(
        _dropout_loss(len(of.x), num_steps),
        start,
        optax.adam(schedule(SPARSE_RATE, num_steps)),
        natural=jnp.zeros((), jnp.int32),
    )
    fit = bayesjx.fit(
        key, algorithm, algorithm.init(), num_steps, data=(of.x, of.y), batch_size=BATCH
    )
    end = fit.state.params
    kept = [
        jnp.where(_log_alpha(m, v) < LOG_ALPHA, m, 0)
        for m, v in zip(end["mean"], end["log_var"], strict=True)
    ]
    both = lambda n: [*weights(n), *(layer.bias for layer in n.layers[::2])]  # noqa: E731
    return eqx.tree_at(both, dense, [*kept, *end["bias"]])


def _log_alpha(mean: Any, log_var: Any) -> Any:
    import jax.numpy as jnp

    return jnp.clip(log_var - jnp.log(mean**2 + 1e-12), -8, 8)


def _dropout_loss(num_data: int, num_steps: int) -> Any:
    import jax
    import jax.numpy as jnp

    def loss(key: Any, params: Any, count: Any, x: Any, y: Any) -> Any:
        h, divergence = x, 0.0
        triples = zip(params["mean"], params["log_var"], params["bias"], strict=True)
        for i, (mean, log_var, bias) in enumerate(triples):
            key, own = jax.random.split(key)
            h = h if i == 0 else jax.nn.relu(h)
            alpha = _log_alpha(mean, log_var)
            std = jnp.sqrt(h**2 @ (jnp.exp(alpha) * mean**2).T + 1e-8)
            noise = jax.random.normal(own, std.shape, std.dtype)
            h = h @ mean.T + bias + std * noise
            fitted = 0.63576 * jax.nn.sigmoid(1.87320 + 1.48695 * alpha)
            divergence -= jnp.sum(fitted - 0.5 * jnp.log1p(jnp.exp(-alpha)) - 0.63576)
        weight = KL_WEIGHT * jnp.minimum(2 * count / num_steps, 1)
        data = jnp.mean(likelihood(h).log_prob(y))
        value = weight.astype(h.dtype) * divergence / num_data - data
        return value, -value, count + 1

    return loss
