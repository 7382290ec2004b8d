"""Which outputs depend on which tagged values, through everything that JAX stages."""

import jax
import jax.numpy as jnp
import pytest

from bayesjx.vi._estimator._provenance import Staged, tag


def addresses(fn, *args):
    return jax.tree.map(
        lambda found: set(found),
        Staged(fn, *args).depends(),
        is_leaf=lambda x: isinstance(x, frozenset),
    )


@jax.custom_jvp
def doubled(x, y):
    return 2 * x, y


@doubled.defjvp
def _(primals, tangents):
    return doubled(*primals), (2 * tangents[0], tangents[1])


@jax.custom_vjp
def tripled(x, y):
    return 3 * x, y


tripled.defvjp(lambda x, y: (tripled(x, y), None), lambda _, g: (3 * g[0], g[1]))

THROUGH = {
    "plain": lambda x, y: (jnp.sin(x), y),
    "jit": jax.jit(lambda x, y: (x + 1, y)),
    "nested jit": jax.jit(lambda x, y: jax.jit(lambda y, x: (x, y))(y, x)),
    "remat": jax.checkpoint(lambda x, y: (jnp.sin(x), y)),
    "custom_jvp": doubled,
    "custom_vjp": tripled,
    "vmap": lambda x, y: (jax.vmap(jnp.sin)(x[None])[0], y),
}


@pytest.mark.parametrize("name", THROUGH)
def test_call_like_functions_keep_arguments_apart(name):
    def fn(x):
        a, b = tag(x, "a"), tag(2 * jnp.ones(()), "b")
        return THROUGH[name](a, b)

    assert addresses(fn, jnp.ones(())) == ({"a", "argument"}, {"b"})


@pytest.mark.parametrize("name", ["jax.nn.softplus", "jnp.logaddexp", "jax.nn.relu"])
def test_library_functions_with_derivatives_of_their_own(name):
    fn = {
        "jax.nn.softplus": jax.nn.softplus,
        "jnp.logaddexp": lambda x: jnp.logaddexp(x, 0.0),
        "jax.nn.relu": jax.nn.relu,
    }[name]
    assert addresses(lambda: fn(tag(jnp.ones(()), "a"))) == {"a"}


def test_loops_tie_everything_together():
    """More dependence than there is costs variance only."""

    def loop():
        a, b = tag(jnp.ones(()), "a"), tag(jnp.ones(()), "b")
        return jax.lax.scan(lambda c, _: ((c[0] + 1, 2 * c[1]), None), (a, b), length=2)[0]

    def branch():
        a, b = tag(jnp.ones(()), "a"), tag(jnp.ones(()), "b")
        return jax.lax.cond(a > 0, lambda b: b, lambda b: 2 * b, b)

    def whilst():
        a, b = tag(jnp.ones(()), "a"), tag(jnp.zeros(()), "b")
        return jax.lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, 2 * s[1]), (a, b))[1]

    assert addresses(loop) == ({"a", "b"}, {"a", "b"})
    assert addresses(branch) == {"a", "b"}
    assert addresses(whilst) == {"a", "b"}


def test_tags_inside_a_loop_come_out():
    def loop():
        return jax.lax.scan(lambda c, _: (tag(c, "inner"), None), jnp.ones(()), length=2)[0]

    assert addresses(loop) == {"inner"}


def test_chains_pass_through_later_tags_and_stopped_gradients():
    def fn():
        a = tag(jnp.ones(()), "a")
        b = tag(jax.lax.stop_gradient(2 * a), "b")
        return b, a, jax.random.bernoulli(jax.random.key(0), jax.nn.sigmoid(b))

    assert addresses(fn) == ({"a", "b"}, {"a"}, {"a", "b"})


def test_closed_over_values_and_constants_do_not_count():
    outside = jnp.arange(3.0)
    assert addresses(lambda x: (outside * 2, x[0]), outside) == (set(), {"argument"})


def test_staged_functions_evaluate_under_vmap_and_grad():
    scale = jnp.asarray(3.0)

    def run(scale):
        staged = Staged(lambda x: {"y": scale * tag(x, "a") ** 2}, jnp.ones(()))
        return jnp.sum(jax.vmap(staged)(jnp.arange(3.0))["y"])

    value, slope = jax.jit(jax.value_and_grad(run))(scale)
    assert (value, slope) == (15.0, 5.0)
