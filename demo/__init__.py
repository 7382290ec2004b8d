"""`python -m demo`: real data fitted by programmable variational inference, beside NUTS.

The last part, `demo.grids`, has a covariance of `bayesjx.ops` under both.

Every part is one file with a function `run(study)`; `demo/__main__.py` lists them.
"""
