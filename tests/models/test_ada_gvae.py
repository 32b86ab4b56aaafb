"""A VAE of pairs: the latents they share, the bound of both images, and what a pair teaches that an image doesn't."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.stats import multivariate_normal
from small_models import same_weights

import kvae
from kvae.distributions import Normal
from kvae.networks import dense_decoder, dense_encoder


def model(latent_dim=3, hidden=(8,), likelihood="gaussian", **arguments):
    keras.utils.set_random_seed(0)
    networks = dense_encoder((6,), latent_dim, hidden), dense_decoder((6,), latent_dim, hidden)
    made = kvae.AdaGVAE(*networks, likelihood, seed=0)
    made.compile(**{"optimizer": kvae.optimizers.Adam(1e-2), "run_eagerly": True, **arguments})
    return made


@pytest.fixture
def pairs(rng):
    return rng.random((2, 50, 6)).astype("float32")


def test_shared_latents_are_those_of_a_kl_below_the_middle_and_get_the_mean_moments(pairs):
    made = model()
    q = made.posterior(np.concatenate(pairs))
    mean, variance = q.mean.numpy().reshape(2, 50, 3), np.exp(q.log_var.numpy()).reshape(2, 50, 3)
    found = made.pair_posterior(*pairs)
    found_mean, found_variance = (
        values.reshape(2, 50, 3) for values in (found.mean.numpy(), np.exp(found.log_var.numpy()))
    )
    for row in range(50):
        kl = [
            0.5 * (v / w + w / v - 2 + (m - n) ** 2 * (1 / v + 1 / w))
            for m, n, v, w in zip(*mean[:, row], *variance[:, row], strict=True)
        ]
        for j in range(3):
            if kl[j] < 0.5 * (min(kl) + max(kl)):
                np.testing.assert_allclose(found_mean[:, row, j], mean[:, row, j].mean(), rtol=1e-5)
                np.testing.assert_allclose(found_variance[:, row, j], variance[:, row, j].mean(), rtol=1e-5)
            else:
                np.testing.assert_array_equal(found_mean[:, row, j], mean[:, row, j])
                np.testing.assert_allclose(found_variance[:, row, j], variance[:, row, j], rtol=1e-6)


def test_with_the_posteriors_of_a_pair_each_elbo_is_below_log_p(rng):
    """Of a linear decoder, whose log p(x) has a closed form. x and x' share q, and the bound holds for both."""
    made = model(latent_dim=2, hidden=(), likelihood=kvae.GaussianLikelihood(variance=0.3))
    x = rng.normal(size=(2, 20, 6)).astype("float32")
    kernel, bias = made.decoder.get_weights()
    exact = multivariate_normal(bias, kernel.T @ kernel + 0.3 * np.eye(6)).logpdf(x.reshape(-1, 6))
    elbo = np.mean([made.draw(tuple(x), 100, index=np.arange(20) + 20 * k).elbo for k in range(20)], axis=0)
    assert np.all(elbo < exact)
    numbers = made.losses_per_example(x[0], partner=x[1], index=np.arange(20))[1]
    one = made.draw(tuple(x), index=np.arange(20)).elbo.numpy().reshape(2, 20).mean(axis=0)
    np.testing.assert_allclose(numbers["elbo"], one, rtol=1e-6)


def test_noise_of_positions_is_the_same_in_any_batch_and_another_for_the_partner(pairs):
    made = model()
    whole = made.draw(tuple(pairs), 2, index=np.arange(50)).z.numpy().reshape(2, 50, 2, 3)
    part = made.draw((pairs[0, 20:30], pairs[1, 20:30]), 2, index=np.arange(20, 30)).z.numpy().reshape(2, 10, 2, 3)
    np.testing.assert_allclose(part, whole[:, 20:30], rtol=1e-6)
    same = made.draw((pairs[0], pairs[0]), index=np.arange(50)).z.numpy().reshape(2, 50, 3)
    assert np.abs(same[0] - same[1]).min() > 0


def test_images_alone_are_read_as_by_a_vae(pairs):
    made, vae = model(), kvae.VAE(dense_encoder((6,), 3, (8,)), dense_decoder((6,), 3, (8,)), seed=0)
    vae.compile(run_eagerly=True)
    vae.set_weights(made.get_weights())
    assert made.evaluate(pairs[0], verbose=0, return_dict=True) == vae.evaluate(pairs[0], verbose=0, return_dict=True)
    with_partners = made.evaluate(*pairs, verbose=0, return_dict=True)
    stream = tf.data.Dataset.from_tensor_slices(tuple(pairs)).batch(20)
    assert made.evaluate(stream, verbose=0, return_dict=True) == pytest.approx(with_partners, rel=1e-6)
    assert with_partners["loss"] == pytest.approx(-with_partners["elbo"])


def test_it_refuses_what_is_no_pair_and_other_posteriors(pairs):
    made = model()
    before = made.get_weights()
    stream = tf.data.Dataset.from_tensor_slices(pairs[0]).batch(5)
    for data in ((pairs[0],), (pairs[0], np.zeros(50)), (pairs[0], pairs[1][:, :5]), (stream,)):
        with pytest.raises(ValueError, match=r"and found no partner of x's shape: give fit\(x, partner\)"):
            made.fit(*data, verbose=0)
    assert all(map(np.array_equal, made.get_weights(), before))
    with pytest.raises(ValueError, match="latent_dim is 1; an AdaGVAE shares"):
        model(latent_dim=1)
    with pytest.raises(ValueError, match="samples is 0"):
        made.draw(tuple(pairs), 0)
    family = kvae.posteriors.FullNormal()
    encoder = dense_encoder((6,), 3, (8,), posterior_family=family)
    with pytest.raises(ValueError, match=r"is a FullNormal; an AdaGVAE compares a pair's latents one by one"):
        kvae.AdaGVAE(encoder, dense_decoder((6,), 3, (8,)), posterior_family=family)


