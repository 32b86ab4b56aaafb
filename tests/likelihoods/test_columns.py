"""A table's likelihood is the product of scipy's densities, in the table's own units."""

import keras
import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf
from keras import ops

import kvae
from kvae.data import Column, Columns
from kvae.layers import ColumnFeatures

COLUMNS = Columns(
    [
        Column("income", "number", mean=5e4, scale=2e4),
        Column("job", "category", categories=("cook", "nurse", "smith")),
        Column("visits", "count", mean=7.0, scale=4.0),
        Column("exposure", "number", mean=1.5, scale=0.5),
        Column("age", "integer", mean=40.0, scale=12.0),
        Column("claims", "count", mean=0.3, scale=0.5),
        Column("smokes", "number", mean=0.3, scale=0.4),
    ]
)
OWN = {"smokes": "bernoulli", "exposure": None, "claims": "poisson"}


def made(**options):
    likelihood = kvae.ColumnsLikelihood(OWN, COLUMNS, sizes={"claims": "exposure"}, **options)
    likelihood.build((None, 7))
    return likelihood


def rows(rng, n):
    return np.stack(
        [
            rng.normal(5e4, 2e4, n),
            rng.integers(0, 3, n),
            rng.poisson(7, n),
            rng.uniform(0.5, 2.5, n),
            rng.integers(18, 80, n),
            rng.poisson(0.5, n),
            rng.integers(0, 2, n),
        ],
        axis=1,
    ).astype("float64")


def scipys(likelihood, raw, x, size=None):
    """log p of each value, (n, 7), and the means."""
    size = x[:, 3] if size is None else size
    income, age, job, visits, claims, smokes = raw[:, 0], raw[:, 1], raw[:, 2:5], raw[:, 5], raw[:, 6], raw[:, 7]
    variance = np.exp(likelihood.layers[0].log_var)
    dispersion = np.exp(likelihood.layers[2].log_dispersion)
    softplus = lambda values: np.log1p(np.exp(values)) / np.log(2)  # noqa: E731
    mean = {
        "income": 5e4 + 2e4 * income,
        "age": 40 + 12 * age,
        "visits": 7 * softplus(visits),
        "claims": size * 0.3 / 1.5 * softplus(claims),
        "smokes": scipy.special.expit(smokes),
    }
    shape = 1 / dispersion[0]
    terms = [
        scipy.stats.norm(mean["income"], 2e4 * np.sqrt(variance[0])).logpdf(x[:, 0]),
        scipy.special.log_softmax(job, axis=1)[np.arange(len(x)), x[:, 1].astype(int)],
        scipy.stats.nbinom(shape, shape / (shape + mean["visits"])).logpmf(x[:, 2]),
        np.zeros(len(x)),
        scipy.stats.norm(mean["age"], 12 * np.sqrt(variance[1])).logpdf(x[:, 4]),
        scipy.stats.poisson(mean["claims"]).logpmf(x[:, 5]),
        scipy.stats.bernoulli(mean["smokes"]).logpmf(x[:, 6]),
    ]
    return np.stack(terms, axis=1), mean


def test_its_density_mean_and_samples_are_scipys(rng):
    likelihood, x = made(dtype="float64"), rows(rng, 9)
    assert likelihood.decoder_shape((7,)) == (8,) and not likelihood.discrete
    assert likelihood._groups[0][1] == ["income", "age"]
    raw = rng.normal(size=(9, 8))
    p = likelihood.distribution([tf.constant(raw)])
    terms, _ = scipys(likelihood, raw, x)
    np.testing.assert_allclose(p.log_prob(tf.constant(x)), terms.sum(1), rtol=1e-6)
    observed = rng.random((9, 7)) < 0.6
    observed[0], observed[1], observed[2, 3] = True, False, False
    usual, mean = scipys(likelihood, raw, x, size=np.where(observed[:, 3], x[:, 3], 1.5))
    found = p.log_prob(tf.constant(np.where(observed, x, 0)), tf.constant(observed))
    np.testing.assert_allclose(found, np.where(observed, usual, 0).sum(1), rtol=1e-6, atol=1e-12)
    assert p.factorizes and found[1] == 0

    _, mean = scipys(likelihood, raw, x, size=1.5)
    expected = np.stack(
        [mean["income"], raw[:, 2:5].argmax(1), mean["visits"], np.full(9, 1.5), mean["age"], mean["claims"]], axis=1
    )
    np.testing.assert_allclose(p.mean[:, :6], expected, rtol=1e-6)
    draws = np.stack([p.sample(seed) for seed in range(300)])
    assert set(np.unique(draws[..., 1])) == {0, 1, 2} and (draws[..., 3] == 1.5).all()
    numeric = [0, 2, 4, 5, 6]
    error = draws.std(0)[:, numeric] / np.sqrt(300)
    assert np.all(np.abs(draws.mean(0)[:, numeric] - p.mean.numpy()[:, numeric]) < 5 * error + 1e-3)
    np.testing.assert_allclose(draws.var(0)[:, numeric], p.variance.numpy()[:, numeric], rtol=0.6, atol=0.02)
    shares = (draws[:, 0, 1, None] == np.arange(3)).mean(0)
    np.testing.assert_allclose(shares, scipy.special.softmax(raw[0, 2:5]), atol=0.1)


