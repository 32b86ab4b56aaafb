"""Encoders and decoders: plain functional Keras models.

An encoder gives [z_mean, z_log_var], a decoder the parameters of a likelihood. Any other network that does so serves.
"""

import math

from keras import Model, layers

from kvae import arguments

# Variances that neither grow nor shrink through rectifiers (He et al. 2015); Keras' default starves an autoencoder.
_INITIALIZER = "he_normal"
_HALVING = {"strides": 2, "padding": "same", "kernel_initializer": _INITIALIZER}


def dense_encoder(shape, latent_dim, hidden=(512, 256), activation="relu", posterior_family=None, posterior=None):
    """x (n, *shape) through dense layers of `hidden` units to [z_mean, z_log_var], each (n, latent_dim).

    With hidden=() both are linear in x. posterior_family: one of kvae.posteriors that reads more than these two.
    """
    posterior_family = arguments.renamed("posterior", posterior, "posterior_family", posterior_family)
    x = layers.Input(arguments.sizes("shape", shape), name="x")
    h = layers.Flatten()(x)
    for units in arguments.sizes("hidden", hidden):
        h = layers.Dense(units, activation, kernel_initializer=_INITIALIZER)(h)
    return _encoder(x, h, latent_dim, posterior_family)


def dense_decoder(shape, latent_dim, hidden=(256, 512), activation="relu", outputs=1):
    """z (n, latent_dim) through dense layers of `hidden` units to `outputs` tensors (n, *shape).

    outputs: 1 for a mean or logits, 2 where the likelihood also reads a log-variance. With hidden=() linear in z.
    """
    shape, outputs = arguments.sizes("shape", shape), arguments.integer_at_least("outputs", outputs, 1)
    z = layers.Input((arguments.integer_at_least("latent_dim", latent_dim, 1),), name="z")
    h = z
    for units in arguments.sizes("hidden", hidden):
        h = layers.Dense(units, activation, kernel_initializer=_INITIALIZER)(h)
    heads = [layers.Reshape(shape)(layers.Dense(math.prod(shape))(h)) for _ in range(outputs)]
    return Model(z, heads[0] if outputs == 1 else heads, name="decoder")


def conv_encoder(shape, latent_dim, filters=None, units=256, activation="relu", posterior_family=None, posterior=None):
    """Images (n, height, width, channels), halved once per entry of `filters`, to [z_mean, z_log_var].

    Args:
        shape: (height, width, channels).
        latent_dim: int, the size of the code.
        filters: channels after each halving; by default 32, then 64s, until a side is odd or at most 4.
        units: of the dense layer before the code.
        activation: of all layers but the last.
        posterior_family: one of kvae.posteriors that reads more than [z_mean, z_log_var].

    Raises:
        ValueError: for a shape that isn't an image's or can't be halved so often.
    """
    posterior_family = arguments.renamed("posterior", posterior, "posterior_family", posterior_family)
    shape, filters = _filters(shape, filters)
    x = layers.Input(shape, name="x")
    h = x
    for channels in filters:
        h = layers.Conv2D(channels, 4, activation=activation, **_HALVING)(h)
    units = arguments.integer_at_least("units", units, 1)
    h = layers.Dense(units, activation, kernel_initializer=_INITIALIZER)(layers.Flatten()(h))
    return _encoder(x, h, latent_dim, posterior_family)


def conv_decoder(shape, latent_dim, filters=None, units=256, activation="relu", outputs=1):
    """z (n, latent_dim) to `outputs` tensors (n, height, width, channels): `conv_encoder` read backwards.

    outputs: 1 for a mean or logits, 2 where the likelihood also reads a log-variance. Raises as `conv_encoder`.
    """
    shape, filters = _filters(shape, filters)
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
    """How often both sides can be halved and stay whole and at least `smallest`."""
    count, (height, width) = 0, shape[:2]
    while height % 2 == width % 2 == 0 and min(height, width) >= 2 * smallest:
        count, height, width = count + 1, height // 2, width // 2
    return count


def _filters(shape, filters):
    """The shape and the filters, as tuples of ints."""
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
