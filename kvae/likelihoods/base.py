"""Base class of likelihoods."""

import abc
import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kvae.arguments import Shape, Tensor
from kvae.distributions import Distribution

# A learned logarithm is GAIN times its weight. Adam at a learning rate of 1e-3 then changes it by 1 in a hundred
# steps, not in a thousand.
GAIN = 10.0
UNIT_INTERVAL = (
    "values in [0, 1]: divide by 255 (uint8 images are scaled by themselves), or use kvae.GaussianLikelihood"
)


class Likelihood(keras.layers.Layer, abc.ABC):
    """Base class of likelihoods: layers that make p(x|z) of a decoder's outputs.

    A subclass defines `distribution`. If some values of x have no density, it also defines `supports` and `check_data`.

    Attributes:
        parameters: tuple of str, the names of the decoder's outputs. Default ("mean",).
        discrete: bool, True if p(x|z) is a probability and False if it is a density. Only probabilities have bits per
            dimension. Default False.
        expected: str, the expected values of x in words, for messages. Default None: all real numbers.
        reads_sizes: bool, True if means of counts depend on sizes in x. Default False.
        takes_pixels: bool, True if all uint8 and bool images have a probability, scaled to [0, 1]. Default False.
        event_shape: tuple of ints, an example's shape, once built.

    Example:

    >>> class UnitGaussian(kvae.Likelihood):
    ...     def distribution(self, outputs):
    ...         return kvae.distributions.Normal(outputs[0], ops.zeros_like(outputs[0]))
    >>> p = UnitGaussian().distribution([ops.zeros((2, 3))])
    >>> p.log_prob(ops.zeros((2, 3))).numpy().round(3)
    array([-2.757, -2.757], dtype=float32)
    """

    parameters: tuple[str, ...] = ("mean",)
    discrete: bool = False
    expected: str | None = None
    takes_pixels: bool = False
    reads_sizes: bool = False

    def build(self, input_shape: Shape) -> None:
        """Create the weights. input_shape: (None, ...), the shape of x."""
        self.event_shape = tuple(input_shape[1:])
        super().build(input_shape)

    @abc.abstractmethod
    def distribution(self, outputs: Sequence[Tensor]) -> Distribution:
        """Return p(x|z) from the list of the decoder's outputs, tensors (n, ...), one per name in `parameters`."""

    def decoder_shape(self, event_shape: Shape) -> Shape:
        """Return the expected shape of each decoder output, without the batch.

        Args:
            event_shape: tuple of ints, an example's shape.

        Raises:
            ValueError: if the likelihood doesn't describe such examples.
        """
        return tuple(event_shape)

    def check_outputs(self, shapes: Sequence[Shape], event_shape: Shape) -> None:
        """Raise ValueError unless the decoder's outputs have the expected shapes.

        Args:
            shapes: list of the outputs' shapes, (None, ...) each.
            event_shape: tuple of ints, an example's shape.
        """
        expected, event_shape = self.decoder_shape(event_shape), tuple(event_shape)
        output_shapes = [tuple(shape[1:]) for shape in shapes]
        if output_shapes != [expected] * len(self.parameters):
            is_images = expected == event_shape
            images = f"the images' shape {expected}" if is_images else f"shape {expected} for images {event_shape}"
            raise ValueError(
                f"The decoder gives {len(output_shapes)} output(s) of shape "
                f"{', '.join(map(str, output_shapes)) or 'none'}; {type(self).__name__} reads "
                f"[{', '.join(self.parameters)}], each of {images}."
                + (" A second output: outputs=2 in kvae.networks." if len(output_shapes) < len(self.parameters) else "")
            )

    def supports(self, x: Tensor) -> Tensor:
        """Return a mask of the values of x with a density: bool, broadcasts to the shape of x, a scaled tensor."""
        return ops.ones_like(x, dtype="bool")

    def check_data(self, x: np.ndarray) -> None:
        """Raise ValueError if values of x, a scaled array, have no density. Warn if they fit badly."""
        return None

    @property
    def dimensions(self) -> int:
        """The number of values of an example."""
        return math.prod(self.event_shape)

    def bits_per_dimension(self, log_prob: Any) -> Any:
        """Return -log_prob / (dimensions log 2).

        Args:
            log_prob: number, array or tensor, log-probabilities of examples in nats.

        Raises:
            ValueError: if p(x|z) is a density: its bits depend on the unit of x.
        """
        if not self.discrete:
            raise ValueError(
                f"{type(self).__name__} is a density, and bits per dimension are those of probabilities: use a "
                "likelihood of discrete values, such as kvae.DiscretizedLogisticLikelihood."
            )
        return -log_prob / (self.dimensions * math.log(2))


def in_unit_interval(x: Tensor) -> Tensor:
    return ops.logical_and(x >= 0, x <= 1)


def check_unit_interval(x: np.ndarray, likelihood: Likelihood) -> None:
    """Raise ValueError unless all values of x are in [0, 1]."""
    low, high = float(np.min(x)), float(np.max(x))
    if low < 0 or high > 1:
        raise ValueError(
            f"The images' values reach from {low:g} to {high:g}; {type(likelihood).__name__} expects {UNIT_INTERVAL}."
        )
