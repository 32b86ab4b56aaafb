"""Models of images given labels."""

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from breadth import EAGERLY_AND_IN_A_GRAPH, some, thorough
from keras import layers
from small_models import dense_vae, same_weights, shared

import kvae
from kvae.networks import dense_decoder, dense_encoder

LABELS = 3


@pytest.fixture
def data(rng):
    return rng.random((60, 6)).astype("float32"), rng.integers(0, LABELS, 60)


def joint(network, size, uses_label=True):
    """[tensor (n, *), y (n, LABELS)] through a network of both side by side, or of the tensor alone."""
    tensor, y = layers.Input((size,)), layers.Input((LABELS,))
    return keras.Model([tensor, y], network(layers.Concatenate()([tensor, y]) if uses_label else tensor))


def conditional(**arguments):
    encoder = joint(dense_encoder((6 + LABELS,), 2, hidden=(8,)), 6)
    decoder = joint(dense_decoder((6,), 2 + LABELS, hidden=(8,)), 2)
    return kvae.ConditionalVAE(encoder, decoder, LABELS, **{"seed": 0, **arguments})


def compiled():
    """One for all tests of what it refuses."""

    def make():
        model = conditional()
        model.compile(run_eagerly=True)
        return model

    return shared("conditional", make)


def test_with_labels_that_are_not_read_it_is_a_vae_bit_for_bit(data):
    x, y = data
    keras.utils.set_random_seed(0)
    plain = dense_vae()
    keras.utils.set_random_seed(0)
    same = dense_vae()
    model = kvae.ConditionalVAE(joint(same.encoder, 6, False), joint(same.decoder, 2, False), LABELS, seed=0)
    histories = []
    for one, given in ((plain, (x,)), (model, (x, y))):
        one.compile(keras.optimizers.Adam(1e-2), run_eagerly=True)
        histories.append(one.fit(*given, epochs=2, batch_size=20, shuffle=False, verbose=0).history)
    assert histories[0] == histories[1] and same_weights(plain, model)
    assert plain.evaluate(x, verbose=0) == model.evaluate(x, y, verbose=0)
    np.testing.assert_array_equal(plain.sample(4, noise=True), model.sample(4, y=1, noise=True))


def test_linear_gaussian_draws_with_the_exact_posterior_say_log_p_of_x_given_y(rng, float64):
    """x = W z + U y + b + N(0, s I), W's columns orthogonal."""
    weights = np.linalg.qr(rng.normal(size=(6, 2)))[0] * [1.5, 0.7]
    through, bias, noise = rng.normal(size=(6, LABELS)), rng.normal(size=6), 0.2
    precision = np.diag(weights.T @ weights) / noise + 1
    projection = weights / noise / precision
    model = kvae.ConditionalVAE(
        joint(dense_encoder((6 + LABELS,), 2, hidden=()), 6),
        joint(dense_decoder((6,), 2 + LABELS, hidden=()), 2),
        LABELS,
        kvae.GaussianLikelihood(noise),
        seed=0,
    )
    encoder, decoder = (n.layers[-1] for n in (model.encoder, model.decoder))
    kernel = np.concatenate([projection, -through.T @ projection])
    encoder.get_layer("z_mean").set_weights([kernel, -bias @ projection])
    encoder.get_layer("z_log_var").set_weights([np.zeros_like(kernel), -np.log(precision)])
    decoder.layers[1].set_weights([np.concatenate([weights.T, through.T]), bias])

    y = rng.integers(0, LABELS, 30)
    covariance = weights @ weights.T + noise * np.eye(6)
    marginal = scipy.stats.multivariate_normal(np.zeros(6), covariance)
    x = marginal.rvs(30, random_state=0) + through.T[y] + bias
    log_p = marginal.logpdf(x - through.T[y] - bias)
    draw = model.draw((tf.constant(x), tf.constant(y)), 5)
    np.testing.assert_allclose(draw.log_weights, np.repeat(log_p[:, None], 5, axis=1), atol=1e-10)
    found = kvae.evaluation.log_likelihood(model, (x, y), 3, batch_size=7)
    np.testing.assert_allclose(found.values, log_p, atol=1e-10)
    annealed = kvae.evaluation.annealed_importance_sampling(model, (x, y), steps=100, leapfrogs=8, batch_size=16)
    np.testing.assert_allclose(annealed, log_p, atol=0.5)
    assert np.mean(annealed) == pytest.approx(np.mean(log_p), abs=0.1)
    units = kvae.evaluation.active_units(model, (x, y))
    np.testing.assert_allclose(units.variances, np.var(model.transform((x, y)), axis=0))
    stream = tf.data.Dataset.from_tensor_slices((x, y)).batch(20)
    report = kvae.evaluation.report(model, stream, samples=30)
    assert report.decomposition.log_likelihood.value == pytest.approx(log_p.mean())
    assert report.decomposition.gap.value == pytest.approx(0, abs=1e-9)
    aggregate = kvae.evaluation.aggregate_posterior(model, (x, y), components=30)
    assert np.mean(aggregate.mutual_information) <= np.log(30)
    reconstructed = model.reconstruct((x, y))
    assert kvae.evaluation.squared_error(model, (x, y)) == pytest.approx(np.sum((x - reconstructed) ** 2) / 30)
    model.compile(loss=kvae.IWAE(3), run_eagerly=True)
    assert model.evaluate(x, y, verbose=0, return_dict=True)["loss"] == pytest.approx(-log_p.mean(), abs=1e-9)
    wrong = model.evaluate(x, (y + 1) % LABELS, verbose=0, return_dict=True)
    assert -wrong["elbo"] > -log_p.mean() + 0.1
    samples = model.sample(50_000, y=2, noise=True, seed=1)
    np.testing.assert_allclose(samples.mean(axis=0), through[:, 2] + bias, atol=0.03)
    np.testing.assert_allclose(np.cov(samples.T), covariance, atol=0.03)


