"""What a VAE says of data: numbers, codes, samples, and what it refuses."""

import itertools

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from breadth import some, thorough
from small_models import dense_vae, dense_vae_compiled, same_weights, shared, trained

import kvae
from kvae.networks import conv_decoder, conv_encoder, dense_decoder, dense_encoder
from kvae.noise import indexed_normal
from kvae.posteriors import FullNormal


@pytest.fixture
def x(rng):
    return rng.random((100, 6)).astype("float32")


def reference(model, x, index):
    """The objective's parts with numpy and scipy, from the networks' outputs alone."""
    z_mean, z_log_var = (np.asarray(a, "float64") for a in model.encoder(x))
    z = z_mean + np.exp(z_log_var / 2) * np.asarray(indexed_normal(index, z_mean.shape[1], dtype="float64"))
    mean = np.asarray(model.decoder(z.astype("float32")), "float64")
    if isinstance(model.likelihood, kvae.BernoulliLikelihood):
        log_likelihood = scipy.stats.bernoulli(1 / (1 + np.exp(-mean))).logpmf(x)
    else:
        log_likelihood = scipy.stats.norm(mean, np.exp(float(model.likelihood.log_var) / 2)).logpdf(x)
    kl = 0.5 * (z_mean**2 + np.exp(z_log_var) - 1 - z_log_var).sum(axis=1)
    return -log_likelihood.reshape(len(x), -1).sum(axis=1), kl


@pytest.mark.parametrize(
    "likelihood, shape",
    some(
        list(itertools.product(["gaussian", "bernoulli"], [(784,), (28, 28, 1), (32, 32, 3), (50, 21)])),
        ("gaussian", (32, 32, 3)),
        ("bernoulli", (50, 21)),
    ),
)
def test_the_numbers_are_numpys_and_scipys(rng, shape, likelihood):
    x = rng.integers(0, 2, size=(30, *shape)).astype("float32")
    model = dense_vae(shape, 3, likelihood=likelihood)
    model.compile(loss=kvae.ELBO(beta=2.0), run_eagerly=True)
    reconstruction, kl = reference(model, x, np.arange(30))
    numbers = model.evaluate(x, batch_size=8, return_dict=True, verbose=0)
    expected = {
        "loss": np.mean(reconstruction + 2 * kl),
        "reconstruction_loss": reconstruction.mean(),
        "kl_loss": kl.mean(),
        "elbo": -np.mean(reconstruction + kl),
    }
    assert numbers == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("count", [thorough(500), 501])
def test_evaluation_depends_on_no_batch_size_and_repeats(rng, count):
    x = rng.random((count, 6)).astype("float32")
    model = dense_vae_compiled()
    first = model.evaluate(x, batch_size=7, return_dict=True, verbose=0)
    for batch_size in (7, 64, 500):
        again = model.evaluate(x, batch_size=batch_size, return_dict=True, verbose=0)
        assert again == pytest.approx(first, rel=1e-6)


def kinds(x):
    stream = tf.data.Dataset.from_tensor_slices
    images, labels = x.reshape(-1, 2, 3, 1), np.zeros(len(x), "int64")
    yield images
    yield {"image": images, "label": labels}
    yield stream(images).batch(32)
    yield stream((images, labels)).batch(32)
    yield stream((images, labels, np.ones(len(x)))).batch(32)
    yield stream({"image": images, "label": labels}).batch(32)


def test_all_kinds_of_data_give_the_same_numbers(rng):
    x = rng.integers(0, 256, size=(100, 6)).astype("uint8")

    def compiled():
        model = dense_vae((2, 3, 1))
        model.compile(run_eagerly=True)
        return model

    results = []
    for data in kinds(x):
        model = shared("images of three axes", compiled)
        model.fit(data, batch_size=None if isinstance(data, tf.data.Dataset) else 32, shuffle=False, verbose=0)
        # In equal batches: some processors round products of other sizes otherwise.
        results.append((model.evaluate(data, verbose=0), model.transform(data, 32), model.reconstruct(data, 32)))
    for numbers, codes, images in results:
        np.testing.assert_allclose(numbers, results[0][0], rtol=1e-6)
        np.testing.assert_array_equal(codes, results[0][1])
        np.testing.assert_array_equal(images, results[0][2])


def test_codes_and_reconstructions_are_means(x):
    model = dense_vae()
    np.testing.assert_allclose(model.transform(x), model.encoder(x)[0], atol=1e-6)
    np.testing.assert_allclose(model.inverse_transform(model.transform(x)), model.reconstruct(x), atol=1e-6)
    np.testing.assert_array_equal(model.reconstruct(x), model.reconstruct(x))
    np.testing.assert_allclose(model.predict(x, verbose=0), model.reconstruct(x), atol=1e-6)


def test_samples_come_from_the_prior_through_the_decoder():
    model = dense_vae(likelihood=kvae.GaussianLikelihood(0.01))
    means = model.sample(5000, seed=1)
    noisy = model.sample(5000, seed=1, noise=True)
    np.testing.assert_allclose((noisy - means).std(), 0.1, rtol=0.02)
    z = np.asarray(keras.random.normal((5000, 2), seed=keras.random.SeedGenerator(1)))
    np.testing.assert_allclose(means, model.inverse_transform(z), atol=1e-5)
    assert not np.array_equal(model.sample(3), model.sample(3))


