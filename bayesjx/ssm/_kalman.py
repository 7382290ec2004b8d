"""The Kalman filter and the Rauch-Tung-Striebel smoother of any state space."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from . import _process as process
from ._inputs import numbers
from ._markov_gp import MarkovGP
from ._state_space import HARMONICS


class StateMoments(NamedTuple):
    """Means and covariances of the states at each time, by `kalman_filter` or `rts_smoother`.

    Attributes:
        means: of the states, shape `(n, d)`.
        covs: their covariances, shape `(n, d, d)`.
        log_prob: log density of all observations, scalar.
    """

    means: Float[Array, "n d"]
    covs: Float[Array, "n d d"]
    log_prob: Float[Array, ""]


def kalman_filter(
    space: Any,
    times: Any,
    y: Any,
    mask: Any = None,
    *,
    noise_var: Any,
    mixing: Any = None,
    backend: str = "auto",
    harmonics: int = HARMONICS,
) -> StateMoments:
    r"""The Kalman filter: states given the observations up to each time, and the log density.

    For $x(t') = A x(t) + \epsilon$, $\epsilon \sim N(0, Q)$, and $y_k = h^T x(t_k) + r_k$,
    $r_k \sim N(0, R_k)$, where the state space says $A$, $Q$, $h$ and the distribution of the first
    state. Differentiable in all arrays, in both modes, and traceable.

    Args:
        space: a state space, from `state_space` or one's own, or a kernel that has one, with `d`
            states; with `mixing` a sequence of `q` of them, whose states follow one another.
        times: shape `(n,)`, irregular or not; times may coincide. See `MarkovGP` for their order.
        y: observations, shape `(n,)`, or `(n, p)` with `mixing`.
        mask: booleans `(n,)`, or `(n, p)`, which values are observed; others may be anything.
        noise_var: variances $R$ of the noise, not negative, scalar or `(n,)`; of several outputs
            also `(p,)` or `(n, p)`.
        mixing: the matrix $W$ of outputs $W (h_1^T x_1, \dots, h_q^T x_q)$, shape `(p, q)`.
        backend: see `MarkovGP`; "associative" is the parallel filter, whose span is logarithmic in
            `n`. "steady" is for densities alone.
        harmonics: of `Periodic` kernels, see `state_space`.

    Returns:
        Means, covariances and the log density, in the order of the times as they are given. States
        are those of the space, in its own coordinates; NaN before the process begins.

    Raises:
        ValueError: see `MarkovGP` and its `condition`, and `backend="steady"`.

    References:
        Kalman (1960), "A new approach to linear filtering and prediction problems", Journal of
        Basic Engineering; Särkkä and García-Fernández (2021), "Temporal parallelization of Bayesian
        smoothers", IEEE Transactions on Automatic Control.
    """
    options = {"noise_var": noise_var, "mixing": mixing, "backend": backend, "harmonics": harmonics}
    return _states(space, times, y, mask, options, smoothed=False)


def rts_smoother(
    space: Any,
    times: Any,
    y: Any,
    mask: Any = None,
    *,
    noise_var: Any,
    mixing: Any = None,
    backend: str = "auto",
    harmonics: int = HARMONICS,
) -> StateMoments:
    """The Rauch-Tung-Striebel smoother: states given all observations, and the log density.

    Arguments and errors are those of `kalman_filter`. The recursion is that of Bryson and Frazier,
    which gives the same moments and inverts no covariance: a state without process noise, or times
    that coincide, are no exception.

    Returns:
        Means, covariances and the log density, in the order of the times as they are given.

    References:
        Rauch, Tung and Striebel (1965), "Maximum likelihood estimates of linear dynamic systems",
        AIAA Journal; Bierman (1973), "Fixed interval smoothing with discrete measurements",
        International Journal of Control, for the recursion.
    """
    options = {"noise_var": noise_var, "mixing": mixing, "backend": backend, "harmonics": harmonics}
    return _states(space, times, y, mask, options, smoothed=True)


def _states(
    space: Any, times: Any, y: Any, mask: Any, options: dict[str, Any], smoothed: bool
) -> StateMoments:
    if options["backend"] == "steady":
        raise ValueError('backend="steady" is for densities alone, take another one')
    prior = MarkovGP(space, times, mask=mask, **options)
    if np.shape(numbers("y", y)) != prior.event_shape:
        raise ValueError(f"y must have shape {prior.event_shape}, got {np.shape(y)}")
    prior.refuse_gaps(y)
    prior.refuse_coincident()
    series = prior.series(y)
    (means, covs), total = process.states(prior.plan, prior.space, series, prior.readout, smoothed)
    defined = prior.space.defined(prior.before + prior.steps)
    means = jnp.where(defined[:, None], means, jnp.nan)
    covs = jnp.where(defined[:, None, None], covs, jnp.nan)
    if prior.order is not None:
        means, covs = means[prior.order[1]], covs[prior.order[1]]
    return StateMoments(means, covs, total)
