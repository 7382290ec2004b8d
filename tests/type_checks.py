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
    made: list[Callable[..., Any]] = []

    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        if jaxtyping.config.jaxtyping_disable:
            return fn(*args, **kwargs)
        if not made:
            made.append(_whole(fn, typechecker=typechecker))
        return made[0](*args, **kwargs)

    # By their file the library knows what wraps functions under test, and looks at these.
    call.__code__ = call.__code__.replace(co_filename=jaxtyping.__file__)
    return call
