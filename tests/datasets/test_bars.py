"""Images of bars: superpositions, frequencies, errors."""

import jax
import numpy as np
import pytest

from bayesjx import datasets

KEY = jax.random.key(0)


@pytest.mark.parametrize("superposition", ["linear", "max", "max_magnitude"])
def test_images_are_made_of_their_bars(superposition):
    options = {"size": 3, "signed": superposition == "max_magnitude", "noise_var": 0.0}
    found = datasets.bars(KEY, 50, superposition=superposition, values=(1.0, 0.5), **options)
    assert found.y.shape == (50, 9) and found.codes.shape == (50, 6)
    each = np.asarray(found.codes)[:, :, None] * np.asarray(found.weights)
    strongest = np.argmax(np.abs(each), axis=1)[:, None]
    want = {
        "linear": each.sum(axis=1),
        "max": each.max(axis=1),
        "max_magnitude": np.take_along_axis(each, strongest, axis=1)[:, 0],
    }[superposition]
    # Two bars of the same magnitude and different signs: the positive one counts.
    np.testing.assert_allclose(np.abs(found.y), np.abs(want), rtol=1e-6)
    same = datasets.bars(KEY, 50, superposition=superposition, values=(1.0, 0.5), **options)
    np.testing.assert_array_equal(found.y, same.y)


def test_bars_are_lines():
    weights = np.asarray(datasets.bars(KEY, 1, size=3, height=2.0).weights).reshape(6, 3, 3)
    assert np.all(weights[:3].sum(axis=2) == 6 * np.eye(3))
    assert np.all(weights[3:].sum(axis=1) == 6 * np.eye(3))
    signs = datasets.bars(KEY, 1, size=3, signed=True).weights.sum(axis=1)
    np.testing.assert_array_equal(np.sign(signs), [1, -1, 1, -1, 1, -1])


def test_frequencies_and_noise_are_as_asked_for():
    n = 2000
    found = datasets.bars(KEY, n, prior_prob=0.3, slab=(1.0, 0.25), noise_var=2.0)
    there = np.asarray(found.codes != 0)
    assert abs(there.mean() - 0.3) < 5 * np.sqrt(0.21 / there.size)
    strength = np.asarray(found.codes)[there]
    assert abs(strength.mean() - 1) < 5 * 0.5 / np.sqrt(strength.size)
    noise = np.asarray(found.y - found.codes @ found.weights)
    assert abs(noise.var() / 2 - 1) < 5 * np.sqrt(2 / noise.size)


BAD = {
    "num_data": ((0,), {}, "num_data must be at least 1"),
    "size": ((5,), {"size": 0}, "size must be at least 1"),
    "probability": ((5,), {"prior_prob": 1.0}, "prior_prob must be between 0 and 1"),
    "noise": ((5,), {"noise_var": -1.0}, "noise_var must not be negative"),
    "weights of values": ((5,), {"value_probs": (0.5,)}, "the sum of value_probs must be 1"),
    "values": ((5,), {"values": ()}, "values must be numbers"),
}


@pytest.mark.errors
@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    args, options, text = BAD[name]
    with pytest.raises(ValueError, match=text):
        datasets.bars(KEY, *args, **options)
