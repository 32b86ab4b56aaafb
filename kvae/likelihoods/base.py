"""What every likelihood is."""

import abc
import math

import keras
import numpy as np
from keras import ops

from kvae.distributions import Distribution

# A learned logarithm is this many times its weight: an optimizer whose steps have the learning rate's size, such as
# Adam, then crosses a factor e in a hundred steps at 1e-3, not in a thousand.
GAIN = 10.0
UNIT_INTERVAL = (
    "values in [0, 1]: divide by 255 (uint8 images are scaled by themselves), or use kvae.GaussianLikelihood"
)


class Likelihood(keras.layers.Layer, abc.ABC):
    """p(x|z) from a decoder's output: a tensor, or two where `parameters` has two names.

    `discrete` says whether p(x|z) is a probability, rather than a density: only then do nats become bits per dimension.
    """

    parameters = ("mean",)
    discrete = False
    expected = None  # of the values of x, in words; None where all real numbers have a density
    takes_pixels = False  # whether uint8 images, k / 255, and bool ones have a probability whatever they hold

    def build(self, input_shape):
        """input_shape: the images', (None, ...)."""
        self.event_shape = tuple(input_shape[1:])
        super().build(input_shape)

    @abc.abstractmethod
    def distribution(self, outputs) -> Distribution:
        """p(x|z), given the list of the decoder's outputs, each (n, ...)."""

    def decoder_shape(self, event_shape):
        """The shape of each of the decoder's outputs for images of `event_shape`, both without the batch.

        Raises ValueError for events that this likelihood doesn't describe.
        """
        return tuple(event_shape)

    def check_outputs(self, shapes, event_shape):
        """Raise ValueError unless the decoder's output shapes are what this likelihood reads."""
        expected, event_shape = self.decoder_shape(event_shape), tuple(event_shape)
        found = [tuple(shape[1:]) for shape in shapes]
        if found != [expected] * len(self.parameters):
            is_images = expected == event_shape
            images = f"the images' shape {expected}" if is_images else f"shape {expected} for images {event_shape}"
            raise ValueError(
                f"The decoder gives {len(found)} output(s) of shape {_listing(found)}; {type(self).__name__} reads "
                f"[{', '.join(self.parameters)}], each of {images}."
                + (" A second output: outputs=2 in kvae.networks." if len(found) < len(self.parameters) else "")
            )

    def supports(self, x):
        """Where x (n, ...), a tensor, scaled, has a probability: bool of its shape, or one that broadcasts to it."""
        return ops.ones_like(x, dtype="bool")

    def check_data(self, x):
        """Raise ValueError for values (numpy, scaled) that have no density here; warn of those that fit badly."""
        return None

    @property
    def dimensions(self):
        """How many values an example has."""
        return math.prod(self.event_shape)

    def bits_per_dimension(self, log_prob):
        """-log_prob / (dimensions log 2) for log-probabilities of examples in nats, of any shape.

        Raises ValueError for a likelihood that is a density, whose bits depend on the unit of x.
        """
        if not self.discrete:
            raise ValueError(
                f"{type(self).__name__} is a density, and bits per dimension are those of probabilities: use a "
                "likelihood of discrete values, such as kvae.DiscretizedLogisticLikelihood."
            )
        return -log_prob / (self.dimensions * math.log(2))


def in_unit_interval(x):
    return ops.logical_and(x >= 0, x <= 1)


def check_unit_interval(x, likelihood):
    """Raise ValueError unless the values of x are in [0, 1], as the likelihood wants them."""
    low, high = float(np.min(x)), float(np.max(x))
    if low < 0 or high > 1:
        raise ValueError(
            f"The images' values reach from {low:g} to {high:g}; {type(likelihood).__name__} expects {UNIT_INTERVAL}."
        )


def _listing(shapes):
    return ", ".join(map(str, shapes)) if shapes else "none"
