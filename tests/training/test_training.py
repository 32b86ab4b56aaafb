"""What `fit` does: the step, and all that Keras lets be added to it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from breadth import some, thorough
from small_models import (
    compiled,
    dense_vae,
    dense_vae_compiled,
    norm,
    same_weights,
    step_of,
    trained,
    weights_after,
)

import kvae
from kvae.models.step import ExampleMeans
from kvae.networks import dense_decoder, dense_encoder


@pytest.fixture
def x(rng):
    return rng.random((100, 6)).astype("float32")


def test_the_seed_decides_the_weights_to_the_bit(x):
    model = compiled()
    keras.utils.set_random_seed(0)  # of the order of an array
    model.fit(x, epochs=2, batch_size=25, verbose=0)
    assert same_weights(model, weights_after(x)) and same_weights(model, weights_after(x))
    starts = [compiled(seed).get_weights() for seed in (0, 0, 1)]
    assert same_weights(*starts[:2]) and not same_weights(*starts[1:])


def test_validation_leaves_training_as_it_was(x):
    assert same_weights(weights_after(x), weights_after(x, {"validation_data": x[:30]}))


@pytest.mark.thorough
def test_several_steps_per_execution_train_the_same(x):
    model, history = trained(x, steps_per_execution=4)
    expected, expected_history = trained(x)
    for v, w in zip(model.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_allclose(v, w, atol=1e-6)
    np.testing.assert_allclose(history["loss"], expected_history["loss"], rtol=1e-5)


def test_the_reported_loss_is_the_mean_of_its_examples_whatever_the_last_batch(x):
    _, history = trained(x, {"batch_size": 30, "epochs": 1})
    np.testing.assert_allclose(history["elbo"][0], -history["reconstruction_loss"][0] - history["kl_loss"][0])
    np.testing.assert_allclose(history["loss"][0], -history["elbo"][0])


def test_an_autoencoders_loss_is_the_mean_over_the_epoch_whatever_its_batches(x):
    encoder = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2)])
    model = kvae.Autoencoder(encoder, dense_decoder((6,), 2, hidden=(8,)))
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    for rows, batch_size in (100, 30), (50, 10), (47, 10):
        reported = model.fit(x[:rows], batch_size=batch_size, verbose=0).history["loss"][0]
        expected = np.square(x[:rows] - model.reconstruct(x[:rows])).sum(axis=1).mean()
        np.testing.assert_allclose(reported, expected, rtol=1e-6)


def test_the_step_that_finds_a_streams_end_changes_nothing(x):
    known = tf.data.Dataset.from_tensor_slices(x).batch(25)
    unknown = known.filter(lambda batch: True)
    assert unknown.cardinality() == tf.data.UNKNOWN_CARDINALITY
    results = []
    for stream in unknown, known:
        model, _ = trained(stream, {"batch_size": None, "epochs": 3})
        assert int(model.optimizer.iterations) == 12
        results.append([*model.get_weights(), np.array(model.sampling.seed_generator.state)])
    assert same_weights(*results)


def test_gradients_are_accumulated_and_clipped(x):
    accumulated = step_of(x, keras.optimizers.SGD(1e-6, gradient_accumulation_steps=4), run_eagerly=False)
    one_by_one = step_of(x, keras.optimizers.SGD(2.5e-7))
    assert norm([f - e for f, e in zip(accumulated, one_by_one, strict=True)]) < 0.03 * norm(one_by_one)
    clipped = step_of(x, keras.optimizers.SGD(1e-3, global_clipnorm=0.01), batch_size=100)
    assert norm(clipped) == pytest.approx(1e-5, rel=0.05)


def test_averaged_weights_are_behind_the_last_ones(x):
    last = step_of(x, keras.optimizers.SGD(1e-6))
    averaging = keras.optimizers.SGD(1e-6, use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=4)
    averaged = step_of(x, averaging, run_eagerly=False)
    assert norm(averaged) < 0.5 * norm(last)


def test_half_precision_takes_the_step_of_single_precision(x):
    expected = step_of(x, keras.optimizers.SGD(1e-4), batch_size=100)
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1e-4), initial_scale=64.0)
        found = step_of(x, optimizer, run_eagerly=False, batch_size=100)
    finally:
        keras.config.set_dtype_policy(previous)
    assert norm([f - e for f, e in zip(found, expected, strict=True)]) < 0.05 * norm(expected)


def test_regularisation_moves_the_weights(x):
    def model():
        inputs = keras.Input((6,))
        mean = keras.layers.Dense(2, kernel_regularizer=keras.regularizers.L2(strength))(inputs)
        encoder = keras.Model(inputs, [mean, keras.layers.Dense(2)(inputs)])
        return kvae.VAE(encoder, dense_decoder((6,), 2), seed=0)

    steps = {}
    for strength in (0.0, 3.0):
        steps[strength] = step_of(x, keras.optimizers.SGD(1e-4), model, batch_size=100)
    keras.utils.set_random_seed(0)
    kernel = model().encoder.layers[1].get_weights()[0]
    np.testing.assert_allclose(steps[3.0][0] - steps[0.0][0], -1e-4 * 2 * 3.0 * kernel, atol=1e-7)


def test_dropout_is_active_in_training_alone(x):
    encoder = keras.Sequential([keras.Input((6,)), keras.layers.Dropout(0.9, seed=0), dense_encoder((6,), 2)])
    model = kvae.VAE(encoder, dense_decoder((6,), 2), kvae.GaussianLikelihood(0.01), seed=0)
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    losses = model.fit(x, epochs=2, batch_size=100, shuffle=False, verbose=0).history["kl_loss"]
    still = [model.evaluate(x, return_dict=True, verbose=0)["kl_loss"] for _ in range(2)]
    assert abs(losses[0] - losses[1]) > 1e-4 and still[0] == still[1]


@pytest.mark.filterwarnings("ignore:The KL.s weight will be")
def test_beta_follows_its_schedule_in_training(x):
    model = dense_vae()
    model.compile(
        keras.optimizers.SGD(0.0),
        kvae.ELBO(keras.optimizers.schedules.PolynomialDecay(0.0, 8, end_learning_rate=1.0)),
        run_eagerly=True,
    )
    logs = model.fit(x, batch_size=100, epochs=10, verbose=0).history
    betas = (np.array(logs["loss"]) - logs["reconstruction_loss"]) / logs["kl_loss"]
    np.testing.assert_allclose(betas, np.minimum(np.arange(10) / 8, 1), atol=1e-4)


@pytest.mark.thorough
def test_compiled_by_xla_with_a_metric_it_trains_to_the_same_loss(x):
    _, plain = trained(x, {"epochs": 20})
    model = compiled(metrics=["mse"], jit_compile=True)
    by_xla = model.fit(x, epochs=20, batch_size=25, verbose=0).history
    np.testing.assert_allclose(by_xla["loss"][-1], plain["loss"][-1], atol=0.3)
    assert 0 < by_xla["mse"][-1] < by_xla["mse"][0]


@pytest.mark.parametrize("policy", ["mixed_float16", thorough("mixed_bfloat16")])
def test_mixed_precision_keeps_the_probabilities_in_float32(x, policy):
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = compiled()
        history = model.fit(x, epochs=3, batch_size=25, verbose=0).history
        assert model.encoder(x)[0].dtype == policy.removeprefix("mixed_")
        assert model.draw(x).log_likelihood.dtype == model.transform(x).dtype == "float32"
        assert np.all(np.isfinite(history["loss"])) and history["loss"][-1] < history["loss"][0]
        assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer) == (policy == "mixed_float16")
    finally:
        keras.config.set_dtype_policy(previous)


def test_sample_weights_weigh(x):
    weights = np.r_[np.ones(60), np.zeros(40)].astype("float32")
    model = dense_vae_compiled()
    weighted = model.evaluate(x, sample_weight=weights, return_dict=True, verbose=0)
    alone = model.evaluate(x[:60], return_dict=True, verbose=0)
    assert weighted["elbo"] == pytest.approx(alone["elbo"], rel=1e-5)
    assert weighted["loss"] == pytest.approx(0.6 * alone["loss"], rel=1e-5)
    poisoned = np.r_[x[:60], 1e3 + x[60:]]
    fit = {"sample_weight": weights, "shuffle": False, "batch_size": 20}
    assert same_weights(weights_after(poisoned, fit), weights_after(x, fit))


def test_the_layers_own_losses_are_part_of_the_loss(x):
    inputs = keras.Input((6,))
    mean = keras.layers.Dense(2, kernel_regularizer=keras.regularizers.L2(0.1))(inputs)
    encoder = keras.Model(inputs, [mean, keras.layers.Dense(2)(inputs)])
    model = kvae.VAE(encoder, dense_decoder((6,), 2), seed=0)
    model.compile(run_eagerly=True)
    numbers = model.evaluate(x, return_dict=True, verbose=0)
    penalty = 0.1 * np.sum(np.square(encoder.layers[1].kernel))
    assert numbers["loss"] == pytest.approx(-numbers["elbo"] + penalty, rel=1e-6)


def test_compiled_metrics_compare_x_with_its_reconstruction(x):
    model = dense_vae()
    model.compile(metrics=["mse"], run_eagerly=True)
    expected = np.mean(np.square(x - model.reconstruct(x)))
    assert model.evaluate(x, return_dict=True, verbose=0)["mse"] == pytest.approx(expected, rel=1e-5)
    assert "mse" in model.fit(x, verbose=0).history


def test_a_compiled_metric_leaves_training_as_it_was(x):
    def model():
        keras.utils.set_random_seed(0)
        encoder = keras.Sequential(
            [keras.Input((6,)), keras.layers.BatchNormalization(), keras.layers.Dropout(0.2), dense_encoder((6,), 2)]
        )
        return kvae.Autoencoder(keras.Model(encoder.inputs, encoder.outputs[0]), dense_decoder((6,), 2))

    results = []
    for metrics in (None, ["mse"]):
        results.append(model())
        results[-1].compile(metrics=metrics, run_eagerly=True)
        results[-1].fit(x, shuffle=False, verbose=0)
    assert same_weights(*results)


def test_weights_that_are_all_0_are_no_loss_of_0(x):
    model = dense_vae_compiled()
    for use in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match=r"sample_weight.* is 0 for all 100 examples, so that none counts"):
            use(x, sample_weight=np.zeros(100), verbose=0)
    stream = tf.data.Dataset.from_tensor_slices((x, x, np.zeros(100))).batch(25)
    assert np.isnan(list(model.evaluate(stream, return_dict=True, verbose=0).values())).all()


def test_weights_below_0_are_refused(x):
    model, weights = dense_vae_compiled(), np.ones(100)
    weights[7] = -2
    stream = tf.data.Dataset.from_tensor_slices((x, x, weights)).batch(25)
    for use in (model.fit, model.evaluate):
        for data in (
            {"x": x, "sample_weight": weights},
            {"x": x, "sample_weight": tf.constant(weights)},
            {"x": stream},
        ):
            with pytest.raises(
                ValueError, match=r"sample_weight.* is -2.0 for example 7; expected a finite number of at least 0"
            ):
                use(**data, verbose=0)


@pytest.mark.parametrize(("weight", "shown"), [(-2, "-2"), (np.nan, "nan")])
def test_such_weights_are_refused_in_any_batch_of_a_stream(x, weight, shown):
    model, weights = dense_vae_compiled(), np.ones(100)
    weights[70] = weight
    stream = tf.data.Dataset.from_tensor_slices((x, x, weights)).batch(25)
    uses = model.fit, model.evaluate, lambda data, verbose: model.fit(x, validation_data=data, verbose=verbose)
    for use in (*uses, kvae.PCA(1).fit):
        with pytest.raises(
            ValueError, match=rf"sample_weight of \w+ is {shown} in batch 2 \(counted from 0\); expected"
        ):
            use(stream, verbose=0)


def test_weights_may_stand_in_a_column_and_nothing_else(x):
    weights = np.linspace(0, 1, 100, dtype="float32")
    model = dense_vae_compiled()
    expected = model.evaluate(x, sample_weight=weights, return_dict=True, verbose=0)
    stream = tf.data.Dataset.from_tensor_slices((x, x, weights[:, None])).batch(25)
    assert model.evaluate(stream, return_dict=True, verbose=0) == pytest.approx(expected, rel=1e-6)
    with pytest.raises(ValueError, match=r"sample_weight has the shape \(None, 6\); expected one weight an example"):
        compiled().evaluate(tf.data.Dataset.from_tensor_slices((x, x, x)).batch(25), verbose=0)


def test_a_tuple_of_arrays_is_x_y_and_weights(x):
    weights = np.linspace(0, 1, 100, dtype="float32")
    first = weights_after(x, {"sample_weight": weights})
    assert same_weights(first, weights_after((x, np.zeros(100), weights), {"validation_data": (x, None)}))


@pytest.mark.parametrize("variance", some([0.1, "shared", "pixel", "decoder"], "pixel", "decoder"))
def test_every_variance_trains(x, variance):
    model = dense_vae(likelihood=kvae.GaussianLikelihood(variance), outputs=2 if variance == "decoder" else 1)
    model.compile(keras.optimizers.Adam(1e-2), run_eagerly=True)
    history = model.fit(x, epochs=10, batch_size=50, verbose=0).history["elbo"]
    assert history[-1] > history[0]


def test_means_over_millions_of_examples_dont_drift():
    means = ExampleMeans(["loss", "other"])
    for _ in range(3):
        means.update_state(tf.fill((1000,), 16777.217), {"other": tf.ones(1000)})
    means.totals.assign_add([2.0**30, 0.0])
    before = float(means.totals[0])
    means.update_state(tf.ones(1), {"other": tf.ones(1)}, tf.constant([0.5]))
    assert float(means.totals[0]) - before == 1.0
    assert float(means.result()["other"]) == pytest.approx(3000.5 / 3000.5)
