"""The vector-quantised variational autoencoder."""

import math
import numbers

import keras
import numpy as np
from keras import ops

from kvae import arguments, likelihoods
from kvae.data import elements
from kvae.models.pair import PairModel, check_built_for
from kvae.quantising import Perplexity, VectorQuantizer


@keras.saving.register_keras_serializable("kvae")
class VQVAE(PairModel):
    """A code of x is whole numbers: which of K learned vectors is nearest to each of the encoder's.

    Van den Oord, Vinyals and Kavukcuoglu (2017), "Neural discrete representation learning", equation 3: minimises
    -log p(x|e) + ||sg[z] - e||^2 + commitment ||z - sg[e]||^2, z being the encoder's vectors, e the nearest of the
    codebook, sg what has no gradient; all of it summed over an example. Reports `loss`; `reconstruction_loss`,
    -log p(x|e); `quantization_loss`, ||z - e||^2; `elbo`, -reconstruction_loss - positions log K, which bounds the log
    p(x) of codes that are uniform; and `perplexity`, exp of the entropy of all the codes of the data: of K, how many
    are in use.

    Args:
        encoder: a Keras model from x (n, ...) to vectors (n, ..., d), such as (n, height, width, d), of which each
            becomes a number.
        decoder: a Keras model from such vectors to what the likelihood reads.
        codes: int, K.
        commitment: number >= 0, what it costs the encoder to be far from the codebook.
        likelihood: p(x|e), as a VAE's.
        seed: int or None (random), of the first codebook and of `sample`.

    Raises:
        ValueError: where the networks and the likelihood don't fit each other.
    """

    reported = ("loss", "reconstruction_loss", "quantization_loss", "elbo")

    def __init__(self, encoder, decoder, codes=512, commitment=0.25, likelihood="gaussian", seed=None, **kwargs):
        super().__init__(encoder, decoder, **kwargs)
        if isinstance(commitment, bool) or not isinstance(commitment, numbers.Real) or not 0 <= commitment < math.inf:
            raise ValueError(f"commitment is {commitment!r}; expected a number of at least 0.")
        self.commitment, self.seed = float(commitment), arguments.seed(seed)
        self.likelihood = likelihoods.get(likelihood)
        self.quantizer = VectorQuantizer(codes, self.seed)
        self.perplexity = Perplexity(self.quantizer.codes)
        self.sample_seed = keras.random.SeedGenerator(self.seed)
        self._build_if_shape_is_known()

    def compile(self, optimizer="adam", loss=None, **kwargs):
        """As `keras.Model.compile`. The loss is the model's own; another raises ValueError."""
        if loss is not None:
            raise ValueError(f"loss is {loss!r}; a VQVAE minimises its own and takes none.")
        super().compile(optimizer=optimizer, **kwargs)

    def check_networks(self, code_shapes, output_shapes, event_shape):
        if len(code_shapes) != 1 or len(code_shapes[0]) < 2 or None in code_shapes[0][1:]:
            raise ValueError(f"The encoder gives outputs of shapes {code_shapes}; expected one, vectors (n, ..., d).")
        self.likelihood.check_outputs(output_shapes, event_shape)
        if not self.quantizer.built:
            self.quantizer.build(code_shapes[0])
        self.code_shape = tuple(code_shapes[0][1:-1])

    def build_parts(self, event_shape):
        super().build_parts(event_shape)
        self.latent_dim = math.prod(self.code_shape)
        if not self.likelihood.built:
            self.likelihood.build((None, *event_shape))
        check_built_for("likelihood", self.likelihood.event_shape, event_shape)

    def vectors(self, x, training=False):
        """The encoder's vectors before they are quantised: x (n, ...) to (n, ..., d)."""
        return self.outputs_of(self.encoder, self._scaled(x), training)[0]

    def decoder_distribution(self, vectors, training=False):
        """p(x|e) for the codebook's vectors e (n, ..., d)."""
        return self.likelihood.distribution(self.outputs_of(self.decoder, vectors, training))

    def encode(self, x):
        """The codes of x: (n, ...) to int32 (n, *code_shape), from 0 to codes - 1."""
        return self.quantizer.nearest(self.vectors(x))

    def decode(self, z):
        """The images' means of codes, integers (n, *code_shape)."""
        return self.decoder_distribution(self.quantizer.embed(z)).mean

    def losses_per_example(self, x, training=False, index=None):
        vectors = self.vectors(x, training)
        reconstruction = -self.decoder_distribution(self.quantizer(vectors), training).log_prob(x)
        codebook, commitment = self.quantizer.distances(vectors)
        return reconstruction + codebook + self.commitment * commitment, {
            "reconstruction_loss": reconstruction,
            "quantization_loss": codebook,
            "elbo": -reconstruction - self.latent_dim * math.log(self.quantizer.codes),
            "codes": self.quantizer.nearest(vectors),
        }

    def _report(self, x, losses, parts, sample_weight):
        self.perplexity.update_state(parts["codes"])
        super()._report(x, losses, parts, sample_weight)

    @property
    def metrics(self):
        return [*super().metrics, self.perplexity]

    def _compiled_metrics(self):
        return [metric for metric in super()._compiled_metrics() if metric is not self.perplexity]

    def _check_values(self, x):
        self.likelihood.check_data(x)

    def inverse_transform(self, z, batch_size=elements.BATCH_SIZE):
        """The images' means of codes, an integer array (n, *code_shape), to an array (n, ...)."""
        self.check_built()
        z, codes = np.asarray(z), self.quantizer.codes
        if z.dtype.kind not in "iu" or z.shape[1:] != self.code_shape or not len(z):
            raise ValueError(f"z is {z.dtype} of shape {z.shape}; expected integers of shape (n, *{self.code_shape}).")
        if z.min() < 0 or z.max() >= codes:
            raise ValueError(f"z reaches from {z.min()} to {z.max()}; expected codes from 0 to {codes - 1}.")
        parts = [z[start : start + batch_size].astype("int32") for start in range(0, len(z), batch_size)]
        return np.concatenate([ops.convert_to_numpy(self.decode(part)) for part in parts])

    def reset_unused_codes(self, x):
        """Move each code that no vector of x is near to one of x's vectors, drawn at random; return how many moved.

        A code that isn't used has no gradient and so remains unused. Before training this makes vectors of the data
        of most codes; between epochs it brings back those that were lost.

        x: an array of some hundred images or more.
        """
        self._first_batch(x, "x", None)
        vectors = self.vectors(x)
        unused = np.bincount(np.ravel(self.quantizer.nearest(vectors)), minlength=self.quantizer.codes) == 0
        rows = ops.convert_to_numpy(vectors).reshape(-1, vectors.shape[-1])
        codebook = ops.convert_to_numpy(self.quantizer.codebook).copy()
        chosen = keras.random.randint((int(unused.sum()),), 0, len(rows), seed=self.sample_seed)
        codebook[unused] = rows[ops.convert_to_numpy(chosen)]
        self.quantizer.codebook.assign(codebook)
        return int(unused.sum())

    def code_frequencies(self, data, batch_size=elements.BATCH_SIZE):
        """How often each code stands at each position: an array (*code_shape, codes), sums over the codes being 1."""
        numbers, positions = self.transform(data, batch_size).reshape(-1, self.latent_dim), np.arange(self.latent_dim)
        counts = np.zeros((self.latent_dim, self.quantizer.codes))
        np.add.at(counts, (np.broadcast_to(positions, numbers.shape), numbers), 1)
        return (counts / len(numbers)).reshape(*self.code_shape, -1)

    def sample(self, count=1, *, frequencies=None, noise=False, seed=None):
        """Images of codes that are drawn independently at each position: uniformly, or as often as `frequencies` says.

        Neither is how an image's codes go together, for which the authors train a second model of the codes: these
        images show what a codebook holds rather than what the data look like.

        Args:
            count: int.
            frequencies: None, or an array (codes,) or (*code_shape, codes), as `code_frequencies` gives.
            noise: bool, whether the likelihood's own noise is drawn too.
            seed: int for images that repeat; None goes on with the model's own generator.

        Returns:
            array (count, ...).
        """
        count, generator = self._sampling_of(count, seed)
        shape = (*self.code_shape, self.quantizer.codes)
        frequencies = np.broadcast_to(1.0 if frequencies is None else frequencies, shape).reshape(-1, shape[-1])
        with np.errstate(divide="ignore"):
            logits = np.log(frequencies).astype(self.variable_dtype)
        drawn = ops.transpose(keras.random.categorical(logits, count, dtype="int32", seed=generator))
        conditional = self.decoder_distribution(self.quantizer.embed(ops.reshape(drawn, (count, *self.code_shape))))
        return ops.convert_to_numpy(conditional.sample(generator) if noise else conditional.mean)

    def get_config(self):
        return {
            **super().get_config(),
            "codes": self.quantizer.codes,
            "commitment": self.commitment,
            "likelihood": keras.saving.serialize_keras_object(self.likelihood),
            "seed": self.seed,
        }
