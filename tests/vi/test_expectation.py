"""`Objective`: its methods, JAX's transformations of it, and the randomness behind it."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.test_util import check_grads

from bayesjx import vi
from bayesjx.vi._estimator._context import map_draws
from benchmarks.vi import cells

KEY = jax.random.key(0)
S = cells.STRATEGIES


def drawn(program, *args):
    """The values that a program draws for a key, by site."""

    @vi.expectation(has_aux=True)
    def objective():
        trace, log_q = vi.simulate(program, *args)
        return log_q, trace.values

    return objective.estimate(KEY)[1]


# Exactness, transformations -----------------------------------------------------------------


def enumerated(p):
    """Every site of the chain but z enumerated: deterministic given the key."""
    strategies = [S["reparam"], *[S["enum"]] * 4]
    return cells.chain.objective(strategies).surrogate(KEY, p)


def test_enumeration_and_paths_agree_with_finite_differences():
    fn = jax.jit(enumerated)
    check_grads(fn, (jnp.array(cells.chain.POINT),), order=1, modes=["rev"], rtol=1e-5)


def test_enumeration_is_exact(dtype, tol):
    """No randomness is left once all sites are enumerated."""
    cell = cells.lanes.cells()[0]

    def guide(p):
        with numpyro.plate("pairs", 3):
            numpyro.sample("b", vi.enum(dist.Bernoulli(logits=p)))

    def model(p):
        with numpyro.plate("pairs", 3):
            b = numpyro.sample("b", dist.Bernoulli(probs=jnp.array([0.3, 0.5, 0.6], dtype)))
            numpyro.factor("cost", b * jnp.array([1.0, -2.0, 0.5], dtype))

    def exact(p):
        q = jax.nn.sigmoid(p)
        prior = jnp.array([0.3, 0.5, 0.6], dtype)
        kl = q * jnp.log(q / prior) + (1 - q) * jnp.log((1 - q) / (1 - prior))
        return jnp.sum(q * jnp.array([1.0, -2.0, 0.5], dtype) - kl)

    bound, p = vi.elbo(model, guide), cell.point.astype(dtype)
    got = jax.jit(lambda p: bound.value_and_grad(KEY, p))(p)
    want = jax.value_and_grad(exact)(p)
    for mine, theirs in zip(got, want, strict=True):
        assert mine.dtype == dtype
        np.testing.assert_allclose(mine, theirs, **tol)


@pytest.fixture(scope="module")
def mixed():
    """One strategy of each kind, in the chain."""
    return cells.chain.objective([None, vi.reinforce(), vi.disarm(), vi.enum(), vi.mvd()])


def test_jit_vmap_and_grad_agree(mixed):
    points = jnp.array(cells.chain.POINT) + jnp.array([[0.0], [0.3]])
    keys = jax.random.split(KEY, 2)
    grad = jax.grad(lambda p, k: mixed.surrogate(k, p))
    one_by_one = jax.jit(grad)
    want = jnp.stack([one_by_one(p, k) for p, k in zip(points, keys, strict=True)])
    np.testing.assert_allclose(jax.jit(jax.vmap(grad))(points, keys), want, rtol=1e-10)
    values, gradients = jax.jit(jax.vmap(lambda k, p: mixed.value_and_grad(k, p)))(keys, points)
    np.testing.assert_allclose(gradients, want, rtol=1e-10)
    np.testing.assert_allclose(values[0], mixed.surrogate(keys[0], points[0]), rtol=1e-10)


def test_draws_average(mixed):
    p = jnp.array(cells.chain.POINT)

    def single(key):
        return jax.value_and_grad(lambda p: mixed.surrogate(key, p))(p)

    singles = jax.jit(lambda: map_draws(single, KEY, 3))()
    value, gradient = jax.jit(lambda: mixed.value_and_grad(KEY, p, num_draws=3))()
    np.testing.assert_allclose(value, singles[0].mean(), rtol=1e-10)
    np.testing.assert_allclose(gradient, singles[1].mean(0), rtol=1e-10)


def test_draws_and_sites_are_independent():
    """The variance of the mean of four draws of the sum of two sites is a quarter of 1 + 4."""

    @vi.expectation
    def objective(scale):
        def guide():
            numpyro.sample("a", dist.Normal(0.0, 1.0))
            numpyro.sample("b", dist.Normal(0.0, scale))

        trace, _ = vi.simulate(guide)
        return trace["a"] + trace["b"]

    def mean(key):
        return objective.value_and_grad(key, 2.0 * jnp.ones(()), num_draws=4)[0]

    n = 40_000
    values = jax.jit(jax.vmap(mean))(jax.random.split(KEY, n))
    assert abs(values.mean()) < 5 * (1.25 / n) ** 0.5
    assert abs(values.var() / 1.25 - 1) < 5 * (2 / n) ** 0.5


def test_estimate_is_the_value_of_a_run(mixed):
    """Without replayed sites the surrogate has the value of the estimate."""
    objective = cells.chain.objective([None, *[vi.reinforce()] * 4])
    p = jnp.array(cells.chain.POINT)
    estimate, surrogate = jax.jit(
        lambda: (objective.estimate(KEY, p), objective.surrogate(KEY, p))
    )()
    np.testing.assert_allclose(estimate, surrogate, rtol=1e-12)


def test_argnums_modules_and_keyword_arguments():
    @vi.expectation
    def objective(shift, params, *, power):
        def guide():
            numpyro.sample("z", dist.Normal(params["loc"], 1.0))

        return (vi.simulate(guide)[0]["z"] + shift) ** power

    params = {"loc": jnp.asarray(0.5), "count": 3}
    value, (by_shift, by_params) = objective.value_and_grad(
        KEY, jnp.asarray(1.0), params, power=2, argnums=(0, 1)
    )
    np.testing.assert_allclose(by_shift, 2 * jnp.sqrt(value), rtol=1e-10)
    np.testing.assert_allclose(by_params["loc"], by_shift)
    assert by_params["count"] is None


def test_auxiliary_output_belongs_to_the_same_draw():
    @vi.expectation(has_aux=True)
    def objective(p):
        trace, log_q = vi.simulate(lambda: numpyro.sample("z", dist.Normal(p, 1.0)))
        return log_q, trace["z"]

    (value, z), slope = jax.jit(lambda p: objective.value_and_grad(KEY, p))(jnp.asarray(0.3))
    np.testing.assert_allclose(value, dist.Normal(0.3, 1.0).log_prob(z), rtol=1e-12)
    np.testing.assert_allclose(slope, 0.0, atol=1e-12)  # both paths cancel
    (_, many), _ = objective.value_and_grad(KEY, jnp.asarray(0.3), num_draws=4)
    assert many.shape == (4,)


def test_describe_lists_sites_without_running():
    rows = cells.plates.objective(vi.enum(), cells.plates.B).describe(jnp.array(cells.plates.POINT))
    assert [(row.name, row.strategy, row.plates, row.shape) for row in rows] == [
        ("mu", "reparam", (), ()),
        ("c", "enum", ("N",), (cells.plates.B,)),
    ]
    assert all(row.unbiased for row in rows)


def test_objectives_may_return_plain_scalars():
    objective = vi.expectation(lambda p: 3.0 * p)
    assert objective.value_and_grad(KEY, jnp.asarray(2.0)) == (6.0, 3.0)


# Randomness ---------------------------------------------------------------------------------


def three(first=None, last=None):
    a = numpyro.sample("a", cells._cell.given(dist.Bernoulli(probs=0.5), first))
    numpyro.sample("b", dist.Normal(0.0, 1.0))
    numpyro.sample("c", cells._cell.given(dist.Normal(1.0 * a, 1.0), last))


def test_fixing_one_site_moves_no_draw_of_another():
    """Replays share their random numbers: at both values of `a`, `b` is the same draw."""

    @vi.expectation
    def gap():
        trace, _ = vi.simulate(three, vi.enum())
        return (trace["c"] - trace["a"]) + 100.0 * trace["b"]

    values = drawn(three)
    want = (values["c"] - values["a"]) + 100.0 * values["b"]
    np.testing.assert_allclose(gap.surrogate(KEY), want, rtol=1e-12)


@pytest.mark.parametrize("name", ["reinforce", "enum", "leg", "mvd", "rloo", "importance"])
def test_strategies_of_one_site_move_no_draw_of_another(name):
    values, plain = drawn(three, S[name]), drawn(three)
    np.testing.assert_array_equal(values["b"], plain["b"])


def test_runs_and_sites_draw_independently():
    @vi.expectation(has_aux=True)
    def twice():
        program = lambda: numpyro.sample("x", dist.Normal(jnp.zeros(1000), 1.0))  # noqa: E731
        first, log_q = vi.simulate(program)
        second, _ = vi.simulate(program)
        return log_q, (first["x"], second["x"])

    first, second = twice.estimate(KEY)[1]
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / np.sqrt(1000)


def test_more_sites_than_keys_made_at_once_are_independent():
    def many():
        for i in range(12):
            numpyro.sample(f"x{i}", dist.Normal(jnp.zeros(400), 1.0))

    draws = np.stack(list(drawn(many).values()))
    off_diagonal = np.corrcoef(draws)[~np.eye(12, dtype=bool)]
    assert np.abs(off_diagonal).max() < 5 / np.sqrt(400)


def test_a_minibatch_is_one_for_guide_model_and_particles():
    def rows():
        with numpyro.plate("rows", 100, subsample_size=3) as index:
            numpyro.sample("x", dist.Normal(1.0 * index, 1e-9))

    def model():
        with numpyro.plate("rows", 100, subsample_size=3) as index:
            numpyro.sample("x", dist.Normal(1.0 * index, 1e-9))
            seen.append(index)

    seen = []

    @vi.expectation(has_aux=True)
    def objective():
        def one():
            trace, log_q = vi.simulate(rows)
            return vi.log_density(model, trace).total - log_q.total, trace["x"]

        weights, draws = vi.particles(4)(one)()
        return jnp.sum(weights), jnp.round(draws)

    weights, draws = objective.estimate(KEY)
    np.testing.assert_array_equal(draws, jnp.broadcast_to(draws[0], draws.shape))
    np.testing.assert_allclose(weights, 0.0, atol=1e-6)
