"""Published and closed-form numbers on real images, where tensorflow-datasets has them prepared."""

import os

import pytest
import tensorflow_datasets as tfds

import kvae


@pytest.fixture(scope="module")
def fashion():
    data_dir = os.environ.get("KVAE_TEST_DATA")
    if not tfds.builder("fashion_mnist", data_dir=data_dir).data_path.exists():
        pytest.skip("Fashion-MNIST isn't prepared in tfds' folder, nor in the one named by KVAE_TEST_DATA")
    return kvae.data.load("fashion_mnist", 1000, validation=0, shuffle=0, data_dir=data_dir)


@pytest.mark.parametrize("latent_dim, squared_error", [(2, 36.1394), (10, 19.0916), (30, 12.2429)])
def test_pcas_numbers_on_fashion_mnist(fashion, latent_dim, squared_error):
    train, _, test = fashion
    pca = kvae.PCA(latent_dim).fit(train, verbose=0)
    numbers = pca.evaluate(test, return_dict=True, verbose=0)
    assert numbers["squared_error"] == pytest.approx(squared_error, abs=5e-5)
    if latent_dim == 10:
        assert pca.evaluate(train, return_dict=True, verbose=0)["log_likelihood"] == pytest.approx(314.8061, abs=5e-5)
        assert numbers["log_likelihood"] == pytest.approx(315.1629, abs=5e-5)
        assert float(pca.noise_variance) == pytest.approx(2.468580e-2, rel=1e-6)
