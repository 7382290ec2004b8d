"""State-space models: Gaussian processes of time in linear time."""

from ._markov_gp import MarkovGP as MarkovGP
from ._posterior import MarkovPosterior as MarkovPosterior
from ._spaces import AbstractStateSpace as AbstractStateSpace
from ._state_space import state_space as state_space
