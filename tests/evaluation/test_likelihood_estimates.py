"""log p(x) by importance weighting, against the closed form of linear-Gaussian data."""

import keras
import linear_gaussian
import numpy as np
import pytest
import small_models
import tensorflow as tf
from breadth import some

import kvae
from kvae.evaluation import log_likelihood, scoring


@pytest.fixture(scope="module")
def x():
    return linear_gaussian.data(200)


def test_with_the_exact_posterior_every_draw_weighs_log_p_of_x(x):
    vae, log_p = linear_gaussian.model()
    pca = kvae.PCA(2).fit(x.astype("float64"), verbose=0)
    for model, exact, tolerance in ((vae, log_p(x), 1e-4), (pca, pca.log_prob(x).numpy(), 1e-10)):
        log_likelihoods, log_prior, log_posterior = scoring.scorer(model)(x, np.arange(len(x)), 0, 20, 0)
        log_weights = log_likelihoods + log_prior - log_posterior
        np.testing.assert_allclose(log_weights, np.repeat(exact[:, None], 20, axis=1), rtol=0, atol=tolerance)
        found = log_likelihood(model, x, samples=20)
        np.testing.assert_allclose(found.bounds, np.repeat(exact[:, None], 5, axis=1), rtol=0, atol=tolerance)
        np.testing.assert_allclose(found.values, exact, rtol=0, atol=tolerance)
        np.testing.assert_allclose(found.effective_samples, 20, rtol=1e-4)


@pytest.mark.parametrize("shift, spread", some([(0.5, 1.0), (0.0, 1.5), (-0.3, 0.8)], (0.5, 1.0)))
def test_bounds_rise_with_k_to_log_p_of_x(x, shift, spread):
    model, log_p = linear_gaussian.model(shift, spread)
    found = log_likelihood(model, x, samples=500)
    curve = list(found.curve.values())
    assert list(found.curve) == [1, 2, 5, 10, 20, 50, 100, 200, 500]
    truth = log_p(x)
    assert np.all(np.diff(curve[:-2]) > 0)
    assert curve[0] < curve[-1] - 0.05
    assert curve[-1] <= truth.mean() + 3 * found.sampling_error
    assert curve[-1] == pytest.approx(truth.mean(), abs=0.01)


def test_one_draw_is_the_elbos_estimate(x):
    model, _ = linear_gaussian.model(0.5, 1.2)
    found = log_likelihood(model, x, samples=1)
    log_weights = model.draw(x, 500).log_weights.numpy()
    standardised = (found.values - log_weights.mean(axis=1)) / log_weights.std(axis=1)
    assert abs(np.mean(standardised)) < 3 / np.sqrt(200)
    assert np.std(standardised) == pytest.approx(1, abs=0.2)
    assert np.isnan(found.sampling_error) and np.isnan(found.bias)
    model.compile(run_eagerly=True)
    elbo = model.evaluate(x, verbose=0, return_dict=True)["elbo"]
    assert log_likelihood(model, x, samples=300).elbo == pytest.approx(elbo, abs=0.2)


def test_one_draw_is_the_one_that_evaluate_takes(x, rng):
    model, _ = linear_gaussian.model(0.5, 1.2)
    flow = small_models.dense_vae(posterior_family=kvae.posteriors.FlowPosterior(kvae.flows.Planar(2)))
    for vae, data in ((model, x), (flow, rng.random((100, 6)).astype("float32"))):
        vae.compile(run_eagerly=True)
        found, numbers = log_likelihood(vae, data, samples=1), vae.evaluate(data, verbose=0, return_dict=True)
        log_weights = vae.draw(data, index=np.arange(len(data))).log_weights.numpy()[:, 0]
        np.testing.assert_allclose(found.values, log_weights, rtol=2e-6, atol=2e-6)
        assert np.mean(found.reconstruction) == pytest.approx(-numbers["reconstruction_loss"], rel=1e-6)
    assert found.elbo == pytest.approx(numbers["elbo"], rel=1e-6)  # without a KL in closed form


