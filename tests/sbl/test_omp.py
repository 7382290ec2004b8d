"""Orthogonal matching pursuit against a loop in NumPy and scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesjx import RESULTS, sbl

RNG = np.random.default_rng(5)


def plain(design, y, count):
    """Columns in their order, and the least-squares fit to them."""
    unit, chosen, residual = design / np.linalg.norm(design, axis=0), [], y
    for _ in range(count):
        gain = np.linalg.norm(unit.conj().T @ residual, axis=1)
        gain[chosen] = -1
        chosen.append(int(np.argmax(gain)))
        fit = np.linalg.lstsq(design[:, chosen], y, rcond=None)[0]
        residual = y - design[:, chosen] @ fit
    weights = np.zeros((design.shape[1], y.shape[1]), y.dtype)
    weights[chosen] = fit
    return chosen, weights, np.linalg.norm(residual)


@pytest.mark.parametrize("kind", ["float32", "complex128"])
def test_it_is_the_loop_in_numpy(kind):
    def numbers(*shape):
        x = RNG.normal(size=shape)
        return (x + 1j * RNG.normal(size=shape) if kind.startswith("c") else x).astype(kind)

    design, y = numbers(17, 29) * np.float32(10.0) ** RNG.integers(-3, 4, 29), numbers(17, 3)
    design = design.astype(kind)

    @jax.jit
    def run(design, y):
        pursue = lambda y: sbl.orthogonal_matching_pursuit(design, y, num_nonzero=5)  # noqa: E731
        return pursue(y), jax.vmap(lambda y: pursue(y).mean)(jnp.stack([y, -y]))

    found, mapped = run(design, y)
    order, weights, norm = plain(design, y, 5)
    tol = 1e5 * np.finfo(kind).eps
    assert found.order.tolist() == order and found.num_steps == 5 and found.converged
    assert np.flatnonzero(found.active).tolist() == sorted(order)
    np.testing.assert_allclose(found.mean, weights, rtol=tol, atol=tol * np.abs(weights).min())
    np.testing.assert_allclose(found.residual_norms[-1], norm, rtol=tol)
    scale = np.abs(weights).max()
    np.testing.assert_allclose(mapped, [found.mean, -found.mean], atol=tol * scale)
    assert found.mean.dtype == kind


def test_it_stops_at_the_noise_and_tells_what_ended_it():
    design, weights = RNG.normal(size=(31, 41)), np.zeros(41)
    weights[[3, 17, 29]] = [2.0, -3.0, 1.5]
    y = design @ weights + 0.1 * RNG.normal(size=31)
    found = sbl.orthogonal_matching_pursuit(design, y, noise_var=0.02)
    assert found.converged and np.flatnonzero(found.active).tolist() == [3, 17, 29]
    assert np.all(found.order[3:] == -1) and np.all(np.isnan(found.residual_norms[3:]))
    short = sbl.orthogonal_matching_pursuit(design, y, num_nonzero=1, noise_var=0.02)
    assert short.result == RESULTS.max_steps_reached
    twice = np.repeat(RNG.normal(size=(7, 1)), 3, axis=1)  # three times the same column
    stuck = sbl.orthogonal_matching_pursuit(twice, RNG.normal(size=7), num_nonzero=2)
    assert stuck.result == RESULTS.stagnation and stuck.num_steps == 1
    zero = sbl.orthogonal_matching_pursuit(design, 0 * y, noise_var=0.1)
    assert zero.num_steps == 0 and np.all(zero.mean == 0)


@pytest.mark.errors
@pytest.mark.parametrize(
    "changed,message",
    [
        ({}, "give num_nonzero, noise_var, or both"),
        ({"num_nonzero": 4}, "num_nonzero must be in 1, ..., 3, got 4"),
        ({"noise_var": -1.0}, "noise_var must be finite and positive"),
        ({"num_nonzero": 1, "y": np.ones(4)}, "design must be"),
    ],
)
def test_bad_input_is_named(changed, message):
    arguments = {"design": np.eye(3, 5), "y": np.arange(3.0)} | changed
    with pytest.raises(ValueError, match=message):
        sbl.orthogonal_matching_pursuit(arguments.pop("design"), arguments.pop("y"), **arguments)
