"""Means over examples of what a model reports."""

import keras
from keras import ops


class Means(keras.metrics.Metric):
    """The means over examples of a model's numbers, all at once. float64: a float32 sum over millions drifts.

    names: of the numbers, the loss first, whose weights are in it already; the others' means are weighted ones.
    """

    def __init__(self, names, **kwargs):
        super().__init__(**{"name": "means", "dtype": "float64", **kwargs})
        self.names = tuple(names)
        self.totals = self.add_variable((len(self.names),), "zeros", self.dtype, name="totals")
        self.examples = self.add_variable((), "zeros", self.dtype, name="examples")
        self.weights_seen = self.add_variable((), "zeros", self.dtype, name="weights_seen")

    def update_state(self, losses, parts, sample_weight=None):
        values = [losses, *(weighted(parts[name], sample_weight) for name in self.names[1:])]
        count = ops.cast(ops.shape(losses)[0], self.dtype)
        # Not the sums of a stack, which TensorFlow's optimizer of graphs makes 0 where one tensor is in it twice.
        self.totals.assign_add(ops.stack([ops.sum(ops.cast(value, self.dtype)) for value in values]))
        self.examples.assign_add(count)
        weight = count if sample_weight is None else ops.sum(ops.cast(sample_weight, self.dtype))
        self.weights_seen.assign_add(weight)

    def result(self):
        counts = [self.examples.value] + [self.weights_seen.value] * (len(self.names) - 1)
        means = ops.divide_no_nan(self.totals, ops.stack(counts))
        return dict(zip(self.names, ops.unstack(means, len(self.names)), strict=True))


def weighted(losses, sample_weight):
    """losses (n,) times the examples' weights (n,), where there are any."""
    return losses if sample_weight is None else losses * ops.cast(sample_weight, losses.dtype)
