"""`import bayesjx` loads nothing else, and its lazy names are all there."""

import subprocess
import sys
from importlib.metadata import version

import pytest

import bayesjx

HEAVY = "arviz arviz_base arviz_stats blackjax diffrax jax matplotlib numpyro optimistix xarray"


def test_import_loads_no_dependency_and_leaves_jax_alone():
    code = f"""
import sys, bayesjx
dir(bayesjx)
print([name for name in {HEAVY.split()} if name in sys.modules])
import jax
from jax import config
before = dict(config.values)
bayesjx.fit, bayesjx.vi
print(before == dict(config.values))
print([name for name in {HEAVY.split()} if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    at_import, config_is_unchanged, at_use = result.stdout.splitlines()
    assert at_import == "[]"
    assert config_is_unchanged == "True"
    assert at_use == "['jax', 'numpyro']"


def test_every_lazy_name_resolves_and_is_listed():
    names = {*bayesjx._SUBPACKAGES, *bayesjx._CORE_NAMES}
    assert names == set(bayesjx.__all__)
    assert names <= set(dir(bayesjx))
    for name in names:
        assert getattr(bayesjx, name) is getattr(bayesjx, name)


def test_version_is_that_of_the_distribution():
    assert bayesjx.__version__ == version("bayesjx")


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = bayesjx.nothing
