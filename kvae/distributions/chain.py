"""Distributions of several groups of latents, each given the groups above it."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Self, cast

from keras import ops

from kvae.arguments import Seed, Tensor
from kvae.distributions.base import Distribution, Reparameterized, freeze, frozen, seeds
from kvae.distributions.normal import Normal


@dataclasses.dataclass(frozen=True)
class Chain(Reparameterized):
    """p(z_1, ..., z_L) = p(z_L) prod_l p(z_l | z_l+1, ..., z_L), with z = [z_1, ..., z_L] side by side.

    Each p(z_l | ...) is a `Normal` with mean and log-variance from a network.

    Args:
        top: distribution of z_L.
        networks: tuple of L - 1 Keras models for z_1 to z_L-1, each from its inputs (see `inputs_of`) to
            [mean, log_var].
        sizes: tuple of L ints, the sizes of z_1 to z_L.
        context: tuple of tensors (n, ...) for z_1 to z_L-1. A network reads its own before the latents. Default ():
            none.
        training: bool, passed to the networks. Default False.
        constants: tuple, `freeze` of the networks if they are constants to the gradient. Default ().

    Example:

    >>> network = kvae.networks.dense_encoder((2,), 3, hidden=())  # p(z_1 | z_2) of 3 latents given 2
    >>> top = kvae.distributions.Normal(ops.zeros((4, 2)), ops.zeros((4, 2)))
    >>> p = kvae.distributions.Chain(top, networks=(network,), sizes=(3, 2))
    >>> z = p.sample(seed=0)
    >>> tuple(z.shape), tuple(p.log_prob(z).shape)
    ((4, 5), (4,))

    Reference:
        Sønderby et al. (2016), "Ladder variational autoencoders".
    """

    top: Distribution
    networks: tuple[Any, ...]
    sizes: tuple[int, ...]
    context: tuple[Tensor, ...] = ()
    training: bool = False
    constants: tuple[tuple[Any, Tensor], ...] = ()

    @property
    def mean(self) -> Tensor:
        """The mean of z_L, then each mean given the means above, (n, sum of sizes): a central point, not E[z]."""
        return self._descend(lambda level, distribution: distribution.mean)

    def log_prob(self, z: Tensor) -> Tensor:
        """sum_l log p(z_l | z_l+1, ..., z_L) in nats: z (n, sum of sizes) to (n,)."""
        latents = self.split(z)
        with frozen(self.constants):  # from the top as in a draw, so that the seeds come in the same order
            levels = reversed(range(len(latents)))
            return sum(self._level(level, latents[level + 1 :]).log_prob(latents[level]) for level in levels)

    def sample(self, seed: Seed) -> Tensor:
        level_seeds = seeds(seed, len(self.sizes))
        return self._descend(lambda level, distribution: distribution.sample(level_seeds[level]))

    def rsample_and_log_prob(self, eps: Tensor) -> tuple[Tensor, Tensor]:
        noise, log_probs = self.split(eps), []

        def draw(level, distribution):
            z, log_prob = distribution.rsample_and_log_prob(noise[level])
            log_probs.append(log_prob)
            return z

        return self._descend(draw), sum(log_probs)

    def split(self, z: Tensor) -> list[Tensor]:
        """Return [z_1, ..., z_L] of z (n, sum of sizes)."""
        return split(z, self.sizes)

    def _descend(self, choose):
        """z of choose(level, p(z_l | the latents above)) for each level, from the top down."""
        latents = []
        with frozen(self.constants):
            for level in reversed(range(len(self.sizes))):
                latents.insert(0, choose(level, self._level(level, latents)))
        return ops.concatenate(latents, axis=1)

    def _level(self, level, above):
        """p(z_l | the latents above), a list."""
        if level == len(self.networks):
            return self.top
        network = self.networks[level]
        outputs = network(inputs_of(network, [*self.context[level : level + 1], *above]), training=self.training)
        return Normal(*(ops.cast(output, above[0].dtype) for output in outputs))

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        top = cast("Reparameterized", self.top).map(function)
        return dataclasses.replace(self, top=top, context=tuple(map(function, self.context)))

    def stop_gradient(self) -> Self:
        return dataclasses.replace(super().stop_gradient(), constants=freeze(*self.networks))


def split(z: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Return [z_1, ..., z_L] of z (n, sum of sizes)."""
    ends = [sum(sizes[: number + 1]) for number in range(len(sizes))]
    return [z[:, end - size : end] for size, end in zip(sizes, ends, strict=True)]


def inputs_of(network: Any, tensors: list[Tensor]) -> Any:
    """Return a network's inputs: the first tensors of a list, as many as a functional model has inputs."""
    tensors = tensors[: len(getattr(network, "inputs", None) or tensors)]
    return tensors[0] if len(tensors) == 1 else tensors
