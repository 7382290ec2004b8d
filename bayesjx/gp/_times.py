"""Inputs along one axis of time, where processes have state spaces and cost is linear."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from numpyro import distributions as dist

from ..ssm import MarkovPosterior
from ._posterior import AbstractPosterior
from ._process import GP
from ._time_inputs import Times


class TimesPosterior(AbstractPosterior):
    """The exact posterior given noisy values at times, in linear time.

    Attributes:
        prior: the process before data.
        process: the posterior of what it differs from its mean by, with draws in linear time.
        y: the observations, shape `(n,)`.
    """

    prior: GP
    process: MarkovPosterior
    y: jax.Array

    def moments(self, x: Any) -> tuple[jax.Array, jax.Array]:
        mean, variance = self.process.moments(_plain(x))
        return self.prior.mean_at(x) + mean, variance

    def covariance(self, x: Any) -> jax.Array:
        # Each column is what the posterior mean would be, had its prior covariances been the data.
        times = _plain(x)
        data = jnp.asarray(self.process.observed_times())
        cross = self.prior.kernel.gram(jnp.asarray(times), data)
        explained = self.process.means_given(cross, times)
        return self.prior.kernel.gram(jnp.asarray(times)) - 0.5 * (explained + explained.T)

    def log_evidence(self) -> jax.Array:
        """Log marginal likelihood of the data, scalar."""
        return self.process.log_evidence()

    def leave_one_out(self) -> dist.Normal:
        """The law of each observation given all others, a normal of shape `(n,)`."""
        return self.process.leave_one_out()


def times_posterior(prior: GP, x: Times, y: Any, mask: Any) -> TimesPosterior:
    """The posterior of a process given observations at times; see `condition`."""
    process = prior.in_time(x, mask).condition(y)
    return TimesPosterior(prior, process, jnp.asarray(y))


def _plain(x: Any) -> Any:
    """Times `(m,)`, in double precision where they are known."""
    times = x.times if isinstance(x, Times) else x
    if jnp.ndim(times) == 2 and jnp.shape(times)[1] == 1:
        times = times[:, 0]
    return times
