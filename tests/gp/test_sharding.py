"""Minibatches spread over devices."""

from pathlib import Path

import devices


def test_a_minibatch_spread_over_eight_devices_gives_the_same_steps():
    script = Path(__file__).with_name("eight_devices.py")
    assert devices.printed(script, 8) == ["8", "adam", "natgrad", "decoupled"]
