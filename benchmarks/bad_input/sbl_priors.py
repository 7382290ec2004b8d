"""Mistakes with sparsity priors, spike and slab, and penalties of `bayesjx.sbl`."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from bayesjx import ops, sbl as _sbl
from benchmarks.bad_input._case import Case

# Mistakes on purpose, which a type checker would name.
sbl: Any = _sbl

N, M = 7, 3
NAN = float("nan")
DESIGN = np.random.default_rng(0).normal(size=(N, M))
Y = DESIGN[:, 0]
MANY = np.random.default_rng(1).normal(size=(N, 30))
DRAWS = {"w_scale": np.ones((5, M))}


def _spike(design: Any = DESIGN, y: Any = Y, **options: Any) -> Any:
    return sbl.spike_and_slab(design, y, **({"noise_var": 0.1, "slab_var": 1.0} | options))


def _gibbs(design: Any = DESIGN, y: Any = Y, **options: Any) -> Any:
    return sbl.spike_and_slab_gibbs(design, y, **({"noise_var": 0.1, "slab_var": 1.0} | options))


def _fista(design: Any = DESIGN, y: Any = Y, penalty: Any = None, **options: Any) -> Any:
    return sbl.fista(design, y, sbl.L1(0.1) if penalty is None else penalty, **options)


def _jitted(function: Any, *args: Any) -> Any:
    return jax.block_until_ready(eqx.filter_jit(function)(*args))


CASES: tuple[Case, ...] = (
    # Priors as sites
    Case("sbl.horseshoe", "name", lambda: sbl.horseshoe(3, M), "text|name of the weights"),
    Case("sbl.horseshoe", "num_weights", lambda: sbl.horseshoe("w", 0), "at least 1"),
    Case("sbl.horseshoe", "num_weights", lambda: sbl.horseshoe("w", 2.5), "integer"),
    Case("sbl.horseshoe", "global_scale", lambda: sbl.horseshoe("w", M, global_scale=-1), "posit"),
    Case("sbl.horseshoe", "global_scale", lambda: sbl.horseshoe("w", M, global_scale="1"), "posit"),
    Case("sbl.horseshoe", "num_data", lambda: sbl.horseshoe("w", M, num_nonzero=1), "missing"),
    Case(
        "sbl.horseshoe",
        "num_nonzero",
        lambda: sbl.horseshoe("w", M, num_nonzero=3, num_data=9, noise_scale=1.0),
        "between 0 and num_weights",
    ),
    Case(
        "sbl.regularized_horseshoe",
        "slab_scale",
        lambda: sbl.regularized_horseshoe("w", M, slab_scale=0.0),
        "positive",
    ),
    Case(
        "sbl.regularized_horseshoe",
        "slab_df",
        lambda: sbl.regularized_horseshoe("w", M, slab_df=NAN),
        "positive",
    ),
    Case(
        "sbl.regularized_horseshoe",
        "noise_scale",
        lambda: sbl.regularized_horseshoe("w", M, num_nonzero=1, num_data=9, noise_scale=-1.0),
        "positive",
    ),
    Case("sbl.ard_weights", "rate", lambda: sbl.ard_weights("w", M, rate=[1.0, 2.0]), "\\(3,\\)"),
    Case(
        "sbl.ard_weights", "concentration", lambda: sbl.ard_weights("w", M, concentration=0), "po"
    ),
    Case(
        "sbl.spike_and_slab_weights",
        "prior_prob",
        lambda: sbl.spike_and_slab_weights("w", M, prior_prob=1.1),
        "at most 1",
    ),
    Case(
        "sbl.spike_and_slab_weights",
        "slab_scale",
        lambda: sbl.spike_and_slab_weights("w", M, slab_scale=np.ones(2)),
        "\\(3,\\)",
    ),
    Case("sbl.shrinkage", "posterior", lambda: sbl.shrinkage(np.ones(3)), "dictionary"),
    Case("sbl.shrinkage", "posterior", lambda: sbl.shrinkage({"v": np.ones(3)}), "w_scale"),
    Case("sbl.shrinkage", "noise_scale", lambda: sbl.shrinkage(DRAWS, noise_scale=0.0), "positive"),
    Case(
        "sbl.shrinkage",
        "noise_scale",
        lambda: sbl.shrinkage(DRAWS, noise_scale=np.ones(M)),
        "\\(5,\\)",
    ),
    Case("sbl.shrinkage", "num_data", lambda: sbl.shrinkage(DRAWS, num_data=-2), "positive"),
    Case(
        "sbl.shrinkage",
        "design_scale",
        lambda: sbl.shrinkage(DRAWS, design_scale=[1.0]),
        "\\(3,\\)",
    ),
    # Spike and slab
    Case("sbl.spike_and_slab", "design", lambda: _spike(DESIGN.T), "transposed"),
    Case("sbl.spike_and_slab", "design", lambda: _spike(np.zeros((0, 3)), np.zeros(0)), "empty"),
    Case("sbl.spike_and_slab", "design", lambda: _spike(DESIGN * NAN), "NaN"),
    Case("sbl.spike_and_slab", "design", lambda: _spike("design"), "numbers"),
    Case("sbl.spike_and_slab", "y", lambda: _spike(y=Y * NAN), "NaN"),
    Case("sbl.spike_and_slab", "y", lambda: _spike(y=Y + 1j), "real"),
    Case("sbl.spike_and_slab", "y", lambda: _spike(y=np.stack([Y, Y], 1)), "\\(n,\\)"),
    Case(
        "sbl.spike_and_slab",
        "y",
        lambda: _jitted(lambda y: _spike(y=y).mean, jnp.asarray(Y * NAN)),
        "NaN",
    ),
    Case("sbl.spike_and_slab", "noise_var", lambda: _spike(noise_var=0.0), "positive"),
    Case("sbl.spike_and_slab", "noise_var", lambda: _spike(noise_var=dist.Gamma(1.0)), "Inverse"),
    Case("sbl.spike_and_slab", "noise_var", lambda: _spike(noise_var=[1.0, 2.0]), "scalar"),
    Case("sbl.spike_and_slab", "slab_var", lambda: _spike(slab_var=-1.0), "positive"),
    Case("sbl.spike_and_slab", "slab_var", lambda: _spike(slab_var=np.ones(2)), "\\(3,\\)"),
    Case("sbl.spike_and_slab", "prior_prob", lambda: _spike(prior_prob=1.5), "\\[0, 1\\]"),
    Case(
        "sbl.spike_and_slab",
        "prior_prob",
        lambda: _spike(prior_prob=dist.Uniform()),
        "numbers in \\[0, 1\\]",
    ),
    Case("sbl.spike_and_slab", "method", lambda: _spike(method="nuts"), "exact"),
    Case("sbl.spike_and_slab", "method", lambda: _spike(MANY, method="exact"), "20"),
    Case("sbl.spike_and_slab", "key", lambda: _spike(MANY), "needed"),
    Case("sbl.spike_and_slab", "key", lambda: _spike(MANY, key=3), "PRNG"),
    Case(
        "sbl.spike_and_slab",
        "num_samples",
        lambda: _spike(MANY, key=jax.random.key(0), num_samples=0),
        "at least 4",
    ),
    Case(
        "sbl.spike_and_slab",
        "num_chains",
        lambda: _spike(MANY, key=jax.random.key(0), num_chains=1),
        "at least 2",
    ),
    Case("sbl.SpikeSlabPosterior.predict", "design", lambda: _spike().predict(Y), "\\(k, 3\\)"),
    Case("sbl.SpikeSlabPosterior.sample", "key", lambda: _spike().sample(3), "PRNG"),
    Case(
        "sbl.SpikeSlabPosterior.sample",
        "sample_shape",
        lambda: _spike().sample(jax.random.key(0), 10),
        "tuple",
    ),
    Case("sbl.spike_and_slab_gibbs", "max_active", lambda: _gibbs(max_active=0), "at least 1"),
    Case("sbl.spike_and_slab_gibbs", "max_active", lambda: _gibbs(max_active=1.5), "integer"),
    Case("sbl.spike_and_slab_gibbs", "active", lambda: _gibbs().init(np.ones(2)), "\\(3,\\)"),
    Case(
        "sbl.spike_and_slab_gibbs",
        "active",
        lambda: _gibbs(max_active=1).init(np.ones(M, bool)),
        "max_active",
    ),
    # Penalties
    Case("sbl.L1", "strength", lambda: sbl.L1(-0.1), "0 or more"),
    Case("sbl.L0", "strength", lambda: sbl.L0(NAN), "finite"),
    Case("sbl.L0", "strength", lambda: sbl.L0(np.ones((2, 2))), "\\(m,\\)"),
    Case("sbl.Lq", "q", lambda: sbl.Lq(0.1, 1.0), "between 0 and 1"),
    Case("sbl.Lq", "strength", lambda: sbl.Lq("strong"), "number"),
    Case("sbl.CEL0", "column_norms", lambda: sbl.CEL0(0.1, -1.0), "0 or more"),
    Case("sbl.fista", "design", lambda: _fista(DESIGN.T), "transposed"),
    Case("sbl.fista", "y", lambda: _fista(y=Y * NAN), "NaN"),
    Case("sbl.fista", "y", lambda: _fista(y=np.stack([Y, Y], 1)), "vmap"),
    Case("sbl.fista", "y", lambda: _fista(ops.Dense(DESIGN), Y.astype(np.float32)), "float32"),
    Case("sbl.fista", "penalty", lambda: _fista(penalty=0.1), "sbl.L1"),
    Case("sbl.fista", "penalty", lambda: _fista(penalty=sbl.L1(np.ones(2))), "\\(3,\\)"),
    Case("sbl.fista", "init", lambda: _fista(init=np.zeros(2)), "\\(3,\\)"),
    Case("sbl.fista", "init", lambda: _fista(init=np.full(M, NAN)), "NaN"),
    Case("sbl.fista", "max_steps", lambda: _fista(max_steps=0), "at least 1"),
    Case("sbl.fista", "rtol", lambda: _fista(rtol=-1.0), "number"),
    Case("sbl.fista", "max_steps", lambda: _fista(max_steps=1, throw=True), "raise max_steps"),
)
