"""Training on many devices."""

import os
import subprocess
import sys
from pathlib import Path


def test_data_sets_spread_over_eight_devices_give_the_same_steps():
    script = Path(__file__).with_name("eight_devices_training.py")
    devices = "--xla_force_host_platform_device_count=8"
    flags = {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {devices}", "JAX_PLATFORMS": "cpu"}
    flags["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # as in `conftest.py`
    environment = {**os.environ, **flags, "PYTHONPATH": str(script.parents[2])}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["8", "the", "same"]
