"""log p(x) and p(z|x) by quadrature against closed forms."""

import itertools

import keras
import numpy as np
import pytest
from scipy import stats
from small_models import dense_vae

import kvae
from kvae.evaluation import exact_posterior

THOROUGH = pytest.mark.thorough
RNG = np.random.default_rng(0)


def linear(latent_dim):
    """A VAE with a linear decoder, and its weights: x ~ N(b, W^T W + 0.49 I)."""
    encoder = kvae.networks.dense_encoder((5,), latent_dim, ())
    decoder = kvae.networks.dense_decoder((5,), latent_dim, ())
    model = kvae.VAE(encoder, decoder, kvae.GaussianLikelihood(0.49), seed=0)
    w, b = RNG.normal(size=(latent_dim, 5)).astype("float32"), RNG.normal(size=5).astype("float32")
    decoder.set_weights([w, b])
    return model, w.astype("float64"), b.astype("float64")


@pytest.mark.parametrize("latent_dim", [1, 2, 3])
def test_of_a_linear_decoder_both_are_the_closed_forms(latent_dim):
    model, w, b = linear(latent_dim)
    x = RNG.normal(size=(2, 5)).astype("float32") * 3
    exact = exact_posterior(model, x)
    covariance = w.T @ w + 0.49 * np.eye(5)
    np.testing.assert_allclose(exact.log_prob, stats.multivariate_normal(b, covariance).logpdf(x), atol=1e-6)
    precision = np.eye(latent_dim) + w @ w.T / 0.49
    mean = np.linalg.solve(precision, w @ (x - b).T / 0.49).T
    np.testing.assert_allclose(exact.mean, mean, atol=1e-6)
    np.testing.assert_allclose(exact.covariance, [np.linalg.inv(precision)] * 2, atol=1e-6)
    assert np.all(exact.error < 1e-6) and "error below" in repr(exact)
    for axes, density, log_prob in zip(exact.axes, exact.density, exact.mean, strict=True):
        assert density.shape == tuple(len(axis) for axis in axes) and len(log_prob) == latent_dim
        mass = density.sum() * np.prod([axis[1] - axis[0] for axis in axes])
        assert mass == pytest.approx(1, abs=1e-9)


def test_of_a_narrow_posterior_with_two_modes_nothing_is_lost():
    """x = |z| + noise of 0.01: modes at 1.5 and -1.5."""
    decoder = kvae.networks.dense_decoder((1,), 1, (2,))
    decoder.set_weights([np.array([[1.0, -1.0]]), np.zeros(2), np.ones((2, 1)), np.zeros(1)])  # relu(z) + relu(-z)
    model = kvae.VAE(kvae.networks.dense_encoder((1,), 1, ()), decoder, kvae.GaussianLikelihood(1e-4), seed=0)
    exact = exact_posterior(model, np.array([[1.5]], "float32"))
    expected = np.log(2) + stats.norm(0, np.sqrt(1 + 1e-4)).logpdf(1.5)
    assert exact.log_prob[0] == pytest.approx(expected, abs=1e-6)
    assert abs(exact.mean[0, 0]) < 1e-6 and exact.covariance[0, 0, 0] == pytest.approx(2.25, abs=1e-3)


@pytest.mark.parametrize(
    "prior",
    [None, *(pytest.param(each, marks=THOROUGH) for each in (kvae.MixtureOfGaussians, kvae.VampPrior))],
    ids=str,
)
def test_the_probabilities_of_all_images_sum_to_1(prior):
    keras.utils.set_random_seed(0)
    model = dense_vae((3,), activation="tanh", likelihood="bernoulli", prior=prior(3) if prior else None)
    x = np.array(list(itertools.product([0, 1], repeat=3)), "float32")
    exact = exact_posterior(model, x)
    assert np.exp(exact.log_prob).sum() == pytest.approx(1, abs=1e-6) and np.exp(exact.log_prob).min() > 0


def test_models_without_a_grid_are_refused():
    with pytest.raises(ValueError, match="4 latents; a grid takes at most 3"):
        exact_posterior(dense_vae(latent_dim=4), np.zeros((1, 6), "float32"))
    with pytest.raises(TypeError, match="PCA"):
        exact_posterior(kvae.PCA(2).fit(RNG.normal(size=(9, 6)), verbose=0), np.zeros((1, 6), "float32"))
    with pytest.raises(TypeError, match="missing values"):
        exact_posterior(dense_vae(missing=True), np.zeros((1, 6), "float32"))
