"""Ada-GVAE: a VAE that learns from pairs of images, such as two frames of a film, which attributes there are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from kvae import arguments
from kvae.data import elements
from kvae.distributions import Normal
from kvae.models.vae import VAE
from kvae.objectives import Draw, score
from kvae.posteriors import DiagonalNormal


@keras.saving.register_keras_serializable("kvae")
class AdaGVAE(VAE):
    """A VAE of pairs (x, x') that have most of their attributes in common. Nobody says which, nor how many differ.

    A latent counts as shared by a pair if KL(q(z_j|x) || q(z_j|x')) + KL(q(z_j|x') || q(z_j|x)) is below the middle
    between the pair's smallest and largest. Both images then get the same q(z_j|x, x'), a normal with the mean of the
    two means and the mean of the two variances. Shared, a latent that mixes two attributes blurs the one that differs.
    Not shared, it differs in the other one too. So attributes find latents of their own, more often than from single
    images. The loss of a pair is the mean of the two images' objectives. With this q each is a lower bound of log p(x),
    as with any other.

    `fit(x, partner)`, or a stream of such pairs, trains it: `partner` has x's shape. `evaluate` of pairs gives the
    means of their losses. Without partners it is a VAE: `evaluate(x)`, `transform` and all others read each image
    alone.

    Args:
        encoder, decoder, likelihood, prior, seed, missing: as for a `VAE`.
        posterior_family: `kvae.posteriors.DiagonalNormal()`; None is the same.

    Raises:
        ValueError: if the networks and the distributions don't fit each other, or for another posterior family.
        TypeError: if an argument is of another kind.

    Example:
        >>> encoder = kvae.networks.dense_encoder((6,), latent_dim=2)
        >>> decoder = kvae.networks.dense_decoder((6,), latent_dim=2)
        >>> vae = kvae.AdaGVAE(encoder, decoder)
        >>> vae.compile()
        >>> x, partner = np.zeros((2, 20, 6), "float32")
        >>> partner[:, 0] = 1.0  # one of the attributes differs
        >>> history = vae.fit(x, partner, verbose=0)

    Reference:
        Locatello et al. (2020), "Weakly-supervised disentanglement without compromises", section 4. The paper takes
        one of the two KLs, which depends on the images' order.
    """

    def losses_per_example(
        self, x: Any, training: bool = False, index: Any = None, partner: Any = None
    ) -> tuple[Any, dict[str, Any]]:
        """(objective of x (n, ...), {name: number}), each (n,), in nats; with `partner` (n, ...), means of the two.

        `training` and `index` as for `VAE.losses_per_example`.
        """
        if partner is None:
            if training:
                raise ValueError(
                    "an AdaGVAE learns from pairs, and found no partner of x's shape: give fit(x, partner), or a "
                    "stream of pairs; a kvae.VAE takes x alone"
                )
            return super().losses_per_example(x, training, index)
        losses, numbers = super().losses_per_example((x, partner), training, index)
        return _mean_of_pairs(losses), {name: _mean_of_pairs(values) for name, values in numbers.items()}

    def draw(self, x: Any, samples: int = 1, *, index: Any = None, training: bool = False, **options: Any) -> Draw:
        """`VAE.draw`, with its `samples`, `index`, `training` and options. x may also be a pair of tensors (n, ...).

        The draw of a pair has 2 n rows, those of the first tensor before those of the second.
        """
        if not isinstance(x, tuple):
            return super().draw(x, samples, index=index, training=training, **options)
        arguments.integer_at_least("samples", samples, 1)
        x, partner = map(self._scaled, x)
        posterior = self.pair_posterior(x, partner, training)
        eps = self.sampling.noise((ops.shape(x)[0], 2 * samples, self.latent_dim), index)
        eps = ops.concatenate([eps[:, :samples], eps[:, samples:]])
        return score(self, ops.concatenate([x, partner]), posterior, eps, training, **options)

    def pair_posterior(self, x: Any, partner: Any, training: bool = False) -> Normal:
        """q(z|x, x') and q(z|x', x), a normal of 2 n rows, for x and `partner` (n, ...). `training` as for a VAE."""
        x, partner = self._scaled(x), self._scaled(partner)
        posterior = self.posterior(ops.concatenate([x, partner]), training)
        means, log_vars = ops.split(posterior.mean, 2), ops.split(posterior.log_var, 2)
        one, other = map(Normal, means, log_vars)
        kl = ops.add(one.kl_divergence(other), other.kl_divergence(one))
        middle = 0.5 * (ops.min(kl, axis=1, keepdims=True) + ops.max(kl, axis=1, keepdims=True))
        is_shared = ops.concatenate([kl < middle] * 2)
        mean, log_var = 0.5 * (means[0] + means[1]), ops.logaddexp(*log_vars) - math.log(2)
        return Normal(
            ops.where(is_shared, ops.concatenate([mean] * 2), posterior.mean),
            ops.where(is_shared, ops.concatenate([log_var] * 2), posterior.log_var),
        )

    def _build_parts(self, event_shape):
        if not isinstance(self.posterior_family, DiagonalNormal):
            raise ValueError(
                f"posterior_family is a {type(self.posterior_family).__name__}; an AdaGVAE compares a pair's latents "
                "one by one, and expects a DiagonalNormal, or None"
            )
        super()._build_parts(event_shape)
        if self.latent_dim < 2:
            raise ValueError("latent_dim is 1; an AdaGVAE shares some of a pair's latents, and expects at least 2")

    def _read_target(self, element):
        x, y, _ = elements.unpack(element)
        partner = elements.target((x, y.get("partner") if isinstance(y, Mapping) else y))
        return {} if partner is None else {"partner": partner}


def _mean_of_pairs(values):
    """(2 n,) to (n,): the mean of the first and the second image's."""
    return 0.5 * sum(ops.split(values, 2))
