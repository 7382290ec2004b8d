"""Truncated EM against enumeration of all states; learning; draws; errors."""

from pathlib import Path

import devices
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sparse_oracle import discrete_step, slab_step

import bayesjx
from bayesjx import datasets, sbl

N, D, H = 11, 7, 4
KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
Y = 2 * RNG.normal(size=(N, D))
WEIGHTS = 2 * RNG.normal(size=(H, D))
FULL = {"num_candidates": H, "max_active": H}
FEW = {"num_candidates": 3, "max_active": 2}
MODELS = {
    "BSC": lambda w, **o: sbl.BSC(w, 1.3, 0.3, **o),
    "TSC": lambda w, **o: sbl.TSC(w, 1.3, 0.3, **o),
    "DSC": lambda w, **o: sbl.DSC(w, 1.3, [0.2, 0.1], values=(1.0, -2.0), **o),
    "MCA": lambda w, **o: sbl.MCA(abs(w), 1.3, 0.3, **o),
    "MMCA": lambda w, **o: sbl.MMCA(w, 1.3, 0.3, **o),
    "GSC": lambda w, **o: sbl.GSC(
        w, 1.3, [0.2, 0.3, 0.1, 0.4], [0.5, -1.0, 0.0, 2.0], [0.5, 1.0, 2.0, 1.5], **o
    ),
}
KINDS = {"MCA": "max", "MMCA": "magnitude"}
TEMPERATURES = (1.0, 2.5)


def cooled(count):
    return jnp.asarray(TEMPERATURES)[count]


def oracle(name, model, y, temperature):
    if name == "GSC":
        return slab_step(model, y, temperature)
    return discrete_step(model, y, KINDS.get(name, "linear"), temperature)


def close(model, want, **tolerance):
    for field, value in want.items():
        np.testing.assert_allclose(
            getattr(model, field), value, err_msg=f"{field} of {type(model).__name__}", **tolerance
        )


