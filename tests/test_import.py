"""`import bayesjx` loads nothing else, and its lazy names are all there."""

import ast
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

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
    assert set(ast.literal_eval(at_use)) <= {"jax", "numpyro"}


def test_every_public_name_resolves_and_is_listed():
    assert set(bayesjx.__all__) <= set(dir(bayesjx))
    for name in bayesjx.__all__:
        assert getattr(bayesjx, name) is getattr(bayesjx, name)


def test_every_public_package_is_reachable():
    root = Path(bayesjx.__file__).parent
    packages = {path.parent.name for path in root.glob("[a-z]*/__init__.py")}
    assert packages == set(bayesjx._SUBPACKAGES)


def test_type_checkers_see_the_names_that_users_get():
    tree = ast.parse(Path(bayesjx.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    assert {alias.name for node in imports for alias in node.names} == set(bayesjx.__all__)


def test_version_is_that_of_the_distribution():
    assert bayesjx.__version__ == version("bayesjx")


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = bayesjx.nothing
