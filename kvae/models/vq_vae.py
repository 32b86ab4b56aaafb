"""The vector-quantized variational autoencoder: codes are whole numbers, the nearest vectors of a codebook."""

from __future__ import annotations

import functools
import math
import numbers
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from numpy.typing import ArrayLike

from kvae import arguments, likelihoods
from kvae.data import elements, errors
from kvae.distributions import sum_event
from kvae.models.encoder_decoder import (
    EncoderDecoder,
    build_likelihood,
    network_shapes,
    outputs_or_error,
    warn_of_activations,
)
from kvae.models.step import Step
from kvae.training import plan


@keras.saving.register_keras_serializable("kvae")
class VectorQuantizer(keras.layers.Layer):
    """Replaces each vector, along the last axis, by the nearest of K learned vectors e_1 to e_K.

    The gradient passes to the input as if nothing had been replaced ("straight-through"). The codebook learns from
    `distances`.

    Args:
        codes: int, K, at least 2.
        seed: int, or None for a random one; of the first codebook, drawn from N(0, I / d).

    Raises:
        ValueError: for fewer than 2 codes.

    Example:
        >>> quantizer = VectorQuantizer(codes=4, seed=0)
        >>> quantizer(np.zeros((5, 7, 7, 3), "float32")).shape
        TensorShape([5, 7, 7, 3])

    Reference:
        Van den Oord, Vinyals and Kavukcuoglu (2017), "Neural discrete representation learning".
    """

    def __init__(self, codes: int = 512, seed: int | None = None, **kwargs: Any):
        # In half precision, near codes would become one.
        super().__init__(**{"dtype": keras.config.dtype_policy().variable_dtype, **kwargs})
        self.codes, self.seed = arguments.integer_at_least("codes", codes, 2), arguments.seed(seed)

    def build(self, input_shape: tuple) -> None:
        """Make the codebook for vectors of `input_shape`, (None, ..., d)."""
        size = input_shape[-1]
        start = keras.initializers.RandomNormal(stddev=size**-0.5, seed=self.seed)
        shape = self.codes, size
        self.codebook = self.add_weight(name="codebook", shape=shape, initializer=start, autocast=False)
        super().build(input_shape)

    def nearest(self, z: Any) -> Any:
        """The numbers of the nearest e, by ||z - e||: (n, ..., d) to int32 (n, ...)."""
        codebook = ops.convert_to_tensor(self.codebook)
        rows = ops.reshape(z, (-1, z.shape[-1]))
        distance = ops.sum(ops.square(codebook), axis=1) - 2.0 * ops.matmul(rows, ops.transpose(codebook))
        return ops.reshape(ops.cast(ops.argmin(distance, axis=1), "int32"), (-1, *z.shape[1:-1]))

    def embed(self, numbers: Any) -> Any:
        """The e of these numbers: (n, ...) to (n, ..., d)."""
        return ops.take(1.0 * ops.convert_to_tensor(self.codebook), numbers, axis=0)  # 1.0 *: a dense gradient

    def call(self, z: Any) -> Any:
        """z + stop_gradient(e - z) for the nearest e: (n, ..., d) to the same shape."""
        return z + ops.stop_gradient(self.embed(self.nearest(z)) - z)

    def distances(self, z: Any) -> tuple[Any, Any]:
        """||z - e||^2 summed over an example, (n,), twice: with a gradient for e alone, and for z alone."""
        nearest = self.embed(self.nearest(z))
        differences = ops.stop_gradient(z) - nearest, z - ops.stop_gradient(nearest)
        codebook, commitment = (sum_event(ops.square(difference)) for difference in differences)
        return codebook, commitment

    def get_config(self) -> dict[str, Any]:
        """Keras' hook: the constructor's arguments."""
        return {**super().get_config(), "codes": self.codes, "seed": self.seed}


