"""Bounds from several particles: their values, order and structure."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.scipy.special import logsumexp

from bayesjx import vi
from benchmarks.vi import cells

KEY = jax.random.key(0)
POINT = jnp.array(cells.particles.POINT)


def rows(y):
    """Model and guide of flags that are local to the rows of `y`."""

    def model(a):
        with numpyro.plate("rows", len(y)):
            b = numpyro.sample("b", dist.Bernoulli(probs=0.3))
            numpyro.sample("y", dist.Normal(1.5 * b, 1.0), obs=jnp.asarray(y))

    def guide(a):
        with numpyro.plate("rows", len(y)):
            numpyro.sample("b", vi.reinforce(dist.Bernoulli(logits=jnp.full(len(y), a))))

    return model, guide


def estimates(bound, num_draws, *args):
    keys = jax.random.split(KEY, num_draws)
    return np.asarray(jax.jit(jax.vmap(lambda k: bound.estimate(k, *args)))(keys))


def test_bounds_do_not_fall_with_more_particles():
    bounds = [float(cells.particles.bound_exact(k)(POINT)) for k in (1, 2, 4)]
    log_evidence = np.log(0.7 * np.exp(-0.5) + 0.3 * np.exp(-0.125)) - 0.5 * np.log(2 * np.pi)
    assert bounds[0] < bounds[1] < bounds[2] < log_evidence
    for k, want in zip((1, 2, 4), bounds, strict=True):
        got = estimates(cells.particles.bound_objective(vi.reinforce(), k), 2_000, POINT)
        assert abs(got.mean() - want) < 5 * got.std() / np.sqrt(got.size)


def test_one_particle_is_the_elbo(tol, dtype):
    model, guide = rows(np.array([1.0, 0.2], dtype))
    a = jnp.asarray(-0.3, dtype)

    @vi.expectation(has_aux=True)
    def both(a):
        def one():
            trace, log_q = vi.simulate(guide, a)
            return vi.log_density(model, trace, a) - log_q

        weights = vi.particles(1)(one)()
        return vi.log_mean_exp(weights), weights.total

    bound, elbo = jax.jit(both.estimate)(KEY, a)
    np.testing.assert_allclose(bound, elbo, **tol)
    assert bound.dtype == dtype


def test_local_bound_is_the_same_for_one_row_and_tighter_for_more():
    for y, tighter in (([1.0], False), ([1.0, 0.2, -0.5, 2.0], True)):
        model, guide = rows(np.array(y))
        joint, local = (vi.iwelbo(model, guide, 3, plate) for plate in (None, "rows"))
        a = jnp.asarray(0.2)
        values = [estimates(bound, 4_000, a) for bound in (joint, local)]
        if tighter:
            gap = values[1] - values[0]  # of the same draws
            assert gap.mean() > 5 * gap.std() / np.sqrt(gap.size)
        else:
            np.testing.assert_allclose(values[0], values[1], rtol=1e-12)


def test_log_mean_exp_is_that_of_the_particles():
    model, guide = rows(np.array([1.0, 0.2]))

    @vi.expectation(has_aux=True)
    def objective(a):
        def one():
            trace, log_q = vi.simulate(guide, a)
            return vi.log_density(model, trace, a) - log_q

        weights = vi.particles(5)(one)()
        per_particle = sum(jnp.sum(t.value.reshape(5, -1), axis=1) for t in weights.terms)
        return vi.log_mean_exp(weights), (per_particle, vi.log_mean_exp(weights * 0.5).total)

    value, (weights, tempered) = jax.jit(objective.estimate)(KEY, jnp.asarray(0.2))
    np.testing.assert_allclose(value, logsumexp(weights) - np.log(5), rtol=1e-12)
    np.testing.assert_allclose(tempered, logsumexp(0.5 * weights) - np.log(5), rtol=1e-12)


def test_vimco_signal_replaces_a_weight_by_the_mean_of_the_others():
    """One draw by hand, from the formula of Mnih and Rezende (2016)."""
    model, guide = rows(np.array([1.0]))
    a = jnp.asarray(0.2)

    def by_hand(a, b):
        log_q = dist.Bernoulli(logits=a).log_prob(b)
        prior, likelihood = (
            dist.Bernoulli(probs=0.3).log_prob(b),
            dist.Normal(1.5 * b).log_prob(1.0),
        )
        weights = prior + likelihood - log_q
        bound = logsumexp(weights) - jnp.log(4)
        fixed = jax.lax.stop_gradient(weights)
        without = []
        for k in range(4):
            others = jnp.delete(fixed, k)
            replaced = jnp.append(others, others.mean())
            without.append(logsumexp(replaced) - jnp.log(4))
        signal = jax.lax.stop_gradient(bound) - jnp.stack(without)
        return bound + jnp.sum((log_q - jax.lax.stop_gradient(log_q)) * signal)

    bound = vi.iwelbo(model, guide, 4)
    value, slope = jax.jit(lambda a: bound.value_and_grad(KEY, a))(a)
    # The value tells how many of the four draws were ones.
    draws = jnp.array(list(itertools.product((0, 1), repeat=4)))
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(by_hand), (None, 0)))(a, draws)
    matching = slopes[np.isclose(values, value, rtol=1e-10)]
    assert 0 < len(matching) < 16
    np.testing.assert_allclose(matching, slope, rtol=1e-8)


@pytest.mark.parametrize("name", ["reinforce", "disarm", "rloo"])
def test_joint_strategies_serve_bounds_without_further_ado(name):
    objective = cells.particles.bound_objective(cells.STRATEGIES[name], 3)
    cell = cells.Cell("", "", objective, cells.particles.bound_exact(3), POINT)
    assert cells.measure(cell, KEY, 5_000).worst_z < 4.5


@pytest.mark.errors
def test_what_bounds_refuse():
    model, guide = rows(np.array([1.0, 0.2]))

    def weight(a):
        trace, log_q = vi.simulate(guide, a)
        return vi.log_density(model, trace, a) - log_q

    def run(fn):
        vi.expectation(fn).estimate(KEY, jnp.asarray(0.1))

    with pytest.raises(ValueError, match="num_particles must be at least 1, got 0"):
        vi.particles(0)
    with pytest.raises((ValueError, TypeError), match=r"num_particles(.|\n)*2\.5"):
        vi.particles(2.5)
    with pytest.raises(ValueError, match=r"expects the Cost.*under vi\.particles"):
        run(lambda a: vi.log_mean_exp(weight(a)))
    with pytest.raises(ValueError, match="with every term inside the particles"):
        run(lambda a: vi.log_mean_exp(vi.particles(2)(lambda: weight(a))() + 1.0))
    with pytest.raises(ValueError, match="plate='cols'.*outside that plate"):
        run(lambda a: vi.log_mean_exp(vi.particles(2)(lambda: weight(a))(), "cols"))
    with pytest.raises(RuntimeError, match=r"vi\.particles.*inside an objective"):
        vi.particles(2)(lambda: 1.0)()


@pytest.mark.errors
def test_a_plate_strategy_in_a_bound_names_particles_and_remedy():
    objective = cells.particles.bound_objective(vi.enum(), 3)
    with pytest.raises(ValueError, match=r"site 'b' with strategy enum.*particles.*lanes=True"):
        objective.surrogate(KEY, POINT)
