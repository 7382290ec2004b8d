"""Sparsity priors as sites: densities and weights against SciPy, laws of draws, plates, scopes."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import Predictive
from numpyro.infer.util import log_density
from scipy import stats

from bayesjx import sbl

M, DRAWS = 3, 4000
RNG = np.random.default_rng(0)
POSITIVE = np.exp(RNG.normal(size=(6, M)))
HORSESHOE = {
    "w_base": RNG.normal(size=M),
    "w_local_normal": POSITIVE[0],
    "w_local_var": POSITIVE[1],
    "w_global_normal": POSITIVE[2, 0],
    "w_global_var": POSITIVE[2, 1],
}
NORMAL, HALF_NORMAL, MIXING = stats.norm(), stats.halfnorm(), stats.invgamma(0.5, scale=0.5)
LEAST = 1.5 / (M - 1.5) * 0.7 / np.sqrt(20)


def horseshoe_density(sites):
    return (
        NORMAL.logpdf(sites["w_base"]).sum()
        + HALF_NORMAL.logpdf(sites["w_local_normal"]).sum()
        + MIXING.logpdf(sites["w_local_var"]).sum()
        + HALF_NORMAL.logpdf(sites["w_global_normal"])
        + MIXING.logpdf(sites["w_global_var"])
    )


def horseshoe_scale(sites, least):
    local = sites["w_local_normal"] * np.sqrt(sites["w_local_var"])
    return least * sites["w_global_normal"] * np.sqrt(sites["w_global_var"]) * local


def regularised(sites):
    free, slab = horseshoe_scale(sites, LEAST), sites["w_slab_var"]
    density = horseshoe_density(sites) + stats.invgamma(2.5, scale=2.5 * 1.7**2).logpdf(slab)
    return density, np.sqrt(slab * free**2 / (slab + free**2))


def ard(sites):
    density = stats.gamma(2.0, scale=1 / np.array([0.5, 1.0, 2.0])).logpdf(sites["w_precision"])
    return NORMAL.logpdf(sites["w_base"]).sum() + density.sum(), sites["w_precision"] ** -0.5


def spike(sites):
    probs = np.array([0.2, 0.5, 0.9])
    density = stats.bernoulli(probs).logpmf(sites["w_active"]).sum()
    return NORMAL.logpdf(sites["w_base"]).sum() + density, 1.5 * sites["w_active"]


# Prior from the type of its arguments, sites, and their density and scales by SciPy.
ROWS = {
    "horseshoe": (
        lambda t: sbl.horseshoe("w", M, global_scale=t(0.3)),
        HORSESHOE,
        lambda sites: (horseshoe_density(sites), horseshoe_scale(sites, 0.3)),
    ),
    "regularised": (
        lambda t: sbl.regularized_horseshoe(
            "w", M, num_nonzero=1.5, num_data=20, noise_scale=t(0.7), slab_scale=1.7, slab_df=5
        ),
        HORSESHOE | {"w_slab_var": POSITIVE[3, 0]},
        regularised,
    ),
    "ard": (
        lambda t: sbl.ard_weights("w", M, concentration=t(2.0), rate=t([0.5, 1.0, 2.0])),
        {"w_base": RNG.normal(size=M), "w_precision": POSITIVE[4]},
        ard,
    ),
    "spike and slab": (
        lambda t: sbl.spike_and_slab_weights(
            "w", M, prior_prob=t([0.2, 0.5, 0.9]), slab_scale=t(1.5)
        ),
        {"w_base": RNG.normal(size=M), "w_active": np.array([1, 0, 1])},
        spike,
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_densities_and_weights_are_those_by_scipy(name, dtype, tol):
    prior, sites, oracle = ROWS[name]
    as_type = lambda value: jnp.asarray(value, dtype)  # noqa: E731
    typed = {k: v if k == "w_active" else as_type(v) for k, v in sites.items()}

    @jax.jit
    def answers(sites):
        def density(sites):
            value, trace = log_density(lambda: prior(as_type), (), {}, sites)
            return value, (trace["w"]["value"], trace["w_scale"]["value"])

        one = jax.value_and_grad(density, has_aux=True, allow_int=True)(sites)
        twice = jax.tree.map(lambda x: jnp.stack([x, x]), sites)
        return one, jax.vmap(density)(twice)[1][0]

    ((value, (weights, scale)), slope), many = answers(typed)
    want, want_scale = oracle(sites)
    np.testing.assert_allclose(value, want, **tol)
    np.testing.assert_allclose(scale, want_scale, **tol)
    np.testing.assert_allclose(weights, want_scale * sites["w_base"], **tol)
    np.testing.assert_allclose(many, [weights] * 2, **tol)
    np.testing.assert_allclose(slope["w_base"], -sites["w_base"], **tol)
    assert weights.dtype == scale.dtype == dtype


def test_local_and_global_scales_are_half_cauchy_and_ard_weights_student_t():
    def model():
        with numpyro.handlers.scope(prefix="a", divider="_"):
            sbl.horseshoe("w", 1, global_scale=0.3)
        sbl.ard_weights("v", 1, concentration=1.5, rate=3.0)

    draws = jax.jit(Predictive(model, num_samples=DRAWS))(jax.random.key(0))
    tau = np.asarray(draws["a_w_global_scale"])
    local = np.asarray(draws["a_w_scale"])[:, 0] / tau
    weights = np.asarray(draws["v"])[:, 0]
    for values, distribution in (
        (tau, stats.halfcauchy(scale=0.3)),
        (local, stats.halfcauchy()),
        (weights, stats.t(3, scale=np.sqrt(2))),
    ):  # five times the standard deviation of the statistic of Kolmogorov and Smirnov, 0.26/√n
        assert stats.kstest(values, distribution.cdf).statistic < (0.87 + 5 * 0.26) / np.sqrt(DRAWS)


def test_every_element_of_a_plate_has_weights_of_its_own():
    def model():
        noise = numpyro.sample("noise", dist.HalfNormal(1.0))
        with numpyro.plate("groups", 5):
            known = {"num_nonzero": 1, "num_data": 20, "noise_scale": noise}
            slopes = sbl.regularized_horseshoe("w", M, **known)
            ard = sbl.ard_weights("v", M)
            spikes = sbl.spike_and_slab_weights("u", M)
        return slopes, ard, spikes

    @jax.jit
    def values(key):
        trace = numpyro.handlers.trace(numpyro.handlers.seed(model, key)).get_trace()
        states = trace["u_active"]["fn"].enumerate_support(expand=False)
        found = {name: site["value"] for name, site in trace.items() if site["type"] != "plate"}
        return found, states

    found, states = values(jax.random.key(0))
    assert states.shape == (2, 1, 1)  # of one indicator, as DiscreteHMCGibbs asks for them
    shapes = {name: np.shape(value) for name, value in found.items()}
    for name in ("w", "v", "u", "w_scale", "w_local_var", "v_precision", "u_scale"):
        assert shapes[name] == (5, M), name
    assert shapes["u_active"] == (M, 5)  # a plate of the columns, so that each can be enumerated
    np.testing.assert_array_equal(found["u_scale"], found["u_active"].T)
    assert shapes["w_global_scale"] == shapes["w_slab_var"] == (5,)
    assert len(np.unique(found["w"])) == 5 * M


def test_shrinkage_is_its_formula():
    scale = np.abs(RNG.normal(size=(2, 7, M)))
    noise, columns = np.exp(RNG.normal(size=(2, 7))), np.array([0.5, 1.0, 3.0])
    found = sbl.shrinkage(
        {"b_scale": scale}, "b", num_data=11, noise_scale=noise, design_scale=columns
    )
    want = 1 / (1 + 11 * (columns * scale / noise[..., None]) ** 2)
    np.testing.assert_allclose(found.kappa, want, rtol=1e-12)
    np.testing.assert_allclose(found.num_nonzero, np.sum(1 - want, axis=-1), rtol=1e-12)
    plain = sbl.shrinkage({"w_scale": jnp.ones((4, M), jnp.float32)})
    assert plain.kappa.dtype == jnp.float32 and np.all(plain.kappa == 0.5)
    large = sbl.shrinkage({"w_scale": jnp.full((1, M), 1e15, jnp.float32)})
    np.testing.assert_allclose(large.num_nonzero, M, rtol=1e-6)


@pytest.mark.errors
def test_bad_input_is_named():
    with pytest.raises(ValueError, match="num_weights must be at least 1"):
        sbl.horseshoe("w", 0)
    with pytest.raises(ValueError, match="num_data and noise_scale are missing"):
        sbl.horseshoe("w", M, num_nonzero=1)
    with pytest.raises(ValueError, match="leave out one"):
        sbl.horseshoe("w", M, global_scale=1, num_nonzero=1, num_data=5, noise_scale=1)
    with pytest.raises(ValueError, match="num_nonzero must be between 0 and num_weights = 3"):
        sbl.horseshoe("w", M, num_nonzero=M, num_data=5, noise_scale=1.0)
    with pytest.raises(ValueError, match="slab_scale must be positive"):
        sbl.regularized_horseshoe("w", M, slab_scale=-1.0)
    with pytest.raises(ValueError, match=r"rate must be a scalar or have shape \(3,\)"):
        sbl.ard_weights("w", M, rate=np.ones(2))
    with pytest.raises(ValueError, match="prior_prob must be at most 1"):
        sbl.spike_and_slab_weights("w", M, prior_prob=1.5)
    with pytest.raises(ValueError, match="has no w_scale"):
        sbl.shrinkage({"w": np.ones((2, M))})
    with pytest.raises(ValueError, match=r"draws of shape \(2,\)"):
        sbl.shrinkage({"w_scale": np.ones((2, M))}, noise_scale=np.ones(M))
