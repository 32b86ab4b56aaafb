"""p(x|z): what the decoder's output says of an image. A likelihood reads that output and may have weights."""

from kvae.likelihoods.base import Likelihood
from kvae.likelihoods.bernoulli import BernoulliLikelihood, ContinuousBernoulliLikelihood
from kvae.likelihoods.counts import NegativeBinomialLikelihood, PoissonLikelihood
from kvae.likelihoods.gaussian import GaussianLikelihood
from kvae.likelihoods.levels import CategoricalLikelihood, DiscretizedLogisticLikelihood

__all__ = [
    "BernoulliLikelihood",
    "CategoricalLikelihood",
    "ContinuousBernoulliLikelihood",
    "DiscretizedLogisticLikelihood",
    "GaussianLikelihood",
    "Likelihood",
    "NegativeBinomialLikelihood",
    "PoissonLikelihood",
    "get",
]

_ALIASES = {
    "bernoulli": BernoulliLikelihood,
    "categorical": CategoricalLikelihood,
    "continuous_bernoulli": ContinuousBernoulliLikelihood,
    "discretized_logistic": DiscretizedLogisticLikelihood,
    "gaussian": GaussianLikelihood,
    "negative_binomial": NegativeBinomialLikelihood,
    "poisson": PoissonLikelihood,
}


def get(identifier):
    """A likelihood from itself, or from a name such as "gaussian" for one with its defaults."""
    if isinstance(identifier, str) and identifier in _ALIASES:
        return _ALIASES[identifier]()
    if isinstance(identifier, Likelihood):
        return identifier
    raise TypeError(
        f"likelihood is {identifier!r}; expected a kvae likelihood such as kvae.GaussianLikelihood(), or one of "
        f"{', '.join(map(repr, _ALIASES))}."
    )
