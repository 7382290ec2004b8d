"""Chains of BlackJAX in the fit loop: the right target, the same bits after a kill, labels."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest

blackjax = pytest.importorskip("blackjax")

import chain  # noqa: E402

import bayesjx  # noqa: E402
from bayesjx import interop  # noqa: E402

KEY = jax.random.key(0)
COVARIANCE = np.linalg.inv(chain.PRECISION)


def draws_of(position):
    return np.concatenate([np.asarray(position["a"])[..., None], position["b"]], axis=-1)


def assert_moments(draws):
    """Means and covariances of draws `(chains, draws, 2)` within 5 Monte Carlo standard errors."""
    z = draws - chain.MEAN
    pairs = [(z[..., i], 0.0) for i in range(2)]
    pairs += [(z[..., i] * z[..., j], COVARIANCE[i, j]) for i in range(2) for j in range(i + 1)]
    for values, want in pairs:
        size = numpyro.diagnostics.effective_sample_size(values)
        assert abs(values.mean() - want) < 5 * values.std() / np.sqrt(size)
        assert size > 200
    both = z[:1] * z[1:2]  # of two chains, which are independent
    sizes = [numpyro.diagnostics.effective_sample_size(both[..., i]) for i in range(2)]
    errors = both.std(axis=(0, 1)) / np.sqrt(sizes)
    assert np.all(np.abs(both.mean(axis=(0, 1))) < 5 * errors)


SAMPLERS = {
    "hmc": lambda: blackjax.hmc(chain.log_density, 0.6, jnp.ones(2), 5),
    "nuts": lambda: blackjax.nuts(chain.log_density, 0.6, jnp.ones(2)),
    "mala": lambda: blackjax.mala(chain.log_density, 0.3),
    "rmh": lambda: blackjax.additive_step_random_walk(
        chain.log_density, blackjax.mcmc.random_walk.normal(jnp.ones(2))
    ),
    "dynamic_hmc": lambda: blackjax.dynamic_hmc(chain.log_density, 0.4, jnp.ones(2)),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_draws_have_the_moments_of_a_normal_target(name):
    thin = 1 if name in ("hmc", "nuts") else 4
    found = interop.sample(
        KEY, SAMPLERS[name](), chain.start(4), 1000, num_chains=4, thin=thin, chunk_size=500
    )
    assert found.draws["b"].shape == (4, 1000, 1) and found.fit.num_steps == 1000 * thin
    assert_moments(draws_of(found.draws)[:, 100:])


def test_steps_and_thinning_are_those_of_a_loop_written_out():
    algorithm = interop.from_blackjax(chain.SAMPLER)
    state = algorithm.init(chain.start())
    keep = lambda state: state.position  # noqa: E731
    found = bayesjx.fit(KEY, algorithm, state, 23, keep=keep, thin=4, chunk_size=9)
    step, kept, densities = jax.jit(chain.SAMPLER.step), [], []
    for i in range(23):
        state, info = step(jax.random.fold_in(KEY, i), state)
        densities.append(state.logdensity)
        if i % 4 == 3:
            kept.append(draws_of(state.position))
    np.testing.assert_allclose(draws_of(found.kept), kept, rtol=1e-12)
    np.testing.assert_allclose(found.info.objective, densities, rtol=1e-12)
    np.testing.assert_allclose(found.info.stats["acceptance_rate"][-1], info.acceptance_rate)
    np.testing.assert_allclose(found.state.position["a"], state.position["a"], rtol=1e-12)


def test_a_killed_chain_goes_on_to_the_same_bits(tmp_path):
    path, script = tmp_path / "chain.ckpt", Path(chain.__file__)
    environment = {**os.environ, "JAX_ENABLE_X64": "1", "PYTHONPATH": str(script.parents[2])}
    environment["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # as in `conftest.py`
    child = subprocess.Popen([sys.executable, str(script), str(path), "1000"], env=environment)
    try:
        deadline = time.monotonic() + 120
        while not path.exists() or interop.describe_checkpoint(path)["step"] < 30:
            assert child.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    resumed, whole = chain.run(1000, checkpoint=path), chain.run(1000)
    assert 30 <= resumed.fit.resumed_from < 3000 and whole.fit.resumed_from == 0
    both = [(found.draws, found.stats, found.fit.state) for found in (resumed, whole)]
    ends = map(jax.tree.leaves, both)
    for one, other in zip(*ends, strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(interop.CheckpointError, match=r"thin=3; with thin=1 other states"):
        interop.sample(
            jax.random.key(2), chain.SAMPLER, chain.start(4), 3000, num_chains=4, checkpoint=path
        )


def test_labels():
    found = chain.run(7)
    tree = found.to_datatree(dims={"b": ["one"]}, attrs={"model": "normal"})
    assert tree["posterior"]["a"].dims == ("chain", "draw")
    assert dict(tree["posterior"].sizes) == {"chain": 4, "draw": 7, "one": 1}
    assert len(np.unique(found.draws["a"][:, -1])) == 4  # from one start, by keys of their own
    assert {"lp", "acceptance_rate", "diverging", "energy"} <= set(tree["sample_stats"])
    want = jax.jit(jax.vmap(jax.vmap(chain.log_density)))(found.draws)
    np.testing.assert_allclose(tree["sample_stats"]["lp"], want, rtol=1e-12)
    np.testing.assert_allclose(found.fit.info.objective[2::3], want.mean(axis=0), rtol=1e-12)
    assert tree.attrs["model"] == "normal" and "completed 21 steps" in tree.attrs["fit_message"]
    one = interop.sample(KEY, chain.SAMPLER, chain.start(), 5)
    assert one.to_datatree()["posterior"]["b"].shape == (1, 5, 1)


def test_a_second_chain_compiles_nothing():
    first = chain.run(7, chunk_size=21)
    second = interop.sample(
        KEY, chain.SAMPLER, chain.start(4), 7, num_chains=4, thin=3, chunk_size=21
    )
    assert second.fit.compile_seconds == 0 and not np.allclose(second.draws["a"], first.draws["a"])


def test_stochastic_gradients_get_rows_drawn_on_the_device():
    """Langevin dynamics of the mean of data, whose posterior is known."""
    y = jnp.asarray(np.random.default_rng(0).normal(2.0, 1.0, 50))
    slope = blackjax.sgmcmc.gradients.grad_estimator(
        lambda m: -0.5 * m**2 / 100, lambda m, row: -0.5 * (row - m) ** 2, 50
    )
    sgld = blackjax.sgld(slope)

    class Sampler:
        init = staticmethod(sgld.init)

        @staticmethod
        def step(key, state, batch):
            return sgld.step(key, state, batch, 1e-4)

    found = interop.sample(
        KEY, Sampler, jnp.zeros(()), 4000, data=(y,), batch_size=10, thin=5, chunk_size=5000
    )
    draws = found.draws[1000:]
    size = numpyro.diagnostics.effective_sample_size(draws[None])
    assert abs(draws.mean() - y.sum() / (50 + 1 / 100)) < 5 * draws.std() / np.sqrt(size)
    assert found.fit.info.objective is None


@pytest.mark.errors
def test_errors():
    with pytest.raises(ValueError, match="sampler must have init and step"):
        interop.from_blackjax(blackjax.nuts)
    with pytest.raises(ValueError, match="num_chains must be at least 1, got 0"):
        interop.from_blackjax(chain.SAMPLER, num_chains=0)
    with pytest.raises(ValueError, match=r"position\['a'\] must have a row for each of 3 chains"):
        interop.sample(KEY, chain.SAMPLER, chain.start(4), 5, num_chains=np.int64(3))
    with pytest.raises(ValueError, match="thin must be at least 1, got 0"):
        interop.sample(KEY, chain.SAMPLER, chain.start(), 5, thin=0)
