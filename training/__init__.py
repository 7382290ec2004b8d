"""How the networks that come with the package were trained: `python -m training NAME`."""
