"""What happens where a matrix turns out not to be positive definite while a program runs."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Literal

_LOCAL = threading.local()


@contextmanager
def failures_are_nan() -> Generator[None]:
    """Failed factorisations in what is traced meanwhile give NaN in place of an error.

    For densities: a sampler takes NaN for a place to avoid, while an error would end a long run.
    """
    before = getattr(_LOCAL, "nan", False)
    _LOCAL.nan = True
    try:
        yield
    finally:
        _LOCAL.nan = before


def on_failure() -> Literal["default", "nan"]:
    """The `on_error` of `equinox.error_if` for failed factorisations."""
    return "nan" if getattr(_LOCAL, "nan", False) else "default"
