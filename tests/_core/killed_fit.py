"""A fit that takes long, to be killed: python killed_fit.py CHECKPOINT DTYPE NUM_STEPS."""

import sys
import time

import core_problems
import jax

from bayesjx._core import fit

if __name__ == "__main__":
    path, dtype, num_steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
    fit(
        jax.random.key(2),
        core_problems.regression(),
        core_problems.start(dtype),
        num_steps,
        data=core_problems.rows(dtype),
        chunk_size=7,
        checkpoint=path,
        checkpoint_every=0.0,
        callback=lambda info: time.sleep(0.02),
    )
