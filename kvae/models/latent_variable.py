"""What a VAE and probabilistic PCA share: a prior, a likelihood, a posterior, and draws from them."""

import keras
from keras import ops

from kvae import arguments
from kvae.layers import WeightedPath
from kvae.objectives import Draw


class LatentVariableMixin:
    """x comes from an unobserved z, with a `posterior`, a `decoder_distribution`, a `prior` and a `sampling` layer."""

    def posterior(self, x, training=False):
        """q(z|x), a distribution of n rows over z."""
        raise NotImplementedError

    def decoder_distribution(self, z, training=False):
        """p(x|z), a distribution of n rows over x."""
        raise NotImplementedError

    def log_likelihood(self, x, z, training=False):
        """log p(x|z), (n,), in nats."""
        return self.decoder_distribution(z, training).log_prob(x)

    def prior_distribution(self, count=1, training=False):
        """p(z) as a distribution of `count` equal rows. training: passed to networks that p(z) has of its own."""
        return self.prior.distribution(count, self.posterior)

    def draw(self, x, samples=1, *, index=None, training=False, prior=None, doubly_reparameterized=False):
        """Draw z ~ q(z|x) and score it: a `Draw`, in nats.

        Args:
            x: tensor (n, ...).
            samples: int, the draws per example.
            index: None for fresh noise, or positions (n,) of which the noise is then a fixed function.
            training: passed to the networks.
            prior: `prior_distribution()` where it's at hand already: a VampPrior's costs a pass of the encoder.
            doubly_reparameterized: bool, whether the posterior's parameters get the gradient of Tucker et al. (2019)
                from the importance-weighted bound: through z alone, once more weighted; the numbers are the same.
        """
        samples, x = arguments.integer_at_least("samples", samples, 1), self._scaled(x)
        posterior = self.posterior(x, training)
        prior = self.prior_distribution(training=training) if prior is None else prior
        batch = ops.shape(keras.tree.flatten(x)[0])[0]
        eps = self.sampling.noise((batch, samples, self.latent_dim), index)
        repeated = posterior
        if samples > 1:
            x = keras.tree.map_structure(lambda part: ops.repeat(part, samples, axis=0), x)
            repeated = posterior.repeat(samples)
        constant = repeated.stop_gradient() if doubly_reparameterized else None
        z, log_posterior = repeated.rsample_and_log_prob(ops.reshape(eps, (-1, self.latent_dim)))
        if doubly_reparameterized:
            path = WeightedPath()
            z = path(z)
            scored = constant.log_prob(z)  # for its gradient alone: the draw's own value has no rounding of z in it
            log_posterior = ops.stop_gradient(log_posterior) + (scored - ops.stop_gradient(scored))

        def by_sample(values):
            return ops.reshape(values, (-1, samples))

        draw = Draw(
            z=ops.reshape(z, (-1, samples, self.latent_dim)),
            log_likelihood=by_sample(self.log_likelihood(x, z, training)),
            log_prior=by_sample(prior.log_prob(z)),
            log_posterior=by_sample(log_posterior),
            kl=self.prior.kl_divergence(posterior),
        )
        if doubly_reparameterized:
            path.weights = ops.stop_gradient(draw.normalized_weights)
        return draw

    def sample(self, count=1, *, noise=False, seed=None):
        """Images from the model: z ~ p(z), and then the mean of p(x|z), or x ~ p(x|z) where noise is True.

        Args:
            count: int.
            noise: bool, whether the likelihood's own noise is drawn too.
            seed: int for images that repeat; None goes on with the model's own generator.

        Returns:
            array (count, ...).
        """
        count, generator = self._sampling_of(count, seed)
        conditional = self.decoder_distribution(self.prior_distribution(count).sample(generator))
        return ops.convert_to_numpy(conditional.sample(generator) if noise else conditional.mean)
