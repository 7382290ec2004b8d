"""Entry points of amortised posteriors and calibration that users call in a loop, as above."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bayesjx import amortized, diagnostics, fit, interop
from benchmarks._repeat_calls import Entry, KEY

N, M, STEPS = 31, 11, 5
NEW = np.linspace(0, 1, M)


def entries() -> list[Entry]:
    """All of them."""
    return [*_networks(), *_processes(), *_resampling(), *_copulas(), *_calibration()]


def rows(i: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and responses with that number."""
    rng = np.random.default_rng(i)
    return rng.uniform(size=N), rng.normal(size=N)


def _table(i: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(i)
    x = rng.normal(size=(N, 3))
    return x, (x[:, 0] + rng.normal(size=N) > 0).astype(int)


def _line(key: jax.Array) -> amortized.Task:
    keys = jax.random.split(key)
    return amortized.Task(jax.random.uniform(keys[0], (7, 1)), jax.random.normal(keys[1], (7,)))


def _networks() -> list[Entry]:
    network = amortized.pretrained("gp")
    transformer = amortized.DistributionTransformer(1, 1, 2, key=KEY, width=8, depth=1, heads=2)

    def mixture(i: int) -> amortized.GaussianMixture:
        loc = jnp.asarray(np.random.default_rng(i).normal(size=(2, 1)))
        return amortized.GaussianMixture(jnp.zeros(2), loc, jnp.ones((2, 1, 1)))

    def classified(i: int) -> Any:
        x, labels = _table(i)
        return interop.PFNClassifier(n_estimators=2).fit(x, labels).predict_proba(x[:M])

    def trained(i: int) -> Any:
        # Another network of the same shapes.
        made = amortized.PFN.for_prior(
            jax.random.key(i), _line, num_queries=3, width=8, depth=1, heads=2
        )
        algorithm = amortized.pfn_training(made, _line, optax.adam(0.01 + 1e-4 * i), batch_size=4)
        return fit(KEY, algorithm, algorithm.init(), STEPS).state.params

    return [
        Entry("PFN.condition", lambda i: network.condition(*rows(i)).predict(NEW).mean, True),
        Entry("PFNClassifier.predict_proba", classified),
        Entry("pfn_training", trained),
        Entry("DistributionTransformer", lambda i: transformer(mixture(i), jnp.ones((3, 1))).mean),
        Entry(
            "condition_mixture",
            lambda i: amortized.condition_mixture(mixture(i), jnp.ones(1), jnp.eye(1), jnp.eye(1))[
                1
            ],
        ),
    ]


def _processes() -> list[Entry]:
    attentive = amortized.CANP(1, key=KEY, width=8, depth=2, heads=2, num_layers=1)
    martingale = amortized.MPNP(1, key=KEY, width=8, depth=2)

    def judged(i: int) -> Any:
        rng = np.random.default_rng(i)
        x, y = jnp.asarray(rng.normal(size=(3, 7, 1))), jnp.asarray(rng.normal(size=(3, 7)))
        tasks = amortized.Task(x, y)
        return amortized.log_likelihoods(KEY, martingale, tasks, num_context=3).target

    def trained(i: int) -> Any:
        made = amortized.CNP(1, key=jax.random.key(i), width=8, depth=2)
        algorithm = amortized.neural_process_training(made, _line, optax.adam(0.01), batch_size=4)
        return fit(KEY, algorithm, algorithm.init(), STEPS).state.params

    def fed_back(i: int) -> Any:
        x, y = rows(i)
        joint = amortized.autoregressive(attentive, x, y, NEW[:3])
        return joint.log_prob(y[:3])

    return [
        Entry(
            "neural process, joint draws",
            lambda i: martingale.condition(*rows(i), key=KEY).sample(KEY, NEW),
            True,
        ),
        Entry("log_likelihoods", judged),
        Entry("autoregressive", fed_back),
        Entry("neural_process_training", trained),
    ]


def _resampling() -> list[Entry]:
    network = amortized.pretrained("gp")
    options: dict[str, Any] = {"num_forward": 7, "num_samples": 5}

    def resampled(rule: Any, data: Any, functional: Any, **others: Any) -> Any:
        return amortized.predictive_resample(
            KEY, rule, data, functional, **options, **others
        ).samples

    def normal(i: int) -> Any:
        rule = amortized.NormalNormal(0.1 * i, 2.0, 1.0)
        return resampled(rule, rows(i)[1], _mean_of, of="state")

    def predicted(i: int) -> Any:
        x, y = rows(i)
        data = (x[:, None], y)
        return resampled(amortized.PFNPredictive(network), data, amortized.least_squares)

    def bootstrapped(i: int) -> Any:
        x, y = rows(i)
        return amortized.bayesian_bootstrap(KEY, (x[:, None], y), amortized.least_squares).samples

    return [
        Entry(
            "predictive_resample, urn",
            lambda i: resampled(amortized.PolyaUrn(), rows(i)[1], amortized.weighted_mean),
            True,
        ),
        Entry("predictive_resample, normal", normal),
        Entry("predictive_resample, PFN", predicted),
        Entry("bayesian_bootstrap", bootstrapped),
    ]


def _mean_of(state: Any) -> Any:
    return state.mean


def _copulas() -> list[Entry]:
    few: dict[str, Any] = {"num_permutations": 2, "max_steps": 5}

    def density(i: int) -> Any:
        y = np.random.default_rng(i).normal(size=(N, 2))
        return amortized.CopulaDensity.fit(KEY, y, **few).log_prob(y[:M])

    def regression(i: int) -> Any:
        x, y = rows(i)
        found = amortized.CopulaRegression.fit(KEY, x[:, None], y, **few)
        return found.log_prob(x[:M, None], y[:M])

    def classes(i: int) -> Any:
        x, labels = _table(i)
        return amortized.CopulaClassifier.fit(KEY, x, labels, **few).log_prob(x[:M], labels[:M])

    return [
        Entry("CopulaDensity", density),
        Entry("CopulaRegression", regression, True),
        Entry("CopulaClassifier", classes),
    ]


def _calibration() -> list[Entry]:
    def draws(i: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(i)
        return rng.normal(size=(20, N)), rng.normal(size=N)

    return [
        Entry("diagnostics.crps", lambda i: diagnostics.crps(*draws(i))),
        Entry("diagnostics.tarp", lambda i: diagnostics.tarp(KEY, *draws(i))),
        Entry("diagnostics.sbc", lambda i: diagnostics.sbc(KEY, *draws(i)), True),
    ]
