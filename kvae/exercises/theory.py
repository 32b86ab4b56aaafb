"""Checks of the exercises in notebooks 02 to 06."""

import tracemalloc
from collections.abc import Callable

import numpy as np
from scipy.special import logsumexp

from kvae.exercises.checking import check, given, log_normal, near


def explained(answer: Callable) -> None:
    """Check an answer explained(x, k): the share of the variance of x (n, D) along its first k principal axes."""

    def properties(answer):
        x = np.random.default_rng(0).normal(size=(500, 6)) * [1, 5, 2, 0.5, 3, 1] + 10
        shares = np.array([given(answer(x, k)) for k in range(7)], "float64")
        yield bool(np.isfinite(shares).all()), "some of the shares are no numbers."
        yield near(shares[-1], 1.0), "all axes together explain everything: a share of 1."
        yield near(shares[0], 0.0) and bool(np.all(np.diff(shares) > 0)), "each further axis adds to the share."
        yield (
            bool(np.all(np.diff(shares, 2) < 0)),
            "the first axis is the longest: sort the eigenvalues, largest first.",
        )
        yield shares[1] < 0.9, "take the mean off first: x is far from 0, and a covariance is about the mean."
        turned = x @ np.linalg.qr(np.random.default_rng(1).normal(size=(6, 6)))[0]
        yield near([answer(turned, k) for k in range(7)], shares), "turning the data must not change the shares."

    check(answer, properties)


def covariance(answer: Callable) -> None:
    """Check an answer covariance(batches): of all rows of the arrays (n, D) of an iterator, larger than memory."""

    def properties(answer):
        x = np.random.default_rng(0).normal(size=(1000, 5)) @ np.diag([1, 2, 3, 4, 5]) + 2
        x[:, 1] += x[:, 0]
        expected = np.cov(x.T, bias=True)
        found = answer(iter(np.split(x, 10)))
        yield (
            not near(found, expected + np.outer(x.mean(axis=0), x.mean(axis=0))),
            "take the means off: E[xx'] - E[x]E[x]'.",
        )
        yield (
            near(found, expected) or near(found, np.cov(x.T)),
            "it isn't the covariance of all rows: (D, D), divided by n.",
        )
        uneven = answer(iter(np.split(x, [3, 400, 401])))
        yield near(uneven, found), "another split into batches gives another result: count rows, not batches."
        tracemalloc.start()
        try:
            answer(np.ones((500, 50)) * i for i in range(100))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        yield peak < 5e6, "right, but all batches are in memory at once: keep sums, and let each batch go."

    check(answer, properties)


def nearest(answer: Callable) -> None:
    """Check an answer nearest(pictures, images): for each picture the squared distance to the nearest image."""

    def properties(answer):
        rng = np.random.default_rng(0)
        images, pictures = rng.random((30, 4, 4, 3)), rng.random((7, 4, 4, 3))
        found = answer(images[:5], images)
        yield np.shape(given(found)) == (5,), f"one number for each picture, please: {np.shape(found)} came."
        yield near(found, np.zeros(5)), "an image is at distance 0 from itself."
        expected = ((pictures[:, None] - images) ** 2).sum(axis=(2, 3, 4))
        found = answer(pictures, images)
        yield not near(found, expected.mean(axis=1)), "the distance to the nearest image, not to all of them."
        yield not near(found, np.sqrt(expected.min(axis=1))), "the *squared* distance."
        yield near(found, expected.min(axis=1)), "sum the squares over all pixels and colours, then take the smallest."

    check(answer, properties)


def draw_codes(answer: Callable) -> None:
    """Check an answer draw_codes(codes, count): new codes from the normal distribution fitted to codes (n, d)."""

    def properties(answer):
        codes = np.random.default_rng(0).normal(size=(4000, 3)) @ [[3, 0, 0], [2, 1, 0], [0, 1, 0.5]] + [5, 0, -5]
        found, again = answer(codes, 20_000), answer(codes, 20_000)
        given(found)
        yield np.shape(found) == (20_000, 3), f"expected an array (count, 3), and {np.shape(found)} came."
        yield not np.isin(found[:50], codes).any(), "these are codes of images: draw new ones."
        yield not np.array_equal(found, again), "the same codes each time: draw anew."
        off = np.abs(found.mean(axis=0) - codes.mean(axis=0)) / codes.std(axis=0)
        yield off.max() < 0.1, "their mean isn't that of the codes."
        yield near(found.std(axis=0), codes.std(axis=0), 0.05), "their spread isn't that of the codes."
        close = np.abs(np.corrcoef(found.T) - np.corrcoef(codes.T)).max() < 0.05
        yield close, "the numbers of a code are correlated: use the whole covariance matrix."

    check(answer, properties)


def kl(answer: Callable) -> None:
    """Check an answer kl(z_mean, z_log_var): KL(N(z_mean, diag exp z_log_var) || N(0, I)) of each row."""

    def properties(answer):
        zeros = np.zeros((2, 1))
        yield near(answer(zeros, zeros), [0, 0]), "q = p costs nothing, and there is one number for each row."
        yield near(answer(zeros + 1, zeros), [0.5, 0.5]), "a mean of 1 and a variance of 1 cost half a nat."
        many = answer(np.ones((2, 8)), np.zeros((2, 8)))
        yield near(many, [4, 4]), "eight such latents cost four nats: sum over the latents."
        rng = np.random.default_rng(0)
        mean, log_var = rng.normal(size=(2, 5, 3))
        z = mean[:, None] + np.exp(0.5 * log_var)[:, None] * rng.normal(size=(5, 20_000, 3))
        ratio = log_normal(z, mean[:, None], np.exp(0.5 * log_var)[:, None]) - log_normal(z, 0, 1)
        agrees = near(answer(mean, log_var), ratio.sum(axis=2).mean(axis=1), 0.1)
        yield agrees, "draws of q give another number: z_log_var is the logarithm of the variance."

    check(answer, properties)


