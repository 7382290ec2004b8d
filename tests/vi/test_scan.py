"""NumPyro's loops: replayed scans, and what their sites are multiplied with."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from monte_carlo import assert_mean, draws
from numpyro.contrib.control_flow import scan

from bayesjx import vi

Y = jnp.array([0.3, -1.2, 0.8, 1.7, 0.1])


def walk(y, reverse=False):
    def step(x, y):
        x = numpyro.sample("x", dist.Normal(0.9 * x, 0.5))
        s = numpyro.sample("s", dist.Bernoulli(logits=x))
        numpyro.sample("y", dist.Normal(x + s, 1.0), obs=y)
        return x, None

    scan(step, jnp.zeros(()), y, reverse=reverse)


def unrolled(y, reverse=False):
    x = jnp.zeros(())
    order = range(len(y))[::-1] if reverse else range(len(y))
    for t in order:
        x = numpyro.sample(f"x{t}", dist.Normal(0.9 * x, 0.5))
        s = numpyro.sample(f"s{t}", dist.Bernoulli(logits=x))
        numpyro.sample(f"y{t}", dist.Normal(x + s, 1.0), obs=y[t])


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_a_replayed_scan_is_the_unrolled_program(reverse):
    key = jax.random.key(0)
    x = jax.random.normal(key, Y.shape)
    s = jax.random.bernoulli(key, 0.5, Y.shape).astype(int)
    by_name = {f"x{t}": x[t] for t in range(5)} | {f"s{t}": s[t] for t in range(5)}

    def both(x):
        by_step = {**by_name, **{f"x{t}": x[t] for t in range(5)}}
        looped = vi.log_density(walk, {"x": x, "s": s}, Y, reverse).total
        return looped, vi.log_density(unrolled, by_step, Y, reverse).total

    looped, flat = jax.jit(both)(x)
    np.testing.assert_allclose(looped, flat, rtol=1e-12)
    slopes = jax.jit(jax.jacrev(both))(x)
    np.testing.assert_allclose(slopes[0], slopes[1], rtol=1e-10, atol=1e-12)


def test_a_site_of_a_plate_is_enumerated_around_a_scan_of_the_plate():
    """Beside a term outside of the plate; the gradient against the sum over all paths."""
    y = jnp.array([0.2, 1.3])

    def guide(p):
        with numpyro.plate("rows", 2):
            e = numpyro.sample("e", vi.enum(dist.Bernoulli(logits=p[1])))

        def step(s, _):
            with numpyro.plate("rows", 2):
                s = numpyro.sample("s", vi.reinforce(dist.Bernoulli(logits=p[0] + s - 2 * e)))
            return s, None

        scan(step, jnp.zeros(2, int), jnp.arange(2))
        numpyro.sample("z", dist.Normal(p[0], 1.0))

    def model(p):
        with numpyro.plate("rows", 2):
            e = numpyro.sample("e", dist.Bernoulli(0.4))

        def step(s, _):
            with numpyro.plate("rows", 2):
                s = numpyro.sample("s", dist.Bernoulli(0.3 + 0.3 * s))
            return s, s

        _, s = scan(step, jnp.zeros(2, int), jnp.arange(2))
        numpyro.sample("z", dist.Normal(1.0, 1.0))
        with numpyro.plate("rows", 2):
            numpyro.sample("y", dist.Normal(e * s.sum(0), 1.0), obs=y)

    def exact(p):
        e, first, second = jnp.array(list(itertools.product((0, 1), repeat=3))).T

        def log_path(start, step_1, step_2):
            return start.log_prob(e) + step_1.log_prob(first) + step_2.log_prob(second)

        logits = p[0] - 2 * e
        log_q = log_path(
            dist.Bernoulli(logits=p[1]),
            dist.Bernoulli(logits=logits),
            dist.Bernoulli(logits=logits + first),
        )
        log_p = log_path(
            dist.Bernoulli(0.4), dist.Bernoulli(0.3), dist.Bernoulli(0.3 + 0.3 * first)
        )
        log_y = dist.Normal(e * (first + second), 1.0).log_prob(y[:, None])
        return jnp.sum(jnp.exp(log_q) * (log_p + log_y - log_q)) - 0.5 * (p[0] - 1) ** 2

    p = jnp.array([0.3, -0.4])
    bound = vi.elbo(model, guide)
    value, gradient = draws(lambda key: bound.value_and_grad(key, p), 5_000)
    want, slope = jax.value_and_grad(exact)(p)
    assert_mean(value, want, relative_error=0.01)
    assert_mean(gradient, np.asarray(slope))
    assert np.all(gradient.std(axis=0) / np.sqrt(5_000) < 0.05)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_simulating_a_scan_scores_what_it_drew(reverse):
    @vi.expectation(has_aux=True)
    def objective():
        trace, log_p = vi.simulate(walk, Y, reverse)
        again = vi.log_density(walk, trace, Y, reverse)
        return log_p.total, again.total

    value, again = jax.jit(objective.estimate)(jax.random.key(1))
    np.testing.assert_allclose(value, again, rtol=1e-12)


def test_a_scan_site_is_multiplied_with_the_costs_of_all_steps():
    """One draw by hand: the score of the whole path times the whole cost of the loop."""

    def guide(a):
        def step(s, _):
            s = numpyro.sample("s", vi.reinforce(dist.Bernoulli(logits=a + s)))
            return s, None

        numpyro.sample("before", vi.reinforce(dist.Bernoulli(logits=a)))
        scan(step, jnp.array(0), jnp.arange(3))

    def model(a):
        numpyro.sample("before", dist.Bernoulli(probs=0.3))

        def step(s, _):
            s = numpyro.sample("s", dist.Bernoulli(probs=0.2 + 0.5 * s))
            return s, None

        scan(step, jnp.array(0), jnp.arange(3))

    @vi.expectation(has_aux=True)
    def bound(a):
        trace, log_q = vi.simulate(guide, a)
        return vi.log_density(model, trace, a) - log_q, trace.values

    a = jnp.asarray(0.4)
    (_, values), got = jax.jit(lambda a: bound.value_and_grad(jax.random.key(2), a))(a)

    def log_q(a):
        previous = jnp.concatenate([jnp.zeros(1), values["s"][:-1]])
        return jnp.sum(dist.Bernoulli(logits=a + previous).log_prob(values["s"]))

    def log_q_before(a):
        return dist.Bernoulli(logits=a).log_prob(values["before"])

    previous = jnp.concatenate([jnp.zeros(1), values["s"][:-1]])
    log_p = jnp.sum(dist.Bernoulli(probs=0.2 + 0.5 * previous).log_prob(values["s"]))
    before = dist.Bernoulli(probs=0.3).log_prob(values["before"])
    loop = jax.grad(log_q)(a) * (log_p - log_q(a))
    single = jax.grad(log_q_before)(a) * (before - log_q_before(a))
    np.testing.assert_allclose(got, loop + single, rtol=1e-8)
