"""What a report finds, against models whose faults are known, and those without any."""

import keras
import linear_gaussian
import numpy as np
import pytest
import small_models
from breadth import some, thorough
from keras import layers

import kvae
from kvae import evaluation
from kvae.networks import dense_decoder


@pytest.fixture(scope="module")
def x():
    return linear_gaussian.data(500, seed=5)


def finding(report, words):
    return next((found for found in report.findings if words in found), None)


@pytest.mark.parametrize(
    "errors, words",
    [
        ({}, None),
        thorough({"spread": 0.95}, None),
        ({"spread": 0.8}, "too narrow (overconfident)"),
        ({"shift": 0.6}, "beside p(z|x)"),
        thorough({"spread": 1.3}, "too wide"),
    ],
)
def test_a_posterior_of_a_wrong_width_is_named_with_the_nats_that_tell_it(x, errors, words):
    model, _ = linear_gaussian.model(**errors)
    report = evaluation.report(model, x[:200], samples=300)
    spread, shift = errors.get("spread", 1.0), errors.get("shift", 0.0)
    truth = linear_gaussian.LATENTS / 2 * ((1 + shift**2) / spread**2 - 1)  # half of E_p(z|x)[|eps|^2] - 3
    found = report.decomposition.overconfidence
    assert found.value == pytest.approx(truth, rel=0.1, abs=1e-3)
    of_width = [each for each in report.findings if "than at its own" in each]
    assert len(of_width) == (words is not None)
    if words:
        assert words in of_width[0]
        assert f"by {abs(found.value):.2f} +- {found.standard_error:.2f} nats or more" in of_width[0]
    assert f"{found}" in str(report) and f"<td>{found}</td>" in report._repr_html_()


def test_a_far_too_narrow_posterior_is_told_to_hide_what_log_p_of_x_lacks(x):
    model, log_p = linear_gaussian.model(spread=0.3)
    report = evaluation.report(model, x, samples=1000)
    lacks = np.mean(log_p(x)) - report.decomposition.log_likelihood.value
    assert lacks > 0.5 and np.median(report.decomposition.likelihood.effective_samples) > 20
    assert "is missing in log p(x) and the ELBO's gap, even where many" in finding(report, "(overconfident)")


def test_a_single_draw_says_nothing_of_the_posterior(x):
    report = evaluation.report(linear_gaussian.model(shift=2.0)[0], x, samples=1)
    assert np.isnan(report.decomposition.gap).all() and np.isnan(report.decomposition.overconfidence).all()
    assert "nan" not in str(report) and not any("true posterior" in row[0] for row in report.rows)
    assert finding(report, "a single draw gives the ELBO, not log p(x)")


def test_latents_of_a_small_scale_are_in_use_and_those_of_a_large_one_may_have_collapsed(x):
    """Nothing of x changes where z, and what decodes it, are of another scale, which a learned prior may choose."""
    scales = np.array([0.05, 1.0, 40.0])
    model, _ = linear_gaussian.model(prior=kvae.MixtureOfGaussians(1))
    model.prior.means.assign(np.zeros((1, 3)))
    model.prior.log_vars.assign(2 * np.log(scales)[None])
    mean, log_var, decoder = model.encoder.layers[-2], model.encoder.layers[-1], model.decoder.layers[1]
    if mean.name != "z_mean":
        mean, log_var = log_var, mean
    mean.set_weights([weight * scales for weight in mean.get_weights()])
    log_var.set_weights([log_var.get_weights()[0], log_var.get_weights()[1] + 2 * np.log(scales)])
    decoder.set_weights([decoder.get_weights()[0] / scales[:, None], decoder.get_weights()[1]])
    report = evaluation.report(model, x, samples=50)
    assert report.findings == () and report.units.active.tolist() == [False, True, True]

    kernel, bias = mean.get_weights()
    mean.set_weights([kernel * [1, 1, 0.05], bias])
    report = evaluation.report(model, x, samples=50)
    assert report.units.active[2] and "1 of 3 latents collapsed" in finding(report, "collapsed")
    assert "below 1% of theirs: 2." in finding(report, "collapsed")


@pytest.mark.parametrize("examples", some([30, 100, 200], 100))
def test_few_narrow_posteriors_are_no_sign_of_another_prior(monkeypatch, examples):
    monkeypatch.setattr(linear_gaussian, "NOISE", 0.001)  # the posterior is exact, and so its aggregate is the prior
    model, _ = linear_gaussian.model()
    report = evaluation.report(model, linear_gaussian.data(examples), samples=20)
    assert report.findings == ()
    assert report.decomposition.aggregate_kl.value > 3
    note = next(note for name, _, note in report.rows if name == "  KL of the aggregate")
    assert note.endswith("of these x, whose q(z|x) overlap too little to tell: over all x at least 0.00")


