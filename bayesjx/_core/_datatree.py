"""Draws, data and the history of a fit as an `xarray.DataTree` in ArviZ's schema."""

import datetime
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any, TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from bayesjx._core._tree import path_name

if TYPE_CHECKING:
    import xarray


def to_datatree(
    posterior: Any = None,
    *,
    posterior_predictive: Mapping[str, Any] | None = None,
    log_likelihood: Mapping[str, Any] | None = None,
    sample_stats: Mapping[str, Any] | None = None,
    prior: Mapping[str, Any] | None = None,
    prior_predictive: Mapping[str, Any] | None = None,
    observed_data: Mapping[str, Any] | None = None,
    constant_data: Mapping[str, Any] | None = None,
    fit: Any = None,
    dims: Mapping[str, Sequence[str]] | None = None,
    coords: Mapping[str, Any] | None = None,
    num_chains: int | None = None,
    chain_axis: int | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> "xarray.DataTree":
    """Label arrays for ArviZ: one group per argument, dimensions `chain`, `draw`, then named ones.

    Args:
        posterior: arrays by site name, shape `(draws, ...)` unless `num_chains` or `chain_axis`
            says otherwise; so are the next five groups. Or a result with a `to_datatree` of its
            own, such as that of `vi.fit_posterior`, which gets the other arguments.
        posterior_predictive: simulated observations.
        log_likelihood: of each observation.
        sample_stats: of the sampler, e.g. `diverging`, `lp`.
        prior: draws from the prior.
        prior_predictive: observations simulated from the prior.
        observed_data: arrays without draws.
        constant_data: covariates, without draws.
        fit: a `FitResult`; its `Info` becomes the group `fit_history` with dimension `step`.
        dims: for a variable, the names of its dimensions after `chain` and `draw` (or `step`).
            Others are called `<variable>_dim_0` and so on.
        coords: labels along a dimension.
        num_chains: the first axis holds this many chains one after the other, as NumPyro's
            `get_samples()` returns them.
        chain_axis: 0 for arrays `(chains, draws, ...)`, 1 for `(draws, chains, ...)`. With
            neither this nor `num_chains` there is a single chain.
        attrs: attributes added to the root.
    Returns:
        The tree. Arrays are copied to the host; bfloat16 becomes float32.
    Raises:
        ImportError: xarray is not installed.
        ValueError: dimensions or labels do not match an array; names the variable.
    """
    own_tree = getattr(posterior, "to_datatree", None)
    if own_tree is not None:
        given = {
            "posterior_predictive": posterior_predictive,
            "log_likelihood": log_likelihood,
            "sample_stats": sample_stats,
            "prior": prior,
            "prior_predictive": prior_predictive,
            "observed_data": observed_data,
            "constant_data": constant_data,
            "fit": fit,
            "dims": dims,
            "coords": coords,
            "num_chains": num_chains,
            "chain_axis": chain_axis,
            "attrs": attrs,
        }
        return own_tree(**{name: value for name, value in given.items() if value is not None})
    xarray = _import_xarray()
    if num_chains is not None and chain_axis is not None:
        raise ValueError("give num_chains or chain_axis, not both.")
    if num_chains is not None and num_chains < 1:
        raise ValueError(f"num_chains must be at least 1; got {num_chains}.")
    if chain_axis not in (None, 0, 1):
        raise ValueError(f"chain_axis must be 0 or 1; got {chain_axis}.")
    sampled = {
        "posterior": posterior,
        "posterior_predictive": posterior_predictive,
        "log_likelihood": log_likelihood,
        "sample_stats": sample_stats,
        "prior": prior,
        "prior_predictive": prior_predictive,
    }
    groups = {
        group: _with_chains(group, values, num_chains, chain_axis)
        for group, values in sampled.items()
        if values is not None
    }
    leading: dict[str, tuple[str, ...]] = dict.fromkeys(groups, ("chain", "draw"))
    for group, values in (("observed_data", observed_data), ("constant_data", constant_data)):
        if values is not None:
            _check_mapping(group, values)
            groups[group] = {k: _to_host(v, f"{group} {k!r}") for k, v in values.items()}
            leading[group] = ()
    if fit is not None:
        if not hasattr(fit, "info"):
            raise ValueError(f"fit must be a FitResult; got {type(fit).__name__}.")
        leaves = jax.tree_util.tree_leaves_with_path(fit.info)
        names = [path_name(path, "info") for path, _ in leaves]
        values = [_to_host(x, name) for name, (_, x) in zip(names, leaves, strict=True)]
        groups["fit_history"] = dict(zip(names, values, strict=True))
        leading["fit_history"] = ("step",)
    dims, coords = dict(dims or {}), dict(coords or {})
    _check_names(dims, groups)
    _check_coords(coords, dims, groups, leading)
    own = _attributes()
    tree = {
        group: xarray.Dataset(**_label(values, leading[group], dims, coords), attrs=own)
        for group, values in groups.items()
    }
    tree["/"] = xarray.Dataset(attrs={**own, **(attrs or {})})
    return xarray.DataTree.from_dict(tree)


def _with_chains(group: str, values: Mapping, num_chains, chain_axis) -> dict[str, np.ndarray]:
    """Arrays of shape `(chains, draws, ...)`."""
    out, needed = {}, 1 if chain_axis is None else 2
    _check_mapping(group, values)
    for name, x in values.items():
        x = _to_host(x, f"{group} {name!r}")
        if x.ndim < needed:
            raise ValueError(
                f"{group} {name!r} must have {'draws' if needed == 1 else 'chains and draws'} in "
                f"front; its shape is {x.shape}."
            )
        if chain_axis == 1:
            x = x.swapaxes(0, 1)
        elif chain_axis is None:
            chains = num_chains or 1
            if x.shape[0] % chains:
                raise ValueError(
                    f"{group} {name!r} has {x.shape[0]} draws in all, which cannot be divided "
                    f"among num_chains={num_chains}."
                )
            x = x.reshape(chains, x.shape[0] // chains, *x.shape[1:])
        out[name] = x
    return out


def _label(values: dict, leading: tuple[str, ...], dims: dict, coords: dict) -> dict[str, Any]:
    """Arguments of an `xarray.Dataset`: variables with named dimensions, and labels."""
    variables, sizes, setter = {}, {}, {}
    for name, x in values.items():
        event = x.ndim - len(leading)
        if event < 0:
            raise ValueError(f"{name!r} must have the dimensions {leading}; got shape {x.shape}.")
        names = tuple(dims.get(name, [f"{name}_dim_{i}" for i in range(event)]))
        if len(names) != event:
            raise ValueError(
                f"dims[{name!r}] names {len(names)} dimensions {names}, but after "
                f"{leading or 'none'} the array has {event}: its shape is {x.shape}."
            )
        for dim, size in zip((*leading, *names), x.shape, strict=True):
            _check_size(name, dim, size, sizes, setter, coords)
        variables[name] = ((*leading, *names), x)
    labels = {dim: np.asarray(coords.get(dim, np.arange(size))) for dim, size in sizes.items()}
    return {"data_vars": variables, "coords": labels}


def _check_size(name: str, dim: str, size: int, sizes: dict, setter: dict, coords: dict) -> None:
    if dim in coords and len(coords[dim]) != size:
        raise ValueError(
            f"{name!r} has length {size} along {dim!r}, but coords[{dim!r}] has "
            f"{len(coords[dim])} labels."
        )
    if sizes.setdefault(dim, size) != size:
        raise ValueError(
            f"{name!r} has length {size} along {dim!r}, but {setter[dim]!r} has {sizes[dim]}."
        )
    setter.setdefault(dim, name)


def _check_mapping(group: str, values: Any) -> None:
    if not isinstance(values, Mapping):
        raise ValueError(
            f"{group} must be a dictionary of arrays by site name; got {type(values).__name__}."
        )


def _check_coords(coords: dict, dims: dict, groups: dict, leading: dict) -> None:
    known = {dim for names in (*leading.values(), *dims.values()) for dim in names}
    known |= {
        f"{name}_dim_{i}"
        for group, values in groups.items()
        for name, x in values.items()
        if name not in dims
        for i in range(x.ndim - len(leading[group]))
    }
    for dim in coords:
        if dim not in known:
            raise ValueError(f"coords labels {dim!r}, but the dimensions are {sorted(known)}.")


def _check_names(dims: dict, groups: dict) -> None:
    known = {name for values in groups.values() for name in values}
    for name, names in dims.items():
        if name not in known:
            raise ValueError(f"dims names {name!r}, but the variables are {sorted(known)}.")
        if isinstance(names, str):
            raise ValueError(f"dims[{name!r}] must be a list of names; got the text {names!r}.")
    for name in known:
        if "/" in name:
            raise ValueError(
                f"{name!r} has a '/', which separates groups in a DataTree; rename the variable."
            )


def _to_host(x: Any, name: str) -> np.ndarray:
    x = np.asarray(x)
    if x.dtype.kind in "OUSV" and x.dtype != jnp.bfloat16 and name.startswith("posterior"):
        raise ValueError(f"{name} must be an array of numbers; got {x.dtype} {x.shape}.")
    return x.astype(np.float32) if x.dtype == jnp.bfloat16 else x


def _attributes() -> dict[str, str]:
    try:
        version = metadata.version("bayesjx")
    except metadata.PackageNotFoundError:
        version = "unknown"
    return {
        "created_at": datetime.datetime.now(datetime.UTC).isoformat(),
        "creation_library": "bayesjx",
        "creation_library_version": version,
        "creation_library_language": "Python",
        "inference_library": "bayesjx",
        "inference_library_version": version,
    }


def _import_xarray():
    try:
        import xarray
    except ImportError as error:
        raise ImportError(
            "to_datatree needs xarray, which is optional: pip install bayesjx[xarray]"
        ) from error
    return xarray
