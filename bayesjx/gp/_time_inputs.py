"""Times as inputs of a process."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp

from ..ssm._state_space import HARMONICS


class Times(eqx.Module):
    """Points in time, at which processes are filtered by their state spaces, in linear time.

    Args:
        times: shape `(n,)`, irregular or not; best a NumPy array in double precision.
        backend: see `ssm.MarkovGP`.
        harmonics: of `Periodic` kernels, see `ssm.state_space`.

    Raises:
        ValueError: not one axis, or empty.
    """

    times: Any
    backend: str = eqx.field(static=True)
    harmonics: int = eqx.field(static=True)

    def __init__(self, times: Any, backend: str = "auto", harmonics: int = HARMONICS):
        if jnp.ndim(times) != 1 or jnp.size(times) == 0:
            raise ValueError(f"Times: shape (n,), not empty, is needed; got {jnp.shape(times)}")
        self.times, self.backend, self.harmonics = times, backend, harmonics

    def __len__(self) -> int:
        return len(self.times)

    @property
    def dtype(self) -> Any:
        """Type of the numbers that densities at these times have."""
        dtype = jnp.asarray(self.times[:1]).dtype
        return dtype if jnp.issubdtype(dtype, jnp.inexact) else jnp.asarray(0.0).dtype

    def points(self) -> Any:
        """The points, shape `(n, 1)`."""
        return jnp.asarray(self.times, self.dtype)[:, None]
