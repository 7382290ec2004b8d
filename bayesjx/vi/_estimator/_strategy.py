"""What a gradient strategy is: three kinds, told apart by how the gradient reaches parameters."""

from __future__ import annotations

import abc
from typing import Any, ClassVar, TYPE_CHECKING

import equinox as eqx
import jax
from numpyro.distributions import Distribution

if TYPE_CHECKING:
    from ._continuation import (
        Continuation,
    )
    from ._cost import (
        Cost,
        Frames,
    )
    from ._site import (
        Site,
    )


class AbstractStrategy(eqx.Module):
    """Abstract base class of gradient strategies of random choices.

    Subclass one of `AbstractPathwise`, `AbstractScore` and `AbstractReplay`.

    Attributes:
        unbiased: whether the gradient is unbiased; a warning names each site where it is not.
        label: the name shown to users, by default that of the class.
    """

    unbiased: ClassVar[bool] = True
    label: ClassVar[str] = ""

    @property
    def name(self) -> str:
        """The name shown to users."""
        return self.label or type(self).__name__

    @abc.abstractmethod
    def why_not(self, distribution: Distribution) -> str | None:
        """Why this strategy cannot serve `distribution`, with the remedy; None if it can."""


def check_strategy(name: str, strategy: Any) -> None:
    """Raises `TypeError` unless `strategy` is an instance, not a class, of a strategy."""
    if not isinstance(strategy, AbstractStrategy):
        raise TypeError(
            f"{name}: expected an instance of a strategy such as vi.enum(), got {strategy!r}"
        )


class AbstractPathwise(AbstractStrategy):
    """The gradient flows through the sampled value itself."""

    @abc.abstractmethod
    def sample(
        self, distribution: Distribution, key: jax.Array, sample_shape: tuple[int, ...]
    ) -> tuple[Any, list[Any]]:
        """A draw of shape `sample_shape + distribution.shape()`, differentiable in the parameters.

        Returns:
            the value and NumPyro's intermediates (an empty list if there are none).
        """


class AbstractScore(AbstractStrategy):
    """The gradient is the score of the draw times the costs that depend on it."""

    @abc.abstractmethod
    def signal(
        self,
        local: dict[Frames, jax.Array],
        frames: Frames,
        state: jax.Array | None,
    ) -> tuple[dict[Frames, jax.Array], jax.Array | None, jax.Array | None]:
        """What to multiply the score with.

        Args:
            local: per set of plates, the costs that depend on the draw, summed to those plates.
            frames: the plates of the site; may or may not be a key of `local`.
            state: what `record` was at the previous step, or None.

        Returns:
            `(signals, record, baseline_loss)`: `signals` like `local`; `record` is kept by the
            optimisation loop and comes back as `state` (None: nothing to keep); `baseline_loss`
            is a scalar whose gradient trains a learned baseline (None: there is none).
        """


class AbstractReplay(AbstractStrategy):
    """The rest of the program is run again under other values of the draw."""

    @abc.abstractmethod
    def combine(self, site: Site, key: jax.Array, rest: Continuation) -> Cost:
        """An unbiased estimate, in value and gradient, of the expected cost over the draw.

        Args:
            site: the random choice; `site.value` is a draw of it, gradients stopped.
            key: for further randomness of the strategy.
            rest: the rest of the program as a function of the value.
        """
