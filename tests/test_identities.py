"""The theory's identities: where a closed form exists, the code must give it."""

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

import kvae
from kvae.networks import dense_decoder, dense_encoder

FEATURES, LATENTS, NOISE = 12, 3, 0.05


@pytest.fixture
def linear_gaussian(rng):
    """x = W z + b + noise, with orthogonal columns of W of unequal lengths, so that p(z|x) is diagonal."""
    axes = np.linalg.qr(rng.normal(size=(FEATURES, LATENTS)))[0]
    weights, bias = axes * [1.5, 1.0, 0.6], rng.normal(size=FEATURES)
    z = rng.normal(size=(4000, LATENTS))
    x = z @ weights.T + bias + np.sqrt(NOISE) * rng.normal(size=(4000, FEATURES))
    return weights, bias, x.astype("float32")


def linear_vae(**arguments):
    encoder = dense_encoder((FEATURES,), LATENTS, hidden=())
    return kvae.VAE(encoder, dense_decoder((FEATURES,), LATENTS, hidden=()), seed=0, **arguments)


def test_with_the_exact_posterior_every_draw_bounds_log_p_of_x_with_equality(linear_gaussian):
    weights, bias, x = linear_gaussian
    model = linear_vae(likelihood=kvae.GaussianLikelihood(NOISE))
    precision = weights.T @ weights / NOISE + np.eye(LATENTS)
    projection = weights @ np.linalg.inv(precision) / NOISE
    model.encoder.get_layer("z_mean").set_weights([projection, -bias @ projection])
    model.encoder.get_layer("z_log_var").set_weights(
        [np.zeros((FEATURES, LATENTS)), -np.log(np.diag(precision))],
    )
    model.decoder.layers[1].set_weights([weights.T, bias])

    covariance = weights @ weights.T + NOISE * np.eye(FEATURES)
    log_p = scipy.stats.multivariate_normal(bias, covariance).logpdf(x)
    draw = model.draw(tf.constant(x[:200]), samples=50)
    bounds = draw.log_likelihood + draw.log_prior - draw.log_posterior
    np.testing.assert_allclose(bounds, np.repeat(log_p[:200, None], 50, axis=1), rtol=1e-5, atol=1e-4)

    model.compile(run_eagerly=True)
    elbo = model.evaluate(x, return_dict=True, verbose=0)["elbo"]
    assert elbo == pytest.approx(log_p.mean(), abs=0.05)


def test_a_linear_vaes_optimum_is_probabilistic_pcas(linear_gaussian):
    _, _, x = linear_gaussian
    pca = kvae.PCA(LATENTS).fit(x, verbose=0)
    optimum = pca.evaluate(x, return_dict=True, verbose=0)["log_likelihood"]
    model = linear_vae()
    schedule = keras.optimizers.schedules.CosineDecay(0.02, 4000)
    model.compile(keras.optimizers.Adam(schedule), steps_per_execution=40)
    model.fit(x, batch_size=100, epochs=100, verbose=0)

    draw = model.draw(tf.constant(x), samples=200)
    bound = float(np.mean(draw.elbo))
    assert optimum - 0.05 < bound < optimum + 0.005
    assert float(np.exp(model.likelihood.log_var)) == pytest.approx(float(pca.noise_variance), rel=0.01)
    axes = np.linalg.qr(model.decoder.layers[1].get_weights()[0].T)[0]
    centred = x - x.mean(axis=0)
    explained = np.square(centred @ axes).sum() / np.square(centred @ np.asarray(pca.components).T).sum()
    assert 0.998 < explained <= 1 + 1e-6


def test_any_posteriors_bound_is_below_log_p_of_x(linear_gaussian):
    weights, bias, x = linear_gaussian
    model = linear_vae(likelihood=kvae.GaussianLikelihood(NOISE))
    model.decoder.layers[1].set_weights([weights.T, bias])
    log_p = scipy.stats.multivariate_normal(bias, weights @ weights.T + NOISE * np.eye(FEATURES)).logpdf(x[:500])
    draw = model.draw(tf.constant(x[:500]), samples=100)
    assert np.mean(draw.elbo) < log_p.mean()