def test_the_least_kl_of_the_aggregate_is_below_what_it_is(x):
    model, _ = linear_gaussian.model()
    mean = model.encoder.get_layer("z_mean")
    mean.set_weights([mean.get_weights()[0], mean.get_weights()[1] + [0.0, 1.0, 0.0]])
    for examples in (20, 500):
        found = evaluation.aggregate_posterior(model, x[:examples])
        assert np.all(found.latents["least_aggregate_kl"] < [0.02, 0.5, 0.02])
        assert found.least_aggregate_kl < 0.5
    assert found.latents["least_aggregate_kl"][1] > 0.25 and found.least_aggregate_kl > 0.1


def test_a_mismatch_says_what_samples_miss_and_advises_what_there_is_not_yet(x):
    wide, _ = linear_gaussian.model(spread=2.5)
    narrow, _ = linear_gaussian.model()
    mean, log_var = (narrow.encoder.get_layer(name) for name in ("z_mean", "z_log_var"))
    mean.set_weights([0.3 * weight for weight in mean.get_weights()])
    log_var.bias.assign(3 * [-3.0])
    for model, words in ((wide, "Images are encoded where hardly a sample lies"), (narrow, "Samples will lie where")):
        found = finding(evaluation.report(model, x, samples=20), "the prior isn't")
        assert words in found and "such as kvae.VampPrior()" in found
        assert ("Samples will lie" in found) == (model is narrow)

    model = small_models.dense_vae(prior=kvae.VampPrior(5, bounds=None))
    model.encoder.get_layer("z_mean").set_weights([8 * np.eye(8, 2), np.zeros(2)])
    model.encoder.get_layer("z_log_var").bias.assign([-2.0, -2.0])
    found = finding(evaluation.report(model, x[:, :6], samples=20), "the prior isn't")
    assert "try longer training, or a larger VampPrior." in found and "such as" not in found


def test_the_decoders_variance_is_looked_at_in_all_of_the_data(rng):
    inputs, z = layers.Input((6,)), layers.Input((2,))
    codes = layers.Dense(2, use_bias=False)(inputs)
    encoder = keras.Model(inputs, [codes, 0 * codes - 6.0])
    decoder = keras.Model(z, [layers.Dense(6)(z), layers.Dense(6)(z)])
    model = kvae.VAE(encoder, decoder, kvae.GaussianLikelihood("decoder"), seed=0)
    encoder.layers[1].set_weights([np.eye(6)[:, :2]])
    decoder.layers[2].set_weights([np.array([6 * [-100.0], 6 * [0.0]]), np.full(6, -5.0)])
    x = 0.01 * rng.normal(size=(1000, 6)).astype("float32")
    x[:256, 0] += 1  # the examples of which the decoder is sure
    found = [finding(evaluation.report(model, data, samples=2), "at its bound") for data in (x, x[::-1].copy())]
    assert "in 26% of its values" in found[0] and found[0] == found[1]


def test_the_total_correlation_is_that_of_a_correlated_aggregate(rng):
    mixing, variance = np.array([[1.0, 0.9], [0.1, 0.5]]), 0.2
    inputs = layers.Input((2,))
    codes = layers.Dense(2, use_bias=False)(inputs)
    model = kvae.VAE(keras.Model(inputs, [codes, 0 * codes + np.log(variance)]), dense_decoder((2,), 2))
    x = rng.normal(size=(2000, 2)).astype("float32")
    model.encoder.layers[1].set_weights([mixing])
    found = evaluation.aggregate_posterior(model, x)
    covariance = mixing.T @ mixing + variance * np.eye(2)
    log_determinant = np.log(np.linalg.det(covariance))
    truth = 0.5 * (np.sum(np.log(np.diag(covariance))) - log_determinant)
    assert truth > 0.4
    assert np.mean(found.total_correlation) == pytest.approx(truth, abs=0.06)
    assert np.mean(found.mutual_information) == pytest.approx(0.5 * log_determinant - np.log(variance), abs=0.06)
    assert np.sum(found.latents["aggregate_kl"]) + truth == pytest.approx(np.mean(found.aggregate_kl), abs=0.06)
