"""`python -m demo`: real data fitted by programmable variational inference, beside NUTS.

`demo.grids` has a covariance of `bayesjx.ops` under both, `demo.processes` a Gaussian process of
`bayesjx.gp`, and `demo.cycles` a state-space model of `bayesjx.ssm`.

Every part is one file with a function `run(study)`; `demo/__main__.py` lists them.
"""
