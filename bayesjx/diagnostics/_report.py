"""One call that says whether posteriors are calibrated, and what is wrong if not."""

from __future__ import annotations

import dataclasses
import importlib
import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, TYPE_CHECKING

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._core import check_key, compiled
from ._coverage import (
    checked_levels,
    Coverage,
    intervals,
    order_statistics,
    tail_probs,
)
from ._samples import as_columns
from ._sbc import ranked, SBC
from ._scores import fair_crps
from ._tarp import AROUND, covered, ExpectedCoverage, tarp
from ._uniformity import NUM_TESTS

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

_ROWS = 30  # quantities that are printed
_PAIRED = 10  # quantities up to which all pairs of them are looked at
_TOO = "the joint distribution is wrong too"


@dataclasses.dataclass(frozen=True, repr=False)
class CalibrationReport:
    """Result of `calibration_report`; printed, it says what is wrong in plain words.

    Attributes:
        sbc: ranks of each quantity and their tests.
        tarp: expected coverage of all quantities together; None for a single one.
        pairs: ranks of products of two quantities less their means, of ten quantities at most;
            else, and for a single one, None.
        coverage: of central intervals.
        crps: mean continuous ranked probability score by quantity, shape `(q,)`.
        findings: a few words on each quantity, `fine` or what is wrong.
        joint: the same for all quantities together.
        calibrated: whether no test found anything.
        level: probability that this is false though the posterior is right, at most.
    """

    sbc: SBC
    tarp: ExpectedCoverage | None
    pairs: SBC | None
    coverage: Coverage
    crps: np.ndarray
    findings: dict[str, str]
    joint: str
    calibrated: bool
    level: float

    @property
    def num_datasets(self) -> int:
        """How many data sets, or observations, there were."""
        return self.sbc.values.shape[-1]

    @property
    def detectable(self) -> float:
        """Ratio to the right standard deviation that would be found 19 times of 20."""
        share = _bound(self.level, self.sbc, self.tarp, self.pairs) / (2 * NUM_TESTS)
        widths = NormalDist().inv_cdf(1 - share) + NormalDist().inv_cdf(0.95)
        return math.exp(widths / math.sqrt(2 * self.num_datasets))

    @property
    def verdict(self) -> str:
        """One sentence."""
        number, draws = self.num_datasets, self.sbc.num_draws
        if self.calibrated:
            return (
                f"calibrated, as far as {number} data sets with {draws} draws can tell: a standard "
                f"deviation {100 * (self.detectable - 1):.0f} % too small or too large would have "
                "been seen"
            )
        wrong = [name for name, words in self.findings.items() if words != "fine"]
        what = [f"{name} is {self.findings[name]}" for name in wrong[:3]]
        if len(wrong) > 3:
            what.append(f"{len(wrong) - 3} more")
        if self.joint != "fine":
            what.append(self.joint)
        return "not calibrated: " + "; ".join(what)

    def __repr__(self) -> str:
        tests, covered = self.sbc.uniformity, self.coverage
        levels = [f"{100 * level:.4g} %" for level in covered.levels]
        header = ["quantity", "shift", "scale", *levels, "CRPS", "p-value", "it is"]
        rows = [
            [
                name,
                f"{shift:+.2f}",
                f"{1 / scale:.2f}",
                *(f"{100 * share:.0f} %" for share in inside),
                f"{score:.3g}",
                _p_text(float(p)),
                self.findings[name],
            ]
            for name, shift, scale, inside, score, p in zip(
                self.sbc.names,
                -np.asarray(tests.score_mean),
                np.asarray(tests.score_scale),
                np.asarray(covered.coverage),
                self.crps,
                np.asarray(tests.p_value),
                strict=True,
            )
        ]
        shown = (
            rows
            if len(rows) <= _ROWS
            else [rows[i] for i in np.argsort(np.asarray(tests.p_value))[:_ROWS]]
        )
        if self.tarp is not None:
            blank = [""] * (len(header) - 3)
            p_values = [part.p_value for part in (self.tarp, self.pairs) if part is not None]
            least = min(1.0, len(p_values) * min(map(float, p_values)))
            shown.append(["together", *blank, _p_text(least), self.joint])
        lines = [self.verdict, "", *_aligned([header, *shown])]
        if len(rows) > _ROWS:
            lines.append(f"({len(rows) - _ROWS} quantities with larger p-values are left out)")
        return "\n".join([*lines, "", *_legend()])

    def plot(self, max_quantities: int = 11) -> Figure:
        """Distribution functions of ranks, less what they should be, and expected coverage.

        Curves of a calibrated posterior stay within the grey bands. Needs Matplotlib.

        Args:
            max_quantities: those with the smallest p-values are shown.

        Raises:
            ImportError: Matplotlib is not installed.
        """
        return _pictures().plot_report(self, max_quantities)

    def to_datatree(self) -> xarray.DataTree:
        """Ranks, tests, coverage and findings as an `xarray.DataTree`.

        Its group `prior_sbc` holds the ranks by quantity as ArviZ and simuk have them.

        Raises:
            ImportError: xarray is not installed.
        """
        return _pictures().report_tree(self)


