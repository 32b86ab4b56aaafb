"""The Gaussian likelihood."""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kvae import arguments
from kvae.arguments import Shape, Tensor
from kvae.distributions import Normal
from kvae.likelihoods.base import GAIN, Likelihood


@keras.saving.register_keras_serializable("kvae")
class GaussianLikelihood(Likelihood):
    """p(x|z) = N(x; mean, variance). The decoder's output is the mean.

    A squared error summed over the image is a fixed variance of 1/2. Averaged over D pixels it is a variance of D/2.

    Args:
        variance: "shared" (default), one learned variance; "pixel", one learned variance per pixel and channel;
            "decoder", the decoder's second output as its logarithm; or a fixed number > 0.
        initial_variance: number > 0, the start of a learned variance. Default 0.05.
        min_variance: number > 0, the floor of a learned or decoded variance. Without a floor, the density of a constant
            pixel goes to infinity. Default 1 / (12 * 255^2), the variance of rounding to 256 levels.
        **kwargs: of `keras.layers.Layer`.

    Raises:
        TypeError: if `initial_variance` or `min_variance` is no number.
        ValueError: if an argument has another value.

    Example:

    >>> likelihood = kvae.GaussianLikelihood(variance=0.01)
    >>> p = likelihood.distribution([ops.zeros((1, 2))])  # a decoder's mean
    >>> round(float(p.stddev), 3), p.log_prob(ops.zeros((1, 2))).numpy().round(3)
    (0.1, array([2.767], dtype=float32))

    Reference:
        Kingma and Welling (2014), "Auto-encoding variational Bayes", appendix C.2.
    """

    def __init__(
        self,
        variance: str | float = "shared",
        initial_variance: float = 0.05,
        min_variance: float = 1 / (12 * 255**2),
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        is_fixed = arguments.is_real(variance, above=0)
        if not is_fixed and variance not in ("shared", "pixel", "decoder"):
            raise ValueError(f"variance is {variance!r}; expected 'shared', 'pixel', 'decoder' or a positive number.")
        arguments.real("initial_variance", initial_variance)
        arguments.real("min_variance", min_variance)
        if not 0 < min_variance < initial_variance:
            raise ValueError(
                f"initial_variance is {initial_variance!r} and min_variance {min_variance!r}; expected "
                "0 < min_variance < initial_variance."
            )
        self.variance = float(variance) if is_fixed else variance
        self.initial_variance = initial_variance
        self.min_variance = min_variance
        if variance == "decoder":
            self.parameters = ("mean", "log_var")

    def build(self, input_shape: Shape) -> None:
        if self.variance in ("shared", "pixel"):
            start = math.log(math.expm1(math.log(self.initial_variance / self.min_variance)))
            self.raw_log_var = self.add_weight(
                name="raw_log_var",
                shape=input_shape[1:] if self.variance == "pixel" else (),
                initializer=keras.initializers.Constant(start / GAIN),
            )
        super().build(input_shape)

    @property
    def log_var(self) -> Tensor:
        """The logarithm of the variance, a scalar or in an image's shape.

        Raises:
            ValueError: if the variance is the decoder's and depends on z.
        """
        if self.variance == "decoder":
            raise ValueError("The variance is the decoder's: ask model.decoder_distribution(z) for it.")
        if self.variance in ("shared", "pixel"):
            return self._floored(ops.convert_to_tensor(self.raw_log_var) * GAIN)
        return ops.convert_to_tensor(math.log(float(self.variance)), dtype=self.variable_dtype)

    def _floored(self, excess):
        """log(min_variance) + softplus(excess): a floor with a gradient."""
        return math.log(self.min_variance) + ops.softplus(excess)

    def distribution(self, outputs: Sequence[Tensor]) -> Normal:
        if self.variance == "decoder":
            mean, log_var = outputs
            return Normal(mean, self._floored(log_var - math.log(self.min_variance)))
        return Normal(outputs[0], self.log_var)

    def check_data(self, x: np.ndarray) -> None:
        if np.max(x) > 1 and np.min(x) >= 0 and np.all(x == np.rint(x)):
            warnings.warn(
                f"The images hold whole numbers from {np.min(x):g} to {np.max(x):g}: if they are pixels of 0 to 255, "
                "give them as uint8, which is scaled by itself, or divide by 255.",
                stacklevel=2,
            )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "variance": self.variance,
            "initial_variance": self.initial_variance,
            "min_variance": self.min_variance,
        }
