"""The autoencoder: features by the squared error of their reconstruction."""

import keras
from keras import ops

from kvae.distributions import sum_event
from kvae.models.pair import PairModel


@keras.saving.register_keras_serializable("kvae")
class Autoencoder(PairModel):
    """Minimises ||x - decode(encode(x))||^2, summed over the image, averaged over the examples.

    Hinton and Salakhutdinov (2006). With linear networks its optimum spans PCA's subspace. Reports `loss` and
    `squared_error`, the same but for regularisation and weights.

    Args:
        encoder: a Keras model from x (n, ...) to codes (n, latent_dim). Of several outputs, as a variational
            encoder's, the first is the code and the others are left out.
        decoder: a Keras model from codes to images of x's shape.

    Raises:
        ValueError: where the two don't fit each other.
    """

    reported = ("loss", "squared_error")

    def __init__(self, encoder, decoder, **kwargs):
        super().__init__(_first_output(encoder), decoder, **kwargs)
        self._build_if_shape_is_known()

    def compile(self, optimizer="adam", loss=None, **kwargs):
        """As `keras.Model.compile`. The loss is the squared error; another raises ValueError."""
        if loss is not None:
            raise ValueError(
                f"loss is {loss!r}; an Autoencoder minimises its squared error and takes none. For a likelihood there "
                "is kvae.VAE."
            )
        super().compile(optimizer=optimizer, **kwargs)

    def check_networks(self, code_shapes, output_shapes, event_shape):
        if len(code_shapes[0]) != 2:
            raise ValueError(f"The encoder gives codes of shape {code_shapes[0]}; expected (n, latent_dim).")
        if output_shapes != [(None, *event_shape)]:
            raise ValueError(
                f"The decoder gives outputs of shapes {output_shapes}; an Autoencoder expects one output of the "
                f"images' shape, {(None, *event_shape)}."
            )

    def encode(self, x, training=False):
        return self.outputs_of(self.encoder, self._scaled(x), training)[0]

    def decode(self, z, training=False):
        return self.outputs_of(self.decoder, z, training)[0]

    def call(self, x, training=False):
        return self.decode(self.encode(x, training), training)

    def losses_per_example(self, x, training=False, index=None):
        squared_error = sum_event(ops.square(x - self(x, training=training)))
        return squared_error, {"squared_error": squared_error}


def _first_output(encoder):
    """The encoder without its further outputs, whose weights would never be trained."""
    outputs = getattr(encoder, "outputs", None)
    if isinstance(outputs, list) and len(outputs) > 1:
        return keras.Model(encoder.inputs, outputs[0], name=encoder.name)
    return encoder
