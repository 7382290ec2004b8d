"""Bad programs, strategies and data: each error names the site, what is wrong and the remedy."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan

from bayesjx import vi

pytestmark = pytest.mark.errors

KEY = jax.random.key(0)
FLAG = dist.Bernoulli(probs=0.3)


def sampling(d, name="x", **options):
    """A program of one site."""
    return lambda: numpyro.sample(name, d, **options)


def simulate(program):
    vi.expectation(lambda: vi.simulate(program)[1]).surrogate(KEY)


def score(program, values):
    vi.log_density(program, values)


# Strategies that a site cannot have ---------------------------------------------------------

IMPOSSIBLE = {
    "enum, continuous": (
        vi.enum(dist.Normal(0.0, 1.0)),
        r"site 'x' with strategy enum \(outside any plate\).*Normal is continuous.*vi\.reparam",
    ),
    "enum, infinite": (
        vi.enum(dist.Poisson(2.0)),
        r"Poisson is discrete with infinite support.*vi\.mvd or vi\.reinforce",
    ),
    "leg, continuous": (vi.leg(dist.Gamma(2.0, 1.0)), r"strategy leg.*Gamma is continuous"),
    "mvd, unsupported": (
        vi.mvd(dist.Gamma(2.0, 1.0)),
        r"strategy mvd.*known for Bernoulli, Poisson and Normal, not Gamma.*vi\.reinforce",
    ),
    "mvd, categorical": (vi.mvd(dist.Categorical(jnp.ones(3) / 3)), r"not Categorical.*vi\.leg"),
    "reparam, discrete": (
        vi.reparam(FLAG),
        r"strategy reparam.*no reparameterised sampler.*vi\.reinforce, or vi\.enum",
    ),
    "disarm, categorical": (
        vi.disarm(dist.Categorical(jnp.ones(3) / 3)),
        r"DisARM is for Bernoulli.*vi\.rloo",
    ),
    "straight-through, index": (
        vi.straight_through(dist.Categorical(jnp.ones(3) / 3)),
        r"an index, which has no gradient.*OneHotCategorical",
    ),
    "gumbel, continuous": (
        vi.gumbel_softmax(dist.Normal(0.0, 1.0)),
        r"Normal has no relaxation.*vi\.reinforce",
    ),
    "importance, other shape": (
        vi.importance(dist.Dirichlet(jnp.ones(3)), dist.Normal(0.0, 1.0)),
        r"event shape \(\), the site \(3,\)",
    ),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_impossible_strategies_are_refused(case):
    d, message = IMPOSSIBLE[case]
    with pytest.raises(ValueError, match=message):
        simulate(sampling(d))


def test_infer_strategies_are_refused_too():
    with pytest.raises(ValueError, match="site 'x' with strategy enum.*Normal is continuous"):
        simulate(sampling(dist.Normal(0.0, 1.0), infer={"strategy": vi.enum()}))


def test_options_out_of_range():
    with pytest.raises(ValueError, match="num_samples must be at least 2, got 1"):
        vi.rloo(FLAG, 1)
    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        vi.gumbel_softmax(FLAG, 0)
    with pytest.raises(ValueError, match=r"decay must lie in \[0, 1\), got 1"):
        vi.EMA(1)


# Elements and costs that are coupled --------------------------------------------------------


def plated(d, cost):
    """A plate of flags whose `cost(flags)` stands outside the plate."""

    def guide():
        with numpyro.plate("rows", 3):
            numpyro.sample("flag", d)

    @vi.expectation
    def objective():
        trace, log_q = vi.simulate(guide)
        return log_q + cost(trace["flag"])

    return objective


@pytest.mark.parametrize("strategy", [vi.enum, vi.leg, vi.mvd], ids=["enum", "leg", "mvd"])
def test_a_dependent_cost_outside_the_plate_names_site_plate_and_remedy(strategy):
    objective = plated(strategy(FLAG), lambda flags: jnp.sum(flags) ** 2.0)
    message = r"site 'flag'.*'rows' \(dim -1, size 3\).*outside the plate 'rows'.*vi\.disarm"
    with pytest.raises(ValueError, match=message):
        objective.surrogate(KEY)


@pytest.mark.parametrize("strategy", [vi.enum, vi.leg, vi.mvd], ids=["enum", "leg", "mvd"])
def test_elements_without_a_plate_need_lanes(strategy):
    d = dist.Bernoulli(probs=jnp.full(3, 0.3))
    for distribution in (d, d.to_event(1)):
        with pytest.raises(ValueError, match=r"\(3,\) elements are set together.*lanes=True"):
            simulate(sampling(strategy(distribution)))


def test_the_remedies_work():
    for d in (vi.disarm(FLAG), vi.rloo(FLAG), vi.reinforce(FLAG), vi.enum(FLAG, lanes=True)):
        objective = plated(d, lambda flags: jnp.sum(flags) ** 2.0)
        assert np.isfinite(objective.surrogate(KEY))


def test_a_cost_that_does_not_depend_on_the_site_may_stand_anywhere():
    value = plated(vi.enum(FLAG), lambda flags: 3.0).surrogate(KEY)
    entropy = -(0.3 * np.log(0.3) + 0.7 * np.log(0.7))
    np.testing.assert_allclose(value, 3.0 - 3 * entropy, rtol=1e-12)


# Names and plates that do not match ---------------------------------------------------------


def test_repeated_site_names():
    def program():
        numpyro.sample("x", FLAG)
        numpyro.sample("x", FLAG)

    with pytest.raises(ValueError, match="site 'x' is sampled twice.*name of its own"):
        simulate(program)
    with pytest.raises(ValueError, match="site 'x' is sampled twice"):
        score(program, {"x": 1})


def test_sites_of_model_and_guide_that_do_not_match():
    def model():
        numpyro.sample("x", dist.Normal(0.0, 1.0))
        numpyro.sample("w", dist.Normal(0.0, 1.0))

    guide = sampling(dist.Normal(0.0, 1.0))
    with pytest.raises(ValueError, match=r"latent site 'w' of the model has no value.*\['x'\]"):
        vi.elbo(model, guide).surrogate(KEY)
    with pytest.raises(ValueError, match=r"\['w'\] fit no latent site.*\['x'\].*is_auxiliary"):
        vi.elbo(guide, model).surrogate(KEY)


def test_auxiliary_sites_are_not_handed_on():
    def guide():
        numpyro.sample("helper", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
        numpyro.sample("x", dist.Normal(0.0, 1.0))

    assert np.isfinite(vi.elbo(sampling(dist.Normal(0.0, 1.0)), guide).surrogate(KEY))


def test_a_subsampled_plate_needs_a_key():
    def model():
        with numpyro.plate("rows", 5, subsample_size=2):
            numpyro.sample("x", FLAG)

    with pytest.raises(ValueError, match="plate 'rows' is subsampled, which needs a random key"):
        score(model, {"x": jnp.array([0, 1])})


# Data and objectives of the wrong form ------------------------------------------------------


def test_observed_columns_against_rows():
    """The classic: `(n, 1)` against `(n,)` would broadcast to n x n."""

    def model():
        numpyro.sample("y", dist.Normal(jnp.zeros(3), 1.0), obs=jnp.zeros((3, 1)))

    with pytest.raises(ValueError, match=r"\(3, 1\) but .* has shape \(3,\).*reshape"):
        score(model, {})


def test_given_values_of_the_wrong_shape():
    with pytest.raises(ValueError, match=r"site 'x': the given value has shape \(2,\)"):
        score(sampling(dist.Normal(jnp.zeros(3), 1.0)), {"x": jnp.zeros(2)})


@pytest.mark.parametrize(
    ("returned", "error", "message"),
    [
        (lambda: jnp.zeros(3), ValueError, r"array of shape \(3,\); did you forget to sum"),
        (lambda: "high", TypeError, "expected a Cost or a real scalar, got str"),
        (lambda: None, TypeError, "got NoneType"),
        (lambda: jnp.array(True), TypeError, "got dtype bool"),
        (lambda: jnp.array(1j), TypeError, "got dtype complex"),
        (lambda: vi.Cost(), ValueError, "has no terms"),
        (lambda: vi.simulate(sampling(FLAG)), (TypeError, ValueError), "expected a Cost"),
    ],
    ids=["vector", "text", "nothing", "boolean", "complex", "empty", "pair"],
)
def test_objectives_that_return_something_else(returned, error, message):
    with pytest.raises(error, match=message):
        vi.expectation(returned).surrogate(KEY)


def test_has_aux_wants_a_pair():
    objective = vi.expectation(has_aux=True)(lambda: jnp.zeros(()))
    with pytest.raises(ValueError, match=r"must return the pair \(objective, aux\)"):
        objective.surrogate(KEY)


def test_only_functions_are_objectives():
    with pytest.raises(TypeError, match="takes a function, got float"):
        vi.expectation(3.0)


def test_simulate_outside_an_objective():
    with pytest.raises(RuntimeError, match=r"vi\.simulate.*@vi\.expectation"):
        vi.simulate(sampling(FLAG))


def test_the_running_objective_ends_with_an_error():
    """After a failure the next call finds no leftover context."""
    with pytest.raises(ZeroDivisionError):
        vi.expectation(lambda: 1 / 0).surrogate(KEY)
    with pytest.raises(RuntimeError, match="inside an objective"):
        vi.simulate(sampling(FLAG))


# Loops --------------------------------------------------------------------------------------


def looped(d, infer=None):
    def program():
        scan(
            lambda c, _: (numpyro.sample("step", d, infer=infer), None), jnp.array(0), jnp.arange(3)
        )

    return program


@pytest.mark.parametrize("strategy", [vi.enum, vi.leg, vi.mvd, vi.disarm, vi.rloo])
def test_steps_of_a_scan_cannot_be_replayed_at_once(strategy):
    message = r"site 'step'.*the steps of a scan depend on each other.*lanes=True, or vi\.reinforce"
    with pytest.raises(ValueError, match=message):
        simulate(looped(strategy(FLAG)))


def test_infer_does_not_reach_into_a_scan():
    with pytest.raises(ValueError, match=r"site 'step'.*does not reach sites inside scan.*Wrap"):
        simulate(looped(FLAG, infer={"strategy": vi.enum()}))


def test_non_finite_draws_are_diagnosed():
    objective = vi.expectation(lambda s: vi.simulate(sampling(dist.Normal(0.0, s), "bad"))[1])
    sentence = objective.diagnose(KEY, jnp.asarray(np.nan))
    assert "site 'bad' (Normal)" in sentence and "'scale'" in sentence
    assert objective.diagnose(KEY, jnp.asarray(1.0)) is None


# Plates and data that do not fit ------------------------------------------------------------


def plate_of(size, batch=None, dim=-1, obs=None):
    def program():
        with numpyro.plate("rows", size, subsample_size=batch, dim=dim):
            x = numpyro.sample("x", dist.Normal(0.0, 1.0))
            if obs is not None:
                numpyro.sample("y", dist.Normal(x, 1.0), obs=obs)

    return program


@pytest.mark.parametrize(
    ("model", "guide", "message"),
    [
        (plate_of(4), plate_of(5), r"plate 'rows' has size 4 .* 5 of 5 elements"),
        (plate_of(6, 2), plate_of(6, 3), r"plate 'rows' .*subsample_size 2 .* 3 of 6 elements"),
        (plate_of(6), plate_of(6, 3), r"plate 'rows' .* 3 of 6 elements.*same size and subsample"),
        (plate_of(4), plate_of(4, dim=-2), r"'x': plate 'rows' has dim -1 .* dim -2 .*same dim="),
    ],
    ids=["size", "batch", "whole", "dim"],
)
def test_plates_of_one_name_that_disagree(model, guide, message):
    with pytest.raises(ValueError, match=message):
        vi.elbo(model, guide).surrogate(KEY)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((5,), r"site 'y': the observed value has shape \(5,\) but .* has shape \(4,\)"),
        ((4, 1), r"site 'y': the observed value has shape \(4, 1\) but .* has shape \(4,\)"),
        ((0,), r"site 'y': the observed value "),
    ],
)
def test_observed_data_of_the_wrong_shape(shape, message):
    with pytest.raises(ValueError, match=message):
        vi.elbo(plate_of(4, obs=jnp.zeros(shape)), plate_of(4)).surrogate(KEY)


def test_empty_data():
    program = sampling(dist.Normal(0.0, 1.0), "y", obs=jnp.zeros(0))
    with pytest.raises(ValueError, match=r"site 'y': the observed value is empty, of shape \(0,\)"):
        score(program, {})


def test_data_outside_the_support_cost_minus_infinity():
    for d in (dist.Bernoulli(logits=0.3), dist.Bernoulli(probs=0.3), dist.Poisson(2.0)):
        with pytest.warns(UserWarning, match="Out-of-support"):
            cost = vi.log_density(sampling(d, obs=jnp.array(-1)), {})
        assert cost.total == -jnp.inf


@pytest.mark.parametrize("strategy", [vi.straight_through, vi.gumbel_softmax])
@pytest.mark.parametrize("option", ["probs", "logits"])
def test_biased_strategies_warn_and_are_reported(strategy, option):
    """And their values, which lie between those of the site, have a finite density."""
    site = strategy(dist.Bernoulli(**{option: jnp.array([0.3, 0.4])}).to_event(1))
    model = sampling(dist.Bernoulli(probs=jnp.array([0.2, 0.5])).to_event(1))
    bound = vi.elbo(model, sampling(site))
    with pytest.warns(vi.BiasedGradientWarning, match="site 'x': the gradient of strategy"):
        assert np.isfinite(bound.surrogate(KEY))
    with pytest.warns(vi.BiasedGradientWarning):
        assert not bound.is_unbiased()
