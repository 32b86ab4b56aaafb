import keras
import numpy as np
import pytest
from scipy import special
from small_models import dense_vae

import kvae
from kvae.models import fitted_prior


@pytest.fixture
def vae(rng):
    keras.utils.set_random_seed(0)
    model = dense_vae()
    model.compile(keras.optimizers.Adam(1e-2))
    return model


@pytest.fixture
def x(rng):
    return (rng.random((200, 6)) * [1, 2, 3, 1, 1, 1]).astype("float32")


def test_a_single_gaussian_gets_the_mean_and_variance_of_the_aggregate_posterior(vae, x):
    fitted = kvae.fit_prior(vae, x, kvae.MixtureOfGaussians(1), steps=800, learning_rate=0.05, seed=0)
    posterior = vae.posterior(x)
    mean = np.mean(posterior.mean, axis=0)
    variance = np.mean(np.exp(posterior.log_var), axis=0) + np.var(posterior.mean, axis=0)  # law of total variance
    np.testing.assert_allclose(fitted.prior.means[0], mean, atol=0.1 * np.sqrt(variance).max())
    np.testing.assert_allclose(fitted.prior.log_vars[0], np.log(variance), atol=0.1)


def test_the_elbo_rises_by_the_fall_of_the_kl_and_reconstructions_stay(vae, x, tmp_path):
    before, weights, images = vae.evaluate(x, return_dict=True, verbose=0), vae.get_weights(), vae.reconstruct(x)
    prior = kvae.FlowPrior(kvae.flows.Coupling(steps=2, hidden=(8,)))
    fitted = kvae.fit_prior(vae, x, prior, steps=200, learning_rate=1e-2, seed=0)
    after = fitted.evaluate(x, return_dict=True, verbose=0)
    assert after["kl_loss"] < before["kl_loss"] - 0.1
    assert after["reconstruction_loss"] == pytest.approx(before["reconstruction_loss"], abs=1e-4)
    assert after["elbo"] - before["elbo"] == pytest.approx(before["kl_loss"] - after["kl_loss"], abs=1e-3)
    assert all(np.array_equal(*pair) for pair in zip(weights, vae.get_weights(), strict=True))
    np.testing.assert_array_equal(fitted.reconstruct(x), images)
    fitted.save(tmp_path / "a.keras")
    np.testing.assert_array_equal(kvae.load(tmp_path / "a.keras").sample(5, seed=0), fitted.sample(5, seed=0))


def test_pseudo_inputs_are_fitted_while_the_encoder_stays(vae, x):
    weights = vae.encoder.get_weights()
    prior = kvae.VampPrior(4, bounds=None)
    fitted = kvae.fit_prior(vae, x, prior, steps=30, learning_rate=0.1, seed=0)
    assert np.std(prior.pseudo_inputs) > 0.05  # 0.01 at the start
    assert all(np.array_equal(*pair) for pair in zip(weights, fitted.encoder.get_weights(), strict=True))


def test_what_cannot_be_fitted_is_refused(vae, x):
    with pytest.raises(ValueError, match="StandardNormal without weights"):
        kvae.fit_prior(vae, x, kvae.StandardNormal())
    with pytest.raises(TypeError, match=r"expected a trained kvae\.VAE"):
        kvae.fit_prior(kvae.PCA(2), x, kvae.MixtureOfGaussians(2))


@pytest.mark.parametrize(
    ("objective", "expected"), [(kvae.BetaTCVAE(200, beta=3.0), "BetaTCVAE"), (kvae.ELBO(free_bits=0.1), "ELBO")]
)
def test_the_result_is_compiled_as_the_model_was_or_with_the_elbo(vae, x, objective, expected):
    vae.compile(keras.optimizers.SGD(0.25), loss=objective)
    fitted = kvae.fit_prior(vae, x, kvae.MixtureOfGaussians(2), seed=0)
    assert type(fitted.loss).__name__ == expected and getattr(fitted.loss, "free_bits", 0) == 0
    assert expected == "ELBO" or (fitted.loss.beta == 3 and float(fitted.optimizer.learning_rate) == 0.25)


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_expectation_maximization_takes_scikit_learns_steps(covariance, monkeypatch):
    mixture = pytest.importorskip("sklearn.mixture")
    rng = np.random.default_rng(0)
    z = np.concatenate([rng.normal(size=(300, 2)) @ rng.normal(size=(2, 2)) + rng.normal(0, 3, 2) for _ in range(3)])
    z = (z - z.mean(axis=0)) / z.std(axis=0)

    def after(iterations):
        monkeypatch.setattr(fitted_prior, "_ITERATIONS", iterations)
        prior = kvae.MixtureOfGaussians(3, covariance=covariance)
        prior.build((None, 2))
        fitted_prior._expectation_maximization(prior, z, np.random.default_rng(1))
        components = prior.distribution(1).components
        scales = np.exp(0.5 * np.asarray(components.log_var))[:, :, None] * np.eye(2)
        factors = np.asarray(components.cholesky) if covariance == "full" else scales
        weights = special.softmax(np.asarray(prior.logits, np.float64))
        return weights, np.asarray(prior.means), factors @ np.swapaxes(factors, 1, 2), prior

    weights, means, covariances, _ = after(1)
    precisions = np.linalg.inv(covariances)
    expected = mixture.GaussianMixture(
        3,
        covariance_type="full" if covariance == "full" else "diag",
        weights_init=weights / weights.sum(),
        means_init=means,
        precisions_init=precisions if covariance == "full" else np.diagonal(precisions, axis1=1, axis2=2),
        reg_covar=fitted_prior._FLOOR,
        max_iter=11,
        tol=0.0,
    ).fit(z)
    weights, means, covariances, prior = after(12)
    np.testing.assert_allclose(weights, expected.weights_, rtol=1e-3)
    np.testing.assert_allclose(means, expected.means_, atol=1e-3)
    found = covariances if covariance == "full" else np.diagonal(covariances, axis1=1, axis2=2)
    np.testing.assert_allclose(found, expected.covariances_, atol=1e-3)
    assert np.mean(prior.log_prob(z.astype("float32"))) == pytest.approx(expected.score(z), abs=1e-3)
