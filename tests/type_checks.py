"""Run-time checks of types and shapes, made when a function is first called.

Making them is slow: for all functions at import it costs twelve seconds a process, and a test calls
few of them. jaxtyping's import hook decorates functions as `jaxtyping.jaxtyped` says.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jaxtyping

_whole = jaxtyping.jaxtyped
# Not in closures, where functions that do the same would differ by what was called.
_MADE: dict[Callable[..., Any], Callable[..., Any]] = {}


def install(package: str) -> None:
    """Check the calls of all annotated functions and dataclasses of a package imported later."""
    jaxtyping.jaxtyped = jaxtyped  # ty: ignore[invalid-assignment]
    jaxtyping.install_import_hook(package, "beartype.beartype")


def switch(on: bool) -> None:
    """Whether calls are checked from now on."""
    jaxtyping.config.update("jaxtyping_disable", not on)


def jaxtyped(fn: Any = None, *, typechecker: Any) -> Any:
    """As `jaxtyping.jaxtyped`."""
    if fn is None:
        return functools.partial(jaxtyped, typechecker=typechecker)
    if not inspect.isfunction(fn):
        return _whole(fn, typechecker=typechecker)
    return _checked(fn, typechecker) if fn.__annotations__ else fn


def _checked(fn: Callable[..., Any], typechecker: Any) -> Callable[..., Any]:
    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        if jaxtyping.config.jaxtyping_disable:
            return fn(*args, **kwargs)
        if fn not in _MADE:
            _MADE[fn] = _whole(fn, typechecker=typechecker)
        return _MADE[fn](*args, **kwargs)

    return call
