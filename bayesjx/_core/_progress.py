"""Progress bar of `fit`."""

from typing import Any

from bayesjx._core._callbacks import window_mean


class ProgressBar:
    """A tqdm bar that moves between dispatches only, or nothing when `show` is False.

    Attributes:
        shown: whether there is a bar.
    """

    shown: bool

    def __init__(self, show: bool, num_steps: int, done: int):
        self.shown, self._bar = show, None
        if show:
            from tqdm import tqdm

            self._bar = tqdm(total=num_steps, initial=done, desc="fit", unit="step")

    def update(self, count: int, history: Any) -> None:
        """Move by `count` steps and show the mean objective of about the last tenth."""
        if self._bar is None:
            return
        objective = getattr(history, "objective", None)
        if objective is not None:
            mean, _ = window_mean(objective, max(1, len(objective) // 10))
            self._bar.set_postfix_str(f"objective {mean:.6g}", refresh=False)
        self._bar.update(count)
        self._bar.refresh()

    def close(self) -> None:
        """Leave the bar where it stands."""
        if self._bar is not None:
            self._bar.close()
