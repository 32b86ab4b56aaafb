"""What a distribution is."""

import abc
import contextlib
import dataclasses
import numbers

import keras
import numpy as np
from keras import ops


def sum_event(values):
    """Sum over everything but the batch: (n, ...) to (n,)."""
    return ops.sum(values, axis=tuple(range(1, len(values.shape))))


def seeds(seed, count):
    """Seeds of `count` independent draws: other ints, all different, for an int; a `SeedGenerator` as often."""
    if isinstance(seed, numbers.Integral):
        return [int(number) for number in np.random.SeedSequence(seed).generate_state(count)]
    return [seed] * count


def hold(*layers):
    """What `held` takes: the layers' variables, those of their seeds too, with their values now as constants."""
    return tuple((v, ops.stop_gradient(ops.convert_to_tensor(v))) for layer in layers for v in layer.variables)


def held(values):
    """A context in which variables have the values of `hold`, and keep their own after it; nothing without any."""
    return keras.StatelessScope(values) if values else contextlib.nullcontext()


class Distribution(abc.ABC):
    """p(x) over events of shape (...), one for each of the n rows of its parameters. `mean` is E[x], (n, ...)."""

    @abc.abstractmethod
    def log_prob(self, x):
        """log p(x) in nats, constants included: (n, ...) to (n,)."""

    @abc.abstractmethod
    def sample(self, seed):
        """One x ~ p a row, shape (n, ...). seed: an int or a `keras.random.SeedGenerator`."""


class Reparameterized(Distribution):
    """A distribution, a dataclass of tensors, whose z is a differentiable function of noise: what a posterior is."""

    @abc.abstractmethod
    def rsample_and_log_prob(self, eps):
        """(z, log p(z)) of noise eps ~ N(0, I): (n, ...) to (n, ...) and (n,)."""

    def reparameterize(self, eps):
        """z alone of noise eps ~ N(0, I), differentiable (Kingma and Welling 2014, section 2.4)."""
        return self.rsample_and_log_prob(eps)[0]

    def sample(self, seed):
        return self.reparameterize(keras.random.normal(ops.shape(self.mean), dtype=self.mean.dtype, seed=seed))

    def pairwise_log_prob(self, z):
        """log p_k(z_m) of every z under every row: (m, ...) to (m, n)."""
        rows, count = ops.shape(self.mean)[0], ops.shape(z)[0]
        tiled = ops.tile(z, (rows,) + (1,) * (len(z.shape) - 1))
        return ops.transpose(ops.reshape(self.repeat(count).log_prob(tiled), (rows, count)))

    def kl_divergence(self, other):
        """KL(self || other) in nats, (n, groups) whose sum it is; None where it has no closed form."""
        return None

    def map(self, function):
        """The same kind of distribution with each parameter replaced by function(parameter)."""
        return dataclasses.replace(self, **{f.name: function(getattr(self, f.name)) for f in dataclasses.fields(self)})

    def repeat(self, count):
        """Each row `count` times, (n * count, ...), as `keras.ops.repeat` orders them."""
        return self.map(lambda parameter: ops.repeat(parameter, count, axis=0))

    def take(self, indices):
        """The rows of these numbers."""
        return self.map(lambda parameter: ops.take(parameter, indices, axis=0))

    def stop_gradient(self):
        """The same distribution, whose parameters are constants to the gradient.

        Where layers give them, `log_prob` has the weights and the seeds that those have now: made before a draw, it
        scores that draw with the same dropout.
        """
        return self.map(ops.stop_gradient)