def calibration_report(
    key: jax.Array,
    draws: Any,
    truths: Any,
    *,
    names: Sequence[str] | None = None,
    levels: Sequence[float] = (0.5, 0.9),
    level: float = 0.01,
    references: Any = "random",
) -> CalibrationReport:
    """Checks posterior or predictive draws against truths, and says what is wrong.

    Takes the output of any method: posterior draws of many simulated data sets (`simulate`), with
    the parameters that these were made with; or predictive draws, with the observations. Tests
    of each quantity (`sbc`), of all together (`tarp`) and, of ten quantities at most, of the
    products of any two, which see wrong correlations, share the level.

    Args:
        key: for ties, reference points and the bootstrap.
        draws: shape `(s, n, ...)`, or a pytree of such arrays: draws first, then data sets or
            observations, as NumPyro's `Predictive` returns them.
        truths: shape `(n, ...)`, or the pytree of them.
        names: of the quantities, in the order of the arrays, if not their places in the pytree.
        levels: of the central intervals that are shown.
        level: probability at most that anything is found though nothing is wrong.
        references: as of `tarp`.

    Raises:
        ValueError: shapes or structures that disagree, fewer than 3 data sets, values that are not
            finite, names that are not as many as there are quantities, a level that is not between
            0 and 1, levels too high for the number of draws.
    """
    check_key(key)
    if not isinstance(level, float) or not 0 < level < 1:
        raise ValueError(f"calibration_report: level must be between 0 and 1, got {level!r}")
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((draws, truths))):
        raise ValueError(
            "calibration_report: draws and truths must be known, not traced; under jit use sbc and "
            "tarp, whose results are arrays"
        )
    found, columns, at = as_columns("calibration_report", draws, truths, finite=True)
    if names is not None:
        if isinstance(names, str) or len(names) != len(found) or len(set(names)) != len(found):
            raise ValueError(
                f"calibration_report: names must be {len(found)} different names, one for each of "
                f"{', '.join(found[:8])}; got {names!r}"
            )
        found = tuple(map(str, names))
    checked_levels("calibration_report", levels)
    if columns.shape[1] < 2 or at.shape[1] < 3:
        raise ValueError(
            "calibration_report: draws must be 2 or more of 3 data sets or more, got "
            f"{columns.shape[1]} of {at.shape[1]}"
        )
    if not isinstance(references, str):
        tarp(key, draws, truths, references=references)  # checks them
        references = jnp.asarray(references, at.dtype)
    elif references not in AROUND:
        raise ValueError(
            f"calibration_report: references must be one of {', '.join(AROUND)} or an array (n, "
            f"d), got {references!r}"
        )
    wanted = checked_levels("calibration_report", levels)
    return _judged(*_checks(key, found, columns, at, wanted, references), level)


