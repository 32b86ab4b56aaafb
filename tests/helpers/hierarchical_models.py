"""Two-layer models for the tests."""

import keras
import numpy as np
import scipy.stats
from keras import layers

import kvae
from kvae.layers import PrecisionWeighted


def joined(sizes):
    symbols = [layers.Input((size,)) for size in sizes]
    return (symbols, layers.Concatenate()(symbols)) if len(symbols) > 1 else (symbols[0], symbols[0])


def normal(inputs, size, hidden=8, name=None):
    """A network from inputs of these sizes to [z_mean, z_log_var], each (n, size)."""
    symbols, h = joined(inputs)
    h = layers.Dense(hidden, "tanh")(h) if hidden else h
    return keras.Model(symbols, [layers.Dense(size)(h), layers.Dense(size)(h)], name=name)


def network(inputs, output, hidden=8):
    """A network from inputs of these sizes, one after the other, to outputs of the shape `output`."""
    symbols, h = joined(inputs)
    h = layers.Dense(hidden, "tanh")(h) if hidden else h
    return keras.Model(symbols, layers.Reshape(output)(layers.Dense(int(np.prod(output)))(h)))


def two_layer(shape=(6,), likelihood="gaussian", prior=None, seed=0, ladder=False):
    """z_1 of 3 latents, z_2 of 2."""
    likelihood = kvae.likelihoods.get(likelihood)
    x = layers.Input(shape)
    h = layers.Dense(8, "tanh")(layers.Flatten()(x))
    encoder = keras.Model(x, [h, layers.Dense(7, "tanh")(h)])
    generative = normal([2], 3, name="generative")
    below = normal([8, 2], 3)
    if ladder:
        h, z = layers.Input((8,)), layers.Input((2,))
        below = keras.Model([h, z], PrecisionWeighted()([*normal([8], 3)(h), *generative(z)]))
    outputs = [network([3, 2], likelihood.decoder_shape(shape)) for _ in likelihood.parameters]
    z = [layers.Input((3,)), layers.Input((2,))]
    decoder = keras.Model(z, [net(z) for net in outputs])
    return kvae.HierarchicalVAE(encoder, [below, normal([7], 2)], [generative], decoder, likelihood, prior, seed)


FEATURES, SIZES, NOISE = 7, (3, 2), 0.3


def linear_gaussian(rng, count):
    """(model with the exact posteriors, log p(x), x).

    z_2 ~ N(0, I), z_1 = A z_2 + c + N(0, V), x = W z_1 + U z_2 + b + N(0, NOISE I).
    W's columns are orthogonal and z_2 is turned so that both posteriors are diagonal.
    """
    upper, centre, variance = rng.normal(size=SIZES), rng.normal(size=SIZES[0]), np.array([0.5, 1.0, 2.0])
    weights = np.linalg.qr(rng.normal(size=(FEATURES, SIZES[0])))[0] * [1.5, 1.0, 0.6]
    skip, bias = rng.normal(size=(FEATURES, SIZES[1])), rng.normal(size=FEATURES)
    given_top = np.linalg.inv(weights * variance @ weights.T + NOISE * np.eye(FEATURES))
    through = weights @ upper + skip
    turn = np.linalg.eigh(through.T @ given_top @ through)[1]
    upper, skip, through = upper @ turn, skip @ turn, through @ turn

    precision = np.diag(through.T @ given_top @ through) + 1
    projection = given_top @ through / precision  # z_2's mean is (x - W c - b) times this
    below = np.diag(weights.T @ weights) / NOISE + 1 / variance

    def fixed(inputs, kernels, mean_bias, log_var):
        made = normal(inputs, len(log_var), hidden=0)
        mean, deviation = made.layers[-2:]
        kernel = np.concatenate(kernels)
        mean.set_weights([kernel, mean_bias])
        deviation.set_weights([np.zeros_like(kernel), log_var])
        return made

    top = fixed([FEATURES], [projection], -(weights @ centre + bias) @ projection, -np.log(precision))
    bottom = fixed(
        [FEATURES, SIZES[1]],
        [weights / NOISE / below, (upper.T / variance - skip.T @ weights / NOISE) / below],
        (centre / variance - bias @ weights / NOISE) / below,
        -np.log(below),
    )
    generative = fixed([SIZES[1]], [upper.T], centre, np.log(variance))
    decoder = network(SIZES, (FEATURES,), hidden=0)
    decoder.layers[-2].set_weights([np.concatenate([weights.T, skip.T]), bias])
    model = kvae.HierarchicalVAE(
        keras.Sequential([layers.Input((FEATURES,)), layers.Identity()]),
        [bottom, top],
        [generative],
        decoder,
        kvae.GaussianLikelihood(NOISE),
        seed=0,
    )
    covariance = through @ through.T + weights * variance @ weights.T + NOISE * np.eye(FEATURES)
    marginal = scipy.stats.multivariate_normal(weights @ centre + bias, covariance)
    x = marginal.rvs(count, random_state=1)
    return model, marginal.logpdf(x), x
