"""The importance-weighted bound and its gradients, where closed forms exist."""

import itertools

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from breadth import some, thorough
from combinations import gradient, made, z_below

import kvae
from kvae.networks import dense_decoder, dense_encoder
from kvae.posteriors import DiagonalNormal, FullNormal

FEATURES, LATENTS, NOISE = 5, 3, 0.3


@pytest.fixture
def linear(rng, float64):
    """x = W z + b + noise, W's columns far from orthogonal: (model of a posterior's name, log p, x)."""
    weights, bias = rng.normal(size=(FEATURES, LATENTS)), rng.normal(size=FEATURES)
    x = rng.normal(size=(40, LATENTS)) @ weights.T + bias + NOISE**0.5 * rng.normal(size=(40, FEATURES))
    covariance = np.linalg.inv(weights.T @ weights / NOISE + np.eye(LATENTS))
    projection = weights @ covariance / NOISE

    def model(posterior, off=0.0):
        """With the exact posterior, or the closest there is, its means `off` by so much and its deviations e^off."""
        made = kvae.VAE(
            dense_encoder((FEATURES,), LATENTS, hidden=(), posterior_family=posterior),
            dense_decoder((FEATURES,), LATENTS, hidden=()),
            kvae.GaussianLikelihood(NOISE),
            posterior_family=posterior,
            seed=0,
        )
        made.decoder.layers[1].set_weights([weights.T, bias])
        cholesky = np.linalg.cholesky(covariance)
        heads = {
            "z_mean": off - bias @ projection,
            "z_log_var": 2 * np.log(np.diag(cholesky)) + 2 * off,
            "z_below": z_below(covariance),
        }
        for name in posterior.outputs(LATENTS):
            kernel = projection if name == "z_mean" else np.zeros((FEATURES, len(heads[name])))
            made.encoder.get_layer(name).set_weights([kernel, heads[name]])
        return made

    marginal = scipy.stats.multivariate_normal(bias, weights @ weights.T + NOISE * np.eye(FEATURES))
    return model, marginal.logpdf(x), tf.constant(x)


def test_a_full_normal_is_the_exact_posterior_of_a_linear_decoder(linear):
    model, log_p, x = linear
    draw = model(FullNormal()).draw(x, 7)
    np.testing.assert_allclose(draw.log_weights, np.repeat(log_p[:, None], 7, axis=1), atol=1e-10)
    np.testing.assert_allclose(draw.importance_weighted_bound, log_p, atol=1e-10)
    closed = np.mean(model(FullNormal()).draw(x, 5000).elbo)
    assert closed == pytest.approx(log_p.mean(), abs=0.02)


