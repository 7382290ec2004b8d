"""Mistakes planted in `bayesjx.vi`."""

from mutant import Mutant

PACKAGE = "vi"
UNBIASED = "tests/vi/test_unbiased.py"
OBJECTIVES = "tests/vi/test_objectives.py"
MUTANTS = [
    Mutant(
        "constant of the measure-valued derivative in the mean",
        "vi/_strategies/_measure_valued.py",
        "(scale * math.sqrt(2 * math.pi))",
        "(scale * math.sqrt(math.pi))",
        "tests/vi/test_unbiased_programs.py -k mvd",
    ),
    Mutant(
        "sign of the measure-valued derivative of a Bernoulli site",
        "vi/_strategies/_measure_valued.py",
        "jnp.where(site.value == 0, slope, -slope)",
        "jnp.where(site.value == 0, -slope, slope)",
        f"{UNBIASED} -k mvd",
    ),
    Mutant(
        "leave-one-out baseline that contains the draw itself",
        "vi/_strategies/_multi_sample.py",
        "jnp.mean(costs, axis=0)) / (k - 1)",
        "jnp.mean(costs, axis=0)) / k",
        f"{UNBIASED} -k rloo",
    ),
    Mutant(
        "weight of DisARM without its absolute value",
        "vi/_strategies/_multi_sample.py",
        "jax.nn.sigmoid(jnp.abs(logits))",
        "jax.nn.sigmoid(logits)",
        f"{UNBIASED} -k disarm",
    ),
    Mutant(
        "a weight that depends on the draw leaves the score out",
        "vi/_estimator/_cost.py",
        "self.detached and constant,",
        "self.detached,",
        "tests/vi/test_cost.py",
    ),
    Mutant(
        "infinite costs make a score NaN",
        "vi/_estimator/_surrogate.py",
        "signal = jnp.where(jnp.isinf(signal), 0.0, signal)",
        "signal = signal + 0.0",
        "tests/vi/test_degenerate_weights.py tests/vi/test_errors.py",
    ),
    Mutant(
        "a moving average with its weights exchanged",
        "vi/_strategies/_score.py",
        "else self.baseline.decay * state + (1 - self.baseline.decay) * mean",
        "else (1 - self.baseline.decay) * state + self.baseline.decay * mean",
        "tests/vi/test_variance.py -k moving_average",
    ),
    Mutant(
        "log of the mean weight without the number of particles",
        "vi/_estimator/_particles.py",
        "bound = log_sum(log_weights, axis=axis, keepdims=True) - jnp.log(n).astype(",
        "bound = log_sum(log_weights, axis=axis, keepdims=True) - 0 * jnp.log(n).astype(",
        "tests/vi/test_particles.py -k 'log_mean_exp_is or one_particle'",
    ),
    Mutant(
        "first powers of the shares along the path (DReG)",
        "vi/_objectives/_multi_bounds.py",
        "weighted_sum(share**2, path)",
        "weighted_sum(share, path)",
        f"{OBJECTIVES} -k formula",
    ),
    Mutant(
        "a covariance of a thermodynamic sum around the draws' own mean",
        "vi/_objectives/_multi_bounds.py",
        "centred = centred if beta else centred * num_particles / (num_particles - 1)",
        "centred = centred * 1.0",
        f"{OBJECTIVES} -k formula",
    ),
    Mutant(
        "analytic entropies without the scale of a minibatch",
        "vi/_objectives/_entropy.py",
        "jnp.broadcast_to(-scale * entropy, term.value.shape)",
        "jnp.broadcast_to(-entropy, term.value.shape)",
        "tests/vi/test_families_entropy.py -k minibatch",
    ),
    Mutant(
        "sign of the scores of resampled indices",
        "vi/_objectives/_filtering.py",
        "score = score + jnp.sum(out.index_score * after)",
        "score = score - jnp.sum(out.index_score * after)",
        "tests/vi/test_fivo.py -k unbiased",
    ),
    Mutant(
        "weight of the shift in batch and match",
        "vi/_posterior/_batch_and_match.py",
        "share = jnp.sqrt(weight / (1 + weight))",
        "share = jnp.sqrt(weight)",
        "tests/vi/test_batch_and_match.py",
    ),
    Mutant(
        "copies of a minibatch draw different rows",
        "vi/_estimator/_particles.py",
        "settings = Settings(parent.plate_key, parent.states, parent.maximise, prefix)",
        "settings = Settings(None, parent.states, parent.maximise, prefix)",
        "tests/vi/test_expectation.py -k a_minibatch_is_one",
    ),
]
