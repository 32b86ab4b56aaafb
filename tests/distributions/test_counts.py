"""Distributions over counts: scipy's numbers, and samples that are theirs."""

import keras
import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf

from kvae.distributions.counts import NegativeBinomial, Poisson, log_rising_factorial
from kvae.likelihoods import NegativeBinomialLikelihood, PoissonLikelihood

COUNTS = np.array([0.0, 1, 2, 3, 10, 57, 400, 5000])


def scipys(mean, dispersion):
    r = 1 / dispersion
    return scipy.stats.nbinom(r, r / (r + mean))


@pytest.mark.parametrize("start", [1e-6, 0.3, 1.0, 7.5, 200.0])
def test_rising_factorial_is_the_difference_of_scipys_gammaln(start):
    expected = scipy.special.gammaln(start + COUNTS) - scipy.special.gammaln(start)
    found = log_rising_factorial(tf.constant(start, tf.float64), tf.constant(COUNTS))
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("dtype, tolerance", [("float32", 3e-5), ("float64", 1e-10)])
def test_log_probs_are_scipys(dtype, tolerance):
    mean, dispersion, x = np.meshgrid([1e-3, 0.7, 12.0, 900.0], [1e-4, 0.2, 1.0, 30.0], COUNTS[:7])
    shape = (4, 4, 7)
    log_mean, log_dispersion, values = (tf.constant(a, dtype) for a in (np.log(mean), np.log(dispersion), x))
    poisson = scipy.stats.poisson(mean).logpmf(x).reshape(*shape).sum(axis=(1, 2))
    np.testing.assert_allclose(Poisson(log_mean).log_prob(values), poisson, rtol=tolerance)
    negative_binomial = scipys(mean, dispersion).logpmf(x).sum(axis=(1, 2))
    np.testing.assert_allclose(
        NegativeBinomial(log_mean, log_dispersion).log_prob(values), negative_binomial, rtol=tolerance
    )


@pytest.mark.parametrize("dispersion", [0.3, "feature", "shared", "decoder"])
def test_a_negative_binomial_likelihood_is_scipys(dispersion, rng):
    likelihood = NegativeBinomialLikelihood(dispersion, initial_dispersion=0.3, dtype="float64")
    likelihood.build((None, 4))
    raw, x = rng.normal(0, 3, size=(20, 4)), rng.integers(0, 30, size=(20, 4))
    outputs = [raw, np.full_like(raw, np.log(0.3))][: len(likelihood.parameters)]
    expected = scipys(np.log1p(np.exp(raw)), 0.3)
    np.testing.assert_allclose(expected.var(), expected.mean() + 0.3 * expected.mean() ** 2)
    found = likelihood.distribution([tf.constant(output) for output in outputs]).log_prob(tf.constant(x, tf.float64))
    np.testing.assert_allclose(found, expected.logpmf(x).sum(axis=1), rtol=1e-6)


