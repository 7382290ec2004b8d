"""Posteriors by one call: modes, batch and match, importance weights."""

from ._batch_and_match import (
    batch_and_match as batch_and_match,
    BatchMatchInfo as BatchMatchInfo,
    BatchMatchState as BatchMatchState,
)
from ._fit_posterior import (
    fit_posterior as fit_posterior,
)
from ._posterior_fit import (
    PosteriorFit as PosteriorFit,
)
from ._sign_search import (
    sign_search as sign_search,
)
