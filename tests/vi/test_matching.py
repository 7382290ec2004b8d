"""Latents of guide and model that do not match: refused, with both shapes named."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions.distribution import enable_validation

from bayesjx import vi
from bayesjx.distributions import OneHotCategorical

pytestmark = pytest.mark.errors

KEY = jax.random.key(0)
SHAPES = [((), 0), ((3,), 0), ((3,), 1), ((1,), 0), ((2, 3), 0), ((2, 3), 1), ((2, 3), 2)]


def program(shape, event_dim):
    distribution = dist.Normal(jnp.zeros(shape), 1.0)
    return lambda: numpyro.sample("z", distribution.to_event(event_dim))


def run(objective):
    """What is known before there are numbers."""
    jax.eval_shape(objective.estimate, KEY)


def test_every_pair_of_shapes_and_event_dimensions():
    for model, guide in itertools.product(SHAPES, SHAPES):
        bound = vi.iwelbo if len(model[0]) == 2 else vi.elbo
        objective = bound(program(*model), program(*guide))
        if model == guide:
            run(objective)
            continue
        with pytest.raises(ValueError) as caught:
            run(objective)
        text = str(caught.value)
        assert "site 'z'" in text
        assert f"shape {guide[0]} and event dimension {guide[1]} in the guide" in text
        assert f"shape {model[0]} and event dimension {model[1]}" in text


def test_the_scalar_latent_of_three_observations():
    def model(loc):
        z = numpyro.sample("z", dist.Normal(0, 1))
        with numpyro.plate("rows", 3):
            numpyro.sample("y", dist.Normal(z, 1), obs=jnp.array([-3.0, 0.0, 3.0]))

    guide = lambda loc: numpyro.sample("z", dist.Normal(loc, 0.7))  # noqa: E731
    with pytest.raises(ValueError, match=r"site 'z' has shape \(3,\) .* but shape \(\)"):
        vi.elbo(model, guide).surrogate(KEY, jnp.zeros(3))
    with pytest.raises(ValueError, match=r"'z': the given value has shape \(3,\) .* shape \(\)"):
        vi.log_density(model, {"z": jnp.zeros(3)}, None)
    assert np.isfinite(vi.elbo(model, guide).surrogate(KEY, jnp.zeros(())))


STANDARD = dist.Normal(0.0, 1.0)


def plated(batch=None, distribution=STANDARD, plate=True):
    def run():
        if not plate:
            numpyro.sample("z", distribution)
            return
        with numpyro.plate("rows", 6, subsample_size=batch):
            numpyro.sample("z", distribution)

    return run


@pytest.mark.parametrize("size", [None, 2], ids=["whole", "minibatch"])
def test_plates_against_shapes_without_plates(size):
    n = size or 6
    model = plated(size)
    wide = dist.Normal(jnp.zeros(n), 1.0)
    run(vi.elbo(model, plated(size)))
    for guide in (plated(plate=False), plated(size, wide.to_event(1))):
        with pytest.raises(ValueError, match="site 'z'.*shape.*in the guide, but shape"):
            run(vi.elbo(model, guide))
    if size is not None:
        # Of the right shape, but its log density would not be scaled as the model's is.
        with pytest.raises(ValueError, match="'z'.*plate 'rows'"):
            run(vi.elbo(model, plated(distribution=wide, plate=False)))


def test_a_subsampled_plate_around_the_guide_alone():
    def model():
        with numpyro.plate("rows", 6, subsample_size=2):
            numpyro.sample("y", dist.Normal(0.0, 1.0), obs=jnp.zeros(2))
        numpyro.sample("z", dist.Normal(jnp.zeros(2), 1.0))

    def guide():
        with numpyro.plate("rows", 6, subsample_size=2):
            numpyro.sample("z", dist.Normal(0.0, 1.0))

    message = r"'z' is in the subsampled plate 'rows' \(2 of 6\) in the guide but not in the model"
    with pytest.raises(ValueError, match=message):
        run(vi.elbo(model, guide))


KINDS = {
    "normal": dist.Normal(0.0, 1.0),
    "laplace": dist.Laplace(0.0, 1.0),
    "bernoulli": dist.Bernoulli(0.3),
    "poisson": dist.Poisson(2.0),
}


def test_discrete_against_continuous():
    for model, guide in itertools.product(KINDS, KINDS):
        objective = vi.elbo(
            lambda m=model: numpyro.sample("z", KINDS[m]),
            lambda g=guide: numpyro.sample("z", vi.reinforce(KINDS[g])),
        )
        discrete = [name in ("bernoulli", "poisson") for name in (model, guide)]
        if discrete[0] == discrete[1]:
            run(objective)
            continue
        kinds = ["discrete" if flag else "continuous" for flag in discrete]
        with pytest.raises(ValueError, match=f"'z' is {kinds[1]} in the guide, but {kinds[0]}"):
            run(objective)


def test_one_hot_against_dirichlet():
    """Both over the simplex, which alone would not tell."""
    corner, inside = OneHotCategorical(probs=jnp.ones(3) / 3), dist.Dirichlet(jnp.ones(3))
    for model, guide in ((corner, inside), (inside, corner)):
        objective = vi.elbo(
            lambda d=model: numpyro.sample("z", d), lambda d=guide: numpyro.sample("z", d)
        )
        with pytest.raises(ValueError, match="site 'z' is .* in the guide, but .* in the model"):
            run(objective)


def test_values_that_are_not_one_hot():
    d = OneHotCategorical(probs=jnp.array([0.2, 0.3, 0.5]), validate_args=True)
    for value in ([1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [2.0, -1.0, 0.0], [np.nan, 0.0, 1.0]):
        with pytest.raises(ValueError, match="value must hold one-hot vectors, .* sum to one"):
            d.log_prob(jnp.array(value))
        assert jax.jit(d.log_prob)(jnp.array(value)) == -jnp.inf
    with pytest.raises(ValueError, match=r"one-hot vectors of length 3, got shape \(2,\)"):
        d.log_prob(jnp.array([1.0, 0.0]))
    with pytest.raises(ValueError, match="got shape"):
        d.log_prob(jnp.array(1))
    np.testing.assert_allclose(d.log_prob(jnp.array([0, 1, 0])), np.log(0.3), rtol=1e-12)
    soft = jnp.array([0.5, 0.25, 0.25])
    np.testing.assert_allclose(d.log_prob(soft), soft @ np.log([0.2, 0.3, 0.5]), rtol=1e-12)


def test_without_validation_shapes_still_count():
    enable_validation(False)
    try:
        with pytest.raises(ValueError, match="site 'z'"):
            run(vi.elbo(program((), 0), program((3,), 0)))
    finally:
        enable_validation(True)


def test_improper_guides_and_values_of_data_are_named():
    flat = lambda: numpyro.sample("z", dist.ImproperUniform(dist.constraints.real, (), ()))  # noqa: E731
    with pytest.raises(ValueError, match="site 'z'.*: ImproperUniform cannot be sampled"):
        run(vi.elbo(flat, flat))
    seen = lambda: numpyro.sample("y", dist.Normal(0.0, 1.0), obs=1.0)  # noqa: E731
    with pytest.raises(ValueError, match=r"which has \[\].*\['y'\] are observed there"):
        vi.log_density(seen, {"y": jnp.zeros(())})
