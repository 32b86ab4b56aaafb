"""The variational autoencoder."""

import warnings

import keras
import numpy as np
from keras import ops

from kvae import arguments, likelihoods
from kvae.layers import Sampling
from kvae.models.latent_variable import LatentVariableMixin
from kvae.models.pair import PairModel, check_built_for
from kvae.objectives import ELBO, Objective
from kvae.posteriors import DiagonalNormal, Posterior
from kvae.priors import Prior, StandardNormal, VampPrior


@keras.saving.register_keras_serializable("kvae")
class VAE(LatentVariableMixin, PairModel):
    """x comes from an unobserved z: prior p(z), decoder p(x|z), and an encoder that says q(z|x) of it.

    p(x) = integral of p(x|z) p(z) dz can't be computed; what is maximised over both networks is its lower bound
    E_q[log p(x|z)] - KL(q(z|x) || p(z)) (Kingma and Welling 2014; Rezende, Mohamed and Wierstra 2014). Reports, in
    nats per example: `loss`, what is minimised; `reconstruction_loss`, -E_q[log p(x|z)]; `kl_loss`; and `elbo`, always
    with beta 1 and without free bits.

    Args:
        encoder: a Keras model from x (n, ...) to what the posterior reads: [z_mean, z_log_var], each (n, latent_dim),
            and more for some.
        decoder: a Keras model from z (n, latent_dim) to what the likelihood reads.
        likelihood: p(x|z), such as `GaussianLikelihood()`; "gaussian" or "bernoulli" for their defaults.
        prior: p(z), such as `VampPrior(500)`; None is the standard normal.
        posterior_family: q(z|x), such as `kvae.posteriors.FullNormal()`; None is a normal of diagonal covariance.
        seed: int or None (random), of the sampling noise.

    Raises:
        ValueError: where the networks, the likelihood and the prior don't fit each other.
    """

    reported = ("loss", "reconstruction_loss", "kl_loss", "elbo")

    def __init__(self, encoder, decoder, likelihood="gaussian", prior=None, posterior_family=None, seed=None, **kwargs):
        posterior_family = arguments.renamed(
            "posterior", kwargs.pop("posterior", None), "posterior_family", posterior_family
        )
        super().__init__(encoder, decoder, **kwargs)
        self.likelihood = likelihoods.get(likelihood)
        self.prior = StandardNormal(dtype=self.variable_dtype) if prior is None else prior
        if not isinstance(self.prior, Prior):
            raise TypeError(f"prior is {prior!r}; expected a kvae prior such as kvae.StandardNormal().")
        family = posterior_family
        self.posterior_family = DiagonalNormal(dtype=self.variable_dtype) if family is None else family
        if not isinstance(self.posterior_family, Posterior):
            raise TypeError(f"posterior_family is {family!r}; expected one of kvae.posteriors, such as FullNormal().")
        self.prior.check_posterior(self.posterior_family)
        self.seed = seed = arguments.seed(seed)
        self.sampling = Sampling(seed=seed, dtype=self.variable_dtype)
        self.sample_seed = keras.random.SeedGenerator(seed)
        self._build_if_shape_is_known()

    def compile(self, optimizer="adam", loss=None, **kwargs):
        """As `keras.Model.compile`. loss: an objective; None is ELBO(). Raises ValueError where it doesn't fit."""
        loss = ELBO() if loss is None else loss
        if not isinstance(loss, Objective):
            raise TypeError(f"loss is {loss!r}; a VAE's is a kvae.Objective such as kvae.ELBO(beta=1.0).")
        loss.check_model(self)
        super().compile(optimizer=optimizer, loss=loss, **kwargs)

    def build(self, input_shape):
        super().build(input_shape)
        if self.compiled:
            self.loss.check_model(self)

    def check_networks(self, code_shapes, output_shapes, event_shape):
        self.posterior_family.check_outputs(code_shapes)
        self.likelihood.check_outputs(output_shapes, event_shape)
        if not self.posterior_family.built:
            self.posterior_family.build(code_shapes)

    def build_parts(self, event_shape):
        super().build_parts(event_shape)
        check_built_for("posterior", (self.posterior_family.latent_dim,), (self.latent_dim,))
        self.build_densities(event_shape, self.latent_dim)

    def build_densities(self, event_shape, prior_dim):
        """Build the likelihood and the prior, over z (n, prior_dim); raise ValueError where they don't fit."""
        if not self.likelihood.built:
            self.likelihood.build((None, *event_shape))
        if not self.prior.built:
            self.prior.build((None, prior_dim), event_shape)
        check_built_for("likelihood", self.likelihood.event_shape, event_shape)
        check_built_for("prior", (self.prior.latent_dim,), (prior_dim,))
        check_built_for("prior", self.prior.event_shape or event_shape, event_shape)

    def posterior(self, x, training=False):
        """q(z|x) for x (n, ...)."""
        return self.posterior_family.distribution(self.outputs_of(self.encoder, self._scaled(x), training))

    def decoder_distribution(self, z, training=False):
        """p(x|z) for z (n, latent_dim)."""
        return self.likelihood.distribution(self.outputs_of(self.decoder, z, training))

    def conditional_at(self, x, z, training=False):
        """p(x|z) for z (n, latent_dim), and for what else it depends on of x (n, ...): here nothing."""
        return self.decoder_distribution(z, training)

    def kl_groups(self):
        """How many columns the closed form of KL(q(z|x) || p(z)) has, one a latent or fewer; 0 where there is none."""
        symbol = self.symbol(self.event_shape, self.variable_dtype)
        x = keras.tree.map_structure(lambda part: ops.zeros((1, *part.shape[1:]), part.dtype), symbol)
        kl = self.prior.kl_divergence(self.posterior(x))
        return 0 if kl is None else kl.shape[1]

    def encode(self, x):
        return self.posterior(x).mean

    def decode(self, z):
        return self.decoder_distribution(z).mean

    def losses_per_example(self, x, training=False, index=None):
        loss = self.loss
        draw = self.draw(
            x, loss.samples, index=index, training=training, doubly_reparameterized=loss.doubly_reparameterized
        )
        return loss(draw, self.optimizer.iterations), {name: getattr(draw, name) for name in self.reported[1:]}

    def _check_values(self, x):
        self.likelihood.check_data(x)
        bounds = self.prior.bounds if isinstance(self.prior, VampPrior) else None
        if bounds is not None and (np.min(x) < bounds[0] or np.max(x) > bounds[1]):
            warnings.warn(
                f"The data reach from {np.min(x):g} to {np.max(x):g}, and the VampPrior's images are held in its "
                f"bounds {bounds}: give VampPrior(bounds=(low, high)) those of the data, or None, or scale the data.",
                stacklevel=2,
            )

    def get_config(self):
        parts = {"likelihood": self.likelihood, "prior": self.prior, "posterior_family": self.posterior_family}
        return {
            **super().get_config(),
            **{name: keras.saving.serialize_keras_object(part) for name, part in parts.items()},
            "seed": self.seed,
        }
