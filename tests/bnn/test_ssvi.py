"""Sparse subspace variational inference: criteria, moves, the algorithm, budgets and costs."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
from scipy.special import logsumexp
from sparse_problems import layer, LAYOUTS

import bayesjx
from bayesjx import bnn
from bayesjx.bnn._sparse._moves import move

ADAM = optax.adam(1e-2)
CRITERIA = ("mean", "snr", "mean_abs", "snr_mean_abs", "exp", "snr_exp")


def by_quadrature(criterion, mean, scale, rate):
    """The criterion by Simpson's rule over |w| for either sign, in logarithms."""
    part = np.linspace(0, 1, 4001)
    simpson = np.log(np.r_[1, np.tile([4, 2], 1999), 4, 1] / 3)

    def log_expected(log_function, tilt):
        terms = []
        for at in (mean, -mean):  # where the integrand peaks, and 12 deviations beside
            peak = at + tilt * scale**2
            low = max(0.0, peak - 12 * scale)
            size = low + part * (max(peak, 0) + 12 * scale - low)
            log_normal = -0.5 * ((size - at) / scale) ** 2 - np.log(scale * np.sqrt(2 * np.pi))
            width = np.log(size[1] - size[0])
            terms.append(logsumexp(simpson + width + log_normal + log_function(size)))
        return np.logaddexp(*terms)

    size = np.exp(log_expected(lambda w: np.log(np.maximum(w, 1e-300)), 0))
    one, two = (log_expected(lambda w, p=p: p * rate * w, p * rate) for p in (1, 2))
    gap = two - 2 * one
    return {
        "mean": abs(mean),
        "snr": abs(mean) / scale,
        "mean_abs": size,
        "snr_mean_abs": size / np.sqrt(mean**2 + scale**2 - size**2),
        "exp": one,
        "snr_exp": -0.5 * (gap + np.log1p(-np.exp(-gap))),
    }[criterion]


@pytest.mark.parametrize("criterion", CRITERIA)
def test_criteria_are_expectations(criterion):
    mean = np.array([0.0, 0.3, -1.7, 0.02, 4.0])
    scale = np.array([0.5, 0.3, 0.4, 0.2, 0.9])
    for rate in (0.5, 1.0, 40.0):  # of 40 the exponentials exceed even double precision
        want = [by_quadrature(criterion, m, s, rate) for m, s in zip(mean, scale, strict=True)]
        got = bnn.removal_score(mean, scale, criterion, rate)
        np.testing.assert_allclose(got, want, rtol=1e-8)
        single = bnn.removal_score(
            mean.astype(np.float32), scale.astype(np.float32), criterion, rate
        )
        np.testing.assert_allclose(single, got, rtol=1e-4, atol=1e-4)
    # Narrow and wide ones: finite, and most in the order of the signal-to-noise ratio.
    scale = np.broadcast_to(np.array([[1e-8], [1e-3], [1e3]], np.float32), (3, 4))
    mean = np.array([0, 1, 2, 5], np.float32) * scale
    score = np.asarray(bnn.removal_score(mean, scale, criterion))
    assert np.all(np.isfinite(score))
    assert criterion == "snr_exp" or np.all(np.diff(score, axis=1) > -1e-6 * abs(score[:, 1:]))


