"""Mistakes planted in turbo variational inference and compact networks of `bayesjx.bnn`."""

from mutant import Mutant

PACKAGE = "bnn"
MUTANTS = [
    Mutant(
        "evidence of an indicator counted in the messages to itself",
        "bnn/_support.py",
        "both = alpha - local + beta",
        "both = alpha + beta",
        "tests/bnn/test_turbo.py -k by_enumeration",
    ),
    Mutant(
        "backward messages multiplied in the other order",
        "bnn/_support.py",
        "swapped = lambda b, a: _chained(a, b)",
        "swapped = lambda b, a: _chained(b, a)",
        "tests/bnn/test_turbo.py -k by_enumeration",
    ),
    Mutant(
        "precision of the slab without the weight's own half",
        "bnn/_spike.py",
        "slab, spike = (a + 0.5) / (b + square / 2)",
        "slab, spike = a / (b + square / 2)",
        "tests/bnn/test_turbo.py -k fixed_point",
    ),
    Mutant(
        "squares of weights without their variances",
        "bnn/_turbo_linear.py",
        "square = weights.mean**2 + weights.variance",
        "square = weights.mean**2",
        "tests/bnn/test_turbo.py -k fixed_point",
    ),
    Mutant(
        "the chain in use from the first step",
        "bnn/_spike.py",
        "part >= 0.25",
        "part >= 0.0",
        "tests/bnn/test_turbo.py -k finds_a_run",
    ),
    Mutant(
        "density of a grid counted twice",
        "bnn/_turbo_network.py",
        "return (rows + columns - density).reshape(said.shape)",
        "return (rows + columns).reshape(said.shape)",
        "tests/bnn/test_turbo.py -k grids",
    ),
    Mutant(
        "values of constant units lost",
        "bnn/_compact.py",
        "moved = after.weight[:, fixed] @ constant[fixed]",
        "moved = 0 * after.weight[:, fixed] @ constant[fixed]",
        "tests/bnn/test_turbo.py -k constant",
    ),
    Mutant(
        "weights that were pruned come back",
        "bnn/_fine_tune.py",
        "leaf if mask is None else jnp.where(mask, leaf, 0)",
        "leaf",
        "tests/bnn/test_turbo.py -k 'fine_tuning and None'",
    ),
    Mutant(
        "biases that are zero stay",
        "bnn/_fine_tune.py",
        "return leaf != 0 if is_weight and path[-1:] != (BIAS,) else None",
        "return leaf != 0 if eqx.is_inexact_array(leaf) else None",
        "tests/bnn/test_turbo.py -k 'fine_tuning and None'",
    ),
    Mutant(
        "fine-tuning without the prior",
        "bnn/_fine_tune.py",
        "x, y, num_data, prior, leaves, key)",
        "x, y, num_data, None, leaves, key)",
        "tests/bnn/test_turbo.py -k 'fine_tuning and 0.5'",
    ),
]
