"""The circularly symmetric normal distribution of complex numbers."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import random
from numpyro.distributions import biject_to, constraints, Distribution
from numpyro.distributions.util import promote_shapes, validate_sample


class _Complex(constraints.ParameterFreeConstraint):
    """All complex numbers, and with them the real ones."""

    def __call__(self, x: Any) -> jax.Array:
        return jnp.isfinite(jnp.real(x)) & jnp.isfinite(jnp.imag(x))

    def feasible_like(self, prototype: jax.Array) -> jax.Array:
        return jnp.zeros_like(prototype)

    def tree_flatten(self) -> Any:
        return (), ((), {})


@biject_to.register(_Complex)
def _(constraint: _Complex) -> Any:
    raise NotImplementedError(
        "ComplexNormal: samplers such as NUTS, and guides, take real sites only; sample the real "
        "and the imaginary part, normal with standard deviation scale / sqrt(2) each, and add them"
    )


class ComplexNormal(Distribution):
    r"""Circularly symmetric complex normal distribution, $CN(\mu, \sigma^2)$.

    Real and imaginary part are independent with the variance $\sigma^2 / 2$ each, so that
    $E \lvert x - \mu \rvert^2 = \sigma^2$. The density
    $\frac{1}{\pi \sigma^2} \exp(-\lvert x - \mu \rvert^2 / \sigma^2)$ is one over the plane; it has
    no halves.

    Args:
        loc: mean, complex, any shape.
        scale: standard deviation $\sigma > 0$, real, of a shape that broadcasts with `loc`.
        validate_args: whether arguments and values are checked, as elsewhere in NumPyro.

    References:
        Goodman (1963), "Statistical analysis based on a certain multivariate complex Gaussian
        distribution", Annals of Mathematical Statistics 34.
    """

    arg_constraints = {"loc": _Complex(), "scale": constraints.positive}
    support = _Complex()
    reparametrized_params = ["loc", "scale"]

    def __init__(self, loc: Any = 0.0, scale: Any = 1.0, *, validate_args: bool | None = None):
        self.loc, self.scale = promote_shapes(jnp.asarray(loc), jnp.asarray(scale))
        batch = jax.lax.broadcast_shapes(jnp.shape(loc), jnp.shape(scale))
        super().__init__(batch_shape=batch, validate_args=validate_args)

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        kind = jnp.result_type(self.loc, self.scale, 1j)  # the default one of Python's numbers
        noise = random.normal(key, sample_shape + self.batch_shape, kind)
        return self.loc + self.scale * noise  # JAX's complex noise is circular, of variance 1

    @validate_sample
    def log_prob(self, value: Any, intermediates: Any = None) -> jax.Array:
        shift = value - self.loc
        square = jnp.real(shift) ** 2 + jnp.imag(shift) ** 2
        return -square / self.scale**2 - jnp.log(jnp.pi * self.scale**2)

    @property
    def mean(self) -> jax.Array:
        return jnp.broadcast_to(self.loc, self.batch_shape)

    @property
    def variance(self) -> jax.Array:
        return jnp.broadcast_to(self.scale**2, self.batch_shape)

    def entropy(self) -> jax.Array:
        """Differential entropy over the plane in nats, of the batch's shape."""
        return jnp.broadcast_to(1 + jnp.log(jnp.pi * self.scale**2), self.batch_shape)
