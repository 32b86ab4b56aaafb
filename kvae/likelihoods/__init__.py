"""Likelihoods p(x|z): each makes a distribution of the decoder's output, and may have weights."""

from kvae.likelihoods.base import Likelihood
from kvae.likelihoods.bernoulli import BernoulliLikelihood, ContinuousBernoulliLikelihood
from kvae.likelihoods.columns import ColumnsLikelihood
from kvae.likelihoods.counts import NegativeBinomialLikelihood, PoissonLikelihood
from kvae.likelihoods.gaussian import GaussianLikelihood
from kvae.likelihoods.levels import CategoricalLikelihood, DiscretizedLogisticLikelihood

__all__ = [
    "BernoulliLikelihood",
    "CategoricalLikelihood",
    "ColumnsLikelihood",
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


def get(identifier: str | Likelihood) -> Likelihood:
    """Return a likelihood from its name, with default arguments, or the given likelihood itself.

    Args:
        identifier: `Likelihood`, or "bernoulli", "categorical", "continuous_bernoulli", "discretized_logistic",
            "gaussian", "negative_binomial" or "poisson".

    Raises:
        TypeError: for anything else.

    Example:

    >>> kvae.likelihoods.get("bernoulli").parameters
    ('logits',)
    """
    if isinstance(identifier, str) and identifier in _ALIASES:
        return _ALIASES[identifier]()
    if isinstance(identifier, Likelihood):
        return identifier
    raise TypeError(
        f"likelihood is {identifier!r}; expected a kvae likelihood such as kvae.GaussianLikelihood(), or one of "
        f"{', '.join(map(repr, _ALIASES))}."
    )
