"""p(z), what the model assumes of the latents before it has seen an image."""

import abc

import keras
from keras import ops

from kvae.distributions import Distribution, Normal


class Prior(keras.layers.Layer, abc.ABC):
    """p(z) over latents of shape (latent_dim,). A layer, since a prior may have weights of its own."""

    def build(self, input_shape):
        """input_shape: (None, latent_dim)."""
        self.latent_dim = input_shape[-1]
        super().build(input_shape)

    @abc.abstractmethod
    def distribution(self, count) -> Distribution:
        """p(z) as a distribution of `count` equal rows."""

    def log_prob(self, z):
        """log p(z) in nats: (n, latent_dim) to (n,)."""
        return self.distribution(1).log_prob(z)

    def kl_divergence(self, posterior):
        """KL(posterior || prior) in nats, (n, groups) whose sum is the divergence, or None without a closed form."""
        return None


@keras.saving.register_keras_serializable("kvae")
class StandardNormal(Prior):
    """p(z) = N(0, I)."""

    def distribution(self, count):
        zeros = ops.zeros((count, self.latent_dim), dtype=self.variable_dtype)
        return Normal(zeros, zeros)

    def kl_divergence(self, posterior):
        return posterior.kl_divergence(self.distribution(1)) if isinstance(posterior, Normal) else None
