"""Amortised posteriors: networks that were taught the predictions and posteriors of a prior."""

from ._autoregressive import (
    autoregressive as autoregressive,
    AutoregressiveDistribution as AutoregressiveDistribution,
)
from ._bayesian_bootstrap import bayesian_bootstrap as bayesian_bootstrap
from ._bootstrap_process import BANP as BANP, BNP as BNP
from ._conditional_process import CANP as CANP, CNP as CNP
from ._conjugate_rules import (
    CategoricalUrn as CategoricalUrn,
    NormalNormal as NormalNormal,
    NormalState as NormalState,
    PolyaUrn as PolyaUrn,
)
from ._conv_process import ConvCNP as ConvCNP
from ._copula_classifier import CopulaClassifier as CopulaClassifier
from ._copula_density import CopulaDensity as CopulaDensity
from ._copula_fit import CopulaBandwidths as CopulaBandwidths
from ._copula_predictive import AbstractCopulaPredictive as AbstractCopulaPredictive
from ._copula_regression import CopulaRegression as CopulaRegression
from ._distribution_transformer import DistributionTransformer as DistributionTransformer
from ._functionals import (
    least_squares as least_squares,
    m_estimator as m_estimator,
    MEstimator as MEstimator,
    weighted_mean as weighted_mean,
    weighted_quantile as weighted_quantile,
    WeightedQuantile as WeightedQuantile,
)
from ._gaussian_mixture import (
    condition_mixture as condition_mixture,
    GaussianMixture as GaussianMixture,
    propagate_mixture as propagate_mixture,
)
from ._heads import (
    AbstractHead as AbstractHead,
    BarHead as BarHead,
    CategoricalHead as CategoricalHead,
    NormalHead as NormalHead,
)
from ._latent_process import ANP as ANP, NP as NP
from ._martingale_posterior import (
    MartingalePosterior as MartingalePosterior,
    ResamplingDiagnostics as ResamplingDiagnostics,
)
from ._martingale_process import MPANP as MPANP, MPNP as MPNP
from ._network import AbstractPFN as AbstractPFN
from ._network_rule import (
    NeuralProcessPredictive as NeuralProcessPredictive,
    PFNPredictive as PFNPredictive,
)
from ._neural_process import AbstractNeuralProcess as AbstractNeuralProcess
from ._niw_meta import NIWMeta as NIWMeta
from ._niw_posterior import AdaptedNetwork as AdaptedNetwork
from ._niw_training import niw_meta as niw_meta
from ._pfn import PFN as PFN
from ._pfn_posterior import PFNPosterior as PFNPosterior
from ._pfn_training import pfn_training as pfn_training
from ._posterior_rule import DrawsState as DrawsState, PosteriorPredictive as PosteriorPredictive
from ._predictive_rule import AbstractPredictiveRule as AbstractPredictiveRule
from ._process_posterior import NeuralProcessPosterior as NeuralProcessPosterior
from ._process_training import (
    log_likelihoods as log_likelihoods,
    LogLikelihoods as LogLikelihoods,
    neural_process_training as neural_process_training,
)
from ._resampling import predictive_resample as predictive_resample
from ._rule_checks import (
    cid_defect as cid_defect,
    CIDDefect as CIDDefect,
    order_sensitivity as order_sensitivity,
    prequential_log_prob as prequential_log_prob,
)
from ._saving import (
    about_network as about_network,
    load_network as load_network,
    NetworkError as NetworkError,
    pretrained as pretrained,
    pretrained_names as pretrained_names,
    save_network as save_network,
)
from ._table_network import TablePFN as TablePFN
from ._table_priors import TablePrior as TablePrior
from ._tasks import from_numpyro as from_numpyro, NumPyroPrior as NumPyroPrior, Task as Task
from ._transformer_process import TNPA as TNPA, TNPD as TNPD, TNPND as TNPND
from ._transformer_training import transformer_training as transformer_training
