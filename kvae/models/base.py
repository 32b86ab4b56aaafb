"""What every model here is: a Keras model with codes, which reads streams, and whose numbers are per example."""

import functools

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from kvae.data import streams

_SEED = "seed_generator_state_"


class LatentModel(keras.Model):
    """A Keras model that encodes x to a code z and decodes z to x.

    x reaches it as a `tf.data.Dataset` of batches or a numpy array, of x, (x, y), (x, y, sample_weight) or tfds
    dicts. uint8 images are scaled by 1/255 in the graph; floats are taken as they are.

    A subclass gives `encode`, `decode` and `losses_per_example`.
    """

    reported = ("loss",)
    event_shape = None
    latent_dim = None

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        # float64, since a float32 sum over millions of examples drifts.
        self.trackers = {name: keras.metrics.Mean(name, dtype="float64") for name in self.reported}

    def encode(self, x):
        """The code of x (a mean where the code is random): tensor (n, ...) to (n, latent_dim)."""
        raise NotImplementedError

    def decode(self, z):
        """The image of z (a mean where the image is random): tensor (n, latent_dim) to (n, ...)."""
        raise NotImplementedError

    def losses_per_example(self, x, training=False, index=None):
        """What is minimised and reported: (loss (n,), {name: (n,)} for the other names in `reported`).

        x: (n, ...), scaled. index: positions (n,) in the stream, of which any noise is then a function; None for
        fresh noise.
        """
        raise NotImplementedError

    def call(self, x, training=False):
        return self.decode(self.encode(x))

    def build(self, input_shape):
        """input_shape: (None, ...), the images'. `event_shape` and `latent_dim` are None before."""
        if self.built:
            return
        event_shape = tuple(input_shape[1:])
        self.build_parts(event_shape)
        self.event_shape = event_shape
        self.built = True
        self(keras.KerasTensor((None, *event_shape), dtype=self.variable_dtype))  # as `export` wants it

    def build_parts(self, event_shape):
        """Make what depends on the images' shape; raise ValueError where the parts don't fit it."""
        raise NotImplementedError

    # Training and evaluation

    def train_step(self, data):
        x, sample_weight = self._inputs(data)
        # The step that finds the end of a stream must not advance the optimizer and the seeds.
        with tf.control_dependencies([x]):
            with tf.GradientTape() as tape:
                losses, parts = self.losses_per_example(x, training=True)
                loss = self._minimised(losses, sample_weight) / self.distribute_strategy.num_replicas_in_sync
                scaled = self.optimizer.scale_loss(loss)
            gradients = tape.gradient(scaled, self.trainable_weights)
            self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
            return self._report(x, losses, parts, sample_weight)

    def test_step(self, data):
        x, sample_weight = self._inputs(data)
        seen = ops.cast(self.trackers["loss"].count, "int64")
        index = seen + ops.arange(ops.shape(x)[0], dtype="int64")
        losses, parts = self.losses_per_example(x, training=False, index=index)
        return self._report(x, losses, parts, sample_weight)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """What `train_step` minimises, a scalar, for x as the stream gives it; y and y_pred aren't looked at."""
        losses, _ = self.losses_per_example(self._inputs(x)[0], training=training)
        return self._minimised(losses, sample_weight)

    def _minimised(self, losses, sample_weight):
        return ops.mean(_weighted(losses, sample_weight)) + sum(self.losses)

    def predict_step(self, data):
        return self(self._inputs(data)[0], training=False)

    def _inputs(self, data):
        x, _, sample_weight = streams.unpack(data)
        if sample_weight is not None:
            # Keras' trace for weights of both shapes has no rank left.
            shape = tf.TensorShape(sample_weight.shape)
            if shape.rank is not None and tuple(shape[1:]) not in ((), (1,)):
                raise ValueError(f"sample_weight has the shape {shape}; expected one weight an example, (n,).")
            sample_weight = ops.reshape(sample_weight, (-1,))
        return self._scaled(x), sample_weight

    def _scaled(self, x):
        return streams.scale(x, self.variable_dtype)

    def _report(self, x, losses, parts, sample_weight):
        self.trackers["loss"].update_state(_weighted(losses, sample_weight) + sum(self.losses))
        for name, values in parts.items():
            self.trackers[name].update_state(values, sample_weight)
        for metric in self._compiled_metrics():
            metric.update_state(x, self(x, training=False), sample_weight=sample_weight)
        return self.get_metrics_result()

    @property
    def metrics(self):
        return list(self.trackers.values()) + self._compiled_metrics()

    def _compiled_metrics(self):
        own = self.trackers.values()
        return [metric for metric in super().metrics if metric not in own and metric.name != "loss"]

    def fit(self, x=None, y=None, *, sample_weight=None, validation_data=None, steps_per_epoch=None, **kwargs):
        """Train: `keras.Model.fit`, after x and validation_data were checked (see `kvae.data.streams.check`).

        y isn't read. A stream's first batch is read once more than Keras would, for the checks.
        """
        x, y, sample_weight = streams.fit_arguments(x, y, sample_weight)
        x = self._checked(x, "x", steps_per_epoch)
        if validation_data is not None:
            if not isinstance(validation_data, tf.data.Dataset):
                parts = streams.fit_arguments(*streams.unpack(validation_data))
                validation_data = tuple(part for part in parts if part is not None)
            validation_data = self._checked(validation_data, "validation_data", kwargs.get("validation_steps"))
        if isinstance(x, tf.data.Dataset):
            kwargs.setdefault("shuffle", False)  # the stream's own affair; Keras would warn
        if self.compiled and not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)  # outside the graph, as XLA wants it
        with streams.clear_errors():
            return super().fit(
                x,
                y,
                sample_weight=sample_weight,
                validation_data=validation_data,
                steps_per_epoch=steps_per_epoch,
                **kwargs,
            )

    def evaluate(self, x=None, y=None, *, sample_weight=None, steps=None, **kwargs):
        """The mean over the examples of each of `reported`: `keras.Model.evaluate` after x was checked.

        The noise is a fixed function of an example's position: in data of one order the numbers repeat exactly, and
        they don't depend on the batches.
        """
        x, y, sample_weight = streams.fit_arguments(x, y, sample_weight)
        if not kwargs.get("_use_cached_eval_dataset"):
            x = self._checked(x, "x", steps)
        with streams.clear_errors():
            return super().evaluate(x, y, sample_weight=sample_weight, steps=steps, **kwargs)

    def _checked(self, data, name, steps=None):
        """The data as they should be read, or one clear error before any work."""
        first = streams.check(data, self.event_shape if self.built else None, steps, name)
        if not self.built:
            self.build((None, *first.shape[1:]))
        self._check_values(first)
        for metric in self._compiled_metrics():
            if not getattr(metric, "built", True):
                metric.build(first[:1], self(first[:1], training=False))
        return streams.finite(data, name) if isinstance(data, tf.data.Dataset) else data

    def _check_values(self, x):
        """Raise ValueError for values (numpy, scaled) that the model can't score."""

    def check_built(self):
        """Raise ValueError where the images' shape isn't known yet."""
        if not self.built:
            raise ValueError(
                "The model doesn't know its images' shape yet: call fit, or build((None, height, width, channels))."
            )

    # Codes and images

    def transform(self, x, batch_size=streams.BATCH_SIZE):
        """Codes: the posteriors' means where the code is random. A stream or an array to an array (n, latent_dim)."""
        return self._over(self._checked(x, "x"), self._encode_batch, batch_size)

    def inverse_transform(self, z, batch_size=streams.BATCH_SIZE):
        """The images of codes (n, latent_dim), an array (n, ...): means where the image is random."""
        self.check_built()
        streams.check(z, (self.latent_dim,), name="z")
        return self._over(z, self._decode_batch, batch_size)

    def reconstruct(self, x, batch_size=streams.BATCH_SIZE):
        """decode(encode(x)), an array (n, ...): means all through, so it repeats exactly."""
        return self._over(self._checked(x, "x"), self._reconstruct_batch, batch_size)

    def _over(self, data, function, batch_size):
        results = []
        with streams.clear_errors():
            for element in streams.batches(data, batch_size):
                x = streams.unpack(element)[0]
                # One trace for every batch size, and none of TensorFlow's warnings about retracing.
                signature = tf.TensorSpec((None, *x.shape[1:]), x.dtype)
                results.append(function.get_concrete_function(signature)(x).numpy())
        return np.concatenate(results)

    @functools.cached_property
    def _encode_batch(self):
        return tf.function(lambda x: self.encode(self._scaled(x)))

    @functools.cached_property
    def _decode_batch(self):
        return tf.function(lambda z: self.decode(self._scaled(z)))

    @functools.cached_property
    def _reconstruct_batch(self):
        return tf.function(lambda x: self(self._scaled(x), training=False))

    # Saving

    def save_own_variables(self, store):
        """Beside the weights, the state of every seed generator, which Keras leaves out."""
        super().save_own_variables(store)
        for number, state in enumerate(self._seed_states()):
            store[f"{_SEED}{number}"] = state.numpy()

    def load_own_variables(self, store):
        names = list(store.keys())
        super().load_own_variables({name: store[name] for name in names if not name.startswith(_SEED)})
        for number, state in enumerate(self._seed_states()):
            if f"{_SEED}{number}" in names:
                state.assign(store[f"{_SEED}{number}"])

    def _seed_states(self):
        return [variable for variable in self.variables if variable.name == "seed_generator_state"]

    def get_compile_config(self):
        without_optimizer = self.compiled and self.optimizer is None
        return None if without_optimizer else super().get_compile_config()

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def get_build_config(self):
        return {"input_shape": (None, *self.event_shape)} if self.built else None


def _weighted(losses, sample_weight):
    return losses if sample_weight is None else losses * ops.cast(sample_weight, losses.dtype)
