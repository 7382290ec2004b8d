"""What `fit` returns, and how it prints."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from bayesjx._core._callbacks import window_mean
from bayesjx._core._datatree import to_datatree
from bayesjx._core._results import RESULTS


@dataclasses.dataclass(frozen=True, repr=False)
class FitResult:
    """The outcome of `bayesjx.fit`.

    Attributes:
        state: after the last step, or the last good one where `ok` is False.
        info: the `Info` of the algorithm as NumPy arrays with a leading axis of length
            `num_steps`.
        num_steps: steps done, those before a resume included.
        ok: whether the fit ended without a non-finite objective or state.
        message: how it ended, in a sentence or more.
        seconds: spent on steps in this call, compilation and callbacks left out.
        compile_seconds: spent on tracing and compiling; 0 where the program was cached.
        resumed_from: the step that a checkpoint let this call start from.
        kept: what `keep` gave of every `thin`-th state, NumPy arrays with a leading axis of length
            `num_steps // thin`; None without `keep`.
    """

    state: Any
    info: Any
    num_steps: int
    ok: bool
    message: str
    seconds: float
    compile_seconds: float
    resumed_from: int = 0
    kept: Any = None

    @property
    def result(self) -> RESULTS:
        """`RESULTS.successful`, or `RESULTS.nonfinite` where `ok` is False."""
        return RESULTS.successful if self.ok else RESULTS.nonfinite

    def __repr__(self) -> str:
        rows = [("status", self.message.splitlines()[0]), ("steps", self._steps_text())]
        objective = getattr(self.info, "objective", None)
        if objective is not None and len(objective):
            window = max(1, len(objective) // 10)
            mean, error = window_mean(objective, window)
            tail = f" over the last {window} steps" if window > 1 else ""
            rows.append(("objective", f"{mean:.6g} ± {error:.2g}{tail}"))
        done = self.num_steps - self.resumed_from
        if done:
            each = _seconds_text(self.seconds / done)
            rows.append(("time", f"{_seconds_text(self.seconds)}, {each} per step"))
            cached = self.compile_seconds == 0
            rows.append(("compile", "cached" if cached else _seconds_text(self.compile_seconds)))
        lines = [f"  {name:<10} {text}" for name, text in rows]
        return "\n".join([f"FitResult {'ok' if self.ok else 'not finite'}", *lines])

    def to_datatree(self, posterior: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """The history of the fit, with draws beside it, as an `xarray.DataTree`.

        Args:
            posterior: draws of the fitted distribution by site name, shape `(draws, ...)`; by
                default what was kept, if that is a dictionary.
            **options: the other arguments of `bayesjx.to_datatree`.
        """
        if posterior is None and isinstance(self.kept, Mapping):
            posterior = self.kept
        attrs = {
            "fit_message": self.message,
            "fit_seconds": self.seconds,
            "num_steps": self.num_steps,
        }
        attrs.update(options.pop("attrs", None) or {})
        return to_datatree(posterior, fit=self, attrs=attrs, **options)

    def _steps_text(self) -> str:
        resumed = f", resumed from {self.resumed_from}" if self.resumed_from else ""
        return f"{self.num_steps}{resumed}"


class NonFiniteError(RuntimeError):
    """The objective or the state of a fit became infinite or not a number.

    Attributes:
        result: the `FitResult` with the last good state.
    """

    result: FitResult

    def __init__(self, result: FitResult):
        super().__init__(result.message)
        self.result = result


def _seconds_text(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{np.round(seconds / 1e-6, 1):g} µs"
