"""Posteriors: their densities, and what they read of the encoder."""

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from combinations import made, normals
from small_models import dense_vae

import kvae
from kvae.posteriors import FullNormal


def full_normal(rng, rows, latents=4):
    outputs = [rng.normal(size=(rows, size)) for size in FullNormal().outputs(latents).values()]
    cholesky = np.zeros((rows, latents, latents))
    cholesky[:, *np.tril_indices(latents, -1)] = outputs[2]
    cholesky[:, range(latents), range(latents)] = 1
    cholesky *= np.exp(outputs[1] / 2)[:, :, None]
    scipys = [
        scipy.stats.multivariate_normal(m, c @ c.T, allow_singular=True)
        for m, c in zip(outputs[0], cholesky, strict=True)
    ]
    return FullNormal(dtype="float64").distribution([tf.constant(output) for output in outputs]), scipys


def test_a_full_normals_density_is_scipys_in_every_way(rng):
    posterior, scipys = full_normal(rng, 6)
    z = rng.normal(size=(6, 4))
    expected = np.array([[s.logpdf(row) for s in scipys] for row in z])
    np.testing.assert_allclose(posterior.log_prob(tf.constant(z)), np.diag(expected), rtol=1e-8)
    np.testing.assert_allclose(posterior.pairwise_log_prob(tf.constant(z)), expected, rtol=1e-8)
    drawn, log_prob = posterior.rsample_and_log_prob(tf.constant(rng.normal(size=(6, 4))))
    np.testing.assert_allclose(log_prob, [s.logpdf(row) for s, row in zip(scipys, drawn, strict=True)], rtol=1e-8)
    draws = np.asarray(posterior.take([2]).repeat(100_000).sample(0))
    np.testing.assert_allclose(np.cov(draws.T), scipys[2].cov, atol=0.03 * scipys[2].cov.max())


def test_a_full_normals_kl_is_the_textbooks(rng):
    posterior, scipys = full_normal(rng, 6)
    other, _ = normals(rng, 6)
    variance = np.exp(other.log_var)
    expected = [
        0.5 * (np.sum((np.diag(s.cov) + (s.mean - m) ** 2) / v - 1 + np.log(v)) - np.linalg.slogdet(s.cov)[1])
        for s, m, v in zip(scipys, np.asarray(other.mean), variance, strict=True)
    ]
    np.testing.assert_allclose(np.sum(posterior.kl_divergence(other), axis=1), expected, rtol=1e-8)
    assert (np.asarray(posterior.kl_divergence(other)) >= 0).all()


@pytest.mark.parametrize("log_var", [-1e4, -50.0, -20.0, 50.0])
def test_a_full_normal_scores_its_own_draws_in_single_precision_whatever_its_variances(log_var):
    parameters = [tf.zeros((1, 3)), tf.fill((1, 3), log_var), tf.constant([[1.0, -4.0, 20.0]])]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(parameters)
        posterior = FullNormal().distribution(parameters)
        z, expected = posterior.rsample_and_log_prob(tf.constant([[1.0, -1.0, 0.5]]))
        found, pairwise = posterior.log_prob(z), posterior.pairwise_log_prob(z)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    np.testing.assert_allclose(pairwise[0], expected, atol=1e-3)
    for value in (found, pairwise):
        assert all(np.isfinite(g).all() for g in tape.gradient(value, parameters))


def test_half_precision_networks_leave_densities_in_single(rng):
    x = rng.random((20, 6)).astype("float32")
    keras.mixed_precision.set_dtype_policy("mixed_float16")
    try:
        model = made("flow", "coupling")
        model.compile(run_eagerly=True)
        model.fit(x, verbose=0)
        draw = model.draw(x)
        assert {values.dtype for values in draw if values is not None} == {tf.float32}
        assert model(x).dtype == tf.float32
        posterior = model.posterior(x)
        np.testing.assert_allclose(posterior.log_prob(draw.z[:, 0]), draw.log_posterior[:, 0], atol=1e-4)
    finally:
        keras.mixed_precision.set_dtype_policy("float32")


def test_an_encoder_without_what_the_posterior_reads_is_refused():
    plain = dense_vae()
    with pytest.raises(ValueError, match=r"FullNormal reads \[z_mean \(n, 2\), z_log_var \(n, 2\), z_below \(n, 1\)\]"):
        kvae.VAE(plain.encoder, plain.decoder, posterior=FullNormal())
    with pytest.raises(TypeError, match="posterior is 'full'; expected one of"):
        kvae.VAE(plain.encoder, plain.decoder, posterior="full")