class Perplexity(keras.metrics.Metric):
    """exp of the entropy of all numbers seen: 1 if they are all equal, K if all K are equally frequent.

    Args:
        codes: int, K.
        name: str, in the logs.
    """

    def __init__(self, codes: int, name: str = "perplexity", **kwargs: Any):
        super().__init__(name=name, **{"dtype": "float64", **kwargs})
        self.counts = self.add_variable((codes,), "zeros", self.dtype, name="counts")

    def update_state(self, numbers: Any) -> None:
        """Add numbers, integers from 0, of any shape."""
        flat = ops.reshape(numbers, (-1,))
        ones = ops.ones(ops.shape(flat), dtype=self.dtype)
        self.counts.assign_add(ops.segment_sum(ones, flat, num_segments=self.counts.shape[0]))

    def result(self) -> Any:
        """The perplexity, a scalar; NaN before the first number."""
        total = ops.sum(self.counts.value)
        frequencies = ops.divide_no_nan(self.counts.value, total)
        perplexity = ops.exp(-ops.sum(frequencies * ops.log(ops.where(frequencies > 0, frequencies, 1.0))))
        return ops.where(total > 0, perplexity, float("nan"))


@keras.saving.register_keras_serializable("kvae")
class VQVAE(EncoderDecoder):
    """A code of x is whole numbers: the nearest of K learned vectors to each of the encoder's vectors z.

    Minimizes -log p(x|e) + ||sg[z] - e||^2 + commitment ||z - sg[e]||^2 in nats, summed over an example. e is the
    nearest vector of the codebook, and sg stops the gradient. Reports `loss`; `reconstruction_loss`, -log p(x|e);
    `quantization_loss`, ||z - e||^2; `elbo`, log p(x|e) + log p(codes), a lower bound of log p(x); and `perplexity`,
    how many of the K codes are in use.

    Without a `prior`, codes are uniform: log p(codes) = -positions log K, and samples are incoherent. With one, a
    second network gives the distribution of each code given those before it, p(codes) = prod_i p(c_i | c_1, ...,
    c_i-1), and `sample` draws one code after the other. `fit` trains it too: -log p(codes) is added to the loss, and
    reported as `prior_loss`. Codes are integers, so neither encoder nor codebook has a gradient from it: in the
    paper the prior is trained after them.

    Args:
        encoder: a Keras model from x (n, ...) to vectors z (n, ..., d), such as (n, height, width, d).
        decoder: a Keras model from such vectors to the likelihood's parameters.
        codes: int, K.
        commitment: number >= 0, the encoder's cost of being far from the codebook.
        likelihood: p(x|e), as for a VAE.
        seed: int, or None for a random one; of the first codebook and of `sample`.
        prior: a Keras model from codes, integers (n, ...), to logits (n, ..., K) of each given those before it, such as
            `kvae.networks.causal_transformer`; None for uniform codes.

    Raises:
        ValueError: if the networks and the likelihood don't fit each other, if the prior's logits of a code depend on
            it or on later ones, or for numbers out of range.

    Example:
        >>> encoder = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(3, 4, 4)])
        >>> decoder = keras.Sequential([keras.Input((2, 2, 3)), keras.layers.Conv2DTranspose(1, 4, 4)])
        >>> kvae.VQVAE(encoder, decoder, codes=16).transform(np.zeros((5, 8, 8, 1), "float32")).shape
        (5, 2, 2)

    Reference:
        Van den Oord, Vinyals and Kavukcuoglu (2017), "Neural discrete representation learning", equation 3.
    """

    conditional = arguments.renamed_method("conditional", "decoder_distribution")
    metric_names = ("loss", "reconstruction_loss", "quantization_loss", "elbo")
    _has_exact_scores = True
    config_names = ("encoder", "decoder", "codes", "commitment", "likelihood", "seed", "prior")

    def __init__(
        self,
        encoder: keras.layers.Layer,
        decoder: keras.layers.Layer,
        codes: int = 512,
        commitment: float = 0.25,
        likelihood: likelihoods.Likelihood | str = "gaussian",
        seed: int | None = None,
        prior: keras.layers.Layer | None = None,
        **kwargs: Any,
    ):
        if prior is not None:
            example = "a Keras model, such as kvae.networks.causal_transformer(code_shape, codes), or None"
            arguments.instance("prior", prior, keras.layers.Layer, example)
            self.metric_names = (*self.metric_names, "prior_loss")
        self.prior = prior
        super().__init__(encoder, decoder, **kwargs)
        if isinstance(commitment, bool) or not isinstance(commitment, numbers.Real) or not 0 <= commitment < math.inf:
            raise ValueError(f"commitment is {commitment!r}; expected a number of at least 0.")
        self.commitment, self.seed = float(commitment), arguments.seed(seed)
        self.likelihood = likelihoods.get(likelihood)
        self.quantizer = VectorQuantizer(codes, self.seed)
        self.codes = self.quantizer.codes
        self.perplexity = Perplexity(self.codes)
        self.sample_seed = keras.random.SeedGenerator(self.seed)
        self._build_if_shape_is_known()

    def train_step(self, data: Any) -> dict[str, Any]:
        """One step down the loss of a batch `data`. `kvae.models.step` keeps NaN out and averages over replicas."""
        with Step(self, data) as step:
            with tf.GradientTape() as tape:
                losses, numbers = self.losses_per_example(step.x, training=True)
                loss = step.loss(losses)
            return step.apply_gradients(tape.gradient(loss, self.trainable_weights), losses=losses, numbers=numbers)

    def losses_per_example(self, x: Any, training: bool = False, index: Any = None) -> tuple[Any, dict[str, Any]]:
        """(loss (n,), {name: (n,)}) of x (n, ...), in nats. `training` goes to the networks; no `index` is read."""
        x = self._scaled(x)
        vectors = self.vectors(x, training)
        reconstruction = -self.decoder_distribution(self.quantizer(vectors), training).log_prob(x)
        codebook, commitment = self.quantizer.distances(vectors)
        codes = self.quantizer.nearest(vectors)
        prior_loss = -self.log_prior(codes, training)
        loss = reconstruction + codebook + self.commitment * commitment
        return loss if self.prior is None else loss + prior_loss, {
            "reconstruction_loss": reconstruction,
            "quantization_loss": codebook,
            "elbo": -reconstruction - prior_loss,
            "prior_loss": prior_loss,
            "codes": codes,
        }

    def _exact_scores(self, x):
        return self.losses_per_example(x)[1]["elbo"]

    def log_prior(self, z: Any, training: bool = False) -> Any:
        """log p(z) of codes z, integers (n, *code_shape): (n,), in nats. `training` goes to the prior."""
        if self.prior is None:
            return ops.full(ops.shape(z)[:1], -self.latent_dim * math.log(self.codes), self.variable_dtype)
        logits = self._outputs(self.prior, z, training)[0]
        chosen = ops.take_along_axis(logits, ops.expand_dims(z, -1), axis=-1)[..., 0]
        return sum_event(chosen - ops.logsumexp(logits, axis=-1))

    def vectors(self, x: Any, training: bool = False) -> Any:
        """The encoder's vectors before quantization: x (n, ...) to (n, ..., d). `training` goes to the encoder."""
        return self._outputs(self.encoder, self._scaled(x), training)[0]

    def decoder_distribution(self, vectors: Any, training: bool = False) -> Any:
        """p(x|e) for vectors e of the codebook (n, ..., d). `training` goes to the decoder."""
        return self.likelihood.distribution(self._outputs(self.decoder, vectors, training))

    def encode(self, x: Any) -> Any:
        """The codes of x: (n, ...) to int32 (n, *code_shape), from 0 to codes - 1."""
        return self.quantizer.nearest(self.vectors(x))

    def decode(self, z: Any) -> Any:
        """E[x] of codes z, integers (n, *code_shape): (n, ...)."""
        return self._of_code(z).mean

    def _of_code(self, z):
        return self.decoder_distribution(self.quantizer.embed(z))

    def inverse_transform(self, z: ArrayLike, batch_size: int = elements.BATCH_SIZE) -> np.ndarray:
        """E[x] of codes z, an integer array (n, *code_shape), `batch_size` at a time: an array (n, ...)."""
        self.check_built()
        elements.validate_batch_size(batch_size)
        z = arguments.array("z", z)
        if z.dtype.kind not in "iu" or z.shape[1:] != self.code_shape or not len(z):
            raise ValueError(f"z is {z.dtype} of shape {z.shape}; expected integers of shape (n, *{self.code_shape}).")
        if z.min() < 0 or z.max() >= self.codes:
            raise ValueError(f"z reaches from {z.min()} to {z.max()}; expected codes from 0 to {self.codes - 1}.")
        batches = [z[start : start + batch_size].astype("int32") for start in range(0, len(z), batch_size)]
        return np.concatenate([ops.convert_to_numpy(self.decode(batch)) for batch in batches])

    def reset_unused_codes(self, x: Any) -> int:
        """Move each code that is nearest to none of x's vectors to one of them at random. Returns how many moved.

        An unused code has no gradient, so it stays unused. Call this before training, to put most codes among the
        data, and between epochs, to recover lost ones.

        Args:
            x: an array (n, ...) of some hundred images or more; of a stream, its first batch is taken.
        """
        with errors.clear_errors():
            x = elements.as_dataset(x)
            first = plan.first_batch(self, x, "x")
            plan.build_for(self, first.x)
        x = first.x if isinstance(x, tf.data.Dataset) else elements.native(np.asarray(elements.unpack(x)[0][:]))
        vectors = self.vectors(x)
        unused = np.bincount(np.ravel(self.quantizer.nearest(vectors)), minlength=self.codes) == 0
        rows = ops.convert_to_numpy(vectors).reshape(-1, vectors.shape[-1])
        codebook = ops.convert_to_numpy(self.quantizer.codebook).copy()
        chosen = keras.random.randint((int(unused.sum()),), 0, len(rows), seed=self.sample_seed)
        codebook[unused] = rows[ops.convert_to_numpy(chosen)]
        self.quantizer.codebook.assign(codebook)
        return int(unused.sum())

    def code_frequencies(self, x: Any, batch_size: int = elements.BATCH_SIZE) -> np.ndarray:
        """The frequency of each code at each position over x: an array (*code_shape, codes) that sums to 1 over codes.

        Args:
            x: a stream of batches or an array.
            batch_size: int, of an array.
        """
        codes: Any = self.transform(x, batch_size)
        numbers, positions = codes.reshape(-1, self.latent_dim), np.arange(self.latent_dim)
        counts = np.zeros((self.latent_dim, self.codes))
        np.add.at(counts, (np.broadcast_to(positions, numbers.shape), numbers), 1)
        return (counts / len(numbers)).reshape(*self.code_shape, -1)

    def sample(
        self,
        count: int = 1,
        *,
        frequencies: ArrayLike | None = None,
        noise: bool = False,
        seed: int | None = None,
    ) -> np.ndarray:
        """Images of codes drawn from the prior, one after the other; without a prior, or with `frequencies`, at random.

        Real images have codes that go together. Codes that are drawn independently at each position show the contents
        of a codebook rather than the look of the data.

        Args:
            count: int, the number of images.
            frequencies: None for the prior (uniform codes, if there is none), or an array (codes,) or
                (*code_shape, codes) of `code_frequencies`: the codes are then independent.
            noise: bool, whether the likelihood's own noise is drawn too.
            seed: int for images that repeat; with None the model's own generator goes on.

        Returns:
            An array (count, ...).
        """
        count, generator = self._count_and_generator(count, seed)
        arguments.boolean("noise", noise)
        if frequencies is None and self.prior is not None:
            drawn = self._drawn_from_prior(count, generator)
        else:
            drawn = self._drawn_independently(count, frequencies, generator)
        distribution = self.decoder_distribution(self.quantizer.embed(drawn))
        return ops.convert_to_numpy(distribution.sample(generator) if noise else distribution.mean)

    def _drawn_from_prior(self, count, generator):
        """Codes (count, *code_shape), each given those before it."""
        codes = np.zeros((count, self.latent_dim), "int32")
        for position in range(self.latent_dim):
            logits = self._logits_at(codes.reshape(count, *self.code_shape), position)
            codes[:, position] = keras.random.categorical(logits, 1, dtype="int32", seed=generator)[:, 0]
        return codes.reshape(count, *self.code_shape)

    @functools.cached_property
    def _logits_at(self):
        def logits(codes, position):
            return ops.reshape(self._outputs(self.prior, codes)[0], (-1, self.latent_dim, self.codes))[:, position]

        signature = tf.TensorSpec((None, *self.code_shape), "int32"), tf.TensorSpec((), "int32")
        return tf.function(logits, input_signature=signature, autograph=False)

    def _drawn_independently(self, count, frequencies, generator):
        shape = (*self.code_shape, self.codes)
        frequencies = np.ones(()) if frequencies is None else arguments.array("frequencies", frequencies)
        allowed = (), shape[-1:], shape
        if frequencies.shape not in allowed or not np.all(frequencies >= 0) or not np.all(np.isfinite(frequencies)):
            raise ValueError(
                f"frequencies are of shape {frequencies.shape}; expected numbers of at least 0, of shape {shape[-1:]} "
                f"or {shape}."
            )
        weights = np.broadcast_to(frequencies, shape).reshape(-1, shape[-1])
        with np.errstate(divide="ignore"):
            logits = np.log(weights).astype(self.variable_dtype)
        drawn = ops.transpose(keras.random.categorical(logits, count, dtype="int32", seed=generator))
        return ops.reshape(drawn, (count, *self.code_shape))

    def compile(self, optimizer: Any = "adam", loss: None = None, **kwargs: Any) -> None:
        """`keras.Model.compile` with an optimizer. The loss is the model's own; another raises ValueError."""
        if loss is not None:
            raise ValueError(f"loss is {loss!r}; a VQVAE minimizes its own and takes none.")
        super().compile(optimizer=optimizer, **kwargs)

    def _build_parts(self, event_shape):
        code_shapes, image_shapes = network_shapes(self, event_shape)
        if len(code_shapes) != 1 or len(code_shapes[0]) < 2 or None in code_shapes[0][1:]:
            raise ValueError(f"The encoder gives outputs of shapes {code_shapes}; expected one, vectors (n, ..., d).")
        self.likelihood.check_outputs(image_shapes, event_shape)
        warn_of_activations(self.decoder, "decoder", self.likelihood.parameters, self.likelihood)
        if not self.quantizer.built:
            self.quantizer.build(code_shapes[0])
        self.code_shape = tuple(code_shapes[0][1:-1])
        self.latent_dim = math.prod(self.code_shape)
        build_likelihood(self, event_shape)
        if self.prior is not None:
            self._check_prior()

    @property
    def networks(self) -> tuple[keras.layers.Layer, ...]:
        """The networks that the model is made of."""
        return super().networks if self.prior is None else (*super().networks, self.prior)

    def _check_prior(self):
        """Raise ValueError unless the prior gives logits of all codes, each without a look at itself or later codes."""
        symbol = keras.KerasTensor((None, *self.code_shape), dtype="int32")
        shapes = [tuple(each.shape) for each in outputs_or_error(self.prior, symbol, "prior")]
        expected = (None, *self.code_shape, self.codes)
        if shapes != [expected]:
            raise ValueError(f"The prior gives outputs of shapes {shapes}; expected one, logits {expected}.")
        codes = np.random.default_rng(0).integers(0, self.codes, (1, self.latent_dim), "int32")
        changed = (codes + np.eye(self.latent_dim, dtype="int32")) % self.codes  # row i differs in code i
        rows = np.concatenate([codes, changed]).reshape(-1, *self.code_shape)
        logits = ops.convert_to_numpy(self._outputs(self.prior, rows)[0]).reshape(len(rows), self.latent_dim, -1)
        moved = np.max(np.abs(logits[1:] - logits[:1]), axis=2)
        if np.max(np.tril(moved)) > 1e-2 * max(1e-6, np.max(np.abs(logits))):
            raise ValueError(
                "The prior's logits of a code change with this code or a later one; expected them to depend on the "
                "codes before it alone, row after row, as those of kvae.networks.causal_transformer do."
            )

    def _update_own_metrics(self, numbers):
        self.perplexity.update_state(numbers["codes"])