@EAGERLY_AND_IN_A_GRAPH
@pytest.mark.parametrize("streamed", [thorough(False), True])
def test_it_trains_and_is_saved(data, tmp_path, streamed, eagerly):
    x, y = data
    given = (tf.data.Dataset.from_tensor_slices((x, y)).batch(20),) if streamed else (x, y)
    model = conditional()
    model.compile(keras.optimizers.Adam(1e-2), metrics=["mse"], run_eagerly=eagerly)
    sizes = {} if streamed else {"batch_size": 20, "shuffle": False}
    history = model.fit(*given, epochs=3, validation_data=given[0] if streamed else given, verbose=0, **sizes).history
    assert history["loss"][-1] < history["loss"][0] and history["val_mse"][-1] > 0
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.evaluate(*given, verbose=0) == model.evaluate(*given, verbose=0)
    np.testing.assert_array_equal(loaded.sample(3, y=[0, 1, 2]), model.sample(3, y=np.eye(LABELS)))


def test_labels_of_every_kind_give_the_same_codes_and_images(data):
    x, y = data
    one_hot, stream = np.eye(LABELS, dtype="float32")[y], tf.data.Dataset.from_tensor_slices
    model = conditional()
    expected = model.encoder([x, one_hot])[0]
    for given in ((x, y), (x, one_hot), stream((x, y)).batch(20), stream({"image": x, "label": y}).batch(32)):
        np.testing.assert_allclose(model.transform(given), expected, atol=1e-5)
        images = model.inverse_transform((model.transform(given), y))
        np.testing.assert_allclose(images, model.reconstruct(given), atol=1e-5)
    np.testing.assert_allclose(images, model.predict(stream((x, y)).batch(20), verbose=0), atol=1e-5)


def test_a_report_of_its_decoders_variance(data):
    decoder = joint(dense_decoder((6,), 2 + LABELS, hidden=(8,), outputs=2), 2)
    model = kvae.ConditionalVAE(conditional().encoder, decoder, LABELS, kvae.GaussianLikelihood("decoder"), seed=0)
    assert not any("at its bound" in finding for finding in kvae.evaluation.report(model, data, samples=5).findings)
    model.likelihood.min_variance = 1e6
    assert any("at its bound" in finding for finding in kvae.evaluation.report(model, data, samples=5).findings)


def test_a_report_advises_a_prior_that_it_takes(data):
    model = conditional()
    model.encoder.layers[-1].get_layer("z_mean").bias.assign([3.0, 3.0])
    findings = " ".join(kvae.evaluation.report(model, data, samples=50).findings)
    assert "such as kvae.MixtureOfGaussians()" in findings and "VampPrior" not in findings
    conditional(prior=kvae.MixtureOfGaussians())


def test_what_would_simulate_labels_is_refused_before_any_work():
    for function in (kvae.evaluation.bidirectional, kvae.evaluation.simulation_based_calibration):
        with pytest.raises(ValueError, match="A ConditionalVAE draws images of labels that are given"):
            function(conditional())


@pytest.mark.parametrize("label", [thorough(-1), LABELS])
def test_class_numbers_that_are_not_there_are_refused(data, label):
    x, y = data
    model = compiled()
    y[50] = label
    message = f"y has class numbers from {min(label, 0)} to {max(label, 2)}; expected them from 0 to 2"
    stream = tf.data.Dataset.from_tensor_slices({"image": x[50:], "label": y[50:]}).batch(5)
    calls = [
        lambda: model.fit(x, y, verbose=0),
        lambda: model.fit((x, y), verbose=0),
        lambda: model.fit(x, data[1] * 0, validation_data=(x, y), verbose=0),
        lambda: model.evaluate(x, y, verbose=0),
        lambda: model.transform((x, y)),
        lambda: kvae.evaluation.log_likelihood(model, (x, y), 5),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=message):
            call()
    for call in (lambda: model.fit(stream, verbose=0), lambda: model.sample(2, y=label)):
        with pytest.raises(ValueError, match="y has class numbers"):
            call()


