"""Likelihoods of classes, and of images with a few levels such as k / 255."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kvae import arguments
from kvae.arguments import Shape, Tensor
from kvae.distributions import CategoricalLevels, DiscretizedLogisticMixture, OneHotCategorical
from kvae.likelihoods.base import Likelihood


@keras.saving.register_keras_serializable("kvae")
class DiscretizedLogisticLikelihood(Likelihood):
    """p(x|z) of images with levels k / (levels - 1): a mixture of rounded logistics. uint8 images have 256 levels.

    For images (height, width, channels) the decoder's output has the shape
    (height, width, components (1 + 2 channels)), the result of `decoder_shape`. For each pixel it holds the logits of
    the components, then means and log scales, each (channels, components). Means are relative to 1/2 and log scales to
    -2: a decoder of zeros gives a mean of 1/2 with a standard deviation of 1/4.

    Args:
        components: int >= 1, the components of the mixture. Default 10.
        levels: int >= 2, the levels of x. Default 256.
        **kwargs: of `keras.layers.Layer`.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> likelihood = kvae.DiscretizedLogisticLikelihood(components=5)
    >>> likelihood.decoder_shape((32, 32, 3))
    (32, 32, 35)

    Reference:
        Salimans et al. (2017), "PixelCNN++: improving the PixelCNN with discretized logistic mixture likelihood and
        other modifications". Differences: see `kvae.distributions.DiscretizedLogisticMixture`.
    """

    parameters = ("mixture",)
    discrete = True

    def __init__(self, components: int = 10, levels: int = 256, **kwargs: Any):
        super().__init__(**kwargs)
        self.components = arguments.integer_at_least("components", components, 1)
        self.levels = arguments.integer_at_least("levels", levels, 2)
        self.expected, self.takes_pixels = _levels_expected(self.levels), self.levels == 256

    def decoder_shape(self, event_shape: Shape) -> Shape:
        if len(event_shape) < 2:
            raise ValueError(
                f"The images' shape is {tuple(event_shape)}; DiscretizedLogisticLikelihood expects channels as the "
                "last axis, (height, width, channels): for vectors, give x[..., None]."
            )
        return (*event_shape[:-1], self.components * (1 + 2 * event_shape[-1]))

    def distribution(self, outputs: Sequence[Tensor]) -> DiscretizedLogisticMixture:
        *positions, channels = self.event_shape
        logits, rest = outputs[0][..., : self.components], outputs[0][..., self.components :]
        rest = ops.reshape(rest, (-1, *positions, 2, channels, self.components))
        return DiscretizedLogisticMixture(logits, 0.5 + rest[..., 0, :, :], rest[..., 1, :, :] - 2.0, self.levels)

    def supports(self, x: Tensor) -> Tensor:
        return _are_levels(x, self.levels)

    def check_data(self, x: np.ndarray) -> None:
        _check_levels(x, self)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "components": self.components, "levels": self.levels}


@keras.saving.register_keras_serializable("kvae")
class CategoricalLikelihood(Likelihood):
    """p(x|z) of classes or levels with probabilities softmax(logits). The decoder's output is the logits.

    Args:
        levels: None (default) for classes, one-hot along the last axis: the decoder's output has the shape of x,
            (..., classes), and the mean is the probabilities. Or an int >= 2 for images (..., channels) with levels
            k / (levels - 1): the decoder's output has the shape (..., channels levels). uint8 images have 256 levels.
        **kwargs: of `keras.layers.Layer`.

    Raises:
        ValueError: if `levels` has another value.

    Example:

    >>> kvae.CategoricalLikelihood().decoder_shape((7, 4))  # 7 positions with one of 4 classes each
    (7, 4)
    >>> kvae.CategoricalLikelihood(levels=256).decoder_shape((8, 8, 1))
    (8, 8, 256)
    """

    parameters = ("logits",)
    discrete = True

    def __init__(self, levels: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.levels = levels if levels is None else arguments.integer_at_least("levels", levels, 2)
        self.expected = _levels_expected(self.levels) if self.levels else "one 1 among zeros along the last axis"
        self.takes_pixels = self.levels == 256

    @property
    def dimensions(self) -> int:
        """The number of values of an example: positions for classes, pixels times channels for levels."""
        return super().dimensions if self.levels else math.prod(self.event_shape[:-1])

    def decoder_shape(self, event_shape: Shape) -> Shape:
        if self.levels:
            return (*event_shape[:-1], event_shape[-1] * self.levels)
        if event_shape[-1] < 2:
            raise ValueError(
                f"The data's shape is {tuple(event_shape)}; CategoricalLikelihood() expects at least 2 classes, "
                "one-hot along the last axis: for images of few levels give CategoricalLikelihood(levels=...)."
            )
        return tuple(event_shape)

    def distribution(self, outputs: Sequence[Tensor]) -> OneHotCategorical | CategoricalLevels:
        if self.levels is None:
            return OneHotCategorical(outputs[0])
        return CategoricalLevels(ops.reshape(outputs[0], (-1, *self.event_shape, self.levels)))

    def supports(self, x: Tensor) -> Tensor:
        if self.levels:
            return _are_levels(x, self.levels)
        return ops.logical_and(ops.logical_or(x == 0, x == 1), ops.sum(x, axis=-1, keepdims=True) == 1)

    def check_data(self, x: np.ndarray) -> None:
        if self.levels:
            _check_levels(x, self)
        elif not np.all(ops.convert_to_numpy(self.supports(x))):
            raise ValueError(
                "The data are not one-hot along their last axis (a 1 among zeros), as CategoricalLikelihood() expects: "
                "keras.ops.one_hot makes them so of labels; for images of few levels give levels=..."
            )

    def get_config(self) -> dict[str, Any]:
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
    """Raise ValueError unless all values of x are levels k / (levels - 1)."""
    wrong = ~ops.convert_to_numpy(likelihood.supports(x))
    if np.any(wrong):
        raise ValueError(
            f"The images hold the value {x[wrong][0]:g}; {type(likelihood).__name__} expects {likelihood.expected}."
        )
