"""What else fits a posterior: each peer with its own recipe, timed without compilation."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from blackjax.vi.multipathfinder import multi_approximate
from jax.flatten_util import ravel_pytree
from numpyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoMultivariateNormal
from numpyro.infer.util import initialize_model

from bayesjx import vi
from bayesjx.diagnostics import psis
from benchmarks.vi.posteriordb import Posterior

CHUNK, MOST_STEPS = 1000, 20_000


class Outcome(NamedTuple):
    """How close a method came, and how long it took.

    Attributes:
        name: of the method.
        mean_error: largest error of a mean, in reference standard deviations.
        sd_error: largest relative error of a standard deviation.
        k_hat: of its weights, NaN where it has none.
        seconds: of a second call, without compilation.
        compile_seconds: what the first call took longer.
        reliable: what it says of itself.
        impossible: its log evidence lies a nat above that of other draws, or is not finite.
    """

    name: str
    mean_error: float
    sd_error: float
    k_hat: float
    seconds: float
    compile_seconds: float
    reliable: bool = False
    impossible: bool = False

    def close(self, mean: float, sd: float) -> bool:
        return self.mean_error <= mean and self.sd_error <= sd

    def cells(self) -> list[Any]:
        return [self.mean_error, self.sd_error, self.k_hat, self.seconds, self.compile_seconds]


def errors(posterior: Posterior, draws: dict[str, Any]) -> tuple[float, float]:
    """The worst mean and standard deviation over the parameters of the reference."""
    found = jax.vmap(posterior.quantities)(draws)
    means = [abs(float(found[n].mean()) - m) / posterior.sds[n] for n, m in posterior.means.items()]
    sds = [abs(float(found[n].std()) / s - 1) for n, s in posterior.sds.items()]
    return max(means), max(sds)


def twice(call: Callable[[jax.Array], Any]) -> tuple[Any, float, float]:
    """The result of a second call, its seconds, and what the first took longer."""
    seconds = []
    for number in range(2):
        begin = time.perf_counter()
        result = jax.block_until_ready(call(jax.random.key(number)))
        seconds.append(time.perf_counter() - begin)
    return result, seconds[1], max(seconds[0] - seconds[1], 0.0)


def run_ours(posterior: Posterior, num_draws: int) -> Outcome:
    kept: dict[str, Any] = {}

    def call(key: jax.Array) -> Any:
        kept["fit"] = fit = vi.fit_posterior(key, posterior.model)
        return fit.sample(key, num_draws)

    draws, seconds, compiling = twice(call)
    fit = kept["fit"]
    other = fit.proposal.sample(jax.random.key(3), 4000)
    weights = jax.lax.map(fit.density, other, batch_size=250) - fit.proposal.log_prob(other)
    again = float(jax.nn.logsumexp(weights) - jnp.log(4000.0))
    impossible = not fit.log_evidence <= again + 1.0
    found = errors(posterior, draws)
    return Outcome("ours", *found, fit.k_hat, seconds, compiling, fit.reliable, impossible)


def numpyro_guide(posterior: Posterior, mean: float, sd: float) -> Outcome:
    """Full rank, in chunks, until it is close by the reference: the best case for it."""
    guide = AutoMultivariateNormal(posterior.model)
    rate = optax.exponential_decay(1e-2, MOST_STEPS, 1e-2)
    svi = SVI(posterior.model, guide, optax.adam(rate), Trace_ELBO())
    state = svi.init(jax.random.key(0))
    chunk = jax.jit(
        lambda s: jax.lax.scan(lambda s, _: (svi.update(s)[0], None), s, length=CHUNK)[0]
    )
    begin = time.perf_counter()
    jax.block_until_ready(chunk(state))
    compiling, seconds, found = time.perf_counter() - begin, 0.0, (np.inf, np.inf)
    draw = jax.jit(lambda p, key: guide.sample_posterior(key, p, sample_shape=(4000,)))
    for _ in range(MOST_STEPS // CHUNK):
        begin = time.perf_counter()
        state = jax.block_until_ready(chunk(state))
        seconds += time.perf_counter() - begin
        found = errors(posterior, draw(svi.get_params(state), jax.random.key(1)))
        if found[0] <= mean and found[1] <= sd:
            break
    return Outcome("NumPyro AutoMultivariateNormal", *found, np.nan, seconds, compiling)


def nuts(posterior: Posterior, mean: float, sd: float) -> Outcome:
    kernel = NUTS(posterior.model)
    sampler = MCMC(kernel, num_warmup=500, num_samples=1000, progress_bar=False)

    def call(key: jax.Array) -> Any:
        sampler.run(key)
        return sampler.get_samples()

    draws, seconds, compiling = twice(call)
    return Outcome("NumPyro NUTS", *errors(posterior, draws), np.nan, seconds, compiling)


def multipathfinder(posterior: Posterior, mean: float, sd: float) -> Outcome:
    log_density, constrain, starts = _flat(posterior)

    @jax.jit
    def call(key: jax.Array) -> Any:
        run_key, choice_key = jax.random.split(key)
        state, _ = multi_approximate(run_key, log_density, starts, 1000, maxls=100)
        log_ratios = jnp.ravel(state.logp - state.logq)  # of all paths
        smoothed = psis(jnp.where(jnp.isfinite(log_ratios), log_ratios, -jnp.inf))
        chosen = jax.random.categorical(choice_key, smoothed.log_weights, shape=(4000,))
        samples = jnp.asarray(state.samples).reshape(-1, starts.shape[1])
        return jax.vmap(constrain)(samples[chosen]), smoothed.k_hat

    try:
        (draws, k_hat), seconds, compiling = twice(call)
    except (ValueError, TypeError, AttributeError) as error:
        print(f"multipathfinder: {error}")
        return Outcome("BlackJAX multipathfinder", np.inf, np.inf, np.nan, np.nan, np.nan)
    found = errors(posterior, draws)
    return Outcome("BlackJAX multipathfinder", *found, float(k_hat), seconds, compiling)


def gsm(posterior: Posterior, mean: float, sd: float) -> Outcome:
    """Gaussian score matching of the `gsmvi` package, from a draw of the initial values."""
    nothing = Outcome("gsmvi", np.inf, np.inf, np.nan, np.nan, np.nan)
    try:
        GSM = importlib.import_module("gsmvi.gsm").GSM
    except ImportError:
        return nothing
    log_density, constrain, starts = _flat(posterior)
    score = jax.jit(jax.vmap(jax.grad(log_density)))
    method = GSM(starts.shape[1], log_density, lambda x: np.asarray(score(jnp.asarray(x))))
    score(jnp.zeros((2, starts.shape[1])))
    begin = time.perf_counter()
    try:
        loc, cov = method.fit(
            jax.random.PRNGKey(0), mean=starts[0], batch_size=2, niter=5000, verbose=False
        )
        seconds = time.perf_counter() - begin
        rng = np.random.default_rng(0)
        draws = rng.multivariate_normal(np.asarray(loc), np.asarray(cov), size=4000)
        found = errors(posterior, jax.vmap(constrain)(jnp.asarray(draws)))
    except (ValueError, np.linalg.LinAlgError, FloatingPointError):
        return nothing
    return Outcome("gsmvi", *found, np.nan, seconds, np.nan)


def _flat(posterior: Posterior) -> tuple[Any, Any, jax.Array]:
    """NumPyro's log density of a flat vector, the map to the sites, and four starts."""
    keys = jax.random.split(jax.random.key(7), 4)
    infos = [initialize_model(key, posterior.model) for key in keys]
    _, unravel = ravel_pytree(infos[0].param_info.z)
    starts = jnp.stack([ravel_pytree(info.param_info.z)[0] for info in infos])
    potential, constrain = infos[0].potential_fn, infos[0].postprocess_fn
    return lambda x: -potential(unravel(x)), lambda x: constrain(unravel(x)), starts


PEERS = (numpyro_guide, nuts, multipathfinder, gsm)
