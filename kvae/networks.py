"""Encoders and decoders: plain functional Keras models.

An encoder returns [z_mean, z_log_var], a decoder the parameters of a likelihood. Other networks with these outputs
work as well.
"""

import math
from collections.abc import Callable, Sequence

import keras
from keras import Model, layers

from kvae import arguments
from kvae.posteriors import Posterior

# Keeps variances constant through ReLUs (He et al. 2015). With Keras' default, signals vanish in an autoencoder.
_INITIALIZER = "he_normal"
_HALVING = {"strides": 2, "padding": "same", "kernel_initializer": _INITIALIZER}


def dense_encoder(
    shape: Sequence[int],
    latent_dim: int,
    hidden: Sequence[int] = (512, 256),
    activation: str | Callable = "relu",
    posterior_family: Posterior | None = None,
    posterior: Posterior | None = None,
) -> keras.Model:
    """Make an encoder of dense layers, from x (n, *shape) to [z_mean, z_log_var], each (n, latent_dim).

    Args:
        shape: tuple of ints, an example's shape.
        latent_dim: int >= 1, the size of z.
        hidden: tuple of ints, the units of the hidden layers. With () both outputs are linear in x. Default (512, 256).
        activation: str or function, of the hidden layers. Default "relu".
        posterior_family: `kvae.posteriors.Posterior`, for its further outputs. Default None: no others.
        posterior: old name of `posterior_family`.

    Returns:
        `keras.Model`.

    Raises:
        ValueError: if a size is no integer of at least 1.

    Example:

    >>> encoder = kvae.networks.dense_encoder((28, 28, 1), latent_dim=2)
    >>> [output.shape for output in encoder.outputs]
    [(None, 2), (None, 2)]
    """
    posterior_family = arguments.renamed("posterior", posterior, "posterior_family", posterior_family)
    x = layers.Input(arguments.sizes("shape", shape), name="x")
    h = layers.Flatten()(x)
    for units in arguments.sizes("hidden", hidden):
        h = layers.Dense(units, activation, kernel_initializer=_INITIALIZER)(h)
    return _encoder(x, h, latent_dim, posterior_family)


def dense_decoder(
    shape: Sequence[int],
    latent_dim: int,
    hidden: Sequence[int] = (256, 512),
    activation: str | Callable = "relu",
    outputs: int = 1,
) -> keras.Model:
    """Make a decoder of dense layers, from z (n, latent_dim) to tensors (n, *shape).

    Args:
        shape: tuple of ints, the shape of each output: of an example, or the result of `Likelihood.decoder_shape`.
        latent_dim: int >= 1, the size of z.
        hidden: tuple of ints, the units of the hidden layers. With () the outputs are linear in z. Default (256, 512).
        activation: str or function, of the hidden layers. Default "relu".
        outputs: int >= 1, one per parameter of the likelihood: 1 (default) for a mean or logits, 2 for a mean and a
            log-variance.

    Returns:
        `keras.Model`.

    Raises:
        ValueError: if a size is no integer of at least 1.

    Example:

    >>> decoder = kvae.networks.dense_decoder((28, 28, 1), latent_dim=2)
    >>> decoder.output.shape
    (None, 28, 28, 1)
    """
    shape, outputs = arguments.sizes("shape", shape), arguments.integer_at_least("outputs", outputs, 1)
    z = layers.Input((arguments.integer_at_least("latent_dim", latent_dim, 1),), name="z")
    h = z
    for units in arguments.sizes("hidden", hidden):
        h = layers.Dense(units, activation, kernel_initializer=_INITIALIZER)(h)
    heads = [layers.Reshape(shape)(layers.Dense(math.prod(shape))(h)) for _ in range(outputs)]
    return Model(z, heads[0] if outputs == 1 else heads, name="decoder")


