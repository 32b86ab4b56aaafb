"""Vector quantisation: a codebook, and how evenly it is used."""

import keras
from keras import ops

from kvae import arguments
from kvae.distributions import sum_event


@keras.saving.register_keras_serializable("kvae")
class VectorQuantizer(keras.layers.Layer):
    """Replaces each vector, along the last axis, by the nearest of K learned ones, e_1 to e_K.

    Van den Oord, Vinyals and Kavukcuoglu (2017), "Neural discrete representation learning". The gradient of what
    `call` gives goes to its input as if nothing had been replaced ("straight-through"); the codebook learns by
    `distances`.

    Args:
        codes: int, K.
        seed: int or None (random), of the first codebook, which is drawn from N(0, I / d).

    Raises:
        ValueError: for a number below 2.
    """

    def __init__(self, codes=512, seed=None, **kwargs):
        # Not in half precision, in which near codes are one.
        super().__init__(**{"dtype": keras.config.dtype_policy().variable_dtype, **kwargs})
        self.codes, self.seed = arguments.integer_at_least("codes", codes, 2), arguments.seed(seed)

    def build(self, input_shape):
        """input_shape: (None, ..., d)."""
        size = input_shape[-1]
        start = keras.initializers.RandomNormal(stddev=size**-0.5, seed=self.seed)
        shape = self.codes, size
        self.codebook = self.add_weight(name="codebook", shape=shape, initializer=start, autocast=False)
        super().build(input_shape)

    def nearest(self, z):
        """The numbers of the nearest e, by ||z - e||: (n, ..., d) to int32 (n, ...)."""
        codebook = ops.convert_to_tensor(self.codebook)
        rows = ops.reshape(z, (-1, z.shape[-1]))
        distance = ops.sum(ops.square(codebook), axis=1) - 2.0 * ops.matmul(rows, ops.transpose(codebook))
        return ops.reshape(ops.cast(ops.argmin(distance, axis=1), "int32"), (-1, *z.shape[1:-1]))

    def embed(self, numbers):
        """The e of these numbers: (n, ...) to (n, ..., d)."""
        return ops.take(1.0 * ops.convert_to_tensor(self.codebook), numbers, axis=0)  # so that its gradient is dense

    def call(self, z):
        """z + stop_gradient(e - z), e being the nearest: (n, ..., d) to the same."""
        return z + ops.stop_gradient(self.embed(self.nearest(z)) - z)

    def distances(self, z):
        """||z - e||^2 summed over an example, (n,), twice: once with a gradient for the e, once with one for the z."""
        nearest = self.embed(self.nearest(z))
        differences = ops.stop_gradient(z) - nearest, z - ops.stop_gradient(nearest)
        return tuple(sum_event(ops.square(difference)) for difference in differences)

    def get_config(self):
        return {**super().get_config(), "codes": self.codes, "seed": self.seed}


class Perplexity(keras.metrics.Metric):
    """exp of the entropy of all numbers that it saw: from 1, where all are equal, to `codes`, where all are as many."""

    def __init__(self, codes, name="perplexity", **kwargs):
        super().__init__(name=name, **{"dtype": "float64", **kwargs})
        self.counts = self.add_variable((codes,), "zeros", self.dtype, name="counts")

    def update_state(self, numbers):
        """numbers: integers from 0, of any shape."""
        flat = ops.reshape(numbers, (-1,))
        ones = ops.ones(ops.shape(flat), dtype=self.dtype)
        self.counts.assign_add(ops.segment_sum(ones, flat, num_segments=self.counts.shape[0]))

    def result(self):
        frequencies = ops.divide_no_nan(self.counts.value, ops.sum(self.counts.value))
        return ops.exp(-ops.sum(frequencies * ops.log(ops.where(frequencies > 0, frequencies, 1.0))))
