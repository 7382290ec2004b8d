"""Ways in and out: BlackJAX, scikit-learn, labelled results for ArviZ, and saved fits."""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

from bayesjx._core import (
    CheckpointError as CheckpointError,
    CheckpointWriteError as CheckpointWriteError,
    describe_checkpoint as describe_checkpoint,
    load_checkpoint as load_checkpoint,
    to_datatree as to_datatree,
)
from bayesjx.interop._blackjax import (
    from_blackjax as from_blackjax,
    sample as sample,
    SampleInfo as SampleInfo,
    Samples as Samples,
)

if TYPE_CHECKING:
    from bayesjx.interop._sklearn import SBLRegressor as SBLRegressor
    from bayesjx.interop._sklearn_pfn import (
        PFNClassifier as PFNClassifier,
        PFNRegressor as PFNRegressor,
    )

# What needs scikit-learn imports it on first use.
_ESTIMATORS = {
    "SBLRegressor": "_sklearn",
    "PFNClassifier": "_sklearn_pfn",
    "PFNRegressor": "_sklearn_pfn",
}


def __getattr__(name: str) -> object:
    if name not in _ESTIMATORS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(_import_module(f"{__name__}.{_ESTIMATORS[name]}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "sklearn":
            raise
        raise ImportError(f"{name} needs scikit-learn: pip install scikit-learn") from error


def __dir__() -> list[str]:
    return sorted({*globals(), *_ESTIMATORS})
