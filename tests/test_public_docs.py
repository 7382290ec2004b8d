"""Every public name says what it is: it is what the API reference prints."""

import importlib
import inspect

import pytest

import bayesjx

PACKAGES = ["bayesjx", *(f"bayesjx.{name}" for name in bayesjx._SUBPACKAGES)]


def public_objects(package: str):
    module = importlib.import_module(package)
    for name in getattr(module, "__all__", dir(module)):
        value = getattr(module, name)
        ours = (getattr(value, "__module__", None) or "").startswith("bayesjx")
        if not name.startswith("_") and ours and (inspect.isclass(value) or callable(value)):
            yield f"{package}.{name}", value


def undocumented(name: str, value) -> list[str]:
    missing = [] if _own_doc(value) else [name]
    if inspect.isclass(value):
        for attribute, member in vars(value).items():
            method = inspect.unwrap(getattr(member, "__func__", getattr(member, "fget", member)))
            written_here = getattr(method, "__module__", "") == value.__module__
            if inspect.isfunction(method) and written_here and not attribute.startswith("_"):
                missing += (
                    [] if inspect.getdoc(getattr(value, attribute)) else [f"{name}.{attribute}"]
                )
    return missing


def _own_doc(value) -> str:
    doc = value.__dict__.get("__doc__") if inspect.isclass(value) else inspect.getdoc(value)
    generated = inspect.isclass(value) and (doc or "").startswith(f"{value.__name__}(")
    return "" if generated else (doc or "").strip()


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_has_a_docstring(package):
    assert (importlib.import_module(package).__doc__ or "").strip(), package
    missing = [
        found for name, value in public_objects(package) for found in undocumented(name, value)
    ]
    assert not missing, "\n".join(missing)


def test_a_missing_docstring_is_found():
    from typing import NamedTuple

    class Pair(NamedTuple):
        left: int

    class Documented:
        """Says what it is."""

        def method(self):
            return None

        @property
        def size(self):
            return 0

    assert undocumented("Pair", Pair) == ["Pair"]
    assert undocumented("Documented", Documented) == ["Documented.method", "Documented.size"]
