"""Encoders and decoders: plain functional Keras models.

An encoder returns [z_mean, z_log_var], a decoder the parameters of a likelihood. Other networks with these outputs
work as well.
"""

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import Model, layers, ops

from kvae import arguments
from kvae.columns import Columns
from kvae.layers import ColumnFeatures, ShiftedPositions
from kvae.posteriors import Posterior

# Keeps variances constant through ReLUs (He et al. 2015). With glorot_uniform, Keras' default, signals shrink.
# tests/benchmarks/initializers.py compares both.
_INITIALIZER = "he_normal"
_HALVING = {"strides": 2, "padding": "same"}


def dense_encoder(
    shape: Sequence[int],
    latent_dim: int,
    hidden: Sequence[int] = (512, 256),
    activation: str | Callable = "relu",
    posterior_family: Posterior | None = None,
    posterior: Posterior | None = None,
    *,
    label_dim: int | None = None,
    preprocessing: str | Callable | None = None,
    initializer: str | Callable = _INITIALIZER,
    missing: bool = False,
) -> keras.Model:
    """Make an encoder of dense layers, from x (n, *shape) to [z_mean, z_log_var], each (n, latent_dim).

    Args:
        shape: tuple of ints, an example's shape.
        latent_dim: int >= 1, the size of z.
        hidden: tuple of ints, the units of the hidden layers. With () both outputs are linear in x. Default (512, 256).
        activation: str or function, of the hidden layers. Default "relu".
        posterior_family: `kvae.posteriors.Posterior`, for its further outputs. Default None: no others.
        posterior: old name of `posterior_family`.
        label_dim: int >= 1, the size of a label y. The encoder then takes [x, y], for `kvae.ConditionalVAE`. Default
            None: no labels.
        preprocessing: "log1p" for counts, or a Keras layer or function of `keras.ops`, applied to x first. Default
            None: x as it is.
        initializer: str or Keras initializer, of the hidden layers. Default "he_normal". A `kvae.Autoencoder` of dense
            networks reconstructs better from "glorot_uniform".
        missing: bool, whether the encoder takes [x, missing], for a model of x with gaps: `missing`, of x's shape, is 1
            in them and 0 elsewhere. Default False.

    Returns:
        `keras.Model`.

    Raises:
        ValueError: if a size is no integer of at least 1.

    Example:

    >>> encoder = kvae.networks.dense_encoder((28, 28, 1), latent_dim=2)
    >>> [output.shape for output in encoder.outputs]
    [(None, 2), (None, 2)]
    """
    posterior_family = _family(posterior_family, posterior)
    activation, initializer = _of_keras("activation", activation), _of_keras("initializer", initializer)
    inputs = _inputs("x", arguments.sizes("shape", shape), label_dim, missing)
    h = layers.Flatten()(_preprocessed(inputs[0], preprocessing))
    h = layers.Concatenate()([h, layers.Flatten()(inputs[1])]) if missing else _with_label(h, inputs)
    for units in arguments.sizes("hidden", hidden):
        h = layers.Dense(units, activation, kernel_initializer=initializer)(h)
    return _encoder(inputs, h, latent_dim, posterior_family)


def dense_decoder(
    shape: Sequence[int],
    latent_dim: int,
    hidden: Sequence[int] = (256, 512),
    activation: str | Callable = "relu",
    outputs: int = 1,
    *,
    label_dim: int | None = None,
    initializer: str | Callable = _INITIALIZER,
) -> keras.Model:
    """Make a decoder of dense layers, from z (n, latent_dim) to tensors (n, *shape).

    Args:
        shape: tuple of ints, the shape of each output: of an example, or the result of `Likelihood.decoder_shape`.
        latent_dim: int >= 1, the size of z.
        hidden: tuple of ints, the units of the hidden layers. With () the outputs are linear in z. Default (256, 512).
        activation: str or function, of the hidden layers. Default "relu".
        outputs: int >= 1, one per parameter of the likelihood: 1 (default) for a mean or logits, 2 for a mean and a
            log-variance.
        label_dim: int >= 1, the size of a label y. The decoder then takes [z, y], for `kvae.ConditionalVAE`. Default
            None: no labels.
        initializer: str or Keras initializer, of the hidden layers. Default "he_normal". A `kvae.Autoencoder` of dense
            networks reconstructs better from "glorot_uniform".

    Returns:
        `keras.Model`.

    Raises:
        ValueError: if a size is no integer of at least 1.

    Example:

    >>> decoder = kvae.networks.dense_decoder((28, 28, 1), latent_dim=2)
    >>> decoder.output.shape
    (None, 28, 28, 1)
    """
    activation, initializer = _of_keras("activation", activation), _of_keras("initializer", initializer)
    shape, outputs = arguments.sizes("shape", shape), arguments.integer_at_least("outputs", outputs, 1)
    inputs = _inputs("z", (arguments.integer_at_least("latent_dim", latent_dim, 1),), label_dim)
    h = _with_label(inputs[0], inputs)
    for units in arguments.sizes("hidden", hidden):
        h = layers.Dense(units, activation, kernel_initializer=initializer)(h)
    heads = [layers.Reshape(shape)(layers.Dense(math.prod(shape))(h)) for _ in range(outputs)]
    return _model(inputs, heads, "decoder")


