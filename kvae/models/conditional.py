"""The conditional variational autoencoder: images given their labels."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from kvae import _compat, arguments
from kvae.data import elements, validation
from kvae.likelihoods import Likelihood
from kvae.models.vae import VAE
from kvae.posteriors import Posterior
from kvae.priors import Prior, VampPrior


@keras.saving.register_keras_serializable("kvae")
class ConditionalVAE(VAE):
    """A VAE of x given a label y: p(x|y) = integral of p(x|z,y) p(z) dz, with the encoder q(z|x,y).

    z doesn't depend on y. The elbo bounds log p(x|y). The model reads (x, y): a stream of pairs, or fit(x, y). Its
    methods take the pair (x, y) for a VAE's x; `decode`, `decoder_distribution` and `inverse_transform` take (z, y).

    y holds class numbers, integers (n,) below label_dim, and the networks see them one-hot; or numbers
    (n, label_dim), and the networks see them as they are.

    `export` writes the reconstruction of [x, y], with y as numbers (n, label_dim). An `input_signature` of two
    `keras.InputSpec`s in a list takes class numbers: shape=(None,), dtype="int64".

    Args:
        encoder: a Keras model from [x, y], (n, ...) and (n, label_dim), to the posterior's parameters: `kvae.networks`
            makes it with `label_dim=`.
        decoder: a Keras model from [z, y], (n, latent_dim) and (n, label_dim), to the likelihood's parameters.
        label_dim: int, the number of classes, or of y's columns.
        likelihood: p(x|z,y), as for a VAE.
        prior: p(z), as for a VAE, but no VampPrior: its images have no labels.
        posterior_family: the family of q(z|x,y), as for a VAE.
        seed: int, or None for a random one; of the noise eps.

    Raises:
        ValueError: if the networks, the likelihood and the prior don't fit each other, or for class numbers outside
            0 to label_dim - 1.

    Example:
        >>> encoder = kvae.networks.dense_encoder((6,), latent_dim=2, label_dim=3)
        >>> decoder = kvae.networks.dense_decoder((6,), latent_dim=2, label_dim=3)
        >>> kvae.ConditionalVAE(encoder, decoder, label_dim=3).sample(4, y=2).shape
        (4, 6)

    Reference:
        Sohn, Lee and Yan (2015), "Learning structured output representation using deep conditional generative
        models"; Kingma et al. (2014), "Semi-supervised learning with deep generative models", section 2.2.
    """

    config_names = (*VAE.config_names, "label_dim")

    _reads_labels = True
    _build_shapes_dict = _compat.call_shapes(lambda self: [(None, *self.event_shape), (None, self.label_dim)])

    def __init__(
        self,
        encoder: keras.layers.Layer,
        decoder: keras.layers.Layer,
        label_dim: int,
        likelihood: Likelihood | str = "gaussian",
        prior: Prior | None = None,
        posterior_family: Posterior | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ):
        if isinstance(prior, VampPrior):
            raise ValueError("A VampPrior is made of images without labels, whose q(z|x,y) isn't known: use another.")
        posterior_family = arguments.renamed(
            "posterior", kwargs.pop("posterior", None), "posterior_family", posterior_family
        )
        self.label_dim = arguments.integer_at_least("label_dim", label_dim, 1)  # the constructor may build with it
        super().__init__(encoder, decoder, likelihood, prior, posterior_family, seed, **kwargs)

    def fit(self, x: Any = None, y: Any = None, **options: Any) -> keras.callbacks.History:
        """Train on x and y, or on a stream of (x, y); see `kvae.VAE.fit`."""
        self._check_labels(elements.fit_arguments(x, y, None)[1])
        return super().fit(x, y, **options)

    def evaluate(self, x: Any = None, y: Any = None, **options: Any) -> Any:
        """The means of `metric_names` over x and y, or over a stream of (x, y); see `kvae.VAE.evaluate`."""
        self._check_labels(elements.fit_arguments(x, y, None)[1])
        return super().evaluate(x, y, **options)

    def decoder_distribution(self, z: Any, training: bool = False) -> Any:
        """p(x|z,y) for the pair (z, y). `training` goes to the decoder."""
        return super().decoder_distribution(self._scaled(z), training)

    def log_likelihood(self, x: Any, z: Any, training: bool = False) -> Any:
        """log p(x|z,y), (n,), in nats, for the pair (x, y) and z (n, latent_dim). `training` goes to the decoder."""
        images, labels = self._scaled(x)
        return self.decoder_distribution((z, labels), training).log_prob(images)

    def sample(self, count: int = 1, *, y: ArrayLike, noise: bool = False, seed: int | None = None) -> np.ndarray:
        """Images of label y: z ~ p(z), then E[x|z,y], or with `noise` a draw of p(x|z,y).

        Args:
            count: int, the number of images.
            y: a class number or numbers (label_dim,) for all images, or as many of either as there are images.
            noise: bool, whether the likelihood's own noise is drawn too.
            seed: int for images that repeat; with None the model's own generator goes on.

        Returns:
            An array (count, ...).
        """
        count, generator = self._count_and_generator(count, seed)
        arguments.boolean("noise", noise)
        y = arguments.array("y", y)
        is_one = y.ndim == 0 or (y.ndim == 1 and y.dtype.kind == "f")
        self._check_labels(np.atleast_1d(y))
        if not is_one and len(y) != count:
            raise ValueError(f"There are {len(y)} labels for {count} images; expected one, or one for each.")
        y = np.repeat(y[None], count, axis=0) if is_one else y
        distribution = self.decoder_distribution((self.prior_distribution(count).sample(generator), y))
        return ops.convert_to_numpy(distribution.sample(generator) if noise else distribution.mean)

    def _symbol(self, shape, dtype=None):
        return [super()._symbol(shape, dtype), super()._symbol((self.label_dim,), dtype)]

    def _export_signature(self, dtype):
        y = keras.InputSpec(self.variable_dtype, (None, self.label_dim), name="y")
        return [[*super()._export_signature(dtype), y]]

    def _with_labels(self, z, x):
        return z, self._scaled(x)[1]

    def _read(self, element):
        x, y, _ = elements.unpack(element)
        if y is None and isinstance(x, tuple | list):  # as Keras gives it to `predict_step`
            x, y = x
        if y is None or isinstance(y, dict):
            found = "none" if y is None else f"a dict with the keys {sorted(y)}"
            raise ValueError(f"A ConditionalVAE reads images and labels, (x, y), and y is {found}: map the data to it.")
        if hasattr(y, "numpy") or isinstance(y, np.ndarray):
            self._check_labels(y)
        return x, y

    def _scaled(self, x):
        """[x, y] of the pair, as the networks take them."""
        if not isinstance(x, tuple | list) or len(x) != 2:
            raise ValueError(f"Found {type(x).__name__}; a ConditionalVAE takes a pair, (x, y) or (z, y).")
        return [super()._scaled(x[0]), self._encoded(x[1])]

    def _encoded(self, y):
        """y as the networks see it: numbers (n, label_dim)."""
        y = ops.convert_to_tensor(y)
        if hasattr(y, "numpy"):  # not in a graph, where streams are checked before
            self._check_labels(y)
        dtype = keras.backend.standardize_dtype(y.dtype)
        if len(y.shape) == 1 and "int" in dtype:
            return ops.one_hot(y, self.label_dim, dtype=self.variable_dtype)
        if len(y.shape) != 2 or y.shape[1] != self.label_dim:
            raise ValueError(
                f"y is {dtype} of shape {tuple(y.shape)}; expected class numbers, integers (n,), or numbers "
                f"(n, {self.label_dim})."
            )
        return ops.cast(y, self.variable_dtype)

    def _check_values(self, x, y):
        super()._check_values(x, y)
        self._check_labels(y)

    def _scorable(self, data, name):
        """The same data; a stream stops at class numbers outside 0 to label_dim - 1, too."""
        data = super()._scorable(data, name)
        spec = getattr(data, "element_spec", None)  # arrays have none: `_check_values` looks at all their y
        y: Any = None if spec is None else elements.unpack(spec)[1]
        if not (hasattr(y, "dtype") and y.dtype.is_integer and y.shape.rank == 1):
            return data
        complaint = f"expected class numbers from 0 to {self.label_dim - 1}, label_dim being {self.label_dim}"

        def is_class(y):
            return ops.logical_and(y >= 0, y < self.label_dim)

        return validation.stop_at_unsupported(data, is_class, complaint, f"y of {name}", part=1)

    def _check_labels(self, y):
        """Raise ValueError for class numbers, an array (n,), outside 0 to label_dim - 1."""
        y = np.asarray(y)
        if y.ndim == 1 and y.size and y.dtype.kind in "iu" and not (y.min() >= 0 and y.max() < self.label_dim):
            raise ValueError(
                f"y has class numbers from {y.min()} to {y.max()}; expected them from 0 to {self.label_dim - 1}, "
                f"label_dim being {self.label_dim}."
            )
