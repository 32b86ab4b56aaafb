"""What every model here reads of its data, and looks for in them before any work or while a stream is read."""

import keras

from kvae import arguments
from kvae.data import arrays, elements, errors, validation
from kvae.data.runs import distribute
from kvae.models import stalls


class CheckedModel(keras.Model):
    """A Keras model of events of a shape, with or without a likelihood, that refuses data it can't use.

    A subclass gives `_check_values` where there are values that it can't score.
    """

    event_shape = None
    likelihood = None

    def _read(self, element):
        """What the model takes of a stream's element: x, (n, ...), here the images alone."""
        return elements.unpack(element)[0]

    def _scaled(self, x):
        return elements.scale(x, self.variable_dtype)

    def _checked(self, data, name, steps=None):
        """The data as they should be read, or one clear error before any work."""
        self._first_batch(data, name, steps)
        return self._watched(validation.stop_at_nonfinite(data, name), name)

    def _first_batch(self, data, name, steps):
        """The first batch (numpy, scaled) of data that can be used, for which the model is then built."""
        first = self._looked_at(data, name, steps)
        self._prepare(first)
        return first

    def _looked_at(self, data, name, steps, event_shape=None):
        """The first batch of data that can be used; the model stays as it is. event_shape: of one that isn't built."""
        with stalls.Watch(f"the check of {name}", "its first batch"), errors.clear_errors():
            shape = self.event_shape if self.built else event_shape
            first = validation.validate_first_batch(data, shape, steps, name, self.variable_dtype)
        self._check_values(first)
        if not elements.is_dataset(data):
            self._expecting(data, name)
        return first

    def _watched(self, data, name):
        """The same data, of which a stream stops at values that the model can't score."""
        return self._expecting(data, name) if elements.is_dataset(data) else data

    def _expecting(self, data, name):
        likelihood = self.likelihood
        if likelihood is None or likelihood.expected is None or (likelihood.takes_pixels and elements.are_pixels(data)):
            return data
        complaint = f"{type(likelihood).__name__} expects {likelihood.expected}"
        return validation.stop_at_unsupported(data, likelihood.supports, complaint, name)

    def _validation(self, data, first, steps, batch_size):
        """Validation data as they should be read. first: the first batch of the data for training."""
        if not elements.is_dataset(data):
            data = tuple(part for part in elements.fit_arguments(*elements.unpack(data)) if part is not None)
        self._looked_at(data, "validation_data", steps, first.shape[1:])
        if arrays.is_streamable(data, self.distribute_strategy):
            data = arrays.from_arrays(data, batch_size, shuffle=False)
        data = validation.stop_at_nonfinite(self._watched(data, "validation_data"), "validation_data")
        return distribute(data, self.distribute_strategy, once=True)

    def _prepare(self, first):
        """Build what depends on the data's shape."""
        with self.distribute_strategy.scope():
            if not self.built:
                self.build((None, *first.shape[1:]))
            for metric in self._compiled_metrics():
                if not getattr(metric, "built", True):
                    metric.build(first[:1], first[:1])

    def _check_values(self, x):
        """Raise ValueError for values (numpy, scaled) that the model can't score."""


def check_numbers(epochs=None, **asked):
    """Raise ValueError for numbers of steps, epochs or rows that are none."""
    for name in ("batch_size", "steps", "steps_per_epoch", "validation_steps"):
        if asked.get(name) is not None:
            arguments.integer_at_least(name, asked[name], 1)
    if epochs is not None:
        arguments.integer_at_least("epochs", epochs, 0)
