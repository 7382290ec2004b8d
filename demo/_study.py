"""What the parts of the demo share: fit under one objective and strategy, and compare with NUTS."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpyro.diagnostics import summary
from numpyro.infer import MCMC, NUTS, Predictive, SVI

from bayesjx import to_datatree, vi

Strategies = Mapping[str, Callable[..., Any]]  # by site; a guide has a default for the others


@dataclasses.dataclass(frozen=True)
class Headline:
    """What stands above a table and its pictures.

    Attributes:
        name: of the part.
        title: one line for the table.
    """

    name: str
    title: str


@dataclasses.dataclass(frozen=True)
class Problem(Headline):
    """Data, a model, a family of guides and what is needed to fit and label them.

    Attributes:
        model: NumPyro program of `(params, *data)`; it does not use the first.
        reference: NumPyro program of the same arguments for NUTS, without discrete latents.
        guide: from gradient strategies to a NumPyro program of `(params, *data)`.
        params: where every fit starts.
        data: arrays.
        dims: names of the dimensions of each latent, as in `bayesjx.to_datatree`.
        coords: labels along them.
        tree_depth: most doublings of a trajectory of NUTS.
    """

    model: Callable[..., Any]
    reference: Callable[..., Any]
    guide: Callable[[Strategies], Callable[..., Any]]
    params: Any
    data: tuple
    dims: Mapping[str, Sequence[str]]
    coords: Mapping[str, Any]
    tree_depth: int = 10


@dataclasses.dataclass(frozen=True)
class Choice:
    """One way to fit a problem.

    Attributes:
        objective: what the table calls it.
        strategy: likewise.
        make: from model and guide to an `Objective`.
        strategies: gradient strategy by site.
        batches: further arguments of the objective, a function of the step.
        tour: whether the tour shows it.
    """

    objective: str
    strategy: str
    make: Callable[..., vi.Objective]
    strategies: Strategies
    batches: Callable[[int], tuple] | None = None
    tour: bool = False


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of the table; what was not measured is None.

    Attributes:
        objective: its name.
        strategy: its name.
        tree: the posterior as a labelled `DataTree`.
        bound: mean of the objective at the last parameters, and its standard error.
        gradient_variance: of one draw, summed over the parameters, at the last parameters.
        seconds: of the steps; of everything where `compile_seconds` is None.
        compile_seconds: of tracing and compiling.
        history: the objective at each step.
        mean_errors: posterior means minus those of NUTS, in its posterior standard deviations.
        sd_errors: posterior standard deviations over those of NUTS, minus one.
        extra: further columns by name.
    """

    objective: str
    strategy: str
    tree: Any
    bound: tuple[float, float] | None = None
    gradient_variance: float | None = None
    seconds: float = 0.0
    compile_seconds: float | None = None
    history: np.ndarray | None = None
    mean_errors: np.ndarray | None = None
    sd_errors: np.ndarray | None = None
    extra: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def label(self) -> str:
        return f"{self.objective}, {self.strategy}"


@dataclasses.dataclass(frozen=True)
class Report:
    """What a part hands back: its rows (the first is NUTS where there is one) and remarks."""

    problem: Headline
    rows: list[Row]
    remarks: list[str]