def test_intervals_cover_the_truth():
    model, log_p = linear_gaussian.model(0.4, 0.9)
    x = linear_gaussian.data(100 * 50, seed=3)
    found = log_likelihood(model, x, samples=100)  # as 100 seeds, since each position has its own noise
    errors = found.standard_error * 10
    entropy = 0.5 * (
        12 * np.log(2 * np.pi * np.e) + 9 * np.log(0.3) + np.sum(np.log([0.3 + 1.5**2, 1.3, 0.3 + 0.6**2]))
    )
    means = found.values.reshape(100, 50).mean(axis=1)
    assert np.sum(np.abs(means + entropy) < 1.96 * errors) >= 90

    exact = log_p(x).reshape(100, 50).mean(axis=1)
    variances = (1 / found.effective_samples - 1 / 100).reshape(100, 50).mean(axis=1)
    assert found.sampling_error == pytest.approx(np.std(means - exact) / 10, rel=0.25)
    assert found.bias == pytest.approx(np.mean(means - exact), abs=3 * found.sampling_error)
    covered = np.abs(means - (exact - variances / 2)) < 1.96 * np.sqrt(variances / 50)
    assert 90 <= np.sum(covered) <= 99


def test_an_error_that_few_weights_tell_is_not_to_be_trusted(x):
    words = "below 20 in 200 of the examples: trust neither sampling_error nor bias"
    model, log_p = linear_gaussian.model(shift=6.0)
    found = log_likelihood(model, x, samples=50)
    assert log_p(x).mean() - found.mean > 3 * (found.sampling_error - found.bias)
    assert words in str(found)
    assert "below" not in str(log_likelihood(linear_gaussian.model()[0], x, samples=50))


def test_single_examples_whose_draws_miss_the_posterior_are_told(x):
    model, log_p = linear_gaussian.model()
    kernel, bias = model.encoder.get_layer("z_mean").get_weights()
    model.encoder.get_layer("z_mean").set_weights([0.95 * kernel, bias])  # off by ever more, the further x is
    x = np.array(x)
    x[7] *= 30
    found = log_likelihood(model, x, samples=200)
    assert np.flatnonzero(found.degenerate).tolist() == [7] and np.median(found.effective_samples) > 150
    error = log_p(x) - found.values
    assert error[7] > 10 and np.max(np.abs(np.delete(error, 7))) < 0.5
    words = "the least 1.2, below 20 in 1 of the examples: their log p(x) may be far too low"
    assert words in str(found) and "in one example; 1 have fewer than 20" in found._repr_html_()
    findings = kvae.evaluation.report(model, x, samples=200).findings
    assert any("in 1 of 200 examples fewer than 20 draws" in finding for finding in findings)


def test_the_numbers_depend_on_neither_batches_nor_chunks(x):
    model, _ = linear_gaussian.model(0.5, 1.5)
    x = x[:40]
    expected = log_likelihood(model, x, samples=1010)
    for data, rows in ((tf.data.Dataset.from_tensor_slices(x).batch(7), None), (x, 301), (x, 100_000)):
        found = log_likelihood(model, data, samples=1010, rows=rows)
        np.testing.assert_allclose(found.bounds, expected.bounds, rtol=0, atol=1e-4)
        np.testing.assert_allclose(found.effective_samples, expected.effective_samples, rtol=1e-3)
        np.testing.assert_allclose(found.overconfidence, expected.overconfidence, rtol=0, atol=1e-4)
    assert len(np.unique(log_likelihood(model, np.repeat(x[:1], 40, axis=0), samples=5).values)) == 40
    score = scoring.scorer(model)
    assert not np.any(score(x, np.arange(40), 0, 5, 0) == score(x, np.arange(40), 1, 5, 0))
    assert np.min(np.abs(log_likelihood(model, x, samples=1010, seed=1).values - expected.values)) > 0


class Killed(Exception):
    pass


def interrupted(data, after):
    def batches():
        for start in range(0, len(tf.nest.flatten(data)[0]), 20):
            if start == after:
                raise Killed
            yield scoring.rows_of(data, start, start + 20)

    signature = tf.nest.map_structure(lambda part: tf.TensorSpec((None, *part.shape[1:]), part.dtype), data)
    return tf.data.Dataset.from_generator(batches, output_signature=signature)


def test_an_interrupted_measurement_goes_on(x, tmp_path, monkeypatch):
    model, _ = linear_gaussian.model(0.5, 1.5)
    expected, file = log_likelihood(model, x, samples=50), tmp_path / "found.npz"
    for after in (60, 140):
        with pytest.raises(Exception, match="Killed"):
            log_likelihood(model, interrupted(x, after), samples=50, resume=file)
        with np.load(file) as stored:
            assert len(stored["column_0"]) == after

    scored, make = [], scoring.scorer

    def counting(*arguments):
        score = make(*arguments)
        return lambda x, *numbers: scored.append(len(x)) or score(x, *numbers)

    monkeypatch.setattr(scoring, "scorer", counting)
    for _ in range(2):
        found = log_likelihood(model, x, samples=50, resume=file)
        for name in ("bounds", "overconfidence"):
            np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=0, atol=1e-4)
        assert sum(scored) == 60


