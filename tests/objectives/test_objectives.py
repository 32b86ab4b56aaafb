import keras
import numpy as np
import pytest
import tensorflow as tf
from combinations import made

import kvae


class TwoHeads(keras.layers.Layer):
    """An encoder that doesn't know its input's shape."""

    def __init__(self):
        super().__init__()
        self.heads = keras.layers.Dense(2), keras.layers.Dense(2)

    def call(self, x):
        return [head(x) for head in self.heads]


@pytest.fixture
def draw(rng):
    log_likelihood, log_prior, log_posterior = (tf.constant(rng.normal(size=(4, 6))) for _ in range(3))
    return kvae.Draw(None, log_likelihood, log_prior, log_posterior, tf.constant(rng.uniform(0, 2, size=(4, 3))))


def test_elbo_is_reconstruction_minus_kl(draw):
    expected = np.mean(draw.log_likelihood, axis=1) - np.sum(draw.kl, axis=1)
    np.testing.assert_allclose(kvae.ELBO()(draw), -expected)
    np.testing.assert_allclose(draw.elbo, expected)


def test_without_a_closed_form_the_kl_is_its_estimate(draw):
    draw = draw._replace(kl=None)
    np.testing.assert_allclose(draw.kl_loss, np.mean(draw.log_posterior - draw.log_prior, axis=1))


def test_beta_and_free_bits_weigh_the_loss_and_not_the_elbo(draw):
    loss = kvae.ELBO(beta=4, free_bits=0.7)(draw)
    expected = -np.mean(draw.log_likelihood, axis=1) + 4 * np.sum(np.maximum(draw.kl, 0.7), axis=1)
    np.testing.assert_allclose(loss, expected)


def test_beta_may_be_any_keras_schedule(draw):
    warm_up = kvae.ELBO(beta=keras.optimizers.schedules.PolynomialDecay(0.0, 10, end_learning_rate=1.0))
    for step, beta in ((0, 0.0), (4, 0.4), (25, 1.0)):
        expected = draw.reconstruction_loss + beta * draw.kl_loss
        np.testing.assert_allclose(warm_up(draw, tf.constant(step)), expected, rtol=1e-6)


@pytest.mark.parametrize("beta", [2.5, keras.optimizers.schedules.ExponentialDecay(1.0, 10, 0.5)])
def test_it_comes_back_from_its_config(draw, beta):
    objective = kvae.ELBO(beta=beta, free_bits=0.1)
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(objective))
    np.testing.assert_array_equal(copy(draw, 7), objective(draw, 7))


@pytest.mark.parametrize(
    "prior, posterior", [("normal", "diagonal"), ("normal", "full"), ("mixture", "diagonal"), ("normal", "coupling")]
)
def test_free_bits_want_a_closed_form_by_latent(prior, posterior):
    model, objective = made(prior, posterior), kvae.ELBO(free_bits=0.5)
    if (prior, posterior) in (("normal", "diagonal"), ("normal", "full")):
        model.compile(loss=objective)
        return
    with pytest.raises(ValueError, match=r"free_bits are nats a latent, and .* has no closed form by latent"):
        model.compile(loss=objective)
    model.compile()


def test_free_bits_are_checked_where_a_model_learns_its_shape_late(rng):
    decoder = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(6)])
    model = kvae.VAE(TwoHeads(), decoder, prior=kvae.MixtureOfGaussians(3))
    assert not model.built
    model.compile(loss=kvae.ELBO(free_bits=0.5))
    with pytest.raises(ValueError, match="free_bits are nats a latent"):
        model.fit(rng.random((20, 6)), verbose=0)


@pytest.mark.parametrize("arguments", [{"beta": -1}, {"beta": float("nan")}, {"free_bits": -0.1}])
def test_weights_that_make_no_sense_are_refused(arguments):
    with pytest.raises(ValueError, match=r"expected a finite number of at least 0"):
        kvae.ELBO(**arguments)


def test_a_weight_of_another_type_is_refused():
    with pytest.raises(TypeError, match=r"beta is '1'; expected a number or a Keras schedule"):
        kvae.ELBO(beta="1")
