"""NumPyro programs as densities and as samplers."""

from ._detached import (
    detached as detached,
    draw as draw,
    frozen as frozen,
)
from ._functional import (
    functional as functional,
    FunctionalPrograms as FunctionalPrograms,
)
from ._handlers import (
    DensityHandler as DensityHandler,
    SimulateHandler as SimulateHandler,
)
from ._latents import (
    check_continuous as check_continuous,
    filled as filled,
    inspect_latents as inspect_latents,
    refuse_foreign as refuse_foreign,
)
from ._loops import (
    Fixed as Fixed,
    GivenInLoops as GivenInLoops,
    is_from_loop as is_from_loop,
)
from ._program_sites import (
    join_supports as join_supports,
    latent_sites as latent_sites,
    register_params as register_params,
)
from ._programs import (
    log_density as log_density,
    sample as sample,
    simulate as simulate,
)
from ._support import (
    refuse_narrower as refuse_narrower,
    Supports as Supports,
)
from ._trace import (
    is_discrete as is_discrete,
    Trace as Trace,
)