def moved_by_numpy(index, score, growth, count):
    """Sets of units of each group after a move."""
    removed = np.zeros(score.size, bool)
    removed[np.argsort(score.ravel(), kind="stable")[:count]] = True
    removed = removed.reshape(score.shape)
    after = []
    for units, gone, grows in zip(index, removed, growth, strict=True):
        kept = set(units[~gone])
        best = [c for c in np.argsort(-grows, kind="stable") if c not in kept]
        after.append(kept | set(best[: gone.sum()]))
    return after


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "dense"])
def test_a_move_removes_the_least_and_adds_the_steepest(layout):
    weight = layer(layout)[0].weight
    index, mean, scale = (np.asarray(a) for a in (weight.index, weight.mean, weight.scale))
    inside = weight.inside()
    inside = np.ones(mean.shape, bool) if inside is None else np.asarray(inside)
    score = (abs(mean) / scale * inside).sum(2) / inside.sum(2)
    growth = np.random.default_rng(3).uniform(size=(len(weight.index), weight.candidates))
    group, slot = np.unravel_index(np.argmin(score), score.shape)
    growth[group, index[group, slot]] = 2.0  # the first that goes comes back

    @jax.jit
    def moves(weight, growth):
        once = move(weight, growth, 0.4, "snr", 1.0, None)

        def again(weight, key):
            new = move(weight, jax.random.uniform(key, growth.shape), 0.5, "snr_exp", 1.0, 0.01)
            return new.weight, jnp.sum(new.changed)

        last, changes = jax.lax.scan(again, weight, jax.random.split(jax.random.key(0), 100))
        return once, last, changes

    (new, changed), last, changes = moves(weight, growth)
    assert not changed[group, slot]
    after = moved_by_numpy(index, score, growth, int(0.4 * index.size))
    assert [set(units) for units in np.asarray(new.index)] == after
    for g, units in enumerate(np.asarray(new.index)):
        for t, unit in enumerate(units):
            fresh = unit not in set(index[g])
            assert fresh == changed[g, t]
            at = np.flatnonzero(index[g] == unit)
            want = 0 if fresh else mean[g, at[0]]
            np.testing.assert_array_equal(new.mean[g, t], np.broadcast_to(want, mean.shape[2]))
            common = np.exp(np.log(scale)[inside].mean())
            np.testing.assert_allclose(
                new.scale[g, t], common if fresh else scale[g, at[0]], rtol=1e-9
            )
    assert np.any(changed) and not np.all(changed)
    # A hundred moves on: as many units as before, all of them distinct.
    order = np.sort(np.asarray(last.index), axis=1)
    assert np.all(np.diff(order, axis=1) > 0) and order.min() >= 0
    assert order.max() < weight.candidates and changes.min() > 0


def categorical(f):
    return dist.Categorical(logits=f)


def problem(kind=np.float32, num=48):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(num, 11)).astype(kind)
    return x, (x[:, 3] > 0).astype(int) + (x[:, 7] > 0)


def start(kind=np.float32, estimator="local", likelihood=categorical, width=10, **options):
    dtype = jnp.dtype(kind)
    model = eqx.nn.MLP(11, 3, width, 2, dtype=dtype, key=jax.random.key(1))
    network = bnn.sparsify(jax.random.key(2), model, 0.3, **{"group": 4} | options)
    return bnn.sparse_mean_field(network, likelihood, prior_scale=0.5, estimator=estimator)


def algorithm(q, optimizer=ADAM, **options):
    given = {"num_data": 48, "num_steps": 60, "move_every": 5} | options
    return bnn.ssvi(q, optimizer, **given)


def test_a_step_that_moves_takes_the_dense_gradient_and_forgets_moments(getkey):
    q, (x, y) = start(np.float64), problem(np.float64)
    alg = algorithm(q, growth="mean", swap=0.5, criterion="snr", kl_weight=0.3)

    @jax.jit
    def run(state, x, y):
        body = lambda i, s: alg.step(jax.random.fold_in(jax.random.key(3), i), s, x, y)[0]  # noqa: E731
        before = jax.lax.fori_loop(0, 4, body, state)
        then = q.trained(before)
        biases = [layer.bias for layer in then.network().layers]
        matrices = [weight.matrix() for weight in then.weights]

        def by_hand(matrices):
            h = x
            for i, (matrix, bias) in enumerate(zip(matrices, biases, strict=True)):
                h = (h if i == 0 else jax.nn.relu(h)) @ matrix + bias
            return jnp.sum(jax.nn.log_softmax(h)[jnp.arange(len(y)), y])

        value = then.data_term(None, x, y, None), then.kl()
        found = alg.step(jax.random.key(4), before, x, y)
        return before, *found, value, jax.value_and_grad(by_hand)(matrices)

    before, after, info, (data, kl), (value, slopes) = run(alg.init(), x, y)
    then, now = q.trained(before), q.trained(after)
    layers = [w for w in then.weights if not w.full]
    np.testing.assert_allclose(info.objective, value - 0.3 * kl, rtol=1e-10)
    np.testing.assert_allclose(data, value, rtol=1e-10)
    share, total = 0.25 * (1 + np.cos(np.pi * 4 / 45)), 0
    for i, weight in enumerate(layers):
        rows, cols = weight.size
        norms = np.pad(np.asarray(slopes[i]) ** 2, [(0, 0), (0, -cols % 4)])
        growth = norms.reshape(rows, -1, 4).sum(2).T
        inside = np.asarray(weight.inside())
        score = (np.asarray(abs(weight.mean) / weight.scale) * inside).sum(2) / inside.sum(2)
        want = moved_by_numpy(np.asarray(weight.index), score, growth, int(share * score.size))
        assert [set(units) for units in np.asarray(now.weights[i].index)] == want
        changed = np.asarray(now.weights[i].index != weight.index)[:, :, None]
        total += changed.sum()
        for moment, old in zip(after.opt_state[0][1:], before.opt_state[0][1:], strict=True):
            for name in ("means", "scales"):
                kept = np.where(changed, 0, getattr(old, name)[i])
                np.testing.assert_array_equal(getattr(moment, name)[i], kept)
        assert np.all(np.asarray(now.weights[i].mean)[changed[..., 0]] == 0)
    assert total == info.num_changed > 0 and after.natural.step == 5
    np.testing.assert_array_equal(after.opt_state[0].mu.means[2], before.opt_state[0].mu.means[2])
    assert after.opt_state[0].count == before.opt_state[0].count == 4


