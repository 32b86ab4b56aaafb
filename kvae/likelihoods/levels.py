"""Likelihoods of classes, and of images whose values are a few levels, such as k / 255."""

import math

import keras
import numpy as np
from keras import ops

from kvae import arguments
from kvae.distributions.discrete import CategoricalLevels, DiscretizedLogisticMixture, OneHotCategorical
from kvae.likelihoods.base import Likelihood


@keras.saving.register_keras_serializable("kvae")
class DiscretizedLogisticLikelihood(Likelihood):
    """Images (..., channels) of levels k / (levels - 1), uint8 images being 256 levels: a mixture of rounded logistics.

    For images (height, width, channels) the decoder's output is (height, width, components (1 + 2 channels)): of each
    pixel the components' logits, then means and log scales, each (channels, components). Means are counted from
    mid-grey and log scales from -2, so that a decoder of zeros says 1/2, give or take 1/4. `decoder_shape` gives the
    shape. Salimans et al. (2017), "PixelCNN++"; see `kvae.distributions.DiscretizedLogisticMixture`.

    Args:
        components: int, the mixture's components.
        levels: int, at least 2.

    Raises:
        ValueError: for other components or levels.
    """

    parameters = ("mixture",)
    discrete = True

    def __init__(self, components=10, levels=256, **kwargs):
        super().__init__(**kwargs)
        self.components = arguments.integer_at_least("components", components, 1)
        self.levels = arguments.integer_at_least("levels", levels, 2)
        self.expected, self.takes_pixels = _levels_expected(self.levels), self.levels == 256

    def decoder_shape(self, event_shape):
        if len(event_shape) < 2:
            raise ValueError(
                f"The images' shape is {tuple(event_shape)}; DiscretizedLogisticLikelihood expects channels as the "
                "last axis, (height, width, channels): for vectors, give x[..., None]."
            )
        return (*event_shape[:-1], self.components * (1 + 2 * event_shape[-1]))

    def distribution(self, outputs):
        *positions, channels = self.event_shape
        logits, rest = outputs[0][..., : self.components], outputs[0][..., self.components :]
        rest = ops.reshape(rest, (-1, *positions, 2, channels, self.components))
        return DiscretizedLogisticMixture(logits, 0.5 + rest[..., 0, :, :], rest[..., 1, :, :] - 2.0, self.levels)

    def supports(self, x):
        return _are_levels(x, self.levels)

    def check_data(self, x):
        _check_levels(x, self)

    def get_config(self):
        return {**super().get_config(), "components": self.components, "levels": self.levels}


@keras.saving.register_keras_serializable("kvae")
class CategoricalLikelihood(Likelihood):
    """Classes or levels, each with a probability of its own: softmax(logits), the logits being the decoder's output.

    Args:
        levels: None for classes that are one-hot along the last axis, (..., classes), the decoder's output having the
            same shape and the mean being the probabilities. Or an int of at least 2 for images (..., channels) of
            levels k / (levels - 1), uint8 images being 256: the decoder's output is then (..., channels levels).

    Raises:
        ValueError: for other levels.
    """

    parameters = ("logits",)
    discrete = True

    def __init__(self, levels=None, **kwargs):
        super().__init__(**kwargs)
        self.levels = levels if levels is None else arguments.integer_at_least("levels", levels, 2)
        self.expected = _levels_expected(self.levels) if self.levels else "one 1 among zeros along the last axis"
        self.takes_pixels = self.levels == 256

    @property
    def dimensions(self):
        return super().dimensions if self.levels else math.prod(self.event_shape[:-1])

    def decoder_shape(self, event_shape):
        if self.levels:
            return (*event_shape[:-1], event_shape[-1] * self.levels)
        if event_shape[-1] < 2:
            raise ValueError(
                f"The data's shape is {tuple(event_shape)}; CategoricalLikelihood() expects at least 2 classes, "
                "one-hot along the last axis: for images of few levels give CategoricalLikelihood(levels=...)."
            )
        return tuple(event_shape)

    def distribution(self, outputs):
        if self.levels is None:
            return OneHotCategorical(outputs[0])
        return CategoricalLevels(ops.reshape(outputs[0], (-1, *self.event_shape, self.levels)))

    def supports(self, x):
        if self.levels:
            return _are_levels(x, self.levels)
        return ops.logical_and(ops.logical_or(x == 0, x == 1), ops.sum(x, axis=-1, keepdims=True) == 1)

    def check_data(self, x):
        if self.levels:
            _check_levels(x, self)
        elif not np.all(ops.convert_to_numpy(self.supports(x))):
            raise ValueError(
                "The data are not one-hot along their last axis (a 1 among zeros), as CategoricalLikelihood() expects: "
                "keras.ops.one_hot makes them so of labels; for images of few levels give levels=..."
            )

    def get_config(self):
        return {**super().get_config(), "levels": self.levels}


def _are_levels(x, levels):
    level = x * (levels - 1)
    in_range = ops.logical_and(level >= -1e-3, level <= levels - 1 + 1e-3)
    return ops.logical_and(ops.abs(level - ops.round(level)) <= 1e-3, in_range)


def _levels_expected(levels):
    return (
        f"{levels} levels k / {levels - 1} from 0 to 1 (uint8 images are 256 such levels): divide whole numbers by "
        f"{levels - 1}, or use a likelihood for continuous values such as kvae.GaussianLikelihood"
    )


def _check_levels(x, likelihood):
    """Raise ValueError unless x holds levels k / (levels - 1)."""
    wrong = ~ops.convert_to_numpy(likelihood.supports(x))
    if np.any(wrong):
        raise ValueError(
            f"The images hold the value {x[wrong][0]:g}; {type(likelihood).__name__} expects {likelihood.expected}."
        )