def test_another_unit_shifts_the_density_by_its_logarithm(rng):
    x, raw = rng.normal(40, 12, (5, 2)), tf.constant(rng.normal(size=(5, 2)))
    grams = [Column("a", mean=40.0, scale=12.0), Column("b", mean=40.0, scale=12.0)]
    kilos = [Column("a", mean=0.04, scale=0.012), Column("b", mean=40.0, scale=12.0)]
    found = []
    for columns, factor in ((grams, 1.0), (kilos, 1e-3)):
        likelihood = kvae.ColumnsLikelihood(Columns(columns), dtype="float64")
        likelihood.build((None, 2))
        found.append(likelihood.distribution([raw]).log_prob(tf.constant(x * [factor, 1])).numpy())
    np.testing.assert_allclose(found[1] - found[0], np.log(1e3), rtol=1e-9)


def test_a_model_of_a_table_trains_is_saved_and_samples_its_columns(rng, tmp_path):
    x = rows(rng, 64)
    table = {name: x[:, number] for number, name in enumerate(COLUMNS.names)}
    table["job"] = np.array(["cook", "nurse", "smith"])[x[:, 1].astype(int)]
    kinds = {column.name: column.kind for column in COLUMNS}
    stream = kvae.data.from_table(table, kinds, batch_size=32)
    likelihood = kvae.ColumnsLikelihood(OWN, stream.columns, sizes={"claims": "exposure"})
    networks = kvae.networks
    encoder, decoder = (make(likelihood, 2, (8,)) for make in (networks.columns_encoder, networks.columns_decoder))
    model = kvae.VAE(encoder, decoder, likelihood, seed=0)
    model.compile(kvae.optimizers.Adam(1e-2), run_eagerly=True)
    history = model.fit(stream, epochs=2, verbose=0).history
    assert history["elbo"][-1] > history["elbo"][0] and np.isfinite(history["elbo"]).all()
    model.save(tmp_path / "model.keras")
    loaded = kvae.load(tmp_path / "model.keras")
    assert loaded.likelihood.columns == stream.columns and loaded.likelihood.sizes == {"claims": "exposure"}
    raw_rows = {name: values[:5] for name, values in table.items()}
    new = kvae.data.from_table(raw_rows, loaded.likelihood.columns)
    z = rng.normal(size=(5, 2)).astype("float32")
    first = next(iter(new))
    np.testing.assert_array_equal(loaded.log_likelihood(first, z), model.log_likelihood(first, z))
    drawn = loaded.likelihood.columns.decode(loaded.sample(6, noise=True, seed=0))
    assert set(drawn["job"]) <= {"cook", "nurse", "smith"} and drawn["visits"].dtype == np.int64
    assert drawn["age"].dtype == np.int64 and drawn["income"].dtype == np.float32
    assert model.evaluate(stream, verbose=0, return_dict=True)["elbo"] == pytest.approx(
        loaded.evaluate(stream, verbose=0, return_dict=True)["elbo"], abs=1e-5
    )


