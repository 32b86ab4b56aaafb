"""Models of rows with gaps: log p of the observed values, and what stands in the gaps."""

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from breadth import some, thorough
from small_models import shared

import kvae
from kvae.models import scoring
from kvae.models.bootstrap import exponential_weights
from kvae.networks import conv_encoder, dense_decoder, dense_encoder

FEATURES, LATENTS, NOISE = 8, 2, 0.3
OBSERVED = np.array([1, 1, 0, 1, 0, 1, 1, 0], bool)


def holed(rng, x, share=0.3):
    return np.where(rng.random(x.shape) < share, np.nan, x)


def made(rng, rows=300):
    """Rows of a linear model, float64, and the same with gaps."""
    x = rng.normal(size=(rows, 3)) @ rng.normal(size=(3, FEATURES)) + 0.5 * rng.normal(size=(rows, FEATURES)) + 2.0
    return x, holed(rng, x)


def vae(missing=True, reads_mask=False, likelihood="gaussian", **options):
    return kvae.VAE(
        dense_encoder((FEATURES,), LATENTS, hidden=(6,), missing=reads_mask),
        dense_decoder((FEATURES,), LATENTS, hidden=(6,)),
        likelihood,
        seed=0,
        missing=missing,
        **options,
    )


def compiled(missing, loss=None, **options):
    model = vae(missing, **options)
    model.compile(keras.optimizers.Adam(1e-2), loss=loss)
    return model


def linear(observed=OBSERVED):
    """(VAE, mean and covariance of x): linear, and q(z|x) is p(z|x observed) for rows with these values observed."""
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(FEATURES, LATENTS))
    weights[observed] = np.linalg.qr(weights[observed])[0] * [1.5, 0.8]
    bias = rng.normal(size=FEATURES)
    model = kvae.VAE(
        dense_encoder((FEATURES,), LATENTS, hidden=()),
        dense_decoder((FEATURES,), LATENTS, hidden=()),
        kvae.GaussianLikelihood(NOISE),
        seed=0,
        missing=True,
    )
    seen = weights * observed[:, None]
    precision = np.diag(seen.T @ seen / NOISE + np.eye(LATENTS))
    projection = seen / precision / NOISE
    model.encoder.get_layer("z_mean").set_weights([projection, -bias @ projection])
    model.encoder.get_layer("z_log_var").set_weights([np.zeros((FEATURES, LATENTS)), -np.log(precision)])
    model.decoder.layers[1].set_weights([weights.T, bias])
    return model, bias, weights @ weights.T + NOISE * np.eye(FEATURES)


def conditional(mean, covariance, x, observed=OBSERVED):
    """(mean, covariance) of the values that aren't observed given the others, of a normal."""
    inside, across = covariance[np.ix_(observed, observed)], covariance[np.ix_(~observed, observed)]
    gain = across @ np.linalg.inv(inside)
    rest = covariance[np.ix_(~observed, ~observed)] - gain @ across.T
    return mean[~observed] + (x[:, observed] - mean[observed]) @ gain.T, rest


# VAE ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "loss", some({"ELBO": kvae.ELBO, "IWAE": lambda: kvae.IWAE(3, gradient="doubly_reparameterized")}, "ELBO")
)
def test_on_complete_data_the_weights_are_those_without_missing_to_the_bit(rng, loss):
    x = made(rng)[0].astype("float32")
    weights = []
    for missing in (False, True):
        model = shared(("gaps", missing, loss), lambda missing=missing: compiled(missing, loss()))
        model.fit(x, epochs=2, verbose=0)
        weights.append([w.numpy() for w in model.weights if w.name not in ("fill", "counts")])
    assert all(np.array_equal(a, b) for a, b in zip(*weights, strict=True))


