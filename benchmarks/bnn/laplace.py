"""Laplace's approximation of networks: exactness, products of the curvature, and laplax."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks._declare import Benchmark, Figure, Target
from benchmarks._report import Report

WIDTHS = {"full": (64, 1024), "quick": (16, 256)}  # hidden units: of the peers' race, of products
EXACT = {
    "full": 16,
    "quick": 8,
}  # hidden units of a network whose whole Gauss-Newton matrix is decomposed
HELD_OUT = 300  # rows that choose the prior precision
ROWS = {"full": (1200, 2048), "quick": (400, 1024)}  # likewise
STEPS = {"full": 1500, "quick": 500}  # of Adam, with the prior that the approximation is given
PRECISION = 1.0
DECAY = 0.01  # its prior precision where a network is trained without much of one, and calibrated
GRID = 31  # prior precisions that are looked at, ours by default
RANK = 100  # eigenvectors of its low-rank approximation

TARGETS = (
    Target("linear", "<=", 1e-6, meaning="linear network against Bayesian linear regression"),
    Target("product", "<=", 1.1, quick=1.2, unit="×", meaning="Gauss-Newton product ÷ by hand"),
    Target("memory", "<=", 1.1, unit="×", meaning="its working memory ÷ by hand"),
    Target("kron_evidence", "<=", 0.02, meaning="nats a test row above the whole matrix's"),
    Target("calibrated", "<=", 0.002, meaning="nats a test row above the network's own, the worst"),
    Target("last_layer_time", "<=", 1.0, unit="×", meaning="last layer ÷ laplax", optional=True),
    Target("last_layer_nll", "<=", 0.001, meaning="nats a test row above laplax's", optional=True),
    Target("kron_time", "<=", 1.0, unit="×", meaning="Kronecker ÷ laplax, low rank", optional=True),
    Target("kron_nll", "<=", 0.001, meaning="nats a test row above laplax's", optional=True),
)


def run(quick: bool, report: Report) -> Mapping[str, Any]:
    """Exactness in float64, times in float32."""
    import jax

    size = "quick" if quick else "full"
    with jax.enable_x64(True):
        figures = _linear(size, report)
    figures |= _products(size, report)
    figures |= _by_evidence(size, report)
    return figures | _race(size, report)


def _linear(size: str, report: Report) -> dict[str, Any]:
    """A linear network of two outputs, trained to its mode by least squares."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import numpy as np

    from bayesjx import bnn, likelihoods

    rows, worst = [], {}
    for dtype in (np.float64, np.float32) if size == "full" else (np.float64,):
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(200, 7)), rng.normal(size=(200, 2))
        new = rng.normal(size=(50, 7))
        noise, precision = 0.3, 2.0
        design, test = (np.hstack([a, np.ones((len(a), 1))]) for a in (x, new))
        covariance = np.linalg.inv(design.T @ design / noise + precision * np.eye(8))
        weights = covariance @ design.T @ y / noise
        want = test @ weights, np.einsum("ni,ij,nj->n", test, covariance, test)
        marginal = noise * np.eye(200) + design @ design.T / precision
        quad = np.sum(y * np.linalg.solve(marginal, y))
        logdet = np.linalg.slogdet(2 * np.pi * marginal)[1]
        network = eqx.nn.Linear(7, 2, key=jax.random.key(0))
        values = weights[:7].T.astype(dtype), weights[7].astype(dtype)
        network = eqx.tree_at(
            lambda m: (m.weight, m.bias), network, tuple(map(jnp.asarray, values))
        )
        likelihood = likelihoods.Gaussian(jnp.asarray(noise, dtype))
        for structure in ("full", "last_layer", "kron"):
            found = bnn.laplace(
                network, jnp.asarray(x, dtype), jnp.asarray(y, dtype), likelihood,
                structure=structure, prior_precision=precision,
            )  # fmt: skip
            mean, variance = found.moments(jnp.asarray(new, dtype))
            errors = [
                float(np.max(np.abs(mean - want[0]))),
                float(np.max(np.abs(variance / want[1][:, None] - 1))),
                abs(float(found.log_evidence()) / (-0.5 * (quad + 2 * logdet)) - 1),
            ]
            rows.append([np.dtype(dtype).name, structure, *errors])
            worst[dtype] = max(worst.get(dtype, 0.0), *errors)
    header = ["", "structure", "mean", "variance, relative", "evidence, relative"]
    report.table("A linear network against Bayesian linear regression", header, rows)
    single = {"linear_float32": worst[np.float32]} if np.float32 in worst else {}
    return {"linear": worst[np.float64]} | single


