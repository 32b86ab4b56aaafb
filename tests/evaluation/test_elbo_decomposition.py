"""What the ELBO is made of, against the closed forms of linear-Gaussian data."""

import keras
import linear_gaussian
import numpy as np
import pytest
import small_models

import kvae
from kvae import evaluation
from kvae.networks import dense_decoder, dense_encoder

PRECISIONS = np.array([1.5, 1.0, 0.6]) ** 2 / linear_gaussian.NOISE + 1


@pytest.fixture(scope="module")
def x():
    return linear_gaussian.data(2000, seed=5)


def test_three_terms_make_up_log_p_of_x(x):
    model, log_p = linear_gaussian.model(0.3, 0.9)
    found = evaluation.elbo_decomposition(model, x[:500], samples=500, components=500)
    truth = np.mean(log_p(x[:500]))
    assert found.reconstruction.value - found.kl.value + found.gap.value == pytest.approx(truth, abs=0.01)
    assert found.kl.value == pytest.approx(np.mean(np.sum(model.draw(x[:500]).kl, axis=1)), abs=0.02)
    # KL(q(z|x) || p(z|x)) of two Gaussians whose means and deviations differ by so much, the same for every x
    gap = 3 * (0.5 * (0.9**2 + 0.3**2 - 1) - np.log(0.9))
    assert found.gap.value == pytest.approx(gap, abs=0.01)
    assert found.mutual_information.value + found.aggregate_kl.value == pytest.approx(found.kl.value)


def test_the_exact_posteriors_aggregate_is_the_prior(x):
    model, _ = linear_gaussian.model()
    whole = evaluation.aggregate_posterior(model, x, components=2000)
    part = evaluation.aggregate_posterior(model, x, components=500)
    truth = 0.5 * np.log(PRECISIONS)
    for found in (whole, part):
        np.testing.assert_allclose(found.latents["mutual_information"], truth, atol=0.12)
        np.testing.assert_allclose(found.latents["aggregate_kl"], 0, atol=0.03)
        np.testing.assert_allclose(found.latents["kl"], truth, atol=0.12)
        assert np.mean(found.mutual_information) == pytest.approx(truth.sum(), abs=0.15)
        assert np.mean(found.aggregate_kl) == pytest.approx(0, abs=0.1)
        assert np.mean(found.total_correlation) == pytest.approx(0, abs=0.1)
        assert found.examples == 2000


def test_the_own_posterior_counts_as_one_of_all():
    """Where posteriors don't overlap, q(z) is 1/N of z's own, whatever the subset."""
    encoder = keras.Sequential([keras.layers.Input((1,)), keras.layers.Lambda(lambda x: x)])
    model = kvae.VAE(
        keras.Model(encoder.inputs, [encoder.outputs[0], 0 * encoder.outputs[0] - 20.0]),
        keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1)]),
    )
    found = evaluation.aggregate_posterior(model, np.linspace(0.5, 1, 400)[:, None], components=50)
    np.testing.assert_allclose(found.mutual_information, np.log(400), rtol=1e-4)


def test_a_shifted_aggregate_is_told_from_the_prior(x):
    model, _ = linear_gaussian.model()
    kernel, bias = model.encoder.get_layer("z_mean").get_weights()
    model.encoder.get_layer("z_mean").set_weights([kernel, np.add(bias, [0.0, 2.0, 0.0])])
    found = evaluation.aggregate_posterior(model, x, components=1000)
    np.testing.assert_allclose(found.latents["aggregate_kl"], [0, 2, 0], atol=0.2)
    assert np.mean(found.aggregate_kl) == pytest.approx(2, abs=0.2)


def test_units_are_active_whose_posterior_mean_varies(x):
    model, _ = linear_gaussian.model()
    variances = 1 - 1 / PRECISIONS
    found = evaluation.active_units(model, x, batch_size=300)
    np.testing.assert_allclose(found.variances, variances, rtol=0.1)
    np.testing.assert_allclose(found.variances, np.var(model.transform(x), axis=0), rtol=1e-5)
    assert found.active.tolist() == [True] * 3
    assert evaluation.active_units(model, x, threshold=0.8).active.tolist() == [True, False, False]


def test_pcas_units_are_those_of_its_posterior(x):
    small = (0.05 * x).astype("float64")
    pca = kvae.PCA(3).fit(small, verbose=0)
    found = evaluation.active_units(pca, small)
    np.testing.assert_allclose(found.variances, np.var(pca.posterior(small).mean, axis=0))
    assert found.active.tolist() == [True] * 3
    assert evaluation.report(pca, small, samples=20).findings == ()


def test_rate_and_distortion_are_the_elbos_parts(x):
    model, _ = linear_gaussian.model(0.4, 0.8)
    rate, distortion = evaluation.rate_distortion(model, x, samples=20)
    model.compile(run_eagerly=True)
    reported = model.evaluate(x, verbose=0, return_dict=True)
    assert rate.value == pytest.approx(reported["kl_loss"], abs=0.03)
    assert distortion.value == pytest.approx(reported["reconstruction_loss"], abs=0.15)
    assert rate.standard_error == pytest.approx(np.std(np.sum(model.draw(x).kl, axis=1)) / np.sqrt(2000), rel=0.1)