def test_log_p_of_x_given_z_is_scipys_of_the_observed_values(rng):
    x = made(rng, 20)[1].astype("float32")
    model = vae()
    z = rng.normal(size=(20, LATENTS)).astype("float32")
    mean, scale = np.asarray(model.decoder(z)), np.exp(float(model.likelihood.log_var) / 2)
    expected = np.nansum(scipy.stats.norm(mean, scale).logpdf(x), axis=1)
    np.testing.assert_allclose(model.log_likelihood(x, z), expected, rtol=1e-5)


def test_the_log_likelihood_of_a_row_is_that_of_its_observed_values(rng):
    """q(z|x) is exact, so that every draw gives log p(x observed)."""
    model, mean, covariance = linear()
    x = rng.multivariate_normal(mean, covariance, size=30).astype("float32")
    expected = scipy.stats.multivariate_normal(mean[OBSERVED], covariance[np.ix_(OBSERVED, OBSERVED)]).logpdf(
        x[:, OBSERVED]
    )
    x[:, ~OBSERVED] = np.nan
    model.fill_in.fill.assign(100 * rng.normal(size=FEATURES))  # an exact encoder reads no gap
    found = kvae.evaluation.log_likelihood(model, x, samples=3, verbose=0)
    np.testing.assert_allclose(found.bounds, np.repeat(expected[:, None], 3, axis=1), rtol=1e-4, atol=1e-4)
    scores, errors = model.score_samples(x, samples=3, return_std=True)
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)
    assert np.all(errors < 1e-3)


@pytest.mark.parametrize("samples, error", [(100_000, 0.006), thorough(2_000_000, 1e-3)])
def test_imputed_values_have_the_closed_forms_mean_and_covariance(rng, samples, error):
    model, mean, covariance = linear()
    x = rng.multivariate_normal(mean, covariance, size=2).astype("float32")
    expected, rest = conditional(mean, covariance, x)
    x[:, ~OBSERVED] = np.nan
    found = model.impute(x, draws=4000, samples=samples)
    np.testing.assert_allclose(found.mean[:, ~OBSERVED], expected, atol=error)
    np.testing.assert_allclose(np.square(found.stddev[:, ~OBSERVED]), np.tile(np.diag(rest), (2, 1)), atol=error)
    assert np.array_equal(found.mean[:, OBSERVED], x[:, OBSERVED]) and not found.stddev[:, OBSERVED].any()
    np.testing.assert_allclose(found.effective_samples, samples, rtol=1e-3)
    for row in (0, 1):
        np.testing.assert_allclose(np.cov(found.draws[:, row, ~OBSERVED].T), rest, atol=0.12)


def test_weights_mend_an_encoder_that_knows_nothing(rng):
    model, mean, covariance = linear()
    for layer, value in (("z_mean", 0.0), ("z_log_var", 0.2)):
        kernel, bias = model.encoder.get_layer(layer).get_weights()
        model.encoder.get_layer(layer).set_weights([kernel * 0, bias * 0 + value])
    x = holed(rng, rng.multivariate_normal(mean, covariance, size=6), 0.5).astype("float32")
    found = model.impute(x, samples=100_000)
    for row in range(6):
        observed = ~np.isnan(x[row])
        expected, rest = conditional(mean, covariance, np.nan_to_num(x[row : row + 1]), observed)
        np.testing.assert_allclose(found.mean[row, ~observed], expected[0], atol=0.03)
        np.testing.assert_allclose(found.stddev[row, ~observed], np.sqrt(np.diag(rest)), atol=0.03)
    assert np.all(found.effective_samples < 99_000)