@pytest.mark.parametrize("sizes", [FULL, FEW], ids=["full", "truncated"])
@pytest.mark.parametrize("name", MODELS)
def test_a_step_is_that_of_enumerated_states(name, sizes):
    model = MODELS[name](WEIGHTS, **sizes)
    algorithm = sbl.truncated_em(model, temperature=cooled)
    in_chunks = sbl.truncated_em(model, temperature=cooled, chunk_size=4)

    @jax.jit
    def program(count, y):
        state = algorithm.init()._replace(count=count)
        new, info = algorithm.step(None, state, y)
        same, chunk_info = in_chunks.step(None, state, y)
        return new.model, info, same.model, chunk_info, model.posterior(y, 2)

    for count, temperature in enumerate(TEMPERATURES):
        new, info, same, chunk_info, posterior = program(jnp.asarray(count, jnp.int32), Y)
        want, bound, mean = oracle(name, model, Y, temperature)
        close(new, want, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(info.objective, np.mean(bound), rtol=1e-10)
        for one, other in zip(jax.tree.leaves(new), jax.tree.leaves(same), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(info.objective, chunk_info.objective, rtol=1e-11)
        if temperature == 1:
            np.testing.assert_allclose(posterior.mean, mean, atol=1e-10)
            np.testing.assert_allclose(posterior.log_evidence, bound, rtol=1e-10)
            assert np.all(posterior.probs[:, 0] >= posterior.probs[:, 1])
            assert np.all(posterior.probs > 0) and np.all(posterior.probs.sum(axis=1) <= 1 + 1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_single_precision_and_vmap_over_starts_agree(name):
    models = [MODELS[name](w.astype(np.float32), **FEW) for w in (WEIGHTS, WEIGHTS[::-1].copy())]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *models)

    @jax.jit
    @jax.vmap
    def program(model):
        algorithm = sbl.truncated_em(model, temperature=2.5, cut=1.0)
        state, info = algorithm.step(None, algorithm.init(), Y[:10])
        return state.model, info, model.reconstruct(Y)

    new, info, clean = program(stacked)
    assert {x.dtype for x in jax.tree.leaves((new, info, clean))} == {jnp.dtype(jnp.float32)}
    for i, model in enumerate(models):
        # Of ten data more than `1 - kept` are left out: those of the lowest bound.
        bound = oracle(name, model, Y[:10], 2.5)[1]
        left = 0 if name == "GSC" else int(10 * model.beyond())
        rows = np.sort(np.argsort(bound)[left:])
        want, _, _ = oracle(name, model, Y[rows], 2.5)
        close(jax.tree.map(lambda x, i=i: x[i], new), want, rtol=2e-3, atol=1e-3)
        np.testing.assert_allclose(info.objective[i], np.mean(bound), rtol=1e-5)
        np.testing.assert_allclose(info.kept[i], 1 - left / 10, rtol=1e-6)


@pytest.mark.parametrize("name", ["DSC", "GSC"])
def test_em_never_lowers_the_evidence_where_nothing_is_truncated(name):
    model = MODELS[name](WEIGHTS, **FULL)
    algorithm = sbl.truncated_em(model)
    result = bayesjx.fit(KEY, algorithm, algorithm.init(), 40, data=(jnp.asarray(Y),))
    bound = result.info.objective
    assert np.all(np.diff(bound) >= -1e-11 * np.abs(bound[0])) and bound[-1] > bound[0] + 1


def test_codes_are_those_of_the_most_probable_states():
    """Their joint probabilities, summed by hand, are what the posterior says."""
    for name in ("DSC", "GSC", "MCA"):
        model = MODELS[name](WEIGHTS, **FULL)
        posterior = model.posterior(Y, model.num_states)
        np.testing.assert_allclose(posterior.probs.sum(axis=1), 1, rtol=1e-10)
        active = np.einsum("nk,nkh->nh", posterior.probs, posterior.codes != 0)
        np.testing.assert_allclose(active, posterior.active_prob, atol=1e-10)
        mean = np.einsum("nk,nkh->nh", posterior.probs, posterior.codes)
        np.testing.assert_allclose(mean, posterior.mean, atol=1e-10)
        clean = np.einsum("nk,nkd->nd", posterior.probs, model.superpose(posterior.codes))
        np.testing.assert_allclose(model.reconstruct(Y), clean, atol=1e-9)


# Minibatches --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["BSC", "MCA", "GSC"])
def test_running_statistics_of_one_pass_are_those_of_all_data(name):
    """Means over batches with weights 1 / t are the mean, as long as the model stays the same."""
    model = MODELS[name](WEIGHTS, **FEW)
    y = Y[:10].reshape(2, 5, D)
    running = sbl.truncated_em(model, step_size=lambda count: 1 / (count + 1.0))
    whole = sbl.truncated_em(model)
    step = jax.jit(running.step)
    first, _ = step(None, running.init(), y[0])
    alone, _ = jax.jit(whole.step)(None, whole.init(), y[0])
    second, _ = step(None, first._replace(model=model), y[1])
    together, _ = jax.jit(whole.step)(None, whole.init(), Y[:10])
    for found, want in ((first, alone), (second, together)):
        for one, other in zip(*map(jax.tree.leaves, (found.model, want.model)), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-11)


def test_minibatches_learn_what_all_data_do():
    truth = datasets.bars(jax.random.key(1), 600, size=3)
    start = sbl.BSC(truth.weights + RNG.normal(size=truth.weights.shape), 10.0, 0.3)
    whole = sbl.truncated_em(start)
    batch = sbl.truncated_em(start, step_size=lambda t: (t + 2.0) ** -0.7)
    ends = [
        bayesjx.fit(KEY, algorithm, algorithm.init(), 100, data=(truth.y,), **options).state.model
        for algorithm, options in ((whole, {}), (batch, {"batch_size": 100}))
    ]
    evidence = [float(jnp.mean(model.log_evidence(truth.y))) for model in ends]
    # The last statistics are means over some 100 / 0.04 draws of data: a parameter costs half of
    # their inverse, on average, and there are 56.
    assert evidence[0] - 5 * 56 / 5000 < evidence[1] < evidence[0] + 1e-6
    assert evidence[0] > float(jnp.mean(start.log_evidence(truth.y))) + 1


# Learning -----------------------------------------------------------------------------------------


def distance(found, truth):
    """The largest distance of a true row from the nearest one of those found."""
    return np.max(np.min(np.mean(np.abs(found[:, None] - truth), axis=2), axis=0))


@pytest.mark.parametrize("name", ["BSC", "MCA"])
def test_bars_are_found(name):
    kind, superposition = {"BSC": (sbl.BSC, "linear"), "MCA": (sbl.MCA, "max")}[name]
    truth = datasets.bars(jax.random.key(2), 300, size=3, superposition=superposition)
    fit = sbl.learn_dictionary(KEY, kind, truth.y, 6, anneal_steps=40)
    # The rows that add up to the same image as the columns, linear bars are known up to a little
    # of it; the standard error of a weight is 2 / sqrt(60).
    assert fit.converged and distance(np.asarray(fit.weights), np.asarray(truth.weights)) < 1
    assert fit.num_steps == np.sum(np.isfinite(fit.evidence_trace))
    np.testing.assert_allclose(fit.noise_var, truth.noise_var, rtol=0.2)
    assert fit.log_evidence > fit.evidence_trace[0]
    clean = truth.y - np.asarray(fit.model.reconstruct(truth.y))
    assert np.mean(clean**2) < 1.2 * truth.noise_var


def test_causes_that_no_datum_has_keep_their_weights():
    """A row far from all data is of no use, and nothing becomes NaN."""
    far = np.concatenate([WEIGHTS[:2], 1e4 * np.ones((1, D))])
    for kind in (sbl.BSC, sbl.MMCA, sbl.GSC):
        options = {"slab_mean": 1.0, "slab_var": 1e-4} if kind is sbl.GSC else {}
        algorithm = sbl.truncated_em(kind(far, 1.0, 0.2, **options))
        state, info = jax.jit(algorithm.step)(None, algorithm.init(), Y)
        np.testing.assert_allclose(state.model.weights[2], 1e4, rtol=1e-6)
        assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves((state, info)))


def test_data_without_noise_end_at_the_floor_of_the_variance():
    y = np.repeat(np.eye(3)[:2], 5, axis=0)
    fit = sbl.learn_dictionary(KEY, sbl.BSC, y, 2, anneal_steps=5, max_steps=60)
    assert 0 < fit.noise_var < 0.1 and np.all(np.isfinite(fit.weights))
    zeros = sbl.learn_dictionary(KEY, sbl.BSC, np.zeros((7, 3)), 2, anneal_steps=5, max_steps=60)
    assert np.all(np.isfinite(zeros.weights)) and zeros.noise_var > 0


@pytest.mark.parametrize("name", ["DSC", "MMCA", "GSC"])
def test_draws_have_the_moments_of_the_model(name):
    model, n = MODELS[name](WEIGHTS), 4000
    codes, y = model.sample(KEY, (n,))
    assert codes.shape == (n, H) and y.shape == (n, D)
    if name == "GSC":
        prob, first = model.prior_prob, model.prior_prob * model.slab_mean
        second = model.prior_prob * (model.slab_mean**2 + model.slab_var)
    else:
        probs, values = np.asarray(model.value_probs()), np.array(model.values)
        prob, first, second = probs.sum(), probs @ values, probs @ values**2
    error = np.sqrt(np.maximum(second - first**2, 1e-9) / n)
    assert np.all(np.abs(codes.mean(axis=0) - first) < 5 * error)
    rate_error = np.sqrt(prob * (1 - prob) / n)
    assert np.all(np.abs((codes != 0).mean(axis=0) - prob) < 5 * rate_error)
    noise = np.asarray(y - model.superpose(codes))
    assert np.abs(np.mean(noise**2) / model.noise_var - 1) < 5 * np.sqrt(2 / noise.size)


# Errors -------------------------------------------------------------------------------------------

NAN = np.where(np.arange(N)[:, None] == 3, np.nan, Y)


def bsc(**options):
    return sbl.BSC(WEIGHTS, 1.0, 0.2, **options)


BAD = {
    "more active than candidates": (lambda: bsc(num_candidates=2, max_active=3), "max_active is 3"),
    "more candidates than causes": (lambda: bsc(num_candidates=5), "there are 4 causes"),
    "too many states": (
        lambda: sbl.TSC(np.ones((30, 2)), 1.0, 0.1, num_candidates=20, max_active=9),
        "take fewer",
    ),
    "no candidate": (lambda: bsc(num_candidates=0), "num_candidates must be at least 1"),
    "noise": (lambda: sbl.BSC(WEIGHTS, -1.0, 0.2), "noise_var must be positive"),
    "probability": (lambda: sbl.BSC(WEIGHTS, 1.0, 1.2), "prior_prob"),
    "probabilities": (lambda: sbl.DSC(WEIGHTS, 1.0, [0.7, 0.6]), "value 0"),
    "a value of 0": (lambda: sbl.DSC(WEIGHTS, 1.0, 0.1, values=(0.0, 1.0)), "different from"),
    "negative maximal causes": (lambda: sbl.MCA(WEIGHTS, 1.0, 0.2), "weights must not be negative"),
    "weights": (lambda: sbl.BSC(WEIGHTS[0], 1.0, 0.2), "one row a cause"),
    "slab": (lambda: sbl.GSC(WEIGHTS, 1.0, 0.2, np.zeros(3)), "slab_mean must be a scalar or"),
    "NaN": (lambda: bsc().posterior(NAN), "y holds NaN"),
    "no data": (lambda: bsc().log_evidence(np.zeros((0, D))), "y is empty"),
    "transposed": (lambda: bsc().reconstruct(Y.T), "transposed"),
    "complex": (lambda: bsc().reconstruct(Y + 1j), "real numbers"),
    "top_k": (lambda: bsc().posterior(Y, 99), "top_k is 99"),
    "temperature": (lambda: sbl.truncated_em(bsc(), temperature=0.5), "temperature must be"),
    "cut": (lambda: sbl.truncated_em(bsc(), cut=2.0), "cut must be a number from 0 to 1"),
    "step size": (lambda: sbl.truncated_em(bsc(), step_size=0.0), "step_size must be positive"),
    "an empty shard": (
        lambda: sbl.truncated_em(bsc()).step(None, sbl.truncated_em(bsc()).init(), Y[:0]),
        "y is empty",
    ),
    "learn from NaN": (lambda: sbl.learn_dictionary(KEY, sbl.BSC, NAN, 3), "y holds NaN"),
    "model": (lambda: sbl.truncated_em("BSC"), "model must be"),
    "kind": (lambda: sbl.learn_dictionary(KEY, "BSC", Y, 3), "kind must be a class"),
    "draws": (lambda: bsc().sample(KEY, 3), "sample_shape must be a tuple"),
}


@pytest.mark.errors
@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    call, text = BAD[name]
    with pytest.raises(ValueError, match=text):
        call()


@pytest.mark.errors
def test_nan_is_found_when_a_compiled_program_runs():
    algorithm = sbl.truncated_em(bsc())
    step = jax.jit(lambda y: algorithm.step(None, algorithm.init(), y)[0].model.weights)
    with pytest.raises(RuntimeError, match="y holds NaN"):
        jax.block_until_ready(step(NAN))


def test_integers_are_converted():
    counts = np.round(Y).astype(int)
    found = eqx.filter_jit(lambda y: bsc().log_evidence(y))
    np.testing.assert_allclose(found(counts), found(counts.astype(float)))


def test_data_spread_over_eight_devices_give_the_same_steps():
    script = Path(__file__).with_name("sparse_devices.py")
    assert devices.printed(script, 8) == ["8", "BSC", "MCA", "GSC"]