def columns_encoder(
    likelihood: Any,
    latent_dim: int,
    hidden: Sequence[int] = (128, 128),
    activation: str | Callable = "relu",
    posterior_family: Posterior | None = None,
    *,
    missing: bool = False,
) -> keras.Model:
    """Make an encoder of dense layers for a table's rows, from x (n, columns) to [z_mean, z_log_var].

    Its first layer is `kvae.layers.ColumnFeatures`: standardized numbers, logarithms of counts, one-hot categories.

    Args:
        likelihood: `kvae.ColumnsLikelihood`, which knows the columns.
        latent_dim: int >= 1, the size of z.
        hidden: tuple of ints, the units of the hidden layers. Default (128, 128).
        activation: str or function, of the hidden layers. Default "relu".
        posterior_family: `kvae.posteriors.Posterior`, for its further outputs. Default None: no others.
        missing: bool, whether the encoder takes [x, missing], for `kvae.VAE(..., missing=True)`. Default False.

    Returns:
        `keras.Model`.

    Raises:
        TypeError: if `likelihood` is another one.
        ValueError: if a size is no integer of at least 1.

    Example:

    >>> likelihood = kvae.ColumnsLikelihood({"age": "gaussian", "job": kvae.CategoricalLikelihood(12)})
    >>> encoder = kvae.networks.columns_encoder(likelihood, latent_dim=2)
    >>> decoder = kvae.networks.columns_decoder(likelihood, latent_dim=2)
    >>> encoder.input_shape, decoder.output_shape  # a mean and 12 logits
    ((None, 2), (None, 13))
    """
    columns, posterior_family = _columns_of(likelihood), _family(posterior_family, None)
    activation = _of_keras("activation", activation)
    inputs = _inputs("x", (len(columns),), None, missing)
    h = ColumnFeatures(columns)(inputs if missing else inputs[0])
    h = layers.Concatenate()([h, inputs[1]]) if missing else h
    for units in arguments.sizes("hidden", hidden):
        h = layers.Dense(units, activation, kernel_initializer=_INITIALIZER)(h)
    return _encoder(inputs, h, latent_dim, posterior_family)


def columns_decoder(
    likelihood: Any,
    latent_dim: int,
    hidden: Sequence[int] = (128, 128),
    activation: str | Callable = "relu",
) -> keras.Model:
    """Make a decoder of dense layers for a table's rows, from z to the parameters of a `kvae.ColumnsLikelihood`.

    Args:
        likelihood: `kvae.ColumnsLikelihood`.
        latent_dim: int >= 1, the size of z.
        hidden: tuple of ints, the units of the hidden layers. Default (128, 128).
        activation: str or function, of the hidden layers. Default "relu".

    Returns:
        `keras.Model`. For an example see `columns_encoder`.

    Raises:
        TypeError: if `likelihood` is another one.
        ValueError: if a size is no integer of at least 1.
    """
    columns: Any = _columns_of(likelihood)
    return dense_decoder(likelihood.decoder_shape((len(columns),)), latent_dim, hidden, activation)


def _columns_of(likelihood):
    columns = getattr(likelihood, "columns", None)
    if not isinstance(columns, Columns):
        raise TypeError(f"likelihood is {likelihood!r}; expected a kvae.ColumnsLikelihood.")
    return columns


