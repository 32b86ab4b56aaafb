import keras
import numpy as np
import pytest
import tensorflow as tf
from small_models import dense_vae

import kvae
from kvae.networks import conv_decoder, conv_encoder
from kvae.training.steps_per_execution import multiply_adds, steps_per_execution


def test_multiply_adds_are_those_of_dense_layers_and_convolutions():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", strides=2)(inputs)  # 4 * 4 places, 3 * 3 * 3 * 4 each
    x = keras.layers.Conv2DTranspose(2, 3, padding="same", strides=2)(x)  # 4 * 4 places, 3 * 3 * 2 * 4 each
    x = keras.layers.Dense(5)(keras.layers.Flatten()(x))  # 8 * 8 * 2 * 5
    assert multiply_adds(keras.Model(inputs, x)) == 16 * 108 + 16 * 72 + 640


class EachBatch(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        pass


def compiled(model, **arguments):
    model.compile(**arguments)
    return model


@pytest.mark.parametrize(
    ("model", "callbacks", "expected"),
    [
        (lambda: compiled(dense_vae()), [], 20),
        (lambda: compiled(dense_vae()), [keras.callbacks.ModelCheckpoint("m.keras"), keras.callbacks.History()], 20),
        (lambda: compiled(dense_vae()), [EachBatch()], 1),
        (lambda: compiled(dense_vae()), [keras.callbacks.LambdaCallback(on_train_batch_end=print)], 1),
        (lambda: compiled(dense_vae()), [keras.callbacks.ModelCheckpoint("m.keras", save_freq=5)], 1),
        (lambda: compiled(dense_vae(), run_eagerly=True), [], 1),
        (lambda: compiled(dense_vae(), optimizer=keras.optimizers.SGD(gradient_accumulation_steps=2)), [], 1),
        (lambda: compiled(kvae.VAE(conv_encoder((64, 64, 3), 10), conv_decoder((64, 64, 3), 10))), [], 1),
    ],
)
def test_small_networks_take_many_steps_at_a_time(model, callbacks, expected):
    assert steps_per_execution(model(), 128, callbacks) == expected


@pytest.mark.parametrize(
    ("epoch", "expected"), [(468, 18), (7 * 67, 20), (20, 20), (18 * 1_999, 20), (5, 5), (None, 20)]
)
def test_groups_divide_an_epoch_where_that_costs_less_than_an_iterator(epoch, expected):
    assert steps_per_execution(compiled(dense_vae()), 128, [], [], epoch) == expected


def test_fit_chooses_unless_it_was_told(rng):
    x = rng.random((60, 6)).astype("float32")
    model = compiled(dense_vae())
    model.fit(x, batch_size=10, verbose=0)
    assert model.steps_per_execution == 6 and int(model.optimizer.iterations) == 6
    model.fit(x, batch_size=10, verbose=0, callbacks=[EachBatch()])
    assert model.steps_per_execution == 1 and int(model.optimizer.iterations) == 12
    model = compiled(dense_vae(), steps_per_execution=3)
    model.fit(x, batch_size=10, verbose=0)
    assert model.steps_per_execution == 3


def test_groups_take_as_many_steps_as_were_asked_for(rng):
    x = rng.random((400, 6)).astype("float32")
    stream = tf.data.Dataset.from_tensor_slices(x).batch(4).repeat()
    model = compiled(dense_vae())
    model.fit(stream, steps_per_epoch=30, epochs=2, verbose=0, validation_data=stream, validation_steps=10)
    assert int(model.optimizer.iterations) == 60 and model.steps_per_execution == 10
    assert int(model.means.examples) == 40
    model.evaluate(stream, steps=7, verbose=0)
    assert int(model.means.examples) == 28
    assert len(model.predict(stream, steps=3, verbose=0)) == 12


def test_networks_that_do_not_tell_their_shapes_train(rng):
    inputs = keras.Input((None, None, 1))
    h = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, padding="same")(inputs))
    encoder = keras.Model(inputs, [keras.layers.Dense(2)(h), keras.layers.Dense(2)(h)])
    model = compiled(kvae.VAE(encoder, kvae.networks.dense_decoder((8, 8, 1), 2)))
    model.fit(rng.random((10, 8, 8, 1)).astype("float32"), verbose=0)
    assert int(model.optimizer.iterations) == 1


def test_fit_wants_compile(rng):
    with pytest.raises(ValueError, match="compile"):
        dense_vae().fit(rng.random((10, 6)).astype("float32"), verbose=0)


def test_a_loaded_model_chooses_as_the_saved_one_did(rng, tmp_path):
    for steps in ("auto", 3):
        model = compiled(dense_vae(), steps_per_execution=steps)
        model.save(tmp_path / "m.keras", overwrite=True)
        loaded = keras.saving.load_model(tmp_path / "m.keras")
        assert (loaded._step_groups.is_automatic, loaded.steps_per_execution) == (
            steps == "auto",
            1 if steps == "auto" else 3,
        )


def test_the_number_of_steps_changes_no_weight(rng):
    x, weights = rng.random((60, 6)).astype("float32"), []
    for steps in (1, 20):
        keras.utils.set_random_seed(0)
        model = compiled(dense_vae(), steps_per_execution=steps)
        model.fit(x, batch_size=7, epochs=2, verbose=0)
        weights.append(model.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)
