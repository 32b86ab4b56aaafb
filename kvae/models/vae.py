"""The variational autoencoder: q(z|x), p(z), p(x|z), the bound on log p(x), and the step that climbs it."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kvae import arguments, likelihoods
from kvae.layers import Sampling
from kvae.models import encoder_decoder
from kvae.models.step import Step
from kvae.objectives import Draw, Objective, score
from kvae.posteriors import Posterior
from kvae.priors import Prior


@keras.saving.register_keras_serializable("kvae")
class VAE(encoder_decoder.EncoderDecoder):
    """x comes from an unobserved z, with prior p(z), decoder p(x|z), and encoder q(z|x) for the unknown p(z|x).

    p(x) = integral of p(x|z) p(z) dz is intractable. `fit` maximizes its lower bound over both networks:
    log p(x) >= E_q[log p(x|z)] - KL(q(z|x) || p(z)). Reports, in nats per example, `loss` (the objective),
    `reconstruction_loss`, `kl_loss`, and `elbo`: the bound, always with beta 1 and no free bits.

    Args:
        encoder: a Keras model from x (n, ...) to [z_mean, z_log_var], each (n, latent_dim), and to further outputs
            for some posterior families.
        decoder: a Keras model from z (n, latent_dim) to the likelihood's parameters, each (n, ...).
        likelihood: p(x|z), such as `GaussianLikelihood()`; "gaussian" or "bernoulli" for their defaults.
        prior: p(z), such as `VampPrior(500)`; None is N(0, I).
        posterior_family: the family of q(z|x), such as `kvae.posteriors.FullNormal()`; None is a diagonal normal.
        seed: int, or None for a random one; of the noise eps.
        missing: bool, whether NaN in x means "not observed": p(x) is then that of the observed values.

    Raises:
        TypeError, ValueError: if an argument is of another kind, or the parts don't fit each other.

    Example:
        >>> encoder = kvae.networks.dense_encoder((28, 28, 1), latent_dim=2)
        >>> decoder = kvae.networks.dense_decoder((28, 28, 1), latent_dim=2)
        >>> kvae.VAE(encoder, decoder, "bernoulli").sample(3).shape
        (3, 28, 28, 1)

    Reference:
        Kingma and Welling (2014), "Auto-encoding variational Bayes"; Rezende, Mohamed and Wierstra (2014).
    """

    metric_names = ("loss", "reconstruction_loss", "kl_loss", "elbo")
    config_names = ("encoder", "decoder", "likelihood", "prior", "posterior_family", "seed")
    conditional = arguments.renamed_method("conditional", "decoder_distribution")
    log_conditional = arguments.renamed_method("log_conditional", "log_likelihood")

    def __init__(
        self,
        encoder: keras.layers.Layer,
        decoder: keras.layers.Layer,
        likelihood: likelihoods.Likelihood | str = "gaussian",
        prior: Prior | None = None,
        posterior_family: Posterior | None = None,
        seed: int | None = None,
        missing: bool = False,
        **kwargs: Any,
    ):
        family = arguments.renamed("posterior", kwargs.pop("posterior", None), "posterior_family", posterior_family)
        super().__init__(encoder, decoder, missing=missing, **kwargs)
        self.likelihood = likelihoods.get(likelihood)
        self.prior, self.posterior_family = encoder_decoder.prior_and_posterior(prior, family, self.variable_dtype)
        self.seed = arguments.seed(seed)
        self.sampling = Sampling(seed=self.seed, dtype=self.variable_dtype)
        self.sample_seed = keras.random.SeedGenerator(self.seed)
        self._build_if_shape_is_known()

    def train_step(self, data: Any) -> dict[str, Any]:
        """One step up the bound on a batch `data`. `kvae.models.step` keeps NaN out and averages over replicas."""
        with Step(self, data) as step:
            with tf.GradientTape() as tape:
                losses, numbers = self.losses_per_example(step.x, training=True, **step.target)
                loss = step.loss(losses)
            return step.apply_gradients(tape.gradient(loss, self.trainable_weights), losses=losses, numbers=numbers)

    def losses_per_example(self, x: Any, training: bool = False, index: Any = None) -> tuple[Any, dict[str, Any]]:
        """(objective of x (n, ...), {name: number}), each (n,), in nats; see `draw` for `training` and `index`."""
        objective = self.compiled_loss  # ELBO(beta): reconstruction_loss + beta * kl_loss
        options = {name: getattr(objective, name) for name in ("doubly_reparameterized", "keep_posterior")}
        drawn = self.draw(x, objective.samples, index=index, training=training, **options)
        return objective(drawn, self.optimizer.iterations), {
            "reconstruction_loss": drawn.reconstruction_loss,  # -E_q[log p(x|z)]
            "kl_loss": drawn.kl_loss,  # KL(q(z|x) || p(z))
            "elbo": drawn.elbo,  # minus the sum of the two
        }

    def draw(self, x: Any, samples: int = 1, *, index: Any = None, training: bool = False, **options: Any) -> Draw:
        """Draw z from q(z|x), of a diagonal normal z_mean + exp(z_log_var / 2) * eps, and score it: a `Draw`, in nats.

        Args:
            x: tensor (n, ...).
            samples: int, the draws per example.
            index: None for fresh noise, or positions (n,): eps is then a fixed function of them.
            training: bool, passed to the networks.
            **options: those of `kvae.objectives.score`.
        """
        posterior = self.posterior(x, training)  # q(z|x)
        samples = samples if type(samples) is int and samples > 0 else arguments.integer_at_least("samples", samples, 1)
        shape = keras.ops.shape(keras.tree.flatten(x)[0])[0], samples, self.latent_dim
        eps = self.sampling.noise(shape, index)  # ~ N(0, I)
        return score(self, x, posterior, eps, training, **options)

    def posterior(self, x: Any, training: bool = False) -> Any:
        """q(z|x), a distribution over z (n, latent_dim), for x (n, ...). `training` goes to the encoder."""
        outputs = self._outputs(self.encoder, self._encoder_inputs(x, training), training)
        return self.posterior_family.distribution(outputs)

    def decoder_distribution(self, z: Any, training: bool = False) -> Any:
        """p(x|z), a distribution over x (n, ...), for z (n, latent_dim). `training` goes to the decoder."""
        return self.likelihood.distribution(self._outputs(self.decoder, z, training))

    def prior_distribution(self, count: int = 1, training: bool = False) -> Any:
        """p(z), a distribution of `count` equal rows. `training` is for models with networks of p(z)."""
        count = count if type(count) is int and count > 0 else arguments.integer_at_least("count", count, 1)
        return self.prior.distribution(count, self.posterior)

    def log_likelihood(self, x: Any, z: Any, training: bool = False) -> Any:
        """log p(x|z), (n,), in nats, for x (n, ...) and z (n, latent_dim); `training` as above."""
        return self._log_prob(self.decoder_distribution(z, training), x)

    def encode(self, x: Any) -> Any:
        """E[z] under q(z|x): (n, ...) to (n, latent_dim)."""
        return self.posterior(x).mean

    def decode(self, z: Any) -> Any:
        """E[x] under p(x|z): (n, latent_dim) to (n, ...)."""
        return self.decoder_distribution(z).mean

    def sample(self, count: int = 1, *, noise: bool = False, seed: int | None = None) -> np.ndarray:
        """`count` images, an array (count, ...): z ~ p(z), then E[x|z], or with `noise` a draw of p(x|z).

        An int `seed` repeats them; with None the model's own generator goes on.
        """
        return self._sample(count, noise, seed)

    def compile(self, optimizer: Any = "adam", loss: Objective | None = None, **kwargs: Any) -> None:
        """`keras.Model.compile` with an optimizer and an objective as loss; None is `ELBO()`."""
        super().compile(optimizer=optimizer, loss=encoder_decoder.objective(self, loss), **kwargs)

    def _build_parts(self, event_shape):
        encoder_decoder.build_encoder_and_decoder(self, event_shape)
        encoder_decoder.build_densities(self, event_shape, self.latent_dim)
