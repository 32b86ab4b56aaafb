"""The likelihoods that the guide on extensions shows, against scipy's densities and autodiff."""

import pathlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

import kvae

GUIDE = pathlib.Path(__file__).parents[2] / "notebooks" / "guides" / "extending.md"


@pytest.fixture(scope="module")
def guide():
    names = {"__name__": "guide"}
    for block in re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.S):
        exec(block, names)
    return names


def test_missing_values_have_no_part_in_the_density_and_no_gradient(guide, rng):
    x, mean = rng.normal(size=(2, 4, 50)).astype("float32")
    missing = rng.random(x.shape) < 0.4
    x[missing] = np.nan
    model = guide["robust"]
    z = rng.normal(size=(4, 5)).astype("float32")
    mean = np.asarray(model.decoder(z))
    expected = np.where(missing, 0.0, stats.laplace(mean, 0.5).logpdf(x)).sum(axis=1)
    np.testing.assert_allclose(model.log_likelihood(x, z), expected, rtol=1e-5)
    found = model.impute(x, draws=2, samples=4)
    assert np.all(np.isfinite(found.draws)) and np.all(found.stddev[missing] >= np.sqrt(0.5) * 0.999)
    z = tf.Variable(z)
    with tf.GradientTape() as tape:
        log_prob = model.log_likelihood(x, z)
    assert np.all(np.isfinite(tape.gradient(log_prob, z)))


def test_zero_inflated_counts_have_scipys_density_and_moments(guide, rng):
    log_rate, logit = rng.normal(size=(2, 3, 4000)).astype("float32")
    p = guide["ZeroInflatedPoisson"](log_rate, logit)
    x = np.asarray(p.sample(seed=0))
    pi, poisson = 1 / (1 + np.exp(-logit.astype("float64"))), stats.poisson(np.exp(log_rate))
    expected = np.log(np.where(x == 0, pi, 0.0) + (1 - pi) * poisson.pmf(x)).sum(axis=1)
    np.testing.assert_allclose(p.log_prob(x), expected, rtol=1e-5)
    variance = (1 - pi) * poisson.var() + pi * (1 - pi) * poisson.mean() ** 2
    standardized = (x - p.mean) / np.sqrt(variance)
    assert abs(np.mean(standardized)) < 4 / np.sqrt(x.size)
    zeros = pi + (1 - pi) * poisson.pmf(0)
    assert abs(np.mean((x == 0) - zeros)) < 4 * np.sqrt(np.mean(zeros * (1 - zeros)) / x.size)


def test_extreme_logits_give_finite_densities_and_gradients(guide):
    logit = tf.constant([[-200.0, 200.0, -200.0, 200.0]])
    with tf.GradientTape() as tape:
        tape.watch(logit)
        log_prob = guide["ZeroInflatedPoisson"](tf.zeros((1, 4)), logit).log_prob(tf.constant([[0.0, 0.0, 3.0, 3.0]]))
    np.testing.assert_allclose(log_prob, [-1.0 + 0.0 + stats.poisson(1).logpmf(3) + stats.poisson(1).logpmf(3) - 200])
    np.testing.assert_allclose(tape.gradient(log_prob, logit), [[0.0, 0.0, 0.0, -1.0]], atol=1e-6)


def test_a_model_draws_with_them_and_keras_loads_it(guide, rng, tmp_path):
    x = rng.poisson(2.0, (3, 50)).astype("float32")
    model = guide["model"]
    assert model.draw(x, samples=2).log_likelihood.shape == (3, 2)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again.reconstruct(x), model.reconstruct(x), rtol=1e-6)
    with pytest.raises(ValueError, match="names 'ZeroInflatedPoissonLikelihood' of guide"):
        kvae.load(tmp_path / "model.keras")