@pytest.mark.parametrize(
    "options,layout",
    [
        (
            {"growth_batches": 2, "criterion": "snr_exp", "swap": lambda t: 0.6, "kl_weight": 0.02},
            {"block": (2, 5)},
        ),
        ({"move_every": None, "kl_weight": optax.linear_schedule(0.0, 0.02, 30)}, {"group": 1}),
    ],
)
def test_a_fit_learns_and_predicts(options, layout, getkey):
    q, (x, y) = start(estimator="weights" if "group" in layout else "local", **layout), problem()

    def fit():
        alg = algorithm(q, num_steps=150, **options)
        return bayesjx.fit(getkey(), alg, alg.init(), 150, data=(x, y), batch_size=32)

    result = fit()
    assert fit().compile_seconds == 0
    learnt = result.info.objective[-20:].mean() - result.info.objective[:20].mean()
    # With the weight of the divergence the bound falls.
    assert learnt > 0 or callable(options["kl_weight"])
    moved = np.flatnonzero(result.info.num_changed)
    assert (len(moved) > 0) == ("move_every" not in options)
    assert np.all(moved % 5 == 4) and np.all(moved < 113)
    found = q.trained(result.state)
    assert [w.index.shape for w in found.weights] == [w.index.shape for w in q.weights]
    posterior = found.posterior(getkey(), 7)
    probs = posterior.predict(x).probs
    assert np.mean(np.argmax(probs, 1) == y) > 0.7 and probs.dtype == np.float32
    drawn = [w for w in jax.tree.leaves(posterior.network(0)) if eqx.is_inexact_array(w)]
    assert len(drawn) == 6  # means and biases, no scales
    key = getkey()
    data, tempered = (found.elbo(x, y, key=key, kl_weight=w) for w in (0.0, 0.5))
    np.testing.assert_allclose(data - tempered, 0.5 * found.kl(), rtol=1e-4)


def test_many_fits_at_once():
    q, (x, y) = start(group=1), problem()
    alg = algorithm(q)

    @jax.jit
    @jax.vmap
    def run(key):
        step = lambda state, key: alg.step(key, state, x, y)  # noqa: E731
        return jax.lax.scan(step, alg.init(), jax.random.split(key, 7))[1]

    info = run(jax.random.split(jax.random.key(0), 2))
    assert info.objective.shape == (2, 7) and np.all(info.num_changed[:, 4] > 0)
    assert np.all(info.objective[0] != info.objective[1])


