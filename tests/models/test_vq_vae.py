"""Vector quantisation against scipy, autodiff and central differences, and the model made of it."""

import itertools

import keras
import numpy as np
import pytest
import scipy.spatial
import scipy.special
import scipy.stats
import tensorflow as tf
from breadth import thorough
from keras import layers

import kvae
from kvae.models.vq_vae import Perplexity, VectorQuantizer

CODES = 7


@pytest.fixture
def quantizer():
    layer = VectorQuantizer(CODES, seed=0, dtype="float64")
    layer.build((None, 2, 3, 4))
    return layer


def model(shape=(4, 4, 1), codes=16, **arguments):
    """Codes (2, 2), of vectors of 3."""
    encoder = keras.Sequential([layers.Input(shape), layers.Conv2D(8, 2, 2, activation="relu"), layers.Conv2D(3, 1)])
    decoder = keras.Sequential(
        [layers.Input((2, 2, 3)), layers.Conv2DTranspose(8, 2, 2, activation="relu"), layers.Conv2D(1, 1)]
    )
    return kvae.VQVAE(encoder, decoder, codes, **{"seed": 0, **arguments})


@pytest.fixture
def x(rng):
    """Images of four quarters, each black or white, with noise."""
    quarters = rng.integers(0, 2, (200, 2, 2)).repeat(2, axis=1).repeat(2, axis=2)
    return (quarters + 0.05 * rng.normal(size=quarters.shape)).astype("float32")[..., None]


def test_the_nearest_are_scipys_and_stand_in_for_the_vectors(rng, quantizer):
    z = rng.normal(size=(50, 2, 3, 4))
    codebook = np.asarray(quantizer.codebook)
    distances = scipy.spatial.distance.cdist(z.reshape(-1, 4), codebook, "sqeuclidean")
    nearest = np.asarray(quantizer.nearest(tf.constant(z)))
    np.testing.assert_array_equal(nearest, distances.argmin(axis=1).reshape(50, 2, 3))
    np.testing.assert_allclose(quantizer(tf.constant(z)), codebook[nearest], atol=1e-12)
    for found in quantizer.distances(tf.constant(z)):
        np.testing.assert_allclose(found, distances.min(axis=1).reshape(50, -1).sum(axis=1))


def test_the_gradient_goes_straight_through(rng, quantizer):
    z, upstream = (tf.constant(rng.normal(size=(5, 2, 3, 4))) for _ in range(2))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(z)
        value = tf.reduce_sum(upstream * quantizer(z))
    np.testing.assert_array_equal(tape.gradient(value, z), upstream)
    assert tape.gradient(value, quantizer.codebook.value) is None


def test_each_distance_has_its_own_gradient_which_is_that_of_central_differences(rng, quantizer):
    z = tf.Variable(rng.normal(size=(5, 2, 3, 4)))
    with tf.GradientTape(persistent=True) as tape:
        codebook, commitment = map(tf.reduce_sum, quantizer.distances(z))
    assert tape.gradient(codebook, z) is None and tape.gradient(commitment, quantizer.codebook.value) is None
    for variable, index, found in (
        (quantizer.codebook, 0, tape.gradient(codebook, quantizer.codebook.value)),
        (z, 1, tape.gradient(commitment, z)),
    ):
        start, direction, ends = variable.numpy(), rng.normal(size=variable.shape), []
        for step in (1e-5, -1e-5):
            variable.assign(start + step * direction)
            ends.append(float(tf.reduce_sum(quantizer.distances(z)[index])))
        variable.assign(start)
        assert np.sum(found * direction) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-6)


def test_perplexity_is_of_all_that_was_seen(rng):
    numbers, metric = rng.choice(CODES, p=[0.5, 0.3, 0.2, 0, 0, 0, 0], size=(90, 4)), Perplexity(CODES)
    for part in np.split(numbers, 9):
        metric.update_state(part)
    expected = np.exp(scipy.stats.entropy(np.bincount(numbers.ravel(), minlength=CODES)))
    assert float(metric.result()) == pytest.approx(expected)


