"""Lineax's tags of operators: their checks, and the tags of sums, multiples and copies."""

from __future__ import annotations

import copyreg
import numbers
from typing import Any

import lineax as lx
import numpy as np

psd = lx.positive_semidefinite_tag
symmetric = lx.symmetric_tag
negative = lx.negative_semidefinite_tag

# Tags of a sum, or of a block-diagonal matrix, if every part has them; and the query for a part.
SHARED = {
    psd: lx.is_positive_semidefinite,
    negative: lx.is_negative_semidefinite,
    symmetric: lx.is_symmetric,
    lx.diagonal_tag: lx.is_diagonal,
    lx.tridiagonal_tag: lx.is_tridiagonal,
    lx.lower_triangular_tag: lx.is_lower_triangular,
    lx.upper_triangular_tag: lx.is_upper_triangular,
}


def checked_tags(owner: str, tags: Any) -> frozenset[object]:
    """Tags as Lineax keeps them: one tag or an iterable of tags becomes a set.

    Raises:
        ValueError: a word, a number, an array or None, which are no tags.
    """
    given = tags if isinstance(tags, (frozenset, set, tuple, list)) else [tags]
    for tag in given:
        if tag is None or isinstance(tag, (str, bytes, numbers.Number, np.generic)):
            raise _no_tag(owner, tag)
        if getattr(tag, "__hash__", None) is None or hasattr(tag, "shape"):
            raise _no_tag(owner, tag)
    return frozenset(given)


def shared_tags(*operators: Any) -> frozenset[object]:
    """Tags of a sum of operators, or of a matrix with them as its diagonal blocks."""
    return frozenset(tag for tag, holds in SHARED.items() if all(map(holds, operators)))


def scaled_tags(tags: frozenset[object], sign: int) -> frozenset[object]:
    """Tags of a multiple.

    Args:
        tags: of the matrix.
        sign: of the factor; 0 if it is not known.
    """
    tags = tags - {lx.unit_diagonal_tag}
    if sign > 0 or not tags & {psd, negative}:
        return tags
    if sign == 0:
        return tags - {psd, negative} | {symmetric}
    turned = {psd: negative, negative: psd}
    return frozenset(turned.get(tag, tag) for tag in tags) | {symmetric}


def _no_tag(owner: str, tag: Any) -> ValueError:
    return ValueError(
        f"{owner}: tags must be Lineax's tags, such as ops.psd, ops.symmetric or "
        f"lineax.lower_triangular_tag, got {tag!r:.40}"
    )


# Lineax tells its tags apart by identity, and a copy of one is another object: an operator that was
# copied or pickled would know nothing of itself, and be of another type to JAX. A string from a
# reducer says that the object is that global variable, so a copy finds the tag that there is.
_GLOBAL = {
    id(getattr(lx, name)): name for name in dir(lx) if name.endswith("_tag") and name in vars(lx)
}


def _reduced(tag: Any) -> Any:
    return _GLOBAL[id(tag)] if id(tag) in _GLOBAL else object.__reduce_ex__(tag, 2)


if type(psd).__reduce_ex__ is object.__reduce_ex__ and type(psd).__module__.startswith("lineax"):
    copyreg.pickle(type(psd), _reduced)
