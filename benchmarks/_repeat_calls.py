"""Entry points that users call in a loop outside of `jit`, each with other data every time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax

from bayesjx import bnn, diagnostics, fit, gp, kernels, likelihoods, ops, sbl, ssm, vi

N, M = 31, 11
PRIOR = gp.GP(kernels.RBF(), noise_var=0.1)
LATENT = gp.GP(kernels.RBF())
ON_GRID = gp.GP(kernels.RBF(jnp.ones(2)), noise_var=0.1)
LATENT_ON_GRID = gp.GP(kernels.RBF(jnp.ones(2)))
GRID = gp.Grid(np.linspace(0, 1, 5), np.linspace(0, 1, 7))
OTHER_GRID = gp.Grid(np.linspace(0, 1, 3), np.linspace(0, 1, 4))
MASK = np.arange(35).reshape(5, 7) % 6 > 0
POINTS = np.linspace(-2, 2, M)
KEY = jax.random.key(0)


class Entry(NamedTuple):
    """An entry point.

    Attributes:
        name: what is called.
        call: calls it with data of that number.
        quick: whether the quick run has it too.
    """

    name: str
    call: Callable[[int], Any]
    quick: bool = False


def entries() -> list[Entry]:
    """All of them. What an entry asks a posterior for is asked of one that is made before."""
    return [
        *_exact(),
        *_grids(),
        *_sparse(),
        *_laplace(),
        *_series(),
        *_operators(),
        *_sparse_learning(),
        *_networks(),
        *_inference(),
    ]


def _data(i: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(i)
    return np.sort(rng.normal(size=N)), rng.normal(size=N)


def _cells(i: int) -> np.ndarray:
    return np.random.default_rng(i).normal(size=(5, 7))


def _counts(i: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(i).poisson(2.0, size=shape or (N,))


def _poisson(f: jax.Array) -> dist.Poisson:
    return dist.Poisson(jnp.exp(f))


def _exact() -> list[Entry]:
    found = gp.condition(PRIOR, *_data(0))
    draws = found.pathwise(KEY, 3, num_features=50)
    return [
        Entry("prior(x).log_prob", lambda i: PRIOR(_data(i)[0]).log_prob(_data(i)[1])),
        Entry("prior.latent(x).sample", lambda i: PRIOR.latent(_data(i)[0]).sample(KEY)),
        Entry("gp.condition", lambda i: gp.condition(PRIOR, *_data(i)), True),
        Entry("posterior.moments", lambda i: found.moments(_data(i)[0])),
        Entry("posterior.predict", lambda i: found.predict(_data(i)[0])),
        Entry("posterior.sample", lambda i: found.sample(KEY, _data(i)[0], (3,)), True),
        Entry("posterior.leave_one_out", lambda i: _left_out(gp.condition(PRIOR, *_data(i)))),
        Entry(
            "posterior.pathwise",
            lambda i: found.pathwise(jax.random.key(i), 3, num_features=50),
            True,
        ),
        Entry("pathwise draws", lambda i: draws(_data(i)[0])),
        Entry("gradient of the evidence", _evidence_gradient),
        Entry(
            "gp.heteroscedastic_bound",
            lambda i: gp.heteroscedastic_bound(PRIOR, LATENT, np.full(N, -0.7), *_data(i)),
        ),
    ]


def _left_out(posterior: Any) -> Any:
    return posterior.leave_one_out()


def _evidence_gradient(i: int) -> jax.Array:
    x, y = _data(i)

    def evidence(noise: Any) -> Any:
        posterior: Any = gp.condition(gp.GP(kernels.RBF(), noise_var=noise), x, y)
        return posterior.log_evidence()

    return jax.grad(evidence)(0.1)


def _grids() -> list[Entry]:
    full = gp.condition(ON_GRID, GRID, _cells(0))
    seen = gp.condition(ON_GRID, GRID, _cells(0), mask=MASK)
    scattered = lambda i: np.random.default_rng(i).uniform(size=(M, 2))  # noqa: E731
    return [
        Entry("gp.condition, grid", lambda i: gp.condition(ON_GRID, GRID, _cells(i))),
        Entry("grid posterior.moments", lambda i: full.moments(scattered(i))),
        Entry("grid posterior.sample", lambda i: full.sample(jax.random.key(i), OTHER_GRID)),
        Entry(
            "gp.condition, mask", lambda i: gp.condition(ON_GRID, GRID, _cells(i), mask=MASK), True
        ),
        Entry(
            "gp.condition, mask, cg",
            lambda i: gp.condition(ON_GRID, GRID, _cells(i), mask=MASK, solver="cg"),
        ),
        Entry("masked posterior.moments", lambda i: seen.moments(scattered(i)), True),
        Entry("masked posterior.sample", lambda i: seen.sample(jax.random.key(i), OTHER_GRID)),
        Entry(
            "masked posterior.pathwise",
            lambda i: seen.pathwise(jax.random.key(i), 2, num_features=50),
        ),
        Entry(
            "masked leave_one_out",
            lambda i: _left_out(gp.condition(ON_GRID, GRID, _cells(i), mask=MASK)),
        ),
        Entry(
            "prior(grid, mask).log_prob",
            lambda i: ON_GRID(GRID, MASK).log_prob(jnp.asarray(_cells(i)[MASK])),
        ),
    ]


def _sparse() -> list[Entry]:
    found = gp.sparse_posterior(PRIOR, *_data(0), inducing_points=POINTS)
    svgp = gp.SVGP(LATENT, _poisson, inducing_points=POINTS)
    return [
        Entry(
            "gp.sparse_posterior",
            lambda i: gp.sparse_posterior(PRIOR, *_data(i), inducing_points=POINTS),
        ),
        Entry("sparse posterior.sample", lambda i: found.sample(KEY, _data(i)[0])),
        Entry(
            "sparse posterior.pathwise",
            lambda i: found.pathwise(jax.random.key(i), 3, num_features=50),
        ),
        Entry(
            "gp.sgpr(...).log_prob",
            lambda i: gp.sgpr(PRIOR, _data(i)[0], inducing_points=POINTS).log_prob(_data(i)[1]),
        ),
        Entry("SVGP.elbo", lambda i: svgp.elbo(_data(i)[0], _counts(i))),
        Entry("SVGP.posterior", lambda i: svgp.posterior().predict(_data(i)[0]).mean),
    ]


def _laplace() -> list[Entry]:
    found = gp.laplace(LATENT, _poisson, _data(0)[0], _counts(0))
    return [
        Entry("gp.laplace", lambda i: gp.laplace(LATENT, _poisson, _data(i)[0], _counts(i)), True),
        Entry(
            "gp.laplace, another likelihood",
            lambda i: gp.laplace(
                LATENT, lambda f: dist.Poisson((i + 1) * jnp.exp(f)), _data(i)[0], _counts(i)
            ),
        ),
        Entry(
            "gp.laplace, mask",
            lambda i: gp.laplace(LATENT_ON_GRID, _poisson, GRID, _counts(i, 5, 7), MASK),
            True,
        ),
        Entry("laplace posterior.moments", lambda i: found.moments(_data(i)[0]), True),
        Entry("laplace posterior.sample", lambda i: found.sample(KEY, _data(i)[0])),
    ]


def _series() -> list[Entry]:
    kernel = kernels.Matern32()
    prior = lambda i: ssm.MarkovGP(kernel, _data(i)[0], noise_var=0.1)  # noqa: E731
    found = prior(0).condition(_data(0)[1])
    counts = lambda i: ssm.MarkovGP(kernel, _data(i)[0])  # noqa: E731
    return [
        Entry("MarkovGP.log_prob", lambda i: prior(i).log_prob(_data(i)[1])),
        Entry("MarkovGP.condition", lambda i: prior(i).condition(_data(i)[1]), True),
        Entry("Markov posterior.moments", lambda i: found.moments(_data(i)[0]), True),
        Entry("Markov posterior.sample", lambda i: found.sample(KEY, _data(i)[0])),
        Entry("ssm.approximate", lambda i: ssm.approximate(counts(i), _counts(i), _poisson)),
    ]


def _operators() -> list[Entry]:
    def answers(operator: Any, *, inverse: bool = False) -> Any:
        draw = operator.sample_inverse if inverse else operator.sample
        b = jnp.ones(operator.shape[0])
        return operator.solve(b), operator.logdet(), operator.inverse_diag(), draw(KEY)

    def scaled(i: int, *shape: int) -> jax.Array:
        return jnp.asarray(np.random.default_rng(i).uniform(1, 2, size=shape))

    kron = gp.covariance(kernels.RBF(jnp.ones(2)), GRID)
    eye = jnp.eye(3)
    return [
        Entry("ops.Dense", lambda i: answers(ops.Dense(jnp.diag(scaled(i, 13)), ops.psd))),
        Entry(
            "ops.Toeplitz", lambda i: answers(ops.Toeplitz(scaled(i, 1) * 0.5 ** jnp.arange(13)))
        ),
        Entry(
            "ops.LowRankPlusDiag",
            lambda i: answers(ops.LowRankPlusDiag(scaled(i, 13, 3), scaled(i, 13))),
        ),
        Entry(
            "ops.BlockDiag",
            lambda i: answers(ops.BlockDiag(jnp.eye(11) * scaled(i, 5, 1, 1), ops.psd)),
        ),
        Entry(
            "ops.BlockTridiag",
            lambda i: answers(
                ops.BlockTridiag(eye * scaled(i, 5, 1, 1), 0.1 * scaled(i, 4, 3, 3)), inverse=True
            ),
        ),
        Entry("ops.Kron + noise", lambda i: answers(kron + ops.ScaledIdentity(scaled(i)))),
        Entry(
            "ops.stochastic_logdet",
            lambda i: ops.stochastic_logdet(KEY, ops.Dense(jnp.diag(scaled(i, 13)), ops.psd)),
        ),
    ]


def _sparse_learning() -> list[Entry]:
    def linear(i: int, num: int = M) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(i)
        design = rng.normal(size=(N, num))
        return design, design[:, :2].sum(axis=1) + 0.1 * rng.normal(size=N)

    def on_a_grid(i: int) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
        rng = np.random.default_rng(i)
        factors = rng.normal(size=(5, 7)), rng.normal(size=(4, 6))
        return factors, rng.normal(size=(5, 4))

    known: dict[str, Any] = {"noise_var": 0.1, "prior_var": 1.0}
    slab: dict[str, Any] = {"noise_var": 0.1, "slab_var": 1.0}
    return [
        Entry("sbl.condition", lambda i: sbl.condition(*linear(i), **known), True),
        Entry("sbl.sbl", lambda i: sbl.sbl(*linear(i)).mean, True),
        Entry("sbl.sbl, compacted", lambda i: sbl.sbl(*linear(i, 700)).mean),
        Entry("sbl.kron_sbl", lambda i: sbl.kron_sbl(*on_a_grid(i)).mean),
        Entry(
            "sbl.orthogonal_matching_pursuit",
            lambda i: sbl.orthogonal_matching_pursuit(*linear(i), num_nonzero=3).mean,
        ),
        Entry("sbl.spike_and_slab", lambda i: sbl.spike_and_slab(*linear(i), **slab).mean),
        Entry("sbl.fista", lambda i: sbl.fista(*linear(i), sbl.L1(1.0)).weights),
        Entry(
            "sbl.learn_dictionary",
            lambda i: (
                sbl.learn_dictionary(
                    KEY, sbl.BSC, _cells(i) ** 2, 3, reseeds=1, max_steps=40, throw=False
                ).weights
            ),
        ),
    ]


def _networks() -> list[Entry]:
    def make(key: jax.Array) -> Any:
        return eqx.nn.MLP("scalar", "scalar", 5, 1, key=key)

    def trained(i: int) -> Any:
        q = bnn.mean_field(make(jax.random.key(i)), likelihoods.Gaussian(0.1))
        algorithm = bnn.mean_field_vi(q, optimizer, num_data=N)
        return q.trained(fit(KEY, algorithm, algorithm.init(), 5, data=_data(i)).state)

    def predicted(i: int) -> Any:
        networks = [make(key) for key in jax.random.split(jax.random.key(i), 3)]
        posterior = bnn.NetworkSamples(networks, likelihoods.Gaussian(0.1 + i))
        return posterior.predict(_data(i)[0]).variance

    def approximated(i: int, structure: str) -> bnn.LaplacePosterior:
        return bnn.laplace(many(i), *rows(i), categorical, structure=structure)

    def rows(i: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(i)
        return rng.normal(size=(N, 2)), rng.integers(3, size=N)

    def many(i: int) -> Any:
        return eqx.nn.MLP(2, 3, 5, 1, key=jax.random.key(i))

    def categorical(f: jax.Array) -> Any:
        return dist.Categorical(logits=f)

    def tuned(i: int) -> Any:
        found = bnn.tune_laplace(approximated(i, "kron"), max_steps=5)
        return found.posterior.prior_precision

    def calibrated(i: int) -> Any:
        found = bnn.calibrate_laplace(fitted["kron"], *rows(i))
        return found.posterior.prior_precision

    optimizer = optax.adam(0.1)
    fitted = {name: approximated(0, name) for name in ("full", "kron", "last_layer")}
    return [
        Entry("bnn.laplace, full", lambda i: approximated(i, "full").log_evidence()),
        Entry("bnn.laplace, kron", lambda i: approximated(i, "kron").log_evidence(), True),
        Entry("bnn.laplace, last layer", lambda i: approximated(i, "last_layer").mode_distance),
        Entry("bnn.tune_laplace", tuned),
        Entry("bnn.calibrate_laplace", calibrated),
        Entry(
            "LaplacePosterior.log_predictive_prob",
            lambda i: fitted["kron"].log_predictive_prob(*rows(i)),
        ),
        Entry("LaplacePosterior.sample", lambda i: fitted["full"].sample(KEY, rows(i)[0], (3,))),
        Entry(
            "bnn.kronecker_factors",
            lambda i: bnn.kronecker_factors(many(i), *rows(i), categorical).mv(jnp.ones(33)),
        ),
        Entry(
            "bnn.gauss_newton",
            lambda i: bnn.gauss_newton(many(i), *rows(i), categorical).mv(jnp.ones(33)),
        ),
        Entry("bnn.mean_field_vi", lambda i: trained(i).means),
        Entry("bnn.NetworkSamples.predict", predicted),
        Entry("bnn.MeanField.elbo", lambda i: trained(0).elbo(*_data(i), key=KEY)),
    ]


def _inference() -> list[Entry]:
    def model(y: jax.Array) -> None:
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(z, 1.0).expand([N]).to_event(1), obs=y)

    @vi.expectation
    def elbo(params: Any, y: jax.Array) -> Any:
        trace, log_q = vi.simulate(guide, params)
        return vi.log_density(model, trace, y) - log_q

    def guide(params: Any) -> None:
        numpyro.sample("z", dist.Normal(params["loc"], jnp.exp(params["log_scale"])))

    params = {"loc": jnp.zeros(()), "log_scale": jnp.zeros(())}
    optimizer = optax.adam(0.1)
    y = lambda i: jnp.asarray(_data(i)[1])  # noqa: E731
    return [
        Entry("vi.fit", lambda i: vi.fit(KEY, elbo, params, optimizer, 20, data=(y(i),)).params),
        Entry("value_and_grad", lambda i: elbo.value_and_grad(KEY, params, y(i), num_draws=10)),
        Entry("vi.psis", lambda i: vi.psis(KEY, elbo, params, y(i), num_draws=100).k_hat),
        Entry(
            "diagnostics.psis",
            lambda i: diagnostics.psis(jnp.asarray(np.random.default_rng(i).normal(size=200))),
        ),
    ]
