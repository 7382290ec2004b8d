"""`python -m demo`: real data fitted by programmable variational inference, beside NUTS.

Every part is one file with a function `run(study)`; `demo/__main__.py` lists them.
"""
