"""Several replicas do what one does: here two in one process (see `test_workers.py` for two processes)."""

import contextlib
import itertools
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from breadth import thorough
from replicated import VAEOfExamples, images, regularised, shuffled
from small_models import dense_vae

import kvae
from kvae import networks, replicas
from kvae.data.packed import writer
from kvae.data.runs import DistributedRun


def trained(strategy, model, data, **fit):
    with strategy.scope() if strategy else contextlib.nullcontext():
        model = model()
        model.compile(kvae.optimizers.Adam(1e-2), metrics=["mse"])
    return model, model.fit(data, epochs=2, verbose=0, **fit).history


def same(found, expected):
    for v, w in zip(found[0].get_weights(), expected[0].get_weights(), strict=True):
        np.testing.assert_allclose(v, w, atol=1e-5)
    assert found[1].keys() == expected[1].keys()
    for name, numbers in expected[1].items():
        np.testing.assert_allclose(found[1][name], numbers, rtol=1e-5)


@pytest.mark.parametrize(("kind", "batch_size"), [("stream", 25), thorough("dataset", 20), thorough("packed", 20)])
def test_two_replicas_train_to_the_weights_and_numbers_of_one(strategy, kind, batch_size, tmp_path):
    """With weighted examples and a layer's own loss; the last batch is one example, which leaves a replica none.

    A Stream's steps are taken together.
    """
    x = images(101)
    weights = np.linspace(0, 2, 101)
    writer.write_columns({"train": [{"image": x}]}, tmp_path, block_bytes=7 * 24)

    def data():
        if kind == "packed":
            return kvae.data.load(tmp_path, batch_size, validation=0, shuffle=30)[0]
        plain = tf.data.Dataset.from_tensor_slices((x, x, weights)).batch(batch_size)
        return shuffled(x, batch_size) if kind == "stream" else plain

    found, expected = (
        trained(where, lambda: regularised(kvae.VAE), data(), validation_data=shuffled(x[:61], batch_size // 2 + 1))
        for where in (strategy, None)
    )
    same(found, expected)
    assert list(found[0]._step_groups._traced) == ([] if kind == "dataset" else [1, -(-101 // batch_size)])


@pytest.mark.thorough
def test_a_strategy_of_one_replica_trains_to_the_weights_of_none():
    x = images(20)

    def model():
        keras.utils.set_random_seed(0)
        return dense_vae(x.shape[1:], seed=0)

    one = tf.distribute.MirroredStrategy(["CPU:0"])
    same(*(trained(strategy, model, x, batch_size=10, shuffle=False) for strategy in (one, None)))


@pytest.mark.thorough
def test_convolutions_take_a_batch_that_leaves_a_replica_nothing(strategy, rng):
    x = rng.random((21, 8, 8, 1)).astype("float32")

    def model():
        keras.utils.set_random_seed(0)
        return kvae.Autoencoder(networks.conv_encoder((8, 8, 1), 2), networks.conv_decoder((8, 8, 1), 2))

    found, expected = (trained(where, model, x, batch_size=10, shuffle=False) for where in (strategy, None))
    same(found, expected)


@pytest.mark.thorough
def test_pairs_stay_together_on_replicas(strategy):
    x = images(51), images(51)[::-1].copy()

    def model():
        return regularised(kvae.AdaGVAE)

    stream = tf.data.Dataset.from_tensor_slices(x).batch(25)
    found, expected = (trained(where, model, stream, validation_data=stream) for where in (strategy, None))
    same(found, expected)


def test_evaluation_has_the_noise_of_one_replica_at_every_position(strategy):
    x = images(61)
    model = dense_vae()
    model.compile()
    expected = model.evaluate(x, return_dict=True, verbose=0)
    with strategy.scope():
        replicated = dense_vae()
        replicated.compile()
    replicated.set_weights(model.get_weights())
    for batch_size in (7, 30):
        stream = tf.data.Dataset.from_tensor_slices(x).batch(batch_size)
        assert replicated.evaluate(stream, return_dict=True, verbose=0) == pytest.approx(expected, rel=1e-6)


def test_replicas_draw_the_noise_of_one_and_each_the_rows_of_its_examples(strategy):
    zeros = [tf.zeros((500, 2))] * 2
    with strategy.scope():
        sampling = kvae.Sampling(seed=0)
    draw = tf.function(lambda: strategy.experimental_local_results(strategy.run(lambda: sampling(zeros))))
    alone = kvae.Sampling(seed=0)
    for _ in range(2):
        together = alone([tf.zeros((1000, 2))] * 2)
        np.testing.assert_array_equal(np.concatenate([z.numpy() for z in draw()]), together)


def test_replicas_read_each_epoch_in_its_order_and_together_all_of_it(strategy):
    x = images(53)
    stream = shuffled(x, 20)
    read = DistributedRun(stream, strategy)
    for epoch in range(2):
        batches = [strategy.experimental_local_results(batch) for batch in itertools.islice(read, stream.num_batches)]
        assert [[len(part[0]) for part in parts] for parts in batches] == [[10, 10], [10, 10], [7, 6]]
        for parts, expected in zip(batches, stream.epoch(epoch), strict=True):
            for values, wanted in zip(zip(*parts, strict=True), expected, strict=True):
                np.testing.assert_array_equal(np.concatenate(values), wanted)


@pytest.mark.thorough
def test_a_model_that_is_built_by_fit_works_on_replicas_and_saves(strategy, tmp_path):
    x = images(61)
    with strategy.scope():
        pca = kvae.PCA(2)
        encoder = keras.Sequential([keras.layers.Flatten(), networks.dense_encoder((6,), 2)])
        model = VAEOfExamples(encoder, networks.dense_decoder((6,), 2))
        model.compile()
    model.fit(x, verbose=0)
    assert np.isfinite(model.evaluate(x, verbose=0)).all() and model.sample(3).shape == (3, 6)
    model.save_weights(tmp_path / "model.weights.h5")
    codes = model.transform(x)
    model.fit(x, verbose=0)
    model.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(model.transform(x), codes)
    alone = kvae.PCA(2).fit(x)
    np.testing.assert_array_equal(pca.fit(x).reconstruct(x), alone.reconstruct(x))
    assert pca.evaluate(x, verbose=0) == pytest.approx(alone.evaluate(x, verbose=0), rel=1e-6)


@pytest.mark.parametrize("clipping", [{"clipnorm": 0.01}, thorough({"clipvalue": 0.002})])
def test_gradients_are_clipped_as_one_replica_clips_them(strategy, clipping):
    """Of an array in a drawn order, whose last batch is one example."""

    def weights(strategy):
        with strategy.scope() if strategy else contextlib.nullcontext():
            model = regularised()
            model.compile(keras.optimizers.SGD(1.0, **clipping))
        start = model.get_weights()
        model.fit(images(), batch_size=25, verbose=0)
        return start, model.get_weights()

    (start, found), (_, expected) = weights(strategy), weights(None)
    for before, v, w in zip(start, found, expected, strict=True):
        np.testing.assert_allclose(v, w, atol=1e-6)
        assert np.abs(v - before).max() > 1e-4


@pytest.mark.parametrize(
    ("name", "of_compile", "of_optimizer"),
    [
        ("steps_per_execution", {"steps_per_execution": 5}, {}),
        ("jit_compile", {"jit_compile": True}, {}),
        ("gradient_accumulation_steps", {}, {"gradient_accumulation_steps": 2}),
        ("ema_overwrite_frequency", {}, {"use_ema": True, "ema_overwrite_frequency": 2}),
    ],
)
def test_what_keras_cannot_do_over_replicas_is_refused(strategy, name, of_compile, of_optimizer):
    with strategy.scope():
        model = dense_vae()
        model.compile(keras.optimizers.SGD(**of_optimizer), **of_compile)
    with pytest.raises(ValueError, match=f"{name} is .*, which Keras can't do over the 2 replicas of a Mirrored"):
        model.fit(images(20), verbose=0)


def test_layers_that_see_the_rows_of_one_replica_alone_are_told(strategy):
    def model(**options):
        inputs = keras.Input((6,))
        x = keras.layers.BatchNormalization(synchronized=options["synchronized"])(inputs)
        x = keras.Sequential([keras.layers.Dropout(options["rate"])])(x)
        encoder = keras.Model(inputs, [keras.layers.Dense(2)(x), keras.layers.Dense(2)(x)])
        return kvae.VAE(encoder, networks.dense_decoder((6,), 2, hidden=(8,)), seed=0)

    with strategy.scope():
        told, right = model(synchronized=False, rate=0.5), model(synchronized=True, rate=0)
    with pytest.warns(UserWarning, match="the networks have BatchNormalization and Dropout: each of the 2 replicas"):
        replicas.warn_of_layers(told)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        replicas.warn_of_layers(right)
        replicas.warn_of_layers(model(synchronized=False, rate=0.5))
