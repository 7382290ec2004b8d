"""Bounds whose guide is a marginal over auxiliary sites."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpyro
import numpyro.distributions as dist

from ..._core import whole_number
from .._estimator import (
    check_programs,
    Objective,
)
from .._marginals import (
    AbstractEvidenceEstimator,
    marginal,
    sir,
)
from ._multi_bounds import (
    iwelbo,
)
from ._objectives import (
    elbo,
)

Program = Callable[..., Any]


def marginal_guide(
    guide: Program, keep: str | Sequence[str], algorithm: AbstractEvidenceEstimator
) -> Program:
    """The guide's marginal over `keep` as a guide: its other sites are summed out.

    Args:
        guide: NumPyro program over kept and auxiliary sites.
        keep: the sites that the model has.
        algorithm: estimates the sum, e.g. `vi.sir(5, proposal)`.

    Returns:
        a NumPyro program with the same arguments and the sites `keep`.
    """
    make = marginal(guide, keep, algorithm)

    def program(*args: Any, **kwargs: Any) -> None:
        d = make(*args, **kwargs)
        name = "+".join(d.names)
        single = len(d.names) == 1
        value: Any = numpyro.sample(name, d, infer=None if single else {"is_auxiliary": True})
        if not single:
            for site, part in d.unpack(value).items():
                numpyro.sample(site, dist.Delta(part, event_dim=part.ndim))

    return program


def hvi(
    model: Program, guide: Program, keep: str | Sequence[str], proposal: Program | None = None
) -> Objective:
    r"""Hierarchical ELBO: the guide's auxiliary sites are summed out with one sample.

    $E[\log p(x, z) - \log \check q(z)] \le$ ELBO of the exact marginal $\le \log p(x)$. The same
    as `iwhvi` with one auxiliary sample.

    Args:
        model: NumPyro program of the joint density over `keep`.
        guide: NumPyro program over `keep` and auxiliary sites.
        keep: names of the model's latent sites.
        proposal: program over the auxiliary sites that takes a mapping of the kept values and
            then the guide's arguments; by default the guide's own ancestral sampling.

    References:
        Ranganath, Tran and Blei (2016), "Hierarchical variational models".
    """
    return iwhvi(model, guide, keep, 1, proposal)


def iwhvi(
    model: Program,
    guide: Program,
    keep: str | Sequence[str],
    num_auxiliary: int = 5,
    proposal: Program | None = None,
) -> Objective:
    """Hierarchical ELBO with several auxiliary samples: tightens to the ELBO of the marginal.

    Args:
        model: NumPyro program of the joint density over `keep`.
        guide: NumPyro program over `keep` and auxiliary sites.
        keep: names of the model's latent sites.
        num_auxiliary: samples of the auxiliary sites, positive.
        proposal: see `hvi`.

    References:
        Sobolev and Vetrov (2019), "Importance weighted hierarchical variational inference".
    """
    program = _summed(model, guide, keep, num_auxiliary, proposal)
    return elbo(model, program)


def diwhvi(
    model: Program,
    guide: Program,
    keep: str | Sequence[str],
    num_particles: int = 5,
    num_auxiliary: int = 5,
    proposal: Program | None = None,
) -> Objective:
    """Doubly importance-weighted: `iwelbo` over a guide with summed-out auxiliary sites.

    A lower bound of the evidence for every pair of sizes, tight as `num_particles` grows.

    Args:
        model: NumPyro program of the joint density over `keep`.
        guide: NumPyro program over `keep` and auxiliary sites.
        keep: names of the model's latent sites.
        num_particles: outer particles.
        num_auxiliary: samples of the auxiliary sites for each of them.
        proposal: see `hvi`.

    References:
        Sobolev and Vetrov (2019), section 4.
    """
    program = _summed(model, guide, keep, num_auxiliary, proposal)
    return iwelbo(model, program, num_particles)


def _summed(
    model: Program,
    guide: Program,
    keep: str | Sequence[str],
    num_auxiliary: int,
    proposal: Program | None,
) -> Program:
    check_programs(model=model, guide=guide)
    whole_number("num_auxiliary", num_auxiliary)
    return marginal_guide(guide, keep, sir(num_auxiliary, proposal))
