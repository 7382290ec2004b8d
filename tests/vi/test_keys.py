"""Keys are made of names: what else a program draws changes none of a site's draws."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import cond, scan

from bayesjx import vi
from bayesjx.vi._estimator._context import named

KEY = jax.random.key(0)
NORMAL = dist.Normal(0.0, 1.0)


def more(name, extra):
    if extra:
        numpyro.sample(f"extra_{name}", NORMAL)


def auxiliary(extra):
    more("h", extra)
    h = numpyro.sample("h", NORMAL)
    numpyro.sample("m", dist.Normal(h, 1.0))


def loops(extra):
    def step(state, _):
        more("step", extra)
        return numpyro.sample("w", dist.Normal(state, 1.0)), None

    def branch(_):
        more("branch", extra)
        return numpyro.sample("c", NORMAL)

    if extra:
        scan(lambda s, _: (numpyro.sample("other", dist.Normal(s, 1.0)), None), 0.0, jnp.arange(2))
    scan(step, jnp.zeros(()), None, length=3, reverse=True)
    cond(True, branch, branch, None)


def program(extra):
    more("first", extra)
    numpyro.sample("a", vi.reinforce(NORMAL))
    with numpyro.plate("rows", 5, subsample_size=3):
        more("row", extra)
        numpyro.sample("b", NORMAL)
        # Whether a site is replayed, too, leaves the others as they are.
        numpyro.sample("e", vi.enum(dist.Bernoulli(0.3)) if extra else dist.Bernoulli(0.3))
    if extra:
        numpyro.sample("another", vi.marginal(auxiliary, "m", vi.sir(2))(False))
    numpyro.sample("m", vi.marginal(auxiliary, "m", vi.sir(2))(extra))
    loops(extra)
    numpyro.sample("z", NORMAL)


@vi.expectation(has_aux=True)
def single(p, extra):
    return p, vi.simulate(program, extra)[0].values


@vi.expectation(has_aux=True)
def copies(p, extra):
    return p, vi.particles(2)(lambda: vi.simulate(program, extra)[0].values)()


DRAWS = {
    "one": lambda p, extra: single.estimate(KEY, p, extra)[1],
    "draws-of-particles": lambda p, extra: copies.value_and_grad(KEY, p, extra, num_draws=2)[0][1],
}


@pytest.mark.parametrize("draw", list(DRAWS))
def test_other_sites_leave_the_draws_of_a_site_as_they_are(draw):
    run = jax.jit(lambda p: [DRAWS[draw](p, extra) for extra in (False, True)])
    plain, extended = run(jnp.zeros(()))
    assert set(extended) - set(plain) >= {"extra_first", "extra_row", "extra_step", "extra_branch"}
    for name, value in plain.items():
        np.testing.assert_array_equal(value, extended[name], err_msg=name)
    numbers = np.concatenate([np.ravel(v) for k, v in extended.items() if k not in "e"])
    assert len(set(numbers.tolist())) == numbers.size  # of continuous sites: none is drawn twice


@pytest.mark.parametrize("implementation", ["threefry2x32", "rbg", "raw"])
def test_names_make_independent_keys(implementation):
    """Of raw keys and of each generator: the sums of squares and products of normal draws."""
    n = 20_000
    typed = jax.random.key(1, impl=None if implementation == "raw" else implementation)
    keys = jax.random.split(typed, n)
    if implementation == "raw":
        keys = jax.random.key_data(keys)

    def one(key):
        return jnp.stack([jax.random.normal(named(key, name)) for name in ("0/a", "0/b", "1/a")])

    draws = jax.jit(jax.vmap(one))(keys)
    moments = np.einsum("ni,nj->ij", draws, draws) / n
    bound = 5 * np.sqrt((1 + np.eye(3)) / n)
    assert np.all(np.abs(moments - np.eye(3)) < bound), moments
