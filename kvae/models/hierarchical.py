"""Variational autoencoders of several layers of latents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from kvae import arguments
from kvae.distributions.chain import Chain, inputs_of, split
from kvae.likelihoods import Likelihood
from kvae.models.encoder_decoder import build_densities, outputs_or_error, warn_of_activations
from kvae.models.vae import VAE
from kvae.priors import Prior


@keras.saving.register_keras_serializable("kvae")
class HierarchicalVAE(VAE):
    """A VAE of L >= 2 layers of latents: z_L at the top, and each layer below depends on those above.

    p(x, z) = p(z_L) prod_l p(z_l | z_l+1, ..., z_L) p(x | z_1, ..., z_L), and the encoder goes the same way down:
    q(z|x) = q(z_L|x) prod_l q(z_l | x, z_l+1, ..., z_L). A code z is [z_1, ..., z_L] side by side, (n, latent_dim),
    of the sizes `latent_sizes`. The KL has no closed form: it is estimated from the draws.

    A functional network with fewer inputs than are listed here gets the first of them: with z_l+1 alone the layers are
    a Markov chain. If the networks of q(z_l | ...) share those of p(z_l | ...), the model is a ladder; see
    `kvae.layers.PrecisionWeighted`.

    Args:
        encoder: a Keras model from x (n, ...) to the posteriors' inputs: a tensor for each, h_1 to h_L, or one for
            all (`keras.layers.Identity()` for x itself). It runs once an example, whatever the number of samples.
        posteriors: list of L Keras models, q(z_l | x, ...): [h_l, z_l+1, ..., z_L] to [z_mean, z_log_var], each
            (n, size). The last one reads h_L alone.
        priors: list of L - 1 Keras models, p(z_l | ...): [z_l+1, ..., z_L] to [z_mean, z_log_var], each (n, size).
        decoder: a Keras model from [z_1, ..., z_L] to the likelihood's parameters.
        likelihood: p(x|z), as for a VAE.
        prior: p(z_L), as for a VAE; a VampPrior is one of q(z_L|x).
        seed: int, or None for a random one; of the noise eps.

    Raises:
        ValueError: if the networks, the likelihood and the prior don't fit each other.
        TypeError: for `posterior_family=`: the posteriors take its place.

    Example:
        >>> def normal(size, *inputs):
        ...     symbols = [keras.Input((n,)) for n in inputs]
        ...     h = keras.layers.Concatenate()(symbols) if len(symbols) > 1 else symbols[0]
        ...     return keras.Model(symbols, [keras.layers.Dense(size)(h), keras.layers.Dense(size)(h)])
        >>> z1, z2 = keras.Input((3,)), keras.Input((2,))
        >>> decoder = keras.Model([z1, z2], keras.layers.Dense(6)(keras.layers.Concatenate()([z1, z2])))
        >>> posteriors, priors = [normal(3, 6, 2), normal(2, 6)], [normal(3, 2)]
        >>> vae = kvae.HierarchicalVAE(keras.layers.Identity(), posteriors, priors, decoder)
        >>> vae.build((None, 6))
        >>> vae.latent_sizes, vae.sample(4).shape
        ((3, 2), (4, 6))

    Reference:
        Sonderby et al. (2016), "Ladder variational autoencoders"; Tomczak and Welling (2018), "VAE with a VampPrior",
        section 4.
    """

    # The priors come first: what posteriors share with them stays shared when the model is loaded.
    config_names = ("encoder", "decoder", "likelihood", "prior", "seed", "priors", "posteriors")

    def __init__(
        self,
        encoder: keras.layers.Layer,
        posteriors: Sequence[keras.Model],
        priors: Sequence[keras.Model],
        decoder: keras.layers.Layer,
        likelihood: Likelihood | str = "gaussian",
        prior: Prior | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ):
        family = kwargs.pop("posterior_family", kwargs.pop("posterior", None))
        if family is not None:
            raise TypeError(
                f"posterior_family is {family!r}; a HierarchicalVAE's q(z|x) is made of the networks in "
                "posteriors=, each a normal of diagonal covariance: leave posterior_family= out."
            )
        posteriors, priors = _listed("posteriors", posteriors), _listed("priors", priors)
        if len(posteriors) < 2 or len(priors) != len(posteriors) - 1:
            raise ValueError(
                f"There are {len(posteriors)} posteriors and {len(priors)} priors; expected at least 2, and one prior "
                "less: that of the top layer is prior=. A VAE of one layer is kvae.VAE."
            )
        self.posteriors, self.priors = posteriors, priors  # the constructor below may build with them
        super().__init__(encoder, decoder, likelihood, prior, seed=seed, **kwargs)

    @property
    def networks(self) -> tuple[keras.layers.Layer, ...]:
        """The networks that the model is made of."""
        return *super().networks, *self.posteriors, *self.priors

    def _build_parts(self, event_shape):
        features = self._features(outputs_or_error(self.encoder, self._encoder_symbol(event_shape), "encoder"))
        z, names = [], ["z_mean", "z_log_var"]
        for level in reversed(range(len(self.posteriors))):
            shapes = self._shapes(self.posteriors[level], [features[level], *z], f"posteriors[{level}]")
            if len(shapes) != 2 or len(shapes[0]) != 2 or shapes[0] != shapes[1]:
                raise ValueError(
                    f"posteriors[{level}] gives outputs of shapes {shapes}; expected {names}, each (n, size)."
                )
            if z:
                found = self._shapes(self.priors[level], z, f"priors[{level}]")
                if found != shapes:
                    raise ValueError(
                        f"priors[{level}] gives outputs of shapes {found}, posteriors[{level}] of {shapes}; expected "
                        f"{names} of one size."
                    )
            z.insert(0, self._symbol(shapes[0][1:]))
        self.likelihood.check_outputs(self._shapes(self.decoder, z, "decoder"), event_shape)
        for role, networks in (("posteriors", self.posteriors), ("priors", self.priors)):
            for level, network in enumerate(networks):
                warn_of_activations(network, f"{role}[{level}]", names, self)
        warn_of_activations(self.decoder, "decoder", self.likelihood.parameters, self.likelihood)
        self.latent_sizes = tuple(part.shape[1] for part in z)
        self.latent_dim = sum(self.latent_sizes)
        build_densities(self, event_shape, prior_dim=self.latent_sizes[-1])

    def _shapes(self, network, tensors, role):
        return [tuple(output.shape) for output in outputs_or_error(network, inputs_of(network, tensors), role)]

    def _features(self, outputs):
        levels = len(self.posteriors)
        if len(outputs) not in (1, levels):
            raise ValueError(
                f"The encoder gives {len(outputs)} outputs; expected 1 for all {levels} posteriors, or one for each."
            )
        return outputs * levels if len(outputs) == 1 else outputs

    def _top(self, features, training=False):
        network = self.posteriors[-1]
        return self.posterior_family.distribution(self._outputs(network, inputs_of(network, features[-1:]), training))

    def posterior(self, x: Any, training: bool = False) -> Chain:
        """q(z|x) for x (n, ...), a `kvae.distributions.Chain`. `training` goes to the networks."""
        features = self._features(self._outputs(self.encoder, self._encoder_inputs(x, training), training))
        networks = tuple(self.posteriors[:-1])
        return Chain(self._top(features, training), networks, self.latent_sizes, tuple(features[:-1]), training)

    def prior_distribution(self, count: int = 1, training: bool = False) -> Chain:
        """p(z), a `kvae.distributions.Chain` of `count` equal rows. `training` goes to the networks."""

        def top_posterior(x):
            return self._top(self._features(self._outputs(self.encoder, self._encoder_inputs(x))))

        top = self.prior.distribution(arguments.integer_at_least("count", count, 1), top_posterior)
        return Chain(top, tuple(self.priors), self.latent_sizes, training=training)

    def decoder_distribution(self, z: Any, training: bool = False) -> Any:
        """p(x|z) for z (n, latent_dim). `training` goes to the decoder."""
        inputs = inputs_of(self.decoder, split(z, self.latent_sizes))
        return self.likelihood.distribution(self._outputs(self.decoder, inputs, training))


def _listed(name, networks):
    """The networks as a list. Raises TypeError for other things than Keras models."""
    if not isinstance(networks, list | tuple):
        raise TypeError(f"{name} is {networks!r}; expected a list of Keras models.")
    for number, network in enumerate(networks):
        arguments.instance(f"{name}[{number}]", network, keras.layers.Layer, "a Keras model")
    return list(networks)
