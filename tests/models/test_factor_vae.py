"""A VAE and its discriminator: the density ratio against a closed form, both gradients, and the state of a run."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from breadth import thorough
from keras import layers
from small_models import put_back, same_weights, state

import kvae
from kvae.callbacks import Checkpoint
from kvae.networks import dense_decoder, dense_discriminator, dense_encoder


def model(discriminator=None, seed=0, **compiled):
    keras.utils.set_random_seed(seed)
    discriminator = dense_discriminator(2, hidden=(8,)) if discriminator is None else discriminator
    made = kvae.FactorVAE(dense_encoder((6,), 2, (8,)), dense_decoder((6,), 2, (8,)), discriminator, seed=seed)
    made.compile(**{"optimizer": kvae.optimizers.Adam(1e-2), "run_eagerly": True, **compiled})
    return made


@pytest.fixture
def x(rng):
    return rng.random((50, 6)).astype("float32")


def quadratic():
    """A discriminator with the logit w_1 z_1^2 + w_2 z_2^2 + w_3 z_1 z_2 + b, all of them 0 at first."""
    z = layers.Input((2,))
    products = layers.Concatenate()([layers.Multiply()([z, z]), layers.Multiply()([z[:, :1], z[:, 1:]])])
    return keras.Model(z, layers.Dense(1, kernel_initializer="zeros")(products))


def test_the_best_discriminator_has_the_closed_form_of_the_density_ratio(rng):
    """z = A x + noise for x ~ N(0, I): q(z) is normal, and log q(z) - sum_j log q(z_j) a quadratic function of z."""
    weights, noise = np.array([[1.2, 0.3], [0.5, 0.7]]), 0.2
    covariance = weights @ weights.T + noise * np.eye(2)
    deviations = np.sqrt(np.diag(covariance))
    total_correlation = -0.5 * np.linalg.slogdet(covariance / np.outer(deviations, deviations))[1]
    assert total_correlation > 0.25
    made = kvae.FactorVAE(dense_encoder((2,), 2, ()), dense_decoder((2,), 2, ()), quadratic(), seed=0)
    made.encoder.get_layer("z_mean").set_weights([weights.T, np.zeros(2)])
    made.encoder.get_layer("z_log_var").set_weights([np.zeros((2, 2)), np.full(2, np.log(noise))])
    falling = keras.optimizers.schedules.CosineDecay(0.1, 280)
    made.compile(keras.optimizers.SGD(0.0), discriminator_optimizer=kvae.optimizers.Adam(falling))
    x = rng.normal(size=(20_000, 2)).astype("float32")
    made.fit(x, batch_size=500, epochs=7, verbose=0)
    found = made.evaluate(x, batch_size=2_000, return_dict=True, verbose=0)
    assert found["total_correlation"] == pytest.approx(total_correlation, abs=0.04)
    assert found["loss"] == pytest.approx(35 * found["total_correlation"] - found["elbo"], rel=1e-5)
    precision = np.linalg.inv(covariance)
    expected = -0.5 * np.array([*(np.diag(precision) - deviations**-2), 2 * precision[0, 1]])
    kernel, bias = made.discriminator.get_weights()
    np.testing.assert_allclose(kernel[:, 0], expected, atol=0.15)
    np.testing.assert_allclose(bias, total_correlation, atol=0.1)


def test_a_discriminator_that_knows_nothing_says_log_2_and_adds_nothing(x):
    made = model(quadratic())
    found = made.evaluate(x, batch_size=20, return_dict=True, verbose=0)
    assert found["discriminator_loss"] == pytest.approx(np.log(2)) and found["total_correlation"] == 0
    assert found["loss"] == pytest.approx(-found["elbo"])


def test_the_permuted_z_has_each_latents_values_and_none_of_their_order(x):
    made, z = model(), tf.random.normal((2000, 2)) @ [[1.0, 0.9], [0.0, 0.1]]
    for index in (None, np.arange(2000)):
        permuted = np.asarray(made._permuted(z, index))
        np.testing.assert_array_equal(np.sort(permuted, axis=0), np.sort(z, axis=0))
        assert abs(np.corrcoef(permuted.T)[0, 1]) < 0.1 < 0.9 < np.corrcoef(np.transpose(z))[0, 1]
    assert np.array_equal(made._permuted(z, np.arange(2000)), permuted)
    draw = made.draw(tf.zeros((2000, 6)), index=np.arange(2000))  # by the position too, and by other numbers of it
    assert np.abs(np.corrcoef(np.transpose(made._permuted(draw.z[:, 0], np.arange(2000))))[0, 1]) < 0.1


def test_each_network_has_the_gradient_of_its_own_loss(x):
    rates = keras.optimizers.SGD(1.0), keras.optimizers.SGD(1.0)
    made = model(optimizer=rates[0], discriminator_optimizer=rates[1], gamma=3.0)
    made.encoder.get_layer("z_log_var").kernel.assign(tf.zeros((8, 2)))
    before = made.sampling.seed_generator.state.numpy()
    own = made.discriminator.trainable_weights
    others = [*made.encoder.trainable_weights, *made.decoder.trainable_weights, *made.likelihood.trainable_weights]
    with tf.GradientTape(persistent=True) as tape:
        draw = made.draw(x, training=True)
        z = draw.z[:, 0]
        loss = tf.reduce_mean(3.0 * made.discriminator(z)[:, 0] - draw.elbo)
        permuted = tf.stop_gradient(made._permuted(z, None))
        log_odds = made.discriminator(tf.concat([tf.stop_gradient(z), permuted], 0))[:, 0]
        loss_of_d = -tf.reduce_mean(tf.math.log_sigmoid(log_odds * ([1.0] * 50 + [-1.0] * 50)))
    made.sampling.seed_generator.state.assign(before)
    for weights, value in ((own, loss_of_d), (others, loss)):
        assert all(np.any(gradient) for gradient in tape.gradient(value, [weight.value for weight in weights]))
    expected = [
        weight - gradient
        for weights, value in ((own, loss_of_d), (others, loss))
        for weight, gradient in zip(weights, tape.gradient(value, [w.value for w in weights]), strict=True)
    ]
    made.fit(x, batch_size=50, shuffle=False, verbose=0)
    for weight, value in zip([*own, *others], expected, strict=True):
        np.testing.assert_allclose(weight, value, rtol=1e-4, atol=1e-4)
    assert len(own) + len(others) == len(made.trainable_weights)


class Dies(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        if int(self.model.optimizer.iterations) == 7:
            raise InterruptedError


@pytest.mark.thorough
def test_a_run_goes_on_bit_by_bit_and_a_saved_model_with_both_optimizers(x, tmp_path):
    made = model()
    for optimizer, weights in made._optimized():
        optimizer.build(weights)
    start = state(made), [np.array(v) for v in made.discriminator_optimizer.variables]

    def again():
        put_back(made, start[0])
        for variable, value in zip(made.discriminator_optimizer.variables, start[1], strict=True):
            variable.assign(value)

    def fit(folder, *callbacks):
        made.fit(x, batch_size=10, epochs=2, verbose=0, callbacks=[Checkpoint(tmp_path / folder, 3), *callbacks])
        return [
            np.array(v) for v in (*made.variables, *made.optimizer.variables, *made.discriminator_optimizer.variables)
        ]

    whole = fit("whole")
    again()
    with pytest.raises(InterruptedError):
        fit("killed", Dies())
    again()
    assert all(map(np.array_equal, fit("killed"), whole))

    made.save(tmp_path / "model.keras")
    loaded = kvae.load(tmp_path / "model.keras")
    assert loaded.gamma == 35 and loaded.discriminator_optimizer.get_config()["beta_1"] == 0.5
    for each in (made, loaded):
        each.fit(x, batch_size=10, epochs=3, initial_epoch=2, shuffle=False, verbose=0)
    assert same_weights(made, loaded)
    assert loaded.evaluate(x, verbose=0) == made.evaluate(x, verbose=0)


@pytest.mark.parametrize("policy", [thorough("mixed_bfloat16"), "mixed_float16"])
def test_half_precision_trains_both(x, policy):
    keras.mixed_precision.set_dtype_policy(policy)
    try:
        made = model()
        before = [np.array(weight) for weight in made.trainable_weights]
        made.fit(x, epochs=10, verbose=0)  # the first steps find float16's loss scale
        assert {layer.compute_dtype for layer in made.discriminator.layers[1:]} == {"float32"}
        moved = [
            np.isfinite(a).all() and not np.array_equal(a, b) for a, b in zip(made.get_weights(), before, strict=True)
        ]
        assert all(moved[: len(made.trainable_weights)])
    finally:
        keras.mixed_precision.set_dtype_policy("float32")


@pytest.mark.thorough
def test_two_replicas_train_the_vae_as_one_does(strategy, x):
    """With gamma=0. The discriminators see other permutations."""

    class OfExamples(kvae.FactorVAE):
        def losses_per_example(self, x, training=False, index=None):
            return super().losses_per_example(x, training, tf.cast(x[:, 0] * 2**20, "int64"))

    def trained():
        keras.utils.set_random_seed(0)
        made = OfExamples(
            dense_encoder((6,), 2, (8,)), dense_decoder((6,), 2, (8,)), dense_discriminator(2, (8,)), seed=0
        )
        made.compile(kvae.optimizers.Adam(1e-2), gamma=0.0)
        stream = tf.data.Dataset.from_tensor_slices(x[:41]).batch(10)  # the last batch leaves a replica none
        made.fit(stream, epochs=2, verbose=0)
        return made

    with strategy.scope():
        found = trained()
    expected = trained()
    for network in ("encoder", "decoder"):
        for v, w in zip(getattr(found, network).weights, getattr(expected, network).weights, strict=True):
            np.testing.assert_allclose(v, w, atol=1e-5)
    assert np.isfinite(found.history.history["discriminator_loss"]).all()


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"The discriminator gives outputs of .*; expected one, logits \(n, 1\)"):
        model(keras.Sequential([layers.Input((2,)), layers.Dense(2)]))
    with pytest.raises(ValueError, match="The discriminator doesn't take inputs of shape"):
        model(dense_discriminator(3, (4,)))
    with pytest.raises(TypeError, match="discriminator is 3; expected a Keras model, such as"):
        kvae.FactorVAE(dense_encoder((6,), 2), dense_decoder((6,), 2), 3)
    shared = keras.optimizers.Adam()
    with pytest.raises(ValueError, match="discriminator_optimizer is the VAE's own"):
        model(optimizer=shared, discriminator_optimizer=shared)
