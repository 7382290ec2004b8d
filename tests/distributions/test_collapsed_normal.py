"""The normal distribution with a correction, against the structured one without."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesjx.distributions import CollapsedNormal, StructuredNormal
from bayesjx.ops import Diag, LowRankPlusDiag, psd

N = 6
FACTOR = np.random.default_rng(2).standard_normal((N, 2))


def make(dtype=jnp.float64):
    covariance = LowRankPlusDiag(jnp.asarray(FACTOR, dtype), jnp.arange(1, N + 1, dtype=dtype))
    loc = jnp.arange(N, dtype=dtype)
    return CollapsedNormal(loc, covariance, -1.5), StructuredNormal(loc, covariance)


def test_correction_is_in_the_density_and_nowhere_else(dtype, tol):
    distribution, plain = make(dtype)
    values = jnp.asarray(np.random.default_rng(5).standard_normal((2, 3, N)), dtype)
    assert distribution.log_prob(values).dtype == distribution.correction.dtype == dtype
    np.testing.assert_allclose(distribution.log_prob(values), plain.log_prob(values) - 1.5, **tol)
    key = jax.random.key(0)
    np.testing.assert_array_equal(distribution.sample(key, (4,)), plain.sample(key, (4,)))
    for name in ("mean", "variance", "covariance_matrix"):
        np.testing.assert_array_equal(getattr(distribution, name), getattr(plain, name))
    np.testing.assert_array_equal(distribution.entropy(), plain.entropy())
    given = distribution.condition([1], values[0, 0, :1])
    assert type(given) is StructuredNormal
    np.testing.assert_array_equal(given.mean, plain.condition([1], values[0, 0, :1]).mean)


def test_is_a_pytree_for_jit_vmap_and_expand():
    distribution, _ = make()
    value = jnp.sin(jnp.arange(6.0))
    leaves, tree = jax.tree.flatten(distribution)
    again = jax.tree.unflatten(tree, leaves)
    assert again.correction == -1.5
    expanded = again.expand((2,)).to_event(1).mask(True)
    want = distribution.log_prob(value)
    got = jax.jit(lambda distribution: distribution.log_prob(jnp.stack([value] * 2)))(expanded)
    np.testing.assert_allclose(got, 2 * want, rtol=1e-12)

    def corrected(correction):
        return CollapsedNormal(distribution.loc, distribution.covariance, correction).log_prob(
            value
        )

    batch = jax.jit(jax.vmap(corrected))(jnp.array([-1.5, 0.0]))
    np.testing.assert_allclose(batch, [want, want + 1.5], rtol=1e-12)
    assert jax.jit(jax.grad(corrected))(0.3) == 1


@pytest.mark.errors
def test_bad_input_is_named():
    covariance = Diag(jnp.ones(N), psd)
    with pytest.raises(ValueError, match=r"correction must be a scalar, got shape \(6,\)"):
        CollapsedNormal(jnp.zeros(N), covariance, jnp.zeros(N))
    with pytest.raises(ValueError, match=r"loc must have shape \(6,\), got \(5,\)"):
        CollapsedNormal(jnp.zeros(5), covariance)
