"""Gradient descent on the real line, beside loops written out; what fits share and keep."""

import gc
import weakref

import equinox as eqx
import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial
from numpyro.distributions import constraints

from bayesjx._core import (
    constrained_field,
    fit,
    gradient_algorithm,
    Identity,
    known_field,
    trained,
    WeakCache,
)
from bayesjx._core._program import _PROGRAMS

KEY = jax.random.key(3)
COMPILED = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, _, **__: COMPILED.append(event) if event.endswith("compile_duration") else None
)


class Model(eqx.Module):
    scale: jax.Array = constrained_field(constraints.positive)
    share: jax.Array = constrained_field(constraints.unit_interval)
    x: jax.Array = known_field()
    loc: jax.Array
    name: str = eqx.field(static=True, default="model")


def model(dtype=jnp.float64, scale=0.7):
    return Model(*(jnp.asarray(v, dtype) for v in (scale, [0.2, 0.9], [1.0, -1.0, 2.0], -0.3)))


def loss(key, m, y):
    noise = jax.random.normal(key, y.shape, y.dtype)
    middle = m.loc + m.scale * m.x + m.share[0] - m.share[1] ** 2
    return jnp.mean((y - middle + 0.1 * noise) ** 2) + m.scale


def test_steps_are_those_of_a_loop_on_the_real_line(dtype, tol):
    start, y, optimizer = model(dtype), jnp.asarray([0.3, 0.1, 1.0], dtype), optax.sgd(0.1)
    algorithm = gradient_algorithm(loss, start, optimizer, average=0.9, maximise=False)
    result = fit(KEY, algorithm, algorithm.init(), 7, data=(y,))

    @jax.jit
    def by_hand(real):
        def value(real, key):
            log_scale, logit, loc = real
            m = Model(jnp.exp(log_scale), jax.nn.sigmoid(logit), start.x, loc)
            return loss(key, m, y)

        values, mean = [], real
        for i in range(7):
            found, slope = jax.value_and_grad(value)(real, jax.random.fold_in(KEY, i))
            real = tuple(r - 0.1 * s for r, s in zip(real, slope, strict=True))
            mean = tuple(0.9 * m + 0.1 * r for m, r in zip(mean, real, strict=True))
            values.append(found)
        return (real, mean, jnp.stack(values)), optax.tree.norm(slope)

    real = jnp.log(start.scale), jax.scipy.special.logit(start.share), start.loc
    (real, mean, values), norm = by_hand(real)
    end, average = (trained(start, result.state, average=flag) for flag in (False, True))
    for found, want in ((end, real), (average, mean)):
        np.testing.assert_allclose(found.scale, np.exp(want[0]), **tol)
        np.testing.assert_allclose(found.share, 1 / (1 + np.exp(-want[1])), **tol)
        np.testing.assert_allclose(found.loc, want[2], **tol)
        np.testing.assert_array_equal(found.x, start.x)
        assert found.scale.dtype == found.share.dtype == dtype and found.name == "model"
    np.testing.assert_allclose(result.info.objective, values, **tol)
    np.testing.assert_allclose(result.info.gradient_norm[-1], norm, **tol)


def test_what_the_loss_moves_itself_and_climbing():
    def both(key, m, mean, y):
        mean = mean + 0.5 * (y.mean() - mean)
        return (m.loc - mean) ** 2, m.loc, mean

    y = jnp.arange(3.0)
    common = model(), optax.sgd(0.25)
    algorithm = gradient_algorithm(both, *common, natural=jnp.zeros(()), trainable=lambda m: m.loc)
    result = fit(KEY, algorithm, algorithm.init(), 2, data=(y,))
    loc = -0.3 - 0.5 * (-0.3 - 0.5)
    np.testing.assert_allclose(result.info.objective, [-0.3, loc], rtol=1e-12)
    np.testing.assert_allclose(result.state.natural, 0.75, rtol=1e-12)
    alone = gradient_algorithm(both, model(), None, natural=jnp.zeros(()))
    kept = fit(KEY, alone, alone.init(), 2, data=(y,)).state
    np.testing.assert_allclose(kept.natural, 0.75, rtol=1e-12)
    assert trained(model(), kept).loc == model().loc
    up = gradient_algorithm(lambda key, m: -(m.loc**2), *common, maximise=True)
    moved = trained(model(), fit(KEY, up, up.init(), 1).state)
    np.testing.assert_allclose(moved.loc, -0.3 + 0.5 * 0.3, rtol=1e-12)