def _network(inputs: int, width: int, outputs: int, depth: int = 2) -> Any:
    import equinox as eqx
    import jax

    return eqx.nn.MLP(inputs, outputs, width, depth, activation=jax.nn.tanh, key=jax.random.key(0))


def _categorical(f: Any) -> Any:
    import numpyro.distributions as dist

    return dist.Categorical(logits=f)


def _products(size: str, report: Report) -> dict[str, Any]:
    """One product with the Gauss-Newton matrix of ten classes, and the same by jvp and vjp."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import numpy as np

    from bayesjx import bnn
    from benchmarks import compare, compiled_memory

    width, num = WIDTHS[size][1], ROWS[size][1]
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(num, 64)), jnp.float32)
    y = jnp.asarray(rng.integers(10, size=num))
    network = _network(64, width, 10)
    operator = bnn.gauss_newton(network, x, y, _categorical)
    arrays, rest = eqx.partition(network, eqx.is_array)
    probs = jax.nn.softmax(jax.vmap(network)(x))
    leaves, structure = jax.tree.flatten(arrays)
    ends = np.cumsum([leaf.size for leaf in leaves])[:-1]

    def by_hand(arrays: Any, x: Any, probs: Any, vector: Any) -> Any:
        parts = jnp.split(vector, ends)
        parts = [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
        of = lambda arrays: jax.vmap(eqx.combine(arrays, rest))(x)  # noqa: E731
        _, pushed = jax.jvp(of, (arrays,), (jax.tree.unflatten(structure, parts),))
        _, pull = jax.vjp(of, arrays)
        weighed = probs * pushed - probs * jnp.sum(probs * pushed, axis=1, keepdims=True)
        (back,) = pull(weighed)
        return jnp.concatenate([leaf.reshape(-1) for leaf in jax.tree.leaves(back)])

    vector = jnp.asarray(rng.normal(size=operator.shape[0]), jnp.float32)
    ours = jax.jit(lambda operator, v: operator.mv(v))
    hand = jax.jit(by_hand)
    candidates = {
        "bayesjx": (ours, (operator, vector)),
        "by hand": (hand, (arrays, x, probs, vector)),
    }
    found, wanted = ours(operator, vector), hand(arrays, x, probs, vector)
    error = float(jnp.linalg.norm(found - wanted) / jnp.linalg.norm(wanted))
    times = compare(
        candidates, rounds=30 if size == "quick" else 200, seconds=6.0 if size == "quick" else 60.0
    )
    report.times(f"A Gauss-Newton product, {operator.shape[0]} weights, {num} rows", times,
                 against="by hand")  # fmt: skip
    plans = {name: compiled_memory(f, *args) for name, (f, args) in candidates.items()}
    report.table(
        "Memory that XLA plans, bytes",
        ["", "working", "arguments", "relative difference"],
        [[name, plan["temp"], plan["argument"], error] for name, plan in plans.items()],
    )
    ratio = plans["bayesjx"]["temp"] / max(plans["by hand"]["temp"], 1)
    return {"product": times.ratio("bayesjx", "by hand"), "memory": ratio, "product_error": error}


def _digits(num: int) -> tuple[Any, ...]:
    """scikit-learn's digits: rows to train with, and the rest."""
    import jax.numpy as jnp
    import numpy as np
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    x, y = digits.data[order] / 16.0, digits.target[order]
    x, y = jnp.asarray(x, jnp.float32), jnp.asarray(y)
    return x[:num], y[:num], x[1200:], y[1200:]


