"""The result of `fit_posterior`: draws, densities, and a verdict in plain words."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import random

from ..._core import check_key, to_datatree, whole_number
from ._moves import (
    Change,
    Moved,
    moved_draws,
    TRANSITIONS,
)
from ._normal_mixture import (
    resampled,
    weigh,
    Weighed,
)
from ._unconstrained import (
    Unconstrained,
)

_BATCH = 250  # draws mapped at once
POOL = 4000  # importance draws at once, in the fit and in `sample`: one program
_STRAY = "a draw far from the others, maybe of a mode that no start came near, has"
_ROWS = 12  # quantities that are printed, about


@dataclasses.dataclass(frozen=True, repr=False)
class PosteriorFit:
    r"""A fitted posterior.

    Attributes:
        k_hat: Pareto $\hat k$ of the importance weights; NaN where there are none (minibatches).
        reliable: whether $\hat k$ is low, enough draws are effective (100; a mixture needs 400),
            and the density does not grow without end; or, above 50 dimensions, whether transitions
            of Hamiltonian Monte Carlo leave the moments as they are.
        ess: effective number of the importance draws that were looked at.
        num_draws: how many these were.
        log_evidence: estimate of the log evidence from the weights; NaN where they are not used.
        notes: what was found on the way: several modes, starts that failed.
        draws: posterior draws by site, with a leading axis; deterministic sites included.
        density: the model's log density of unconstrained vectors.
        proposal: what the importance draws come from, over unconstrained vectors.
        change: what transitions from draws of the proposal changed, where weights are not used.
        step_size: of these transitions.
    """

    k_hat: float
    reliable: bool
    ess: float
    num_draws: int
    log_evidence: float
    notes: tuple[str, ...]
    draws: dict[str, jax.Array]
    density: Unconstrained
    proposal: Any
    change: Change | None = None
    step_size: Any = None

    @classmethod
    def of(
        cls,
        density: Unconstrained,
        proposal: Any,
        weighed: Weighed,
        notes: tuple[str, ...],
        fewest: float,
    ) -> PosteriorFit:
        """From weighted draws, trusted if k-hat is low and `fewest` are effective."""
        weights, surprise = weighed.weights, float(weighed.surprise)
        if _weighted(float(weights.k_hat), float(weights.ess)):
            chosen = resampled(random.key(0), weights.log_weights, 1000)
            draws = _constrained(random.key(1), density, weighed.draws[chosen])
        else:
            draws = _constrained(random.key(1), density, weighed.draws[:1000])
        reliable = bool(weights.reliable) and float(weights.ess) >= fewest and not surprise
        if surprise:
            notes = (*notes, f"{_STRAY} {surprise:.0%} of the weight")
        elif not bool(weights.reliable):
            notes = (*notes, _in_doubt(density, weighed))
        return cls(
            k_hat=float(weights.k_hat),
            reliable=reliable,
            ess=float(weights.ess),
            num_draws=weighed.draws.shape[0],
            log_evidence=float(weighed.log_evidence),
            notes=notes,
            draws=draws,
            density=density,
            proposal=proposal,
        )

    @classmethod
    def of_moves(
        cls,
        density: Unconstrained,
        proposal: Any,
        weighed: Weighed,
        moved: Moved,
        change: Change,
        notes: tuple[str, ...],
    ) -> PosteriorFit:
        """From draws that were moved by transitions, trusted if these changed little."""
        return cls(
            k_hat=float(weighed.weights.k_hat),
            reliable=bool(change.reliable),
            ess=float(weighed.weights.ess),
            num_draws=weighed.draws.shape[0],
            log_evidence=float("nan"),
            notes=notes,
            draws=_constrained(random.key(1), density, moved.draws[-1000:]),
            density=density,
            proposal=proposal,
            change=change,
            step_size=moved.step_size,
        )

    @classmethod
    def unweighted(
        cls,
        density: Unconstrained,
        proposal: Any,
        vectors: jax.Array,
        notes: tuple[str, ...],
    ) -> PosteriorFit:
        """From draws that have no weights, since the density is only known with noise."""
        nan = float("nan")
        draws = _constrained(random.key(1), density, vectors)
        return cls(nan, False, nan, len(vectors), nan, notes, draws, density, proposal)

    def sample(self, key: jax.Array, num_samples: int) -> dict[str, jax.Array]:
        """Draws from the posterior: fresh draws, resampled by their importance weights.

        Where transitions are used in place of weights, they are fresh draws after these.
        Weights of which few draws would be left (an infinite mean, or fewer than 50 effective
        draws) are not used: the draws are then those of the approximation itself.

        Args:
            key: randomness.
            num_samples: how many.

        Returns:
            values by site, constrained, deterministic sites included, with a leading axis; what
            `bayesjx.to_datatree` takes as a posterior.

        Raises:
            ValueError: `num_samples` is not a positive integer.
        """
        check_key(key)
        num_samples = whole_number("num_samples", num_samples)
        draw_key, choice_key = random.split(key)
        site_key = random.fold_in(key, 0)  # of the discrete sites
        if self.change is not None:
            vectors = moved_draws(
                draw_key, self.density, self.proposal, self.step_size, int(num_samples)
            )
            return _constrained(site_key, self.density, vectors)
        if not _weighted(self.k_hat, self.ess):
            vectors = self.proposal.sample(draw_key, int(num_samples))
            return _constrained(site_key, self.density, vectors)
        blocks = [
            weigh(block_key, self.density, self.proposal, POOL)
            for block_key in random.split(draw_key, -(-2 * int(num_samples) // POOL))
        ]
        vectors = jnp.concatenate([block.draws for block in blocks])
        log_weights = [block.weights.log_weights + block.log_evidence for block in blocks]
        chosen = resampled(choice_key, jnp.concatenate(log_weights), int(num_samples))
        return _constrained(site_key, self.density, vectors[chosen])

    def log_density(self, values: Mapping[str, Any]) -> jax.Array:
        """Log density, at values of the latent sites, of what the importance draws come from.

        A normalised density over the constrained values; `sample` corrects it by the weights.

        Args:
            values: one value for each latent site.

        Raises:
            ValueError: a site is missing or unknown, or a value has the wrong shape.
        """
        _check_values(self.density, values)
        return _log_density(self.density, self.proposal, dict(values))

    def to_datatree(self, **options: Any) -> Any:
        """`draws` as an `xarray.DataTree`, with the verdict among its attributes.

        Args:
            **options: of `bayesjx.to_datatree`.
        """
        attrs = {
            "k_hat": self.k_hat,
            "reliable": int(self.reliable),
            "effective_draws": self.ess,
            "log_evidence": self.log_evidence,
            "notes": "; ".join(self.notes),
        }
        attrs.update(options.pop("attrs", None) or {})
        return to_datatree(self.draws, attrs=attrs, **options)

    @property
    def verdict(self) -> str:
        """Whether to trust the fit, and what to do if not."""
        if np.isnan(self.k_hat):
            return (
                "not checked: with minibatches there are no importance weights. Fit again on all "
                "data, or compare with longer runs"
            )
        if self.density.dim == 0:
            return "is exact"
        share = f"k-hat {self.k_hat:.2f}, {self.ess:.0f} effective draws of {self.num_draws}"
        if self.change is not None:
            share = (
                f"by {TRANSITIONS} transitions of Hamiltonian Monte Carlo from its draws: they "
                f"changed means by {float(self.change.mean):.2f} sd and sds by "
                f"{100 * float(self.change.sd):.0f} %; k-hat of the weights {self.k_hat:.1f}"
            )
        if self.reliable:
            return f"can be trusted ({share})"
        if self.change is None and self.k_hat < 1 and self.ess > 0.8 * self.num_draws:
            # Tails a little heavier than those of the proposal.
            return (
                f"do not trust its tails ({share}): most draws are effective, so that means are "
                "likely right, but tails and what depends on them, as standard deviations of "
                "scales, are not covered. NUTS would tell"
            )
        return (
            f"do not trust it ({share}): the posterior is not covered. What may help: the "
            "non-centred form of sites that are drawn with a scale to be learnt, priors that keep "
            "scales away from 0, a flow (vi.FlowGuide), or NUTS"
        )

    def __repr__(self) -> str:
        lines = [f"PosteriorFit {self.verdict}"]
        lines += [f"  note: {note}" for note in self.notes]
        lines += _table(self._ordered_draws())
        return "\n".join(lines)

    def _ordered_draws(self) -> dict[str, np.ndarray]:
        """Continuous latent sites, then discrete and deterministic ones."""
        sites = [site.name for site in self.density.sites]
        sites += [name for name in self.density.shapes if name not in sites]
        rest = [name for name in sorted(self.draws) if name not in sites]
        return {name: np.asarray(self.draws[name]) for name in sites + rest if name in self.draws}


def _table(draws: dict[str, np.ndarray]) -> list[str]:
    """Means and standard deviations, the first few of each site if there are many."""
    total = sum(values[0].size for values in draws.values())
    each = total if total <= _ROWS else max(_ROWS // max(len(draws), 1), 2)
    rows = []
    for name, values in draws.items():
        flat = values.reshape(len(values), -1)
        for i in range(min(flat.shape[1], each)):
            index = np.unravel_index(i, values.shape[1:]) if values.ndim > 1 else ()
            label = name + (f"[{', '.join(map(str, index))}]" if index else "")
            rows.append((label, flat[:, i].mean(), flat[:, i].std()))
    rows = rows[: 2 * _ROWS]
    width = max((len(row[0]) for row in rows), default=0)
    lines = [f"  {'':<{width}}  {'mean':>10}  {'sd':>10}"]
    lines += [f"  {label:<{width}}  {m:>10.4g}  {s:>10.4g}" for label, m, s in rows]
    if len(rows) < total:
        lines.append(f"  and {total - len(rows)} more")
    return lines


@eqx.filter_jit
def _constrained(
    key: jax.Array, density: Unconstrained, vectors: jax.Array
) -> dict[str, jax.Array]:
    """Values by site; `lax.map` has no empty ones."""
    keys = None if density.discrete is None else random.split(key, len(vectors))

    def draw(pair: tuple[jax.Array, Any]) -> dict[str, jax.Array]:
        vector, own = pair
        return density.draw(vector, key if own is None else own)

    def some(pair: tuple[jax.Array, Any]) -> dict[str, jax.Array]:
        return {name: value for name, value in draw(pair).items() if jnp.size(value)}

    shapes = jax.eval_shape(
        lambda pairs: draw(jax.tree.map(lambda x: x[0], pairs)), (vectors, keys)
    )
    empty = {
        name: jnp.zeros((len(vectors), *shape.shape), shape.dtype)
        for name, shape in shapes.items()
        if 0 in shape.shape
    }
    return {**jax.lax.map(some, (vectors, keys), batch_size=_BATCH), **empty}


@eqx.filter_jit
def _log_density(density: Unconstrained, proposal: Any, values: dict[str, Any]) -> jax.Array:
    vector, log_jacobian = density.unconstrain(values)
    out = proposal.log_prob(vector[None])[0] - log_jacobian
    if density.discrete is not None:  # their exact conditional
        out += density.cost(values).total - density.log_density(values)
    return out


def _in_doubt(density: Unconstrained, weighed: Weighed) -> str:
    """The sites that lie farthest out, on their scales, in the draws of the largest weights."""
    draws, ratios = np.asarray(weighed.draws), np.asarray(weighed.log_ratios)
    top = np.argsort(-np.where(np.isnan(ratios), -np.inf, ratios))[: len(draws) // 100]
    middle, scale = np.median(draws, axis=0), draws.std(axis=0)
    scores = np.mean(((draws[top] - middle) / scale) ** 2, axis=0)
    worst = [density.name_of(int(i)) for i in np.argsort(-scores) if scores[i] > scores.max() / 2]
    names = " and ".join(repr(name) for name in list(dict.fromkeys(worst))[:3])
    return f"the largest weights are where {names} lie far out: see to their priors and forms"


def _weighted(k_hat: float, ess: float) -> bool:
    """Whether weights are of use; others would leave a few draws, many times each."""
    return k_hat < 1 and ess >= 50


def _check_values(density: Unconstrained, values: Mapping[str, Any]) -> None:
    shapes = density.shapes
    if density.local:
        raise ValueError(f"log_density: {list(density.local)} lie in a subsampled plate")
    if not isinstance(values, Mapping) or set(values) != set(shapes):
        got = sorted(values) if isinstance(values, Mapping) else type(values).__name__
        raise ValueError(f"values must have the latent sites {sorted(shapes)}, got {got}")
    for name, shape in shapes.items():
        if jnp.shape(values[name]) != shape:
            raise ValueError(
                f"values[{name!r}] must have shape {shape}, got "
                f"{jnp.shape(values[name])}; map over draws with jax.vmap"
            )
