"""p(x|z): what the decoder's output says of an image. A likelihood reads that output and may have weights."""

import abc
import math
import numbers
import warnings

import keras
import numpy as np
from keras import ops

from kvae.distributions import Bernoulli, Distribution, Normal


class Likelihood(keras.layers.Layer, abc.ABC):
    """p(x|z) from a decoder's output: a tensor, or two where `parameters` has two names."""

    parameters = ("mean",)

    def build(self, input_shape):
        """input_shape: the images', (None, ...)."""
        self.event_shape = tuple(input_shape[1:])
        super().build(input_shape)

    @abc.abstractmethod
    def distribution(self, outputs) -> Distribution:
        """p(x|z), given the list of the decoder's outputs, each (n, ...)."""

    def check_outputs(self, shapes, event_shape):
        """Raise ValueError unless the decoder's output shapes are what this likelihood reads."""
        expected = [tuple(event_shape)] * len(self.parameters)
        found = [tuple(shape[1:]) for shape in shapes]
        if found != expected:
            raise ValueError(
                f"The decoder gives {len(found)} output(s) of shape {_listing(found)}; {type(self).__name__} reads "
                f"[{', '.join(self.parameters)}], each of the images' shape {tuple(event_shape)}."
                + (" A second output: outputs=2 in kvae.networks." if len(found) < len(expected) else "")
            )

    def check_data(self, x):
        """Raise ValueError for values (numpy, scaled) that have no density here; warn of those that fit badly."""
        return None


@keras.saving.register_keras_serializable("kvae")
class BernoulliLikelihood(Likelihood):
    """Pixels in {0, 1} with probabilities sigmoid(logits), the logits being the decoder's output."""

    parameters = ("logits",)

    def distribution(self, outputs):
        return Bernoulli(outputs[0])

    def check_data(self, x):
        low, high = float(np.min(x)), float(np.max(x))
        if low < 0 or high > 1:
            raise ValueError(
                f"The images' values reach from {low:g} to {high:g}; BernoulliLikelihood expects values in [0, 1]: "
                "divide by 255 (uint8 images are scaled by themselves), or use kvae.GaussianLikelihood."
            )
        grey = float(np.mean((x > 0) & (x < 1)))
        if grey > 0.01:
            warnings.warn(
                f"{grey:.0%} of the pixels are grey (neither 0 nor 1), and a Bernoulli likelihood has no density "
                "for them: its value is then no log p(x|z). Binarise the images, or use a likelihood for "
                "continuous values such as kvae.GaussianLikelihood.",
                stacklevel=2,
            )


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

    # A learned log-variance is this many times its weight: an optimizer whose steps have the learning rate's size,
    # such as Adam, then crosses a factor e in a hundred steps at 1e-3, not in a thousand.
    _GAIN = 10.0

    def __init__(self, variance="shared", initial_variance=0.05, min_variance=1 / (12 * 255**2), **kwargs):
        super().__init__(**kwargs)
        fixed = isinstance(variance, numbers.Real) and not isinstance(variance, bool)
        known = math.isfinite(variance) and variance > 0 if fixed else variance in ("shared", "pixel", "decoder")
        if not known:
            raise ValueError(f"variance is {variance!r}; expected 'shared', 'pixel', 'decoder' or a positive number.")
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
                initializer=keras.initializers.Constant(start / self._GAIN),
            )
        super().build(input_shape)

    @property
    def log_var(self):
        """The logarithm of the variance where it doesn't depend on z: a scalar, or an image's shape."""
        if self.variance == "decoder":
            raise ValueError("The variance is the decoder's: ask model.conditional(z) for it.")
        if self.variance in ("shared", "pixel"):
            return self._floored(ops.convert_to_tensor(self.raw_log_var) * self._GAIN)
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


def get(identifier):
    """A likelihood from itself, or from "bernoulli" or "gaussian"."""
    aliases = {"bernoulli": BernoulliLikelihood, "gaussian": GaussianLikelihood}
    if isinstance(identifier, str) and identifier in aliases:
        return aliases[identifier]()
    if isinstance(identifier, Likelihood):
        return identifier
    raise TypeError(
        f"likelihood is {identifier!r}; expected a kvae likelihood such as kvae.GaussianLikelihood(), or one of "
        f"{', '.join(map(repr, aliases))}."
    )


def _listing(shapes):
    return ", ".join(map(str, shapes)) if shapes else "none"
