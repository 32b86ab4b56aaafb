"""Each likelihood that factorizes leaves values out exactly, and knows the variance of each value."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from likelihood_cases import CASES, SHAPE

import kvae

FACTORIZING = {name: case for name, case in CASES.items() if name != "poisson shares"}  # given a row's total
every_likelihood = pytest.mark.parametrize("make, data", FACTORIZING.values(), ids=FACTORIZING)


def distribution(rng, make, rows=3, dtype="float64"):
    likelihood = make(dtype=dtype)
    likelihood.build((None, *SHAPE))
    shape = (rows, *likelihood.decoder_shape(SHAPE))
    return likelihood.distribution([tf.constant(rng.normal(size=shape), dtype) for _ in likelihood.parameters])


@every_likelihood
def test_a_mask_of_all_values_changes_no_bit(rng, make, data):
    p = distribution(rng, make, dtype="float32")
    x = tf.constant(data(rng, 3, *SHAPE), tf.float32)
    assert p.factorizes
    assert np.array_equal(p.log_prob(x), p.log_prob(x, tf.ones_like(x, tf.bool)))


@every_likelihood
def test_the_parts_of_a_row_add_up_to_the_whole(rng, make, data):
    """Pixels, since a mixture's channels are dependent, and a class is one-hot along the last axis."""
    p = distribution(rng, make)
    x = data(rng, 3, *SHAPE)
    mask = np.broadcast_to(rng.random((3, *SHAPE[:-1], 1)) < 0.6, x.shape)
    parts = [p.log_prob(tf.constant(np.where(each, x, 0.0)), tf.constant(each)) for each in (mask, ~mask)]
    assert np.all(np.abs(parts[0]) > 0.01)
    np.testing.assert_allclose(parts[0] + parts[1], p.log_prob(tf.constant(x)), rtol=1e-10)
    np.testing.assert_allclose(p.log_prob(tf.zeros_like(x), tf.zeros(x.shape, tf.bool)), 0.0, atol=1e-12)


def test_a_channel_is_left_out_of_a_mixture_by_summing_over_its_levels(rng):
    make, data = CASES["discretized logistic 5"]
    p = distribution(rng, make, rows=1)
    x = np.array(data(rng, 1, *SHAPE))
    mask = np.ones(x.shape, bool)
    mask[0, 0, 0, :2] = False
    total = []
    for levels in itertools.product(np.arange(5) / 4, repeat=2):
        x[0, 0, 0, :2] = levels
        total.append(p.log_prob(tf.constant(x))[0])
    found = p.log_prob(tf.constant(np.where(mask, x, 0.0)), tf.constant(mask))
    np.testing.assert_allclose(found[0], np.logaddexp.reduce(total), rtol=1e-10)


@every_likelihood
def test_gradients_are_finite_where_values_are_left_out(rng, make, data):
    likelihood = make()
    likelihood.build((None, *SHAPE))
    shape = (3, *likelihood.decoder_shape(SHAPE))
    outputs = [tf.constant(30 * rng.normal(size=shape), tf.float32) for _ in likelihood.parameters]
    mask = np.broadcast_to(rng.random((3, *SHAPE[:-1], 1)) < 0.5, (3, *SHAPE))
    x = np.where(mask, data(rng, 3, *SHAPE), 0.0).astype("float32")
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        log_prob = likelihood.distribution(outputs).log_prob(tf.constant(x), tf.constant(mask))
    for gradient in tape.gradient(log_prob, [*outputs, *likelihood.trainable_variables]):
        assert np.all(np.isfinite(gradient))


@every_likelihood
def test_the_variance_is_that_of_many_draws(rng, make, data):
    likelihood = make()
    likelihood.build((None, *SHAPE))
    outputs = [rng.normal(size=(1, *likelihood.decoder_shape(SHAPE))) for _ in likelihood.parameters]
    p, many = (
        likelihood.distribution([tf.constant(np.repeat(each, rows, axis=0), tf.float32) for each in outputs])
        for rows in (1, 4000)
    )
    variance, drawn = np.asarray(p.variance)[0], np.asarray(many.sample(1))
    assert variance.shape == SHAPE
    fourth = np.mean((drawn - drawn.mean(axis=0)) ** 4, axis=0)  # of which the error of a variance is
    error = np.sqrt(np.maximum(fourth - variance**2, 0) / 4000)
    assert np.mean(np.abs(drawn.var(axis=0) - variance) <= 2 * error + 1e-6) > 0.75
    np.testing.assert_allclose(np.mean(drawn.var(axis=0) / np.maximum(variance, 1e-9)), 1.0, atol=0.1)


@pytest.mark.parametrize("logits", [0.0, 0.3, -0.49, 0.51, 4.0, -40.0])
def test_a_continuous_bernoullis_variance_is_the_slope_of_its_mean(logits):
    def mean(value):
        return float(kvae.distributions.ContinuousBernoulli(tf.constant([[value]], tf.float64)).mean[0, 0])

    p = kvae.distributions.ContinuousBernoulli(tf.constant([[logits]], tf.float64))
    slope = (mean(logits + 1e-4) - mean(logits - 1e-4)) / 2e-4
    np.testing.assert_allclose(float(p.variance[0, 0]), slope, rtol=1e-5)