def test_a_report_of_a_good_model_finds_nothing(x):
    model, log_p = linear_gaussian.model()
    found = evaluation.report(model, x, samples=50)
    assert found.findings == ()
    assert f"{np.mean(log_p(x)):.2f}" in str(found)
    assert "nothing stands out" in str(found)


def test_a_report_has_a_row_a_latent_the_largest_kl_first(x):
    model, _ = linear_gaussian.model()
    kernel, bias = model.encoder.get_layer("z_mean").get_weights()
    model.encoder.get_layer("z_mean").set_weights([kernel, np.add(bias, [0.0, 0.0, 3.0])])
    names, *rows = evaluation.report(model, x, samples=20).latents
    assert names[1:-1] == ("KL, nats", "mutual information", "KL of the aggregate", "variance of its mean")
    assert [row[0] for row in rows] == ["z2", "z0", "z1"] and {row[-1] for row in rows} == {"yes"}
    shifted = [[of[at] for at in (2, 0, 1)] for of in (0.5 * np.log(PRECISIONS), [0, 0, 4.5], 1 - 1 / PRECISIONS)]
    expected = [shifted[0] + np.array(shifted[1]), *shifted]
    np.testing.assert_allclose(np.array([row[1:-1] for row in rows], float).T, expected, rtol=0.1, atol=0.2)


def test_a_report_of_many_latents_has_ten_in_text_and_all_in_html(rng):
    found = evaluation.report(small_models.dense_vae(latent_dim=13), rng.random((30, 6)), samples=5)
    lines = str(found).splitlines()
    assert [line.split()[0] for line in lines[13:23]] == [row[0] for row in found.latents[1:11]]
    assert lines[23] == "and 3 more, below these"
    assert all(f"<td>z{latent}</td>" in found._repr_html_() for latent in range(13))


@pytest.mark.parametrize("posterior, advised", [(None, True), (kvae.posteriors.FullNormal(), False)])
def test_a_report_advises_another_posterior_than_the_models_own(rng, posterior, advised):
    model = small_models.dense_vae(posterior_family=posterior)
    for name, offset in (("z_mean", 3.0), ("z_log_var", -4.0)):
        model.encoder.get_layer(name).bias.assign([offset, offset])
    findings = " ".join(evaluation.report(model, rng.random((60, 6)), samples=50).findings)
    assert "isn't p(z|x)" in findings and "such as kvae.VampPrior()" in findings and "a flow" in findings
    assert ("FullNormal()" in findings) == advised


def test_a_report_names_what_is_wrong(x):
    model, _ = linear_gaussian.model(shift=2.0, spread=0.3)
    mean, log_var = model.encoder.get_layer("z_mean"), model.encoder.get_layer("z_log_var")
    mean.set_weights([mean.get_weights()[0] * [1, 1, 0], np.array([0.0, 0.0, 0.0])])
    log_var.set_weights([np.zeros((12, 3)), np.array([-3.0, -3.0, 0.0])])
    found = evaluation.report(model, x, samples=200)
    text, page = str(found), found._repr_html_()
    for words in ("1 of 3 latents collapsed", ": 2.", "few draws count", "isn't p(z|x)", "the prior isn't"):
        assert words in text
    assert "KL(q(z|x) || p(z))" in page and "isn&#x27;t" in page and "<b>" not in page


def test_a_report_names_a_variance_at_its_bound(rng):
    model = small_models.dense_vae(
        likelihood=kvae.GaussianLikelihood("pixel", initial_variance=0.01, min_variance=1e-3)
    )
    x = rng.random((50, 6))
    assert not any("at its bound" in finding for finding in evaluation.report(model, x, samples=5).findings)
    model.likelihood.raw_log_var.assign([-1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    findings = evaluation.report(model, x, samples=5).findings
    assert any("at its bound, 0.001, in 17% of its values" in finding for finding in findings)


def test_a_model_without_a_posterior_is_refused(rng):
    model = kvae.Autoencoder(dense_encoder((6,), 2), dense_decoder((6,), 2))
    for function in (evaluation.report, evaluation.active_units, evaluation.log_likelihood):
        with pytest.raises(TypeError, match="Autoencoder has no posterior to draw from"):
            function(model, rng.random((20, 6)))


def test_what_has_no_closed_form_is_left_out(rng):
    x = rng.random((30, 6))
    found = evaluation.aggregate_posterior(small_models.dense_vae(prior=kvae.VampPrior(5)), x)
    assert found.latents["kl"] is None and found.latents["mutual_information"].shape == (2,)
    planar = small_models.dense_vae(posterior_family=kvae.posteriors.FlowPosterior(kvae.flows.Planar(2)))
    with pytest.raises(ValueError, match="scores only"):
        evaluation.aggregate_posterior(planar, x)
    assert "mutual" not in str(evaluation.report(planar, x, samples=5))


def test_a_learned_priors_table_is_of_what_is_known_by_latent(rng):
    found = evaluation.report(small_models.dense_vae(prior=kvae.VampPrior(5)), rng.random((30, 6)), samples=5)
    names, *rows = found.latents
    assert names == ("latent", "mutual information", "variance of its mean", "active") and len(rows) == 2
    assert "<td>mutual_information</td></tr>" in found.decomposition.aggregate._repr_html_()