def conv_encoder(
    shape: Sequence[int],
    latent_dim: int,
    filters: Sequence[int] | None = None,
    units: int = 256,
    activation: str | Callable = "relu",
    posterior_family: Posterior | None = None,
    posterior: Posterior | None = None,
    *,
    label_dim: int | None = None,
    preprocessing: str | Callable | None = None,
    initializer: str | Callable = _INITIALIZER,
    missing: bool = False,
) -> keras.Model:
    """Make an encoder of convolutions with stride 2, from images to [z_mean, z_log_var], each (n, latent_dim).

    Args:
        shape: (height, width, channels) of an image.
        latent_dim: int >= 1, the size of z.
        filters: tuple of ints, the channels after each convolution. Each halves height and width, rounded up. Default
            None: 32, then 64s, until the smaller side is below 8. Give more for long images.
        units: int >= 1, of the dense layer before z. Default 256.
        activation: str or function, of all layers but the last. Default "relu".
        posterior_family: `kvae.posteriors.Posterior`, for its further outputs. Default None: no others.
        posterior: old name of `posterior_family`.
        label_dim: int >= 1, the size of a label y, joined to the last convolution's outputs. The encoder then takes
            [x, y], for `kvae.ConditionalVAE`. Default None: no labels.
        preprocessing: "log1p" for counts, or a Keras layer or function of `keras.ops`, applied to x first. Default
            None: x as it is.
        initializer: str or Keras initializer, of all layers but the last. Default "he_normal".
        missing: bool, whether the encoder takes [x, missing], for a model of x with gaps: `missing`, of x's shape, is 1
            in them and 0 elsewhere. Default False.

    Returns:
        `keras.Model`.

    Raises:
        ValueError: if `shape` isn't an image's, or its sides can't be halved as often as there are filters.

    Example:

    >>> encoder = kvae.networks.conv_encoder((45, 60, 3), latent_dim=8)
    >>> [output.shape for output in encoder.outputs]
    [(None, 8), (None, 8)]
    """
    posterior_family = _family(posterior_family, posterior)
    activation, initializer = _of_keras("activation", activation), _of_keras("initializer", initializer)
    shape, filters = _checked(shape, filters)
    inputs = _inputs("x", shape, label_dim, missing)
    h = _preprocessed(inputs[0], preprocessing)
    h = layers.Concatenate()([h, inputs[1]]) if missing else h
    for channels in filters:
        h = layers.Conv2D(channels, 4, activation=activation, kernel_initializer=initializer, **_HALVING)(h)
    h = layers.Flatten()(h) if missing else _with_label(layers.Flatten()(h), inputs)
    units = arguments.integer_at_least("units", units, 1)
    h = layers.Dense(units, activation, kernel_initializer=initializer)(h)
    return _encoder(inputs, h, latent_dim, posterior_family)