def test_a_partner_is_checked_as_x_is(pairs):
    x, partner = pairs
    wrong = {}
    for value in (np.nan, np.inf, 1e30, 2.0):
        wrong[value] = partner.copy()
        wrong[value][3, 2] = value
    gaussian, bernoulli = model(), model(likelihood="bernoulli")
    for made, y, message in (
        (gaussian, wrong[np.nan], "the partner of {} has NaN or infinite values, first in example 3"),
        (gaussian, wrong[np.inf], "the partner of {} has NaN or infinite values, first in example 3"),
        (gaussian, wrong[1e30], r"the partner of {} has the magnitude 1e\+30"),
        (bernoulli, wrong[2.0], "reach from 0.0[0-9]+ to 2; BernoulliLikelihood expects"),
        (gaussian, (partner * 255).astype("uint8") // 128, "the partner of {} is uint8 and holds 0 and 1 alone"),
        (gaussian, partner.astype("complex64"), "complex64"),
    ):
        for data in ((x, y), tf.data.Dataset.from_tensor_slices((x, y)).batch(25)):
            given = data if isinstance(data, tuple) else (data,)
            with pytest.raises((TypeError, ValueError), match=message.format("x")):
                made.fit(*given, verbose=0)
            with pytest.raises((TypeError, ValueError), match=message.format("x")):
                made.evaluate(*given, verbose=0)
            with pytest.raises((TypeError, ValueError), match=message.format("validation_data")):
                made.fit(*pairs, validation_data=data, verbose=0)
    with pytest.raises(ValueError, match="x is float32 and its partner uint8"):
        gaussian.fit(x * 255, (partner * 255).astype("uint8"), verbose=0)
    late = partner.copy()
    late[40, 0] = np.nan
    with pytest.raises(ValueError, match="the y of x has NaN or infinite values"):
        gaussian.evaluate(tf.data.Dataset.from_tensor_slices((x, late)).batch(25), verbose=0)
    named = tf.data.Dataset.from_tensor_slices((x, {"partner": partner, "hue": np.zeros(50)})).batch(25)
    assert gaussian.evaluate(named, verbose=0) == pytest.approx(gaussian.evaluate(x, partner, verbose=0), rel=1e-6)
    pixels = tuple((each * 255).astype("uint8") for each in pairs)
    scaled = tuple(each / np.float32(255) for each in pixels)
    elbos = [gaussian.draw(each, index=np.arange(50)).elbo for each in (pixels, scaled, (pixels[0], scaled[1]))]
    np.testing.assert_allclose(elbos[1:], [elbos[0]] * 2, rtol=1e-5)


def test_it_is_saved_trained_further_and_takes_other_objectives(pairs, tmp_path):
    made = model(loss=kvae.BetaTCVAE(50, beta=2.0))
    made.fit(*pairs, batch_size=25, verbose=0)
    made.save(tmp_path / "pairs.keras")
    loaded = kvae.load(tmp_path / "pairs.keras")
    assert isinstance(loaded, kvae.AdaGVAE)
    assert loaded.evaluate(*pairs, verbose=0) == pytest.approx(made.evaluate(*pairs, verbose=0), rel=1e-6)
    for each in (made, loaded):
        each.fit(*pairs, batch_size=25, epochs=2, verbose=0, initial_epoch=1, shuffle=False)
    assert same_weights(made, loaded)


def test_pairs_tell_attributes_apart_that_images_alone_leave_mixed(rng):
    """x is a rotation of three independent normals of equal variance: no direction is better than another.

    The partners differ in one of them. Their latents are the three, up to order and sign.
    """
    factors = rng.normal(size=(2, 4_000, 3))
    changed = rng.integers(0, 3, 4_000)[:, None] == np.arange(3)
    factors[1] = np.where(changed, factors[1], factors[0])
    rotation = np.linalg.qr(rng.normal(size=(6, 6)))[0][:3]
    x = (factors @ rotation + 0.1 * rng.normal(size=(2, 4_000, 6))).astype("float32")

    def gap(kind, *data):
        keras.utils.set_random_seed(0)
        likelihood = kvae.GaussianLikelihood(variance=0.5)
        made = kvae.__dict__[kind](dense_encoder((6,), 3, ()), dense_decoder((6,), 3, ()), likelihood, seed=0)
        made.compile(kvae.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-2, 800)))
        made.fit(*data, batch_size=100, epochs=20, verbose=0)
        shares = np.abs(np.corrcoef(factors[0].T, made.transform(x[0]).T)[:3, 3:])
        largest = np.sort(shares, axis=1)
        return np.min(largest[:, 2] - largest[:, 1])

    assert gap("AdaGVAE", *x) > 0.9 and gap("VAE", x[0]) < 0.6


def test_a_pair_posterior_is_a_normal_of_both(pairs):
    found = model().pair_posterior(*pairs, training=True)
    assert isinstance(found, Normal) and found.mean.shape == (100, 3)
