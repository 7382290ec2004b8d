"""Kernels for TPUs (Mosaic) and GPUs (Triton), one operation a file; each has its twin in `ops`.

They are chosen when a primitive is lowered, see `bayesjx.ops._primitive`, and pad what does not fit
their tiles. Pallas is imported with the first kernel, not before.
"""

from __future__ import annotations

import importlib
from types import ModuleType


def load(operation: str) -> ModuleType:
    """The kernels of one operation, imported with the first call: Pallas takes a while."""
    return importlib.import_module(f"{__name__}.{operation}")
