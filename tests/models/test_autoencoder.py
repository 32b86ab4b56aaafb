import keras
import numpy as np
import pytest

import kvae
from kvae.networks import dense_decoder, dense_encoder


def test_the_loss_is_the_squared_error_summed_over_the_image(rng):
    x = rng.random((40, 6, 6, 2)).astype("float32")
    model = kvae.Autoencoder(dense_encoder((6, 6, 2), 3), dense_decoder((6, 6, 2), 3))
    model.compile()
    expected = np.square(x - model.reconstruct(x)).reshape(40, -1).sum(axis=1).mean()
    for batch_size in (7, 64):
        numbers = model.evaluate(x, batch_size=batch_size, return_dict=True, verbose=0)
        np.testing.assert_allclose([numbers["loss"], numbers["squared_error"]], expected, rtol=1e-6)
    np.testing.assert_allclose(kvae.evaluation.squared_error(model, x), expected, rtol=1e-6)


def test_a_linear_one_reaches_pca(rng):
    x = (rng.normal(size=(2000, 3)) @ rng.normal(size=(3, 10)) + 0.2 * rng.normal(size=(2000, 10))).astype("float32")
    model = kvae.Autoencoder(dense_encoder((10,), 3, hidden=()), dense_decoder((10,), 3, hidden=()))
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.03, 1000)), steps_per_execution=20)
    model.fit(x, epochs=50, batch_size=100, verbose=0)
    best = kvae.evaluation.squared_error(kvae.PCA(3).fit(x, verbose=0), x)
    assert best <= kvae.evaluation.squared_error(model, x) < 1.01 * best


def test_a_variational_encoder_lends_its_mean():
    encoder = dense_encoder((5,), 2, hidden=(4,))
    model = kvae.Autoencoder(encoder, dense_decoder((5,), 2, hidden=(4,)))
    assert len(model.encoder.outputs) == 1
    assert len(model.trainable_weights) == 8
    x = np.ones((3, 5), "float32")
    np.testing.assert_array_equal(model.transform(x), encoder(x)[0])


def test_it_is_saved_and_loaded(tmp_path, rng):
    x = rng.random((30, 5)).astype("float32")
    model = kvae.Autoencoder(dense_encoder((5,), 2), dense_decoder((5,), 2))
    model.compile(run_eagerly=True)
    model.fit(x, verbose=0)
    model.save(tmp_path / "ae.keras")
    loaded = keras.saving.load_model(tmp_path / "ae.keras")
    np.testing.assert_array_equal(loaded.transform(x), model.transform(x))
    assert int(loaded.optimizer.iterations) == int(model.optimizer.iterations)


@pytest.mark.parametrize(
    "decoder, message",
    [
        (dense_decoder((6,), 2), r"outputs of shapes \[\(None, 6\)\]; an Autoencoder expects one output.*\(None, 5\)"),
        (dense_decoder((5,), 2, outputs=2), "expects one output of the images' shape"),
        (dense_decoder((5,), 3), r"decoder doesn't take inputs of shape \(None, 2\)"),
    ],
)
def test_a_bad_pair_is_refused_at_construction(decoder, message):
    with pytest.raises(ValueError, match=message):
        kvae.Autoencoder(dense_encoder((5,), 2), decoder)


def test_a_loss_is_refused():
    model = kvae.Autoencoder(dense_encoder((5,), 2), dense_decoder((5,), 2))
    with pytest.raises(ValueError, match="minimizes its squared error and takes none"):
        model.compile(loss="mse")
