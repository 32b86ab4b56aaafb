import itertools
import tracemalloc

import keras
import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import sklearn.decomposition
import tensorflow as tf
from breadth import some

import kvae
from kvae.models import pca_solvers


def made(rng):
    return rng.normal(size=(500, 4)) @ rng.normal(size=(4, 12)) + 0.3 * rng.normal(size=(500, 12)) + 5.0


@pytest.fixture
def x(rng):
    return made(rng)


@pytest.fixture(scope="module")
def pca():
    """Of the same x in each test, which all leave it as it is."""
    return kvae.PCA(3).fit(made(np.random.default_rng(0)), verbose=0)


def test_it_is_scikit_learns(x, pca):
    ours = pca
    theirs = sklearn.decomposition.PCA(3, svd_solver="full").fit(x)
    signs = np.sign(np.sum(np.asarray(ours.components) * theirs.components_, axis=1))
    np.testing.assert_allclose(np.asarray(ours.components) * signs[:, None], theirs.components_, atol=1e-10)
    np.testing.assert_allclose(np.asarray(ours.explained_variance) * 500 / 499, theirs.explained_variance_)
    np.testing.assert_allclose(ours.noise_variance * 500 / 499, theirs.noise_variance_)
    np.testing.assert_allclose(ours.transform(x) * signs, theirs.transform(x), atol=1e-9)
    np.testing.assert_allclose(ours.reconstruct(x), theirs.inverse_transform(theirs.transform(x)), atol=1e-9)
    np.testing.assert_allclose(ours.inverse_transform(ours.transform(x)), ours.reconstruct(x))


def test_its_density_is_a_normals_of_maximum_likelihood(x, pca):
    components, variances = np.asarray(pca.components), np.asarray(pca.explained_variance)
    noise = float(pca.noise_variance)
    covariance = components.T @ np.diag(variances - noise) @ components + noise * np.eye(12)
    expected = scipy.stats.multivariate_normal(np.asarray(pca.mean), covariance).logpdf(x)
    np.testing.assert_allclose(pca.log_prob(x), expected)
    numbers = pca.evaluate(x, return_dict=True, verbose=0)
    np.testing.assert_allclose(numbers["log_likelihood"], expected.mean())
    np.testing.assert_allclose(numbers["loss"], -expected.mean())
    error = np.square(x - pca.reconstruct(x)).sum(axis=1).mean()
    np.testing.assert_allclose(numbers["squared_error"], error)
    np.testing.assert_allclose(kvae.evaluation.squared_error(pca, x), error)


def test_every_draw_from_the_exact_posterior_bounds_with_equality(x, pca):
    draw = pca.draw(tf.constant(x), samples=20)
    weights = draw.log_likelihood + draw.log_prior - draw.log_posterior
    np.testing.assert_allclose(weights, np.repeat(pca.log_prob(x)[:, None], 20, axis=1), rtol=1e-10)


def test_the_bound_is_log_p_of_x_with_the_closed_form_kl(x, pca):
    draw = pca.draw(tf.constant(x[:100]), samples=3000)
    np.testing.assert_allclose(np.mean(draw.elbo), np.mean(pca.log_prob(x[:100])), atol=0.01)


def test_streams_and_arrays_give_the_same(x, pca):
    for batch_size in (7, 64, 500):
        stream = tf.data.Dataset.from_tensor_slices((x, np.zeros(500))).shuffle(500, seed=1).batch(batch_size)
        np.testing.assert_allclose(kvae.PCA(3).fit(stream, verbose=0).components, pca.components, atol=1e-9)


def test_many_features_take_the_iterative_solver_to_the_same_axes(x, pca, monkeypatch):
    monkeypatch.setattr(pca_solvers, "_DENSE_FEATURES", 0)
    iterative = kvae.PCA(3).fit(x, verbose=0)
    np.testing.assert_allclose(iterative.components, pca.components, atol=1e-8)
    np.testing.assert_allclose(iterative.explained_variance, pca.explained_variance)


def test_rows_that_sum_to_zero_do_not_stop_the_iterative_solver(rng, monkeypatch):
    x = rng.integers(-3, 4, size=(512, 11)) * np.arange(1.0, 12.0)
    x = np.c_[x, -x.sum(axis=1)]  # exact: a start from ones would be mapped to nothing
    dense = kvae.PCA(3).fit(x, verbose=0)
    monkeypatch.setattr(pca_solvers, "_DENSE_FEATURES", 0)
    np.testing.assert_allclose(kvae.PCA(3).fit(x, verbose=0).components, dense.components, atol=1e-8)


def decaying(rng, power, features=300, examples=900):
    """Rows whose covariance has the eigenvalues i^-power, about, and a mean far from zero."""
    scales = np.arange(1.0, features + 1) ** (-power / 2)
    turn = np.linalg.qr(rng.normal(size=(features, features)))[0]
    return rng.normal(size=(examples, features)) * scales @ turn + 30.0


