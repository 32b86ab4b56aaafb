"""The audit of trained networks: a linear Gaussian model with its exact posterior, so that log p(x) is known."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from printed_losses import kl
from scipy import stats

import kvae

VARIANCE, DIMENSIONS = 0.5, 6
W = np.array([[2.0, 0, 0, 0, 0, 0], [0, 0.7, 0, 0, 0, 0]]) @ stats.ortho_group(DIMENSIONS, seed=0).rvs()  # (2, 6)
POSTERIOR = 1 / (1 + np.sum(W**2, axis=1) / VARIANCE)  # variances
X = stats.multivariate_normal(np.zeros(DIMENSIONS), W.T @ W + VARIANCE * np.eye(DIMENSIONS)).rvs(400, random_state=0)
LOG_P = stats.multivariate_normal(np.zeros(DIMENSIONS), W.T @ W + VARIANCE * np.eye(DIMENSIONS)).logpdf(X).mean()


def encoder(sampling=None, log_var_factor=1.0):
    x = keras.Input((DIMENSIONS,))
    mean = layers.Dense(2, use_bias=False)
    log_var = layers.Dense(2)
    outputs = [mean(x), log_var(x)]
    mean.set_weights([W.T * POSTERIOR / VARIANCE])
    log_var.set_weights([np.zeros((DIMENSIONS, 2)), log_var_factor * np.log(POSTERIOR)])
    return keras.Model(x, outputs if sampling is None else [*outputs, sampling(outputs)])


def decoder(activation=None):
    z = keras.Input((2,))
    layer = layers.Dense(DIMENSIONS, use_bias=False, activation=activation)
    model = keras.Model(z, layer(z))
    layer.set_weights([W])
    return model


class Draw(layers.Layer):
    """z = z_mean + exp(factor z_log_var) eps."""

    def __init__(self, factor):
        super().__init__()
        self.factor, self.seed = factor, keras.random.SeedGenerator(0)

    def call(self, inputs):
        mean, log_var = inputs
        return mean + ops.exp(self.factor * log_var) * keras.random.normal(ops.shape(mean), seed=self.seed)


def squares(x, r):
    return ops.sum(ops.square(x - r), axis=-1)


def loss(x, r, m, v):  # sigma^2 = 1/2, without its constant
    return squares(x, r) + kl(m, v)


def with_constant(x, r, m, v):
    return loss(x, r, m, v) + 0.5 * DIMENSIONS * np.log(2 * np.pi * VARIANCE)


@pytest.mark.parametrize("function, constant", [(loss, 0.5 * DIMENSIONS * np.log(np.pi)), (with_constant, 0.0)])
def test_of_a_right_loss_it_says_log_p_beside_what_is_printed(function, constant):
    result = kvae.audit_model(encoder(), decoder(), function, data=X, samples=5)
    assert not result.findings and result.sigma2 == pytest.approx(VARIANCE, rel=1e-5)
    assert result.log_likelihood.mean == pytest.approx(LOG_P, abs=1e-3)  # with the exact posterior, from any draw
    assert result.printed_in_nats == pytest.approx(-LOG_P, abs=0.15)
    assert result.printed_in_nats - result.printed == pytest.approx(constant, abs=1e-3)
    assert any("leaves out 3.43 nats" in note for note in result.notes) == bool(constant)
    assert isinstance(result.model, kvae.VAE) and "-log p(x), nats" in str(result)


def test_a_loss_of_a_sum_or_with_a_factor_is_brought_to_nats():
    result = kvae.audit_model(encoder(), decoder(), lambda *a: ops.sum(loss(*a)), data=X, samples=5)
    assert result.printed_in_nats == pytest.approx(-LOG_P, abs=0.15)
    result = kvae.audit_model(
        encoder(), decoder(), lambda x, r, m, v: ops.mean(squares(x, r) / 6 + kl(m, v) / 6), data=X, samples=5
    )
    assert not result.findings and result.printed_in_nats == pytest.approx(-LOG_P, abs=0.15)


def test_draws_with_the_variance_for_sigma_are_named_and_the_bound_is_none():
    result = kvae.audit_model(encoder(Draw(1.0)), decoder(), with_constant, data=X, samples=5)
    assert result.names == ("sigma", "above-log-p")
    assert not kvae.audit_model(encoder(Draw(0.5)), decoder(), with_constant, data=X, samples=5).findings


def test_log_sigma_in_both_places_is_only_a_name():
    def of_log_sigma(x, r, m, s):
        return squares(x, r) - 0.5 * ops.sum(1 + 2 * s - ops.square(m) - ops.exp(2 * s), axis=-1)

    result = kvae.audit_model(encoder(Draw(1.0), 0.5), decoder(), of_log_sigma, data=X, samples=5)
    assert not result.findings and result.log_likelihood.mean == pytest.approx(LOG_P, abs=1e-3)


def test_a_number_of_the_users_is_held_against_log_p():
    result = kvae.audit_model(encoder(), decoder(), with_constant, data=X, samples=5, printed=-LOG_P - 3)
    assert result.names == ("above-log-p",) and "3.00 nats above" in result.findings[0].consequence


def test_a_decoders_last_layer_is_held_against_the_loss():
    def on_logits(x, r, m, v):
        return ops.sum(ops.softplus(r) - x * r, axis=-1) + kl(m, v)

    def on_probabilities(x, r, m, v):
        return DIMENSIONS * keras.losses.binary_crossentropy(x, r) + kl(m, v)

    bits = (X > 0).astype("float32")
    with pytest.warns(UserWarning, match="ends in sigmoid"):
        twice = kvae.audit_model(encoder(), decoder("sigmoid"), on_logits, data=bits, samples=2)
    assert twice.names == ("sigmoid-twice",)
    assert "no-sigmoid" in kvae.audit_model(encoder(), decoder(), on_probabilities, data=bits, samples=2).names
    result = kvae.audit_model(encoder(), decoder("sigmoid"), on_probabilities, data=bits, samples=2)
    logits = kvae.audit_model(encoder(), decoder(), on_logits, data=bits, samples=2)
    assert result.log_likelihood.mean == pytest.approx(logits.log_likelihood.mean, abs=1e-3)


def test_networks_alone_are_looked_at_and_measured():
    result = kvae.audit_model(encoder(Draw(1.0)), decoder(), data=X)
    assert result.names == ("sigma",) and result.log_likelihood is None
    likelihood = kvae.GaussianLikelihood(VARIANCE)
    result = kvae.audit_model(encoder(), decoder(), data=X, likelihood=likelihood, samples=2)
    assert result.log_likelihood.mean == pytest.approx(LOG_P, abs=1e-3)


def test_networks_that_do_not_fit_are_refused_in_a_sentence():
    x = keras.Input((DIMENSIONS,))
    with pytest.raises(ValueError, match=r"The encoder gives 1 output\(s\) .*; expected \[z_mean, z_log_var\]"):
        kvae.audit_model(keras.Model(x, layers.Dense(2)(x)), decoder(), loss, data=X)
    with pytest.raises(ValueError, match="The encoder doesn't take x of shape"):
        kvae.audit_model(encoder(), decoder(), loss, data=X[:, :3])
    with pytest.raises(TypeError, match="decoder is 3"):
        kvae.audit_model(encoder(), 3, loss, data=X)
