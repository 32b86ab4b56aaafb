"""Posteriors: their densities, and what they read of the encoder."""

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from combinations import made, normals, z_below
from small_models import dense_vae

import kvae
from kvae.posteriors import FullNormal


def full_normal(rng, rows, latents=4):
    outputs = [rng.normal(size=(rows, size)) for size in FullNormal().outputs(latents).values()]
    return FullNormal(dtype="float64").distribution([tf.constant(output) for output in outputs]), scipys_of(outputs)


def scipys_of(outputs):
    """What a FullNormal makes of an encoder's outputs, as a distribution of scipy for each row."""
    mean, log_var, below = (np.asarray(output, "float64") for output in outputs)
    latents, found = mean.shape[1], []
    for row, at in enumerate(mean):
        factor = np.eye(latents)
        factor[np.tril_indices(latents, -1)] = below[row]
        factor /= np.linalg.norm(factor, axis=1, keepdims=True)
        cholesky = np.linalg.cholesky(0.99 * factor @ factor.T + 0.01 * np.eye(latents))
        cholesky *= (np.exp(log_var[row] / 2) / np.diag(cholesky))[:, None]
        found.append(scipy.stats.multivariate_normal(at, cholesky @ cholesky.T))
    return found


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


BELOWS = {
    **{f"normal, {std}": lambda rng, std=std: std * rng.normal(size=(6, 40, 40)) for std in (1, 5, 50)},
    "infinite": lambda rng: np.where(rng.random((6, 40, 40)) < 0.5, np.inf, -np.inf),
    # With these in L itself, or with rows of L bounded by 2, errors grow by 1e11 and more.
    "negative": lambda rng: np.full((6, 40, 40), -3.0),
    "of the latent before": lambda rng: 50 * np.repeat(np.eye(40, k=-1)[None], 6, axis=0),
}


@pytest.mark.parametrize("make", BELOWS.values(), ids=BELOWS)
def test_a_full_normal_of_40_latents_has_its_density_in_single_precision_whatever_its_correlations(rng, make):
    below = make(rng)[:, *np.tril_indices(40, -1)]
    outputs = [tf.constant(values, "float32") for values in (*rng.normal(size=(2, 6, 40)), below)]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(outputs)
        posterior = FullNormal().distribution(outputs)
        z, drawn = posterior.rsample_and_log_prob(tf.constant(rng.normal(size=(6, 40)), "float32"))
        scored, pairwise = posterior.log_prob(z), posterior.pairwise_log_prob(z)
    for value in (z, scored, pairwise):
        assert all(np.isfinite(gradient).all() for gradient in tape.gradient(value, outputs))
    outputs[2] = np.clip(below, -1e4, 1e4)
    scipys = scipys_of(outputs)
    expected = np.array([[s.logpdf(row) for s in scipys] for row in np.asarray(z, "float64")])
    np.testing.assert_allclose(scored, drawn, atol=1e-3)
    np.testing.assert_allclose(scored, np.diag(expected), atol=1e-2)
    np.testing.assert_allclose(pairwise, expected, atol=1e-2, rtol=1e-4)


def test_a_full_normals_gradients_are_central_differences(rng):
    arguments = [tf.constant(rng.normal(size=(3, size))) for size in (*FullNormal().outputs(4).values(), 4, 4)]

    def function(mean, log_var, below, eps, z):
        posterior = FullNormal().distribution([mean, log_var, below])
        drawn, log_prob = posterior.rsample_and_log_prob(eps)
        return tf.reduce_sum(tf.sin(drawn)) + tf.reduce_sum(log_prob) + tf.reduce_sum(posterior.log_prob(z))

    analytic, numeric = tf.test.compute_gradient(function, arguments, delta=1e-5)
    for found, expected in zip(analytic, numeric, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


def test_a_full_normal_has_correlations_of_up_to_99_percent(rng):
    cholesky = rng.normal(size=(5, 5)) + 2 * np.eye(5)
    for covariance in (cholesky @ cholesky.T, np.array([[4.0, -1.978], [-1.978, 1.0]])):
        zeros = tf.zeros((1, len(covariance)), "float64")
        posterior = FullNormal().distribution([zeros, zeros, tf.constant(z_below(covariance)[None])])
        found = np.asarray(posterior.cholesky[0] @ tf.transpose(posterior.cholesky[0]))
        scale = np.sqrt(np.diag(covariance) / np.diag(found))
        np.testing.assert_allclose(found * np.outer(scale, scale), covariance, rtol=1e-9)


def test_a_nan_of_the_encoder_is_a_nan_of_its_own_row(rng):
    """No error, which would end a run that can go on without a step."""
    outputs = [tf.constant(rng.normal(size=(3, size)), "float32") for size in FullNormal().outputs(4).values()]
    outputs[2] = tf.tensor_scatter_nd_update(outputs[2], [[1, 2]], [np.nan])
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        z, _ = FullNormal().distribution(outputs).rsample_and_log_prob(tf.ones((3, 4)))
        total = tf.reduce_sum(z * tf.constant([[1.0], [1.0], [np.inf]]))
    assert np.isfinite(np.asarray(z)).all(axis=1).tolist() == [True, False, True]
    finite = np.isfinite(np.asarray(tape.gradient(total, outputs)[2])).all(axis=1)
    assert finite[0] and not finite[2]


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
        kvae.VAE(plain.encoder, plain.decoder, posterior_family=FullNormal())
    with pytest.raises(TypeError, match="posterior_family is 'full'; expected one of"):
        kvae.VAE(plain.encoder, plain.decoder, posterior_family="full")