@pytest.mark.parametrize(
    "latent_dim, power", some(list(itertools.product([2, 10], [0.25, 0.5, 1, 2])), (2, 0.5), (10, 2))
)
def test_the_randomized_solver_is_scikit_learns_full_one_within_its_tolerance(rng, power, latent_dim):
    x = decaying(rng, power)
    ours = kvae.PCA(latent_dim, seed=0, solver="randomized").fit(x, verbose=0)
    theirs = sklearn.decomposition.PCA(latent_dim, svd_solver="full").fit(x)
    np.testing.assert_allclose(ours.mean, theirs.mean_, rtol=1e-12)
    components, variances = np.asarray(ours.components), np.asarray(ours.explained_variance)
    np.testing.assert_allclose(components @ components.T, np.eye(latent_dim), atol=1e-12)
    np.testing.assert_allclose(np.var(x @ components.T, axis=0), variances, rtol=1e-10)  # of the data, not estimates
    short = 1 - variances.sum() * 900 / 899 / theirs.explained_variance_.sum()
    assert -1e-12 < short < 1e-5
    np.testing.assert_allclose(ours.noise_variance * 900 / 899, theirs.noise_variance_, rtol=1e-5)
    np.testing.assert_allclose(np.mean(ours.log_prob(x)), np.mean(kvae.PCA(latent_dim).fit(x, verbose=0).log_prob(x)))


def test_a_part_of_a_stream_gives_scikit_learns_pca_of_those_rows(rng):
    x = decaying(rng, 1)
    stream = tf.data.Dataset.from_tensor_slices(x).batch(100)
    full = sklearn.decomposition.PCA(5, svd_solver="full").fit(x[:500]).explained_variance_.sum() * 499 / 500
    incremental = sklearn.decomposition.IncrementalPCA(5, batch_size=100).fit(x[:500])
    theirs = np.var(incremental.transform(x[:500]), axis=0).sum()
    for solver, error in ("covariance", 1e-12), ("randomized", 1e-5):
        ours = np.asarray(kvae.PCA(5, seed=0, solver=solver).fit(stream.take(5), verbose=0).explained_variance).sum()
        assert abs(1 - ours / full) < error < 1 - theirs / full


def test_the_randomized_solvers_passes_may_be_shuffled_and_repeat_by_seed(rng):
    x = decaying(rng, 1)
    shuffled = tf.data.Dataset.from_tensor_slices((x, np.zeros(900))).shuffle(900, seed=1).batch(70)
    fits = [
        kvae.PCA(4, seed=seed, solver="randomized").fit(data, verbose=0)
        for seed, data in ((0, x), (0, shuffled), (0, x), (1, x))
    ]
    np.testing.assert_allclose(fits[1].components, fits[0].components, atol=1e-9)
    np.testing.assert_array_equal(fits[2].components, fits[0].components)
    assert np.abs(fits[3].components - fits[0].components).max() > 1e-9
    np.testing.assert_allclose(fits[3].components, fits[0].components, atol=1e-2)


def counted(x, batch_size=100, lengths=None):
    """A stream of x and the list of its passes; pass i has lengths[i] rows, else all."""
    passes = []

    def rows():
        passes.append(len(x) if lengths is None else lengths[min(len(passes), len(lengths) - 1)])
        yield from (x[start : start + batch_size] for start in range(0, passes[-1], batch_size))

    return tf.data.Dataset.from_generator(rows, output_signature=tf.TensorSpec((None, x.shape[1]), x.dtype)), passes


def test_the_randomized_solver_stops_where_a_pass_adds_little_and_warns_where_none_does(rng, capsys):
    for power, expected in (4, 4), (0.25, 8):
        stream, passes = counted(decaying(rng, power))
        kvae.PCA(2, seed=0, solver="randomized").fit(stream, verbose=1)
        assert abs(len(passes) - 1 - expected) <= 1  # the first one's first batch is read for the checks
        done = 9 * (len(passes) - 1)
        assert f"{done}/{done}" in capsys.readouterr().out.splitlines()[-1]
    with pytest.warns(UserWarning, match="rose by .* in the last of 3 passes, more than the tolerance of 1e-05"):
        kvae.PCA(2, seed=0, solver="randomized", max_passes=3).fit(decaying(rng, 0.25), verbose=0)


def test_a_stream_that_changes_its_length_between_passes_is_refused(rng):
    x = decaying(rng, 1)
    for lengths in [900, 900, 500], [900, 900, 0]:
        stream, _ = counted(x, lengths=lengths)
        with pytest.raises(ValueError, match=rf"x has 900 examples in the first pass and {lengths[-1]} in pass 2"):
            kvae.PCA(2, seed=0, solver="randomized").fit(stream, verbose=0)


def test_the_randomized_solver_is_exact_once_its_basis_holds_all_the_variance(rng):
    x = rng.normal(size=(400, 25)) @ rng.normal(size=(25, 200)) - 7.0
    exact = kvae.PCA(4).fit(x, verbose=0)
    ours = kvae.PCA(4, seed=0, solver="randomized", tolerance=0).fit(x, verbose=0)
    np.testing.assert_allclose(ours.components, exact.components, atol=1e-10)
    np.testing.assert_allclose(ours.noise_variance, exact.noise_variance)


