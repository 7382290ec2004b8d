"""What happens where a check fails while a program runs, of a matrix or of other values."""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Literal

import jax

_MARK = "_EquinoxRuntimeError: "  # before the sentence of `equinox.error_if`
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


@contextmanager
def plain_errors() -> Generator[None]:
    """A check of `equinox.error_if` that fails in a compiled program raises its sentence alone.

    As `equinox.filter_jit` does, for programs that are compiled ahead of time.
    """
    logger = logging.getLogger("jax._src.callback")

    def others(record: logging.LogRecord) -> bool:
        return record.getMessage() != "jax.pure_callback failed"

    logger.addFilter(others)
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        _, mark, text = str(error).partition(_MARK)
        if not mark:
            raise
        raise RuntimeError(text.partition("\n\n\n---")[0]) from None
    finally:
        logger.removeFilter(others)
