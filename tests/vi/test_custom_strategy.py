"""Strategies of a user's own, written against the public classes alone."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pytest

from bayesjx import vi
from benchmarks.vi import cells


class PairedScores(vi.AbstractReplay):
    """The score times half the difference of the costs at two independent draws."""

    def why_not(self, distribution):
        return None

    def combine(self, site, key, rest):
        values = jnp.stack([site.value, site.draw(key)])
        branches = rest.surrogate(values)
        scores = jax.vmap(site.log_prob)(values)
        terms = [
            site.gradient_term(scores[0] - scores[1], site.from_plates(cost[0] - cost[1]) / 2, f)
            for f, cost in branches.local().items()
        ]
        return branches.weighted(0.5) + vi.Cost(tuple(terms))


class ClippedScore(vi.AbstractScore):
    """The score with the costs centred by a guess and kept within bounds: biased."""

    guess: jax.Array
    bound: float = eqx.field(static=True)

    unbiased = False

    def why_not(self, distribution):
        return (
            None
            if distribution.is_discrete
            else f"{type(distribution).__name__} is continuous. Use vi.reparam"
        )

    def signal(self, local, frames, state):
        centred = {**local, frames: local.get(frames, 0.0) - self.guess}
        clipped = {f: jnp.clip(c, -self.bound, self.bound) for f, c in centred.items()}
        return clipped, None, None


class HalfNormalPath(vi.AbstractPathwise):
    """Half-normal draws as the absolute value of a normal one."""

    def why_not(self, distribution):
        return (
            None
            if isinstance(distribution, dist.HalfNormal)
            else "only for HalfNormal. Use vi.reparam"
        )

    def sample(self, distribution, key, sample_shape):
        return distribution.scale * jnp.abs(
            jax.random.normal(key, distribution.shape(sample_shape))
        ), []


@pytest.mark.parametrize("batch", [None, cells.plates.B], ids=["plate", "subsampled"])
def test_a_replay_strategy_from_scratch(batch):
    """It must be right in plates, beside others, and for coupled elements."""
    cell = cells.Cell(
        "plate",
        "own",
        cells.plates.objective(PairedScores(), batch),
        cells.plates.exact,
        jnp.array(cells.plates.POINT),
    )
    assert cells.measure(cell, jax.random.key(6), 5_000).worst_z < 4.5


def test_a_replay_strategy_on_coupled_elements():
    objective = cells.lanes.vector_objective(PairedScores())
    cell = cells.Cell("", "", objective, cells.lanes.vector_exact, jnp.array(cells.lanes.POINT))
    assert cells.measure(cell, jax.random.key(7), 5_000).worst_z < 4.5


def test_a_score_strategy_says_that_it_is_biased():
    strategy = ClippedScore(jnp.asarray(-1.5), 10.0)
    objective = cells.plates.objective(strategy)
    point = jnp.array(cells.plates.POINT)
    with pytest.warns(vi.BiasedGradientWarning, match="'c'.*ClippedScore"):
        assert not objective.is_unbiased(point)
    # Bounds that never bind leave the unbiased score with a baseline.
    wide = ClippedScore(jnp.asarray(-1.5), 1e6)
    cell = cells.Cell("", "", cells.plates.objective(wide), cells.plates.exact, point)
    with pytest.warns(vi.BiasedGradientWarning):
        assert cells.measure(cell, jax.random.key(8), 5_000).worst_z < 4.5


def test_a_pathwise_strategy_from_scratch():
    def guide(scale):
        numpyro.sample("x", vi.with_strategy(dist.HalfNormal(scale), HalfNormalPath()))

    @vi.expectation
    def second_moment(scale):
        return vi.simulate(guide, scale)[0]["x"] ** 2

    _, slope = jax.jit(lambda k, s: second_moment.value_and_grad(k, s, num_draws=5_000))(
        jax.random.key(9), jnp.asarray(1.3)
    )
    error = 2 * 1.3 * jnp.sqrt(2 / 5_000)  # of the mean of 2 scale eps^2
    assert abs(slope - 2 * 1.3) < 5 * error


@pytest.mark.errors
def test_its_refusal_is_shown():
    def guide():
        numpyro.sample("x", vi.with_strategy(dist.Normal(0.0, 1.0), ClippedScore(0.0, 1.0)))

    objective = vi.expectation(lambda: vi.simulate(guide)[1])
    with pytest.raises(ValueError, match=r"site 'x' with strategy ClippedScore.*Use vi\.reparam"):
        objective.estimate(jax.random.key(0))
