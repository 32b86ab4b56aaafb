"""The variational autoencoder."""

import keras

from kvae import likelihoods
from kvae.distributions import Normal
from kvae.layers import Sampling
from kvae.models.latent_variable import LatentVariableMixin
from kvae.models.pair import PairModel
from kvae.objectives import ELBO, Objective
from kvae.priors import Prior, StandardNormal


@keras.saving.register_keras_serializable("kvae")
class VAE(LatentVariableMixin, PairModel):
    """x comes from an unobserved z: prior p(z), decoder p(x|z), and an encoder q(z|x) = N(z_mean, exp(z_log_var)).

    p(x) = integral of p(x|z) p(z) dz can't be computed; what is maximised over both networks is its lower bound
    E_q[log p(x|z)] - KL(q(z|x) || p(z)) (Kingma and Welling 2014; Rezende, Mohamed and Wierstra 2014). Reports, in
    nats per example: `loss`, what is minimised; `reconstruction_loss`, -E_q[log p(x|z)]; `kl_loss`; and `elbo`, always
    with beta 1 and without free bits.

    Args:
        encoder: a Keras model from x (n, ...) to [z_mean, z_log_var], each (n, latent_dim).
        decoder: a Keras model from z (n, latent_dim) to what the likelihood reads.
        likelihood: p(x|z), such as `GaussianLikelihood()`; "gaussian" or "bernoulli" for their defaults.
        prior: p(z); None is the standard normal.
        seed: int or None (random), of the sampling noise.

    Raises:
        ValueError: where the networks, the likelihood and the prior don't fit each other.
    """

    reported = ("loss", "reconstruction_loss", "kl_loss", "elbo")

    def __init__(self, encoder, decoder, likelihood="gaussian", prior=None, seed=None, **kwargs):
        super().__init__(encoder, decoder, **kwargs)
        self.likelihood = likelihoods.get(likelihood)
        self.prior = StandardNormal(dtype=self.variable_dtype) if prior is None else prior
        if not isinstance(self.prior, Prior):
            raise TypeError(f"prior is {prior!r}; expected a kvae prior such as kvae.StandardNormal().")
        self.seed = seed
        self.sampling = Sampling(seed=seed, dtype=self.variable_dtype)
        self.sample_seed = keras.random.SeedGenerator(seed)
        self._build_if_shape_is_known()

    def compile(self, optimizer="adam", loss=None, **kwargs):
        """As `keras.Model.compile`. loss: an objective; None is ELBO()."""
        loss = ELBO() if loss is None else loss
        if not isinstance(loss, Objective):
            raise TypeError(f"loss is {loss!r}; a VAE's is a kvae.Objective such as kvae.ELBO(beta=1.0).")
        super().compile(optimizer=optimizer, loss=loss, **kwargs)

    def check_networks(self, code_shapes, output_shapes, event_shape):
        if len(code_shapes) != 2 or code_shapes[0] != code_shapes[1] or len(code_shapes[0]) != 2:
            raise ValueError(
                f"The encoder gives outputs of shapes {code_shapes}; a VAE expects two, [z_mean, z_log_var], each "
                "of shape (n, latent_dim)."
            )
        self.likelihood.check_outputs(output_shapes, event_shape)

    def build_parts(self, event_shape):
        super().build_parts(event_shape)
        if not self.likelihood.built:
            self.likelihood.build((None, *event_shape))
        if not self.prior.built:
            self.prior.build((None, self.latent_dim))
        for name, found, expected in (
            ("likelihood", self.likelihood.event_shape, event_shape),
            ("prior", (self.prior.latent_dim,), (self.latent_dim,)),
        ):
            if found != expected:
                raise ValueError(f"The {name} was built for the shape {found}, the model for {expected}: make another.")

    def posterior(self, x, training=False):
        """q(z|x) = N(z_mean, exp(z_log_var)) for x (n, ...)."""
        return Normal(*self.outputs_of(self.encoder, self._scaled(x), training))

    def conditional(self, z, training=False):
        """p(x|z) for z (n, latent_dim)."""
        return self.likelihood.distribution(self.outputs_of(self.decoder, z, training))

    def encode(self, x):
        return self.posterior(x).mean

    def decode(self, z):
        return self.conditional(z).mean

    def losses_per_example(self, x, training=False, index=None):
        draw = self.draw(x, index=index, training=training)
        parts = {name: getattr(draw, name) for name in self.reported[1:]}
        return self.loss(draw, self.optimizer.iterations), parts

    def _check_values(self, x):
        self.likelihood.check_data(x)

    def get_config(self):
        parts = {"likelihood": self.likelihood, "prior": self.prior}
        return {
            **super().get_config(),
            **{name: keras.saving.serialize_keras_object(part) for name, part in parts.items()},
            "seed": self.seed,
        }