def conv_encoder(
    shape: Sequence[int],
    latent_dim: int,
    filters: Sequence[int] | None = None,
    units: int = 256,
    activation: str | Callable = "relu",
    posterior_family: Posterior | None = None,
    posterior: Posterior | None = None,
) -> keras.Model:
    """Make an encoder of convolutions with stride 2, from images to [z_mean, z_log_var], each (n, latent_dim).

    Args:
        shape: (height, width, channels) of an image.
        latent_dim: int >= 1, the size of z.
        filters: tuple of ints, the channels after each convolution. Each halves height and width. Default None: 32,
            then 64s, until a side is odd or at most 4.
        units: int >= 1, of the dense layer before z. Default 256.
        activation: str or function, of all layers but the last. Default "relu".
        posterior_family: `kvae.posteriors.Posterior`, for its further outputs. Default None: no others.
        posterior: old name of `posterior_family`.

    Returns:
        `keras.Model`.

    Raises:
        ValueError: if `shape` isn't an image's, or its sides can't be halved as often as there are filters.

    Example:

    >>> encoder = kvae.networks.conv_encoder((32, 32, 3), latent_dim=8)
    >>> [output.shape for output in encoder.outputs]
    [(None, 8), (None, 8)]
    """
    posterior_family = arguments.renamed("posterior", posterior, "posterior_family", posterior_family)
    shape, filters = _checked(shape, filters)
    x = layers.Input(shape, name="x")
    h = x
    for channels in filters:
        h = layers.Conv2D(channels, 4, activation=activation, **_HALVING)(h)
    units = arguments.integer_at_least("units", units, 1)
    h = layers.Dense(units, activation, kernel_initializer=_INITIALIZER)(layers.Flatten()(h))
    return _encoder(x, h, latent_dim, posterior_family)


def conv_decoder(
    shape: Sequence[int],
    latent_dim: int,
    filters: Sequence[int] | None = None,
    units: int = 256,
    activation: str | Callable = "relu",
    outputs: int = 1,
) -> keras.Model:
    """Make a decoder of transposed convolutions, from z (n, latent_dim) to images: `conv_encoder` in reverse.

    Args:
        shape: (height, width, channels) of each output.
        latent_dim: int >= 1, the size of z.
        filters: tuple of ints, as for `conv_encoder`: the decoder uses them in reverse order. Default None.
        units: int >= 1, of the dense layer after z. Default 256.
        activation: str or function, of all layers but the last. Default "relu".
        outputs: int >= 1, one per parameter of the likelihood: 1 (default) for a mean or logits, 2 for a mean and a
            log-variance.

    Returns:
        `keras.Model`.

    Raises:
        ValueError: if `shape` isn't an image's, or its sides can't be halved as often as there are filters.

    Example:

    >>> decoder = kvae.networks.conv_decoder((32, 32, 3), latent_dim=8, outputs=2)
    >>> [output.shape for output in decoder.outputs]
    [(None, 32, 32, 3), (None, 32, 32, 3)]
    """
    shape, filters = _checked(shape, filters)
    units, outputs = arguments.integer_at_least("units", units, 1), arguments.integer_at_least("outputs", outputs, 1)
    height, width, channels = shape
    small = (height >> len(filters), width >> len(filters), filters[-1])
    z = layers.Input((arguments.integer_at_least("latent_dim", latent_dim, 1),), name="z")
    h = layers.Dense(units, activation, kernel_initializer=_INITIALIZER)(z)
    h = layers.Dense(math.prod(small), activation, kernel_initializer=_INITIALIZER)(h)
    h = layers.Reshape(small)(h)
    for count in reversed(filters[:-1]):
        h = layers.Conv2DTranspose(count, 4, activation=activation, **_HALVING)(h)
    heads = [layers.Conv2DTranspose(channels, 4, strides=2, padding="same")(h) for _ in range(outputs)]
    return Model(z, heads[0] if outputs == 1 else heads, name="decoder")


def _encoder(x, h, latent_dim, posterior):
    latent_dim = arguments.integer_at_least("latent_dim", latent_dim, 1)
    heads = posterior.outputs(latent_dim) if posterior else {"z_mean": latent_dim, "z_log_var": latent_dim}
    return Model(x, [layers.Dense(units, name=name)(h) for name, units in heads.items()], name="encoder")


def _halvings(shape, smallest):
    """The number of times that both sides can be halved to integers of at least `smallest`."""
    count, (height, width) = 0, shape[:2]
    while height % 2 == width % 2 == 0 and min(height, width) >= 2 * smallest:
        count, height, width = count + 1, height // 2, width // 2
    return count


def _checked(shape, filters):
    """The shape and the filters (by default as many as fit), checked."""
    shape = arguments.sizes("shape", shape)
    if len(shape) != 3:
        advice = "give grey images an axis of one channel, or use kvae.networks.dense_encoder"
        raise ValueError(
            f"The images' shape is {shape}; a convolutional network expects (height, width, channels): {advice}."
        )
    if filters is None:
        filters = (32,) + (64,) * (_halvings(shape, smallest=4) - 1)
    filters = arguments.sizes("filters", filters)
    possible = _halvings(shape, smallest=1)
    if not 1 <= len(filters) <= possible:
        raise ValueError(
            f"Images of {shape[0]}x{shape[1]} can be halved {possible} time(s) and {len(filters)} is asked for; pad or "
            "resize the images, give fewer filters (at least 1), or use kvae.networks.dense_encoder."
        )
    return shape, filters
