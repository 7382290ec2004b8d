"""Values inside NumPyro's scan and cond: beside programs written out by hand, and enumeration."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from monte_carlo import assert_mean, draws
from numpyro import handlers
from numpyro.contrib.control_flow import cond, scan
from scipy import stats

from bayesjx import vi

Y = np.array([0.3, -1.0, 0.5])


def branch(y):
    b = numpyro.sample("b", dist.Bernoulli(0.35))
    site = lambda _: numpyro.sample("c", dist.Normal(0.0, 1.0))  # noqa: E731
    c = cond(b == 1, site, site, None)
    numpyro.sample("y", dist.Normal(c, 0.7), obs=y)


def branches(y, reverse=False):
    """A scan whose steps branch."""

    def step(x, y):
        b = numpyro.sample("b", dist.Bernoulli(0.35))
        near = lambda x: numpyro.sample("x", dist.Normal(0.9 * x, 0.5))  # noqa: E731
        far = lambda x: numpyro.sample("x", dist.Normal(x - 1, 1.5))  # noqa: E731
        x = cond(b == 1, near, far, x)
        numpyro.sample("y", dist.Normal(x, 0.7), obs=y)
        return x, None

    scan(step, jnp.zeros(()), y, reverse=reverse)


def scoped(y, reverse=False):
    with handlers.scope(prefix="s"):
        branches(y, reverse)


def by_hand(b, x, y, reverse):
    total, last = 0.0, 0.0
    for t in range(len(y))[:: -1 if reverse else 1]:
        distribution = stats.norm(0.9 * last, 0.5) if b[t] else stats.norm(last - 1, 1.5)
        total += np.log(0.35 if b[t] else 0.65) + distribution.logpdf(x[t])
        total += stats.norm(x[t], 0.7).logpdf(y[t])
        last = x[t]
    return total


def nested(y, reverse=False):
    """A scan within a scan."""

    def outer(last, y):
        def inner(last, y):
            z = numpyro.sample("z", dist.Normal(0.5 * last, 1.0))
            numpyro.sample("y", dist.Normal(z, 0.3), obs=y)
            return z, None

        a = numpyro.sample("a", dist.Normal(last, 1.0))
        return scan(inner, a, y, reverse=reverse)

    scan(outer, jnp.zeros(()), y, reverse=reverse)


def nested_by_hand(a, z, y, reverse):
    total, last = 0.0, 0.0
    way = -1 if reverse else 1
    for i in range(len(y))[::way]:
        total, last = total + stats.norm(last).logpdf(a[i]), a[i]
        for j in range(y.shape[1])[::way]:
            total += stats.norm(0.5 * last).logpdf(z[i, j])
            total, last = total + stats.norm(z[i, j], 0.3).logpdf(y[i, j]), z[i, j]
    return total


def test_given_values_arrive_in_both_branches():
    for b in (0, 1):
        want = np.log((0.65, 0.35)[b]) + stats.norm(0).logpdf(2) + stats.norm(2, 0.7).logpdf(0.9)
        got = vi.log_density(branch, {"b": b, "c": jnp.asarray(2.0)}, 0.9).total
        np.testing.assert_allclose(got, want, rtol=1e-12)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_given_values_arrive_in_loops_within_loops(reverse):
    rng = np.random.default_rng(2)
    x, z, a = rng.normal(size=3), rng.normal(size=(2, 3)), rng.normal(size=2)
    b, grid = np.array([1, 0, 1]), rng.normal(size=(2, 3))

    @jax.jit
    def densities(x, z, a):
        return (
            vi.log_density(branches, {"b": b, "x": x}, Y, reverse).total,
            vi.log_density(scoped, {"s/b": b, "s/x": x}, Y, reverse).total,
            vi.log_density(nested, {"a": a, "z": z}, grid, reverse).total,
            # As data: what `marginal` keeps.
            vi.marginal(branches, ["b", "x"])(Y, reverse, key=jax.random.key(0)).log_prob(
                jnp.concatenate([jnp.asarray(b, float), x])
            ),
        )

    want = by_hand(b, x, Y, reverse)
    every = (want, want, nested_by_hand(a, z, grid, reverse), want)
    np.testing.assert_allclose(densities(x, z, a), every, rtol=1e-10)
    # And the gradient is that of the given values.
    slope = jax.jit(
        jax.grad(lambda x: vi.log_density(branches, {"b": b, "x": x}, Y, reverse).total)
    )
    steps = 1e-5 * np.eye(3)
    finite = [by_hand(b, x + s, Y, reverse) - by_hand(b, x - s, Y, reverse) for s in steps]
    np.testing.assert_allclose(slope(x), np.array(finite) / 2e-5, rtol=1e-6, atol=1e-6)


def flags(probs, strategy=lambda d: d):
    """A flag, and another one from a distribution that depends on it."""
    b = numpyro.sample("b", strategy(dist.Bernoulli(probs[0])))
    one = lambda _: numpyro.sample("c", strategy(dist.Bernoulli(probs[1])))  # noqa: E731
    other = lambda _: numpyro.sample("c", strategy(dist.Bernoulli(probs[2])))  # noqa: E731
    return b, cond(b == 1, one, other, None)


P = np.array([0.3, 0.8, 0.1])


def flags_model(q, strategy, y):
    def step(last, y):
        b, c = flags(P)
        numpyro.sample("y", dist.Normal(b + 2.0 * c - last, 0.7), obs=y)
        return c * 1.0, None

    scan(step, jnp.zeros(()), y)


def flags_guide(q, strategy, y):
    scan(lambda last, _: (last, flags(q, strategy)), jnp.zeros(()), y)


def exact_bound(q, y):
    """By enumeration of both flags at all steps."""
    total = 0.0
    for bits in itertools.product((0, 1), repeat=2 * len(y)):
        log_p, log_q, last = 0.0, 0.0, 0.0
        for (b, c), y_t in zip(np.reshape(bits, (-1, 2)), y, strict=True):
            for probs, is_model in ((P, True), (q, False)):
                second = probs[1] if b else probs[2]
                value = jnp.log(probs[0] if b else 1 - probs[0])
                value += jnp.log(second if c else 1 - second)
                log_p, log_q = log_p + value * is_model, log_q + value * (not is_model)
            log_p += stats.norm(b + 2.0 * c - last, 0.7).logpdf(y_t)
            last = c
        total += jnp.exp(log_q) * (log_p - log_q)
    return total


@pytest.mark.parametrize(
    "strategy", [vi.reinforce, lambda d: vi.enum(d, lanes=True)], ids=["reinforce", "enum"]
)
def test_the_bound_of_a_branching_scan_is_unbiased(strategy):
    y, q = Y[:2], jnp.array([0.4, 0.6, 0.3])
    bound = vi.elbo(flags_model, flags_guide)
    value, gradient = draws(
        lambda key: bound.value_and_grad(key, q, strategy, jnp.asarray(y)), 4000
    )
    want, slope = jax.value_and_grad(exact_bound)(q, y)
    assert_mean(value, float(want), 0.05)
    assert_mean(gradient, np.asarray(slope))


@pytest.mark.parametrize("loop", ["scan", "cond"])
def test_draws_that_no_loop_hands_on_are_scored(loop):
    """One draw by hand: neither the carry nor the output of the loop depends on it."""
    y = jnp.array([0.4, -1.0])

    def flag(distribution, state):
        numpyro.sample("b", distribution)
        return state

    def run(distribution):
        if loop == "scan":
            return scan(lambda state, _: (flag(distribution, state), None), 0.0, jnp.arange(2))
        return cond(True, lambda x: flag(distribution, x), lambda x: flag(distribution, x), 0.0)

    def guide(q):
        run(vi.reinforce(dist.Bernoulli(jnp.broadcast_to(q, (2,))).to_event(1)))

    def model(q):
        run(dist.Bernoulli(jnp.full(2, 0.3)).to_event(1))

    @vi.expectation(has_aux=True)
    def bound(q):
        trace, log_q = vi.simulate(guide, q)
        b = trace["b"]
        log_y = jnp.sum(dist.Normal(b, 1.0).log_prob(y))
        return vi.log_density(model, trace, q) + log_y - log_q, b

    (value, b), slope = jax.jit(bound.value_and_grad)(jax.random.key(0), jnp.asarray(0.4))
    b = np.asarray(b)
    cost = stats.bernoulli(0.3).logpmf(b).sum() - stats.bernoulli(0.4).logpmf(b).sum()
    cost += stats.norm(b).logpdf(y).sum()
    np.testing.assert_allclose(value, cost, rtol=1e-10)
    np.testing.assert_allclose(slope, cost * np.sum(b / 0.4 - (1 - b) / 0.6), rtol=1e-10)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_a_baseline_in_a_scan_is_subtracted_from_the_cost_of_the_path(reverse):
    """One draw by hand, for baselines that are numbers and those that are learned."""

    def program(distribution):
        def step(state, x):
            numpyro.sample("b", distribution(x))
            return state, None

        scan(step, 0.0, jnp.array([0.7, 0.7]), reverse=reverse)

    def guide(q, learned):
        def distribution(x):
            return vi.reinforce(dist.Bernoulli(q), baseline=vi.LearnedBaseline(x) if learned else x)

        program(distribution)

    @vi.expectation(has_aux=True)
    def bound(q, learned):
        trace, log_q = vi.simulate(guide, q, learned)
        model = lambda: program(lambda _: dist.Bernoulli(0.3))  # noqa: E731
        return vi.log_density(model, trace) - log_q, trace["b"]

    run = lambda q, learned: bound.value_and_grad(jax.random.key(0), q, learned)  # noqa: E731
    runs = jax.jit(lambda q: (run(q, False), run(q, True)))(jnp.asarray(0.4))
    for (value, b), slope in runs:
        b = np.asarray(b)
        cost = stats.bernoulli(0.3).logpmf(b).sum() - stats.bernoulli(0.4).logpmf(b).sum()
        np.testing.assert_allclose(value, cost, rtol=1e-10)
        np.testing.assert_allclose(slope, (cost - 0.7) * np.sum(b / 0.4 - (1 - b) / 0.6), rtol=1e-9)


def test_sample_shapes_are_batch_axes():
    def program():
        numpyro.sample("z", dist.Normal(0.0, 1.0), sample_shape=(3,))

        def step(last, _):
            x = numpyro.sample("x", dist.Normal(last, 1.0), sample_shape=(3,))
            return x[0], None

        scan(step, jnp.zeros(()), None, length=2)

    values = {"z": jnp.array([0.1, 2.0, -1.0]), "x": jnp.array([[0.5, 1.0, 0.0], [2.0, 0.0, 1.0]])}
    want = (
        stats.norm.logpdf(values["z"]).sum() + stats.norm([[0.0], [0.5]]).logpdf(values["x"]).sum()
    )
    np.testing.assert_allclose(vi.log_density(program, values).total, want, rtol=1e-12)
    assert abs(vi.elbo(program, program).estimate(jax.random.key(0))) < 1e-9


def test_a_branch_of_enumerated_flags_is_exact():
    q = jnp.array([0.4, 0.6, 0.3])

    def model(q):
        b, c = flags(P)
        numpyro.sample("y", dist.Normal(b + 2.0 * c, 0.7), obs=Y[0])

    bound = vi.elbo(model, lambda q: flags(q, vi.enum) and None)
    value, gradient = jax.jit(lambda q: bound.value_and_grad(jax.random.key(0), q))(q)
    want, slope = jax.value_and_grad(exact_bound)(q, Y[:1])
    np.testing.assert_allclose(value, want, rtol=1e-10)
    np.testing.assert_allclose(gradient, slope, rtol=1e-9)


def test_minibatches_in_a_loop_are_those_of_the_other_program():
    def program(y):
        def step(carry, y):
            with numpyro.plate("rows", 5, subsample_size=2) as rows:
                w = numpyro.sample("w", dist.Normal(0.0, 1.0))
                numpyro.sample("y", dist.Normal(w, 1.0), obs=y[rows])
            return carry, None

        scan(step, 0, y)

    @vi.expectation(has_aux=True)
    def gap(y):
        trace, log_q = vi.simulate(program, y)
        log_p = vi.log_density(program, trace, y)
        return log_p - log_q, log_p.total

    value, _ = gap.estimate(jax.random.key(0), jnp.arange(15.0).reshape(3, 5))
    assert abs(value) < 1e-9


@pytest.mark.errors
@pytest.mark.parametrize(
    ("x", "message"),
    [
        (jnp.zeros(()), r"site 'x' is in a scan of 3 steps, but the given value has shape \(\)"),
        (jnp.zeros(2), r"site 'x' is in a scan of 3 steps, .* shape \(2,\)"),
        (jnp.zeros((3, 1)), r"site 'x' inside scan or cond: .* shape \(1,\) at each step"),
    ],
    ids=["scalar", "short", "column"],
)
def test_values_that_do_not_fit_the_steps(x, message):
    with pytest.raises(ValueError, match=message):
        vi.log_density(branches, {"b": jnp.array([1, 0, 1]), "x": x}, Y)


def test_an_improper_prior_in_a_scan_has_a_density_of_0_at_each_step():
    y = np.array([0.1, 0.3, 0.2])

    def model():
        def step(carry, y):
            z = numpyro.sample("z", dist.ImproperUniform(dist.constraints.real, (), ()))
            numpyro.sample("y", dist.Normal(z, 0.7), obs=y)
            return carry, None

        scan(step, None, y)

    z = np.array([0.5, -0.2, 0.4])
    terms = vi.log_density(model, {"z": z}).terms
    sizes = {term.label: jnp.broadcast_shapes(jnp.shape(term.value)) for term in terms}
    assert sizes == {"density/z": (3,), "density/y": (3,)}
    np.testing.assert_allclose(
        sum(jnp.sum(t.value) for t in terms), stats.norm.logpdf(y, z, 0.7).sum()
    )
