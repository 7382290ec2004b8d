"""State-space models: Gaussian processes of time in linear time."""

from ._approximate import (
    approximate as approximate,
    MarkovApproximation as MarkovApproximation,
    site_updates as site_updates,
)
from ._kalman import (
    kalman_filter as kalman_filter,
    rts_smoother as rts_smoother,
    StateMoments as StateMoments,
)
from ._markov_gp import MarkovGP as MarkovGP
from ._posterior import MarkovPosterior as MarkovPosterior
from ._site_updates import SitesInfo as SitesInfo, SitesState as SitesState
from ._sites import Sites as Sites
from ._space_time import SpaceTimeGP as SpaceTimeGP, SpaceTimePosterior as SpaceTimePosterior
from ._spaces import (
    AbstractElementarySpace as AbstractElementarySpace,
    AbstractStateSpace as AbstractStateSpace,
)
from ._state_space import state_space as state_space
