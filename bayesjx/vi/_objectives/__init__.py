"""Variational objectives."""

from ._filtering import (
    fivo as fivo,
)
from ._hierarchical import (
    diwhvi as diwhvi,
    hvi as hvi,
    iwhvi as iwhvi,
    marginal_guide as marginal_guide,
)
from ._multi_bounds import (
    chi_square as chi_square,
    iwelbo as iwelbo,
    renyi as renyi,
    thermodynamic as thermodynamic,
)
from ._objectives import (
    elbo as elbo,
)
from ._wake_sleep import (
    forward_kl as forward_kl,
    sleep as sleep,
    symmetric_kl as symmetric_kl,
    wake_guide as wake_guide,
    wake_model as wake_model,
    wake_posterior as wake_posterior,
)
