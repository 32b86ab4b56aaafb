"""What holds for every likelihood: gradients, a trained model that is saved, and the data that are refused."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from breadth import EAGERLY_AND_IN_A_GRAPH, thorough
from likelihood_cases import CASES, SHAPE, pixels

import kvae
from kvae.likelihoods import get
from kvae.networks import dense_decoder, dense_encoder


def cases(*names, further=()):
    found = [(CASES[name], name) for name in names], [(CASES[name], name) for name in further]
    return pytest.mark.parametrize(
        "make, data",
        [
            *(pytest.param(*case, id=name) for case, name in found[0]),
            *(thorough(*case, id=name) for case, name in found[1]),
        ],
    )


every_likelihood = cases(*CASES)


def built(likelihood, shape=SHAPE):
    likelihood.build((None, *shape))
    return likelihood


def vae(likelihood, shape=SHAPE):
    decoder = dense_decoder(likelihood.decoder_shape(shape), 2, hidden=(8,), outputs=len(likelihood.parameters))
    return kvae.VAE(dense_encoder(shape, 2, hidden=(8,)), decoder, likelihood, seed=0)


@every_likelihood
def test_gradients_are_central_differences(rng, make, data):
    likelihood = built(make(dtype="float64"))
    x = tf.constant(data(rng, 1, *SHAPE))
    shape = (1, *likelihood.decoder_shape(SHAPE))
    outputs = [tf.constant(rng.normal(size=shape)) for _ in likelihood.parameters]
    weights = [tf.constant(weight.numpy()) for weight in likelihood.trainable_variables]

    def log_prob(*values):
        with keras.StatelessScope(
            [(v, value) for v, value in zip(likelihood.trainable_variables, values[len(outputs) :], strict=True)]
        ):
            return tf.reduce_sum(likelihood.distribution(list(values[: len(outputs)])).log_prob(x))

    analytic, numeric = tf.test.compute_gradient(log_prob, [*outputs, *weights], delta=1e-5)
    for found, expected in zip(analytic, numeric, strict=True):
        assert np.abs(expected).max() > 1e-3
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@every_likelihood
@pytest.mark.parametrize("value", [-1e4, -50.0, 50.0, 1e4])
def test_values_and_gradients_are_finite_in_float32(rng, make, data, value):
    likelihood = built(make())
    x = tf.constant(data(rng, 4, *SHAPE), tf.float32)
    signs = rng.choice([-1.0, 1.0], size=(4, *likelihood.decoder_shape(SHAPE)))
    outputs = [tf.constant(value * signs, tf.float32) for _ in likelihood.parameters]
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        distribution = likelihood.distribution(outputs)
        log_prob = distribution.log_prob(x)
    gradients = tape.gradient(log_prob, [*outputs, *likelihood.trainable_variables])
    for number in (log_prob, *gradients, distribution.mean, distribution.sample(1)):
        assert np.all(np.isfinite(number))


@EAGERLY_AND_IN_A_GRAPH
@cases(
    "gaussian decoder",
    "bernoulli",
    "discretized logistic",
    "negative binomial feature",
    "categorical 5",
    further=("continuous bernoulli", "poisson", "negative binomial decoder", "categorical"),
)
def test_it_trains_is_saved_and_samples(rng, tmp_path, make, data, eagerly):
    x = data(rng, 40, *SHAPE).astype("float32")
    model = vae(make())
    model.compile(keras.optimizers.Adam(1e-2), run_eagerly=eagerly)
    before = model.get_weights()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.fit(x, batch_size=20, verbose=0)
    assert all(
        not np.array_equal(v, w) for v, w in zip(before, model.get_weights(), strict=True) if v.dtype == "float32"
    )

    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.likelihood.get_config() == model.likelihood.get_config()
    numbers = model.evaluate(x, return_dict=True, verbose=0)
    assert np.all(np.isfinite(list(numbers.values())))
    assert loaded.evaluate(x, return_dict=True, verbose=0) == numbers

    assert loaded.reconstruct(x).shape == x.shape
    assert model.sample(7, seed=1).shape == (7, *SHAPE)
    sample = model.sample(7, noise=True, seed=1)
    np.testing.assert_array_equal(sample, loaded.sample(7, noise=True, seed=1))
    loaded.likelihood.check_data(sample)


@every_likelihood
def test_the_mean_is_that_of_the_samples(rng, make, data):
    likelihood = built(make())
    shape = likelihood.decoder_shape(SHAPE)
    outputs = [
        tf.repeat(tf.constant(rng.normal(size=(1, *shape)), tf.float32), 4000, axis=0) for _ in likelihood.parameters
    ]
    distribution = likelihood.distribution(outputs)
    samples = np.asarray(distribution.sample(keras.random.SeedGenerator(1)))
    z = (samples.mean(axis=0) - np.asarray(distribution.mean)[0]) / (samples.std(axis=0) / np.sqrt(4000) + 1e-3)
    assert np.abs(z).max() < 4.5


def test_nats_become_bits_where_probabilities_are_meant(rng):
    nats = np.full(3, -np.log(256) * 24)
    for likelihood in (kvae.DiscretizedLogisticLikelihood(), get("bernoulli"), get("poisson")):
        np.testing.assert_allclose(built(likelihood).bits_per_dimension(nats), 8)
    assert built(get("categorical")).dimensions == 6
    assert built(kvae.CategoricalLikelihood(256)).dimensions == 24
    for name in ("gaussian", "continuous_bernoulli"):
        with pytest.raises(ValueError, match="is a density, and bits per dimension are those of probabilities"):
            built(get(name)).bits_per_dimension(nats)


def test_a_uniform_image_costs_8_bits_per_dimension(rng):
    likelihood = built(kvae.CategoricalLikelihood(256))
    log_prob = likelihood.distribution([tf.zeros((5, 2, 3, 4 * 256))]).log_prob(tf.constant(pixels(rng, 5, *SHAPE)))
    np.testing.assert_allclose(likelihood.bits_per_dimension(log_prob), np.full(5, 8.0), rtol=1e-6)


def test_uint8_means_levels_and_not_counts(rng):
    x = rng.integers(0, 256, size=(40, *SHAPE)).astype("uint8")
    model = vae(kvae.DiscretizedLogisticLikelihood())
    model.compile(run_eagerly=True)
    np.testing.assert_allclose(model.evaluate(x, verbose=0), model.evaluate(x / np.float32(255), verbose=0), rtol=1e-6)
    model = vae(kvae.PoissonLikelihood())
    model.compile(run_eagerly=True)
    with pytest.raises(ValueError, match="uint8 means images"):
        model.fit(x)
    model.fit(x.astype("int32"), verbose=0)


def test_a_decoder_of_zeros_says_mid_grey_give_or_take_a_quarter():
    likelihood = built(kvae.DiscretizedLogisticLikelihood(), (50, 50, 1))
    distribution = likelihood.distribution([tf.zeros((4, 50, 50, 30))])
    np.testing.assert_allclose(distribution.mean, np.full((4, 50, 50, 1), 0.5), atol=1e-5)
    assert np.std(distribution.sample(1)) == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("largest, dispersion", [thorough(20, None), (20_000, "decoder")])
def test_an_untrained_model_survives_counts(rng, tmp_path, largest, dispersion):
    """As they are where they are small, by their logarithms in the encoder where they aren't."""
    x = np.rint(largest ** rng.random((200, 64))).astype("float32")
    likelihood = kvae.NegativeBinomialLikelihood(dispersion) if dispersion else kvae.PoissonLikelihood()
    inputs, encoder = keras.Input((64,)), dense_encoder((64,), 8)
    if largest > 100:
        encoder = keras.Model(inputs, encoder(keras.ops.log1p(inputs)))
    model = kvae.VAE(encoder, dense_decoder((64,), 8, outputs=len(likelihood.parameters)), likelihood, seed=0)
    model.compile()
    losses = model.fit(x, epochs=4, batch_size=20, verbose=0).history["loss"]
    assert losses[-1] < losses[0] < np.inf
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "model.keras").transform(x), model.transform(x))
