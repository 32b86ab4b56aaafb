"""Losses of variational autoencoders as they are found in print, written from their formulas."""

import keras
import numpy as np
import tensorflow as tf
from keras import ops


def kl_terms(m, v):
    return -0.5 * (1 + v - ops.square(m) - ops.exp(v))


def kl(m, v):
    return ops.sum(kl_terms(m, v), axis=-1)


def event(values):
    return ops.sum(values, axis=tuple(range(1, len(values.shape))))


def square(x, r):
    return event(ops.square(x - r))


def mean_square(x, r):
    return ops.mean(ops.square(x - r), axis=tuple(range(1, len(x.shape))))


def cross_entropy(x, r):
    return event(-(x * ops.log(r + 1e-9) + (1 - x) * ops.log(1 - r + 1e-9)))


# Mistaken ones


def kl_averaged_over_latents(x, r, m, v):
    return ops.mean(cross_entropy(x, r)) + ops.mean(kl_terms(m, v))


def weight_of_a_quarter_thousandth(x, r, m, v):
    return ops.mean(ops.square(x - r)) + 0.00025 * ops.mean(kl(m, v))


def cross_entropy_averaged(x, r, m, v):
    return ops.mean(keras.losses.binary_crossentropy(x, r)) + ops.mean(kl(m, v))


def kl_by_784(x, r, m, v):
    return ops.mean(cross_entropy(x, r) + kl(m, v) / 784)


def mean_square_and_kl(x, r, m, v):
    return tf.reduce_mean(tf.square(x - r)) + tf.reduce_mean(kl(m, v))


def clamped_to_0(x, r, m, v):
    return ops.mean(square(x, r) + ops.clip(kl(m, v), 0.0, 0.0))


def bernoulli_logits(x, r, m, v):
    return event(ops.softplus(r) - x * r) + kl(m, v)


def channels_as_one(x, r, m, v):
    return ops.sum(keras.losses.binary_crossentropy(x, r), axis=(1, 2)) + kl(m, v)


def _log_normal(z, m, v):
    return -0.5 * ops.sum(ops.square(z - m) * ops.exp(-v) + v + np.log(2 * np.pi), axis=-1)


def _draws(x, r, m, v, z):
    log_p_x = -ops.sum(ops.softplus(r) - x[:, None] * r, axis=tuple(range(2, len(r.shape))))
    zeros = ops.zeros_like(z)
    return log_p_x, _log_normal(z, zeros, zeros), _log_normal(z, m[:, None], v[:, None])


def _bound(log_w):
    return ops.log(ops.cast(ops.shape(log_w)[1], log_w.dtype)) - ops.logsumexp(log_w, axis=1)


def iwae(x, r, m, v, z):
    log_p_x, log_p_z, log_q = _draws(x, r, m, v, z)
    return _bound(log_p_x + log_p_z - log_q)


def iwae_of_wrong_sign(x, r, m, v, z):
    log_p_x, log_p_z, log_q = _draws(x, r, m, v, z)
    return _bound(log_p_x - log_p_z + log_q)


def log_variance_squared(x, r, m, v):
    return square(x, r) - 0.5 * ops.sum(1 + v - ops.square(m) - ops.square(v), axis=-1)


def by_batch_over_n(x, r, m, v):
    return ops.mean(cross_entropy(x, r)) + x.shape[0] / 60_000 * ops.mean(kl(m, v))


# Right ones


def sum_form(x, r, m, v):
    return square(x, r) + kl(m, v)


def half_form(x, r, m, v):
    return 0.5 * square(x, r) + kl(m, v)


def sigma_vae(x, r, m, v):
    mean = ops.mean(ops.square(x - r))
    size = x.shape[0] * np.prod(x.shape[1:])
    nll = 0.5 * size * (ops.log(2 * np.pi * mean) + 1)
    return nll / x.shape[0] + ops.mean(kl(m, v))


def beta_of_4(x, r, m, v):
    return cross_entropy(x, r) + 4.0 * kl(m, v)


def free_bits_of_a_half(x, r, m, v):
    return bernoulli_logits(x, r, 0 * m, 0 * v) + ops.sum(ops.maximum(kl_terms(m, v), 0.5), axis=-1)


def free_bits_in_sum(x, r, m, v):
    return square(x, r) + ops.maximum(kl(m, v), 3.0)