@pytest.mark.parametrize("layout", [{"group": 4}, {"group": 1}, {"block": (3, 2)}])
def test_reallocation_keeps_the_budget(layout):
    q, (x, y) = start(width=24, **layout), problem()
    q = eqx.tree_at(lambda q: q.scales[1], q, 0.01 * q.scales[1])  # so that the first layer loses
    new = bnn.reallocate(jax.random.key(0), q, x, y, swap=0.5)
    sizes = [[w.mean.size for w in at.weights] for at in (q, new)]
    assert sum(sizes[1]) <= sum(sizes[0]) and sizes[0] != sizes[1] and sizes[0][2] == sizes[1][2]
    slack = max(len(w.index) * w.mean.shape[2] for w in new.weights[:2])
    assert sum(sizes[0]) - sum(sizes[1]) <= slack

    @eqx.filter_jit
    def matrices(at):
        return [(weight.matrix(), weight.mask()) for weight in at.weights[:2]]

    for weight, (mean, mask), (old, was) in zip(
        new.weights, *map(matrices, (new, q)), strict=False
    ):
        assert np.all(np.diff(weight.index, axis=1) > 0) and weight.index.max() < weight.candidates
        both = np.asarray(mask & was)
        np.testing.assert_array_equal(mean[both], old[both])
        assert np.all(mean[~np.asarray(was)] == 0)


def test_costs_are_those_of_the_active_weights():
    q, (x, y) = start(), problem()
    alg = algorithm(q)
    costs = bnn.training_costs(q, alg, alg.init(), x[:8], y[:8])
    active = sum(w.mean.size for w in q.weights)
    assert costs.forward_flops == 4 * active and costs.dense_step_flops == 96 * (110 + 100 + 30)
    biases = 10 + 10 + 3
    assert costs.parameter_bytes == 4 * (2 * active + biases)
    assert costs.optimizer_bytes == 2 * costs.parameter_bytes + 4
    assert costs.index_bytes == 4 * sum(w.index.size for w in q.weights)
    assert costs.temporary_bytes > 0 and np.isnan(costs.step_seconds)
    np.testing.assert_allclose(costs.active, active / 240)


class Twice(eqx.Module):
    layer: bnn.SparseLinear

    def __call__(self, x):
        return self.layer(self.layer(x))


BAD = [
    (lambda q: bnn.sparse_mean_field(eqx.nn.Identity()), "must have sparse layers"),
    (lambda q: bnn.sparse_mean_field(q.network(), prior_scale=0.0), "prior_scale must be positive"),
    (lambda q: bnn.sparse_mean_field(q.network(), estimator="flipout"), "one of local, weights"),
    (lambda q: algorithm(q.network()), "distribution must be what"),
    (lambda q: algorithm(q, num_data=0), "num_data must be at least 1"),
    (lambda q: algorithm(q, swap=1.5), "swap must be a number in"),
    (lambda q: algorithm(q, stop=0.0), "stop must be a number above 0"),
    (lambda q: algorithm(q, criterion="kurtosis"), "criterion must be one of mean, snr"),
    (lambda q: algorithm(q, growth="dense"), "growth must be one of sampled, mean"),
    (lambda q: algorithm(q, growth_batches=5), "growth_batches must be below move_every, 5"),
    (lambda q: algorithm(q, kl_weight=-1.0), "kl_weight must be finite and not negative"),
    (lambda q: algorithm(q, move_every=0), "move_every must be at least 1"),
    (lambda q: bnn.ssvi(q, 1e-3, num_data=1, num_steps=1), "optimizer must be"),
    (lambda q: bnn.reallocate(jax.random.key(0), q, *problem(), swap=0.0), "swap must be"),
    (lambda q: bnn.removal_score(jnp.ones(3), jnp.ones(2)), "scale must have the shape of mean"),
    (lambda q: bnn.removal_score(jnp.ones(3), jnp.ones(3), rate=-1.0), "rate must be a positive"),
    (
        lambda q: bnn.sparse_mean_field(
            Twice(bnn.SparseLinear(jax.random.key(0), 5, 5, density=0.4)), categorical
        ).elbo(np.ones((3, 5)), np.zeros(3, int), key=jax.random.key(0)),
        "applied several times",
    ),
]  # fmt: skip


@pytest.mark.errors
@pytest.mark.parametrize("call,text", BAD)
def test_bad_input_is_named(call, text):
    with pytest.raises(ValueError, match=text):
        call(start())


@pytest.mark.errors
def test_labels_out_of_range_are_named():
    q, (x, y) = start(), problem()
    with pytest.raises(ValueError, match="y holds values outside of the support"):
        q.elbo(x, y + 1, key=jax.random.key(0))
    alg = algorithm(q, move_every=None)
    with pytest.raises(Exception, match="y holds values outside of the support"):
        bayesjx.fit(jax.random.key(0), alg, alg.init(), 7, data=(x, y + 1))
