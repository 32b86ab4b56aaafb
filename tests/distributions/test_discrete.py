"""Distributions over classes and levels: probabilities that sum to 1, scipy's numbers, and samples that are theirs."""

import itertools

import keras
import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf

from kvae.distributions.discrete import CategoricalLevels, DiscretizedLogisticMixture, OneHotCategorical


def mixture(rng, n, channels, components=3, levels=256, dtype="float64", log_scale=(-7.5, 1.0)):
    shape = (n, channels, components)
    return DiscretizedLogisticMixture(
        tf.constant(rng.normal(size=(n, components)), dtype),
        tf.constant(rng.uniform(-0.2, 1.2, size=shape), dtype),
        tf.constant(rng.uniform(*log_scale, size=shape), dtype),
        levels,
    )


def every_image(levels, channels):
    """All images of one pixel, (levels^channels, channels)."""
    return np.array(list(itertools.product(np.arange(levels) / (levels - 1), repeat=channels)))


def repeated(distribution, count):
    parts = (distribution.logits, distribution.means, distribution.log_scales)
    return DiscretizedLogisticMixture(*(tf.repeat(a, count, axis=0) for a in parts), distribution.levels)


@pytest.mark.parametrize("channels, levels", [(1, 256), (1, 2), (3, 6)])
@pytest.mark.parametrize("dtype, tolerance", [("float32", 2e-5), ("float64", 1e-12)])
def test_the_mixtures_probabilities_sum_to_1_and_give_its_mean(rng, channels, levels, dtype, tolerance):
    images = every_image(levels, channels)
    for log_scale in [(-7.5, 1.0), (-100, -8), (8, 100)]:
        one = mixture(rng, 1, channels, levels=levels, dtype=dtype, log_scale=log_scale)
        p = np.exp(np.asarray(repeated(one, len(images)).log_prob(tf.constant(images, dtype)), "float64"))
        np.testing.assert_allclose(p.sum(), 1, atol=tolerance)
        np.testing.assert_allclose(one.mean, (p @ images)[None], atol=tolerance)


def test_the_mixtures_log_prob_is_scipys(rng):
    distribution = mixture(rng, 50, 3, log_scale=(-5, 0))
    level = rng.integers(0, 256, size=(50, 3))
    level[:6] = [[0, 255, 0], [255, 255, 0], [0, 1, 254], [0, 0, 0], [255, 255, 255], [3, 0, 255]]
    logits, means, log_scales = (
        np.asarray(a) for a in (distribution.logits, distribution.means, distribution.log_scales)
    )
    logistic = scipy.stats.logistic(means, np.exp(log_scales))
    low = np.where(level == 0, -np.inf, (level - 0.5) / 255)[..., None]
    high = np.where(level == 255, np.inf, (level + 0.5) / 255)[..., None]
    # Above the mean the survival function keeps the digits that the distribution function loses.
    mass = np.where(low > means, logistic.sf(low) - logistic.sf(high), logistic.cdf(high) - logistic.cdf(low))
    expected = scipy.special.logsumexp(scipy.special.log_softmax(logits, axis=-1) + np.log(mass).sum(axis=1), axis=-1)
    np.testing.assert_allclose(distribution.log_prob(level / 255), expected, rtol=1e-9)


