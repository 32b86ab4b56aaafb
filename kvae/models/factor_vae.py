"""FactorVAE: a VAE with a penalty on the total correlation of its codes, estimated by a second network."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from kvae import arguments, likelihoods, optimizers
from kvae.models import encoder_decoder
from kvae.models.step import Step
from kvae.models.vae import VAE
from kvae.noise import indexed_normal
from kvae.objectives import Objective
from kvae.posteriors import Posterior
from kvae.priors import Prior


@keras.saving.register_keras_serializable("kvae")
class FactorVAE(VAE):
    """A VAE with gamma TC(z) added to its loss, the total correlation TC(z) = KL(q(z) || prod_j q(z_j)).

    A discriminator D is the probability that z is from q(z) and not from prod_j q(z_j). Then TC(z) = E_q(z)[log D(z) -
    log(1 - D(z))] for the best D. Encoder and decoder minimize the objective of `compile` (by default the negative
    ELBO) plus gamma times this expectation. D minimizes -1/2 E_q(z)[log D(z)] - 1/2 E[log(1 - D(z'))], in the same step
    and on the same batch: z' has each latent of z permuted among the examples. The paper takes z' from a second batch.

    Reports, beside the numbers of a `VAE`, `total_correlation`, as D estimates it, and `discriminator_loss`: log 2 for
    a D that can't tell z from z'. The latter depends on the batches, in `evaluate` too; the others don't. Each of
    several replicas permutes its share of a batch. Any prior, posterior and objective will do: D sees draws alone.

    Args:
        encoder, decoder: as for a `VAE`.
        discriminator: a Keras model from z (n, latent_dim) to logits (n, 1) of D, such as
            `kvae.networks.dense_discriminator(latent_dim)`.
        likelihood, prior, posterior_family, seed: as for a `VAE`.

    Raises:
        ValueError: if the networks and the distributions don't fit each other.
        TypeError: if an argument is of another kind.

    Example:
        >>> encoder = kvae.networks.dense_encoder((6,), latent_dim=2)
        >>> decoder = kvae.networks.dense_decoder((6,), latent_dim=2)
        >>> vae = kvae.FactorVAE(encoder, decoder, kvae.networks.dense_discriminator(2, hidden=(50,)))
        >>> vae.compile(kvae.optimizers.Adam(1e-3), gamma=10.0)
        >>> sorted(vae.evaluate(np.zeros((5, 6)), verbose=0, return_dict=True))
        ['discriminator_loss', 'elbo', 'kl_loss', 'loss', 'reconstruction_loss', 'total_correlation']

    Reference:
        Kim and Mnih (2018), "Disentangling by factorising", equations 2 and 3 and algorithm 2.
    """

    metric_names = (*VAE.metric_names, "total_correlation", "discriminator_loss")
    config_names = ("encoder", "decoder", "discriminator", "likelihood", "prior", "posterior_family", "seed")
    gamma: Any = None
    discriminator_optimizer: Any = None

    def __init__(
        self,
        encoder: keras.layers.Layer,
        decoder: keras.layers.Layer,
        discriminator: keras.layers.Layer,
        likelihood: likelihoods.Likelihood | str = "gaussian",
        prior: Prior | None = None,
        posterior_family: Posterior | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ):
        example = "a Keras model, such as kvae.networks.dense_discriminator(latent_dim)"
        arguments.instance("discriminator", discriminator, keras.layers.Layer, example)
        self.discriminator = discriminator  # the constructor below may build with it
        super().__init__(encoder, decoder, likelihood, prior, posterior_family, seed, **kwargs)

    def train_step(self, data: Any) -> dict[str, Any]:
        """One step of the VAE down its loss, and of the discriminator down its own, on a batch `data`."""
        with Step(self, data) as step:
            with tf.GradientTape(persistent=True) as tape:
                losses, numbers = self.losses_per_example(step.x, training=True)
                loss = step.loss(losses)
                discriminator_loss = step.unscaled_loss(numbers["discriminator_loss"])
            (_, weights), (_, discriminator_weights) = self._optimized()
            gradients = tape.gradient(loss, weights)  # through z, and no further: D's weights aren't among them
            gradients += tape.gradient(discriminator_loss, discriminator_weights)
            return step.apply_gradients(gradients, losses=losses, numbers=numbers)

    def losses_per_example(self, x: Any, training: bool = False, index: Any = None) -> tuple[Any, dict[str, Any]]:
        """(objective + gamma TC of x (n, ...), {name: number}), each (n,), in nats; see `draw` for the other arguments.

        `training` goes to the discriminator, too. With `index`, the permutations are functions of the positions.
        """
        objective = self.compiled_loss
        options = {name: getattr(objective, name) for name in ("doubly_reparameterized", "keep_posterior")}
        drawn = self.draw(x, objective.samples, index=index, training=training, **options)
        z = drawn.z[:, 0]
        logits = self.discriminate(z, training)  # log D(z) - log(1 - D(z))
        logits_of_permuted = self.discriminate(ops.stop_gradient(self._permuted(z, index)), training)
        return objective(drawn, self.optimizer.iterations) + self.gamma * logits, {
            "reconstruction_loss": drawn.reconstruction_loss,
            "kl_loss": drawn.kl_loss,
            "elbo": drawn.elbo,
            "total_correlation": logits,
            "discriminator_loss": 0.5 * (ops.softplus(-logits) + ops.softplus(logits_of_permuted)),
        }

    def discriminate(self, z: Any, training: bool = False) -> Any:
        """log D(z) - log(1 - D(z)), (n,), for z (n, latent_dim). `training` goes to the discriminator."""
        return self._outputs(self.discriminator, z, training)[0][:, 0]

    def compile(
        self,
        optimizer: Any = "adam",
        loss: Objective | None = None,
        *,
        gamma: float = 35.0,
        discriminator_optimizer: Any = None,
        **kwargs: Any,
    ) -> None:
        """`keras.Model.compile` for a VAE and a discriminator.

        Args:
            optimizer: of encoder and decoder, as for a `VAE`.
            loss: an objective; None is `ELBO()`.
            gamma: number >= 0, the total correlation's weight. 35 is the paper's on dSprites.
            discriminator_optimizer: a Keras optimizer; None is the paper's, Adam(1e-4, beta_1=0.5, beta_2=0.9).
            **kwargs: further arguments of `keras.Model.compile`.
        """
        gamma = arguments.real("gamma", gamma, 0)
        if discriminator_optimizer is None:
            discriminator_optimizer = optimizers.Adam(learning_rate=1e-4, beta_1=0.5, beta_2=0.9)
        example = "a Keras optimizer, such as kvae.optimizers.Adam(1e-4)"
        arguments.instance("discriminator_optimizer", discriminator_optimizer, keras.optimizers.Optimizer, example)
        if discriminator_optimizer is optimizer:
            raise ValueError("discriminator_optimizer is the VAE's own optimizer; give each network one of its own.")
        super().compile(optimizer, loss, **kwargs)
        self.gamma, self.discriminator_optimizer = gamma, discriminator_optimizer

    def get_compile_config(self) -> dict[str, Any] | None:
        """Keras' hook: the arguments of `compile`."""
        config = super().get_compile_config()
        if config:
            config["gamma"] = self.gamma
            config["discriminator_optimizer"] = keras.saving.serialize_keras_object(self.discriminator_optimizer)
        return config

    @property
    def networks(self) -> tuple[keras.layers.Layer, ...]:
        """The networks that the model is made of."""
        return *super().networks, self.discriminator

    def _optimized(self):
        own = self.discriminator.trainable_weights
        others = [weight for weight in self.trainable_weights if not any(weight is each for each in own)]
        return [(self.optimizer, others), (self.discriminator_optimizer, own)]

    def _permuted(self, z, index):
        """z with each latent in an order of its own among the examples."""
        by_position = index is not None
        noise = indexed_normal(index, self.latent_dim, key=1) if by_position else self.sampling.noise(ops.shape(z))
        return ops.take_along_axis(z, ops.argsort(noise, axis=0), axis=0)

    def _build_parts(self, event_shape):
        super()._build_parts(event_shape)
        z = self._symbol((self.latent_dim,))
        logits = encoder_decoder.outputs_or_error(self.discriminator, z, "discriminator")
        shapes = [tuple(each.shape) for each in logits]
        if shapes != [(None, 1)]:
            raise ValueError(f"The discriminator gives outputs of shapes {shapes}; expected one, logits (n, 1).")
