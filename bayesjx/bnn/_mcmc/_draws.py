"""What Markov chains of networks give: samples, diagnostics and labelled arrays."""

from __future__ import annotations

from typing import Any, NamedTuple, TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin

from ..._core import from_real, path_name, to_datatree
from .._samples import NetworkSamples
from ._state import ChainDraws, ChainPosition

if TYPE_CHECKING:
    from ._chains import NetworkChains

LEAST = 4  # draws of a chain whose halves can be compared


class ChainDiagnostics(NamedTuple):
    """How well chains of networks agree; see `NetworkChains.diagnostics`.

    Attributes:
        r_hat: split potential scale reduction of the function's value at each input, near 1 where
            chains agree; shape `(m,)` or `(m, p)`.
        effective_sample_size: of all chains together, likewise.
    """

    r_hat: np.ndarray
    effective_sample_size: np.ndarray


def network_samples(
    chains: NetworkChains, draws: Any, chain_axis: int, chunk_size: int
) -> NetworkSamples:
    """All draws, chain after chain."""
    position, _ = _sorted(chains, draws, chain_axis)
    flat = jax.tree.map(lambda a: jnp.asarray(a).reshape(-1, *a.shape[2:]), position)
    networks = chains.leaves.only(chains.rest, flat.weights)
    each = flat.likelihood is not None
    likelihood = chains.likelihood
    if each:
        likelihood = jax.vmap(chains.likelihood_at)(flat.likelihood)
    return NetworkSamples(
        networks, likelihood, shared=chains.rest, likelihood_each=each, chunk_size=chunk_size
    )


def diagnosed(
    chains: NetworkChains, draws: Any, x: Any, chain_axis: int, chunk_size: int
) -> ChainDiagnostics:
    """Diagnostics of values, by NumPyro's functions."""
    f = _values(chains, draws, x, chain_axis, chunk_size)
    if f.shape[1] < LEAST:
        raise ValueError(
            f"diagnostics: draws must have at least {LEAST} after burn-in of each chain, got "
            f"{f.shape[1]}"
        )
    return _diagnostics(f)


def labelled(
    chains: NetworkChains,
    draws: Any,
    x: Any,
    chain_axis: int,
    weights: bool,
    chunk_size: int,
    options: dict[str, Any],
) -> Any:
    """The `DataTree`."""
    position, precisions = _sorted(chains, draws, chain_axis)
    f = _values(chains, draws, x, chain_axis, chunk_size)
    groups: dict[str, Any] = {"f": f}
    if position.likelihood is not None:
        values = jax.vmap(jax.vmap(from_real))(position.likelihood)
        paths = jax.tree_util.tree_leaves_with_path(values)
        groups |= {path_name(path, "likelihood"): leaf for path, leaf in paths}
    for name, leaf in zip(chains.leaves.names, precisions or (), strict=False):
        groups[f"{name}.precision"] = leaf
    if weights:
        groups |= dict(zip(chains.leaves.names, position.weights, strict=True))
    constant: dict[str, Any] = {"x": np.asarray(x)}
    of_values = ["input", "output"][: f.ndim - 2]
    dims: dict[str, Any] = {"f": of_values, "x": ["input", *_names("x", np.ndim(x) - 1)]}
    if f.shape[1] >= LEAST:
        constant |= _diagnostics(f)._asdict()
        dims |= dict.fromkeys(ChainDiagnostics._fields, of_values)
    dims |= options.pop("dims", None) or {}
    constant |= options.pop("constant_data", None) or {}
    return to_datatree(groups, constant_data=constant, dims=dims, chain_axis=0, **options)


def _names(variable: str, number: int) -> list[str]:
    return [f"{variable}_dim_{i + 1}" for i in range(number)]


def _diagnostics(f: np.ndarray) -> ChainDiagnostics:
    return ChainDiagnostics(np.asarray(split_gelman_rubin(f)), np.asarray(effective_sample_size(f)))


def _values(
    chains: NetworkChains, draws: Any, x: Any, chain_axis: int, chunk_size: int
) -> np.ndarray:
    """Values of the function, `(chains, draws, m)` or `(chains, draws, m, p)`."""
    f = network_samples(chains, draws, chain_axis, chunk_size).values(x)
    return np.asarray(f).reshape(chains.num_chains, -1, *f.shape[1:])


def _sorted(chains: NetworkChains, draws: Any, chain_axis: int) -> tuple[ChainPosition, Any]:
    """Positions and precisions that count as draws, arrays of shape `(chains, draws, ...)`."""
    if chain_axis not in (0, 1):
        raise ValueError(f"posterior: chain_axis must be 0 or 1, got {chain_axis!r}")
    is_kept = isinstance(draws, ChainDraws)
    position = draws.position if is_kept else draws
    precisions = draws.precisions if is_kept else None
    _check_position(chains, position, chain_axis)
    parts = position, precisions
    if is_kept:
        good = np.asarray(draws.sampling)
        if not good.any():
            raise ValueError(
                f"posterior: none of the {good.size} draws was kept after burn-in or exploration: "
                "make more steps, or keep more of them by a smaller thin"
            )
        parts = jax.tree.map(lambda a: np.asarray(a)[good], parts)
    return parts if chain_axis == 0 else jax.tree.map(lambda a: a.swapaxes(0, 1), parts)


def _check_position(chains: NetworkChains, position: Any, chain_axis: int) -> None:
    like = jax.tree.map(lambda a: a[0], chains.start)
    same = jax.tree.structure(position) == jax.tree.structure(like)
    if same:
        pairs = zip(jax.tree.leaves(position), jax.tree.leaves(like), strict=True)
        same = all(
            jnp.ndim(a) == b.ndim + 2
            and a.shape[2:] == b.shape
            and a.shape[chain_axis] == chains.num_chains
            for a, b in pairs
        )
    if not same:
        axes = "(draws, chains, ...)" if chain_axis else "(chains, draws, ...)"
        raise ValueError(
            "posterior: draws must be what bayesjx.fit(..., keep=bnn.chain_draws) kept of these "
            f"{chains.num_chains} chains, or positions of them with arrays of shape {axes}; got "
            f"{type(position).__name__} with arrays of shape "
            f"{[jnp.shape(a) for a in jax.tree.leaves(position)][:4]}"
        )
