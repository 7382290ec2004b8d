"""One mistake of a user: the call, and the text that its error must have."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import bayesjx

COUNT = r"must be (an integer|at least 1), got"  # what a wrong count is answered with
LIBRARY = str(Path(bayesjx.__file__).resolve().parent)


class Case(NamedTuple):
    """A call with one bad argument.

    Attributes:
        function: public name, as `gp.condition` or `kernels.RBF`.
        argument: the argument that is bad; its name must stand in the error.
        call: makes the call; whatever it needs besides is made inside of it.
        expected: regular expression that the error's text must match: what was expected.
    """

    function: str
    argument: str
    call: Callable[[], object]
    expected: str


def fault(case: Case) -> str | None:
    """What is wrong with the answer to the mistake; None if its error is clear.

    An error is clear if its text names the argument and says what was expected, and if it was
    raised by this library: by a `raise`, by `equinox.error_if` (under `jit`), or by the constraint
    of a distribution's parameter. Anything else is the traceback of a dependency.
    """
    try:
        value = case.call()
    except Exception as error:
        return _fault_of_error(case, error)
    return f"no error; it returned {str(value)[:80]!r}"


def _fault_of_error(case: Case, error: Exception) -> str | None:
    text, kind = str(error), type(error).__name__
    if not re.search(rf"\b{re.escape(case.argument)}\b", text):
        return f"{kind} does not name {case.argument!r}: {text[:160]}"
    if not re.search(case.expected, text):
        return f"{kind} does not say {case.expected!r}: {text[:160]}"
    last = traceback.extract_tb(error.__traceback__)[-1].filename
    ours = str(Path(last).resolve()).startswith(LIBRARY)
    if ours or "EquinoxRuntimeError" in kind or _is_constraint(text):
        return None
    return f"{kind} comes from {Path(last).name}, not from the library: {text[:160]}"


def _is_constraint(text: str) -> bool:
    """Whether NumPyro raised it for a distribution's parameter against its constraint."""
    return "distribution got invalid" in text
