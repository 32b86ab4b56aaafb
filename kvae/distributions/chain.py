"""Distributions of several latents, each given those above it, as values."""

import dataclasses

from keras import ops

from kvae.distributions.base import Distribution, Reparameterized, held, hold, seeds
from kvae.distributions.normal import Normal


@dataclasses.dataclass(frozen=True)
class Chain(Reparameterized):
    """p(z_1, ..., z_L) = p(z_L) prod_l p(z_l | z_l+1, ..., z_L), a z being [z_1, ..., z_L] side by side.

    Each p(z_l | ...) is a `Normal` of diagonal covariance, whose mean and log-variance are a network's outputs.

    Args:
        top: the distribution of z_L.
        networks: Keras models, those of z_1 to z_L-1, from what `inputs_of` gives to [mean, log_var].
        sizes: ints, of z_1 to z_L.
        context: tensors (n, ...), which the networks of z_1 to z_L-1 read before the z; () for none.
        training: passed to the networks.
        constants: what `hold` gave of the networks where they are constants to the gradient, else ().
    """

    top: Distribution
    networks: tuple
    sizes: tuple
    context: tuple = ()
    training: bool = False
    constants: tuple = ()

    @property
    def mean(self):
        """The mean of z_L, and below it each mean given the means above: a point in the middle, not E[z]."""
        return self._down(lambda level, part: part.mean)

    def log_prob(self, z):
        parts = self.split(z)
        with held(self.constants):  # from the top, as a draw: so the seeds come in the same order
            levels = reversed(range(len(parts)))
            return sum(self._part(level, parts[level + 1 :]).log_prob(parts[level]) for level in levels)

    def sample(self, seed):
        of_level = seeds(seed, len(self.sizes))
        return self._down(lambda level, part: part.sample(of_level[level]))

    def rsample_and_log_prob(self, eps):
        noise, log_probs = self.split(eps), []

        def drawn(level, part):
            z, log_prob = part.rsample_and_log_prob(noise[level])
            log_probs.append(log_prob)
            return z

        return self._down(drawn), sum(log_probs)

    def split(self, z):
        """[z_1, ..., z_L] of z (n, sum of the sizes)."""
        return split(z, self.sizes)

    def _down(self, choose):
        parts = []
        with held(self.constants):
            for level in reversed(range(len(self.sizes))):
                parts.insert(0, choose(level, self._part(level, parts)))
        return ops.concatenate(parts, axis=1)

    def _part(self, level, above):
        """p(z_l | those above)."""
        if level == len(self.networks):
            return self.top
        network = self.networks[level]
        outputs = network(inputs_of(network, [*self.context[level : level + 1], *above]), training=self.training)
        return Normal(*(ops.cast(output, above[0].dtype) for output in outputs))

    def map(self, function):
        return dataclasses.replace(self, top=self.top.map(function), context=tuple(map(function, self.context)))

    def stop_gradient(self):
        return dataclasses.replace(super().stop_gradient(), constants=hold(*self.networks))


def split(z, sizes):
    """[z_1, ..., z_L] of z (n, sum of the sizes)."""
    ends = [sum(sizes[: number + 1]) for number in range(len(sizes))]
    return [z[:, end - size : end] for size, end in zip(sizes, ends, strict=True)]


def inputs_of(network, tensors):
    """What a network reads of a list of tensors: the first of them, as many as a functional model has inputs."""
    tensors = tensors[: len(getattr(network, "inputs", None) or tensors)]
    return tensors[0] if len(tensors) == 1 else tensors
