"""The oracle of these tests: the dense joint normal distribution of all observations."""

import jax.numpy as jnp
import numpy as np
from numpyro import distributions as dist


def covariance(kernel, mixing, times):
    """Of the function at times, or of all outputs at them, times first."""
    if mixing is None:
        return kernel.gram(jnp.asarray(times))
    parts = [one.gram(jnp.asarray(times)) for one in kernel]
    total = sum(
        jnp.einsum("st,i,j->sitj", part, mixing[:, q], mixing[:, q]) for q, part in enumerate(parts)
    )
    return total.reshape(len(times) * len(mixing), -1)


def log_prob(cov, noise_var, y, mask):
    """The log density of what was observed."""
    seen = np.flatnonzero(mask)
    noise_var = jnp.broadcast_to(noise_var, np.shape(mask)).reshape(-1)
    total = (cov + jnp.diag(noise_var))[seen][:, seen]
    return dist.MultivariateNormal(jnp.zeros(len(seen)), total).log_prob(y.reshape(-1)[seen])


def conditional(cov, noise_var, y, seen, wanted):
    """Mean and covariance of some entries given noisy values of others, in NumPy."""
    cov = np.asarray(cov)
    data = cov[np.ix_(seen, seen)] + np.diag(np.broadcast_to(noise_var, len(seen)))
    gain = np.linalg.solve(data, cov[np.ix_(seen, wanted)]).T
    return gain @ y, cov[np.ix_(wanted, wanted)] - gain @ cov[np.ix_(seen, wanted)]
