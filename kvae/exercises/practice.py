"""Checks of the exercises in notebooks 10 to 16."""

from collections.abc import Callable

import numpy as np
from scipy import special

from kvae.exercises.checking import check, given, log_normal, near


def log_mixture(answer: Callable) -> None:
    """Check an answer log_mixture(z, weights, means, variances): log sum_k weight_k N(z; mean_k, diag variance_k)."""

    def properties(answer):
        zero, one = np.zeros((1, 1)), np.ones((1, 1))
        single = log_normal(np.linspace(-2, 2, 5), 0, 1)
        found = answer(np.linspace(-2, 2, 5)[:, None], np.ones(1), zero, one)
        shape = np.shape(given(found))
        yield shape == (5,), f"one number for each z, please: {shape} came."
        yield near(found, single), "a mixture of one part is that normal: log N(z; mean, variance)."
        yield near(answer(zero, np.ones(1), zero, 4 * one), [log_normal(0, 0, 2)]), "variances, not sigmas."
        rng = np.random.default_rng(0)
        z, means, variances = rng.normal(size=(7, 3)), rng.normal(size=(4, 3)), rng.uniform(0.5, 2, (4, 3))
        weights = np.array([0.1, 0.2, 0.3, 0.4])
        parts = log_normal(z[:, None], means, np.sqrt(variances)).sum(axis=2)
        found = answer(z, weights, means, variances)
        yield not near(found, special.logsumexp(parts, axis=1)), "the parts have weights."
        yield not near(found, parts @ weights), "this is a mean of logarithms: take the logarithm of the mean."
        yield near(found, special.logsumexp(parts, axis=1, b=weights)), "log of the weighted sum of the densities."
        far = answer(z + 100, weights, means, variances)
        yield bool(np.isfinite(far).all()), "far from all means exp gives 0: use logsumexp."

    check(answer, properties)


def free_bits(answer: Callable) -> None:
    """Check an answer free_bits(kl, bits): the KL of each image, every latent's counted as `bits` at least."""

    def properties(answer):
        kl = np.array([[0.0, 3.0, 0.2], [0.7, 0.1, 2.0]])
        found = answer(kl, 0.0)
        yield np.shape(given(found)) == (2,), f"one number for each image, please: {np.shape(found)} came."
        yield near(found, [3.2, 2.8]), "without free bits it is the KL: the sum over the latents."
        found = answer(kl, 0.5)
        yield not near(found, np.maximum(kl.sum(axis=1), 0.5)), "a floor for each latent, not for their sum."
        yield not near(found, np.maximum(kl - 0.5, 0).sum(axis=1)), "it is a floor: don't subtract the bits."
        yield near(found, [4.0, 3.2]), "a latent with less than `bits` counts as `bits`, all others as they are."

    check(answer, properties)


def paired(answer: Callable) -> None:
    """Check an answer paired(a, b): (mean, standard error) of b - a, the log p(x) of the same images."""

    def properties(answer):
        rng = np.random.default_rng(0)
        a = rng.normal(0, 50, 400)
        b = a + rng.normal(1, 2, 400)
        mean, error = given(answer(a, b))
        yield near(mean, np.mean(b - a)), "the mean of b - a."
        yield (
            not near(error, np.hypot(np.std(a), np.std(b)) / 20, 0.01),
            "the images are the same in both: take the differences first, then their spread.",
        )
        yield not near(error, np.std(b - a), 0.01), "this is the spread of one difference; divide by sqrt(n)."
        yield near(error, np.std(b - a) / 20, 0.01), "the error is the standard deviation of b - a, over sqrt(n)."

    check(answer, properties)


def class_posterior(answer: Callable) -> None:
    """Check an answer class_posterior(log_likelihoods): p(y|x), (n, classes), from log p(x|y), all y equally likely."""

    def properties(answer):
        found = answer(np.zeros((2, 4)))
        yield np.shape(given(found)) == (2, 4), f"a row for each image, please: {np.shape(found)} came."
        yield near(found, np.full((2, 4), 0.25)), "labels that explain x equally well are equally probable."
        nats = np.log([[0.2, 0.6, 0.2], [0.01, 0.01, 0.08]])
        found = answer(nats)
        yield near(np.sum(found, axis=1), [1.0, 1.0]), "the probabilities of an image sum to 1."
        yield near(found, [[0.2, 0.6, 0.2], [0.1, 0.1, 0.8]]), "p(y|x) is p(x|y) over the sum of p(x|y) over all y."
        yield (
            near(answer(nats - 2000), found),
            "exp of log p(x|y) = -2000 is 0: take the largest off first.",
        )

    check(answer, properties)


def message_bits(answer: Callable) -> None:
    """Check an answer message_bits(log_likelihood, log_prior, log_posterior): a message's bits, less those returned."""

    def properties(answer):
        log_likelihood, log_prior, log_posterior = np.array([[-90.0, -80.0], [-12.0, -15.0], [-5.0, -2.0]])
        nats = log_posterior - log_likelihood - log_prior
        found = answer(log_likelihood, log_prior, log_posterior)
        yield np.shape(given(found)) == (2,), f"one number for each image, please: {np.shape(found)} came."
        yield not near(found, nats), "these are nats: a bit is log 2 of them."
        yield not near(found, -(log_likelihood + log_prior) / np.log(2)), "the bits of q(z|x) come back."
        yield not near(found, -nats / np.log(2)), "a length is positive: the sign."
        yield near(found, nats / np.log(2)), "-log p(x|z) - log p(z) + log q(z|x), in bits."

    check(answer, properties)
