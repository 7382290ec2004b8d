"""Gradient strategies of single sites."""

from ._enumerate import (
    Enum as Enum,
    Leg as Leg,
)
from ._functions import (
    disarm as disarm,
    enum as enum,
    gumbel_softmax as gumbel_softmax,
    importance as importance,
    leg as leg,
    mvd as mvd,
    reinforce as reinforce,
    reparam as reparam,
    rloo as rloo,
    straight_through as straight_through,
    with_strategy as with_strategy,
)
from ._measure_valued import (
    MVD as MVD,
)
from ._multi_sample import (
    DisARM as DisARM,
    Importance as Importance,
    RLOO as RLOO,
)
from ._pathwise import (
    GumbelSoftmax as GumbelSoftmax,
    Reparam as Reparam,
    StraightThrough as StraightThrough,
)
from ._score import (
    EMA as EMA,
    LearnedBaseline as LearnedBaseline,
    Reinforce as Reinforce,
)
