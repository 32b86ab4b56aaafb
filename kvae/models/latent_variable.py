"""What a VAE and probabilistic PCA share: a prior, a likelihood, a posterior, and draws from them."""

import keras
from keras import ops

from kvae.objectives import Draw


class LatentVariableMixin:
    """x comes from an unobserved z. Needs `posterior`, `conditional`, `prior`, `sampling` and `sample_seed`."""

    def posterior(self, x, training=False):
        """q(z|x), a distribution of n rows over z."""
        raise NotImplementedError

    def conditional(self, z, training=False):
        """p(x|z), a distribution of n rows over x."""
        raise NotImplementedError

    def draw(self, x, samples=1, *, index=None, training=False):
        """Draw z ~ q(z|x) and score it: a `Draw`, in nats.

        Args:
            x: tensor (n, ...).
            samples: int, the draws per example.
            index: None for fresh noise, or positions (n,) of which the noise is then a fixed function.
            training: passed to the networks.
        """
        x = self._scaled(x)
        posterior = self.posterior(x, training)
        z = self.sampling([posterior.mean, posterior.log_var], samples=samples, index=index)
        rows = ops.reshape(z, (-1, z.shape[-1]))
        x = ops.repeat(x, samples, axis=0) if samples > 1 else x

        def by_sample(values):
            return ops.reshape(values, (-1, samples))

        return Draw(
            z=z,
            log_likelihood=by_sample(self.conditional(rows, training).log_prob(x)),
            log_prior=by_sample(self.prior.log_prob(rows)),
            log_posterior=by_sample(posterior.repeat(samples).log_prob(rows)),
            kl=self.prior.kl_divergence(posterior),
        )

    def sample(self, count=1, *, noise=False, seed=None):
        """Images from the model: z ~ p(z), and then the mean of p(x|z), or x ~ p(x|z) where noise is True.

        Args:
            count: int.
            noise: bool, whether the likelihood's own noise is drawn too.
            seed: int for images that repeat; None goes on with the model's own generator.

        Returns:
            array (count, ...).
        """
        self.check_built()
        generator = self.sample_seed if seed is None else keras.random.SeedGenerator(seed)
        conditional = self.conditional(self.prior.distribution(count).sample(generator))
        return ops.convert_to_numpy(conditional.sample(generator) if noise else conditional.mean)
