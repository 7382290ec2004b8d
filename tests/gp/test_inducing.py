"""Choice of inducing points against pivoted factorisation in NumPy, and against brute force."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesjx import gp, kernels

N, D = 41, 2
X = np.random.default_rng(1).standard_normal((N, D))
KERNEL = kernels.RBF(jnp.array([0.7, 1.3]), 1.4)


def pivots(matrix, num):
    """Places and variances left, from the Schur complement after each choice."""
    left, chosen = np.array(matrix), []
    for _ in range(num):
        at = int(np.argmax(np.diag(left)))
        chosen.append(at)
        left = left - np.outer(left[:, at], left[at]) / left[at, at]
    return chosen, np.diag(left)


def test_greedy_points_are_the_pivots(dtype, tol):
    # A variance that differs between inputs: no ties, whatever the rounding.
    kernel = KERNEL * kernels.Linear(jnp.array([0.3, 0.2])) + 0.1 * kernels.RBF(0.5)
    kernel = jax.tree.map(lambda a: a.astype(dtype), kernel)
    x = jnp.asarray(X, dtype)
    found = gp.greedy_points(kernel, x, 9)
    index, remaining = pivots(np.asarray(kernel.gram(jnp.asarray(x, float)), float), 9)
    np.testing.assert_array_equal(found.index, index)
    np.testing.assert_array_equal(found.points, x[found.index])
    assert found.remaining.dtype == dtype
    np.testing.assert_allclose(found.remaining, remaining, rtol=tol["rtol"], atol=1e-5)


def test_greedy_variances_are_those_that_features_leave():
    found = gp.greedy_points(KERNEL, X, 12)
    features = gp.inducing_features(KERNEL, found.points, jitter=0.0)
    x = jnp.asarray(X)
    np.testing.assert_allclose(found.remaining, features.residual(x, features(x)), atol=1e-9)
    random = gp.inducing_features(KERNEL, x[:12], jitter=0.0)
    assert found.remaining.sum() < 0.6 * random.residual(x, random(x)).sum()


def test_greedy_points_of_repeated_inputs_are_distinct_and_finite():
    x = jnp.concatenate([jnp.asarray(X[:5])] * 3)
    found = gp.greedy_points(KERNEL, x, 8)
    assert len(set(np.asarray(found.index).tolist())) == 8
    assert len(np.unique(found.points[:5], axis=0)) == 5
    np.testing.assert_allclose(found.remaining, 0, atol=1e-12)
    everything = gp.greedy_points(KERNEL, x, 15)
    assert sorted(np.asarray(everything.index).tolist()) == list(range(15))


def test_greedy_points_serve_the_bound():
    y = jnp.sin(X[:, 0])
    prior = gp.GP(KERNEL, noise_var=0.1)
    found = gp.greedy_points(KERNEL, X, 20)
    exact = prior(X).log_prob(y)
    gap = exact - gp.sgpr(prior, X, inducing_points=found.points, tight=False).log_prob(y)
    # Titsias's gap is at most the trace of what is left, times (1 + |y|² / noise) / (2 noise).
    assert 0 < gap <= found.remaining.sum() / 0.2 * (1 + y @ y / 0.1)
    assert gap < 0.5


def test_centres_are_those_of_clear_clusters(dtype):
    rng = np.random.default_rng(2)
    truth = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0], [5.0, 5.0]])
    x = jnp.asarray((truth[:, None] + 0.1 * rng.standard_normal((5, 30, 2))).reshape(-1, 2), dtype)
    for seed in range(3):
        centres = gp.kmeans_points(jax.random.key(seed), x, 5)
        assert centres.dtype == dtype
        order = np.lexsort(np.round(centres).T)
        want = np.asarray(x).reshape(5, 30, 2).mean(1)
        want = want[np.lexsort(np.round(want).T)]
        np.testing.assert_allclose(np.asarray(centres)[order], want, rtol=1e-4, atol=1e-4)


def test_centres_are_means_of_their_members():
    centres = np.asarray(gp.kmeans_points(jax.random.key(0), X, 4))
    distance = np.sum((X[:, None] - centres) ** 2, axis=-1)
    member = np.argmin(distance, axis=1)
    means = np.stack([X[member == i].mean(0) for i in range(4)])
    np.testing.assert_allclose(centres, means, rtol=1e-10)  # a fixed point, after twenty steps
    spread = np.sum((X[:, None] - X[:4]) ** 2, axis=-1).min(1).sum()
    assert distance.min(1).sum() < spread


def test_many_or_equal_inputs_are_no_trouble():
    x = jnp.linspace(0.0, 1.0, 10_007)
    centres = gp.kmeans_points(jax.random.key(0), x, 3)
    assert centres.shape == (3, 1)
    assert 0 < centres.min() < 0.35 and 0.65 < centres.max() < 1
    same = gp.kmeans_points(jax.random.key(0), jnp.ones((6, 2)), 3)
    np.testing.assert_array_equal(same, 1.0)
    one = gp.kmeans_points(jax.random.key(0), X, 1)
    np.testing.assert_allclose(one[0], X.mean(0), atol=1e-12)


@pytest.mark.errors
def test_bad_input_is_named():
    for num in (0, N + 1):
        with pytest.raises(
            ValueError, match=f"greedy_points: num must be in 1, ..., 41.*got {num}"
        ):
            gp.greedy_points(KERNEL, X, num)
        with pytest.raises(
            ValueError, match=f"kmeans_points: num must be in 1, ..., 41.*got {num}"
        ):
            gp.kmeans_points(jax.random.key(0), X, num)
    bad = np.where(X == X[3, 1], np.nan, X)
    with pytest.raises(ValueError, match="x holds NaN"):
        gp.greedy_points(KERNEL, bad, 3)
    with pytest.raises(ValueError, match="x holds NaN"):
        gp.kmeans_points(jax.random.key(0), bad, 3)
    with pytest.raises(ValueError, match=r"x must have shape \(n, d\) or \(n,\)"):
        gp.kmeans_points(jax.random.key(0), X[None], 3)
