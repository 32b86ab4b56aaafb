"""Priors and posteriors: their densities, and all of them together."""

import itertools
import warnings

import keras
import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf
from breadth import some, thorough
from combinations import OBJECTIVES, POSTERIORS, PRIORS, made, normals
from small_models import dense_vae

import kvae
from kvae.distributions import Mixture, Normal
from kvae.flows import Coupling, InverseAutoregressive, Planar
from kvae.posteriors import FlowPosterior, FullNormal

TOGETHER = [pair for pair in itertools.product(PRIORS, POSTERIORS) if pair != ("vamp", "planar")]
EACH_ONCE = [
    ("normal", "planar"),
    ("mixture", "full"),
    ("vamp", "diagonal"),
    ("vamp", "coupling"),
    ("flow", "autoregressive"),
]


@pytest.fixture
def x(rng):
    return rng.random((20, 6)).astype("float32")


def test_a_mixtures_density_is_scipys_and_so_are_its_samples(rng):
    components, scipys = normals(rng, 5)
    weights = rng.dirichlet(np.ones(5))
    z = rng.normal(size=(30, 4))
    expected = scipy.special.logsumexp([s.logpdf(z) for s in scipys], b=weights[:, None], axis=0)
    mixture = Mixture(components, tf.constant(np.log(weights)), count=50_000)
    np.testing.assert_allclose(mixture.log_prob(tf.constant(z)), expected, rtol=1e-9)
    equal = scipy.special.logsumexp([s.logpdf(z) for s in scipys], b=0.2, axis=0)
    np.testing.assert_allclose(Mixture(components).log_prob(tf.constant(z)), equal, rtol=1e-9)

    draws = np.asarray(mixture.sample(0))
    mean = weights @ np.asarray(components.mean)
    variance = weights @ (np.exp(components.log_var) + np.square(components.mean)) - np.square(mean)
    np.testing.assert_allclose(draws.mean(axis=0), mean, atol=5 * np.sqrt(variance.max() / len(draws)))
    np.testing.assert_allclose(draws.var(axis=0), variance, rtol=0.05)
    np.testing.assert_allclose(mixture.mean[:2], [mean, mean])


def test_a_mixture_of_gaussians_is_scipys_and_integrates_to_1(rng):
    prior = kvae.MixtureOfGaussians(3, dtype="float64")
    prior.build((None, 2))
    means, log_vars, logits = rng.normal(size=(3, 2)), rng.uniform(-1.5, 0.5, size=(3, 2)), np.array([1.5, -2.0, 4.0])
    for weight, values in ((prior.means, means), (prior.log_vars, log_vars), (prior.logits, logits)):
        weight.assign(values)
    axis = np.linspace(-12, 12, 301)
    z = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    found = np.asarray(prior.log_prob(tf.constant(z)))
    assert np.sum(np.exp(found)) * (axis[1] - axis[0]) ** 2 == pytest.approx(1, abs=1e-9)
    by_component = [scipy.stats.norm(*of).logpdf(z).sum(axis=1) for of in zip(means, np.exp(log_vars / 2), strict=True)]
    weights = scipy.special.softmax(logits)[:, None]
    np.testing.assert_allclose(found, scipy.special.logsumexp(by_component, b=weights, axis=0), rtol=1e-9)


def test_many_components_in_float32_cost_no_accuracy(rng):
    mean, log_var = rng.normal(size=(500, 40)), rng.uniform(-6, 2, size=(500, 40))
    z = mean[:100] + np.exp(log_var[:100] / 2) * rng.normal(size=(100, 40))  # close to one component, far from the rest
    z, mean, log_var = (values.astype("float32") for values in (z, mean, log_var))
    wide = [values.astype("float64") for values in (z, mean, log_var)]
    logs = scipy.stats.norm(wide[1], np.exp(wide[2] / 2)).logpdf(wide[0][:, None]).sum(axis=2)
    found = Mixture(Normal(tf.constant(mean), tf.constant(log_var))).log_prob(tf.constant(z))
    np.testing.assert_allclose(found, scipy.special.logsumexp(logs, axis=1) - np.log(500), rtol=1e-6, atol=2e-5)


