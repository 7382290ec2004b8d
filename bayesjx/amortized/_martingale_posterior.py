"""Draws of functionals from predictive resampling, and how far the resampling has come."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float

from .._core import compiled, path_name, to_datatree
from ..distributions import kernel_mixture
from ._rule_checks import above, in_errors, rounding


class ResamplingDiagnostics(eqx.Module):
    r"""How the functional moved as rows were drawn, at `k` numbers of rows; pytrees like it.

    Attributes:
        num_rows: rows in all, data included, increasing to the last, shape `(k,)`.
        mean: of the functional over samples, shape `(k, ...)`.
        scale: its standard deviation over samples, shape `(k, ...)`, which levels off as the
            horizon is reached.
        remaining: root mean square over samples of the way from there to the last value, in
            standard deviations of the last value, shape `(k, ...)`; the last is 0, the others
            infinite where the last value does not vary.
        drift: of functionals of the state, `mean` less the value of the data alone. Of functionals
            of rows, that of the drawn rows alone at each time less that at the first, where both
            are found by assuming that the functional is linear in the distribution. It is 0 up to
            chance for linear functionals of a martingale; others drift also under an exact rule.
        drift_error: standard error of the drift; 0 where samples do not vary but by rounding.
        density_change: mean over samples and points of the absolute change of densities (or of
            distribution functions) since the data alone, relative to their mean, shape `(k,)`;
            None without points.
        density_step: the same since the record before, shape `(k,)`.
        reports: means over samples of what the rule reports, such as `effective_sample_size`,
            shape `(k,)` each.
        cid_defect: see `cid_defect`; None without points.
        order_scale: see `order_sensitivity`, shape `(m,)`; None without points.
    """

    num_rows: np.ndarray
    mean: Any
    scale: Any
    remaining: Any
    drift: Any
    drift_error: Any
    density_change: Float[Array, " k"] | None
    density_step: Float[Array, " k"] | None
    reports: dict[str, Array]
    cid_defect: Any
    order_scale: Float[Array, " m"] | None

    @property
    def martingale_z(self) -> Any:
        """Drift in standard errors, a pytree of arrays `(k, ...)`.

        0 where there is no drift, NaN where there is one of samples that do not vary.
        """
        return jax.tree.map(in_errors, self.drift, self.drift_error)


class MartingalePosterior(eqx.Module):
    """Draws of a functional of the data that one would have with more of them.

    `predictive_resample`, `bayesian_bootstrap` and the copula predictives return it.

    Attributes:
        samples: the functional after the last draw, pytree of arrays `(s, ...)`.
        diagnostics: how it got there; None of `bayesian_bootstrap`.
        initial: the functional of the data alone, or None where there are none.
        source: name of the rule.
        num_data: rows of data.
        num_forward: rows drawn, or None where the horizon is infinite.
        correction: by how much deviations from the mean were multiplied to make up for the finite
            horizon; 1 if they were not.
    """

    samples: Any
    diagnostics: ResamplingDiagnostics | None
    initial: Any
    source: str = eqx.field(static=True)
    num_data: int = eqx.field(static=True)
    num_forward: int | None = eqx.field(static=True)
    correction: float = eqx.field(static=True, default=1.0)

    @property
    def num_samples(self) -> int:
        """How many draws there are."""
        return jax.tree.leaves(self.samples)[0].shape[0]

    @property
    def missing_variance(self) -> float:
        """The share of the variance that the finite horizon leaves out, `n / N`, after correction.

        An approximation for functionals that are asymptotically normal; 0 where it was corrected.
        """
        if self.num_forward is None or self.correction != 1:
            return 0.0
        return self.num_data / (self.num_data + self.num_forward)

    def distribution(self, name: str | None = None) -> dist.Distribution:
        """Samples as a density, which a NumPyro program can have as the prior of a site.

        See `bayesjx.distributions.kernel_mixture`: it has their mean and covariance.

        Args:
            name: of the functional, where there are several, as `to_datatree` names them.

        Raises:
            ValueError: no such functional; one that is no number and no vector; samples that are
                not finite or do not vary in all directions.
        """
        values = named(self.samples)
        if name is None and len(values) == 1:
            name = next(iter(values))
        if name not in values:
            raise ValueError(
                "MartingalePosterior.distribution: name must be one of "
                f"{', '.join(map(repr, values))}; got {name!r}"
            )
        return kernel_mixture(values[name])

    def to_datatree(self, **options: Any) -> Any:
        """Samples as an `xarray.DataTree` in ArviZ's schema, one chain.

        Args:
            **options: the other arguments of `bayesjx.to_datatree`.

        Raises:
            ImportError: xarray is not installed.
        """
        attrs: dict[str, Any] = {
            "predictive_rule": self.source,
            "num_data": self.num_data,
            "num_forward": -1 if self.num_forward is None else self.num_forward,
            "finite_horizon_correction": self.correction,
        }
        attrs.update(options.pop("attrs", None) or {})
        return to_datatree(named(self.samples), attrs=attrs, **options)

    def __repr__(self) -> str:
        ahead = "" if self.num_forward is None else f", {self.num_forward} drawn ahead"
        head = (
            f"MartingalePosterior of {self.source}: {self.num_samples} samples, "
            f"{self.num_data} rows of data{ahead}"
        )
        if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(self.samples)):
            return head
        return "\n  ".join([head, *self._values(), *self._horizon(), *self._checks()])

    def _values(self) -> list[str]:
        lines = []
        for name, value in named(self.samples).items():
            flat = np.asarray(value, float).reshape(len(value), -1)
            shown = [f"{c.mean():.4g} ± {c.std():.2g}" for c in flat.T[:4]]
            more = f", and {flat.shape[1] - 4} more" if flat.shape[1] > 4 else ""
            lines.append(f"{name}: {', '.join(shown)}{more}")
            lost = int(np.sum(~np.isfinite(flat).all(axis=1)))
            if lost:
                lines.append(f"{name}: {lost} samples are NaN or infinite")
        return lines

    def _drift(self, found: ResamplingDiagnostics) -> str:
        zs, errors = jax.tree.leaves(found.martingale_z), jax.tree.leaves(found.drift_error)
        # Of rows the drift is 0 at the first record, where its error is too.
        known = [np.asarray(z)[np.asarray(e) > 0] for z, e in zip(zs, errors, strict=True)]
        if sum(z.size for z in known):
            return f"{max(_largest(z) for z in known):.2g} standard errors"
        return "unknown, of samples that do not vary, are not finite or were recorded once"

    def _horizon(self) -> list[str]:
        if self.num_forward is None:
            return []
        if self.correction != 1:
            return [
                f"corrected for the finite horizon: deviations from the mean were multiplied by "
                f"{self.correction:.4g}"
            ]
        return [
            f"not corrected for the finite horizon, which leaves out about "
            f"{100 * self.missing_variance:.2g} % of the variance"
        ]

    def _checks(self) -> list[str]:
        found = self.diagnostics
        if found is None:
            return []
        lines = ["largest drift: " + self._drift(found)]
        for name, value in found.reports.items():
            lines.append(f"{name}: {float(value[0]):.4g} to {float(value[-1]):.4g}")
        if found.cid_defect is not None:
            largest = _largest(found.cid_defect.z)
            lines.append(f"largest c.i.d. defect: {largest:.2g} standard errors")
        if found.order_scale is not None:
            lines.append(f"order of the data: sd {float(jnp.max(found.order_scale)):.2g} at most")
        return lines


def named(tree: Any) -> dict[str, Any]:
    """Arrays by name; one array alone is `theta`."""
    if isinstance(tree, Mapping) and all(hasattr(value, "shape") for value in tree.values()):
        return {str(name): value for name, value in tree.items()}
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    if len(leaves) == 1 and not leaves[0][0]:
        return {"theta": leaves[0][1]}
    return {path_name(path, "theta"): leaf for path, leaf in leaves}


def diagnosed(
    paths: Any,
    initial: Any,
    num_rows: np.ndarray,
    num_data: int | None,
    densities: Any = None,
    before: Any = None,
    reports: dict[str, Array] | None = None,
    cid_defect: Any = None,
    order_scale: Any = None,
) -> tuple[Any, ResamplingDiagnostics]:
    """Functionals at the last record, and diagnostics, from functionals `(s, k, ...)`.

    Args:
        paths: the functional at each record.
        initial: that of the data alone, or None.
        num_rows: at each record.
        num_data: rows of data where the functional is one of rows, None where it is of the state.
        densities: at points, `(s, k, m)`, or None.
        before: those of the data alone, `(m,)`.
        reports: of the rule, `(s, k)` each.
        cid_defect: of `cid_defect`.
        order_scale: of `order_sensitivity`.
    """
    start = initial
    if num_data is not None and initial is None:
        start = jax.tree.map(lambda path: jnp.zeros_like(path[0, 0]), paths)
    sizes = tuple(num_rows.tolist())
    last, *found = _summarised(paths, start, sizes, num_data, densities, before, reports or {})
    return last, ResamplingDiagnostics(num_rows, *found, cid_defect, order_scale)


@compiled
def _summarised(
    paths: Any,
    start: Any,
    num_rows: tuple[int, ...],
    num_data: int | None,
    densities: Any,
    before: Any,
    reports: dict[str, Array],
) -> tuple[Any, ...]:
    """The last values, and fields of `ResamplingDiagnostics` from `mean` to `reports`."""
    drifts = jax.tree.map(lambda p, f: _drift(p, f, num_rows, num_data), paths, start)
    change = step = None
    if densities is not None:
        first = jnp.broadcast_to(before, densities[:, :1].shape)
        since = jnp.concatenate([first, densities[:, :-1]], axis=1)
        size = jnp.mean(before)
        change = jnp.mean(jnp.abs(densities - before), axis=(0, 2))
        step = jnp.mean(jnp.abs(densities - since), axis=(0, 2))
        change, step = (jnp.where(v == 0, 0, v / size) for v in (change, step))
    return (
        jax.tree.map(lambda p: p[:, -1], paths),
        jax.tree.map(lambda p: jnp.mean(p, axis=0), paths),
        jax.tree.map(lambda p: jnp.std(p, axis=0), paths),
        jax.tree.map(_remaining, paths),
        jax.tree.map(lambda _, d: d[0], paths, drifts),
        jax.tree.map(lambda _, d: d[1], paths, drifts),
        change,
        step,
        jax.tree.map(lambda v: jnp.mean(v, axis=0), reports),
    )


def _drift(
    path: jax.Array, first: jax.Array, num_rows: tuple[int, ...], num_data: int | None
) -> tuple[jax.Array, jax.Array]:
    """Mean and its standard error over samples of how far a functional has moved.

    Of one of rows, by that of the drawn rows alone, as if it were linear.
    """
    if num_data is None:
        moved, low = path - first, rounding(jnp.max(jnp.abs(path), axis=0) + jnp.abs(first))
    else:
        alone = _of_drawn(path, first, num_rows, num_data)
        size = _of_drawn(jnp.abs(path), -jnp.abs(first), num_rows, num_data)
        moved, low = alone - alone[:, :1], rounding(jnp.max(size + size[:, :1], axis=0))
    error = above(low, jnp.std(moved, axis=0)) / max(len(path) - 1, 1) ** 0.5
    return above(low, jnp.mean(moved, axis=0)), error


def _of_drawn(
    path: jax.Array, first: jax.Array, num_rows: tuple[int, ...], num_data: int
) -> jax.Array:
    """A linear functional of the drawn rows alone."""
    shape = (len(num_rows),) + (1,) * (path.ndim - 2)
    total = jnp.asarray(num_rows, path.dtype).reshape(shape)
    start = num_data * first if num_data else 0.0
    return (total * path - start) / (total - num_data)


def _remaining(path: jax.Array) -> jax.Array:
    last = path[:, -1:]
    low = rounding(jnp.max(jnp.abs(path), axis=0))
    scale = above(low, jnp.std(last, axis=0))
    off = above(low, jnp.sqrt(jnp.mean((path - last) ** 2, axis=0)))
    return jnp.where(off > 0, off / scale, off)  # NaN stays


def _largest(z: Any) -> float:
    z = np.abs(np.asarray(z, float))
    return float(np.max(np.where(np.isnan(z), 0.0, z), initial=0.0))
