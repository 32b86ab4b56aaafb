"""A VAE whose log p(x) and p(z|x) have a closed form: x = W z + b + noise, the columns of W orthogonal."""

import numpy as np
import scipy.stats

import kvae
from kvae.networks import dense_decoder, dense_encoder

FEATURES, LATENTS, NOISE = 12, 3, 0.3


def model(shift=0.0, spread=1.0, **arguments):
    """(VAE, its log p(x), a function of x). shift, spread: how far the posterior's means are moved, in its standard
    deviations, and what these are multiplied by; without, it is exact."""
    rng = np.random.default_rng(1)
    weights = np.linalg.qr(rng.normal(size=(FEATURES, LATENTS)))[0] * [1.5, 1.0, 0.6]
    bias = rng.normal(size=FEATURES)
    vae = kvae.VAE(
        dense_encoder((FEATURES,), LATENTS, hidden=()),
        dense_decoder((FEATURES,), LATENTS, hidden=()),
        likelihood=kvae.GaussianLikelihood(NOISE),
        seed=0,
        **arguments,
    )
    precision = np.diag(weights.T @ weights / NOISE + np.eye(LATENTS))
    projection = weights / precision / NOISE
    z_mean = [projection, -bias @ projection + shift / np.sqrt(precision)]
    z_log_var = [np.zeros((FEATURES, LATENTS)), 2 * np.log(spread) - np.log(precision)]
    vae.encoder.get_layer("z_mean").set_weights(z_mean)
    vae.encoder.get_layer("z_log_var").set_weights(z_log_var)
    vae.decoder.layers[1].set_weights([weights.T, bias])
    return vae, scipy.stats.multivariate_normal(bias, weights @ weights.T + NOISE * np.eye(FEATURES)).logpdf


def data(count, seed=0):
    return model()[0].sample(count, noise=True, seed=seed)