@pytest.mark.parametrize("log_var", [-1e4, -50.0, 50.0, 1e4])
def test_a_mixture_is_finite_whatever_its_variances(log_var):
    parameters = [tf.constant([[0.0, 1.0], [3.0, -1e4]]), tf.fill((2, 2), log_var)]
    z = tf.constant([[0.5, 0.5], [1e4, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch([z, *parameters])
        log_prob = Mixture(Normal(*parameters)).log_prob(z)
    for values in (log_prob, *tape.gradient(log_prob, [z, *parameters])):
        assert np.isfinite(values).all()


def test_a_vamp_prior_is_the_mean_of_its_pseudo_inputs_posteriors(x, rng):
    model = made("vamp", "diagonal")
    inputs = rng.uniform(-0.5, 1.5, size=(4, 6)).astype("float32")
    model.prior.start_at(inputs)
    np.testing.assert_array_equal(model.prior.pseudo_inputs, np.clip(inputs, 0, 1))
    mean, log_var = (np.asarray(output) for output in model.encoder(np.clip(inputs, 0, 1)))
    draw = model.draw(x, samples=3)
    z = np.asarray(draw.z)[:, :, None]
    expected = scipy.special.logsumexp(
        scipy.stats.norm(mean, np.exp(log_var / 2)).logpdf(z).sum(axis=3), axis=2, b=0.25
    )
    np.testing.assert_allclose(draw.log_prior, expected, rtol=1e-5, atol=1e-5)
    assert draw.kl is None
    index = np.arange(20)
    given = model.draw(x, index=index, prior=model.prior_distribution())
    np.testing.assert_allclose(given.log_prior, model.draw(x, index=index).log_prior, rtol=1e-6)


def test_a_vamp_prior_is_in_training_what_it_is_in_evaluation(rng):
    """Its images leave a BatchNormalization's statistics alone, and no dropout is in p(z)."""
    inputs = keras.layers.Input((6,))
    h = keras.layers.BatchNormalization(momentum=0.5)(inputs)
    h = keras.layers.Dropout(0.5)(keras.layers.Dense(8, "relu")(h))
    encoder = keras.Model(inputs, [keras.layers.Dense(2)(h), keras.layers.Dense(2)(h)])
    model = kvae.VAE(encoder, dense_vae().decoder, prior=kvae.VampPrior(5), seed=0)
    x = rng.random((30, 6)).astype("float32") + 0.3
    model.compile(run_eagerly=True)
    model.fit(x, batch_size=30, epochs=2, verbose=0)
    np.testing.assert_allclose(encoder.layers[1].moving_mean, 0.75 * x.mean(axis=0), rtol=1e-5)
    draw = model.draw(x, 3, training=True)
    expected = model.prior_distribution().log_prob(tf.reshape(draw.z, (-1, 2)))
    np.testing.assert_allclose(np.ravel(draw.log_prior), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("prior, posterior", some(TOGETHER, *EACH_ONCE))
def test_all_of_them_train_are_saved_and_sample(x, tmp_path, prior, posterior):
    objective = "iwae" if posterior == "planar" else "dreg"
    model = made(prior, posterior)
    model.compile(keras.optimizers.Adam(1e-2), OBJECTIVES[objective](), run_eagerly=True)
    before = model.get_weights()
    model.fit(x, batch_size=10, verbose=0)  # two steps: a layer that starts at zero holds back those before it in one
    for weight, start in zip(model.weights, before, strict=True):
        assert np.abs(weight - start).max() > 0, weight.path
    numbers = model.evaluate(x, return_dict=True, verbose=0)
    assert np.isfinite(list(numbers.values())).all()
    model.save(tmp_path / "vae.keras")
    loaded = keras.saving.load_model(tmp_path / "vae.keras")
    assert loaded.evaluate(x, return_dict=True, verbose=0) == numbers
    np.testing.assert_array_equal(loaded.sample(3), model.sample(3))
    assert model.sample(3, seed=1).shape == (3, 6)


@pytest.mark.parametrize(
    "prior, posterior, objective", [("vamp", "full", "dreg"), thorough("flow", "coupling", "dreg")]
)
def test_a_graph_takes_the_same_steps(x, prior, posterior, objective):
    weights = []
    for eager in (True, False):
        keras.utils.set_random_seed(0)
        model = made(prior, posterior)
        model.compile(keras.optimizers.SGD(1e-3), OBJECTIVES[objective](), run_eagerly=eager)
        model.fit(x, batch_size=10, shuffle=False, verbose=0)
        weights.append(model.get_weights())
    for eager, graph in zip(*weights, strict=True):
        np.testing.assert_allclose(graph, eager, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "prior, posterior, objective",
    [
        (*pair, objective) if pair in EACH_ONCE else thorough(*pair, objective)
        for pair, objective in zip(TOGETHER, itertools.cycle(["elbo", "iwae"]), strict=False)
    ],
)
def test_gradients_are_central_differences(rng, float64, prior, posterior, objective):
    model = made(prior, posterior, activation="tanh")
    model.compile("sgd", OBJECTIVES[objective]())
    x, index = tf.constant(rng.random((5, 6))), np.arange(5)
    for weight in model.trainable_weights:
        weight.assign(weight + 0.2 * rng.normal(size=weight.shape))
    start = [weight.numpy() for weight in model.trainable_weights]
    direction = [rng.normal(size=weight.shape) for weight in start]

    def loss(distance):
        for weight, at, along in zip(model.trainable_weights, start, direction, strict=True):
            weight.assign(at + distance * along)
        return float(np.sum(model.losses_per_example(x, index=index)[0]))

    difference = (loss(1e-5) - loss(-1e-5)) / 2e-5
    loss(0.0)
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(model.losses_per_example(x, index=index)[0])
    gradients = tape.gradient(value, [weight.value for weight in model.trainable_weights])
    slope = sum(np.sum(g * d) for g, d in zip(gradients, direction, strict=True))
    assert slope == pytest.approx(difference, rel=1e-5)


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda: made("vamp", "planar"),
            "VampPrior scores z under other images' posteriors.*FlowPosterior scores only",
        ),
        (lambda: kvae.FlowPrior(Planar(2)), r"Planar, which has no inverse.*use kvae.flows.Coupling\(\)"),
        (
            lambda: made("normal", "planar").compile(loss=OBJECTIVES["dreg"]()),
            "doubly reparameterized gradient.*FlowPosterior has not: use gradient='plain'",
        ),
        (lambda: kvae.VampPrior(0), "components is 0; expected an integer of at least 1"),
        (lambda: kvae.VampPrior(5, bounds=(1, 0)), r"bounds is \(1, 0\); expected \(low, high\)"),
        (lambda: made("vamp", "diagonal").prior.distribution(1), r"ask model.prior_distribution\(count\)"),
        (
            lambda: made("vamp", "diagonal").prior.start_at(np.zeros((4, 6), "uint8")),
            r"uint8 of shape \(4, 6\); expected",
        ),
        (lambda: dense_vae(latent_dim=1, posterior_family=FullNormal()), "FullNormal of 1 latent is a DiagonalNormal"),
        (lambda: dense_vae(latent_dim=1, posterior_family=POSTERIORS["coupling"]()), "needs at least 2 latents"),
        (lambda: FlowPosterior(Planar(2), context=-1), "context is -1"),
        (lambda: shared_flow(), "The prior and the posterior have one Coupling between them.*make a flow for each"),
        (lambda: shared_flow(context=3), "The prior and the posterior have one Coupling between them"),
        (lambda: InverseAutoregressive(2, hidden=64), r"hidden is 64; expected a sequence .* such as \(64, 32\)"),
        (lambda: Coupling(2, hidden=(8, 0)), r"hidden is \(8, 0\); expected a sequence of integers of at least 1"),
        (lambda: kvae.IWAE(0), "samples is 0"),
        (lambda: kvae.IWAE(5, "reinforce"), "gradient is 'reinforce'; expected 'plain' or"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def shared_flow(context=0):
    flow = Coupling(2, hidden=(4,))
    return dense_vae(prior=kvae.FlowPrior(flow), posterior_family=FlowPosterior(flow, context))


def test_a_flow_that_was_built_for_something_else_is_refused():
    flow = Coupling(2, hidden=(4,))
    dense_vae(latent_dim=4, prior=kvae.FlowPrior(flow))
    dense_vae(latent_dim=4, posterior_family=FlowPosterior(flow))
    with pytest.raises(ValueError, match="Coupling was built for 4 latents and a context of 0, and here are 6 latents"):
        dense_vae(latent_dim=6, prior=kvae.FlowPrior(flow))
    with pytest.raises(ValueError, match=r"4 latents and a context of 0.* 4 latents and a context of 3: make another"):
        dense_vae(latent_dim=4, posterior_family=FlowPosterior(flow, context=3))


def test_a_prior_of_another_models_images_is_refused():
    prior = kvae.VampPrior(3)
    dense_vae((6,), prior=prior)
    with pytest.raises(ValueError, match=r"prior was built for the shape \(6,\), the model for \(5,\)"):
        dense_vae((5,), prior=prior)


def test_warnings_are_none(x):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model = made("vamp", "diagonal")
        model.compile(loss=kvae.IWAE(2), run_eagerly=True)
        model.fit(x, verbose=0)


def test_data_beyond_a_vampprior_s_bounds_are_warned_of(x):
    model = dense_vae(prior=kvae.VampPrior(3))
    model.compile(run_eagerly=True)
    with pytest.warns(UserWarning, match=r"The data reach from 0 to 200, .* held in its bounds \(0.0, 1.0\)"):
        model.fit(np.linspace(0, 200, 60).reshape(10, 6), verbose=0)
    unbounded = dense_vae(prior=kvae.VampPrior(3, bounds=None))
    unbounded.compile(run_eagerly=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "The data reach from", UserWarning)
        model.fit((255 * x).astype("uint8"), verbose=0)
        unbounded.fit(200.5 * x, verbose=0)