@pytest.mark.parametrize(
    "likelihood, data",
    some(
        {
            "bernoulli": ("bernoulli", lambda rng, *shape: rng.integers(0, 2, shape)),
            "poisson": ("poisson", lambda rng, *shape: rng.poisson(3, shape)),
            "categorical": (kvae.CategoricalLikelihood(5), lambda rng, *shape: rng.integers(0, 5, shape) / 4),
            "continuous": ("continuous_bernoulli", lambda rng, *shape: rng.random(shape)),
        },
        "poisson",
    ),
)
def test_every_likelihood_trains_scores_and_fills(rng, likelihood, data):
    x = holed(rng, data(rng, 64, FEATURES)).astype("float32")
    likelihood = kvae.likelihoods.get(likelihood)
    model = kvae.VAE(
        dense_encoder((FEATURES,), LATENTS, hidden=(6,), missing=True),
        dense_decoder(likelihood.decoder_shape((FEATURES,)), LATENTS, hidden=(6,)),
        likelihood,
        seed=0,
        missing=True,
    )
    model.compile(keras.optimizers.Adam(1e-2), run_eagerly=True)
    history = model.fit(x, epochs=2, verbose=0).history["loss"]
    assert history[1] < history[0]
    found = model.impute(x, draws=3, samples=50)
    assert np.all(model.likelihood.supports(found.draws.reshape(-1, FEATURES)))
    assert np.all(np.isfinite(found.mean)) and np.all(found.stddev[np.isnan(x)] > 0)


def test_an_encoder_may_read_the_mask_and_is_saved_with_the_fill_in(rng, tmp_path):
    x = made(rng)[1].astype("float32")
    model = shared("gaps, mask", lambda: compiled(True, reads_mask=True))
    model.fit(x, epochs=1, verbose=0)
    np.testing.assert_allclose(model.fill_in.fill, np.nanmean(x, axis=0), rtol=1e-5)
    assert np.array_equal(model.fill_in.counts, (~np.isnan(x)).sum(axis=0))
    moved, filled = x.copy(), np.where(np.isnan(x), model.fill_in.fill.numpy(), x)
    moved[0, 0] = filled[0, 0]
    assert np.isnan(x[0]).any()
    assert not np.allclose(model.transform(filled), model.transform(x), atol=1e-4)  # it reads the mask
    model.save(tmp_path / "model.keras")
    loaded = kvae.load(tmp_path / "model.keras")
    assert np.array_equal(loaded.score_samples(x, samples=5), model.score_samples(x, samples=5))


def test_images_with_gaps_are_read_with_their_mask(rng):
    x = holed(rng, rng.random((8, 8, 9, 2))).astype("float32")
    encoder = conv_encoder((8, 9, 2), 2, filters=(4,), units=4, missing=True)
    model = kvae.VAE(encoder, dense_decoder((8, 9, 2), 2, hidden=(4,)), seed=0, missing=True)
    model.compile(run_eagerly=True)
    assert np.isfinite(model.fit(x, verbose=0).history["loss"][0])
    assert model.impute(x, samples=5).mean.shape == x.shape


def test_a_row_without_values_has_log_p_0_and_the_models_mean(rng):
    x = np.full((3, FEATURES), np.nan, "float32")
    x[1] = rng.normal(size=FEATURES)
    for model in (linear()[0], kvae.PCA(2, missing=True).fit(made(rng)[1], verbose=0)):
        scores, errors = model.score_samples(x, samples=20, return_std=True)
        assert scores[0] == scores[2] == 0 and scores[1] < 0 and errors[0] == 0
        found = model.impute(x, samples=40_000)
        mean = linear()[1] if isinstance(model, kvae.VAE) else np.asarray(model.mean)
        np.testing.assert_allclose(found.mean[[0, 2]], np.tile(mean, (2, 1)), atol=0.03)
        assert kvae.evaluation.log_likelihood(model, x, samples=5, verbose=0).values[0] == 0


