"""Probabilistic inference on JAX, beside NumPyro and Equinox.

Importing this package is cheap: the sub-packages and the names of the fit loop are loaded on first
use, and nothing changes the configuration of JAX.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import (
        amortized as amortized,
        bnn as bnn,
        datasets as datasets,
        diagnostics as diagnostics,
        distributions as distributions,
        gp as gp,
        interop as interop,
        kernels as kernels,
        likelihoods as likelihoods,
        ops as ops,
        sbl as sbl,
        ssm as ssm,
        vi as vi,
    )
    from ._core import (
        Algorithm as Algorithm,
        CallbackInfo as CallbackInfo,
        configure_cpu as configure_cpu,
        constrained_field as constrained_field,
        fit as fit,
        FitResult as FitResult,
        gradient_algorithm as gradient_algorithm,
        GradientInfo as GradientInfo,
        GradientState as GradientState,
        known_field as known_field,
        load_checkpoint as load_checkpoint,
        NonFiniteError as NonFiniteError,
        RESULTS as RESULTS,
        stop_when_flat as stop_when_flat,
        to_datatree as to_datatree,
        trained as trained,
    )

    __version__: str

__all__ = [
    "Algorithm",
    "CallbackInfo",
    "FitResult",
    "GradientInfo",
    "GradientState",
    "NonFiniteError",
    "RESULTS",
    "amortized",
    "bnn",
    "configure_cpu",
    "constrained_field",
    "datasets",
    "diagnostics",
    "distributions",
    "fit",
    "gp",
    "gradient_algorithm",
    "interop",
    "kernels",
    "known_field",
    "likelihoods",
    "load_checkpoint",
    "ops",
    "sbl",
    "ssm",
    "stop_when_flat",
    "to_datatree",
    "trained",
    "vi",
]
_SUBPACKAGES = (
    "amortized",
    "bnn",
    "datasets",
    "diagnostics",
    "distributions",
    "gp",
    "interop",
    "kernels",
    "likelihoods",
    "ops",
    "sbl",
    "ssm",
    "vi",
)


def __getattr__(name: str) -> object:
    if name in _SUBPACKAGES:
        return _import_module(f"{__name__}.{name}")
    if name in __all__:
        value = getattr(_import_module(f"{__name__}._core"), name)
    elif name == "__version__":
        value = _import_module("importlib.metadata").version(__name__)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
