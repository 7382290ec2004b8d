"""The structured cost: its algebra, and what a site is multiplied with."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.primitives import CondIndepStackFrame as Frame

from bayesjx import vi
from bayesjx.vi._estimator._cost import local_costs, reduce_to

ROWS, COLUMNS = Frame("rows", -2, 5), Frame("columns", -1, 3)
BOTH = frozenset({ROWS, COLUMNS})


def term(shape, frames=(), label="0/x", **options):
    value = jnp.arange(1.0, 1.0 + np.prod(shape)).reshape(shape)
    return vi.Term(value, frames=frozenset(frames), label=label, **options)


@pytest.fixture
def cost():
    return vi.Cost(
        (
            term((), label="0/global"),
            term((3,), [COLUMNS], "0/column"),
            term((5, 1), [ROWS], "1/row"),
            term((5, 3), BOTH, "1/cell"),
            term((7, 5, 3), BOTH, "1/time"),  # a scan's axis, which is no plate
        )
    )


def test_algebra_agrees_with_that_of_totals(cost):
    other = vi.Cost((term((3,), [COLUMNS]),))
    a, b = float(cost.total), float(other.total)
    for got, want in (
        (cost + other, a + b),
        (cost - other, a - b),
        (-cost, -a),
        (3 * cost, 3 * a),
        (cost * jnp.asarray(0.5), 0.5 * a),
        (cost / 4, a / 4),
        (2.0 + cost, 2 + a),
        (2.0 - cost, 2 - a),
        (sum([cost, other]), a + b),
        (vi.Cost(), 0.0),
    ):
        np.testing.assert_allclose(got.total, want, rtol=1e-12)


def test_frames_survive_sums_and_scaling(cost):
    scaled = (2.0 * cost - cost / 4) + 1.0
    want = [t.frames for t in cost.terms] * 2 + [frozenset()]
    assert [t.frames for t in scaled.terms] == want


def test_jax_functions_see_the_total(cost):
    np.testing.assert_allclose(jnp.tanh(cost / 1e4), jnp.tanh(cost.total / 1e4))
    np.testing.assert_allclose(jax.jit(lambda c: jnp.sqrt(c))(cost), jnp.sqrt(cost.total))


def test_cost_is_a_pytree(cost):
    leaves, treedef = jax.tree.flatten(cost)
    again = jax.tree.unflatten(treedef, leaves)
    assert [t.label for t in again.terms] == [t.label for t in cost.terms]
    doubled = jax.vmap(lambda s: cost * s)(jnp.array([1.0, 2.0]))
    np.testing.assert_allclose(doubled.terms[3].value[1], 2 * cost.terms[3].value)


def test_sites_are_weighted_by_name(cost):
    weighted = cost.weight_sites({"row": 0.0, "time": 10.0})
    by_label = {t.label: float(t.value.sum()) for t in cost.terms}
    want = cost.total - by_label["1/row"] + 9 * by_label["1/time"]
    np.testing.assert_allclose(weighted.total, want)
    np.testing.assert_allclose(weighted.by_site()["1/time"], 10 * by_label["1/time"])


def test_a_weight_that_depends_on_the_draw_keeps_the_score():
    """The log density of the draw itself has no mean of zero any more, once it is weighted so."""

    def guide(logit):
        numpyro.sample("z", vi.reinforce(dist.Bernoulli(logits=logit)))

    @vi.expectation
    def weighted(logit):
        trace, log_q = vi.simulate(guide, logit)
        return log_q * (1.0 + 2.0 * trace["z"])

    def exact(logit):
        z = jnp.arange(2.0)
        log_q = dist.Bernoulli(logits=logit).log_prob(z)
        return jnp.sum(jnp.exp(log_q) * (1 + 2 * z) * log_q)

    @jax.jit
    def both(logit):
        keys = jax.random.split(jax.random.key(0), 4000)
        draws = jax.vmap(jax.grad(lambda p, k: weighted.surrogate(k, p)), (None, 0))(logit, keys)
        return draws, jax.grad(exact)(logit)

    draws, want = map(np.asarray, both(0.7))
    assert abs(draws.mean() - want) < 5 * draws.std() / len(draws) ** 0.5


def test_weighting_keeps_gradients_right():
    """A beta-ELBO by `weight_sites` has the gradient of the bound written out."""
    beta, logits = 0.3, jnp.asarray(0.4)

    def guide(a):
        numpyro.sample("b", vi.enum(dist.Bernoulli(logits=a)))

    def model(a):
        b = numpyro.sample("b", dist.Bernoulli(probs=0.3))
        numpyro.sample("y", dist.Normal(b, 1.0), obs=0.7)

    @vi.expectation
    def weighted(a):
        trace, log_q = vi.simulate(guide, a)
        log_p = vi.log_density(model, trace, a).weight_sites({"b": beta})
        return log_p - log_q.weight_sites({"b": beta})

    def written_out(a):
        q = jax.nn.sigmoid(jnp.stack([-a, a]))
        prior, likelihood = jnp.log(jnp.array([0.7, 0.3])), dist.Normal(0.7).log_prob(jnp.arange(2))
        return q @ (likelihood + beta * (prior - jnp.log(q)))

    got = jax.jit(jax.value_and_grad(lambda a: weighted.surrogate(jax.random.key(0), a)))(logits)
    np.testing.assert_allclose(got, jax.value_and_grad(written_out)(logits), rtol=1e-12)


@pytest.mark.parametrize(
    ("keep", "axes"),
    [((), (0, 1, 2)), ((COLUMNS,), (0, 1)), ((ROWS,), (0, 2)), (BOTH, (0,))],
    ids=["none", "columns", "rows", "both"],
)
def test_reduce_sums_every_axis_but_those_of_kept_plates(keep, axes):
    value = term((7, 5, 3)).value
    got = reduce_to(value, keep)
    np.testing.assert_allclose(jnp.squeeze(got), value.sum(axes))
    assert got.ndim == max((-frame.dim for frame in keep), default=0)


def test_local_costs_keep_terms_apart_by_their_plates(cost):
    """Each element of a site in the columns meets its own column, and the rest once."""
    local = local_costs(cost, frozenset({COLUMNS}), [True] * 5)
    assert set(local) == {frozenset(), frozenset({COLUMNS})}
    values = [t.value for t in cost.terms]
    np.testing.assert_allclose(local[frozenset()], values[0] + values[2].sum())
    want = values[1] + values[3].sum(0) + values[4].sum((0, 1))
    np.testing.assert_allclose(local[frozenset({COLUMNS})], want)


def test_local_costs_of_a_site_in_both_plates(cost):
    local = local_costs(cost, BOTH, [True, True, True, True, False])
    assert {frames: value.shape for frames, value in local.items()} == {
        frozenset(): (),
        frozenset({COLUMNS}): (3,),
        frozenset({ROWS}): (5, 1),
        BOTH: (5, 3),
    }


def test_local_costs_of_a_site_without_plates_are_the_total(cost):
    local = local_costs(cost, frozenset(), [True] * 5)
    np.testing.assert_allclose(local.pop(frozenset()), cost.total)
    assert not local
    kept = local_costs(cost, frozenset(), [False, True, False, False, False])
    np.testing.assert_allclose(kept[frozenset()], cost.terms[1].value.sum())


def test_local_costs_carry_no_gradient():
    def one(x):
        return local_costs(vi.Cost((vi.Term(x),)), frozenset(), [True])[frozenset()]

    assert jax.grad(one)(jnp.asarray(2.0)) == 0


def test_structure_of_a_run():
    """Frames, labels, scales and detached terms are those of the program."""
    seen = {}

    def guide():
        numpyro.sample("mu", dist.Normal(0.0, 1.0))
        with numpyro.plate("rows", 6, subsample_size=2, dim=-2):
            with numpyro.plate("columns", 3):
                numpyro.sample("c", dist.Bernoulli(logits=jnp.zeros((2, 3))))

    @vi.expectation
    def objective():
        _, log_q = vi.simulate(guide)
        seen.update({t.label: t for t in log_q.terms})
        return log_q

    objective.estimate(jax.random.key(0))
    mu, c = seen["0/mu"], seen["0/c"]
    assert mu.frames == frozenset() and mu.scale == 1.0 and not mu.detached
    assert c.frames == {Frame("rows", -2, 2), COLUMNS} and c.scale == 3.0 and c.detached
    np.testing.assert_allclose(c.value, 3 * jnp.log(0.5) * jnp.ones((2, 3)))


@pytest.mark.errors
def test_what_a_cost_refuses(cost):
    with pytest.raises(TypeError, match=r"use `\.total` for a product"):
        cost * cost
    with pytest.raises(ValueError, match=r"scalars only, got shape \(3,\)"):
        cost * jnp.ones(3)
    with pytest.raises(ValueError, match=r"\['colum'\].*it has \['cell', 'column'"):
        cost.weight_sites({"colum": 1.0})
    with pytest.raises(ValueError, match=r"shape \(3,\).*sum over it"):
        cost + jnp.ones(3)
    with pytest.raises(TypeError, match="got str"):
        cost + "x"