def test_gaps_change_neither_features_nor_gradients(rng):
    likelihood = kvae.ColumnsLikelihood(COLUMNS)
    encoder = kvae.networks.columns_encoder(likelihood, 2, (8,), missing=True)
    decoder = kvae.networks.columns_decoder(likelihood, 2, (8,))
    model = kvae.VAE(encoder, decoder, likelihood, seed=0, missing=True)
    x = rows(rng, 6).astype("float32")
    x[0], x[1, 3] = np.nan, np.nan
    with tf.GradientTape() as tape:
        log_prob = model.log_likelihood(x, np.zeros((6, 2), "float32"))
        means = model.posterior(x).mean
        loss = tf.reduce_sum(log_prob) + tf.reduce_sum(means)
    gradients = tape.gradient(loss, [w.value for w in model.trainable_weights])
    assert log_prob[0] == 0 and all(np.isfinite(g).all() for g in gradients if g is not None)
    model.fill_in.fill.assign(np.full(7, 3.0))  # what stands in a gap isn't seen
    np.testing.assert_array_equal(model.posterior(x).mean, means)


def test_features_are_standardized_logarithms_and_one_hot(rng):
    x = rows(rng, 5)
    features = ColumnFeatures(COLUMNS, dtype="float64")(x)
    numbers = (x[:, [0, 3, 4, 6]] - [5e4, 1.5, 40, 0.3]) / [2e4, 0.5, 12, 0.4]
    counts = np.log((1 + x[:, [2, 5]]) / [8, 1.3])
    expected = np.concatenate([numbers, counts, np.eye(3)[x[:, 1].astype(int)]], axis=1)
    np.testing.assert_allclose(features, expected, rtol=1e-6, atol=1e-7)
    gaps = np.where(np.eye(7)[:5] > 0, np.nan, x)
    by_nan, by_mask = ColumnFeatures(COLUMNS)(gaps), ColumnFeatures(COLUMNS)([np.nan_to_num(gaps), np.isnan(gaps)])
    np.testing.assert_array_equal(by_nan, by_mask)
    assert by_nan[0, 0] == 0 and not by_nan[1, 6:].numpy().any()
    half = ColumnFeatures(COLUMNS, dtype="mixed_float16")(x * 1.0)
    assert half.dtype == "float16" and np.isfinite(half).all()
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(ColumnFeatures(COLUMNS)))
    np.testing.assert_array_equal(again(x), ColumnFeatures(COLUMNS)(x))


def test_likelihoods_that_are_shared_stay_so(rng):
    normal, classes = kvae.GaussianLikelihood("shared"), kvae.CategoricalLikelihood(3)
    likelihood = kvae.ColumnsLikelihood({"a": normal, "b": "gaussian", "c": normal, "d": classes})
    likelihood.build((None, 4))
    assert len(likelihood.layers) == 3 and likelihood.decoder_shape((4,)) == (6,)
    again = kvae.ColumnsLikelihood.from_config(likelihood.get_config())
    again.build((None, 4))
    assert len(again.layers) == 3 and [w.shape for w in again.weights] == [w.shape for w in likelihood.weights]
    raw, x = rng.normal(size=(2, 6)).astype("float32"), np.array([[0.1, 0.2, 0.3, 2], [1, 2, 3, 0]], "float32")
    found, expected = (each.distribution([ops.convert_to_tensor(raw)]).log_prob(x) for each in (again, likelihood))
    np.testing.assert_array_equal(found, expected)