def k_sample_bound(answer: Callable) -> None:
    """Check an answer k_sample_bound(log_w): log of the mean of exp(log_w) over the last axis."""

    def properties(answer):
        log_w = np.random.default_rng(0).normal(size=(4, 50)) * 2
        yield near(answer(log_w[:, :1]), log_w[:, 0]), "with one draw the bound is that draw's log w."
        yield near(answer(np.full((3, 7), -2.0)), [-2.0] * 3), "equal weights: their mean is the weight itself."
        found = answer(log_w)
        yield not near(found, log_w.mean(axis=1)), "this is the ELBO, the mean of logarithms. Take the mean first."
        yield near(found, logsumexp(log_w, axis=1) - np.log(50)), "it isn't the logarithm of the mean of the weights."
        yield (
            near(answer(log_w - 2000), found - 2000),
            "images have log w near -2000, and exp(-2000) is 0: use logsumexp.",
        )

    check(answer, properties)


def reparameterize(answer: Callable) -> None:
    """Check an answer reparameterize(z_mean, z_log_var, eps): draws of N(z_mean, exp z_log_var)."""

    def properties(answer):
        eps = np.random.default_rng(0).normal(size=(50_000, 2))
        yield (
            near(answer(np.ones((1, 2)), np.zeros((1, 2)), eps[:3]), 1 + eps[:3]),
            "with variance 1, z is mean + eps.",
        )
        z = answer(np.zeros((1, 2)), np.full((1, 2), np.log(4.0)), eps)
        yield (
            near(z.std(axis=0), [2, 2], 0.03),
            "draws of variance 4 spread by 2: sigma is the square root of the variance.",
        )
        yield near(z, 2 * eps), "z must be the mean plus sigma times eps."
        unequal = answer(np.zeros((1, 2)), np.log([[0.01, 100.0]]), eps)
        yield near(unequal.std(axis=0), [0.1, 10], 0.03), "each latent has its own sigma."

    check(answer, properties)


def score_gradient(answer: Callable) -> None:
    """Check an answer score_gradient(f, mu, sigma, z): the score-function estimate of d/dmu E[f(z)], from draws z."""

    def properties(answer):
        rng = np.random.default_rng(0)
        for f, exact, name in (
            (lambda z: z**2, lambda mu, sigma: 2 * mu, "z squared"),
            (lambda z: z**3, lambda mu, sigma: 3 * (mu**2 + sigma**2), "z cubed"),
            (
                lambda z: np.asarray(z > 0, "float64"),
                lambda mu, sigma: np.exp(log_normal(0, mu, sigma)),
                "a step at 0",
            ),
        ):
            for mu, sigma in (1.0, 1.0), (0.7, 0.5):
                z = mu + sigma * rng.normal(size=400_000)
                noise = 5 * np.std(f(z) * (z - mu)) / sigma**2 / len(z) ** 0.5
                found = answer(f, mu, sigma, z)
                given(found)
                hint = (
                    f"for f = {name}, mu = {mu}, sigma = {sigma} the slope is {exact(mu, sigma):.3f}, not {found:.3f}."
                )
                yield np.ndim(found) == 0 and abs(found - exact(mu, sigma)) < noise, hint

    check(answer, properties)


def gaussian_nats(answer: Callable) -> None:
    """Check an answer gaussian_nats(x, mean, variance): -log N(x; mean, variance I) of each image."""

    def properties(answer):
        x, mean = np.random.default_rng(0).random((2, 3, 4, 4, 1))
        for variance in 1.0, 0.02:
            found = answer(x, mean, variance)
            error = ((x - mean) ** 2).sum(axis=(1, 2, 3))
            expected = -log_normal(x, mean, variance**0.5).sum(axis=(1, 2, 3))
            shape = () if found is None else np.shape(found)
            yield shape in ((3,), ()), f"one number for each image, please: {shape} came."
            yield not near(found, expected / 16), "summed over the pixels, not averaged: a mean is a silent beta."
            yield not near(found, error / (2 * variance)), "the constant is missing: D/2 log(2 pi variance)."
            yield near(found, expected), "the logarithm of the normal density is another number."

    check(answer, properties)


def best_variance(answer: Callable) -> None:
    """Check an answer best_variance(x, mean): the variance with the smallest mean of -log N(x; mean, variance I)."""

    def properties(answer):
        rng = np.random.default_rng(0)
        for spread in 0.1, 0.5:
            mean = rng.random((200, 4, 4, 1))
            x = mean + spread * rng.normal(size=mean.shape) + 0.1
            best = answer(x, mean)
            yield np.ndim(given(best)) == 0, "one variance for all pixels and images, please."
            expected = ((x - mean) ** 2).mean()
            yield not near(best, expected * 16), "the squared error of a pixel, not of an image."
            yield not near(best, expected**0.5), "the variance, not sigma."
            yield (
                not near(best, np.var(x - mean)),
                "the error's mean counts as well: the mean of squares, not their variance.",
            )
            yield near(best, expected), "another variance has fewer nats. Set the derivative to 0."

    check(answer, properties)
