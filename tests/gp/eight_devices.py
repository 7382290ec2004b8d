"""Steps on a minibatch spread over eight devices, and the same on one; see `test_sharding.py`."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpyro import distributions as dist

import bayesjx
from bayesjx import gp, kernels

jax.config.update("jax_enable_x64", True)

N, STEPS = 64, 5
KEY = jax.random.key(0)
x = np.random.default_rng(0).normal(size=(N, 2))
y = np.sin(2 * x[:, 0])
kernel = kernels.RBF(jnp.array([1.0, 1.5]))
observed, hidden = gp.GP(kernel, noise_var=0.1), gp.GP(kernel)


def label(f):
    return dist.Bernoulli(logits=f)


CASES = {
    "adam": (gp.SVGP(observed, inducing_points=x[:7]), gp.svgp_adam, y),
    "natgrad": (
        gp.SVGP(hidden, label, inducing_points=x[:7]),
        gp.svgp_natgrad,
        (y > 0).astype(float),
    ),
    "decoupled": (
        gp.DecoupledSVGP(observed, inducing_points=x[:7], orthogonal_points=x[7:12]),
        gp.svgp_natgrad,
        y,
    ),
}

mesh = Mesh(np.array(jax.devices()), ("data",))
spread = NamedSharding(mesh, PartitionSpec("data"))
print(len(jax.devices()))
for name, (svgp, make, values) in CASES.items():
    # Not Adam, whose first step is the sign of the gradient, rounding where that is nearly zero.
    algorithm = make(svgp, optax.sgd(1e-4), num_data=2 * N)
    data = (x, values)
    spread_data = jax.device_put(data, spread)
    ends = [
        bayesjx.fit(KEY, algorithm, algorithm.init(), STEPS, data=data).state
        for data in (data, spread_data)
    ]
    for one, many in zip(*map(jax.tree.leaves, ends), strict=True):
        np.testing.assert_allclose(many, one, rtol=1e-9, atol=1e-10)
    step = jax.jit(algorithm.step).lower(KEY, algorithm.init(), *spread_data)
    text = step.compile().as_text()
    # A device has an eighth of the batch, and nothing of it is gathered.
    assert f"f64[7,{N // 8}]" in text and "all-reduce" in text and "all-gather" not in text
    print(name)
