"""The circular complex normal against the two real ones that it is made of."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.distributions import biject_to

from bayesjx import distributions as ours


def test_it_is_two_normals_of_half_the_variance():
    loc, scale = np.array([1 + 2j, -0.5j]), np.array([0.7, 2.0])

    @jax.jit
    def run(loc, scale, value):
        distribution = ours.ComplexNormal(loc, scale)
        half = scale / np.sqrt(2)
        parts = dist.Normal(loc.real, half), dist.Normal(loc.imag, half)
        want = parts[0].log_prob(value.real) + parts[1].log_prob(value.imag)
        entropy = parts[0].entropy() + parts[1].entropy()
        draws = distribution.expand((3, 2)).sample(jax.random.key(0), (4000,))
        mapped = jax.vmap(lambda s: ours.ComplexNormal(loc, s).log_prob(value))(scale[None])
        pairs = (
            (distribution.log_prob(value), want),
            (distribution.entropy(), entropy),
            (mapped[0], want),
        )
        return pairs, distribution, draws

    pairs, distribution, draws = run(loc, scale, jnp.array([0.3 + 1j, 1 - 1j]))
    for found, want in pairs:
        np.testing.assert_allclose(found, want, rtol=1e-12)
    shift, num = np.asarray(draws - loc), draws[..., 0].size
    assert draws.shape == (4000, 3, 2)
    np.testing.assert_allclose(distribution.variance, scale**2)
    power = np.mean(np.abs(shift) ** 2, (0, 1))  # exponentially distributed, each
    np.testing.assert_allclose(power, scale**2, rtol=5 / np.sqrt(num))
    assert np.all(np.abs(np.mean(shift**2, (0, 1))) < 5 * np.sqrt(2 / num) * scale**2)
    assert np.all(distribution.support(draws))


def test_draws_have_the_precision_of_the_parameters():
    single = np.float32(2)
    for loc, scale, kind in (
        (0.0, 1.0, "complex128"), (0, 2.0, "complex128"), (1j, single, "complex64"),
        (np.complex64(1), single, "complex64"), (1j, np.float64(2), "complex128"),
    ):  # fmt: skip
        distribution = ours.ComplexNormal(loc, scale)
        draw = jax.eval_shape(distribution.sample, jax.random.key(0))
        assert draw.dtype == kind


@pytest.mark.errors
def test_samplers_of_real_numbers_say_so():
    distribution = ours.ComplexNormal(0j, 1.0)
    for support in (distribution.support, distribution.expand((3,)).to_event(1).support):
        with pytest.raises(NotImplementedError, match="ComplexNormal: samplers .* real sites only"):
            biject_to(support)
