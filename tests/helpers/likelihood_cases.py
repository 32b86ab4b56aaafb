"""Each likelihood with data that it has a probability for, for tests of all of them."""

import numpy as np

import kvae

SHAPE = (2, 3, 4)


def unit(rng, *shape):
    return rng.random(shape)


def binary(rng, *shape):
    return rng.integers(0, 2, shape).astype("float64")


def counts(rng, *shape):
    return rng.poisson(4, shape).astype("float64")


def pixels(rng, *shape):
    return rng.integers(0, 256, shape) / 255


def few_levels(rng, *shape):
    return rng.integers(0, 5, shape) / 4


def one_hot(rng, *shape):
    return np.eye(shape[-1])[rng.integers(0, shape[-1], shape[:-1])]


CASES = {
    "gaussian 0.3": (lambda **d: kvae.GaussianLikelihood(0.3, **d), unit),
    "gaussian shared": (lambda **d: kvae.GaussianLikelihood("shared", **d), unit),
    "gaussian pixel": (lambda **d: kvae.GaussianLikelihood("pixel", **d), unit),
    "gaussian decoder": (lambda **d: kvae.GaussianLikelihood("decoder", **d), unit),
    "bernoulli": (kvae.BernoulliLikelihood, binary),
    "continuous bernoulli": (kvae.ContinuousBernoulliLikelihood, unit),
    "discretized logistic": (lambda **d: kvae.DiscretizedLogisticLikelihood(3, **d), pixels),
    "discretized logistic 5": (lambda **d: kvae.DiscretizedLogisticLikelihood(2, levels=5, **d), few_levels),
    "poisson": (kvae.PoissonLikelihood, counts),
    "negative binomial 0.7": (lambda **d: kvae.NegativeBinomialLikelihood(0.7, **d), counts),
    "negative binomial feature": (kvae.NegativeBinomialLikelihood, counts),
    "negative binomial shared": (lambda **d: kvae.NegativeBinomialLikelihood("shared", **d), counts),
    "negative binomial decoder": (lambda **d: kvae.NegativeBinomialLikelihood("decoder", **d), counts),
    "poisson shares": (lambda **d: kvae.PoissonLikelihood("total", typical_size=90.0, **d), counts),
    "negative binomial with zeros": (
        lambda **d: kvae.NegativeBinomialLikelihood(0.7, zero_inflation=True, **d),
        counts,
    ),
    "categorical": (kvae.CategoricalLikelihood, one_hot),
    "categorical 5": (lambda **d: kvae.CategoricalLikelihood(5, **d), few_levels),
}
