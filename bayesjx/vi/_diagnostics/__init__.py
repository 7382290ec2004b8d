"""Diagnostics of guides, gradients and latent variables."""

from ._check_reparam import (
    check_reparam as check_reparam,
    ReparamCheck as ReparamCheck,
)
from ._collapse import (
    HierarchicalCollapse as HierarchicalCollapse,
    linear_cvae_collapse as linear_cvae_collapse,
    linear_hvae_collapse as linear_hvae_collapse,
    linear_vae_collapse as linear_vae_collapse,
    LinearCollapse as LinearCollapse,
)
from ._gradient_report import (
    gradient_report as gradient_report,
)
from ._gradient_table import (
    GradientReport as GradientReport,
    GradientRow as GradientRow,
)
from ._importance import (
    psis as psis,
)
from ._latent_usage import (
    active_units as active_units,
    latent_usage as latent_usage,
    LatentUsage as LatentUsage,
)