def _trained(x: Any, y: Any, width: int, steps: int, precision: float) -> Any:
    """A network at a mode, or near it, with the prior that all are given."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import optax

    network = _network(64, width, 10, 1)
    arrays, rest = eqx.partition(network, eqx.is_array)

    def loss(arrays: Any) -> Any:
        logits = jax.vmap(eqx.combine(arrays, rest))(x)
        fit = optax.softmax_cross_entropy_with_integer_labels(logits, y).sum()
        return fit + 0.5 * precision * sum(jnp.sum(a**2) for a in jax.tree.leaves(arrays))

    adam = optax.adam(optax.cosine_decay_schedule(0.01, steps))

    @jax.jit
    def train(arrays: Any) -> Any:
        def step(carry: Any, _: Any) -> Any:
            arrays, state = carry
            updates, state = adam.update(jax.grad(loss)(arrays), state, arrays)
            return (optax.apply_updates(arrays, updates), state), None

        return jax.lax.scan(step, (arrays, adam.init(arrays)), None, length=steps)[0][0]

    return eqx.combine(train(arrays), rest)


def _by_evidence(size: str, report: Report) -> dict[str, Any]:
    """The whole Gauss-Newton matrix beside Kronecker factors, each at its largest evidence."""
    from bayesjx import bnn

    train_x, train_y, test_x, test_y = _digits(ROWS[size][0])
    network = _trained(train_x, train_y, EXACT[size], STEPS[size], PRECISION)
    rows, scores = [], {}
    for structure in ("full", "kron", "last_layer"):
        found = bnn.laplace(
            network, train_x, train_y, _categorical, structure=structure, prior_precision=PRECISION
        )
        best = bnn.tune_laplace(found).posterior
        observed: Any = best.predict(test_x)
        scores[structure] = float(-observed.log_prob(test_y).mean())
        evidence = float(best.log_evidence())
        rows.append([structure, float(best.prior_precision[0]), evidence, scores[structure]])
    report.note(
        f"A hidden layer of {EXACT[size]} units, small enough for the whole matrix. At the prior "
        "precision of the largest evidence, near the one that the network was trained with, "
        "predictions of classes are less certain than the network's, with the whole matrix most "
        "of all: Kronecker factors are not what is wrong there."
    )
    header = ["structure", "prior precision", "log evidence", "test NLL"]
    report.table("At the largest evidence", header, rows)
    report.table("The network itself", ["test NLL"], [[_plain(network, test_x, test_y)]])
    return {"kron_evidence": scores["kron"] - scores["full"]}


def _race(size: str, report: Report) -> dict[str, Any]:
    """Fit, prior precision by rows that were held out, and class probabilities of test rows."""
    width, num = WIDTHS[size][0], ROWS[size][0]
    train_x, train_y, test_x, test_y = _digits(num)
    held = test_x[:HELD_OUT], test_y[:HELD_OUT]
    test_x, test_y = test_x[HELD_OUT:], test_y[HELD_OUT:]
    network = _trained(train_x, train_y, width, STEPS[size], DECAY)
    names = ("last_layer", "kron")
    calls = {f"bayesjx {name}": _ours(network, name) for name in names}
    missing = _laplax_missing()
    if missing is None:
        calls |= {
            "laplax last_layer": _laplax(network, "full", True),
            "laplax kron": _laplax(network, "lanczos", False),
        }
    report.note(
        f"scikit-learn's digits, {num} rows to train with, a hidden layer of {width}; trained by "
        f"{STEPS[size]} steps of Adam with a prior precision of {DECAY:g}. Each fits its "
        f"approximation, takes the one of {GRID} prior precisions at which {HELD_OUT} rows that "
        "were held out have the largest density, and gives class probabilities of all others, ours "
        "averaged over 256 nodes, laplax's by its probit approximation (mean field 0). All of it "
        "is one compiled program each; compilation apart. laplax has no Kronecker factors: beside "
        f"ours stands its low-rank approximation, {RANK} eigenvectors by Lanczos."
    )
    times, found = _timed(calls, (train_x, train_y, *held, test_x), size)
    scores = {name: _nll(log_probs, test_y) for name, (log_probs, _) in found.items()}
    rows = [
        [name, times.median(name).value, scores[name], precision]
        for name, (_, precision) in found.items()
    ]
    header = ["", "seconds", "test NLL", "prior precision"]
    report.table("Laplace approximations of one network", header, rows)
    alone = _plain(network, test_x, test_y)
    report.table("The network itself", ["test NLL"], [[alone]])
    figures: dict[str, Any] = {
        "calibrated": max(scores[f"bayesjx {name}"] for name in names) - alone
    }
    for name in names:
        if missing is not None:
            figures |= {f"{name}_time": missing, f"{name}_nll": missing}
            continue
        figures[f"{name}_time"] = times.ratio(f"bayesjx {name}", f"laplax {name}")
        figures[f"{name}_nll"] = scores[f"bayesjx {name}"] - scores[f"laplax {name}"]
    return figures


def _nll(log_probs: Any, y: Any) -> float:
    import jax.numpy as jnp

    return float(-jnp.mean(log_probs[jnp.arange(len(y)), y]))


def _plain(network: Any, x: Any, y: Any) -> float:
    import jax

    return _nll(jax.nn.log_softmax(jax.vmap(network)(x)), y)


def _ours(network: Any, structure: str) -> Any:
    import jax

    from bayesjx import bnn

    @jax.jit
    def call(x: Any, y: Any, held_x: Any, held_y: Any, new: Any) -> Any:
        found = bnn.laplace(network, x, y, _categorical, structure=structure, prior_precision=DECAY)
        best = bnn.calibrate_laplace(found, held_x, held_y).posterior
        observed: Any = best.predict(new)
        return jax.nn.log_softmax(observed.logits), best.prior_precision[0]

    return call


def _laplax_missing() -> Figure | None:
    try:
        import laplax  # noqa: F401  # ty: ignore[import-not-found]
        import loguru  # ty: ignore[import-not-found]
    except ImportError as error:
        return Figure.not_measured(str(error))
    loguru.logger.remove()  # it writes a line for each call
    return None


def _laplax(network: Any, kind: str, last: bool) -> Any:
    """The same by laplax's functions, jitted as a whole."""
    import functools

    import equinox as eqx
    import jax
    import jax.numpy as jnp
    from laplax.curv.cov import (  # ty: ignore[import-not-found]
        CURVATURE_METHODS,
        set_posterior_fn,
    )
    from laplax.curv.ggn import create_ggn_mv  # ty: ignore[import-not-found]
    from laplax.eval.pushforward import (  # ty: ignore[import-not-found]
        lin_pred_mean,
        lin_setup,
        lin_special_pred_act,
        set_lin_pushforward,
    )

    chosen = jax.tree.map(lambda _: not last, network)
    if last:
        inside = jax.tree.map(lambda _: True, network.layers[-1])
        chosen = eqx.tree_at(lambda m: m.layers[-1], chosen, inside)
    keep = jax.tree.map(lambda c, leaf: c and eqx.is_array(leaf), chosen, network)
    params, rest = eqx.partition(network, keep)
    options: dict[str, Any] = {}
    if kind == "lanczos":
        options = {"rank": RANK, "key": jax.random.key(0), "calc_dtype": jnp.float32}
    activation = functools.partial(lin_special_pred_act, special_pred_type="mean_field_0")

    def model(input: Any, params: Any) -> Any:
        return eqx.combine(params, rest)(input)

    @jax.jit
    def call(x: Any, y: Any, held_x: Any, held_y: Any, new: Any) -> Any:
        data = {"input": x, "target": y}
        product = create_ggn_mv(model, params, data, loss_fn="cross_entropy")
        estimate = CURVATURE_METHODS[kind](product, layout=params, **options)
        posterior_fn = set_posterior_fn(curv_type=kind, curv_estimate=estimate, layout=params)

        def log_probs(precision: Any, x: Any) -> Any:
            predict = set_lin_pushforward(
                model_fn=model, mean_params=params, prior_arguments={"prior_prec": precision},
                posterior_fn=posterior_fn,
                pushforward_fns=[lin_setup, lin_pred_mean, activation],
            )  # fmt: skip
            return jnp.log(jax.vmap(lambda x: predict(x)["special_pred_act"])(x))

        def score(precision: Any) -> Any:
            found = log_probs(precision, held_x)
            return jnp.mean(jnp.take_along_axis(found, held_y[:, None], axis=1))

        grid = DECAY * jnp.logspace(-2.0, 8.0, GRID)
        precision = grid[jnp.nanargmax(jax.lax.map(score, grid))]
        return log_probs(precision, new), precision

    return call


def _timed(calls: Mapping[str, Any], data: tuple[Any, ...], size: str) -> tuple[Any, Any]:
    """Seconds of calls, in turn, and what each gives."""
    from benchmarks import compare

    found = {name: call(*data) for name, call in calls.items()}
    candidates = {name: (call, data) for name, call in calls.items()}
    rounds, seconds = (3, 10.0) if size == "quick" else (20, 90.0)
    return compare(candidates, rounds=rounds, min_rounds=3, seconds=seconds), found


BENCHMARK = Benchmark(
    name="bnn-laplace",
    claim="linear networks are exact, products cost what they must, and laplax is no faster",
    source="Immer et al. 2021; Daxberger et al. 2021; laplax 0.0.2",
    targets=TARGETS,
    run=run,
)
