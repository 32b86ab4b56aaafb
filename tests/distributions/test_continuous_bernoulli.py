"""The continuous Bernoulli, by integration and by scipy's truncated exponential, which it is."""

import keras
import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import tensorflow as tf

from kvae.distributions.bernoulli import ContinuousBernoulli

LOGITS = [-30.0, -3.0, -0.51, -0.49, -1e-3, -1e-9, 0.0, 1e-5, 0.3, 0.4999, 0.5001, 2.0, 25.0]


def density(logit):
    """exp(x logit), normalised over [0, 1], by integration."""
    total = scipy.integrate.quad(lambda x: np.exp(x * logit - max(logit, 0)), 0, 1, epsabs=0, epsrel=1e-13)[0]
    return lambda x: np.exp(x * logit - max(logit, 0)) / total


@pytest.mark.parametrize("dtype, tolerance", [("float32", 3e-6), ("float64", 1e-12)])
def test_density_and_mean_are_the_integrals(dtype, tolerance):
    for logit in LOGITS:
        found = ContinuousBernoulli(tf.constant([[logit]], dtype))
        p = density(logit)
        for x in (0.0, 0.3, 1.0):
            np.testing.assert_allclose(
                found.log_prob(tf.constant([[x]], dtype)), [np.log(p(x))], rtol=tolerance, atol=tolerance
            )
        mean = scipy.integrate.quad(lambda x, p=p: x * p(x), 0, 1, epsabs=0, epsrel=1e-13)[0]
        np.testing.assert_allclose(found.mean, [[mean]], rtol=tolerance, err_msg=str(logit))


def test_the_papers_parameter_is_the_logits_sigmoid():
    """Equation 7: log C(p) + x log p + (1 - x) log(1 - p), with C(p) = 2 artanh(1 - 2p) / (1 - 2p)."""
    p, x = 0.83, 0.4
    expected = np.log(2 * np.arctanh(1 - 2 * p) / (1 - 2 * p)) + x * np.log(p) + (1 - x) * np.log(1 - p)
    found = ContinuousBernoulli(tf.constant([[np.log(p / (1 - p))]])).log_prob(tf.constant([[x]], tf.float64))
    np.testing.assert_allclose(found, [expected], rtol=1e-12)


def test_it_stays_finite_and_bounded_for_every_logit():
    logits = tf.constant([[-1e30, -1e4, -100.0, -1e-30, 0.0, 1e-30, 100.0, 1e4, 1e30]])
    for x in (0.0, 0.5, 1.0):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            total = ContinuousBernoulli(logits).log_prob(tf.fill(logits.shape, x))
        assert np.all(np.isfinite(total)) and np.all(np.isfinite(tape.gradient(total, logits)))
    mean, sample = ContinuousBernoulli(logits).mean, ContinuousBernoulli(logits).sample(1)
    assert np.all((mean >= 0) & (mean <= 1)) and np.all((sample >= 0) & (sample <= 1))
    np.testing.assert_allclose(np.asarray(mean)[0, [0, 4, 8]], [0, 0.5, 1])


@pytest.mark.parametrize("logit", [-1e4, -4.0, -1e-7, 0.0, 0.6, 40.0])
def test_samples_follow_the_density(logit):
    seed = keras.random.SeedGenerator(1)
    x = np.asarray(ContinuousBernoulli(tf.fill((20_000, 1), logit)).sample(seed), "float64")[:, 0]
    size = max(abs(logit), 1e-8)
    falling = scipy.stats.truncexpon(size, scale=1 / size)
    assert scipy.stats.kstest(x if logit <= 0 else 1 - x, falling.cdf).pvalue > 1e-3