def test_scores_and_means_depend_on_no_batches(rng):
    x, model = made(rng, 90)[1].astype("float32"), vae()
    scores, filled = model.score_samples(x, samples=30), model.impute(x, samples=30)
    stream = tf.data.Dataset.from_tensor_slices(x).batch(13)
    for data, batch_size in ((x, 7), (stream, 256), (kvae.data.arrays.from_arrays((x,), 16), 256)):
        np.testing.assert_allclose(model.score_samples(data, samples=30, batch_size=batch_size), scores, atol=1e-5)
        again = model.impute(data, samples=30, batch_size=batch_size)
        np.testing.assert_allclose(again.mean, filled.mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(again.stddev, filled.stddev, rtol=1e-4, atol=1e-5)


def test_gaps_are_packed_and_scored_in_the_datas_own_order(rng, tmp_path):
    x, model = made(rng, 90)[1].astype("float32"), vae()
    with pytest.raises(ValueError, match="NaN or infinite"):
        kvae.data.pack(x, tmp_path / "refused")
    kvae.data.pack(x, tmp_path / "packed", missing=True)
    train = kvae.data.load(tmp_path / "packed", 16, validation=0)[0]
    first = next(iter(train))
    assert not np.array_equal(first, x[:16], equal_nan=True)  # shuffled
    np.testing.assert_allclose(model.score_samples(train, samples=10), model.score_samples(x, samples=10), atol=1e-5)


def test_what_is_refused_is_told(rng):
    x = made(rng)[1].astype("float32")
    model = compiled(False)
    with pytest.raises(ValueError, match=r"NaN or infinite values, first in example .*missing=True"):
        model.fit(x, verbose=0)
    with pytest.raises(ValueError, match="make it with missing=True"):
        model.impute(x)
    infinite = x.copy()
    infinite[7, 1] = np.inf
    for data in (infinite, tf.data.Dataset.from_tensor_slices(infinite).batch(4)):
        with pytest.raises(ValueError, match="has infinite values"):
            vae().score_samples(data)
    with pytest.raises(ValueError, match="Autoencoder takes no missing"):
        kvae.Autoencoder(dense_encoder((4,), 2), dense_decoder((4,), 2), missing=True)

    class Whole(kvae.GaussianLikelihood):
        def distribution(self, outputs):
            zeros = tf.zeros_like(outputs[0])
            return kvae.distributions.MultivariateNormal(outputs[0], zeros, tf.linalg.diag(zeros))

    with pytest.raises(ValueError, match="Whole doesn't factorize over the values of x"):
        vae(likelihood=Whole())
    with pytest.raises(TypeError, match="has no p"):
        kvae.Autoencoder(dense_encoder((4,), 2), dense_decoder((4,), 2)).impute(x)


def test_a_column_without_values_is_told(rng):
    x = made(rng)[1].astype("float32")
    x[:, 3] = np.nan
    model = vae()
    model.compile(run_eagerly=True)
    with pytest.warns(UserWarning, match=r"no value at all in 1 of its 8 columns \(3\)"):
        model.fit(x, verbose=0)
    with pytest.warns(UserWarning, match=r"no value at all in 1 of its 8 columns \(3\)"):
        pca = kvae.PCA(2, missing=True).fit(x, verbose=0)
    assert np.allclose(pca.impute(x).mean[:, 3], 0.0)


@pytest.mark.thorough
def test_two_replicas_train_to_the_weights_of_one(strategy, rng):
    x = made(rng, 100)[1].astype("float32")
    found = []
    for where in (strategy, tf.distribute.get_strategy()):
        keras.utils.set_random_seed(0)
        with where.scope():
            model = compiled(True)
        model.fit(x, epochs=2, batch_size=20, shuffle=False, verbose=0)
        found.append(model.get_weights())
    for v, w in zip(*found, strict=True):
        np.testing.assert_allclose(v, w, atol=1e-5)


# PCA ------------------------------------------------------------------------------------------------------------------


def test_a_pca_of_complete_rows_is_the_one_without_missing_to_the_bit(rng):
    x = made(rng)[0]
    one, other = (kvae.PCA(2, missing=missing).fit(x, verbose=0) for missing in (False, True))
    assert all(np.array_equal(a, b) for a, b in zip(one.get_weights(), other.get_weights(), strict=True))
    for method in ("transform", "reconstruct", "score_samples"):
        np.testing.assert_allclose(getattr(other, method)(x), getattr(one, method)(x), rtol=1e-8, atol=1e-10)


def normal_of(pca):
    loadings = np.asarray(pca._loadings)
    return np.asarray(pca.mean), loadings @ loadings.T + float(pca.noise_variance) * np.eye(len(loadings))


def test_a_pcas_density_and_its_filled_values_are_a_normals(rng):
    x, gaps = made(rng)
    pca = kvae.PCA(2, missing=True).fit(gaps, verbose=0)
    mean, covariance = normal_of(pca)
    found, scores = pca.impute(gaps, draws=300), pca.score_samples(gaps)
    for row in range(20):
        observed = ~np.isnan(gaps[row])
        part = scipy.stats.multivariate_normal(mean[observed], covariance[np.ix_(observed, observed)])
        np.testing.assert_allclose(scores[row], part.logpdf(gaps[row, observed]), rtol=1e-9)
        expected, rest = conditional(mean, covariance, gaps[row : row + 1], observed)
        np.testing.assert_allclose(found.mean[row, ~observed], expected[0], rtol=1e-9)
        np.testing.assert_allclose(found.stddev[row, ~observed], np.sqrt(np.diag(rest)), rtol=1e-9)
    numbers = pca.evaluate(gaps, return_dict=True, verbose=0)
    np.testing.assert_allclose(numbers["log_likelihood"], scores.mean())
    draw = pca.draw(tf.constant(gaps), samples=4)
    np.testing.assert_allclose(draw.log_weights, np.repeat(scores[:, None], 4, axis=1), rtol=1e-8)
    low, high = np.quantile(found.draws, [0.05, 0.95], axis=0)
    assert 0.86 < np.mean(((low <= x) & (x <= high))[np.isnan(gaps)]) < 0.94


def test_expectation_maximization_ends_at_a_maximum(rng):
    gaps = made(rng, 120)[1]
    pca = kvae.PCA(2, missing=True, tolerance=1e-9, max_passes=2000).fit(gaps, verbose=0)
    best = np.mean(pca.log_prob(gaps))
    start = pca.get_weights()
    for weight in (pca.mean, pca.explained_variance, pca.noise_variance):
        for change in (0.98, 1.02):
            weight.assign(weight * change)
            assert np.mean(pca.log_prob(gaps)) < best
            pca.set_weights(start)
    turned = np.linalg.qr(np.asarray(pca.components).T + 0.03 * rng.normal(size=(FEATURES, 2)))[0].T
    pca.components.assign(turned)
    assert np.mean(pca.log_prob(gaps)) < best
    early = kvae.PCA(2, missing=True).fit(gaps, verbose=0)
    assert best - 0.05 < np.mean(early.log_prob(gaps)) <= best


def test_a_single_gap_moves_the_axes_hardly(rng):
    x = made(rng, 2000)[0]
    gaps = x.copy()
    gaps[5, 2] = np.nan
    one, other = kvae.PCA(2).fit(x, verbose=0), kvae.PCA(2, missing=True, tolerance=1e-8).fit(gaps, verbose=0)
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0.02, atol=0.02)


