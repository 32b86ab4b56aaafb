"""PCA of examples with weights is that of their weighted mean and covariance."""

import numpy as np
import pytest
import tensorflow as tf

import kvae


@pytest.fixture
def data(rng):
    x = rng.normal(size=(300, 3)) @ rng.normal(size=(3, 8)) + 0.1 * rng.normal(size=(300, 8)) + 5.0
    return x, rng.random(300) ** 6 * (rng.random(300) > 0.2)


@pytest.mark.parametrize("solver", ["covariance", "randomized"])
def test_the_axes_are_those_of_numpys_weighted_covariance(data, solver):
    x, w = data
    mean, covariance = np.average(x, axis=0, weights=w), np.cov(x.T, aweights=w, ddof=0)
    values, vectors = np.linalg.eigh(covariance)
    stream = tf.data.Dataset.from_tensor_slices((x, np.zeros(300), w)).batch(64)
    column = tf.data.Dataset.from_tensor_slices((x, np.zeros(300), w[:, None])).batch(100)
    for given, weights in ((x, w), ((x, np.zeros(300), w), None), (stream, None), (column, None)):
        pca = kvae.PCA(2, seed=0, solver=solver, tolerance=0).fit(given, sample_weight=weights, verbose=0)
        np.testing.assert_allclose(pca.mean, mean, rtol=1e-12)
        np.testing.assert_allclose(pca.explained_variance, values[::-1][:2], rtol=1e-9)
        np.testing.assert_allclose(pca.noise_variance, values[:-2].mean(), rtol=1e-9)
        np.testing.assert_allclose(np.abs(np.asarray(pca.components) @ vectors[:, ::-1][:, :2]), np.eye(2), atol=1e-7)
        assert int(pca.examples) == np.count_nonzero(w)


def test_a_weight_of_two_is_an_example_that_is_there_twice_and_one_of_zero_is_left_out(data):
    x = data[0]
    w = np.repeat([0, 1, 2], 100)
    weighted, repeated = kvae.PCA(2).fit(x, sample_weight=w, verbose=0), kvae.PCA(2).fit(np.repeat(x, w, 0), verbose=0)
    for name in ("mean", "components", "explained_variance", "noise_variance"):
        np.testing.assert_allclose(getattr(weighted, name), getattr(repeated, name), atol=1e-9)


@pytest.mark.parametrize(
    "weights, message",
    [
        (
            lambda w: np.where(np.arange(300) == 7, -1, w),
            r"sample_weight of x is -1\.0 for example 7; expected a finite number of at least 0",
        ),
        (lambda w: np.where(np.arange(300) == 7, np.nan, w), "sample_weight of x is nan for example 7"),
        (lambda w: w + 1j, "of complex128"),
        (lambda w: np.stack([w, w], 1), r"has the shape \(300, 2\); expected one weight an example"),
        (lambda w: w * 0, "is 0 for all 300 examples"),
        (lambda w: np.arange(300) < 2, "x has 2 examples; 2 axes need more than that, of a weight above 0"),
    ],
)
def test_weights_without_a_mean_are_refused(data, weights, message):
    with pytest.raises((TypeError, ValueError), match=message):
        kvae.PCA(2).fit(data[0], sample_weight=weights(data[1]), verbose=0)


@pytest.mark.parametrize("missing", [False, True])
def test_batches_with_more_weights_than_examples_are_refused(data, missing):
    stream = tf.data.Dataset.from_tensor_slices(data[0]).batch(300).map(lambda x: (x[:290], x[:290], data[1]))
    with pytest.raises(ValueError, match=r"sample_weight has the shape \(300,\); expected .* \(290,\)"):
        kvae.PCA(2, missing=missing).fit(stream, verbose=0)


def test_weights_beside_a_stream_are_refused(data):
    with pytest.raises(ValueError, match=r"let the stream give \(x, y, sample_weight\)"):
        kvae.PCA(2).fit(tf.data.Dataset.from_tensor_slices(data[0]).batch(9), sample_weight=data[1], verbose=0)
