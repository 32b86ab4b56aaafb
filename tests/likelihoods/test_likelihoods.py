import warnings

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

import kvae
from kvae.likelihoods import get
from kvae.networks import dense_decoder, dense_encoder

SHAPES = [(784,), (28, 28, 1), (32, 32, 3), (50, 21)]


def built(likelihood, shape):
    likelihood.build((None, *shape))
    return likelihood


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("variance", [0.3, "shared", "pixel", "decoder"])
def test_gaussian_log_likelihood_is_scipys(rng, shape, variance):
    x, mean, log_var = (rng.normal(size=(3, *shape)).astype("float32") for _ in range(3))
    likelihood = built(kvae.GaussianLikelihood(variance, min_variance=1e-30), shape)
    if variance == "pixel":
        raw = rng.uniform(6.8, 7.0, size=shape)
        likelihood.raw_log_var.assign(raw)
        expected_log_var = np.log(1e-30) + np.log1p(np.exp(10 * raw))
    else:
        expected_log_var = {0.3: np.log(0.3), "shared": np.log(0.05), "decoder": log_var}[variance]
    outputs = [mean, log_var] if variance == "decoder" else [mean]
    expected = scipy.stats.norm(mean, np.exp(expected_log_var / 2)).logpdf(x).reshape(3, -1).sum(axis=1)
    np.testing.assert_allclose(likelihood.distribution(outputs).log_prob(x), expected, rtol=2e-5)


@pytest.mark.parametrize("variance, parameters", [(1.0, 0), ("shared", 1), ("pixel", 64), ("decoder", 0)])
def test_what_is_learned(variance, parameters):
    assert built(kvae.GaussianLikelihood(variance), (8, 8, 1)).count_params() == parameters


def test_a_learned_variance_starts_where_it_is_told():
    likelihood = built(kvae.GaussianLikelihood(initial_variance=0.2), (8, 8, 1))
    np.testing.assert_allclose(np.exp(likelihood.log_var), 0.2, rtol=1e-5)


@pytest.mark.parametrize("variance", ["shared", "decoder"])
def test_the_floor_holds_and_keeps_a_gradient(variance):
    likelihood = built(kvae.GaussianLikelihood(variance, min_variance=1e-4), (3,))
    raw = tf.Variable([[-12.0, -12.0, -12.0]])
    with tf.GradientTape() as tape:
        if variance == "shared":
            likelihood.raw_log_var.assign(-0.3)
            raw = likelihood.raw_log_var.value
            log_var = likelihood.log_var
        else:
            log_var = likelihood.distribution([tf.zeros((1, 3)), raw]).log_var
    assert np.min(np.exp(log_var)) >= 1e-4
    assert np.all(np.abs(tape.gradient(log_var, raw)) > 0)


@pytest.mark.parametrize("variance", [0.3, "shared", "pixel", "decoder"])
def test_it_comes_back_from_its_config(variance):
    likelihood = kvae.GaussianLikelihood(variance, initial_variance=0.07, min_variance=1e-3)
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(likelihood))
    assert (copy.variance, copy.initial_variance, copy.min_variance) == (variance, 0.07, 1e-3)


@pytest.mark.parametrize("variance", [0, -1.0, float("nan"), float("inf"), True, "each", None])
def test_variances_that_make_no_sense_are_refused(variance):
    with pytest.raises(ValueError, match="expected 'shared', 'pixel', 'decoder' or a positive number"):
        kvae.GaussianLikelihood(variance)


def test_bernoulli_refuses_values_beyond_0_and_1():
    with pytest.raises(ValueError, match=r"reach from 0 to 255; BernoulliLikelihood expects values in \[0, 1\]"):
        kvae.BernoulliLikelihood().check_data(np.array([0.0, 255.0]))


