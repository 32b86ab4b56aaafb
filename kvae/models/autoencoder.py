"""The autoencoder: a code that keeps what the squared error of the reconstruction needs."""

from __future__ import annotations

import inspect
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from kvae.data import elements
from kvae.distributions import sum_event
from kvae.models.encoder_decoder import EncoderDecoder, network_shapes
from kvae.models.step import Step


@keras.saving.register_keras_serializable("kvae")
class Autoencoder(EncoderDecoder):
    """Minimizes ||x - decode(encode(x))||^2, summed over an example, averaged over the examples.

    With linear networks its optimum spans PCA's subspace. Reports `loss` and `squared_error`: the same number, without
    regularization losses and with the examples' weights in the mean.

    `fit(noisy, clean)`, or a stream of such pairs, trains a denoising autoencoder: a y of x's shape takes x's place in
    the squared error.

    Args:
        encoder: a Keras model from x (n, ...) to codes (n, latent_dim). Of several outputs, as a VAE's encoder has,
            the first is the code and the others are dropped.
        decoder: a Keras model from codes (n, latent_dim) to images of x's shape.

    Raises:
        ValueError: if the two networks don't fit each other.
        TypeError: if one of them isn't a Keras model.

    Example:
        >>> encoder = kvae.networks.dense_encoder((28, 28, 1), latent_dim=2)
        >>> decoder = kvae.networks.dense_decoder((28, 28, 1), latent_dim=2)
        >>> kvae.Autoencoder(encoder, decoder).transform(np.zeros((5, 28, 28, 1), "float32")).shape
        (5, 2)

    Reference:
        Hinton and Salakhutdinov (2006), "Reducing the dimensionality of data with neural networks"; Vincent et al.
        (2008), "Extracting and composing robust features with denoising autoencoders".
    """

    metric_names = ("loss", "squared_error")
    _has_exact_scores = True

    def __init__(self, encoder: keras.layers.Layer, decoder: keras.layers.Layer, **kwargs: Any):
        super().__init__(_first_output(encoder), decoder, **kwargs)
        self._build_if_shape_is_known()

    def train_step(self, data: Any) -> dict[str, Any]:
        """One step down the squared error of a batch `data`. `kvae.models.step` keeps NaN out."""
        with Step(self, data) as step:
            with tf.GradientTape() as tape:
                losses, numbers = self.losses_per_example(step.x, training=True, **step.target)
                loss = step.loss(losses)
            return step.apply_gradients(tape.gradient(loss, self.trainable_weights), losses=losses, numbers=numbers)

    def losses_per_example(
        self, x: Any, training: bool = False, index: Any = None, target: Any = None
    ) -> tuple[Any, dict[str, Any]]:
        """||x - decode(encode(x))||^2 of x (n, ...): (n,), as the loss and as a number to report.

        Args:
            x: tensor or array (n, ...); uint8 is scaled.
            training: bool, passed to the networks.
            index: not read: nothing is drawn.
            target: tensor (n, ...) to reconstruct in place of x, as a denoising autoencoder does; None for x.
        """
        x = self._scaled(x)
        target = x if target is None else self._scaled(target)
        squared_error = sum_event(ops.square(target - self(x, training=training)))
        return squared_error, {"squared_error": squared_error}

    def _exact_scores(self, x):
        return -sum_event(ops.square(x - self(x)))

    def encode(self, x: Any, training: bool = False) -> Any:
        """The code of x: (n, ...) to (n, latent_dim). `training` goes to the encoder."""
        return self._outputs(self.encoder, self._scaled(x), training)[0]

    def decode(self, z: Any, training: bool = False) -> Any:
        """The image of z: (n, latent_dim) to (n, ...). `training` goes to the decoder."""
        return self._outputs(self.decoder, z, training)[0]

    def call(self, x: Any, training: bool = False) -> Any:
        """`decode(encode(x))`: the reconstruction (n, ...). `training` goes to both networks."""
        return self.decode(self.encode(x, training), training)

    def compile(self, optimizer: Any = "adam", loss: None = None, **kwargs: Any) -> None:
        """`keras.Model.compile` with an optimizer. The loss is the squared error; another raises ValueError."""
        if loss is not None:
            raise ValueError(
                f"loss is {loss!r}; an Autoencoder minimizes its squared error and takes none. For a likelihood there "
                "is kvae.VAE."
            )
        super().compile(optimizer=optimizer, **kwargs)

    def _read_target(self, element):
        y = elements.target(element)
        takes_it = "target" in inspect.signature(self.losses_per_example).parameters  # not so an override of 0.1.0
        return {"target": y} if takes_it and y is not None else {}

    def _build_parts(self, event_shape):
        code_shapes, image_shapes = network_shapes(self, event_shape)
        if len(code_shapes[0]) != 2:
            raise ValueError(f"The encoder gives codes of shape {code_shapes[0]}; expected (n, latent_dim).")
        if image_shapes != [(None, *event_shape)]:
            raise ValueError(
                f"The decoder gives outputs of shapes {image_shapes}; an Autoencoder expects one output of the "
                f"images' shape, {(None, *event_shape)}."
            )
        self.latent_dim = code_shapes[0][1]


def _first_output(encoder):
    """The encoder without its further outputs: their weights would never be trained."""
    outputs = getattr(encoder, "outputs", None)
    if isinstance(outputs, list) and len(outputs) > 1:
        return keras.Model(encoder.inputs, outputs[0], name=encoder.name)
    return encoder