def test_a_small_dispersion_is_the_poisson_in_float32():
    x = tf.constant(COUNTS[:7, None], tf.float32)
    log_mean = tf.fill((7, 1), np.log(20.0).astype("float32"))
    found = NegativeBinomial(log_mean, tf.constant(-18.0)).log_prob(x)
    np.testing.assert_allclose(found, Poisson(log_mean).log_prob(x), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("mean, dispersion", [(0.4, 3.0), (6.0, 0.5), (60.0, 0.01)])
def test_probabilities_sum_to_1_and_give_the_mean_and_the_variance(mean, dispersion):
    x = np.arange(3000.0)[:, None]
    log_mean, log_dispersion = (tf.fill((3000, 1), tf.constant(np.log(a), tf.float64)) for a in (mean, dispersion))
    distributions = [
        (Poisson(log_mean), mean),
        (NegativeBinomial(log_mean, log_dispersion), mean + dispersion * mean**2),
    ]
    for distribution, variance in distributions:
        p = np.exp(distribution.log_prob(x))
        np.testing.assert_allclose(p.sum(), 1, rtol=1e-10)
        np.testing.assert_allclose(p @ x[:, 0], distribution.mean[0, 0], rtol=1e-10)
        np.testing.assert_allclose(p @ (x[:, 0] - mean) ** 2, variance, rtol=1e-9)


def p_value(samples, distribution):
    """Of the chi-square test of samples against scipy's distribution."""
    low, high = distribution.ppf([1e-3, 1 - 1e-3])
    edges = np.unique(np.linspace(low, high, 30).astype(int))
    expected = np.diff(np.concatenate([[0], distribution.cdf(edges), [1]])) * len(samples)
    found = np.histogram(samples, np.concatenate([[-1], edges + 0.5, [np.inf]]))[0]
    keep = expected > 5
    statistic = np.sum((found - expected)[keep] ** 2 / expected[keep])
    return scipy.stats.chi2.sf(statistic, max(keep.sum() - 1, 1))


@pytest.mark.parametrize("seed", [3, keras.random.SeedGenerator(3)], ids=["int", "generator"])
@pytest.mark.parametrize("mean", [0.05, 0.9, 4.0, 30.0, 1000.0])
def test_samples_pass_a_chi_square_test(mean, seed):
    log_mean = tf.fill((100_000, 1), tf.constant(np.log(mean), tf.float32))
    samples = np.asarray(Poisson(log_mean).sample(seed))[:, 0]
    assert p_value(samples, scipy.stats.poisson(mean)) > 1e-3
    for dispersion in (0.01, 0.4, 3.0):
        samples = np.asarray(NegativeBinomial(log_mean, tf.constant(np.log(dispersion), tf.float32)).sample(seed))[:, 0]
        assert p_value(samples, scipys(mean, dispersion)) > 1e-3, dispersion


def test_samples_of_each_element_have_their_own_rate():
    rates = np.array([[0.0, 1e-20, 3.0], [80.0, 0.5, 1e6]], "float32")
    with np.errstate(divide="ignore"):
        log_rate = np.repeat(np.log(rates)[None], 4000, axis=0)
    samples = np.asarray(Poisson(tf.constant(log_rate)).sample(1))
    np.testing.assert_allclose(samples.mean(axis=0), rates, atol=5 * np.sqrt(rates.max(initial=1) / 4000), rtol=0.02)
    np.testing.assert_allclose(samples.mean(axis=0)[rates < 100], rates[rates < 100], rtol=0.05, atol=1e-9)


def test_they_stay_finite():
    log_mean, log_dispersion = (
        tf.constant(a, tf.float32) for a in np.meshgrid([-1e4, -50, 0, 50, 1e4], [-1e4, 0, 1e4])
    )
    for x in (0.0, 1.0, 1e5):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch([log_mean, log_dispersion])
            values = tf.fill(log_mean.shape, x)
            negative_binomial = NegativeBinomial(log_mean, log_dispersion).log_prob(values)
            poisson = Poisson(log_mean).log_prob(values)
        gradients = [*tape.gradient(negative_binomial, [log_mean, log_dispersion]), tape.gradient(poisson, log_mean)]
        for value in (negative_binomial, poisson, *gradients):
            assert np.all(np.isfinite(value))
    for distribution in (Poisson(log_mean), NegativeBinomial(log_mean, log_dispersion)):
        assert np.all(np.isfinite(distribution.mean)) and np.all(np.isfinite(distribution.sample(1)))


def zero_inflated(base_pmf, zero, x):
    with np.errstate(divide="ignore"):  # of counts of a size of 0, which aren't observed
        return np.log((x == 0) * zero + (1 - zero) * base_pmf)


@pytest.mark.parametrize("size", [None, "total"])
@pytest.mark.parametrize("zero_inflation", [False, True])
@pytest.mark.parametrize("make", [PoissonLikelihood, NegativeBinomialLikelihood])
def test_counts_with_a_size_and_more_zeros_are_scipys(make, zero_inflation, size, rng):
    fixed = {"dispersion": 0.3} if make is NegativeBinomialLikelihood else {}
    likelihood = make(size=size, zero_inflation=zero_inflation, typical_size=50.0, dtype="float64", **fixed)
    likelihood.build((None, 4))
    raw, logits, x = rng.normal(size=(6, 4)), rng.normal(size=(6, 4)), rng.poisson(3, (6, 4))
    x[0] = 0
    outputs = [tf.constant(raw), tf.constant(logits)][: len(likelihood.parameters)]
    p, values = likelihood.distribution(outputs), tf.constant(x, tf.float64)
    shares, zero = scipy.special.softmax(raw, axis=1), scipy.special.expit(logits) if zero_inflation else 0 * logits

    def terms(mean):
        base = scipys(mean, 0.3) if fixed else scipy.stats.poisson(mean)
        return zero_inflated(base.pmf(x), zero, x)

    if size is None:
        mean = np.log1p(np.exp(raw))
        expected = terms(mean)
    else:
        mean = 50 * shares
        expected = terms(np.maximum(x.sum(1, keepdims=True), 1e-20) * shares)
    np.testing.assert_allclose(p.log_prob(values), expected.sum(1), rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(p.mean, (1 - zero) * mean, rtol=1e-9)
    draws = np.stack([p.sample(seed) for seed in range(100)])
    assert np.all(np.abs(draws.mean(0) - p.mean) < 5 * draws.std(0) / 10 + 0.05)
    np.testing.assert_allclose(draws.var(0), p.variance, rtol=0.9, atol=0.3)
    observed = rng.random((6, 4)) < 0.6
    observed[1] = False
    if size is None:
        found = p.log_prob(values, tf.constant(observed))
        np.testing.assert_allclose(found, np.where(observed, expected, 0).sum(1), rtol=1e-7)
    assert p.factorizes == (size is None)
    config = type(likelihood).from_config(likelihood.get_config())
    assert config.get_config() == likelihood.get_config() and config.parameters == likelihood.parameters
