"""Likelihoods of values in {0, 1} and in [0, 1]."""

import warnings
from collections.abc import Sequence

import keras
import numpy as np

from kvae.arguments import Tensor
from kvae.distributions import Bernoulli, ContinuousBernoulli
from kvae.likelihoods.base import UNIT_INTERVAL, Likelihood, check_unit_interval, in_unit_interval


@keras.saving.register_keras_serializable("kvae")
class BernoulliLikelihood(Likelihood):
    """p(x|z) of pixels in {0, 1} with probabilities sigmoid(logits). The decoder's output is the logits.

    `kvae.VAE(..., likelihood="bernoulli")` uses it. Grey pixels have no probability here, and draw a warning.

    Example:

    >>> likelihood = kvae.BernoulliLikelihood()
    >>> p = likelihood.distribution([ops.zeros((1, 2, 2, 1))])  # a decoder's logits
    >>> p.log_prob(ops.ones((1, 2, 2, 1))).numpy().round(4)  # 4 log 1/2
    array([-2.7726], dtype=float32)

    Reference:
        Kingma and Welling (2014), "Auto-encoding variational Bayes", appendix C.1.
    """

    parameters = ("logits",)
    discrete = True
    expected, takes_pixels = UNIT_INTERVAL, True

    def distribution(self, outputs: Sequence[Tensor]) -> Bernoulli:
        return Bernoulli(outputs[0])

    def supports(self, x: Tensor) -> Tensor:
        return in_unit_interval(x)

    def check_data(self, x: np.ndarray) -> None:
        check_unit_interval(x, self)
        grey = float(np.mean((x > 0) & (x < 1)))
        if grey > 0.01:
            warnings.warn(
                f"{grey:.0%} of the pixels are grey (neither 0 nor 1), and a Bernoulli likelihood has no density "
                "for them: its value is then no log p(x|z). Binarise the images, or use a likelihood for "
                "continuous values such as kvae.GaussianLikelihood or kvae.ContinuousBernoulliLikelihood.",
                stacklevel=2,
            )


@keras.saving.register_keras_serializable("kvae")
class ContinuousBernoulliLikelihood(Likelihood):
    """p(x|z) of pixels in [0, 1] with densities proportional to exp(x logits). The decoder's output is the logits.

    This is the Bernoulli's formula for grey pixels with the missing normalizer.

    Example:

    >>> p = kvae.ContinuousBernoulliLikelihood().distribution([ops.zeros((1, 4))])
    >>> p.log_prob(ops.full((1, 4), 0.3)).numpy()  # uniform at logits of 0
    array([0.], dtype=float32)

    Reference:
        Loaiza-Ganem and Cunningham (2019), "The continuous Bernoulli: fixing a pervasive error in variational
        autoencoders".
    """

    parameters = ("logits",)
    expected, takes_pixels = UNIT_INTERVAL, True

    def distribution(self, outputs: Sequence[Tensor]) -> ContinuousBernoulli:
        return ContinuousBernoulli(outputs[0])

    def supports(self, x: Tensor) -> Tensor:
        return in_unit_interval(x)

    def check_data(self, x: np.ndarray) -> None:
        check_unit_interval(x, self)
        if np.all((x == 0) | (x == 1)):
            warnings.warn(
                "All values are 0 or 1, where the density of a continuous Bernoulli grows without bound as the logits "
                "do: use kvae.BernoulliLikelihood, which gives probabilities.",
                stacklevel=2,
            )