def test_draws_are_scored_as_their_definitions_say(x):
    model = dense_vae()
    draw = model.draw(x, samples=4)
    assert draw.z.shape == (100, 4, 2)
    mean, log_var = (np.asarray(a)[:, None] for a in model.encoder(x))
    z = np.asarray(draw.z)
    np.testing.assert_allclose(draw.log_prior, scipy.stats.norm.logpdf(z).sum(axis=2), rtol=1e-5)
    posterior = scipy.stats.norm(mean, np.exp(log_var / 2)).logpdf(z).sum(axis=2)
    np.testing.assert_allclose(draw.log_posterior, posterior, rtol=1e-4, atol=1e-4)
    decoded = np.asarray(model.decoder(z.reshape(-1, 2))).reshape(100, 4, 6)
    likelihood = scipy.stats.norm(decoded, np.sqrt(0.05)).logpdf(x[:, None]).sum(axis=2)
    np.testing.assert_allclose(draw.log_likelihood, likelihood, rtol=1e-4, atol=1e-3)


def test_tensor_methods_scale_uint8_too(rng):
    x = rng.integers(0, 256, size=(20, 6)).astype("uint8")
    model, pca = dense_vae(), kvae.PCA(2).fit(x, verbose=0)
    index = np.arange(20)
    expected = model.draw(x / np.float32(255), index=index).elbo
    np.testing.assert_allclose(model.draw(x, index=index).elbo, expected, rtol=1e-5)
    np.testing.assert_allclose(model.posterior(x).mean, model.transform(x), atol=1e-6)
    np.testing.assert_allclose(model(x), model.reconstruct(x), atol=1e-6)
    np.testing.assert_allclose(pca.log_prob(x), pca.log_prob(x / 255))
    np.testing.assert_allclose(pca.draw(x.astype("float32") / 255).log_prior.shape, (20, 1))


def test_a_trained_model_is_exported(x, tmp_path):
    model, _ = trained(x)
    model.export(tmp_path / "exported", verbose=False)
    exported = tf.saved_model.load(str(tmp_path / "exported"))
    np.testing.assert_allclose(exported.serve(x), model.reconstruct(x), atol=1e-6)


def test_images_train_through_convolutions(rng):
    x = rng.integers(0, 256, size=(64, 8, 8, 3)).astype("uint8")
    model = kvae.VAE(conv_encoder((8, 8, 3), 2), conv_decoder((8, 8, 3), 2))
    model.compile(run_eagerly=True)
    model.fit(x, verbose=0)
    assert model.sample(3).shape == (3, 8, 8, 3)


class Halves(keras.Model):
    """A network of the user's own, which learns its input's shape when it's called."""

    def __init__(self, units):
        super().__init__()
        self.mean, self.log_var = keras.layers.Dense(units), keras.layers.Dense(units)

    def call(self, x):
        return self.mean(x), self.log_var(x)


def test_networks_of_the_users_own_serve(x):
    model = kvae.VAE(Halves(2), keras.Sequential([keras.layers.Dense(6)]))
    assert not model.built
    model.compile(run_eagerly=True)
    model.fit(x, verbose=0)
    assert model.transform(x).shape == (100, 2)
    with pytest.raises(ValueError, match=r"of shape \(5,\).*\(6,\)"):
        kvae.VAE(Halves(2), keras.Sequential([keras.layers.Dense(5)])).fit(x)


@pytest.mark.parametrize(
    "encoder, decoder, likelihood, message",
    [
        (
            dense_encoder((6,), 2),
            dense_decoder((6,), 3),
            "gaussian",
            r"decoder doesn't take inputs of shape \(None, 2\)",
        ),
        (dense_encoder((6,), 2), dense_decoder((5,), 2), "gaussian", r"1 output\(s\) of shape \(5,\).*\(6,\)"),
        (dense_encoder((6,), 2), dense_decoder((6,), 2, outputs=2), "bernoulli", r"2 output\(s\).*reads \[logits\]"),
        (
            dense_encoder((6,), 2),
            dense_decoder((6,), 2),
            kvae.GaussianLikelihood("decoder"),
            r"reads \[mean, log_var\].*outputs=2",
        ),
        (keras.Sequential([keras.Input((6,)), keras.layers.Dense(2)]), dense_decoder((6,), 2), "gaussian", "z_log_var"),
    ],
)
def test_a_bad_pair_is_refused_at_construction(encoder, decoder, likelihood, message):
    with pytest.raises(ValueError, match=message):
        kvae.VAE(encoder, decoder, likelihood)


