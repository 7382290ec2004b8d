"""Regression sets of the UCI repository, in the ten folds of treforevans/uci_datasets.

`load` reads them from a folder `uci` below the directory that the environment variable
`BAYESJX_DATA` names.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

HOW_TO_GET = (
    "set BAYESJX_DATA to a folder with uci/NAME.npz, where each file has the arrays X (n, d), "
    "y (n,) and test_mask (n, 10) of a data set of https://github.com/treforevans/uci_datasets"
)


class Split(NamedTuple):
    """Inputs and responses, standardised by the mean and standard deviation of the training rows.

    Attributes:
        train_x: shape `(n, d)`, float64 as all.
        train_y: shape `(n,)`.
        test_x: shape `(k, d)`.
        test_y: shape `(k,)`.
    """

    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray


def load(name: str, fold: int) -> Split:
    """One of the ten folds of a data set.

    Raises:
        FileNotFoundError: the data are not there; the text says where they are looked for.
    """
    x, y, masks = stored(name)
    test = masks[:, fold]
    return _standardised(x[~test], y[~test], x[test], y[test])


def random_split(name: str, num_train: int, num_test: int, seed: int = 0) -> Split:
    """Random rows of a data set.

    Raises:
        FileNotFoundError: the data are not there; the text says where they are looked for.
    """
    x, y, _ = stored(name)
    rows = np.random.default_rng(seed).permutation(len(x))[: num_train + num_test]
    train, test = rows[:num_train], rows[num_train:]
    return _standardised(x[train], y[train], x[test], y[test])


def stored(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    root = os.environ.get("BAYESJX_DATA")
    path = Path(root or ".") / "uci" / f"{name}.npz"
    if not root or not path.exists():
        raise FileNotFoundError(f"no uci/{path.name}: {HOW_TO_GET}")
    with np.load(path) as stored:
        return stored["X"].astype(float), stored["y"].astype(float), stored["test_mask"]


def _standardised(
    train_x: np.ndarray, train_y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray
) -> Split:
    shift, scale = train_x.mean(axis=0), train_x.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)  # a column that is constant in this fold
    mean, spread = train_y.mean(), train_y.std()
    return Split(
        (train_x - shift) / scale,
        (train_y - mean) / spread,
        (test_x - shift) / scale,
        (test_y - mean) / spread,
    )
