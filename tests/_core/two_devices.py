"""A fit whose data lie on two devices, saved and resumed, beside one on a single device."""

import shutil
import tempfile
import warnings

import core_problems as problems
import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from bayesjx._core import fit

if __name__ == "__main__":
    key, state, data = jax.random.key(0), problems.start("float32"), problems.rows("float32", 16)
    mesh = jax.make_mesh((2,), ("rows",))  # whose axes are explicit
    spread = jax.device_put(data, NamedSharding(mesh, PartitionSpec("rows")))
    want = fit(key, problems.regression(), state, 30, data=data)
    with tempfile.TemporaryDirectory() as folder:
        for num_steps in (15, 30):
            got = fit(
                key,
                problems.regression(),
                state,
                num_steps,
                data=spread,
                checkpoint=f"{folder}/fit",
            )
            shutil.copy(f"{folder}/fit", f"{folder}/one")  # of 15 steps, then of 30
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                algorithm = problems.regression()
                one = fit(key, algorithm, state, 30, data=data, checkpoint=f"{folder}/one")
            assert one.resumed_from == num_steps
            assert ["2 devices (data[0] by" in str(w.message) for w in caught] == [True]
            np.testing.assert_allclose(
                one.info.objective, want.info.objective, rtol=1e-4, atol=1e-5
            )
    np.testing.assert_allclose(got.info.objective, want.info.objective, rtol=1e-4, atol=1e-5)
    print(len(got.state.params["slope"].sharding.device_set), "resumed", got.resumed_from)
