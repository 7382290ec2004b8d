"""`python -m demo`: real data fitted by programmable variational inference, beside NUTS.

`demo.grids` has a covariance of `bayesjx.ops` under both, `demo.processes` a Gaussian process of
`bayesjx.gp`, `demo.cycles` a state-space model of `bayesjx.ssm`, `demo.sparse` a marginal
likelihood of `bayesjx.sbl`, `demo.networks` a neural network by `bayesjx.bnn`, `demo.tables` a
trained network of `bayesjx.amortized`, and `demo.martingale` martingale posteriors.

Every part is one file with a function `run(study)`; `demo/__main__.py` lists them.
"""

import os
from importlib.metadata import version

# Most of what a part takes is compilation, and loops written by XLA's older emitters compile in
# half the time. Newer releases have them no more, and end the process at an option that they do
# not know.
_QUICK = "--xla_cpu_use_fusion_emitters=false"
if version("jaxlib").startswith("0.10.") and _QUICK not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_QUICK}"