def test_parts_of_another_kind_are_refused():
    encoder, decoder = dense_encoder((6,), 2), dense_decoder((6,), 2)
    with pytest.raises(TypeError, match="likelihood is 'mse'; expected a kvae likelihood"):
        kvae.VAE(encoder, decoder, "mse")
    with pytest.raises(TypeError, match="prior is 'normal'; expected a kvae prior"):
        kvae.VAE(encoder, decoder, prior="normal")
    with pytest.raises(TypeError, match="The decoder is NoneType; expected a Keras model"):
        kvae.VAE(encoder, None)
    for loss in ("mse", keras.losses.MeanSquaredError(), keras.losses.mean_squared_error, kvae.ELBO):
        with pytest.raises(TypeError, match=r"a VAE's is a kvae.Objective such as kvae.ELBO\(beta=1.0\)"):
            kvae.VAE(encoder, decoder).compile(loss=loss)


def test_outputs_without_an_order_are_refused():
    inputs = keras.Input((6,))
    encoder = keras.Model(inputs, {name: keras.layers.Dense(2)(inputs) for name in ("z_mean", "z_log_var")})
    with pytest.raises(ValueError, match=r"encoder gives a dict with the keys.*in the order \[z_mean, z_log_var\]"):
        kvae.VAE(encoder, dense_decoder((6,), 2))


def test_a_likelihood_of_other_images_is_refused():
    likelihood = kvae.GaussianLikelihood("pixel")
    dense_vae((1,), likelihood=likelihood)
    with pytest.raises(ValueError, match=r"likelihood was built for the shape \(1,\), the model for \(6,\)"):
        dense_vae((6,), likelihood=likelihood)


def test_a_model_that_knows_no_shape_yet_says_so():
    model = kvae.VAE(Halves(2), keras.Sequential([keras.layers.Dense(6)]))
    for call in (model.sample, lambda: model.inverse_transform(np.zeros((1, 2)))):
        with pytest.raises(ValueError, match="doesn't know its images' shape yet: call fit, or build"):
            call()


def test_a_nan_in_the_validation_data_is_said_to_be_there(x):
    bad = np.where(np.arange(100)[:, None] == 60, np.nan, x)
    model = dense_vae_compiled()
    with pytest.raises(ValueError, match="validation_data has NaN or infinite values in batch 2"):
        model.fit(x, validation_data=tf.data.Dataset.from_tensor_slices(bad).batch(25), verbose=0)


@pytest.mark.parametrize("method", ["fit", "evaluate", "transform", "reconstruct"])
@pytest.mark.parametrize(
    "change, message",
    [
        (lambda x: np.where(x > 0.9, np.nan, x), "x has NaN or infinite values"),
        (lambda x: x[:0], "x is empty"),
        (lambda x: (x > 0.5).astype("uint8"), "uint8 and holds 0 and 1 alone.*give it as bool or float"),
        (lambda x: x[:, :5], r"x has the shape .*but the model takes \(n, 6\)"),
        (lambda x: tf.data.Dataset.from_tensor_slices(x), "call .batch"),
        (lambda x: tf.data.Dataset.from_tensor_slices(x).batch(8).repeat(), "endless stream"),
        (lambda x: tf.data.Dataset.from_tensor_slices(x).batch(8).filter(lambda b: False), "x is empty"),
    ],
)
def test_bad_data_are_refused_before_any_work(x, method, change, message):
    model = dense_vae_compiled()
    before = model.get_weights()
    with pytest.raises(ValueError, match=message):
        getattr(model, method)(change(x))
    assert same_weights(before, model)


def test_a_nan_deep_in_a_stream_is_one_clear_error(x):
    x = x.copy()
    x[60, 3] = np.nan
    model = dense_vae_compiled()
    with pytest.raises(ValueError, match=r"NaN or infinite values in batch 2 \(row 10 of it, from 0 on\)") as error:
        model.evaluate(tf.data.Dataset.from_tensor_slices(x).batch(25), verbose=0)
    assert len(str(error.value)) < 300


def test_values_the_likelihood_cannot_score_are_refused(x):
    model = dense_vae(likelihood="bernoulli")
    model.compile(run_eagerly=True)
    with pytest.raises(ValueError, match=r"BernoulliLikelihood expects values in \[0, 1\]"):
        model.fit(255 * x)
    with pytest.warns(UserWarning, match="grey"):
        model.fit(x, verbose=0)


def test_old_names_work_with_a_warning():
    encoder, decoder = dense_encoder((6,), 2, posterior_family=FullNormal()), dense_decoder((6,), 2)
    with pytest.warns(DeprecationWarning, match="posterior= is now posterior_family="):
        model = kvae.VAE(encoder, decoder, posterior=FullNormal())
    assert isinstance(model.posterior_family, FullNormal)
    x, z = np.ones((3, 6), "float32"), np.ones((3, 2), "float32")
    with pytest.warns(DeprecationWarning, match=r"VAE.conditional is now VAE.decoder_distribution"):
        np.testing.assert_array_equal(model.conditional(z).mean, model.decoder_distribution(z).mean)
    with pytest.warns(DeprecationWarning, match=r"VAE.log_conditional is now VAE.log_likelihood"):
        np.testing.assert_array_equal(model.log_conditional(x, z), model.log_likelihood(x, z))
    with pytest.raises(TypeError, match="posterior and posterior_family are both given"):
        kvae.VAE(encoder, decoder, posterior=FullNormal(), posterior_family=FullNormal())