def test_streams_batches_and_weights_give_the_same_axes(rng):
    gaps = made(rng)[1]
    twice = np.concatenate([gaps, gaps[:100]])
    expected = kvae.PCA(2, missing=True, seed=0).fit(twice, verbose=0).get_weights()[:4]
    weights = np.ones(300)
    weights[:100] = 2
    stream = tf.data.Dataset.from_tensor_slices(twice).batch(31)
    for fitted in (
        kvae.PCA(2, missing=True, seed=0).fit(stream, verbose=0),
        kvae.PCA(2, missing=True, seed=0).fit(gaps, sample_weight=weights, verbose=0),
    ):
        for a, b in zip(fitted.get_weights()[:4], expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8)


def test_a_fit_that_needs_more_passes_says_so(rng):
    with pytest.warns(UserWarning, match="give a larger max_passes"):
        kvae.PCA(2, missing=True, max_passes=2, tolerance=0.0).fit(made(rng)[1], verbose=0)


def test_bootstraps_are_fits_with_the_same_weights_in_every_pass(rng, tmp_path):
    x = made(rng)[0]
    weights = exponential_weights(x, 3)
    assert scipy.stats.kstest(exponential_weights(rng.normal(size=(20_000, 2)), 0), "expon").pvalue > 0.01
    order = rng.permutation(len(x))
    assert np.array_equal(exponential_weights(x[order], 3), weights[order])
    assert np.array_equal(
        exponential_weights(np.full((2, 3), -np.nan), 1), exponential_weights(np.full((2, 3), np.nan), 1)
    )
    pca = kvae.PCA(2, missing=True, bootstraps=20, seed=0).fit(x, verbose=0)
    means = np.array([mean for mean, *_ in pca._parameters()])
    np.testing.assert_allclose(means.mean(axis=0), x.mean(axis=0), atol=4 * x.std() / np.sqrt(20 * len(x)))
    np.testing.assert_allclose(means.std(axis=0), x.std(axis=0) / np.sqrt(len(x)), rtol=0.5)
    gaps = holed(rng, x)
    one, batches = (
        kvae.PCA(2, missing=True, bootstraps=1, seed=0).fit(data, verbose=0)
        for data in (gaps, tf.data.Dataset.from_tensor_slices(gaps).batch(50))
    )
    for a, b in zip(one._bootstraps, batches._bootstraps, strict=True):
        np.testing.assert_allclose(np.abs(a), np.abs(b), rtol=1e-6, atol=1e-8)
    one.save(tmp_path / "pca.keras")
    assert np.array_equal(kvae.load(tmp_path / "pca.keras").impute(gaps, 3).draws, one.impute(gaps, 3).draws)


