"""Mistakes in calls of `bayesjx.gp`, all but its minimiser, Laplace's method and likelihoods."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax

from bayesjx import gp, kernels
from benchmarks.bad_input._case import Case

N, M = 7, 3
NAN = float("nan")


def _x(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape or (N,))


def _prior(noise: Any = 0.1, kernel: Any = None) -> gp.GP:
    return gp.GP(kernels.RBF() if kernel is None else kernel, noise_var=noise)


def _posterior() -> Any:
    return gp.condition(_prior(), _x(N, 2), _x())


def _grid() -> gp.Grid:
    return gp.Grid(np.arange(3.0), np.arange(5.0))


def _on_grid() -> gp.GP:
    return gp.GP(kernels.RBF(jnp.ones(2)), noise_var=0.1)


def _grid_posterior(mask: Any = None, **solver: Any) -> Any:
    return gp.condition(_on_grid(), _grid(), _x(3, 5), mask=mask, **solver)


def _svgp(**options: Any) -> gp.SVGP:
    return gp.SVGP(_prior(), inducing_points=_x(M), **options)


def _counts() -> Any:
    return gp.SVGP(gp.GP(kernels.RBF()), lambda f: dist.Poisson(jnp.exp(f)), inducing_points=_x(M))


def _two() -> Any:
    likelihood = lambda f: dist.Normal(f[..., 0], jnp.exp(f[..., 1]))  # noqa: E731
    return gp.SVGP(gp.GP(kernels.RBF()), likelihood, inducing_points=_x(M), num_latents=2)


def _kron() -> gp.KronVariational:
    prior = gp.GP(kernels.RBF(jnp.ones(2)))
    return gp.KronVariational(prior, lambda f: dist.Poisson(jnp.exp(f)), _grid())


def _key() -> jax.Array:
    return jax.random.key(0)


def _jitted(function: Any, *args: Any) -> Any:
    return jax.block_until_ready(eqx.filter_jit(function)(*args))


def _wrong(value: object) -> Any:
    """A value of another type than the annotations allow."""
    return value


def _nan() -> np.ndarray:
    return np.where(np.arange(N) == 2, NAN, _x())


CASES: tuple[Case, ...] = (
    # The process
    Case("gp.GP", "kernel", lambda: gp.GP(_wrong("rbf")), "covariance function|AbstractKernel"),
    Case("gp.GP", "kernel", lambda: gp.GP(_wrong(kernels.RBF)), "RBF\\(\\)|instance"),
    Case("gp.GP", "noise_var", lambda: _prior(-0.1), "negative"),
    Case("gp.GP", "noise_var", lambda: _prior(NAN), "negative|NaN"),
    Case("gp.GP", "noise_var", lambda: _prior(np.ones((3, 3))), "scalar or \\(n,\\)"),
    Case("gp.GP", "noise_var", lambda: _prior("loud"), "number|scalar"),
    Case("gp.GP", "mean", lambda: gp.GP(kernels.RBF(), mean=np.zeros(3)), "number|function"),
    Case("gp.GP", "mean", lambda: gp.GP(kernels.RBF(), mean=NAN), "finite|NaN"),
    Case(
        "gp.GP.__call__",
        "mean",
        lambda: gp.GP(kernels.RBF(), mean=lambda x: x)(_x(N, 2)),
        "one number|scalar",
    ),
    Case("gp.GP.__call__", "x", lambda: _prior()(_x(2, 3, 4)), "\\(n, d\\)|axes"),
    Case("gp.GP.__call__", "x", lambda: _prior()(np.zeros((0, 2))), "empty"),
    Case("gp.GP.__call__", "x", lambda: _prior()(_nan()), "NaN"),
    Case("gp.GP.__call__", "x", lambda: _prior()(3.0), "\\(n, d\\)|axes"),
    Case("gp.GP.__call__", "x", lambda: _prior()(None), "\\(n, d\\)|array"),
    Case("gp.GP.__call__", "x", lambda: _prior()(["a", "b"]), "number|array"),
    Case("gp.GP.__call__", "x", lambda: _prior()(_x() + 1j), "real|complex"),
    Case("gp.GP.__call__", "noise_var", lambda: _prior(np.ones(3))(_x()), "\\(7,\\)"),
    Case("gp.GP.__call__", "mask", lambda: _prior()(_x(), np.ones(N, bool)), "Grid"),
    Case("gp.GP.__call__", "solver", lambda: _prior()(_x(), solver="cg"), "grid with a mask"),
    Case("gp.GP.__call__", "mask", lambda: _on_grid()(_grid(), np.ones(4, bool)), "\\(3, 5\\)"),
    Case("gp.GP.__call__", "mask", lambda: _on_grid()(_grid(), np.zeros((3, 5), bool)), "false"),
    Case("gp.GP.latent", "jitter", lambda: _prior().latent(_x(), -1.0), "0 or more"),
    Case("gp.GP.latent", "jitter", lambda: _prior().latent(_x(), _wrong("small")), "number"),
    # Inputs
    Case("gp.Grid", "axis", lambda: gp.Grid(), "at least one"),
    Case("gp.Grid", "axis", lambda: gp.Grid(np.ones((2, 2, 2))), "\\(n, d\\)|axes"),
    Case("gp.Grid", "axis", lambda: gp.Grid(np.arange(3.0), []), "empty"),
    Case("gp.Grid", "axis", lambda: gp.Grid(np.array([0.0, NAN])), "NaN"),
    Case("gp.Times", "Times", lambda: gp.Times(_x(N, 2)), "\\(n,\\)"),
    Case("gp.Times", "Times", lambda: gp.Times(np.zeros(0)), "not empty"),
    Case(
        "gp.Times",
        "backend",
        lambda: _prior(kernel=kernels.Matern32())(gp.Times(_x(), "fast")),
        "auto",
    ),
    Case("gp.covariance", "Sum", lambda: gp.covariance(_sum(), _grid()), "Kronecker"),
    Case("gp.covariance", "x", lambda: gp.covariance(kernels.RBF(), _x(2, 2, 2)), "axes|\\(n, d"),
    # Exact posteriors
    Case("gp.condition", "y", lambda: gp.condition(_prior(), _x(), _x(N - 1)), "\\(7,\\)"),
    Case("gp.condition", "y", lambda: gp.condition(_prior(), _x(), _x(N, 1)), "\\(7,\\)"),
    Case("gp.condition", "y", lambda: gp.condition(_prior(), _x(), _nan()), "NaN"),
    Case("gp.condition", "y", lambda: gp.condition(_prior(), _x(), "y"), "number|array|shape"),
    Case(
        "gp.condition",
        "y",
        lambda: _jitted(lambda y: gp.condition(_prior(), _x(), y).mean(_x()), _nan()),
        "NaN",
    ),
    Case("gp.condition", "x", lambda: gp.condition(_prior(), _nan(), _x()), "NaN"),
    Case("gp.condition", "prior", lambda: gp.condition(_wrong(kernels.RBF()), _x(), _x()), "gp.GP"),
    Case(
        "gp.condition", "mask", lambda: gp.condition(_prior(), _x(), _x(), mask=_x() > 9), "false"
    ),
    Case(
        "gp.condition",
        "mask",
        lambda: gp.condition(_prior(), _x(), _x(), mask=np.ones(N)),
        "boolean",
    ),
    Case(
        "gp.condition", "mask", lambda: gp.condition(_prior(), _x(), _x(), mask=[True]), "\\(7,\\)"
    ),
    Case("gp.condition", "solver", lambda: gp.condition(_prior(), _x(), _x(), solver="cg"), "Grid"),
    Case(
        "gp.condition",
        "noise_var",
        lambda: gp.condition(_prior(np.ones(3)), _x(), _x()),
        "\\(7,\\)",
    ),
    Case("gp.condition", "mask", lambda: _grid_posterior(solver="cg"), "mask"),
    Case(
        "gp.condition", "solver", lambda: _grid_posterior(np.ones((3, 5), bool), solver="lu"), "cg"
    ),
    Case("gp.condition", "tolerance", lambda: _grid_posterior(_x(3, 5) < 9, tolerance=1.0), "rtol"),
    Case(
        "gp.condition",
        "likelihood",
        lambda: gp.condition(_prior(0.0), _x(), _x(), dist.Poisson(1.0)),
        "function",
    ),
    Case(
        "gp.condition",
        "likelihood",
        lambda: gp.condition(_prior(0.0), _x(), _x(), _wrong(_x() > 0)),
        "function",
    ),
    Case(
        "gp.condition",
        "noise_var",
        lambda: gp.condition(_prior(), _x(), _x(), lambda f: dist.Normal(f, 1.0)),
        "would not be used",
    ),
    Case(
        "gp.ExactPosterior.log_predictive_prob",
        "y",
        lambda: _posterior().log_predictive_prob(_x(4, 2), _x(3)),
        "\\(4,\\)",
    ),
    Case(
        "gp.ExactPosterior.log_predictive_prob",
        "y",
        lambda: _posterior().log_predictive_prob(_x(N, 2), _nan()),
        "support",
    ),
    Case(
        "gp.SparsePosterior.log_predictive_prob",
        "y",
        lambda: _counts().posterior().log_predictive_prob(_x(2), np.array([1, -1])),
        "support",
    ),
    Case(
        "gp.SparsePosterior.log_evidence",
        "y",
        lambda: _counts().posterior().log_evidence(),
        "elbo\\(x, y\\)",
    ),
    Case("gp.ExactPosterior.mean", "x", lambda: _posterior().mean(_x(4, 3)), "dimension"),
    Case("gp.ExactPosterior.moments", "x", lambda: _posterior().moments(_nan()), "NaN"),
    Case("gp.ExactPosterior.sample", "key", lambda: _posterior().sample(3, _x(4, 2)), "PRNG key"),
    Case(
        "gp.ExactPosterior.sample",
        "sample_shape",
        lambda: _posterior().sample(_key(), _x(4, 2), (-1,)),
        "at least 0",
    ),
    Case(
        "gp.ExactPosterior.predict",
        "noise_var",
        lambda: gp.condition(_prior(np.ones(N)), _x(), _x()).predict(_x()),
        "variance\\(x\\)",
    ),
    Case("gp.grid_posterior", "x", lambda: gp.grid_posterior(_prior(), _x(), _x()), "Grid"),
    Case("gp.grid_posterior", "y", lambda: gp.condition(_on_grid(), _grid(), _x(4)), "\\(3, 5\\)"),
    Case(
        "gp.grid_posterior",
        "y",
        lambda: gp.condition(_on_grid(), _grid(), np.full((3, 5), NAN)),
        "mask",
    ),
    Case("gp.GridPosterior.mean", "x", lambda: _grid_posterior().mean(_x(4, 3)), "2 coordinates"),
    Case(
        "gp.GridPosterior.mean",
        "x",
        lambda: _grid_posterior().mean(gp.Grid(np.arange(3.0))),
        "coordinates|axes",
    ),
    # Draws as functions, and features
    Case("gp.pathwise", "num_samples", lambda: _posterior().pathwise(_key(), 0), "positive"),
    Case("gp.pathwise", "num_samples", lambda: _posterior().pathwise(_key(), 2.5), "integer"),
    Case(
        "gp.pathwise",
        "num_features",
        lambda: _posterior().pathwise(_key(), 2, num_features=1),
        "at least 2",
    ),
    Case("gp.pathwise", "key", lambda: _posterior().pathwise(0, 2), "PRNG key"),
    Case("gp.pathwise", "posterior", lambda: gp.pathwise(_key(), _wrong(_prior()), 2), "posterior"),
    Case(
        "gp.fourier_features",
        "num_features",
        lambda: gp.fourier_features(_key(), kernels.RBF(), 1, 1),
        "at least 2",
    ),
    Case(
        "gp.fourier_features",
        "dim",
        lambda: gp.fourier_features(_key(), kernels.RBF(), 8, 0),
        "at least 1",
    ),
    Case(
        "gp.fourier_features",
        "kernel",
        lambda: gp.fourier_features(_key(), kernels.White(), 8, 1),
        "noise_var",
    ),
    Case(
        "gp.FourierFeatures",
        "points",
        lambda: gp.fourier_features(_key(), kernels.RBF(), 8, 2)(_x(4, 3)),
        "2 coordinates",
    ),
    # Inducing points
    Case("gp.greedy_points", "num", lambda: gp.greedy_points(kernels.RBF(), _x(), 8), "1, ..., 7"),
    Case(
        "gp.greedy_points",
        "num",
        lambda: gp.greedy_points(kernels.RBF(), _x(), _wrong(2.5)),
        "integer",
    ),
    Case("gp.kmeans_points", "num", lambda: gp.kmeans_points(_key(), _x(), 0), "1, ..., 7"),
    Case("gp.kmeans_points", "x", lambda: gp.kmeans_points(_key(), _nan(), 2), "NaN"),
    Case("gp.kmeans_points", "key", lambda: gp.kmeans_points(_wrong(1), _x(), 2), "PRNG key"),
    Case(
        "gp.inducing_features",
        "inducing_points",
        lambda: gp.inducing_features(kernels.RBF(), _nan()),
        "NaN",
    ),
    Case(
        "gp.inducing_features",
        "jitter",
        lambda: gp.inducing_features(kernels.RBF(), _x(), -1.0),
        "0 or more",
    ),
    Case(
        "gp.sgpr",
        "inducing_points",
        lambda: gp.sgpr(_prior(), _x(), inducing_points=_x(9)),
        "more than 7 data",
    ),
    Case(
        "gp.sgpr",
        "inducing_points",
        lambda: gp.sgpr(_prior(), _x(), inducing_points=_x(M, 2)),
        "dimension",
    ),
    Case(
        "gp.sgpr",
        "blocks",
        lambda: gp.sgpr(_prior(), _x(), inducing_points=_x(M), blocks=9),
        "1, ..., 7",
    ),
    Case(
        "gp.sgpr",
        "blocks",
        lambda: gp.sgpr(_prior(), _x(), inducing_points=_x(M), blocks=_wrong(2.5)),
        "integer",
    ),
    Case(
        "gp.sgpr",
        "blocks",
        lambda: gp.sgpr(_prior(), _x(), inducing_points=_x(M), blocks=2, tight=False),
        "tight",
    ),
    Case(
        "gp.sgpr",
        "noise_var",
        lambda: gp.sgpr(_prior(0.0), _x(), inducing_points=_x(M)),
        "positive",
    ),
    Case("gp.fitc", "x", lambda: gp.fitc(_prior(), _nan(), inducing_points=_x(M)), "NaN"),
    Case(
        "gp.fitc",
        "noise_var",
        lambda: gp.fitc(_prior(np.ones(3)), _x(), inducing_points=_x(M)),
        "\\(7,\\)",
    ),
    Case(
        "gp.power_ep",
        "alpha",
        lambda: gp.power_ep(_prior(), _x(), inducing_points=_x(M), alpha=1.5),
        "0 to 1",
    ),
    Case(
        "gp.power_ep",
        "alpha",
        lambda: gp.power_ep(_prior(), _x(), inducing_points=_x(M), alpha=_x(2)),
        "scalar",
    ),
    Case(
        "gp.sparse_posterior",
        "y",
        lambda: gp.sparse_posterior(_prior(), _x(), _x(4), inducing_points=_x(M)),
        "\\(7,\\)",
    ),
    Case(
        "gp.sparse_posterior",
        "alpha",
        lambda: gp.sparse_posterior(_prior(), _x(), _x(), inducing_points=_x(M), alpha=-1.0),
        "0 to 1",
    ),
    # Stochastic variational processes
    Case("gp.SVGP", "num_latents", lambda: _svgp(num_latents=0), "at least 1"),
    Case("gp.SVGP", "num_latents", lambda: _svgp(num_latents=1.5), "integer"),
    Case(
        "gp.SVGP",
        "tight",
        lambda: gp.SVGP(_prior(0.0), dist.Poisson, inducing_points=_x(M), tight=True),
        "normal",
    ),
    Case(
        "gp.SVGP",
        "noise_var",
        lambda: gp.SVGP(_prior(), dist.Poisson, inducing_points=_x(M)),
        "not be used",
    ),
    Case(
        "gp.SVGP", "noise_var", lambda: gp.SVGP(_prior(np.ones(N)), inducing_points=_x(M)), "scalar"
    ),
    Case(
        "gp.SVGP",
        "inducing_points",
        lambda: gp.SVGP(_prior(), inducing_points=np.array([0.0, NAN])),
        "NaN",
    ),
    Case(
        "gp.SVGP",
        "likelihood",
        lambda: gp.SVGP(_prior(0.0), _wrong("poisson"), inducing_points=_x(M)),
        "function",
    ),
    Case(
        "gp.SVGP",
        "q",
        lambda: _svgp(q=gp.WhitenedNormal(jnp.zeros(2), jnp.eye(2))),
        "shape \\(3,\\)",
    ),
    Case("gp.SVGP.elbo", "y", lambda: _svgp().elbo(_x(), _x(4)), "\\(7,\\)"),
    Case("gp.SVGP.elbo", "y", lambda: _counts().elbo(_x(), -np.ones(N, int)), "support"),
    Case("gp.SVGP.elbo", "x", lambda: _svgp().elbo(_x(N, 2), _x()), "coordinates"),
    Case("gp.SVGP.elbo", "num_data", lambda: _svgp().elbo(_x(), _x(), 5), "less than"),
    Case("gp.SVGP.elbo", "num_data", lambda: _svgp().elbo(_x(), _x(), _wrong(NAN)), "less than"),
    Case("gp.SVGP.posterior", "latent", lambda: _two().posterior(), "one of 2"),
    Case("gp.SVGP.posterior", "latent", lambda: _svgp().posterior(1), "one latent"),
    Case(
        "gp.SparsePosterior.predict", "likelihood", lambda: _two().posterior(0).predict(_x()), "2"
    ),
    Case(
        "gp.DecoupledSVGP",
        "inducing_points",
        lambda: gp.DecoupledSVGP(_prior(), inducing_points=_x(M), orthogonal_points=_x(M, 2)),
        "coordinates",
    ),
    Case(
        "gp.svgp_natgrad",
        "gamma",
        lambda: gp.svgp_natgrad(_svgp(), None, 1.5, num_data=N),
        "\\(0, 1\\]",
    ),
    Case(
        "gp.svgp_natgrad",
        "optimizer",
        lambda: gp.svgp_natgrad(_svgp(), _wrong("adam"), num_data=N),
        "[Oo]ptax",
    ),
    Case(
        "gp.svgp_adam",
        "optimizer",
        lambda: gp.svgp_adam(_svgp(), _wrong(0.1), num_data=N),
        "[Oo]ptax",
    ),
    Case(
        "gp.svgp_adam",
        "trainable",
        lambda: gp.svgp_adam(_svgp(), optax.adam(0.1), num_data=N, trainable=lambda s: []),
        "[Nn]othing|no ",
    ),
    # Grids, variationally
    Case("gp.KronVariational", "Grid", lambda: _kron_on(_x()), "needed"),
    Case("gp.KronVariational", "noise_var", lambda: _kron_on(_grid(), _on_grid()), "not be used"),
    Case("gp.KronVariational.elbo", "cells", lambda: _kron().elbo([15], [1]), "0, ..., 14"),
    Case("gp.KronVariational.elbo", "cells", lambda: _kron().elbo([1.0], [1]), "integers"),
    Case("gp.KronVariational.elbo", "y", lambda: _kron().elbo([1, 2], [1]), "shape"),
    Case("gp.KronVariational.elbo", "num_data", lambda: _kron().elbo([1, 2], [1, 1], 1), "less"),
    Case("gp.kron_vi", "optimizer", lambda: gp.kron_vi(_kron(), _wrong("adam")), "[Oo]ptax"),
    Case("gp.observed_cells", "y", lambda: gp.observed_cells(_grid(), _x(4)), "\\(3, 5\\)"),
    Case(
        "gp.observed_cells",
        "mask",
        lambda: gp.observed_cells(_grid(), _x(3, 5), np.ones((3, 5))),
        "booleans",
    ),
    # Several outputs
    Case("gp.icm", "factor", lambda: gp.icm(kernels.RBF(), np.ones(2), np.ones(2)), "\\(p, r\\)"),
    Case("gp.icm", "diagonal", lambda: gp.icm(kernels.RBF(), np.ones((2, 1)), -np.ones(2)), "neg"),
    Case("gp.icm", "kernel", lambda: gp.icm(_wrong("rbf"), np.ones((2, 1)), np.ones(2)), "kernel"),
    Case("gp.lcm", "kernels", lambda: gp.lcm([], [], []), "each term"),
    Case(
        "gp.lcm",
        "factors",
        lambda: gp.lcm([kernels.RBF()] * 2, [np.ones((2, 1)), np.ones((3, 1))], [np.ones(2)] * 2),
        "different numbers",
    ),
    Case("gp.at_output", "output", lambda: gp.at_output(_x(), -1), "0"),
    Case("gp.at_output", "output", lambda: gp.at_output(_x(), _wrong(0.5)), "integer|number"),
    Case("gp.stack_outputs", "ys", lambda: gp.stack_outputs([_x()], [_x(), _x()]), "as many"),
    Case("gp.stack_outputs", "output", lambda: gp.stack_outputs([_x()], [_x(4)]), "7 points"),
    Case(
        "gp.output_noise",
        "variances",
        lambda: gp.output_noise(0.1, gp.at_output(_x(), 0)),
        "\\(p,\\)",
    ),
    Case(
        "gp.output_noise",
        "variances",
        lambda: gp.output_noise(-np.ones(2), gp.at_output(_x(), 0)),
        "negative",
    ),
    Case("gp.output_noise", "output", lambda: gp.output_noise(np.ones(2), _x(N, 2)), "0 to 1"),
    # Noise that varies
    Case(
        "gp.heteroscedastic_bound",
        "log_lambda",
        lambda: gp.heteroscedastic_bound(_prior(), _prior(0.0), _x(3), _x(), _x()),
        "\\(7,\\)",
    ),
    Case(
        "gp.heteroscedastic_bound",
        "prior_g",
        lambda: gp.heteroscedastic_bound(_prior(), _prior(), _x(), _x(), _x()),
        "no noise",
    ),
    Case(
        "gp.heteroscedastic_bound",
        "log_lambda",
        lambda: gp.heteroscedastic_bound(_prior(), _prior(0.0), _nan(), _x(), _x()),
        "NaN",
    ),
    Case(
        "gp.heteroscedastic_posterior",
        "prior_f",
        lambda: gp.heteroscedastic_posterior(_prior(np.ones(N)), _prior(0.0), _x(), _x(), _x()),
        "scalar",
    ),
)


def _sum() -> kernels.AbstractKernel:
    return kernels.RBF().on(0) + kernels.RBF().on(1)


def _kron_on(grid: Any, prior: Any = None) -> gp.KronVariational:
    prior = gp.GP(kernels.RBF(jnp.ones(2))) if prior is None else prior
    return gp.KronVariational(prior, lambda f: dist.Poisson(jnp.exp(f)), grid)
