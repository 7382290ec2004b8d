"""Mistakes planted in the curvature of functions and networks, and in Laplace's approximation."""

from mutant import Mutant

LAPLACE = "tests/bnn/test_network_laplace.py -k 'dense_gaussian and {}'"
FACTORS = "tests/bnn/test_kronecker.py -k 'exact and {}'"
MATRIX = "tests/ops/test_gauss_newton.py -k 'dense_matrix and {}'"
INFORMATION = "tests/likelihoods/test_information.py -k 'formula and {}'"
CALIBRATION = "tests/bnn/test_network_laplace.py -k 'held_out_density and {}'"
MUTANTS = [
    Mutant(
        "data after the last whole chunk forgotten",
        "_core/_chunks.py",
        "    if not rest:\n        return total\n",
        "    return total\n",
        MATRIX.format("diag"),
    ),
    Mutant(
        "the root of a categorical covariance without its outer product",
        "ops/_weight_roots.py",
        "return (_sqrt(root.probs) * (f - root.probs @ f).T).T",
        "return (_sqrt(root.probs) * f.T).T",
        MATRIX.format("categorical"),
    ),
    Mutant(
        "blocks of a weight by roots of eigenvalues on the wrong side",
        "ops/_weight_roots.py",
        "return vectors * _sqrt(values)[:, None]",
        "return vectors * _sqrt(values)[:, :, None]",
        MATRIX.format("blocks"),
    ),
    Mutant(
        "the information of a distribution's two parameters counted once",
        "likelihoods/_information.py",
        "blocks += part if a == b else part + part.mT",
        "blocks += part",
        INFORMATION.format("gamma"),
    ),
    Mutant(
        "Fisher information in logits that are not the function",
        "likelihoods/_information.py",
        "return jaxpr.outvars[0] is jaxpr.invars[0]",
        "return True",
        INFORMATION.format("tempered"),
    ),
    Mutant(
        "calls by vmap counted once",
        "bnn/_taps.py",
        "one = jnp.where(jnp.isnan(cotangent.reshape(-1)[0]), 1, 1).astype(inputs.dtype)",
        "one = jnp.ones((), inputs.dtype)",
        FACTORS.format("averaged"),
    ),
    Mutant(
        "a layer in a loop taken for one that is called once",
        "bnn/_taps.py",
        "repeated = len(made) > 1 or any(state != outside[0] for _, state in made)",
        "repeated = len(made) > 1",
        "tests/bnn/test_kronecker.py -k 'exact and turn'",
    ),
    Mutant(
        "positions of a convolution not counted",
        "bnn/_kronecker.py",
        "places = view.count * positions",
        "places = view.count",
        FACTORS.format("convolution"),
    ),
    Mutant(
        "the evidence without the prior's normalisation",
        "bnn/_laplace_evidence.py",
        "fit + 0.5 * (sizes @ jnp.log(precision) - squares @ precision)",
        "fit - 0.5 * (squares @ precision)",
        LAPLACE.format("full-classes"),
    ),
    Mutant(
        "one prior precision for all Kronecker blocks",
        "bnn/_layer_structures.py",
        "total = [scale * v + precision[i] for v, i in pairs]",
        "total = [scale * v + precision[0] for v, i in pairs]",
        LAPLACE.format("kron-classes"),
    ),
    Mutant(
        "the weights of the smallest variance in a subnetwork",
        "bnn/_laplace.py",
        "jax.lax.top_k(-(scale * diagonal + precision[layer]), count)",
        "jax.lax.top_k(scale * diagonal + precision[layer], count)",
        LAPLACE.format("subnetwork"),
    ),
    Mutant(
        "curvature that does not scale with the noise",
        "bnn/_laplace_tune.py",
        "scale = one if hyper.noise_var is None else hyper.noise_var**-power",
        "scale = one",
        "tests/bnn/test_network_laplace.py -k 'largest_evidence and kron and False'",
    ),
    Mutant(
        "the linear model's mean without its step",
        "bnn/_laplace_posterior.py",
        "f if self.shift is None else f + jacobian.mv(self.shift)",
        "f",
        "tests/bnn/test_network_laplace.py -k 'regression and full-20'",
    ),
    Mutant(
        "Kronecker factors that are both sums over the data",
        "bnn/_kronecker.py",
        "Factors(b, a / jnp.maximum(number, 1))",
        "Factors(b, a)",
        LAPLACE.format("kron-classes"),
    ),
    Mutant(
        "draws of Kronecker-structured weights by variances",
        "bnn/_layer_structures.py",
        "parts.append(part / jnp.sqrt(v))",
        "parts.append(part / v)",
        "tests/bnn/test_network_laplace.py -k 'averages_over_draws'",
    ),
    Mutant(
        "calibration by the smallest density",
        "bnn/_laplace_calibrate.py",
        "factors[jnp.argmax(jnp.where(jnp.isnan(found), -jnp.inf, found))]",
        "factors[jnp.argmin(found)]",
        CALIBRATION.format("network"),
    ),
    Mutant(
        "calibration that forgets the prior precision that there was",
        "bnn/_laplace_calibrate.py",
        "factor * posterior.prior_precision",
        "factor * jnp.ones_like(posterior.prior_precision)",
        CALIBRATION.format("network"),
    ),
    Mutant(
        "calibration around the network where the linear model's mean was asked for",
        "bnn/_laplace_calibrate.py",
        'mean = "network" if posterior.shift is None else "linear"',
        'mean = "network"',
        CALIBRATION.format("linear"),
    ),
]