def test_bernoulli_warns_of_grey_pixels_and_not_of_binary_ones():
    with pytest.warns(UserWarning, match=r"50% of the pixels are grey.*GaussianLikelihood"):
        kvae.BernoulliLikelihood().check_data(np.array([0.0, 0.5]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kvae.BernoulliLikelihood().check_data(np.array([0.0, 1.0]))


def test_gaussian_warns_of_pixels_that_were_not_scaled(rng):
    with pytest.warns(UserWarning, match="whole numbers from 0 to 255: if they are pixels.*uint8"):
        kvae.GaussianLikelihood().check_data(np.array([0.0, 17.0, 255.0]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kvae.GaussianLikelihood().check_data(rng.normal(size=50))
        kvae.GaussianLikelihood().check_data(np.array([0.0, 1.0]))


@pytest.mark.parametrize(
    "likelihood, x, message",
    [
        ("continuous_bernoulli", [-0.1, 1.0], r"ContinuousBernoulliLikelihood expects values in \[0, 1\]"),
        ("discretized_logistic", [0.0, 0.1234], "hold the value 0.1234.*expects 256 levels k / 255.*uint8"),
        ("discretized_logistic", [0.0, 17.0], "hold the value 17.*divide whole numbers by 255"),
        (kvae.CategoricalLikelihood(4), [0.0, 0.5], "expects 4 levels k / 3"),
        ("categorical", [1.0, 1.0], "not one-hot along their last axis"),
        ("categorical", [0.5, 0.5], "not one-hot along their last axis"),
        ("poisson", [0.0, 3 / 255], r"PoissonLikelihood expects counts 0, 1, 2, .* as int32 or float32: uint8 means"),
        ("negative_binomial", [-1.0, 3], r"hold the value -1; NegativeBinomialLikelihood expects counts"),
    ],
)
def test_values_without_a_probability_are_refused(likelihood, x, message):
    with pytest.raises(ValueError, match=message):
        get(likelihood).check_data(np.array([x], "float32"))


def test_continuous_bernoulli_warns_of_binary_images():
    with pytest.warns(UserWarning, match=r"grows without bound.*BernoulliLikelihood"):
        get("continuous_bernoulli").check_data(np.array([0.0, 1.0]))


@pytest.mark.parametrize(
    "likelihood, shape, message",
    [
        (
            "discretized_logistic",
            (2, 3, 4),
            r"1 output\(s\) of shape \(2, 3, 4\).*shape \(2, 3, 90\) for images \(2, 3, 4\)",
        ),
        (
            "discretized_logistic",
            (6,),
            r"DiscretizedLogisticLikelihood expects channels as the last axis.*x\[..., None\]",
        ),
        (kvae.CategoricalLikelihood(3), (2, 3, 4), r"shape \(2, 3, 12\) for images"),
        ("categorical", (6, 1), r"expects at least 2 classes.*CategoricalLikelihood\(levels="),
        (kvae.NegativeBinomialLikelihood("decoder"), (6,), r"reads \[raw_mean, log_dispersion\].*outputs=2"),
    ],
)
def test_decoders_of_another_shape_are_refused(likelihood, shape, message):
    with pytest.raises(ValueError, match=message):
        kvae.VAE(dense_encoder(shape, 2, hidden=()), dense_decoder(shape, 2, hidden=()), likelihood)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: kvae.DiscretizedLogisticLikelihood(0), "components is 0; expected an integer of at least 1"),
        (lambda: kvae.DiscretizedLogisticLikelihood(levels=1), "levels is 1; expected an integer of at least 2"),
        (lambda: kvae.CategoricalLikelihood(True), "levels is True; expected an integer of at least 2"),
        (lambda: kvae.NegativeBinomialLikelihood("gene"), "dispersion is 'gene'; expected 'feature'"),
        (lambda: kvae.NegativeBinomialLikelihood(0), "dispersion is 0; expected"),
        (
            lambda: kvae.NegativeBinomialLikelihood(initial_dispersion=-1),
            "initial_dispersion is -1; expected a positive",
        ),
    ],
)
def test_arguments_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_where_a_dispersion_starts_and_how_many_are_learned():
    for dispersion, parameters in [(0.2, 0), ("shared", 1), ("feature", 24)]:
        likelihood = built(kvae.NegativeBinomialLikelihood(dispersion, initial_dispersion=0.2), (2, 3, 4))
        assert likelihood.count_params() == parameters
        np.testing.assert_allclose(np.exp(likelihood.log_dispersion), 0.2, rtol=1e-5)