def test_the_randomized_solver_never_holds_a_covariance(rng):
    x = rng.integers(0, 256, size=(64, 80, 80, 1)).astype("uint8")
    assert pca_solvers.automatic(6400, 3, 12) == "randomized"
    tracemalloc.start()
    pca = kvae.PCA(3, seed=0).fit(x, verbose=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 6400**2 / 16  # 20 MB; the other solver takes 334 MB here, this one 13
    singular = scipy.linalg.svdvals(x.reshape(64, -1) / 255 - x.reshape(64, -1).mean(axis=0) / 255)
    np.testing.assert_allclose(pca.explained_variance, singular[:3] ** 2 / 64, rtol=1e-3)


def test_the_solver_is_chosen_by_the_features():
    assert pca_solvers.automatic(4096, 10, 12) == "covariance"
    assert pca_solvers.automatic(4097, 10, 12) == "randomized"
    assert pca_solvers.automatic(10_000, 1000, 12) == "covariance"


def test_samples_have_the_datas_moments(x):
    pca = kvae.PCA(4, seed=0).fit(x, verbose=0)
    samples = pca.sample(100_000, noise=True)
    np.testing.assert_allclose(samples.mean(axis=0), x.mean(axis=0), atol=0.06)
    scale = np.abs(np.cov(x.T)).max()
    np.testing.assert_allclose(np.cov(samples.T) / scale, np.cov(x.T) / scale, atol=0.02)
    np.testing.assert_array_equal(pca.sample(4, seed=2), pca.sample(4, seed=2))


def test_images_keep_their_shape_and_uint8_is_scaled(rng):
    images = rng.integers(0, 256, size=(50, 4, 4, 3)).astype("uint8")
    pca = kvae.PCA(2).fit(images, verbose=0)
    assert pca.reconstruct(images).shape == images.shape
    np.testing.assert_allclose(pca.mean, (images / 255).mean(axis=0).ravel())
    np.testing.assert_allclose(pca.transform(images), kvae.PCA(2).fit(images / 255, verbose=0).transform(images / 255))


def test_it_is_saved_and_loaded(x, tmp_path):
    pca = kvae.PCA(3, seed=1, solver="randomized", tolerance=1e-3, max_passes=5).fit(x, verbose=0)
    pca.save(tmp_path / "pca.keras")
    loaded = keras.saving.load_model(tmp_path / "pca.keras")
    assert loaded.get_config() == pca.get_config()
    np.testing.assert_array_equal(loaded.transform(x), pca.transform(x))
    assert loaded.evaluate(x, verbose=0, return_dict=True) == pca.evaluate(x, verbose=0, return_dict=True)


def test_a_second_fit_starts_anew(x):
    pca = kvae.PCA(3).fit(x, verbose=0)
    pca.fit(x[:100] ** 2, verbose=0)
    np.testing.assert_allclose(pca.components, kvae.PCA(3).fit(x[:100] ** 2, verbose=0).components)


def test_what_cannot_be_fitted_is_refused(x):
    with pytest.raises(ValueError, match="latent_dim is 12; expected fewer than the 12 features"):
        kvae.PCA(12).fit(x)
    with pytest.raises(ValueError, match="x has 3 examples; 3 axes need more than that"):
        kvae.PCA(3).fit(x[:3], verbose=0)
    for flat in (x[:4], np.ones((50, 6)), np.outer(np.arange(50.0), np.arange(1.0, 60.0))):
        for solver in "covariance", "randomized":
            with pytest.raises(ValueError, match="x has no variance left beside 3 axes"):
                kvae.PCA(3, solver=solver).fit(flat, verbose=0)
    with pytest.raises(ValueError, match="latent_dim is 0; expected an integer of at least 1"):
        kvae.PCA(0)
    with pytest.raises(ValueError, match="solver is 'full'; expected one of"):
        kvae.PCA(3, solver="full")
    with pytest.raises(ValueError, match="tolerance is 2; expected a share"):
        kvae.PCA(3, tolerance=2)
    with pytest.raises(ValueError, match="max_passes is 1; expected an integer of at least 2"):
        kvae.PCA(3, max_passes=1)
    with pytest.raises(ValueError, match="hasn't been fitted"):
        kvae.PCA(3).transform(x)


def test_the_covariance_of_pixels_is_that_of_exact_integers():
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (5_003, 40), "uint8")
    x[:, 7], x[:, 8] = 255, x[:, 9]  # nothing may be left of the first
    batches = tf.data.Dataset.from_tensor_slices(x).batch(700)
    found = pca_solvers.covariance(batches, 40, 39)
    integers = x.astype(np.int64)
    sums, squares = integers.sum(axis=0), integers.T @ integers
    exact = [[int(len(x) * squares[i, j]) - int(sums[i]) * int(sums[j]) for j in range(40)] for i in range(40)]
    exact = np.array(exact, dtype=float) / (len(x) * 255) ** 2
    np.testing.assert_allclose(found.axes.T * found.variances @ found.axes, exact, atol=1e-15)
    np.testing.assert_allclose(found.variances, np.linalg.eigvalsh(exact)[:0:-1], rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(found.mean, sums / len(x) / 255, rtol=1e-15)
    assert found.count == len(x)
