"""The filtering bound against Kalman filters, enumeration and the importance bound."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from monte_carlo import assert_mean, draws, z_score

from bayesjx import vi

POINT = jnp.array([0.7, 0.4])
YS = jnp.array([0.3, -0.9, 1.4, 0.2, -0.5, 0.8])


def step(p, x, y):
    x = numpyro.sample("x", dist.Normal(p[0] * x, 0.8))
    numpyro.sample("y", dist.Normal(x, 0.6), obs=y)
    return x


def proposal(p, x, y):
    numpyro.sample("x", dist.Normal(p[0] * x + p[1] * (y - p[0] * x), 0.6))


def kalman(p, ys):
    mean, var, total = 0.0, 0.0, 0.0
    for y in ys:
        mean, var = p[0] * mean, p[0] ** 2 * var + 0.64
        total += dist.Normal(mean, jnp.sqrt(var + 0.36)).log_prob(y)
        gain = var / (var + 0.36)
        mean, var = mean + gain * (y - mean), (1 - gain) * var
    return total


def bound(num_particles, resampling="drop", guide=proposal, **options):
    objective = vi.fivo(step, guide, num_particles, resampling, **options)
    return lambda key: objective.value_and_grad(key, POINT, jnp.zeros(()), YS)


def test_it_approaches_the_kalman_filter_from_below():
    truth = float(kalman(POINT, YS))
    values = [draws(bound(n), 1_500)[0] for n in (2, 8, 64)]
    assert all(z_score(sample, truth) < 3 for sample in values)
    means = [sample.mean() for sample in values]
    assert means[0] < means[1] < means[2]
    assert truth - means[2] < 0.1 * (truth - means[0])
    assert_mean(np.exp(values[1] - truth), 1.0, relative_error=0.05)  # unbiased for the evidence
    bootstrap, _ = draws(bound(8, guide=None), 1_500)
    assert_mean(np.exp(bootstrap - truth), 1.0, relative_error=0.05)
    always, _ = draws(bound(8, "reinforce"), 1_500)
    assert_mean(np.exp(always - truth), 1.0, relative_error=0.05)


def test_with_many_particles_the_gradient_is_that_of_the_evidence():
    _, gradient = draws(bound(200, guide=proposal), 300)
    wanted = jax.grad(lambda p: kalman(p, YS))(POINT)
    # Dropping the indices leaves a bias, which is small here.
    error = gradient.std(0) / 300**0.5
    assert np.all(np.abs(gradient.mean(0) - wanted) < 0.25 + 4.5 * error)


def test_one_step_is_the_importance_bound():
    def model(p):
        x = numpyro.sample("x", dist.Normal(0.0, 0.8))
        numpyro.sample("y", dist.Normal(x, 0.6), obs=YS[0])

    def guide(p):
        numpyro.sample("x", dist.Normal(p[1] * YS[0], 0.6))

    whole = vi.iwelbo(model, guide, 4)
    filtered = vi.fivo(step, proposal, 4)
    ours = draws(lambda key: filtered.value_and_grad(key, POINT, 0.0, YS[:1]), 20_000)
    theirs = draws(lambda key: whole.value_and_grad(key, POINT), 20_000, seed=1)
    for a, b in zip(ours, theirs, strict=True):
        error = np.sqrt((a.var(0) + b.var(0)) / 20_000)
        assert np.all(np.abs(a.mean(0) - b.mean(0)) <= 4.5 * error)
    assert ours[1].std(0)[1] / 20_000**0.5 < 0.01


# a chain of bits, enumerated

LOGITS = jnp.array([0.3, -0.8, 0.5, 0.9])
BITS = jnp.array([0.2, 1.1, 0.7])


def chain_step(p, x, y):
    x = numpyro.sample("x", dist.Bernoulli(logits=p[0] + p[1] * x))
    numpyro.sample("y", dist.Normal(x, 0.7), obs=y)
    return x


def chain_proposal(p, x, y):
    numpyro.sample("x", dist.Bernoulli(logits=p[2] * y + p[3] * x - 0.5))


def chain_exact(p, ys):
    """The bound of two particles that are resampled after every step, over all outcomes."""
    pairs = np.array(list(itertools.product((0, 1), repeat=2)))
    # What resampling by the indices of each pair makes of each pair: its row in `pairs`.
    after = np.array([[pair[index] @ [2, 1] for index in pairs] for pair in pairs])
    rest = jnp.zeros(4)  # by the pair that a step starts from
    for y in ys[::-1]:
        states, new = pairs[:, None, :], pairs[None, :, :]
        log_r = dist.Bernoulli(logits=p[2] * y + p[3] * states - 0.5).log_prob(new)
        log_w = dist.Bernoulli(logits=p[0] + p[1] * states).log_prob(new) - log_r
        log_w += dist.Normal(new, 0.7).log_prob(y)
        here = jax.nn.logsumexp(log_w, -1) - jnp.log(2)
        share = jax.nn.softmax(log_w)
        chance = jnp.prod(share[:, :, pairs], -1)  # over (from, to, indices)
        future = jnp.sum(chance * rest[after], -1)
        rest = jnp.sum(jnp.exp(log_r.sum(-1)) * (here + future), -1)
    return rest[0]


def test_the_gradient_is_unbiased_with_the_score_of_the_indices():
    exact, wanted = jax.jit(jax.value_and_grad(chain_exact))(LOGITS, BITS)
    for resampling in ("reinforce", "drop"):
        objective = vi.fivo(chain_step, chain_proposal, 2, resampling, threshold=2.0)
        start = jnp.zeros((), int)
        value, gradient = draws(
            lambda key: objective.value_and_grad(key, LOGITS, start, BITS),  # noqa: B023
            100_000,
        )
        if resampling == "reinforce":
            assert_mean(value, exact, relative_error=0.01)
            assert_mean(gradient, np.asarray(wanted))
            assert np.all(gradient.std(0) / 316 < 0.02)
        else:  # the known bias of the published default is seen at this accuracy
            assert np.abs(z_score(gradient, np.asarray(wanted))).max() > 6


def test_states_may_be_trees_and_steps_may_hold_modules(dtype):
    import equinox as eqx

    net = eqx.nn.MLP(2, 1, 4, 1, key=jax.random.key(0), dtype=dtype)

    def tree_step(net, state, y):
        mean = net(jnp.stack([state["x"], state["v"]]))[0]
        one = jnp.ones((), dtype)
        v = numpyro.sample("v", dist.Normal(mean, 0.5 * one))
        x = numpyro.sample("x", dist.Normal(state["x"] + v, 0.5 * one))
        numpyro.sample("y", dist.Normal(x, 0.6 * one).to_event(0), obs=y["a"])
        return {"x": x, "v": v}

    objective = vi.fivo(tree_step, None, 4)
    start = {"x": jnp.zeros((), dtype), "v": jnp.zeros((), dtype)}
    data = {"a": YS.astype(dtype)}
    value, gradient = objective.value_and_grad(jax.random.key(0), net, start, data)
    assert value.dtype == dtype and np.isfinite(value)
    assert all(
        np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(eqx.filter(gradient, eqx.is_array))
    )


@pytest.mark.errors
def test_bad_options_are_named():
    with pytest.raises((ValueError, TypeError), match="drop|resampling"):
        vi.fivo(step, None, 4, resampling="none")
    with pytest.raises(ValueError, match="num_particles must be at least 1, got 0"):
        vi.fivo(step, None, 0)
    with pytest.raises(ValueError, match="threshold"):
        vi.fivo(step, None, 4, threshold=-1.0)
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="leading"):
        vi.fivo(step).estimate(key, POINT, 0.0, jnp.array(0.3))
    enumerated = lambda p, x, y: numpyro.sample("x", vi.enum(dist.Bernoulli(0.3)))  # noqa: E731
    with pytest.raises(ValueError, match="'x'.*cannot replay"):
        vi.fivo(chain_step, enumerated).estimate(key, LOGITS, 0, BITS)
