"""The shape that every iterative method of the library has."""

from collections.abc import Callable
from typing import NamedTuple


class Algorithm(NamedTuple):
    """An iterative method as a triple of pure functions.

    One signature serves deterministic and random methods, so one `bayesjx.fit`
    and one `lax.scan` drive all of them.

    Attributes:
        init: `init(...) -> State`. The state is a pytree whose leaves are arrays, so it
            can be vmapped, copied and saved.
        step: `step(key, state, *batch) -> (State, Info)`. The state keeps its structure,
            shapes and dtypes. `Info` is a NamedTuple of arrays, what is worth plotting;
            its field `objective`, where there is one, is the scalar being optimised.
            It is evaluated at the state that the step started from.
        diagnose: `diagnose(key, state, *batch) -> str`, or None. Called on the host, once
            and outside `jit`, when a step has made something not finite; the arguments are
            those of that step. It names the first site that is not finite.
    """

    init: Callable
    step: Callable
    diagnose: Callable | None = None
