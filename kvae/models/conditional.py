"""The conditional variational autoencoder: images given what is known of them."""

import keras
import numpy as np
from keras import ops

from kvae import arguments
from kvae.data import arrays, elements, validation
from kvae.models.vae import VAE
from kvae.priors import VampPrior


@keras.saving.register_keras_serializable("kvae")
class ConditionalVAE(VAE):
    """A VAE of x given a label y: p(x|y) = integral of p(x|z,y) p(z) dz, with the encoder's q(z|x,y).

    Sohn, Lee and Yan (2015), "Learning structured output representation using deep conditional generative models",
    with a z that doesn't depend on y, as in Kingma et al. (2014), "Semi-supervised learning with deep generative
    models", section 2.2. Its elbo bounds log p(x|y).

    It reads (x, y): a stream of them, or fit(x, y). Where a VAE's methods take x, they take the pair (x, y) here, and
    `decode`, `decoder_distribution` and `inverse_transform` take (z, y).

    y is class numbers, integers (n,) below label_dim, of which the networks see one 1 among 0s, or numbers
    (n, label_dim), which they see as they are. Class numbers that aren't below it raise ValueError.

    Args:
        encoder: a Keras model from [x, y], (n, ...) and (n, label_dim), to what the posterior reads.
        decoder: a Keras model from [z, y] to what the likelihood reads.
        label_dim: int, the number of classes, or of y's columns.
        likelihood, prior, posterior_family, seed: as a VAE's; the prior is no VampPrior, whose images have no labels.

    Raises:
        ValueError: where the networks, the likelihood and the prior don't fit each other.
    """

    def __init__(
        self, encoder, decoder, label_dim, likelihood="gaussian", prior=None, posterior_family=None, seed=None, **kwargs
    ):
        if isinstance(prior, VampPrior):
            raise ValueError("A VampPrior is made of images without labels, whose q(z|x,y) isn't known: use another.")
        self.label_dim = arguments.integer_at_least("label_dim", label_dim, 1)  # before what builds the model with it
        super().__init__(encoder, decoder, likelihood, prior, posterior_family, seed, **kwargs)

    def symbol(self, shape, dtype=None):
        return [super().symbol(shape, dtype), super().symbol((self.label_dim,), dtype)]

    def _read(self, element):
        x, y, _ = elements.unpack(element)
        if y is None and isinstance(x, tuple | list):  # as Keras gives what `predict` reads
            x, y = x
        if y is None or isinstance(y, dict):
            found = "none" if y is None else f"a dict with the keys {sorted(y)}"
            raise ValueError(f"A ConditionalVAE reads images and labels, (x, y), and y is {found}: map the data to it.")
        return x, y

    def _scaled(self, x):
        """[x, y] of the pair, as the networks take them."""
        if not isinstance(x, tuple | list) or len(x) != 2:
            raise ValueError(f"Found {type(x).__name__}; a ConditionalVAE takes a pair, (x, y) or (z, y).")
        return [super()._scaled(x[0]), self._encoded(x[1])]

    def fit(self, x=None, y=None, **kwargs):
        self._check_labels(elements.fit_arguments(x, y, None)[1])
        return super().fit(x, y, **kwargs)

    def evaluate(self, x=None, y=None, **kwargs):
        self._check_labels(elements.fit_arguments(x, y, None)[1])
        return super().evaluate(x, y, **kwargs)

    def _looked_at(self, data, name, steps, event_shape=None):
        first = super()._looked_at(data, name, steps, event_shape)
        batches = arrays.batches(data).take(1) if hasattr(data, "element_spec") else [data]
        for element in batches:
            self._check_labels(elements.unpack(element)[1])
        return first

    def _watched(self, data, name):
        data = super()._watched(data, name)
        y = elements.unpack(data.element_spec)[1] if hasattr(data, "element_spec") else None
        if not (hasattr(y, "dtype") and y.dtype.is_integer and y.shape.rank == 1):
            return data
        complaint = f"expected class numbers from 0 to {self.label_dim - 1}, label_dim being {self.label_dim}"
        return validation.stop_at_unsupported(
            data, lambda y: ops.logical_and(y >= 0, y < self.label_dim), complaint, f"y of {name}", part=1
        )

    def _check_labels(self, y):
        """Raise ValueError for class numbers, an array (n,), that aren't all below label_dim."""
        y = np.asarray(y)
        if y.ndim == 1 and y.size and y.dtype.kind in "iu" and not (y.min() >= 0 and y.max() < self.label_dim):
            raise ValueError(
                f"y has class numbers from {y.min()} to {y.max()}; expected them from 0 to {self.label_dim - 1}, "
                f"label_dim being {self.label_dim}."
            )

    def _encoded(self, y):
        y = ops.convert_to_tensor(y)
        dtype = keras.backend.standardize_dtype(y.dtype)
        if len(y.shape) == 1 and "int" in dtype:
            return ops.one_hot(y, self.label_dim, dtype=self.variable_dtype)
        if len(y.shape) != 2 or y.shape[1] != self.label_dim:
            raise ValueError(
                f"y is {dtype} of shape {tuple(y.shape)}; expected class numbers, integers (n,), or numbers "
                f"(n, {self.label_dim})."
            )
        return ops.cast(y, self.variable_dtype)

    def decoder_distribution(self, z, training=False):
        """p(x|z,y) for the pair (z, y)."""
        return super().decoder_distribution(self._scaled(z), training)

    def log_likelihood(self, x, z, training=False):
        """log p(x|z,y), (n,), in nats, for the pair (x, y)."""
        return self.conditional_at(x, z, training).log_prob(self._scaled(x)[0])

    def conditional_at(self, x, z, training=False):
        """p(x|z,y) for z (n, latent_dim) and the y of the pair (x, y)."""
        return self.decoder_distribution((z, self._scaled(x)[1]), training)

    def call(self, x, training=False):
        return self.conditional_at(x, self.encode(x)).mean

    def sample(self, count=1, *, y, noise=False, seed=None):
        """Images of label y: z ~ p(z), and then the mean of p(x|z,y), or x ~ p(x|z,y) where noise is True.

        Args:
            count: int.
            y: a class number or numbers (label_dim,) for all images, or as many of either as there are images.
            noise, seed: as a VAE's.

        Returns:
            array (count, ...).
        """
        count, generator = self._sampling_of(count, seed)
        y = np.asarray(y)
        one = y.ndim == 0 or (y.ndim == 1 and y.dtype.kind == "f")
        self._check_labels(np.atleast_1d(y))
        if not one and len(y) != count:
            raise ValueError(f"There are {len(y)} labels for {count} images; expected one, or one for each.")
        y = np.repeat(y[None], count, axis=0) if one else y
        conditional = self.decoder_distribution((self.prior_distribution(count).sample(generator), y))
        return ops.convert_to_numpy(conditional.sample(generator) if noise else conditional.mean)

    def get_config(self):
        return {**super().get_config(), "label_dim": self.label_dim}
