"""The audit of a loss: mistakes of the field are named with their numbers, and right losses have no finding."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import losses, ops
from printed_losses import (
    GREY,
    RIGHT,
    TWELVE,
    bernoulli_logits,
    event,
    iwae,
    kl,
    kl_terms,
    learned_variance,
    mean_square_and_kl,
    right_sampling,
    sum_form,
)

import kvae

BASE = {"event_shape": (784,), "latent_dim": 2}
SEEDS = keras.random.SeedGenerator(2)
IMAGE, COLOR = (28, 28, 1), (32, 32, 3)


def names(loss, **arguments):
    return kvae.audit(loss, **{**BASE, **arguments}).names


def axes(x):
    return tuple(range(1, len(x.shape)))


@pytest.mark.parametrize("case", TWELVE)
def test_a_mistake_is_named_with_its_numbers(case):
    loss, arguments, name, sigma2, beta = TWELVE[case]
    result = kvae.audit(loss, **{**BASE, **arguments})
    assert name in result.names
    assert result.beta == pytest.approx(beta, rel=1e-3)
    assert result.sigma2 == (None if sigma2 is None else pytest.approx(sigma2, rel=1e-3))
    assert name in str(result) and name in result._repr_html_()


@pytest.mark.parametrize("case", RIGHT)
def test_a_right_loss_has_no_finding(case):
    loss, arguments, sigma2, beta = RIGHT[case]
    result = kvae.audit(loss, **{**BASE, **arguments})
    assert not result.findings
    assert result.beta == pytest.approx(beta, rel=1e-3)
    assert result.sigma2 == (None if sigma2 is None else pytest.approx(sigma2, rel=1e-3))


@pytest.mark.parametrize(
    "case", ["a KL weight of 0.00025", "channels as one", "log-variance squared", "beta by batch / N"]
)
def test_code_in_float32_is_read_as_well(case):
    loss, arguments, name, sigma2, beta = TWELVE[case]
    result = kvae.audit(
        lambda x, r, m, v: loss(*(ops.cast(each, "float32") for each in (x, r, m, v))), **{**BASE, **arguments}
    )
    assert name in result.names and result.beta == pytest.approx(beta, rel=1e-3)
    assert sigma2 is None or result.sigma2 == pytest.approx(sigma2, rel=1e-3)


def test_two_mistakes_at_once_are_both_named():
    def both_means(x, r, m, v):
        return ops.mean(ops.square(x - r)) + ops.mean(kl_terms(m, v))

    result = kvae.audit(both_means, COLOR, 64)
    assert result.names == ("squared-error-mean", "kl-mean")
    assert (result.sigma2, result.beta) == (pytest.approx(1536), pytest.approx(1 / 64))
    assert result.sigma2_at_beta_1 == pytest.approx(24)  # 3072 / 2 / 64

    def three(x, r, m, v):
        squared = -0.5 * ops.mean(1 + v - m**2 - v**2, axis=-1)
        return ops.sum(losses.binary_crossentropy(x, r), axis=(1, 2)) + squared

    assert names(three, event_shape=COLOR, latent_dim=64) == ("channels-mean", "kl-square", "kl-mean")
    assert names(lambda x, r, m, v: sum_form(x, r, m, v) - 2 * kl(m, v) / x.shape[0]) == ("beta-by-batch",)
    minus = lambda x, r, m, v: ops.mean(sum_form(x, r, 0 * m, 0 * v)) - ops.mean(kl(m, v)) / x.shape[0]  # noqa: E731
    assert set(names(minus)) == {"kl-sign", "beta-by-batch"}


def test_a_mean_over_latents_shows_at_another_number_of_latents():
    def of_a_book(x, r, m, v):
        error = losses.binary_crossentropy(ops.reshape(x, (-1,)), ops.reshape(r, (-1,)))
        return ops.mean(error - 5e-4 * ops.mean(1 + v - ops.square(m) - ops.exp(v), axis=-1))

    result = kvae.audit(of_a_book, IMAGE, 2)
    assert result.names == ("features-mean", "kl-mean") and result.beta == pytest.approx(784 * 1e-3 / 2, rel=1e-3)
    assert "with the weight 1/1,000" in result.findings[1].sentence
    assert names(lambda x, r, m, v: sum_form(x, r, 0 * m, 0 * v) + kl(m, v) / 2) == ("kl-weight",)


def numpy_loss(x, r, m, v):
    error = -(x * np.log(r) + (1 - x) * np.log(1 - r)).reshape(len(x), -1).sum(axis=1)
    return (error - 0.5 * (1 + v - m**2 - np.exp(v)).sum(axis=1)).mean()


def tensorflow_loss(x, r, m, v):
    error = tf.nn.sigmoid_cross_entropy_with_logits(labels=x, logits=r)
    kl = -0.5 * tf.reduce_sum(1 + v - tf.square(m) - tf.exp(v), axis=1)
    return tf.reduce_mean(tf.reduce_sum(error, axis=list(range(1, len(x.shape)))) + kl)


_MEAN_CROSS_ENTROPY = losses.BinaryCrossentropy()


def keras_loss(x, r, m, v):
    return np.prod(x.shape[1:]) * _MEAN_CROSS_ENTROPY(x, r) + ops.mean(kl(m, v))


@pytest.mark.parametrize("loss", [numpy_loss, tensorflow_loss, keras_loss])
@pytest.mark.parametrize(
    "shape, latent_dim",
    [((784,), 1), *(pytest.param(*each, marks=pytest.mark.thorough) for each in ((IMAGE, 2), (COLOR, 64)))],
)
def test_code_of_numpy_tensorflow_and_keras_is_read(loss, shape, latent_dim):
    result = kvae.audit(loss, shape, latent_dim)
    assert not result.findings and result.beta == pytest.approx(1, rel=1e-5)
    assert result.likelihood.startswith("Bernoulli on")


def softplus_form(x, r, m, v):
    sigma = ops.softplus(v)
    return event((x - r) ** 2) - 0.5 * ops.sum(1 + 2 * ops.log(sigma) - m**2 - sigma**2, axis=-1)


def softplus_draws(inputs):
    return inputs[0] + ops.softplus(inputs[1]) * keras.random.normal(ops.shape(inputs[0]), seed=SEEDS)


def by_name(*, x, reconstruction, z_mean, z_log_var):
    return sum_form(x, reconstruction, z_mean, z_log_var)


OTHERS = {
    "keywords": (by_name, {}, ()),
    "a sum over the batch is a mean times n": (lambda x, r, m, v: ops.sum(sum_form(x, r, m, v)), {}, ()),
    "one sum over the batch, one mean": (
        lambda x, r, m, v: ops.mean(sum_form(x, r, 0 * m, 0 * v)) + ops.sum(kl(m, v)),
        {},
        ("beta-by-batch",),
    ),
    "all of it divided by the values": (
        lambda x, r, m, v: ops.mean(ops.square(x - r)) + ops.mean(kl(m, v)) / np.prod(x.shape[1:]),
        {"event_shape": COLOR},
        (),
    ),
    "the bound itself": (lambda x, r, m, v: -sum_form(x, r, m, v), {}, ("sign",)),
    "minus the KL": (lambda x, r, m, v: sum_form(x, r, m, v) - 2 * kl(m, v), {}, ("kl-sign",)),
    "a cap": (lambda x, r, m, v: event((x - r) ** 2) + ops.minimum(kl(m, v), 25.0), {}, ("kl-cap",)),
    "a center": (
        lambda x, r, m, v: event((x - r) ** 2) + 100 * ops.abs(kl(m, v) - 25.0),
        {},
        ("kl-center", "kl-weight"),
    ),
    "a declared center": (
        lambda x, r, m, v: event((x - r) ** 2) + 100 * ops.abs(kl(m, v) - 25.0),
        {"beta": 100.0, "capacity": 25.0},
        (),
    ),
    "free bits": (
        lambda x, r, m, v: event((x - r) ** 2) + ops.sum(ops.maximum(kl_terms(m, v), 0.1), axis=-1),
        {"latent_dim": 64},
        ("free-bits",),
    ),
    "no free bits": (sum_form, {"free_bits": 0.5}, ("free-bits",)),
    "log sigma in the KL": (
        lambda x, r, m, v: event((x - r) ** 2) - 0.5 * ops.sum(1 + 2 * v - m**2 - ops.exp(2 * v), axis=-1),
        {"sampling": right_sampling},
        ("kl-log-sigma",),
    ),
    "sigma itself": (
        lambda x, r, m, v: event((x - r) ** 2) - 0.5 * ops.sum(1 + ops.log(v**2 + 1e-8) - m**2 - v**2, axis=-1),
        {},
        ("kl-no-logarithm",),
    ),
    "softplus": (softplus_form, {"sampling": right_sampling}, ("kl-softplus",)),
    "softplus in the draws, too": (softplus_form, {"sampling": softplus_draws}, ()),
    "softplus in the draws alone": (sum_form, {"sampling": softplus_draws}, ("sigma",)),
    "Huber's loss, which isn't normalized": (
        lambda x, r, m, v: ops.sum(losses.huber(x[..., None], r[..., None], delta=0.1), axis=-1) + kl(m, v),
        {"event_shape": (20,)},
        (),
    ),
    "absolute and squared errors": (
        lambda x, r, m, v: event((x - r) ** 2 + ops.abs(x - r)) + kl(m, v),
        {"event_shape": (20,)},
        (),
    ),
    "an angle between images, which the audit doesn't know": (
        lambda x, r, m, v: losses.cosine_similarity(x, r) + kl(m, v),
        {},
        (),
    ),
    "PyTorch's order of arguments": (
        lambda recon_x, x, mu, logvar: 784 * losses.binary_crossentropy(x, recon_x) + kl(mu, logvar),
        {},
        (),
    ),
    "z_log_var for the variance": (
        lambda x, r, m, v: event((x - r) ** 2) - 0.5 * ops.sum(1 + ops.log(v) - m**2 - v, axis=-1),
        {},
        ("kl-no-logarithm",),
    ),
    "another prior": (
        lambda x, r, m, v: event((x - r) ** 2) + 0.5 * ops.sum((m**2 + ops.exp(v)) / 4 - v, axis=-1),
        {},
        ("prior-variance",),
    ),
    "one of four latents": (
        lambda x, r, m, v: sum_form(x, r, m[:, :1], v[:, :1]),
        {"latent_dim": 4},
        ("latents-uneven",),
    ),
    "half of the values": (lambda x, r, m, v: sum_form(x[:, :392], r[:, :392], m, v), {}, ("values-uneven",)),
    "x and reconstruction exchanged": (
        lambda x, r, m, v: 784 * losses.binary_crossentropy(r, x) + kl(m, v),
        {},
        ("arguments-exchanged",),
    ),
    "a mean over channels": (
        lambda x, r, m, v: ops.sum(losses.mean_squared_error(x, r), axis=(1, 2)) + kl(m, v),
        {"event_shape": COLOR},
        ("squared-error-mean",),
    ),
    "a product": (lambda x, r, m, v: sum_form(x, r, 0 * m, 0 * v) * (1 + kl(m, v)), {}, ("kl-weight", "not-a-sum")),
    "no reconstruction": (lambda x, r, m, v: kl(m, v) + 0 * event(x - r), {}, ("reconstruction-dead",)),
    "half a normalizer": (
        lambda x, o, m, v: learned_variance(x, o, m, v) + 0.5 * event(o[1]),
        {},
        ("normalizer",),
    ),
    "Laplace": (lambda x, r, m, v: event(ops.abs(x - r)) + kl(m, v), {}, ()),
    "Poisson": (lambda x, r, m, v: event(r - x * ops.log(r)) + kl(m, v), {}, ()),
    "another density of x - reconstruction": (
        lambda x, r, m, v: event(ops.log(ops.cosh(x - r))) + kl(m, v),
        {"event_shape": (20,)},
        (),
    ),
    "a mixture of errors, which is no likelihood that the audit knows": (
        lambda x, r, m, v: 0.1 * event(ops.log(ops.cosh(x - r))) + event((x - r) ** 4) + kl(m, v),
        {"event_shape": (20,)},
        (),
    ),
    "a norm, which the audit doesn't know": (
        lambda x, r, m, v: ops.sqrt(event((x - r) ** 2)) + kl(m, v),
        {},
        (),
    ),
    "binary data": (bernoulli_logits, {"data": np.round(GREY)}, ()),
    "pixels of 0 to 255": (mean_square_and_kl, {"data": np.round(GREY * 255)}, ("squared-error-mean", "range")),
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_losses(case):
    loss, arguments, expected = OTHERS[case]
    found = names(loss, **arguments)
    assert set(expected) == set(found)


IMPORTANCE = {
    "no log k": (lambda log_w: -ops.logsumexp(log_w, axis=1), ("draws-constant",)),
    "a sum of draws is a multiple": (lambda log_w: -ops.sum(log_w, axis=1), ()),
    "inverse weights": (lambda log_w: ops.logsumexp(-log_w, axis=1) - np.log(8), ("draws-combined",)),
    "the bound": (lambda log_w: np.log(8) - ops.logsumexp(log_w, axis=1), ()),
    "the mean": (lambda log_w: -ops.mean(log_w, axis=1), ()),
}


@pytest.mark.parametrize("case", IMPORTANCE)
def test_several_draws(case):
    combine, expected = IMPORTANCE[case]

    def log_normal(z, m, v):
        return -0.5 * ops.sum((z - m) ** 2 * ops.exp(-v) + v, axis=-1)

    def loss(x, r, m, v, z):
        error = ops.sum(ops.square(x[:, None] - r), axis=-1)
        return combine(log_normal(z, 0 * z, 0 * z) - log_normal(z, m[:, None], v[:, None]) - error)

    result = kvae.audit(loss, (12,), 3, samples=8)
    assert result.names == expected
    assert case != "the bound" or result.bound == "importance-weighted"


def test_a_sum_of_draws_beside_one_kl_is_a_finding():
    def loss(x, r, m, v, z):
        return event(ops.square(x[:, None] - r)) + kl(m, v)

    result = kvae.audit(loss, (12,), 3, samples=8)
    assert result.names == ("draws-sum",) and result.beta == pytest.approx(1 / 8)


def test_a_loss_of_several_draws_is_understood_without_samples():
    assert kvae.audit(iwae, (20,), 2).bound == "importance-weighted"


def sampler(sigma, eps=None):
    seeds = keras.random.SeedGenerator(1)
    eps = eps or (lambda m: keras.random.normal(ops.shape(m), seed=seeds))
    return lambda inputs: inputs[0] + sigma(inputs[1]) * eps(inputs[0])


def half(v):
    return ops.exp(0.5 * v)


SAMPLINGS = {
    "kvae.Sampling": (kvae.Sampling(seed=0), ()),
    "two arguments": (lambda mean, log_var: sampler(half)([mean, log_var]), ("noise-repeats",)),
    "right": (sampler(half), ()),
    "the variance": (sampler(ops.exp), ("sigma",)),
    "z_log_var": (sampler(lambda v: v), ("sigma",)),
    "one": (sampler(ops.ones_like), ("sigma",)),
    "no noise": (lambda inputs: inputs[0], ("no-noise",)),
    "a tenth": (sampler(lambda v: 0.1 * half(v)), ("sigma-factor",)),
    "one for the batch": (
        sampler(half, lambda m: keras.random.normal((1, m.shape[1]), seed=SEEDS)),
        ("one-noise-for-the-batch",),
    ),
    "one for the latents": (
        sampler(half, lambda m: keras.random.normal((m.shape[0], 1), seed=SEEDS)),
        ("one-noise-for-the-latents",),
    ),
    "always the same": (sampler(half, lambda m: keras.random.normal(ops.shape(m), seed=3)), ("noise-repeats",)),
    "uniform": (
        sampler(half, lambda m: keras.random.uniform(ops.shape(m), seed=SEEDS)),
        ("sigma-factor", "noise-mean", "noise-kind"),
    ),
}


@pytest.mark.parametrize("latent_dim", [3, *(pytest.param(size, marks=pytest.mark.thorough) for size in (1, 64))])
@pytest.mark.parametrize("case", SAMPLINGS)
def test_draws(case, latent_dim):
    sampling, expected = SAMPLINGS[case]
    if case == "one for the latents" and latent_dim == 1:
        expected = ()
    assert names(sum_form, sampling=sampling, event_shape=(4,), latent_dim=latent_dim) == expected


def test_a_dict_with_a_loss_is_read_and_anything_else_is_refused_in_a_sentence():
    assert not names(lambda *arguments: {"kl": 0.0, "loss": sum_form(*arguments)})
    refused = {
        "dict with the keys": lambda *a: {"a": sum_form(*a)},
        "tuple of 2": lambda *a: (sum_form(*a), kl(*a[2:])),
        "returned None": lambda *a: None,
        "different numbers for equal arguments": lambda *a: sum_form(*a) + keras.random.normal(()),
        "can't be called": lambda x, r: x,
    }
    for text, loss in refused.items():
        with pytest.raises(ValueError, match=text):
            kvae.audit(loss, (5,), 2)
    with pytest.raises(TypeError, match="loss is 3"):
        kvae.audit(3, (5,), 2)
    with pytest.raises(ValueError, match=r"data hold examples of shape \(784,\); expected the event_shape \(5,\)"):
        kvae.audit(sum_form, (5,), 2, data=GREY)
    with pytest.raises(ValueError, match=r"sampling .* can't be called"):
        kvae.audit(sum_form, (5,), 2, sampling=lambda: 0)


def test_the_consequence_is_in_numbers_and_the_lines_are_there():
    result = kvae.audit(mean_square_and_kl, (784,), 2)
    text = str(result)
    assert "sigma^2 = 392, sigma = 19.8" in text and "at most 0.25 nats" in text
    assert all(len(finding.change) == 2 for finding in result.findings)
    assert repr(result) == text and "nothing stands out" in kvae.audit(sum_form, (784,), 2)._repr_html_()
