"""The Gaussian likelihood."""

import math
import numbers
import warnings

import keras
import numpy as np
from keras import ops

from kvae import arguments
from kvae.distributions import Normal
from kvae.likelihoods.base import GAIN, Likelihood


@keras.saving.register_keras_serializable("kvae")
class GaussianLikelihood(Likelihood):
    """x ~ N(mean, variance), the mean being the decoder's output.

    Args:
        variance: "shared", one learned variance; "pixel", one learned for each pixel and channel; "decoder", the
            decoder's second output, its logarithm; or a positive number, fixed. A mean squared error summed over the
            image is a fixed variance of 1/2; averaged over D pixels, of D/2.
        initial_variance: of a learned variance, before training.
        min_variance: the floor of a learned or decoded variance, without which a pixel that never changes drives its
            density to infinity. By default the variance of rounding to 256 levels, 1 / (12 * 255^2).

    Raises:
        ValueError: for a variance that is none of these.
    """

    def __init__(self, variance="shared", initial_variance=0.05, min_variance=1 / (12 * 255**2), **kwargs):
        super().__init__(**kwargs)
        fixed = isinstance(variance, numbers.Real) and not isinstance(variance, bool)
        known = math.isfinite(variance) and variance > 0 if fixed else variance in ("shared", "pixel", "decoder")
        if not known:
            raise ValueError(f"variance is {variance!r}; expected 'shared', 'pixel', 'decoder' or a positive number.")
        arguments.real("initial_variance", initial_variance)
        arguments.real("min_variance", min_variance)
        if not 0 < min_variance < initial_variance:
            raise ValueError(
                f"initial_variance is {initial_variance!r} and min_variance {min_variance!r}; expected "
                "0 < min_variance < initial_variance."
            )
        self.variance = float(variance) if fixed else variance
        self.initial_variance = initial_variance
        self.min_variance = min_variance
        if variance == "decoder":
            self.parameters = ("mean", "log_var")

    def build(self, input_shape):
        if self.variance in ("shared", "pixel"):
            start = math.log(math.expm1(math.log(self.initial_variance / self.min_variance)))
            self.raw_log_var = self.add_weight(
                name="raw_log_var",
                shape=input_shape[1:] if self.variance == "pixel" else (),
                initializer=keras.initializers.Constant(start / GAIN),
            )
        super().build(input_shape)

    @property
    def log_var(self):
        """The logarithm of the variance where it doesn't depend on z: a scalar, or an image's shape."""
        if self.variance == "decoder":
            raise ValueError("The variance is the decoder's: ask model.decoder_distribution(z) for it.")
        if self.variance in ("shared", "pixel"):
            return self._floored(ops.convert_to_tensor(self.raw_log_var) * GAIN)
        return ops.convert_to_tensor(math.log(self.variance), dtype=self.variable_dtype)

    def _floored(self, excess):
        """log(min_variance) + softplus(excess): a floor that keeps a gradient."""
        return math.log(self.min_variance) + ops.softplus(excess)

    def distribution(self, outputs):
        if self.variance == "decoder":
            mean, log_var = outputs
            return Normal(mean, self._floored(log_var - math.log(self.min_variance)))
        return Normal(outputs[0], self.log_var)

    def check_data(self, x):
        if np.max(x) > 1 and np.min(x) >= 0 and np.all(x == np.rint(x)):
            warnings.warn(
                f"The images hold whole numbers from {np.min(x):g} to {np.max(x):g}: if they are pixels of 0 to 255, "
                "give them as uint8, which is scaled by itself, or divide by 255.",
                stacklevel=2,
            )

    def get_config(self):
        return {
            **super().get_config(),
            "variance": self.variance,
            "initial_variance": self.initial_variance,
            "min_variance": self.min_variance,
        }
