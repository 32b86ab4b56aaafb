import keras
import numpy as np
import pytest
import tensorflow as tf

import kvae
from kvae.noise import indexed_normal


def test_sigma_is_the_square_root_of_the_variance():
    mean, log_var = tf.fill((200_000, 1), 1.5), tf.fill((200_000, 1), np.log(4.0).astype("float32"))
    z = np.asarray(kvae.Sampling(seed=0)([mean, log_var]))
    np.testing.assert_allclose([z.mean(), z.std()], [1.5, 2.0], rtol=0.01)


def test_the_gradient_goes_through_the_sample(rng):
    mean, log_var = (tf.constant(rng.normal(size=(6, 3)), tf.float32) for _ in range(2))
    with tf.GradientTape() as tape:
        tape.watch([mean, log_var])
        z = kvae.Sampling()([mean, log_var], index=np.arange(6))
    by_mean, by_log_var = tape.gradient(z, [mean, log_var])
    eps = np.asarray(indexed_normal(np.arange(6), 3))
    np.testing.assert_allclose(by_mean, np.ones((6, 3)), rtol=1e-6)
    np.testing.assert_allclose(by_log_var, 0.5 * np.exp(0.5 * np.asarray(log_var)) * eps, rtol=1e-4)


def test_noise_goes_on_from_call_to_call_and_starts_the_same_for_a_seed():
    zeros = [tf.zeros((4, 2)), tf.zeros((4, 2))]
    first, second = kvae.Sampling(seed=5), kvae.Sampling(seed=5)
    once, again = first(zeros), first(zeros)
    assert not np.array_equal(once, again)
    np.testing.assert_array_equal(second(zeros), once)


def test_samples_add_an_axis():
    inputs = [tf.zeros((4, 2)), tf.zeros((4, 2))]
    layer = kvae.Sampling(seed=0)
    assert layer(inputs, samples=5).shape == (4, 5, 2)
    assert layer([keras.Input((2,)), keras.Input((2,))], samples=5).shape == (None, 5, 2)
    whole = np.asarray(layer(inputs, samples=3, index=np.arange(4)))
    np.testing.assert_array_equal(layer([tf.zeros((1, 2))] * 2, samples=3, index=[2]), whole[2:3])


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_a_saved_layer_goes_on_with_its_noise(tmp_path, suffix):
    inputs = [keras.Input((2,)), keras.Input((2,))]
    model = keras.Model(inputs, kvae.Sampling(seed=3)(inputs))
    zeros = [np.zeros((4, 2), "float32")] * 2
    model(zeros)
    if suffix == ".keras":
        model.save(tmp_path / "sampling.keras")
        loaded = keras.saving.load_model(tmp_path / "sampling.keras")
    else:
        model.save_weights(tmp_path / "sampling.weights.h5")
        loaded = keras.Model(inputs, kvae.Sampling(seed=4)(inputs))
        loaded.load_weights(tmp_path / "sampling.weights.h5")
    np.testing.assert_array_equal(loaded(zeros), model(zeros))
