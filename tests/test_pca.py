import keras
import numpy as np
import pytest
import scipy.stats
import sklearn.decomposition
import tensorflow as tf

import kvae
from kvae.models import pca as module


@pytest.fixture
def x(rng):
    return rng.normal(size=(500, 4)) @ rng.normal(size=(4, 12)) + 0.3 * rng.normal(size=(500, 12)) + 5.0


def test_it_is_scikit_learns(x):
    ours = kvae.PCA(3).fit(x, verbose=0)
    theirs = sklearn.decomposition.PCA(3, svd_solver="full").fit(x)
    signs = np.sign(np.sum(np.asarray(ours.components) * theirs.components_, axis=1))
    np.testing.assert_allclose(np.asarray(ours.components) * signs[:, None], theirs.components_, atol=1e-10)
    np.testing.assert_allclose(np.asarray(ours.explained_variance) * 500 / 499, theirs.explained_variance_)
    np.testing.assert_allclose(ours.noise_variance * 500 / 499, theirs.noise_variance_)
    np.testing.assert_allclose(ours.transform(x) * signs, theirs.transform(x), atol=1e-9)
    np.testing.assert_allclose(ours.reconstruct(x), theirs.inverse_transform(theirs.transform(x)), atol=1e-9)
    np.testing.assert_allclose(ours.inverse_transform(ours.transform(x)), ours.reconstruct(x))


def test_its_density_is_a_normals_of_maximum_likelihood(x):
    pca = kvae.PCA(3).fit(x, verbose=0)
    components, variances = np.asarray(pca.components), np.asarray(pca.explained_variance)
    noise = float(pca.noise_variance)
    covariance = components.T @ np.diag(variances - noise) @ components + noise * np.eye(12)
    expected = scipy.stats.multivariate_normal(np.asarray(pca.mean), covariance).logpdf(x)
    np.testing.assert_allclose(pca.log_prob(x), expected)
    numbers = pca.evaluate(x, return_dict=True, verbose=0)
    np.testing.assert_allclose(numbers["log_likelihood"], expected.mean())
    np.testing.assert_allclose(numbers["loss"], -expected.mean())
    error = np.square(x - pca.reconstruct(x)).sum(axis=1).mean()
    np.testing.assert_allclose(numbers["squared_error"], error)
    np.testing.assert_allclose(kvae.evaluation.squared_error(pca, x), error)


def test_every_draw_from_the_exact_posterior_bounds_with_equality(x):
    pca = kvae.PCA(3).fit(x, verbose=0)
    draw = pca.draw(tf.constant(x), samples=20)
    weights = draw.log_likelihood + draw.log_prior - draw.log_posterior
    np.testing.assert_allclose(weights, np.repeat(pca.log_prob(x)[:, None], 20, axis=1), rtol=1e-10)


def test_the_bound_is_log_p_of_x_with_the_closed_form_kl(x):
    pca = kvae.PCA(3).fit(x, verbose=0)
    draw = pca.draw(tf.constant(x), samples=3000)
    np.testing.assert_allclose(np.mean(draw.elbo), np.mean(pca.log_prob(x)), atol=0.01)


def test_streams_and_arrays_give_the_same(x):
    whole = kvae.PCA(3).fit(x, verbose=0)
    for batch_size in (7, 64, 500):
        stream = tf.data.Dataset.from_tensor_slices((x, np.zeros(500))).shuffle(500, seed=1).batch(batch_size)
        np.testing.assert_allclose(kvae.PCA(3).fit(stream, verbose=0).components, whole.components, atol=1e-9)


def test_many_features_take_the_iterative_solver_to_the_same_axes(x, monkeypatch):
    dense = kvae.PCA(3).fit(x, verbose=0)
    monkeypatch.setattr(module, "_DENSE_FEATURES", 0)
    iterative = kvae.PCA(3).fit(x, verbose=0)
    np.testing.assert_allclose(iterative.components, dense.components, atol=1e-8)
    np.testing.assert_allclose(iterative.explained_variance, dense.explained_variance)


def test_rows_that_sum_to_zero_do_not_stop_the_iterative_solver(rng, monkeypatch):
    x = rng.integers(-3, 4, size=(512, 11)) * np.arange(1.0, 12.0)
    x = np.c_[x, -x.sum(axis=1)]  # exact: a start from ones would be mapped to nothing
    dense = kvae.PCA(3).fit(x, verbose=0)
    monkeypatch.setattr(module, "_DENSE_FEATURES", 0)
    np.testing.assert_allclose(kvae.PCA(3).fit(x, verbose=0).components, dense.components, atol=1e-8)


def test_samples_have_the_datas_moments(x):
    pca = kvae.PCA(4, seed=0).fit(x, verbose=0)
    samples = pca.sample(100_000, noise=True)
    np.testing.assert_allclose(samples.mean(axis=0), x.mean(axis=0), atol=0.06)
    scale = np.abs(np.cov(x.T)).max()
    np.testing.assert_allclose(np.cov(samples.T) / scale, np.cov(x.T) / scale, atol=0.02)
    np.testing.assert_array_equal(pca.sample(4, seed=2), pca.sample(4, seed=2))


def test_images_keep_their_shape_and_uint8_is_scaled(rng):
    images = rng.integers(0, 256, size=(50, 4, 4, 3)).astype("uint8")
    pca = kvae.PCA(2).fit(images, verbose=0)
    assert pca.reconstruct(images).shape == images.shape
    np.testing.assert_allclose(pca.mean, (images / 255).mean(axis=0).ravel())
    np.testing.assert_allclose(pca.transform(images), kvae.PCA(2).fit(images / 255, verbose=0).transform(images / 255))


def test_it_is_saved_and_loaded(x, tmp_path):
    pca = kvae.PCA(3).fit(x, verbose=0)
    pca.save(tmp_path / "pca.keras")
    loaded = keras.saving.load_model(tmp_path / "pca.keras")
    np.testing.assert_array_equal(loaded.transform(x), pca.transform(x))
    assert loaded.evaluate(x, verbose=0, return_dict=True) == pca.evaluate(x, verbose=0, return_dict=True)


def test_a_second_fit_starts_anew(x):
    pca = kvae.PCA(3).fit(x, verbose=0)
    pca.fit(x[:100] ** 2, verbose=0)
    np.testing.assert_allclose(pca.components, kvae.PCA(3).fit(x[:100] ** 2, verbose=0).components)


def test_what_cannot_be_fitted_is_refused(x):
    with pytest.raises(ValueError, match="latent_dim is 12; expected fewer than the 12 features"):
        kvae.PCA(12).fit(x)
    with pytest.raises(ValueError, match="x has 3 examples; 3 axes need more than that"):
        kvae.PCA(3).fit(x[:3], verbose=0)
    for flat in (x[:4], np.ones((50, 6)), np.outer(np.arange(50.0), np.arange(1.0, 7.0))):
        with pytest.raises(ValueError, match="x has no variance left beside 3 axes"):
            kvae.PCA(3).fit(flat, verbose=0)
    with pytest.raises(ValueError, match="latent_dim is 0; expected an integer of at least 1"):
        kvae.PCA(0)
    with pytest.raises(ValueError, match="hasn't been fitted"):
        kvae.PCA(3).transform(x)
