"""Estimators of expectations and of their gradients: costs, sites, strategies as an interface."""

from ._context import (
    activate as activate,
    BiasedGradientWarning as BiasedGradientWarning,
    Context as Context,
    current as current,
    DrawKey as DrawKey,
    map_draws as map_draws,
    named as named,
    peek as peek,
    replace_strategies as replace_strategies,
    replaced_strategy as replaced_strategy,
)
from ._continuation import (
    Branches as Branches,
    Continuation as Continuation,
)
from ._cost import (
    Cost as Cost,
    Frame as Frame,
    Frames as Frames,
    one_dtype as one_dtype,
    reduce_to as reduce_to,
    site_name as site_name,
    Term as Term,
)
from ._diagnose import (
    Scored as Scored,
)
from ._distributions import (
    draw as draw,
    elementwise as elementwise,
    elementwise_family as elementwise_family,
    float_dtype as float_dtype,
    is_bernoulli as is_bernoulli,
    is_normal as is_normal,
    match_dtype as match_dtype,
    split as split,
    unmasked as unmasked,
    unvalidated as unvalidated,
    WithStrategy as WithStrategy,
)
from ._expectation import (
    expectation as expectation,
    Objective as Objective,
    SiteInfo as SiteInfo,
)
from ._log_weights import (
    drawable as drawable,
    log_mean as log_mean,
    log_sum as log_sum,
    shares as shares,
    weighted_sum as weighted_sum,
)
from ._masks import (
    hides as hides,
    is_silenced as is_silenced,
    visible as visible,
)
from ._options import (
    check_argnums as check_argnums,
    check_number as check_number,
    check_positive as check_positive,
    check_programs as check_programs,
)
from ._particles import (
    log_mean_exp as log_mean_exp,
    map_sites as map_sites,
    mean_state as mean_state,
    particles as particles,
)
from ._provenance import (
    Staged as Staged,
    tag as tag,
)
from ._site import (
    Site as Site,
)
from ._strategy import (
    AbstractPathwise as AbstractPathwise,
    AbstractReplay as AbstractReplay,
    AbstractScore as AbstractScore,
    AbstractStrategy as AbstractStrategy,
    check_strategy as check_strategy,
)