@pytest.mark.thorough
def test_a_measurement_given_labels_goes_on_in_other_pieces(rng, tmp_path, monkeypatch):
    monkeypatch.setattr(kvae.models.scoring, "_DRAWN", 35)  # seven examples at once, with five draws of each
    x, y, file = rng.random((60, 6)).astype("float32"), rng.integers(0, 3, 60), tmp_path / "found.npz"
    networks = []
    for size, outputs in ((6, (2, 2)), (2, (6,))):
        inputs = [keras.Input((size,)), keras.Input((3,))]
        joint = keras.layers.Concatenate()(inputs)
        networks.append(keras.Model(inputs, [keras.layers.Dense(units)(joint) for units in outputs]))
    model = kvae.ConditionalVAE(*networks, 3, seed=0)
    expected = log_likelihood(model, (x, y), samples=5).values
    with pytest.raises(Exception, match="Killed"):
        log_likelihood(model, interrupted((x, y), 40), samples=5, resume=file)
    for batch_size in (20, 16, 60):
        found = log_likelihood(model, (x, y), samples=5, batch_size=batch_size, resume=file)
        np.testing.assert_allclose(found.values, expected, rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match="other examples"):
        log_likelihood(model, (x, y[::-1]), samples=5, resume=file)


@pytest.mark.parametrize("folder", ["missing", "file"])
def test_a_path_that_cannot_be_written_is_refused_before_the_first_draw(x, tmp_path, monkeypatch, folder):
    (tmp_path / "file").touch()
    monkeypatch.setattr(scoring, "chunks", None)
    with pytest.raises(OSError, match=r"found.npz can't be written \(.*\): give a path in a folder that exists"):
        log_likelihood(linear_gaussian.model()[0], x, 5, resume=tmp_path / folder / "found.npz")


def test_what_was_found_outlives_a_file_that_cannot_be_written(x, tmp_path):
    model, _ = linear_gaussian.model()
    folder = tmp_path / "lost"
    folder.mkdir()

    def batches():
        yield x[:100]
        folder.rmdir()
        yield x[100:]

    stream = tf.data.Dataset.from_generator(batches, output_signature=tf.TensorSpec((None, 12), x.dtype))
    with pytest.warns(UserWarning, match="couldn't be written, and lacks the last examples"):
        found = log_likelihood(model, stream, 5, resume=folder / "found.npz")
    np.testing.assert_allclose(found.values, log_likelihood(model, x, 5).values, rtol=0, atol=1e-4)


def test_a_file_of_another_measurement_is_refused(x, tmp_path):
    model, _ = linear_gaussian.model(0.5, 1.5)
    file = tmp_path / "found.npz"
    log_likelihood(model, x, samples=5, resume=file)
    content = file.read_bytes()
    other, _ = linear_gaussian.model(0.4, 1.5)
    for message, arguments in (
        ("other weights", (other, x, 5)),
        ("other samples", (model, x, 6)),
        ("other examples", (model, x[::-1], 5)),
        ("other examples", (model, x[:100], 5)),
    ):
        with pytest.raises(ValueError, match=message):
            log_likelihood(*arguments, resume=file)
    with pytest.raises(ValueError, match="other seed"):
        log_likelihood(model, x, 5, seed=1, resume=file)
    assert file.read_bytes() == content
    with np.load(file) as stored:
        np.savez(file, **{name: stored[name] for name in stored.files if name != "of_numbers"})
    with pytest.raises(ValueError, match="no unfinished measurement"):  # one of another kvae, of other numbers
        log_likelihood(model, x, 5, resume=file)
    file.write_bytes(content[:100])
    with pytest.raises(ValueError, match="no unfinished measurement"):
        log_likelihood(model, x, 5, resume=file)


