"""Bad input of covariance functions and their algebra."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import bayesjx
from benchmarks.bad_input._case import Case, COUNT

gp: Any = bayesjx.gp  # without types, since a type checker finds most of these mistakes
kernels: Any = bayesjx.kernels

X, Y = np.linspace(0.0, 1.0, 4), np.linspace(0.0, 2.0, 3)
PLANE = np.ones((4, 2))
RBF = kernels.RBF(0.5)
INDICES = kernels.Coregion(np.ones((3, 1)), np.ones(3))


def _mixture(weights=(1.0, 0.5), rates=(1.0, 2.0), frequencies=(0.0, 1.0)):
    return kernels.SpectralMixture(np.array(weights), np.array(rates), np.array(frequencies))


def _student(weights=(1.0, 0.5), rates=(1.0, 2.0), frequencies=(0.0, 1.0)):
    return kernels.StudentMixture(np.array(weights), np.array(rates), np.array(frequencies))


_PARAMETERS = (
    Case("kernels.RBF", "lengthscale", lambda: kernels.RBF(-1.0), "must be positive, got -1"),
    Case("kernels.RBF", "lengthscale", lambda: kernels.RBF(0), "must be positive, got 0"),
    Case("kernels.RBF", "lengthscale", lambda: kernels.RBF(jnp.nan), "must be positive, got nan"),
    Case("kernels.RBF", "lengthscale", lambda: kernels.RBF("long"), "real number .*got 'long'"),
    Case("kernels.RBF", "lengthscale", lambda: kernels.RBF(None), "real number .*got None"),
    Case("kernels.RBF", "lengthscale", lambda: kernels.RBF(1j), "real number .*got 1j"),
    Case("kernels.RBF", "lengthscale", lambda: kernels.RBF([[1.0], [1.0, 2.0]]), "real number"),
    Case("kernels.RBF", "lengthscale", lambda: kernels.RBF(np.ones((2, 2))), r"have shape \(d,\)"),
    Case("kernels.RBF", "lengthscale", lambda: kernels.RBF([]), r"have shape \(d,\), got .*\(0,\)"),
    Case("kernels.RBF", "lengthscale", lambda: kernels.RBF([1.0, 0.0]), "must be positive"),
    Case("kernels.RBF", "variance", lambda: kernels.RBF(1.0, -2.0), "not be negative, got -2"),
    Case("kernels.RBF", "variance", lambda: kernels.RBF(1.0, np.ones(2)), r"a scalar, .*\(2,\)"),
    Case("kernels.RBF", "variance", lambda: kernels.RBF(1.0, {"v": 1}), "real number"),
    Case("kernels.Matern12", "lengthscale", lambda: kernels.Matern12(-1), "be positive, got -1"),
    Case("kernels.Matern32", "variance", lambda: kernels.Matern32(1.0, jnp.nan), "not be negative"),
    Case("kernels.Matern52", "lengthscale", lambda: kernels.Matern52(kernels), "real number"),
    Case("kernels.Matern72", "variance", lambda: kernels.Matern72(1.0, -1), "not be negative"),
    Case("kernels.RationalQuadratic", "alpha", lambda: kernels.RationalQuadratic(1.0, 0.0), "posi"),
    Case(
        "kernels.RationalQuadratic",
        "alpha",
        lambda: kernels.RationalQuadratic(1.0, np.ones(2)),
        r"a scalar, got shape \(2,\)",
    ),
    Case("kernels.Periodic", "period", lambda: kernels.Periodic(1.0, -3.0), "positive, got -3"),
    Case("kernels.Periodic", "period", lambda: kernels.Periodic(1.0, np.ones((1, 2))), r"\(d,\)"),
    Case("kernels.Periodic", "lengthscale", lambda: kernels.Periodic(0.0), "be positive, got 0"),
    Case("kernels.Cosine", "period", lambda: kernels.Cosine(0.0), "must be positive, got 0"),
    Case("kernels.White", "variance", lambda: kernels.White(-0.1), "not be negative, got -0.1"),
    Case("kernels.White", "variance", lambda: kernels.White(np.ones(3)), r"a scalar, .*\(3,\)"),
    Case("kernels.Constant", "variance", lambda: kernels.Constant("a"), "real number .*got 'a'"),
    Case("kernels.Linear", "variance", lambda: kernels.Linear(-1.0), "not be negative, got -1"),
    Case("kernels.Linear", "variance", lambda: kernels.Linear(np.eye(2)), r"have shape \(d,\)"),
    Case("kernels.Linear", "centre", lambda: kernels.Linear(1.0, np.inf), "be finite, got inf"),
    Case("kernels.Linear", "centre", lambda: kernels.Linear(1.0, np.eye(2)), r"have shape \(d,\)"),
    Case("kernels.Polynomial", "degree", lambda: kernels.Polynomial(0), COUNT),
    Case("kernels.Polynomial", "degree", lambda: kernels.Polynomial(2.5), COUNT),
    Case("kernels.Polynomial", "degree", lambda: kernels.Polynomial(True), COUNT),
    Case("kernels.Polynomial", "offset", lambda: kernels.Polynomial(2, 1.0, -1.0), "not be negat"),
    Case("kernels.ArcCosine", "order", lambda: kernels.ArcCosine(3), "0, 1 or 2, got 3"),
    Case("kernels.ArcCosine", "order", lambda: kernels.ArcCosine("relu"), "0, 1 or 2, got 'relu'"),
    Case("kernels.ArcCosine", "lengthscale", lambda: kernels.ArcCosine(1, 0.0), "be positive"),
    Case("kernels.ArcCosine", "bias", lambda: kernels.ArcCosine(1, 1.0, np.nan), "be finite"),
    Case("kernels.ArcCosine", "bias", lambda: kernels.ArcCosine(1, 1.0, np.ones(2)), "a scalar"),
    Case("kernels.SHO", "period", lambda: kernels.SHO(-1.0), "must be positive, got -1"),
    Case("kernels.SHO", "quality", lambda: kernels.SHO(1.0, 0.0), "must be positive, got 0"),
    Case("kernels.SHO", "period", lambda: kernels.SHO(np.ones(2)), r"a scalar, got shape \(2,\)"),
    Case("kernels.Wiener", "variance", lambda: kernels.Wiener(-1.0), "not be negative, got -1"),
    Case("kernels.Wiener", "origin", lambda: kernels.Wiener(1.0, np.zeros(2)), "a scalar, got sha"),
    Case(
        "kernels.IntegratedWiener", "origin", lambda: kernels.IntegratedWiener(1.0, np.nan), "fin"
    ),
    Case(
        "kernels.SpectralMixture", "weights", lambda: _mixture(weights=(-1, 1)), "not be negative"
    ),
    Case("kernels.SpectralMixture", "rates", lambda: _mixture(rates=(1.0,)), r"shape \(Q,\), got"),
    Case("kernels.SpectralMixture", "weights", lambda: _mixture((), (), ()), r"shape \(Q,\), got"),
    Case(
        "kernels.SpectralMixture", "frequencies", lambda: _mixture(frequencies="ab"), "real numbe"
    ),
    Case(
        "kernels.StudentMixture", "frequencies", lambda: _student(frequencies=(0, -1)), "negative"
    ),
    Case("kernels.StudentMixture", "rates", lambda: _student(rates=np.ones((2, 2))), r"shape \(Q,"),
    Case("kernels.Coregion", "factor", lambda: kernels.Coregion(np.ones(3), np.ones(3)), "(p, r)"),
    Case("kernels.Coregion", "factor", lambda: kernels.Coregion([[np.nan]], [1.0]), "be finite"),
    Case("kernels.Coregion", "diagonal", lambda: kernels.Coregion(np.ones((3, 1)), 1.0), r"\(p,\)"),
    Case(
        "kernels.Coregion", "diagonal", lambda: kernels.Coregion(np.ones((1, 1)), [-1]), "negative"
    ),
)

_POINTS = (
    Case("kernels.RBF.gram", "x", lambda: RBF.gram(np.ones((2, 2, 2))), r"shape \(n, d\) or \(n,"),
    Case("kernels.RBF.gram", "x", lambda: RBF.gram(1.0), r"shape \(n, d\) or \(n,\), got \(\)"),
    Case("kernels.RBF.gram", "x", lambda: RBF.gram(["a", "b"]), "real number or an array of them"),
    Case("kernels.RBF.gram", "x", lambda: RBF.gram(None), "real number .*got None"),
    Case("kernels.RBF.gram", "x", lambda: RBF.gram(1j * X), "real number"),
    Case("kernels.RBF.gram", "y", lambda: RBF.gram(X, "ab"), "real number .*got 'ab'"),
    Case("kernels.RBF.gram", "y", lambda: RBF.gram(X, PLANE), "same dimension, got 1 and 2"),
    Case("kernels.RBF.gram", "y", lambda: RBF.gram(X, 0.5), r"shape \(n, d\) or \(n,\), got \(\)"),
    Case("kernels.RBF.diag", "x", lambda: RBF.diag(0.5), r"shape \(n, d\) or \(n,\), got \(\)"),
    Case("kernels.RBF.__call__", "x", lambda: RBF(PLANE, 0.0), r"a number or have shape \(d,\)"),
    Case("kernels.RBF.__call__", "y", lambda: RBF(np.ones(2), np.ones(3)), "same dimension, got 2"),
    Case(
        "kernels.RBF.gram",
        "lengthscale",
        lambda: kernels.RBF(np.ones(3)).gram(PLANE),
        r"shape \(3,\), a value for each coordinate, and points have 2",
    ),
    Case(
        "kernels.Periodic.gram",
        "period",
        lambda: kernels.Periodic(1.0, np.ones(2)).gram(X),
        r"shape \(2,\), a value for each coordinate, and points have 1",
    ),
    Case(
        "kernels.ArcCosine.diag",
        "lengthscale",
        lambda: kernels.ArcCosine(1, np.ones(1)).diag(PLANE),
        r"shape \(1,\), a value for each coordinate, and points have 2",
    ),
    Case(
        "kernels.Linear.gram",
        "centre",
        lambda: kernels.Linear(1.0, np.ones(3)).gram(PLANE),
        r"shape \(3,\), a value for each coordinate, and points have 2",
    ),
    Case("kernels.SHO.gram", "points", lambda: kernels.SHO().gram(PLANE), "must have one coordin"),
    Case(
        "kernels.Wiener.diag", "points", lambda: kernels.Wiener().diag(PLANE), "have one coordina"
    ),
    Case(
        "kernels.SpectralMixture.gram", "points", lambda: _mixture().gram(PLANE), "one coordinate"
    ),
    Case("kernels.StudentMixture.diag", "points", lambda: _student().diag(PLANE), "one coordinate"),
    Case("kernels.Coregion.gram", "points", lambda: INDICES.gram(np.array([0.0, 3.0])), "0 to 2"),
    Case("kernels.Coregion.gram", "points", lambda: INDICES.gram(PLANE), "one coordinate"),
    Case("kernels.Coregion.diag", "points", lambda: INDICES.diag(np.array([0.5])), "0 to 2"),
)

_ALGEBRA = (
    Case("kernels.RBF.on", "dims", lambda: RBF.on("time"), "number of a coordinate.* got 'time'"),
    Case("kernels.RBF.on", "dims", lambda: RBF.on(0.5), "number of a coordinate.* got 0.5"),
    Case("kernels.RBF.on", "dims", lambda: RBF.on([]), r"at least one.* got \[\]"),
    Case("kernels.RBF.on", "dims", lambda: RBF.on([True, False]), "number of a coordinate"),
    Case("kernels.RBF.on", "dims", lambda: RBF.on([[0, 1]]), "number of a coordinate"),
    Case("kernels.RBF.on", "dims", lambda: RBF.on(slice(0, 1.5)), "number of a coordinate"),
    Case("kernels.RBF.on", "dims", lambda: RBF.on(None), "number of a coordinate.* got None"),
    Case("kernels.RBF.on", "dims", lambda: RBF.on(2).gram(PLANE), r"\.on coordinates \(2,\) .*hav"),
    Case("kernels.RBF.on", "dims", lambda: RBF.on(slice(5, 7)).gram(PLANE), "points have 2"),
    Case("kernels.RBF.on", "dims", lambda: RBF.on(slice(0, 3)).diag(PLANE), "points have 2"),
    Case("kernels.RBF.on", "dims", lambda: RBF.on([0, -2]).gram(PLANE), "chosen twice"),
    Case("kernels.RBF.on", "dims", lambda: RBF.on(slice(1, 1)).gram(PLANE), "none is chosen"),
    Case("kernels.RBF.transform", "function", lambda: RBF.transform(2.0), "callable .*got 2.0"),
    Case(
        "kernels.RBF.transform",
        "function",
        lambda: RBF.transform(lambda x: x[0]).gram(X),
        r"must give a point, shape \(e,\), for one of shape \(1,\); it gave \(\)",
    ),
    Case(
        "kernels.RBF.transform",
        "function",
        lambda: RBF.transform(lambda x: {"there": x}).gram(X),
        "must give a point.* it gave no array",
    ),
    Case("kernels.RBF.__add__", "variance", lambda: RBF + "noise", "real number .*got 'noise'"),
    Case("kernels.RBF.__radd__", "variance", lambda: -1.0 + RBF, "not be negative, got -1"),
    Case("kernels.RBF.__mul__", "variance", lambda: RBF * np.ones(2), r"a scalar, .*\(2,\)"),
    Case("kernels.RBF.__rmul__", "variance", lambda: np.ones(2) * RBF, r"a scalar, .*\(2,\)"),
    Case("kernels.RBF.__mul__", "variance", lambda: RBF * -2.0, "not be negative, got -2"),
    Case("kernels.Scaled", "kernel", lambda: kernels.Scaled(2.0, RBF), "must be kernels"),
    Case("kernels.OnDims", "kernel", lambda: kernels.OnDims(kernels.RBF, 0), "must be kernels"),
    Case("kernels.Sum", "terms", lambda: kernels.Sum(()), "must be kernels, at least one"),
    Case("kernels.Sum", "terms", lambda: kernels.Sum((RBF, 1.0)), "must be kernels"),
    Case("kernels.Product", "terms", lambda: kernels.Product((RBF, None)), "must be kernels"),
    Case(
        "kernels.Transformed",
        "kernel",
        lambda: kernels.Transformed(np.sin, RBF),
        "must be kernels",
    ),
    Case(
        "gp.fourier_features",
        "lengthscale",
        lambda: gp.fourier_features(jax.random.key(0), kernels.Matern32(np.ones(3)), 20, 2),
        r"shape \(3,\), a value for each coordinate, and points have 2",
    ),
    Case(
        "gp.GP.covariance",
        "lengthscale",
        lambda: gp.GP(kernels.RBF(np.ones(3))).covariance(gp.Grid(X, Y)),
        r"shape \(3,\), a value for each coordinate, and points have 2",
    ),
    Case(
        "gp.GP.covariance",
        "dims",
        lambda: gp.GP(RBF.on(2)).covariance(gp.Grid(X, Y)),
        "points have 2",
    ),
)


CASES: tuple[Case, ...] = (*_PARAMETERS, *_POINTS, *_ALGEBRA)
