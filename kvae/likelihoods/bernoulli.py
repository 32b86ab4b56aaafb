"""Likelihoods of values in {0, 1} and in [0, 1]."""

import warnings

import keras
import numpy as np

from kvae.distributions import Bernoulli
from kvae.distributions.continuous_bernoulli import ContinuousBernoulli
from kvae.likelihoods.base import UNIT_INTERVAL, Likelihood, check_unit_interval, in_unit_interval


@keras.saving.register_keras_serializable("kvae")
class BernoulliLikelihood(Likelihood):
    """Pixels in {0, 1} with probabilities sigmoid(logits), the logits being the decoder's output."""

    parameters = ("logits",)
    discrete = True
    expected, takes_pixels = UNIT_INTERVAL, True

    def distribution(self, outputs):
        return Bernoulli(outputs[0])

    def supports(self, x):
        return in_unit_interval(x)

    def check_data(self, x):
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
    """Pixels in [0, 1] with densities proportional to exp(x logits), the logits being the decoder's output.

    Loaiza-Ganem and Cunningham (2019): a Bernoulli's formula for grey pixels, with the normaliser that it lacks there.
    """

    parameters = ("logits",)
    expected, takes_pixels = UNIT_INTERVAL, True

    def distribution(self, outputs):
        return ContinuousBernoulli(outputs[0])

    def supports(self, x):
        return in_unit_interval(x)

    def check_data(self, x):
        check_unit_interval(x, self)
        if np.all((x == 0) | (x == 1)):
            warnings.warn(
                "All values are 0 or 1, where the density of a continuous Bernoulli grows without bound as the logits "
                "do: use kvae.BernoulliLikelihood, which gives probabilities.",
                stacklevel=2,
            )
