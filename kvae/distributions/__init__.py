"""Distributions as values: parameters in; log-densities, means, samples and divergences out. No weights, no state.

Axis 0 is the batch and all other axes are the event, in every method. Densities are in nats.
"""

from kvae.distributions.base import Distribution, Reparameterized
from kvae.distributions.bernoulli import Bernoulli, ContinuousBernoulli
from kvae.distributions.chain import Chain
from kvae.distributions.counts import NegativeBinomial, Poisson
from kvae.distributions.discrete import CategoricalLevels, DiscretizedLogisticMixture, OneHotCategorical
from kvae.distributions.mixture import Mixture
from kvae.distributions.normal import MultivariateNormal, Normal, sum_event
from kvae.distributions.sized import SharesOfTotal, ZeroInflated

__all__ = [
    "Bernoulli",
    "CategoricalLevels",
    "Chain",
    "ContinuousBernoulli",
    "DiscretizedLogisticMixture",
    "Distribution",
    "Mixture",
    "MultivariateNormal",
    "NegativeBinomial",
    "Normal",
    "OneHotCategorical",
    "Poisson",
    "Reparameterized",
    "SharesOfTotal",
    "ZeroInflated",
    "sum_event",
]