def test_uint8_images_lie_on_the_levels(rng):
    distribution = mixture(rng, 256, 1, dtype="float32")
    pixels = np.arange(256, dtype="float32")[:, None]
    scaled = distribution.log_prob(pixels * np.float32(1 / 255))
    np.testing.assert_array_equal(scaled, distribution.log_prob(pixels / np.float32(255)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_mixture_stays_finite(dtype):
    extreme = [-1e4, -50.0, 0.0, 50.0, 1e4]
    logits, means, log_scales = (tf.constant(a, dtype) for a in np.meshgrid(extreme, extreme, extreme))
    logits = tf.reshape(logits, (25, 5))
    means, log_scales = (tf.reshape(a, (25, 1, 5)) for a in (means, log_scales))
    for x in (0.0, 128 / 255, 1.0):
        with tf.GradientTape() as tape:
            tape.watch([logits, means, log_scales])
            total = DiscretizedLogisticMixture(logits, means, log_scales).log_prob(tf.fill((25, 1), tf.cast(x, dtype)))
        for value in (total, *tape.gradient(total, [logits, means, log_scales])):
            assert np.all(np.isfinite(value))
    distribution = DiscretizedLogisticMixture(logits, means, log_scales)
    assert np.all(np.isfinite(distribution.mean)) and np.all(np.isfinite(distribution.sample(1)))


@pytest.mark.parametrize("seed", [2, keras.random.SeedGenerator(2)], ids=["int", "generator"])
def test_the_mixtures_samples_are_levels_with_its_probabilities(rng, seed):
    """Jointly over three channels, so that the component they share is tested too."""
    levels, count = 4, 50_000
    one = mixture(rng, 1, 3, components=2, levels=levels, log_scale=(-3, -1.5))
    images = every_image(levels, 3)
    p = np.exp(repeated(one, len(images)).log_prob(images))
    samples = np.asarray(repeated(one, count).sample(seed))
    index = np.rint(samples * (levels - 1)).astype(int)
    np.testing.assert_allclose(samples, index / (levels - 1))
    found = np.bincount(index @ [levels**2, levels, 1], minlength=len(images))
    keep = p * count > 5
    statistic = np.sum((found - p * count)[keep] ** 2 / (p * count)[keep])
    assert scipy.stats.chi2.sf(statistic, keep.sum() - 1) > 1e-3


def test_one_hot_classes_are_scipys(rng):
    logits = rng.normal(size=(3, 50, 21)) * 4
    x = np.eye(21)[rng.integers(0, 21, size=(3, 50))]
    p = scipy.special.softmax(logits, axis=-1)
    distribution = OneHotCategorical(tf.constant(logits))
    expected = scipy.stats.multinomial(1, p).logpmf(x).sum(axis=1)
    np.testing.assert_allclose(distribution.log_prob(x), expected, rtol=1e-10)
    np.testing.assert_allclose(distribution.mean, p)


def test_levels_are_one_hot_classes_with_values(rng):
    logits = tf.constant(rng.normal(size=(5, 2, 3, 16)) * 4)
    level = rng.integers(0, 16, size=(5, 2, 3))
    distribution = CategoricalLevels(logits)
    expected = OneHotCategorical(logits).log_prob(np.eye(16)[level])
    np.testing.assert_allclose(distribution.log_prob(tf.constant(level / 15)), expected, rtol=1e-10)
    np.testing.assert_allclose(distribution.mean, scipy.special.softmax(logits, axis=-1) @ np.arange(16) / 15)


def test_samples_of_classes_and_levels_have_their_probabilities():
    p = np.array([[0.1, 0.2, 0.7], [0.5, 0.0, 0.5]])
    with np.errstate(divide="ignore"):
        logits = tf.constant(np.maximum(np.repeat(np.log(p)[None], 40_000, axis=0), -1e4), tf.float32)
    one_hot = np.asarray(OneHotCategorical(logits).sample(keras.random.SeedGenerator(1)))
    assert set(np.unique(one_hot)) == {0, 1} and np.all(one_hot.sum(axis=-1) == 1)
    np.testing.assert_allclose(one_hot.mean(axis=0), p, atol=0.01)
    level = np.asarray(CategoricalLevels(logits).sample(keras.random.SeedGenerator(1)))
    np.testing.assert_allclose([np.mean(level == value, axis=0) for value in (0, 0.5, 1)], p.T, atol=0.01)


def test_classes_stay_finite():
    logits = tf.constant([[[-1e4, 1e4, 0.0], [1e4, 1e4, -1e4]]])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(logits)
        one_hot = OneHotCategorical(logits).log_prob(tf.constant([[[1.0, 0, 0], [0, 0, 1.0]]]))
        levels = CategoricalLevels(logits).log_prob(tf.constant([[0.0, 1.0]]))
    for value in (one_hot, levels, tape.gradient(one_hot, logits), tape.gradient(levels, logits)):
        assert np.all(np.isfinite(value))
