import keras
import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import tensorflow as tf

from kvae.distributions import Bernoulli, Normal

SHAPES = [(784,), (28, 28, 1), (32, 32, 3), (50, 21)]


def sum_event(values):
    return values.reshape(len(values), -1).sum(axis=1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_normal_log_prob_is_scipys(rng, shape, dtype):
    x, mean, log_var = (rng.normal(size=(5, *shape)).astype(dtype) for _ in range(3))
    expected = sum_event(scipy.stats.norm(mean.astype(float), np.exp(log_var / 2.0)).logpdf(x.astype(float)))
    found = Normal(tf.constant(mean), tf.constant(log_var)).log_prob(x)
    np.testing.assert_allclose(found, expected, rtol=1e-5 if dtype == "float32" else 1e-12)


@pytest.mark.parametrize("shape", [*SHAPES, (7,), (1,)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scale", [1e-3, 3, 10])
def test_bernoulli_log_prob_is_scipys(rng, shape, dtype, scale):
    logits = (rng.normal(size=(5, *shape)) * scale).astype(dtype)
    x = rng.integers(0, 2, size=(5, *shape)).astype(dtype)
    # log p(x=1) = -log(1 + exp(-logits)), by scipy's distribution whose log cdf that is.
    expected = sum_event(scipy.stats.logistic.logcdf(np.where(x, logits, -logits).astype(float)))
    found = Bernoulli(tf.constant(logits)).log_prob(x)
    epsilon = np.finfo(dtype).eps
    np.testing.assert_allclose(found, expected, rtol=20 * epsilon, atol=epsilon * np.abs(logits).max() * np.prod(shape))


def test_kl_divergence_is_the_integral_of_its_definition():
    q, p = scipy.stats.norm(0.3, np.exp(-0.4)), scipy.stats.norm(-0.2, np.exp(0.25))
    expected = scipy.integrate.quad(lambda z: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), -12, 12)[0]
    found = Normal(tf.constant([[0.3]], tf.float64), tf.constant([[-0.8]], tf.float64)).kl_divergence(
        Normal(tf.constant([[-0.2]], tf.float64), tf.constant([[0.5]], tf.float64))
    )
    np.testing.assert_allclose(found, [[expected]], rtol=1e-9)


def test_kl_divergence_is_never_negative_in_float32(rng):
    mean, log_var = (tf.constant(rng.normal(scale=s, size=(10_000, 1)), tf.float32) for s in (1e-5, 1e-3))
    zeros = tf.zeros((1, 1))
    assert np.min(Normal(mean, log_var).kl_divergence(Normal(zeros, zeros))) >= 0
    assert np.min(0.5 * (tf.square(mean) + tf.exp(log_var) - 1.0 - log_var)) < 0, "the textbook's form is safe here"


def test_kl_divergence_of_any_two_normals_is_finite_in_float32_and_float64s():
    differences = np.r_[-1e4, -100.0, -80, -1, -1e-3, 0, 1e-3, 1, 79, 80, 100, 1e4]
    expected, found = np.clip(differences, -80, 80), {}
    for dtype in ("float32", "float64"):
        log_vars = [tf.constant(sign * differences[:, None] / 2, dtype) for sign in (1, -1)]
        zeros = tf.zeros_like(log_vars[0])
        with tf.GradientTape() as tape:
            tape.watch(log_vars)
            kl = Normal(zeros, log_vars[0]).kl_divergence(Normal(zeros, log_vars[1]))
        found[dtype] = np.stack([kl, *tape.gradient(kl, log_vars)])
    np.testing.assert_allclose(found["float64"][0, :, 0], (np.expm1(expected) - expected) / 2, atol=1e-15)
    np.testing.assert_allclose(found["float32"], found["float64"], rtol=2e-5, atol=1e-7)  # of rounding the difference


@pytest.mark.parametrize("log_var", [-1e4, -50.0, 50.0, 1e4])
def test_normal_stays_finite(log_var):
    mean, log_var = tf.constant([[3.0, -3.0]]), tf.constant([[log_var, log_var]])
    with tf.GradientTape() as tape:
        tape.watch([mean, log_var])
        q = Normal(mean, log_var)
        total = q.log_prob([[0.0, 1.0]]) + tf.reduce_sum(q.kl_divergence(Normal(0 * mean, 0 * mean)), axis=1)
    for value in (total, *tape.gradient(total, [mean, log_var])):
        assert np.all(np.isfinite(value))


@pytest.mark.parametrize("x", [0.0, 0.5, 1.0])
def test_bernoulli_stays_finite(x):
    logits = tf.constant([[-1e4, 1e4, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        log_prob = Bernoulli(logits).log_prob(tf.fill((1, 3), x))
    assert np.all(np.isfinite(log_prob)) and np.all(np.isfinite(tape.gradient(log_prob, logits)))


@pytest.mark.parametrize(
    "function",
    [
        lambda a, b, x: Normal(a, b).log_prob(x),
        lambda a, b, x: Normal(a, b).kl_divergence(Normal(b, a)),
        lambda a, b, x: Normal(a, b).reparameterize(x),
        lambda a, b, x: Bernoulli(a * b).log_prob(x),
    ],
)
def test_gradients_are_central_differences(rng, function):
    arguments = [tf.constant(rng.uniform(0.1, 0.9, size=(3, 4))) for _ in range(3)]
    analytic, numeric = tf.test.compute_gradient(lambda *a: tf.reduce_sum(function(*a)), arguments, delta=1e-5)
    for found, expected in zip(analytic, numeric, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_samples_have_the_distributions_moments():
    seed = keras.random.SeedGenerator(1)
    ones = tf.ones((100_000, 1))
    normal = np.asarray(Normal(2 * ones, np.log(0.25) * ones).sample(seed))
    np.testing.assert_allclose([normal.mean(), normal.std()], [2, 0.5], atol=0.01)
    assert np.mean(Bernoulli(np.log(3) * ones).sample(seed)) == pytest.approx(0.75, abs=0.01)