def test_a_file_is_of_a_configuration_and_not_of_names(x, tmp_path):
    model, _ = linear_gaussian.model(0.5, 1.5)
    file = tmp_path / "found.npz"
    expected = log_likelihood(model, x, samples=5, resume=file)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    rebuilt, _ = linear_gaussian.model(0.5, 1.5)
    rebuilt.decoder.trainable = False
    assert [weight.path for weight in rebuilt.weights] != [weight.path for weight in model.weights]
    for same in (loaded, rebuilt):
        np.testing.assert_array_equal(log_likelihood(same, x, samples=5, resume=file).values, expected.values)
    likelihood = kvae.VAE(model.encoder, model.decoder, kvae.GaussianLikelihood(3.0))
    networks, _ = linear_gaussian.model(0.5, 1.5)
    networks.decoder.layers[1].activation = keras.activations.tanh
    for other in (likelihood, networks):
        with pytest.raises(ValueError, match="other configuration"):
            log_likelihood(other, x, samples=5, resume=file)


@pytest.mark.parametrize(
    "same, other",
    [
        (lambda: kvae.VampPrior(3), lambda: kvae.VampPrior(3, bounds=(0.0, 2.0))),
        (lambda: kvae.FlowPrior(kvae.flows.Coupling(2)), lambda: kvae.FlowPrior(kvae.flows.Coupling(3))),
    ],
    ids=["vamp", "flow"],
)
def test_a_file_is_of_a_prior(rng, tmp_path, same, other):
    def made(prior):
        keras.utils.set_random_seed(0)
        return small_models.dense_vae(prior=prior())

    x, file = rng.random((20, 6)), tmp_path / "found.npz"
    expected = log_likelihood(made(same), x, samples=5, resume=file).values
    np.testing.assert_array_equal(log_likelihood(made(same), x, samples=5, resume=file).values, expected)
    with pytest.raises(ValueError, match=r"other.* configuration"):
        log_likelihood(made(other), x, samples=5, resume=file)


def test_bits_per_dimension_are_those_of_discrete_values(x):
    model = small_models.dense_vae(likelihood="bernoulli")
    model.decoder.layers[-2].set_weights([np.zeros((8, 6)), np.zeros(6)])
    model.encoder.layers[-1].set_weights([np.zeros((8, 2)), np.zeros(2)])
    model.encoder.layers[-2].set_weights([np.zeros((8, 2)), np.zeros(2)])
    found = log_likelihood(model, np.eye(6) > 0, samples=3)
    assert found.bits_per_dimension == pytest.approx(1)
    assert "1.0000 bits" in str(found)
    with pytest.raises(ValueError, match="density"):
        _ = log_likelihood(linear_gaussian.model()[0], x, samples=3).bits_per_dimension


@pytest.mark.parametrize(
    "arguments",
    [{"prior": kvae.VampPrior(5)}, {"posterior": kvae.posteriors.FlowPosterior(kvae.flows.Planar(2))}],
    ids=lambda arguments: next(iter(arguments)),
)
def test_a_learned_prior_and_another_posterior_are_weighed_as_they_are(rng, arguments):
    model = small_models.dense_vae(likelihood="bernoulli", **arguments)
    model.encoder.get_layer("z_log_var").set_weights([np.zeros((8, 2)), np.zeros(2)])
    x = (rng.random((3, 6)) < 0.4).astype("float32")
    conditional = model.decoder_distribution(model.prior_distribution(100_000).sample(0))
    exact = [np.log(np.mean(np.exp(conditional.log_prob(row[None])))) for row in x]
    np.testing.assert_allclose(log_likelihood(model, x, samples=20_000).values, exact, atol=0.05)


@pytest.mark.parametrize("number", [0, -3, 2.5, True])
def test_a_number_that_is_none_is_refused(x, number):
    model, _ = linear_gaussian.model()
    with pytest.raises(ValueError, match=f"samples is {number}; expected an integer of at least 1"):
        log_likelihood(model, x, number)
    with pytest.raises(ValueError, match=f"rows is {number}; expected an integer of at least 1"):
        log_likelihood(model, x, 5, rows=number)


@pytest.mark.parametrize("seed", [None, 1.5, -1])
def test_a_seed_that_is_none_is_refused(x, seed):
    model, _ = linear_gaussian.model()
    for measure in (log_likelihood, kvae.evaluation.elbo_decomposition, kvae.evaluation.report):
        with pytest.raises(ValueError, match=rf"seed is {seed}; expected an integer from 0 to 2\*\*32 - 1\."):
            measure(model, x, 5, seed=seed)
