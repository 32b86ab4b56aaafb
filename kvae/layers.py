"""Layers: tensors in, tensors out."""

import math

import keras
from keras import ops

from kvae import arguments
from kvae.distributions import Normal
from kvae.noise import indexed_normal
from kvae.replicas import SeedGenerator


class WeightedPath:
    """The identity on z (n, ...), in whose gradient each row is multiplied by its entry of `weights` (n,).

    The weights may be set after the call, as soon as they are known, before the backward pass.
    """

    weights = None

    def __call__(self, z):
        @ops.custom_gradient
        def identity(z):
            def gradient(upstream):
                return upstream * ops.reshape(self.weights, (-1,) + (1,) * (len(z.shape) - 1))

            return ops.copy(z), gradient

        return identity(z)


@keras.saving.register_keras_serializable("kvae")
class Sampling(keras.layers.Layer):
    """z = z_mean + exp(z_log_var / 2) * eps with eps ~ N(0, I): the reparameterization trick.

    Kingma and Welling (2014), "Auto-encoding variational Bayes", section 2.4. sigma is the square root of the
    variance. The layer owns its seed, whose state is saved with it: a loaded model's noise goes on.

    Args:
        seed: int or None (random).
    """

    def __init__(self, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.seed = arguments.seed(seed)
        self.seed_generator = SeedGenerator(self.seed)
        self.built = True

    def call(self, inputs, samples=None, index=None):
        """Draw z.

        Args:
            inputs: [z_mean, z_log_var], each (n, latent_dim).
            samples: int or None, the draws per example.
            index: None (fresh noise at each call), or the examples' positions (n,): the noise is then a fixed
                function of the position, as evaluation wants it.

        Returns:
            (n, latent_dim), or (n, samples, latent_dim) where samples is given.
        """
        z_mean, z_log_var = inputs
        batch, latent_dim = ops.shape(z_mean)
        eps = self.noise((batch, samples or 1, latent_dim), index, z_mean.dtype)
        z = Normal(z_mean[:, None], z_log_var[:, None]).reparameterize(eps)
        return z if samples else z[:, 0]

    def noise(self, shape, index=None, dtype=None):
        """eps ~ N(0, I) of shape (n, ...): fresh, or where index (n,) is given, a fixed function of it."""
        dtype = dtype or self.compute_dtype
        if index is None:
            return keras.random.normal(shape, dtype=dtype, seed=self.seed_generator)
        return ops.reshape(indexed_normal(index, math.prod(shape[1:]), dtype=dtype), shape)

    def compute_output_spec(self, inputs, samples=None, index=None):
        batch, latent_dim = inputs[0].shape
        shape = (batch, samples, latent_dim) if samples else (batch, latent_dim)
        return keras.KerasTensor(shape, dtype=self.compute_dtype)

    def save_own_variables(self, store):
        super().save_own_variables(store)
        store["seed_generator_state"] = self.seed_generator.state.numpy()

    def load_own_variables(self, store):
        self.seed_generator.state.assign(store["seed_generator_state"])

    def get_config(self):
        return {**super().get_config(), "seed": self.seed}


@keras.saving.register_keras_serializable("kvae")
class PrecisionWeighted(keras.layers.Layer):
    """The product of two normals, normalised: means weighted by precisions, which add up.

    Sonderby et al. (2016), "Ladder variational autoencoders", equations 17 to 19: what x says of z_l, and what the
    z above say of it through p(z_l | ...), make up q(z_l | x, ...).
    """

    def call(self, inputs):
        """[mean, log_var, mean', log_var'], each (n, size), to [mean, log_var] of the product."""
        mean, log_var, other_mean, other_log_var = inputs
        product = -ops.logaddexp(-log_var, -other_log_var)
        weight, other_weight = ops.exp(product - log_var), ops.exp(product - other_log_var)
        return [weight * mean + other_weight * other_mean, product]