@dataclasses.dataclass(frozen=True)
class Study:
    """Sizes of the demo. The steps after `steps` have a learning rate of zero: they measure.

    The tour is shorter: of each part what is needed for its result, in fewer steps.
    """

    is_tour: bool = False
    steps: int = 3000
    measure: int = 500
    draws_per_step: int = 8
    posterior_draws: int = 4000
    chains: int = 4
    warmup: int = 500
    samples: int = 1000

    @classmethod
    def tour(cls) -> Study:
        """The sizes of the tour."""
        return cls(True, 1000, 200, draws_per_step=4, warmup=200, samples=300)

    def select(self, choices: Sequence[Choice]) -> list[Choice]:
        """The choices that this size keeps."""
        return [choice for choice in choices if choice.tour or not self.is_tour]

    def schedule(self) -> optax.Schedule:
        """A learning rate that falls to zero at `steps`, and stays there."""
        return optax.cosine_decay_schedule(0.05, self.steps)

    def fit(self, problem: Problem, choice: Choice) -> Row:
        """Fit one choice with `vi.fit`; its own history holds the bound and gradient variance."""
        objective = choice.make(problem.model, problem.guide(choice.strategies))
        result = vi.fit(
            jax.random.key(1),
            objective,
            problem.params,
            optax.adam(self.schedule()),
            self.steps + self.measure,
            data=problem.data,
            batches=choice.batches,
            num_draws=self.draws_per_step,
        )
        draws = self._draw(problem)(jax.random.key(2), result.params)
        tree = result.to_datatree(_labelled(draws), dims=problem.dims, coords=problem.coords)
        # A step averages several draws, and the mean gradient is zero where the fit has ended.
        squared = np.mean(result.info.gradient_norm[-self.measure :] ** 2)
        return Row(
            choice.objective,
            choice.strategy,
            tree,
            bound=mean_and_error(result.info.objective[-self.measure :]),
            gradient_variance=float(squared * self.draws_per_step),
            seconds=result.seconds,
            compile_seconds=result.compile_seconds,
            history=result.info.objective,
        )

    def fit_svi(self, problem: Problem, guide: Any, strategy: str) -> Row:
        """Fit one of NumPyro's own guides with `numpyro.infer.SVI`, our ELBO being its loss."""
        start = time.perf_counter()
        loss = vi.SVILoss(vi.elbo, num_particles=self.draws_per_step)
        svi = SVI(problem.model, guide, optax.adam(self.schedule()), loss)
        steps, args = self.steps + self.measure, (None, *problem.data)
        result = svi.run(jax.random.key(1), steps, *args, progress_bar=False)
        seconds = time.perf_counter() - start
        shape = (self.posterior_draws,)
        draws = guide.sample_posterior(jax.random.key(2), result.params, sample_shape=shape)
        tree = to_datatree(draws, dims=problem.dims, coords=problem.coords)
        history = -np.asarray(result.losses)
        bound = mean_and_error(history[-self.measure :])
        return Row("ELBO", strategy, tree, bound, seconds=seconds, history=history)

    def nuts(self, problem: Problem, complete: Callable[..., dict] | None = None) -> Row:
        """The reference. `complete(key, draws)` may add draws of latents that were summed out."""
        start = time.perf_counter()
        sizes = {"num_warmup": self.warmup, "num_samples": self.samples, "num_chains": self.chains}
        kernel = NUTS(problem.reference, max_tree_depth=problem.tree_depth)
        mcmc = MCMC(kernel, **sizes, chain_method="vectorized", progress_bar=False)
        mcmc.run(jax.random.key(0), None, *problem.data)
        draws = jax.block_until_ready(mcmc.get_samples(group_by_chain=True))
        seconds = time.perf_counter() - start
        diverging = mcmc.get_extra_fields(group_by_chain=True)["diverging"]
        if complete is not None:
            draws = draws | complete(jax.random.key(1), draws)
        tree = to_datatree(
            _labelled(draws),
            sample_stats={"diverging": diverging},
            dims=problem.dims,
            coords=problem.coords,
            chain_axis=0,
        )
        return Row("NUTS", "reference", tree, seconds=seconds)

    def _draw(self, problem: Problem) -> Callable[[Any, Any], dict[str, jax.Array]]:
        """Draws from a fitted guide; the strategies matter to gradients only, not to draws."""
        if problem.name not in _DRAWS:
            guide = Predictive(problem.guide({}), params={}, num_samples=self.posterior_draws)
            _DRAWS[problem.name] = jax.jit(lambda key, params: guide(key, params, *problem.data))
        return _DRAWS[problem.name]


def _labelled(draws: Mapping[str, Any]) -> dict[str, Any]:
    """Without weights of networks, which are known up to the order of hidden units only."""
    return {name: values for name, values in draws.items() if "/" not in name}


_DRAWS: dict[str, Callable[..., Any]] = {}  # compiled once per problem, not once per fit


def normals(shapes: Mapping[str, tuple[int, ...]], start: Mapping[str, Any], log_scale: float):
    """First parameters of a Normal guide: by site, `loc` and `log_scale` of the site's shape."""
    return {
        name: {
            "loc": jnp.broadcast_to(jnp.asarray(start[name], dtype=float), shape),
            "log_scale": jnp.full(shape, log_scale),
        }
        for name, shape in shapes.items()
    }


def against(row: Row, reference: Row, latents: Sequence[str]) -> Row:
    """The row with its errors against NUTS, over all elements of the continuous latents."""
    ours, theirs = row.tree["posterior"], reference.tree["posterior"]
    means, sds = [], []
    for name in latents:
        a, b = ours[name], theirs[name]
        sd = b.std(("chain", "draw"))
        means.append(((a.mean(("chain", "draw")) - b.mean(("chain", "draw"))) / sd).values.ravel())
        sds.append((a.std(("chain", "draw")) / sd - 1).values.ravel())
    return dataclasses.replace(
        row, mean_errors=np.concatenate(means), sd_errors=np.concatenate(sds)
    )


def quality(reference: Row, latents: Sequence[str]) -> str:
    """How far NUTS itself can be trusted, in one line."""
    posterior = reference.tree["posterior"]
    stats = summary({name: posterior[name].values for name in latents}).values()
    sizes, r_hats = ([np.min(s["n_eff"]) for s in stats], [np.max(s["r_hat"]) for s in stats])
    diverging = int(reference.tree["sample_stats"]["diverging"].sum())
    chains, draws = posterior.sizes["chain"], posterior.sizes["draw"]
    return (
        f"NUTS: {chains} chains of {draws} draws, R-hat up to {max(r_hats):.3f}, effective sample "
        f"size from {min(sizes):.0f}, {diverging} divergent"
    )


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """Mean and standard error of independent values."""
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def run_all(tasks: Sequence[tuple[str, Callable[[], Row]]]) -> list[Row]:
    """Run the tasks one after the other, and say which one runs."""
    rows = []
    for number, (label, task) in enumerate(tasks, 1):
        start = time.perf_counter()
        print(f"  {number} of {len(tasks)}: {label}", end=" ", file=sys.stderr, flush=True)
        rows.append(task())
        print(f"({time.perf_counter() - start:.0f} s)", file=sys.stderr, flush=True)
    return rows