def conv_decoder(
    shape: Sequence[int],
    latent_dim: int,
    filters: Sequence[int] | None = None,
    units: int = 256,
    activation: str | Callable = "relu",
    outputs: int = 1,
    *,
    label_dim: int | None = None,
    initializer: str | Callable = _INITIALIZER,
) -> keras.Model:
    """Make a decoder of transposed convolutions, from z (n, latent_dim) to images: `conv_encoder` in reverse.

    Args:
        shape: (height, width, channels) of each output. Outputs that come out larger are cropped to it on all sides.
        latent_dim: int >= 1, the size of z.
        filters: tuple of ints, as for `conv_encoder`: the decoder uses them in reverse order. Default None.
        units: int >= 1, of the dense layer after z. Default 256.
        activation: str or function, of all layers but the last. Default "relu".
        outputs: int >= 1, one per parameter of the likelihood: 1 (default) for a mean or logits, 2 for a mean and a
            log-variance.
        label_dim: int >= 1, the size of a label y. The decoder then takes [z, y], for `kvae.ConditionalVAE`. Default
            None: no labels.
        initializer: str or Keras initializer, of all layers but the last. Default "he_normal".

    Returns:
        `keras.Model`.

    Raises:
        ValueError: if `shape` isn't an image's, or its sides can't be halved as often as there are filters.

    Example:

    >>> decoder = kvae.networks.conv_decoder((45, 60, 3), latent_dim=8, outputs=2)
    >>> [output.shape for output in decoder.outputs]
    [(None, 45, 60, 3), (None, 45, 60, 3)]
    """
    activation, initializer = _of_keras("activation", activation), _of_keras("initializer", initializer)
    shape, filters = _checked(shape, filters)
    units, outputs = arguments.integer_at_least("units", units, 1), arguments.integer_at_least("outputs", outputs, 1)
    *sides, channels = shape
    small = [-(-side // 2 ** len(filters)) for side in sides]
    excess = [(side << len(filters)) - length for side, length in zip(small, sides, strict=True)]
    inputs = _inputs("z", (arguments.integer_at_least("latent_dim", latent_dim, 1),), label_dim)
    h = layers.Dense(units, activation, kernel_initializer=initializer)(_with_label(inputs[0], inputs))
    h = layers.Dense(math.prod(small) * filters[-1], activation, kernel_initializer=initializer)(h)
    h = layers.Reshape((*small, filters[-1]))(h)
    for count in reversed(filters[:-1]):
        h = layers.Conv2DTranspose(count, 4, activation=activation, kernel_initializer=initializer, **_HALVING)(h)
    heads = [layers.Conv2DTranspose(channels, 4, **_HALVING)(h) for _ in range(outputs)]
    if any(excess):
        heads = [layers.Cropping2D([(pixels // 2, pixels - pixels // 2) for pixels in excess])(head) for head in heads]
    return _model(inputs, heads, "decoder")


def dense_discriminator(
    latent_dim: int, hidden: Sequence[int] = (1000,) * 6, activation: str | Callable = "leaky_relu"
) -> keras.Model:
    """Make a discriminator of dense layers, from z (n, latent_dim) to a logit (n, 1), for `kvae.FactorVAE`.

    It computes in single precision under mixed precision, too.

    Args:
        latent_dim: int >= 1, the size of z.
        hidden: tuple of ints, the units of the hidden layers. Default: the paper's six of 1,000 units.
        activation: str or function, of the hidden layers. Default "leaky_relu", with a slope of 0.2 as in the paper.

    Returns:
        `keras.Model`.

    Raises:
        ValueError: if a size is no integer of at least 1.

    Example:

    >>> kvae.networks.dense_discriminator(latent_dim=10, hidden=(50, 50)).output.shape
    (None, 1)

    Reference:
        Kim and Mnih (2018), "Disentangling by factorising", appendix A.
    """
    activation, dtype = _of_keras("activation", activation), keras.config.dtype_policy().variable_dtype
    h = z = layers.Input((arguments.integer_at_least("latent_dim", latent_dim, 1),), name="z")
    for units in arguments.sizes("hidden", hidden):
        h = layers.Dense(units, activation, kernel_initializer=_INITIALIZER, dtype=dtype)(h)
    return _model([z], [layers.Dense(1, name="logit", dtype=dtype)(h)], "discriminator")


def causal_transformer(
    code_shape: Sequence[int], codes: int, units: int = 64, blocks: int = 2, heads: int = 4
) -> keras.Model:
    """Make an autoregressive network over the codes of a `kvae.VQVAE`: a small transformer with a causal mask.

    Codes are in the order of a row after the other. The logits of a position depend on the codes before it.

    Args:
        code_shape: tuple of ints, the shape of an example's codes, such as (8, 8).
        codes: int >= 2, K, the number of different codes.
        units: int >= 1, the size of a position's vector. Default 64.
        blocks: int >= 1, the number of attention layers, each with two dense ones. Default 2.
        heads: int >= 1, the attention heads, among which the units are divided. Default 4.

    Returns:
        `keras.Model`, from integers (n, *code_shape) to logits (n, *code_shape, codes).

    Raises:
        ValueError: if a size is out of its range, or `heads` doesn't divide `units`.

    Example:

    >>> kvae.networks.causal_transformer((4, 4), codes=32).output.shape
    (None, 4, 4, 32)

    Reference:
        Vaswani et al. (2017), "Attention is all you need"; Child et al. (2019), "Generating long sequences with sparse
        transformers", for the order of the layers in a block.
    """
    code_shape, codes = arguments.sizes("code_shape", code_shape), arguments.integer_at_least("codes", codes, 2)
    units, heads = arguments.integer_at_least("units", units, 1), arguments.integer_at_least("heads", heads, 1)
    if units % heads:
        raise ValueError(f"heads is {heads}, which doesn't divide units={units}: give each head as many units.")
    z = layers.Input(code_shape, dtype="int32", name="codes")
    h = layers.Embedding(codes, units)(layers.Reshape((math.prod(code_shape),))(z))
    h = ShiftedPositions()(h)
    for _ in range(arguments.integer_at_least("blocks", blocks, 1)):
        normalized = layers.LayerNormalization()(h)
        attention = layers.MultiHeadAttention(heads, units // heads)
        h = layers.Add()([h, attention(normalized, normalized, use_causal_mask=True)])
        hidden = layers.Dense(4 * units, "gelu")(layers.LayerNormalization()(h))
        h = layers.Add()([h, layers.Dense(units)(hidden)])
    logits = layers.Dense(codes)(layers.LayerNormalization()(h))
    return _model([z], [layers.Reshape((*code_shape, codes))(logits)], "causal_transformer")


def _inputs(name, shape, label_dim, missing=False):
    """The inputs of a network: x or z, and with a label_dim also y, or the mask of what is missing in x."""
    inputs = [layers.Input(shape, name=name)]
    if arguments.boolean("missing", missing):
        if label_dim is not None:
            raise ValueError(f"missing is True and label_dim {label_dim!r}; expected one of the two.")
        inputs.append(layers.Input(shape, name="missing"))
    if label_dim is not None:
        inputs.append(layers.Input((arguments.integer_at_least("label_dim", label_dim, 1),), name="y"))
    return inputs


def _with_label(h, inputs):
    return layers.Concatenate()([h, inputs[1]]) if len(inputs) == 2 else h


def _family(posterior_family, posterior):
    """The family of posteriors, or None, of the arguments posterior_family and posterior, its old name."""
    family = arguments.renamed("posterior", posterior, "posterior_family", posterior_family)
    example = "one of kvae.posteriors, such as FullNormal(), or None"
    return None if family is None else arguments.instance("posterior_family", family, Posterior, example)


def _of_keras(name, identifier):
    """An activation or an initializer, unchanged. Raises ValueError for what Keras doesn't know."""
    find, example = {
        "activation": (keras.activations.get, "a Keras activation, such as 'relu', or a function"),
        "initializer": (keras.initializers.get, "a Keras initializer, such as 'he_normal'"),
    }[name]
    state = random.getstate()  # an initializer draws its seed
    try:
        find(identifier)
    except (TypeError, ValueError):
        raise ValueError(f"{name} is {identifier!r}; expected {example}.") from None
    finally:
        random.setstate(state)
    return identifier


def _preprocessed(x, preprocessing):
    if preprocessing not in (None, "log1p") and (isinstance(preprocessing, type) or not callable(preprocessing)):
        raise ValueError(f"preprocessing is {preprocessing!r}; expected 'log1p', a Keras layer or a function.")
    return x if preprocessing is None else ops.log1p(x) if preprocessing == "log1p" else preprocessing(x)


def _encoder(inputs, h, latent_dim, posterior):
    latent_dim = arguments.integer_at_least("latent_dim", latent_dim, 1)
    heads = posterior.outputs(latent_dim) if posterior else {"z_mean": latent_dim, "z_log_var": latent_dim}
    return _model(inputs, [layers.Dense(units, name=name)(h) for name, units in heads.items()], "encoder")


def halvings(shape: Sequence[int]) -> int:
    """Return the default number of strided layers of a convolutional network: until the smaller side is below 8.

    Args:
        shape: tuple of ints, an image's height and width, and perhaps its channels.

    Returns:
        An int >= 1, the length of the default `filters`: 3 for (32, 32, 3).
    """
    side = min(arguments.sizes("shape", shape)[:2])
    return next(count for count in range(1, 64) if -(-side // 2**count) < 8)


def _model(inputs, outputs, name):
    """A functional model. A single input or output of a decoder stands without a list."""
    return Model(inputs if len(inputs) == 2 else inputs[0], outputs[0] if len(outputs) == 1 else outputs, name=name)


def _checked(shape, filters):
    """The shape and the filters, checked. By default they halve the smaller side until it is below 8."""
    shape = arguments.sizes("shape", shape)
    if len(shape) != 3:
        advice = "give grey images an axis of one channel, or use kvae.networks.dense_encoder"
        raise ValueError(
            f"The images' shape is {shape}; a convolutional network expects (height, width, channels): {advice}."
        )
    if filters is None:
        filters = (32,) + (64,) * (halvings(shape) - 1)
    filters = arguments.sizes("filters", filters)
    possible = (max(shape[:2]) - 1).bit_length()
    if not 1 <= len(filters) <= possible:
        advice = f"give 1 to {possible} filters, or use" if possible else "use"
        raise ValueError(
            f"Images of {shape[0]}x{shape[1]} can be halved {possible} time(s), and {len(filters)} filter(s) are asked "
            f"for: {advice} kvae.networks.dense_encoder."
        )
    return shape, filters