def test_values_without_a_probability_are_refused_by_column(rng):
    likelihood, x = made(), rows(rng, 4).astype("float32")
    assert np.all(likelihood.supports(x))
    likelihood.check_data(x)
    for name, value, message in (
        ("visits", 1.5, "Column 'visits' holds the value 1.5; its likelihood expects counts 0, 1, 2"),
        ("job", 3, "Column 'job' holds the value 3; its likelihood expects codes 0, ..., 2"),
        ("smokes", -1, "Column 'smokes' holds the value -1; its likelihood expects values in"),
    ):
        wrong = x.copy()
        wrong[2, COLUMNS.names.index(name)] = value
        assert not np.all(likelihood.supports(wrong))
        with pytest.raises(ValueError, match=message):
            likelihood.check_data(wrong)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: kvae.ColumnsLikelihood({"a": "gauss"}), "likelihood is 'gauss'; expected"),
        (lambda: kvae.ColumnsLikelihood({"a": 3}), "likelihoods has 3 for 'a'; expected a kvae likelihood"),
        (lambda: kvae.ColumnsLikelihood({"b": "gaussian"}, COLUMNS), "likelihoods has 'b', which isn't among"),
        (lambda: kvae.ColumnsLikelihood({}, COLUMNS, {"claims": "time"}), "sizes has 'time', which isn't among"),
        (lambda: kvae.ColumnsLikelihood({}, COLUMNS, {"age": "exposure"}), "sizes has 'age', whose likelihood is"),
        (
            lambda: kvae.ColumnsLikelihood({"job": kvae.CategoricalLikelihood()}, COLUMNS),
            "a CategoricalLikelihood without levels for 'job'",
        ),
        (
            lambda: kvae.ColumnsLikelihood({"claims": kvae.PoissonLikelihood("total")}, COLUMNS),
            "likelihoods has size='total' for 'claims'; expected None, or sizes= here",
        ),
        (lambda: kvae.ColumnsLikelihood(["a"]), r"likelihoods is \['a'\]; expected"),
        (lambda: kvae.ColumnsLikelihood({"a": "gaussian"}).build((None, 2)), "ColumnsLikelihood expects"),
        (lambda: kvae.networks.columns_encoder(kvae.GaussianLikelihood(), 2), "expected a kvae.ColumnsLikelihood"),
        (lambda: ColumnFeatures(COLUMNS)(np.zeros((2, 3))), r"x has the shape \(2, 3\); expected \(n, 7\)"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def test_scores_of_columns_are_those_of_the_rows_with_a_value(rng):
    likelihood = kvae.ColumnsLikelihood(OWN, COLUMNS, sizes={"claims": "exposure"})
    networks = kvae.networks.columns_encoder(likelihood, 2, (8,), missing=True)
    model = kvae.VAE(networks, kvae.networks.columns_decoder(likelihood, 2, (8,)), likelihood, seed=0, missing=True)
    x = rows(rng, 40).astype("float32")
    x[rng.random(x.shape) < 0.3] = np.nan
    found, seen = kvae.evaluation.column_scores(model, x, batch_size=7), ~np.isnan(x)
    again = kvae.evaluation.column_scores(model, x)
    np.testing.assert_allclose(again.log_likelihood, found.log_likelihood, rtol=1e-5)
    assert found.values.tolist() == seen.sum(0).tolist()
    z = model.draw(x, index=np.arange(40)).z[:, 0]
    total = ops.convert_to_numpy(model.log_likelihood(x, z)).sum()
    assert (found.log_likelihood * found.values).sum() == pytest.approx(total, rel=1e-4)
    raw = model.decoder(z).numpy().astype("float64")
    usual, _ = scipys(likelihood, raw, np.nan_to_num(x), size=np.where(seen[:, 3], x[:, 3], 1.5))
    expected = np.where(seen, usual, 0).sum(0) / seen.sum(0)
    np.testing.assert_allclose(found.log_likelihood, expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(found.baseline[[0, 2]], np.nanstd(x[:, [0, 2]], axis=0), rtol=1e-4)
    jobs = x[seen[:, 1], 1].astype(int)
    assert found.baseline[1] == pytest.approx(1 - np.bincount(jobs).max() / len(jobs))
    mean = model.decoder_distribution(model.encode(x)).mean.numpy()
    assert found.error[1] == pytest.approx((mean[seen[:, 1], 1] != jobs).mean())
    age = (mean - x)[seen[:, 4], 4]
    assert found.error[4] == pytest.approx(np.sqrt(np.square(age).mean()), rel=1e-4)
    assert "nats" in repr(found) and "smokes" in found._repr_html_()
    with pytest.raises(TypeError, match=r"expected one with a kvae\.ColumnsLikelihood"):
        kvae.evaluation.column_scores(kvae.PCA(1).fit(np.eye(3), verbose=0), np.eye(3))


def test_a_negative_size_is_refused(rng):
    likelihood = kvae.ColumnsLikelihood(OWN, COLUMNS, sizes={"claims": "exposure"})
    networks = kvae.networks.columns_encoder(likelihood, 2, ()), kvae.networks.columns_decoder(likelihood, 2, ())
    x = rows(rng, 4).astype("float32")
    x[2, 3] = -1
    with pytest.raises(ValueError, match=r"value -1 in example 2, .* sizes of at least 0 in 'exposure'"):
        kvae.VAE(*networks, likelihood, seed=0).score_samples(x, samples=2)


def test_filled_values_have_the_sizes_of_their_rows_and_categories_that_are_probable():
    columns = Columns([Column("job", "category", categories=tuple("abc")), *COLUMNS[3:4], *COLUMNS[5:6]])
    likelihood = kvae.ColumnsLikelihood({"exposure": None, "claims": "poisson"}, columns, {"claims": "exposure"})
    encoder = kvae.networks.columns_encoder(likelihood, 1, ())
    decoder = kvae.networks.columns_decoder(likelihood, 1, ())
    model = kvae.VAE(encoder, decoder, likelihood, seed=0, missing=True)
    encoder.set_weights([np.zeros_like(weights) for weights in encoder.get_weights()])  # q(z|x) = p(z)
    decoder.set_weights([np.array([[4.0, 0, -4, 0]]), np.array([-0.2, -1.5, 0.2, 0])])  # a or c, by the sign of z
    x = np.tile(np.array([[np.nan, 1, np.nan], [np.nan, 10, np.nan]], "float32"), (100, 1))
    found = model.impute(x, draws=20, samples=200)
    np.testing.assert_allclose(found.mean[:2, 2], [0.2, 2.0], rtol=1e-5)
    np.testing.assert_allclose(np.square(found.stddev[:2, 2]), [0.2, 2.0], rtol=1e-4)
    np.testing.assert_allclose(found.draws.mean(axis=0)[:, 2].reshape(100, 2).mean(axis=0), [0.2, 2.0], rtol=0.1)
    assert np.isin(found.mean[:, 0], [0, 2]).all() and (found.mean[:, 0] == 2).mean() > 0.5
    shares = np.bincount(found.draws[..., 0].astype(int).ravel(), minlength=3) / 4_000
    codes = np.arange(3)
    variance = shares @ codes**2 - (shares @ codes) ** 2
    np.testing.assert_allclose(np.square(found.stddev[:, 0]).mean(), variance, rtol=0.05)


def test_reconstructions_have_the_sizes_of_their_rows(rng):
    columns = Columns([*COLUMNS[3:4], *COLUMNS[5:6]])
    likelihood = kvae.ColumnsLikelihood({"exposure": None, "claims": "poisson"}, columns, {"claims": "exposure"})
    x = np.array([[1, 0], [10, 2], [np.nan, 1]], "float32")
    encoder = kvae.networks.columns_encoder(likelihood, 1, ())
    model = kvae.VAE(encoder, kvae.networks.columns_decoder(likelihood, 1, ()), likelihood, seed=0, missing=True)
    model.compile(run_eagerly=True)
    rate = model.decode(model.encode(x)).numpy()[:, 1] / 1.5  # at the mean size, 1.5
    expected = rate * [1, 10, 1.5]
    np.testing.assert_allclose(model.reconstruct(x)[:, 1], expected, rtol=1e-5)
    np.testing.assert_allclose(model.predict(x, verbose=0)[:, 1], expected, rtol=1e-5)


@pytest.mark.parametrize("labels", [0, 2])
def test_reconstructions_of_shares_have_the_totals_of_their_rows(rng, labels):
    x = rng.poisson(rng.choice([1, 20], (30, 1)), (30, 4)).astype("float32")
    networks = kvae.networks.dense_encoder, kvae.networks.dense_decoder
    encoder, decoder = (network((4,), 2, (), **({"label_dim": labels} if labels else {})) for network in networks)
    likelihood = kvae.NegativeBinomialLikelihood(size="total", zero_inflation=False, typical_size=7)
    data = (x, rng.integers(0, 2, 30)) if labels else x
    model = (
        kvae.ConditionalVAE(encoder, decoder, labels, likelihood, seed=0)
        if labels
        else kvae.VAE(encoder, decoder, likelihood, seed=0)
    )
    np.testing.assert_allclose(model.reconstruct(data).sum(axis=1), x.sum(axis=1), rtol=1e-4)
    z = model._with_labels(model.encode(data), data)
    np.testing.assert_allclose(model.decode(z).numpy().sum(axis=1), 7, rtol=1e-5)