def test_the_numbers_are_numpys_and_depend_on_no_batch_size(x):
    vq = model(likelihood=kvae.GaussianLikelihood(0.3), commitment=0.5)
    vq.compile(run_eagerly=True)
    numbers = vq.evaluate(x, batch_size=32, verbose=0, return_dict=True)
    vectors, codebook = np.asarray(vq.encoder(x), "float64"), np.asarray(vq.quantizer.codebook, "float64")
    distances = scipy.spatial.distance.cdist(vectors.reshape(-1, 3), codebook, "sqeuclidean")
    codes = distances.argmin(axis=1).reshape(200, 2, 2)
    mean = np.asarray(vq.decoder(codebook[codes].astype("float32")))
    reconstruction = -scipy.stats.norm(mean, 0.3**0.5).logpdf(x).sum(axis=(1, 2, 3)).mean()
    quantisation = distances.min(axis=1).sum() / 200
    expected = {
        "loss": reconstruction + 1.5 * quantisation,
        "reconstruction_loss": reconstruction,
        "quantization_loss": quantisation,
        "elbo": -reconstruction - 4 * np.log(16),
        "perplexity": np.exp(scipy.stats.entropy(np.bincount(codes.ravel()))),
    }
    assert numbers == pytest.approx(expected, rel=1e-5)
    assert vq.evaluate(x, batch_size=200, verbose=0, return_dict=True) == pytest.approx(numbers, rel=1e-6)
    np.testing.assert_array_equal(vq.transform(x), codes)
    np.testing.assert_allclose(vq.inverse_transform(codes), mean, atol=1e-5)
    np.testing.assert_allclose(vq.reconstruct(x), mean, atol=1e-5)


def test_the_codebook_has_the_whole_gradient_of_its_distance_and_the_encoder_the_commitments_share(x):
    vq, gradients = model(), {}
    weights = [vq.quantizer.codebook, *vq.encoder.trainable_weights]
    for commitment in (0.0, 3.0):
        vq.commitment = commitment
        with tf.GradientTape(persistent=True) as tape:
            loss = tf.reduce_sum(vq.losses_per_example(x)[0])
            distance = tf.reduce_sum(vq.quantizer.distances(vq.vectors(x))[1])
        gradients[commitment] = tape.gradient(loss, [weight.value for weight in weights])
    vectors, codes = np.asarray(vq.vectors(x)).reshape(-1, 3), vq.transform(x).ravel()
    codebook, expected = np.asarray(vq.quantizer.codebook), np.zeros((16, 3))
    np.add.at(expected, codes, 2 * (codebook[codes] - vectors))
    for found in gradients.values():
        np.testing.assert_allclose(found[0], expected, rtol=1e-3, atol=1e-3)
    of_distance = tape.gradient(distance, [weight.value for weight in weights[1:]])
    for with_it, without, found in zip(gradients[3.0][1:], gradients[0.0][1:], of_distance, strict=True):
        np.testing.assert_allclose(with_it - without, 3 * found, rtol=1e-3, atol=1e-2)
        assert np.abs(found).max() > 1


@pytest.mark.parametrize("policy", ["mixed_bfloat16", thorough("mixed_float16")])
def test_half_precision_networks_leave_the_codebook_in_single(x, policy):
    keras.mixed_precision.set_dtype_policy(policy)
    try:
        vq = model()
        vq.compile(run_eagerly=True)
        start = np.asarray(vq.quantizer.codebook)
        vq.fit(x, epochs=4, verbose=0)  # the first steps find float16's loss scale
        assert vq.quantizer.codebook.dtype == "float32" and not np.array_equal(vq.quantizer.codebook, start)
        reconstructed = vq.reconstruct(x)
        np.testing.assert_allclose(reconstructed, vq.inverse_transform(vq.transform(x)), rtol=1e-2, atol=1e-3)
        np.testing.assert_allclose(reconstructed, vq(x), rtol=1e-2, atol=1e-3)
    finally:
        keras.mixed_precision.set_dtype_policy("float32")


