"""Data sets drawn from a prior: what amortised posteriors are trained on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num
from numpyro import handlers
from numpyro.distributions import Unit

from .._core import check_key


class Task(NamedTuple):
    """One data set of a prior; a prior is a pure function `prior(key) -> Task` of fixed shapes.

    Attributes:
        x: inputs, one a row, shape `(n, d)`; `d` may be 0.
        y: targets, shape `(n,)`; class indices where they are integers.
        style: parameters of the data set that a network may be told, shape `(k,)`, or None.
        theta: other parameters that made it, any pytree, or None.
    """

    x: Float[Array, "n d"]
    y: Num[Array, " n"]
    style: Any = None
    theta: Any = None


class NumPyroPrior(eqx.Module):
    """A NumPyro program as a prior over data sets; see `from_numpyro`.

    Attributes:
        model: the program.
        inputs: from a key to inputs, which are the program's first argument, or None.
        x: name of the site of inputs, where the program draws them.
        y: name of the site of targets.
        style: names of sites that a network is told.
        theta: names of sites that are kept.
        args: further arguments of the program.
        kwargs: its arguments by keyword.
    """

    model: Callable[..., Any] = eqx.field(static=True)
    inputs: Callable[[jax.Array], Any] | None
    x: str | None = eqx.field(static=True)
    y: str = eqx.field(static=True)
    style: tuple[str, ...] = eqx.field(static=True)
    theta: tuple[str, ...] = eqx.field(static=True)
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def __call__(self, key: jax.Array) -> Task:
        """One data set."""
        key_x, key_model = jax.random.split(key)
        args, x = self.args, None
        if self.inputs is not None:
            x = jnp.asarray(self.inputs(key_x))
            args = (x, *args)
        # Observed sites are drawn too: whatever data the program has been given is not theirs.
        drawn = handlers.uncondition(handlers.seed(self.model, key_model))
        trace = handlers.trace(drawn).get_trace(*args, **self.kwargs)
        _check_draws(trace)
        if x is None:
            x = _value(trace, "x", self.x) if self.x is not None else None
        y = _value(trace, "y", self.y)
        style = None
        if self.style:
            values = [jnp.ravel(_value(trace, "style", name)) for name in self.style]
            style = jnp.concatenate(values)
        theta = {name: _value(trace, "theta", name) for name in self.theta} or None
        if x is None:
            x = jnp.zeros((len(y), 0), jnp.result_type(float))
        return Task(x[:, None] if x.ndim == 1 else x, y, style, theta)


def from_numpyro(
    model: Callable[..., Any],
    /,
    *args: Any,
    inputs: Callable[[jax.Array], Any] | None = None,
    x: str | None = None,
    y: str = "y",
    style: tuple[str, ...] = (),
    theta: tuple[str, ...] = (),
    **kwargs: Any,
) -> NumPyroPrior:
    """A NumPyro program as a prior over data sets, for networks that learn its predictions.

    A data set is a run of the program; what is said of its observed sites is replaced by draws.
    Rows should be exchangeable given the parameters, as the network takes any of them as context.

    Args:
        model: the program.
        *args: its arguments, after the inputs if `inputs` draws them.
        inputs: from a key to inputs, shape `(n,)` or `(n, d)`, which the program gets as its first
            argument.
        x: name of the site that holds inputs, drawn or deterministic, where the program makes them.
            Without `inputs` and `x` there are none, and the network learns a density.
        y: name of the site of targets, shape `(n,)`, drawn or deterministic.
        style: names of sites that the network is told, such as hyper-parameters.
        theta: names of sites that are kept with each data set.
        **kwargs: arguments of the program by keyword.

    Returns:
        A prior: `prior(key) -> Task`.

    Raises:
        ValueError: the program cannot be traced with shapes that do not depend on random values, it
            has no such sites, their shapes disagree, or it has a `numpyro.factor`.

    References:
        Müller, Hollmann, Pineda Arango, Grabocka and Hutter (2022), "Transformers can do Bayesian
        inference", ICLR: samples of a prior as the training data.
    """
    if not callable(model):
        raise ValueError(f"from_numpyro: model must be callable, got {type(model).__name__}")
    if inputs is not None and (x is not None or not callable(inputs)):
        raise ValueError(
            "from_numpyro: inputs must be a function from a key, without x, got "
            f"inputs={inputs!r:.60} and x={x!r}"
        )
    for name, sites in (("style", style), ("theta", theta)):
        if isinstance(sites, str):
            raise ValueError(f"from_numpyro: {name} must be a tuple of names, got {sites!r}")
    prior = NumPyroPrior(model, inputs, x, y, tuple(style), tuple(theta), args, dict(kwargs))
    check_prior("from_numpyro", prior)
    return prior


def check_prior(owner: str, prior: Any) -> Task:
    """The shapes of a prior's data sets, a `Task` of `jax.ShapeDtypeStruct`.

    Raises:
        ValueError: `prior` is no function from a key to a `Task`, its shapes depend on random
            values, or they disagree.
    """
    if not callable(prior):
        raise ValueError(f"{owner}: prior must be callable, got {type(prior).__name__}")
    try:
        task = jax.eval_shape(prior, jax.random.key(0))
    except (jax.errors.ConcretizationTypeError, jax.errors.NonConcreteBooleanIndexError) as error:
        raise ValueError(
            f"{owner}: the data sets of a prior must have shapes, and a program a course, that do "
            "not depend on random values; mask rows instead of leaving them out. JAX says: "
            f"{str(error).splitlines()[0]}"
        ) from error
    if not isinstance(task, Task):
        raise ValueError(f"{owner}: prior must return an amortized.Task, got {type(task).__name__}")
    if task.x.ndim != 2 or task.y.ndim != 1 or task.x.shape[0] != task.y.shape[0]:
        raise ValueError(
            f"{owner}: data sets of a prior must have x of shape (n, d) and y of shape (n,); got "
            f"{task.x.shape} and {task.y.shape}"
        )
    if task.style is not None and jnp.ndim(task.style) != 1:
        raise ValueError(f"{owner}: style must have shape (k,), got {task.style.shape}")
    return task


def sample_tasks(key: jax.Array, prior: Callable[[jax.Array], Any], num_samples: int) -> Any:
    """Independent data sets of a prior, a `Task` or what else it returns, with a leading axis.

    A prior with a method `batch(key, num_samples)` draws them by that.
    """
    check_key(key)
    batch = getattr(prior, "batch", None)
    if batch is not None:
        return batch(key, num_samples)
    return jax.vmap(prior)(jax.random.split(key, num_samples))


def _check_draws(trace: dict[str, Any]) -> None:
    """Refuses what running a program forwards cannot respect."""
    for name, site in trace.items():
        if isinstance(site.get("fn"), Unit):
            raise ValueError(
                f"from_numpyro: model has the factor {name!r}, which changes its prior but not "
                "what a run of it draws; write the prior with sample sites"
            )


def _value(trace: dict[str, Any], argument: str, name: str) -> Any:
    if name not in trace or "value" not in trace[name]:
        sites = ", ".join(repr(site) for site in trace) or "none"
        raise ValueError(
            f"from_numpyro: {argument} names the site {name!r}; the program has {sites}"
        )
    return trace[name]["value"]