@pytest.mark.parametrize("posterior, tolerance", [(DiagonalNormal, 0.1), (FullNormal, 0.01)])
def test_the_bound_rises_with_the_samples_to_log_p(linear, posterior, tolerance):
    model, log_p, x = linear
    model = model(posterior(), off=0.2)
    bounds = []
    for samples in (1, 5, 50, 500):
        draw = model.draw(tf.repeat(x, 2000 // samples, axis=0), samples)
        bounds.append(float(np.mean(draw.importance_weighted_bound)))
    assert bounds == sorted(bounds)
    assert bounds[0] < bounds[-1] - 0.1
    assert bounds[-1] == pytest.approx(log_p.mean(), abs=tolerance)


@pytest.mark.parametrize("posterior", [thorough(DiagonalNormal), FullNormal])
def test_both_gradients_have_the_same_expectation_and_for_one_sample_the_elbos(linear, posterior):
    model, _, x = linear
    model, x = model(posterior(), off=0.3), tf.repeat(x[:2], 500, axis=0)
    for samples in (1, 4):
        plain, doubly = (np.array([flat(gradient(model, x, samples, d)) for _ in range(20)]) for d in (False, True))
        expected = plain.mean(axis=0)
        error = np.sqrt((plain.var(axis=0, ddof=1) + doubly.var(axis=0, ddof=1)) / 20)
        if samples == 1:
            expected, error = flat(elbo_gradient(model, x)), doubly.std(axis=0, ddof=1) / 20**0.5
        moving = np.abs(expected) > 1e-12  # not the entries above the diagonal
        assert (np.abs(doubly.mean(axis=0) - expected)[moving] < 5 * error[moving] + 1e-12).all()


def flat(gradients):
    return np.concatenate([np.ravel(g) for g in gradients])


def elbo_gradient(model, x):
    """That of the ELBO of the linear model in closed form: E|x - W z - b|^2 = |x - W mean - b|^2 + tr(W cov W^T)."""
    kernel, bias = (weight.value for weight in model.decoder.trainable_weights)
    with tf.GradientTape() as tape:
        q = model.posterior(x)
        factor = q.cholesky if hasattr(q, "cholesky") else tf.linalg.diag(q.stddev)
        spread = tf.reduce_sum(tf.square(tf.linalg.matrix_transpose(factor) @ kernel), axis=[1, 2])
        error = tf.reduce_sum(tf.square(x - q.mean @ kernel - bias), axis=1) + spread
        kl = 0.5 * (tf.reduce_sum(tf.square(factor), axis=[1, 2]) + tf.reduce_sum(tf.square(q.mean), axis=1))
        loss = tf.reduce_mean(
            0.5 * error / NOISE + kl - tf.reduce_sum(tf.math.log(tf.linalg.diag_part(factor)), axis=1)
        )
    return tape.gradient(loss, [weight.value for weight in model.trainable_weights])


def test_at_the_exact_posterior_the_doubly_reparameterized_gradient_has_no_variance(linear):
    model, _, x = linear
    model = model(FullNormal())
    encoder = len(model.encoder.trainable_weights)
    plain, doubly = (gradient(model, x[:1], 3, kind)[:encoder] for kind in (False, True))
    assert max(np.abs(g).max() for g in doubly) < 1e-10
    assert max(np.abs(g).max() for g in plain) > 0.1


@pytest.mark.parametrize(
    "prior, posterior",
    some(
        list(itertools.product(["mixture", "flow", "vamp"], ["diagonal", "full", "coupling", "autoregressive"])),
        *(("mixture", "diagonal"), ("flow", "full"), ("vamp", "coupling"), ("flow", "autoregressive")),
    ),
)
def test_the_doubly_reparameterized_gradient_is_its_formula(rng, float64, prior, posterior):
    """Encoder: sum_k w_k^2 (d log w_k / dz) dz/dphi at constant parameters of q; all else as the plain gradient."""
    model = made(prior, posterior, activation="tanh")
    for weight in model.trainable_weights:
        weight.assign(weight + 0.3 * rng.normal(size=weight.shape))
    x, samples, index = tf.constant(rng.random((4, 6))), 3, np.arange(4)
    found = gradient(model, x, samples, True, index)

    others = [*model.decoder.trainable_weights, *model.likelihood.trainable_weights, *model.prior.trainable_weights]
    own = [*model.encoder.trainable_weights, *model.posterior_family.trainable_weights]
    with tf.GradientTape(persistent=True) as tape:
        q = model.posterior(x).repeat(samples)
        z = q.reparameterize(tf.reshape(model.sampling.noise((4, samples, 2), index), (-1, 2)))
        with tf.GradientTape(persistent=True) as inner:
            at = tf.stop_gradient(z)
            inner.watch(at)
            log_joint = model.decoder_distribution(at).log_prob(tf.repeat(x, samples, axis=0))
            log_joint += model.prior_distribution().log_prob(at)
            log_w = log_joint - q.log_prob(at)
        weights = tf.reshape(tf.nn.softmax(tf.reshape(log_w, (4, samples)), axis=1), (-1,)) / 4
        weights = tf.stop_gradient(weights)
        direction = tf.stop_gradient(inner.gradient(log_w, at))
        path = -tf.reduce_sum(4 * tf.square(weights)[:, None] * direction * z)
        joint = -tf.reduce_sum(weights * log_joint)
    for weight, value in zip(model.trainable_weights, found, strict=True):
        expected = 0.0
        if any(weight is w for w in own):
            expected += tape.gradient(path, weight.value, unconnected_gradients="zero")
        if any(weight is w for w in others) or prior == "vamp":
            expected += tape.gradient(joint, weight.value, unconnected_gradients="zero")
        np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-9, err_msg=weight.path)


def test_a_draws_density_is_the_noises_whatever_its_gradient(rng):
    """Where z is so large beside q's deviation that it says little of the noise that it came from."""
    model, x = made("normal", "diagonal"), rng.random((5, 6)).astype("float32")
    for name, bias in (("z_mean", 1000.0), ("z_log_var", -20.0)):
        model.encoder.get_layer(name).bias.assign([bias, bias])
    plain, doubly = (model.draw(x, 3, index=np.arange(5), doubly_reparameterized=kind) for kind in (False, True))
    np.testing.assert_array_equal(doubly.log_posterior, plain.log_posterior)


def test_a_models_loss_is_minus_the_bound(rng):
    x = rng.random((30, 6)).astype("float32")
    model = made("normal", "diagonal")
    model.compile(loss=kvae.IWAE(5), run_eagerly=True)
    numbers = model.evaluate(x, return_dict=True, verbose=0)
    draw = model.draw(x, 5, index=np.arange(30))
    bound = scipy.special.logsumexp(draw.log_weights, axis=1, b=1 / 5)
    assert numbers["loss"] == pytest.approx(-bound.mean(), rel=1e-6)
    assert numbers["elbo"] == pytest.approx(float(np.mean(draw.elbo)), rel=1e-6)
    assert -numbers["loss"] > numbers["elbo"]


def test_it_comes_back_from_its_config():
    objective = kvae.IWAE(7, gradient="doubly_reparameterized")
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(objective))
    assert copy.get_config() == objective.get_config() == {"samples": 7, "gradient": "doubly_reparameterized"}
    assert copy.doubly_reparameterized