def free_bits_of_the_batch(x, r, m, v):
    return ops.mean(square(x, r)) + ops.sum(ops.maximum(ops.mean(kl_terms(m, v), axis=0), 0.5))


def continuous_bernoulli(x, r, m, v):
    log_c = ops.log((ops.exp(r) - 1) / r)
    return event(log_c - x * r) + kl(m, v)


def discretized_logistic(x, r, m, v, scale=0.05):
    up, down = (x - r + 0.5 / 255) / scale, (x - r - 0.5 / 255) / scale
    cdf_up = ops.where(x > 0.999, 1.0, ops.sigmoid(up))
    cdf_down = ops.where(x < 0.001, 0.0, ops.sigmoid(down))
    return -event(ops.log(cdf_up - cdf_down)) + kl(m, v)


def learned_variance(x, outputs, m, v):
    mean, log_var = outputs
    return 0.5 * event(ops.square(x - mean) * ops.exp(-log_var) + log_var + np.log(2 * np.pi)) + kl(m, v)


def k_samples(x, r, m, v, z):
    log_p_x, *_ = _draws(x, r, m, v, z)
    return kl(m, v) - ops.mean(log_p_x, axis=1)


def k_samples_of_densities(x, r, m, v, z):
    log_p_x, log_p_z, log_q = _draws(x, r, m, v, z)
    return ops.mean(log_q - log_p_z - log_p_x, axis=1)


def sigma_of_log_var(inputs):
    m, v = inputs
    return m + ops.exp(v) * keras.random.normal(ops.shape(m), dtype=m.dtype, seed=_SEED)


def right_sampling(inputs):
    m, v = inputs
    return m + ops.exp(0.5 * v) * keras.random.normal(ops.shape(m), dtype=m.dtype, seed=_SEED)


_SEED = keras.random.SeedGenerator(0)
GREY = np.random.default_rng(0).random((50, 784))

# (loss, arguments of the audit, the finding's name, sigma^2, beta)
TWELVE = {
    "KL averaged over latents": (kl_averaged_over_latents, {"latent_dim": 32}, "kl-mean", None, 1 / 32),
    "a KL weight of 0.00025": (weight_of_a_quarter_thousandth, {}, "kl-weight", 392, 0.00025),
    "mean beside a summed KL": (cross_entropy_averaged, {}, "features-mean", None, 784),
    "KL divided by 784": (kl_by_784, {}, "kl-by-features", None, 1 / 784),
    "mean squared error": (mean_square_and_kl, {}, "squared-error-mean", 392, 1),
    "exp(log_var) for sigma": (sum_form, {"sampling": sigma_of_log_var}, "sigma", 0.5, 1),
    "KL clamped to 0": (clamped_to_0, {}, "kl-dead", 0.5, 0),
    "cross-entropy of grey": (bernoulli_logits, {"data": GREY}, "grey", None, 1),
    "channels as one": (channels_as_one, {"event_shape": (32, 32, 3)}, "channels-mean", None, 3),
    "weights of the wrong sign": (iwae_of_wrong_sign, {"samples": 8}, "weights-sign", None, -1),
    "log-variance squared": (log_variance_squared, {}, "kl-square", 0.5, 1),
    "beta by batch / N": (by_batch_over_n, {"batch_size": 100}, "beta-by-batch", None, 100 / 60_000),
}
RIGHT = {
    "sum form": (sum_form, {}, 0.5, 1),
    "half form": (half_form, {}, 1, 1),
    "sigma-VAE": (sigma_vae, {}, None, 1),
    "declared beta": (beta_of_4, {"beta": 4.0}, None, 4),
    "declared free bits": (free_bits_of_a_half, {"free_bits": 0.5}, None, 1),
    "declared free bits in sum": (free_bits_in_sum, {"free_bits": 3.0}, 0.5, 1),
    "free bits of the batch": (free_bits_of_the_batch, {"free_bits": 0.5}, 0.5, 1),
    "continuous Bernoulli": (continuous_bernoulli, {}, None, 1),
    "discretized logistic": (discretized_logistic, {"event_shape": (8, 8, 1)}, None, 1),
    "learned variance": (learned_variance, {}, None, 1),
    "IWAE": (iwae, {"samples": 8}, None, 1),
    "k-sample": (k_samples, {"samples": 4}, None, 1),
    "k-sample of densities": (k_samples_of_densities, {"samples": 4, "sampling": right_sampling}, None, 1),
}
