"""Steps with NaN or infinite values are left out as if their batches weren't there."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from breadth import some
from small_models import dense_vae, dense_vae_compiled, put_back, same_weights, state, variables

import kvae
from kvae.networks import dense_decoder, dense_encoder

SPOILT = {3: (5, np.nan), 4: (0, np.inf), 9: (1, 1e30)}  # batch: row, value; the last one's loss is infinite


@pytest.fixture
def x(rng):
    return rng.random((120, 6)).astype("float32")


def streams(x, size=10, spoilt=SPOILT):
    """A stream with a spoilt value in some batches, and that without these batches."""
    bad, kept = x.copy(), np.ones(len(x), bool)
    for batch, (row, value) in spoilt.items():
        bad[batch * size + row, 2] = value
        kept[batch * size : (batch + 1) * size] = False
    return [tf.data.Dataset.from_tensor_slices(part).batch(size) for part in (bad, x[kept])]


def normalised():
    """A model whose layers keep averages of the batches."""
    encoder = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.2, seed=1),
            dense_encoder((6,), 2),
        ]
    )
    return kvae.Autoencoder(keras.Model(encoder.inputs, encoder.outputs[0]), dense_decoder((6,), 2))


def fitted(data, model=dense_vae, optimizer=kvae.optimizers.Adam, **arguments):
    keras.utils.set_random_seed(0)
    model = model()
    model.compile(optimizer(1e-2), **arguments)
    return model, model.fit(data, epochs=2, verbose=0).history


@pytest.mark.filterwarnings("ignore:fit skipped")
@pytest.mark.parametrize(
    ("model", "arguments"),
    some(
        {
            "auto": (dense_vae, {}),
            "grouped": (dense_vae, {"steps_per_execution": 3}),
            "eager": (dense_vae, {"run_eagerly": True}),
            "xla": (dense_vae, {"jit_compile": True, "steps_per_execution": 3}),
            "normalised": (normalised, {"metrics": ["mse"]}),
            "accumulated": (
                dense_vae,
                {"optimizer": lambda rate: keras.optimizers.SGD(1e-3, gradient_accumulation_steps=3)},
            ),
            "scaled": (
                dense_vae,
                {"optimizer": lambda rate: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(rate), 64.0)},
            ),
        },
        *("grouped", "normalised", "accumulated"),
    ),
)
def test_weights_and_history_are_those_without_the_spoilt_batches(x, model, arguments):
    arguments = dict(arguments)
    keras.utils.set_random_seed(0)
    model, optimizer = model(), arguments.pop("optimizer", kvae.optimizers.Adam)
    model.compile(optimizer(1e-2), **arguments)
    model.optimizer.build(model.trainable_variables)
    start, ends, histories = state(model), [], []
    for data in streams(x):
        put_back(model, start)
        histories.append(model.fit(data, epochs=2, verbose=0).history)
        ends.append(state(model))
    assert histories[0].pop("skipped_steps") == [3, 3]
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if "jit_compile" in arguments else {"rtol": 0}
    for variable, found, expected in zip(variables(model), *ends, strict=True):
        np.testing.assert_allclose(found, expected, err_msg=variable.path, **tolerance)
    for name, values in histories[1].items():
        np.testing.assert_allclose(histories[0][name], values, rtol=1e-5)


def test_the_places_are_said_and_counted_from_the_first_epoch_with_one(x):
    clean, spoilt = x.copy(), x.copy()
    spoilt[45, 1] = np.nan
    data = kvae.data.Stream(
        lambda epoch, skip, shard_index, num_shards: (
            tf.data.Dataset.from_tensor_slices(tf.where(epoch == 3, spoilt, clean)).batch(10).skip(skip)
        ),
        12,
    )
    model = dense_vae_compiled()
    model.fit(data, epochs=2, verbose=0)
    message = (
        r"fit skipped 1 of 12 steps of epoch 1: x has NaN .* in epoch 3, batch 4, row 5 \(counted from 0\); remove"
    )
    with pytest.warns(UserWarning, match=message):
        history = model.fit(data, epochs=3, verbose=0).history
    assert history["skipped_steps"] == [0, 1, 0] and len(history["loss"]) == 3
    assert np.isfinite(history["loss"]).all()
    assert "skipped_steps" not in model.fit(clean, verbose=0).history


def test_a_run_of_them_stops_the_fit_with_the_weights_from_before(x):
    bad, good = streams(x, spoilt={batch: (0, np.nan) for batch in (2, 5, 6, 7)})
    keras.utils.set_random_seed(0)
    model = dense_vae()
    model.compile(kvae.optimizers.Adam(1e-2), skip_nonfinite=3, run_eagerly=True)
    with pytest.raises(
        ValueError, match=r"fit stopped in epoch 0 after 3 skipped steps in a row.*batch 7, row 0"
    ) as found:
        model.fit(bad, verbose=0)
    assert "\n" not in str(found.value)
    keras.utils.set_random_seed(0)
    expected = dense_vae()
    expected.compile(kvae.optimizers.Adam(1e-2), run_eagerly=True)
    expected.fit(good.take(4), verbose=0)
    assert same_weights(model, expected)
    with pytest.warns(UserWarning, match="fit skipped 4 of 12"):
        other, _ = fitted(bad, skip_nonfinite=4, run_eagerly=True)
    assert all(np.isfinite(weight).all() for weight in other.get_weights())


class Exploding(kvae.VAE):
    """Its loss is finite, and its gradient isn't, where a value of x is 3: as that of a root at nought."""

    def losses_per_example(self, x, training=False, index=None):
        losses, parts = super().losses_per_example(x, training, index)
        return losses + keras.ops.sqrt(
            keras.ops.abs(3 - x[:, 0]) * keras.ops.sum(self.trainable_variables[0] ** 2)
        ), parts


