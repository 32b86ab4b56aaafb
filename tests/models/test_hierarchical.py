"""Models of several stochastic layers: against the closed form, and with everything that a VAE has."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from breadth import some, thorough
from combinations import PRIORS, gradient
from hierarchical_models import SIZES, linear_gaussian, network, normal, two_layer
from keras import layers
from likelihood_cases import CASES

import kvae
from kvae.distributions import Normal
from kvae.layers import PrecisionWeighted


def test_with_the_exact_posteriors_every_draw_says_log_p_of_x(rng, float64):
    model, log_p, x = linear_gaussian(rng, 40)
    draw = model.draw(tf.constant(x), 7)
    assert draw.z.shape == (40, 7, sum(SIZES)) and draw.kl is None
    np.testing.assert_allclose(draw.log_weights, np.repeat(log_p[:, None], 7, axis=1), atol=1e-9)
    found = kvae.evaluation.log_likelihood(model, x, 20, verbose=0)
    np.testing.assert_allclose(found.values, log_p, atol=1e-9)
    posterior = model.posterior(tf.constant(x))
    z, log_prob = posterior.rsample_and_log_prob(tf.constant(rng.normal(size=(40, sum(SIZES)))))
    np.testing.assert_allclose(posterior.log_prob(z), log_prob, atol=1e-9)
    np.testing.assert_allclose(np.diag(posterior.pairwise_log_prob(z)), log_prob, atol=1e-9)


def test_other_posteriors_bounds_rise_to_log_p_of_x(rng, float64):
    model, log_p, x = linear_gaussian(rng, 40)
    for posterior in model.posteriors:
        mean = posterior.layers[-2]
        mean.set_weights([mean.get_weights()[0], mean.get_weights()[1] + 0.15])
    bounds = []
    for samples in (1, 5, 500):
        draw = model.draw(tf.repeat(tf.constant(x), 2000 // samples, axis=0), samples)
        bounds.append(float(np.mean(draw.importance_weighted_bound)))
    assert bounds[0] < bounds[1] - 0.01 and bounds[1] < bounds[2] < log_p.mean() + 0.005
    assert bounds[2] == pytest.approx(log_p.mean(), abs=0.01)


def test_samples_have_the_models_moments(rng):
    model, _, x = linear_gaussian(rng, 200_000)
    samples = model.sample(200_000, noise=True, seed=3)
    np.testing.assert_allclose(samples.mean(axis=0), x.mean(axis=0), atol=0.03)
    np.testing.assert_allclose(np.cov(samples.T), np.cov(x.T), atol=0.1)
    np.testing.assert_array_equal(model.sample(4, seed=1), model.sample(4, seed=1))
    z = np.asarray(model.prior_distribution(5000).sample(1))
    assert np.abs(np.corrcoef(z[:, 1], z[:, 3])[0, 1]) < 1  # an int's draws of two layers aren't the same noise


def test_at_the_exact_posteriors_the_doubly_reparameterized_gradient_has_no_variance(rng, float64):
    model, _, x = linear_gaussian(rng, 2)
    encoders = [weight for network in model.posteriors for weight in network.trainable_weights]
    where = [any(weight is w for w in encoders) for weight in model.trainable_weights]
    for doubly in (True, False):
        found = gradient(model, tf.constant(x), 3, doubly)
        largest = max(np.abs(g).max() for g, is_encoders in zip(found, where, strict=True) if is_encoders)
        assert (largest < 1e-9) == doubly


@pytest.mark.parametrize(
    "shared, graph", some([(False, False), (False, True), (True, False), (True, True)], (False, False))
)
def test_a_draw_is_scored_with_the_dropout_that_it_was_made_with(rng, shared, graph):
    dropouts = [layers.Dropout(0.5, seed=1)]
    dropouts.append(dropouts[0] if shared else layers.Dropout(0.5, seed=2))
    posteriors = []
    for level, dropout in enumerate(dropouts):
        inputs = [layers.Input((6,)), *(layers.Input((3,)) for _ in range(2 - level))]
        h = dropout(layers.Dense(12, "tanh")(layers.Concatenate()(inputs)))
        posteriors.append(keras.Model(inputs, [layers.Dense(3)(h), layers.Dense(3)(h)]))
    priors, decoder = [normal([3, 3], 3), normal([3], 3)], network([3, 3, 3], (6,))
    model = kvae.HierarchicalVAE(layers.Identity(), [*posteriors, normal([6], 3)], priors, decoder, seed=0)
    x, index = tf.constant(rng.random((20, 6)), tf.float32), tf.range(20)
    model(x)

    def draw(training, doubly):
        for dropout in dropouts:
            dropout.seed_generator.state.assign([1, 0])
        return model.draw(x, 4, index=index, training=training, doubly_reparameterized=doubly)

    found = {
        (training, doubly): (tf.function(draw) if graph else draw)(training, doubly)
        for training in (True, False)
        for doubly in (True, False)
    }
    for training in (True, False):
        for one, other in zip(found[training, True][:4], found[training, False][:4], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
    changed = np.abs(found[True, True].z - found[False, True].z).max(axis=(0, 1))
    assert (changed[:6] > 0.1).all() and (changed[6:] == 0).all()
    draw(True, True)
    assert int(dropouts[0].seed_generator.state.value[1]) == 1 + shared  # scoring takes no further masks


@pytest.mark.parametrize(
    "objective", [kvae.ELBO(), thorough(kvae.IWAE(3)), kvae.IWAE(3, gradient="doubly_reparameterized")]
)
def test_gradients_are_central_differences(rng, float64, objective):
    """The objective's, of every weight of a small model; the doubly reparameterized one's of the decoder."""
    model = two_layer()
    model.compile(loss=objective)
    x, index = tf.constant(rng.random((3, 6))), np.arange(3)

    def loss():
        return tf.reduce_sum(model.losses_per_example(x, index=index)[0])

    weights = model.decoder.trainable_weights if objective.doubly_reparameterized else model.trainable_weights
    with tf.GradientTape() as tape:
        value = loss()
    gradients = tape.gradient(value, [weight.value for weight in weights])
    for weight, found in zip(weights, gradients, strict=True):
        start, direction = weight.numpy(), rng.normal(size=weight.shape)
        ends = []
        for step in (1e-5, -1e-5):
            weight.assign(start + step * direction)
            ends.append(float(loss()))
        weight.assign(start)
        assert np.sum(found * direction) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize(
    "prior, ladder, eagerly",
    [
        ("flow", True, True),
        thorough("vamp", False, True),
        thorough("normal", True, False),
        thorough("mixture", False, False),
        pytest.param("flow", True, False, marks=pytest.mark.slow),
        pytest.param("vamp", False, False, marks=pytest.mark.slow),
    ],
)
def test_it_trains_is_saved_evaluated_and_drawn_from(rng, tmp_path, prior, ladder, eagerly):
    x = rng.random((40, 6)).astype("float32")
    model = two_layer(prior=PRIORS[prior](), ladder=ladder)
    model.compile(keras.optimizers.Adam(1e-2), kvae.IWAE(2) if ladder else None, run_eagerly=eagerly)
    history = model.fit(x, epochs=3, batch_size=20, shuffle=False, verbose=0).history["loss"]
    assert history[-1] < history[0]
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.evaluate(x, return_dict=True, verbose=0) == model.evaluate(x, return_dict=True, verbose=0)
    np.testing.assert_array_equal(loaded.sample(3), model.sample(3))
    np.testing.assert_array_equal(loaded.transform(x), model.transform(x))
    assert model.transform(x).shape == (40, 5) and model.reconstruct(x).shape == (40, 6)
    for one in (model, loaded):
        one.fit(x, epochs=1, batch_size=20, shuffle=False, verbose=0)
    assert len(loaded.trainable_weights) == len(model.trainable_weights)  # the ladder's networks are still shared
    for ours, theirs in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    found = kvae.evaluation.log_likelihood(model, x, 50, verbose=0)
    assert found.mean > found.elbo and np.all(np.isfinite(found.values))


@pytest.mark.parametrize("make, data", some(CASES, "gaussian decoder", "discretized logistic", "categorical"))
def test_every_likelihood_serves(rng, make, data):
    model = two_layer((2, 3, 4), make())
    draw = model.draw(tf.constant(data(rng, 20, 2, 3, 4), tf.float32), 2)
    assert np.all(np.isfinite(draw.log_weights)) and model.sample(2, noise=True).shape == (2, 2, 3, 4)


def test_three_layers_may_be_a_markov_chain(rng):
    x = rng.random((20, 6)).astype("float32")
    posteriors = [normal([6, 4], 5), normal([6, 3], 4), normal([6], 3)]
    decoder = keras.Sequential([layers.Input((5,)), layers.Dense(6)])
    model = kvae.HierarchicalVAE(layers.Identity(), posteriors, [normal([4], 5), normal([3], 4)], decoder)
    assert not model.built
    model.compile(run_eagerly=True)
    model.fit(x, verbose=0)
    assert model.latent_sizes == (5, 4, 3) and model.latent_dim == 12
    codes = model.transform(x)
    x = tf.constant(x)
    top = model.posteriors[2](x)[0]
    middle = model.posteriors[1]([x, top])[0]
    expected = np.concatenate([model.posteriors[0]([x, middle])[0], middle, top], axis=1)
    np.testing.assert_allclose(codes, expected, atol=1e-5)


def test_a_vamp_priors_images_leave_moving_statistics_alone(rng):
    encoder = keras.Sequential([layers.Input((6,)), layers.BatchNormalization(momentum=0.5)])
    posteriors, priors = [normal([6, 2], 3), normal([6], 2)], [normal([2], 3)]
    model = kvae.HierarchicalVAE(encoder, posteriors, priors, network([3, 2], (6,)), prior=kvae.VampPrior(5), seed=0)
    model.compile(run_eagerly=True)
    x = rng.random((30, 6)).astype("float32") + 0.3
    model.fit(x, batch_size=30, epochs=2, verbose=0)
    np.testing.assert_allclose(encoder.layers[0].moving_mean, 0.75 * x.mean(axis=0), rtol=1e-5)


def test_precision_weighted_is_the_product_of_two_normals(rng):
    means, log_vars = rng.normal(size=(2, 4, 1)), rng.normal(size=(2, 4, 1))
    mean, log_var = PrecisionWeighted(dtype="float64")([means[0], log_vars[0], means[1], log_vars[1]])
    product, difference = Normal(mean, log_var), []
    for z in rng.normal(size=(3, 4, 1)):
        both = sum(Normal(m, v).log_prob(tf.constant(z)) for m, v in zip(means, log_vars, strict=True))
        difference.append(product.log_prob(tf.constant(z)) - both)
    np.testing.assert_allclose(np.std(difference, axis=0), 0, atol=1e-12)


def test_parts_that_do_not_fit_are_refused():
    encoder = keras.Sequential([layers.Input((6,)), layers.Dense(8)])
    decoder = layers.Dense(6)
    with pytest.raises(ValueError, match="2 posteriors and 2 priors; expected at least 2, and one prior less"):
        kvae.HierarchicalVAE(encoder, [normal([8, 2], 3), normal([8], 2)], [normal([2], 3)] * 2, decoder)
    with pytest.raises(ValueError, match=r"priors\[0\] gives outputs of shapes .*4.*posteriors\[0\].*3.*of one size"):
        kvae.HierarchicalVAE(encoder, [normal([8, 2], 3), normal([8], 2)], [normal([2], 4)], decoder)
    with pytest.raises(ValueError, match=r"posteriors\[0\] doesn't take inputs of shape \(None, 8\), \(None, 2\)"):
        kvae.HierarchicalVAE(encoder, [normal([8, 5], 3), normal([8], 2)], [normal([2], 3)], decoder)
    with pytest.raises(ValueError, match=r"posteriors\[1\] gives outputs of shapes \[\(None, 2\)\]; expected"):
        kvae.HierarchicalVAE(encoder, [normal([8, 2], 3), layers.Dense(2)], [normal([2], 3)], decoder)
    networks = [normal([8, 2], 3), normal([8], 2)], [normal([2], 3)], decoder
    with pytest.raises(
        TypeError, match=r"posterior_family is <FullNormal.*networks in posteriors=.*leave posterior_family= out"
    ):
        kvae.HierarchicalVAE(encoder, *networks, posterior_family=kvae.posteriors.FullNormal())


def test_a_report_advises_what_it_takes(rng):
    model = two_layer()
    for posterior in model.posteriors:
        mean, log_var = posterior.layers[-2:]
        mean.set_weights([np.zeros(mean.kernel.shape), np.full(mean.bias.shape, 3.0)])
        log_var.bias.assign(log_var.bias - 4.0)
    found = kvae.evaluation.report(model, rng.random((60, 6)), samples=50)
    findings = " ".join(found.findings)
    for words in ("5 of 5 latents collapsed", "the prior isn't", "kvae.VampPrior()", "larger networks as posteriors="):
        assert words in findings
    assert "FullNormal" not in findings and "free bits" not in findings
    assert found.latents[0] == ("latent", "variance of its mean", "active") and len(found.latents) == 6
