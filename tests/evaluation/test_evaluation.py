import numpy as np
import pytest
import tensorflow as tf

import kvae
from kvae.networks import dense_decoder, dense_encoder


@pytest.fixture
def models(rng):
    x = rng.integers(0, 256, size=(90, 4, 4, 1)).astype("uint8")
    shape = x.shape[1:]
    ae = kvae.Autoencoder(dense_encoder(shape, 2), dense_decoder(shape, 2))
    vae = kvae.VAE(dense_encoder(shape, 2), dense_decoder(shape, 2))
    ae.compile(run_eagerly=True)
    vae.compile(run_eagerly=True)
    return x, {"PCA": kvae.PCA(2).fit(x, verbose=0), "autoencoder": ae, "VAE": vae}


def test_squared_errors_are_those_of_the_reconstructions(models):
    x, models = models
    for model in models.values():
        expected = np.square(x / 255 - model.reconstruct(x)).reshape(90, -1).sum(axis=1).mean()
        stream = tf.data.Dataset.from_tensor_slices({"image": x, "label": np.zeros(90)}).batch(17)
        assert kvae.evaluation.squared_error(model, x) == pytest.approx(expected, rel=1e-5)
        assert kvae.evaluation.squared_error(model, stream) == pytest.approx(expected, rel=1e-5)


def test_a_comparison_has_what_each_model_reports_and_its_squared_error(models):
    x, models = models
    results = kvae.evaluation.compare(models, x, batch_size=20)
    assert {name: set(numbers) for name, numbers in results.items()} == {
        "PCA": {"loss", "log_likelihood", "squared_error"},
        "autoencoder": {"loss", "squared_error"},
        "VAE": {"loss", "reconstruction_loss", "kl_loss", "elbo", "squared_error"},
    }
    for name, model in models.items():
        assert results[name]["squared_error"] == pytest.approx(kvae.evaluation.squared_error(model, x), rel=1e-6)
        assert results[name]["loss"] == pytest.approx(model.evaluate(x, verbose=0, return_dict=True)["loss"])


def test_no_data_are_refused(models):
    x, models = models
    with pytest.raises(ValueError, match="empty"):
        kvae.evaluation.squared_error(models["PCA"], x[:0])