def test_gradients_that_are_not_finite_are_seen_behind_a_finite_loss(x):
    x[33, 0] = 3

    def model():
        return Exploding(dense_encoder((6,), 2, hidden=(8,)), dense_decoder((6,), 2, hidden=(8,)), seed=0)

    data = tf.data.Dataset.from_tensor_slices(x).batch(10)
    with pytest.warns(UserWarning, match=r"gradients aren't finite in epoch \d, batch 3 \(counted"):
        found, history = fitted(data, model)
    assert history["skipped_steps"] == [1, 1]
    assert all(np.isfinite(weight).all() for weight in found.get_weights())


class Roots(keras.layers.Layer):
    """The root of each value times a weight of its own, whose gradient is NaN where the value is 0, and there alone."""

    def build(self, shape):
        self.weight = self.add_weight(shape=(3, 2), initializer="ones")

    def call(self, x):
        return keras.ops.reshape(keras.ops.sqrt(keras.ops.reshape(x, (-1, 3, 2)) * self.weight), (-1, 6))


def test_one_entry_of_a_gradient_that_is_no_product_is_seen(x):
    x[33, 3] = 0

    def model():
        inputs = keras.Input((6,))
        return kvae.Autoencoder(
            keras.Model(inputs, keras.layers.Dense(2)(Roots()(inputs))), dense_decoder((6,), 2, hidden=(8,))
        )

    with pytest.warns(UserWarning, match=r"gradients aren't finite in epoch \d, batch 3 \(counted"):
        found, history = fitted(tf.data.Dataset.from_tensor_slices(x).batch(10), model)
    assert history["skipped_steps"] == [1, 1]
    assert all(np.isfinite(weight).all() for weight in found.get_weights())


def test_an_overflow_that_the_loss_scale_is_there_for_is_no_fault(x):
    def optimizer(rate):
        return keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(rate), initial_scale=2.0**100)

    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model, history = fitted(tf.data.Dataset.from_tensor_slices(x).batch(10), optimizer=optimizer)
    finally:
        keras.config.set_dtype_policy(previous)
    assert "skipped_steps" not in history
    assert float(model.optimizer.dynamic_scale) < 2.0**100 and int(model.optimizer.iterations) < 24


@pytest.mark.thorough
def test_replicas_leave_the_same_steps_out(x, strategy):
    bad, good = streams(x, spoilt={3: (7, np.nan), 4: (2, 1e30)})
    with strategy.scope():
        model = normalised()
        model.compile(kvae.optimizers.Adam(1e-2))
        expected = normalised()
        expected.compile(kvae.optimizers.Adam(1e-2))
    expected.set_weights(model.get_weights())
    with pytest.warns(
        UserWarning, match=r"x has NaN .* in epoch 0, batch 3, row 7; .*loss.* in epoch 0, batch 4, row 2"
    ):
        history = model.fit(bad, verbose=0).history
    assert history["skipped_steps"] == [2]
    np.testing.assert_allclose(history["loss"], expected.fit(good, verbose=0).history["loss"], rtol=1e-6)
    assert same_weights(model, expected)


def test_it_can_be_left_out_and_takes_no_other_values(x, tmp_path):
    bad, _ = streams(x)
    model, _ = fitted(bad, skip_nonfinite=0)
    assert not any(np.isfinite(weight).all() for weight in model.get_weights()[:2])
    for value in -1, None, True, 1.5:
        with pytest.raises(ValueError, match=r"skip_nonfinite is .*, expected a number of steps, or 0"):
            dense_vae().compile(skip_nonfinite=value)
    model.save(tmp_path / "model.keras")
    assert keras.saving.load_model(tmp_path / "model.keras").get_compile_config()["skip_nonfinite"] == 0
