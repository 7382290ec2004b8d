"""Sparse matrices in which groups of columns share their active rows."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.interpreters import ad
from jaxtyping import Array, Inexact, Int

from ._checks import checked_arrays
from ._primitive import kernel_mode, kernel_of, no_tangent, primitive
from ._sparse_operator import (
    AbstractSparse,
    checked_distinct,
    checked_index,
    checked_shape,
    known_index,
    listed,
)
from ._sparse_products import (
    add_rows,
    batch_product,
    chunk,
    Layout,
    map_chunks,
    precise,
    Products,
    rows_of,
    sparse_products,
    sum_chunks,
)
from ._tags import checked_tags


class GroupedColumns(AbstractSparse):
    r"""Sparse matrix whose columns come in groups of `g` that share `k` active rows.

    Runs at the speed of a dense product from groups of 32 on, so its time is the density times that
    of the dense matrix; the layout of choice for layers. `g = N` selects rows of the matrix, and
    for `g = 1` see `bayesjx.ops.EntrySparse`.

    Attributes:
        values: shape `(N / g, k, g)`.
        index: the rows that each group reads, shape `(N / g, k)`. Those that are traced are not
            checked here, nor whether rows repeat; see `from_indices`.
        size: `(K, N)`.
        transposed: whether this is the transpose of the matrix described.
        tags: what is known of the matrix, see Lineax.
    """

    values: Inexact[Array, "groups k g"]
    index: Int[Array, "groups k"]
    size: tuple[int, int] = eqx.field(static=True)
    transposed: bool = eqx.field(static=True)
    tags: frozenset[object] = eqx.field(static=True)

    def __init__(
        self, values: Any, index: Any, size: Any, transposed: bool = False, tags: object = ()
    ):
        self.size = checked_shape("GroupedColumns", size)
        self.values, self.index = _checked_layout(values, index, self.size, known_index)
        self.transposed, self.tags = transposed, checked_tags("GroupedColumns", tags)

    @classmethod
    def from_indices(
        cls, shape: tuple[int, int], index: Any, values: Any, tags: Any = ()
    ) -> GroupedColumns:
        """A checked operator.

        Args:
            shape: `(K, N)`.
            index: rows that each group of columns reads, integers of shape `(N / g, k)`.
            values: shape `(N / g, k, g)`; `values[n, t, o]` is the entry in row `index[n, t]` and
                column `n g + o`.
            tags: what is known of the matrix, see Lineax.

        Raises:
            ValueError: the shapes do not fit, nothing is active, an index is out of range or
                repeated within a group, or types are wrong.
            RuntimeError: indices are wrong, raised when a jitted function runs.
        """
        size = checked_shape("GroupedColumns", shape)
        values, index = _checked_layout(values, index, size, checked_index)
        (index,) = checked_distinct("GroupedColumns", "a group reads a row twice", (index,))
        return cls(values, index, size, tags=tags)

    def mean_and_var(
        self, variances: jax.Array, x: jax.Array
    ) -> tuple[Inexact[Array, "*b N"], Inexact[Array, "*b N"]]:
        r"""Mean and variance of $x W$ for independent entries with means `values`.

        Both come from one pass over the inputs: local reparameterisation of a layer.

        Args:
            variances: of the entries, shape as `values`.
            x: shape `(..., K)`.

        Returns:
            Two arrays of shape `(..., N)`.

        Raises:
            ValueError: the shapes do not fit or types differ.

        References:
            Kingma, Salimans & Welling (2015), "Variational dropout and the local
            reparameterization trick", NeurIPS 28.
        """
        if self.transposed:
            raise ValueError("mean_and_var is of x @ W; this operator is a transpose")
        if jnp.ndim(x) == 0 or jnp.shape(x)[-1] != self.size[0]:
            raise ValueError(f"x must have shape (..., {self.size[0]}), got {jnp.shape(x)}")
        columns = jnp.reshape(x, (-1, self.size[0])).T
        moments = _bind_moments(*_checked_moments(self.values, variances, self.index, columns))
        mean, var = (m.T.reshape(*jnp.shape(x)[:-1], self.size[1]) for m in moments)
        return mean, var

    @property
    def block(self) -> tuple[int, int]:
        """Rows and columns that are active or not as one."""
        return 1, self.values.shape[2]

    def _products(self) -> Products:
        return _PRODUCTS

    def _operands(self) -> tuple[jax.Array, ...]:
        return self.values, self.index

    def _diag(self) -> jax.Array:
        groups, _, g = self.values.shape
        column = jnp.arange(groups * g, dtype=jnp.int32).reshape(groups, 1, g)
        return jnp.sum(jnp.where(self.index[:, :, None] == column, self.values, 0), 1).reshape(-1)


def grouped_product(
    values: jax.Array, index: Any, x: jax.Array, *, kernels: str | None = None
) -> Inexact[Array, "N M"]:
    r"""$W^\top x$ for grouped columns.

    Args:
        values: shape `(groups, k, g)`.
        index: rows of `x` that each group reads, integers of shape `(groups, k)`.
        x: shape `(K, M)`: features first, then the batch.
        kernels: see `bayesjx.ops.kernel_mode`.

    Returns:
        Shape `(groups * g, M)`.

    Raises:
        ValueError: the shapes do not fit, types differ, or a row is out of range.
        RuntimeError: a row is out of range, raised when a jitted function runs.
    """
    values, index, x = _checked(values, index, x)
    index = checked_index("grouped columns", "index", index, x.shape[0])
    groups, _, g = values.shape
    params = {"shape": (x.shape[0], groups * g), "block": (1, g), "mode": kernel_mode(kernels)}
    return _PRODUCTS.forward.bind(values, index, x, **params)


def grouped_moments(
    mean: jax.Array,
    var: jax.Array,
    index: Any,
    x: jax.Array,
    *,
    kernels: str | None = None,
) -> tuple[Inexact[Array, "N M"], Inexact[Array, "N M"]]:
    r"""$M^\top x$ and $V^\top x^2$ for grouped columns, with one gathering of `x`.

    Mean and variance of $W^\top x$ for independent entries.

    Args:
        mean: shape `(groups, k, g)`.
        var: shape `(groups, k, g)`.
        index: rows of `x` that each group reads, integers of shape `(groups, k)`.
        x: shape `(K, M)`: features first, then the batch.
        kernels: see `bayesjx.ops.kernel_mode`.

    Returns:
        Two arrays of shape `(groups * g, M)`.

    Raises:
        ValueError: the shapes do not fit, types differ, or a row is out of range.
        RuntimeError: a row is out of range, raised when a jitted function runs.
    """
    mean, var, index, x = _checked_moments(mean, var, index, x)
    index = checked_index("grouped columns", "index", index, x.shape[0])
    return _bind_moments(mean, var, index, x, kernels)


def _checked_moments(mean: Any, var: Any, index: Any, x: Any) -> tuple[Any, ...]:
    mean, index, x = _checked(mean, index, x)
    if jnp.shape(var) != mean.shape or jnp.result_type(var) != mean.dtype:
        raise ValueError(
            f"var must be as mean, {mean.shape} of {mean.dtype}; got {jnp.shape(var)} of "
            f"{jnp.result_type(var)}"
        )
    return mean, jnp.asarray(var), index, x


def _bind_moments(
    mean: Any, var: Any, index: Any, x: Any, kernels: str | None = None
) -> tuple[jax.Array, jax.Array]:
    groups, _, g = mean.shape
    params = {"shape": (x.shape[0], groups * g), "block": (1, g), "mode": kernel_mode(kernels)}
    one, two = _moments_p.bind(mean, var, index, x, **params)
    return one, two


def _checked(values: Any, index: Any, x: Any) -> tuple[Any, ...]:
    values, x = checked_arrays("grouped columns", {"values": values, "x": x})
    index = listed(index)
    fits = values.ndim == 3 and jnp.shape(index) == values.shape[:2] and x.ndim == 2
    if not fits or not values.size or not jnp.issubdtype(jnp.result_type(index), jnp.integer):
        raise ValueError(
            "grouped columns are values (groups, k, g), integers index (groups, k) and x (K, M); "
            f"got {values.shape}, {jnp.shape(index)} of {jnp.result_type(index)} and {x.shape}"
        )
    return values, index, x


def _checked_layout(
    values: Any, index: Any, size: tuple[int, int], checked: Any
) -> tuple[jax.Array, Any]:
    """Values and indices that fit, the latter as `checked` (an index) makes them."""
    (values,) = checked_arrays("GroupedColumns", {"values": values})
    index = listed(index)
    if values.ndim != 3 or jnp.shape(index) != values.shape[:2] or not values.size:
        raise ValueError(
            "GroupedColumns takes index (groups, k) and values (groups, k, g), none of them 0; "
            f"got {jnp.shape(index)} and {values.shape}"
        )
    groups, _, g = values.shape
    if groups * g != size[1]:
        raise ValueError(
            f"GroupedColumns: {groups} groups of {g} columns are not the {size[1]} columns of "
            f"shape {size}; values are (groups, k, g)"
        )
    return values, checked("GroupedColumns", "index", index, size[0])


# The twins of the kernels.


def _chunk(index: Any, x: Any) -> int:
    return chunk(index.shape[0], index.shape[1] * x.shape[1], x.size)


def _forward(values: Any, index: Any, x: Any, *, shape: Any, block: Any) -> jax.Array:
    def some(values: Any, index: Any) -> jax.Array:
        return precise("nko,nkm->nom", values, rows_of(x, index)).astype(x.dtype)

    return map_chunks(some, (values, index), _chunk(index, x)).reshape(shape[1], -1)


def _backward(values: Any, index: Any, y: Any, *, shape: Any, block: Any) -> jax.Array:
    def add(total: Any, values: Any, index: Any, y: Any) -> jax.Array:
        rows = precise("nko,nom->nkm", values, y)
        return add_rows(total, index.reshape(-1), rows.reshape(-1, rows.shape[-1]))

    y = y.reshape(index.shape[0], -1, y.shape[1])
    total = jnp.zeros((shape[0], y.shape[2]), jnp.promote_types(y.dtype, jnp.float32))
    arrays, at_once = (values, index, y), _chunk(index, total)
    return sum_chunks(add, total, arrays, at_once).astype(y.dtype)


def _weights(index: Any, x: Any, y: Any, *, shape: Any, block: Any) -> jax.Array:
    def some(index: Any, y: Any) -> jax.Array:
        return precise("nkm,nom->nko", rows_of(x, index), y).astype(x.dtype)

    return map_chunks(some, (index, y.reshape(index.shape[0], -1, y.shape[1])), _chunk(index, x))


def _moments(mean: Any, var: Any, index: Any, x: Any, *, shape: Any, block: Any) -> list[Any]:
    def some(mean: Any, var: Any, index: Any) -> jax.Array:
        rows = rows_of(x, index)
        both = precise("nko,nkm->nom", mean, rows), precise("nko,nkm->nom", var, rows * rows)
        return jnp.stack(both, 1).astype(x.dtype)

    both = map_chunks(some, (mean, var, index), _chunk(index, x))
    return [both[:, i].reshape(shape[1], -1) for i in range(2)]


def _kernels(name: str) -> dict[str, Any]:
    return {p: kernel_of("grouped_columns", p, name) for p in ("tpu", "cuda")}


_LAYOUT = Layout(sides=(0,), axis=0, values_shape=lambda index, *, block: (*index, block[1]))
_PRODUCTS = sparse_products(
    "grouped_columns",
    _LAYOUT,
    _forward,
    _backward,
    _weights,
    {"forward": _kernels("forward"), "weights": _kernels("weights")},
)


def _batch_moments(bind: Any, operands: Any, axes: Any, **params: Any) -> Any:
    return batch_product(_LAYOUT, True, bind, operands, axes, several=2, **params)


_moments_p = primitive(
    "grouped_columns_moments",
    _moments,
    shapes=lambda *shapes, shape, block: ((shape[1], shapes[-1][1]),) * 2,
    floating=3,
    batch=_batch_moments,
    kernels=_kernels("moments"),
    several=True,
)


def _moments_jvp(primals: Any, tangents: Any, **params: Any) -> tuple[Any, Any]:
    """Not linear in x, so the derivative is made of products that are."""
    mean, var, index, x = primals
    product = lambda values, x: _PRODUCTS.forward.bind(values, index, x, **params)  # noqa: E731
    d_mean, d_var, _, d_x = tangents
    has = [type(t) is not ad.Zero for t in (d_mean, d_var, d_x)]
    out = _moments_p.bind(*primals, **params)
    terms: list[list[Any]] = [[], []]
    if has[0]:
        terms[0].append(product(d_mean, x))
    if has[1]:
        terms[1].append(product(d_var, x * x))
    if has[2]:
        terms[0].append(product(mean, d_x))
        terms[1].append(product(var, 2 * x * d_x))
    changes = [
        sum(several[1:], several[0]) if several else no_tangent(value)
        for several, value in zip(terms, out, strict=True)
    ]
    return out, changes


ad.primitive_jvps[_moments_p] = _moments_jvp
