"""EM steps on data spread over eight devices and on one; see `test_sparse_coding.py`."""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bayesjx import sbl

jax.config.update("jax_enable_x64", True)

N, D, H = 64, 5, 4
rng = np.random.default_rng(0)
y, weights = 2 * rng.normal(size=(N, D)), 2 * rng.normal(size=(H, D))
few = {"num_candidates": 3, "max_active": 2}
MODELS = {
    "BSC": sbl.BSC(weights, 1.3, 0.3, **few),
    "MCA": sbl.MCA(abs(weights), 1.3, 0.3, **few),
    "GSC": sbl.GSC(weights, 1.3, 0.3, **few),
}

mesh = Mesh(np.array(jax.devices()), ("data",))
spread = jax.device_put(y, NamedSharding(mesh, PartitionSpec("data")))
print(len(jax.devices()))
for name, model in MODELS.items():
    for options in ({}, {"chunk_size": 16}) if name == "BSC" else ({},):
        algorithm = sbl.truncated_em(model, temperature=1.5, cut=1.0, **options)
        step = jax.jit(algorithm.step)
        ends = [step(None, algorithm.init(), data) for data in (y, spread)]
        for one, many in zip(*map(jax.tree.leaves, ends), strict=True):
            np.testing.assert_allclose(many, one, rtol=1e-9, atol=1e-11)
    text = step.lower(None, algorithm.init(), spread).compile().as_text()
    # A device has an eighth of the data, and no more of them, or of their posteriors, come to it.
    assert f"f64[{N // 8},{D}]" in text and "all-reduce" in text
    assert not [line for line in text.splitlines() if "all-gather" in line and f",{N}]" in line]
    print(name)
