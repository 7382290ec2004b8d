"""Training on many devices."""

from pathlib import Path

import devices


def test_data_sets_spread_over_eight_devices_give_the_same_steps():
    script = Path(__file__).with_name("eight_devices_training.py")
    assert devices.printed(script, 8) == ["8", "the", "same"]