@pytest.mark.parametrize("label", [thorough(-1), LABELS])
def test_class_numbers_that_are_not_there_stop_a_stream_in_any_batch(data, label):
    x, y = data
    y[50] = label
    model, evaluation = compiled(), kvae.evaluation
    stream = tf.data.Dataset.from_tensor_slices((x, y)).batch(20)
    own = kvae.data.Stream(lambda epoch, skip, shard_index, num_shards: stream.skip(skip), 3)
    message = rf"^y of \w+ holds the value {label} in batch 2 \(counted from 0\), expected class numbers from 0 to 2"
    for read in (
        lambda: model.fit(stream, verbose=0),
        lambda: model.fit(own, verbose=0),
        lambda: model.fit(x[:50], y[:50], validation_data=stream, verbose=0),
        lambda: model.evaluate(stream, verbose=0),
        lambda: model.predict(stream, verbose=0),
        lambda: model.transform(own),
        lambda: model.reconstruct(stream),
        lambda: evaluation.log_likelihood(model, own, 5),
        lambda: evaluation.annealed_importance_sampling(model, stream, 5, 2, 2),
        lambda: evaluation.squared_error(model, stream),
        lambda: evaluation.active_units(model, stream),
        lambda: evaluation.aggregate_posterior(model, stream),
        lambda: evaluation.report(model, stream, 5),
    ):
        with pytest.raises(ValueError, match=message):
            read()


def test_what_is_no_label_is_refused(data):
    x, y = data
    model = compiled()
    with pytest.raises(ValueError, match=r"reads images and labels, \(x, y\), and y is none"):
        model.fit(x, verbose=0)
    with pytest.raises(ValueError, match=r"y is float32 of shape \(.*\); expected class numbers"):
        model.fit(x, y.astype("float32"), verbose=0)
    with pytest.raises(ValueError, match="There are 2 labels for 3 images"):
        model.sample(3, y=[0, 1])
    with pytest.raises(ValueError, match="VampPrior is made of images without labels"):
        conditional(prior=kvae.VampPrior(4))
    with pytest.raises(ValueError, match="label_dim is 0"):
        kvae.ConditionalVAE(model.encoder, model.decoder, 0)


def test_an_old_argument_warns_at_the_users_line():
    encoder, decoder = conditional().encoder, conditional().decoder
    with pytest.warns(DeprecationWarning, match="posterior= is now posterior_family=") as warned:
        kvae.ConditionalVAE(encoder, decoder, LABELS, posterior=kvae.posteriors.DiagonalNormal())
    assert warned[0].filename == __file__


@pytest.mark.parametrize("label", [thorough(-1), LABELS])
@pytest.mark.parametrize(
    "method",
    [
        lambda model, x, z, y: model.inverse_transform((z, y)),
        lambda model, x, z, y: model.decode((z, y)),
        lambda model, x, z, y: model.decoder_distribution((z, y)),
        lambda model, x, z, y: model.draw((x, y)),
        lambda model, x, z, y: model.posterior((x, y)),
        lambda model, x, z, y: model.encode((x, y)),
        lambda model, x, z, y: model.log_likelihood((x, y), z),
        lambda model, x, z, y: model([x, y]),
        lambda model, x, z, y: model.inverse_transform(tf.data.Dataset.from_tensor_slices((z, y)).batch(2)),
    ],
)
def test_class_numbers_that_are_not_there_are_refused_by_methods_of_tensors(data, method, label):
    x, z, y = data[0][:3], np.ones((3, 2), "float32"), np.array([0, label, 1])
    with pytest.raises(ValueError, match=r"y has class numbers from .* expected them from 0 to 2"):
        method(compiled(), x, z, y)
    method(compiled(), x, z, np.array([0, 2, 1]))


@pytest.mark.parametrize("name", some(["export", "of_numbers", "archive", "saved"], "export", "saved"))
def test_it_is_exported_with_its_two_inputs(data, tmp_path, name):
    x, y = data
    model, one_hot = conditional(), np.eye(LABELS, dtype="float32")[y]
    numbers = [[keras.InputSpec(shape=(None, 6), dtype="float32"), keras.InputSpec(shape=(None,), dtype="int64")]]
    if name == "archive":
        archive = keras.export.ExportArchive()
        archive.track(model)
        archive.add_endpoint("serve", model.call, numbers)
    writers = {
        "export": (lambda folder: model.export(folder, verbose=False), one_hot),
        "of_numbers": (lambda folder: model.export(folder, verbose=False, input_signature=numbers), y),
        "archive": (lambda folder: archive.write_out(folder, verbose=False), y),
        "saved": (lambda folder: tf.saved_model.save(model, folder), one_hot),  # of signatures alone
    }
    write, labels = writers[name]
    write(str(tmp_path / name))
    exported = tf.saved_model.load(str(tmp_path / name))
    if name == "saved":
        images = exported.signatures["serving_default"](inputs=x, inputs_1=labels)["output_0"]
    else:
        images = exported.serve([x, labels])
    np.testing.assert_allclose(images, model.reconstruct((x, y)), atol=1e-5)
    assert model.get_build_config() == {"input_shape": (None, 6)}  # as files of 0.1.0 have it