def test_it_trains_and_is_saved_and_codes_that_are_lost_come_back(x, tmp_path):
    vq = model(codes=16)
    vq.quantizer.codebook.assign(np.r_[np.zeros((1, 3)), np.full((15, 3), 50.0)])  # 15 of 16 are out of reach
    vq.compile(keras.optimizers.Adam(1e-2), metrics=["mse"])
    assert vq.evaluate(x, verbose=0, return_dict=True)["perplexity"] == pytest.approx(1.0)
    assert vq.reset_unused_codes(x) == 15
    history = vq.fit(x, epochs=20, batch_size=20, verbose=0).history
    assert history["loss"][-1] < history["loss"][0] - 5 and history["perplexity"][-1] > 1.9
    assert np.mean((vq.reconstruct(x) > 0.5) == (x > 0.5)) > 0.99

    vq.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.evaluate(x, verbose=0, return_dict=True) == vq.evaluate(x, verbose=0, return_dict=True)
    np.testing.assert_array_equal(loaded.sample(3), vq.sample(3))
    np.testing.assert_array_equal(loaded.transform(x), vq.transform(x))


def test_samples_have_the_frequencies_that_are_asked_for(x):
    vq = model()
    codes, frequencies = vq.transform(x), vq.code_frequencies(x)
    assert frequencies.shape == (2, 2, 16)
    np.testing.assert_allclose(frequencies[0, 1], np.bincount(codes[:, 0, 1], minlength=16) / 200)
    one = np.zeros((2, 2, 16))
    wanted = np.array([[3, 5], [7, 11]])
    np.put_along_axis(one, wanted[..., None], 1.0, axis=2)
    images = vq.sample(2, frequencies=one, seed=1)
    np.testing.assert_allclose(images, vq.inverse_transform(np.stack([wanted, wanted])), atol=1e-6)
    assert vq.sample(5).shape == (5, 4, 4, 1) and not np.array_equal(vq.sample(5), vq.sample(5))


def test_what_does_not_fit_is_refused(x):
    vq = model()
    with pytest.raises(TypeError, match="VQVAE has no posterior to draw from"):
        kvae.evaluation.log_likelihood(vq, x)
    with pytest.raises(ValueError, match="codes is 1; expected an integer of at least 2"):
        VectorQuantizer(1)
    with pytest.raises(ValueError, match="commitment is -1"):
        model(commitment=-1)
    with pytest.raises(ValueError, match="minimizes its own and takes none"):
        vq.compile(loss="mse")
    with pytest.raises(ValueError, match=r"z is float32 of shape .*; expected integers of shape \(n, \*\(2, 2\)\)"):
        vq.inverse_transform(np.zeros((1, 2, 2), "float32"))
    with pytest.raises(ValueError, match="z reaches from 0 to 16; expected codes from 0 to 15"):
        vq.inverse_transform(np.full((1, 2, 2), 16) * [[0, 1], [1, 1]])


def transformer(shape=(2, 2), codes=3, **arguments):
    """A prior with weights of some size."""
    keras.utils.set_random_seed(0)
    network = kvae.networks.causal_transformer(shape, codes, units=8, blocks=1, heads=2, **arguments)
    for weight in network.weights:
        weight.assign(weight + 0.5 * keras.random.normal(weight.shape))
    return network


def test_the_priors_probabilities_of_all_grids_sum_to_1():
    vq = model(codes=3, prior=transformer())
    grids = np.array(list(itertools.product(range(3), repeat=4)), "int32").reshape(-1, 2, 2)
    log_p = np.asarray(vq.log_prior(grids), "float64")
    assert np.exp(log_p).sum() == pytest.approx(1, abs=1e-5) and np.ptp(log_p) > 1
    logits = np.asarray(vq.prior(grids), "float64")
    steps = np.take_along_axis(scipy.special.log_softmax(logits, axis=-1), grids[..., None], axis=-1)
    np.testing.assert_allclose(log_p, steps.sum(axis=(1, 2, 3)), rtol=1e-5)
    drawn = vq._drawn_from_prior(20_000, keras.random.SeedGenerator(0)).reshape(-1, 4) @ [27, 9, 3, 1]
    np.testing.assert_allclose(np.bincount(drawn, minlength=81) / 20_000, np.exp(log_p), atol=0.012)
    np.testing.assert_allclose(model(codes=3).log_prior(grids), -4 * np.log(3), rtol=1e-6)