@pytest.mark.thorough
def test_the_weights_of_a_shuffled_dataset_are_those_of_the_rows(rng):
    gaps = made(rng)[1]
    one, other = (
        kvae.PCA(2, missing=True, bootstraps=1, seed=0).fit(
            tf.data.Dataset.from_tensor_slices(gaps).shuffle(len(gaps), seed=seed).batch(50), verbose=0
        )
        for seed in (1, 2)
    )
    for a, b in zip(one._bootstraps, other._bootstraps, strict=True):
        np.testing.assert_allclose(np.abs(a), np.abs(b), rtol=1e-6, atol=1e-8)


def test_equal_rows_have_weights_of_their_own(rng):
    x = (rng.random((1_000, 3)) < 0.5).astype("float32")
    x[::7, 0] = np.nan
    pca = kvae.PCA(1, missing=True, bootstraps=20, seed=0).fit(x, verbose=0)
    means = np.array([mean for mean, *_ in pca._parameters()])
    np.testing.assert_allclose(means.std(axis=0), 0.5 / np.sqrt(1_000), rtol=0.6)


def test_filled_values_are_those_of_the_bootstraps_mixture(rng):
    gaps = made(rng, 60)[1]
    pca = kvae.PCA(2, missing=True, bootstraps=3, seed=0).fit(gaps, verbose=0)
    plain = kvae.PCA(2, missing=True, seed=0).fit(gaps, verbose=0)
    assert np.array_equal(pca.score_samples(gaps), plain.score_samples(gaps))
    found = pca.impute(gaps, draws=600, batch_size=7)
    np.testing.assert_allclose(found.stddev, pca.impute(gaps).stddev, rtol=1e-9)
    for row in range(10):
        observed, moments = ~np.isnan(gaps[row]), []
        for parameters in pca._parameters():
            mean, loadings, noise = map(np.asarray, parameters)
            covariance = loadings @ loadings.T + noise * np.eye(FEATURES)
            expected, rest = conditional(mean, covariance, gaps[row : row + 1], observed)
            moments.append((expected[0], np.diag(rest)))
        means, variances = map(np.array, zip(*moments, strict=True))
        variance = variances.mean(axis=0) + means.var(axis=0)
        np.testing.assert_allclose(found.mean[row, ~observed], means.mean(axis=0), rtol=1e-9)
        np.testing.assert_allclose(found.stddev[row, ~observed], np.sqrt(variance), rtol=1e-9)
        error = np.abs(found.draws[:, row, ~observed].mean(axis=0) - means.mean(axis=0))
        assert np.all(error < 5 * np.sqrt(variance / 600))
    with pytest.warns(UserWarning, match="after a fit to 60 rows, so that intervals are too narrow.*bootstraps=20"):
        plain.impute(gaps, draws=2)
    with pytest.raises(ValueError, match="bootstraps is 2, which `impute` alone reads: make the PCA with missing=True"):
        kvae.PCA(2, bootstraps=2)


