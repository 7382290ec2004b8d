"""Options that were ignored or misread: honoured, or refused by name."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest

from bayesjx import vi

KEY = jax.random.key(0)
P = jnp.array(0.4)


def model(p):
    numpyro.sample("z", dist.Normal(0.0, 1.0))
    with numpyro.plate("rows", 3):
        b = numpyro.sample("b", dist.Bernoulli(0.3))
        numpyro.sample("y", dist.Normal(b, 1.0), obs=jnp.arange(3.0))


def guide_with(site):
    def guide(p):
        numpyro.sample("z", dist.Normal(p, 1.0))
        with numpyro.plate("rows", 3):
            site(dist.Bernoulli(logits=p))

    return guide


BOUNDS = {
    "iwelbo": lambda guide: vi.iwelbo(model, guide, 3),
    "renyi": lambda guide: vi.renyi(model, guide, 0.5, 3),
    "chi_square": lambda guide: vi.chi_square(model, guide, 2.0, 3),
    "thermodynamic": lambda guide: vi.thermodynamic(model, guide, 3),
    "wake_guide": lambda guide: vi.wake_guide(model, guide, 3),
    "forward_kl": lambda guide: vi.forward_kl(model, guide, 3),
    "marginal": lambda guide: vi.elbo(
        model, vi.marginal_guide(guide, ["z", "b"], vi.sir(2, lambda given, p: None))
    ),
}


@pytest.mark.parametrize("name", BOUNDS)
def test_bounds_of_several_particles_leak_no_tracers(name):
    bound = BOUNDS[name](guide_with(lambda d: numpyro.sample("b", vi.reinforce(d))))
    with jax.check_tracer_leaks():
        jax.eval_shape(lambda p: (bound.value_and_grad(KEY, p), bound.estimate(KEY, p)), P)
    if name == "iwelbo":  # sites of particles are still listed
        assert {(row.name, row.shape) for row in bound.describe(P)} == {("z", ()), ("b", (3,))}


def test_enumeration_as_numpyro_asks_for_it_is_enum():
    asked = guide_with(lambda d: numpyro.sample("b", d, infer={"enumerate": "parallel"}))
    ours = guide_with(lambda d: numpyro.sample("b", vi.enum(d)))
    both = [vi.elbo(model, guide) for guide in (asked, ours)]
    assert both[0].describe(P) == both[1].describe(P)
    got, want = jax.jit(lambda p: [bound.value_and_grad(KEY, p) for bound in both])(P)
    np.testing.assert_array_equal(got, want)


@pytest.mark.errors
def test_particles_are_not_summed_by_jnp_functions():
    def weights(p):
        program = lambda: numpyro.sample("z", dist.Normal(p))  # noqa: E731
        return vi.particles(3)(lambda: vi.simulate(program)[1])()

    for function in (jax.nn.logsumexp, jnp.exp, jnp.mean, jnp.max, lambda c: jnp.ones(()) - c):
        with pytest.raises(TypeError, match=r"sum the particles .* vi\.log_mean_exp"):
            vi.expectation(lambda p, f=function: f(weights(p))).estimate(KEY, P)
    with pytest.raises(TypeError, match="NumPy cannot take a Cost"):
        vi.expectation(lambda p: np.mean(weights(p))).estimate(KEY, P)
    mean, total = (
        vi.expectation(f).estimate(KEY, P)
        for f in (lambda p: np.float64(1 / 3) * weights(p), lambda p: weights(p).total)
    )
    np.testing.assert_allclose(mean, total / 3)


class Signal(vi.AbstractScore):
    output: object = eqx.field(static=True)

    def why_not(self, distribution):
        return None

    def signal(self, local, frames, state):
        return self.output(local)


@pytest.mark.errors
@pytest.mark.parametrize(
    ("output", "came"),
    [
        (lambda local: local, "dict"),
        (lambda local: (local,), r"\(dict\)"),
        (lambda local: (local, None), r"\(dict, NoneType\)"),
        (lambda local: (1.0, None, None), r"\(float, NoneType, NoneType\)"),
    ],
)
def test_signals_that_are_no_triple_are_named(output, came):
    strategy = Signal(output)
    guide = guide_with(lambda d: numpyro.sample("b", vi.with_strategy(d, strategy)))
    with pytest.raises(TypeError, match=f"site 'b': signal of Signal must .* it returned {came}"):
        vi.elbo(model, guide).surrogate(KEY, P)


@pytest.mark.errors
@pytest.mark.parametrize(
    ("optimizer", "text"),
    [
        (numpyro.optim.Adam(0.1), r"optax\.adam\(.*got numpyro\.optim\.Adam"),
        (optax.adam, "called with its learning rate; got function"),
        (0.1, "got float"),
    ],
)
def test_optimisers_of_another_kind_are_named(optimizer, text):
    bound = vi.elbo(model, guide_with(lambda d: numpyro.sample("b", vi.enum(d))))
    with pytest.raises(TypeError, match=f"optimizer must be an Optax .*{text}"):
        vi.fit(KEY, bound, P, optimizer, 3)


@pytest.mark.errors
@pytest.mark.parametrize("count", [0, -1, 2.5, True, "3"])
def test_counts_that_are_no_counts_are_named(count):
    bound = vi.elbo(model, guide_with(lambda d: numpyro.sample("b", vi.enum(d))))
    for call, name in (
        (lambda: bound.value_and_grad(KEY, P, num_draws=count), "num_draws"),
        (lambda: vi.optimise(bound, P, optax.sgd(0.1), num_draws=count), "num_draws"),
        (lambda: vi.sample(KEY, model, P, num_samples=count), "num_samples"),
        (lambda: vi.particles(count), "num_particles"),
        (lambda: vi.psis(KEY, bound, P, num_draws=count), "num_draws"),
        (lambda: vi.gradient_report(KEY, bound, P, num_draws=count), "num_draws"),
        (lambda: vi.check_reparam(KEY, bound, P, num_draws=count), "num_draws"),
        (lambda: vi.latent_usage(KEY, model, model, P, num_draws=count), "num_draws"),
        (lambda: vi.rloo(dist.Bernoulli(0.3), count), "num_samples"),
        (lambda: vi.sir(count), "num_particles"),
        (lambda: vi.smc(2, num_moves=count), "num_moves"),
        (lambda: vi.linear_vae_collapse(jnp.eye(3), latent_dim=count), "latent_dim"),
    ):
        with pytest.raises(
            ValueError, match=f"{name} must be (an integer|at least [12]).*{count!r}"
        ):
            call()


@pytest.mark.errors
def test_enumeration_that_cannot_be_is_named():
    typo = guide_with(lambda d: numpyro.sample("b", d, infer={"enumerate": "paralell"}))
    with pytest.raises(ValueError, match="site 'b': .*'parallel' or 'sequential', got 'paralell'"):
        vi.elbo(model, typo).estimate(KEY, P)

    def marked(p):
        numpyro.sample("k", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})

    with pytest.raises(ValueError, match="latent site 'k' .* vi.AutoDiscrete"):
        vi.elbo(marked, lambda p: None).estimate(KEY, P)


@pytest.mark.errors
@pytest.mark.parametrize("wrap", [lambda b: b, vi.LearnedBaseline], ids=["array", "learned"])
def test_baselines_have_no_axes_but_the_plates(wrap):
    """A longer one would count the score once for each of its elements."""

    def gradient(baseline):
        guide = guide_with(lambda d: numpyro.sample("b", vi.reinforce(d, wrap(baseline))))
        return vi.elbo(model, guide).surrogate(KEY, P)

    with pytest.raises(ValueError, match=r"over the plates .* shape \(3,\); got shape \(5, 3\)"):
        jax.eval_shape(gradient, jnp.zeros((5, 3)))
    for shape in ((), (1,), (3,)):
        jax.eval_shape(gradient, jnp.zeros(shape))


@pytest.mark.errors
def test_filters_keep_the_shape_of_their_state():
    def step(p, state, y):
        x = numpyro.sample("x", dist.Normal(jnp.sum(state), 1.0))
        numpyro.sample("y", dist.Normal(x, 1.0), obs=y)
        return x

    for num_particles in (2, 3):  # two particles would have broadcast
        bound = vi.fivo(step, num_particles=num_particles)
        with pytest.raises(ValueError, match=r"state of shape \(2,\) comes back as \(\)"):
            bound.estimate(KEY, None, jnp.zeros(2), jnp.arange(3.0))