@compiled
def _checks(
    key: jax.Array,
    names: tuple[str, ...],
    draws: Float[Array, "q s n"],
    truths: Float[Array, "q n"],
    levels: tuple[float, ...],
    references: Any,
) -> tuple[SBC, ExpectedCoverage | None, SBC | None, Coverage, Float[Array, " q"]]:
    """All numbers of a report, by one program."""
    key_sbc, key_tarp = jax.random.split(key)
    number = len(names)
    together = covered(key_tarp, draws, truths, references) if number > 1 else None
    ends = order_statistics(draws, tail_probs(levels))
    scores = jnp.mean(fair_crps(draws.swapaxes(0, 1), truths), axis=-1)
    first, second = np.triu_indices(number if 1 < number <= _PAIRED else 1, 1)
    products = tuple(f"{names[i]} and {names[j]}" for i, j in zip(first, second, strict=True))
    # centred in the same way for truths and draws, so that ranks are uniform all the same
    mean = (jnp.sum(draws, axis=1) + truths) / (draws.shape[1] + 1)
    centred, truth = draws - mean[:, None], truths - mean
    all_draws = jnp.concatenate([draws, centred[first] * centred[second]])
    all_truths = jnp.concatenate([truths, truth[first] * truth[second]])
    ranks = ranked(key_sbc, names + products, all_draws, all_truths)
    pairs = _rows(ranks, slice(number, None)) if products else None
    single = _rows(ranks, slice(number))
    return single, together, pairs, intervals(names, ends, truths, levels), scores


def _rows(ranks: SBC, rows: slice) -> SBC:
    """Some of the quantities."""
    tests = ranks.uniformity
    fields = ("score_mean", "score_scale", "p_mean", "p_scale", "p_ecdf", "p_ks", "p_chi2",
              "histogram", "ecdf")  # fmt: skip
    tests = dataclasses.replace(tests, **{name: getattr(tests, name)[rows] for name in fields})
    kept = ranks.names[rows], ranks.ranks[rows], ranks.values[rows]
    return SBC(*kept, tests, ranks.num_draws)


def _bound(level: float, *parts: Any) -> float:
    """The share of the level that a quantity has, TARP, and all pairs: the same for each."""
    ranks, *joint = parts
    return level / (len(ranks.names) + sum(part is not None for part in joint))


def _judged(
    ranks: SBC,
    together: ExpectedCoverage | None,
    pairs: SBC | None,
    inside: Coverage,
    scores: Any,
    level: float,
) -> CalibrationReport:
    """The report, with its findings."""
    bound = _bound(level, ranks, together, pairs)
    tests = ranks.uniformity
    columns = [tests.p_value, tests.p_mean, tests.score_mean, tests.p_scale, tests.score_scale]
    rows = np.stack([np.asarray(column, float) for column in columns], axis=-1)
    findings = {n: _words(row.tolist(), bound) for n, row in zip(ranks.names, rows, strict=True)}
    lone = all(words == "fine" for words in findings.values())
    joint = "fine"
    if pairs is not None and float(pairs.p_value) <= bound:
        joint = _words_on_pairs(pairs) if lone else _TOO
    elif together is not None and float(together.p_value) <= bound:
        joint = "the joint distribution is wrong, though each quantity alone is fine"
        joint = joint if lone else _TOO
    fine = lone and joint == "fine"
    kept = np.asarray(scores)
    return CalibrationReport(ranks, together, pairs, inside, kept, findings, joint, fine, level)


def _words_on_pairs(pairs: SBC) -> str:
    """What is wrong with the pair whose p-value is the least."""
    worst = int(np.argmin(np.asarray(pairs.uniformity.p_value)))
    higher = float(pairs.uniformity.score_mean[worst]) > 0
    return f"the correlation of {pairs.names[worst]} should be {'higher' if higher else 'lower'}"


def _words(row: list[float], bound: float) -> str:
    """What is wrong with one quantity."""
    p_value, p_mean, mean, p_scale, scale = row
    if p_value > bound:
        return "fine"
    words = []
    if NUM_TESTS * p_mean <= bound:
        words.append(f"too {'low' if mean > 0 else 'high'}, by {abs(mean):.2f} of its sd")
    if NUM_TESTS * p_scale <= bound:
        words.append(
            f"too {'narrow' if scale > 1 else 'wide'}: its sd should be {scale:.2f} times as large"
        )
    return " and ".join(words) or "wrong in shape"


def _p_text(p_value: float) -> str:
    return "<1e-9" if p_value < 1e-9 else f"{p_value:.2g}"


def _legend() -> list[str]:
    return [
        "shift: posterior less truth, in standard deviations of the posterior; scale: its standard",
        "deviation over the right one; then the share of truths within central intervals.",
    ]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns of the same width, the first and the last to the left."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    last = len(widths) - 1
    return [
        "  ".join(
            cell.ljust(width) if i in (0, last) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _pictures() -> Any:
    """What draws and labels, which imports Matplotlib and xarray when it does."""
    return importlib.import_module("._report_pictures", __package__)
