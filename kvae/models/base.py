"""What every model here is: a Keras model with codes, which reads streams, and whose numbers are per example."""

import functools
from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from kvae import arguments, html
from kvae.data import arrays, elements, errors, packed, validation
from kvae.models.training import TrainedModel
from kvae.saving import archive, model_card

_SEED, _RECORD = "seed_generator_state_", "record"


class LatentModel(TrainedModel):
    """A Keras model that encodes x to a code z and decodes z to x.

    x reaches it as a `tf.data.Dataset` of batches or a numpy array, of x, (x, y), (x, y, sample_weight) or tfds
    dicts. uint8 images are scaled by 1/255 in the graph; floats are taken as they are.

    A subclass gives `encode`, `decode` and `losses_per_example`.
    """

    latent_dim = None

    def encode(self, x):
        """The code of x (a mean where the code is random): tensor (n, ...) to (n, latent_dim)."""
        raise NotImplementedError

    def decode(self, z):
        """The image of z (a mean where the image is random): tensor (n, latent_dim) to (n, ...)."""
        raise NotImplementedError

    def call(self, x, training=False):
        return self.decode(self.encode(x))

    _repr_html_ = html.model

    def build(self, input_shape):
        """input_shape: (None, ...), the images'. `event_shape` and `latent_dim` are None before."""
        if self.built:
            return
        event_shape = tuple(input_shape[1:])
        self.build_parts(event_shape)
        self.event_shape = event_shape
        self.built = True
        self(self.symbol(event_shape, self.variable_dtype))  # as `export` wants it

    def symbol(self, shape, dtype=None):
        """What a network that takes x or z (n, *shape) is called on before there are any."""
        return keras.KerasTensor((None, *shape), dtype=dtype or self.compute_dtype)

    def build_parts(self, event_shape):
        """Make what depends on the images' shape; raise ValueError where the parts don't fit it."""
        raise NotImplementedError

    def check_built(self):
        """Raise ValueError where the images' shape isn't known yet."""
        if not self.built:
            raise ValueError(
                "The model doesn't know its images' shape yet: call fit, or build((None, height, width, channels))."
            )

    def _sampling_of(self, count, seed):
        """What `sample` needs, checked: the number of images and the generator of their noise."""
        self.check_built()
        seed = arguments.seed(seed)
        generator = self.sample_seed if seed is None else keras.random.SeedGenerator(seed)
        return arguments.integer_at_least("count", count, 1), generator

    # Codes and images

    def transform(self, x, batch_size=elements.BATCH_SIZE, directory=None):
        """Codes: the posteriors' means where the code is random. A stream or an array to an array (n, latent_dim).

        directory: a new folder that the codes are written to instead, their labels beside them, a batch in memory at
        a time; `kvae.data.load(directory)` streams them. Raises ValueError for labels named "code".
        """
        codes = self._over(self._checked(x, "x"), self._encode_batch, batch_size)
        if directory is None:
            return np.concatenate([code for code, _ in codes])
        packed.write_columns(
            {"train": ({"code": code, **_labels(element)} for code, element in codes)}, directory, progress=0
        )
        return None

    def inverse_transform(self, z, batch_size=elements.BATCH_SIZE):
        """The images of codes (n, latent_dim), an array (n, ...): means where the image is random."""
        self.check_built()
        validation.validate_first_batch(z, (self.latent_dim,), name="z")
        return np.concatenate([image for image, _ in self._over(z, self._decode_batch, batch_size)])

    def reconstruct(self, x, batch_size=elements.BATCH_SIZE):
        """decode(encode(x)), an array (n, ...): means all through, so it repeats exactly."""
        images = self._over(self._checked(x, "x"), self._reconstruct_batch, batch_size)
        return np.concatenate([image for image, _ in images])

    def _over(self, data, function, batch_size):
        """(function of x, element) of each batch."""
        with errors.clear_errors():
            for element in arrays.batches(data, batch_size):
                x = self._read(element)
                # One trace for every batch size, and none of TensorFlow's warnings about retracing.
                signature = tf.nest.map_structure(lambda part: tf.TensorSpec((None, *part.shape[1:]), part.dtype), x)
                yield function.get_concrete_function(signature)(x).numpy(), element

    @functools.cached_property
    def _encode_batch(self):
        return tf.function(lambda x: self.encode(self._scaled(x)), autograph=False)

    @functools.cached_property
    def _decode_batch(self):
        return tf.function(lambda z: self.decode(self._scaled(z)), autograph=False)

    @functools.cached_property
    def _reconstruct_batch(self):
        return tf.function(lambda x: self(self._scaled(x), training=False), autograph=False)

    # Saving

    def save(self, path, overwrite=False):
        """Write the model to `path`, a name that ends in .keras, and cards of what it is, .card.json and .card.md.

        `kvae.load` reads it. The file has its name only once it is whole. Raises FileExistsError where there is a
        file already and overwrite is False, OSError where it can't be written, which leaves what there was.
        """
        archive.save(self, path, overwrite, super().save)

    def save_own_variables(self, store):
        """Beside the weights, what the model remembers, and every seed generator's state, which Keras leaves out."""
        super().save_own_variables(store)
        store[_RECORD] = self.record.encoded()
        for number, state in enumerate(self._seed_states()):
            store[f"{_SEED}{number}"] = state.numpy()

    def load_own_variables(self, store):
        names = list(store.keys())
        weights = [name for name in names if name != _RECORD and not name.startswith(_SEED)]
        super().load_own_variables({name: store[name] for name in weights})
        if _RECORD in names:
            self.record = model_card.Record.decoded(store[_RECORD])
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


def _labels(element):
    y = elements.unpack(element)[1]
    if isinstance(y, Mapping) and "code" in y:
        raise ValueError('x has labels named "code", as the codes beside them are: rename them with map')
    return y if isinstance(y, Mapping) else {} if y is None else {"label": y}
