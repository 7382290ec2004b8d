"""Guides made of a model."""

from ._auto_discrete import (
    AutoDiscrete as AutoDiscrete,
)
from ._families import (
    GaussianGuide as GaussianGuide,
)
from ._flows import (
    FlowGuide as FlowGuide,
    FlowJAXDistribution as FlowJAXDistribution,
)
from ._pathfinder import (
    PathfinderResult as PathfinderResult,
    PathfinderWarning as PathfinderWarning,
)
from ._pathfinder_guide import (
    init_from_pathfinder as init_from_pathfinder,
    PathfinderGuide as PathfinderGuide,
)