def test_logits_depend_on_earlier_codes_alone(rng):
    network, codes = transformer((2, 3), 5), rng.integers(0, 5, (1, 2, 3))
    logits = np.asarray(network(codes)).reshape(6, 5)
    for position in range(6):
        changed = codes.copy()
        changed.reshape(-1)[position] += 1
        moved = np.abs(np.asarray(network(changed % 5)).reshape(6, 5) - logits).max(axis=1)
        assert moved[: position + 1].max() < 1e-5 and (moved[position + 1 :] > 1e-3).all()


@pytest.mark.parametrize("sees", ["itself", "later codes"])
def test_a_prior_that_sees_what_it_predicts_is_refused(sees):
    codes = layers.Input((2, 2), dtype="int32")
    h = layers.Embedding(16, 4)(codes)
    h = layers.Dense(16)(h) if sees == "itself" else layers.Reshape((2, 2, 16))(layers.Dense(64)(layers.Flatten()(h)))
    with pytest.raises(ValueError, match="The prior's logits of a code change with this code or a later one"):
        model(prior=keras.Model(codes, h))
    with pytest.raises(
        ValueError, match=r"The prior gives outputs of shapes .*; expected one, logits \(None, 2, 2, 16\)"
    ):
        model(prior=transformer(codes=3))


@pytest.mark.thorough
def test_a_prior_learns_which_codes_go_together_and_is_saved(rng, tmp_path):
    """Images of one value: two grids of 2^4 have all the probability, so -log p(codes) should go to log 2."""
    values = rng.integers(0, 2, (200, 1, 1, 1))
    x = (values + 0.05 * rng.normal(size=(200, 4, 4, 1))).astype("float32")
    keras.utils.set_random_seed(0)
    vq = model(codes=2, prior=kvae.networks.causal_transformer((2, 2), 2, units=8, blocks=1, heads=2))
    vq.compile(kvae.optimizers.Adam(1e-2))
    vq.reset_unused_codes(x)
    with tf.GradientTape() as tape:
        prior_loss = tf.reduce_mean(vq.losses_per_example(x, training=True)[1]["prior_loss"])
    others = [weight.value for weight in (*vq.encoder.weights, *vq.decoder.weights, vq.quantizer.codebook)]
    assert tape.gradient(prior_loss, others) == [None] * len(others)

    vq.fit(x, epochs=25, batch_size=20, verbose=0)
    numbers = vq.evaluate(x, batch_size=32, verbose=0, return_dict=True)
    counts = np.unique(vq.transform(x).reshape(200, 4), axis=0, return_counts=True)[1]
    assert numbers["prior_loss"] == pytest.approx(scipy.stats.entropy(counts), abs=0.1)
    assert numbers["elbo"] == pytest.approx(-numbers["reconstruction_loss"] - numbers["prior_loss"], rel=1e-6)
    loss = numbers["reconstruction_loss"] + 1.25 * numbers["quantization_loss"] + numbers["prior_loss"]
    assert numbers["loss"] == pytest.approx(loss, rel=1e-5)
    samples = vq.sample(100, seed=0), vq.sample(100, frequencies=np.ones(2), seed=0)
    spread = [np.ptp(images, axis=(1, 2, 3)) for images in samples]
    assert np.mean(spread[0] < 0.3) > 0.9 > np.mean(spread[1] < 0.3)
    assert kvae.evaluation.compare({"VQ-VAE": vq}, x)["VQ-VAE"]["elbo"] == pytest.approx(numbers["elbo"])

    vq.save(tmp_path / "model.keras")
    loaded = kvae.load(tmp_path / "model.keras")
    assert loaded.evaluate(x, batch_size=32, verbose=0, return_dict=True) == numbers
    np.testing.assert_array_equal(loaded.sample(3, seed=1), vq.sample(3, seed=1))
