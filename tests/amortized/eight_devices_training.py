"""Training steps whose data sets are spread over eight devices are those of one device."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec

import bayesjx
from bayesjx import amortized


def prior(key):
    x = jax.random.normal(key, (12, 1))
    return amortized.Task(x, jnp.sin(x[:, 0]))


network = amortized.PFN(1, amortized.NormalHead(), key=jax.random.key(0), width=8, depth=1, heads=2)
over = NamedSharding(jax.make_mesh((8,), ("data",)), PartitionSpec("data"))
scores = []
for sharding in (None, over):
    algorithm = amortized.pfn_training(
        network, prior, optax.adam(1e-2), num_queries=4, batch_size=16, sharding=sharding
    )
    fit = bayesjx.fit(jax.random.key(1), algorithm, algorithm.init(), 5)
    scores.append(fit.info.objective)
np.testing.assert_allclose(*scores, rtol=1e-4)
assert scores[0][-1] > scores[0][0] + 0.3
print(len(jax.devices()), "the same")