def test_equal_fits_compile_nothing():
    def run(scale, made):
        algorithm = gradient_algorithm(made, model(scale=scale), optax.adam(0.1))
        return fit(KEY, algorithm, algorithm.init(), 3, data=(jnp.full(3, scale),)).info.objective

    holding = lambda shift: Partial(_shifted, jnp.asarray(shift))  # noqa: E731
    first = run(0.7, loss), run(0.7, holding(0.0))
    COMPILED.clear()
    second = run(0.5, loss), run(0.7, holding(1.0))
    assert not COMPILED
    assert np.all(second[0] != first[0])  # other values, though: they are no constants
    np.testing.assert_allclose(second[1], first[1] + 1.0, rtol=1e-12)
    twice = lambda key, m, y: 2 * loss(key, m, y)  # noqa: E731
    np.testing.assert_allclose(run(0.5, twice)[0], 2 * second[0][0], rtol=1e-12)
    silent = gradient_algorithm(loss, model(scale=0.0), optax.adam(0.1))  # 0 is known
    end = fit(KEY, silent, silent.init(), 3, data=(jnp.ones(3),)).state
    assert trained(model(scale=0.0), end).scale == 0


def _shifted(shift, key, m, y):
    return loss(key, m, y) + shift


def test_a_program_and_its_data_die_with_the_loss():
    def run():
        data = np.ones(1000)
        large = jnp.asarray(data)

        def own(key, m, y):
            return loss(key, m, y) + jnp.sum(large)

        algorithm = gradient_algorithm(own, model(), optax.adam(0.1))
        fit(KEY, algorithm, algorithm.init(), 3, data=(jnp.ones(3),))
        return weakref.ref(own), weakref.ref(large)

    gc.collect()
    before = len(_PROGRAMS._entries)
    dead = run()
    gc.collect()
    assert [ref() for ref in dead] == [None, None]
    assert len(_PROGRAMS._entries) == before


def test_identities():
    adam = lambda rate: optax.adam(rate)  # noqa: E731
    assert Identity(adam(0.1)) == Identity(adam(0.1)) != Identity(adam(0.2))
    assert Identity(0.0) != Identity(-0.0) and Identity(1) != Identity(1.0) != Identity(True)
    assert Identity(np.arange(3)) == Identity(np.arange(3)) != Identity(np.arange(1, 4))
    mine = lambda: lambda x: x  # noqa: E731
    function = mine()
    assert Identity({"f": [function]}) == Identity({"f": [function]}) != Identity({"f": [mine()]})
    schedule = adam(function), adam(function), adam(mine())
    assert Identity(schedule[0]) == Identity(schedule[1]) != Identity(schedule[2])
    array = jnp.ones(2)
    assert Identity(array) == Identity(array) != Identity(jnp.ones(2))
    looped = []
    looped.append(looped)
    assert Identity(looped) == Identity(looped)


def test_a_cache_is_bounded_and_weak():
    cache, functions = WeakCache(2), [_a_function() for _ in range(3)]
    for function in functions:
        cache.put(Identity(function, "same"), "value")
    assert [cache.get(Identity(f, "same")) for f in functions] == [None, "value", "value"]
    del function, functions[2]
    gc.collect()
    assert len(cache._entries) == 1 and cache.get(Identity(functions[1], "same"))


def _a_function():
    return lambda: None


@pytest.mark.errors
def test_errors():
    adam = optax.adam(0.1)
    with pytest.raises(ValueError, match="nothing to train"):
        gradient_algorithm(loss, {"n": 3}, adam)
    with pytest.raises(
        ValueError, match=r"^in params scale holds NaN, or values that break .*[Pp]ositive"
    ):
        gradient_algorithm(loss, model(scale=-1.0), adam)
    with pytest.raises(ValueError, match="share holds zeros beside other values"):
        gradient_algorithm(loss, eqx.tree_at(lambda m: m.share, model(), jnp.array([0, 0.5])), adam)
    with pytest.raises(ValueError, match="trainable must return a node"):
        gradient_algorithm(loss, model(), adam, trainable=lambda m: m.unknown)
    with pytest.raises(ValueError, match="average is a decay"):
        gradient_algorithm(loss, model(), adam, average=1.0)
    bad = gradient_algorithm(lambda key, m: m.share, model(), adam)
    with pytest.raises(ValueError, match=r"loss must be a scalar, got shape \(2,\)"):
        fit(KEY, bad, bad.init(), 2)