# Scores ---------------------------------------------------------------------------------------------------------------


def test_scores_are_log_p_or_minus_the_squared_error(rng, tmp_path, monkeypatch):
    x = made(rng, 50)[0].astype("float32")
    autoencoder = kvae.Autoencoder(dense_encoder((FEATURES,), 2, hidden=()), dense_decoder((FEATURES,), 2, hidden=()))
    expected = -np.square(x - autoencoder.reconstruct(x)).sum(axis=1)
    np.testing.assert_allclose(autoencoder.score_samples(x), expected, rtol=1e-5)
    model = vae(False)
    result = kvae.evaluation.log_likelihood(model, x, samples=40, verbose=0)
    scores, errors = model.score_samples(x, samples=40, return_std=True)
    expected = np.sqrt((1 / result.effective_samples - 1 / 40) * 40 / 39)
    np.testing.assert_allclose((scores[0], errors[0]), (result.values[0], expected[0]), rtol=1e-3)  # of the same noise
    np.testing.assert_allclose(model.score_samples(x[::-1], samples=40)[::-1], scores, atol=1e-5)
    monkeypatch.setattr(scoring, "_GROUPED", 20)
    np.testing.assert_allclose(model.score_samples(x, samples=40, batch_size=8), scores, atol=1e-5)
    labels = np.arange(50)
    model.score_samples((x, labels), samples=40, batch_size=8, directory=tmp_path / "scores")
    stored, y = next(iter(kvae.data.load(tmp_path / "scores", 50, labels=("label",), shuffle=0, validation=0)[0]))
    np.testing.assert_allclose(stored, scores, atol=1e-5)
    assert np.array_equal(y["label"], labels)


def test_rows_of_a_stream_that_tf_data_shuffles_have_an_order_of_their_own(rng):
    stream = tf.data.Dataset.from_tensor_slices(made(rng, 40)[0]).shuffle(40).batch(8)
    with pytest.warns(UserWarning, match="shuffled by tf.data"):
        kvae.PCA(2).fit(stream, verbose=0).score_samples(stream)


@pytest.mark.filterwarnings("ignore:x has no value at all")
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[1, np.nan, 3]], "x has 1 examples; 1 axes need more"),
        (
            [[0.1, np.nan, 0.6, np.nan, -0.5, 0.4], [np.nan, 0.9, np.nan, np.nan, -0.6, 0]],
            "too few values beside its gaps for 1 axes: give more varied",
        ),
        ([[3, np.nan, 3]] * 5 + [[3, 3, 3]] * 5, "x has no variance beside its gaps.*give more varied examples"),
    ],
)
def test_rows_that_say_too_little_for_a_pca_are_told(values, message):
    with pytest.raises(ValueError, match=message):
        kvae.PCA(1, missing=True).fit(np.array(values, "float32"), verbose=0)
